"""The models as a contract: which class each field has, what it means, and what a spec may say."""

from pathlib import Path

import pytest
from tests import specs

from nativealign_api.identity import field_classes
from nativealign_api.kinds import KINDS

GOLDEN = Path(__file__).with_name("field_classes.txt")


def _lines() -> list[str]:
    return [f"{kind} {path} {name}" for kind, entry in KINDS.items() for path, name in field_classes(entry.spec).items()]


def test_every_field_keeps_its_class() -> None:
    """A field that changes its class changes digests, or lets a running job's meaning be edited: it must be meant.

    After a change that is meant: `python -m tests.unit.test_api_specs > tests/unit/field_classes.txt`.
    """
    assert _lines() == GOLDEN.read_text().splitlines()


@pytest.mark.parametrize("kind", KINDS)
def test_the_test_specs_give_every_field(kind: str) -> None:
    for path in field_classes(KINDS[kind].spec):
        specs.holder_of(specs.with_leaf(kind, path), path)
        specs.parse(kind, specs.with_leaf(kind, path))


if __name__ == "__main__":
    print("\n".join(_lines()))
