"""A seeded part of the fault campaign: each fault at each kind of write, and each of events and lists.

`make fault-campaign` runs every point.
"""

import os
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tests.control_plane.campaign import APART, Faults, Run, Runs, attempt, chosen, shared, told, try_all, undisturbed
from tests.control_plane.proxy import FAULTS, Fault, Place

from nativealign_api.kinds import KINDS

SEED = int(os.environ.get("NATIVEALIGN_SEED", "1"))


def test_a_part_of_the_faults_leaves_what_none_leaves() -> None:
    bases = undisturbed(list(KINDS))
    assert {base.outcome["status"]["state"] for base in bases.values()} == {"Complete"}
    assert [base.twice for base in bases.values() if base.twice] == []
    print(f"seed {SEED}")
    runs = [(kind, (fault,)) for kind, base in bases.items() for fault in chosen(kind, base, SEED)]
    results = list(told(try_all(runs, bases), len(runs)))
    assert [f"{tried.kind} {tried.fault}: {tried.differing}" for tried in results if tried.differing] == []
    assert all(tried.struck for tried in results)


@given(st.dictionaries(st.tuples(st.sampled_from(list(KINDS)), st.sampled_from(FAULTS)), st.integers(1, 120)))
def test_each_point_is_in_one_run_of_its_fault_far_from_the_next(counts: dict[tuple[str, tuple[str, str]], int]) -> None:
    places = ((row, number) for row, count in counts.items() for number in range(1, count + 1))
    points = [(kind, Fault(on, what, Place("", number))) for (kind, (on, what)), number in places]
    runs = shared(points)
    assert sorted((kind, str(fault)) for kind, faults in runs for fault in faults) == sorted((kind, str(at)) for kind, at in points)
    for _, faults in runs:
        ((on, _),) = {(fault.on, fault.what) for fault in faults}
        numbers = [fault.place.number for fault in faults]
        assert all(later - number >= APART[on] for number, later in pairwise(numbers))


FIRST, SECOND, THIRD = (Fault("write", "drop", Place("", number)) for number in (1, 17, 33))


def played(bad: Fault | None, missed: Fault | None) -> Runs:
    """Runs that end in another way with one fault, and do not come to another where it is not alone."""

    def run(_: str, faults: Faults) -> Run:
        struck = {fault: "here" for fault in faults if fault != missed or len(faults) == 1}
        return Run({"status": "Failed" if bad in faults else "Complete"}, [], {}, struck, [])

    return run


def test_of_a_run_that_differs_each_fault_is_tried_alone() -> None:
    run = played(SECOND, None)
    results = attempt(run, "AlignJob", (FIRST, SECOND, THIRD), run("AlignJob", ()))
    assert [(tried.fault, tried.differing) for tried in results if tried.differing] == [
        (SECOND, ["status: Failed instead of Complete"])
    ]
    assert [tried.fault for tried in results] == [FIRST, SECOND, THIRD]


def test_a_fault_that_did_not_strike_beside_others_is_tried_alone() -> None:
    run = played(None, THIRD)
    results = attempt(run, "AlignJob", (FIRST, SECOND, THIRD), run("AlignJob", ()))
    assert [(tried.fault, tried.struck) for tried in results] == [(FIRST, "here"), (SECOND, "here"), (THIRD, "here")]
