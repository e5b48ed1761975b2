"""inspect: look at everything that a job stands on, pin it, cut it into shards, and see what is done already.

One small pod without an accelerator. It writes each pinned input under `inputs/<digest>/` and its own manifest, and reports the
pins, so that a re-created object learns at once which steps are committed.
"""

from typing import Any

from nativealign_api.align import Clean
from nativealign_api.identity import digest
from nativealign_api.kinds import KINDS
from nativealign_api.plan import Plan, expected_inputs, plan, step_prefix
from nativealign_api.status import Pinned
from nativealign_api.steps import INSPECT, STEPS
from nativealign_workloads.commit import Json, commit_step, manifest, manifest_key
from nativealign_workloads.context import Context
from nativealign_workloads.engines.vllm_engine import check_installed
from nativealign_workloads.gc.claim import claim
from nativealign_workloads.inspection import corpora, folders
from nativealign_workloads.ledger import Tally
from nativealign_workloads.text.identifiers import check_countries
from nativealign_workloads.text.language import check_languages


def run(context: Context) -> Json:
    """Phase `list`: pins what is not pinned yet; returns the pins and the committed steps."""
    if not context.job.store_folder:
        context.store.self_test()
    spec: Any = context.job.require("", KINDS[context.job.kind].spec)
    found = look(context, spec)
    pinned = context.job.pinned.model_copy(
        update={
            "inputs": {name: item["digest"] for name, item in found.items() if item.get("digest")} | context.job.pinned.inputs,
            "shards": _shards(found) | context.job.pinned.shards,
            "step_versions": {step.name: step.version for step in STEPS[context.job.kind]} | context.job.pinned.step_versions,
        }
    )
    return _commit(context, spec, pinned, found)


def _shards(found: dict[str, Json]) -> dict[str, int]:
    """Shards of each input that is read in shards, and of rewrite."""
    inputs = {name: item["shards"] for name, item in found.items() if "shards" in item}
    read = found.get("corpora", {})
    return inputs | ({"rewrite": read["rewriteShards"]} if "rewriteShards" in read else {})


def look(context: Context, spec: Any) -> dict[str, Json]:
    """What stands behind each input: its digest, facts for the report, and the number of its shards where it is read in shards."""
    context.progress.begin(len(expected_inputs(spec)), "inputs")
    found: dict[str, Json] = {}
    wanted = {name: upstream for name, upstream in expected_inputs(spec).items() if name not in context.job.pinned.inputs}
    for name, upstream in wanted.items():
        found[name] = _look_upstream(context, spec, name, upstream) if upstream else _look_at(context, spec, name)
        context.progress.advance()
    return found


def _look_at(context: Context, spec: Any, name: str) -> Json:
    if name == "corpora":
        _check_clean(spec.clean)
        if spec.rewrite.vllm or spec.expert.vllm:
            check_installed()
        pinned = corpora.pin(context, spec.corpora, spec.sharding)
        facts, instructions = pinned["corpora"], folders.instruction_tokens(spec.code_of_conduct)
        return pinned | {
            "forecast": corpora.forecast(facts, spec, instructions),
            "rewriteShards": corpora.rewrite_shards(facts, spec),
        }
    if name.startswith("mix/"):
        entry = next(entry for entry in spec.mix if f"mix/{entry.name}" == name)
        return corpora.pin(context, [entry.corpus], spec.sharding)
    if name == "conduct":
        return folders.pin_conduct(context, spec.code_of_conduct)
    if name == "data":
        return folders.pin_benchmarks(context, spec)
    if name == "decontamination.data":
        return folders.pin_questions(context, spec.decontamination)
    if name == "decontamination.items":
        return corpora.pin_whole(context, spec.decontamination.items)
    return folders.pin_model(context, folders.model_uri(spec, name))


def _check_clean(settings: Clean) -> None:
    """Raises UsageError for a code that no library knows, before any document is read."""
    check_languages(settings.languages)
    if settings.personal_data:
        check_countries(settings.personal_data.countries)


def _look_upstream(context: Context, spec: Any, name: str, upstream: str) -> Json:
    job, _, step = upstream.rpartition("/")
    prefix = step_prefix(step, context.job.pinned.upstream[job][step])
    value = manifest(context.store, prefix)
    facts = {"upstream": upstream, "prefix": prefix}
    if not name.startswith("mix/"):
        return facts
    size = sum(part["bytes"] for shard in value["shards"] for file, part in shard["parts"].items() if file.startswith("documents."))
    return facts | {"shards": corpora.count_shards(size, spec.sharding)}


def _commit(context: Context, spec: Any, pinned: Pinned, found: dict[str, Json]) -> Json:
    pins = {"inputs": pinned.inputs, "shards": pinned.shards, "upstream": pinned.upstream}
    own = digest({"kind": context.job.kind, "spec": context.job.parameters, "pins": pins})
    context.job.digest = own
    pinned.inspect = own
    claim(context, context.prefix)
    nothing = {"tally": Tally().dump(), "parts": {}, "facts": {}, "seconds": 0.0}
    headline = commit_step(context, [nothing], {"counts": _counts(found)}, inputs=found)
    new = pinned.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"upstream", "images"})
    run_plan = plan(context.job.kind, spec, pinned)
    claim_steps(context, run_plan)
    return headline | {"digest": own, "pinned": new, "committed": committed_steps(context, run_plan)}


def claim_steps(context: Context, run_plan: Plan) -> None:
    """Keeps gc from what this run may adopt, until its status names it."""
    sources = [step_prefix(step.name, source.digest) for step in run_plan.steps for source in step.sources]
    for prefix in [step.prefix for step in run_plan.steps if step.digest] + sources:
        claim(context, prefix)


def committed_steps(context: Context, run_plan: Plan) -> dict[str, Json]:
    """The headlines of the steps whose manifests are in the store, by name."""
    known = [step for step in run_plan.steps if step.digest and step.name != INSPECT]
    present = [step for step in known if context.store.stat(manifest_key(step.prefix))]
    return {step.name: manifest(context.store, step.prefix)["headline"] for step in present}


def _counts(found: dict[str, Json]) -> dict[str, int]:
    listings = [item for item in found.values() if isinstance(item.get("files"), int)]
    return {name: sum(item[name] for item in listings) for name in ("files", "bytes")} if listings else {}
