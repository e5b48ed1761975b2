"""Garbage collection of a store: inspect claims (claim.py), `python -m nativealign_workloads.gc` looks and removes (sweep.py)."""
