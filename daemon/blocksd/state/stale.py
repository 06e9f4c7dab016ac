"""Saves of a text that was read before another write: finds the version they were made of, and merges both."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import MergeConflict
from blocksd.model.merge import merge
from blocksd.model.revision import FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blocksd.model.block import Block
    from blocksd.model.revision import Revision

_FARTHEST = 1000
_NOTED = 10_000  # of so many of the newest writes it is known when they were made
_LOOKED_AT_WITHIN = 120.0  # seconds after it was saved: longer than from one sweep to the next


class Origin(NamedTuple):
    """The version that a save was made of: in most cases the newest, and there is nothing to say.

    `stale_base` is the version it was made of, if it is to be merged with what was written since; `reverts` are the
    versions it undoes, since it cannot be.
    """

    stale_base: int | None = None
    reverts: tuple[int, ...] = ()


class Writes:
    """When revisions were written in this run, by a clock that nobody sets.

    The time of day that a revision has says little about how long ago that was: the clock may have been set since.
    """

    def __init__(self, seq: int, *, clock: Callable[[], float], wall: Callable[[], float]) -> None:
        """`seq` is that of the newest revision of the runs before."""
        self._first = self.noted = seq
        self._clock = clock
        self._wall = wall
        self._at: dict[int, float] = {}  # of those by request, the oldest first

    def note(self, revisions: Sequence[Revision]) -> None:
        """These were written just now."""
        for revision in revisions:
            self.noted = max(self.noted, revision.seq)
            if revision.author != FILE:
                self._at[revision.seq] = self._clock()
        while len(self._at) > _NOTED:
            del self._at[next(iter(self._at))]

    def is_within(self, window: float, revision: Revision, saved_at: float) -> bool:
        """Return True if a file saved at `saved_at`, by the time of day, was saved within so many seconds of a write.

        How long ago the file was saved is told by the time of day, but counts for no more than a few minutes: so a clock
        that is set between a save and the look at it does not make every write a recent one. Of a write in an earlier run
        nothing but the time of day is known.
        """
        if revision.seq <= self._first:
            written_at = datetime.fromisoformat(revision.at).timestamp()
            return abs(saved_at - written_at) <= window
        if revision.seq > self.noted:  # in this very round
            return True
        at = self._at.get(revision.seq)
        if at is None:
            return False
        return self._clock() - at - min(max(0.0, self._wall() - saved_at), _LOOKED_AT_WITHIN) <= window


def origin_of(
    saved: Block,
    newest: Revision | None,
    is_recent: Callable[[Revision], bool],
    before: Callable[[int], Revision | None],
) -> Origin:
    """The version that a text saved on top of `newest` was made of. The arguments are those of `stale_base`."""
    if newest is None or newest.block is None or newest.block == saved:
        return Origin()
    base = stale_base(saved, newest, is_recent, before)
    if base is None or base.block is None:
        return Origin()
    theirs: Revision | None = newest
    while theirs is not None and theirs.stale_base is not None:
        theirs = before(theirs.version - 1)
    if theirs is None or theirs.block is None:
        return Origin()
    try:
        is_stale = merged(base.block, saved, theirs.block) != saved
    except MergeConflict:
        return Origin(reverts=tuple(range(base.version + 1, newest.version + 1)))
    return Origin(base.version if is_stale else None)


def stale_base(
    saved: Block,
    newest: Revision,
    is_recent: Callable[[Revision], bool],
    before: Callable[[int], Revision | None],
) -> Revision | None:
    """The revision that a saved text was made of, or None when no request wrote just before it was saved.

    That is one of the writes of the last moments, or the revision before them: the one whose lines and other fields are
    most like those of the text, and of several the oldest. A line would be there twice if it counted as new to both
    sides. If it is itself a stale save that is still to be merged, what that was made of takes its place: the lines that
    it added are in none of the other texts yet. `before` gives the revision of a version.
    For some seconds after a write on request a save may be one of the text before it, since editors save what they read:
    `is_recent` returns True of a write if the text was saved so soon after it.
    """
    if not _is_recent_write(newest, is_recent):
        return None
    lines = _lines(saved)
    distinct = set(lines)
    nearest: Revision | None = None
    least = (math.inf, math.inf)
    revision: Revision | None = newest
    is_merged = False
    for _ in range(_FARTHEST):
        if revision is None or revision.block is None:
            break
        is_merged = is_merged or revision.stale_base is None
        its = _lines(revision.block)
        others = sum(name != "value" for name in saved.changed_fields(revision.block))
        difference = (len(distinct.symmetric_difference(its)) + others, abs(len(lines) - len(its)))
        if difference <= least:
            nearest, least = revision if is_merged else before(revision.stale_base or 0), difference
        if not _is_recent_write(revision, is_recent):
            return nearest
        revision = before(revision.version - 1)
    return None if nearest is newest else nearest  # what is older is not kept, or there was nothing


def _lines(block: Block) -> list[str]:
    return block.value.split("\n") if block.value else []


def _is_recent_write(revision: Revision, is_recent: Callable[[Revision], bool]) -> bool:
    if revision.stale_base is not None or _is_no_edit(revision):
        return True
    return revision.author != FILE and is_recent(revision)


def _is_no_edit(revision: Revision) -> bool:
    """Return True if agents that match a pattern came or went, and the file stayed as it was."""
    return revision.author == FILE and revision.position is not None


def merged(base: Block, saved: Block, newest: Block) -> Block:
    """Merge a stale save and the newest text: every change of either.

    Raises:
        MergeConflict: they changed the same thing in different ways.
    """
    changes: dict[str, object] = {}
    for name in newest.changed_fields(saved):
        was, theirs, ours = (getattr(block, name) for block in (base, newest, saved))
        if name == "value":
            changes[name] = merge(was, ours, theirs, union_insertions=True)
        elif ours == was:
            changes[name] = theirs
        elif theirs != was:
            raise MergeConflict(f"{name} was changed in two ways", field=name, base=was, ours=ours, theirs=theirs)
    return replace(saved, **changes, _facts="") if changes else saved  # type: ignore[arg-type]  # fields of a block
