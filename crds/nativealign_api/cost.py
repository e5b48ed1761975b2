"""What a job's endpoints cost, from what its steps were billed and the prices in the spec. Called by operator and local runner."""

from nativealign_api.common import OpenAIEngine
from nativealign_api.kinds import JobObject
from nativealign_api.messages import Usage
from nativealign_api.plan import value_at

ENDPOINTS = {"annotate": "expert.openai", "rewrite": "expert.openai", "assess": "assess.judge", "evaluate": "judge"}
"""Path of the endpoint that a step asks."""


def charge(job: JobObject, step: str, usage: Usage) -> None:
    """Adds what a step was billed to the job's cost; money where the spec gives the endpoint's prices."""
    cost = job.status.cost
    cost.expert_requests += usage.requests
    cost.expert_tokens += usage.tokens
    endpoint = value_at(job.spec, ENDPOINTS[step]) if step in ENDPOINTS else None
    if isinstance(endpoint, OpenAIEngine):
        cost.usd += dollars(endpoint, usage)


def dollars(endpoint: OpenAIEngine, usage: Usage) -> float:
    """US dollars; 0 where a price is missing."""
    prompt, completion = endpoint.budget.prompt_usd_per_million_tokens, endpoint.budget.completion_usd_per_million_tokens
    if prompt is None or completion is None:
        return 0.0
    return float((usage.tokens - usage.completion_tokens) * prompt + usage.completion_tokens * completion) / 1_000_000
