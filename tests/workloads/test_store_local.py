"""What only a folder can do wrong."""

import errno
import os
from pathlib import Path

import pytest

from nativealign_workloads.errors import DataError, NoSpaceError, PermissionDenied, StepError, UsageError
from nativealign_workloads.store import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.mark.parametrize(
    ("number", "error", "code"),
    [
        (errno.ENOSPC, NoSpaceError, "NoSpace"),
        (errno.EDQUOT, NoSpaceError, "NoSpace"),
        (errno.EIO, NoSpaceError, "InputOutputError"),
        (errno.EACCES, PermissionDenied, "PermissionDenied"),
        (errno.EROFS, PermissionDenied, "PermissionDenied"),
    ],
)
def test_a_failing_disk_is_named_and_leaves_the_old_content(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[StepError], code: str
):
    store.write("a", b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    for call in (lambda: store.write("a", b"new"), lambda: store.create("b", b"new")):
        with pytest.raises(error) as caught:
            call()
        assert caught.value.code == code
        assert str(tmp_path) in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert store.read("a") == b"old"


def test_a_file_system_without_hard_links_is_refused(store: LocalStore, monkeypatch: pytest.MonkeyPatch):
    def fail(*_paths: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(StepError, match="NoConditionalWrites"):
        store.self_test()


def test_unfinished_files_of_other_writers_are_not_listed(store: LocalStore, tmp_path: Path):
    store.write("a/b", b"")
    (tmp_path / "a" / ".nativealign-tmp-0123").write_bytes(b"half")
    assert [info.key for info in store.list("")] == ["a/b"]


def test_links_are_followed_but_neither_in_circles_nor_into_nothing(store: LocalStore, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x").write_bytes(b"123")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "linked").symlink_to(tmp_path / "elsewhere")
    assert [(info.key, info.size) for info in store.list("corpus/")] == [("corpus/linked/x", 3)]
    (corpus / "loop").symlink_to(corpus)
    with pytest.raises(UsageError, match="LinkLoop"):
        list(store.list("corpus/"))
    (corpus / "loop").unlink()
    (corpus / "gone").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"BrokenLink.*corpus/gone"):
        list(store.list("corpus/"))


def test_a_file_name_that_is_not_utf8_is_named(store: LocalStore, tmp_path: Path):
    (tmp_path / os.fsdecode(b"caf\xe9.txt")).write_bytes(b"")
    with pytest.raises(DataError, match=r"caf\\xe9"):
        list(store.list(""))
