"""Reading a file: what it says, or why it says nothing now; never half of it."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.files.folder import (
    Absent,
    Busy,
    Folder,
    Reading,
    Refused,
    Text,
    signature_of,
    unproven,
)
from blocksd.files.root import Root
from failing import call_of_root

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "blocks.d"
    path.mkdir()
    return path


def old(path: Path) -> None:
    then = time.time() - 3600
    os.utime(path, (then, then))


def read(root: Path, path: str = "notes.md", *, closed: bool = True) -> Reading:
    return Folder(str(root)).read(path, closed=closed)


def text_of(reading: Reading) -> bytes:
    assert isinstance(reading, Text)
    return reading.data


def reason(reading: Reading) -> str:
    assert isinstance(reading, Refused)
    assert reading.error.facts["hint"]
    return reading.error.message


# --- reading ---


@pytest.mark.parametrize("data", [b"", b"text\n", b"\xff\x00", b"x" * (4 * 1024 * 1024)])
def test_file_is_read_whole(root: Path, data: bytes) -> None:
    """A regular file says its bytes, whatever they are."""
    (root / "notes.md").write_bytes(data)
    assert text_of(read(root)) == data


def test_signature_proves_something_only_when_old(root: Path) -> None:
    """A file written this very moment may be written again without looking any different."""
    path = root / "notes.md"
    path.write_text("text")
    old(path)
    reading = read(root)
    assert isinstance(reading, Text)
    status = path.stat()
    assert reading.signature == (status.st_mtime_ns, status.st_ctime_ns, 4, status.st_ino)
    now = time.time()
    os.utime(path, (now, now))
    reading = read(root)
    assert isinstance(reading, Text)
    assert reading.signature == unproven(signature_of(path.stat()))


def test_missing_file_is_absent(root: Path) -> None:
    """No file, no directory on the way, or a file in the way of a directory: all mean that it is not there."""
    (root / "file.md").write_text("text")
    for path in ("notes.md", "deep/notes.md", "file.md/notes.md"):
        assert read(root, path) == Absent()
        assert Folder(str(root)).is_absent(path)


def test_file_below_a_linked_directory_is_absent(root: Path) -> None:
    """No sweep follows a link to a directory, so a file below it is not in the folder."""
    (root / "real").mkdir()
    (root / "real" / "notes.md").write_text("text")
    (root / "linked").symlink_to("real")
    assert read(root, "linked/notes.md") == Absent()
    assert Folder(str(root)).is_absent("linked/notes.md")
    assert not Folder(str(root)).is_absent("real/notes.md")


@pytest.mark.parametrize("closed", [True, False])
def test_file_with_a_writer_is_busy(root: Path, *, closed: bool) -> None:
    """A file that a process has open for writing is not read: neither a new one nor one that was just closed by another."""
    with (root / "notes.md").open("w") as file:
        file.write("half")
        file.flush()
        assert read(root, closed=closed) == Busy()
    assert text_of(read(root, closed=closed)) == b"half"


def test_writer_in_another_process_is_seen(root: Path) -> None:
    """It does not matter whose the writer is."""
    words = (
        "import sys; file = open(sys.argv[1], 'w'); print('half', file=file, flush=True); print(flush=True); input()"
    )
    command = [sys.executable, "-c", words, str(root / "notes.md")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        assert read(root) == Busy()
        writer.communicate(b"\n")
    assert text_of(read(root)) == b"half\n"


def test_idle_writer_is_waited_for_as_long_as_it_takes(root: Path) -> None:
    """What a program has written that keeps a file open may be half of a save, however long ago it was."""
    with (root / "notes.md").open("w") as file:
        file.write("all")
        file.flush()
        old(root / "notes.md")
        assert read(root, closed=False) == Busy()
        assert f"{os.getpid()} (" in Folder(str(root)).writers("notes.md")
    assert text_of(read(root, closed=False)) == b"all"
    assert Folder(str(root)).writers("notes.md") == ""


def test_reader_is_no_writer(root: Path) -> None:
    """Others may read as they like."""
    (root / "notes.md").write_text("text")
    with (root / "notes.md").open():
        assert text_of(read(root, closed=False)) == b"text"


def test_without_leases_a_file_must_settle(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can tell whether a file has a writer, it must have been closed, or left alone for a while."""

    def refuse(*_: Any) -> int:
        raise OSError(errno.EACCES, "not yours")

    monkeypatch.setattr(fcntl, "fcntl", refuse)
    (root / "notes.md").write_text("text")
    assert read(root, closed=False) == Busy()
    assert text_of(read(root, closed=True)) == b"text"
    old(root / "notes.md")  # which is a change of now
    assert read(root, closed=False) == Busy()
    monkeypatch.setattr("blocksd.files.open_writers._SETTLE_SECONDS", 0.0)
    assert text_of(read(root, closed=False)) == b"text"


