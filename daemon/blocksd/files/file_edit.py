"""Edits of block files: a request's result for a block and its file."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from blocksd.files.document import Document
    from blocksd.files.folder import Signature
    from blocksd.model.block import Block


class Postponed(Exception):  # no error: it is tried again
    """A file is being changed by another program: it is read first, and the request executed then.

    `is_open`: the program has it open for writing, and may keep it so for ever.
    """

    def __init__(self, path: str, *, is_open: bool = False) -> None:
        super().__init__(path)
        self.path = path
        self.is_open = is_open


@dataclass(frozen=True, slots=True)
class FileEdit:
    """A change of one file. `base` is its content now, `data` the new one; None: there is no such file.

    A new file takes over mode and owner of the file `like`, if there is one to be like. `signature` is the one that the
    file had when `base` was read, if no other content can have it.
    """

    path: str
    base: bytes | None
    data: bytes | None
    like: str | None = None
    signature: Signature | None = field(default=None, compare=False)


class BlockFile(NamedTuple):
    """A block with its file, as the requests so far have left it; `block` is None if there is none.

    `base` is the content of the file now, `data` what it is to have; None: there is no file. `signature` is as in `FileEdit`.
    `mode` are its permission bits; None: those of a new file.
    """

    path: str
    base: bytes | None
    data: bytes | None = None
    block: Block | None = None
    document: Document | None = None
    like: str | None = None
    signature: Signature | None = None
    mode: int | None = None


class Staged(NamedTuple):
    """A file whose new text lies beside it, under the name `aside`; all paths are below the folder.

    `base` and `data` are digests of the content now and of the new one; None: there is no such file. Once the new text is
    put in, `aside` is the file that was there before. `new` and `old` are the inodes of the two; None: unknown.
    """

    path: str
    aside: str
    base: str | None
    data: str | None
    new: int | None = None
    old: int | None = None
