"""An agent's private blocks as the files of Anthropic's memory tool: paths, listings, edits, and the texts for the model.

Commands and texts are those that the tool's documentation recommends ("Tool commands" of the page Memory tool,
platform.claude.com/docs/en/agents-and-tools/tool-use/memory-tool, as of September 2026). Where it has no text, ours begin
with `Error: `, too.

A path and the name of its block:
  1. A path without `/memories/` and, if it has it, without `.md` is the name of a block: `/memories/notes.md` is the block
     `notes`, `/memories/a/todo.txt` the block `a/todo.txt`.
  2. A block is listed with `.md` behind its name if the name has no other extension, or is that of a directory, too. So a
     file that was created with an extension is listed as it was created, and a path of a listing names its block.
"""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import AlreadyExists, InvalidLabel, LimitExceeded, ReadOnly, VersionConflict
from blocksd.model.label import PRIVATE, SUFFIX, name_for_agent, owner, parse_label

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from blocksd.errors import BlocksdError
    from blocksd.mirror.view import BlockView

ROOT = "/memories"

_LEVELS = 2
"""How many levels of directories a listing shows."""
_MOST_LINES = 999_999
_MOST_CHARS = 16_000
"""How much of a file a model is shown that names no lines."""
_AROUND = 2
"""How many lines are shown before and after an edit."""
_MOST_PLACES = 100
"""How many places of a text are looked for that must be in one."""
_MOST_QUOTED = 200

_EXTENSION = re.compile(r"[^/]\.[A-Za-z][A-Za-z0-9]{0,7}\Z")
_ENCODED = re.compile(r"%(?:2e|2f|5c)", re.IGNORECASE)


