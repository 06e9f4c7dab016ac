"""An agent's memory in words for its model: as a whole, and as that which has changed since a turn."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING

from blocksd.model.differences import unified
from blocksd.model.prompt import compile_prompt, order, render_block, style_of
from blocksd.model.revision import FILE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from blocksd.mirror.view import BlockView
    from blocksd.protocol.sight import Sight

_MOST_NAMED, _NAME_CHARS = 20, 80
"""How many blocks are named that are not shown, and how much of a name."""
_HEAD = "<memory_changes>\nYour memory has changed since your last turn:\n\n"
_FOOT = "</memory_changes>"


@dataclass(frozen=True, slots=True)
class Shown:
    """A block as a session has seen it. `digest` is that of its rendered text."""

    name: str
    version: int
    digest: str


def visible(sight: Sight) -> list[BlockView]:
    """Return the blocks that the agent's prompt shows, in their order."""
    return order([block for block in sight.blocks.values() if not (block.hidden or block.is_template)])


def shown(block: BlockView) -> Shown:
    """Return what a session has seen of a block that it is shown now."""
    digest = blake2b(render_block(block).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return Shown(block.name, block.version, digest)


def whole(sight: Sight, most: int) -> str:
    """Return the agent's compiled memory in at most `most` characters: the blocks that do not fit are named.

    An assistant shows its model only the beginning of a longer text.
    """
    style = style_of(sight.agent_type)
    text = compile_prompt(list(sight.blocks.values()), style=style, sources=sight.sources)
    if _size(text) <= most:
        return text
    kept, left_out, used = [], [], 0
    for block in visible(sight):
        size = _size(render_block(block))
        if used + size <= most:
            kept.append(block)
            used += size
        else:
            left_out.append(block)
    also = " The files that are open are not shown either." if sight.sources else ""
    while True:
        text = f"{compile_prompt(kept, style=style)}\n\n{_not_shown(left_out)}{also}".strip()
        if _size(text) <= most or not kept:
            return _cut(text, most)
        left_out.insert(0, kept.pop())


def _not_shown(blocks: Sequence[BlockView]) -> str:
    if not blocks:
        return ""
    named = ", ".join(f"{_short(block.name)} ({block.chars} characters)" for block in blocks[:_MOST_NAMED])
    more = f", and {len(blocks) - _MOST_NAMED} more" if len(blocks) > _MOST_NAMED else ""
    return (
        f"These blocks of your memory do not fit here: {named}{more}. Read them with the tools of your memory, or with "
        "'blocksd show LABEL'."
    )


def _short(name: str) -> str:
    return name if len(name) <= _NAME_CHARS else f"{name[:_NAME_CHARS]}…"


def _size(text: str) -> int:
    """Return the length of a text as assistants count it, which are written in JavaScript: in units of UTF-16."""
    return len(text) + sum(character > "\uffff" for character in text)


def _cut(text: str, most: int) -> str:
    """Return as much of the beginning as may be shown."""
    data = text.encode("utf-16-le", "surrogatepass")[: max(most, 0) * 2]
    return data.decode("utf-16-le", "ignore") if _size(text) > most else text


def changes(
    before: Mapping[str, Shown], now: Iterable[BlockView], past: Callable[[BlockView, int], BlockView | None], most: int
) -> str:
    """Return what has changed since the blocks `before`, by id, were shown; empty if nothing has.

    `past` returns a block as it was in a version; None if that cannot be told. Then, or where more than the value has changed,
    or the differences would be longer, the block is shown as it is. At most `most` characters are returned; the rest is named.
    """
    parts: list[tuple[BlockView, str]] = []
    named, used = [], 0
    blocks = list(now)
    for block in blocks:
        old = before.get(block.id)
        if old is not None and old == shown(block):
            continue
        part = _part(block, old, past).replace("</memory_changes", "<\\/memory_changes")
        if used + _size(part) <= most:
            parts.append((block, part))
            used += _size(part)
        else:
            named.append(block)
    present = {block.id for block in blocks}
    gone = [_short(old.name) for id, old in before.items() if id not in present]  # noqa: A001  # as the map has it
    if not (parts or named or gone):
        return ""
    lost = f"{', '.join(gone[:_MOST_NAMED])}{', …' if len(gone) > _MOST_NAMED else ''}"
    while True:
        notes = [
            *([f"No longer in your memory: {lost}\n"] if gone else []),
            *([f"{_not_shown(named)}\n"] if named else []),
        ]
        text = "\n".join((*(part for _, part in parts), *notes))
        if _size(text) <= most - _size(_HEAD + _FOOT) or not parts:
            return f"{_HEAD}{_cut(text, most - _size(_HEAD + _FOOT))}{_FOOT}"
        named.insert(0, parts.pop()[0])


def _part(block: BlockView, old: Shown | None, past: Callable[[BlockView, int], BlockView | None]) -> str:
    present = f"{render_block(block)}\n"
    by = "" if block.updated_by == FILE else f" by {block.updated_by}"
    if old is None:
        return f"New block {block.name}{by}:\n{present}"
    was = "" if old.name == block.name else f" (it was called {old.name})"
    former = past(block, old.version) if old.version != block.version else None
    if former is not None and _about(former) == _about(block):
        lines = unified(former.value.split("\n"), block.value.split("\n"), "before", "now")
        difference = "".join(f"{line}\n" for line in lines[2:])
        if difference and len(difference) < len(present):
            return f"Block {block.name}{was} was changed{by}:\n{difference}"
    return f"Block {block.name}{was} was changed{by}. It is now:\n{present}"


def _about(block: BlockView) -> tuple[object, ...]:
    return block.description, block.limit, block.read_only
