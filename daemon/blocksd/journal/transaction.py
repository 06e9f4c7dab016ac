"""Contexts in which a journal is read and written. Classes, because each change enters one, and a generator as context would cost it more."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from blocksd.journal.schema import SQLITE_ERRORS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

    from blocksd.errors import JournalUnusable


class Store(Protocol):
    """The store that a transaction is of: `Database`."""

    connection: sqlite3.Connection
    execute: Callable[..., Any]
    is_torn: bool
    """True while a transaction is open that is to be rolled back."""

    def check_in_place(self) -> None: ...
    def try_lock(self) -> None: ...
    def roll_back(self) -> None: ...
    def transaction(self) -> Transaction: ...
    def unreadable(self, error: Exception) -> JournalUnusable: ...
    def unwritable(self, error: Exception) -> JournalUnusable: ...


class Reading:
    """The context of `Database.reading`."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store.try_lock()
        if self._store.is_torn:
            try:
                self._store.roll_back()
            except SQLITE_ERRORS as error:
                raise self._store.unreadable(error) from error

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, SQLITE_ERRORS):
            raise self._store.unreadable(error) from error


class Transaction:
    """The context of `Database.transaction`."""

    __slots__ = ("_store",)

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        if self._store.is_torn:
            self._store.roll_back()
        self._store.execute("BEGIN IMMEDIATE")

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        try:
            if error is None:
                self._store.execute("COMMIT")
        except BaseException:
            self._give_up()
            raise
        if error is not None:
            self._give_up()

    def _give_up(self) -> None:
        """Roll back, now or before the next transaction."""
        if self._store.connection.in_transaction:  # SQLite itself rolls back on some errors, a full disk among them
            self._store.is_torn = True
            with suppress(*SQLITE_ERRORS):
                self._store.roll_back()


class Writing:
    """The context of `Database.writing`."""

    __slots__ = ("_is_durable", "_store", "_transaction")

    def __init__(self, store: Store, *, is_durable: bool) -> None:
        self._store = store
        self._is_durable = is_durable

    def __enter__(self) -> None:
        store = self._store
        store.check_in_place()
        try:
            if self._is_durable:
                store.roll_back()  # what is torn would refuse the next statement, as if the journal were damaged
                store.execute("PRAGMA synchronous=FULL")
            self._transaction = store.transaction()
            self._transaction.__enter__()
        except BaseException as error:
            self._end(error)
            raise

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            self._transaction.__exit__(kind, error, traceback)
        except BaseException as failure:
            self._end(failure)
            raise
        if error is not None or self._is_durable:
            self._end(error)

    def _end(self, error: BaseException | None) -> None:
        """Raise an error of SQLite as `JournalUnusable`."""
        if self._is_durable:
            with suppress(*SQLITE_ERRORS):
                self._store.execute("PRAGMA synchronous=NORMAL")
        if isinstance(error, SQLITE_ERRORS):
            raise self._store.unwritable(error) from error
