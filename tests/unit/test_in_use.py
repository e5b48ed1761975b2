"""Which digests a job keeps gc from."""

import json

from tests.world import PRETRAIN, digest, upstream_ready, world

from nativealign_api.in_use import digests_of, names_file
from nativealign_api.plan import plan


def test_a_job_names_its_steps_their_inputs_and_what_others_made_for_it() -> None:
    seen = world()
    seen.finish()
    named = digests_of(seen.job)
    assert {step.digest for step in seen.status.steps} <= named
    assert set(seen.status.pinned.inputs.values()) <= named


def test_a_job_under_way_names_what_it_will_make_and_the_sources_that_it_shares() -> None:
    """A source's tokens may have been made long ago by a job that is gone."""
    seen = world("PretrainJob", PRETRAIN)
    seen.upstream = upstream_ready()
    seen.settle()
    seen.complete(seen.words(seen.current, {}, []))
    seen.settle()
    planned = plan(seen.job.kind, seen.job.spec, seen.status.pinned)
    sources = {source.digest for source in planned.step("tokenize").sources}
    named = digests_of(seen.job)
    assert sources
    assert sources | {digest(0), digest(1), digest(2)} | {step.digest for step in planned.steps} <= named
    assert json.loads(names_file([seen.job])) == {"digests": sorted(named)}


def test_a_job_that_has_not_started_names_nothing() -> None:
    assert digests_of(world().job) == set()
