"""The index of blocks: one member for each block in a sorted set, by which listings are answered.

A member is `<label> US <flag> US <tags> RS <folded label>`, where US, RS and GS are the control characters U+001F, U+001E
and U+001D, which no label and no tag can hold. The flag is `S` for a block that listings show, `H` for a hidden one, `T`
for a template, `B` for both. Each tag stands between two GS, and they are sorted. The folded label is the label as searches
compare it, in small letters.

All scores are 0, so that the members are in the order of labels, and the server finds one by its label, and removes it
without knowing the rest of it. `ZSCAN … MATCH` finds the others, so that only what is found is sent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from blocksd.model.block import Block

_US, _RS, _GS = "\x1f", "\x1e", "\x1d"
AFTER = "\x20"
"""The next character after US: the only member between a label with US and the label with this is that of the label."""

_FLAGS = {(False, False): "S", (True, False): "H", (False, True): "T", (True, True): "B"}  # hidden, template
_READ = {flag: read for read, flag in _FLAGS.items()}
_SPECIAL = re.compile(r"[\\*?\[\]^-]")

INDEXED = frozenset(("tags", "hidden", "is_template"))
"""The fields of a block, besides its label, that its member shows."""


TAGGED = f"*{_GS}*"
"""The pattern of the members of blocks that have tags."""


class Entry(NamedTuple):
    """The facts that the index shows of one block."""

    label: str
    is_hidden: bool
    is_template: bool
    tags: frozenset[str]
    folded: str


def member_of(block: Block) -> str:
    """Return the member of a block."""
    flag = _FLAGS[block.hidden, block.is_template]
    tags = "".join(f"{_GS}{tag}{_GS}" for tag in sorted(block.tags))
    return f"{block.label}{_US}{flag}{_US}{tags}{_RS}{block.label.casefold()}"


def entry_of(member: str) -> Entry | None:
    """Return what a member shows; None for what another program put there."""
    head, _, folded = member.partition(_RS)
    parts = head.split(_US)
    if len(parts) != 3 or parts[1] not in _READ:
        return None
    label, flag, tags = parts
    return Entry(label, *_READ[flag], frozenset(tags[1:-1].split(_GS + _GS) if tags else ()), folded)


def bounds_of(label: str) -> tuple[str, str]:
    """Return the bounds, for ZRANGEBYLEX and its like, between which the member of this label is."""
    return f"[{label}{_US}", f"({label}{AFTER}"


def flags_of(*, hidden: Collection[bool], template: Collection[bool]) -> str:
    """Return the flags of the blocks of which it is said whether they may be hidden, and whether templates."""
    return "".join(flag for (is_hidden, is_one), flag in _FLAGS.items() if is_hidden in hidden and is_one in template)


def pattern_of(*, flags: str, label: str = "*", tags: Iterable[str] = (), part: str = "") -> str:
    """Return the pattern that matches members with one of these flags, all of these tags and this part of a label.

    `label` is itself a pattern.
    """
    between = "*".join(("", *(f"{_GS}{escaped(tag)}{_GS}" for tag in sorted(set(tags))), ""))
    return f"{label}{_US}[{flags}]{_US}{between or '*'}{_RS}{f'*{escaped(part.casefold())}*' if part else '*'}"


def escaped(text: str) -> str:
    """Return the pattern that matches this text alone."""
    return _SPECIAL.sub(r"\\\g<0>", text)
