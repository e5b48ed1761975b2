"""Samples: by rank, evenly over strata, and the same however the documents lie in shards."""

from collections import Counter
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from nativealign_workloads.align.sampling import Drawn, Row, order, shares, smallest

DOCUMENTS = st.lists(st.tuples(st.integers(0, 50), st.sampled_from(["news", "web", "wiki"])), max_size=80).map(
    lambda rows: [{"id": f"id-{number:03d}", "rank": float(rank), "corpus": corpus} for number, (rank, corpus) in enumerate(rows)]
)


def drawn(documents: list[Row], count: int) -> Drawn:
    found = Drawn(count)
    for document in documents:
        found.add(document["corpus"], document)
    return found


def test_the_sample_takes_the_smallest_ranks_and_ties_by_id() -> None:
    ranked = [{"rank": rank, "id": name, "corpus": "web"} for rank, name in ((1.0, "b"), (1.0, "a"), (0.5, "c"), (9.0, "d"))]
    assert [row["id"] for row in drawn(ranked, 3).strata()["web"]] == ["c", "a", "b"]


def test_a_corpus_that_has_too_few_gives_all_and_the_others_share_the_rest() -> None:
    assert shares({"web": 1000, "news": 5, "wiki": 40}, 60) == {"news": 5, "wiki": 27, "web": 28}
    assert shares({"web": 3, "news": 2}, 60) == {"web": 3, "news": 2}
    assert shares({}, 60) == {}


@given(DOCUMENTS, st.integers(1, 40), st.integers(1, 30))
def test_every_stratum_gives_its_smallest_whatever_the_shards_are(documents: list[Row], shards: int, count: int) -> None:
    parts = [drawn(documents[shard::shards], count) for shard in range(shards)]
    assert sum((part.documents for part in parts), Counter()) == Counter(document["corpus"] for document in documents)
    for corpus in {document["corpus"] for document in documents}:
        expected = sorted((document for document in documents if document["corpus"] == corpus), key=order)[:count]
        assert smallest((part.strata().get(corpus, []) for part in parts), count) == expected


@given(st.dictionaries(st.sampled_from(["news", "web", "wiki", "books"]), st.integers(0, 50)), st.integers(1, 100))
def test_shares_are_as_even_as_the_strata_allow(sizes: dict[str, int], count: int) -> None:
    found = shares(sizes, count)
    assert sum(found.values()) == min(count, sum(sizes.values()))
    assert all(found[name] <= sizes[name] for name in sizes)
    short = [found[name] for name in sizes if found[name] < sizes[name]]
    assert not short or max(found.values()) - min(short) <= 1


def test_no_shard_is_read_further_than_needed() -> None:
    read = Counter[int]()

    def rows(shard: int) -> Iterator[Row]:
        for rank in range(1000):
            read[shard] += 1
            yield {"id": f"{shard}-{rank}", "rank": float(rank + 1000 * (shard % 2))}

    smallest(map(rows, range(40)), 100)
    assert sum(read.values()) < 40 * 100 / 2
