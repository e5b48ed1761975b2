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
    """What an endpoint bills for a reply; nothing where none was asked."""
    if not reply.requests:
        return billed_together([])
    tokens = {"tokens": reply.prompt_tokens + reply.completion_tokens, "completionTokens": reply.completion_tokens}
    return {"requests": reply.requests, **tokens}


def billed_together(rows: Iterable[Json]) -> Json:
    """What several replies, or rows, have been billed."""
    return _sum(("requests", "tokens", "completionTokens"), rows)


def usage(parts: Iterable[Json]) -> Json:
    """The usages of shards or steps together."""
    return _sum(Usage().model_dump(by_alias=True), parts)


def _sum(names: Iterable[str], parts: Iterable[Json]) -> Json:
    total = dict.fromkeys(names, 0)
    for part in parts:
        for name in total:
            total[name] += part.get(name, 0)
    return total
