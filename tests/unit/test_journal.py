from __future__ import annotations

import json
import os
import sqlite3
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.attachment import NOBODY
from blocksd.errors import JournalUnusable, NotFound
from blocksd.journal import _MIGRATIONS, Access, Head, Journal, JournalReader, Prepared, Staged
from rig import AT, revision

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blocksd.revision import Revision

SIGNATURE = (1_700_000_000_123_456_789, 1_700_000_000_123_456_790, 42, 7)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "journal.db")


@pytest.fixture
def journal(path: str) -> Iterator[Journal]:
    opened = Journal(path, boot_id="boot")
    yield opened
    opened._db.close()


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


def lists_in(journal: Journal) -> list[str]:
    return [text for (text,) in journal._db.execute("SELECT agents FROM agent_lists ORDER BY id")]


def fill_up(journal: Journal) -> None:
    """Let the disk be full."""
    pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
    journal._db.execute(f"PRAGMA max_page_count={pages}")


def make_room(journal: Journal) -> None:
    journal._db.execute("PRAGMA max_page_count=1073741823")


# --- writing and reading ---


def test_new_journal_is_empty(journal: Journal) -> None:
    """A new journal stands at 0, has an epoch, and only its owner may read it."""
    assert journal.opened.how == "new"
    assert (journal.seq, journal.count(), list(journal.heads())) == (0, 0, [])
    assert len(journal.epoch) == 32
    assert os.stat(journal.path).st_mode & 0o777 == 0o600


def test_revision_comes_back_as_it_was(journal: Journal) -> None:
    """Every field of a revision and of its block is kept, whatever text is in it."""
    full = revision(
        1,
        "agents/bob/persona",
        agents=("ann", "bob"),
        detached=("cid",),
        changed=("value", "agents"),
        value="naïve 🙂\n\u2028\ttext",
        description="",
        limit=5,
        read_only=True,
        tags=("a", "b"),
        metadata={"deep": [1, None, {"x": 1.5, "ü": True}]},
        entity_id="e",
        is_template=True,
    )
    full = replace(full, author="operator", request_id="r-1")
    empty = revision(2, "empty", value="")
    put(journal, full, empty)
    assert journal.head("agents/bob/persona") == full
    assert journal.since(0, 10) == [full, empty]
    assert journal.history("empty") == [empty]


def test_head_is_the_newest(journal: Journal) -> None:
    """The head of a label is its newest revision, a deletion too; a label that never was has none."""
    revisions = [*chain(3), revision(4, kind="deleted", version=4, detached=("ann",))]
    journal.append(revisions[:3], {"notes": ("notes.md", SIGNATURE)})
    assert journal.head("notes") == revisions[2]
    journal.append(revisions[3:], {})
    assert journal.head("notes") == revisions[3]
    assert journal.head("notes") is not None
    assert journal.head("other") is None
    assert journal.count() == 0


def test_heads_tell_which_file_says_what(journal: Journal) -> None:
    """Each label has one head: version, agents as written and as attached, file and signature; deleted ones no file."""
    first = revision(1, agents=("ann", "s-*"), value="x")
    first = replace(first, agents=frozenset({"ann", "s-1"}))
    journal.append(
        [first, revision(2, "gone", value="x")], {"notes": ("notes.md", SIGNATURE), "gone": ("gone.md", None)}
    )
    assert sorted(journal.heads()) == [
        Head("gone", 1, (), NOBODY, "gone.md", None),
        Head("notes", 1, ("ann", "s-*"), frozenset({"ann", "s-1"}), "notes.md", SIGNATURE),
    ]
    assert journal.count() == 2
    put(journal, revision(3, "gone", kind="deleted", version=2))
    assert next(head for head in journal.heads() if head.label == "gone") == Head("gone", 2, (), NOBODY, None, None)
    assert journal.count() == 1


def test_file_may_change_without_its_block(journal: Journal) -> None:
    """A file that was touched, or renamed to another spelling, is noted without a revision."""
    journal.append(chain(1), {"notes": ("notes.md", None)})
    journal.append([], {"notes": ("Notes.md", SIGNATURE)})
    (head,) = journal.heads()
    assert (head.path, head.signature, journal.seq) == ("Notes.md", SIGNATURE, 1)


