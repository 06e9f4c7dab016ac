"""The place of a follower: which files it has written, and up to which change; in SQLite, in its state directory."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import Misconfigured, StateUnusable
from blocksd.follow.plan import UNKNOWN_VERSION, Written

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

NAME = "follower.db"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS files (
    path TEXT PRIMARY KEY, label TEXT NOT NULL, version INTEGER NOT NULL, form TEXT NOT NULL, digest TEXT NOT NULL,
    mode INTEGER NOT NULL, signature BLOB, earlier TEXT NOT NULL DEFAULT '[]'
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS due (label TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS directories (path TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS unsent (
    path TEXT PRIMARY KEY, id TEXT NOT NULL, op TEXT NOT NULL, label TEXT NOT NULL, version INTEGER NOT NULL, base TEXT,
    digest TEXT, text BLOB, "to" TEXT, is_sent INTEGER NOT NULL, refusal TEXT,
    oldest INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS intents (
    path TEXT PRIMARY KEY, aside TEXT NOT NULL, base TEXT, data TEXT, label TEXT NOT NULL, version INTEGER NOT NULL,
    form TEXT NOT NULL, mode INTEGER NOT NULL
) WITHOUT ROWID;
"""
_TABLES = ("facts", "files", "due", "directories", "intents")
_VERSION = 2
_MIGRATION = """
ALTER TABLE files ADD COLUMN earlier TEXT NOT NULL DEFAULT '[]';
ALTER TABLE unsent ADD COLUMN oldest INTEGER NOT NULL DEFAULT 0;
"""
"""What makes version 2 of version 1."""
_ADOPT = "'blocksd follow FOLDER --adopt' makes the copy anew, and keeps what differs in FOLDER as local edits"


class Intent(NamedTuple):
    """A file that is about to be written or removed, with the digests of what is there and of what comes; None: no file.

    `aside` is the path of the new text, and then of what it has displaced.
    """

    path: str
    aside: str
    base: str | None
    data: str | None
    label: str
    version: int
    form: str
    mode: int


