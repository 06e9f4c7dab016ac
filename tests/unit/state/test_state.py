"""What is in force, and which revisions follow when that changes: beside a real journal, without a folder."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.model.block import Block
from blocksd.state.state import Ledger

if TYPE_CHECKING:
    from blocksd.journal.journal import Journal
    from blocksd.model.revision import Revision

NOW = 1_800_000_000.0


class Book:
    """A ledger, and what is done with it between two looks at the journal."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.ledger = Ledger(journal, wall=lambda: NOW)
        self.ledger.begin()

    def put(self, label: str, value: str = "", *, agents: tuple[str, ...] = (), **facts: Any) -> bool:
        self.ledger.enforce(label, f"{label}.md")
        return self.ledger.put(Block(label, value, agents=agents), **facts)

    def rename(self, old: str, new: str) -> None:
        block = self.ledger.block(old)
        assert block is not None
        block = Block(new, block.value, agents=block.agents)
        self.ledger.rename(block, old=old, path=f"{new}.md", author="operator", request_id="r-1")

    def settle(self) -> list[Revision]:
        """Journal what was drafted, and let another ledger see that it holds the same."""
        self.ledger.follow_folders()
        files = {label: (path, None) for label, path in self.ledger.paths.items()}
        self.journal.append(self.ledger.drafted, files)
        done = self.ledger.settle()
        other = Ledger(self.journal, wall=lambda: NOW)
        other.load(self.ledger.attachments.folders)
        assert view(other) == view(self.ledger)
        self.ledger.begin()
        return done

    @property
    def drafts(self) -> list[tuple[str, str, int]]:
        return [(one.kind, one.label, one.version) for one in self.ledger.drafted]


def view(ledger: Ledger) -> dict[str, Any]:
    """All that can be asked of a ledger."""
    return {
        "paths": dict(ledger.paths),
        "labels": dict(ledger.labels),
        "newest": {label: ledger.newest(label) for label in ledger._versions},
        "blocks": {label: ledger.block(label) for label in ledger._versions},
        "attached": dict(ledger.attachments.attached),
        "refused": dict(ledger.attachments.refused),
        "known": ledger.attachments.known,
        "folders": ledger.attachments.folders,
        "holders": {label: ledger.holder(label.upper()) for label in ledger._versions},
    }


@pytest.fixture
def book(journal: Journal) -> Book:
    return Book(journal)


def test_block_comes_changes_and_goes(book: Book) -> None:
    """Each is a revision, numbered in one row; that it says the same is none; versions go on when it comes again."""
    assert book.put("notes", "1")
    assert not book.put("notes", "1")
    assert book.put("notes", "2", author="ann", request_id="r-1")
    book.ledger.delete("notes")
    assert book.ledger.block("notes") is None
    assert book.put("notes", "2")
    assert book.drafts == [
        ("created", "notes", 1),
        ("updated", "notes", 2),
        ("deleted", "notes", 3),
        ("created", "notes", 4),
    ]
    done = book.settle()
    assert [one.seq for one in done] == [1, 2, 3, 4]
    assert (done[1].author, done[1].request_id, done[1].fields) == ("ann", "r-1", ("value",))
    assert book.put("notes", "3")
    assert book.drafts == [("updated", "notes", 5)]


def test_drafts_are_there_at_once(book: Book) -> None:
    """Whoever asks for the newest, or for a version, gets what is drafted, too."""
    book.put("notes", "1")
    book.settle()
    book.put("notes", "2")
    found = [book.ledger.version("notes", number) for number in (1, 2)]
    assert [one.block.value for one in found if one is not None and one.block is not None] == ["1", "2"]
    assert book.ledger.version("notes", 3) is None
    newest = book.ledger.newest("notes")
    assert newest is not None
    assert newest.version == 2
    assert book.ledger.newest("none") is None


