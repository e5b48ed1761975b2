"""Engines that answer chat requests with text: `rules` (offline), `openai` compatible HTTP, `transformers` and `vllm`."""

from nativealign_workloads.engines.protocol import Engine, FinishReason, Reply, Request

__all__ = ["Engine", "FinishReason", "Reply", "Request"]
