"""The report in a real browser: offline, right-to-left where the text is, never wider than the screen, and true to the records."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import report_records as records

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync")


def _chromium() -> str:
    found = os.environ.get("NATIVEALIGN_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if found:
        return found
    message = "no Chromium: install the package chromium (apt-get install chromium), or set NATIVEALIGN_CHROMIUM to its executable"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    statuses = [str(records.write(job, folder / "store", folder)) for job in records.chain()]
    command = [sys.executable, "-m", "nativealign_workloads.report", "--store", str(folder / "store")]
    subprocess.run([*command, "--output", str(folder / "report.html"), *statuses], check=True)
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    executable = _chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=[*FLAGS, *QUIET])
        yield started
        started.close()


@pytest.fixture(params=[("light", 1280), ("dark", 1280), ("light", 390)], ids=lambda p: f"{p[0]}-{p[1]}")
def page(request: pytest.FixtureRequest, browser: Any, report: Path) -> Iterator[Any]:
    scheme, width = request.param
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True)
    opened = context.new_page()
    opened.heard, opened.asked = [], []
    opened.on("console", lambda message: opened.heard.append(message.text))
    opened.on("pageerror", lambda error: opened.heard.append(str(error)))
    opened.on("request", lambda asked: opened.asked.append(asked.url))
    opened.goto(report.as_uri())
    yield opened
    context.close()


def test_the_page_is_silent_and_asks_for_nothing_but_itself(page: Any, report: Path) -> None:
    assert page.heard == []
    assert [url for url in page.asked if not url.startswith("data:")] == [report.as_uri()]


def test_no_text_of_the_corpus_runs_as_code(page: Any) -> None:
    assert page.title().startswith("Chain of AlignJob/news")
    assert page.locator("script").count() == 0


def test_arabic_samples_run_from_right_to_left(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    for name, paragraphs in (("rewriting", 1), ("samples", 2)):
        section = page.locator(f"#alignjob-default-news-{name}")
        cells = section.locator(".sample .corpus p", has_text="الجامع")
        found = cells.evaluate_all("cells => cells.map(c => [getComputedStyle(c).direction, c.lang])")
        assert found == [["rtl", "ar"]] * paragraphs
        before, after = (section.locator(f".sample .text.{side}").first.bounding_box() for side in ("before", "after"))
        assert before["x"] > after["x"] or before["y"] < after["y"], "before comes first for a right-to-left reader"


def test_the_page_is_never_wider_than_the_screen(page: Any) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    wide, screen = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert wide <= screen


def test_the_counts_on_the_page_are_those_of_the_records(page: Any) -> None:
    shown = page.locator("#alignjob-default-news [data-count]").evaluate_all(
        "cells => Object.fromEntries(cells.map(c => [c.dataset.count, Number(c.textContent.replaceAll(',', ''))]))"
    )
    outcomes = {step: tally["outcomes"] for step, tally in records.tallies().items()}
    expected = {f"{step}/{name}": part["count"] for step, found in outcomes.items() for name, part in found.items()}
    assert {name: count for name, count in shown.items() if count} == expected
    chunks = page.locator("[data-chunks]").evaluate_all("cells => cells.map(c => [c.dataset.chunks, Number(c.textContent)])")
    assert dict(chunks) == records.CHUNKS
    tokens = page.locator("[data-tokens]").all_text_contents()
    assert tokens == ["31,000", "42,000"]


def test_text_stands_out_from_its_ground(page: Any) -> None:
    ink, ground = page.evaluate("[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]")
    bright = [sum(int(part) for part in colour.strip("rgb()").split(",")) / 765 for colour in (ink, ground)]
    assert abs(bright[0] - bright[1]) > 0.7
