"""The seed sample: by rank, and evenly over the corpora."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.align.sampling import Ranked, draw, draw_stratified, shares

DOCUMENTS = st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["news", "web", "wiki"])), max_size=80).map(
    lambda rows: [Ranked(float(rank), f"id-{number:03d}", number % 3, corpus) for number, (rank, corpus) in enumerate(rows)]
)


def test_the_sample_takes_the_smallest_ranks_and_ties_by_id() -> None:
    ranked = [Ranked(rank, name, 0, "web") for rank, name in ((1.0, "b"), (1.0, "a"), (0.5, "c"), (9.0, "d"))]
    assert [document.id for document in draw(ranked, 3)] == ["c", "a", "b"]


def test_a_corpus_that_has_too_few_gives_all_and_the_others_share_the_rest() -> None:
    assert shares({"web": 1000, "news": 5, "wiki": 40}, 60) == {"news": 5, "wiki": 27, "web": 28}
    assert shares({"web": 3, "news": 2}, 60) == {"web": 3, "news": 2}
    assert shares({}, 60) == {}


@given(DOCUMENTS, st.integers(1, 30))
def test_a_stratified_sample_is_as_even_as_the_corpora_allow_and_takes_the_smallest_of_each(
    documents: list[Ranked], count: int
) -> None:
    drawn = draw_stratified(documents, count)
    assert set(drawn) == set(draw_stratified(documents[::-1], count))
    assert len(drawn) == min(count, len(documents))
    sizes, there = Counter(d.corpus for d in drawn), Counter(d.corpus for d in documents)
    short = [sizes[corpus] for corpus in there if sizes[corpus] < there[corpus]]
    assert not short or max(sizes.values()) - min(short) <= 1
    for corpus in there:
        assert set(draw([d for d in documents if d.corpus == corpus], sizes[corpus])) == {d for d in drawn if d.corpus == corpus}
