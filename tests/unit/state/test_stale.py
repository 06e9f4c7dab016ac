"""Saves of an old text: what they were made of, and what they mean together with what came since."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.core.decide import is_plain_save
from blocksd.errors import MergeConflict
from blocksd.journal.journal import Journal
from blocksd.model.block import Block
from blocksd.model.revision import FILE, MERGE, OPERATOR, timestamp
from blocksd.state import stale
from blocksd.state.reverts import Past, reverts_of
from blocksd.state.stale import Origin, is_within, merged, origin_of, stale_base
from blocksd.state.state import State
from blocksd.state.state_draft import StateDraft
from rig import AT, Clock, revision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from blocksd.model.revision import Revision

NOW = datetime.fromisoformat(AT).timestamp()
WINDOW = 5.0


def version(number: int, value: str, author: str = "file", *, ago: float = 0.0, **facts: Any) -> Revision:
    """A version of a block, written so many seconds ago."""
    fields = {name: facts.pop(name) for name in ("description", "tags") if name in facts}
    made = revision(number, kind="updated", version=number, value=value, **fields)
    return replace(made, author=author, at=timestamp(NOW - ago), **facts)


def saved_within(saved_at: float) -> Callable[[Revision, float], bool]:
    """Of writes in an earlier run: those of the last moments, by the time of day."""
    state = a_state(1000, Clock())
    return lambda revision, share: is_within(WINDOW * share, revision, saved_at, state, NOW)


def a_state(seq: int, clock: Clock) -> Any:
    """What is known in a run that began after this revision."""
    return SimpleNamespace(journal=SimpleNamespace(seq=seq), made_at={}, clock=clock)


def past(*versions: Revision) -> Past:
    """What is known of a block with these versions, the oldest first, before a save of this moment."""
    known = {one.version: one for one in versions}
    return Past(
        version=known.get,
        is_recent=saved_within(NOW),
        has_been=lambda block: any(one.block == block for one in versions),
        by_others=lambda: [one.version for one in reversed(versions) if one.author != FILE],
    )


def counting(versions: Sequence[Revision], read: list[int]) -> Callable[[int], Revision | None]:
    """Give a version, and note that it was read."""
    known = {one.version: one for one in versions}

    def version(number: int) -> Revision | None:
        read.append(number)
        return known.get(number)

    return version


def base_of(saved: str, *versions: Revision, **fields: Any) -> int | None:
    """The version a text was made of that is saved now."""
    found = stale_base(Block("notes", value=saved, **fields), versions[-1], past(*versions))
    return found.version if found is not None else None


# --- what it was made of ---


def test_save_after_a_save_is_not_stale() -> None:
    """Where nobody wrote on request, or not of late, there is nothing to be stale against."""
    assert base_of("x", version(1, "a"), version(2, "b")) is None
    assert base_of("x", version(1, "a"), version(2, "a\nb", "ann", ago=WINDOW + 1)) is None
    assert base_of("x", version(1, "a"), version(2, "a\nb", "ann"), version(3, "a\nb\nc")) is None


@pytest.mark.parametrize("author", ["ann", OPERATOR])
@pytest.mark.parametrize("ago", [0.0, WINDOW, -WINDOW])
def test_save_just_after_a_write_is_of_the_text_before(author: str, ago: float) -> None:
    """Whoever wrote it, and though the clock was set back by a moment."""
    assert base_of("a\nx", version(1, "a"), version(2, "a\nb", author, ago=ago)) == 1


def test_save_of_what_was_written_is_of_that() -> None:
    """An editor that has reloaded the file has read it: of the last moments' texts the most like it is meant."""
    versions = [version(1, "a"), version(2, "a\nb", "ann", ago=2), version(3, "a\nb\nc", "bob", ago=1)]
    assert base_of("a\nx", *versions) == 1
    assert base_of("a\nb\nx", *versions) == 2
    assert base_of("a\nb\nc\nx", *versions) == 3
    assert base_of("a\nx", version(1, "a", ago=99), version(2, "a\nb", "ann", ago=9), *versions[2:]) == 2


def test_other_fields_tell_too() -> None:
    """Of two versions with one text, the one whose description was read is meant."""
    versions = [version(1, "a"), version(2, "a", OPERATOR, description="d", tags=("t",)), version(3, "a\nb", "ann")]
    assert base_of("a", *versions, description="mine", tags=("t",)) == 2
    assert base_of("a", *versions, description="mine") == 1


def test_stale_save_that_is_still_to_be_merged_is_passed_over() -> None:
    """As often as an editor saves its buffer, it is made of what it had read at first."""
    versions = [version(1, "a"), version(2, "a\nb", "ann"), version(3, "a\nx", stale_base=1)]
    assert base_of("a", *versions) == 1


