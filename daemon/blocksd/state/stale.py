"""Saves of a text that was read before another write: finds the version they were made of, and merges both."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import LimitExceeded, MergeConflict
from blocksd.model.block import check_value
from blocksd.model.label import is_properties
from blocksd.model.merge import merge
from blocksd.model.properties import lines_of, merged_properties
from blocksd.model.revision import FILE, MERGE
from blocksd.state.reverts import MOST_CHARS, Past, marks_of, reverts_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.model.block import Block
    from blocksd.model.differences import Effort
    from blocksd.model.revision import Revision
    from blocksd.state.reverts import Mark
    from blocksd.state.state import State
    from blocksd.state.state_draft import StateDraft

_FARTHEST = 1000
JUST_NOW = 0.6
"""The share of the window in which a save may still be made of a text from before a merge."""
UNSEEN_SECONDS = 60.0
"""For how long a program may have saved again and again, unseen, what it had read before: longer than a restart takes."""
_LOOKED_AT_WITHIN = 120.0  # seconds after it was saved: longer than from one sweep to the next


class Origin(NamedTuple):
    """The version that a save was made of: in most cases the newest, and there is nothing to say.

    `stale_base` is the version it was made of, if it is to be merged with what was written since. If it stands, `reverts`
    are the versions of others whose text it takes away.
    """

    stale_base: int | None = None
    reverts: tuple[int, ...] = ()


def is_within(
    window: float, revision: Revision, saved_at: float, state: State, wall: float, *, is_first: bool = False
) -> bool:
    """Return True if a file saved at `saved_at`, by the time of day, was saved within so many seconds of a write.

    How long ago the write was is told by a clock that nobody sets: the time of day may have been set since. How long ago
    the file was saved is told by the time of day, which is `wall` now, but counts for no more than a few minutes: so a
    clock that is set between a save and the look at it does not make every write a recent one. Of a write in an earlier
    run nothing but the time of day is known.

    `is_first`: the folder is looked at for the first time since the start. What is found may have been saved several times
    since the end of the run before, and first right after it: `saved_at` tells of the last time. That is taken for possible
    for a minute: who takes a line out later has read it.
    """
    if revision.seq > state.journal.seq:  # in this very round
        return True
    made_at = state.made_at.get(revision.seq)
    if made_at is None:
        written = datetime.fromisoformat(revision.at).timestamp()
        if is_first and window:
            ended = state.journal.opened.ended
            if abs(ended - written) <= window and saved_at - ended <= UNSEEN_SECONDS:
                return True
        return abs(saved_at - written) <= window
    return state.clock() - made_at - min(max(0.0, wall - saved_at), _LOOKED_AT_WITHIN) <= window


def origin_of(saved: Block, newest: Revision | None, past: Past) -> Origin:
    """Return what a text is that is saved on top of `newest`: a stale save to merge, or one that stands.

    It stands, too, if it says what an earlier version said: who puts that back means it.
    """
    if newest is None or newest.block is None or newest.block == saved:
        return Origin()
    theirs: Revision | None = newest
    while theirs is not None and theirs.stale_base is not None:
        theirs = past.version(theirs.version - 1)
    if theirs is None or theirs.block is None:
        return Origin()
    base = stale_base(saved, newest, past)
    if base is not None and base.block is not None:
        try:
            both = merged(base.block, saved, theirs.block)
            if not is_properties(both.label):  # the file has a limit, and these have none
                check_value(both.value, both.limit)
            if both != saved and not past.has_been(saved):
                return Origin(stale_base=base.version)
        except (MergeConflict, LimitExceeded):
            pass
    before = (newest.block,) if theirs is newest else (newest.block, theirs.block)
    if all(_is_added_to(one, saved) for one in before):
        return Origin()
    return Origin(reverts=reverts_of(saved, before, past))


def _is_added_to(one: Block, saved: Block) -> bool:
    """Return True if a save has all that a block has, and lines more at the end: most saves of most programs."""
    return saved.value.startswith(f"{one.value}\n") and one.changed_fields(saved) == ("value",)


def stale_base(saved: Block, newest: Revision, past: Past) -> Revision | None:
    """Return the revision that a saved text was made of, or None when no request wrote just before it was saved.

    For some seconds after a write on request a save may be one of the text before it, since editors save what they read.
    So it is one of the writes of the last moments, or the revision before them:

    1. None that is older than the first to say something that the save says, too: who made the save has read that.
    2. None that is older than a merge, but one of just now, which the saver has hardly read: what a merge has brought
       back once, and is not there again, was taken out.
    3. Of the others the one whose lines and other fields are most like those of the save, and of several the oldest.

    If that is a stale save itself which is still to be merged, what that was made of takes its place: the lines that it
    added are in none of the other texts yet.
    """
    if not _is_recent_write(newest, past):
        return None
    lines = lines_of(saved)
    distinct = set(lines)
    ours = {mark for mark in marks_of(saved) if isinstance(mark, tuple) or any(map(str.isalnum, mark))}
    first: dict[Mark, int] = {}  # what the save says → the place of the oldest that says it
    # Of each, the newest first: how different it is, and the version it stands for.
    seen: list[tuple[tuple[int, int], int]] = []
    revision: Revision | None = newest
    is_merged = is_whole = False
    chars = 0
    while revision is not None and revision.block is not None and len(seen) < _FARTHEST and chars <= MOST_CHARS:
        is_merged = is_merged or revision.stale_base is None
        its = lines_of(revision.block)
        chars += len(revision.block.value)
        others = sum(name != "value" for name in saved.changed_fields(revision.block))
        difference = (len(distinct.symmetric_difference(its)) + others, abs(len(lines) - len(its)))
        first.update(dict.fromkeys(ours & marks_of(revision.block), len(seen)))
        seen.append((difference, revision.version if is_merged else revision.stale_base or 0))
        is_merge = revision.author == MERGE and not past.is_recent(revision, JUST_NOW)
        is_whole = is_merge or not _is_recent_write(revision, past)
        if is_whole:
            break
        revision = past.version(revision.version - 1)
    read = seen[: 1 + min(first.values(), default=len(seen))]
    place = min(range(len(read)), key=lambda place: (read[place][0], -place))
    if not place and not is_whole:
        return None  # what is older is not kept, or there was nothing
    return past.version(read[place][1])


def _is_recent_write(revision: Revision, past: Past) -> bool:
    if revision.stale_base is not None or _is_no_edit(revision):
        return True
    return (revision.is_on_request or past.is_any) and past.is_recent(revision, 1.0)


def _is_no_edit(revision: Revision) -> bool:
    """Return True if agents that match a pattern came or went, and the file stayed as it was."""
    return revision.author == FILE and revision.position is not None


class Merge(NamedTuple):
    """The block that a stale save and the text before it make; `reverts` are versions of others whose text is left out."""

    block: Block
    reverts: tuple[int, ...]


def merge_of(stale: Revision, saved: Block, draft: StateDraft) -> Merge | None:
    """Merge a stale save, of which `saved` is the block, with what had been written before; None: that was deleted.

    What the save had taken out of what others wrote stays out.

    Raises:
        NotFound: a version that it needs is not kept.
        MergeConflict: both changed the same thing in different ways.
    """
    label = stale.label
    assert stale.stale_base is not None
    base, before = draft.kept_version(label, stale.stale_base), draft.kept_version(label, stale.version - 1)
    while before.stale_base is not None:
        before = draft.kept_version(label, before.version - 1)
    if base.block is None or before.block is None:
        return None
    both = merged(base.block, saved, before.block)
    return Merge(both, reverts_of(both, (before.block,), past_of(label, draft)))


def lost_by(stale: Revision, draft: StateDraft) -> tuple[int, ...]:
    """Return the versions of others whose text a stale save took away, if it stays as it is; only of those that are kept."""
    before: Revision | None = stale
    while before is not None and before.stale_base is not None:
        before = draft.undamaged(stale.label, before.version - 1)
    if before is None or before.block is None or stale.block is None:
        return ()
    return reverts_of(stale.block, (before.block,), past_of(stale.label, draft))


def past_of(label: str, draft: StateDraft, is_recent: Callable[[Revision, float], bool] = lambda *_: False) -> Past:
    """Return the versions of a block so far; by default, none was written in the stale window."""
    return Past(
        version=partial(draft.undamaged, label),
        is_recent=is_recent,
        has_been=draft.has_been,
        by_others=partial(draft.by_others, label),
    )


def merged(base: Block, saved: Block, newest: Block, budget: Effort | None = None) -> Block:
    """Merge a save and the newest text, both made of `base`: every change of either. `budget` is for the values' merge.

    Raises:
        MergeConflict: they changed the same thing in different ways.
    """
    changes: dict[str, object] = {}
    for name in newest.changed_fields(saved):
        was, theirs, ours = (getattr(block, name) for block in (base, newest, saved))
        if name == "value" and is_properties(saved.label):
            changes[name] = merged_properties(was, ours, theirs)
        elif name == "value":
            changes[name] = merge(was, ours, theirs, union_insertions=True, budget=budget)
        elif ours == was:
            changes[name] = theirs
        elif theirs != was:
            raise MergeConflict(f"{name} was changed in two ways", field=name, base=was, ours=ours, theirs=theirs)
    return replace(saved, **changes, _facts="") if changes else saved  # type: ignore[arg-type]  # fields of a block
