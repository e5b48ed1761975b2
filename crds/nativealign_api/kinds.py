"""The three kinds as Kubernetes objects, and the table of them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from nativealign_api.align import AlignJobSpec
from nativealign_api.common import JobSpec
from nativealign_api.evaluate import EvalJobSpec
from nativealign_api.pretrain import PretrainJobSpec
from nativealign_api.status import JobStatus

ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)]


class Metadata(BaseModel):
    """The part of ObjectMeta that nativealign reads."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow")

    name: ObjectName
    namespace: ObjectName = "default"
    uid: str | None = None
    generation: int | None = None


class JobObject(BaseModel):
    """An object of one of the three kinds."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")

    api_version: Literal["nativealign.dev/v1alpha1"]
    kind: str
    metadata: Metadata
    spec: JobSpec
    status: JobStatus = Field(default_factory=JobStatus)

    @property
    def reference(self) -> str:
        """`kind/name`, as other jobs of the namespace refer to it."""
        return f"{self.kind}/{self.metadata.name}"


class AlignJob(JobObject):
    """Deduplicates a corpus, lets an expert rewrite a sample, trains a worker on it and lets it rewrite the corpus."""

    kind: Literal["AlignJob"]
    spec: AlignJobSpec


class PretrainJob(JobObject):
    """Continues pre-training of a language model on a weighted mix of aligned and other text."""

    kind: Literal["PretrainJob"]
    spec: PretrainJobSpec


class EvalJob(JobObject):
    """Scores a model on Arabic and English benchmarks, compares it with a baseline, and gates."""

    kind: Literal["EvalJob"]
    spec: EvalJobSpec


@dataclass(frozen=True)
class Kind:
    """What the API knows of a kind."""

    model: type[JobObject]
    spec: type[JobSpec]
    plural: str
    short: str
    references: Callable[[JobSpec], dict[str, bool]]
    """Jobs that a spec refers to, as `kind/name`, and whether one that failed its gate will do."""


def _align_references(spec: JobSpec) -> dict[str, bool]:
    return {}


def _pretrain_references(spec: JobSpec) -> dict[str, bool]:
    assert isinstance(spec, PretrainJobSpec)
    return _all_accept((f"AlignJob/{entry.align_job}", entry.accept_failed_gate) for entry in spec.mix if entry.align_job)


def _eval_references(spec: JobSpec) -> dict[str, bool]:
    assert isinstance(spec, EvalJobSpec)
    models = [model for model in (spec.model, spec.baseline) if model and model.pretrain_job]
    found = [(f"PretrainJob/{model.pretrain_job}", model.accept_failed_gate) for model in models]
    if spec.held_out:
        found.append((f"AlignJob/{spec.held_out.align_job}", spec.held_out.accept_failed_gate))
    return _all_accept(found)


def _all_accept(pairs: Iterable[tuple[str, bool]]) -> dict[str, bool]:
    """A failed gate is accepted where every reference to the job accepts it."""
    found: dict[str, bool] = {}
    for reference, accepted in pairs:
        found[reference] = found.get(reference, True) and accepted
    return found


KINDS = {
    "AlignJob": Kind(AlignJob, AlignJobSpec, "alignjobs", "aj", _align_references),
    "PretrainJob": Kind(PretrainJob, PretrainJobSpec, "pretrainjobs", "pj", _pretrain_references),
    "EvalJob": Kind(EvalJob, EvalJobSpec, "evaljobs", "ej", _eval_references),
}


def references(job: JobObject) -> dict[str, bool]:
    """Jobs of the same namespace that `job` waits for, as `kind/name`, and whether a failed gate is accepted."""
    return KINDS[job.kind].references(job.spec)