def test_agents_that_come_are_passed_over() -> None:
    """That a pattern names one agent more is no save."""
    versions = [version(1, "a"), version(2, "a\nb", "ann"), version(3, "a\nb", position=2)]
    assert base_of("a\nx", *versions) == 1
    assert base_of("a\nx", version(1, "a"), version(2, "a", position=1)) == 1  # with which there is nothing to merge


def test_save_that_says_what_a_write_said_was_made_of_it() -> None:
    """A program that takes out one of two agents' lines has read both, however long the other one is."""
    versions = [version(1, "a"), version(2, "a\nb\nc\nd", "ann"), version(3, "a\nb\nc\nd\ne", "bob")]
    assert base_of("a\ne", *versions) == 3
    assert base_of("a\nb", *versions) == 2
    assert base_of("a", *versions) == 1


def test_what_many_texts_have_tells_nothing() -> None:
    """A line that was there before, or has neither letter nor digit, or came back, is not read out of a write."""
    assert base_of("x\n---\n", version(1, "x"), version(2, "x\nb\nc\n---\n", "ann")) == 1
    assert base_of("a\nb", version(1, "a\nb"), version(2, "a\nc\nd", "ann"), version(3, "a\nb\nc\nd", "bob")) == 1


def test_other_fields_of_a_write_tell_that_it_was_read() -> None:
    """An agent came by request; who took a line out with it there has read that."""
    versions = [
        version(1, "a"),
        version(2, "a\nb", "ann"),
        replace(version(3, "a\nb", OPERATOR), block=block("a\nb", agents=("bob",))),
    ]
    assert base_of("a", *versions, agents=("bob",)) == 3
    assert base_of("a", *versions) == 1


@pytest.mark.parametrize(("ago", "base"), [(4.0, 4), (2.0, 3)])
def test_save_after_a_merge_is_of_the_merge(ago: float, base: int) -> None:
    """What it has brought back once, and is taken out again, stays out; but nobody has read a merge of just now."""
    versions = [
        version(1, "a"),
        version(2, "a\nb", "ann", ago=ago),
        version(3, "x\na", stale_base=1, ago=ago),
        version(4, "x\na\nb", MERGE, ago=ago),
        version(5, "x\na\nb\nc", "bob"),
    ]
    assert base_of("x\na\ny", *versions[:-1]) == base
    assert base_of("x\na\ny", *versions) == base


def test_few_characters_are_gone_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many agents have written long texts: then the oldest that was read stands for those before."""
    monkeypatch.setattr(stale, "MOST_CHARS", 50)
    texts = ["a", *("\n".join(["a", *"bcdefghijklmnopqrstuvw"[:number]]) for number in range(1, 20))]
    versions = [version(number, text, "ann" if number > 1 else FILE) for number, text in enumerate(texts, 1)]
    read: list[int] = []
    counted = past(*versions)._replace(version=counting(versions, read))
    found = stale_base(block("a\nx"), versions[-1], counted)
    assert found is not None
    assert len(read) < 5


def test_what_is_not_kept_is_no_base() -> None:
    """Nor is a deletion."""
    assert base_of("a\nx", version(2, "a\nb", "ann")) is None
    gone = replace(revision(1, kind="deleted", version=1), author="ann")
    assert base_of("a\nx", gone, version(2, "a\nb", "ann")) is None


# --- what it means ---


def block(value: str = "a", **fields: Any) -> Block:
    return Block("notes", value=value, **fields)


def test_both_texts_stay() -> None:
    """What was appended on request is there, and what was changed by hand."""
    assert merged(block("a"), block("x\na"), block("a\nb")) == block("x\na\nb")
    assert merged(block("a"), block("a\nx"), block("a\nb")).value.split("\n") in (["a", "b", "x"], ["a", "x", "b"])


def test_each_field_is_whose_changed_it() -> None:
    """And what both changed alike is no conflict."""
    base = block("a", description="d", tags=("t",), limit=10)
    saved = block("x", description="mine", tags=("t",), limit=20)
    newest = block("a", description="d", tags=("theirs",), limit=20)
    assert merged(base, saved, newest) == block("x", description="mine", tags=("theirs",), limit=20)
    assert merged(base, saved, newest).facts == block("x", description="mine", tags=("theirs",), limit=20).facts


def test_nothing_new_is_the_save_itself() -> None:
    """Where the newest has nothing that the save lacks."""
    saved = block("a\nb\nx")
    assert merged(block("a"), saved, block("a\nb")) == saved
    assert merged(block("a"), saved, block("a")) == saved
    assert merged(block("a"), saved, saved) is saved


@pytest.mark.parametrize("field", ["value", "description"])
def test_two_words_for_one_thing_conflict(field: str) -> None:
    """Then the person's word stands, which is for the caller to see to."""
    three = [block(**{field: text}) for text in ("old", "mine", "theirs")]
    with pytest.raises(MergeConflict):
        merged(three[0], three[1], three[2])


