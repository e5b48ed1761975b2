"""Decontamination: which documents hold a question of a benchmark. Called by clean and rewrite."""

from collections.abc import Callable

from nativealign_api.align import Decontamination
from nativealign_workloads.commit import read_json
from nativealign_workloads.context import Context
from nativealign_workloads.evaluate.pinned import load_questions

CONTAMINATED = "Contaminated"
"""Why a document is removed."""


def question_finder(context: Context) -> Callable[[str], str]:
    """Says which question a text holds, as benchmark/item; empty where it holds none, or where the job names no benchmark."""
    if "decontamination.data" not in context.job.inputs:
        return lambda text: ""
    pinned = read_json(context.store, f"{context.job.inputs['decontamination.data']}/listing.json")
    return load_questions(context, context.job.require("decontamination", Decontamination), pinned).held_by
