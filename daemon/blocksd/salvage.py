"""A journal made of what is sound in a damaged one."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

from blocksd.agent_lists import digest_of_list
from blocksd.errors import VersionDamaged
from blocksd.label import path_of_label
from blocksd.row import STORED, check
from blocksd.tables import MIGRATIONS, SCHEMA, SQLITE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterator

_AT_ONCE = 500
_OF_THE_FILE = ("-wal", "-shm")  # what SQLite keeps beside a database

_NOT_COPIED = ("meta", "heads", "revisions", "agent_lists")


def salvage(path: str) -> str:
    """Put a new journal in the place of a damaged one, of all in it that is as it was written; where the old one is now.

    The folder's files are all read again by it. No connection may be open. Until the new one is whole, the old one stays
    in its place: whatever interrupts this, it can be done again.

    Raises:
        OSError, sqlite3.Error: it could not be done.
    """
    fresh = f"{path}.salvaged"
    remove(fresh)
    aside = _name_aside(path, "damaged")
    for suffix in ("", *_OF_THE_FILE):
        if os.path.exists(path + suffix):
            _copy(path + suffix, aside + suffix)  # whatever SQLite does with the one it reads, this stays as it was
    with closing(sqlite3.connect(fresh, isolation_level=None)) as new:
        os.chmod(fresh, 0o600)
        make_tables(new)
        new.execute("BEGIN")
        with suppress(*SQLITE_ERRORS), closing(sqlite3.connect(path, isolation_level=None)) as old:
            _copy_sound(old, new)
        new.execute("COMMIT")
    put_in_place(fresh, path)
    return aside


def set_aside(path: str, why: str) -> str | None:
    """Move what is in a journal's place out of it, whatever it is; where it is now, None if there is nothing."""
    if not os.path.lexists(path):
        for suffix in _OF_THE_FILE:
            with suppress(FileNotFoundError):
                os.unlink(path + suffix)
        return None
    aside = _name_aside(path, why)
    for suffix in ("", *_OF_THE_FILE):
        with suppress(FileNotFoundError):
            os.rename(path + suffix, aside + suffix)
    return aside


def remove(path: str) -> None:
    """Remove a database that is nobody's, with what belongs to it."""
    for suffix in ("", "-journal", *_OF_THE_FILE):
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)


def put_in_place(fresh: str, path: str) -> None:
    """Let a database that is whole have the place of another, and be on disk there."""
    sync(fresh)
    for suffix in _OF_THE_FILE:  # SQLite would take the log of the one for the log of the other
        with suppress(FileNotFoundError):
            os.unlink(path + suffix)
    os.replace(fresh, path)
    sync(os.path.dirname(path) or ".")


def sync(path: str) -> None:
    """Have a file, or a directory's entries, on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_tables(database: sqlite3.Connection) -> None:
    """Make the tables of a journal in an empty database."""
    for migration in MIGRATIONS:
        for statement in migration.split(";"):
            database.execute(statement)
    database.execute(f"PRAGMA user_version={SCHEMA}")


def _name_aside(path: str, why: str) -> str:
    first = aside = f"{path}.{why}-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"
    number = 1
    while os.path.lexists(aside):
        number += 1
        aside = f"{first}-{number}"
    return aside


def _copy(path: str, copy: str) -> None:
    with open(path, "rb") as source, open(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
        while data := source.read(1 << 20):
            target.write(data)
        target.flush()
        os.fsync(target.fileno())


def _copy_sound(old: sqlite3.Connection, new: sqlite3.Connection) -> None:
    old.text_factory = _text
    (schema,) = old.execute("PRAGMA user_version").fetchone()
    if schema != SCHEMA:  # of which it cannot be told what is sound
        return
    meta: dict[Any, Any] = {}
    with suppress(*SQLITE_ERRORS):
        meta = dict(old.execute("SELECT key, value FROM meta"))
    if isinstance(meta.get("folder"), str):
        new.execute("INSERT INTO meta VALUES ('folder', ?)", (meta["folder"],))
    unchecked = meta.get("unchecked")
    unchecked = unchecked if isinstance(unchecked, int) else 0
    new.execute("INSERT INTO meta VALUES ('unchecked', ?)", (unchecked,))
    lists = set()
    for row in _rows(old, "agent_lists", "id", "id, digest, agents, base"):
        number, digest, agents, base = row
        if isinstance(agents, str) and digest == digest_of_list(base, agents):
            new.execute("INSERT OR IGNORE INTO agent_lists (id, digest, agents, base) VALUES (?, ?, ?, ?)", row)
            lists.add(number)
    marks = ", ".join("?" * len(STORED.split(", ")))
    for row in _rows(old, "revisions", "seq", STORED):
        with suppress(VersionDamaged):
            check(row, unchecked=unchecked)
            if {row[6], row[7]} - {None} <= lists:
                new.execute(f"INSERT OR IGNORE INTO revisions ({STORED}) VALUES ({marks})", row)  # noqa: S608  # constants
    for (table,) in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if table not in _NOT_COPIED:
            _copy_table(old, new, table)
    _make_heads(new)


def _rows(old: sqlite3.Connection, table: str, key: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table from its beginning as far as it can be read, and from its end."""
    for comparison, order, first in ((">", "ASC", -(2**63)), ("<", "DESC", 2**63 - 1)):
        last = first
        statement = (
            f"SELECT {columns} FROM {table} NOT INDEXED WHERE {key} {comparison} ? ORDER BY {key} {order} LIMIT ?"  # noqa: S608  # constants
        )
        try:
            while rows := old.execute(statement, (last, _AT_ONCE)).fetchall():
                yield from rows
                last = rows[-1][0]
        except SQLITE_ERRORS:
            with suppress(*SQLITE_ERRORS):  # one by one, up to the one that cannot be read
                yield from old.execute(statement, (last, _AT_ONCE))
        else:
            return


def _make_heads(new: sqlite3.Connection) -> None:
    """Where every label stands, by its newest revision that is sound; no file is known, so that each is read again."""
    heads = new.execute(
        "SELECT label, max(version), seq, kind, entries, agents, "
        "EXISTS (SELECT * FROM in_force AS later WHERE later.renamed_from = in_force.label AND later.seq > in_force.seq) "
        "FROM in_force GROUP BY label"
    ).fetchall()
    new.executemany(
        "INSERT INTO heads (label, version, seq, entries, agents, path) VALUES (?, ?, ?, ?, ?, ?)",
        (
            (label, version, seq, entries, agents, None if kind == "deleted" or is_gone else path_of_label(label))
            for label, version, seq, kind, entries, agents, is_gone in heads
        ),
    )


def _copy_table(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> None:
    """Copy what can be read of a table that has no checks of its own: texts that are texts, and numbers."""
    columns = [name for _, name, *_ in new.execute(f"PRAGMA table_info({table})")]
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    with suppress(*SQLITE_ERRORS):
        for row in old.execute(f"SELECT {names} FROM {table}"):  # noqa: S608  # names of our own tables
            if "\ufffd" not in "".join(value for value in row if isinstance(value, str)):
                with suppress(*SQLITE_ERRORS):
                    new.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", row)  # noqa: S608  # the same


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