def test_what_could_not_be_journaled_is_forgotten(book: Book) -> None:
    """Blocks, labels, versions, and agents that became known by it."""
    book.put("notes", "1", agents=("*",))
    book.settle()
    before = view(book.ledger)
    book.put("notes", "2", agents=("*", "ann"))
    book.put("agents/zoe/diary", "x")
    book.rename("notes", "moved")
    book.ledger.set_folders({"bob"})
    book.ledger.follow_folders()
    assert book.ledger.drafted
    book.ledger.begin_again()
    assert view(book.ledger) == before
    assert book.ledger.drafted == []
    book.ledger.set_folders({"bob"})
    book.settle()
    book.ledger.begin_again()
    assert book.ledger.attachments.folders == {"bob"}, "that was settled"


def test_renamed_block_takes_everything_along(book: Book) -> None:
    """Its version goes on, above those of whatever had the label before; the old label is free."""
    for value in ("1", "2", "3"):
        book.put("notes", value, agents=("ann",))
    book.put("other", "x")
    book.ledger.delete("other")
    book.settle()
    book.rename("notes", "other")
    (moved,) = book.settle()
    assert (moved.kind, moved.label, moved.renamed_from, moved.version) == ("renamed", "other", "notes", 4)
    assert (moved.attached, moved.detached, moved.agents) == ((), (), frozenset({"ann"}))
    assert (book.ledger.holder("notes"), book.ledger.holder("OTHER")) == (None, "other")
    assert book.put("notes", "again")
    assert book.drafts == [("created", "notes", 4)]
    book.settle()
    assert [one.seq for one in book.journal.history("other")] == [6, 3, 2, 1]


def test_block_that_comes_and_moves_at_once(book: Book) -> None:
    """Its first label's versions are used up all the same."""
    book.put("first", "x")
    book.rename("first", "second")
    book.settle()
    book.put("first", "y")
    assert book.drafts == [("created", "first", 2)]
    book.settle()


def test_agents_that_match_come_by_a_revision_of_their_own(book: Book) -> None:
    """It changes no text and is no edit: it stands where the one before it stood."""
    book.put("open", "x", agents=("*",))
    book.put("open", "y", agents=("*",))
    book.put("notes", "x", agents=("ann",))
    book.ledger.put(Block("open", "x", agents=("*",)), author="operator", position=1)
    book.put("more", "x", agents=("bob",))
    done = [one for one in book.settle() if one.label == "open"]
    assert [(one.version, one.position, one.fields) for one in done] == [
        (1, None, ("value", "agents")),
        (2, None, ("value",)),
        (3, 2, ("agents",)),
        (4, 1, ("value",)),
        (5, 1, ("agents",)),
    ]
    assert [one.attached for one in done] == [(), (), ("ann",), (), ("bob",)]


def test_stale_save_stays_one_when_agents_come(book: Book) -> None:
    """It is still to be merged, also after a crash."""
    book.put("open", "x", agents=("*",))
    book.put("open", "y", agents=("*",), stale_base=1)
    book.put("notes", "x", agents=("ann",))
    book.settle()
    assert book.journal.unmerged() == ["open"]


def test_private_block_makes_its_agent_known(book: Book) -> None:
    """Patterns name it from then on; its folder may outlive its blocks."""
    book.put("open", "x", agents=("*",))
    book.put("agents/ann/persona", "x")
    book.ledger.follow_folders()
    assert book.drafts == [("created", "open", 1), ("created", "agents/ann/persona", 1), ("updated", "open", 2)]
    assert book.ledger.attachments.attached["open"] == {"ann"}
    book.settle()
    book.ledger.delete("agents/ann/persona")
    assert book.ledger.attachments.known == {"ann"}
    book.settle()
    assert book.ledger.set_folders([])
    book.ledger.follow_folders()
    assert [one.detached for one in book.ledger.drafted] == [("ann",)]
    book.settle()


def test_other_spelling_of_a_label_is_held(book: Book) -> None:
    """As long as the block is in force, under the label it has by then."""
    book.put("Straße", "x")
    assert book.ledger.holder("STRASSE") == "Straße"
    book.settle()
    book.rename("Straße", "weg")
    assert book.ledger.holder("strasse") is None
    assert book.ledger.holder("WEG") == "weg"
    book.settle()


