"""Block files: their text ↔ `Block`, and byte-preserving edits."""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blocksd.errors import InvalidField, InvalidFile, LimitExceeded, ProblemFile
from blocksd.files import agent_file, frontmatter
from blocksd.files.lookalike import check_conflict, fence_below, is_lfs_pointer, is_second, lookalike
from blocksd.model.block import DEFAULT_LIMIT, FILE_KEYS, Block, check_value, default_block, facts_of, is_unfit
from blocksd.model.differences import Effort, differences
from blocksd.model.label import PROPERTIES_END, is_properties
from blocksd.model.problem import Warned, together

if TYPE_CHECKING:
    from blocksd.files.frontmatter import Meaning

MAX_BYTES = 4 * 1024 * 1024
"""No file above this size is read."""

_EFFORT = 200_000  # comparisons, to find the lines that stay: some milliseconds

_BOM = "\ufeff"
_OPEN = re.compile(r"---[ \t]*(?:\r?\n|\Z)")
_ENDS = re.compile(r"(\r\n|\r|\n)")
_CLOSE = re.compile(r"^---[ \t]*(?:\r?\n|\Z)", re.MULTILINE)
_SUSPECT = bytes({*range(0x20), 0x7F, 0xC2} - set(b"\t\n\r"))
"""Bytes in the UTF-8 of what no text may hold: a file without them need not be searched for it."""
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
        return "\r\n" if self.text[: self.text.find("\n") + 1].endswith("\r\n") else "\n"

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
        if not self.has_frontmatter and _needs_frontmatter(value):
            # Only behind a frontmatter is such a text read back as it is.
            opening, closing = f"{opening}---{newline}", f"---{newline}"
        blank = final = ""
        if closing and (value.startswith("\n") or (self.has_frontmatter and old.startswith("\n"))):
            blank = "\n"
        if self.matter.strip() and not blank and not _is_plain(value) and is_second(value):
            blank = "\n"
        if value.endswith("\n") or old.removeprefix(blank).endswith("\n") or old in ("", blank):
            final = "\n" if value else ""
        if closing and not closing.endswith("\n") and (blank or value):
            closing += newline
        return Document(opening, self.matter, closing, with_line_ends(blank + value + final, self.body, newline))

    def with_key(self, key: str, value: object) -> Document:
        """Return the document with one frontmatter key changed, or, for None, removed.

        Raise EditRefused if the key cannot be changed without touching other bytes.
        """
        newline = self.newline
        matter = frontmatter.set_key(self.matter, key, value)
        if not self.matter:
            matter = matter.replace("\n", newline)
        if self.has_frontmatter:
            # A value that begins like a frontmatter may stand right below an empty one only.
            blank = newline if not self.matter.strip() and matter.strip() and is_second(self.body) else ""
            return Document(self.opening, matter, self.closing, blank + self.body)
        if value is None:
            return self
        # A blank line that was the value's own must not become the one the format takes away.
        blank = newline if normalize_newlines(self.body).startswith("\n") else ""
        return Document(f"{self.opening}---{newline}", matter, f"---{newline}", blank + self.body)


