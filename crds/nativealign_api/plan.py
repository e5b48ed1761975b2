"""plan(): from a spec and what is pinned to the steps, phases and digests of a run. Pure.

The operator, the local runner and the inspect step all call it and get the same answer. A digest is taken over the step's version,
the identity fields that it reads, and the digests of its inputs; a manifest under that digest means that the step is done.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nativealign_api.base import is_operational
from nativealign_api.common import JobSpec, Resources
from nativealign_api.evaluate import EvalJobSpec, EvaluatedModel
from nativealign_api.identity import digest, identity
from nativealign_api.messages import Headline
from nativealign_api.pretrain import MixEntry, PretrainJobSpec
from nativealign_api.status import Pinned, StepStatus
from nativealign_api.steps import INSPECT, STEPS, Form, PhaseDefinition, StepDefinition

VIEW_STEPS = {"Raw": "dedup", "Cleaned": "dedup", "Aligned": "rewrite"}
"""The AlignJob step whose parts a view is read from."""


@dataclass(frozen=True)
class Phase:
    """One batch/v1 Job."""

    name: str
    form: Form
    indexes: int
    """Completions: shards, or nodes of a gang."""
    parallelism: int
    resources: Resources
    """For each pod; without accelerators where the phase needs none."""


@dataclass(frozen=True)
class Source:
    """One source of a PretrainJob's mix, tokenized under a digest of its own so that other mixes share it."""

    name: str
    digest: str
    input: str
    """Store prefix of the listing or of the AlignJob's step."""
    view: str | None
    """View of an AlignJob; None for files."""
    shards: int


@dataclass(frozen=True)
class Step:
    """One step of a run."""

    name: str
    version: int
    digest: str | None
    """None until everything that it stands on is pinned."""
    inputs: dict[str, str]
    """Store prefix of each input."""
    parameters: dict[str, Any]
    """The spec fields that the step reads, by path, as JSON."""
    phases: tuple[Phase, ...]
    sources: tuple[Source, ...] = ()

    @property
    def prefix(self) -> str:
        """Folder of the step's output in the store."""
        return step_prefix(self.name, self.digest or "")


@dataclass(frozen=True)
class Plan:
    """The steps of a run, in order."""

    steps: tuple[Step, ...]

    def step(self, name: str) -> Step:
        return next(step for step in self.steps if step.name == name)


def step_statuses(steps: Iterable[Step], committed: Mapping[str, Headline]) -> list[StepStatus]:
    """The status of steps that have not run yet; those that are committed already are reused."""
    statuses = []
    for step in steps:
        status = StepStatus(name=step.name, digest=step.digest)
        if step.name in committed:
            status.state, status.reused = "Committed", True
            committed[step.name].show(status)
        statuses.append(status)
    return statuses


def committed_outputs(steps: Iterable[StepStatus]) -> dict[str, str]:
    """The results that are there, by step, as prefixes in the store."""
    return {step.name: step_prefix(step.name, step.digest) for step in steps if step.state == "Committed" and step.digest}


def step_prefix(name: str, step_digest: str) -> str:
    """Folder of a step's output."""
    return f"steps/{name}/{step_digest}"


def input_prefix(input_digest: str) -> str:
    """Folder of a pinned input: its listing, or its content where that is small."""
    return f"inputs/{input_digest}"


def run_prefix(namespace: str, name: str, uid: str) -> str:
    """Folder of a run's logs, timings and reports."""
    return f"runs/{namespace}/{name}-{uid[:8]}"


def plan(kind: str, spec: JobSpec, pinned: Pinned) -> Plan:
    """The plan of a run.

    With an empty `pinned` only inspect has a digest-free step to run; every other step has `digest=None`.
    """
    known = _pinned_prefixes(spec, pinned)
    steps: list[Step] = []
    for definition in STEPS[kind]:
        if definition.enabled(spec):
            step = _plan_step(definition, spec, pinned, known)
            steps.append(step)
            known[step.name] = step.prefix if step.digest else None
    return Plan(tuple(steps))


