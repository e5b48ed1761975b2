"""The status that the three kinds share. The operator writes it on a cluster, the local runner into the run's folder."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, computed_field
from pydantic.alias_generators import to_camel

from nativealign_api.common import Store


class StatusModel(BaseModel):
    """Base of status models: camelCase, tolerant of fields that a newer version wrote."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", use_attribute_docstrings=True)


class ConditionStatus(StatusModel):
    """As metav1.Condition."""

    type: str
    """Ready, Stalled, Running, Suspended, Complete, Failed or Finished."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str
    """CamelCase cause."""
    message: str = ""
    """For people: which object, what is wrong, what to do."""
    observed_generation: int | None = None
    """Generation of the spec that this was found for."""
    last_transition_time: str | None = None
    """RFC 3339 time at which status changed."""


class StepStatus(StatusModel):
    """One step of the job."""

    name: str
    """Step, e.g. rewrite."""
    state: Literal["Waiting", "Running", "Committed", "Failed", "Suspended"] = "Waiting"
    """Committed: its manifest is in the store, by this run or an earlier one."""
    phase: str | None = None
    """Phase that runs."""
    digest: str | None = None
    """Digest of what the step computes; names its folder in the store."""
    attempt: int = 0
    """Attempt that runs or ran last."""
    failures: int = 0
    """Attempts of the step that failed and count against `retries`."""
    disruptions: int = 0
    """Attempts that a drain, an eviction or a preemption ended; they do not count."""
    reused: bool = False
    """The manifest was there before this run."""
    progress_percent: float | None = None
    """Part that is done."""
    eta_seconds: float | None = None
    """Expected remaining time, in seconds."""
    seconds: float | None = None
    """Time that its processes ran in this run, in seconds."""
    images: list[str] = []
    """Images that its pods ran in this run, by digest; more than one where a tag was moved, or `image` changed, meanwhile."""
    counts: dict[str, int] = {}
    """Headline counts."""
    metrics: dict[str, float] = {}
    """Headline metrics."""
    failed_gates: list[str] = []
    """Gates of the spec that did not pass: their field, what was measured, and the limit."""

    @property
    def facts(self) -> list[str]:
        """Counts and metrics for people: `out 1,901`, `loss 0.5`."""
        counts = [f"{name} {value:,}" for name, value in self.counts.items()]
        return counts + [f"{name} {value:.4g}" for name, value in self.metrics.items()]

    @computed_field(description="progressPercent for people: 41%.")  # type: ignore[prop-decorator]
    @property
    def progress(self) -> str | None:
        return None if self.progress_percent is None else f"{int(self.progress_percent)}%"

    @computed_field(description="etaSeconds for people: 6h12m.")  # type: ignore[prop-decorator]
    @property
    def eta(self) -> str | None:
        return None if self.eta_seconds is None else duration(self.eta_seconds)


class PinnedStore(Store):
    """Tolerant, as every status is."""

    model_config = ConfigDict(extra="ignore")


class Pinned(StatusModel):
    """What a run stands on. Fixed at its first start; no later change of the world reaches it."""

    inspect: str | None = None
    """Digest of the inspect step's manifest."""
    inputs: dict[str, str] = {}
    """Digest of each named input: corpora, models, code of conduct, benchmark files."""
    upstream: dict[str, dict[str, str]] = {}
    """For each referenced job (kind/name) its uid and the digest of each of its committed steps."""
    shards: dict[str, int] = {}
    """Number of shards of each input that is read in shards, and of each step that cuts its input anew."""
    step_versions: dict[str, int] = {}
    """Version of each step at the start."""
    images: dict[str, str] = {}
    """The installation's container images at the start, for a job that names none; what ran stands in `steps[].images`."""
    store: PinnedStore | None = None
    """The installation's store at the start, for a job that names none."""


class Cost(StatusModel):
    """What the job used, over all its runs. Reused steps cost nothing."""

    step_seconds: float = 0.0
    """Wall time of all steps, in seconds."""
    accelerator_seconds: float = 0.0
    """Accelerators times seconds."""
    expert_requests: int = 0
    """Requests to endpoints."""
    expert_tokens: int = 0
    """Prompt and completion tokens of endpoints."""
    usd: float = 0.0
    """Money for endpoints, in US dollars, where prices are given."""


class JobStatus(StatusModel):
    """Status of an AlignJob, PretrainJob or EvalJob."""

    observed_generation: int | None = None
    """Generation of the spec that this status describes."""
    state: str = "Waiting"
    """Summary for people: Waiting, Queued, Running, Retrying, Stalled, Suspended, Complete, Failed, GateFailed, Invalid."""
    start_time: str | None = None
    """RFC 3339 time of the start."""
    completion_time: str | None = None
    """RFC 3339 time of the end."""
    conditions: Annotated[list[ConditionStatus], Field(max_length=16)] = []
    """Conditions by type."""
    steps: list[StepStatus] = []
    """Steps in order."""
    outputs: dict[str, str] = {}
    """Results of the committed steps, as prefixes in the store."""
    cost: Cost = Cost()
    """What the job used."""
    pinned: Pinned = Pinned()
    """What the run stands on."""

    def dump(self) -> dict[str, Any]:
        """As the JSON object that Kubernetes stores."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


def duration(seconds: float) -> str:
    """3725 -> `1h2m`: the two largest units, as in kubectl's AGE column."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
