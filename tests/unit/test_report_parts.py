"""The report's pure parts: the ledger's check, charts, differences of texts, numbers in words."""

import copy
import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import report_records as records

from nativealign_api.vocabulary import Outcome
from nativealign_workloads.ledger import Tally, document_id
from nativealign_workloads.report import figures, flow, ledger, text, wording

WORDS = st.text(alphabet="اب جab 12\n", max_size=60)
FINITE = st.floats(-1e6, 1e6, allow_nan=False)


def test_a_ledger_in_which_every_document_is_found_again_adds_up() -> None:
    rows = ledger.rows(records.tallies())
    assert ledger.adds_up(rows)
    assert [row.sum_text for row in rows] == ["40 = 34 + 4 + 2", "34 = 25 + 3 + 6", "25 = 24 + 1"]


def test_a_lost_document_shows_in_its_row() -> None:
    tallies = copy.deepcopy(records.tallies())
    del tallies["dedup"]["outcomes"]["heldOut"]
    rows = ledger.rows(tallies)
    assert not ledger.adds_up(rows)
    assert [row.balanced for row in rows] == [True, False, True]
    assert rows[1].sum_text == "34 ≠ 25 + 6"


def test_as_many_documents_but_other_ones_do_not_add_up() -> None:
    tallies = copy.deepcopy(records.tallies())
    other = Tally()
    for number in range(25):
        other.add(document_id("other", "file", number), Outcome.OUT)
    rows = ledger.rows(tallies | {"rewrite": other.dump()})
    assert rows[2].balanced
    assert rows[2].handed_over is False
    assert not ledger.adds_up(rows)


@given(st.lists(st.sampled_from(list(Outcome)), max_size=40))
def test_the_ledger_adds_up_whatever_becomes_of_the_documents(fates: list[Outcome]) -> None:
    tally = Tally()
    for number, outcome in enumerate(fates):
        tally.add(document_id("web", "file", number), outcome)
    (row,) = ledger.rows({"clean": tally.dump()})
    assert row.balanced
    assert row.read == len(fates) == sum(row.outcomes.values())


def test_a_histogram_has_a_bar_for_each_filled_bin_and_says_what_it_shows() -> None:
    drawn = ElementTree.fromstring(figures.histogram(([4, 0, 2], [0.0, 1.0, 2.0, 3.0]), "Length <ratio>", 1.2))
    assert drawn.get("aria-label") == "Length <ratio>: histogram of 6 values from 0 to 3"
    heights = [float(bar.get("height", 0)) for bar in drawn.findall("rect")]
    assert len(heights) == 2
    assert heights[0] == 2 * heights[1]


def test_before_and_after_are_drawn_as_densities_over_one_axis() -> None:
    drawn = ElementTree.fromstring(figures.mirrored(([10], [0.0, 1.0]), ([10], [0.0, 2.0]), "Perplexity"))
    before, after = drawn.findall("rect")
    assert float(before.get("height", 0)) == pytest.approx(2 * float(after.get("height", 0)), abs=0.2)
    assert float(after.get("width", 0)) == pytest.approx(2 * float(before.get("width", 0)), abs=2)


def test_a_value_that_all_documents_share_can_be_drawn() -> None:
    for drawn in (figures.histogram(([3], [1.0, 1.0]), "one"), figures.line_chart([(1, 2.0)], "one", "loss")):
        assert "nan" not in drawn
        ElementTree.fromstring(drawn)


def test_a_chart_cannot_be_broken_by_a_name() -> None:
    hostile = '"><script>alert(1)</script>'
    drawn = figures.forest([figures.Interval(hostile, 0.5, 0.4, 0.6)], hostile, (0.0, 1.0))
    assert "<script>" not in drawn
    assert ElementTree.fromstring(drawn).get("aria-label", "").startswith(hostile)


def test_the_flow_names_every_loss() -> None:
    stages = [flow.Stage("clean", 10, 7, [("filtered", "filtered", 3)]), flow.Stage("dedup", 7, 7, [])]
    words = "".join(ElementTree.fromstring(flow.flow(stages, "aligned corpus", "flow")).itertext())
    for expected in ("in 10", "filtered 3", "in 7", "out 7", "aligned corpus"):
        assert expected in words


@given(FINITE, FINITE)
def test_ticks_ascend_inside_the_range(one: float, other: float) -> None:
    low, high = sorted((one, other))
    found = figures.ticks(low, high)
    assert found == sorted(set(found))
    room = 1e-6 * max(1.0, abs(low), abs(high))
    assert all(low - room <= tick <= high + room for tick in found)
    assert len(found) <= 8


def test_changed_words_are_marked_on_both_sides() -> None:
    before, after = text.compare("قال ان الجو ,حار", "قال إن الجو، حار")
    marked = [[run.strip() for mark, run in side[0].runs if mark] for side in (before, after)]
    assert marked == [["ان الجو ,حار"], ["إن الجو، حار"]]


@given(WORDS, WORDS)
def test_a_comparison_loses_no_text_and_marks_none_that_both_share(one: str, other: str) -> None:
    before, after = text.compare(one, other)
    for source, side in ((one, before), (other, after)):
        lines = [line for line in source.split("\n") if line.strip()]
        assert ["".join(run for _, run in paragraph.runs) for paragraph in side] == lines
    shared = [" ".join("".join(run for mark, run in p.runs if not mark) for p in side).split() for side in (before, after)]
    assert shared[0] == shared[1]


def test_nothing_is_marked_behind_the_place_where_a_sample_was_cut() -> None:
    before, after = text.compare("كلمة واحدة ثم بقية …", "كلمة واحدة …")
    assert not any(mark for side in (before, after) for paragraph in side for mark, _ in paragraph.runs)


@pytest.mark.parametrize(
    ("words", "around", "expected"),
    [
        ("نص عربي", "auto", "rtl"),
        ("iPhone 15 متوفر الآن في الأسواق", "auto", "rtl"),
        ("plain English", "auto", "ltr"),
        ("هاتف: info@example.org", "rtl", "rtl"),
        ("info@example.org", "rtl", "ltr"),
        ("123 - 456", "rtl", "rtl"),
    ],
)
def test_a_line_runs_in_the_direction_of_its_letters(words: str, around: text.Direction, expected: str) -> None:
    assert text.direction(words, around) == expected


def test_characters_that_reorder_or_hide_text_are_written_out() -> None:
    assert text.visible("a\u202eb\u2066c\x00d\x1b") == "a⟨U+202E⟩b⟨U+2066⟩c␀d␛"
    assert text.visible("می‌خواهم\t\n") == "می‌خواهم\t\n", "joiners and white space are ordinary text"


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(1637, 1941, "84.3 %"), (1, 100000, "< 0.1 %"), (99999, 100000, "> 99.9 %"), (5, 5, "100.0 %"), (0, 5, "0.0 %"), (0, 0, "–")],
)
def test_a_share_never_reads_all_or_nothing_when_it_is_not(part: int, whole: int, expected: str) -> None:
    assert wording.percent(part, whole) == expected


@given(FINITE.filter(lambda value: abs(value) > 1e-6))
def test_a_number_keeps_three_digits(value: float) -> None:
    shown = float(re.sub(",", "", wording.number(value)))
    assert shown == pytest.approx(value, rel=6e-3)
