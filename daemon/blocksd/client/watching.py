"""Every change once, in order and without a gap: what a subscription does, apart from how bytes are moved.

A watch is a generator of steps. Whoever drives it performs each step and sends back what came of it; when Redis does
not serve, `Unavailable` is raised at the step. So blocking and asyncio code follow changes in one and the same way.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from blocksd.client.lazy_blocks import LazyBlocks
from blocksd.client.plan import Ask, Pause, ask
from blocksd.client.queries import blocks_with
from blocksd.errors import Damaged, Misconfigured, Unavailable
from blocksd.model.label import parse_agent, parse_label
from blocksd.model.revision import Change

if TYPE_CHECKING:
    from blocksd.client.plan import Plan
    from blocksd.mirror.keys import Keys
    from blocksd.mirror.view import BlockView

LISTEN_SECONDS = 1.0
PROVE_SECONDS = 5.0
"""How often a subscription is put to the proof: silence may be a lost one."""
PATIENCE_SECONDS = 5.0
"""For how long an answer is waited for before the connection counts as lost."""
_PAGE = 1000
_LONGEST_PAUSE = 2.0
_REPAIRS_KEPT = 100


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
        self._blocks = LazyBlocks(self.labels, dict(blocks) if blocks is not None else None)

    @property
    def blocks(self) -> Mapping[str, BlockView]:
        """By label. One that was deleted meanwhile is not in it."""
        return self._blocks

    def load(self) -> dict[str, BlockView]:
        """All of the blocks, read now."""
        return dict(self._blocks)

    async def aload(self) -> dict[str, BlockView]:
        """All of the blocks, read now, in asyncio code; after that they are in `blocks`."""
        return await self._blocks.aload()

    def read_by(self, run: Callable[[Plan[list[BlockView]]], Any], keys: Keys, *, asynchronous: bool) -> Reset:
        """Have the blocks read with this, which carries plans out."""
        self._blocks.read_by(lambda labels: run(blocks_with(keys, labels)), asynchronous=asynchronous)
        return self

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Reset):
            return NotImplemented
        return (self.seq, self.epoch, self.labels) == (other.seq, other.epoch, other.labels)

    def __hash__(self) -> int:
        return hash((self.seq, self.epoch))

    def __repr__(self) -> str:
        return f"Reset(seq={self.seq}, epoch={self.epoch!r}, {len(self.labels)} blocks)"


Item = Change | Reset


@dataclass(frozen=True, slots=True)
class Connect:
    """Open a connection for listening, in place of the one there was."""


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Ask for these channels (or, `off`, not for them any more)."""

    channels: tuple[str, ...]
    off: bool = False


@dataclass(frozen=True, slots=True)
class Ping:
    """Ask for a `pong` on the connection for listening."""


