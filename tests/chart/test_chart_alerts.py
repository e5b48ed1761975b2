"""Each alert before Prometheus' own promtool: it fires on series that are bad, and not on those that only look like it."""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.chart.helm import MATRIX, objects, of_kind
from tests.cluster.build import binary

Json = dict[str, Any]
FROM = 'namespace="system",service="demo-nativealign"'
LEADS = {"nativealign_leader{POD=a}": "1x200"}


@dataclass(frozen=True)
class Case:
    """Series, one sample a minute in promtool's notation, and what the alert says of them after some minutes."""

    alert: str
    what: str
    minutes: int
    series: dict[str, str]
    """`POD=a` stands for the labels of that pod's scrape."""
    labels: Json | None = None
    """Labels besides the alert's own; None where it must not fire."""
    description: str = ""
    """Where it is not the same for all."""


def counted(errors: str, reconciled: str) -> dict[str, str]:
    return {
        'nativealign_reconcile_errors_total{POD=a,kind="AlignJob"}': errors,
        'nativealign_reconcile_seconds_count{POD=a,kind="AlignJob"}': reconciled,
    }


def queued(depth: str, reconciled: str, leads: str = "1x30", errors: str = "0x30") -> dict[str, str]:
    return {
        'nativealign_reconcile_errors_total{POD=a,kind="AlignJob"}': errors,
        "nativealign_queue_depth{POD=a}": depth,
        'nativealign_reconcile_seconds_count{POD=a,kind="AlignJob"}': reconciled,
        "nativealign_leader{POD=a}": leads,
    }


def failed(numbers: str) -> str:
    return "nativealign_jobs{POD=" + numbers + ',kind="AlignJob",state="Failed"}'


HERE: Json = {"namespace": "system"}
ALIGN = {"kind": "AlignJob"}
STUCK = "3 jobs are due; no reconcile has succeeded for 10 minutes."
CASES = [
    Case("OperatorDown", "nobody is scraped", 6, {}, {}),
    Case("OperatorDown", "all are down", 6, {"up{POD=a}": "0x10", "up{POD=b}": "0x10"}, {}),
    Case("OperatorDown", "not for long", 4, {"up{POD=a}": "0x10"}),
    Case("OperatorDown", "one of two is up", 6, {"up{POD=a}": "0x10", "up{POD=b}": "1x10"}),
    Case("NoLeader", "all stand by", 6, {"nativealign_leader{POD=a}": "0x10", "nativealign_leader{POD=b}": "0x10"}, HERE),
    Case("NoLeader", "one leads", 6, {"nativealign_leader{POD=a}": "0x10", "nativealign_leader{POD=b}": "1x10"}),
    Case("NoLeader", "a short change", 6, {"nativealign_leader{POD=a}": "1x3 0x10"}),
    Case("QueueStuck", "nothing is done", 11, queued("3x30", "7x30"), HERE, STUCK),
    Case("QueueStuck", "all that is done fails", 20, queued("3x30", "7+50x30", errors="2+50x30"), HERE, STUCK),
    Case("QueueStuck", "most of what is done fails", 20, queued("3x30", "7+50x30", errors="2+49x30")),
    Case("QueueStuck", "many, and they are worked on", 11, queued("900x30", "0+50x30")),
    Case("QueueStuck", "not for long", 11, queued("0x5 3x30", "7x30")),
    Case("QueueStuck", "nothing waits", 11, queued("0x30", "7x30")),
    Case("QueueStuck", "an old number of a replica that led before", 11, queued("3x30", "7x30", "0x30")),
    Case("ReconcileErrors", "a fifth fails", 30, counted("0+2x40", "0+10x40"), HERE | ALIGN, "20% of them over 10 minutes."),
    Case("ReconcileErrors", "a twentieth fails", 30, counted("0+1x40", "0+20x40")),
    Case("ReconcileErrors", "half of them, not for long", 30, counted("0x20 0+5x20", "0+10x40")),
    Case(
        "WatchRestarts",
        "one each minute",
        35,
        {"nativealign_watch_restarts_total{POD=a}": "0+1x40"},
        HERE,
        "15 times in 15 minutes. A right is missing, or the apiserver breaks off.",
    ),
    Case("WatchRestarts", "many long ago", 35, {"nativealign_watch_restarts_total{POD=a}": "90x40"}),
    Case("WatchRestarts", "one each minute, not for long", 35, {"nativealign_watch_restarts_total{POD=a}": "0x20 0+1x40"}),
    Case(
        "JobsFailed",
        "two more than an hour ago",
        90,
        LEADS | {failed("a"): "1x70 3x70", failed("b"): "5x140", "nativealign_leader{POD=b}": "0x140"},
        ALIGN,
        "2 more than an hour ago have the state Failed or GateFailed.",
    ),
    Case(
        "JobsFailed",
        "the first ones ever",
        90,
        LEADS | {failed("a"): "_x70 1x70"},
        ALIGN,
        "1 more than an hour ago have the state Failed or GateFailed.",
    ),
    Case("JobsFailed", "known for more than an hour", 150, LEADS | {failed("a"): "0x70 2x90"}),
    Case(
        "JobsFailed",
        "counted by another replica since it leads",
        90,
        {
            "nativealign_leader{POD=a}": "1x70 0x70",
            "nativealign_leader{POD=b}": "0x70 1x70",
            failed("a"): "3x140",
            failed("b"): "_x70 3x70",
        },
    ),
    Case(
        "JobsStalled",
        "one cannot go on",
        20,
        LEADS | {'nativealign_jobs{POD=a,kind="EvalJob",state="Stalled"}': "1x30"},
        {"kind": "EvalJob", "state": "Stalled"},
        "1 have the state Stalled.",
    ),
    Case("JobsStalled", "for a moment", 20, LEADS | {'nativealign_jobs{POD=a,kind="EvalJob",state="Stalled"}': "0x14 1x30"}),
    Case("JobsStalled", "others run and wait", 20, LEADS | {'nativealign_jobs{POD=a,kind="EvalJob",state="Waiting"}': "9x30"}),
    Case(
        "JobsStalled",
        "an old number of a replica that led before",
        20,
        {"nativealign_leader{POD=a}": "0x30", 'nativealign_jobs{POD=a,kind="EvalJob",state="Stalled"}': "1x30"},
    ),
]


