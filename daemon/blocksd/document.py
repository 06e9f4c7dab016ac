"""A file's text ↔ `Block`, and byte-preserving edits of it."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blocksd import frontmatter
from blocksd.block import DEFAULT_LIMIT, FILE_KEYS, Block, check_fields, check_value
from blocksd.errors import InvalidField, InvalidFile, LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BYTES = 4 * 1024 * 1024
"""No file above this size is read."""

_BOM = "\ufeff"
_OPEN = re.compile(r"---[ \t]*(?:\r?\n|\Z)")
_CLOSE = re.compile(r"^---[ \t]*(?:\r?\n|\Z)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Document:
    """A block file's text, taken apart so that each part can be replaced alone.

    `opening` (byte order mark and fence), `matter`, `closing` (fence) and `body` are the text, in this order;
    a file without frontmatter has only a body, after its byte order mark.
    """

    opening: str
    matter: str
    closing: str
    body: str

    @property
    def text(self) -> str:
        """The whole text of the file."""
        return self.opening + self.matter + self.closing + self.body

    @property
    def has_frontmatter(self) -> bool:
        return bool(self.closing)

    @property
    def newline(self) -> str:
        """How the file ends its lines: as its first line does."""
        end = self.text.find("\n")
        return "\r\n" if end > 0 and self.text[end - 1] == "\r" else "\n"

    @property
    def value(self) -> str:
        r"""The block's value: the body with `\n` line ends, without one leading blank line and one final newline."""
        value = normalize_newlines(self.body)
        if self.has_frontmatter:
            value = value.removeprefix("\n")
        return value.removesuffix("\n")

    def with_value(self, value: str) -> Document:
        """The document with another value: everything above the body stays, and so does the body's style."""
        if value == self.value:
            return self
        old = normalize_newlines(self.body)
        opening, closing, newline = self.opening, self.closing, self.newline
        if not self.has_frontmatter and (_OPEN.match(value) or value.startswith(_BOM)):
            # Only behind a frontmatter of its own would such a text be read back as it is.
            opening, closing = f"{opening}---{newline}", f"---{newline}"
        blank = final = ""
        if closing and (value.startswith("\n") or (self.has_frontmatter and old.startswith("\n"))):
            blank = "\n"
        if value.endswith("\n") or old.removeprefix(blank).endswith("\n") or not old:
            final = "\n" if value else ""
        if closing and not closing.endswith("\n") and (blank or value):
            closing += newline
        body = blank + value + final
        return Document(opening, self.matter, closing, body.replace("\n", newline) if newline != "\n" else body)

    def with_key(self, key: str, value: object) -> Document:
        """The document with one frontmatter key changed, or, for None, removed.

        Raises:
            EditRefused: the key cannot be changed without touching other bytes.
        """
        if self.has_frontmatter:
            return Document(self.opening, frontmatter.set_key(self.matter, key, value), self.closing, self.body)
        if value is None:
            return self
        newline = self.newline
        matter = frontmatter.set_key("", key, value).replace("\n", newline)
        # A blank line that was the value's own must not become the one the format takes away.
        blank = newline if normalize_newlines(self.body).startswith("\n") else ""
        return Document(f"{self.opening}---{newline}", matter, f"---{newline}", blank + self.body)