def normalize_newlines(text: str) -> str:
    r"""Return `text` with every line end (`\r\n`, `\r`) as `\n`, as all values have them."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def with_line_ends(text: str, old: str, newline: str) -> str:
    """Return `text`, whose lines end with LF, with the line ends of `old` where its lines are those of `old`.

    New lines end with `newline`. Where `old` has several kinds of line ends, no line that stays may change.
    """
    if "\r" not in old or (newline == "\r\n" and old.count("\n") == old.count("\r") == old.count("\r\n")):
        return text.replace("\n", newline) if newline != "\n" else text
    parts = _ENDS.split(old)
    lines, ends, new = parts[::2], [*parts[1::2], newline], text.split("\n")
    found = [newline] * len(new)
    at = to = 0
    for start, end, new_start, new_end in (*differences(lines, new, Effort(_EFFORT)), (len(lines), 0, len(new), 0)):
        found[to:new_start] = ends[at:start]
        at, to = end, new_end
    for place, line in enumerate(new[1:], 1):
        if not line and found[place - 1] == "\r" and found[place] == "\n":  # together they would be one line end
            found[place] = "\r"
    return "".join(map("".join, zip(new, (*found[:-1], ""), strict=True)))


def _needs_frontmatter(value: str) -> bool:
    """Return True if a file of this text alone would be misread: below an empty frontmatter it is a value."""
    return (
        _OPEN.match(value) is not None
        or value.startswith(_BOM)
        or (not _is_plain(value) and lookalike(value) is not None)
        or is_lfs_pointer(value.encode()[:300])
    )


def _is_plain(text: str) -> bool:
    """Return True if a text begins as most do, and as nothing does that looks like a frontmatter."""
    return text[:1].isalnum()


def split(text: str, label: str = "") -> Document:
    """Take a file's text apart. `split(text).text == text` for every text.

    Raise InvalidFile if the frontmatter is opened but never closed.
    """
    start = 1 if text.startswith(_BOM) else 0
    if label.endswith(PROPERTIES_END) and is_properties(label):  # all of it is like a frontmatter
        return Document(text[:start], text[start:], "", "")
    opened = _OPEN.match(text, start)
    if opened is None:
        return Document(text[:start], "", "", text[start:])
    closed = _CLOSE.search(text, opened.end())
    if closed is None:
        hint = "add a line '---' after the last key, or remove the first line"
        meant = fence_below(text[opened.end() :])
        if meant is not None:
            hint = f"write '---' alone in line {meant[0] + 1}, in place of {meant[1][:20]!r}"
        raise InvalidFile("the frontmatter is opened with '---' but never closed", line=1, hint=hint)
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
    meaning: Meaning
    facts: str


class Parser:
    """Files → blocks. A frontmatter that has not changed since the label's last parse is not parsed again."""

    _HEADS = 4096
    _HEAD_BYTES = 16 * 1024 * 1024

    def __init__(self) -> None:
        self._heads: dict[str, _Head] = {}
        self._bytes = 0

    def parse(self, data: bytes, label: str, *, remember: bool = True) -> tuple[Block, tuple[Warned, ...]]:
        """Return the block that a file describes, and the warnings about it.

        Of many files that are read at once, most are not saved soon: their frontmatters need not be remembered.
        Raise InvalidFile if it describes none: the message tells all that is wrong, its facts where, and what to do.
        """
        if b"<" in data and b"<<<<<<<" in data:
            check_conflict(decode(data))
        if label.endswith(PROPERTIES_END) and is_properties(label):
            return agent_file.parse(split(decode(data), label).matter, label)
        head = self._heads.get(label)
        if head is None or not data.startswith(head.data) or not head.has_frontmatter:
            head = _parse_head(data, label)
            if remember and head.has_frontmatter and head.data.endswith(b"\n") and not head.meaning.errors:
                self._remember(label, head)
        body = decode(data[len(head.data) :], skipped=head.data)
        value = normalize_newlines(body)
        blank = head.has_frontmatter and value.startswith("\n")
        value = value[blank:].removesuffix("\n")
        fields, has_keys, warnings, errors = head.meaning
        limit = fields.get("limit", DEFAULT_LIMIT)
        try:
            if len(value) > limit or (len(data.translate(None, _SUSPECT)) != len(data) and is_unfit(value)):
                check_value(value, limit)
        except LimitExceeded as error:
            hint = "shorten the text, or raise 'limit' in the frontmatter"
            if not errors:
                raise InvalidFile(error.message, **error.facts, hint=hint) from None
            errors += (Warned(error.message, None, hint),)
        except InvalidField as error:
            line = head.data.count(b"\n") + blank + int(str(error.facts["line"]))
            errors += (Warned(error.message, line, "remove the character"),)
        if (has_keys or not head.has_frontmatter) and not _is_plain(body):
            found = lookalike(body)
            if found is not None and (found.direct or not head.has_frontmatter):
                errors += (found.told(head.data.count(b"\n"), is_second=head.has_frontmatter),)
            elif found is not None:
                warnings += (found.told(head.data.count(b"\n"), is_second=True),)
        if errors:
            told = together(errors)
            raise InvalidFile(told.message, **({} if told.line is None else {"line": told.line}), hint=told.hint)
        return Block(label=label, value=value, _facts=head.facts, **fields), warnings

    def open(self, data: bytes, label: str) -> tuple[Block, Document]:
        """Return the block that a file describes, and its document. Raise InvalidFile if it describes none."""
        return self.parse(data, label)[0], split(decode(data), label)

    def confirm(self, document: Document, block: Block) -> bytes:
        """Return the bytes of a document, once they are seen to describe this block.

        Raise LimitExceeded if they are too many, InvalidField if the file would be a problem for its value, ProblemFile if
        they describe another block.
        """
        data, label = document.text.encode("utf-8"), block.label
        if len(data) > MAX_BYTES:
            raise LimitExceeded(f"the file would be {len(data)} bytes, over the {MAX_BYTES} that are read", label=label)
        try:
            described = self.parse(data, label)[0]
        except InvalidFile as error:
            message = f"the value cannot be written: {error.message} ({error.facts['hint']})"
            raise InvalidField(message, field="value") from None
        if described != block:
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


def _parse_head(data: bytes, label: str) -> _Head:
    # Only the head is taken apart here: the body is decoded when it is known where it begins.
    opened = _OPEN_BYTES.match(data)
    closed = _CLOSE_BYTES.search(data, opened.end()) if opened is not None else None
    if opened is None:
        if is_lfs_pointer(data):
            hint = "fetch the file with 'git lfs pull'"
            raise InvalidFile("it is a pointer of Git LFS, not the file", line=1, hint=hint)
        meaning = frontmatter.read("", label, above=0)
        mark = data[:3] if data.startswith(codecs.BOM_UTF8) else b""
        return _Head(mark, False, meaning, facts_of(label, meaning.fields))
    if closed is None:
        split(decode(data))
    assert closed is not None
    head = data[: closed.end()]
    decode(head)  # which says what is wrong, too
    matter = data[opened.end() : closed.start()].decode("utf-8")
    meaning = frontmatter.read(matter, label, above=opened[0].count(b"\n"))
    return _Head(head, True, meaning, "" if meaning.errors else facts_of(label, meaning.fields))


def edited(document: Document, block: Block, new: Block) -> Document:
    """Return the document of `block` with the differences of `new`.

    Raise EditRefused if the text that must stay would be touched.
    """
    if new.label.endswith(PROPERTIES_END) and is_properties(new.label):
        return replace(document, matter=agent_file.edited(document.matter, block, new))
    for key in FILE_KEYS:
        value, before = getattr(new, key), getattr(block, key)
        if value is not before and value != before:
            is_default = value == getattr(default_block(new.label), key)
            plain = list(value) if isinstance(value, tuple) else value
            document = document.with_key(key, None if is_default else plain)
    return document.with_value(new.value)


def serialize(block: Block) -> bytes:
    """Return a new file for a block: the frontmatter has what is not default, and a plain body follows."""
    if is_properties(block.label):
        return agent_file.edited("", None, block).encode("utf-8")
    document = edited(Document("---\n", "", "---\n", ""), default_block(block.label), replace(block, value=""))
    if not document.matter and not _needs_frontmatter(block.value):
        document = Document("", "", "", "\n")
    return document.with_value(block.value).text.encode("utf-8")