def test_block_may_change_without_its_file(journal: Journal) -> None:
    """A revision that other agents caused leaves the file that says the block as it was."""
    journal.append(chain(1), {"notes": ("notes.md", SIGNATURE)})
    put(journal, revision(2, kind="updated", version=2, agents=("ann",), attached=("ann",), value="x"))
    (head,) = journal.heads()
    assert (head.path, head.signature, head.version) == ("notes.md", SIGNATURE, 2)


def test_history_is_newest_first(journal: Journal) -> None:
    """The history of a label has all of its revisions, deletions included, and no other's."""
    revisions = chain(3)
    put(journal, *revisions, revision(4, "other", value="x"), revision(5, kind="deleted", version=4))
    assert [past.version for past in journal.history("notes")] == [4, 3, 2, 1]
    assert journal.history("notes", limit=2)[1] == revisions[2]
    assert journal.history("nothing") == []


def test_since_gives_all_that_follows(journal: Journal) -> None:
    """After a seq come all later revisions, in order, as many as asked for; after the last, or beyond it, none."""
    put(journal, *chain(5))
    assert [found.seq for found in journal.since(0, 3)] == [1, 2, 3]
    assert [found.seq for found in journal.since(3, 10)] == [4, 5]
    assert journal.since(5, 10) == []
    assert journal.since(9, 10) == []


# --- forgetting ---


def test_pruning_keeps_the_newest(journal: Journal) -> None:
    """Of the named labels only so many versions stay; other labels keep all of theirs."""
    put(journal, *chain(5), *chain(3, "other", start=6))
    assert journal.prune(["notes"], versions=2) == 3
    assert [past.version for past in journal.history("notes")] == [5, 4]
    assert [past.version for past in journal.history("other")] == [3, 2, 1]
    assert journal.seq == 8


def test_pruning_keeps_every_head(journal: Journal) -> None:
    """However old, the newest revision of a label stays, also that of a deleted one."""
    put(journal, *chain(2), revision(3, kind="deleted", version=3), *chain(1, "other", start=4))
    journal.prune(["notes", "other", "unknown"], versions=1, before="2999-01-01T00:00:00.000Z")
    assert [past.version for past in journal.history("notes")] == [3]
    assert journal.history("other") != []


def test_pruning_by_age(journal: Journal) -> None:
    """Revisions from before a moment are forgotten, younger ones stay."""
    old, young = chain(3), "2026-12-01T00:00:00.000Z"
    put(journal, old[0], replace(old[1], at=young), replace(old[2], at=young))
    assert journal.prune(["notes"], versions=1000, before=young) == 1
    assert [past.version for past in journal.history("notes")] == [3, 2]


def test_pruned_revisions_cannot_be_replayed(journal: Journal) -> None:
    """Where a revision is missing, the journal says so: at the beginning of what was asked for or in the middle."""
    put(journal, revision(1, "first", value="x"), *chain(3, start=2), revision(5, "last", value="x"))
    assert journal.reaches_back(0)
    journal.prune(["notes"], versions=1)
    assert [found.seq for found in journal.since(3, 10)] == [4, 5]
    assert [found.seq for found in journal.since(0, 1)] == [1]
    for seq in (0, 1, 2):
        with pytest.raises(NotFound, match=f"after {seq} "):
            journal.since(seq, 10)
    assert [journal.reaches_back(seq) for seq in range(7)] == [False, False, False, True, True, True, False]


def test_old_values_are_compressed(journal: Journal) -> None:
    """All but the newest long values of a pruned label are kept compressed, and read as they were."""
    revisions = chain(4)
    put(journal, *revisions)
    journal.prune(["notes"], versions=1000)
    kinds = [kind for (kind,) in journal._db.execute("SELECT typeof(value) FROM revisions ORDER BY seq")]
    assert kinds == ["blob", "blob", "blob", "text"]
    assert journal.history("notes") == revisions[::-1]
    journal.prune(["notes"], versions=1000)
    assert journal.history("notes") == revisions[::-1]


# --- lists of agents ---


