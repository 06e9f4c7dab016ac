"""What can go wrong beneath the daemon, at a moment that a test chooses: death, a power cut, and calls that fail."""

from __future__ import annotations

import errno
import inspect
import os
import random
import sqlite3
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import redis

from blocksd.errors import InvalidFile
from blocksd.files.folder import Folder, Reading, Refused, Text
from blocksd.files.root import Root
from failing import call_of_root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from types import TracebackType

    from machine.disk import Disk, Log

ERRORS = tuple(
    getattr(errno, name)
    for name in ("EIO", "ENOSPC", "EROFS", "EACCES", "EDQUOT", "EPERM", "ENOMEM", "ESTALE", "EBUSY", "ENOTCONN")
)
"""What any call on a folder may fail with."""

REMOVING = ("unlink", "remove_directory")
EFFECTS = (
    *("open", "write", "sync", "sync_directory", "set_mode", "rename", "renameat2", "link", "make_directory"),
    *REMOVING,
)
"""The calls that change a folder, or make a change durable. `open`: if it makes a file."""

LOOKS = ("identity", "open", "stat", "readlink", "scandir", "status", "read", "close", "attributes")
"""The calls that tell what is in it."""

CALLS = (*EFFECTS, *LOOKS, "start_sync", "set_times", "set_owner", "set_attribute", "has_writer")
"""All of them, each of which is one system call or a few that fail together."""

COMPOSED = (
    "open_to_read",
    "look",
    "make_file",
    "put_in",
    "find_to_write",
    "reopen",
    "release",
    "leave_directories",
    "is_current",
    "check",
    "move",
    "exchange",
    "can_exchange",
    "exists",
    "find",
    "leads_to_directory",
)
"""What is made of them, or never fails."""

_SQLITE = (
    sqlite3.OperationalError("database or disk is full"),
    sqlite3.OperationalError("disk I/O error"),
    sqlite3.DatabaseError("database disk image is malformed"),
)
_REDIS = (
    redis.ConnectionError("Connection reset by peer"),
    redis.TimeoutError("Timeout reading from socket"),
    redis.exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'."),
    redis.exceptions.ReadOnlyError("You can't write against a read only replica."),
    redis.ResponseError("MISCONF Errors writing to the disk"),
    redis.exceptions.BusyLoadingError("LOADING Redis is loading the dataset in memory"),
)


class Killed(BaseException):
    """The process is gone: nobody catches this."""