def value_at(spec: Any, path: str) -> Any:
    """The value of a dotted camelCase path in a spec; None where an object on the way is absent."""
    for alias in path.split("."):
        if spec is None:
            return None
        name = next(name for name, field in type(spec).model_fields.items() if (field.alias or name) == alias)
        spec = getattr(spec, name)
    return spec


def expected_inputs(spec: JobSpec) -> dict[str, str | None]:
    """Inputs that inspect pins for a spec, by name; for one that another job makes, `kind/name/step`, else None."""
    if isinstance(spec, PretrainJobSpec):
        inputs: dict[str, str | None] = {"base": None} if spec.base.uri else {}
        return inputs | {f"mix/{entry.name}": _mix_upstream(entry) for entry in spec.mix}
    if isinstance(spec, EvalJobSpec):
        models = {"model": spec.model, "baseline": spec.baseline}
        inputs = {name: _model_upstream(model) for name, model in models.items() if model}
        inputs |= {"data": None} if spec.benchmarks else {}
        return inputs | ({"heldOut": f"AlignJob/{spec.held_out.align_job}/dedup"} if spec.held_out else {})
    optional = [
        *("worker.base.uri", "expert.transformers", "expert.vllm"),
        *("seed.perplexityModel", "assess.perplexityModel", "assess.toxicityModel"),
        *("decontamination.data", "decontamination.items"),
    ]
    given = [path.removesuffix(".uri") for path in optional if value_at(spec, path)]
    return dict.fromkeys(["corpora", "conduct", *given])


def _model_upstream(model: EvaluatedModel) -> str | None:
    return f"PretrainJob/{model.pretrain_job}/export" if model.pretrain_job else None


def _mix_upstream(entry: MixEntry) -> str | None:
    return f"AlignJob/{entry.align_job}/{VIEW_STEPS[entry.view]}" if entry.align_job else None


def _pinned_prefixes(spec: JobSpec, pinned: Pinned) -> dict[str, str | None]:
    prefixes: dict[str, str | None] = {}
    for name, upstream in expected_inputs(spec).items():
        if upstream:
            job, _, step = upstream.rpartition("/")
            found = pinned.upstream.get(job, {}).get(step)
            prefixes[name] = step_prefix(step, found) if found else None
        else:
            prefixes[name] = input_prefix(pinned.inputs[name]) if name in pinned.inputs else None
    return prefixes


def _plan_step(definition: StepDefinition, spec: JobSpec, pinned: Pinned, known: dict[str, str | None]) -> Step:
    if definition.name == INSPECT:
        whole = {"": spec.model_dump(mode="json", by_alias=True, exclude_none=True)}
        return Step(INSPECT, definition.version, pinned.inspect, {}, whole, tuple(_phases(definition, spec, 1)))
    values = {path: value_at(spec, path) for path in definition.reads}
    facts = {path: values[path] for path in _identity_paths(spec, definition.reads)}
    version = pinned.step_versions.get(definition.name, definition.version)
    inputs = {name: known[name] for name in definition.inputs if name in known}
    sources = _sources(spec, version, known, pinned) if definition.name == "tokenize" else ()
    complete = None not in inputs.values() and (definition.name != "tokenize" or len(sources) == len(spec.mix))  # type: ignore[attr-defined]
    return Step(
        name=definition.name,
        version=version,
        digest=_step_digest(definition.name, version, facts, inputs, sources, pinned) if complete else None,
        inputs={name: prefix for name, prefix in inputs.items() if prefix},
        parameters={path: _dump(value) for path, value in values.items() if value is not None},
        phases=tuple(_phases(definition, spec, _shards(definition, spec, pinned, sources))),
        sources=sources,
    )