# --- what its revision says of that ---


def test_origin_is_told_of_stale_saves_alone() -> None:
    """One that can be merged names its base; one that cannot says what it undoes; of all others there is nothing to say."""
    versions = [version(1, "a"), version(2, "a\nb", "ann")]

    def origin(saved: str, *versions: Revision) -> Origin:
        return origin_of(block(saved), versions[-1], past(*versions))

    assert origin_of(block("a"), None, past()) == Origin()
    assert origin("a\nb", *versions) == Origin()
    assert origin("a\nb\nc", *versions) == Origin()
    assert origin("x\na", *versions) == Origin(stale_base=1)
    assert origin("x", version(1, "a"), version(2, "b", "ann")) == Origin(reverts=(2,))


def test_text_that_was_there_before_is_put_back() -> None:
    """However soon after a write: git checkout, undo in an editor, or a program that takes out what was appended."""
    versions = [version(1, "old"), version(2, "a"), version(3, "a\nb", "ann")]
    assert origin_of(block("a"), versions[-1], past(*versions)) == Origin(reverts=(3,))
    assert origin_of(block("old"), versions[-1], past(*versions)) == Origin(reverts=(3,))
    assert origin_of(block("a", tags=("x",)), versions[-1], past(*versions)) == Origin(stale_base=2)


def test_what_cannot_be_merged_for_its_length_stands() -> None:
    """And says so: nobody would hear of it when the merge is refused."""
    versions = [
        replace(version(1, "a"), block=block("a", limit=5)),
        replace(version(2, "a\nbb", "ann"), block=block("a\nbb", limit=5)),
    ]
    assert origin_of(block("xx\na", limit=5), versions[-1], past(*versions)) == Origin(reverts=(2,))


# --- what a save takes away ---


def reverts(saved: str, *versions: Revision, **fields: Any) -> tuple[int, ...]:
    """The versions whose text is gone with a save on top of these, long after them."""
    old = [replace(one, at=timestamp(NOW - 3600)) for one in versions]
    found = origin_of(block(saved, **fields), old[-1], past(*old))
    assert found.stale_base is None
    return found.reverts


def test_save_names_whose_text_it_takes_away() -> None:
    """Whenever it is made: all of a version's text, or a part of it; nothing of what people saved themselves."""
    versions = [
        version(1, "a"),
        version(2, "a\nb\nb2", "ann"),
        version(3, "a\nb\nb2\nc", OPERATOR),
        version(4, "a\nb\nb2\nc\nd"),
    ]
    assert reverts("a\nb\nb2\nc\ne", *versions) == ()
    assert reverts("a\nb2\nc\nd", *versions) == (2,)
    assert reverts("a\nb\nb2\nd", *versions) == (3,)
    assert reverts("e", *versions) == (2, 3)
    assert reverts("", version(1, "a", "ann")) == (1,)


def test_text_that_only_moves_is_not_taken_away() -> None:
    """Nor is the space around it."""
    versions = [version(1, "a"), version(2, "a\n  b  \n\nc", "ann")]
    assert reverts("c\nb\na", *versions) == ()


def test_what_was_gone_before_is_nobodys_loss() -> None:
    """A text that another request had replaced is named by that one alone."""
    versions = [version(1, "a"), version(2, "b", "ann"), version(3, "c", "bob"), version(4, "d")]
    assert reverts("mine", *versions[:3]) == (3,)
    assert reverts("mine", *versions) == ()


def test_fields_are_taken_away_too() -> None:
    """One agent of several, and a description."""
    versions = [
        version(1, "a"),
        replace(version(2, "a", OPERATOR), block=block("a", description="d", agents=("ann", "bob"))),
    ]
    assert reverts("a", *versions, description="d", agents=("ann",)) == (2,)
    assert reverts("a", *versions, description="e", agents=("ann", "bob")) == (2,)
    assert reverts("a", *versions, description="d", agents=("ann", "bob", "cyd")) == ()


def test_line_that_a_merge_brought_back_is_its_authors() -> None:
    """If that can be told; else the merge's."""
    versions = [
        version(1, "a"),
        version(2, "a\nb", "ann"),
        version(3, "x\na", stale_base=1),
        version(4, "x\na\nb", MERGE),
    ]
    assert reverts("x\na\ny", *versions) == (2,)
    assert reverts("x\na\ny", *versions[2:]) == (4,)


