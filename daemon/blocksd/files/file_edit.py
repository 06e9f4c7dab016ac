"""Edits of block files: what a request makes of a block and its file."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.model.block import FILE_KEYS, Block, check_fields

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.files.document import Document

_FACTS = {field.name for field in fields(Block)} - {"value", "agents", "_facts"}


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

    A new file takes over mode and owner of the file `like`, if there is one to be like.
    """

    path: str
    base: bytes | None
    data: bytes | None
    like: str | None = None


@dataclass(frozen=True, slots=True)
class BlockFile:
    """A block with its file, as the requests so far have left it; `block` is None if there is none."""

    path: str
    base: bytes | None
    block: Block | None = None
    document: Document | None = None
    like: str | None = None

    @property
    def data(self) -> bytes | None:
        """The bytes that the file is to have; None if it is to go."""
        return None if self.document is None else self.document.text.encode("utf-8")


def edited(document: Document, block: Block, new: Block) -> Document:
    """Return the document of `block` with the differences of `new`.

    Raise EditRefused if the text that must stay would be touched.
    """
    for key in new.changed_fields(block):
        if key in FILE_KEYS:
            value = getattr(new, key)
            is_default = value == getattr(default_block(new.label), key)
            plain = list(value) if isinstance(value, tuple) else value
            document = document.with_key(key, None if is_default else plain)
    return document.with_value(new.value)


def default_block(label: str) -> Block:
    """Return a block whose fields are all at their defaults."""
    return Block(label, **check_fields(label, {}))


def replaced(block: Block, changes: Mapping[str, Any]) -> Block:
    """Return the block with these fields changed."""
    new = replace(block, **changes)
    return replace(new, _facts="") if _FACTS & changes.keys() else new


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
