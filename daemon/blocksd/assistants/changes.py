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

_MOST_NAMED = 20


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
    """Return the agent's compiled memory in at most about `most` characters: the blocks that do not fit are named.

    An assistant shows its model only the beginning of a longer text.
    """
    style = style_of(sight.agent_type)
    text = compile_prompt(list(sight.blocks.values()), style=style, sources=sight.sources)
    if len(text) <= most:
        return text
    kept, left_out, used = [], [], 0
    for block in visible(sight):
        size = len(render_block(block))
        if used + size <= most:
            kept.append(block)
            used += size
        else:
            left_out.append(block)
    while kept and len(compile_prompt(kept, style=style)) > most:  # line numbers take room, too
        left_out.append(kept.pop())
    also = " The files that are open are not shown either." if sight.sources else ""
    return f"{compile_prompt(kept, style=style)}\n\n{_not_shown(left_out)}{also}".strip()


def _not_shown(blocks: Sequence[BlockView]) -> str:
    if not blocks:
        return ""
    named = ", ".join(f"{block.name} ({block.chars} characters)" for block in blocks[:_MOST_NAMED])
    more = f", and {len(blocks) - _MOST_NAMED} more" if len(blocks) > _MOST_NAMED else ""
    return (
        f"These blocks of your memory do not fit here: {named}{more}. Read them with the tools of your memory, or with "
        "'blocksd show LABEL'."
    )


def changes(
    before: Mapping[str, Shown], now: Iterable[BlockView], past: Callable[[BlockView, int], BlockView | None], most: int
) -> str:
    """Return what has changed since the blocks `before`, by id, were shown; empty if nothing has.

    `past` returns a block as it was in a version; None if that cannot be told. Then, or where more than the value has changed,
    or the differences would be longer, the block is shown as it is. At most about `most` characters are returned, and the rest is named.
    """
    parts, named, used = [], [], 0
    blocks = list(now)
    for block in blocks:
        old = before.get(block.id)
        if old is not None and old == shown(block):
            continue
        part = _part(block, old, past)
        if used + len(part) <= most:
            parts.append(part)
            used += len(part)
        else:
            named.append(block)
    present = {block.id for block in blocks}
    gone = [old.name for id, old in before.items() if id not in present]  # noqa: A001  # as the map has it
    if gone:
        parts.append(
            f"No longer in your memory: {', '.join(gone[:_MOST_NAMED])}{', …' if len(gone) > _MOST_NAMED else ''}\n"
        )
    if named:
        parts.append(f"{_not_shown(named)}\n")
    if not parts:
        return ""
    text = "\n".join(parts).replace("</memory_changes", "<\\/memory_changes")
    return f"<memory_changes>\nYour memory has changed since your last turn:\n\n{text}</memory_changes>"


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