class Place:
    """The durable state of a follower, for one thread.

    Invariants:
      1. an intent is on disk before its file is changed, so that after a crash or a power cut a text that was written here
         is never taken for a local edit;
      2. every change up to `seq` of `epoch` is in the files, or its label is in `due`.

    Every method raises StateUnusable when the state directory cannot be written for now.
    """

    def __init__(self, state: str, *, is_durable: bool = True, window: float = 5.0) -> None:
        """Open what is in the state directory, or begin it. `window` is for how many seconds an editor keeps what it has read.

        Raises:
            Misconfigured: it is damaged, or of a newer version of blocksd.
        """
        self._path = os.path.join(state, NAME)
        self.window = window
        self._sync = "FULL" if is_durable else "OFF"
        with self._translated():
            with suppress(OSError):  # then SQLite says what is wrong. It has texts that others may not read
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                os.chmod(self._path, 0o600)
            self._connection = sqlite3.connect(self._path, isolation_level=None)
            self.execute = self._connection.execute
            self.execute("PRAGMA journal_mode = WAL")
            self.execute(f"PRAGMA synchronous = {self._sync}")
            (version,) = self.execute("PRAGMA user_version").fetchone()
            if version > _VERSION:
                raise Misconfigured(f"{self._path} was written by a newer version of blocksd", key="state_dir")
            self._connection.executescript(
                f"{_MIGRATION if version == 1 else ''} {_SCHEMA} PRAGMA user_version = {_VERSION};"
            )
            self._facts: dict[str, str] = dict(self.execute("SELECT name, value FROM facts"))
            self.files: dict[str, Written] = {
                row[0]: Written(*row[1:-1])._replace(
                    earlier=tuple((at, version) for at, version in json.loads(row[-1]))
                )
                for row in self.execute("SELECT * FROM files")
            }
            self.due: set[str] = {label for (label,) in self.execute("SELECT label FROM due")}
            self.directories: set[str] = {path for (path,) in self.execute("SELECT path FROM directories")}
        if not self._facts.get("seq", "0").isdecimal():
            raise self.damaged(f"seq {self._facts['seq']!r:.50}")
        self.paths = {written.label: path for path, written in self.files.items()}
        """Where the file of each block is."""
        self.awaited: set[str] = set()
        """The files of edits that were sent to the leader and are not answered: they stay as they are until then."""

    def close(self) -> None:
        with suppress(sqlite3.Error):
            self._connection.close()

    # --- facts ---

    @property
    def id(self) -> str | None:
        """The id that the marker of the folder must have; None: there is no copy yet."""
        return self._facts.get("id")

    @property
    def namespace(self) -> str | None:
        return self._facts.get("namespace")

    @property
    def epoch(self) -> str | None:
        """The journal that the files are of; None: no copy was ever whole."""
        return self._facts.get("epoch")

    @property
    def seq(self) -> int:
        """The change up to which the files are a copy."""
        return int(self._facts.get("seq", 0))

    @property
    def generation(self) -> int:
        """Of which generation the leader is that was followed last."""
        return int(self._facts.get("generation", 0))

    def note_generation(self, generation: int) -> None:
        """Note of which generation the leader is that is followed: the versions of another one's blocks mean nothing to it."""
        if generation != self.generation:
            self.forget_versions(generation=str(generation))

    def forget_versions(self, **facts: str) -> None:
        """Note these facts, and that versions are counted anew: those of files are known no longer."""
        with self.transaction():
            self._set(**facts)
            self.execute("UPDATE files SET version = 0, earlier = '[]'")
        self._facts |= facts
        self.files = {path: written._replace(version=0, earlier=()) for path, written in self.files.items()}

    @property
    def runs(self) -> tuple[str, str | None]:
        """The run that the marker of the folder must have; a crash may have come before the second one was written there."""
        return self._facts.get("run", ""), self._facts.get("next_run")

    @property
    def identities(self) -> tuple[str, str]:
        """The identities that this database and the folder had; empty where they are not known."""
        return self._facts.get("state_identity", ""), self._facts.get("folder_identity", "")

    @property
    def is_adopted(self) -> bool:
        """True until all files were seen of a folder of which it is not known what versions they are."""
        return "adopted" in self._facts

    def begin(self, identity: str, namespace: str, *, is_adopted: bool) -> None:
        """Begin a copy, in the place of any other: nothing is known of the files, but for texts that were not sent."""
        facts = {"id": identity, "namespace": namespace, **({"adopted": "yes"} if is_adopted else {})}
        with self.transaction():
            for table in _TABLES:
                self.execute(f"DELETE FROM {table}")  # noqa: S608  # the names above
            self.execute("DELETE FROM unsent WHERE op != 'save'")
            unknown = "UPDATE unsent SET version = ?, base = NULL, oldest = 0, is_sent = 0"
            self.execute(unknown, (UNKNOWN_VERSION,))
            self._set(**facts)
        self.files, self.paths, self.due, self.directories = {}, {}, set(), set()
        self._facts = facts

    def note(self, **facts: str | None) -> None:
        """Note these facts (None: there is no such one): they are on disk when this returns."""
        with self.transaction():
            self._connection.executemany("DELETE FROM facts WHERE name = ?", [(name,) for name in facts])
            kept = {name: value for name, value in facts.items() if value is not None}
            self._set(**kept)
        self._facts = {name: value for name, value in self._facts.items() if name not in facts} | kept

    def move(self, epoch: str, seq: int) -> None:
        """Note that every change up to this one is in the files, or due. It may reach the disk later."""
        if (epoch, seq) != (self.epoch, self.seq):
            with self.transaction(is_synced=False):
                self._set(epoch=epoch, seq=str(seq))
            self._facts |= {"epoch": epoch, "seq": str(seq)}

    def _set(self, **facts: str) -> None:
        self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", facts.items())

    # --- files ---

    def intend(self, intents: Iterable[Intent]) -> None:
        """Record what is about to be done to files: it is on disk when this returns."""
        with self.transaction():
            self._connection.executemany("INSERT OR REPLACE INTO intents VALUES (?, ?, ?, ?, ?, ?, ?, ?)", intents)

    @property
    def intents(self) -> list[Intent]:
        """The files that a crash may have interrupted."""
        with self._translated():
            return [Intent(*row) for row in self.execute("SELECT * FROM intents")]

    def finish(
        self,
        written: Mapping[str, Written | None],
        *,
        over: Iterable[str] = (),
        due: Collection[str] = (),
        done: Collection[str] = (),
        made: Collection[str] = (),
        removed: Collection[str] = (),
        are_saves: bool = False,
        answered: Collection[str] = (),
    ) -> None:
        """Note what became of files (None: there is none any more). It may reach the disk later.

        The intents of the paths `over` are over. The labels `due` are to be looked at again, and those in `done` no longer;
        the directories `made` were made here, and those `removed` are gone. `are_saves`: these texts were saved here, so that who
        saves next has read them. The edits of the paths `answered` wait no longer.
        """
        if not are_saves:
            written = {path: self._with_earlier(path, one) for path, one in written.items()}
        with self.transaction(is_synced=False):
            rows = [(path, *one[:-1], json.dumps(one.earlier)) for path, one in written.items() if one is not None]
            self._connection.executemany("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            gone = [(path,) for path, one in written.items() if one is None]
            self._connection.executemany("DELETE FROM files WHERE path = ?", gone)
            self._connection.executemany("DELETE FROM intents WHERE path = ?", [(path,) for path in over])
            self._connection.executemany("INSERT OR IGNORE INTO due VALUES (?)", [(label,) for label in due])
            self._connection.executemany("DELETE FROM due WHERE label = ?", [(label,) for label in done])
            self._connection.executemany("INSERT OR IGNORE INTO directories VALUES (?)", [(path,) for path in made])
            self._connection.executemany("DELETE FROM directories WHERE path = ?", [(path,) for path in removed])
            self._connection.executemany("DELETE FROM unsent WHERE path = ?", [(path,) for path in answered])
        for path, one in written.items():
            before = self.files.pop(path, None)
            if before is not None and self.paths.get(before.label) == path:
                del self.paths[before.label]
            if one is not None:
                self.files[path] = one
                self.paths[one.label] = path
        self.due = (self.due | set(due)) - set(done)
        self.directories = (self.directories | set(made)) - set(removed)

    def _with_earlier(self, path: str, one: Written | None) -> Written | None:
        """Return what is to be noted of a file, with the versions that it had just before."""
        before = self.files.get(path)
        if one is None or before is None or before.label != one.label:
            return one
        now = time.time()
        earlier = [(at, version) for at, version in before.earlier if now - self.window <= at <= now]
        if before.version not in (0, one.version):
            earlier.append((now, before.version))
        return one._replace(earlier=tuple(earlier))

    def forget_earlier(self) -> None:
        """Forget which versions files had before, where that is longer ago than an editor keeps what it has read."""
        since = time.time() - self.window
        old = {
            path: one._replace(earlier=())
            for path, one in self.files.items()
            if one.earlier and one.earlier[-1][0] < since
        }
        if old:
            with self.transaction(is_synced=False):
                self._connection.executemany(
                    "UPDATE files SET earlier = '[]' WHERE path = ?", [(path,) for path in old]
                )
            self.files |= old

    # --- SQLite ---

    def damaged(self, why: object) -> Misconfigured:
        """Return the error for what is here and cannot be."""
        message = f"what the follower has noted of its files is damaged: {self._path}: {why}"
        return Misconfigured(message, key="state_dir", hint=_ADOPT)

    @contextmanager
    def transaction(self, *, is_synced: bool = True) -> Iterator[None]:
        """Commit what is executed in this context, all or nothing; if `is_synced`, it is on disk then."""
        with self._translated():
            self.execute(
                f"PRAGMA synchronous = {self._sync if is_synced else 'OFF' if self._sync == 'OFF' else 'NORMAL'}"
            )
            self.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):
                    self.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise self.damaged(error) from error
            raise StateUnusable(f"{self._path} cannot be used for now: {error}", path=self._path) from error


def set_aside(state: str) -> None:
    """Give what an earlier follower has noted another name, so that a new one begins."""
    path = os.path.join(state, NAME)
    for end in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.replace(path + end, f"{path}.old{end}")