@dataclass(frozen=True, slots=True)
class Listen:
    """Wait for what comes, at most so long; a Heard, or None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Heard:
    """What came: a `message`, a `subscribe` or `unsubscribe` confirmed, a `pong`."""

    kind: str
    channel: str
    data: str


@dataclass(frozen=True, slots=True)
class Emit:
    """Pass this on."""

    item: Item


@dataclass(frozen=True, slots=True)
class Live:
    """From here on, whatever happens will be heard."""


Step = Ask | Connect | Subscribe | Ping | Listen | Emit | Live | Pause
Steps = Generator[Step, Any, None]


class Watching:
    """One watch: of a block, of an agent, or of everything.

    Invariants:
      1. every revision up to `_last` that concerns the watch was passed on once, or a Reset after it was;
      2. `_labels` are the blocks attached to the agent as of `_last`;
      3. on one unbroken subscription, what is published is heard in order: if the mirror stood at a seq when a ping was
         sent, all up to that seq was heard before the pong.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        since: int | tuple[str, int] | Item | None = None,
        label: str | None = None,
        agent: str | None = None,
    ) -> None:
        """`since` is a seq (of whatever epoch the mirror has), an epoch and a seq, or the last item received.

        Raises:
            InvalidLabel: `label` is no label, or `agent` no agent id.
            Misconfigured: both are given, or `since` is not of a revision.
        """
        if label is not None and agent is not None:
            raise Misconfigured("watch one block or one agent, not both", key="label")
        self._keys = keys
        self._label = None if label is None else parse_label(label)
        self._agent = None if agent is None else parse_agent(agent)
        self._epoch: str | None = None
        self._last: int | None = None
        if isinstance(since, Change | Reset):
            self._last, self._epoch = since.seq, since.epoch
            if since.seq is None:
                raise Misconfigured(f"a {since.kind!r} has no seq to go on from", key="since")
        elif isinstance(since, tuple):
            self._epoch, self._last = since
        else:
            self._last = since
        self._resets: list[dict[str, Any]] = []  # those at `_last` that are passed on: ids do not tell them apart
        self._repaired: deque[dict[str, Any]] = deque(maxlen=_REPAIRS_KEPT)  # those passed on, which have no seq
        self._foreign: str | None = None  # an epoch on our channels that is not of our database
        self._labels: set[str] = set()
        self._sources: set[str] = set()
        self._is_begun = False
        self._is_placed = False
        self._is_aligned = False
        self._is_behind = False  # a reset is due, and whether it is announced to this watch is not certain
        self._subscribed: set[str] = set()
        self._heard: deque[Heard] = deque()
        self.life: int | None = None
        """A number while everything is heard that happens, another one after each interruption; else None."""
        self._lives = 0

    @property
    def place(self) -> tuple[str | None, int | None]:
        """The epoch, and the seq up to which everything was passed on."""
        return self._epoch, self._last

    def steps(self) -> Steps:
        """Go on for ever. Raises Unavailable only when Redis does not serve at the very beginning."""
        failures = 0
        while True:
            try:
                yield Connect()
                yield from self._begin()
                failures = 0
                yield from self._follow()
            except Unavailable:
                self.life = None
                if not self._is_begun:
                    raise
                failures = min(failures + 1, 8)
                yield Pause(min(0.05 * 2**failures, _LONGEST_PAUSE) * random.uniform(0.5, 1.0))

    def _begin(self) -> Steps:
        self._subscribed.clear()
        self._heard.clear()
        self._is_aligned = False
        if not self._is_placed:
            yield from self._find_place()
        elif self._agent is not None:
            # What concerns it without a seq is not in the stream.
            self._sources = yield from self._sources_now()
        yield from self._align()
        self._is_begun = True
        self._lives += 1
        self.life = self._lives
        yield Live()

    def _find_place(self) -> Steps:
        epoch, seq = yield from self._place()
        if self._last is None:
            self._last, self._epoch = seq, epoch
            self._resets = yield from self._resets_at(seq)
            self._repaired.extend(self._resets)
        if self._agent is not None:
            self._labels = yield from self._labels_at(self._last)
            self._sources = yield from self._sources_now()
        self._is_placed = True

    # --- subscriptions ---

    def _channels(self) -> set[str]:
        keys = self._keys
        if self._label is not None:
            return {keys.changes_of_block(self._label), keys.resets}
        if self._agent is None:
            return {keys.changes}
        return {
            keys.resets,
            keys.changes_of_agent(self._agent),
            *map(keys.changes_of_block, self._labels),
            *map(keys.changes_of_source, self._sources),
        }

    def _align(self) -> Steps:
        """Subscribe to what the watch is about by now, and catch up with what came before the subscription did."""
        if self._is_aligned:
            return
        while not self._is_aligned:
            self._is_aligned = True
            if missing := self._channels() - self._subscribed:
                yield from self._subscribe(missing)
                yield from self._catch_up()
        if extra := self._subscribed - self._channels():
            self._subscribed -= extra
            yield Subscribe(tuple(sorted(extra)), off=True)

    def _subscribe(self, channels: set[str]) -> Steps:
        missing = set(channels)
        yield Subscribe(tuple(sorted(missing)))
        deadline = time.monotonic() + PATIENCE_SECONDS
        while missing:
            heard = yield Listen(LISTEN_SECONDS)
            if heard is None:
                if time.monotonic() > deadline:
                    raise Unavailable("Redis does not confirm a subscription")
            elif heard.kind == "subscribe" and heard.channel in missing:
                missing.discard(heard.channel)
                self._subscribed.add(heard.channel)
            else:
                self._heard.append(heard)

    def _follow(self) -> Steps:
        proved_at, waiting = time.monotonic(), None
        while True:
            heard = self._heard.popleft() if self._heard else (yield Listen(LISTEN_SECONDS))
            if heard is not None:
                if heard.kind == "message":
                    change = _parsed(heard.data)
                    if change is not None:
                        yield from self._hear(change)
                elif heard.kind == "subscribe":  # nobody asked: the connection was lost and made again
                    yield from self._catch_up()
                elif heard.kind == "pong" and waiting is not None:
                    yield from self._prove(*waiting)
                    waiting = None
                yield from self._align()
            now = time.monotonic()
            if waiting is None and now - proved_at >= PROVE_SECONDS:
                waiting, proved_at = (yield from self._place()), now
                yield Ping()
            elif waiting is not None and heard is None and now - proved_at >= PATIENCE_SECONDS:
                raise Unavailable("the subscription has gone silent")

    def _prove(self, epoch: str | None, seq: int) -> Steps:
        """The mirror stood there when the ping was sent, and everything up to it has been heard by now."""
        assert self._last is not None
        if epoch is None:  # being rebuilt: a reset will be announced
            return
        is_all = self._label is None and self._agent is None
        if epoch == self._epoch and seq >= self._last and not (is_all and seq > self._last) and not self._is_behind:
            self._move(seq)
        else:
            yield from self._catch_up()

    # --- changes ---

    def _hear(self, change: Change) -> Steps:
        assert self._last is not None
        if change.epoch not in (None, self._epoch) and change.kind != "reset":
            # Channels are of the server, not of a database: another's mirror may have the same namespace there.
            if change.epoch == self._foreign:
                return
            epoch, _ = yield from self._place()
            if epoch is not None and epoch != change.epoch:
                self._foreign = change.epoch
                return
        if change.kind == "repaired":
            yield from self._pass_on_repaired(change)
        elif change.seq is None:
            if self._agent is not None and change.kind == "source":
                self._sources = yield from self._sources_now()
                self._is_aligned = False
            yield from self._emit(change)
        elif change.kind == "reset" or change.epoch != self._epoch or self._is_behind:
            # The stream tells whether this has been passed on.
            yield from self._catch_up()
        elif change.seq > self._last:
            if self._label is None and self._agent is None and change.seq > self._last + 1:
                yield from self._catch_up()
            else:
                yield from self._pass_on(change.seq, change)

    def _pass_on_repaired(self, change: Change) -> Steps:
        """The mirror has shown something wrongly, and does not any more. It has no seq, and is passed on once."""
        if change.raw in self._repaired:
            return
        self._repaired.append(change.raw)
        agents = change.raw.get("agents", ())
        if self._agent is None:
            is_ours = self._label is None or self._label in change.labels
        else:
            is_ours = self._agent in agents or not self._labels.isdisjoint(change.labels)
            if self._agent in agents:  # what is followed was told by what was shown wrongly
                assert self._last is not None
                self._labels = yield from self._labels_at(self._last)
                self._is_aligned = False
        if is_ours:
            yield from self._emit(change)

    def _pass_on(self, seq: int, change: Change) -> Steps:
        self._move(seq)
        if self._agent is not None:
            label = change.label or ""
            is_ours = label in self._labels or self._agent in change.attached or self._agent in change.detached
            if change.renamed_from in self._labels:
                self._labels.discard(str(change.renamed_from))
                self._labels |= {label} - ({label} if self._agent in change.detached else set())
                self._is_aligned, is_ours = False, True
            if self._agent in change.attached:
                self._labels.add(label)
                self._is_aligned = False
            if self._agent in change.detached:
                self._labels.discard(label)
                self._is_aligned = False
        else:
            is_ours = self._label in (None, change.label, change.renamed_from)
        if is_ours:
            yield from self._emit(change)

    def _catch_up(self) -> Steps:
        """What the stream has after `_last`; or a Reset, when it does not reach back to there."""
        epoch, seq = yield from self._place()
        assert self._last is not None
        self._is_behind = epoch is None
        if epoch is None:  # being rebuilt: a reset will be announced, to channels that may be known already
            return
        if self._epoch not in (None, epoch) or seq < self._last:
            yield from self._reset()
            return
        self._epoch = epoch
        after = f"{self._last}-0"
        while True:
            entries = yield from self._entries(after)
            for place, change in entries:
                number = int(place.partition("-")[0])
                if change.kind == "reset":
                    if number == self._last and change.raw in self._resets:
                        continue
                    yield from self._reset()
                    return
                if change.kind == "repaired" and number == self._last:
                    yield from self._pass_on_repaired(change)
                    continue
                if number != self._last + 1:
                    yield from self._reset()
                    return
                yield from self._pass_on(number, change)
            if len(entries) < _PAGE:
                break
            after = entries[-1][0]
        if self._last < seq:  # the stream has lost its end
            yield from self._reset()

    def _reset(self) -> Steps:
        """Pass on how things stand, and go on from there."""
        epoch, seq = yield from self._place()
        self._is_behind = True
        if epoch is None:
            return
        resets = yield from self._resets_at(seq)
        if self._label is not None:
            labels = [self._label]
        elif self._agent is not None:
            labels = list((yield from self._labels_at(seq)))
            self._sources = yield from self._sources_now()
        else:
            (labels,) = yield from ask(("ZRANGE", self._keys.labels, 0, -1))
        still, _ = yield from self._place()
        if still != epoch:  # cleared while it was read: what is missing in it may well be there
            return
        self._epoch, self._last, self._resets, self._labels = epoch, seq, resets, set(labels)
        self._is_aligned = self._is_behind = False
        self._repaired.extend(resets)
        yield from self._emit(Reset(seq, epoch, labels=labels))

    def _emit(self, item: Item) -> Steps:
        self._is_begun = True
        yield Emit(item)

    def _move(self, seq: int) -> None:
        if seq != self._last:
            self._last, self._resets = seq, []

    # --- what is asked ---

    def _place(self) -> Plan[tuple[str | None, int]]:
        ((epoch, seq),) = yield from ask(("HMGET", self._keys.meta, "epoch", "seq"))
        return epoch, int(seq or 0)

    def _entries(self, after: str) -> Plan[list[tuple[str, Change]]]:
        (entries,) = yield from ask(("XRANGE", self._keys.changes, f"({after}", "+", "COUNT", _PAGE))
        changes = [(place, _parsed((fields or {}).get("change"))) for place, fields in entries]
        return [(place, change) for place, change in changes if change is not None and _is_place(place)]

    def _resets_at(self, seq: int) -> Plan[list[dict[str, Any]]]:
        (entries,) = yield from ask(("XRANGE", self._keys.changes, f"({seq}-0", str(seq)))
        changes = [_parsed((fields or {}).get("change")) for _, fields in entries]
        return [change.raw for change in changes if change is not None]

    def _labels_now(self) -> Plan[list[str]]:
        assert self._agent is not None
        (names,) = yield from ask(("HGETALL", self._keys.agent(self._agent)))
        return list(names.values())

    def _sources_now(self) -> Plan[set[str]]:
        """The file sources the agent sees."""
        assert self._agent is not None
        (known,) = yield from ask(("HKEYS", self._keys.sources))
        seen = yield from ask(*(("SISMEMBER", self._keys.source_agents(name), self._agent) for name in known))
        return {name for name, is_seen in zip(known, seen, strict=True) if is_seen}

    def _labels_at(self, seq: int) -> Plan[set[str]]:
        """The blocks attached to the agent at `seq`: those of now, unless what first became of one since tells other."""
        found = yield from self._labels_now()
        labels, told = set(found), set()
        after = f"{seq}-0"
        while True:
            entries = yield from self._entries(after)
            for _, change in entries:
                came, went = self._agent in change.attached, self._agent in change.detached
                if change.label is not None and change.label not in told and (came or went):
                    told.add(change.label)
                    (labels.add if went else labels.discard)(change.label)
            if len(entries) < _PAGE:
                return labels
            after = entries[-1][0]


def _parsed(text: str | None) -> Change | None:
    """A change as it was sent; None for what anyone else put there: the next number, or a proof, tells what is missing."""
    try:
        change = Change.loads(text or "")
    except Damaged:
        return None
    return change if change.seq is None or change.seq >= 0 else None


def _is_place(entry_id: str) -> bool:
    return entry_id.partition("-")[0].isdigit()
