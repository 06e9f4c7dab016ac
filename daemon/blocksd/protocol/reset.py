"""A reset among the changes: how things stand, with blocks that are read when they are asked for."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from blocksd.errors import Misconfigured
from blocksd.mirror.view import BlockView
from blocksd.model.revision import Change

_PAGE = 256


class LazyBlocks(Mapping[str, BlockView]):
    """The blocks with these labels that are there when they are read; each is read once, some at a time."""

    def __init__(self, labels: Sequence[str], blocks: Mapping[str, BlockView] | None = None) -> None:
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


class Reset:
    """Changes were missed that cannot be had any more, or the mirror was built anew: read everything again.

    `labels` are the blocks the watch is about, as of `seq`; of others there is no block (any more). The next change
    passed on comes after `seq`. `blocks` reads them when they are asked for, so they are at least as new as `seq`; in
    asyncio code they are read by `aload` first.
    """

    __slots__ = ("_blocks", "epoch", "labels", "seq")

    kind: Literal["reset"] = "reset"

    def __init__(
        self, seq: int, epoch: str, blocks: Mapping[str, BlockView] | None = None, *, labels: Iterable[str] = ()
    ) -> None:
        self.seq = seq
        self.epoch = epoch
        self.labels: tuple[str, ...] = tuple(sorted(labels if blocks is None else blocks))
        self._blocks = LazyBlocks(self.labels, blocks)

    @property
    def blocks(self) -> Mapping[str, BlockView]:
        """The blocks, by label. One that was deleted meanwhile is not in it."""
        return self._blocks

    def load(self) -> dict[str, BlockView]:
        """Read all of the blocks now."""
        return dict(self._blocks)

    async def aload(self) -> dict[str, BlockView]:
        """Read all of the blocks now, in asyncio code; after that they are in `blocks`."""
        return await self._blocks.aload()

    def read_by(self, reads: Callable[[Sequence[str]], Any], *, asynchronous: bool) -> None:
        """Have the blocks read with this, as `LazyBlocks` does."""
        self._blocks.read_by(reads, asynchronous=asynchronous)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reset):
            return NotImplemented
        return (self.seq, self.epoch, self.labels) == (other.seq, other.epoch, other.labels)

    def __hash__(self) -> int:
        return hash((self.seq, self.epoch))

    def __repr__(self) -> str:
        return f"Reset(seq={self.seq}, epoch={self.epoch!r}, {len(self.labels)} blocks)"


Item = Change | Reset