def _step_digest(
    name: str, version: int, values: dict[str, Any], inputs: dict[str, Any], sources: tuple[Source, ...], pinned: Pinned
) -> str:
    facts = {"step": name, "version": version, "inputs": inputs, "sources": [[s.name, s.digest] for s in sources]}
    facts |= {"shards": pinned.shards[name]} if name in pinned.shards else {}
    return digest(facts | {"parameters": {path: identity(value) for path, value in values.items()}})


def _identity_paths(spec: JobSpec, paths: tuple[str, ...]) -> list[str]:
    fields = {field.alias or name: field for name, field in type(spec).model_fields.items()}
    return [path for path in paths if not is_operational(fields[path.partition(".")[0]].metadata)]


def _dump(value: Any) -> Any:
    if isinstance(value, list):
        return [_dump(item) for item in value]
    return value.model_dump(mode="json", by_alias=True, exclude_none=True) if hasattr(value, "model_dump") else value


def _sources(spec: JobSpec, version: int, known: dict[str, str | None], pinned: Pinned) -> tuple[Source, ...]:
    assert isinstance(spec, PretrainJobSpec)
    inputs = {entry.name: known.get(f"mix/{entry.name}") for entry in spec.mix}
    if None in inputs.values() or (spec.base.uri and not known.get("base")):
        return ()
    tokenizer = known.get("base") or digest(
        {"fromConfig": identity(spec.base.from_config), "mix": [[e.name, inputs[e.name], identity(e.corpus)] for e in spec.mix]}
    )
    return tuple(_source(entry, spec, version, tokenizer, str(inputs[entry.name]), pinned) for entry in spec.mix)


def _source(entry: MixEntry, spec: PretrainJobSpec, version: int, tokenizer: str, prefix: str, pinned: Pinned) -> Source:
    shards = pinned.shards.get(f"mix/{entry.name}", 1)
    view = entry.view if entry.align_job else None
    facts: dict[str, Any] = {
        "step": "tokenize",
        "version": version,
        "input": prefix,
        "corpus": identity(entry.corpus),
        "view": view,
        "tokenizer": tokenizer,
        "sequenceLength": spec.sequence_length,
    }
    facts |= {"shards": shards} if view else {}
    return Source(entry.name, digest(facts), prefix, view, shards)


def _shards(definition: StepDefinition, spec: JobSpec, pinned: Pinned, sources: tuple[Source, ...]) -> int:
    if definition.name == "tokenize":
        return max(1, sum(source.shards for source in sources))
    if definition.name == "evaluate":
        return 2 if value_at(spec, "baseline") else 1
    return step_shards(definition.name, pinned)


def step_shards(name: str, pinned: Pinned) -> int:
    """Shards of an AlignJob's step: its own where it cuts its input anew, else those of the corpora."""
    return pinned.shards.get(name, pinned.shards.get("corpora", 1))


def _phases(definition: StepDefinition, spec: JobSpec, shards: int) -> Iterator[Phase]:
    own: Resources = value_at(spec, definition.resources) or spec.resources
    parallelism: int = value_at(spec, definition.parallelism) or spec.parallelism
    for phase in (phase for phase in definition.phases if phase.enabled(spec)):
        indexes = _indexes(phase, shards, own)
        computes = phase.accelerator(spec)
        resources = own if computes or phase.asks else spec.resources
        if not computes:
            resources = _without_accelerators(resources)
        yield Phase(
            phase.name,
            phase.form,
            indexes,
            indexes if phase.form is Form.GANG else min(parallelism, indexes),
            resources,
        )


def _indexes(phase: PhaseDefinition, shards: int, resources: Resources) -> int:
    return {Form.SHARDED: shards, Form.SINGLE: 1, Form.GANG: resources.nodes}[phase.form]


def _without_accelerators(resources: Resources) -> Resources:
    plain = {"nodes": 1, "gpus_per_node": 0, "extra_resources": {}, "network_annotations": {}, "topology_key": None}
    return resources.model_copy(update=plain)
