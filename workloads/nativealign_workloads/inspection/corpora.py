"""Corpora: listing, shard plan, schema, licences, and a forecast of what annotating will cost."""

import io
import math
from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO, cast

from nativealign_api.align import AlignJobSpec, Chunking, Expert
from nativealign_api.common import Corpus, Sharding
from nativealign_api.identity import digest
from nativealign_api.plan import input_prefix
from nativealign_workloads.commit import Json, create_first
from nativealign_workloads.context import Context
from nativealign_workloads.errors import NoInputError, UsageError
from nativealign_workloads.gc.claim import claim
from nativealign_workloads.records import BadRecord, Fields, Record, detect_format, is_card, read_records, read_schema
from nativealign_workloads.sources import Source, SourceFile, open_source, required_files

SAMPLE_RECORDS = 1000
"""Records of the first file of each corpus that are looked at for problems and forecast, at least."""

TOKENS_PER_WORD = 2.0
"""Assumption of the forecast: what tokenizers of multilingual models need for an Arabic word."""


MOST_SHARDS = 10_000
"""Shards of rewrite; an Indexed Job has 100,000 at most, and its record names each."""


def pin(context: Context, given: list[Corpus], sharding: Sharding) -> Json:
    """Lists the corpora, cuts them into shards, writes both under `inputs/<digest>/`, and returns the facts."""
    sources = [open_source(context, corpus.uri) for corpus in given]
    listings = [data_files(source) for source in sources]
    check_names(given, listings)
    size = sum(file.size for listing in listings for file in listing)
    shards = count_shards(size, sharding)
    units = plan_shards(given, listings, shards)
    content = {
        "files": [[c.name, f.key, f.size, f.etag] for c, fs in zip(given, listings, strict=True) for f in fs],
        "shards": shards,
    }
    own = digest(content)
    claim(context, input_prefix(own))
    for shard, unit in enumerate(units):
        create_first(context.store, shard_key(input_prefix(own), shard), {"units": unit})
    facts = [describe(*pair) for pair in zip(given, sources, listings, strict=True)]
    create_first(context.store, f"{input_prefix(own)}/listing.json", content)
    return {
        "digest": own,
        "shards": shards,
        "files": sum(map(len, listings)),
        "bytes": size,
        "corpora": facts,
    }


def pin_whole(context: Context, given: list[Corpus]) -> Json:
    """The same for what every shard of a job reads as a whole: it lies there as one shard."""
    found = pin(context, given, Sharding(shards=1))
    return {name: found[name] for name in ("digest", "files", "bytes", "corpora")}


def count_shards(size: int, sharding: Sharding) -> int:
    """Shards of so many compressed bytes."""
    return sharding.shards or max(1, math.ceil(size / sharding.target_bytes))


def data_files(source: Source) -> list[SourceFile]:
    """The files of a source without those that only describe a dataset. Raises NoInputError InputEmpty where there is none."""
    found = [file for file in required_files(source) if not is_card(file.key)]
    if not found:
        raise NoInputError(
            "InputEmpty", f"{source.uri}: only a dataset's description, no data", "add the data files, or check the URI"
        )
    return found


def check_names(given: list[Corpus], listings: list[list[SourceFile]]) -> None:
    """Raises UsageError UnknownFormat where a corpus of format Auto has a file whose name does not tell its format."""
    for corpus, listing in zip(given, listings, strict=True):
        unknown = [file.key for file in listing if corpus.format == "Auto" and detect_format(file.key) is None]
        if unknown:
            raise UsageError(
                "UnknownFormat",
                f"corpus {corpus.name}: {len(unknown)} of {len(listing)} names do not tell their format, e.g. {unknown[0]}",
                "set the corpus' format, or narrow its uri to the files that are meant, e.g. *.jsonl.gz",
            )


def shard_key(prefix: str, shard: int) -> str:
    """Where the plan of one shard lies."""
    return f"{prefix}/shards/{shard:05d}.json"


def plan_shards(given: list[Corpus], listings: list[list[SourceFile]], shards: int) -> list[list[Json]]:
    """The units of each shard: whole files by size, and every k-th record of files larger than a fair share.

    A unit is {corpus, key, stride: [offset, step], etag}. Pure and stable: the same listing gives the same plan.
    """
    every = [(corpus.name, file) for corpus, listing in zip(given, listings, strict=True) for file in listing]
    fair = sum(file.size for _, file in every) / shards
    plan: list[list[Json]] = [[] for _ in range(shards)]
    load = [0.0] * shards
    for corpus, file in sorted(every, key=lambda item: (-item[1].size, item[0], item[1].key)):
        strides = min(shards, max(1, math.ceil(file.size / fair)))
        for offset in range(strides):
            lightest = min(range(shards), key=lambda shard: (load[shard], shard))
            load[lightest] += file.size / strides
            plan[lightest].append({"corpus": corpus, "key": file.key, "stride": [offset, strides], "etag": file.etag})
    order = {corpus.name: number for number, corpus in enumerate(given)}
    return [sorted(units, key=lambda unit: (order[unit["corpus"]], unit["key"], unit["stride"])) for units in plan]


