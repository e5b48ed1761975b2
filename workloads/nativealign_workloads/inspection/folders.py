"""Inputs that are folders or small texts: models, benchmark files, the code of conduct."""

from pathlib import Path
from typing import Any

from nativealign_api.align import CodeOfConduct, Decontamination
from nativealign_api.evaluate import EvalJobSpec
from nativealign_api.identity import DIGEST_LENGTH, digest
from nativealign_api.plan import input_prefix, value_at
from nativealign_workloads.commit import Json, create_first
from nativealign_workloads.conduct import BUILTIN, conduct_hash, load_conduct
from nativealign_workloads.conduct.prompt import render_messages
from nativealign_workloads.context import Context
from nativealign_workloads.engines.billing import estimated_message_tokens
from nativealign_workloads.errors import ConfigError, DataError
from nativealign_workloads.evaluate.pinned import bring, load_questions
from nativealign_workloads.evaluate.tasks import check_judge, plan
from nativealign_workloads.gc.claim import claim
from nativealign_workloads.model_files import check_config, check_names
from nativealign_workloads.sources import Source, SourceFile, open_source, required_files
from nativealign_workloads.store import AlreadyExists

CONDUCT_FILE = Path("/etc/nativealign/conduct.yaml")
"""Where the operator mounts the ConfigMap key of a code of conduct."""


def model_uri(spec: Any, name: str) -> str:
    """The URI behind an input: `base` and `model` are models themselves, the others objects with a `uri`."""
    value = value_at(spec, name)
    return str(value.uri)


def pin_model(context: Context, uri: str) -> Json:
    """Lists a model's folder, before anything is computed with it.

    Raises as model_files does.
    """
    source = open_source(context, uri)
    listing = required_files(source)
    check_names((Path(file.key).name for file in listing), uri)
    _check_small_files(source, listing)
    return _pin_listing(context, {"uri": uri, "files": [[file.key, file.size, file.etag] for file in listing]})


def _check_small_files(source: Source, listing: list[SourceFile]) -> None:
    for file in listing:
        if Path(file.key).name == "config.json":
            check_config(source.store.read(f"{source.folder}{file.key}"), source.uri)
        elif Path(file.key).name == "tokenizer.json":
            _check_tokenizer(source.store.read(f"{source.folder}{file.key}"), source.uri)


def _check_tokenizer(content: bytes, where: str) -> None:
    from tokenizers import Tokenizer

    try:
        Tokenizer.from_buffer(content)
    except Exception as error:  # tokenizers raises nothing more special
        raise DataError("ModelUnreadable", f"{where}: tokenizer.json is broken: {error}", "export the model again") from None


def pin_benchmarks(context: Context, spec: EvalJobSpec) -> Json:
    """Lists the benchmark files and id lists of an EvalJob, and makes sure that every question can be asked.

    Raises what tasks.plan raises: NoInputError, DataError or UsageError that names the file, line or field.
    """
    uris = {benchmark.name: (benchmark.data or spec.data) for benchmark in spec.benchmarks}
    content: Json = {"data": {}, "idLists": {}}
    for name, data in sorted(uris.items()):
        content["data"][name] = _folder(context, str(data.uri if data else ""))
    for benchmark in spec.benchmarks:
        if benchmark.id_list:
            content["idLists"][benchmark.name] = _folder(context, benchmark.id_list)
    requests, folder = bring(context, spec.benchmarks, content)
    check_judge([plan(request, folder) for request in requests], spec.judge)
    return _pin_listing(context, content)


def pin_questions(context: Context, spec: Decontamination) -> Json:
    """Lists the files of the benchmarks that are kept out of a corpus, and reads them once; raises as load_questions does."""
    assert spec.data
    content: Json = {"data": {name: _folder(context, spec.data.uri) for name in sorted(spec.benchmarks)}, "idLists": {}}
    load_questions(context, spec.benchmarks, content)
    return _pin_listing(context, content)


def _folder(context: Context, uri: str) -> Json:
    listing = required_files(open_source(context, uri))
    return {"uri": uri, "files": [[file.key, file.size, file.etag] for file in listing]}


def _pin_listing(context: Context, content: Json) -> Json:
    own = digest(content)
    claim(context, input_prefix(own))
    create_first(context.store, f"{input_prefix(own)}/listing.json", content)
    return {"digest": own, **content} if "uri" not in content else {"digest": own, "uri": content["uri"]}


def pin_conduct(context: Context, source: CodeOfConduct) -> Json:
    """Keeps the code of conduct as it is now. Raises UsageError with source:line for a mistake in it."""
    data, name = _conduct_text(source)
    conduct = load_conduct(data, name)
    own = conduct_hash(data)[:DIGEST_LENGTH]
    claim(context, input_prefix(own))
    try:
        context.store.create(f"{input_prefix(own)}/conduct.yaml", data)
    except AlreadyExists:
        raise ConfigError("StoreDamaged", f"{input_prefix(own)}/conduct.yaml is not what its digest says") from None
    return {"digest": own, "conduct": conduct.name, "source": name}


def instruction_tokens(source: CodeOfConduct) -> int:
    """Tokens of the expert's prompt before any text, as the endpoint's engine estimates them."""
    data, name = _conduct_text(source)
    messages = render_messages(load_conduct(data, name), "", "", "expert")
    return sum(estimated_message_tokens(message["content"]) for message in messages)


def _conduct_text(source: CodeOfConduct) -> tuple[bytes, str]:
    if source.inline:
        return source.inline.encode(), "spec.codeOfConduct.inline"
    if source.builtin:
        return BUILTIN[source.builtin].read_bytes(), source.builtin
    assert source.config_map
    name = f"ConfigMap {source.config_map.name}, key {source.config_map.key}"
    try:
        return CONDUCT_FILE.read_bytes(), name
    except OSError:
        raise ConfigError("ConductMissing", f"{name} is not mounted", "on a laptop give it inline") from None
