"""What is in force, and which revisions follow when that changes: beside a real journal, without a folder."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from blocksd.model.block import Block, block_id
from blocksd.model.revision import timestamp
from blocksd.state.state import State
from blocksd.state.state_draft import StateDraft

if TYPE_CHECKING:
    from blocksd.journal.journal import Journal
    from blocksd.model.revision import Revision

NOW = 1_800_000_000.0


class Book:
    """The state, and a draft on top of it."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.state = State(journal)
        self.begin()

    def begin(self) -> None:
        """Throw the draft away, and begin another one."""
        self.draft = StateDraft(self.state, timestamp(NOW))

    def put(self, label: str, value: str = "", *, agents: tuple[str, ...] = (), **facts: Any) -> bool:
        self.draft.enforce(label, f"{label}.md")
        return self.draft.put(Block(label, value, agents=agents), **facts)

    def rename(self, old: str, new: str) -> None:
        block = self.draft.block(old)
        assert block is not None
        block = Block(new, block.value, agents=block.agents)
        self.draft.rename(block, old=old, path=f"{new}.md", author="operator", request_id="r-1")

    def settle(self) -> list[Revision]:
        """Journal what was drafted, put it into force, and see that a state that is loaded is the same."""
        self.draft.follow_folders()
        done, below = self.draft.revisions, self.draft.below
        before = [*below.revisions, *done] if below is not None else done
        paths = {label: self.draft.path_of(label) for label in self.draft.in_force()}
        self.journal.append(before, {label: (path, None) for label, path in paths.items() if path is not None})
        if below is not None:
            below.apply()
        self.draft.apply()
        other = State(self.journal)
        other.load(self.state.attachments.folders)
        assert view(other) == view(self.state)
        self.begin()
        ids = [self.id_of(label) for label in self.state.paths]
        assert len(set(ids)) == len(ids), "two blocks have one id"
        return before

    def id_of(self, label: str) -> str:
        newest = self.draft.newest(label)
        assert newest is not None
        assert newest.origin == self.draft.origin_of(label)
        return newest.id

    @property
    def drafts(self) -> list[tuple[str, str, int]]:
        return [(one.kind, one.label, one.version) for one in self.draft.revisions]


def view(state: State) -> dict[str, Any]:
    """All that can be asked of a state, or of a draft on top of it."""
    overlay = StateDraft(state, "")
    return seen_by(overlay) | {"labels": dict(state.labels)}


def seen_by(overlay: StateDraft) -> dict[str, Any]:
    """All that can be asked of a draft."""
    labels = {*LABELS, *overlay.in_force()}
    attachments = overlay.attachments
    return {
        "paths": {label: overlay.path_of(label) for label in labels},
        "in force": set(overlay.in_force()),
        "owners": {path: overlay.label_of(path) for path in (f"{label}.md" for label in labels)},
        "newest": {label: overlay.newest(label) for label in labels},
        "versions": {label: overlay.version_of(label) for label in labels},
        "blocks": {label: overlay.block(label) for label in labels},
        "origins": {label: overlay.origin_of(label) for label in labels},
        "attached": dict(attachments.attached),
        "refused": dict(attachments.refused),
        "known": attachments.known,
        "folders": attachments.folders,
        "holders": {label: overlay.holder(label.upper()) for label in labels},
        "entries": dict(attachments._entries),
        "named": dict(attachments._named),
        "private": {name: set(owners) for name, owners in attachments._private.items()},
        "patterned": set(attachments._patterned),
    }


@pytest.fixture
def book(journal: Journal) -> Book:
    return Book(journal)