class Refused(Exception):
    """A command that is not done. `text` says why, for the model."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text.encode("utf-8", "backslashreplace").decode()  # a text that is no UTF-8 could not be sent


class Place(NamedTuple):
    """Where a path leads. `path` is as the model wrote it, `below` what is behind `/memories/`, without a `/` at its end."""

    path: str
    below: str

    @property
    def name(self) -> str:
        """The name of the block, if a file is meant."""
        return self.below.removesuffix(SUFFIX)


class MemoryFiles:
    """An agent's private blocks as files, as they were when they were read."""

    def __init__(self, agent: str, blocks: Iterable[BlockView]) -> None:
        self._agent = agent
        self._blocks = {block.name: block for block in blocks if owner(block.label) == agent}
        self._directories = {above for name in self._blocks for above in _above(name)} | {""}

    # --- paths ---

    def place(self, path: str) -> Place:
        """Return where a path leads. Raises Refused if nothing can be there."""
        shown = path if len(path) <= _MOST_QUOTED else f"{path[:_MOST_QUOTED]}…"
        if path in (ROOT, f"{ROOT}/"):
            return Place(path, "")
        if not path.startswith(f"{ROOT}/"):
            raise Refused(f"Error: The path {shown} is not below {ROOT}")
        if _ENCODED.search(path):
            raise Refused(f"Error: The path {shown} has percent-encoded characters: write it without")
        below = path[len(ROOT) + 1 :].removesuffix("/")
        name = below.removesuffix(SUFFIX)
        try:
            name = name_for_agent(parse_label(f"{PRIVATE}/{self._agent}/{name}"))
        except InvalidLabel as error:
            why = error.message.rpartition(" is not a label: ")[2]  # a model knows paths, and no labels
            raise Refused(f"Error: The path {shown} is not possible: {why}") from None
        return Place(path, f"{name}{SUFFIX}" if below.endswith(SUFFIX) else name)

    def path_of(self, name: str) -> str:
        """Return the path by which a block is listed."""
        has_extension = _EXTENSION.search(name) is not None and name not in self._directories
        return f"{ROOT}/{name}" if has_extension else f"{ROOT}/{name}{SUFFIX}"

    def is_directory(self, place: Place) -> bool:
        """Return True if there are blocks below the path, or it is the root."""
        return place.below in self._directories

    def block_at(self, place: Place) -> BlockView | None:
        """Return the block whose file is there. None: there is a directory, or nothing."""
        if self.is_directory(place) or place.path.endswith("/"):
            return None
        return self._blocks.get(place.name)

    def blocks_in(self, place: Place) -> list[BlockView]:
        """Return the blocks that a command on the whole path concerns: those of the directory, or the one of the file."""
        if self.is_directory(place):
            start = f"{place.below}/" if place.below else ""
            return [block for name, block in sorted(self._blocks.items()) if name.startswith(start)]
        block = self.block_at(place)
        return [] if block is None else [block]

    # --- what is shown ---

    def shown(self, place: Place, view_range: object = None) -> str:
        """Return a listing of the directory, or the lines of the file. Raises Refused if there is neither."""
        if self.is_directory(place):
            return self._listing(place)
        block = self.block_at(place)
        if block is None:
            raise Refused(f"The path {place.path} does not exist. Please provide a valid path.")
        lines = _lines(block.value)
        if len(lines) > _MOST_LINES:
            raise Refused(f"File {place.path} exceeds maximum line limit of 999,999 lines.")
        first, last = 1, len(lines)
        if view_range is not None:
            first, last = _range(view_range, len(lines))
        shown = _numbered(lines, first, last)
        head = f"Here's the content of {place.path} with line numbers:\n"
        if view_range is None and sum(map(len, shown)) > _MOST_CHARS:
            return f"{head}{_cut(shown)}"
        return head + "\n".join(shown)

    def _listing(self, place: Place) -> str:
        """Directories end in `/`. Hidden blocks and templates are left out, as in a prompt."""
        start = f"{place.below}/" if place.below else ""
        sizes: dict[str, int] = {}
        for name, block in self._blocks.items():
            if name.startswith(start) and not (block.hidden or block.is_template):
                path = self.path_of(name)[len(ROOT) + 1 + len(start) :]
                size = len(_content(block.value).encode("utf-8", "surrogatepass"))
                sizes[path] = size
                for above in ("", *(f"{one}/" for one in _above(path))):
                    sizes[above] = sizes.get(above, 0) + size
        top = place.path.rstrip("/")
        lines = [f"{_size(sizes.pop('', 0))}\t{place.path}"]
        for path in sorted(sizes, key=lambda path: path.split("/")):
            segments = path.removesuffix("/").split("/")
            if len(segments) <= _LEVELS and "node_modules" not in segments:
                lines.append(f"{_size(sizes[path])}\t{top}/{path}")
        head = f"Here're the files and directories up to 2 levels deep in {place.path}, excluding hidden items and node_modules:"
        return "\n".join((head, *lines))

    # --- what may be done ---

    def check_new(self, place: Place) -> str:
        """Return the name for a new file. Raises Refused if no file can be created there."""
        if self.is_directory(place) or place.path.endswith("/"):
            raise Refused(f"Error: The path {place.path} is that of a directory: name a file in it")
        if place.name in self._blocks:
            raise Refused(f"Error: File {place.path} already exists")
        self._check_above(place)
        return place.name

    def check_edited(self, place: Place, text: str) -> BlockView:
        """Return the block of a file that is to be edited. Raises Refused with this text if there is none."""
        block = self.block_at(place)
        if block is None:
            raise Refused(text)
        return block

    def check_deleted(self, place: Place) -> list[BlockView]:
        """Return the blocks to delete. Raises Refused if it is the root, or nothing is there."""
        if not place.below:
            raise Refused(f"Error: The directory {ROOT} itself cannot be deleted")
        return self._present(place)

    def check_renamed(self, old: Place, new: Place) -> list[tuple[BlockView, str]]:
        """Return each block to rename, with its new name. Raises Refused if it cannot be."""
        if not old.below:
            raise Refused(f"Error: The directory {ROOT} itself cannot be renamed")
        blocks = self._present(old)
        if self.is_directory(new) or new.name in self._blocks:
            raise Refused(f"Error: The destination {new.path} already exists")
        self._check_above(new)
        if not self.is_directory(old):
            if new.path.endswith("/"):
                raise Refused(f"Error: The destination {new.path} is that of a directory: name a file in it")
            return [(blocks[0], new.name)]
        if new.below.startswith(f"{old.below}/"):
            raise Refused(f"Error: The directory {old.path} cannot be moved into itself")
        return [(block, new.below + block.name[len(old.below) :]) for block in blocks]

    def _present(self, place: Place) -> list[BlockView]:
        blocks = self.blocks_in(place)
        if not blocks:
            raise Refused(f"Error: The path {place.path} does not exist")
        return blocks

    def _check_above(self, place: Place) -> None:
        """Raise Refused if a file is in the place of a directory that the path needs."""
        for above in _above(place.below):
            if above in self._blocks and self.path_of(above) == f"{ROOT}/{above}":
                raise Refused(f"Error: {ROOT}/{above} is a file, not a directory")

    def refusal(self, error: BlocksdError, path: str) -> Refused:
        """Return what a model is told of an error of the daemon; `path` is what its command names."""
        label = error.facts.get("label")
        if isinstance(label, str) and owner(label) == self._agent:
            path = self.path_of(name_for_agent(label))
        if isinstance(error, ReadOnly):
            return Refused(f"Error: The file {path} is read-only")
        if isinstance(error, AlreadyExists):
            return Refused(f"Error: File {path} already exists")
        if isinstance(error, LimitExceeded) and "chars" in error.facts:
            chars, limit = error.facts["chars"], error.facts.get("limit")
            return Refused(f"Error: The file {path} would have {chars} characters, and may have {limit}: write less")
        if isinstance(error, VersionConflict):
            return Refused(f"Error: The file {path} changed meanwhile: view it again")
        return Refused(f"Error: The file {path} cannot be changed so: {error.message}")


