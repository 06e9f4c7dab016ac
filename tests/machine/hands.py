"""What can go wrong beneath the daemon, at a moment that a test chooses: death, a full disk, a file that cannot be read."""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from blocksd import renames, writer
from blocksd.errors import InvalidFile
from blocksd.folder import Folder, Reading, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_EFFECTS = ("open", "write", "fsync", "fchmod", "unlink", "rename", "replace", "link", "mkdir", "rmdir")


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
        def counted(*args: Any, **options: Any) -> Any:
            is_reading = call is os.open and not args[1] & os.O_CREAT
            if is_reading:
                return call(*args, **options)
            self._live()
            if self._fail_in == 0 and not removes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._fail_in = max(self._fail_in - 1, -1) if self._fail_in else 0
            return call(*args, **options)

        return counted

    def _live(self) -> None:
        if self._kill_in == 0:
            raise Killed
        self._kill_in -= 1

    def _renamed(self, rename: Callable[..., Any]) -> Callable[..., Any]:
        def renamed(*args: Any) -> None:
            self._live()
            if self._is_still:
                raise OSError(errno.EPERM, os.strerror(errno.EPERM))
            happens, self._before_renaming = self._before_renaming, None
            if happens is not None:
                happens()
            rename(*args)

        return renamed

    @contextmanager
    def on_writer(self) -> Iterator[None]:
        """Have all writers use these hands."""
        rename = renames._rename
        counted = {name: self._counted(getattr(os, name), removes=name in ("unlink", "rmdir")) for name in _EFFECTS}
        for module in (writer, renames):
            setattr(module, "os", _Counted(counted))  # noqa: B010  # a module's name for another is not to be assigned to
        renames._rename = self._renamed(rename)
        try:
            yield
        finally:
            for module in (writer, renames):
                setattr(module, "os", os)  # noqa: B010  # as above
            renames._rename = rename

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


class _Counted:
    """The module `os`, some of whose functions are others."""

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


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
