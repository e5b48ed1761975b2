"""clean: keep the documents that are worth aligning, before anything is deduplicated or paid for.

Reads the pinned shard plan, the corpora, and the benchmarks that are kept out; writes `documents` (kept) and `removed` (filtered or
quarantined, with the reason). Kept text is changed only by the repairs, the boilerplate removal and the masks that the spec asks
for; `raw` keeps the text as read where they changed something.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from nativealign_api.align import Clean, PersonalData
from nativealign_api.common import Corpus
from nativealign_api.vocabulary import Outcome
from nativealign_workloads.align.decontamination import CONTAMINATED, question_finder
from nativealign_workloads.align.repeated_lines import repeated_finder
from nativealign_workloads.commit import Json, ShardCommit, commit_step, read_json, record_rows, shard_records
from nativealign_workloads.context import Context
from nativealign_workloads.documents import corpus_documents
from nativealign_workloads.errors import DataError, NoInputError
from nativealign_workloads.ledger import Tally, total
from nativealign_workloads.records import BadRecord
from nativealign_workloads.text.boilerplate import strip_boilerplate, without_lines
from nativealign_workloads.text.identifiers import find_ibans, find_national_ids, find_valid_phones
from nativealign_workloads.text.language import language
from nativealign_workloads.text.personal import find_emails, replace_spans
from nativealign_workloads.text.quality import why_poor
from nativealign_workloads.text.repair import repair_mojibake, repair_presentation_forms
from nativealign_workloads.text.script import share_of

MIN_SCRIPT_SHARE = 0.5
"""Of a document's letters, in a script that is kept."""


@dataclass(frozen=True)
class Cleaned:
    """A text after cleaning, and what was done to it. `reason` is set when it is not kept."""

    text: str
    operations: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""


def clean_text(text: str, settings: Clean, license: str = "", is_repeated: Callable[[str], bool] | None = None) -> Cleaned:
    """Lines repeated over the site, repairs, boilerplate, masks, then the filters, in this order. Pure."""
    operations = []
    if is_repeated:
        text, lines = without_lines(text, is_repeated)
        operations += ["RemoveRepeatedLines"] * bool(lines)
    if settings.repair.encoding:
        text, changed = repair_mojibake(text)
        operations += ["RepairEncoding"] * changed
    if settings.repair.presentation_forms:
        text, changed = repair_presentation_forms(text)
        operations += ["RepairPresentationForms"] * changed
    if settings.remove_boilerplate:
        text, lines = strip_boilerplate(text)
        operations += ["RemoveBoilerplate"] * bool(lines)
    if settings.personal_data:
        text, masked = mask(text, settings.personal_data)
        operations += masked
    return Cleaned(text, tuple(operations), _why_filtered(text, settings, license))


def mask(text: str, settings: PersonalData) -> tuple[str, list[str]]:
    """(text with placeholders for personal data, the operations that changed it); an IBAN is no phone number, so it goes first."""
    kinds = (
        ("MaskEmail", settings.email, find_emails),
        ("MaskIban", settings.iban, find_ibans),
        ("MaskNationalId", settings.national_id, partial(find_national_ids, countries=settings.countries)),
        ("MaskPhoneNumber", settings.phone_number, partial(find_valid_phones, countries=settings.countries)),
    )
    operations = []
    for operation, placeholder, find in kinds:
        if placeholder and (spans := find(text)):
            text = replace_spans(text, spans, placeholder)
            operations.append(operation)
    return text, operations


def _why_filtered(text: str, settings: Clean, license: str) -> str:
    if settings.licenses and license.casefold() not in map(str.casefold, settings.licenses):
        return "License"
    words = len(text.split())
    if words < settings.min_words:
        return "TooShort"
    if words > settings.max_words:
        return "TooLong"
    if settings.scripts and max(share_of(text, code) for code in settings.scripts) < MIN_SCRIPT_SHARE:
        return "Script"
    if settings.languages and language(text) not in settings.languages:
        return "Language"
    return why_poor(text, settings.quality) if settings.quality else ""