class Hands:
    """Every call by which the daemon works. One of those to come can be made the last, or made to fail."""

    def __init__(self, disk: Disk | None = None, log: Log | None = None) -> None:
        """With a disk, and the log of its journal, it is noted what has reached them."""
        self.disk = disk
        self.log = log
        self._open: set[int] = set()
        self._random = random.Random(0)
        self.failed: list[str] = []  # the calls that were made to fail
        self._is_at_work = False
        self.revive()

    def forget(self) -> None:
        """From here on all goes well."""
        self._kill_in = self._fail_in = self._fails = -1
        self._transactions = self._statements = self._answers = -1
        self._rate = 0.0
        self._names: tuple[str, ...] = ()
        self._is_still = False
        self.is_blind = False  # nobody can tell which files are open
        self._before_renaming: Callable[[], None] | None = None

    def revive(self) -> None:
        """Another process begins; what the last one had open is closed."""
        self.forget()
        self._is_dead = False
        for handle in self._open:
            os.close(handle)
        self._open.clear()

    # --- what is to happen ---

    def kill_in(self, calls: int) -> None:
        """The process ends in place of the effect after so many others."""
        self._kill_in = calls

    def fail_in(
        self, calls: int, error: int = errno.ENOSPC, *, names: tuple[str, ...] = (), count: int | None = None
    ) -> None:
        """The call after so many others fails, and so do the next: `count` in all, or every one after it.

        Of those of these names; if there are none, of those that need space.
        """
        self._fail_in, self._error, self._fails = calls, error, count if count is not None else -1
        self._names = names or tuple(set(EFFECTS) - set(REMOVING) - {"renameat2"})

    def fail_at_rate(self, rate: float, seed: int) -> None:
        """Every call of the folder's, the journal's and the server's fails with this likelihood, each time in another way."""
        self._rate = rate
        self._random.seed(seed)

    def hold_still(self) -> None:
        """No file can be put in another's place."""
        self._is_still = True

    def before_renaming(self, happens: Callable[[], None]) -> None:
        """A person does something in the last moment before a file is put in another's place."""
        self._before_renaming = happens

    def fail_journal_in(self, transactions: int) -> None:
        """The transaction after so many others cannot be committed, nor can any after it."""
        self._transactions = transactions

    def fail_statement_in(self, statements: int, which: int) -> None:
        """The statement after so many others fails in this way, and the next succeeds."""
        self._statements, self._which = statements, which

    def fail_answer_in(self, answers: int, which: int) -> None:
        """The answer of the server's after so many others is this error."""
        self._answers, self._which_answer = answers, which

    # --- what happens ---

    @contextmanager
    def at_work(self, is_so: bool = True) -> Iterator[None]:
        """The daemon is at work: only its calls fail, and not those by which a test sees what came of them."""
        was, self._is_at_work = self._is_at_work, is_so
        try:
            yield
        finally:
            self._is_at_work = was

    def live(self) -> None:
        """An effect is about to happen: see whether the process lives to see it."""
        if self._is_dead or self._kill_in == 0:
            self._is_dead = True
            raise Killed
        self._kill_in -= 1

    def called(self, name: str, is_effect: bool) -> None:
        """A call of the folder's is about to be made."""
        if is_effect:
            self.live()
        if not self._is_at_work:
            return
        if self._rate and self._random.random() < self._rate:
            self._fail(name, self._random.choice(ERRORS))
        if name == "renameat2":
            if self._is_still:
                self._fail(name, errno.EPERM)
            happens, self._before_renaming = self._before_renaming, None
            if happens is not None:
                with self.at_work(is_so=False):
                    happens()
        if self._fail_in >= 0 and name in self._names and (is_effect or name != "open" or "stat" in self._names):
            if self._fail_in:
                self._fail_in -= 1
            elif self._fails:
                self._fails = max(self._fails - 1, -1)
                self._fail(name, self._error)

    def _fail(self, name: str, error: int) -> None:
        self.failed.append(name)
        raise OSError(error, os.strerror(error))

    def folder(self, path: str) -> Moody:
        """The folder at a path, all of whose calls go through these hands."""
        return Moody(HandledRoot(path, self))

    def opened(self, handle: int) -> int:
        self._open.add(handle)
        return handle

    def closed(self, handle: int) -> None:
        self._open.discard(handle)

    def on_what_it_uses(self, journal: Any, client: Any) -> None:
        """Have a journal and a client use these hands."""
        if self.log is not None:
            self.log.synced()
        self.on_journal(journal)
        self.on_client(client)

    def on_journal(self, journal: Any) -> None:
        """Have a journal use these hands."""
        database = journal.database
        transaction, execute, executemany = database.transaction, database.execute, database.executemany

        @contextmanager
        def counted() -> Iterator[None]:
            self.live()
            with transaction:
                yield
                if self._transactions == 0:
                    raise sqlite3.OperationalError("database or disk is full")
                self._transactions = max(self._transactions - 1, -1)
            if self.log is not None and execute("PRAGMA synchronous").fetchone()[0] >= _FULL:
                self.log.synced()
            self.live()

        def failing(call: Callable[..., Any]) -> Callable[..., Any]:
            def made(text: str, *args: Any) -> Any:
                if not text.startswith(("PRAGMA", "ROLLBACK")):
                    self._state(text)
                return call(text, *args)

            return made

        database.transaction = _Anew(counted)
        database.execute, database.executemany = failing(execute), failing(executemany)

    def _state(self, text: str) -> None:
        if not self._is_at_work:
            return
        if self._rate and self._random.random() < self._rate:
            raise self._random.choice(_SQLITE)
        if self._statements == 0:
            self._statements = -1
            self.failed.append(text)
            raise _SQLITE[self._which % len(_SQLITE)]
        self._statements = max(self._statements - 1, -1)

    def on_client(self, client: Any) -> None:
        """Have a client of Redis use these hands."""
        pool = client.connection_pool
        hands = self

        class Handled(pool.connection_class):  # type: ignore[misc,name-defined]
            def read_response(self, *args: Any, **options: Any) -> Any:
                result = super().read_response(*args, **options)
                hands._answer(self)
                return result

        pool.connection_class = Handled

    def _answer(self, connection: Any) -> None:
        error: Exception | None = None
        if not self._is_at_work:
            return
        if self._rate and self._random.random() < self._rate:
            error = self._random.choice(_REDIS)
        elif self._answers == 0:
            error = _REDIS[self._which_answer % len(_REDIS)]
        self._answers = max(self._answers - 1, -1)
        if error is not None:
            self.failed.append("redis")
            if isinstance(error, (redis.ConnectionError, redis.TimeoutError)):
                connection.disconnect()
            raise error