def normalize_newlines(text: str) -> str:
    r"""`text` with every line end (`\r\n`, `\r`) as `\n`, as all values have them."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def split(text: str) -> Document:
    """Take a file's text apart. `split(text).text == text` for every text.

    Raises:
        InvalidFile: the frontmatter is opened but never closed.
    """
    start = 1 if text.startswith(_BOM) else 0
    opened = _OPEN.match(text, start)
    if opened is None:
        return Document(text[:start], "", "", text[start:])
    closed = _CLOSE.search(text, opened.end())
    if closed is None:
        raise InvalidFile(
            "the frontmatter is opened with '---' but never closed",
            line=1,
            hint="add a line '---' after the last key, or remove the first line",
        )
    return Document(text[: opened.end()], text[opened.end() : closed.start()], closed[0], text[closed.end() :])


def decode(data: bytes) -> str:
    """The text of a file.

    Raises:
        InvalidFile: not UTF-8, or a NUL in it; `offset` is the first bad byte's, from 0.
    """
    nul = data.find(b"\0")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise InvalidFile(
            f"the file is not UTF-8: byte 0x{data[error.start]:02x} at offset {error.start}",
            offset=error.start,
            hint=f"convert it from {'UTF-16' if wide else 'its encoding'}, for example with iconv -t UTF-8",
        ) from None
    if nul >= 0:
        raise InvalidFile(
            f"the file holds a NUL byte at offset {nul}",
            offset=nul,
            line=data.count(b"\n", 0, nul) + 1,
            hint="remove it; is this a binary file, or UTF-16?",
        )
    return text


def parse(data: bytes, label: str) -> Block:
    """The block a file says.

    Raises:
        InvalidFile: it says none; the message tells why, `line` or `offset` where, `hint` what to do.
    """
    document = split(decode(data))
    try:
        fields = check_fields(label, _matter(document))
    except InvalidField as error:
        key = str(error.facts["field"])
        raise InvalidFile(
            error.message, line=_line_of_key(document, key), key=key, hint=f"correct {key!r} in the frontmatter"
        ) from None
    value = document.value
    try:
        check_value(value, fields.get("limit", DEFAULT_LIMIT))
    except LimitExceeded as error:
        raise InvalidFile(
            error.message, **error.facts, hint="shorten the text, or raise 'limit' in the frontmatter"
        ) from None
    except InvalidField as error:
        above = document.text[: len(document.text) - len(document.body)].count("\n")
        blank = document.has_frontmatter and normalize_newlines(document.body).startswith("\n")
        line = above + blank + int(str(error.facts["line"]))
        raise InvalidFile(error.message, line=line, hint="remove the character") from None
    return Block(label=label, value=value, **fields)


def warnings(data: bytes) -> list[dict[str, Any]]:
    """What is odd in a file that is in force all the same: `message`, `line`, `hint` for each unknown key."""
    document = split(decode(data))
    found = []
    for key in _matter(document):
        if key not in FILE_KEYS:
            near = difflib.get_close_matches(key, FILE_KEYS, n=1)
            if key == "label":
                hint = "the label is the file's path"
            elif key == "value":
                hint = "the value is the text below the frontmatter"
            else:
                hint = f"did you mean {near[0]!r}?" if near else "put keys of your own under 'metadata'"
            found.append(
                {"message": f"unknown key {key[:60]!r} is ignored", "line": _line_of_key(document, key), "hint": hint}
            )
    return found


def serialize(block: Block) -> bytes:
    """A new file for a block: the frontmatter names what is not default, then a plain body."""
    document = Document("---\n", "", "---\n", "")
    default = Block(block.label, description=check_fields(block.label, {})["description"])
    for key in FILE_KEYS:
        value = getattr(block, key)
        if value != getattr(default, key):
            plain = list(value) if isinstance(value, tuple) else value
            document = document.with_key(key, plain)
    if not document.matter and not _OPEN.match(block.value) and not block.value.startswith(_BOM):
        document = Document("", "", "", "\n")
    return document.with_value(block.value).text.encode("utf-8")


def _matter(document: Document) -> Mapping[str, Any]:
    try:
        return frontmatter.load(document.matter)
    except InvalidFile as error:
        line = error.facts.get("line")
        if isinstance(line, int):
            error.facts["line"] = line + document.opening.count("\n")
        raise


def _line_of_key(document: Document, key: str) -> int | None:
    """Where the key stands in the file, from 1; None when it is not written plainly at the start of a line."""
    found = re.search(rf"""^[ ]*['"]?{re.escape(key)}['"]?[ ]*:""", document.matter, re.MULTILINE)
    return document.opening.count("\n") + document.matter.count("\n", 0, found.start()) + 1 if found else None
