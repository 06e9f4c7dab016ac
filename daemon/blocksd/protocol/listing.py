"""Pages of a listing, and its conditions: the part of a sorted set to read, and the tests of each block."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from blocksd.errors import InvalidField, NotFound
from blocksd.mirror.index import AFTER, escaped, flags_of, pattern_of
from blocksd.mirror.view import Page
from blocksd.model.label import PRIVATE, name_for_agent, parse_label
from blocksd.protocol.numbers import whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from blocksd.mirror.index import Entry
    from blocksd.mirror.view import BlockView
    from blocksd.protocol.wire import Command

Order = Literal["asc", "desc"]
OrderBy = Literal["label", "created_at", "updated_at"]
T = TypeVar("T")

PAGE = 512
"""How many blocks or agents are read in one round trip."""
NAMES = 5000
"""How many labels or agent ids are read in one round trip."""

BOTH = (False, True)
_MOST_AGENTS = 1 << 52  # a number as good as no bound, which Lua knows exactly

SCANNED = 10_000
"""How many members of the index the server looks through in one round trip."""

COUNTED = 5000
"""How many members of the index a script looks through in one round trip: 3 milliseconds of the server's one thread."""

SEPARATOR = "\x1f"
"""Stands between a time and a label."""

FILTERS = (
    *("label", "label_search", "description_search", "value_search", "tags", "match_all_tags"),
    *("connected_to_agents_count_gt", "connected_to_agents_count_lt", "connected_to_agents_count_eq"),
    *("templates_only", "show_templates", "show_hidden_blocks"),
)
"""The conditions of `blocks.list` and `blocks.count`."""


class Filter:
    """The conditions of a listing: a block is wanted if every one that is given holds for it.

    The index answers all of them but the searches in values and descriptions, which need the blocks.
    """

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        """Raises InvalidLabel when `label` is none, InvalidField when `tags` is no list of texts."""
        self._label: str | None = None if wanted["label"] is None else parse_label(wanted["label"])
        self._part: str = (wanted["label_search"] or "").casefold()
        self._tags = _tags(wanted["tags"])
        self._needs_all_tags: bool = wanted["match_all_tags"]
        self._hidden = (False, True) if wanted["show_hidden_blocks"] else (False,)
        self._template = (
            (True,) if wanted["templates_only"] else (False, *((True,) if wanted["show_templates"] else ()))
        )
        self._searches = [
            (get, part.casefold())
            for get, part in ((_description, wanted["description_search"]), (_value, wanted["value_search"]))
            if part
        ]
        self._numbers = _numbers(wanted)

    @property
    def ranges(self) -> list[tuple[str, str]] | None:
        """The ranges of how many agents are attached, as ZCOUNT has them; None when any number will do."""
        if self._numbers is None:
            return None
        return [(str(least), "+inf" if most is None else str(most)) for least, most in self._numbers]

    def is_in_range(self, count: float | None) -> bool:
        """Return True if this many agents, None for an unknown number, are as many as are wanted."""
        if self._numbers is None:
            return True
        return count is not None and any(
            count >= least and (most is None or count <= most) for least, most in self._numbers
        )

    @property
    def is_of_index(self) -> bool:
        """True if the index knows better than the list of labels which blocks are wanted."""
        return self.is_of_members or self.ranges is not None

    @property
    def is_of_members(self) -> bool:
        """True if blocks are found by label, tags or as templates, so that those found are few."""
        return bool(self._label or self._part or self._tags) or self._template == (True,)

    @property
    def needs_blocks(self) -> bool:
        """True if the index does not say of each block if it is wanted."""
        return bool(self._searches)

    def patterns(self) -> list[str]:
        """The patterns by which the index is searched: what matches any of them may be wanted."""
        flags = flags_of(hidden=self._hidden, template=self._template)
        labels = ["*"] if self._label is None else [escaped(self._label), f"{PRIVATE}/*/{escaped(self._label)}"]
        tags: list[tuple[str, ...]] = [self._tags] if self._needs_all_tags else [(tag,) for tag in self._tags] or [()]
        return [pattern_of(label=one, flags=flags, tags=some, part=self._part) for one in labels for some in tags]

    def question(self) -> str:
        """The conditions that the index can answer, as count.lua has them."""
        wanted: dict[str, object] = {
            "flags": flags_of(hidden=self._hidden, template=self._template),
            "part": self._part,
            "tags": self._tags,
            "all": self._needs_all_tags,
        }
        if self._label is not None:
            wanted["label"] = self._label
        if self._numbers is not None:
            wanted["ranges"] = [(least, _MOST_AGENTS if most is None else most) for least, most in self._numbers]
        return json.dumps(wanted, ensure_ascii=False)

    def unlisted(self) -> str:
        """The pattern of the blocks that are hidden, or templates, and not asked for; "" if all are."""
        listed = flags_of(hidden=self._hidden, template=self._template)
        others = "".join(flag for flag in flags_of(hidden=BOTH, template=BOTH) if flag not in listed)
        return pattern_of(flags=others) if others else ""

    def finds(self, entry: Entry) -> bool:
        """Return True if this member of the index, which matches a pattern, may be of a wanted block."""
        return (
            self._label in (None, entry.label, name_for_agent(entry.label))
            and self._part in entry.folded
            and self._holds_for(entry.tags, is_hidden=entry.is_hidden, is_template=entry.is_template)
        )

    def wants(self, block: BlockView) -> bool:
        """Return True if a block is wanted, as far as it says so itself."""
        return all(part in get(block) for get, part in self._searches) and self._holds_for(
            frozenset(block.tags) if self._tags else frozenset(), is_hidden=block.hidden, is_template=block.is_template
        )

    def _holds_for(self, tags: AbstractSet[str], *, is_hidden: bool, is_template: bool) -> bool:
        if is_hidden not in self._hidden or is_template not in self._template:
            return False
        if self._needs_all_tags:
            return tags >= frozenset(self._tags)
        return not self._tags or not tags.isdisjoint(self._tags)


