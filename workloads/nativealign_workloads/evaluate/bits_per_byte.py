"""Bits per byte of a model on texts: how well it compresses them, whatever its tokenizer. Called by `evaluate`.

Enters: (id, text) pairs, streamed. Leaves: {"id", "bits", "bytes", "tokens"} per text, in order. A text is cut into windows of
`max_length` tokens that do not overlap; each begins with the model's BOS token (EOS where there is none), so every
token is predicted once. bits = sum of -log2 p(token), bytes = length in UTF-8.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from nativealign_workloads.errors import DataError, UsageError
from nativealign_workloads.evaluate import models


def bits_per_byte(
    model_dir: Path,
    texts: Iterable[tuple[str, str]],
    *,
    max_length: int = 2048,
    batch_size: int = 8,
    device: str = "cpu",
    precision: str = "Float32",
) -> Iterator[dict[str, Any]]:
    """Rows in the order of `texts`; only one batch of windows is held at a time.

    `max_length` counts predicted tokens per window and is cut to the model's context. Raises NoInputError, DataError
    or UsageError.
    """
    if max_length < 1:
        raise UsageError("BadWindow", f"max_length is {max_length}", "give at least 1 token")
    model, tokenizer = models.load_model(model_dir, device, precision)
    context = getattr(model.config, "max_position_embeddings", max_length)
    yield from _rows(model, tokenizer, texts, min(max_length, context), batch_size)


def _rows(model: Any, tokenizer: Any, texts: Iterable[tuple[str, str]], length: int, batch_size: int) -> Iterator[dict[str, Any]]:
    scored = _scored(model, _windows(tokenizer, texts, length), batch_size)
    for (_, name, size), group in groupby(scored, key=lambda window: window[0]):
        windows = [(nats, tokens) for _, nats, tokens in group]
        bits = math.fsum(nats for nats, _ in windows) / math.log(2)
        yield {"id": name, "bits": round(bits, 6), "bytes": size, "tokens": sum(tokens for _, tokens in windows)}


_Key = tuple[int, str, int]
"""Position of the text (ids may repeat), its id, its bytes."""


def _windows(tokenizer: Any, texts: Iterable[tuple[str, str]], length: int) -> Iterator[tuple[_Key, list[int]]]:
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise DataError("NoStartToken", "the tokenizer has neither a BOS nor an EOS token", "add one to the tokenizer")
    for position, (name, text) in enumerate(texts):
        tokens = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        key = (position, name, len(text.encode("utf-8")))
        for begin in range(0, max(len(tokens), 1), length):
            yield key, [start, *tokens[begin : begin + length]]


def _scored(model: Any, windows: Iterator[tuple[_Key, list[int]]], batch_size: int) -> Iterator[tuple[_Key, float, int]]:
    batch: list[tuple[_Key, list[int]]] = []
    for window in windows:
        batch.append(window)
        if len(batch) == batch_size:
            yield from _score(model, batch)
            batch = []
    yield from _score(model, batch)


def _score(model: Any, batch: Sequence[tuple[_Key, list[int]]]) -> Iterator[tuple[_Key, float, int]]:
    """Negative log-likelihood in nats, and number of tokens, of each window after its first token; right padding is masked."""
    import torch

    if not batch:
        return
    longest = max(len(tokens) for _, tokens in batch)
    ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for _, tokens in batch], device=model.device)
    mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for _, tokens in batch], device=model.device)
    with torch.inference_mode():
        # The last token is only predicted, never read.
        logits = model(input_ids=ids[:, : max(longest - 1, 1)], attention_mask=mask[:, : max(longest - 1, 1)]).logits
    for row, (key, tokens) in enumerate(batch):
        count = len(tokens) - 1
        losses = torch.nn.functional.cross_entropy(logits[row, :count].float(), ids[row, 1 : count + 1], reduction="none")
        yield key, math.fsum(losses.tolist()), count
