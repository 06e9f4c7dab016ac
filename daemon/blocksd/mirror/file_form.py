"""The form of a block's file beside its value, by which the mirror gives back the file's very bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from blocksd.files.staging import mode_of_new
from blocksd.model.label import PROPERTIES_END, SUFFIX, is_properties

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.files.file_edit import BlockFile
    from blocksd.model.block import Block

USUAL_MODE = 0o644
"""The permission bits that the mirror does not name."""

_BOM = "\ufeff"
_NEWLINES = ("\n", "\r\n", "\r")


@dataclass(frozen=True, slots=True)
class FileForm:
    r"""The form of a file: its text is `head`, the value with `newline` for each `\n`, and `tail`, or else `raw`.

    `head` is the text above the body: byte order mark, frontmatter with its fences, and the blank line behind it.
    `tail` is what stands behind the value. `raw` is the whole text where the parts do not give the same bytes, as in a file
    whose lines end in several ways; then the parts are at their defaults. `path` is the file's path below the folder where
    the label's path is spelled another way, else empty; `mode` is its permission bits.
    """

    head: str = ""
    newline: str = "\n"
    tail: str = "\n"
    raw: str | None = None
    path: str = ""
    mode: int = USUAL_MODE

    def data(self, value: str) -> bytes:
        """Return the bytes of the file, for the value that it was made of."""
        if self.raw is not None:
            return self.raw.encode()
        return f"{self.head}{_with(self.newline, value)}{self.tail}".encode()

    def fields(self) -> dict[str, str]:
        """Return the fields of a block's hash that show this form. What is usual has none."""
        fields: dict[str, str] = {}
        if self.path:
            fields["path"] = self.path
        if self.head:
            fields["head"] = self.head
        if self.newline != "\n":
            fields["newline"] = self.newline
        if self.tail != "\n":
            fields["tail"] = self.tail
        if self.raw is not None:
            fields["file"] = self.raw
        if self.mode != USUAL_MODE:
            fields["mode"] = f"{self.mode:o}"
        return fields


FORM_FIELDS = ("path", "head", "newline", "tail", "file", "mode")
"""The fields of a block's hash that show the form of its file."""

USUAL_FORM = FileForm()
"""The form of a file that is its value and a newline, as most files without frontmatter are."""


def form_of(data: bytes, value: str, *, path: str = "", mode: int = USUAL_MODE) -> FileForm:
    """Return the form of a block's file that says this value."""
    text = data.decode()
    if not value:
        # Nothing tells where an empty body begins: all but the one line end is above it.
        tail = text.removeprefix(_BOM)
        tail = tail if tail in ("\n", "\r\n", "\r") else ""
        return FileForm(text[: len(text) - len(tail)], tail=tail, path=path, mode=mode)
    tail = "\r\n" if text.endswith("\r\n") else text[-1] if text[-1:] in ("\n", "\r") else ""
    for newline in _NEWLINES:
        end = _with(newline, value) + tail
        if text.endswith(end):
            return FileForm(text[: len(text) - len(end)], newline, tail, path=path, mode=mode)
    return FileForm(raw=text, path=path, mode=mode)


def form_fields(data: bytes, block: Block, *, path: str, mode: int) -> dict[str, str]:
    """Return the fields that show the form of the file at `path`, which says this block: those of `FileForm.fields`."""
    label = block.label
    if label.endswith(PROPERTIES_END) and is_properties(label):  # their value is not the file's text
        return FileForm(raw=data.decode(), path="" if path == label else path, mode=mode).fields()
    return form_of(data, block.value, path="" if path == f"{label}{SUFFIX}" else path, mode=mode).fields()


def form_of_file(file: BlockFile) -> dict[str, str] | None:
    """Return the form of a file as requests leave it, as `Revision.form` has it; None: there is none."""
    if file.block is None or file.data is None:
        return None
    mode = mode_of_new() if file.mode is None else file.mode
    return form_fields(file.data, file.block, path=file.path, mode=mode)


def form_shown(fields: Mapping[str, str]) -> FileForm:
    """Return the form that the hash of a block shows."""
    return FileForm(
        fields.get("head", ""),
        fields.get("newline", "\n"),
        fields.get("tail", "\n"),
        fields.get("file"),
        fields.get("path", ""),
        int(fields.get("mode", f"{USUAL_MODE:o}"), 8) & 0o777,
    )


def _with(newline: str, value: str) -> str:
    return value if newline == "\n" else value.replace("\n", newline)
