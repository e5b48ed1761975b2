"""plan() and digests: what a step's digest stands for, and what a plan says."""

import copy
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import specs

from nativealign_api.kinds import KINDS
from nativealign_api.plan import Plan, expected_inputs, plan
from nativealign_api.resolved import NAME_LIMIT, child_name, resolve
from nativealign_api.status import Pinned
from nativealign_api.steps import INSPECT, STEPS, Form

LEAVES = [(kind, path, name) for kind in KINDS for path, name in specs.leaves(kind)]


def _pinned(kind: str, spec: dict[str, Any], salt: str = "") -> Pinned:
    """Something for every input that the spec names."""
    pinned = Pinned(inspect="i" * 32, shards={"corpora": 12, "mix/web": 6})
    for name, upstream in expected_inputs(specs.parse(kind, spec).spec).items():
        if upstream:
            job, _, step = upstream.rpartition("/")
            pinned.upstream.setdefault(job, {"uid": "u"})[step] = f"upstream of {name}{salt}"
        else:
            pinned.inputs[name] = f"digest of {name}{salt}"
    return pinned


def _plan(kind: str, spec: dict[str, Any], pinned: Pinned | None = None) -> Plan:
    return plan(kind, specs.parse(kind, spec).spec, pinned or _pinned(kind, spec))


def _digests(found: Plan) -> dict[str, str | None]:
    return {step.name: step.digest for step in found.steps if step.name != INSPECT}


def test_rewrite_has_shards_of_its_own_and_its_digest_holds_their_number() -> None:
    spec = specs.SPECS["AlignJob"]
    pinned = _pinned("AlignJob", spec)
    more = pinned.model_copy(update={"shards": pinned.shards | {"rewrite": 300}})
    before, after = _plan("AlignJob", spec, pinned), _plan("AlignJob", spec, more)
    assert [phase.indexes for phase in after.step("rewrite").phases] == [300, 1]
    changed = {name for name, digest in _digests(after).items() if digest != _digests(before)[name]}
    assert changed == {"rewrite", "assess"}


def test_another_code_of_conduct_changes_what_reads_it_and_nothing_before() -> None:
    spec = specs.SPECS["AlignJob"]
    pinned = _pinned("AlignJob", spec)
    other = pinned.model_copy(update={"inputs": pinned.inputs | {"conduct": "digest of ours"}})
    before, after = (_digests(_plan("AlignJob", spec, given)) for given in (pinned, other))
    assert {name for name in before if after[name] != before[name]} == {"annotate", "train-worker", "rewrite", "assess"}


@cache
def _readers(kind: str, path: str) -> frozenset[str]:
    """Steps whose declared fields include the leaf, by the table of steps."""
    plain = path.replace("[]", "")
    return frozenset(step.name for step in STEPS[kind] if any(plain == read or plain.startswith(f"{read}.") for read in step.reads))


@given(st.sampled_from([leaf for leaf in LEAVES if leaf[2] == "operational"]))
def test_an_operational_field_changes_no_digest(leaf: tuple[str, str, str]) -> None:
    kind, path, _ = leaf
    before, after = specs.changed(kind, path)
    assert _digests(_plan(kind, before)) == _digests(_plan(kind, after))


@pytest.mark.parametrize(("kind", "path"), [(kind, path) for kind, path, name in LEAVES if name == "identity"])
def test_an_identity_field_changes_the_digest_of_every_step_that_reads_it(kind: str, path: str) -> None:
    before, after = specs.changed(kind, path)
    pinned = _pinned(kind, before) if set(expected_inputs(specs.parse(kind, before).spec)) == set(
        expected_inputs(specs.parse(kind, after).spec)) else None  # fmt: skip
    old, new = _digests(_plan(kind, before, pinned)), _digests(_plan(kind, after, pinned))
    for step in _readers(kind, path) & old.keys():
        assert old[step] != new[step], step


@given(st.sampled_from([(kind, path) for kind, path, name in LEAVES if name == "identity"]))
def test_steps_before_the_first_reader_keep_their_digest(leaf: tuple[str, str]) -> None:
    kind, path = leaf
    before, after = specs.changed(kind, path)
    pinned = _pinned(kind, before)
    old, new = _plan(kind, before, pinned), _plan(kind, after, pinned)
    readers = _readers(kind, path)
    changed: set[str] = set()
    for step in old.steps[1:]:
        definition = next(entry for entry in STEPS[kind] if entry.name == step.name)
        pinned_from = {name.split(".")[0] for name in definition.inputs}
        if step.name in readers or changed & set(definition.inputs) or path.split(".")[0] in pinned_from or step.sources:
            changed.add(step.name)
        else:
            assert step.digest in (entry.digest for entry in new.steps), (step.name, path)


