"""Block files: their text ↔ `Block`, and byte-preserving edits."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidField, InvalidFile, LimitExceeded, ProblemFile
from blocksd.files import frontmatter, yaml_reader
from blocksd.model.block import DEFAULT_LIMIT, FILE_KEYS, Block, check_fields, check_value, default_block, facts_of
from blocksd.model.nearest import nearest
from blocksd.model.problem import Warned

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_BYTES = 4 * 1024 * 1024
"""No file above this size is read."""

_GUESSES = 100  # for how many unknown keys of one file the known ones are searched: there may be thousands

_BOM = "\ufeff"
_OPEN = re.compile(r"---[ \t]*(?:\r?\n|\Z)")
_CLOSE = re.compile(r"^---[ \t]*(?:\r?\n|\Z)", re.MULTILINE)
_OPEN_BYTES = re.compile(rb"(?:\xef\xbb\xbf)?" + _OPEN.pattern.encode())
_CLOSE_BYTES = re.compile(_CLOSE.pattern.encode(), re.MULTILINE)


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
        """The line end of the first line, which all others have."""
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
        """Return the document with another value: everything above the body stays, and so does the body's style."""
        if value == self.value:
            return self
        old = normalize_newlines(self.body)
        opening, closing, newline = self.opening, self.closing, self.newline
        if not self.has_frontmatter and (_OPEN.match(value) or value.startswith(_BOM)):
            # Only behind a frontmatter is such a text read back as it is.
            opening, closing = f"{opening}---{newline}", f"---{newline}"
        blank = final = ""
        if closing and (value.startswith("\n") or (self.has_frontmatter and old.startswith("\n"))):
            blank = "\n"
        if value.endswith("\n") or old.removeprefix(blank).endswith("\n") or old in ("", blank):
            final = "\n" if value else ""
        if closing and not closing.endswith("\n") and (blank or value):
            closing += newline
        body = blank + value + final
        return Document(opening, self.matter, closing, body.replace("\n", newline) if newline != "\n" else body)

    def with_key(self, key: str, value: object) -> Document:
        """Return the document with one frontmatter key changed, or, for None, removed.

        Raise EditRefused if the key cannot be changed without touching other bytes.
        """
        newline = self.newline
        matter = frontmatter.set_key(self.matter, key, value)
        if not self.matter:
            matter = matter.replace("\n", newline)
        if self.has_frontmatter:
            return Document(self.opening, matter, self.closing, self.body)
        if value is None:
            return self
        # A blank line that was the value's own must not become the one the format takes away.
        blank = newline if normalize_newlines(self.body).startswith("\n") else ""
        return Document(f"{self.opening}---{newline}", matter, f"---{newline}", blank + self.body)


def normalize_newlines(text: str) -> str:
    r"""Return `text` with every line end (`\r\n`, `\r`) as `\n`, as all values have them."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def split(text: str) -> Document:
    """Take a file's text apart. `split(text).text == text` for every text.

    Raise InvalidFile if the frontmatter is opened but never closed.
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


def decode(data: bytes, *, skipped: bytes = b"") -> str:
    """Return the text of a file, or of what comes after `skipped`.

    Raise InvalidFile if it is not UTF-8 or has a NUL; `offset` is the first bad byte's, from 0.
    """
    nul = data.find(b"\0")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        wide = not skipped and data[:2] in (b"\xff\xfe", b"\xfe\xff")
        raise InvalidFile(
            f"the file is not UTF-8: byte 0x{data[error.start]:02x} at offset {len(skipped) + error.start}",
            offset=len(skipped) + error.start,
            hint=f"convert it from {'UTF-16' if wide else 'its encoding'}, for example with iconv -t UTF-8",
        ) from None
    if nul >= 0:
        raise InvalidFile(
            f"the file holds a NUL byte at offset {len(skipped) + nul}",
            offset=len(skipped) + nul,
            line=skipped.count(b"\n") + data.count(b"\n", 0, nul) + 1,
            hint="remove it; is this a binary file, or UTF-16?",
        )
    return text


@dataclass(frozen=True, slots=True)
class _Head:
    """The head of a file, down to its body, and its meaning: parsed once, compared from then on."""

    data: bytes
    has_frontmatter: bool
    fields: Mapping[str, Any]
    facts: str
    warnings: tuple[Warned, ...]


