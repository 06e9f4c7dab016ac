from __future__ import annotations

import itertools
import json
import os
import sqlite3
from dataclasses import replace

import pytest

from blocksd.errors import JournalUnusable, NotFound
from blocksd.journal.history import JournalReader
from blocksd.journal.journal import Journal
from journaled import SIGNATURE, chain, fill_up, lists_in, make_room, prune, put
from rig import revision

# --- writing and reading ---


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


def test_file_may_change_without_its_block(journal: Journal) -> None:
    """A file that was touched, or renamed to another spelling, is noted without a revision."""
    journal.append(chain(1, "n\u00f6tes"), {"n\u00f6tes": ("n\u00f6tes.md", None)})
    journal.append([], {"n\u00f6tes": ("no\u0308tes.md", SIGNATURE)})
    (head,) = journal.heads()
    assert (head.path, head.signature, journal.seq) == ("no\u0308tes.md", SIGNATURE, 1)


def test_block_may_change_without_its_file(journal: Journal) -> None:
    """A revision that other agents caused leaves the file that says the block as it was."""
    journal.append(chain(1), {"notes": ("notes.md", SIGNATURE)})
    put(journal, revision(2, kind="updated", version=2, agents=("ann",), attached=("ann",), value="x"))
    (head,) = journal.heads()
    assert (head.path, head.signature, head.version) == ("notes.md", SIGNATURE, 2)


def test_since_gives_all_that_follows(journal: Journal) -> None:
    """After a seq come all later revisions, in order, as many as asked for; after the last, or beyond it, none."""
    put(journal, *chain(5))
    assert [found.seq for found in journal.since(0, 3)] == [1, 2, 3]
    assert [found.seq for found in journal.since(3, 10)] == [4, 5]
    assert journal.since(5, 10) == []
    assert journal.since(9, 10) == []


def test_stored_json_keeps_unicode(journal: Journal) -> None:
    """What is stored can be read by other programs: plain JSON, unescaped."""
    put(journal, revision(1, description="naïve", metadata={"ü": 1}, value="x"))
    (text,) = journal.database.execute("SELECT facts FROM revisions").fetchone()
    assert "naïve" in text
    assert json.loads(text)["metadata"] == {"ü": 1}


# --- forgetting ---


def test_pruning_keeps_the_newest(journal: Journal) -> None:
    """Of the named labels only so many versions stay; other labels keep all of theirs."""
    put(journal, *chain(5), *chain(3, "other", start=6))
    assert prune(journal, "notes", versions=2) == 3
    assert [past.version for past in journal.history("notes")] == [5, 4]
    assert [past.version for past in journal.history("other")] == [3, 2, 1]
    assert journal.seq == 8


def test_pruning_keeps_every_head(journal: Journal) -> None:
    """However old, the newest revision of a label stays, also that of a deleted one."""
    put(journal, *chain(2), revision(3, kind="deleted", version=3), *chain(1, "other", start=4))
    prune(journal, "notes", "other", "unknown", versions=1, before="2999-01-01T00:00:00.000Z")
    assert [past.version for past in journal.history("notes")] == [3]
    assert journal.history("other") != []


def test_pruning_by_age(journal: Journal) -> None:
    """Revisions from before a moment are forgotten, younger ones stay."""
    old, young = chain(3), "2026-12-01T00:00:00.000Z"
    put(journal, old[0], replace(old[1], at=young), replace(old[2], at=young))
    assert prune(journal, "notes", versions=1000, before=young) == 1
    assert [past.version for past in journal.history("notes")] == [3, 2]


def test_pruned_revisions_cannot_be_replayed(journal: Journal) -> None:
    """Where a revision is missing, the journal says so: at the beginning of what was asked for or in the middle."""
    put(journal, revision(1, "first", value="x"), *chain(3, start=2), revision(5, "last", value="x"))
    assert journal.reaches_back(0)
    prune(journal, "notes", versions=1)
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
    prune(journal, "notes", versions=1000)
    kinds = [kind for (kind,) in journal.database.execute("SELECT typeof(value) FROM revisions ORDER BY seq")]
    assert kinds == ["blob", "blob", "blob", "text"]
    assert journal.history("notes") == revisions[::-1]
    prune(journal, "notes", versions=1000)
    assert journal.history("notes") == revisions[::-1]


# --- full disk, and checkpoints ---


