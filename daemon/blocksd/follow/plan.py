"""Decides what becomes of a file of the copy, by three digests: the leader's, the one written last, and the one on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from blocksd.core.deletions import is_mass_deletion, is_wiped

if TYPE_CHECKING:
    from collections.abc import Mapping

Step = Literal["nothing", "note", "forget", "write", "remove", "missing", "keep"]
"""What becomes of a file.

`note`: it has the leader's text already; `forget`: neither side has it any more; `write` and `remove`: it is as it was
written last; `missing`: it was removed here; `keep`: it was edited here, or cannot be read.
"""

UNKNOWN = "unknown"
"""The digest of what is on disk and cannot be read, or is no regular file. It equals no other digest."""


UNKNOWN_VERSION = -1
"""The version of a text of which it is not known which one the leader calls it: of another journal, or of an unknown copy."""


class Written(NamedTuple):
    """A file as it was written last: of which block and version, and the digest of its text.

    `form` is the digest of the block's own digest and of all else that the mirror shows of the file: versions of two journals
    are unrelated. `mode` are its permission bits there. `signature` is the
    packed one that the file had then, if that proves its text. `earlier` are the versions that the file had just before, each
    with when it was replaced, in seconds since 1970.
    """

    label: str
    version: int
    form: str
    digest: str
    mode: int
    signature: bytes | None = None
    earlier: tuple[tuple[float, int], ...] = ()

    def oldest(self, saved_at: float, window: float) -> int:
        """Return the oldest version that an editor may have read which saved then: one that the file had so shortly before."""
        return min([self.version, *(version for at, version in self.earlier if at >= saved_at - window)])


class Wanted(NamedTuple):
    """A file as the leader has it."""

    path: str
    label: str
    version: int
    form: str
    mode: int
    data: bytes


def decide(wanted: str | None, written: str | None, found: str | None) -> Step:
    """Return what becomes of one file. The digests are of the leader's text, of the one written last, and of the one on disk.

    None: there is no such file. Invariants:
      1. nothing on disk is written over or removed, unless it is what was written last;
      2. what has the leader's text already is not written again.
    """
    if found == UNKNOWN:
        return "keep"
    if found == wanted:
        if written == wanted:
            return "nothing"
        return "note" if wanted is not None else "forget"
    if found == written:
        return "remove" if wanted is None else "write"
    return "missing" if found is None else "keep"


def removes_too_much(written: Mapping[str, Written], removed: int) -> bool:
    """Return True if a comparison would remove so much that a leader with an empty folder is more likely than an edit."""
    return is_wiped(len(written), removed) or is_mass_deletion(len(written), removed)
