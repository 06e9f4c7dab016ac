"""Every change once, in order and without a gap: what a subscription does, apart from how bytes are moved."""

from __future__ import annotations

import random
import sys
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from blocksd.errors import Misconfigured, Unavailable
from blocksd.model.label import parse_agent
from blocksd.model.properties import parse_versioned
from blocksd.model.revision import UNNUMBERED, Change
from blocksd.protocol.attached import Attached
from blocksd.protocol.numbers import whole
from blocksd.protocol.reset import Reset
from blocksd.protocol.steps import (
    Connect,
    Emit,
    Heard,
    Listen,
    Live,
    Pause,
    Ping,
    Subscribe,
    ask,
    entries_after,
    epoch_and_seq,
    labels_at,
    parsed,
    resets_at,
    sources_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.mirror.keys import Keys
    from blocksd.protocol.reset import Item
    from blocksd.protocol.steps import Steps

LISTEN_SECONDS = 1.0
PROVE_SECONDS = 5.0
"""How often a subscription is put to the proof: silence may be a lost one."""
PATIENCE_SECONDS = 5.0
"""For how long an answer is waited for before the connection counts as lost."""
_LONGEST_PAUSE = 2.0
_REPAIRS_KEPT = 100


class Watching:
    """One watch: of a block, of an agent, or of everything.

    Invariants:
      1. every revision up to `_last` that concerns the watch was passed on once, or a Reset after it was;
      2. `_attached` has the blocks attached to the agent as of `_last`;
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
        most: Callable[[], int] | None = None,
        prove_seconds: float | None = None,
    ) -> None:
        """`since` is a seq (of any epoch), an epoch and a seq, or the last item received. `prove_seconds` replaces PROVE_SECONDS.
        `most` tells how many missed changes are passed on at most: if there are more, a Reset is.

        Raises:
            InvalidLabel: `label` is no label, or `agent` no agent id.
            Misconfigured: both are given, or `since` is an item that is not of a revision.
            InvalidField: `since` is another thing.
        """
        if label is not None and agent is not None:
            raise Misconfigured("watch one block or one agent, not both", key="label")
        self._keys = keys
        self._most = most or (lambda: sys.maxsize)
        self._prove_seconds = prove_seconds if prove_seconds is not None else PROVE_SECONDS
        self._label = None if label is None else parse_versioned(label)
        self._agent = None if agent is None else parse_agent(agent)
        self._attached = None if self._agent is None else Attached(self._agent)
        self._is_all = label is None and agent is None
        self._epoch: str | None = None
        self._last: int | None = None
        if isinstance(since, Change | Reset):
            self._last, self._epoch = since.seq, since.epoch
            if since.seq is None:
                raise Misconfigured(f"a {since.kind!r} has no seq to go on from", key="since")
        elif isinstance(since, tuple) and len(since) == 2 and isinstance(since[0], str):
            self._epoch, self._last = since[0], whole("since", since[1])
        elif since is not None:
            self._last = whole("since", since)
        self._resets: list[dict[str, Any]] = []  # those at `_last` that are passed on: ids do not tell them apart
        self._repaired: deque[dict[str, Any]] = deque(maxlen=_REPAIRS_KEPT)  # those passed on, which have no seq
        self._foreign: str | None = None  # an epoch on our channels that is not of our database
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

    def steps(self) -> Steps[None]:
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

    def _begin(self) -> Steps[None]:
        self._subscribed.clear()
        self._heard.clear()
        self._is_aligned = False
        if not self._is_placed:
            yield from self._find_place()
        elif self._agent is not None:  # what concerns it without a seq is not in the stream
            self._sources = yield from sources_of(self._keys, self._agent)
        yield from self._align()
        self._is_begun = True
        self.life = self._lives = self._lives + 1
        yield Live()

    def _find_place(self) -> Steps[None]:
        epoch, seq = yield from epoch_and_seq(self._keys)
        if self._last is None:
            self._last, self._epoch = seq, epoch
            self._resets = yield from resets_at(self._keys, seq)
            self._repaired.extend(self._resets)
        if self._agent is not None:
            yield from self._find_attached()
            self._sources = yield from sources_of(self._keys, self._agent)
        self._is_placed = True

    def _find_attached(self) -> Steps[None]:
        assert self._attached is not None
        assert self._last is not None
        self._attached.labels = yield from labels_at(self._keys, self._attached.agent, self._last)

    # --- subscriptions ---

    def _channels(self) -> set[str]:
        keys = self._keys
        if self._label is not None:
            return {keys.changes_of_block(self._label), keys.resets}
        if self._attached is None:
            return {keys.changes}
        return {
            keys.resets,
            keys.changes_of_agent(self._attached.agent),
            *map(keys.changes_of_block, self._attached.labels),
            *map(keys.changes_of_source, self._sources),
        }

    def _align(self) -> Steps[None]:
        """Subscribe to what the watch is about now, and catch up with what came before the subscription did."""
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

    def _subscribe(self, missing: set[str]) -> Steps[None]:
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

    def _follow(self) -> Steps[None]:
        proved_at, waiting = time.monotonic(), None
        while True:
            heard = self._heard.popleft() if self._heard else (yield Listen(LISTEN_SECONDS))
            if heard is not None:
                if heard.kind == "message":
                    change = parsed(heard.data)
                    if change is not None:
                        yield from self._hear(change)
                elif heard.kind == "subscribe":  # nobody asked: the connection was lost and made again
                    yield from self._catch_up()
                elif heard.kind == "pong" and waiting is not None:
                    yield from self._prove(*waiting)
                    waiting = None
                yield from self._align()
            now = time.monotonic()
            if waiting is None and now - proved_at >= self._prove_seconds:
                waiting, proved_at = (yield from epoch_and_seq(self._keys)), now
                yield Ping()
            elif waiting is not None and heard is None and now - proved_at >= PATIENCE_SECONDS:
                raise Unavailable("the subscription has gone silent")

    def _prove(self, epoch: str | None, seq: int) -> Steps[None]:
        """Handle a pong: the mirror stood there when the ping was sent, and everything up to it has been heard."""
        assert self._last is not None
        if epoch is None:  # being rebuilt: a reset will be announced
            return
        is_missing = self._is_all and seq > self._last
        if epoch == self._epoch and seq >= self._last and not is_missing and not self._is_behind:
            self._move(seq)
        else:
            yield from self._catch_up()

    # --- changes ---

    def _hear(self, change: Change) -> Steps[None]:
        assert self._last is not None
        if change.epoch not in (None, self._epoch) and change.kind != "reset":
            # Channels are of the server, not of a database: another's mirror may have the same namespace there.
            if change.epoch == self._foreign:
                return
            epoch, _ = yield from epoch_and_seq(self._keys)
            if epoch is not None and epoch != change.epoch:
                self._foreign = change.epoch
                return
        if change.kind in UNNUMBERED:
            yield from self._pass_on_unnumbered(change)
        elif change.seq is None:
            if self._agent is not None and change.kind == "source":
                self._sources = yield from sources_of(self._keys, self._agent)
                self._is_aligned = False
            yield from self._emit(change)
        elif change.kind == "reset" or change.epoch != self._epoch or self._is_behind:
            # The stream tells whether this has been passed on.
            yield from self._catch_up()
        elif change.seq > self._last:
            if self._is_all and change.seq > self._last + 1:
                yield from self._catch_up()
            else:
                yield from self._pass_on(change.seq, change)

    def _pass_on_unnumbered(self, change: Change) -> Steps[None]:
        """What has no seq and is in the stream is passed on once; of files alone, to those who follow everything."""
        if change.raw in self._repaired or (change.kind == "file" and not self._is_all):
            return
        self._repaired.append(change.raw)
        if self._attached is None:
            is_ours = self._label is None or self._label in change.labels
        else:
            is_ours = self._attached.is_in(change)
            if self._agent in change.raw.get("agents", ()):  # what is followed was told by what was shown wrongly
                yield from self._find_attached()
                self._is_aligned = False
        if is_ours:
            yield from self._emit(change)

    def _pass_on(self, seq: int, change: Change) -> Steps[None]:
        self._move(seq)
        if self._attached is not None:
            moves = self._attached.moves
            is_ours = self._attached.follow(change)
            self._is_aligned = self._is_aligned and moves == self._attached.moves
        else:
            is_ours = self._label in (None, change.label, change.renamed_from)
        if is_ours:
            yield from self._emit(change)

    def _catch_up(self) -> Steps[None]:
        """Pass on what the stream has after `_last`; or a Reset, when it does not reach back to there."""
        epoch, seq = yield from epoch_and_seq(self._keys)
        assert self._last is not None
        self._is_behind = epoch is None
        if epoch is None:  # being rebuilt: a reset will be announced, to channels that may be known already
            return
        if self._epoch not in (None, epoch) or not 0 <= seq - self._last <= self._most():
            yield from self._reset()
            return
        self._epoch = epoch
        after: str | None = f"{self._last}-0"
        while after is not None:
            entries, after = yield from entries_after(self._keys, after)
            for place, change in entries:
                number = int(place.partition("-")[0])
                if change.kind == "reset" and number == self._last and change.raw in self._resets:
                    continue
                if change.kind in UNNUMBERED and number == self._last:
                    yield from self._pass_on_unnumbered(change)
                    continue
                if change.kind == "reset" or number != self._last + 1:
                    yield from self._reset()
                    return
                yield from self._pass_on(number, change)
        if self._last < seq:  # the stream has lost its end
            yield from self._reset()

    def _reset(self) -> Steps[None]:
        """Pass on how things stand, and go on from there."""
        epoch, seq = yield from epoch_and_seq(self._keys)
        self._is_behind = True
        if epoch is None:
            return
        resets = yield from resets_at(self._keys, seq)
        if self._label is not None:
            labels = [self._label]
        elif self._agent is not None:
            labels = list((yield from labels_at(self._keys, self._agent, seq)))
            self._sources = yield from sources_of(self._keys, self._agent)
        else:
            (labels,) = yield from ask(("ZRANGE", self._keys.labels, 0, -1))
        still, _ = yield from epoch_and_seq(self._keys)
        if still != epoch:  # cleared while it was read: what is missing in it may well be there
            return
        self._epoch, self._last, self._resets = epoch, seq, resets
        if self._attached is not None:
            self._attached.labels = set(labels)
        self._is_aligned = self._is_behind = False
        self._repaired.extend(resets)
        yield from self._emit(Reset(seq, epoch, labels=labels))

    def _emit(self, item: Item) -> Steps[None]:
        self._is_begun = True
        yield Emit(item)

    def _move(self, seq: int) -> None:
        if seq != self._last:
            self._last, self._resets = seq, []