def test_equal_lists_are_stored_once(journal: Journal) -> None:
    """However many revisions have a list of agents, and whether the same object or an equal one, it is stored once."""
    agents = tuple(f"agent-{number}" for number in range(1000))
    for seq in range(1, 6):
        put(journal, revision(seq, f"b{seq}", agents=(*agents[:500], *agents[500:]), value="x"))
    assert len(lists_in(journal)) == 2  # as written, and as attached, sorted
    assert all(found.agents == frozenset(agents) for found in journal.since(0, 9))
    assert all(found.block is not None and found.block.agents == agents for found in journal.since(0, 9))


def test_lists_of_a_failed_write_are_not_referred_to(journal: Journal) -> None:
    """What was rolled back with the revision it came with is stored again with the next one."""
    everyone = ("*",)
    made = [revision(seq, f"b{seq}", agents=everyone, value="x") for seq in (1, 2)]
    made = [replace(one, agents=frozenset({"ann"})) for one in made]
    twice = replace(made[1], label="b1")  # version 1 of b1 is there already
    with pytest.raises(JournalUnusable):
        put(journal, *made, twice)
    assert lists_in(journal) == []
    journal.append(made, {"b1": ("b1.md", None), "b2": ("b2.md", None)})
    reader = JournalReader(journal.path)
    assert {head.entries for head in reader.heads()} == {everyone}
    reader.close()
    assert journal.since(0, 9) == made


def test_unused_lists_are_dropped_at_the_end(path: str) -> None:
    """A list that no revision has any more is gone after an orderly stop."""
    journal = Journal(path, boot_id="boot")
    put(journal, revision(1, agents=("ann", "bob"), value="x"), revision(2, kind="updated", version=2, value="x"))
    journal.prune(["notes"], versions=1)
    journal.close()
    again = Journal(path, boot_id="boot")
    assert lists_in(again) == []
    assert again.history("notes")[0].agents == NOBODY
    again.close()


# --- opened again ---


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
    journal._db.close()
    again = Journal(path, boot_id="one")
    assert (again.opened.how, again.epoch, again.seq) == ("ok", journal.epoch, 3)
    again.close()


def test_power_loss_makes_a_new_epoch(path: str) -> None:
    """After an unclean stop under another boot id the last revisions may be missing: their numbers are of another epoch."""
    journal = Journal(path, boot_id="one")
    put(journal, *chain(3))
    journal._db.close()
    again = Journal(path, boot_id="two")
    assert again.opened.how == "unclean"
    assert again.epoch != journal.epoch
    assert again.seq == 3
    again._db.close()
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
        again._db.close()


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
        with pytest.raises(JournalUnusable, match="of schema 999"):
            kind(path)
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


def test_locked_journal_is_refused(path: str, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """A journal another process is writing to is refused after a while, and stays as it is."""
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **{**options, "timeout": 0.05}))
    journal._db.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnusable, match="locked"):
        Journal(path)
    journal._db.execute("ROLLBACK")
    assert not [name for name in os.listdir(os.path.dirname(path)) if "damaged" in name]


# --- full disk, and readers beside the writer ---


def test_full_disk_writes_nothing(journal: Journal) -> None:
    """On a full disk a write fails as a whole: no revision, no head, no number; it works once there is room."""
    journal.append(chain(2), {"notes": ("notes.md", SIGNATURE)})
    heads = list(journal.heads())
    fill_up(journal)
    big = [revision(seq, f"b{seq}", agents=(f"a{seq}",), value="x" * 5_000) for seq in range(3, 40)]
    with pytest.raises(JournalUnusable, match="full") as failure:
        journal.append(big, {"notes": ("other.md", None)})
    assert failure.value.facts["path"] == journal.path
    assert (journal.seq, journal.head("b3"), lists_in(journal)) == (2, None, [])
    assert list(journal.heads()) == heads
    make_room(journal)
    put(journal, *big)
    assert journal.seq == 39
    assert journal.since(2, 100) == big


def test_housekeeping_waits_for_room(path: str) -> None:
    """Where nothing can be written, pruning and closing do nothing, and the next start takes the stop for a crash."""
    journal = Journal(path, boot_id="one")
    put(journal, *chain(5))
    journal._db.execute("PRAGMA query_only=1")
    assert journal.prune(["notes"], versions=1) == 0
    assert len(journal.history("notes")) == 5
    journal.close()
    again = Journal(path, boot_id="two")
    assert again.opened.how == "unclean"
    assert len(again.history("notes")) == 5
    again.close()