def run(context: Context) -> Json:
    """Phase `filter`: one shard."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    settings = context.job.require("clean", Clean)
    tally, question_in, repeated_in = Tally(), question_finder(context), repeated_finder(context)
    context.progress.begin(0, "documents")
    corpora = context.job.require("corpora", list[Corpus])
    for row, found in corpus_documents(context, corpora, context.job.inputs["corpora"], context.index):
        if isinstance(found, BadRecord):
            _quarantine(shard, tally, row, found)
        else:
            cleaned = clean_text(found.text, settings, row.get("license", ""), repeated_in and repeated_in(row))
            _keep(shard, tally, row, cleaned if cleaned.reason else _without_questions(cleaned, question_in), found.text)
        context.progress.advance(out=tally.of(Outcome.OUT).count)
    shard.commit(tally)
    return {"counts": tally.counts()}


def _without_questions(cleaned: Cleaned, question_in: Callable[[str], str]) -> Cleaned:
    question = question_in(cleaned.text)
    return replace(cleaned, reason=CONTAMINATED, detail=question) if question else cleaned


def _keep(shard: ShardCommit, tally: Tally, row: Json, cleaned: Cleaned, raw: str) -> None:
    if cleaned.reason:
        tally.add(row["id"], Outcome.FILTERED, cleaned.reason)
        detail = {"detail": cleaned.detail} if cleaned.detail else {}
        shard.part("removed").add(row | {"outcome": Outcome.FILTERED, "reason": cleaned.reason} | detail)
        return
    tally.add(row["id"], Outcome.OUT)
    tally.reasons.update(f"operation/{operation}" for operation in cleaned.operations)
    changed = {"raw": raw, "operations": cleaned.operations} if cleaned.text != raw else {}
    shard.part("documents").add(row | {"text": cleaned.text} | changed)


def _quarantine(shard: ShardCommit, tally: Tally, row: Json, bad: BadRecord) -> None:
    tally.add(row["id"], Outcome.QUARANTINED, bad.reason)
    shard.part("removed").add(row | {"outcome": Outcome.QUARANTINED, "reason": bad.reason, "detail": bad.detail})


def commit(context: Context) -> Json:
    """Phase `commit`: refuses an empty corpus and one that is mostly unreadable."""
    records = shard_records(context, "filter", _shards(context))
    check_quarantine(context, total(Tally.load(record["tally"]) for record in records), _quarantined(context, records))
    _check_kept(total(Tally.load(record["tally"]) for record in records))
    return commit_step(context, records)


def _check_kept(tally: Tally) -> None:
    """A job that keeps nothing would be complete, and useless."""
    if not tally.of(Outcome.OUT).count:
        reasons = ", ".join(f"{count} {reason.partition('/')[2]}" for reason, count in tally.reasons.most_common(5))
        raise NoInputError("NothingKept", f"none of {tally.read.count} documents is kept: {reasons}", "check spec.clean")


def _quarantined(context: Context, records: list[Json]) -> Iterator[str]:
    """Where the unreadable records are, in words."""
    for record in records:
        for row in record_rows(context.store, record, "removed"):
            if row["outcome"] == Outcome.QUARANTINED:
                yield f"{row['corpus']}/{row['key']}: {row['detail'].removeprefix(row['key'] + ': ')}"


def _shards(context: Context) -> int:
    planned: int = read_json(context.store, f"{context.job.inputs['corpora']}/listing.json")["shards"]
    return planned


def check_quarantine(context: Context, tally: Tally, places: Iterable[str] = ()) -> None:
    """Raises NoInputError InputEmpty, or DataError TooMuchQuarantined with the commonest reasons and the first of `places`."""
    if not tally.read.count:
        raise NoInputError("InputEmpty", "the corpora hold no record", "check the files and their format")
    quarantined = tally.of(Outcome.QUARANTINED).count
    percent, limit = 100 * quarantined / tally.read.count, context.job.require("maxQuarantinedPercent", float)
    if percent > limit:
        why = [(reason, count) for reason, count in tally.reasons.most_common() if reason.startswith("quarantined/")]
        reasons = ", ".join(f"{count} {reason.removeprefix('quarantined/')}" for reason, count in why[:5])
        example = "".join(f", e.g. {place}" for place in islice(places, 1))
        raise DataError(
            "TooMuchQuarantined",
            f"{quarantined} of {tally.read.count} records ({percent:.1f} %) cannot be read: {reasons}{example}; "
            f"the limit is {limit:g} %",
            "mend the files, check format and textField, or raise maxQuarantinedPercent",
        )
