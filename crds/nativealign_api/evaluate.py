"""EvalJob: score a model on the paper's suite, compare it with a baseline, and gate (arXiv 2412.03253, section 5)."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nativealign_api.base import Count, Model, Name, Operational, Rule, Uri
from nativealign_api.common import BenchmarkData, JobSpec, Judge, PublishedBenchmark, Resources, TransformersEngine

BenchmarkName = Literal[PublishedBenchmark, "acva-clean"]


class EvaluatedModel(Model):
    """A model to score."""

    uri: Uri | None = None
    """Folder with a Hugging Face model."""
    pretrain_job: Name | None = None
    """The exported model of a PretrainJob in the same namespace."""
    accept_failed_gate: Annotated[bool, Operational] = False
    """Use the job also if it ended as GateFailed; of no effect once this job has started."""

    one_of: ClassVar[tuple[str, ...]] = ("uri", "pretrainJob")


class Benchmark(Model):
    """One benchmark with the protocol that it was published with."""

    name: BenchmarkName
    """Which one."""
    few_shot: Annotated[int, Field(ge=0, le=64)] | None = None
    """Solved examples in the prompt; default as published."""
    data: BenchmarkData | None = None
    """Files of this benchmark; default spec.data."""
    id_list: Uri | None = None
    """File with one item id per line: score these only. acva-clean needs it (the human-verified subset)."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (Rule("self.name != 'acva-clean' || has(self.idList)", "acva-clean needs idList"),)

    def problems(self) -> Iterator[str]:
        if self.name == "acva-clean" and self.id_list is None:
            yield self.cel_rules[0].message


class HeldOutSource(Model):
    """The held-out documents of an AlignJob, scored in bits per byte."""

    align_job: Name
    """An AlignJob in the same namespace."""
    documents: Annotated[Count, Field(ge=1)] = 1000
    """How many of them at most."""
    accept_failed_gate: Annotated[bool, Operational] = False
    """Use the job also if it ended as GateFailed; of no effect once this job has started."""


class NonInferior(Model):
    """No benchmark may be worse than the baseline by more than the margin: a one-sided paired test on each, all must pass."""

    margin_points: Annotated[float, Field(ge=0, le=100)] = 0.5
    """Largest loss that is accepted, in points of a hundred."""
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """Confidence of each test."""


class EvalGate(Model):
    """When the job ends as GateFailed."""

    non_inferior: NonInferior
    """Comparison with the baseline."""


class EvalJobSpec(JobSpec):
    """Which model, on which benchmarks, against which baseline."""

    model: EvaluatedModel
    """Model to score."""
    baseline: EvaluatedModel | None = None
    """Model to compare with."""
    data: BenchmarkData | None = None
    """Files of the benchmarks."""
    benchmarks: Annotated[list[Benchmark], Field(max_length=32)] = []
    """What to score on."""
    held_out: HeldOutSource | None = None
    """Held-out text for bits per byte."""
    engine: TransformersEngine = TransformersEngine(batch_size=16)
    """How the model is run."""
    judge: Judge | None = None
    """Judge of harmlessness and helpfulness; ar-beavertails needs it."""
    gate: EvalGate | None = None
    """Condition of success."""
    evaluate_resources: Annotated[Resources | None, Operational] = None
    """For evaluating; default spec.resources."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("has(self.heldOut) || (has(self.benchmarks) && size(self.benchmarks) > 0)", "benchmarks or heldOut must be given"),
        Rule("!has(self.gate) || (has(self.baseline) && has(self.benchmarks) && size(self.benchmarks) > 0)",
             "gate needs baseline and benchmarks"),
        Rule("!has(self.benchmarks) || self.benchmarks.all(a, self.benchmarks.exists_one(b, b.name == a.name))",
             "each benchmark may be named once"),
        Rule("!has(self.benchmarks) || has(self.data) || self.benchmarks.all(b, has(b.data))",
             "data must be given, here or for each benchmark"),
        Rule("!has(self.benchmarks) || has(self.judge) || !self.benchmarks.exists(b, b.name == 'ar-beavertails')",
             "ar-beavertails needs judge"),
    )  # fmt: skip

    def problems(self) -> Iterator[str]:
        names = [benchmark.name for benchmark in self.benchmarks]
        broken = (
            not names and self.held_out is None,
            self.gate is not None and (self.baseline is None or not names),
            len(set(names)) != len(names),
            self.data is None and any(benchmark.data is None for benchmark in self.benchmarks),
            self.judge is None and "ar-beavertails" in names,
        )
        for rule, bad in zip(self.cel_rules, broken, strict=True):
            if bad:
                yield rule.message
