"""Finds the blocks in force whose files were given another name."""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from blocksd.model.label import owner
from blocksd.state.overlay import FORGOTTEN

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable, Sequence

    from blocksd.files.folder import Signature
    from blocksd.model.block import Block
    from blocksd.state.state_draft import StateDraft


class NewFile(NamedTuple):
    """A file that is none of a block in force; without a block, it has a problem."""

    path: str
    signature: Signature | None
    block: Block | None


def find_moves(
    new: Sequence[NewFile], suspects: Collection[str], draft: StateDraft, is_absent: Callable[[str], bool]
) -> dict[str, str]:
    """Return which of the new files are files of blocks in force that were moved: new path → the path it had.

    `suspects` are files of blocks in force that may be absent; `is_absent` tells of those that are like a new file. A file is
    the same if its inode, size and mtime are; else if it says what the block in force says, no other does, and it is not empty.
    An inode alone says nothing: it is given to a new file as soon as a file is removed.
    """
    sizes = {one.signature[2] for one in new if one.signature is not None}
    # Most new files are like no file that could be missing.
    alike = {path: draft.signature_of(path) for path in suspects}
    alike = {path: known for path, known in alike.items() if known is None or known[2] in sizes}
    gone = {path: known for path, known in alike.items() if known != FORGOTTEN and is_absent(path)}
    if not gone:
        return {}
    moves: dict[str, str] = {}
    olds = _by_mark((path, _identity(known)) for path, known in gone.items() if known is not None)
    news = _by_mark((one.path, _identity(one.signature)) for one in new if one.signature is not None)
    for mark, paths in news.items():  # a file that was seen under several names is the block that had it first
        names = olds.get(mark, ())
        moves |= zip(paths, sorted(names, key=partial(_newest_seq, draft)) if len(names) > 1 else names, strict=False)
    moved = set(moves.values())
    news = _by_mark((one.path, _said(one.block)) for one in new if one.path not in moves and one.block is not None)
    news.pop(None, None)
    if news:
        olds = _by_mark((path, _said_by(draft, path)) for path in gone if path not in moved)
        for mark, paths in news.items():
            if len(paths) == 1 and len(olds.get(mark, ())) == 1 and _may_be_of_one_agent(paths[0], olds[mark][0]):
                moves[paths[0]] = olds[mark][0]
    return moves


def _by_mark(marked: Iterable[tuple[str, Hashable]]) -> dict[Hashable, list[str]]:
    found: defaultdict[Hashable, list[str]] = defaultdict(list)
    for path, mark in marked:
        found[mark].append(path)
    return dict(found)


def _newest_seq(draft: StateDraft, path: str) -> int:
    newest = draft.newest(draft.label_of(path) or "")
    return newest.seq if newest is not None else 0


def _identity(signature: Signature) -> tuple[int, int, int]:
    mtime_ns, _, size, inode = signature
    return (mtime_ns, size, inode)


def _said_by(draft: StateDraft, path: str) -> Hashable:
    label = draft.label_of(path)
    block = draft.block(label) if label is not None else None
    return _said(block) if block is not None else None


def _said(block: Block) -> Hashable:
    """Return the content of a block, whatever its label is; None if it says nothing."""
    if not block.value:
        return None
    block = block.named("a block")
    return block.facts, block.value, block.agents


def _may_be_of_one_agent(one: str, other: str) -> bool:
    """Return False for private blocks of two agents: a text that both have makes neither's block the other's."""
    agents = {owner(path) for path in (one, other)} - {None}
    return len(agents) < 2
