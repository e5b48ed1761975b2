"""The report as a page: what it says about complete, incomplete and failed jobs, and that nothing on it is injected or made up."""

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from tests import report_records as records

from nativealign_api.status import JobStatus
from nativealign_workloads.report.gather import Job, load
from nativealign_workloads.report.page import render

INLINE = ("b", "bdi", "mark", "span")


class Page(HTMLParser):
    """Tags with their attributes, and the text that a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.parts: list[str] = []
        self._style = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._style = tag == "style"
        self.parts.append("" if tag in INLINE else " ")

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.parts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.parts))


def _text(*jobs: Job) -> str:
    return Page(render(list(jobs))).text


def _with(job: Job, step: str, **facts: object) -> Job:
    changed = job.manifests[step] | {"facts": job.manifests[step]["facts"] | facts}
    return replace(job, manifests=job.manifests | {step: changed})


def test_the_same_records_give_the_same_bytes() -> None:
    assert render(records.chain()) == render(records.chain())


def test_the_images_that_ran_are_named_by_digest_with_their_steps() -> None:
    job = records.align_job()
    for step in job.status.steps:
        step.images = ["registry.example/workloads@sha256:" + ("a" if step.name == "clean" else "b") * 64]
    job.status.pinned.images = {"workload": "registry.example/workloads:1"}
    page = _text(job)
    assert "image asked for registry.example/workloads:1" in page
    assert f"image of clean registry.example/workloads@sha256:{'a' * 64}" in page
    named = _text(replace(job, spec=job.spec | {"image": "registry.example/own:2"}))
    assert "image asked for registry.example/own:2" in named


def test_corpus_text_and_names_stay_text() -> None:
    html = render(records.chain())
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(records.SCRIPT) >= 4
    assert records.OVERRIDE not in html
    assert "⟨U+202E⟩abc" in page.text


def test_the_page_needs_nothing_but_itself() -> None:
    html = render(records.chain())
    links = [value or "" for _, attributes in Page(html).tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(link.startswith(("#", "data:")) for link in links)
    assert "url(" not in html
    assert "@import" not in html


def test_every_link_has_its_target() -> None:
    tags = Page(render(records.chain())).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"] for _, a in tags if (a.get("href") or "").startswith("#")} <= {f"#{i}" for i in ids}


def test_every_chart_has_a_text_alternative() -> None:
    charts = [attributes for tag, attributes in Page(render(records.chain())).tags if tag == "svg"]
    assert len(charts) >= 7
    assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)


def test_a_chain_is_told_in_the_order_of_its_kinds() -> None:
    text = _text(records.eval_job(), records.align_job(), records.pretrain_job())
    assert "Chain of 3 jobs" in text
    heads = [text.index(f"{kind} in default {name}") for kind, name in records.NAMES.items()]
    assert heads == sorted(heads)


def test_the_ledger_is_shown_with_its_check() -> None:
    text = _text(records.align_job())
    assert "The counts add up" in text
    assert "✓ 40 = 34 + 4 + 2" in text


def test_a_ledger_that_does_not_add_up_is_called_so() -> None:
    job = records.align_job()
    del job.manifests["dedup"]["tally"]["outcomes"]["duplicate"]
    text = _text(job)
    assert "The counts do not add up" in text
    assert "✗ 34 ≠ 25 + 3" in text


def test_rejected_answers_are_told_in_plain_words() -> None:
    text = _text(records.align_job())
    assert "The worker’s answers were rejected for 70.0 % of the chunks; the original was kept." in text
    assert "LengthRatio the rewriting is much shorter or longer than the original 0.5 to 1.6 Original 18 60.0" in text


def test_the_worst_rejected_answers_stand_beside_their_chunks() -> None:
    text = _text(records.align_job())
    assert "LengthRatio (Original) 0.125 limit 0.5 · web" in text
    assert "Rejected answer ملخص" in text


def test_without_a_worker_the_expert_is_named() -> None:
    job = records.align_job()
    given = {name: value for name, value in job.spec.items() if name != "worker"}
    left = {name: found for name, found in job.manifests.items() if name not in ("annotate", "train-worker")}
    steps = [step for step in job.status.steps if step.name in left]
    text = _text(replace(job, spec=given, manifests=left, status=job.status.model_copy(update={"steps": steps})))
    assert "The expert’s answers were rejected for 70.0 %" in text
    assert "No seed pairs the job trains no worker" in text
    assert "No worker spec.worker is not set" in text


def test_a_missing_licence_is_flagged() -> None:
    text = _text(records.align_job())
    assert "web CC0-1.0" in text
    assert "forum licence missing" in text


@pytest.mark.parametrize("field", ["perplexityModel", "toxicityModel", "judge"])
def test_what_was_not_measured_says_why(field: str) -> None:
    assert f"Not measured spec.assess.{field} is not set" in _text(records.align_job())


def test_a_judge_without_a_usable_answer_is_no_number() -> None:
    job = records.align_job()
    measures = job.facts("assess")["measures"] | {"judgeFormat": records.summary(None)}
    assert "Judge: format 1 to 10, higher is better. Not measured no usable value for 10 documents" in _text(
        _with(job, "assess", measures=measures)
    )


def test_perplexity_is_shown_before_and_after() -> None:
    job = records.align_job()
    sides = {"perplexityBefore": records.summary(61.5, 10, 900), "perplexityAfter": records.summary(48.25, 10, 400)}
    job = _with(job, "assess", measures=job.facts("assess")["measures"] | sides)
    text = _text(replace(job, spec=job.spec | {"assess": {"perplexityModel": {"uri": "models/judge"}}}))
    assert re.search(r"before 61\.50 61\.40 to 61\.60 .*after 48\.25 48\.15 to 48\.35", text)


def test_what_rewriting_did_to_perplexity_has_size_and_certainty() -> None:
    job = records.align_job()
    sides = {"perplexityBefore": records.summary(61.5, 10, 900), "perplexityAfter": records.summary(48.25, 10, 400)}
    effect = {
        "pairs": 10,
        "difference": {"mean": math.log(0.8), "low": math.log(0.7), "high": math.log(0.9)},
        "d": {"value": -0.5, "low": -0.75, "high": -0.25},
        "lower": 0.9,
        "higher": 0.1,
    }
    job = _with(job, "assess", measures=job.facts("assess")["measures"] | sides, effects={"perplexity": effect})
    text = _text(replace(job, spec=job.spec | {"assess": {"perplexityModel": {"uri": "models/judge"}}}))
    assert (
        "Ratio of the geometric means 0.8 (0.7 to 0.9); Cohen's d -0.5 (-0.75 to -0.25); lower in 90.0 %, higher in 10.0 % of 10"
        in text
    )


def test_a_judge_says_how_well_it_agrees_with_itself() -> None:
    job = records.align_job()
    measures = job.facts("assess")["measures"] | {"judgeFormat": records.summary(7.5)}
    agreement = {"pairs": 10, "kappa": {"value": 0.75, "low": 0.5, "high": 0.875}, "within1": 0.8, "difference": 0.25}
    text = _text(_with(job, "assess", measures=measures, agreement={"judgeFormat": agreement}))
    assert (
        "weighted kappa 0.75 (0.5 to 0.875); 80.0 % of 10 documents at most 1 apart; with the rewriting first 0.25 higher" in text
    )


def test_a_gate_on_what_was_not_measured_says_so() -> None:
    verdict = {"gate": "minJudgeScore", "value": None, "limit": 7.0, "passed": False}
    text = _text(_with(records.align_job(), "assess", gates=[verdict]))
    assert "gate Fail mean score of the judge not measured, at least 7" in text


def test_requests_whose_answer_was_lost_are_told() -> None:
    usage = {"requests": 9, "tokens": 90, "completionTokens": 30, "unsettledRequests": 2, "unsettledTokens": 700}
    text = _text(_with(records.align_job(), "annotate", usage=usage))
    assert "Of 2 further requests the answer was lost" in text
    assert "up to 700 tokens" in text


def test_a_worker_shows_what_it_does_with_pairs_that_it_has_not_seen() -> None:
    held_out = {"pairs": 12, "generated": 12, "guardPassRate": 0.75}
    curve = [[50, 1.5], [100, 1.25], [120, 1.375]]
    shown = "12 pairs were not trained on. Loss on them 1.375 at the end, lowest 1.250 at step 100"
    for exported, end in ((120, "."), (100, ", whose weights the worker has.")):
        facts = {"heldOut": held_out, "heldOutCurve": curve, "exportedStep": exported}
        text = _text(_with(records.align_job(), "train-worker", **facts))
        assert shown + end in text
    assert "Of 12 that the trained worker rewrote, 75 % broke no guard." in text


def test_money_is_not_made_up() -> None:
    assert "Cost of spec.expert.openai: not measured, the run recorded none." in _text(records.align_job())


def test_gates_of_an_align_job_show_value_and_limit() -> None:
    verdict = {"gate": "maxFallbackPercent", "value": 70.0, "limit": 25.0, "passed": False}
    text = _text(_with(records.align_job(), "assess", gates=[verdict]))
    assert "gate Fail chunks that kept their original 70 %, at most 25 %" in text


def test_a_gate_on_a_sample_shows_its_interval() -> None:
    verdict = {"gate": "minNamePreservationPercent", "value": 96.0, "low": 94.5, "high": 97.5, "limit": 95.0, "passed": True}
    assert "96 % (94.50 to 97.50), at least 95 %" in _text(_with(records.align_job(), "assess", gates=[verdict]))


def test_a_failed_job_shows_step_code_and_message() -> None:
    text = _text(records.failed(records.align_job(), "clean"))
    assert "Failed in step clean, phase filter" in text
    assert "Code TooMuchQuarantined" in text
    assert "raise maxQuarantinedPercent" in text
    assert "nativealign logs alignjob/news" in text
    assert "dedup not reached" in text
    assert "No record the step rewrite has no manifest in the store" in text


def test_a_failed_gate_is_shown_with_the_verdict_of_each_benchmark() -> None:
    text = _text(records.eval_job())
    assert "GateFailed" in text
    assert "no benchmark worse than the baseline by more than 1 points: Fail" in text
    assert re.search(r"exams-ar 42\.0 40\.0 \+2\.0 \+0\.1 to \+4\.0 40 5 4 1 Pass", text)
    assert re.search(r"acva-all 30\.0 36\.0 -6\.0 -10\.0 to -2\.0 40 1 9 0\.02 Fail", text)


def test_a_score_below_a_constant_answer_is_called_so() -> None:
    assert "acva-all: the model scores below a constant answer (30.0 against 35.0)" in _text(records.eval_job())


def test_scores_name_protocol_and_unusable_answers() -> None:
    text = _text(records.eval_job())
    assert re.search(r"exams-ar accuracy 42\.0 37\.0 to 47\.0 40 – 1 1 acegpt-5shot-0123456789", text)
    assert "bits per byte" in text
    assert "model 1.360 1.310 to 1.410 40 baseline 1.410" in text


def test_answers_are_shown_beside_the_right_ones() -> None:
    text = _text(records.eval_job())
    assert f"Biology-1 B B ✓ B {records.SCRIPT}" in text
    assert "Biology-2 A – ✗ 555---" in text


def test_an_evaluation_without_baseline_says_so() -> None:
    job = records.eval_job()
    facts = {name: found for name, found in job.facts("report").items() if name == "scores"}
    manifests = job.manifests | {"report": job.manifests["report"] | {"facts": facts}}
    given = {name: value for name, value in job.spec.items() if name not in ("baseline", "gate")}
    assert "Not measured spec.baseline is not set" in _text(replace(job, spec=given, manifests=manifests))


def test_the_mix_shows_weights_and_tokens_and_no_invented_sample_counts() -> None:
    text = _text(records.pretrain_job())
    assert "news/Aligned 0.8 80.0 % 24 31,000 not recorded" in text
    assert "400,965 tokens" in text
    assert "950,912 parameters" in text


def test_manifests_that_gc_removed_leave_a_report() -> None:
    text = _text(*[replace(job, manifests={}, sources={}, answers={}) for job in records.chain()])
    assert "manifest no longer in the store" in text
    assert "No record the step train has no manifest in the store" in text


def test_a_job_that_still_runs_has_a_report() -> None:
    job = records.failed(records.align_job(), "rewrite")
    running = job.status.model_copy(update={"state": "Running", "conditions": [], "completion_time": None})
    assert "news Running" in _text(replace(job, status=running))


def test_records_in_a_store_are_read_as_they_are(tmp_path: Path) -> None:
    for job in records.chain():
        found = load(records.write(job, tmp_path / "store", tmp_path), str(tmp_path / "store"))
        assert found == job


def _run(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nativealign_workloads.report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env)


def test_the_command_writes_one_file(tmp_path: Path) -> None:
    statuses = [records.write(job, tmp_path / "store", tmp_path / "runs") for job in records.chain()]
    done = _run("--store", tmp_path / "store", "--output", tmp_path / "out/report.html", *statuses)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out/report.html").read_text() == render(records.chain())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]


def test_a_job_that_has_not_begun_has_no_store_yet(tmp_path: Path) -> None:
    job = records.align_job()
    path = records.write(replace(job, status=JobStatus(state="Waiting")), tmp_path / "store", tmp_path)
    done = _run("--output", tmp_path / "report.html", path)
    told = f"error: StoreMissing: {job.kind}/{job.name} names no store and has pinned none yet ("
    assert (done.returncode, done.stderr.startswith(told)) == (64, True), done.stderr


def test_without_a_location_the_store_of_the_job_is_opened(tmp_path: Path) -> None:
    """S3, so that it must ask for credentials, and nothing is looked for elsewhere."""
    job = records.align_job()
    bucket = {"bucket": "corpora", "prefix": "team", "endpoint": "https://s3.example", "region": "us-east-1"}
    path = records.write(replace(job, spec=job.spec | {"store": bucket}), tmp_path / "store", tmp_path)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = _run("--output", tmp_path / "report.html", path, env=clean)
    assert (done.returncode, done.stderr.startswith("error: CredentialsMissing: ")) == (78, True)


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [(None, 66, "StatusMissing"), ("{", 64, "BadStatus"), (json.dumps({"kind": "Pod"}), 64, "BadStatus")],
)
def test_a_file_that_is_no_status_is_refused_without_a_traceback(tmp_path: Path, content: str | None, code: int, word: str) -> None:
    path = tmp_path / "status.json"
    if content is not None:
        path.write_text(content)
    done = _run("--store", tmp_path, "--output", tmp_path / "report.html", path)
    assert done.returncode == code
    assert done.stderr.startswith(f"error: {word}: ")
    assert len(done.stderr.splitlines()) == 1
