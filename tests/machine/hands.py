"""What can go wrong beneath the daemon, at a moment that a test chooses: death, a full disk, a file that cannot be read."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidFile
from blocksd.folder import Folder, Reading, Refused
from blocksd.root import Root

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_REMOVING = ("unlink", "remove_directory")
_EFFECTS = ("open", "write", "sync", "sync_directory", "set_mode", "rename", "link", "make_directory", *_REMOVING)


class Killed(BaseException):
    """The process is gone: nobody catches this."""


class Hands:
    """The calls by which a writer changes the folder. One of those to come can be made the last, or made to fail."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._kill_in = self._fail_in = self._transactions = -1
        self._is_still = False
        self._before_renaming: Callable[[], None] | None = None

    def kill_in(self, calls: int) -> None:
        """The process ends in place of the call after so many others."""
        self._kill_in = calls

    def fail_in(self, calls: int) -> None:
        """The call after so many others finds the disk full, and so does every one after it."""
        self._fail_in = calls

    def hold_still(self) -> None:
        """No file can be put in another's place."""
        self._is_still = True

    def before_renaming(self, happens: Callable[[], None]) -> None:
        """Somebody does something in the last moment before a file is put in another's place."""
        self._before_renaming = happens

    def fail_journal_in(self, transactions: int) -> None:
        """The transaction after so many others cannot be committed, nor can any after it."""
        self._transactions = transactions

    def _counted(self, call: Callable[..., Any], *, removes: bool = False) -> Callable[..., Any]:
        def counted(root: Root, *args: Any, **options: Any) -> Any:
            if call.__name__ == "open" and not args[1] & os.O_CREAT:
                return call(root, *args, **options)
            self._live()
            if self._fail_in == 0 and not removes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._fail_in = max(self._fail_in - 1, -1) if self._fail_in else 0
            return call(root, *args, **options)

        return counted

    def _live(self) -> None:
        if self._kill_in == 0:
            raise Killed
        self._kill_in -= 1

    def _renamed(self, rename: Callable[..., Any]) -> Callable[..., Any]:
        def renamed(root: Root, old: str, new: str, flags: int) -> None:
            self._live()
            if self._is_still:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            happens, self._before_renaming = self._before_renaming, None
            if happens is not None:
                happens()
            rename(root, old, new, flags)

        return renamed

    @contextmanager
    def on_writer(self) -> Iterator[None]:
        """Have all writers use these hands."""
        real = {name: getattr(Root, name) for name in (*_EFFECTS, "renameat2")}
        for name in _EFFECTS:
            setattr(Root, name, self._counted(real[name], removes=name in _REMOVING))
        setattr(Root, "renameat2", self._renamed(real["renameat2"]))  # noqa: B010  # a method is not to be assigned to
        try:
            yield
        finally:
            for name, method in real.items():
                setattr(Root, name, method)

    def on_journal(self, journal: Any) -> None:
        """Have a journal use these hands."""
        transaction = journal.database.transaction

        @contextmanager
        def counted() -> Iterator[None]:
            self._live()
            with transaction():
                yield
                if self._transactions == 0:
                    raise sqlite3.OperationalError("database or disk is full")
                self._transactions = max(self._transactions - 1, -1)
            self._live()

        journal.database.transaction = counted


class Moody(Folder):
    """A folder some of whose files cannot be read at the moment."""

    unreadable: set[str]

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.unreadable = set()

    def read(self, path: str, *, closed: bool) -> Reading:
        reading = super().read(path, closed=closed)
        if path in self.unreadable:
            return Refused(InvalidFile("it cannot be read: Input/output error", hint="check the disk"), None)
        return reading