@pytest.mark.parametrize("kind", KINDS)
def test_another_input_changes_the_digest_of_every_step_after_it(kind: str) -> None:
    spec = specs.SPECS[kind]
    old = _digests(_plan(kind, spec))
    new = _digests(_plan(kind, spec, _pinned(kind, spec, salt=" changed")))
    assert all(old[name] != new[name] for name in old)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_complete_once_all_inputs_are_pinned(kind: str) -> None:
    spec = specs.SPECS[kind]
    assert all(_digests(_plan(kind, spec)).values())
    nothing = _digests(_plan(kind, spec, Pinned()))
    assert not any(nothing.values())
    for name, upstream in expected_inputs(specs.parse(kind, spec).spec).items():
        pinned = _pinned(kind, spec)
        pinned.inputs.pop(name, None)
        if upstream:
            pinned.upstream = {}
        assert None in _digests(_plan(kind, spec, pinned)).values(), name


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_is_the_same_every_time(kind: str) -> None:
    assert _plan(kind, specs.SPECS[kind]) == _plan(kind, copy.deepcopy(specs.SPECS[kind]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_pinned_step_version_outlives_an_upgrade(kind: str) -> None:
    spec = specs.SPECS[kind]
    pinned = _pinned(kind, spec)
    last = _plan(kind, spec).steps[-1]
    pinned.step_versions = {last.name: last.version + 1}
    other = _plan(kind, spec, pinned).steps[-1]
    assert other.version == last.version + 1
    assert other.digest != last.digest


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_ends_in_a_commit_of_one_pod_and_parallelism_fits(kind: str) -> None:
    for step in _plan(kind, specs.SPECS[kind]).steps:
        for phase in step.phases:
            assert 1 <= phase.parallelism <= phase.indexes
            if phase.form is Form.GANG:
                assert phase.parallelism == phase.indexes == phase.resources.nodes
        if step.name != INSPECT:
            assert (step.phases[-1].name, step.phases[-1].indexes) == ("commit", 1)
            assert step.phases[-1].resources.gpus_per_node == 0


def test_an_align_job_without_a_worker_trains_none() -> None:
    spec = copy.deepcopy(specs.SPECS["AlignJob"])
    del spec["worker"], spec["rewrite"]["transformers"]
    assert [step.name for step in _plan("AlignJob", spec).steps] == ["inspect", "clean", "dedup", "rewrite", "assess"]


JOB_NAMES = st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True)


@given(st.sampled_from(list(KINDS)), JOB_NAMES, st.integers(0, 10**6))
def test_child_names_are_dns_labels_of_at_most_52_characters(kind: str, job: str, attempt: int) -> None:
    name = child_name(kind, job, "train-worker", "commit", attempt)
    assert len(name) <= NAME_LIMIT
    assert name[0].isalpha()
    assert name[-1].isalnum()


@given(st.lists(st.tuples(JOB_NAMES, st.integers(0, 99)), unique=True, min_size=2, max_size=20))
def test_two_attempts_or_jobs_never_share_a_name(jobs: list[tuple[str, int]]) -> None:
    names = [child_name("AlignJob", job + "-long" * 9, "train-worker", "train", attempt) for job, attempt in jobs]
    assert len(set(names)) == len(names)


def test_what_pods_are_told_does_not_grow_with_the_input() -> None:
    """A ConfigMap holds 1 MiB; 100,000 input files are listed in the store, as are their shards."""
    spec = copy.deepcopy(specs.SPECS["AlignJob"])
    spec["corpora"] = [{**specs.CORPUS, "name": f"corpus-{number}"} for number in range(64)]
    job = specs.parse("AlignJob", spec)
    job.status.pinned = _pinned("AlignJob", spec)
    job.status.pinned.shards = {"corpora": 100_000}
    for step in plan("AlignJob", job.spec, job.status.pinned).steps:
        for phase in step.phases:
            assert len(resolve(job, step, phase).dump()) < 256 * 1024
