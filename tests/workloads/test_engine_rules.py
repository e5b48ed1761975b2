"""The rules engine polishes what it surely can, keeps every fact, and its own guards agree."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.conduct import BUILTIN, load_conduct
from nativealign_workloads.engines import Reply, Request
from nativealign_workloads.engines.rules import MODEL, RulesEngine, polish
from nativealign_workloads.guards import check

CONDUCT = load_conduct(BUILTIN["ar-1"].read_bytes(), "ar-1")
KEEPS_ALL = CONDUCT.model_copy(update={"remove_advertisements": False, "masks": type(CONDUCT.masks)()})
CORPUS = Path(__file__).resolve().parents[2].parent / "shared/data/corpus/saudi-news.jsonl.gz"


@pytest.mark.parametrize(
    ("text", "polished"),
    [
        ("قال   الوزير , أمس ؛  ما  رأيك ?", "قال الوزير، أمس؛ ما رأيك؟"),
        ("أولا,ثانيا", "أولا، ثانيا"),
        ("كـــتاب الـــمدرسة", "كتاب المدرسة"),
        ("سنة 1446هـ والدول الـ15", "سنة 1446هـ والدول الـ15"),
        ("ﺍﻻﺳﺘﺮﺍﺗﻴﺠﻲ", "الاستراتيجي"),
        ("إ\u200eلون\u200f موسك\ufeff", "إلون موسك"),
        ("مبلغ 04.\u200f5 مليون", "مبلغ 04.\u200f5 مليون"),
        ("رائع!!!! حقا؟؟ نعم.....", "رائع! حقا؟ نعم..."),
        ("سطر\n\n\n\n\nسطر  \n  سطر", "سطر\n\nسطر\nسطر"),
        ("بلغ 1,250.5 و 3,4 و٣٫٥", "بلغ 1,250.5 و 3,4 و٣٫٥"),
        ("انظر https://ar.example/س,ش؟x=1,2 , ثم", "انظر https://ar.example/س,ش؟x=1,2 , ثم"),
        ("Hello, world; is it? Yes", "Hello, world; is it? Yes"),
        ("عنوان\nشارك الخبر\nللحجز اتصل على 0501234567\nنهاية", "عنوان\nنهاية"),
        ("راسل a@b.example أو 0501234567 ", "راسل [بريد إلكتروني] أو [رقم هاتف]"),
        ("كَتَبَ مُحمَّدٌ إلى أُمِّهِ", "كَتَبَ مُحمَّدٌ إلى أُمِّهِ"),
        ("", ""),
    ],
)
def test_texts_are_polished(text: str, polished: str) -> None:
    assert polish(text, CONDUCT) == polished


def test_only_the_code_of_conduct_masks_and_removes() -> None:
    text = "راسل a@b.example أو 0501234567\nشارك الخبر"
    assert polish(text, KEEPS_ALL) == text


def test_replies_stand_in_the_order_of_the_requests() -> None:
    engine = RulesEngine(CONDUCT)
    requests = [Request(str(i), [], f"نص {i} ,", 10) for i in range(3)]
    assert engine.generate(requests) == [Reply(str(i), f"نص {i} ,", "Stop", 0, 0, MODEL) for i in range(3)]


@given(st.text(alphabet='ابتـَ ،؛؟,;?.!»«"()\n\t\u200f\u00a0a1:/@-', max_size=80))
def test_polishing_twice_changes_nothing_more(text: str) -> None:
    once = polish(text, CONDUCT)
    assert polish(once, CONDUCT) == once


@given(st.text(alphabet='ابتـَ ،؛؟,;?.!»«"()\n\t\u00a0ab1٢:/-', max_size=80))
def test_letters_and_digits_survive_when_nothing_is_declared_removed(text: str) -> None:
    def kept(s: str) -> list[str]:
        return [c for c in s if c.isalnum() and c != "ـ"]

    assert kept(polish(text, KEEPS_ALL)) == kept(text)


def test_real_articles_pass_their_own_guards() -> None:
    if not CORPUS.exists():
        pytest.skip("no shared data")
    with gzip.open(CORPUS, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for _, line in zip(range(1000), lines, strict=False)]
    rejected = {text[:60]: v for text in texts if (v := check(CONDUCT, text, polish(text, CONDUCT), "Stop"))}
    assert rejected == {}
    assert sum(polish(text, CONDUCT) != text.strip() for text in texts) > 100
