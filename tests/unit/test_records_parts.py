"""Part files: what was written is read, whatever the frames."""

import io
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nativealign_workloads.errors import DataError
from nativealign_workloads.records import encode_frame, read_rows

TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=5)


def rows_of(data: bytes) -> list[dict]:
    return list(read_rows(io.BytesIO(data), "part-0-a.jsonl.zst"))


@settings(deadline=None)
@given(st.lists(ROWS, max_size=4))
def test_concatenated_frames_give_the_concatenated_rows(groups: list[list[dict]]):
    frames = [encode_frame(iter(rows)) for rows in groups]
    assert rows_of(b"".join(frames)) == [row for rows in groups for row in rows]
    assert frames == [encode_frame(rows) for rows in groups]
    assert [frame == b"" for frame in frames] == [not rows for rows in groups]


def test_keys_keep_their_order():
    assert list(rows_of(encode_frame([{"b": 1, "a": 2}]))[0]) == ["b", "a"]


@settings(deadline=None)
@given(st.data())
def test_a_damaged_part_never_gives_other_rows_than_were_written(data: st.DataObject):
    rows = [{"n": n, "text": "نص"} for n in range(20)]
    damaged = bytearray(encode_frame(rows))
    place = data.draw(st.integers(1, len(damaged) - 1))
    if data.draw(st.booleans()):
        del damaged[place:]
    else:
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
    # A flipped bit without meaning, such as the header's unused one, changes nothing.
    with suppress(DataError):
        assert rows_of(bytes(damaged)) == rows


def test_a_truncated_part_gives_its_first_frames_and_then_the_error():
    rows = read_rows(io.BytesIO(encode_frame([{"n": 1}]) + encode_frame([{"n": 2}])[:-1]), "part-0")
    assert next(rows) == {"n": 1}
    with pytest.raises(DataError, match="PartUnreadable: part-0: "):
        list(rows)