def test_operator_is_named_in_their_own_revisions_alone(book: Book) -> None:
    """A stale save may be merged before what they ask for: that is not theirs, and so is nothing on top of their draft."""
    book.put("notes", "one")
    above = book.draft.branch(by="Zoë")
    above.put(Block("notes", "one two"), author="merge")
    above.put(Block("notes", "three"), author="operator")
    highest = above.branch()
    highest.put(Block("notes", "four"), author="operator")
    above.absorb(highest)
    book.draft.absorb(above)
    book.put("notes", "five", author="operator")
    assert [(one.author, one.by) for one in book.draft.revisions] == [
        ("file", None),
        ("merge", None),
        ("operator", "Zoë"),
        ("operator", None),
        ("operator", None),
    ]


def test_block_comes_changes_and_goes(book: Book) -> None:
    """Each is a revision, numbered in one row; that it says the same is none; versions go on when it comes again."""
    assert book.put("notes", "1")
    assert not book.put("notes", "1")
    assert book.put("notes", "2", author="ann", request_id="r-1")
    book.draft.delete("notes")
    assert book.draft.block("notes") is None
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
    found = [book.draft.version("notes", number) for number in (1, 2)]
    assert [one.block.value for one in found if one is not None and one.block is not None] == ["1", "2"]
    assert book.draft.version("notes", 3) is None
    newest = book.draft.newest("notes")
    assert newest is not None
    assert newest.version == 2
    assert book.draft.newest("none") is None


def test_what_could_not_be_journaled_is_forgotten(book: Book) -> None:
    """Blocks, labels, versions, and agents that became known by it."""
    book.put("notes", "1", agents=("*",))
    book.settle()
    before = view(book.state)
    book.put("notes", "2", agents=("*", "ann"))
    book.put("agents/zoe/diary", "x")
    book.rename("notes", "moved")
    book.draft.set_folders({"bob"})
    book.draft.follow_folders()
    assert book.draft.revisions
    assert view(book.state) == before
    book.begin()
    assert seen_by(book.draft) | {"labels": dict(book.state.labels)} == before
    book.draft.set_folders({"bob"})
    book.settle()
    assert book.draft.attachments.folders == {"bob"}, "that was put into force"


def test_renamed_block_takes_everything_along(book: Book) -> None:
    """Its version goes on, above those of whatever had the label before; the old label is free."""
    for value in ("1", "2", "3"):
        book.put("notes", value, agents=("ann",))
    book.put("other", "x")
    book.draft.delete("other")
    book.settle()
    book.rename("notes", "other")
    (moved,) = book.settle()
    assert (moved.kind, moved.label, moved.renamed_from, moved.version) == ("renamed", "other", "notes", 4)
    assert (moved.attached, moved.detached, moved.agents) == ((), (), frozenset({"ann"}))
    assert (book.draft.holder("notes"), book.draft.holder("OTHER")) == (None, "other")
    assert book.put("notes", "again")
    assert book.drafts == [("created", "notes", 4)]
    book.settle()
    assert [one.seq for one in book.journal.history("other")] == [6, 3, 2, 1]


@pytest.mark.parametrize("is_journaled", [False, True], ids=["drafted", "journaled"])
def test_past_of_a_renamed_block_is_known(book: Book, *, is_journaled: bool) -> None:
    """What others wrote, and what it has been, under the label that it had then."""
    book.put("notes", "one")
    book.settle()
    book.put("notes", "one\ntwo", author="operator", request_id="r-1")
    book.settle()
    book.draft.by_others("notes")  # it is remembered
    book.draft.rename(Block("moved", "one\ntwo"), old="notes", path="moved.md", author="file")
    if is_journaled:
        book.settle()
    assert book.draft.by_others("moved") == [2]
    assert book.draft.has_been(Block("moved", "one"))
    assert not book.draft.has_been(Block("moved", "two"))


def test_block_that_comes_and_moves_at_once(book: Book) -> None:
    """Its first label's versions are used up all the same."""
    book.put("first", "x")
    book.rename("first", "second")
    book.settle()
    book.put("first", "y")
    assert book.drafts == [("created", "first", 2)]
    book.settle()


