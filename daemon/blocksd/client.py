"""What programs read from the mirror: blocks, agents, problems, and every change, once and in order."""

from __future__ import annotations

import json
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blocksd.connection import connect as connect_redis
from blocksd.connection import translated
from blocksd.errors import Damaged, NotFound, Unavailable
from blocksd.keys import Keys
from blocksd.mirror import block_of
from blocksd.revision import Change

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blocksd.block import Block

_PAGE = 512
_SILENCE_SECONDS = 2.0
_LISTEN_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Shown:
    """A block as the mirror shows it. `block.agents` are the ids attached to it. Times are RFC 3339, in UTC."""

    block: Block
    version: int
    digest: str
    id: str
    created_at: str
    updated_at: str
    updated_by: str

    def as_json(self) -> dict[str, Any]:
        return {
            **self.block.as_json(),
            "agents": self.block.agents,
            "chars": len(self.block.value),
            "version": self.version,
            "digest": self.digest,
            "id": self.id,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "updated_by": self.updated_by,
        }


@contextmanager
def _asking(url: str) -> Iterator[None]:
    """Errors as ours. A key of another type, until the daemon has mended it, is a mirror that does not serve."""
    import redis

    try:
        with translated(url):
            yield
    except redis.ResponseError as error:
        raise Damaged(f"the mirror cannot be read: {error}") from error


class Client:
    """A reader of one namespace. Every method raises Unavailable when Redis does not serve, or the mirror is damaged."""

    def __init__(self, url: str, namespace: str = "blocks") -> None:
        self._url = url
        self._keys = Keys(namespace)
        self._redis = connect_redis(url, reply_seconds=10.0)

    def close(self) -> None:
        self._redis.close()

    def meta(self) -> dict[str, str]:
        """The daemon that keeps this mirror, and where the mirror stands; empty when there never was one."""
        with _asking(self._url):
            meta: dict[str, str] = self._redis.hgetall(self._keys.meta)
        return meta

    def is_kept(self) -> bool:
        """Whether a daemon is in charge of the mirror right now."""
        with _asking(self._url):
            return bool(self._redis.exists(self._keys.lease))

    def counts(self) -> dict[str, int]:
        """How many blocks, agents and problems there are."""
        keys = {"blocks": self._keys.labels, "agents": self._keys.agents}
        with _asking(self._url):
            counts = {name: int(self._redis.zcard(key)) for name, key in keys.items()}
            return {**counts, "problems": int(self._redis.hlen(self._keys.problems))}

    def labels(self) -> list[str]:
        """All labels, in order."""
        with _asking(self._url):
            return list(self._redis.zrange(self._keys.labels, 0, -1))

    def agents(self) -> list[str]:
        """All known agents, in order."""
        with _asking(self._url):
            return list(self._redis.zrange(self._keys.agents, 0, -1))

    def blocks_of(self, agent: str) -> dict[str, str]:
        """What an agent is attached to: name → label.

        Raises:
            NotFound: no such agent is known.
        """
        with _asking(self._url):
            names: dict[str, str] = self._redis.hgetall(self._keys.agent(agent))
            if not names and self._redis.zscore(self._keys.agents, agent) is None:
                raise NotFound(f"there is no agent {agent!r}", agent=agent)
        return names

    def retrieve(self, label: str) -> Shown:
        """One block.

        Raises:
            NotFound: there is no such block.
        """
        found = self.retrieve_many([label])
        if not found:
            raise NotFound(f"there is no block {label!r}", label=label)
        return found[0]

    def retrieve_many(self, labels: Sequence[str]) -> list[Shown]:
        """These blocks, without those that are not there."""
        shown = []
        for start in range(0, len(labels), _PAGE):
            pipeline = self._redis.pipeline(transaction=False)
            for label in labels[start : start + _PAGE]:
                pipeline.hgetall(self._keys.block(label))
                pipeline.smembers(self._keys.attached(label))
            with _asking(self._url):
                answers = pipeline.execute()
            shown += [
                _shown(label, fields, agents)
                for label, fields, agents in zip(
                    labels[start : start + _PAGE], answers[::2], answers[1::2], strict=True
                )
                if fields
            ]
        return shown

    def problems(self) -> list[dict[str, Any]]:
        """What is wrong with files, by path."""
        with _asking(self._url):
            found = self._redis.hgetall(self._keys.problems)
        return [json.loads(found[subject]) for subject in sorted(found)]

    def watch(
        self, *, since: int | None = None, label: str | None = None, agent: str | None = None
    ) -> Iterator[Change]:
        """Every change from now on, or after `since`, once and in order; it never ends by itself.

        With `label`, only that block's; with `agent`, only those of the blocks attached to it. A `reset` tells that
        changes were missed that cannot be had any more, or that the mirror was built anew: read everything again.
        A lost connection is made again, and what was missed is caught up from the stream. `rejected` and `cleared`
        (problems) are passed on only while connected.
        """
        return _Watch(self._redis, self._url, self._keys, since=since, label=label, agent=agent).changes()


