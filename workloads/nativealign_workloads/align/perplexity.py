"""Perplexity of texts under a causal language model. Used by annotate's strategies and by assess."""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

BATCH = 8
MAX_LENGTH = 1024
"""Tokens of one window."""


def perplexities(model: Path, texts: Iterable[tuple[str, str]], device: str) -> Iterator[tuple[str, float]]:
    """(id, perplexity) for each (id, text): exp of the mean negative log-likelihood per token, windows without overlap."""
    from nativealign_workloads.evaluate.bits_per_byte import bits_per_byte

    for row in bits_per_byte(model, texts, max_length=MAX_LENGTH, batch_size=BATCH, device=device):
        yield row["id"], math.exp(row["bits"] * math.log(2) / max(1, row["tokens"]))