def test_reader_sees_what_is_committed(journal: Journal) -> None:
    """Another process may read beside the writer: all that is committed, nothing that is not, without waiting."""
    journal.append(chain(1), {"notes": ("notes.md", SIGNATURE)})
    reader = JournalReader(journal.path)
    assert (reader.seq, reader.count()) == (1, 1)
    journal._db.execute("BEGIN IMMEDIATE")
    journal._db.execute("UPDATE revisions SET author = 'nobody'")
    assert [past.author for past in reader.history("notes")] == ["file"]
    journal._db.execute("ROLLBACK")
    put(journal, revision(2, kind="updated", version=2, value="later"))
    assert [past.version for past in reader.history("notes")] == [2, 1]
    reader.close()


def test_reader_needs_a_journal(path: str) -> None:
    """Reading makes no journal: where there is none, that is said."""
    with pytest.raises(JournalUnusable, match="cannot be read"):
        JournalReader(path)
    assert not os.path.exists(path)


def test_reader_in_other_threads_while_written(journal: Journal) -> None:
    """Readers of many connections see whole transactions only."""
    wrong: list[object] = []
    stop = threading.Event()

    def read() -> None:
        reader = JournalReader(journal.path)
        while not stop.is_set():
            count = len(reader.history("notes"))
            if count % 3:
                wrong.append(count)
        reader.close()

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    revisions = chain(150)
    for start in range(0, 150, 3):
        journal.append(revisions[start : start + 3], {})
    stop.set()
    for thread in threads:
        thread.join(10)
    assert wrong == []


def test_checkpoint_moves_the_log(journal: Journal) -> None:
    """What was logged is moved into the database once it is much, and everything is still there."""
    revisions = [revision(seq, f"b{seq}", value="x" * 20_000) for seq in range(1, 301)]
    put(journal, *revisions)
    before = os.path.getsize(journal.path)
    journal.checkpoint()
    moved = os.path.getsize(journal.path)
    assert moved > before
    assert journal.since(0, 1000) == revisions
    put(journal, revision(301, "little"))
    journal.checkpoint()
    assert os.path.getsize(journal.path) == moved  # although the log's file is as long as it was
    put(journal, *(revision(seq, f"b{seq}", value="x" * 20_000) for seq in range(302, 602)))
    journal.checkpoint()
    assert os.path.getsize(journal.path) > moved


def test_stored_json_keeps_unicode(journal: Journal) -> None:
    """What is stored can be read by other programs: plain JSON, unescaped."""
    put(journal, revision(1, description="naïve", metadata={"ü": 1}, value="x"))
    (text,) = journal._db.execute("SELECT facts FROM revisions").fetchone()
    assert "naïve" in text
    assert json.loads(text)["metadata"] == {"ü": 1}


# --- what is about to be done ---

THEN = "2026-11-20T09:00:01.000Z"
STAGED = [
    Staged("notes.md", ".blocksd-1", "0" * 32, "1" * 32),
    Staged("new.md", ".blocksd-2", None, "2" * 32),
    Staged("old.md", ".blocksd-3", "3" * 32, None),
]


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
        ),
        replace(revision(5, "gone", kind="deleted", version=2, detached=("bob",)), author="operator"),
        replace(revision(6, "notes", kind="updated", version=3, value="three"), reverts=(1, 2), stale_base=1),
    ]


def prepared() -> Prepared:
    outcomes = {("ann", "r-1"): '{"ok": true}', ("operator", "r-1"): "{}", ("operator", "r-2"): "{}"}
    return Prepared(of_requests(), {"notes": "notes.md", "new": "new.md"}, STAGED, outcomes, THEN)


@pytest.fixture
def before(journal: Journal) -> Journal:
    """A journal with two blocks."""
    put(journal, revision(1, value="one"), revision(2, "gone", value="x"))
    return journal


def state(journal: Journal) -> tuple[object, ...]:
    heads = sorted((head.label, head.version, head.path, head.agents) for head in journal.heads())
    return journal.seq, journal.since(0, 99), heads, journal.outcome("ann", "r-1"), journal.prepared()


