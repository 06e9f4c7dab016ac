"""One daemon of a directory: the lock goes with the directory that is held, and says who has it."""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.cli.console import exit_code
from blocksd.errors import AlreadyRunning, BlocksdError, Misconfigured, Unavailable
from blocksd.files.root import Root
from blocksd.service import machine
from blocksd.service.lock import Lock, lock_state
from blocksd.settings.record import running_daemon, write

if TYPE_CHECKING:
    from pathlib import Path


def held(path: Path) -> tuple[Root, Lock]:
    lock = Lock(f"folder {path}")
    return Root(str(path), claim=lock.take_directory), lock


def test_second_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    """The refusal has the pid; nothing is held, so nothing can be read or written."""
    _first, _lock = held(tmp_path)
    second, _ = held(tmp_path)
    assert second.refusal is not None
    assert second.refusal.facts["pid"] == os.getpid()
    assert second.held is None
    with pytest.raises(OSError, match="busy"):
        second.stat("")
    with pytest.raises(Unavailable, match="served by another daemon"):
        second.check()
    with pytest.raises(AlreadyRunning, match="the state directory"):
        [lock_state(str(tmp_path / "state")) for _ in range(2)]


def test_lock_goes_with_the_directory(tmp_path: Path) -> None:
    """The directory in the other's place is locked before it is held; the one that was moved away is free then."""
    place = tmp_path / "blocks.d"
    place.mkdir()
    root, _lock = held(place)
    place.rename(tmp_path / "moved.d")
    place.mkdir()
    assert held(tmp_path / "moved.d")[0].refusal is not None
    root.reopen()
    assert root.refusal is None
    assert held(tmp_path / "moved.d")[0].refusal is None
    assert held(place)[0].refusal is not None


def test_directory_of_another_is_not_held(tmp_path: Path) -> None:
    """The lock on what was moved away is kept meanwhile; once the other has gone, the new one is ours."""
    place = tmp_path / "blocks.d"
    place.mkdir()
    root, _lock = held(place)
    place.rename(tmp_path / "moved.d")
    place.mkdir()
    other, others_lock = held(place)
    root.reopen()
    assert root.refusal is not None
    assert held(tmp_path / "moved.d")[0].refusal is not None
    other.release()
    others_lock.release()
    root.reopen()
    assert root.refusal is None
    assert root.is_current()


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EIO])
def test_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The directory is held all the same, and why the lock proves nothing is said; a daemon is found by its process."""

    def flock(_handle: int, _how: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    root, lock = held(tmp_path)
    assert root.is_current()
    assert lock.unsupported == os.strerror(number)
    state = tmp_path / "state"
    assert lock_state(str(state)).unsupported
    write(str(state), folder="/f", namespace="blocks", redis="redis://")
    record = running_daemon(str(state))
    assert record is not None
    assert record["folder"] == "/f"


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOSPC, Unavailable, 3),
        (errno.EDQUOT, Unavailable, 3),
        (errno.EIO, Unavailable, 3),
        (errno.EROFS, Misconfigured, 2),
        (errno.EACCES, Misconfigured, 2),
        (errno.ENOTDIR, Misconfigured, 2),
    ],
)
@pytest.mark.parametrize("call", ["makedirs", "open"])
def test_state_directory_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int, kind: type[BlocksdError], code: int
) -> None:
    """It is one sentence with the path and the reason, and an exit code that tells whether to try again."""

    def fail(path: str, *_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(kind, match=os.strerror(number)) as refusal:
        lock_state(str(tmp_path / "state"))
    assert str(tmp_path / "state") in refusal.value.message
    assert exit_code(refusal.value) == code


def test_machine_is_told_apart_by_its_boot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clone has the same machine id, a container may have none; without the id of the boot nothing is certain."""
    files = {machine._BOOT_ID: "boot-1", machine._MACHINE_IDS[0]: "machine"}
    monkeypatch.setattr(machine, "_read", lambda path: files.get(path, ""))
    first = machine.machine_id()
    assert first == machine.machine_id()
    assert "machine" not in first
    files[machine._BOOT_ID] = "boot-2"
    clone = machine.machine_id()
    del files[machine._MACHINE_IDS[0]]
    container = machine.machine_id()
    assert len({first, clone, container, ""}) == 4
    files[machine._BOOT_ID] = ""
    assert machine.machine_id() == ""


def test_this_machine_is_known() -> None:
    """Linux tells the id of its boot to everybody."""
    assert machine.boot_id()
    assert machine.machine_id()


def test_lock_is_let_go_whatever_close_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The descriptor is gone, and the lock with it, also when close reports an error of the file."""
    lock = lock_state(str(tmp_path))
    close = os.close

    def fails(handle: int) -> None:
        close(handle)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr("blocksd.service.lock.os.close", fails)
        lock.release()
    lock_state(str(tmp_path)).release()


def test_folder_that_comes_back_is_still_ours(tmp_path: Path) -> None:
    """Another daemon's folder stood in its place for a while: our own lock on ours must not keep us out."""
    place, moved, other = tmp_path / "blocks.d", tmp_path / "moved.d", tmp_path / "other.d"
    place.mkdir()
    other.mkdir()
    root, lock = held(place)
    _other_root, other_lock = held(other)
    place.rename(moved)
    other.rename(place)
    root.reopen()
    assert root.refusal is not None
    place.rename(other)
    moved.rename(place)
    root.reopen()
    assert root.refusal is None
    assert held(place)[0].refusal is not None
    lock.release()
    assert held(place)[0].refusal is None
    other_lock.release()
