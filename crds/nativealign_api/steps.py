"""The fixed steps of each kind, their phases, and what each reads. A table, and the only one.

A step's `version` is raised by hand when its output changes on purpose; that changes the digest of the step and of all after it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Form(StrEnum):
    """How a phase runs."""

    SHARDED = "Sharded"
    """Independent indexes, any number at a time."""
    SINGLE = "Single"
    """One pod."""
    GANG = "Gang"
    """One pod per node, all at the same time."""


@dataclass(frozen=True)
class PhaseDefinition:
    name: str
    form: Form
    accelerator: Callable[[Any], bool] = lambda spec: False
    """Whether the pods compute on the step's accelerators."""
    asks: tuple[tuple[str, str], ...] = ()
    """Endpoints that the pods may ask: each one's name in a pod, and its path in the spec."""
    enabled: Callable[[Any], bool] = lambda spec: True


@dataclass(frozen=True)
class StepDefinition:
    name: str
    version: int
    reads: tuple[str, ...]
    """Paths of the spec fields that the step may read; their identity part enters the digest."""
    inputs: tuple[str, ...]
    """Pinned inputs and earlier steps, by name; one that the spec does not have is left out."""
    phases: tuple[PhaseDefinition, ...]
    resources: str = "resources"
    """Path of the spec field with the resources of phases that compute on accelerators or ask an endpoint; others get the job's."""
    parallelism: str = "parallelism"
    """Path of the spec field with the step's own parallelism."""
    enabled: Callable[[Any], bool] = lambda spec: True


INSPECT = "inspect"
COMMIT = PhaseDefinition("commit", Form.SINGLE)
EXPERT, WORKER = ("expert", "expert.openai"), ("worker", "rewrite.openai")


def _step(name: str, version: int, reads: str, inputs: str, *phases: PhaseDefinition, **extra: Any) -> StepDefinition:
    return StepDefinition(name, version, tuple(reads.split()), tuple(inputs.split()), phases, **extra)


def _sharded(name: str, **extra: Any) -> PhaseDefinition:
    return PhaseDefinition(name, Form.SHARDED, **extra)


def _single(name: str, **extra: Any) -> PhaseDefinition:
    return PhaseDefinition(name, Form.SINGLE, **extra)


def _always(spec: Any) -> bool:
    return True


def _has_worker(spec: Any) -> bool:
    return getattr(spec, "worker", None) is not None


def _by_perplexity(spec: Any) -> bool:
    return bool(spec.seed.strategy.endswith("Perplexity"))


def _annotates_in_process(spec: Any) -> bool:
    return bool(spec.expert.in_process)


def _rewrites_in_process(spec: Any) -> bool:
    return spec.rewrite.openai is None if _has_worker(spec) else _annotates_in_process(spec)


def _assesses_with_models(spec: Any) -> bool:
    return bool(spec.assess.perplexity_model or spec.assess.toxicity_model)


def _drops_repeated_lines(spec: Any) -> bool:
    return spec.clean.repeated_lines is not None


_INSPECT = _step(INSPECT, 1, "", "", _single("list"))

ALIGN_STEPS = (
    _INSPECT,
    _step("clean", 4, "corpora clean decontamination maxQuarantinedPercent",
          "corpora decontamination.data decontamination.items",
          _sharded("lines", enabled=_drops_repeated_lines), _sharded("count", enabled=_drops_repeated_lines),
          _sharded("filter"), COMMIT),
    _step("dedup", 2, "dedup heldOut", "clean",
          _sharded("sign"), _sharded("group"), _single("link"), _sharded("filter"), COMMIT),
    _step("annotate", 5, "seed expert chunking worker.base",
          "dedup conduct worker.base seed.perplexityModel expert.transformers expert.vllm",
          _sharded("draw", accelerator=_by_perplexity), _single("sample"),
          _sharded("annotate", accelerator=_annotates_in_process, asks=(EXPERT,)), COMMIT,
          resources="expert.resources", enabled=_has_worker),
    _step("train-worker", 4, "worker.base worker.train chunking", "annotate conduct worker.base",
          PhaseDefinition("train", Form.GANG, accelerator=_always), COMMIT,
          resources="worker.resources", enabled=_has_worker),
    _step("rewrite", 6, "rewrite chunking expert worker.base decontamination",
          "dedup conduct train-worker decontamination.data decontamination.items expert.transformers expert.vllm",
          _sharded("rewrite", accelerator=_rewrites_in_process, asks=(EXPERT, WORKER)), COMMIT,
          resources="rewrite.resources", parallelism="rewrite.parallelism"),
    _step("assess", 4, "assess gates", "rewrite conduct assess.perplexityModel assess.toxicityModel",
          _sharded("draw"), _single("measure", accelerator=_assesses_with_models, asks=(("judge", "assess.judge"),)), COMMIT,
          resources="assess.resources"),
)  # fmt: skip

PRETRAIN_STEPS = (
    _INSPECT,
    _step("tokenize", 1, "mix base sequenceLength maxQuarantinedPercent", "base",
          _single("tokenizer"), _sharded("tokenize"), COMMIT),
    _step("train", 1,
          "base mix objective whenExhausted sequenceLength tokens globalBatch seed optimizer deepspeed checkpoints",
          "tokenize base",
          PhaseDefinition("train", Form.GANG, accelerator=_always), COMMIT, resources="trainResources"),
    _step("export", 1, "", "train", _single("export"), COMMIT),
)  # fmt: skip

EVAL_STEPS = (
    _INSPECT,
    _step("evaluate", 1, "benchmarks engine heldOut judge", "model baseline data heldOut",
          _sharded("evaluate", accelerator=_always, asks=(("judge", "judge"),)), COMMIT, resources="evaluateResources"),
    _step("report", 1, "gate", "evaluate", _single("report"), COMMIT),
)  # fmt: skip

STEPS = {"AlignJob": ALIGN_STEPS, "PretrainJob": PRETRAIN_STEPS, "EvalJob": EVAL_STEPS}