def test_full_disk_writes_nothing(journal: Journal) -> None:
    """On a full disk a write fails as a whole: no revision, no head, no number; it works once there is room."""
    journal.append(chain(2), {"notes": ("notes.md", SIGNATURE)})
    heads = list(journal.heads())
    fill_up(journal)
    big = [revision(seq, f"b{seq}", agents=(f"a{seq}",), value="x" * 4_000) for seq in range(3, 40)]
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
    journal.database.execute("PRAGMA query_only=1")
    with pytest.raises(sqlite3.OperationalError):
        prune(journal, "notes", versions=1)
    assert len(journal.history("notes")) == 5
    journal.close()
    again = Journal(path, boot_id="two")
    assert again.opened.how == "unclean"
    assert len(again.history("notes")) == 5
    again.close()


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


MIB = 1024 * 1024


def flow(journal: Journal, count: int) -> int:
    """A constant flow of revisions, a quarter of a MiB each, with never an idle moment; how long the log's file became."""
    longest = 0
    for seq in range(journal.seq + 1, journal.seq + 1 + count):
        put(journal, revision(seq, f"b{seq}", value="x"))
        journal.database.execute("UPDATE revisions SET value = zeroblob(262144) WHERE seq = ?", (seq,))
        journal.insert((), more=262144)
        journal.bound_log()
        longest = max(longest, journal.log_bytes)
    return longest


def test_log_is_bounded_under_load(journal: Journal) -> None:
    """It is moved into the database between rounds, although there is always more to do; what is cut is not lost."""
    assert flow(journal, 130) < 18 * MIB
    assert journal.count() == 130


def test_log_that_a_reader_needs_does_not_stop_the_flow(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """It grows for as long as the reader reads, what can be moved is moved now and then, and then it is bounded again."""
    flow(journal, 10)
    reader = JournalReader(journal.path)
    reader.database.execute("BEGIN")
    assert reader.count() == 10
    moves: list[int] = []
    real = journal._move_log

    def move() -> bool:
        moves.append(journal.seq)
        return real()

    monkeypatch.setattr(journal, "_move_log", move)
    assert flow(journal, 110) > 25 * MIB
    assert 2 <= len(moves) < 10, "now and then"
    assert reader.count() == 10
    reader.close()
    flow(journal, 30)
    assert flow(journal, 80) < 18 * MIB
    assert journal.count() == 230


def test_long_log_is_cut_in_an_idle_moment(journal: Journal) -> None:
    """Unless it is read: then without waiting for the reader, another time."""
    reader = JournalReader(journal.path)
    flow(journal, 30)
    reader.database.execute("BEGIN")
    assert reader.count() == 30
    journal.checkpoint()
    assert journal.log_bytes > 7 * MIB
    reader.close()
    flow(journal, 30)
    journal.checkpoint()
    assert journal.log_bytes == 0
    assert journal.count() == 60


def test_own_checkpoints_are_no_alarm(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the log is moved, cut and begun anew, with readers and without: the file is as this process left it."""
    monkeypatch.setattr("blocksd.journal.journal._MOST_LOG_BYTES", 100_000)
    monkeypatch.setattr("blocksd.journal.journal._CHECKPOINT_CHARS", 50_000)
    for module in ("journal", "database", "opening"):
        monkeypatch.setattr(f"blocksd.journal.{module}.LOG_STEP_BYTES", 60_000)
    journal = Journal(path)
    readers: list[JournalReader] = []
    sizes = []
    for number in range(120):
        put(journal, *chain(10, f"b{number}", start=journal.seq + 1))
        journal.bound_log()
        journal.check_in_place()
        if number % 7 == 0:
            journal.checkpoint()
            journal.check_in_place()
        if number % 20 == 5:
            readers.append(JournalReader(path))
            list(readers[-1].heads())
        if number % 20 == 15:
            readers.pop().close()
        sizes.append(journal.log_bytes)
    assert sum(later < earlier for earlier, later in itertools.pairwise(sizes)) > 2, "the log was cut"
    os.utime(path)
    assert not journal.database.is_in_place
    assert journal.put_back() is None
    journal.check_in_place()
    journal.close()


@pytest.mark.parametrize("how", ["meta is gone", "opened again"])
def test_generation_outlives_damage(path: str, how: str) -> None:
    """A promoted leader whose journal is put together again must not take itself for the old one."""
    journal = Journal(path)
    epoch = journal.epoch
    journal.begin_generation(2)
    assert journal.epoch != epoch
    journal.note_generation(3)
    if how == "meta is gone":
        journal.database.execute("DELETE FROM meta WHERE key LIKE '%generation'")
        journal.repair()
    else:
        journal.database.execute("UPDATE heads SET version = 0 WHERE true")
        journal.database.execute("INSERT INTO heads (label, seq, version) VALUES ('x', 0, 0)")
    journal.database.close()
    again = Journal(path)
    assert (again.generation, again.newest_generation) == (2, 3)
    assert again.opened.how == ("damaged" if how == "opened again" else "ok")
    again.close()