def again(journal: Journal) -> Journal:
    """The journal as the next process opens it, after kill -9."""
    journal._db.close()
    return Journal(journal.path, boot_id="boot")


@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.parametrize("crashed", [False, True])
def test_prepared_comes_back_as_it_was(before: Journal, *, crashed: bool, is_durable: bool) -> None:
    """Every field of it, to whoever opens the journal after a crash; nobody else sees any of it."""
    old = state(before)
    before.prepare(prepared(), is_durable=is_durable)
    found = again(before) if crashed else before
    assert found.prepared() == replace(prepared(), at=of_requests()[-1].at)
    assert state(found)[:-1] == old[:-1]
    found._db.close()


def test_nothing_is_prepared_in_a_new_journal(journal: Journal) -> None:
    """There is nothing to finish or to take back."""
    assert journal.prepared() is None
    journal.give_up()
    assert journal.prepared() is None


@pytest.mark.parametrize("crashed", [False, True])
def test_prepared_is_finished(before: Journal, *, crashed: bool) -> None:
    """Its revisions are the newest, their files known, their outcomes there; nothing is prepared any more."""
    before.prepare(prepared())
    found = again(before) if crashed else before
    found.finish(found.prepared() or prepared())
    found = again(found)
    assert found.seq == 6
    assert found.since(2, 99) == of_requests()
    assert found.prepared() is None
    assert {head.label: (head.version, head.path) for head in found.heads()} == {
        "notes": (3, "notes.md"),
        "new": (3, "new.md"),
        "gone": (2, None),
    }
    assert [found.outcome(actor, "r-1") for actor in ("ann", "operator", "bob")] == ['{"ok": true}', "{}", None]
    found._db.close()


@pytest.mark.parametrize("crashed", [False, True])
def test_prepared_is_given_up(before: Journal, *, crashed: bool) -> None:
    """Then it is as if it had never been, and the same can be prepared again."""
    old = state(before)
    before.prepare(prepared())
    found = again(before) if crashed else before
    found.give_up()
    assert state(found) == old
    found.prepare(prepared())
    found.finish(prepared())
    assert found.since(2, 99) == of_requests()
    found._db.close()


def test_stop_keeps_what_is_prepared(before: Journal) -> None:
    """Also when the journal is closed in order in the middle of it: its lists of agents are not taken for unused."""
    before.prepare(prepared())
    before.close()
    found = Journal(before.path, boot_id="boot")
    assert found.prepared() == replace(prepared(), at=of_requests()[-1].at)
    found._db.close()


def test_full_disk_prepares_and_finishes_nothing(before: Journal) -> None:
    """Each is written whole or not at all, and can be tried again when there is room."""
    old = state(before)
    big = replace(prepared(), outcomes={("ann", f"r-{n}"): "x" * 5000 for n in range(50)})
    fill_up(before)
    with pytest.raises(JournalUnusable, match="full"):
        before.prepare(big)
    assert state(before) == old
    make_room(before)
    before.prepare(big)
    fill_up(before)
    huge = [revision(seq, f"b{seq}", value="x" * 9000, agents=(f"a{seq}",)) for seq in range(3, 60)]
    with pytest.raises(JournalUnusable, match="full"):
        before.finish(replace(big, revisions=huge))
    assert before.seq == 2
    assert before.prepared() is not None
    make_room(before)
    before.finish(big)
    assert before.since(2, 99) == of_requests()
    assert before.outcome("ann", "r-49") == "x" * 5000


def test_block_that_came_and_went_in_one_go_is_remembered(journal: Journal) -> None:
    """Created and renamed, or deleted, by one batch: no file ever said it, but its versions are used up."""
    made = [
        revision(1, "first", value="x"),
        replace(revision(2, "second", kind="renamed", version=2, value="x"), renamed_from="first"),
        revision(3, "third", value="x"),
        revision(4, "third", kind="deleted", version=2),
    ]
    whole = Prepared(made, {"second": "second.md"}, (), {}, THEN)
    journal.prepare(whole)
    journal.finish(whole)
    assert {head.label: (head.version, head.path) for head in journal.heads()} == {
        "first": (1, None),
        "second": (2, "second.md"),
        "third": (2, None),
    }


