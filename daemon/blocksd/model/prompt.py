r"""Blocks → the text an agent sees.

The format is that of Letta's memory blocks, so that an agent moved here sees the prompt it knows. Equal blocks give
equal text, in whatever order they come, so that a model's prompt cache holds.

Invariants:
  1. No text leaves its element. `_contained` puts a backslash behind every `<` that begins a tag of this format, or
     one that could be taken for it: `</value>` is shown as `<\/value>`, and `<\/value>` as `<\\/value>`.
  2. Nothing is lost by it. Whether a `<` begins a tag does not depend on the backslashes behind it, so each that does is
     shown with one backslash more than was written, and taking one away gives the text back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, get_args

from blocksd.errors import InvalidField

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Style = Literal["standard", "line-numbered", "nested", "directories"]
STYLES: tuple[Style, ...] = get_args(Style)

STYLE_OF_TYPE: dict[str, Style] = {
    "sleeptime_agent": "line-numbered",
    "react_agent": "nested",
    "workflow_agent": "directories",
}
"""The style in which agents of a type see their memory; the others see it in the standard one."""


def style_of(agent_type: str | None) -> Style:
    """Return the style in which agents of a type see their memory."""
    return STYLE_OF_TYPE.get(agent_type or "", "standard")


_STRUCTURE = frozenset(
    (
        *("memory_blocks", "block", "description", "metadata", "warning", "value", "tool_usage_rules"),
        *("directories", "file_limits", "directory", "instructions", "file"),
    )
)
"""The elements that are not named after a block."""

_HEAD = "<memory_blocks>\nThe following memory blocks are currently engaged in your core memory unit:\n"
_WARNING = (
    "<warning>\n# NOTE: Line numbers shown below (with arrows like '1→') are to help during editing. "
    "Do NOT include line number prefixes in your memory edit tool calls.\n</warning>\n"
)

# No name begins with a control character: these two come before all others.
_FIRST = {"persona": "\x00", "human": "\x01"}

_NAME = (
    r"(?![.\-])[\w.\-\u00b7\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u037d\u037f-\u1fff\u200c\u200d\u203f\u2040\u2070-\u218f"
    r"\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufffd\U00010000-\U000effff]+"
)
"""A name as XML has it; one may begin with a digit, too, as in Letta's prompts."""
_TAG = re.compile(rf"{_NAME}(?:/{_NAME})*")
_UNFIT_FOR_ATTRIBUTE = re.compile('[\x00-\x1f&"<>\x7f-\x9f\u2028\u2029\ud800-\udfff]')
_ENTITIES = {"&": "&amp;", '"': "&quot;", "<": "&lt;", ">": "&gt;"}


