"""Undo and redo, beside the simplest idea of them: a list of texts and a place in it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksd.errors import InvalidRequest
from blocksd.requests.undoing import redone, undone


@dataclass
class Block:
    """A block whose versions are journaled, and the list with a pointer that it should look like."""

    values: dict[int, int] = field(default_factory=lambda: {1: 1})  # version → what it says
    positions: dict[int, int | None] = field(default_factory=lambda: {1: None})
    edits: list[int] = field(default_factory=lambda: [1])
    place: int = 0

    def _add(self, value: int, position: int | None) -> None:
        version = max(self.positions) + 1
        self.values[version] = value
        self.positions[version] = position

    def edit(self) -> None:
        self._add(max(self.positions) + 1, None)
        self.edits = [*self.edits[: self.place + 1], max(self.positions)]
        self.place += 1

    def agents_come(self) -> None:
        """A version that says the same as the one before it, and stands where that stood."""
        newest = max(self.positions)
        position = self.positions[newest]
        self._add(self.values[newest], newest if position is None else position)

    def undo(self) -> None:
        if not self.place:
            with pytest.raises(InvalidRequest, match="nothing to undo"):
                undone(self.positions, "notes")
            return
        self.place -= 1
        self._go(undone(self.positions, "notes"))

    def redo(self) -> None:
        if self.place == len(self.edits) - 1:
            with pytest.raises(InvalidRequest, match="nothing to redo"):
                redone(self.positions, "notes")
            return
        self.place += 1
        self._go(redone(self.positions, "notes"))

    def _go(self, version: int) -> None:
        assert self.values[version] == self.edits[self.place]
        self._add(self.values[version], version)


DEEDS = {"e": Block.edit, "u": Block.undo, "r": Block.redo, "a": Block.agents_come}


@pytest.mark.parametrize("length", range(1, 8))
def test_every_short_story(length: int) -> None:
    """In whatever order edits, undos, redos and changes of who matches a pattern come."""
    for story in itertools.product(DEEDS.values(), repeat=length):
        block = Block()
        for deed in story:
            deed(block)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(alphabet="".join(DEEDS) + "ur", max_size=60))
def test_long_stories(story: str) -> None:
    """However long it goes on."""
    block = Block()
    for deed in story:
        DEEDS[deed](block)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(alphabet="".join(DEEDS), min_size=1, max_size=30), st.integers(1, 30))
def test_after_pruning(story: str, kept: int) -> None:
    """Where versions are no longer kept, undo and redo go where they would have gone, or say that they cannot."""
    block = Block()
    for deed in story:
        DEEDS[deed](block)
    some = dict(list(block.positions.items())[-kept:])
    for way in (undone, redone):
        try:
            version = way(some, "notes")
        except InvalidRequest:
            continue
        assert version == way(block.positions, "notes")


def test_first_version_has_nothing_before_it() -> None:
    """Nor after it."""
    for way in (undone, redone):
        with pytest.raises(InvalidRequest) as refusal:
            way({7: None}, "notes")
        assert refusal.value.facts == {"field": "op", "label": "notes"}
        assert "'notes'" in refusal.value.message


def test_deletion_is_an_edit() -> None:
    """It is undone to what was there; undone again, to what was there before that; a new block is a new edit."""
    assert undone({1: None, 2: None, 3: None}, "notes") == 2  # 3 is the deletion
    assert undone({1: None, 2: None, 3: None, 4: 2}, "notes") == 1
    assert redone({1: None, 2: None, 3: None, 4: 2}, "notes") == 3
    assert undone({1: None, 2: None, 3: None, 4: None}, "notes") == 3
