"""Where undo and redo go: a walk along the versions of a block."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping


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