def test_id_survives_renames(book: Book) -> None:
    """It is made of the label that the block was created under; who comes to a label whose id is held has the next one."""
    book.put("a", "x")
    book.settle()
    book.rename("a", "b")
    book.put("a", "y")
    book.settle()
    book.rename("b", "c")
    book.rename("a", "d")
    book.put("a", "z")
    book.put("b", "z")
    book.settle()
    ids = {label: book.id_of(label) for label in "abcd"}
    assert ids == {
        "a": block_id("a\n3"),
        "b": block_id("b"),
        "c": block_id("a"),
        "d": block_id("a\n2"),
    }
    book.put("c", "changed")
    book.settle()
    assert book.id_of("c") == block_id("a")
    assert all(one.id == block_id("a") for one in book.journal.history("c"))


def test_block_that_is_named_as_at_first_has_its_first_id(book: Book) -> None:
    """As if it had never had another name."""
    book.put("a", "x")
    book.rename("a", "b")
    book.settle()
    book.rename("b", "a")
    book.settle()
    assert (book.id_of("a"), book.state.origins) == (block_id("a"), {})
    book.put("b", "y")
    assert book.id_of("b") == block_id("b")
    book.settle()


def test_block_that_is_created_anew_has_its_id_again(book: Book) -> None:
    """Unless another block has it by then."""
    book.put("a", "x")
    book.rename("a", "b")
    book.settle()
    book.draft.delete("b")
    book.settle()
    assert book.journal.origins() == {}
    book.put("b", "y")
    book.settle()
    assert book.id_of("b") == block_id("a")
    book.draft.delete("b")
    book.put("a", "z")
    assert book.id_of("a") == block_id("a")
    book.put("b", "y")
    book.settle()
    assert book.id_of("b") == block_id("b")


def test_agents_that_match_come_by_a_revision_of_their_own(book: Book) -> None:
    """It changes no text and is no edit: it stands where the one before it stood."""
    book.put("open", "x", agents=("*",))
    book.put("open", "y", agents=("*",))
    book.put("notes", "x", agents=("ann",))
    book.draft.put(Block("open", "x", agents=("*",)), author="operator", position=1)
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
    book.draft.follow_folders()
    assert book.drafts == [("created", "open", 1), ("created", "agents/ann/persona", 1), ("updated", "open", 2)]
    assert book.draft.attachments.attached["open"] == {"ann"}
    book.settle()
    book.draft.delete("agents/ann/persona")
    assert book.draft.attachments.known == {"ann"}
    book.settle()
    assert book.draft.set_folders([])
    book.draft.follow_folders()
    assert [one.detached for one in book.draft.revisions] == [("ann",)]
    book.settle()


def test_other_spelling_of_a_label_is_held(book: Book) -> None:
    """As long as the block is in force, under the label it has by then."""
    book.put("Straße", "x")
    assert book.draft.holder("STRASSE") == "Straße"
    book.settle()
    book.rename("Straße", "weg")
    assert book.draft.holder("strasse") is None
    assert book.draft.holder("WEG") == "weg"
    book.settle()


def test_file_of_another_spelling_takes_over(book: Book) -> None:
    """The label stays in force; it is another file that says it."""
    book.put("notes", "x")
    book.settle()
    book.draft.enforce("notes", "Notes.md")
    found = book.draft.path_of("notes"), book.draft.label_of("Notes.md"), book.draft.label_of("notes.md")
    assert found == ("Notes.md", "notes", None)
    assert not book.draft.put(Block("notes", "x"))


# --- drafts are thrown away, or taken over by what is below ---

LABELS = ("notes", "Plan", "persona", "agents/ann/persona", "agents/bob/persona", "agents/ann/plan")
ENTRIES = ((), ("ann",), ("*",), ("b*", "zoe"), ("ann", "bob"))


