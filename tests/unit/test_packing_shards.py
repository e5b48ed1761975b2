from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.packed import pack, pack_pairs

from nativealign_workloads.errors import DataError, NoInputError
from nativealign_workloads.training.packing import IGNORED, Shard, ShardWriter
from nativealign_workloads.training.sft import Pair

DOCUMENTS = st.lists(st.lists(st.integers(1, 2**32 - 1), max_size=20), max_size=12)


@given(documents=DOCUMENTS, length=st.integers(1, 16))
def test_every_token_is_kept_once_and_in_order(documents: list[list[int]], length: int) -> None:
    shard = pack(documents, length)
    rows = [shard.sample(row) for row in range(len(shard))]
    stream = [token for row in rows for token in row.input_ids[: row.length].tolist()]
    assert stream == [token for document in documents for token in document]
    assert all(row.length == length for row in rows[:-1])


@given(documents=DOCUMENTS, length=st.integers(1, 16))
def test_labels_and_positions_restart_with_every_document_and_row(documents: list[list[int]], length: int) -> None:
    shard = pack(documents, length)
    place = [(position, token) for document in documents for position, token in enumerate(document)]
    for number in range(len(shard)):
        row, expected = shard.sample(number), 0
        for i, (position, token) in enumerate(place[number * length : (number + 1) * length]):
            expected = 0 if position == 0 or i == 0 else expected + 1
            assert row.position_ids[i] == expected
            assert row.labels[i] == (IGNORED if expected == 0 else token)
        assert (row.labels[row.length :] == IGNORED).all()
        assert row.position_ids[row.length :].tolist() == list(range(length - row.length))


def test_shard_files_give_back_what_was_written_and_are_the_same_bytes_each_time(tmp_path: Path) -> None:
    documents = [[5, 6, 7, 2], [], [8, 2], list(range(10, 20))]
    for name in ("a", "b"):
        with ShardWriter(tmp_path / name) as writer:
            for document in documents:
                writer.add(document, silent=1)
    assert (tmp_path / "a.bin").read_bytes() == (tmp_path / "b.bin").read_bytes()
    assert (tmp_path / "a.idx").read_bytes() == (tmp_path / "b.idx").read_bytes()
    assert (tmp_path / "a.bin").read_bytes()[:8] == bytes([5, 0, 0, 0, 6, 0, 0, 0])
    shard = Shard.open(tmp_path / "a", 6, pad_id=3)
    assert (shard.tokens, shard.documents, len(shard)) == (16, 3, 3)
    rows = [shard.sample(row) for row in range(3)]
    assert [row.input_ids.tolist() for row in rows] == [[5, 6, 7, 2, 8, 2], [10, 11, 12, 13, 14, 15], [16, 17, 18, 19, 3, 3]]
    assert [row.position_ids.tolist() for row in rows] == [[0, 1, 2, 3, 0, 1], [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 0, 1]]
    assert rows[0].labels.tolist() == [IGNORED, 6, 7, 2, IGNORED, 2]
    assert rows[2].labels.tolist() == [IGNORED, 17, 18, 19, IGNORED, IGNORED]


def test_an_empty_shard_has_no_rows(tmp_path: Path) -> None:
    ShardWriter(tmp_path / "empty").close()
    assert len(Shard.open(tmp_path / "empty", 8)) == 0


def test_a_cut_off_or_missing_shard_is_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "cut") as writer:
        writer.add(list(range(100)))
    (tmp_path / "cut.bin").write_bytes((tmp_path / "cut.bin").read_bytes()[:200])
    with pytest.raises(DataError, match="TruncatedShard: cut"):
        Shard.open(tmp_path / "cut", 8)
    with pytest.raises(NoInputError, match=r"none\.bin is missing"):
        Shard.open(tmp_path / "none", 8)


PAIRS = st.lists(st.builds(Pair, *[st.lists(st.integers(10, 99), min_size=1, max_size=6)] * 2), max_size=200)


@given(pairs=PAIRS, length=st.integers(12, 32))
def test_pairs_stay_whole_and_only_answers_carry_loss(pairs: list[Pair], length: int) -> None:
    shard = pack_pairs(pairs, length, pad_id=0)
    found = []
    for row in map(shard.sample, range(len(shard))):
        starts = [*np.flatnonzero(row.position_ids[: row.length] == 0).tolist(), row.length]
        assert (row.input_ids[row.length :] == 0).all()
        for start, stop in pairwise(starts):
            labels = row.labels[start:stop]
            silent = int((labels == IGNORED).sum())
            assert (labels[silent:] == row.input_ids[start + silent : stop]).all()
            tokens = row.input_ids[start:stop].tolist()
            found.append((tuple(tokens[:silent]), tuple(tokens[silent:])))
    assert sorted(found) == sorted((tuple(pair.prompt), tuple(pair.answer)) for pair in pairs)


def test_pairs_waste_little() -> None:
    pairs = [Pair([1] * (5 + i * 7 % 40), [2] * (3 + i * 11 % 30)) for i in range(500)]
    shard = pack_pairs(pairs, 256, pad_id=0)
    assert sum(map(len, pairs)) / (len(shard) * 256) > 0.97


def test_a_pair_that_cannot_be_used_is_named() -> None:
    with pytest.raises(DataError, match="pair 1 has 9 tokens, more than the sequence length 8"):
        pack_pairs([Pair([1], [2]), Pair([1] * 4, [2] * 5)], 8, 0)
    with pytest.raises(DataError, match="pair 0 has no answer"):
        pack_pairs([Pair([1], [])], 8, 0)
