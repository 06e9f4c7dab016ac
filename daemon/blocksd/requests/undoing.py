"""The ops that bring earlier versions of a block back: undo, redo, restore and merge."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from blocksd.errors import InvalidRequest, MergeConflict, NotFound
from blocksd.model.block import default_block, replaced
from blocksd.model.label import owner
from blocksd.requests.block_changes import make, put, remove, repair
from blocksd.state.stale import merged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from blocksd.model.block import Block
    from blocksd.requests.changeset import Changeset
    from blocksd.requests.request import Request

MERGE_WORK = 8
"""How often a merge goes through its three texts: in units of one search for a text."""


def undo(changeset: Changeset, label: str, request: Request) -> None:
    """The block, or a file with a problem, is to be what it was before the last edit that is not undone."""
    if _is_repaired(changeset, label):  # the save that is not in force is what is undone
        request.only()
        changeset.expected(label, request)
    else:
        _go(changeset, label, request, undone)


def _is_repaired(changeset: Changeset, label: str) -> bool:
    """Repair the file of a block, if it has a problem; a person may be about to, so an agent may not ask for it."""
    return changeset.is_operator and repair(changeset, label)


def redo(changeset: Changeset, label: str, request: Request) -> None:
    """The block is to be what it was before the last undo."""
    _go(changeset, label, request, redone)


def _positions(changeset: Changeset, label: str) -> dict[int, int | None]:
    changeset.merge_first(label)
    newest = changeset.draft.newest(label)
    if newest is None:
        raise changeset.unknown(label)
    if newest.block is not None and not changeset.has(label):
        present = changeset.draft.state.journal.renamed_to(label)
        now = f"was renamed to {present!r}" if present is not None else "has another label already"
        raise NotFound(f"the block {label!r} {now}", label=label, renamed_to=present)
    return changeset.draft.positions(label)


def _go(
    changeset: Changeset, label: str, request: Request, where: Callable[[Mapping[int, int | None], str], int]
) -> None:
    request.only()
    if label in changeset.changed:  # what versions there will be is not known yet
        raise InvalidRequest(f"{label!r} was changed by the same batch: {request.op} it in another", field="op")
    positions = _positions(changeset, label)
    changeset.expected(label, request)
    try:
        version = where(positions, label)
    except InvalidRequest as error:
        if changeset.has(label) or request.op != "redo":
            raise
        hint = f"bring it back with: blocksd undo {shlex.quote(label)}"
        raise InvalidRequest(
            f"{label!r} is deleted: there is nothing to redo", **{**error.facts, "hint": hint}
        ) from None
    _bring_back(changeset, label, version, position=version)


def restore(changeset: Changeset, label: str, request: Request) -> None:
    """The block is to be what it was at a version."""
    request.only("version")
    version = request.number("version", least=1)
    _positions(changeset, label)
    changeset.expected(label, request)
    _is_repaired(changeset, label)
    _bring_back(changeset, label, version, position=None)


def _bring_back(changeset: Changeset, label: str, version: int, *, position: int | None) -> None:
    block = changeset.draft.kept_version(label, version).block
    if block is None and position is not None and changeset.has(label):  # as it was then: deleted
        remove(changeset, label, position=position)
        return
    if block is None:
        raise InvalidRequest(f"version {version} of {label!r} is its deletion", field="args.version")
    block = called(label, block)
    if not changeset.has(label):
        if not changeset.is_operator and owner(label) != changeset.actor:
            raise InvalidRequest("an agent may bring back its private blocks", field="name")
        make(changeset, block, position=position)
    else:
        put(changeset, label, block, position=position)


def merge_reverted(changeset: Changeset, label: str, request: Request) -> None:
    """The text that saves took away is to be in the block again."""
    request.only("version")
    present = block = changeset.present(label)
    changeset.expected(label, request)
    versions = changeset.draft.reverted(label)
    if request.args.get("version") is not None:
        versions = (request.number("version", least=1),)
    if not versions:
        raise InvalidRequest(f"no save of {label!r} took text away of late: there is nothing to merge", field="op")
    conflicts: dict[int, MergeConflict] = {}
    for version in versions:
        try:
            block = with_text_of(version, block, changeset)
        except MergeConflict as error:
            conflicts[version] = error
    if conflicts:
        raise conflict_of_all(label, conflicts, [one for one in versions if one not in conflicts])
    if block == present:
        raise InvalidRequest(f"the text of {in_words(versions)} is in {label!r}: there is nothing to merge", field="op")
    put(changeset, label, block)


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
    theirs = changeset.draft.kept_version(label, version).block
    if theirs is None:
        raise InvalidRequest(f"version {version} of {label!r} is its deletion", field="args.version")
    base = (changeset.draft.kept_version(label, version - 1).block if version > 1 else None) or default_block(label)
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
