"""One journal takes the place of another, and is interrupted between any two steps: a crash, or a power cut."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blocksd.errors import JournalUnavailable
from blocksd.files.file_edit import Staged
from blocksd.journal import swap
from blocksd.journal.intents import Intents
from blocksd.journal.journal import Journal
from blocksd.journal.opening import rescue
from blocksd.journal.schema import migrate
from journaled import chain, put

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VERSIONS = 12


class Crash(BaseException):
    """The process is killed."""


class Names:
    """The names in a directory, with those that are on disk: what changed since it was last synced may not be."""

    def __init__(self, directory: Path, store: Path, patch: pytest.MonkeyPatch) -> None:
        self.directory = str(directory)
        self.store = store  # where each inode has a name, so that it can be brought back
        self.calls = 0
        self.crash_at = 0
        self.pending: list[tuple[str, ...]] = []
        self.durable: dict[str, int] = {}
        self.seen: set[str] = set()
        store.mkdir()
        self._note_new()
        for name in ("link", "unlink", "replace", "rename"):
            self._wrap(patch, name)
        real = os.fsync

        def fsync(handle: int) -> None:
            if os.path.isdir(f"/proc/self/fd/{handle}"):
                self._count()
                self.durable, self.pending = _inodes(self.directory), []
            real(handle)

        patch.setattr(os, "fsync", fsync)

    def _wrap(self, patch: pytest.MonkeyPatch, name: str) -> None:
        real = getattr(os, name)

        def call(*args: str) -> None:
            if str(args[0]).startswith(self.directory):
                self._count()
                real(*args)
                self.pending.append((name, *map(os.path.basename, args)))
                self.seen.update(map(os.path.basename, args))
            else:
                real(*args)

        patch.setattr(os, name, call)

    def _count(self) -> None:
        self._note_new()
        self.calls += 1
        if self.calls == self.crash_at:
            raise Crash

    def _note_new(self) -> None:
        """What SQLite made is on disk, under the name it was made with."""
        for name, inode in _inodes(self.directory).items():
            if not (self.store / str(inode)).exists():
                _link(os.path.join(self.directory, name), self.store / str(inode))
            if name not in self.seen:
                self.durable[name] = inode

    def cut(self, done: int, home: Path) -> dict[str, int]:
        """What a power cut leaves: of the changes that were not synced those are done whose bit is set, as far as can be."""
        names = dict(self.durable)
        for number, (call, first, *rest) in enumerate(self.pending):
            if done & 1 << number and first in names:
                if rest:
                    names[rest[0]] = names[first]
                if call != "link":
                    del names[first]
        home.mkdir()
        copied: dict[int, Path] = {}
        for name, inode in names.items():
            if inode in copied:
                _link(copied[inode], home / name)
            else:
                copied[inode] = home / name
                shutil.copyfile(self.store / str(inode), home / name)
        return names


def _inodes(directory: str) -> dict[str, int]:
    return {entry.name: entry.inode() for entry in os.scandir(directory)}


_link = os.link


def versions(path: str) -> list[int]:
    """The versions that a start finds, in a journal that then takes more."""
    journal = Journal(path, boot_id="two")
    found = [one.version for one in journal.history("notes")]
    put(journal, *chain(1, "after", start=journal.seq + 1))
    (check,) = journal.database.execute("PRAGMA integrity_check").fetchone()
    journal.close()
    assert check == "ok"
    return found


def replace(journal: Journal) -> None:
    other = f"{journal.path}.other"
    Journal(other).close()
    os.replace(other, journal.path)
    for suffix in ("-wal", "-shm"):
        os.unlink(journal.path + suffix)


def overwrite(journal: Journal) -> None:
    os.truncate(journal.path, 8192)


def interrupted(home: Path, loss: Callable[[Journal], None], step: int) -> tuple[Names, int, int | None]:
    """A journal that is lost, and put right again by a process that is killed at a step; the file in its place, its log."""
    store = home.with_suffix(".store")
    process = os.fork()
    if not process:  # what SQLite holds open ends with it
        try:
            home.mkdir()
            journal = Journal(str(home / "journal.db"), boot_id="one")
            put(journal, *chain(40, "other"))
            revisions = chain(VERSIONS, start=41)
            put(journal, *revisions[:6])
            for table in ("heads", "revisions"):  # so that pages have another order than in one that is made anew
                journal.database.execute(f"DELETE FROM {table} WHERE label = 'other'")  # constants
            journal.database.checkpoint("PASSIVE")
            put(journal, *revisions[6:])
            loss(journal)
            names = Names(home, store, pytest.MonkeyPatch())
            names.crash_at = step
            in_the_way, log = names.durable["journal.db"], names.durable.get("journal.db-wal")
            with suppress(Crash):
                rescue(journal.database, "one", seq=journal.seq)
            with open(home.with_suffix(".json"), "w") as file:
                json.dump([names.durable, names.pending, names.calls, in_the_way, log], file)
        finally:
            os._exit(0)
    os.waitpid(process, 0)
    left = Names.__new__(Names)
    left.store = store
    with open(home.with_suffix(".json")) as file:
        left.durable, left.pending, left.calls, in_the_way, log = json.load(file)
    return left, in_the_way, log


@pytest.fixture
def fast(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory, where there is one: there are hundreds of fsyncs."""
    if not os.path.isdir("/dev/shm"):  # a directory of its own is made in it
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as path:  # the same
        yield Path(path)


