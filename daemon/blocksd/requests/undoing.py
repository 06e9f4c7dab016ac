"""Earlier versions of a block: where undo and redo go, and what a merge brings back."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from blocksd.errors import InvalidRequest, MergeConflict
from blocksd.model.block import default_block, replaced
from blocksd.state.stale import merged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from blocksd.model.block import Block
    from blocksd.requests.changeset import Changeset

MERGE_WORK = 8
"""How often a merge goes through its three texts: in units of one search for a text."""


def undone(positions: Mapping[int, int | None], label: str) -> int:
    """The version an undo goes to: what was there before the edit that is the newest one not undone.

    `positions` are the versions that are kept; of each that undo or redo made, the version it went to, else None.

    Raises:
        InvalidRequest: there is none.
    """
    here = _position(positions, max(positions))
    target = _before(positions, here)
    if target is None:
        raise InvalidRequest(f"{label!r} is at its earliest version: there is nothing to undo", field="op", label=label)
    return target


def redone(positions: Mapping[int, int | None], label: str) -> int:
    """The version a redo goes to: the edit that was undone last.

    Raises:
        InvalidRequest: there is none, or a new edit came since.
    """
    here = _position(positions, max(positions))
    tip = next((version for version in sorted(positions, reverse=True) if positions[version] is None), None)
    after: int | None = None
    while tip is not None and tip != here:
        after, tip = tip, _before(positions, tip)
    if after is None or tip is None:
        raise InvalidRequest(f"no edit of {label!r} was undone: there is nothing to redo", field="op", label=label)
    return after


def _position(positions: Mapping[int, int | None], version: int) -> int:
    position = positions.get(version)
    return version if position is None else position


def _before(positions: Mapping[int, int | None], version: int) -> int | None:
    """The version an edit was made on top of; None when that is not kept, or there was nothing."""
    return _position(positions, version - 1) if version - 1 in positions else None


def called(label: str, block: Block) -> Block:
    """Return a block as it is called now; a description that came with an earlier label is not its own."""
    if block.label == label:
        return block
    before, now = default_block(block.label).description, default_block(label).description
    return replaced(block, {"label": label, "description": now if block.description == before else block.description})


def with_text_of(version: int, block: Block, changeset: Changeset) -> Block:
    """Return a block as it is now, with what one of its versions brought.

    Raises:
        MergeConflict: that was changed in another way since.
        NotFound: the version is not kept, or the one before it.
    """
    label = block.label
    theirs = changeset.version(label, version).block
    if theirs is None:
        raise InvalidRequest(f"version {version} of {label!r} is its deletion", field="args.version")
    base = (changeset.version(label, version - 1).block if version > 1 else None) or default_block(label)
    changeset.spend(MERGE_WORK * (len(base.value) + len(block.value) + len(theirs.value)))
    try:
        return merged(called(label, base), block, called(label, theirs), changeset.effort)
    except MergeConflict as error:
        message = f"version {version} of {label!r} cannot be merged: {error.message}"
        hint = f"'blocksd diff {shlex.quote(label)} {version - 1} {version}' shows what it brought: add that by hand"
        raise MergeConflict(message, version=version, label=label, hint=hint, **error.facts) from None


def conflict_of_all(label: str, conflicts: Mapping[int, MergeConflict], others: Sequence[int]) -> MergeConflict:
    """Return the first of the conflicts, which says which versions have one, and how to merge the others."""
    first = next(iter(conflicts.values()))
    message, hint = first.message, first.facts["hint"]
    if len(conflicts) > 1:
        message += f"; nor can {in_words(list(conflicts)[1:])}"
    if others:
        message += f"; nothing was merged, and {in_words(others)} can be"
        hint = (
            f"to merge the others: {', '.join(f'blocksd merge {shlex.quote(label)} {one}' for one in others)}; {hint}"
        )
    facts = {"versions": list(conflicts), "mergeable": list(others), "hint": hint}
    return MergeConflict(message, **{**first.facts, **facts})


def in_words(versions: Sequence[int]) -> str:
    """Return the numbers of versions, as a sentence has them."""
    return ("version " if len(versions) == 1 else "versions ") + " and ".join(map(str, versions))
