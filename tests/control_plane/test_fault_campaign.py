"""A seeded part of the fault campaign: each fault at each kind of write, and each of events and lists.

`make fault-campaign` runs every point.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.s3 import S3Server
from tests.control_plane.campaign import PlayedPods, chosen, run_once, stage, told, try_each

from nativealign_api.kinds import KINDS

SEED = int(os.environ.get("NATIVEALIGN_SEED", "1"))

Stage = tuple[ControlPlane, S3Server, PlayedPods]


@pytest.fixture(scope="module")
def set_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("campaign")) as found:
        yield found


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_of_the_faults_leaves_what_none_leaves(kind: str, set_up: Stage, tmp_path: Path) -> None:
    plane, s3, pods = set_up
    base = run_once(plane, s3, pods, tmp_path, kind, None)
    assert base.outcome["status"]["state"] == "Complete"
    assert base.twice == []
    print(f"seed {SEED}")
    faults = chosen(kind, base, SEED)
    results = list(told(try_each(plane, s3, pods, tmp_path, kind, faults, base), len(faults)))
    assert [f"{tried.fault}: {tried.differing}" for tried in results if tried.differing] == []
    assert all(tried.struck for tried in results)
