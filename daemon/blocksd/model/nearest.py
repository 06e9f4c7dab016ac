"""Finds the known name that is most like an unknown one, in bounded time."""

from __future__ import annotations

from difflib import SequenceMatcher
from heapq import nlargest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_LONG = 8  # a name of so many letters may have two slips
_ALIKE = 0.6  # as difflib.get_close_matches has it
_MOST_NAMES = 1000  # to compare more of them would make all clients wait
_MOST_CHARS = 30_000
"""How many characters of the names are counted, to find the few that may be alike: some ten milliseconds."""
_MOST_PAIRS = 60_000
"""How many pairs of characters are compared at most, since a name of one repeated letter needs them all: as long again."""


def misspelt(name: str, names: Collection[str]) -> str | None:
    """Return the known name that `name` is, or was meant to be: but for case, hyphens and one slip, two in a long name."""
    plain = _plain(name)
    for other in names:
        known = _plain(other)
        slips = 1 if len(known) < _LONG else 2
        if plain == known or (abs(len(plain) - len(known)) <= 1 and _distance(plain, known) <= slips):
            return other
    return None


def _plain(name: str) -> str:
    return name.casefold().replace("_", "").replace("-", "").replace(" ", "")


def _distance(one: str, other: str) -> int:
    """Return how many letters were left out, put in, changed or exchanged with their neighbour."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for at, char in enumerate(one, 1):
        two_before, before, row = before, row, [at]
        for to, wanted in enumerate(other, 1):
            cost = min(before[to] + 1, row[to - 1] + 1, before[to - 1] + (char != wanted))
            if at > 1 < to and char == other[to - 2] and one[at - 2] == wanted:
                cost = min(cost, two_before[to - 2] + 1)
            row.append(cost)
    return row[-1]


def nearest(name: str, names: Collection[str]) -> list[str]:
    """Return the one name that is most like `name`, if one is alike at all: a guess, found in bounded time."""
    if len(names) > _MOST_NAMES or not name or len(name) ** 2 > _MOST_PAIRS:
        return []
    matcher = SequenceMatcher()
    matcher.set_seq2(name)
    few: list[tuple[float, str]] = []
    left = _MOST_CHARS
    for other in names:
        if 2 * min(len(name), len(other)) < _ALIKE * (len(name) + len(other)):
            continue
        left -= len(other)
        if left < 0:
            break
        matcher.set_seq1(other)
        likeness = matcher.quick_ratio()
        if likeness >= _ALIKE:
            few.append((likeness, other))
    best: tuple[float, str] | None = None
    left = _MOST_PAIRS
    for _, other in nlargest(20, few):
        left -= len(name) * len(other)
        if left < 0:
            break
        matcher.set_seq1(other)
        found = (matcher.ratio(), other)
        if found[0] >= _ALIKE and (best is None or found > best):
            best = found
    return [best[1]] if best is not None else []
