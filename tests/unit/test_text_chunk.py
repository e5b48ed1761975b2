"""Chunks join to the document byte for byte, stay within their limit, and break where a reader would."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.errors import DataError
from nativealign_workloads.text.chunk import Chunk, chunk, context_of, join, reassemble


def count_words(text: str) -> int:
    return len(text.split())


def count_bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


DOCUMENTS = st.one_of(
    st.text(),
    st.text(alphabet=' \n\r\t\u2028.؟!ابت\u200f«»"a1', max_size=300),
    st.lists(st.sampled_from(["جملة أولى.", "ثانية؟", "\n", "\n\n", "   ", "كلمة", "\r\n\r\n", "https://a.b/c."]), max_size=60).map(
        " ".join
    ),
)


@given(DOCUMENTS, st.integers(1, 40), st.sampled_from([count_words, count_bytes]))
def test_any_document_comes_back_byte_for_byte(text: str, max_tokens: int, count) -> None:
    chunks = chunk(text, max_tokens, count)
    assert join(chunks) == text
    assert reassemble(chunks, {c.index: c.text for c in chunks}) == text
    assert [c.index for c in chunks] == list(range(len(chunks)))
    assert all(c.text for c in chunks)


@given(DOCUMENTS, st.integers(1, 40))
def test_no_chunk_of_several_characters_passes_the_limit(text: str, max_tokens: int) -> None:
    assert all(count_bytes(c.text) <= max_tokens or len(c.text) == 1 for c in chunk(text, max_tokens, count_bytes))


@given(DOCUMENTS, st.integers(1, 40))
def test_chunks_carry_no_white_space_at_their_seams(text: str, max_tokens: int) -> None:
    chunks = chunk(text, max_tokens, count_words)
    for left, right in pairwise(chunks):
        assert left.text == left.text.rstrip()
        assert right.text == right.text.lstrip()
        assert left.separator_after.strip() == ""


def test_paragraphs_are_packed_until_the_limit() -> None:
    chunks = chunk("واحد اثنان\n\nثلاثة أربعة\n\nخمسة ستة", 4, count_words)
    assert [c.text for c in chunks] == ["واحد اثنان\n\nثلاثة أربعة", "خمسة ستة"]
    assert chunks[0].separator_after == "\n\n"


def test_only_a_paragraph_that_is_too_long_is_split_into_sentences() -> None:
    chunks = chunk("أولى الجمل هنا. ثانية الجمل هنا؟ ثالثة «الجمل هنا.» رابعة الجمل هنا", 6, count_words)
    assert [c.text for c in chunks] == ["أولى الجمل هنا. ثانية الجمل هنا؟", "ثالثة «الجمل هنا.» رابعة الجمل هنا"]


def test_a_number_or_address_is_never_taken_for_the_end_of_a_sentence() -> None:
    chunks = chunk("بلغت النسبة 3.5 بالمئة وفق www.example.com/a.b اليوم. انتهى", 8, count_words)
    assert [c.text for c in chunks] == ["بلغت النسبة 3.5 بالمئة وفق www.example.com/a.b اليوم. انتهى"]


def test_a_sentence_that_is_too_long_is_split_at_words_and_a_word_by_characters() -> None:
    assert [c.text for c in chunk("a b c d e", 2, count_words)] == ["a b", "c d", "e"]
    assert [c.text for c in chunk("abcdefgh", 2, count_bytes)] == ["ab", "cd", "ef", "gh"]


def test_a_huge_line_of_dots_or_spaces_is_split_and_joined() -> None:
    for text in ("." * 60_000, "a" + " " * 60_000 + "b", "\n" * 60_000, ".\n" * 30_000):
        assert join(chunk(text, 1000, count_bytes)) == text


def test_a_gap_is_refused() -> None:
    chunks = chunk("a b c d", 2, count_words)
    with pytest.raises(DataError, match="ChunkMissing: no text for chunk 1"):
        reassemble(chunks, {0: "a b"})
    with pytest.raises(DataError, match="not numbered"):
        reassemble([Chunk(0, "a", " "), Chunk(2, "b", "")], {0: "a", 2: "b"})


def test_a_dropped_chunk_takes_its_separator_along() -> None:
    chunks = chunk("واحد\n\nاثنان\n\nثلاثة", 1, count_words)
    assert reassemble(chunks, {0: "واحد", 1: None, 2: "ثلاثة"}) == "واحد\n\nثلاثة"


def test_context_is_the_paragraph_before() -> None:
    chunks = chunk("فقرة أولى\n\nفقرة ثانية\n\nثالثة جدا", 4, count_words)
    assert context_of(chunks, 0, 10, count_words) == ""
    assert context_of(chunks, 1, 10, count_words) == "فقرة ثانية"


def test_long_context_is_cut_from_the_left_at_a_sentence_where_one_fits() -> None:
    chunks = [Chunk(0, "جملة أولى طويلة. جملة ثانية. خاتمة", "\n\n"), Chunk(1, "نص", "")]
    assert context_of(chunks, 1, 3, count_words) == "جملة ثانية. خاتمة"
    assert context_of([Chunk(0, "a b c d", " "), Chunk(1, "e", "")], 1, 2, count_words) == "c d"
    assert context_of(chunks, 1, 0, count_words) == ""
