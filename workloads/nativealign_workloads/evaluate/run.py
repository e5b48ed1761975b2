"""One model through the benchmarks, in process, by lm-eval. Called by the EvalJob's `evaluate` step.

Enters: a model folder, benchmark requests, a data folder. Leaves: `<out_dir>/<benchmark>.jsonl`, one row per item in
the data's order: {benchmark, itemId, subject, group, questionHash, promptHash, defects, gold, protocol, model,
scores | response, extracted, correct, judgement (judge only), truncated}. A file appears only when its benchmark is
finished; a rerun keeps files whose rows ask the same questions of the same model and goes on with the next benchmark.
lm-eval's answer cache stays off: it is keyed by request only and would give one model's answers to another.
"""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from nativealign_workloads.errors import UsageError
from nativealign_workloads.evaluate import models, protocols
from nativealign_workloads.evaluate.benchmarks import BenchmarkRequest
from nativealign_workloads.evaluate.judging import Judged
from nativealign_workloads.evaluate.protocols import Scorer
from nativealign_workloads.evaluate.tasks import Plan, check_judge, lm_eval_task, plan, row_head

Row = dict[str, Any]
Judge = Callable[[Sequence[tuple[str, str]]], Sequence[Judged]]
"""(prompt, response) pairs -> (harmlessness, helpfulness) of each, 1 to 10, or None without a usable verdict."""
Progress = Callable[[str, int, int], None]
"""(benchmark, items done, items in all)."""


def evaluate_model(
    model_dir: Path,
    requests: Sequence[BenchmarkRequest],
    data_dir: Path,
    out_dir: Path,
    *,
    batch_size: int = 8,
    device: str = "cpu",
    precision: str = "Float32",
    seed: int = 0,
    judge: Judge | None = None,
    on_progress: Progress = lambda benchmark, done, total: None,
) -> dict[str, Path]:
    """Returns the file of rows of every benchmark asked for, in the order asked.

    Data, parameters and judge are checked before the weights are read; nothing is loaded if all is done already.
    Raises NoInputError, DataError or UsageError for what a user can mend.
    """
    models.check_model(model_dir)
    plans = [plan(request, data_dir) for request in requests]
    check_judge(plans, judge)
    model = models.fingerprint(model_dir)
    paths = {planned.benchmark.name: out_dir / f"{planned.benchmark.name}.jsonl" for planned in plans}
    todo = [planned for planned in plans if not _finished(paths[planned.benchmark.name], planned, model)]
    if todo:
        lm = _language_model(model_dir, device, precision, batch_size, seed)
        for planned in todo:
            name, total = planned.benchmark.name, len(planned.questions)
            lm.report = lambda done, name=name, total=total: on_progress(name, min(done, total), total)
            _write_rows(paths[name], _rows(lm, planned, model, judge))
            on_progress(name, total, total)
    return paths


def read_rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file]


def _finished(path: Path, planned: Plan, model: str) -> bool:
    """Whether `path` holds answers of this model to exactly these questions."""
    if not path.is_file():
        return False
    heads = [row_head(planned, question, model) for question in planned.questions]
    rows = read_rows(path)
    return len(rows) == len(heads) and all(row.items() >= head.items() for row, head in zip(rows, heads, strict=True))


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.replace(path)


def _language_model(model_dir: Path, device: str, precision: str, batch_size: int, seed: int) -> Any:
    """An HFLM around the loaded model that reports how many items went through."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    models.stay_offline()
    import torch
    from lm_eval.models.huggingface import HFLM  # before the weights: a package that is missing is found at once

    model, tokenizer = models.load_model(model_dir, device, precision)

    class ReportingLM(HFLM):  # type: ignore[misc]  # lm-eval has no types
        report: Callable[[int], None]
        done = 0

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().generate_until(requests, disable_tqdm=True)

        def _model_call(self, inps: Any, *args: Any, **kwargs: Any) -> Any:
            return self._count(inps, super()._model_call(inps, *args, **kwargs))

        def _model_generate(self, context: Any, *args: Any, **kwargs: Any) -> Any:
            return self._count(context, super()._model_generate(context, *args, **kwargs))

        def _count(self, batch: Any, out: Any) -> Any:
            self.done += batch.shape[0]
            self.report(self.done)
            return out

    torch.manual_seed(seed)
    # log-softmax in float32: half precision would round near-equal letters into ties
    return ReportingLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")


def _rows(lm: Any, planned: Plan, model: str, judge: Judge | None) -> list[Row]:
    questions = planned.questions
    prompts = [_for_model(lm, planned, question.prompt, question.item.question) for question in questions]
    answers = _ask(lm, planned, prompts)
    rows = [row_head(planned, q, model) | _answer(planned, q.item.gold, a) for q, a in zip(questions, answers, strict=True)]
    if planned.benchmark.protocol.scorer is Scorer.JUDGE and judge is not None:
        verdicts = judge([(q.item.question, answer) for q, answer in zip(questions, answers, strict=True)])
        rows = [row | verdict for row, verdict in zip(rows, verdicts, strict=True)]
    return [row | {"truncated": _truncated(lm, planned, prompt)} for row, prompt in zip(rows, prompts, strict=True)]


def _for_model(lm: Any, planned: Plan, prompt: str, question: str) -> str:
    """Open questions go through the model's chat template if it has one; the fixed protocols never do."""
    if planned.benchmark.protocol.scorer is not Scorer.JUDGE or not lm.tokenizer.chat_template:
        return prompt
    return str(lm.apply_chat_template([{"role": "user", "content": question.strip()}]))


def _ask(lm: Any, planned: Plan, prompts: Sequence[str]) -> list[Any]:
    """Per question the letters' log-likelihoods, or the response."""
    import lm_eval

    if (room := lm.max_length) <= planned.benchmark.protocol.max_new_tokens:
        raise UsageError(
            "ContextTooShort",
            f"benchmark {planned.benchmark.name} writes {planned.benchmark.protocol.max_new_tokens} tokens, "
            f"the model's context has {room}",
        )
    lm.done = 0
    name = planned.benchmark.name
    result = lm_eval.evaluate(lm=lm, task_dict={name: lm_eval_task(planned, prompts)}, bootstrap_iters=0)
    samples = sorted(result["samples"][name], key=lambda sample: sample["doc_id"])
    if planned.benchmark.protocol.scorer is Scorer.LETTERS:
        return [[response[0][0] for response in sample["resps"]] for sample in samples]
    return [sample["resps"][0][0] for sample in samples]


def _answer(planned: Plan, gold: str, answer: Any) -> Row:
    protocol = planned.benchmark.protocol
    if protocol.scorer is Scorer.LETTERS:
        scores = [round(float(score), 6) for score in answer]
        extracted = protocols.best_letter(protocol.letters, [float(score) for score in answer])
        return {"scores": scores, "extracted": extracted, "correct": extracted == gold}
    if protocol.extract is None:
        return {"response": answer, "extracted": None, "correct": None}
    extracted_text = protocol.extract(answer)
    return {"response": answer, "extracted": extracted_text, "correct": extracted_text == gold}


def _truncated(lm: Any, planned: Plan, prompt: str) -> bool:
    """Whether lm-eval cut the beginning of the prompt to fit the model's context."""
    protocol = planned.benchmark.protocol
    if protocol.scorer is Scorer.LETTERS:
        context, letter = lm._encode_pair(prompt, f" {protocol.letters[0]}")
        return bool(len(context) + len(letter) > lm.max_length + 1)
    return bool(len(lm.tok_encode(prompt)) > lm.max_length - protocol.max_new_tokens)
