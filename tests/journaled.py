"""Revisions to put into a journal, and a disk that is full."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.files.file_edit import Staged
from blocksd.journal.intents import Prepared
from blocksd.journal.pruning import compress, forget_versions
from rig import revision

if TYPE_CHECKING:
    from blocksd.journal.journal import Journal
    from blocksd.model.revision import Revision


SIGNATURE = (1_700_000_000_123_456_789, 1_700_000_000_123_456_790, 42, 7)
THEN = "2026-11-20T09:00:01.000Z"
STAGED = [
    Staged("notes.md", ".blocksd-1", "0" * 32, "1" * 32),
    Staged("new.md", ".blocksd-2", None, "2" * 32),
    Staged("old.md", ".blocksd-3", "3" * 32, None),
]


def chain(count: int, label: str = "notes", *, start: int = 1) -> list[Revision]:
    """The first `count` versions of a block, numbered from `start`."""
    return [
        revision(
            start + number,
            label,
            kind="created" if number == 0 else "updated",
            version=number + 1,
            value=f"value {number + 1} " + "x" * 600,
        )
        for number in range(count)
    ]


def put(journal: Journal, *revisions: Revision) -> None:
    """Append, as the core does: a new block comes with the file that says it."""
    journal.append(revisions, {one.label: (f"{one.label}.md", None) for one in revisions if one.kind == "created"})


def prune(journal: Journal, *labels: str, versions: int, before: str | None = None) -> int:
    """Forget versions of these labels, and compress those that stay, as retention does. How many are forgotten."""
    with journal.database.transaction:
        forgotten = forget_versions(journal, labels, versions=versions, before=before)
        compress(journal, labels)
    return forgotten


def lists_in(journal: Journal) -> list[str]:
    return [text for (text,) in journal.database.execute("SELECT agents FROM agent_lists ORDER BY id")]


def fill_up(journal: Journal) -> None:
    """Let the disk be full."""
    pages = journal.database.execute("PRAGMA page_count").fetchone()[0]
    journal.database.execute(f"PRAGMA max_page_count={pages}")


def make_room(journal: Journal) -> None:
    journal.database.execute("PRAGMA max_page_count=1073741823")


def of_requests() -> list[Revision]:
    """Revisions as requests make them, with everything that only those have."""
    changed = revision(3, kind="updated", version=2, agents=("ann", "s-*"), value="two", metadata={"ü": [1.5]})
    return [
        replace(
            changed, author="ann", request_id="r-1", agents=frozenset({"ann", "s-1"}), position=1, fields=("value",)
        ),
        replace(
            revision(4, "new", kind="renamed", version=3, value="old", tags=("a", "b")),
            author="operator",
            request_id="r-2",
            renamed_from="old",
            fields=("label",),
            origin="old",
        ),
        replace(revision(5, "gone", kind="deleted", version=2, detached=("bob",)), author="operator", by="Zoë"),
        replace(revision(6, "notes", kind="updated", version=3, value="three"), reverts=(1, 2), stale_base=1),
    ]


def prepared() -> Prepared:
    outcomes = {("ann", "r-1"): '{"ok": true}', ("operator", "r-1"): "{}", ("operator", "r-2"): "{}"}
    return Prepared(of_requests(), {"notes": "notes.md", "new": "new.md"}, STAGED, outcomes, THEN)
