"""Saves of a text that was read before somebody else wrote: what they were made of, and what both mean together."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from blocksd.errors import MergeConflict
from blocksd.merge import merge
from blocksd.revision import FILE

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.block import Block
    from blocksd.revision import Revision

_FARTHEST = 1000


def stale_base(
    saved: Block, newest: Revision, saved_at: float, before: Callable[[int], Revision | None], *, window: float
) -> Revision | None:
    """What a text was made of that was saved at `saved_at` (seconds since 1970), or None when nobody wrote just before.

    That is one of the writes of the last moments, or the revision before them: the one whose lines and other fields are
    most like those of the text, and of several the oldest. A line would be there twice if it counted as new to both
    sides. If it is itself a stale save that is still to be merged, what that was made of takes its place: the lines that
    it added are in none of the other texts yet. `before` gives the revision of a version.
    For `window` seconds after a write on request a save may be one of the text before it: editors save what they read.
    """
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
        if not _is_recent_write(revision, saved_at, window):
            return None if revision is newest else nearest
        revision = before(revision.version - 1)
    return None if nearest is newest else nearest  # what is older is not kept, or there was nothing


def _lines(block: Block) -> list[str]:
    return block.value.split("\n") if block.value else []


def _is_recent_write(revision: Revision, saved_at: float, window: float) -> bool:
    if revision.stale_base is not None or _is_no_edit(revision):
        return True
    written_at = datetime.fromisoformat(revision.at).timestamp()
    return revision.author != FILE and saved_at - written_at <= window


def _is_no_edit(revision: Revision) -> bool:
    """Whether agents that match a pattern came or went, and the file stayed as it was."""
    return revision.author == FILE and revision.position is not None


def merged(base: Block, saved: Block, newest: Block) -> Block:
    """What a stale save and the newest text mean together: every change of either.

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
