"""Termination messages: everything that fits comes through, nothing is ever too long, and nothing that a pod leaves is trusted."""

import json
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_api.common import Budget, OpenAIEngine
from nativealign_api.cost import dollars
from nativealign_api.messages import MESSAGE_LIMIT, TerminationMessage, Usage, pack, unpack
from nativealign_api.status import Pinned, StepStatus

COUNTS = st.dictionaries(st.text(max_size=20), st.integers(0, 2**53), max_size=5)


@given(counts=COUNTS, message=st.text(max_size=200), gates=st.lists(st.text(max_size=20), max_size=3))
def test_a_message_comes_through(counts: dict[str, int], message: str, gates: list[str]) -> None:
    found = unpack(pack({"counts": counts, "message": message, "failedGates": gates}))
    assert found == TerminationMessage(counts=counts, message=message, failed_gates=gates)


def test_the_pins_of_the_largest_mix_fit() -> None:
    names = [f"mix/{secrets.token_hex(31)}" for _ in range(32)]
    pinned = Pinned(inputs={name: secrets.token_hex(16) for name in names}, shards=dict.fromkeys(names, 10_000))
    text = pack({"step": "inspect", "pinned": pinned.model_dump(by_alias=True)})
    found = unpack(text)
    assert len(text.encode()) <= MESSAGE_LIMIT
    assert found
    assert found.pinned == pinned


def test_what_is_too_long_is_cut_and_the_cause_stays() -> None:
    text = pack({"code": "InternalError", "message": secrets.token_hex(20_000), "hint": "report it"})
    found = unpack(text)
    assert len(text.encode()) <= MESSAGE_LIMIT
    assert found
    assert (found.code, found.hint) == ("InternalError", "report it")
    assert len(found.message) > 1000


@pytest.mark.parametrize(
    "left",
    ["", "Killed", "[1]", '"x"', "3", "null", "{", '{"counts": 3}', '{"packed": "abc"}', '{"packed": 3}', "[" * 100_000],
)
def test_what_is_no_message_is_none(left: str) -> None:
    assert unpack(left) is None


def test_a_loss_that_is_no_number_is_not_shown() -> None:
    """An apiserver takes no status with it."""
    message, step = (
        unpack(pack({"metrics": {"loss": float("nan"), "perplexity": float("inf"), "score": 0.5}})),
        StepStatus(name="a"),
    )
    assert message
    message.show(step)
    assert step.metrics == {"score": 0.5}


def test_fields_of_a_newer_version_are_ignored() -> None:
    assert unpack(json.dumps({"step": "clean", "newer": [1]})) == TerminationMessage(step="clean")


def test_money_is_the_prompt_and_the_completion_at_their_own_prices() -> None:
    prices = Budget.model_validate({"promptUsdPerMillionTokens": 10, "completionUsdPerMillionTokens": "30.5"})
    endpoint = OpenAIEngine(model="m", endpoint="http://h/v1", budget=prices)
    assert dollars(endpoint, Usage(requests=3, tokens=3_000_000, completion_tokens=1_000_000)) == 50.5
    assert dollars(endpoint.model_copy(update={"budget": Budget()}), Usage(tokens=5)) == 0
