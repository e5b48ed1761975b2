"""A seeded part of the fault campaign: each fault at each kind of write, and each of events and lists.

`make fault-campaign` runs every point.
"""

import os
from collections.abc import Iterator

import pytest
from tests.control_plane.campaign import Runs, chosen, own_stage, told, try_each

from nativealign_api.kinds import KINDS

SEED = int(os.environ.get("NATIVEALIGN_SEED", "1"))


@pytest.fixture(scope="module")
def run() -> Iterator[Runs]:
    with own_stage() as found:
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_the_faults_leaves_what_none_leaves(kind: str, run: Runs) -> None:
    base = run(kind, ())
    assert base.outcome["status"]["state"] == "Complete"
    assert base.twice == []
    print(f"seed {SEED}")
    faults = chosen(kind, base, SEED)
    results = list(told(try_each(run, kind, faults, base), len(faults)))
    assert [f"{tried.fault}: {tried.differing}" for tried in results if tried.differing] == []
    assert all(tried.struck for tried in results)
