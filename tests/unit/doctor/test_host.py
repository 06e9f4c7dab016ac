"""What is seen of the machine, of directories and of journals."""

from __future__ import annotations

import errno
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from blocksd.doctor import host
from blocksd.doctor.host import Disk, journal_state, look, mount_of, place_of, try_out
from blocksd.files.root import Root
from blocksd.journal.intents import Intents, Prepared
from blocksd.journal.journal import Journal
from blocksd.settings.config import Config
from rig import AT, revision

MOUNTS = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:40 / /srv rw,relatime shared:5 - nfs4 server:/srv rw
31 30 0:41 / /srv/my\\040blocks rw - fuse.sshfs host: rw
32 22 0:42 / /home rw master:1 - overlay overlay rw
33 32 0:43 / /home rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("path", "mount", "kind"),
    [
        ("/", "/", "ext4"),
        ("/etc/blocksd", "/", "ext4"),
        ("/srv", "/srv", "nfs4"),
        ("/srv/blocks.d", "/srv", "nfs4"),
        ("/srvother", "/", "ext4"),
        ("/srv/my blocks/a", "/srv/my blocks", "fuse.sshfs"),
        ("/home/you", "/home", "tmpfs"),
    ],
)
def test_mount_of(path: str, mount: str, kind: str) -> None:
    """The innermost mount a path is below, and of several on one directory the last."""
    assert mount_of(path, MOUNTS) == (mount, kind)


def test_mount_that_is_not_listed() -> None:
    """Where the kernel lists nothing, nothing is said."""
    assert mount_of("/srv", "") == ("", "")


def is_on_a_listed_mount(path: Path) -> bool:
    """Return False where only the root contains the path and is no mount, as in a chroot."""
    mounts = [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()]
    return any(path.is_relative_to(mount) for mount in mounts)


def test_place(tmp_path: Path) -> None:
    """A directory with its rights; one that is not there is judged by the nearest above it; a file is neither."""
    (tmp_path / "file").write_text("text")
    tmp_path.chmod(0o750)
    there, missing, other = map(place_of, (str(tmp_path), str(tmp_path / "a" / "b"), str(tmp_path / "file")))
    assert (there.kind, there.nearest, there.rights, there.mode) == ("directory", str(tmp_path), "rwx", 0o750)
    assert (missing.kind, missing.nearest, missing.path) == ("missing", str(tmp_path), str(tmp_path / "a" / "b"))
    assert other.kind == "other"
    assert there.disk.free_bytes > 0
    if is_on_a_listed_mount(tmp_path):
        assert there.disk.kind


def test_trial(tmp_path: Path) -> None:
    """On a local file system files are made, exchanged, synced and noticed, and nothing is left."""
    trial = try_out(str(tmp_path))
    assert (trial.error, trial.can_exchange, trial.is_noticed) == ("", True, True)
    assert trial.sync_seconds > 0
    assert list(tmp_path.iterdir()) == []


def test_trial_where_nothing_can_be_written(tmp_path: Path) -> None:
    """Why is said, and nothing is left."""
    assert try_out(str(tmp_path / "missing")).error == "No such file or directory"
    assert list(tmp_path.iterdir()) == []


def test_trial_that_fails_halfway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that takes the file and fails to sync it is told of, and nothing is left."""

    def fail(_handle: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    assert try_out(str(tmp_path)).error == "Input/output error"
    assert list(tmp_path.iterdir()) == []


def test_trial_without_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that exchanges nothing and tells of nothing is told from one that does."""
    monkeypatch.setattr(host, "_EVENT_SECONDS", 0.01)
    monkeypatch.setattr(host, "CLOSE_WRITE", 0x400)  # the directory's own removal, which does not happen
    monkeypatch.setattr(Root, "can_exchange", lambda *_: False)
    trial = try_out(str(tmp_path))
    assert (trial.error, trial.can_exchange, trial.is_noticed) == ("", False, False)


def make_journal(path: Path) -> None:
    journal = Journal(str(path))
    journal.append([revision(number, f"block-{number}", value="text" * 500) for number in range(1, 60)], {})
    journal.close()


def test_journal(tmp_path: Path) -> None:
    """When its newest revision was made, and that it is sound."""
    path = tmp_path / "journal.db"
    make_journal(path)
    state = journal_state(str(path))
    assert (state.error, state.newest_at, state.damage) == ("", AT, "")


def test_journal_with_something_prepared(tmp_path: Path) -> None:
    """What is prepared, and not in force, is not its newest revision; nor is a journal unreadable that has no such view."""
    path = tmp_path / "journal.db"
    make_journal(path)
    later = "2026-12-01T09:00:00.000Z"
    journal = Journal(str(path))
    Intents(journal).prepare(Prepared([replace(revision(journal.seq + 1, "other"), at=later)], {}, [], {}, later))
    journal.close()
    assert journal_state(str(path)).newest_at == AT
    with sqlite3.connect(path) as db:
        db.execute("DROP VIEW in_force")
    db.close()
    state = journal_state(str(path))
    assert (state.error, state.newest_at) == ("", later)


def test_journal_that_is_none(tmp_path: Path) -> None:
    """A file that is no database is told of."""
    path = tmp_path / "journal.db"
    path.write_text("this is no database, and was never one" * 100)
    assert "not a database" in journal_state(str(path)).error


def test_journal_that_is_damaged(tmp_path: Path) -> None:
    """Pages that were overwritten are found."""
    path = tmp_path / "journal.db"
    make_journal(path)
    data = bytearray(path.read_bytes())
    for start in range(4096 * 8, len(data), 4096):
        data[start : start + 16] = b"\xff" * 16
    path.write_bytes(data)
    state = journal_state(str(path))
    assert state.error or state.damage


def test_journal_that_is_very_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checking ends after a while, and nothing is said of what was not seen."""
    path = tmp_path / "journal.db"
    make_journal(path)
    connect = sqlite3.connect

    class Hasty(sqlite3.Connection):
        def set_progress_handler(self, handler: object, n: int) -> None:
            super().set_progress_handler(handler, 1)  # type: ignore[arg-type]  # as it came

    monkeypatch.setattr(host, "CHECK_SECONDS", -1.0)
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: connect(*args, factory=Hasty, **kwargs))
    state = journal_state(str(path))
    assert (state.error, state.damage) == ("", None)


def test_everything(tmp_path: Path) -> None:
    """A look at a machine where nothing runs: the folder, and the state directory, which is not made."""
    folder = tmp_path / "blocks.d"
    (folder / "a").mkdir(parents=True)
    seen = look(Config(folder=str(folder), state_dir=str(tmp_path / "state")))
    assert (seen.folder.kind, seen.state.kind, seen.journal, seen.daemon_user) == ("directory", "missing", None, None)
    assert seen.state_trial is None
    assert seen.folder_trial is not None
    assert not (tmp_path / "state").exists()


def test_disk_of_an_unknown_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where /proc is hidden, what statvfs tells is told all the same."""
    monkeypatch.setattr(host, "mount_of", lambda _path, _mounts: ("", ""))
    disk = place_of(str(tmp_path)).disk
    assert isinstance(disk, Disk)
    assert disk.kind == ""
    assert disk.free_bytes > 0