class Renderable(Protocol):
    """The fields of a block that a prompt shows, with the name by which its agent calls it."""

    @property
    def name(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def description(self) -> str | None: ...
    @property
    def limit(self) -> int: ...
    @property
    def read_only(self) -> bool: ...
    @property
    def hidden(self) -> bool: ...
    @property
    def is_template(self) -> bool: ...


B = TypeVar("B", bound=Renderable)

Row = tuple[str, str, str | None, bool, int | str]
"""What a prompt shows of a block: its name, value, description, whether it is read-only, and its limit."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a source. `name` is its path there; `value` is the text shown while it is open.

    `limit` is how many characters are shown at most. `last_accessed_at` is RFC 3339 in UTC; None is before all others.
    """

    name: str
    is_open: bool
    value: str
    limit: int
    description: str | None = None
    read_only: bool = True
    last_accessed_at: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """A directory of text files that agents may open."""

    name: str
    description: str | None
    instructions: str | None
    files: tuple[File, ...]


@dataclass(frozen=True, slots=True)
class ToolUsageRules:
    """How tools must be used (`value`), and what these rules are for (`description`)."""

    description: str
    value: str


def compile_prompt(
    blocks: Iterable[Renderable],
    *,
    style: Style = "standard",
    tool_usage_rules: ToolUsageRules | str | None = None,
    sources: Iterable[Source] = (),
    max_files_open: int | None = None,
) -> str:
    """Return the text for an agent's context window: its blocks, then the rules, then the sources; "" when there is none.

    Hidden blocks and templates are left out. Rules given as plain text are shown without a description. Of the open
    files, only the `max_files_open` accessed last are shown open (None: all).

    The styles:
        standard: every block in an element of its name.
        line-numbered: the same, with the lines of values numbered from 1.
        nested: every segment of a block's name in a separate element, inside that of the segment before.
        directories: no blocks.

    Raises:
        InvalidField: there is no such style.
    """
    rows = [_row(block) for block in blocks if not (block.hidden or block.is_template)]
    return compile_rows(rows, style, tool_usage_rules, sources, max_files_open)


def compile_rows(
    rows: Iterable[Row],
    style: Style = "standard",
    tool_usage_rules: ToolUsageRules | str | None = None,
    sources: Iterable[Source] = (),
    max_files_open: int | None = None,
) -> str:
    """Return the same for blocks that are all shown, given as rows. Raises as `compile_prompt` does."""
    if style not in STYLES:
        raise InvalidField(f"style must be one of {', '.join(STYLES)}, not {style!r}", field="style")
    pieces = _memory_blocks(rows, style)
    if tool_usage_rules:
        pieces.append(_tool_usage_rules(tool_usage_rules))
    if sources:
        pieces += _directories(_limited(sources, max_files_open), max_files_open, nested=style == "nested")
    return "".join(pieces)


def order(blocks: Iterable[B]) -> list[B]:
    """Return the blocks in the order in which they are shown: persona, human, then by name."""
    return sorted(blocks, key=lambda block: _FIRST.get(name := block.name, name))


def render_block(block: Renderable) -> str:
    """Return one block as it is shown in a prompt of the style `standard`, also if it is hidden or a template."""
    pieces: list[str] = []
    _add(pieces, _row(block), *_tags(block.name))
    return "".join(pieces).rstrip("\n")


def _row(block: Renderable) -> Row:
    return block.name, block.value, block.description, block.read_only, block.limit


def _memory_blocks(rows: Iterable[Row], style: Style) -> list[str]:
    ordered = sorted(rows, key=lambda row: _FIRST.get(row[0], row[0]))
    if style == "directories" or not ordered:
        return []
    # Pieces with their line ends, joined once: values are long, and to copy them is most of the cost.
    pieces = [_HEAD]
    if style == "nested":
        for element in _nested([(row[0].split("/"), row) for row in ordered]):
            pieces += ("\n", *element)
    else:
        numbered = style == "line-numbered"
        for row in ordered:
            start, end = _tags(row[0])
            _add(pieces, row, f"\n{start}", end, numbered)
    pieces.append("</memory_blocks>")
    return pieces


def _nested(rows: list[tuple[list[str], Row]]) -> Iterator[list[str]]:
    """Yield one element for each first segment of `rows`, which come with the segments that are not yet shown.

    A block that is also the parent of others is shown first in its element.
    """
    branches: dict[str, list[tuple[list[str], Row]]] = {}
    for (segment, *rest), row in rows:
        branches.setdefault(segment, []).append((rest, row))
    for segment, branch in branches.items():
        start, end = _tags(segment)
        pieces = [start]
        for rest, row in branch:
            if not rest:
                _add(pieces, row, "", "")
        for element in _nested([(rest, row) for rest, row in branch if rest]):
            pieces += element
        yield [*pieces, end]


def _add(pieces: list[str], row: Row, start: str, end: str, numbered: bool = False) -> None:
    """Add the element of a block or file, between its tags, to the pieces of a prompt."""
    name, value, description, read_only, limit = row
    if description is None:
        description = ""
    elif "<" in description:
        description = _contained(description, name)
    shown = _contained(value, name) if "<" in value else value
    # As `_metadata`, without a call: this is done for each block of each prompt.
    about = (
        f"{start}<description>\n{description}\n</description>\n"
        f"<metadata>\n- read_only={'true' if read_only else 'false'}\n"
        f"- chars_current={len(value)}\n- chars_limit={limit}\n</metadata>\n"
    )
    if numbered:
        pieces += (about, f"{_WARNING}<value>\n", _numbered(shown), "</value>\n", end)
    else:
        pieces += (about, "<value>\n", shown, "\n</value>\n", end)


def _metadata(read_only: bool, chars: int, limit: int) -> str:
    flag = "true" if read_only else "false"
    return f"<metadata>\n- read_only={flag}\n- chars_current={chars}\n- chars_limit={limit}\n</metadata>\n"


def _numbered(value: str) -> str:
    """Return the lines of `value`, each with its number and line end; an empty value has none."""
    return "".join(f"{number}→ {line}\n" for number, line in enumerate(value.split("\n"), 1)) if value else ""


def _tool_usage_rules(rules: ToolUsageRules | str) -> str:
    text = rules if isinstance(rules, str) else f"{rules.description}\n\n{rules.value}"
    return f"\n\n<tool_usage_rules>\n{_contained(text)}\n</tool_usage_rules>"


def _limited(sources: Iterable[Source], max_files_open: int | None) -> list[Source]:
    """Return the sources and their files by name, all files closed but the `max_files_open` accessed last."""
    by_name = [
        replace(source, files=tuple(sorted(source.files, key=lambda file: file.name)))
        for source in sorted(sources, key=lambda source: source.name)
    ]
    if max_files_open is None:
        return by_name
    is_open = [(source.name, file) for source in by_name for file in source.files if file.is_open]
    # Of files accessed at the same time the first by name stays open: sorting in reverse, too, keeps the order of equals.
    is_open.sort(key=lambda found: found[1].last_accessed_at or "", reverse=True)
    kept = {(source, file.name) for source, file in is_open[: max(0, max_files_open)]}
    return [
        replace(
            source,
            files=tuple(
                replace(file, is_open=False) if file.is_open and (source.name, file.name) not in kept else file
                for file in source.files
            ),
        )
        for source in by_name
    ]


def _directories(sources: list[Source], max_files_open: int | None, *, nested: bool) -> Iterator[str]:
    if not sources:
        return
    yield "\n\n<directories>\n"
    if max_files_open is not None:
        count = sum(file.is_open for source in sources for file in source.files)
        yield f"<file_limits>\n- current_files_open={count}\n- max_files_open={max_files_open}\n</file_limits>\n"
    for source in sources:
        yield f'<directory name="{_attribute(source.name)}">\n'
        if source.description:
            yield f"<description>{_contained(source.description)}</description>\n"
        if source.instructions:
            yield f"<instructions>{_contained(source.instructions)}</instructions>\n"
        for file in source.files:
            yield _nested_file(file) if nested else _file(file)
        yield "</directory>\n"
    yield "</directories>"


def _file(file: File) -> str:
    description = f"<description>\n{_contained(file.description)}\n</description>\n" if file.description else ""
    value = f"<value>\n{_contained(file.value)}\n</value>\n" if file.is_open else ""
    return (
        f'<file status="{"open" if file.is_open else "closed"}" name="{_attribute(file.name)}">\n'
        f"{description}{_metadata(file.read_only, len(_shown(file)), file.limit)}{value}</file>\n"
    )


def _nested_file(file: File) -> str:
    pieces = [f'<file status="{"open" if file.is_open else "closed"}">\n']
    row = file.name, _shown(file), file.description, file.read_only, file.limit
    _add(pieces, row, *_tags(file.name))
    return "".join((*pieces, "</file>\n"))


def _shown(file: File) -> str:
    return file.value if file.is_open else ""


@lru_cache(maxsize=4096)
def _tags(name: str) -> tuple[str, str]:
    """Return the start and end of an element called `name`, or `block` where `name` is no tag, or one of the format."""
    if _TAG.fullmatch(name) and _STRUCTURE.isdisjoint(name.casefold().split("/")):
        return f"<{name}>\n", f"</{name}>\n"
    return f'<block name="{_attribute(name)}">\n', "</block>\n"


def _contained(text: str, name: str = "") -> str:
    """Return `text` as it may stand in the element `name`: see the invariants of the module."""
    return _beginnings(name).sub(r"<\\", text) if "<" in text else text


@lru_cache(maxsize=1024)
def _beginnings(name: str) -> re.Pattern[str]:
    """Return a pattern for each `<` that begins a tag of the format, or of an element called `name` or one of its segments.

    A reader may be lenient, so case, whitespace and what comes after the word make no difference. The quantifiers are
    possessive: a text of a million spaces costs no more than any other.
    """
    words = "|".join(map(re.escape, sorted({*_STRUCTURE, name, *name.split("/")} - {""})))
    return re.compile(rf"<(?=\\*+\s*+(?:/\s*+)?+(?:{words})(?!\w))", re.IGNORECASE)


def _attribute(text: str) -> str:
    """Return `text` as XML has it between the quotes of an attribute."""
    return _UNFIT_FOR_ATTRIBUTE.sub(lambda found: _ENTITIES.get(found[0], f"&#{ord(found[0])};"), text)
