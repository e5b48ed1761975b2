"""PretrainJob: continue pre-training on a weighted mix of aligned and other text (arXiv 2412.03253, section 4)."""

from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from nativealign_api.base import Count, Model, Name, Operational, Percent, Rule
from nativealign_api.common import (
    BaseModelSource,
    Checkpoints,
    Corpus,
    DeepSpeed,
    JobSpec,
    Optimizer,
    Resources,
    Sharding,
)


class MixEntry(Model):
    """One source of the mix."""

    align_job: Name | None = None
    """An AlignJob in the same namespace."""
    corpus: Corpus | None = None
    """Files."""
    view: Literal["Raw", "Cleaned", "Aligned"] = "Aligned"
    """Which text of the AlignJob: as read, after clean, or after rewrite (without documents that were dropped whole)."""
    accept_failed_gate: Annotated[bool, Operational] = False
    """Use the AlignJob also if it ended as GateFailed; of no effect once this job has started."""
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    """Share of the training samples, relative to the other entries."""
    max_tokens: Annotated[Count, Field(ge=1)] | None = None
    """Tokens of this source to use at most."""
    max_epochs: Annotated[float, Field(gt=0, le=1000)] | None = None
    """Passes over this source at most; then whenExhausted decides."""

    one_of: ClassVar[tuple[str, ...]] = ("alignJob", "corpus")

    @property
    def name(self) -> str:
        """Name in counts, curves and reports: the corpus' name, or `job/View`."""
        return self.corpus.name if self.corpus else f"{self.align_job}/{self.view}"


class PretrainJobSpec(JobSpec):
    """What to train, on what, for how long."""

    base: BaseModelSource
    """Model to start from."""
    objective: Literal["CausalLM"] = "CausalLM"
    """Next-token prediction over packed documents."""
    mix: Annotated[list[MixEntry], Field(min_length=1, max_length=32)]
    """Sources and their shares."""
    when_exhausted: Literal["Repeat", "Renormalise", "Fail"] = "Repeat"
    """When a source has no tokens left: start it again, share its weight among the others, or fail before training."""
    sharding: Sharding = Sharding()
    """How each source is cut for tokenizing."""
    max_quarantined_percent: Annotated[Percent, Operational] = 5.0
    """Unreadable records of a source of files, at most, in percent."""
    sequence_length: Annotated[int, Field(ge=16, le=1_048_576)] = 4096
    """Length of the packed sequences, in tokens."""
    tokens: Annotated[Count, Field(ge=1)]
    """Tokens to train on."""
    global_batch: Annotated[int, Field(ge=1, le=65536)] = 512
    """Sequences in one step."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 42
    """Seed of the order of samples."""
    optimizer: Optimizer = Optimizer()
    """Optimizer."""
    deepspeed: DeepSpeed = DeepSpeed()
    """DeepSpeed."""
    checkpoints: Annotated[Checkpoints, Operational] = Checkpoints()
    """Checkpoints."""
    train_resources: Annotated[Resources | None, Operational] = None
    """For training; default spec.resources."""

    cel_rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.base.fromConfig) || !has(self.sequenceLength) || !has(self.base.fromConfig.maxPosition)"
             " || self.sequenceLength <= self.base.fromConfig.maxPosition",
             "sequenceLength must not exceed base.fromConfig.maxPosition"),
        Rule("(has(self.whenExhausted) && self.whenExhausted != 'Repeat')"
             " || self.mix.all(m, !has(m.maxTokens) && !has(m.maxEpochs))",
             "maxTokens and maxEpochs need whenExhausted Renormalise or Fail"),
        Rule("self.mix.all(a, self.mix.exists_one(b, (has(a.corpus) && has(b.corpus) && a.corpus.name == b.corpus.name)"
             " || (has(a.alignJob) && has(b.alignJob) && a.alignJob == b.alignJob"
             " && (has(a.view) ? a.view : 'Aligned') == (has(b.view) ? b.view : 'Aligned'))))",
             "mix entries must be different (corpus name, or AlignJob and view)"),
    )  # fmt: skip

    def problems(self) -> Iterator[str]:
        tiny = self.base.from_config
        if tiny and self.sequence_length > tiny.max_position:
            yield f"sequenceLength {self.sequence_length} must not exceed base.fromConfig.maxPosition {tiny.max_position}"
        if self.when_exhausted == "Repeat" and any(entry.max_tokens or entry.max_epochs for entry in self.mix):
            yield self.cel_rules[1].message
        names = [entry.name for entry in self.mix]
        if len(set(names)) != len(names):
            yield self.cel_rules[2].message
