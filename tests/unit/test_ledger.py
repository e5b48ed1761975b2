"""The ledger: counts and id sums that add up, or say that they do not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_api.vocabulary import Outcome
from nativealign_workloads.commit import check_counts
from nativealign_workloads.errors import DataError
from nativealign_workloads.ledger import Tally, document_id, total

OUTCOMES = st.lists(st.sampled_from(list(Outcome)), max_size=30)


def _tally(outcomes: list[Outcome], key: str = "k") -> Tally:
    tally = Tally()
    for ordinal, outcome in enumerate(outcomes):
        tally.add(document_id("web", key, ordinal), outcome, "Because")
    return tally


@given(OUTCOMES, OUTCOMES)
def test_shards_add_up_in_any_order_and_survive_json(first: list[Outcome], second: list[Outcome]) -> None:
    parts = [_tally(first, "a"), _tally(second, "b")]
    whole = total(parts)
    assert whole.balanced()
    assert whole.read.count == len(first) + len(second)
    assert total(reversed(parts)).dump() == whole.dump()
    assert Tally.load(json.loads(json.dumps(whole.dump()))) == whole


def test_a_lost_document_is_noticed() -> None:
    tally = _tally([Outcome.OUT] * 5)
    tally.read.add(document_id("web", "k", 99))
    with pytest.raises(DataError, match="CountsDiffer"):
        check_counts("step", tally, None)


def test_a_document_that_took_the_place_of_another_is_noticed_though_the_counts_agree() -> None:
    expected, found = _tally([Outcome.OUT] * 5), _tally([Outcome.OUT] * 4)
    found.add(document_id("web", "other", 1), Outcome.OUT)
    with pytest.raises(DataError, match="CountsDiffer"):
        check_counts("step", found, expected)


def test_documents_differ_by_corpus_key_and_ordinal() -> None:
    assert len({document_id(c, k, n) for c in "ab" for k in "xy" for n in range(3)}) == 12