def rules() -> Json:
    found: Json = of_kind(objects(MATRIX["monitored"]), "PrometheusRule")[0]["spec"]
    return found


def by_name() -> dict[str, Json]:
    return {rule["alert"]: rule for group in rules()["groups"] for rule in group["rules"]}


def expected(case: Case) -> list[Json]:
    if case.labels is None:
        return []
    rule = by_name()[f"Nativealign{case.alert}"]
    annotations = dict(rule["annotations"])
    annotations["summary"] = annotations["summary"].replace("{{ $labels.kind }}", case.labels.get("kind", ""))
    annotations |= {"description": case.description} if case.description else {}
    return [{"exp_labels": rule["labels"] | case.labels, "exp_annotations": annotations}]


def scraped(name: str, values: str) -> Json:
    for pod in "ab":
        name = name.replace(f"POD={pod}", f'{FROM},pod="{pod}"')
    return {"series": name, "values": values}


def promtool_test(case: Case) -> Json:
    """A test of promtool's."""
    asked = {"alertname": f"Nativealign{case.alert}", "eval_time": f"{case.minutes}m", "exp_alerts": expected(case)}
    series = [scraped(name, values) for name, values in case.series.items()]
    return {"name": case.what, "interval": "1m", "input_series": series, "alert_rule_test": [asked]}


@pytest.mark.parametrize("alert", sorted({case.alert for case in CASES}))
def test_an_alert_fires_when_it_should_and_only_then(alert: str, tmp_path: Path) -> None:
    """`promtool test rules` with the chart's own rules; JSON is YAML."""
    tests = [promtool_test(case) for case in CASES if case.alert == alert]
    (tmp_path / "rules.yaml").write_text(json.dumps(rules()))
    (tmp_path / "test.yaml").write_text(json.dumps({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests}))
    command = [binary("promtool"), "test", "rules", "test.yaml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_firing_and_silent() -> None:
    for fires in (True, False):
        assert {f"Nativealign{case.alert}" for case in CASES if (case.labels is not None) == fires} == set(by_name())
