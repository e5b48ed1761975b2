"""The code of conduct: what the expert and the worker are asked to do with a text, and what their answers are held to."""

from nativealign_workloads.conduct.model import (
    BUILTIN,
    Action,
    Conduct,
    conduct_hash,
    load_conduct,
)

__all__ = ["BUILTIN", "Action", "Conduct", "conduct_hash", "load_conduct"]