def test_without_leases_and_events_an_open_file_is_searched_for(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A writer that pauses is seen in /proc, if it is of the same user, also when it has set the time of the file back."""
    monkeypatch.setattr(Root, "has_writer", lambda *_: None)
    monkeypatch.setattr("blocksd.files.inotify._libc.inotify_add_watch", lambda *_: -1)
    monkeypatch.setattr("blocksd.files.open_writers._SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("blocksd.files.open_writers._KEPT_SECONDS", 0.0)
    monkeypatch.setattr("blocksd.files.open_writers._SHARE", float("inf"))
    with (root / "notes.md").open("w") as file:
        file.write("half")
        file.flush()
        old(root / "notes.md")
        assert read(root, closed=False) == Busy()
    assert text_of(read(root, closed=False)) == b"half"


@pytest.mark.parametrize("change", ["grows", "shrinks", "is rewritten", "is replaced"])
def test_file_that_changes_while_it_is_read_is_busy(root: Path, monkeypatch: pytest.MonkeyPatch, change: str) -> None:
    """A reading counts only if the file is the same before and after."""
    path = root / "notes.md"
    path.write_text("text")
    old(path)
    real = Root.read

    def interfere(_held: Root, handle: int, size: int) -> bytes:
        if change == "grows":
            with path.open("a") as file:
                file.write(" and more")
        elif change == "shrinks":
            os.truncate(path, 1)
        elif change == "is rewritten":
            data = real(handle, size)
            path.write_text("TEXT")
            return data
        else:
            path.with_name("other").write_text("TEXT")
            path.with_name("other").rename(path)
        return real(handle, size)

    monkeypatch.setattr(Root, "read", interfere)
    assert read(root) == Busy()


def interfering(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """Let something happen right before a call."""
    real = call_of_root(name)

    def call(*args: Any) -> Any:
        act()
        return real(*args)

    monkeypatch.setattr(Root, name, call)


def test_fifo_that_takes_the_place_of_a_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A FIFO that appears between the look and the opening is not waited for."""
    path = root / "notes.md"
    path.write_text("text")

    def swap() -> None:
        path.unlink()
        os.mkfifo(path)

    interfering(monkeypatch, "open", swap)
    assert not isinstance(read(root), Text)


def test_symlink_that_takes_the_place_of_a_file(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A symlink to the outside that appears between the look and the opening is not followed."""
    path = root / "notes.md"
    path.write_text("text")
    (root.parent / "secret").write_text("secret")

    def swap() -> None:
        path.unlink(missing_ok=True)
        path.symlink_to("../secret")

    interfering(monkeypatch, "open", swap)
    assert read(root) == Busy()


def test_file_too_large_is_not_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is enough to refuse it."""
    with (root / "notes.md").open("wb") as file:
        file.truncate(4 * 1024 * 1024 + 1)

    def fail() -> None:
        pytest.fail("it was opened")

    interfering(monkeypatch, "open", fail)
    assert reason(read(root)) == "the file is 4194305 bytes, over the 4194304 that are read"


@pytest.mark.parametrize(
    ("call", "number", "message"),
    [
        ("stat", errno.EACCES, "it cannot be read: Permission denied"),
        ("open", errno.EACCES, "it cannot be read: Permission denied"),
        ("open", errno.EMFILE, "it cannot be read: Too many open files"),
        ("read", errno.EIO, "it cannot be read: Input/output error"),
        ("stat", errno.ENAMETOOLONG, "it cannot be read: File name too long"),
    ],
)
def test_file_that_cannot_be_read_is_neither_absent_nor_changed(
    root: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, message: str
) -> None:
    """An error of the system is a third answer."""
    (root / "notes.md").write_text("text")

    def refuse() -> None:
        raise OSError(number, os.strerror(number))

    interfering(monkeypatch, call, refuse)
    assert reason(read(root)) == message
    if call == "stat":
        assert not Folder(str(root)).is_absent("notes.md")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("../secret", "the symlink leads out of the folder"),
        ("/etc/hostname", "the symlink leads out of the folder"),
        ("../blocks.d-other/notes", "the symlink leads out of the folder"),
        ("nothing", "the symlink leads to nothing"),
        ("directory", "it is a symlink to a directory: no block is read or written through it"),
    ],
)
def test_symlink_that_is_no_block(root: Path, target: str, message: str) -> None:
    """A symlink is followed to a regular file inside the folder, and nowhere else."""
    (root / "directory").mkdir()
    (root.parent / "secret").write_text("secret")
    (root / "notes.md").symlink_to(target)
    assert reason(read(root)) == message


def test_symlink_inside(root: Path) -> None:
    """A chain of links that ends inside the folder is followed, and known for a link."""
    (root / "..data").mkdir()
    (root / "..data" / "text").write_text("text")
    (root / "middle").symlink_to("..data/text")
    (root / "notes.md").symlink_to("middle")
    reading = read(root)
    assert isinstance(reading, Text)
    assert (reading.data, reading.way) == (b"text", ("middle", "..data/text"))


def test_no_file_handle_is_left_open(root: Path) -> None:
    """Whatever a reading comes to, the file is closed again."""
    (root / "notes.md").write_text("text")
    (root / "link.md").symlink_to("../secret")
    os.mkfifo(root / "fifo.md")
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for name in ("notes.md", "link.md", "fifo.md", "missing.md"):
        read(root, name)
    assert len(os.listdir("/proc/self/fd")) == before


# --- the folder itself ---


def test_identity(root: Path) -> None:
    """A folder is known by device and inode; it has none when it is gone, or no directory any more."""
    folder = Folder(str(root))
    status = root.stat()
    assert folder.identity() == (status.st_dev, status.st_ino)
    root.rename(root.with_name("away"))
    assert folder.identity() is None
    root.write_text("a file")
    assert folder.identity() is None


def test_root_is_resolved_once(tmp_path: Path, root: Path) -> None:
    """A folder reached by a symlink is the directory behind it."""
    (tmp_path / "link").symlink_to("blocks.d")
    assert Folder(str(tmp_path / "link")).root == str(root)