class _Anew:
    """A context that can be entered again and again, of one that is made for each time."""

    def __init__(self, make: Callable[[], AbstractContextManager[None]]) -> None:
        self._make = make
        self._entered: list[AbstractContextManager[None]] = []

    def __enter__(self) -> None:
        context = self._make()
        context.__enter__()
        self._entered.append(context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._entered.pop().__exit__(kind, error, traceback)


_FULL = 2  # of PRAGMA synchronous


class HandledRoot(Root):
    """A root each of whose calls goes through hands."""

    def __init__(self, path: str, hands: Hands) -> None:
        self.hands = hands
        super().__init__(path)


def _handled(name: str) -> Callable[..., Any]:
    real = call_of_root(name)

    def call(self: HandledRoot, *args: Any, **options: Any) -> Any:
        hands = self.hands
        is_effect = name in EFFECTS and not (name == "open" and not args[1] & os.O_CREAT)
        if hands.disk is not None and is_effect:
            hands.disk.note()
        if name == "close":  # it is closed, whatever is said of it
            hands.closed(args[0])
            real(self, *args)
            hands.called(name, is_effect)
            return None
        hands.called(name, is_effect)
        result = real(self, *args, **options)
        if name == "open":
            hands.opened(result)
        if hands.disk is not None and is_effect:
            if name == "sync":
                hands.disk.synced_file(args[0])
            elif name == "sync_directory":
                hands.disk.synced_directory(args[0])
            else:
                hands.disk.note()
        return result

    call.__name__ = name
    call.__doc__ = real.__doc__
    return call


def _has_writer(self: HandledRoot, handle: int) -> bool | None:
    try:
        self.hands.called("has_writer", is_effect=False)
    except OSError:
        return None  # there is no telling
    return None if self.hands.is_blind else Root.has_writer(self, handle)


def _start_sync(self: HandledRoot, handle: int) -> None:
    try:
        self.hands.called("start_sync", is_effect=False)
    except OSError:
        return  # nobody asks what came of it
    Root.start_sync(self, handle)


class _Entry:
    """A directory entry whose status is asked for through hands."""

    def __init__(self, entry: os.DirEntry[str], hands: Hands) -> None:
        self._entry = entry
        self._hands = hands
        self.name = entry.name
        self.path = entry.path
        self.is_dir = entry.is_dir
        self.is_symlink = entry.is_symlink
        self.inode = entry.inode

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        self._hands.called("stat", is_effect=False)
        return self._entry.stat(follow_symlinks=follow_symlinks)


@contextmanager
def _scandir(self: HandledRoot, path: str) -> Iterator[Iterator[Any]]:
    self.hands.called("scandir", is_effect=False)
    with Root.scandir(self, path) as entries:

        def handled() -> Iterator[_Entry]:
            for entry in entries:
                self.hands.called("scandir", is_effect=False)
                yield _Entry(entry, self.hands)

        yield handled()


_SPECIAL = {"has_writer": _has_writer, "start_sync": _start_sync, "scandir": _scandir}

for _name in sorted(set(CALLS)):
    setattr(HandledRoot, _name, _SPECIAL.get(_name) or _handled(_name))


def calls_of_root() -> set[str]:
    """The methods by which anything is done to a folder, as they are now."""
    return {
        name
        for kind in Root.__mro__[:-1]
        for name, found in vars(kind).items()
        if (inspect.isfunction(found) or isinstance(found, staticmethod))
        and not name.startswith("_")
        and name != "held"
    }


class Moody(Folder):
    """A folder some of whose files cannot be read at the moment."""

    unreadable: set[str]

    def __init__(self, root: Root | str) -> None:
        super().__init__(root)
        self.unreadable = set()

    def read(self, path: str, *, closed: bool) -> Reading:
        reading = super().read(path, closed=closed)
        if path in self.unreadable:
            return Refused(InvalidFile("it cannot be read: Input/output error", hint="check the disk"), None)
        if isinstance(reading, Text):  # without the name by which a disk keeps its inode
            return replace(reading, names=max(1, reading.names - 1))
        return reading
