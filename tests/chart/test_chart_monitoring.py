"""Alerts, dashboard, health expressions: what they name must exist."""

import json
import re
from typing import Any

import yaml
from tests.chart.helm import CHART, MATRIX, ROOT, objects, of_kind

from nativealign_api.kinds import KINDS
from nativealign_api.vocabulary import API_VERSION
from nativealign_operator.metrics import Metrics
from nativealign_workloads.progress.server import exposition

RUNBOOKS = ROOT / "docs" / "runbooks"
SUFFIXES = {"histogram": ("_bucket", "_count", "_sum"), "counter": ("_total",), "gauge": ("",)}
METRIC = re.compile(r"\bnativealign_(?!dev_)[a-z_]+")
"""A metric in a query; nativealign_dev_… is a label of a pod."""


def exported() -> set[str]:
    """Names of the time series that the operator and the jobs' pods serve."""
    series = {family.name + suffix for family in Metrics().registry.collect() for suffix in SUFFIXES.get(family.type, ())}
    progress = exposition({"done": 1, "total": 2, "percent": 50.0, "etaSeconds": 3.0})
    return series | {line.partition("{")[0] for line in progress.splitlines()}


def alerts() -> list[dict[str, Any]]:
    rules = of_kind(objects(MATRIX["monitored"]), "PrometheusRule")[0]["spec"]["groups"]
    return [rule for group in rules for rule in group["rules"]]


def board() -> dict[str, Any]:
    config_maps = of_kind(objects(MATRIX["monitored"]), "ConfigMap")
    found: dict[str, Any] = json.loads(config_maps[0]["data"]["nativealign.json"])
    return found


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    pages = {rule["alert"]: rule["annotations"]["runbook_url"].rpartition("/")[2] for rule in alerts()}
    assert sorted(pages.values()) == sorted(path.name for path in RUNBOOKS.glob("*.md"))
    for alert, page in pages.items():
        text = (RUNBOOKS / page).read_text()
        assert text.startswith(f"# {alert}\n")
        for part in ("## What it means", "## Look", "## Mend"):
            assert part in text, page


def test_alerts_and_dashboard_ask_for_metrics_that_exist() -> None:
    queries = [rule["expr"] for rule in alerts()]
    queries += [target["expr"] for panel in board()["panels"] for target in panel["targets"]]
    named = {name for query in queries for name in METRIC.findall(query)}
    assert len(named) > 8
    assert named <= exported()


def test_alerts_say_how_bad_it_is_and_what_it_is() -> None:
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert {"summary", "description", "runbook_url"} <= rule["annotations"].keys()
        assert 'namespace="system",service="demo-nativealign"' in rule["expr"]


def test_the_dashboards_panels_do_not_overlap_and_say_what_they_show() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in board()["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        assert panel["description"]
        taken |= cells


def test_monitors_look_where_jobs_run() -> None:
    everywhere = of_kind(objects(MATRIX["monitored"]), "PodMonitor")[0]["spec"]["namespaceSelector"]
    scoped = of_kind(objects(MATRIX["monitored-scoped"]), "PodMonitor")[0]["spec"]["namespaceSelector"]
    assert (everywhere, scoped) == ({"any": True}, {"matchNames": ["team-a", "team-b"]})


def test_flux_has_an_expression_for_every_kind() -> None:
    found = yaml.safe_load((CHART / "files" / "flux-health.yaml").read_text())["healthCheckExprs"]
    assert [(entry["apiVersion"], entry["kind"]) for entry in found] == [(API_VERSION, kind) for kind in KINDS]
    assert all(entry.keys() == {"apiVersion", "kind", "inProgress", "failed", "current"} for entry in found)
