"""The model of a code of conduct and its loader.

Called by annotate, train-worker, rewrite and assess. YAML bytes go in (a built-in file, a ConfigMap's key, or text from the job);
a checked `Conduct` comes out, or one UsageError that names every wrong line.
"""

import hashlib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from nativealign_workloads.conduct.lines import LineIndex, describe, read_yaml
from nativealign_workloads.errors import UsageError

BUILTIN: dict[str, Path] = {"ar-1": Path(__file__).with_name("ar-1.yaml")}
"""Codes of conduct that ship with the product, by name. A published one never changes; a better one gets the next number."""

Text = Annotated[str, Field(min_length=1, max_length=20_000)]
Phrase = Annotated[str, Field(min_length=2, max_length=200)]
Share = Annotated[float, Field(ge=0, le=1)]


class Action(StrEnum):
    """What happens to a chunk whose rewriting a guard rejects."""

    ORIGINAL = "Original"
    """The original chunk stands."""
    RETRY = "Retry"
    """The same engine is asked once more."""
    EXPERT = "Expert"
    """The expert rewrites the chunk instead of the worker."""
    DROP = "Drop"
    """The chunk leaves the corpus."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel, validate_by_name=True, validate_by_alias=True)


class Instructions(_Model):
    """What the expert is told, by the paper's four themes."""

    format: Text
    values: Text
    moderation: Text
    knowledge_preservation: Text


class Example(_Model):
    """A pair for few-shot prompting. Equal texts show that good text is left alone."""

    origin: Text
    rewritten: Text


class ForbiddenPhrases(_Model):
    """Phrases that a rewriting must not contain unless its original does; spelling, case and punctuation do not matter."""

    scaffold: list[Phrase]
    """Headings and announcements of the answer itself, e.g. "Here is the rewritten text"."""
    refusal: list[Phrase]
    """Ways of declining to answer."""
    unsafe: list[Phrase]
    """Insults and obscenities that nobody may add."""


class Masks(_Model):
    """Placeholders for personal data. A kind without a placeholder stays as it is."""

    phone_number: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    email: Annotated[str, Field(min_length=1, max_length=40)] | None = None


class RatioGuard(_Model):
    """Rejects values outside `minimum`..`maximum`."""

    minimum: Annotated[float, Field(gt=0, le=1)]
    maximum: Annotated[float, Field(ge=1, le=10)]
    action: Action


class LimitGuard(_Model):
    """Rejects values above `limit`."""

    limit: Share
    action: Action


class RuleGuard(_Model):
    """Rejects whatever breaks the rule; there is nothing to tune but the action."""

    action: Action


class Guards(_Model):
    """Every guard with its limit and action; `nativealign_workloads.guards` says what each measures."""

    length_ratio: RatioGuard
    language_drift: RuleGuard
    script_drift: LimitGuard
    number_lost: LimitGuard
    number_invented: LimitGuard
    date_lost: LimitGuard
    date_invented: LimitGuard
    name_lost: LimitGuard
    name_invented: LimitGuard
    url_lost: LimitGuard
    url_invented: LimitGuard
    word_lost: LimitGuard
    repetition: LimitGuard
    scaffold_leak: RuleGuard
    unsafe_addition: RuleGuard
    refusal: RuleGuard
    truncated: RuleGuard
    empty: RuleGuard

    @model_validator(mode="after")
    def _refusals_never_fall_back(self) -> Self:
        if self.refusal.action is Action.ORIGINAL:
            raise ValueError("refusal.action must not be Original: a chunk that the worker refuses may be the harmful one")
        return self


class Judge(_Model):
    """What a judge is told about each of the paper's five aspects, each scored 1 to 10."""

    format: Text
    accuracy: Text
    content_moderation: Text
    advertisement_removal: Text
    level_of_detail: Text


class Conduct(_Model):
    """A code of conduct. Its hash goes into every record that was made under it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$")]
    language: Annotated[str, Field(pattern=r"^[a-z]{2,3}$")]
    instructions: Instructions
    worker_instructions: Annotated[str, Field(min_length=1, max_length=1000)]
    """What the trained worker is told, a sentence or two: the rest it has learnt from the pairs."""
    examples: Annotated[list[Example], Field(max_length=20)] = []
    forbidden_phrases: ForbiddenPhrases
    remove_advertisements: bool = False
    """Declares advertisements and web furniture as removals: the guards do not miss them."""
    masks: Masks = Masks()
    guards: Guards
    judge: Judge


def load_conduct(data: bytes, source: str) -> Conduct:
    """The code of conduct in `data`; `source` names it in errors (a path, `configmap/our-conduct`, ...).

    Raises UsageError `InvalidCodeOfConduct` with one `source:line: field: problem` per mistake.
    """
    value, lines = read_yaml(data, source)
    try:
        return Conduct.model_validate(value)
    except ValidationError as error:
        problems = [_problem(source, lines, dict(e)) for e in error.errors(include_url=False)]
    raise UsageError("InvalidCodeOfConduct", "\n".join(problems), "the built-in ar-1 shows every field")


def conduct_hash(data: bytes) -> str:
    """Content hash of a code of conduct: SHA-256 of its bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _problem(source: str, lines: LineIndex, error: dict[str, Any]) -> str:
    path = tuple(error["loc"])
    return f"{source}:{lines.line(path)}: {describe(path, error, known_fields(path[:-1]))}"


def known_fields(path: tuple[Any, ...]) -> list[str]:
    """Names of the fields of the model at `path`, for "did you mean"."""
    model: type[BaseModel] = Conduct
    for part in path:
        names = {field.alias or name: field.annotation for name, field in model.model_fields.items()}
        step = names.get(part) if isinstance(part, str) else model
        if not (isinstance(step, type) and issubclass(step, BaseModel)):
            return []
        model = step
    return [field.alias or name for name, field in model.model_fields.items()]
