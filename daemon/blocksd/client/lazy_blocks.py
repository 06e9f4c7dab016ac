"""Blocks by label that are read from the mirror when they are asked for, some at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from blocksd.errors import Misconfigured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blocksd.mirror.view import BlockView

_PAGE = 256


class LazyBlocks(Mapping[str, "BlockView"]):
    """The blocks with these labels that are there when they are read; each is read once."""

    def __init__(self, labels: Sequence[str], blocks: dict[str, BlockView] | None = None) -> None:
        """With `blocks`, these are they, and nothing is read."""
        self._labels = labels
        self._places = {label: place for place, label in enumerate(labels)}
        self._read: dict[int, dict[str, BlockView]] = {}
        if blocks is not None:
            for first in range(0, len(labels), _PAGE):
                self._read[first] = {label: blocks[label] for label in labels[first : first + _PAGE]}
        self._reads: Callable[[Sequence[str]], Any] | None = None
        self._is_asynchronous = False

    def read_by(self, reads: Callable[[Sequence[str]], Any], *, asynchronous: bool) -> None:
        """Read with this from now on: labels → a list of the blocks that are there (or, `asynchronous`, to await)."""
        self._reads, self._is_asynchronous = reads, asynchronous

    def __getitem__(self, label: str) -> BlockView:
        """Raises KeyError when there is no such block (any more), Unavailable when Redis does not serve."""
        return self._page(self._places[label] // _PAGE * _PAGE)[label]

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self._labels), _PAGE):
            yield from list(self._page(first))

    def __contains__(self, label: object) -> bool:
        return label in self._places and label in self._page(self._places[str(label)] // _PAGE * _PAGE)

    def __len__(self) -> int:
        """How many there are; before they are read, how many there were."""
        return sum(
            len(self._read.get(first, self._labels[first : first + _PAGE]))
            for first in range(0, len(self._labels), _PAGE)
        )

    def _page(self, first: int) -> dict[str, BlockView]:
        if first not in self._read:
            if self._reads is None or self._is_asynchronous:
                raise Misconfigured("in asyncio code the blocks of a reset are read by 'await reset.aload()' first")
            found = self._reads(self._labels[first : first + _PAGE])
            self._read[first] = {block.label: block for block in found}
        return self._read[first]

    async def aload(self) -> dict[str, BlockView]:
        """Read all of them, in asyncio code."""
        for first in range(0, len(self._labels), _PAGE):
            if first not in self._read and self._reads is not None:
                found = await self._reads(self._labels[first : first + _PAGE])
                self._read[first] = {block.label: block for block in found}
        return dict(self)