class Parser:
    """Files → blocks. A frontmatter that has not changed since the label's last parse is not parsed again."""

    _HEADS = 4096
    _HEAD_BYTES = 16 * 1024 * 1024

    def __init__(self) -> None:
        self._heads: dict[str, _Head] = {}
        self._bytes = 0

    def parse(self, data: bytes, label: str) -> tuple[Block, tuple[Warned, ...]]:
        """Return the block that a file describes, and the warnings about it.

        Raise InvalidFile if it describes none; the message tells why, `line` or `offset` where, `hint` what to do.
        """
        head = self._heads.get(label)
        if head is None or not data.startswith(head.data) or not head.has_frontmatter:
            head = _parse_head(data, label)
            if head.has_frontmatter and head.data.endswith(b"\n"):
                self._remember(label, head)
        body = decode(data[len(head.data) :], skipped=head.data)
        value = normalize_newlines(body)
        blank = head.has_frontmatter and value.startswith("\n")
        value = value[blank:].removesuffix("\n")
        try:
            check_value(value, head.fields.get("limit", DEFAULT_LIMIT))
        except LimitExceeded as error:
            hint = "shorten the text, or raise 'limit' in the frontmatter"
            raise InvalidFile(error.message, **error.facts, hint=hint) from None
        except InvalidField as error:
            line = head.data.count(b"\n") + blank + int(str(error.facts["line"]))
            raise InvalidFile(error.message, line=line, hint="remove the character") from None
        return Block(label=label, value=value, _facts=head.facts, **head.fields), head.warnings

    def open(self, data: bytes, label: str) -> tuple[Block, Document]:
        """Return the block that a file describes, and its document. Raise InvalidFile if it describes none."""
        return self.parse(data, label)[0], split(decode(data))

    def confirm(self, document: Document, block: Block) -> bytes:
        """Return the bytes of a document, once they are seen to describe this block.

        Raise LimitExceeded if they are too many, ProblemFile if they describe another block.
        """
        data, label = document.text.encode("utf-8"), block.label
        if len(data) > MAX_BYTES:
            raise LimitExceeded(f"the file would be {len(data)} bytes, over the {MAX_BYTES} that are read", label=label)
        if self.parse(data, label)[0] != block:
            raise ProblemFile(
                f"the file of {label!r} cannot say this without losing something", label=label, hint="edit it by hand"
            )
        return data

    def edit(self, document: Document, block: Block, new: Block) -> tuple[Document, bytes]:
        """Return the document of `block` with the differences of `new`, and its bytes.

        Raise what `edited` and `confirm` raise.
        """
        document = edited(document, block, new)
        return document, self.confirm(document, new)

    def _remember(self, label: str, head: _Head) -> None:
        self.forget(label)
        self._heads[label] = head
        self._bytes += len(head.data)
        while len(self._heads) > self._HEADS or self._bytes > self._HEAD_BYTES:
            self.forget(next(iter(self._heads)))

    def forget(self, label: str) -> None:
        """Forget the head of a label that is gone, or is about to be parsed anew."""
        head = self._heads.pop(label, None)
        if head is not None:
            self._bytes -= len(head.data)


def parse(data: bytes, label: str) -> Block:
    """Return the block that a file describes, and the warnings about it.

    Raise InvalidFile if it describes none; the message tells why, `line` or `offset` where, `hint` what to do.
    """
    return Parser().parse(data, label)[0]


def _parse_head(data: bytes, label: str) -> _Head:
    # Only the head is taken apart here: the body is decoded when it is known where it begins.
    opened = _OPEN_BYTES.match(data)
    closed = _CLOSE_BYTES.search(data, opened.end()) if opened is not None else None
    document = split(decode(data[: closed.end()] if closed is not None else data))
    given = _matter(document)
    try:
        fields = check_fields(label, given)
    except InvalidField as error:
        key = str(error.facts["field"])
        line = _lines_of_keys(document).get(key)
        raise InvalidFile(error.message, line=line, key=key, hint=f"correct {key!r} in the frontmatter") from None
    size = closed.end() if closed is not None else len(document.opening.encode("utf-8"))
    unknown = [key for key in given if key not in FILE_KEYS]
    lines = _lines_of_keys(document) if unknown else {}
    warnings = tuple(_unknown_key(key, lines.get(key), may_guess=at < _GUESSES) for at, key in enumerate(unknown))
    return _Head(data[:size], document.has_frontmatter, fields, facts_of(label, fields), warnings)


def _unknown_key(key: str, line: int | None, *, may_guess: bool) -> Warned:
    near = nearest(key, FILE_KEYS) if may_guess else []
    if key == "label":
        hint = "the label is the file's path"
    elif key == "value":
        hint = "the value is the text below the frontmatter"
    else:
        hint = f"did you mean {near[0]!r}?" if near else "put your keys under 'metadata'"
    return Warned(f"unknown key {key[:60]!r} is ignored", line, hint)


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


def serialize(block: Block) -> bytes:
    """Return a new file for a block: the frontmatter has what is not default, and a plain body follows."""
    document = edited(Document("---\n", "", "---\n", ""), default_block(block.label), replace(block, value=""))
    if not document.matter and not _OPEN.match(block.value) and not block.value.startswith(_BOM):
        document = Document("", "", "", "\n")
    return document.with_value(block.value).text.encode("utf-8")


def _matter(document: Document) -> Mapping[str, Any]:
    try:
        return yaml_reader.load(document.matter)
    except InvalidFile as error:
        line = error.facts.get("line")
        if isinstance(line, int):
            error.facts["line"] = line + document.opening.count("\n")
        raise


def _lines_of_keys(document: Document) -> dict[str, int]:
    """Return the line of the file, from 1, on which each key of the frontmatter stands."""
    above = document.opening.count("\n")
    return {key: above + line for key, line in frontmatter.lines_of_keys(document.matter).items()}