def test_few_versions_are_read_for_a_save(monkeypatch: pytest.MonkeyPatch) -> None:
    """None if nobody else wrote, and no more than so many characters of them."""
    versions = [version(number, "a" * number, "ann") for number in range(1, 9)]
    read: list[int] = []
    counted = past(*versions)._replace(version=counting(versions, read))
    assert reverts_of(block("x"), [block("nobody's")], counted) == ()
    assert len(read) == 2 * len(versions)
    read.clear()
    monkeypatch.setattr("blocksd.state.reverts.MOST_CHARS", 20)
    reverts_of(block("x"), [block("nobody's")], counted)
    assert 0 < len(read) < 8
    read.clear()
    assert reverts_of(block("x"), [block("y")], counted._replace(by_others=list)) == ()
    assert read == []


# --- how long ago a write was ---


class Running:
    """A run that began after the revision 10, and the two clocks that it has."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wall_offset = 0.0
        self.state = a_state(10, self.clock)

    def wall(self) -> float:
        return NOW + self.clock() + self.wall_offset

    def write(self, seq: int, author: str = "ann") -> Revision:
        made = replace(version(seq, "x", author), at=timestamp(self.wall()))
        self.state.journal.seq, self.state.made_at[seq] = seq, self.clock()
        return made

    def is_within(self, revision: Revision, saved_at: float) -> bool:
        return is_within(WINDOW, revision, saved_at, self.state, self.wall())


@pytest.mark.parametrize("offset", [0.0, 2 * 86_400.0, 3.0, -3.0, -2 * 86_400.0])
def test_write_is_recent_for_a_moment(offset: float) -> None:
    """Whatever the clock said when it was made, and what it says now: a person who saves later is not overruled."""
    running = Running()
    running.wall_offset = offset
    written = running.write(11)
    running.wall_offset = 0.0
    running.clock.advance(WINDOW - 0.1)
    assert running.is_within(written, running.wall())
    running.clock.advance(0.2)
    assert not running.is_within(written, running.wall())
    assert running.is_within(written, running.wall() - 1.0)  # it was saved before it is looked at


def test_clock_set_between_save_and_look_makes_no_write_recent() -> None:
    """But those of the last minutes."""
    running = Running()
    written = running.write(11)
    running.clock.advance(3600.0)
    saved_at = running.wall()
    running.wall_offset = 2 * 86_400.0
    assert not running.is_within(written, saved_at)


def test_writes_of_a_run_before_are_told_by_the_time_of_day() -> None:
    """Of a clock that was days ahead then, it cannot be told: a person is not overruled."""
    running = Running()
    written = replace(version(10, "x", "ann"), at=timestamp(running.wall() + 2 * 86_400.0))
    assert not running.is_within(written, running.wall())
    assert running.is_within(replace(written, at=timestamp(running.wall() - 1)), running.wall())


def test_writes_of_this_round_are_recent() -> None:
    """They have no time yet."""
    running = Running()
    assert running.is_within(version(99_999, "x", "ann"), running.wall())


def test_of_many_writes_the_oldest_are_told_by_the_time_of_day(tmp_path: Path) -> None:
    """What is remembered is bounded."""
    journal = Journal(str(tmp_path / "journal.db"))
    state = State(journal)
    draft = StateDraft(state, AT)
    draft.revisions = [version(seq, "x", "ann") for seq in range(1, 10_002)]
    draft.apply()
    journal.close()
    assert (len(state.made_at), 1 in state.made_at) == (10_000, False)
    state.journal.seq = 10_001
    assert not is_within(WINDOW, version(1, "x", "ann", ago=60.0), NOW, state, NOW)
    assert is_within(WINDOW, version(2, "x", "ann", ago=60.0), NOW, state, NOW)


@pytest.mark.parametrize("said", ["one\ntwo\nthree", "one\ntwo\nthree\nfour", "one", "", "three\ntwo"])
@pytest.mark.parametrize("number", [1, 3])
def test_save_on_an_ordinary_save_is_made_of_it(said: str, number: int) -> None:
    """If no version is by others there is nothing to say, whatever it takes away, and however soon it comes."""
    versions = [version(one, "one\ntwo\nthree"[: 3 + one * 4]) for one in range(1, number)]
    newest = version(number, "one\ntwo\nthree")
    assert is_plain_save(newest)
    assert origin_of(version(number + 1, said).block, newest, past(*versions, newest)) == Origin()  # type: ignore[arg-type]


@pytest.mark.parametrize("facts", [{"author": "ann"}, {"stale_base": 1}, {"position": 1}, {"author": MERGE}])
def test_other_revisions_are_no_ordinary_saves(facts: dict[str, Any]) -> None:
    """Such as a request's, a stale save that is to be merged, and one of nothing but who is attached."""
    assert not is_plain_save(replace(version(2, "text"), **facts))
