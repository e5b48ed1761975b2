"""Both stores keep the same promises: a folder and a real S3 server run the same tests."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.cluster.s3 import S3Server, s3_server
from tests.workloads.stores import store_at

from nativealign_workloads.errors import UsageError
from nativealign_workloads.store import AlreadyExists, LocalStore, NotFound, ObjectStore

MIB = 1 << 20
CLOCK_STEP = 1.05
"""Seconds: S3 tells times no finer, and the clock of a file system may be a tick behind."""
# Byte order differs from folder order here: "-" < "." < "/" < "0", and Arabic comes last.
KEYS = ["A", "a-b", "a.txt", "a/b/c", "a/b.txt", "a0", "ab/x y+z%25", "b/1", "b/10", "b/2", "نص/ملف.txt"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_server(tmp_path_factory.mktemp("s3")) as running:
        yield running


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return LocalStore(tmp_path / "store")
    return store_at(request.getfixturevalue("server"), tmp_path.name)


@pytest.mark.parametrize("data", [b"", b"\0", "نص".encode(), b"x" * (MIB + 1)])
def test_what_was_written_is_read_back_and_replaced_as_a_whole(store: ObjectStore, data: bytes):
    store.write("a/b", b"old and longer")
    store.write("a/b", data)
    assert store.read("a/b") == data
    assert store.stat("a/b").size == len(data)


def test_a_missing_object_is_none_to_stat_and_not_found_to_readers(store: ObjectStore, tmp_path: Path):
    store.write("a/b", b"")
    for key in ("a", "a/c", "a/b/c", "z"):
        assert store.stat(key) is None
        store.delete(key)
        for read in (store.read, store.open, lambda k: store.download(k, tmp_path / "out")):
            with pytest.raises(NotFound, match=key):
                read(key)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\0b", ".nativealign-tmp-1"])
def test_a_key_that_is_no_relative_path_is_refused(store: ObjectStore, key: str):
    for call in (store.stat, store.read, store.delete, lambda k: store.write(k, b""), lambda k: store.create(k, b"")):
        with pytest.raises(UsageError, match="BadKey"):
            call(key)


def test_the_listing_ascends_by_key_and_takes_any_prefix(store: ObjectStore):
    for number, key in enumerate(reversed(KEYS)):
        store.write(key, b"x" * number)
    listed = [info.key for info in store.list("")]
    assert listed == sorted(KEYS)
    assert {info.key: info.size for info in store.list("")} == {k: n for n, k in enumerate(reversed(KEYS))}
    for prefix in ("a", "a/", "a/b", "a/b/", "b/1", "nothing", "نص"):
        assert [info.key for info in store.list(prefix)] == [k for k in sorted(KEYS) if k.startswith(prefix)]
    with pytest.raises(UsageError, match="BadKey"):
        list(store.list("../"))


def test_the_listing_of_a_store_never_written_to_is_empty(store: ObjectStore):
    assert list(store.list("")) == []
    assert list(store.list("a/b")) == []


def test_a_long_listing_is_complete(store: ObjectStore):
    """More than one page of S3's 1,000."""
    keys = [f"part-{n:05d}" for n in range(1100)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.write(key, b""), keys))
    assert [info.key for info in store.list("part-")] == keys


def test_the_etag_follows_the_content_and_is_listed_only_when_asked_for(store: ObjectStore):
    store.write("a", b"one")
    first = store.stat("a")
    assert first.etag
    assert list(store.list("", with_etag=True)) == [first]
    assert [info.etag for info in store.list("")] == [""]
    store.write("a", b"two")
    assert store.stat("a").etag != first.etag
    store.write("a", b"one")
    assert store.stat("a").etag == first.etag


def test_stat_and_listing_tell_when_an_object_was_written_last(store: ObjectStore):
    began = time.time()
    store.write("a", b"one")
    found = store.stat("a")
    assert began - CLOCK_STEP <= found.modified <= time.time() + CLOCK_STEP
    assert abs(next(store.list("")).modified - found.modified) < CLOCK_STEP


def test_create_refuses_a_taken_key_unless_its_content_is_the_same(store: ObjectStore):
    store.create("a/b", b"first")
    store.create("a/b", b"first")
    with pytest.raises(AlreadyExists) as refused:
        store.create("a/b", b"second")
    assert refused.value.key == "a/b"
    assert store.read("a/b") == b"first"
    store.delete("a/b")
    store.create("a/b", b"second")
    assert store.read("a/b") == b"second"
    assert [info.key for info in store.list("")] == ["a/b"]


def test_exactly_one_of_sixteen_racing_creates_wins(store: ObjectStore):
    keys, writers = [f"race/{n}" for n in range(20)], 16
    start = threading.Barrier(writers, timeout=60)  # a writer that fails lets the others fail, not hang

    def attempt(writer: int) -> list[tuple[str, bytes]]:
        won, data = [], b"writer %d" % writer
        for key in keys:
            start.wait()
            try:
                store.create(key, data)
            except AlreadyExists:
                continue
            won.append((key, data))
        return won

    with ThreadPoolExecutor(writers) as pool:
        winners = [pair for won in pool.map(attempt, range(writers)) for pair in won]
    assert Counter(key for key, _ in winners) == Counter(keys)
    assert all(store.read(key) == data for key, data in winners)


def test_a_stream_can_be_read_in_pieces_and_at_any_place(store: ObjectStore):
    data = b"".join(b"%07d\n" % n for n in range(3 * MIB // 8))
    store.write("a", data)
    with store.open("a") as stream:
        assert [stream.read(8), stream.read(8), stream.tell()] == [data[:8], data[8:16], 16]
        assert stream.seek(-8, 2) == len(data) - 8
        assert [stream.read(), stream.read()] == [data[-8:], b""]
        stream.seek(MIB)
        assert stream.readline() == data[MIB : MIB + 8]
        stream.seek(0)
        assert stream.read() == data


def test_a_file_of_several_parts_goes_up_and_comes_down_unchanged(store: ObjectStore, tmp_path: Path):
    source, target = tmp_path / "source", tmp_path / "new folder" / "target"
    source.write_bytes(b"".join(b"%015d\n" % n for n in range(33 * MIB // 16)))
    store.upload("a/big", source)
    store.download("a/big", target)
    assert target.read_bytes() == source.read_bytes()
    assert list(target.parent.iterdir()) == [target]


def test_a_name_cannot_be_file_and_folder_at_once(store: ObjectStore):
    """Many S3 servers allow it; versitygw, which keeps objects as files, and a folder do not."""
    store.write("a", b"")
    store.write("b/c", b"")
    for key in ("a/b", "b"):
        with pytest.raises(UsageError, match="file and a folder"):
            store.write(key, b"")


def test_delete_removes_one_object(store: ObjectStore):
    store.write("a", b"")
    store.write("ab", b"")
    store.delete("a")
    assert [info.key for info in store.list("")] == ["ab"]


def test_the_self_test_passes_and_leaves_nothing(store: ObjectStore):
    store.self_test()
    assert list(store.list("")) == []
