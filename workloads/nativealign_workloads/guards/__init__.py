"""Guards: what a rewriting must keep and must not contain, measured on (original, rewriting) pairs."""

from nativealign_workloads.guards.check import Verdict, check, decide, unchanged

__all__ = ["Verdict", "check", "decide", "unchanged"]