class _Watch:
    """One subscription.

    `_last` is the newest seq passed on, and `_resets` are the resets passed on at it: the stream has all that came
    after them, or says that it has not. A mirror built anew begins a new stream, so ids do not tell resets apart.
    """

    def __init__(
        self, client: Any, url: str, keys: Keys, *, since: int | None, label: str | None, agent: str | None
    ) -> None:
        self._redis = client
        self._url = url
        self._keys = keys
        self._label = label
        self._agent = agent
        self._agent_labels: set[str] | None = None  # as of `_last`
        self._began = False
        self._epoch: str | None = None
        self._last = since
        self._resets: list[dict[str, Any]] = []

    def changes(self) -> Iterator[Change]:
        failures = 0
        while True:
            listener = connect_redis(self._url, reply_seconds=None)
            try:
                with _asking(self._url):
                    pubsub = listener.pubsub(ignore_subscribe_messages=True)
                    pubsub.subscribe(self._keys.changes)
                    # Listening first, reading the stream second: nothing can fall between the two.
                    for change in self._connected():
                        yield from self._concerning(change)
                    failures, self._began = 0, True
                    for change in self._listen(pubsub):
                        yield from self._concerning(change)
            except Unavailable:
                if not self._began:
                    raise
                failures = min(failures + 1, 8)
                time.sleep(min(0.05 * 2**failures, 2.0) * random.uniform(0.5, 1.0))
            finally:
                listener.close()

    def _connected(self) -> Iterator[Change]:
        epoch, seq = self._place()
        is_new = self._last is None
        if self._last is None:
            self._last, self._resets, self._epoch = seq, self._resets_at(seq), epoch
        if self._agent is not None and self._agent_labels is None:
            self._agent_labels = self._labels_before(self._agent)
        if not is_new:
            yield from self._catch_up(epoch, seq)

    def _listen(self, pubsub: Any) -> Iterator[Change]:
        heard_at = time.monotonic()
        while True:
            message = pubsub.get_message(timeout=_LISTEN_SECONDS)
            assert self._last is not None
            if message is None:
                if time.monotonic() - heard_at >= _SILENCE_SECONDS:
                    # Silence may be a lost subscription: redis-py subscribes again without a word.
                    heard_at = time.monotonic()
                    yield from self._catch_up(*self._place())
                continue
            heard_at = time.monotonic()
            change = Change.loads(message["data"])
            if change.seq is None:
                yield change
            elif change.kind == "reset" or change.epoch != self._epoch or change.seq > self._last + 1:
                # The stream tells what is between, and whether this has been passed on.
                yield from self._catch_up(*self._place())
            elif change.seq == self._last + 1:
                self._move(change.seq)
                yield change

    def _place(self) -> tuple[str | None, int]:
        epoch, seq = self._redis.hmget(self._keys.meta, "epoch", "seq")
        return epoch, int(seq or 0)

    def _catch_up(self, epoch: str | None, seq: int) -> Iterator[Change]:
        """What the stream has after `_last`; or a reset, when it does not reach back to there."""
        assert self._last is not None
        if epoch is None:  # being rebuilt: a reset will be announced
            return
        if (self._epoch is not None and epoch != self._epoch) or seq < self._last:
            self._last, self._resets, self._epoch = seq, self._resets_at(seq), epoch
            yield _reset(epoch, seq)
            return
        self._epoch = epoch
        for number, change in self._entries_after(self._last):
            if change.kind == "reset":
                self._move(number)
                if change.raw in self._resets:
                    continue
                self._resets.append(change.raw)
            elif number > self._last + 1:
                yield _reset(epoch, number - 1)
            self._move(number)
            yield change
        if self._last < seq:  # the stream has lost its end
            self._move(seq)
            yield _reset(epoch, seq)

    def _move(self, seq: int) -> None:
        if seq != self._last:
            self._last, self._resets = seq, []

    def _entries_after(self, seq: int) -> Iterator[tuple[int, Change]]:
        """What the stream has after the change `seq`, the resets at it included."""
        place = f"{seq}-0"
        while True:
            entries = self._redis.xrange(self._keys.changes, f"({place}", "+", count=_PAGE)
            for place, fields in entries:
                yield int(str(place).partition("-")[0]), Change.loads(fields["change"])
            if len(entries) < _PAGE:
                return

    def _resets_at(self, seq: int) -> list[dict[str, Any]]:
        entries = self._redis.xrange(self._keys.changes, f"({seq}-0", str(seq))
        return [Change.loads(fields["change"]).raw for _, fields in entries]

    def _labels_now(self, agent: str) -> set[str]:
        return set(self._redis.hgetall(self._keys.agent(agent)).values())

    def _labels_before(self, agent: str) -> set[str]:
        """The blocks attached to the agent at `_last`: those of now, unless what first became of one since tells other."""
        assert self._last is not None
        labels, told = self._labels_now(agent), set()
        for _, change in self._entries_after(self._last):
            came, went = (agent in change.raw.get(key, ()) for key in ("attached", "detached"))
            if change.label is not None and change.label not in told and (came or went):
                told.add(change.label)
                (labels.add if went else labels.discard)(change.label)
        return labels

    def _concerning(self, change: Change) -> Iterator[Change]:
        if change.kind == "reset" and self._agent is not None:
            self._agent_labels = self._labels_now(self._agent)
        if change.kind == "reset" or (self._label is None and self._agent is None):
            yield change
        elif self._label is not None:
            if change.label == self._label:
                yield change
        else:
            assert self._agent_labels is not None
            label = change.label or ""
            came, went = (self._agent in change.raw.get(key, ()) for key in ("attached", "detached"))
            if came:
                self._agent_labels.add(label)
            if label in self._agent_labels or went:
                yield change
            if went:
                self._agent_labels.discard(label)


def _reset(epoch: str, seq: int) -> Change:
    return Change("reset", seq, epoch, None, {"seq": seq, "kind": "reset", "epoch": epoch})


def _shown(label: str, fields: dict[str, str], agents: set[str]) -> Shown:
    try:
        return Shown(
            block=block_of(fields, agents),
            version=int(fields["version"]),
            digest=fields["digest"],
            id=fields["id"],
            created_at=fields["created_at"],
            updated_at=fields["updated_at"],
            updated_by=fields["updated_by"],
        )
    except (KeyError, TypeError, ValueError):  # evicted and then changed, or edited by hand: the daemon will mend it
        raise Damaged(f"the mirror does not show all of {label!r}", label=label) from None
