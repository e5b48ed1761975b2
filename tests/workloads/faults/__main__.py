"""`python -m tests.workloads.faults STEP PHASE`: a phase with the fault that its environment tells."""

import os

from tests.workloads.faults.sitecustomize import arm

from nativealign_workloads.__main__ import main as run


def main(arguments: list[str]) -> int:
    """Runs the phase; returns the exit code."""
    arm(os.environ)
    return run(arguments)