def change(book: Book, dice: random.Random) -> None:
    """Draft something, as files and requests do."""
    draft, label = book.draft, dice.choice(LABELS)
    deed = dice.randrange(6)
    if deed < 3:
        agents = () if label.startswith("agents/") else dice.choice(ENTRIES)
        book.put(label, str(dice.randrange(3)), agents=agents)
        draft.signatures[f"{label}.md"] = (dice.randrange(9), 1, 1, 1)
    elif deed == 3 and draft.path_of(label) is not None:
        draft.delete(label)
    elif deed == 4 and draft.path_of(label) is not None:
        new = dice.choice(LABELS)
        if draft.path_of(new) is None and new.startswith("agents/") == label.startswith("agents/"):
            book.rename(label, new)
    elif deed == 5:
        draft.set_folders(draft.attachments.owners | set(dice.choice(((), ("ann",), ("cyd", "dan")))))
        draft.follow_folders()


@pytest.mark.parametrize("seed", range(25))
def test_a_draft_changes_nothing_below(book: Book, seed: int) -> None:
    """Whatever is drafted, the state and the draft below are as they were; thrown away, it is as if it never was."""
    dice = random.Random(seed)
    for _ in range(4):
        for _ in range(dice.randrange(6)):
            change(book, dice)
        book.settle()
        settled = view(book.state)
        for _ in range(dice.randrange(6)):
            change(book, dice)
        book.draft.follow_folders()
        below, before = book.draft, seen_by(book.draft)
        book.draft = below.branch()
        assert seen_by(book.draft) == before
        for _ in range(dice.randrange(8)):
            change(book, dice)
        assert seen_by(below) == before
        assert view(book.state) == settled
        loaded = State(book.journal)
        loaded.load(book.state.attachments.folders)
        assert view(loaded) == settled
        book.begin()


@pytest.mark.parametrize("seed", range(25))
def test_a_draft_is_taken_over_by_what_is_below(book: Book, seed: int) -> None:
    """By another draft, or, layer after layer, by the state: all that can be asked stays the same."""
    dice = random.Random(seed)
    for _ in range(4):
        for _ in range(dice.randrange(4)):
            change(book, dice)
        book.draft.follow_folders()
        below = book.draft
        for _ in range(3):
            book.draft = below.branch()
            for _ in range(dice.randrange(5)):
                change(book, dice)
            book.draft.follow_folders()
            after = seen_by(book.draft)
            below.absorb(book.draft)
            assert seen_by(below) == after
        book.draft = below.branch() if dice.randrange(2) else below
        for _ in range(dice.randrange(5)):
            change(book, dice)
        book.draft.follow_folders()
        after = seen_by(book.draft)
        book.settle()
        assert seen_by(book.draft) == after


def test_a_draft_costs_what_was_drafted(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks in force are not read or copied for it, however many there are, nor to throw it away."""
    for number in range(50):
        book.put(f"b{number}", "x", agents=("*",))
    book.settle()
    monkeypatch.setattr(book.journal, "heads", lambda: pytest.fail("all blocks were read"))
    book.put("b7", "y")
    held = [len(part) for part in (book.draft.paths, book.draft.labels, book.draft.signatures, book.draft.drafted)]
    assert max(held) == 1
    book.begin()
    newest = book.draft.newest("b7")
    assert newest is not None
    assert (newest.version, book.draft.revisions) == (1, [])


def test_newest_revision_is_read_once(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save asks for it several times. What is remembered is bounded, and always what the journal has."""
    for number in range(300):
        book.put(f"block-{number}", "one")
    book.settle()
    read = Mock(wraps=book.journal.head)
    monkeypatch.setattr(book.journal, "head", read)
    book.state.recent.clear()
    assert book.put("block-0", "two")
    assert [call.args for call in read.mock_calls] == [("block-0",)]
    book.settle()
    for label in [f"block-{number}" for number in range(300)]:
        assert book.state.newest(label) == book.journal.head(label)
    assert len(book.state.recent) == 256
    book.draft.delete("block-299")
    book.settle()
    deleted = book.state.newest("block-299")
    assert deleted is not None
    assert deleted.block is None
