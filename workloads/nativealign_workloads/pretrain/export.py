"""export: the trained model as a Hugging Face folder with a card, proved to load before it is published."""

import json
from pathlib import Path
from typing import Any

from nativealign_workloads.commit import Json, ShardCommit, commit_step, fetch_folder, manifest, shard_records
from nativealign_workloads.context import Context
from nativealign_workloads.errors import StepError
from nativealign_workloads.libraries import import_libraries


def run(context: Context) -> Json:
    """Phase `export`."""
    shard = ShardCommit(context)
    if shard.committed():
        return {"skipped": True}
    context.progress.begin(1, "model")
    trained = manifest(context.store, context.job.inputs["train"])
    folder = fetch_folder(context, trained["shards"][0], "model", context.scratch / "model")
    parameters = prove(folder)
    (folder / "README.md").write_text(card(trained, parameters), encoding="utf-8")
    shard.folder("model", folder)
    shard.commit(parameters=parameters)
    context.progress.advance()
    return {"counts": {"parameters": parameters}}


def prove(folder: Path) -> int:
    """Loads the model as a user would; returns its number of parameters."""
    import_libraries()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
        AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise StepError("ExportUnreadable", f"the exported model does not load: {error}") from None
    return int(model.num_parameters())


def card(trained: Json, parameters: int) -> str:
    """The model card: what it was made of, from the manifests alone."""
    facts = trained["facts"]
    rows = "".join(f"| {s['name']} | {s['documents']} | {s['tokens']} | `{s['digest']}` |\n" for s in facts["sources"])
    settings = {name: trained["parameters"][name] for name in ("optimizer", "seed", "globalBatch")}
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n\n"
        f"# Continued pre-training {trained['digest'][:12]}\n\n"
        f"A base model trained further on aligned text (arXiv 2412.03253) by nativealign; {parameters} parameters, "
        f"{facts['steps']} steps, {facts['tokens']} tokens, loss {facts['firstLoss']:.4f} to {facts['finalLoss']:.4f}.\n\n"
        f"| source | documents | tokens | digest |\n|---|---|---|---|\n{rows}\n"
        f"Digest of the training step: `{trained['digest']}`\n\n```json\n{json.dumps(settings, indent=1, sort_keys=True)}\n```\n"
    )


def commit(context: Context) -> Json:
    """Phase `commit`."""
    records = shard_records(context, "export", 1)
    return commit_step(context, records, {"counts": records[0]["facts"]}, **records[0]["facts"])
