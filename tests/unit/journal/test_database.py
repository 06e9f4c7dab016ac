from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.cli.console import exit_code
from blocksd.errors import JournalUnusable
from blocksd.journal.history import JournalReader
from blocksd.journal.journal import Journal
from blocksd.journal.results import Results
from journaled import SIGNATURE, chain, put
from rig import AT, revision

if TYPE_CHECKING:
    from pathlib import Path


def test_new_journal_is_empty(journal: Journal) -> None:
    """A new journal stands at 0, has an epoch, and only its owner may read it."""
    assert journal.opened.how == "new"
    assert (journal.seq, journal.count(), list(journal.heads())) == (0, 0, [])
    assert len(journal.epoch) == 32
    assert os.stat(journal.path).st_mode & 0o777 == 0o600


def test_journal_is_the_same_after_a_stop(path: str) -> None:
    """After an orderly stop everything is there, under the same epoch, also on another boot."""
    journal = Journal(path, boot_id="one")
    journal.append(chain(3), {"notes": ("notes.md", SIGNATURE)})
    heads = list(journal.heads())
    journal.close()
    again = Journal(path, boot_id="two")
    assert (again.opened.how, again.epoch, again.seq) == ("ok", journal.epoch, 3)
    assert list(again.heads()) == heads
    again.close()


def test_killed_daemon_keeps_its_epoch(path: str) -> None:
    """After kill -9 on the same boot nothing that was committed is lost, so the epoch stays."""
    journal = Journal(path, boot_id="one")
    put(journal, *chain(3))
    journal.database.close()
    again = Journal(path, boot_id="one")
    assert (again.opened.how, again.epoch, again.seq) == ("ok", journal.epoch, 3)
    again.close()


def test_power_loss_makes_a_new_epoch(path: str) -> None:
    """After an unclean stop under another boot id the last revisions may be missing: their numbers are of another epoch."""
    journal = Journal(path, boot_id="one")
    put(journal, *chain(3))
    journal.database.close()
    again = Journal(path, boot_id="two")
    assert again.opened.how == "unclean"
    assert again.epoch != journal.epoch
    assert again.seq == 3
    again.database.close()
    third = Journal(path, boot_id="two")
    assert (third.opened.how, third.epoch) == ("ok", again.epoch)
    third.close()


@pytest.mark.parametrize(
    "content", [b"this is no database" * 100, b"SQLite format 3\x00" + b"\xff" * 5000, b"\x00" * 8192]
)
def test_damaged_file_is_set_aside(path: str, content: bytes) -> None:
    """What is no sound database is kept beside, byte for byte, and a new journal with a new epoch takes its place."""
    with open(path, "wb") as file:
        file.write(content)
    journal = Journal(path, boot_id="one")
    assert journal.opened.how == "damaged"
    assert journal.opened.set_aside is not None
    assert journal.opened.set_aside.startswith(f"{path}.damaged-")
    with open(journal.opened.set_aside, "rb") as file:
        assert file.read() == content
    put(journal, *chain(1))
    assert journal.seq == 1
    journal.close()


def test_database_of_something_else_is_set_aside_or_refused(path: str) -> None:
    """A database that is not a journal is not written into."""
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)")
    other.execute("INSERT INTO meta VALUES ('mine', '1')")
    other.commit()
    other.close()
    with pytest.raises(JournalUnusable):
        Journal(path, boot_id="one")
    other = sqlite3.connect(path)
    assert other.execute("SELECT * FROM meta").fetchall() == [("mine", "1")]
    other.close()


@pytest.mark.parametrize("table", ["revisions", "heads", "agent_lists", "meta"])
def test_damage_inside_is_never_silent(path: str, table: str) -> None:
    """A page that is damaged inside a sound-looking file is set aside or refused in words, wherever it is met."""
    journal = Journal(path, boot_id="one")
    put(journal, *[revision(seq, f"b{seq}", agents=(f"a{seq}",), value="x" * 500) for seq in range(1, 200)])
    journal.close()
    with sqlite3.connect(path) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        (size,) = db.execute("PRAGMA page_size").fetchone()
    db.close()
    with open(path, "r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with suppress(JournalUnusable):
        again = Journal(path, boot_id="one")
        if again.opened.how == "damaged":
            assert again.epoch != journal.epoch
        else:
            with pytest.raises(JournalUnusable, match="malformed"):
                read_all(again)
        again.database.close()


def read_all(journal: Journal) -> list[Any]:
    heads = list(journal.heads())
    return [
        journal.since(0, 1000),
        [journal.head(head.label) for head in heads],
        journal.history("b1"),
        journal.count(),
    ]


def test_newer_schema_is_refused(path: str) -> None:
    """A journal of a newer blocksd is refused, in words, and not touched."""
    Journal(path, boot_id="one").close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=999")
    db.close()
    for kind in (Journal, JournalReader):
        with pytest.raises(JournalUnusable, match="of schema 999") as refusal:
            kind(path)
        assert exit_code(refusal.value) == 1
    assert not [name for name in os.listdir(os.path.dirname(path)) if "damaged" in name]
    db = sqlite3.connect(path)
    assert db.execute("PRAGMA user_version").fetchone() == (999,)
    db.close()


def test_journal_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    """A directory in its place, or none to be in: refused, naming the path."""
    (tmp_path / "directory").mkdir()
    for path in (str(tmp_path / "directory"), str(tmp_path / "missing" / "journal.db")):
        with pytest.raises(JournalUnusable) as refusal:
            Journal(path)
        assert refusal.value.facts["path"] == path
        assert exit_code(refusal.value) == 1


def test_locked_journal_is_refused(path: str, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal another process is writing to is refused after a while, and stays as it is."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0.05}))
    journal.database.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnusable, match="locked") as refusal:
        Journal(path)
    assert exit_code(refusal.value) == 3
    journal.database.execute("ROLLBACK")
    assert not [name for name in os.listdir(os.path.dirname(path)) if "damaged" in name]


def test_reader_needs_a_journal(path: str) -> None:
    """Reading makes no journal: where there is none, that is said."""
    with pytest.raises(JournalUnusable, match="cannot be read"):
        JournalReader(path)
    assert not os.path.exists(path)


def test_only_requests_wait_for_the_disk(journal: Journal) -> None:
    """A revision read from a file needs no fsync: the file is the truth. What was asked for has no other copy."""

    def synchronous() -> int:
        (level,) = journal.database.execute("PRAGMA synchronous").fetchone()
        return int(level)

    levels: list[int] = []
    journal.database.connection.set_trace_callback(
        lambda statement: levels.append(synchronous()) if statement == "COMMIT" else None
    )
    put(journal, *chain(1))
    Results(journal.database).write([], {("ann", "r-1"): "one"}, AT)
    journal.database.connection.set_trace_callback(None)
    assert levels == [1, 2]
    assert synchronous() == 1