# --- renamed blocks ---


def renamed(journal: Journal) -> list[Revision]:
    """a (2 versions) → b → c, and another block by the name of a since."""
    made = [
        revision(1, "a", value="1"),
        revision(2, "a", kind="updated", version=2, value="2"),
        replace(revision(3, "b", kind="renamed", version=3, value="2"), renamed_from="a"),
        revision(4, "a", version=3, value="another"),
        revision(5, "b", kind="updated", version=4, value="4"),
        replace(revision(6, "c", kind="renamed", version=5, value="4"), renamed_from="b"),
    ]
    journal.append(made, {"a": ("a.md", None), "b": ("b.md", None), "c": ("c.md", None)})
    return made


def test_history_goes_on_through_renames(journal: Journal) -> None:
    """That of the block, not of the label: what another block was by that name since, or before, is not part of it."""
    made = renamed(journal)
    assert [one.seq for one in journal.history("c")] == [6, 5, 3, 2, 1]
    assert [one.seq for one in journal.history("b")] == [5, 3, 2, 1]
    assert [one.seq for one in journal.history("a")] == [4, 2, 1]
    assert [[one.seq for one in journal.history("c", limit=n)] for n in range(4)] == [[], [6], [6, 5], [6, 5, 3]]
    assert [journal.version("c", number) for number in range(1, 6)] == [made[0], made[1], made[2], made[4], made[5]]
    assert journal.version("a", 3) == made[3]
    assert journal.version("c", 6) is None
    assert journal.version("none", 1) is None
    assert {head.label: head.path for head in journal.heads()} == {"a": "a.md", "b": None, "c": "c.md"}


def test_history_ends_where_it_was_pruned(journal: Journal) -> None:
    """Across a rename, too."""
    renamed(journal)
    journal.prune(["b"], versions=1)
    assert [one.seq for one in journal.history("c")] == [6, 5]
    assert journal.version("c", 1) is None
    assert journal.version("c", 4) is not None


def test_positions_are_those_kept(journal: Journal) -> None:
    """Of each version under a label where undo or redo went by it."""
    made = [*chain(3), replace(revision(4, kind="updated", version=4, value="x"), position=2)]
    put(journal, *made)
    assert journal.positions("notes") == {1: None, 2: None, 3: None, 4: 2}
    journal.prune(["notes"], versions=2)
    assert journal.positions("notes") == {3: None, 4: 2}
    assert journal.positions("none") == {}


def test_unmerged_are_stale_saves_at_the_head(journal: Journal) -> None:
    """Of blocks in force, until something follows."""
    stale = replace(revision(2, kind="updated", version=2, value="x"), stale_base=1)
    put(journal, revision(1, value="x"), stale)
    assert journal.unmerged() == ["notes"]
    put(journal, revision(3, kind="updated", version=3, value="y"))
    assert journal.unmerged() == []
    put(journal, replace(stale, seq=4, version=4))
    put(journal, revision(5, kind="deleted", version=5))
    assert journal.unmerged() == []


# --- journals of before ---


@pytest.mark.parametrize("schema", range(1, len(_MIGRATIONS)))
def test_older_journal_is_brought_up_to_date(path: str, schema: int) -> None:
    """With all that it holds, its epoch, and its schema named; what came since works on it."""
    old = sqlite3.connect(path, isolation_level=None)
    for migration in _MIGRATIONS[:schema]:
        for statement in migration.split(";"):
            old.execute(statement)
    old.execute(f"PRAGMA user_version={schema}")
    old.executemany("INSERT INTO meta VALUES (?, ?)", [("epoch", "e" * 32), ("boot_id", "boot"), ("clean", 1)])
    old.execute("INSERT INTO agent_lists VALUES (1, x'00', 'ann,bob')")
    old.execute(
        "INSERT INTO revisions (seq, label, version, kind, value, facts, entries, agents, fields, attached, detached, "
        "digest, author, at, created_at) VALUES (1, 'notes', 1, 'created', 'one', ?, 1, 1, '', '', '', 'd', 'file', ?, ?)",
        (revision(1, value="one").block.facts, THEN, THEN),  # type: ignore[union-attr]  # it has one
    )
    old.execute("INSERT INTO heads VALUES ('notes', 1, 1, 1, 1, 'notes.md', 1, 2, 3, 4)")
    old.close()
    journal = Journal(path, boot_id="boot")
    assert (journal.opened.how, journal.epoch, journal.seq) == ("ok", "e" * 32, 1)
    (found,) = journal.history("notes")
    assert found.block is not None
    assert (found.block.value, found.block.agents) == ("one", ("ann", "bob"))
    assert found.agents == {"ann", "bob"}
    assert (found.renamed_from, found.position, found.reverts, found.stale_base) == (None, None, (), None)
    assert (journal.open_files(), journal.outcome("ann", "r-1"), journal.prepared()) == ([], None, None)
    (head,) = journal.heads()
    assert (head.path, head.signature) == ("notes.md", (1, 2, 3, 4))
    whole = replace(prepared(), revisions=[replace(one, seq=one.seq - 1) for one in of_requests()])
    journal.prepare(whole)
    journal.finish(whole)
    assert journal.seq == 5
    journal.close()
    reader = JournalReader(path)
    assert reader.seq == 5
    reader.close()


