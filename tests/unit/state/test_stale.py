"""Saves of an old text: what they were made of, and what they mean together with what came since."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import MergeConflict
from blocksd.model.block import Block
from blocksd.model.revision import OPERATOR, timestamp
from blocksd.state.stale import Origin, Writes, merged, origin_of, stale_base
from rig import AT, Clock, revision

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.model.revision import Revision

NOW = datetime.fromisoformat(AT).timestamp()
WINDOW = 5.0


def version(number: int, value: str, author: str = "file", *, ago: float = 0.0, **facts: Any) -> Revision:
    """A version of a block, written so many seconds ago."""
    fields = {name: facts.pop(name) for name in ("description", "tags") if name in facts}
    made = revision(number, kind="updated", version=number, value=value, **fields)
    return replace(made, author=author, at=timestamp(NOW - ago), **facts)


def saved_within(saved_at: float) -> Callable[[Revision], bool]:
    """Of writes in an earlier run: those of the last moments, by the time of day."""
    writes = Writes(1000, clock=Clock(), wall=lambda: NOW)
    return lambda revision: writes.is_within(WINDOW, revision, saved_at)


def base_of(saved: str, *versions: Revision, **fields: Any) -> int | None:
    """The version a text was made of that is saved now."""
    known = {one.version: one for one in versions}
    found = stale_base(Block("notes", value=saved, **fields), versions[-1], saved_within(NOW), known.get)
    return found.version if found is not None else None


# --- what it was made of ---


def test_save_after_a_save_is_not_stale() -> None:
    """Where nobody wrote on request, or not of late, there is nothing to be stale against."""
    assert base_of("x", version(1, "a"), version(2, "b")) is None
    assert base_of("x", version(1, "a"), version(2, "a\nb", "ann", ago=WINDOW + 1)) is None
    assert base_of("x", version(1, "a"), version(2, "a\nb", "ann"), version(3, "a\nb\nc")) is None


@pytest.mark.parametrize("author", ["ann", OPERATOR, "merge"])
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
    assert base_of("a\nx", version(1, "a", ago=99), version(2, "b", "ann", ago=9), *versions[2:]) == 2


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
        merged(*three)


# --- what its revision says of that ---


def test_origin_is_told_of_stale_saves_alone() -> None:
    """One that can be merged names its base; one that cannot says what it undoes; of all others there is nothing to say."""
    versions = [version(1, "a"), version(2, "a\nb", "ann")]
    known = {one.version: one for one in versions}

    def origin(saved: str, newest: Revision | None) -> Origin:
        return origin_of(block(saved), newest, saved_within(NOW), known.get)

    assert origin("a", None) == Origin()
    assert origin("a\nb", versions[-1]) == Origin()
    assert origin("a\nb\nc", versions[-1]) == Origin()
    assert origin("x\na", versions[-1]) == Origin(stale_base=1)
    known[2] = version(2, "b", "ann")
    assert origin("x", known[2]) == Origin(reverts=(2,))


# --- how long ago a write was ---


class Running:
    """A run that began after the revision 10, and the two clocks that it has."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.wall_offset = 0.0
        self.writes = Writes(10, clock=self.clock, wall=self.wall)

    def wall(self) -> float:
        return NOW + self.clock() + self.wall_offset

    def write(self, seq: int, author: str = "ann") -> Revision:
        made = replace(version(seq, "x", author), at=timestamp(self.wall()))
        self.writes.note([made])
        return made


@pytest.mark.parametrize("offset", [0.0, 2 * 86_400.0, 3.0, -3.0, -2 * 86_400.0])
def test_write_is_recent_for_a_moment(offset: float) -> None:
    """Whatever the clock said when it was made, and what it says now: a person who saves later is not overruled."""
    running = Running()
    running.wall_offset = offset
    written = running.write(11)
    running.wall_offset = 0.0
    running.clock.advance(WINDOW - 0.1)
    assert running.writes.is_within(WINDOW, written, running.wall())
    running.clock.advance(0.2)
    assert not running.writes.is_within(WINDOW, written, running.wall())
    assert running.writes.is_within(WINDOW, written, running.wall() - 1.0)  # it was saved before it is looked at


def test_clock_set_between_save_and_look_makes_no_write_recent() -> None:
    """But those of the last minutes."""
    running = Running()
    written = running.write(11)
    running.clock.advance(3600.0)
    saved_at = running.wall()
    running.wall_offset = 2 * 86_400.0
    assert not running.writes.is_within(WINDOW, written, saved_at)


def test_writes_of_a_run_before_are_told_by_the_time_of_day() -> None:
    """Of a clock that was days ahead then, it cannot be told: a person is not overruled."""
    running = Running()
    written = replace(version(10, "x", "ann"), at=timestamp(running.wall() + 2 * 86_400.0))
    assert not running.writes.is_within(WINDOW, written, running.wall())
    assert running.writes.is_within(WINDOW, replace(written, at=timestamp(running.wall() - 1)), running.wall())


def test_of_many_writes_the_oldest_are_not_recent() -> None:
    """What is noted is bounded; what is written in the same round is noted after it."""
    running = Running()
    first = running.write(11)
    for seq in range(12, 12 + 10_000):
        running.write(seq)
    assert not running.writes.is_within(WINDOW, first, running.wall())
    assert running.writes.is_within(WINDOW, version(99_999, "x", "ann"), running.wall())
    assert len(running.writes._at) == 10_000