def test_file_of_another_spelling_takes_over(book: Book) -> None:
    """The label stays in force; it is another file that says it."""
    book.put("notes", "x")
    book.settle()
    book.ledger.enforce("notes", "Notes.md")
    assert (book.ledger.paths, book.ledger.labels) == ({"notes": "Notes.md"}, {"Notes.md": "notes"})
    assert not book.ledger.put(Block("notes", "x"))


# --- what was drafted is taken back ---

LABELS = ("notes", "Plan", "persona", "agents/ann/persona", "agents/bob/persona", "agents/ann/plan")
ENTRIES = ((), ("ann",), ("*",), ("b*", "zoe"), ("ann", "bob"))


def change(book: Book, dice: random.Random) -> None:
    """Draft something, as looks at files and requests do."""
    ledger, label = book.ledger, dice.choice(LABELS)
    deed = dice.randrange(6)
    if deed < 3:
        agents = () if label.startswith("agents/") else dice.choice(ENTRIES)
        book.put(label, str(dice.randrange(3)), agents=agents)
        ledger.signatures[f"{label}.md"] = (dice.randrange(9), 1, 1, 1)
    elif deed == 3 and label in ledger.paths:
        ledger.delete(label)
    elif deed == 4 and label in ledger.paths:
        new = dice.choice(LABELS)
        if new not in ledger.paths and new.startswith("agents/") == label.startswith("agents/"):
            book.rename(label, new)
    elif deed == 5:
        ledger.set_folders(ledger.attachments.owners | set(dice.choice(((), ("ann",), ("cyd", "dan")))))
        ledger.follow_folders()


def all_of(ledger: Ledger) -> dict[str, Any]:
    """All that can be asked of a ledger, and what it remembers for later."""
    inner = {name: dict(getattr(ledger.attachments, name)) for name in ("_entries", "_named")}
    private = {name: set(owners) for name, owners in ledger.attachments._private.items()}
    return (
        view(ledger)
        | inner
        | {
            "private": private,
            "patterned": set(ledger.attachments._patterned),
            "signatures": dict(ledger.signatures),
            "moved": dict(ledger._moved),
            "come": set(ledger._come),
            "drafts": list(ledger.drafted),
        }
    )


@pytest.mark.parametrize("seed", range(25))
def test_a_draft_is_taken_back_as_if_it_never_was(book: Book, seed: int) -> None:
    """Whatever was drafted: all of it, and then the ledger is as one that was just loaded; or all since a mark."""
    dice = random.Random(seed)
    for _ in range(4):
        for _ in range(dice.randrange(6)):
            change(book, dice)
        book.settle()
        settled = all_of(book.ledger)
        for _ in range(dice.randrange(6)):
            change(book, dice)
        mark, before = book.ledger.mark, all_of(book.ledger)
        for _ in range(dice.randrange(8)):
            change(book, dice)
        book.ledger.back_to(mark)
        assert all_of(book.ledger) == before
        book.ledger.begin_again()
        assert all_of(book.ledger) == settled
        loaded = Ledger(book.journal, wall=lambda: NOW)
        loaded.load(book.ledger.attachments.folders)
        assert view(loaded) == view(book.ledger)
        book.ledger.begin()


def test_taking_a_draft_back_costs_what_was_drafted(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks in force are not read again for it, however many there are."""
    for number in range(50):
        book.put(f"b{number}", "x", agents=("*",))
    book.settle()
    monkeypatch.setattr(book.journal, "heads", lambda: pytest.fail("all blocks were read"))
    mark = book.ledger.mark
    book.put("b7", "y")
    assert book.ledger.mark - mark < 20
    book.ledger.begin_again()
    newest = book.ledger.newest("b7")
    assert newest is not None
    assert (newest.version, book.ledger.drafted, book.ledger.mark) == (1, [], 0)
