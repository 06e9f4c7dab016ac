"""What programs read from the mirror: blocks, agents, problems, and every change, once and in order."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blocksd.connection import connect as connect_redis
from blocksd.connection import translated
from blocksd.errors import NotFound, Unavailable
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


class Client:
    """A reader of one namespace. Every method raises Unavailable when Redis does not serve."""

    def __init__(self, url: str, namespace: str = "blocks") -> None:
        self._url = url
        self._keys = Keys(namespace)
        self._redis = connect_redis(url, reply_seconds=10.0)

    def close(self) -> None:
        self._redis.close()

    def meta(self) -> dict[str, str]:
        """The daemon that keeps this mirror, and where the mirror stands; empty when there never was one."""
        with translated(self._url):
            meta: dict[str, str] = self._redis.hgetall(self._keys.meta)
        return meta

    def is_kept(self) -> bool:
        """Whether a daemon is in charge of the mirror right now."""
        with translated(self._url):
            return bool(self._redis.exists(self._keys.lease))

    def counts(self) -> dict[str, int]:
        """How many blocks, agents and problems there are."""
        keys = {"blocks": self._keys.labels, "agents": self._keys.agents}
        with translated(self._url):
            counts = {name: int(self._redis.zcard(key)) for name, key in keys.items()}
            return {**counts, "problems": int(self._redis.hlen(self._keys.problems))}

    def labels(self) -> list[str]:
        """All labels, in order."""
        with translated(self._url):
            return list(self._redis.zrange(self._keys.labels, 0, -1))

    def agents(self) -> list[str]:
        """All known agents, in order."""
        with translated(self._url):
            return list(self._redis.zrange(self._keys.agents, 0, -1))

    def blocks_of(self, agent: str) -> dict[str, str]:
        """What an agent is attached to: name → label.

        Raises:
            NotFound: no such agent is known.
        """
        with translated(self._url):
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
            with translated(self._url):
                answers = pipeline.execute()
            shown += [
                _shown(fields, agents) for fields, agents in zip(answers[::2], answers[1::2], strict=True) if fields
            ]
        return shown

    def problems(self) -> list[dict[str, Any]]:
        """What is wrong with files, by path."""
        with translated(self._url):
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
    """One subscription. `_last` is the newest seq passed on; the stream has all after it, or says that it has not."""

    def __init__(
        self, client: Any, url: str, keys: Keys, *, since: int | None, label: str | None, agent: str | None
    ) -> None:
        self._redis = client
        self._url = url
        self._keys = keys
        self._label = label
        self._agent = agent
        self._agent_labels: set[str] = set()
        self._epoch: str | None = None
        self._last = (since, 0) if since is not None else None

    def changes(self) -> Iterator[Change]:
        failures = 0
        while True:
            listener = connect_redis(self._url, reply_seconds=None)
            try:
                with translated(self._url):
                    pubsub = listener.pubsub(ignore_subscribe_messages=True)
                    pubsub.subscribe(self._keys.changes)
                    # Listening first, reading the stream second: nothing can fall between the two.
                    for change in self._connected():
                        yield from self._concerning(change)
                    failures = 0
                    for change in self._listen(pubsub):
                        yield from self._concerning(change)
            except Unavailable:
                if not failures and self._epoch is None:
                    raise
                failures = min(failures + 1, 8)
                time.sleep(min(0.05 * 2**failures, 2.0) * random.uniform(0.5, 1.0))
            finally:
                listener.close()

    def _connected(self) -> Iterator[Change]:
        epoch, seq = self._place()
        if self._agent is not None:
            self._agent_labels = set(self._redis.hgetall(self._keys.agent(self._agent)).values())
        if self._last is None:
            self._last, self._epoch = (seq, 0), epoch
        else:
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
            elif change.kind == "reset":
                self._last, self._epoch = (change.seq, _AFTER_RESET), change.epoch
                yield change
            elif change.epoch == self._epoch and change.seq <= self._last[0]:
                continue
            elif change.epoch == self._epoch and change.seq == self._last[0] + 1:
                self._last = (change.seq, 0)
                yield change
            else:
                yield from self._catch_up(*self._place())

    def _place(self) -> tuple[str | None, int]:
        epoch, seq = self._redis.hmget(self._keys.meta, "epoch", "seq")
        return epoch, int(seq or 0)

    def _catch_up(self, epoch: str | None, seq: int) -> Iterator[Change]:
        """What the stream has after `_last`; or a reset, when it does not reach back to there."""
        assert self._last is not None
        if epoch is None:  # being rebuilt: a reset will be announced
            return
        if (self._epoch is not None and epoch != self._epoch) or seq < self._last[0]:
            self._last, self._epoch = (seq, _AFTER_RESET), epoch
            yield _reset(epoch, seq)
            return
        self._epoch = epoch
        while True:
            entries = self._redis.xrange(self._keys.changes, f"({self._last[0]}-{self._last[1]}", "+", count=_PAGE)
            for entry_id, fields in entries:
                change = Change.loads(fields["change"])
                number, _, part = str(entry_id).partition("-")
                if change.kind != "reset" and int(number) > self._last[0] + 1:
                    self._last = (int(number) - 1, _AFTER_RESET)
                    yield _reset(epoch, int(number) - 1)
                self._last = (int(number), int(part))
                yield change
            if len(entries) < _PAGE:
                break
        if self._last[0] < seq:  # the stream has lost its end
            self._last = (seq, _AFTER_RESET)
            yield _reset(epoch, seq)

    def _concerning(self, change: Change) -> Iterator[Change]:
        if change.kind == "reset" and self._agent is not None:
            self._agent_labels = set(self._redis.hgetall(self._keys.agent(self._agent)).values())
        if change.kind == "reset" or (self._label is None and self._agent is None):
            yield change
        elif self._label is not None:
            if change.label == self._label:
                yield change
        else:
            label = change.label or ""
            came, went = (self._agent in change.raw.get(key, ()) for key in ("attached", "detached"))
            if came:
                self._agent_labels.add(label)
            if label in self._agent_labels or went:
                yield change
            if went:
                self._agent_labels.discard(label)


_AFTER_RESET = 2**32


def _reset(epoch: str, seq: int) -> Change:
    return Change("reset", seq, epoch, None, {"seq": seq, "kind": "reset", "epoch": epoch})


def _shown(fields: dict[str, str], agents: set[str]) -> Shown:
    return Shown(
        block=block_of(fields, agents),
        version=int(fields["version"]),
        digest=fields["digest"],
        id=fields["id"],
        created_at=fields["created_at"],
        updated_at=fields["updated_at"],
        updated_by=fields["updated_by"],
    )
