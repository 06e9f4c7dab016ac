"""What an earlier version of blocksd has noted of a follower's files is read by this one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

from blocksd.follow.outbox import Outbox, Refusal
from blocksd.follow.place import NAME, Place
from blocksd.follow.plan import Written

if TYPE_CHECKING:
    from pathlib import Path

_FIRST = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    path TEXT PRIMARY KEY, label TEXT NOT NULL, version INTEGER NOT NULL, form TEXT NOT NULL, digest TEXT NOT NULL,
    mode INTEGER NOT NULL, signature BLOB
) WITHOUT ROWID;
CREATE TABLE unsent (
    path TEXT PRIMARY KEY, id TEXT NOT NULL, op TEXT NOT NULL, label TEXT NOT NULL, version INTEGER NOT NULL, base TEXT,
    digest TEXT, text BLOB, "to" TEXT, is_sent INTEGER NOT NULL, refusal TEXT
) WITHOUT ROWID;
INSERT INTO facts VALUES ('epoch', 'e'), ('seq', '7');
INSERT INTO files VALUES ('a.md', 'a', 3, 'form', 'digest', 420, NULL);
INSERT INTO unsent VALUES ('a.md', 'id-1', 'save', 'a', 3, 'digest', 'new', 'text', NULL, 1, NULL);
INSERT INTO unsent VALUES ('b.md', 'id-2', 'save', 'b', 0, NULL, 'new', 'text', NULL, 1, '["code", "why", "hint"]');
PRAGMA user_version = 1;
"""


def test_first_version(tmp_path: Path) -> None:
    """Files and edits are those that were noted, and what is noted now is read again."""
    with closing(sqlite3.connect(tmp_path / NAME)) as database:
        database.executescript(_FIRST)
    for version in (3, 4):
        place = Place(str(tmp_path))
        outbox = Outbox(place)
        assert (place.epoch, place.seq) == ("e", 7)
        assert place.files["a.md"].version == version
        assert [one[1] for one in place.files["a.md"].earlier] == list(range(3, version))
        assert outbox.edits["b.md"].refusal == Refusal("code", "why", "hint")
        assert [(edit.id, edit.oldest) for edit in outbox.edits.values()] == [("id-1", 0), ("id-2", 0)]
        assert place.awaited == {"a.md"}
        place.finish({"a.md": place.files["a.md"]._replace(version=4)})
        place.close()


def test_versions_of_another_leader_are_forgotten(tmp_path: Path) -> None:
    """Once, on disk too: what was noted since is of the present one."""
    place = Place(str(tmp_path))
    place.finish({name: Written(name[0], 3, "form", "digest", 0o644) for name in ("a.md", "b.md")})
    place.note_generation(1)
    place.finish({"a.md": place.files["a.md"]._replace(version=1)})
    place.note_generation(1)
    for again in (place, Place(str(tmp_path))):
        assert again.generation == 1
        assert {path: (one.version, one.earlier) for path, one in again.files.items()} == {
            "a.md": (1, ()),
            "b.md": (0, ()),
        }
        again.close()
