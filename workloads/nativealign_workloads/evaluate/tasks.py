"""A benchmark request and its folder -> planned questions -> an lm-eval task. Called by run.py.

Few-shot examples stand in the prompt that we build (the first n of the item's subject), so lm-eval gets finished
prompts and its own few-shot settings stay at 0: nothing can override or ignore the shots asked for. The documents are
handed over in memory; nothing is downloaded, no cache is written.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nativealign_workloads.errors import UsageError
from nativealign_workloads.evaluate import benchmarks, protocols
from nativealign_workloads.evaluate.benchmarks import Benchmark, BenchmarkRequest
from nativealign_workloads.evaluate.loaders import Item, question_key
from nativealign_workloads.evaluate.protocols import Scorer


@dataclass(frozen=True)
class Question:
    """An item with its prompt."""

    item: Item
    prompt: str


@dataclass(frozen=True)
class Plan:
    """What a benchmark will ask, known before any weight is loaded."""

    benchmark: Benchmark
    shots: int
    protocol: str
    questions: tuple[Question, ...]


def plan(request: BenchmarkRequest, data_dir: Path) -> Plan:
    """Reads the data and renders every prompt. Raises NoInputError, DataError or UsageError."""
    chosen = benchmarks.benchmark(request.name)
    shots = benchmarks.shots_of(request)
    data = benchmarks.load(request, data_dir)
    build = chosen.protocol.prompt
    questions = tuple(Question(item, build(item, data.shots.get(item.subject, ())[:shots])) for item in data.items)
    return Plan(chosen, shots, protocols.protocol_id(chosen.protocol, shots), questions)


def check_judge(plans: Sequence[Plan], judge: object) -> None:
    for planned in plans:
        if planned.benchmark.protocol.scorer is Scorer.JUDGE and judge is None:
            raise UsageError(
                "JudgeRequired",
                f"benchmark {planned.benchmark.name} scores responses by a judge, and none is given",
                "set the judge's endpoint, or leave the benchmark out",
            )


def row_head(planned: Plan, question: Question, model: str) -> dict[str, Any]:
    """The part of a row that is known before the model answers; equal heads mean the same work."""
    item = question.item
    return {
        "benchmark": planned.benchmark.name,
        "itemId": item.id,
        "subject": item.subject,
        "group": item.meta.get("group", ""),
        "questionHash": hashlib.sha256(question_key(item.question).encode()).hexdigest()[:16],
        "promptHash": protocols.prompt_hash(question.prompt),
        "defects": list(item.defects),
        "gold": item.gold,
        "protocol": planned.protocol,
        "model": model,
    }


def lm_eval_task(planned: Plan, prompts: Sequence[str]) -> Any:
    """An lm-eval task over `prompts` (one per question), as ConfigurableTask from a dict."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    protocol = planned.benchmark.protocol
    letters = [list(protocols.option_letters(protocol, q.item)) for q in planned.questions]
    documents = Dataset.from_dict({"prompt": list(prompts), "letters": letters})
    config: dict[str, Any] = {
        "task": planned.benchmark.name,
        "custom_dataset": lambda **_: {"test": documents},
        "test_split": "test",
        "doc_to_text": lambda doc: doc["prompt"],
        "doc_to_target": lambda doc: "",
        # Scores are made from the rows; lm-eval wants to be told of a metric all the same.
        "process_results": lambda doc, results: {"answered": 1},
        "metric_list": [{"metric": "answered", "aggregation": "mean", "higher_is_better": True}],
        "num_fewshot": 0,
        "metadata": {},
    }
    return ConfigurableTask(config=config | _output(protocol))


def _output(protocol: protocols.Protocol) -> dict[str, Any]:
    if protocol.scorer is Scorer.LETTERS:
        return {"output_type": "multiple_choice", "doc_to_choice": lambda doc: doc["letters"], "target_delimiter": " "}
    # No stop string: the published rule reads the first line of all new tokens.
    settings = {"until": [], "do_sample": False, "max_gen_toks": protocol.max_new_tokens}
    return {"output_type": "generate_until", "generation_kwargs": settings}
