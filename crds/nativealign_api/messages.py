"""What a pod says when it ends: its termination message. Written by the workloads, read by the operator and the local runner.

Kubernetes keeps 4096 bytes. A longer message is compressed, since most of it is digests and repeated names; one that is too long
even so loses its largest parts, which the store has too.
"""

import base64
import json
import math
import zlib
from typing import Any, Literal

from nativealign_api.status import Pinned, StatusModel, StepStatus

MESSAGE_LIMIT = 4096
"""Bytes of a termination message that Kubernetes keeps."""
UNPACKED_LIMIT = 1 << 20
"""Bytes of an unpacked message; pods are not trusted to stay below."""
PACKED = "packed"


class Usage(StatusModel):
    """What endpoints bill."""

    requests: int = 0
    """Requests."""
    tokens: int = 0
    """Prompt and completion tokens together."""
    completion_tokens: int = 0
    """Completion tokens alone."""
    unsettled_requests: int = 0
    """Requests whose answer was lost, so that nobody here knows whether they were billed; counted in no other field."""
    unsettled_tokens: int = 0
    """What they may have cost at most."""


class Headline(StatusModel):
    """What a committed step is known by. It stands in the step's manifest, so that a re-created job computes nothing to show it."""

    counts: dict[str, int] = {}
    """What the step did with its input, by outcome."""
    metrics: dict[str, float] = {}
    """Losses, scores."""
    usage: Usage = Usage()
    """What endpoints billed for it."""
    gate: Literal["Pass", "Fail", "Inconclusive"] | None = None
    """Verdict of the spec's gates; None where it sets none, or the step has none."""
    failed_gates: list[str] = []
    """Gates that did not pass: their field, what was measured, and the limit."""

    def show(self, step: StepStatus) -> None:
        """Puts the headline into a step's status. JSON has no number for a loss that is none (RFC 8259, section 6)."""
        step.counts, step.failed_gates = self.counts, self.failed_gates
        step.metrics = {name: value for name, value in self.metrics.items() if math.isfinite(value)}


class TerminationMessage(Headline):
    """All that any pod may say."""

    step: str | None = None
    phase: str | None = None
    index: int = 0
    digest: str | None = None
    """Digest of inspect, which finds its own."""
    pinned: Pinned | None = None
    """What inspect pinned; without `upstream`, `images` and `store`, which it was told."""
    committed: dict[str, Headline] = {}
    """From inspect: the steps whose manifests are in the store."""
    code: str | None = None
    """CamelCase cause of a failure."""
    message: str = ""
    """Of a failure, for people."""
    hint: str = ""
    """What to do about it."""

    def pin(self, before: Pinned) -> Pinned:
        """All that a run stands on, from what inspect says and what it was told."""
        assert self.pinned, "only inspect pins"
        told = {"upstream": before.upstream, "images": before.images, "store": before.store}
        return self.pinned.model_copy(update=told)


def pack(message: dict[str, Any]) -> str:
    """The message as JSON of at most MESSAGE_LIMIT bytes."""
    for text in (_dump(message), _compressed(message)):
        if len(text.encode()) <= MESSAGE_LIMIT:
            return text
    largest = max(message, key=lambda name: len(_dump(message[name])))
    cut = message[largest][: len(message[largest]) // 2] if isinstance(message[largest], str) else None
    return pack({name: cut if name == largest else value for name, value in message.items()})


def unpack(text: str) -> TerminationMessage | None:
    """The message; None for anything else, e.g. the end of a log or what another program left."""
    try:
        value = json.loads(text)
        if PACKED in value:
            value = json.loads(zlib.decompressobj().decompress(base64.b85decode(value[PACKED]), UNPACKED_LIMIT))
        return TerminationMessage.model_validate(value)
    except (ValueError, TypeError, zlib.error, RecursionError):
        return None


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _compressed(message: dict[str, Any]) -> str:
    return _dump({PACKED: base64.b85encode(zlib.compress(_dump(message).encode(), 9)).decode()})