@pytest.mark.parametrize("loss", [replace, overwrite])
def test_crash_or_power_cut_between_any_two_steps(fast: Path, loss: Callable[[Journal], None]) -> None:
    """Once the journal that is made has a name that says it is whole, the next start finds all versions.

    Before that, it finds what was in the way: what else the process knew has ended with it. What was there is kept.
    """
    whole = list(range(VERSIONS, 0, -1))
    for step in range(1, 30):
        home = fast / str(step)
        names, in_the_way, log = interrupted(home, loss, step)
        states = {home: _inodes(str(home))}  # after the crash alone
        for done in range(2 ** len(names.pending)):
            cut = fast / f"{step}-{done}"
            states[cut] = names.cut(done, cut)
        for state, inodes in states.items():
            is_whole = "journal.db.next" in inodes or inodes["journal.db"] != in_the_way
            assert log is None or log in inodes.values(), state.name
            there = (names.store / str(in_the_way)).read_bytes()
            found = versions(str(state / "journal.db"))
            if is_whole:
                assert found == whole, state.name
                kept = [path.read_bytes() for path in state.glob("*-2*") if path.name[-1].isdigit()]
                assert kept == [there], state.name
            elif loss is replace:
                assert not found, state.name
        if names.calls < step:
            assert step > 8
            assert list(home.glob("*.damaged-*" if loss is overwrite else "*.replaced-*"))
            return
    pytest.fail("it never ends")


def test_full_disk_is_not_taken_for_the_end_of_what_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was copied before it was full does not take the place of all there is."""
    path = str(tmp_path / "journal.db")
    journal = Journal(path)
    put(journal, *chain(60))
    journal.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE heads SET version = 0")
        db.execute("UPDATE meta SET value = 0 WHERE key = 'clean'")
    db.close()

    def on_a_small_disk(database: sqlite3.Connection) -> None:
        migrate(database)
        (pages,) = database.execute("PRAGMA page_count").fetchone()
        database.execute(f"PRAGMA max_page_count={pages + 5}")

    with monkeypatch.context() as patch:
        patch.setattr("blocksd.journal.salvage.migrate", on_a_small_disk)
        for _ in range(3):
            with pytest.raises(JournalUnavailable, match="full"):
                Journal(path)
    assert not list(tmp_path.glob("*damaged*")), "a disk that is full is not filled with copies"
    again = Journal(path)
    assert len(again.history("notes")) == 60
    assert again.opened.how == "damaged"
    again.close()


def test_file_system_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is set aside is copied; a copy that is not whole has no name that says it is."""
    path = str(tmp_path / "journal.db")
    (tmp_path / "journal.db").write_bytes(b"no database" * 1000)

    def no_link(*_: str) -> None:
        raise PermissionError(1, "Operation not permitted")

    def crash(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(os, "link", no_link)
    with monkeypatch.context() as patch:
        patch.setattr(swap, "_copy", crash)
        with pytest.raises(Crash):
            Journal(path)
    (tmp_path / "journal.db").write_bytes(b"no database" * 1000)
    journal = Journal(path)
    (aside,) = tmp_path.glob("*damaged*")
    assert aside.read_bytes() == b"no database" * 1000
    assert str(aside) == journal.opened.set_aside
    journal.close()


def test_empty_journal_with_a_log_is_damaged(tmp_path: Path) -> None:
    """SQLite would remove the log without a word, and begin a new journal."""
    path = str(tmp_path / "journal.db")
    journal = Journal(path)
    put(journal, *chain(3))
    shutil.copy(f"{path}-wal", tmp_path / "log")
    journal.close()
    os.truncate(path, 0)
    shutil.copy(tmp_path / "log", f"{path}-wal")
    again = Journal(path)
    assert again.opened.how == "damaged"
    assert os.path.getsize(f"{again.opened.set_aside}-wal") == os.path.getsize(tmp_path / "log")
    again.close()


def test_files_that_are_kept_outlive_a_repair(tmp_path: Path) -> None:
    """Files aside that may be all there is of a save are still not removed unread."""
    journal = Journal(str(tmp_path / "journal.db"), boot_id="one")
    pending = Intents(journal)
    pending.set_kept(pending.of_this_boot([Staged("notes.md", ".blocksd-1", "0" * 32, "1" * 32)]))
    journal.database.execute("UPDATE meta SET value = 5 WHERE key = 'unchecked'")
    kept = pending.kept
    journal.repair()
    assert Intents(journal).kept == kept
    assert journal.opened.unchecked == 5
    journal.database.execute("DELETE FROM meta WHERE key = 'kept'")  # lost in the next repair
    journal.repair()
    pending.write_again()
    assert Intents(journal).kept == kept
    journal.close()
