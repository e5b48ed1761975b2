"""Decontamination: which documents hold a question of a benchmark. Called by clean and rewrite."""

from collections.abc import Callable, Iterator

from nativealign_api.align import Decontamination
from nativealign_workloads.commit import read_json
from nativealign_workloads.context import Context
from nativealign_workloads.documents import corpus_documents
from nativealign_workloads.errors import DataError
from nativealign_workloads.evaluate.pinned import load_questions
from nativealign_workloads.records import BadRecord
from nativealign_workloads.text.contamination import Questions

CONTAMINATED = "Contaminated"
"""Why a document is removed."""


def question_finder(context: Context) -> Callable[[str], str]:
    """Says which question a text holds, as benchmark/item; empty where it holds none, or where the job names no benchmark."""
    settings = context.job.read("decontamination", Decontamination)
    if settings is None:
        return lambda text: ""
    found = [*_published(context, settings), *_own(context, settings)]
    names, questions = [name for name, _ in found], [question for _, question in found]
    return Questions(names, questions, settings.words, settings.min_words).held_by


def _published(context: Context, settings: Decontamination) -> list[tuple[str, str]]:
    if not settings.benchmarks:
        return []
    pinned = read_json(context.store, f"{context.job.inputs['decontamination.data']}/listing.json")
    return load_questions(context, settings.benchmarks, pinned)


def _own(context: Context, settings: Decontamination) -> Iterator[tuple[str, str]]:
    """Raises DataError for an item that cannot be read: what it asks would stay in the corpus."""
    if not settings.items:
        return
    for row, record in corpus_documents(context, settings.items, context.job.inputs["decontamination.items"], 0):
        if isinstance(record, BadRecord):
            problem = f"decontamination.items {row['corpus']}, {row['key']}: {record.detail}"
            raise DataError("ItemUnreadable", f"{problem} ({record.reason})", "mend the record, and create a new job")
        yield f"{row['corpus']}/{record.user_id or '{key}:{ordinal}'.format(**row)}", record.text
