"""Syncs of many files at once: the error of each is told, and where the kernel has no queue, files are synced one by one."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import Unavailable
from blocksd.files.file_edit import FileEdit
from blocksd.files.root import Root
from blocksd.files.syncs import Syncs
from blocksd.files.writer import Writer
from support import do_without

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@pytest.fixture
def handles(tmp_path: Path) -> Iterator[list[int]]:
    opened = [os.open(tmp_path / str(number), os.O_WRONLY | os.O_CREAT) for number in range(10)]
    for handle in opened:
        os.write(handle, b"text")
    yield opened
    for handle in opened:
        os.close(handle)


def queue() -> Syncs:
    try:
        return Syncs()
    except OSError as error:
        do_without(f"a queue of syncs: {error}")


def test_all_are_synced_as_often_as_is_asked(handles: list[int]) -> None:
    syncs = queue()
    assert syncs.end() == {}
    for _ in range(3):
        assert syncs.begin(handles) == len(handles)
        assert syncs.end() == dict.fromkeys(handles, 0)
    assert syncs.end() == {}


def test_what_was_not_asked_for_again_is_not_told_of_later(handles: list[int]) -> None:
    syncs = queue()
    syncs.begin(handles[:8])
    syncs.begin(handles[8:10])
    assert syncs.end() == dict.fromkeys(handles[8:10], 0)


def test_file_that_cannot_be_synced_ends_what_is_begun(handles: list[int]) -> None:
    syncs = queue()
    read, write = os.pipe()
    try:
        assert syncs.begin([handles[0], write, handles[1]]) == 1
        assert syncs.end() == {handles[0]: 0}
        assert syncs.begin([write]) == 0
        assert syncs.end() == {}
    finally:
        os.close(read)
        os.close(write)


# --- as the writer uses it ---


class Slow(Syncs):
    """A queue that says what it was asked for, and what a test wants of it."""

    asked: list[int]

    def __init__(self, errors: Sequence[int]) -> None:
        self.asked = []
        self._errors = errors

    def begin(self, handles: Sequence[int]) -> int:
        self.asked += handles
        return len(handles)

    def end(self) -> dict[int, int]:
        return dict(zip(self.asked, self._errors, strict=False))


def edits(count: int) -> list[FileEdit]:
    return [FileEdit(f"block{number}.md", None, b"text", None) for number in range(count)]


def test_error_of_one_is_an_error_of_its_file(tmp_path: Path) -> None:
    writer, syncs = Writer(str(tmp_path)), Slow([0, errno.EIO, 0])
    writer._syncs = syncs
    staged = [writer.stage(edit) for edit in edits(3)]
    writer.start_flush()
    with pytest.raises(Unavailable, match=r"block1\.md") as refusal:
        writer.flush()
    assert refusal.value.facts["errno"] == "EIO"
    for one in staged:
        writer.discard(one)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("accepted", [0, 1])
def test_those_that_the_kernel_does_not_take_are_synced_by_the_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, accepted: int
) -> None:
    """The file systems may have no such thing, or the kernel no queue."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(Root, "sync", staticmethod(os.fsync))
    writer, syncs = Writer(str(tmp_path)), Slow([0] * accepted)
    writer._syncs = syncs
    for edit in edits(3):
        writer.stage(edit)
    writer.start_flush()
    assert len(syncs.asked) == 3
    writer.flush()
    assert synced == syncs.asked[accepted:]


def test_queue_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it was asked for is synced by the writer, and so is all that follows."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(Root, "sync", staticmethod(os.fsync))
    writer, syncs = Writer(str(tmp_path)), Slow([0, 0])
    writer._syncs = syncs

    def fail() -> dict[int, int]:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(syncs, "end", fail)
    for count in (2, 4):
        for edit in edits(2):
            writer.stage(edit)
        writer.start_flush()
        writer.flush()
        assert len(synced) == count
    assert len(syncs.asked) == 2


def test_without_a_queue_files_are_synced_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    synced: list[int] = []
    begun: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    monkeypatch.setattr(Root, "sync", staticmethod(os.fsync))
    monkeypatch.setattr(Root, "start_sync", lambda _root, handle: begun.append(handle))
    writer = Writer(str(tmp_path))
    monkeypatch.setattr(Syncs, "__init__", refuse)
    for _ in range(2):
        for edit in edits(2):
            writer.stage(edit)
        writer.start_flush()
        writer.flush()
    assert len(synced) == 4
    assert len(begun) == 2, "each is begun at once, as soon as it is known that there is no queue"


def test_queue_begins_with_files_that_were_not_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To begin with each of them before takes CPU for nothing."""
    monkeypatch.setattr(Root, "start_sync", lambda _root, _handle: pytest.fail("it was begun alone"))
    writer, syncs = Writer(str(tmp_path)), Slow([0, 0])
    writer._syncs = syncs
    for edit in edits(2):
        writer.stage(edit)
    writer.start_flush()
    writer.flush()
    assert len(syncs.asked) == 2


def test_more_than_the_queue_holds_are_synced_in_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Syncs, "MOST", 3)
    writer = Writer(str(tmp_path))
    for edit in edits(2 * Syncs.MOST + 1):
        writer.stage(edit)
    assert len(writer._unsynced) == 1
    writer.start_flush()
    writer.flush()
    assert writer._unsynced == {}