# --- what agents asked for ---


def test_journal_of_an_older_schema_is_brought_up_to_date(path: str) -> None:
    """What it holds stays, and what is new is there."""
    db = sqlite3.connect(path)
    for statement in _MIGRATIONS[0].split(";"):
        db.execute(statement)
    db.execute("PRAGMA user_version=1")
    db.execute("INSERT INTO meta VALUES ('epoch', 'old'), ('boot_id', 'boot'), ('clean', 1)")
    db.commit()
    db.close()
    with pytest.raises(JournalUnusable, match="of schema 1"):
        JournalReader(path)
    opened = Journal(path, boot_id="boot")
    assert (opened.epoch, opened.opened.how) == ("old", "ok")
    opened.settle([Access("ann", "manuals/a.txt", AT)], {("ann", "r-1"): "done"}, AT)
    opened.close()
    JournalReader(path).close()


def test_accesses_and_outcomes_are_kept_together(path: str, journal: Journal) -> None:
    """Opened, renewed, closed; each request by its actor. All of it is there after a crash."""
    later = AT.replace("09:", "10:")
    journal.settle(
        [Access("ann", "m/a", AT), Access("bob", "m/a", AT), Access("ann", "m/b", AT)],
        {("ann", "r-1"): "one", ("bob", "r-1"): "two"},
        AT,
    )
    journal.settle([Access("ann", "m/a", later), Access("ann", "m/b", None)], {("ann", "r-2"): "three"}, later)
    journal._db.close()
    again = Journal(path, boot_id="boot")
    assert sorted(again.open_files()) == [Access("ann", "m/a", later), Access("bob", "m/a", AT)]
    found = [again.outcome(*key) for key in (("ann", "r-1"), ("bob", "r-1"), ("ann", "r-2"), ("bob", "r-2"))]
    assert found == ["one", "two", "three", None]
    again.forget_requests(later)
    assert (again.outcome("ann", "r-1"), again.outcome("ann", "r-2")) == (None, "three")
    again.close()


def test_requests_are_settled_all_or_nothing(journal: Journal) -> None:
    """One outcome is there already: neither the other nor what they did is written."""
    journal.settle([], {("ann", "r-1"): "one"}, AT)
    with pytest.raises(JournalUnusable):
        journal.settle([Access("ann", "m/a", AT)], {("ann", "r-2"): "two", ("ann", "r-1"): "again"}, AT)
    assert journal.open_files() == []
    assert journal.outcome("ann", "r-2") is None
    put(journal, *chain(1))


def test_only_requests_wait_for_the_disk(journal: Journal) -> None:
    """A revision read from a file needs no fsync: the file is the truth. What was asked for has no other copy."""

    def synchronous() -> int:
        (level,) = journal._db.execute("PRAGMA synchronous").fetchone()
        return int(level)

    levels: list[int] = []
    journal._db.set_trace_callback(lambda statement: levels.append(synchronous()) if statement == "COMMIT" else None)
    put(journal, *chain(1))
    journal.settle([], {("ann", "r-1"): "one"}, AT)
    journal._db.set_trace_callback(None)
    assert levels == [1, 2]
    assert synchronous() == 1
