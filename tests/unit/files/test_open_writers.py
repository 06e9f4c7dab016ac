"""Who is in the middle of writing, where no lease can be taken: on files of other users."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from blocksd.files.folder import Busy, Folder, Text
from blocksd.files.root import Root
from blocksd.state.sweep import Sweep
from support import DEADLINE, eventually

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that a group edits, as a daemon without rights sees it."""
    monkeypatch.setattr(Root, "has_writer", lambda *_: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    path = tmp_path / "blocks.d"
    path.mkdir()
    path.chmod(0o2770)
    return path


@pytest.fixture
def folder(root: Path) -> Folder:
    """One that has been swept."""
    folder = Folder(str(root))
    assert list(Sweep(folder).walk())
    return folder


def age(path: Path, *, seconds: float = 2.0) -> None:
    """Let the last write be so long ago that without events nobody would be waited for."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def pass_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the last change be so long ago: its time cannot be set."""
    monkeypatch.setattr("blocksd.files.open_writers._SETTLE_SECONDS", 0.0)


def write(path: Path, text: str) -> None:
    """Write in a tick of the file system's clock that begins from now on."""
    now = time.time()

    def is_newer() -> bool:
        path.write_text(text)
        return path.stat().st_mtime > now

    eventually(is_newer)


def read(folder: Folder, *, closed: bool = True) -> bytes | None:
    """What the file `notes.md` says; None when somebody is writing it."""
    reading = folder.read("notes.md", closed=closed)
    if isinstance(reading, Busy):
        return None
    assert isinstance(reading, Text)
    return reading.data


@pytest.mark.parametrize("closed", [True, False])
def test_file_is_busy_until_it_is_closed(root: Path, folder: Folder, *, closed: bool) -> None:
    """However long its writer takes, and whether or not another one was just seen to be done."""
    path = root / "notes.md"
    with path.open("w") as file:
        file.write("half")
        file.flush()
        age(path)
        assert read(folder, closed=closed) is None
    assert read(folder, closed=closed) == b"half"


def test_new_file_is_busy_before_anything_is_written(
    root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That it is empty says nothing as long as whoever has made it has not closed it."""
    path = root / "notes.md"
    with path.open("w"):
        pass_time(monkeypatch)
        assert read(folder) is None
    assert read(folder) == b""


def test_emptied_file_must_settle(root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is empty an instant before its event tells so: that it is, is only believed after a while."""
    path = root / "notes.md"
    path.write_text("")
    assert read(folder) is None
    pass_time(monkeypatch)
    assert read(folder) == b""


def test_file_that_was_moved_in_is_whole(root: Path, folder: Folder) -> None:
    """What had this name before is not in its place any more."""
    path = root / "notes.md"
    with path.open("w") as file:
        file.write("half")
        file.flush()
        (root / "new").write_text("whole")
        (root / "new").rename(path)
        assert read(folder) == b"whole"


def test_nothing_is_known_of_before(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file written before its directory was watched is as good as any, once it has been closed or left alone."""
    (root / "notes.md").write_text("text")
    folder = Folder(str(root))
    assert read(folder, closed=False) is None
    assert read(folder) == b"text"
    pass_time(monkeypatch)
    assert read(folder, closed=False) == b"text"


def test_where_no_events_come_nothing_is_known(root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a file was written after its directory was watched, and no event came, says nothing of its writer."""
    monkeypatch.setattr("blocksd.files.open_writers.Unclosed._take_events", lambda *_: None)
    path = root / "notes.md"
    write(path, "half")
    assert read(folder, closed=False) is None
    pass_time(monkeypatch)
    assert read(folder, closed=False) == b"half"


def test_private_directory_is_not_watched_ahead(root: Path) -> None:
    """Where nobody else may write there is nothing to expect; it is watched once there is a file to ask for."""
    root.chmod(0o700)
    folder = Folder(str(root))
    assert list(Sweep(folder).walk())
    path = root / "notes.md"
    path.write_text("text")
    assert read(folder, closed=False) is None
    write(path, "more")
    assert read(folder, closed=False) == b"more"


def test_lost_events_are_not_missed(root: Path, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the kernel has dropped events, nothing is believed that they would have told."""
    monkeypatch.setattr("blocksd.files.open_writers._SETTLE_SECONDS", DEADLINE)
    path = root / "notes.md"
    write(path, "text")
    assert read(folder, closed=False) == b"text"
    with (root / "one").open("wb", buffering=0) as one, (root / "two").open("wb", buffering=0) as two:
        for _ in range(10_000):
            one.write(b"x")
            two.write(b"x")
    path.write_text("more")
    assert read(folder, closed=False) is None
    write(path, "again")
    assert read(folder, closed=False) == b"again"


def test_another_directory_in_its_place_is_watched(root: Path, folder: Folder) -> None:
    """A watch is of a directory, not of its path."""
    path = root / "notes.md"
    write(path, "text")
    assert read(folder, closed=False) == b"text"
    path.unlink()
    root.rmdir()
    root.mkdir()
    folder.directory.reopen()
    path.write_text("text")
    assert read(folder, closed=False) is None
    write(path, "more")
    assert read(folder, closed=False) == b"more"


def test_without_watches_a_file_must_settle(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whose watches are used up is no worse off than where there are no events."""
    monkeypatch.setattr("blocksd.files.inotify._libc.inotify_add_watch", lambda *_: -1)
    folder = Folder(str(root))
    (root / "notes.md").write_text("text")
    assert read(folder, closed=False) is None
    assert read(folder) == b"text"
