"""Pages of a listing, and its conditions: the part of a sorted set to read, and the tests of each block."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from blocksd.errors import InvalidField
from blocksd.mirror.view import BlockView, Page, shown_as
from blocksd.model.label import PRIVATE, name_for_agent, parse_label

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from blocksd.mirror.keys import Keys
    from blocksd.protocol.wire import Command

Order = Literal["asc", "desc"]
T = TypeVar("T")

PAGE = 512
"""How many blocks or agents are read in one round trip."""
NAMES = 5000
"""How many labels or agent ids are read in one round trip."""

FILTERS = (
    *("label", "label_search", "description_search", "value_search", "tags", "match_all_tags"),
    *("connected_to_agents_count_gt", "connected_to_agents_count_lt", "connected_to_agents_count_eq"),
    *("templates_only", "show_hidden_blocks"),
)
"""The conditions of `blocks.list` and `blocks.count`."""


class Filter:
    """The conditions of a listing: a block is wanted if every one that is given holds for it."""

    def __init__(self, wanted: Mapping[str, Any]) -> None:
        """Raises InvalidLabel when `label` is none, InvalidField when `tags` is one text."""
        self.label: str | None = None if wanted["label"] is None else parse_label(wanted["label"])
        self._part: str | None = wanted["label_search"]
        self._tests = list(_tests(wanted))
        self._count_tests = list(_count_tests(wanted))

    def named(self, labels: Sequence[str]) -> list[str]:
        """Of private labels, those by which an agent knows the wanted label."""
        suffix = f"/{self.label}"
        return [label for label in labels if label.endswith(suffix) and name_for_agent(label) == self.label]

    def matching(self, labels: Sequence[str]) -> list[str]:
        """Of these labels, those with the wanted part."""
        part = self._part
        return [label for label in labels if _holds(label, part)] if part else list(labels)

    def commands(self, keys: Keys, labels: Sequence[str]) -> list[Command]:
        """Read these blocks, and how many agents are attached if a condition needs it."""
        commands: list[Command] = [("HGETALL", keys.block(label)) for label in labels]
        if self._count_tests:
            commands += [("SCARD", keys.attached(label)) for label in labels]
        return commands

    def wanted(self, labels: Sequence[str], replies: Sequence[Any]) -> list[BlockView]:
        """The blocks that are wanted, by the replies to `commands`."""
        counts = replies[len(labels) :] or [0] * len(labels)
        blocks = [
            shown_as(label, fields)
            for label, fields, count in zip(labels, replies, counts, strict=False)
            if all(test(count) for test in self._count_tests)
        ]
        return [block for block in blocks if block is not None and all(test(block) for test in self._tests)]


def _tests(wanted: Mapping[str, Any]) -> Iterator[Callable[[BlockView], bool]]:
    """Tests of a block's own fields."""
    if description := wanted["description_search"]:
        yield lambda block: _holds(block.description or "", description)
    if value := wanted["value_search"]:
        yield lambda block: _holds(block.value, value)
    if isinstance(wanted["tags"], str):
        raise InvalidField("tags must be a list of texts", field="tags")
    if tags := set(wanted["tags"] or ()):
        if wanted["match_all_tags"]:
            yield lambda block: tags <= set(block.tags)
        else:
            yield lambda block: not tags.isdisjoint(block.tags)
    if wanted["templates_only"]:
        yield attrgetter("is_template")
    if not wanted["show_hidden_blocks"]:
        yield lambda block: not block.hidden


def _count_tests(wanted: Mapping[str, Any]) -> Iterator[Callable[[int], bool]]:
    """Tests of the number of agents attached."""
    if (more := wanted["connected_to_agents_count_gt"]) is not None:
        yield lambda count: count > more
    if (fewer := wanted["connected_to_agents_count_lt"]) is not None:
        yield lambda count: count < fewer
    if (equal := wanted["connected_to_agents_count_eq"]) is not None:
        yield (frozenset((equal,)) if isinstance(equal, int) else frozenset(equal)).__contains__


def _holds(text: str, part: str) -> bool:
    return part.casefold() in text.casefold()


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
        if limit is not None and limit < 1:
            raise InvalidField(f"limit must be at least 1, not {limit}", field="limit")
        low, high = (after, before) if order == "asc" else (before, after)
        span = cls("-" if low is None else f"({low}", "+" if high is None else f"({high}")
        span._limit = limit
        span._is_last_part = before is not None and after is None and limit is not None
        span._is_reversed = (order == "desc") != span._is_last_part
        return span

    @classmethod
    def private(cls) -> Span:
        """The labels of all private blocks."""
        return cls(f"[{PRIVATE}/", f"({PRIVATE}0")  # '0' follows '/'

    def command(self, key: str, count: int) -> Command:
        """Read the next members of the set at `key`, at most `count`."""
        if self._is_reversed:
            return ("ZREVRANGEBYLEX", key, self._high, self._low, "LIMIT", 0, count)
        return ("ZRANGEBYLEX", key, self._low, self._high, "LIMIT", 0, count)

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


def parts(items: Sequence[T], size: int) -> Iterable[Sequence[T]]:
    """The items, `size` at a time."""
    return (items[start : start + size] for start in range(0, len(items), size))
