"""Forgets and compresses old versions. The transaction is the caller's, and errors of SQLite are raised as they are."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from sqlite3 import Cursor

    from blocksd.journal.journal import Journal

_COMPRESS_CHARS = 512
_NO_EDIT = "(kind = 'updated' AND fields = 'agents' AND position IS NOT NULL AND request_id IS NULL)"
"""Of revisions that are none of the block's file: agents came or went that its file did not name."""


def forget_versions(journal: Journal, labels: Iterable[str], *, versions: int, before: str | None = None) -> int:
    """Forget versions beyond the newest `versions` of each label, or older than `before`; return how many. The newest stays.

    Versions that tell only which agents came or went push no edit out: `versions` edits stay whatever the number of
    others, and of those the one that each edit was made on top of, by which undo goes back.
    """
    execute = journal.database.execute
    forgotten = 0
    for label in labels:
        (newest,) = execute("SELECT coalesce(max(version), 0) FROM in_force WHERE label = ?", (label,)).fetchone()
        forgotten += _forget_beyond(execute, label, newest - max(1, versions), max(1, versions))
        last = 0
        if before is not None:
            for version, at in execute(
                "SELECT version, at FROM revisions WHERE label = ? AND version < ? ORDER BY version",
                (label, newest),
            ):
                if at >= before:
                    break
                last = max(last, version)
        if last:
            forgotten += execute("DELETE FROM revisions WHERE label = ? AND version <= ?", (label, last)).rowcount
    return forgotten


def _forget_beyond(execute: Callable[..., Cursor], label: str, last: int, edits: int) -> int:
    """Forget versions of a label up to `last`, but for the edits among the newest `edits` of all; return how many."""
    if last < 1 or not execute("SELECT 1 FROM revisions WHERE label = ? AND version <= ?", (label, last)).fetchone():
        return 0
    oldest = execute(
        f"SELECT version FROM revisions WHERE label = ? AND NOT {_NO_EDIT} ORDER BY version DESC LIMIT 1 OFFSET ?",  # noqa: S608  # a constant
        (label, edits - 1),
    ).fetchone()
    forgotten = 0
    if oldest is not None:
        forgotten = execute(
            "DELETE FROM revisions WHERE label = ? AND version <= ?", (label, min(last, oldest[0] - 1))
        ).rowcount
    return (
        forgotten
        + execute(
            f"DELETE FROM revisions WHERE label = ?1 AND version <= ?2 AND {_NO_EDIT} AND version + 1 NOT IN "  # noqa: S608  # a constant
            f"(SELECT version FROM revisions WHERE label = ?1 AND version <= ?2 + 1 AND NOT {_NO_EDIT})",
            (label, last),
        ).rowcount
    )


def compress(journal: Journal, labels: Iterable[str]) -> None:
    """Store all but the newest long values of these labels compressed."""
    execute = journal.database.execute
    for label in labels:
        old = execute(
            "SELECT seq, value FROM revisions WHERE label = ?1 AND version < (SELECT max(version) FROM in_force "
            "WHERE label = ?1) AND typeof(value) = 'text' AND length(value) >= ?2",
            (label, _COMPRESS_CHARS),
        ).fetchall()
        for seq, value in old:
            execute("UPDATE revisions SET value = ? WHERE seq = ?", (zlib.compress(value.encode("utf-8")), seq))


def forget_deleted(journal: Journal, label: str, before: str) -> bool:
    """Forget a label that no block has any more, if all that is kept of it is from before; return True if it is forgotten.

    The newest revision of all stays: it tells which numbers were given out.
    """
    execute = journal.database.execute
    (kept,) = execute(
        "SELECT count(*) FROM revisions WHERE label = ? AND (at >= ? OR seq >= ?)", (label, before, journal.seq)
    ).fetchone()
    if kept:
        return False
    if not execute("DELETE FROM heads WHERE label = ? AND path IS NULL", (label,)).rowcount:
        return False
    execute("DELETE FROM revisions WHERE label = ?", (label,))
    return True