# --- edits ---


def value_of(file_text: str) -> str:
    """Return the value of a block whose file has this text: all but the line feed at its end."""
    return file_text.removesuffix("\n")


def replaced(place: Place, value: str, old: str, new: str) -> str:
    """Return the value with text replaced that is in one place of the file. Raises Refused if it is not."""
    content = _content(value)
    if not old:
        raise Refused("Error: No replacement was performed: old_str is empty")
    places = list(islice(_places(content, old), _MOST_PLACES))
    if not places:
        raise Refused(f"No replacement was performed, old_str `{old}` did not appear verbatim in {place.path}.")
    if len(places) > 1:
        lines = sorted({content.count("\n", 0, at) + 1 for at in places})
        raise Refused(
            f"No replacement was performed. Multiple occurrences of old_str `{old}` in lines: "
            f"{', '.join(map(str, lines))}. Please ensure it is unique"
        )
    return value_of(content[: places[0]] + new + content[places[0] + len(old) :])


def _places(content: str, text: str) -> Iterator[int]:
    """Yield where a text begins in a content, also where it overlaps itself."""
    at = content.find(text)
    while at >= 0:
        yield at
        at = content.find(text, at + 1)


def inserted(value: str, line: int, text: str) -> str:
    """Return the value with lines inserted after a line. Raises Refused if there is no such line."""
    lines = _lines(value)
    if not 0 <= line <= len(lines):
        raise Refused(
            f"Error: Invalid `insert_line` parameter: {line}. "
            f"It should be within the range of lines of the file: [0, {len(lines)}]"
        )
    return "\n".join([*lines[:line], value_of(text), *lines[line:]])


def snippet(value: str, before: str, new: str) -> str:
    """Return the answer to a replacement: the lines around the place where `value` differs from the one before."""
    start = next(
        (at for at, (a, b) in enumerate(zip(value, before, strict=False)) if a != b), min(len(value), len(before))
    )
    line = value.count("\n", 0, start) + 1
    lines = _lines(value)
    shown = _numbered(lines, max(1, line - _AROUND), min(len(lines), line + new.count("\n") + _AROUND))
    return "\n".join(("The memory file has been edited. The lines around the edit, with line numbers:", *shown))


# --- lines and sizes ---


def _content(value: str) -> str:
    """Return the text of the file of a block: its last line, too, ends with a line feed."""
    return f"{value}\n" if value else ""


def _lines(value: str) -> list[str]:
    return value.split("\n") if value else []


def _numbered(lines: Sequence[str], first: int, last: int) -> list[str]:
    return [f"{number:6}\t{lines[number - 1]}" for number in range(first, last + 1)]


def _range(view_range: object, count: int) -> tuple[int, int]:
    """Return the first and the last line of a `view_range`; -1 is the last line of the file."""
    if isinstance(view_range, list) and len(view_range) == 2 and all(type(one) is int for one in view_range):
        first, last = view_range
        if 1 <= first <= max(count, 1) and (last == -1 or last >= first):
            return first, count if last == -1 else min(last, count)
    raise Refused(
        f"Error: Invalid `view_range` parameter: {view_range}. "
        f"It should be within the range of lines of the file: [1, {count}]"
    )


def _cut(shown: Sequence[str]) -> str:
    """Return as many of the numbered lines as a model is shown at once, and a note on how to see the others."""
    chars = count = 0
    while (chars := chars + len(shown[count])) <= _MOST_CHARS:
        count += 1
    if not count:
        note = f"(The first {_MOST_CHARS} characters of line 1 of {len(shown)}. To see all of it: `view_range` [1, 1])"
        return f"{shown[0][:_MOST_CHARS]}\n{note}"
    rest = f"[{count + 1}, {len(shown)}]"
    note = f"(Lines 1 to {count} of {len(shown)}. To see others, name them in `view_range`: {rest})"
    return "\n".join((*shown[:count], note))


def _size(count: int) -> str:
    """Return a number of bytes as people read it: 512B, 1.5K, 2.0M."""
    if count < 1024:
        return f"{count}B"
    size, units = count / 1024, iter("KMG")
    unit = next(units)
    while size >= 1023.95:
        size, unit = size / 1024, next(units)
    return f"{size:.1f}{unit}"


def _above(path: str) -> Iterator[str]:
    """Yield the directories that a path is in, below the root."""
    segments = path.split("/")
    for end in range(1, len(segments)):
        yield "/".join(segments[:end])
