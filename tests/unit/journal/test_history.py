from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.journal.heads import Head
from blocksd.journal.history import JournalReader
from blocksd.model.attachment import NOBODY
from journaled import SIGNATURE, chain, prune, put
from rig import revision

if TYPE_CHECKING:
    from blocksd.journal.journal import Journal
    from blocksd.model.revision import Revision


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


def test_history_is_newest_first(journal: Journal) -> None:
    """The history of a label has all of its revisions, deletions included, and no other's."""
    revisions = chain(3)
    put(journal, *revisions, revision(4, "other", value="x"), revision(5, kind="deleted", version=4))
    assert [past.version for past in journal.history("notes")] == [4, 3, 2, 1]
    assert journal.history("notes", limit=2)[1] == revisions[2]
    assert journal.history("nothing") == []


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


def test_old_label_leads_to_the_newest(journal: Journal) -> None:
    """Through all renames since; a label that a block has, or had until it was deleted, leads nowhere."""

    def leads() -> list[str | None]:
        return [journal.renamed_to(label) for label in ("a", "b", "c", "d")]

    put(journal, revision(1, "a", value="1"))
    put(journal, replace(revision(2, "b", kind="renamed", version=2, value="1"), renamed_from="a"))
    put(journal, replace(revision(3, "a", kind="renamed", version=3, value="1"), renamed_from="b"))
    assert leads() == [None, "a", None, None]
    put(journal, replace(revision(4, "c", kind="renamed", version=4, value="1"), renamed_from="a"))
    assert leads() == ["c", "c", None, None]
    put(journal, revision(5, "c", kind="deleted", version=5))
    assert leads() == ["c", "c", None, None]
    put(journal, revision(6, "a", version=5, value="2"))
    assert leads() == [None, "c", None, None]
    put(journal, revision(7, "a", kind="deleted", version=6))
    assert leads() == [None, "c", None, None]


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
    assert journal.positions("c") == {1: None, 2: None, 3: None, 4: None, 5: None}
    assert journal.positions("a") == {3: None}, "versions 1 and 2 are another block's by now"
    assert {head.label: head.path for head in journal.heads()} == {"a": "a.md", "b": None, "c": "c.md"}


def test_version_is_that_of_the_block_before_that_of_the_label(journal: Journal) -> None:
    """b is deleted, and a becomes b: a number that both have used means the version that history shows."""
    made = [
        revision(1, "b", value="old"),
        revision(2, "b", kind="updated", version=2, value="older"),
        revision(3, "b", kind="deleted", version=3),
        revision(4, "a", value="1"),
        replace(revision(5, "b", kind="renamed", version=4, value="1"), renamed_from="a", position=1),
    ]
    journal.append(made, {"a": ("a.md", None), "b": ("b.md", None)})
    assert [one.seq for one in journal.history("b")] == [5, 4]
    assert journal.version("b", 1) == made[3]
    assert journal.version("b", 2) == made[1], "no other has this number, and nothing is out of reach"
    assert journal.positions("b") == {1: None, 4: 1}


def test_history_ends_where_it_was_pruned(journal: Journal) -> None:
    """Across a rename, too."""
    renamed(journal)
    prune(journal, "b", versions=1)
    assert [one.seq for one in journal.history("c")] == [6, 5]
    assert journal.version("c", 1) is None
    assert journal.version("c", 4) is not None


def test_positions_are_those_kept(journal: Journal) -> None:
    """Of each version under a label where undo or redo went by it."""
    made = [*chain(3), replace(revision(4, kind="updated", version=4, value="x"), position=2)]
    put(journal, *made)
    assert journal.positions("notes") == {1: None, 2: None, 3: None, 4: 2}
    prune(journal, "notes", versions=2)
    assert journal.positions("notes") == {3: None, 4: 2}
    assert journal.positions("none") == {}


def test_start_looks_at_the_few_stale_saves_alone(journal: Journal) -> None:
    """And not at each newest revision, with its text."""
    asked: list[str] = []
    journal.database.connection.set_trace_callback(asked.append)
    journal.unmerged()
    journal.database.connection.set_trace_callback(None)
    (question,) = [text for text in asked if "stale_base" in text]
    plan = [row[-1] for row in journal.database.execute(f"EXPLAIN QUERY PLAN {question}")]
    assert "revisions_stale" in plan[0]
    assert plan[1].startswith("SEARCH heads")


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


# --- readers beside the writer ---


def test_reader_sees_what_is_committed(journal: Journal) -> None:
    """Another process may read beside the writer: all that is committed, nothing that is not, without waiting."""
    journal.append(chain(1), {"notes": ("notes.md", SIGNATURE)})
    reader = JournalReader(journal.path)
    assert (reader.seq, reader.count()) == (1, 1)
    journal.database.execute("BEGIN IMMEDIATE")
    journal.database.execute("UPDATE revisions SET author = 'nobody'")
    assert [past.author for past in reader.history("notes")] == ["file"]
    journal.database.execute("ROLLBACK")
    put(journal, revision(2, kind="updated", version=2, value="later"))
    assert [past.version for past in reader.history("notes")] == [2, 1]
    reader.close()


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
