"""What endpoints bill, summed over replies, rows and shards. Called by the steps that ask an expert or a judge."""

from collections.abc import Iterable
from typing import Any

from nativealign_api.messages import Usage
from nativealign_workloads.engines.protocol import Reply

Json = dict[str, Any]


def estimated_message_tokens(content: str) -> int:
    """Upper-side estimate: two characters to a token (Arabic in common vocabularies), and what frames a message."""
    return len(content) // 2 + 4


def billed(reply: Reply) -> Json:
    """What an endpoint bills for a reply."""
    tokens = {"tokens": reply.prompt_tokens + reply.completion_tokens, "completionTokens": reply.completion_tokens}
    return {"requests": reply.requests, **tokens}


def usage(rows: Iterable[Json]) -> Json:
    """What rows, or the usages of shards, have cost together."""
    spent: Json = Usage().model_dump(by_alias=True)
    for row in rows:
        for name in spent:
            spent[name] += row[name]
    return spent
