"""Makes a journal of the sound rows of a damaged one."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from blocksd.errors import VersionDamaged
from blocksd.journal.database import read_only
from blocksd.journal.row import AGENTS, ENTRIES, STORED, check, digest_of_list
from blocksd.journal.schema import SCHEMA, SQLITE_ERRORS, migrate
from blocksd.journal.swap import remove
from blocksd.model.label import path_of_label

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_AT_ONCE = 500

_NOT_COPIED = ("meta", "heads", "forms", "revisions", "agent_lists")
_FACTS = ("requests", "spent", "damaged")  # of other tables, an older row says what is not so any more
_STAGED = 6  # of a file that lies aside, so much is kept
_PASSING = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL)


class _Failed(Exception):
    """A failure that is no damage: the copy is not whole."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def salvage(path: str, fresh: str, connection: sqlite3.Connection | None = None, *, newest: int = 0) -> None:
    """Make a new journal at `fresh` of all in the one at `path` that is as it was written.

    The folder's files are all read again by it. `connection` is one that is open: what it still holds of a file that was
    overwritten comes first. `newest` is the highest seq that is known to be in force. Nothing else is changed.
    Raise OSError or sqlite3.Error if it could not be done.
    """
    remove(fresh)
    try:
        with closing(sqlite3.connect(fresh, isolation_level=None)) as new:
            os.chmod(fresh, 0o600)
            migrate(new)
            new.execute("BEGIN")
            new.execute("DELETE FROM meta")  # what a new journal says of itself
            if connection is not None:
                with _tolerating_damage():
                    _copy_sound(connection, new, newest)
            # In the end without its log, which may be what is damaged.
            modes = ("", "&immutable=1") if connection is None else ("&immutable=1",)
            has_content = os.path.isfile(path) and os.path.getsize(path)  # of an empty file SQLite removes the log
            for number, mode in enumerate(modes if has_content else ()):
                with (
                    _tolerating_damage(),
                    closing(sqlite3.connect(read_only(path, mode), uri=True, isolation_level=None)) as old,
                ):
                    _copy_sound(old, new, newest, is_older=connection is not None or number > 0)
            _make_heads(new)
            new.execute("COMMIT")
    except _Failed as error:
        raise error.cause from None


@contextmanager
def _tolerating_damage() -> Iterator[None]:
    """Leave out what cannot be read, unless it could be read at another time."""
    try:
        yield
    except SQLITE_ERRORS as error:
        if (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in _PASSING:
            raise _Failed(error) from error


def _put(new: sqlite3.Connection, table: str, names: str, row: Sequence[object]) -> None:
    """Write a row, unless there is one in its place, or it cannot be one of this table."""
    marks = ", ".join("?" * len(row))
    try:
        new.execute(f"INSERT OR IGNORE INTO {table} ({names}) VALUES ({marks})", row)  # noqa: S608  # names of our tables
    except (sqlite3.IntegrityError, UnicodeError):
        pass
    except sqlite3.Error as error:  # the disk is full, say
        raise _Failed(error) from error


def _copy_sound(old: sqlite3.Connection, new: sqlite3.Connection, newest: int, *, is_older: bool = False) -> None:
    """Copy sound rows; if the journal `is_older`, only those that never change and are not there yet."""
    factory, old.text_factory = old.text_factory, _text
    try:
        (schema,) = old.execute("PRAGMA user_version").fetchone()
        if schema == SCHEMA:  # of another it cannot be told what is sound
            unchecked = _copy_meta(old, new)
            _copy_revisions(old, new, unchecked)
            for (table,) in new.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                if table in _FACTS or not (is_older or table in _NOT_COPIED):
                    _copy_table(old, new, table)
            # What was prepared before the newest that is in force was finished, or given up.
            new.execute("DELETE FROM prepared WHERE seq <= ?", (newest,))
    finally:
        old.text_factory = factory


def _copy_meta(old: sqlite3.Connection, new: sqlite3.Connection) -> int:
    """Copy the facts of the whole journal; return the seq up to which revisions have no checksum."""
    meta: dict[Any, Any] = {}
    with _tolerating_damage():
        meta = dict(old.execute("SELECT key, value FROM meta"))
    unchecked = meta.get("unchecked")
    unchecked = unchecked if isinstance(unchecked, int) else 0
    facts: dict[str, object] = {"unchecked": unchecked}
    if isinstance(meta.get("folder"), str):
        facts["folder"] = meta["folder"]
    facts |= {name: meta[name] for name in ("generation", "newest_generation") if isinstance(meta.get(name), int)}
    with suppress(KeyError, TypeError, ValueError):  # files that lie aside, and may be all there is of a save
        if all(isinstance(boot, str) and len(staged) == _STAGED for staged, boot in json.loads(meta["kept"])):
            facts["kept"] = meta["kept"]
    for fact in facts.items():
        _put(new, "meta", "key, value", fact)
    return unchecked


def _copy_revisions(old: sqlite3.Connection, new: sqlite3.Connection, unchecked: int) -> None:
    found: dict[int, bytes] = {}
    for row in _rows(old, "agent_lists", "id", "id, digest, agents, base"):
        number, digest, agents, base = row
        if isinstance(agents, str) and digest == digest_of_list(base, agents):
            _put(new, "agent_lists", "id, digest, agents, base", row)
            found[number] = digest
    lists = set(found.items()) & set(new.execute("SELECT id, digest FROM agent_lists"))
    numbers = {None, *(number for number, _ in lists)}
    for row in _rows(old, "revisions", "seq", STORED):
        with suppress(VersionDamaged):
            check(row, unchecked=unchecked)
            if {row[ENTRIES], row[AGENTS]} <= numbers:
                _put(new, "revisions", STORED, row)


def _rows(old: sqlite3.Connection, table: str, key: str, columns: str) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a table from its beginning as far as it can be read, and from its end."""
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
            with _tolerating_damage():  # one by one, up to the one that cannot be read
                yield from old.execute(statement, (last, _AT_ONCE))
        else:
            return


def _make_heads(new: sqlite3.Connection) -> None:
    """Make the head of every label from its newest sound revision; no file is known, so that each is read again."""
    heads = new.execute(
        "SELECT label, max(version), seq, entries, agents, origin, kind, "
        "EXISTS (SELECT * FROM in_force AS later WHERE later.renamed_from = in_force.label AND later.seq > in_force.seq) "
        "FROM in_force GROUP BY label"
    ).fetchall()
    new.executemany(
        "INSERT INTO heads (label, version, seq, entries, agents, origin, path) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            (label, *head, None if kind == "deleted" or is_gone else path_of_label(label))
            for label, *head, kind, is_gone in heads
        ),
    )
    new.execute("INSERT INTO forms SELECT label, NULL FROM heads WHERE path IS NOT NULL")


def _copy_table(old: sqlite3.Connection, new: sqlite3.Connection, table: str) -> None:
    """Copy what can be read of a table without checks: texts that are texts, and numbers."""
    names = ", ".join(name for _, name, *_ in new.execute(f"PRAGMA table_info({table})"))
    with _tolerating_damage():
        for row in old.execute(f"SELECT {names} FROM {table}"):  # noqa: S608  # names of our tables
            if "\ufffd" not in "".join(value for value in row if isinstance(value, str)):
                _put(new, table, names, row)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