def fields_of(corpus: Corpus) -> Fields:
    """Where a corpus' records have what."""
    return Fields(corpus.text_field, corpus.id_field, corpus.license_field, corpus.url_field)


def describe(corpus: Corpus, source: Source, listing: list[SourceFile]) -> Json:
    """What a look at the head of the first file shows of a corpus: schema, problems, and the size of a record."""
    first = listing[0]
    read = partial(read_records, format=corpus.format, fields=fields_of(corpus))
    with source.store.open(f"{source.folder}{first.key}") as stream:
        counted = _Counted(stream)
        sample = list(_head(read(cast(BinaryIO, counted), first.key), counted, first.size))
    size = sum(file.size for file in listing)
    return {
        "name": corpus.name,
        "files": len(listing),
        "bytes": size,
        "license": corpus.license,
        "schema": _schema(corpus, source, first),
        "sampleRecords": len(sample),
        "sampleProblems": dict(Counter(record.reason for record in sample if isinstance(record, BadRecord))),
        **_expected(sample, counted.bytes_read, size),
    }


def _head(records: Iterator[Record | BadRecord], counted: "_Counted", size: int) -> Iterator[Record | BadRecord]:
    """The first SAMPLE_RECORDS records; all, where the reader had to take the whole file for them."""
    for number, record in enumerate(records):
        if number >= SAMPLE_RECORDS and counted.bytes_read < size:
            return
        yield record


def _schema(corpus: Corpus, source: Source, first: SourceFile) -> dict[str, str]:
    with source.store.open(f"{source.folder}{first.key}") as stream:
        return read_schema(stream, first.key, format=corpus.format)


def _expected(sample: list[Record | BadRecord], consumed: int, size: int) -> Json:
    words = [len(record.text.split()) for record in sample if isinstance(record, Record)]
    documents = round(len(sample) * size / consumed) if consumed else 0
    return {"expectedDocuments": documents, "expectedWords": round(documents * sum(words) / max(1, len(sample)))}


class _Counted(io.RawIOBase):
    """A stream that knows how many bytes were taken from it."""

    def __init__(self, inner: BinaryIO) -> None:
        self._inner, self.bytes_read = inner, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._inner.seek(offset, whence)

    def tell(self) -> int:
        return self._inner.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read(len(buffer))
        buffer[: len(data)] = data
        self.bytes_read += len(data)
        return len(data)


def forecast(facts: list[Json], spec: AlignJobSpec, instructions: int) -> Json:
    """What the expert will be asked, from the sample of each corpus, before anything is filtered; first answers only.

    Tokens are estimated as words times TOKENS_PER_WORD, and for each chunk the instructions as the engine estimates them; money
    only where the budget gives prices.
    """
    documents = sum(item["expectedDocuments"] for item in facts)
    words = sum(item["expectedWords"] for item in facts)
    asked = min(documents, spec.seed.documents) if spec.worker else documents
    tokens = round(words * TOKENS_PER_WORD * asked / documents) if documents else 0
    prompt = tokens + expected_chunks(asked, tokens, spec.chunking) * instructions
    found = {"documents": documents, "words": words, "expertDocuments": asked, "promptTokens": prompt, "completionTokens": tokens}
    return found | _money(prompt, tokens, spec.expert)


def expected_chunks(documents: int, tokens: int, chunking: Chunking) -> int:
    """Chunks of so many documents: the last one of each is filled in part."""
    return documents + tokens // chunking.max_tokens


def rewrite_shards(facts: list[Json], spec: AlignJobSpec) -> int:
    """Shards of rewrite, from the sample of each corpus, before anything is filtered."""
    if spec.sharding.shards:
        return spec.sharding.shards
    documents = sum(item["expectedDocuments"] for item in facts)
    tokens = round(sum(item["expectedWords"] for item in facts) * TOKENS_PER_WORD)
    wanted = math.ceil(expected_chunks(documents, tokens, spec.chunking) / spec.rewrite.chunks_per_shard)
    return min(max(1, wanted), MOST_SHARDS)


def _money(prompt: int, completion: int, expert: Expert) -> Json:
    budget = expert.openai.budget if expert.openai else None
    if not budget or budget.prompt_usd_per_million_tokens is None or budget.completion_usd_per_million_tokens is None:
        return {}
    prices = (budget.prompt_usd_per_million_tokens, budget.completion_usd_per_million_tokens)
    return {"usd": float(prompt * prices[0] + completion * prices[1]) / 1_000_000}