def _tags(given: object) -> tuple[str, ...]:
    if isinstance(given, str) or not isinstance(given, Collection) or not all(isinstance(one, str) for one in given):
        raise InvalidField("tags must be a list of texts", field="tags")
    return tuple(sorted(set(given)))


def _description(block: BlockView) -> str:
    return (block.description or "").casefold()


def _value(block: BlockView) -> str:
    return block.value.casefold()


def _numbers(wanted: Mapping[str, Any]) -> list[tuple[int, int | None]] | None:
    """The ranges of how many agents may be attached: the least and the most, None for no bound."""
    names = [f"connected_to_agents_count_{name}" for name in ("gt", "lt", "eq")]
    more, fewer, equal = (wanted[name] for name in names)
    if more is None and fewer is None and equal is None:
        return None
    least = 0 if more is None else whole(names[0], more) + 1
    most = None if fewer is None else whole(names[1], fewer) - 1
    if equal is None:
        return [(least, most)]
    are_several = isinstance(equal, Collection) and not isinstance(equal, str | bytes | Mapping)
    numbers = {whole(names[2], one) for one in (equal if are_several else [equal])}
    return [(one, one) for one in sorted(numbers) if one >= least and (most is None or one <= most)]


def check_order_by(field: str) -> None:
    """Raise InvalidField when blocks cannot be listed in the order of this field."""
    if field not in get_args(OrderBy):
        raise InvalidField(f"order_by must be one of {', '.join(get_args(OrderBy))}, not {field!r}", field="order_by")


