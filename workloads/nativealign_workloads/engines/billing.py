"""What endpoints bill, summed over replies, rows and shards. Called by the steps that ask an expert or a judge."""

from collections.abc import Iterable
from typing import Any

from nativealign_workloads.engines.protocol import Reply

Json = dict[str, Any]

USAGE = ("requests", "tokens", "completionTokens")
"""Requests, prompt and completion tokens together, completion tokens alone."""


def estimated_message_tokens(content: str) -> int:
    """Upper-side estimate: two characters to a token (Arabic in common vocabularies), and what frames a message."""
    return len(content) // 2 + 4


def billed(reply: Reply) -> Json:
    """What an endpoint bills for a reply."""
    tokens = {"tokens": reply.prompt_tokens + reply.completion_tokens, "completionTokens": reply.completion_tokens}
    return {"requests": reply.requests, **tokens}


def usage(rows: Iterable[Json]) -> Json:
    """What rows, or the usages of shards, have cost together."""
    spent = dict.fromkeys(USAGE, 0)
    for row in rows:
        for name in USAGE:
            spent[name] += row[name]
    return spent
