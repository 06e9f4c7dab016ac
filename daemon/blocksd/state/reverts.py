"""Finds the versions whose text a save takes away."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from blocksd.model.block import FILE_KEYS
from blocksd.model.properties import lines_of
from blocksd.model.revision import MERGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blocksd.model.block import Block
    from blocksd.model.revision import Revision

MOST_CHARS = 16 * 1024 * 1024
"""How many characters of older versions are gone through for one save: of short ones all that are asked for."""

Mark = str | tuple[str, str]
"""A line of a value without the space around it, or a field with its value, or with one of its values."""


class Past(NamedTuple):
    """The versions of a block before a save. Each is read when it is asked for.

    `version` gives a version, None when it is not kept. `is_recent` returns True if a revision was written in a share of the
    stale window before the save. `has_been` returns True if one of the last versions was the same block. `by_others` gives
    the last few versions that were not saved in the file, the newest first. `is_any`: who saves has not read what is saved in
    the folder, either: it is another host's.
    """

    version: Callable[[int], Revision | None]
    is_recent: Callable[[Revision, float], bool]
    has_been: Callable[[Block], bool]
    by_others: Callable[[], Sequence[int]]
    is_any: bool = False


def marks_of(block: Block | None) -> set[Mark]:
    """Return what a block says, piece by piece, to compare with other versions of it."""
    if block is None:
        return set()
    marks: set[Mark] = {line for one in lines_of(block) if (line := one.strip())}
    for name in FILE_KEYS:
        value = getattr(block, name)
        if isinstance(value, tuple):
            marks.update((name, item) for item in value)
        elif isinstance(value, dict):
            marks.update((name, repr(item)) for item in value.items())
        else:
            marks.add((name, repr(value)))
    return marks


def reverts_of(saved: Block, before: Sequence[Block], past: Past) -> tuple[int, ...]:
    """Return the versions, not saved in the file, that brought what the texts `before` have and the save lacks.

    A line that a merge brought back is that of the version which brought it first, if that is among the last few.
    """
    numbers = past.by_others()
    if not numbers:
        return ()
    gone: set[Mark] = set().union(*map(marks_of, before)) - marks_of(saved)
    found: dict[Mark, int] = {}
    chars = 0
    for number in numbers:
        if not gone or chars > MOST_CHARS:
            break
        one, earlier = past.version(number), past.version(number - 1)
        if one is None or one.block is None or (earlier is None and number > 1):
            continue
        there = earlier.block if earlier is not None else None
        chars += len(one.block.value) + len(there.value if there is not None else "")
        brought = gone & (marks_of(one.block) - marks_of(there))
        for mark in brought:
            found[mark] = number
        if one.author != MERGE:
            gone -= brought
    return tuple(sorted(set(found.values())))