class Span:
    """The part of a sorted set that is still to be listed. Bounds are as ZRANGEBYLEX has them."""

    def __init__(self, low: str = "-", high: str = "+", *, is_reversed: bool = False) -> None:
        self._low = low
        self._high = high
        self._is_reversed = is_reversed
        self._limit: int | None = None
        self._is_last_part = False  # the page is the last one before a cursor, and is found walking backwards
        self.is_done = False

    @classmethod
    def of(cls, *, after: str | None, before: str | None, order: Order, limit: int | None) -> Span:
        """The span between two cursors. Raises InvalidField when `order` or `limit` is none."""
        if order not in ("asc", "desc"):
            raise InvalidField(f"order must be 'asc' or 'desc', not {order!r}", field="order")
        if limit is not None:
            limit = whole("limit", limit, 1)
        low, high = (after, before) if order == "asc" else (before, after)
        span = cls("-" if low is None else f"({low}", "+" if high is None else f"({high}")
        span._limit = limit
        span._is_last_part = before is not None and after is None and limit is not None
        span._is_reversed = (order == "desc") != span._is_last_part
        return span

    def command(self, key: str, count: int) -> Command:
        """Read the next members of the set at `key`, at most `count`."""
        if self._is_reversed:
            return ("ZREVRANGEBYLEX", key, self._high, self._low, "LIMIT", 0, count)
        return ("ZRANGEBYLEX", key, self._low, self._high, "LIMIT", 0, count)

    def index_command(self, key: str, count: int) -> Command:
        """Read the same of the index at `key`, whose members begin with the labels."""
        low = self._low + AFTER if self._low.startswith("(") else self._low
        return Span(low, self._high, is_reversed=self._is_reversed).command(key, count)

    def take(self, found: Sequence[str], count: int) -> list[str]:
        """Go on after what the `command` for `count` members found."""
        self.is_done = len(found) < count
        if found and self._is_reversed:
            self._high = f"({found[-1]}"
        elif found:
            self._low = f"({found[-1]}"
        return list(found)

    def between(self, names: Iterable[str]) -> list[str]:
        """Of these names, those in the span, in its order."""
        low, high = self._low[1:].encode(), self._high[1:].encode()
        inside = [
            (key, name)
            for name in names
            for key in (name.encode(),)
            if (not low or key > low) and (not high or key < high)
        ]
        return [name for _, name in sorted(inside, reverse=self._is_reversed)]

    def page(self, found: Sequence[T], name_of: Callable[[T], str]) -> Page[T]:
        """The page that `found` is, or begins with."""
        limit = len(found) if self._limit is None else self._limit
        items = tuple(found[:limit])
        follows = len(found) > limit
        if self._is_last_part:
            items, follows = items[::-1], bool(items)
        return Page(items, name_of(items[-1]) if follows else None)


class Walk:
    """A walk through a sorted set by ranks, from one cursor to another, or to the end.

    Each step reads the member before it once more: if it is at another rank, others were added or moved meanwhile.
    """

    def __init__(self, key: str, *, after: str | None, before: str | None, order: Order) -> None:
        """Take cursors as `Span.of` does; with `before` alone the walk goes backwards."""
        self._key = key
        is_last_part = before is not None and after is None
        self._is_reversed = (order == "desc") != is_last_part
        self._last, self._stop = (before, None) if is_last_part else (after, before)
        self._rank = 0
        self.is_done = False

    def rank_commands(self) -> list[Command]:
        """Ask where the cursors are."""
        name = "ZREVRANK" if self._is_reversed else "ZRANK"
        return [(name, self._key, label) for label in (self._last, self._stop) if label is not None]

    def begin(self, ranks: Sequence[int | None]) -> None:
        """Take the ranks. Raises NotFound when a cursor is not in the set."""
        for label, rank in zip([one for one in (self._last, self._stop) if one is not None], ranks, strict=True):
            if rank is None:
                raise NotFound(f"there is no block {label!r}", label=label)
        if self._last is not None:
            self._rank = ranks[0] or 0
            self.is_done = self._stop is not None and (ranks[1] or 0) <= self._rank

    def command(self, count: int) -> Command:
        """Read the next `count` members."""
        last = self._rank + count - (self._last is None)
        return ("ZRANGE", self._key, self._rank, last, *(("REV",) if self._is_reversed else ()))

    def take(self, found: Sequence[str], count: int) -> list[str] | None:
        """Go on after what the `command` for `count` members found; None: the set was changed meanwhile."""
        labels = list(found)
        if self._last is not None and labels[:1] != [self._last]:
            return None
        self._rank += len(labels) - 1
        labels = labels if self._last is None else labels[1:]
        self.is_done = len(labels) < count
        if self._stop in labels:
            self.is_done = True
            labels = labels[: labels.index(self._stop)]
        if labels:
            self._last = labels[-1]
        return labels


def parts(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """The items, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
