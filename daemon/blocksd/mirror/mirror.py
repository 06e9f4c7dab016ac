"""Writes one namespace of one server, as long as the lease is held: each time with one atomic script."""

from __future__ import annotations

import itertools
import json
import logging
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blocksd.errors import Damaged, LeaseLost
from blocksd.mirror.connection import masked, translated
from blocksd.mirror.keys import SCHEMA
from blocksd.mirror.projection import announcement, commands_of, in_parts, rebuild_commands
from blocksd.mirror.script import Script
from blocksd.model.label import owner
from blocksd.model.revision import repaired, reset

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from blocksd.mirror.keys import Keys
    from blocksd.mirror.projection import Command
    from blocksd.model.revision import Revision

LEASE_SECONDS = 10

BATCH = 256
"""How many revisions, or blocks, one script call applies: a few milliseconds of Redis' one thread."""

_BATCH_CHARS = 1024 * 1024
_SEQ = re.compile("0|[1-9][0-9]{0,17}")
_encode = json.JSONEncoder(ensure_ascii=False).encode
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mirror stands: the epoch it was projected from, and up to which seq. None: nowhere."""

    epoch: str | None
    seq: int


class Mirror:
    """One namespace of one server, and this daemon's right to write it.

    Every method raises Unavailable when the server does not serve, Misconfigured when it refuses the login, LeaseLost
    when another daemon is in charge. After any of these, `place` is unknown until `take` is called again.
    """

    def __init__(self, client: Any, keys: Keys, *, url: str, epoch: str, token: str, about: Mapping[str, str]) -> None:
        """`about` describes this daemon: to people by directory, host, pid, started_at; to other daemons by `machine`,
        the machine in this boot, and `folder_id`, the device and inode of its folder. Either is empty if it is in doubt.
        """
        self._client = client
        self.keys = keys
        self.url = url
        self.epoch = epoch
        self._token = token
        self._describe(about)
        self._apply = Script(client, "apply.lua", url=url)
        self._take = Script(client, "lease.lua", url=url)
        self._compare = Script(client, "compare.lua", url=url)
        self._sent: tuple[str, ...] = ()  # the arguments of the call that is under way
        self.place: Place | None = None
        self.times_retaken = 0  # how often the lease was gone, and taken again: other keys may be gone or old, too

    def _describe(self, about: Mapping[str, str]) -> None:
        self._about = about
        self._lease = f"{self.epoch} {self._token} {about.get('machine') or '-'} {about.get('folder_id') or '-'}"

    def move(self, folder_id: str) -> None:
        """The folder is another directory now, of this id: what is known of this daemon follows when the lease is renewed."""
        self._describe({**self._about, "folder_id": folder_id})

    @property
    def server(self) -> str | None:
        """What the server has called itself, and its version; None before it was written to, and of a cluster."""
        return self._apply.server

    @property
    def lease(self) -> str:
        """What the key of the lease says while this daemon holds it."""
        return self._lease

    def take(self) -> Place:
        """Take the lease, or renew it; where the mirror stands.

        A dead daemon's lease is taken over at once, where its death is certain: that of the same folder or journal, on
        this machine in this boot, whose locks this daemon has. Any other is respected until it expires.
        """
        self.place = None
        with translated(self.url):
            _, epoch, seq, is_ours = self._ask_lease()
            if not is_ours:
                raise self._refusal(self._client.hgetall(self.keys.meta))
        self.place = _place_of(epoch, seq)
        return self.place

    def _refusal(self, there: dict[str, str]) -> LeaseLost:
        def place(about: Mapping[str, str]) -> str:
            ids = f"machine {about.get('machine') or 'unknown'}, folder {about.get('folder_id') or 'unknown'}"
            return f"for {about.get('directory', '?')} ({ids})"

        return LeaseLost(
            f"namespace {self.keys.namespace!r} at {masked(self.url)} is served by the daemon with pid "
            f"{there.get('pid', '?')} on {there.get('host', '?')}, {place(there)}; this one is on "
            f"{self._about.get('host', '?')}, {place(self._about)}",
            holder=there,
        )

    def lease_left(self) -> int:
        """For how many milliseconds the lease that is there is still good, for any daemon that has it; negative when there is none."""
        with translated(self.url):
            return int(self._client.pttl(self.keys.lease))

    def renew(self) -> bool:
        """Renew the lease; whether the mirror is still where this daemon left it."""
        self.settle()
        before = self.place
        with translated(self.url):
            held, epoch, seq, _ = self._ask_lease()
        is_in_place = before == _place_of(epoch, seq)
        if is_in_place and not held:
            self.times_retaken += 1
            _log.warning("the lease was evicted or has expired; no other daemon had it, and it was taken again")
        return held in ("", self._lease) and is_in_place

    def _ask_lease(self) -> tuple[str, str, str, int]:
        held, epoch, seq, is_ours = self._take.call(
            (self.keys.lease, self.keys.meta), (self._lease, str(LEASE_SECONDS * 1000))
        )
        return held, epoch, seq, is_ours

    def release(self) -> None:
        """Give the lease up, so that a successor need not wait."""
        self.apply([("DEL", self.keys.lease)])

    def project(self, revisions: Sequence[Revision], aside: Sequence[Command] = ()) -> None:
        """Bring the mirror forward by these revisions, the first of which follows its place, and write `aside` with them.

        The last of them may still be under way when this returns, so that their successors can be made meanwhile:
        `settle` waits for it, and so does whatever else is written.
        """
        self.settle()
        assert self.place is not None
        batch: list[str] = []
        size = 0
        start = self.place.seq
        for revision in revisions:
            commands = _encode(commands_of(revision, self.keys, self.epoch))
            if batch and size + len(commands) > _BATCH_CHARS:
                self._send(batch, at=start)
                self.settle()
                batch, size, start = [], 0, revision.seq - 1
            batch.append(commands)
            size += len(commands)
        if aside and sum(map(len, itertools.chain(*aside))) + size <= _BATCH_CHARS:
            batch.append(_encode(aside))
            aside = ()
        self._send(batch, at=start)
        self.place = Place(self.epoch, revisions[-1].seq)
        self.note(aside)

    def note(self, commands: Sequence[Command]) -> None:
        """Write what belongs to no revision: known agents, problems, sources, replies. What is large, in several calls."""
        batch: list[Command] = []
        size = 0
        for command in commands:
            batch.append(command)
            size += sum(map(len, command))
            if size > _BATCH_CHARS:
                self.apply(batch)
                batch, size = [], 0
        if batch:
            self.apply(batch)

    def ask(self, questions: Sequence[Command]) -> list[Any]:
        """What reading commands answer, in one round trip; of a key of another type, an error."""
        self.settle()
        pipeline = self._client.pipeline(transaction=False)
        for words in questions:
            pipeline.execute_command(*words)
        with translated(self.url):
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers

    def answer(self, *question: str) -> Any:
        """What one reading command answers; None when the key is of another type."""
        self.settle()
        try:
            with translated(self.url):
                return self._client.execute_command(*question)
        except Damaged:
            return None

    def compare(self, blocks: str, prefix: str, attached_prefix: str) -> list[int]:
        """Which of the blocks are not shown as compare.lua is told they should be: their numbers, from 1."""
        self.settle()
        outcome = self._compare.call((self.keys.labels, self.keys.ids), (blocks, prefix, attached_prefix))
        return outcome[1:]

    def begin_rebuild(self) -> Iterator[None]:
        """Clear the namespace of all that a rebuild writes, some keys at a step.

        From the first step on the mirror has no place, so that a rebuild cut short is begun again.
        """
        keys = self.keys
        self.apply([("DEL", keys.meta)])
        of_a_kind = (keys.block, keys.attached, keys.agent, keys.source, keys.source_agents, keys.file, keys.open)
        mine = tuple(key("") for key in of_a_kind)
        cursor = 0
        while True:
            cursor, found = self.scan(cursor, f"{keys.namespace}:*", 1000)
            written = [key for key in found if key.startswith(mine)]
            if written:
                self.apply([("UNLINK", *words) for words in in_parts(written)])
            if not cursor:
                break
            yield
        indexes = (keys.labels, keys.agents, keys.ids, keys.problems, keys.changes, keys.sources)
        self.apply([("DEL", *indexes)])

    def scan(self, cursor: int, pattern: str, count: int) -> tuple[int, list[str]]:
        """One step through the keys of the server, about `count` of them: where it goes on (0: nowhere), and those found."""
        self.settle()
        options: dict[str, Any] = {"match": pattern, "count": count}
        with translated(self.url):
            if hasattr(self._client, "get_node_from_key"):  # a cluster: a namespace is in one slot, so on one node
                options["target_nodes"] = self._client.get_node_from_key(self.keys.meta)
            following, found = self._client.scan(cursor, **options)
        return (next(iter(following.values())) if isinstance(following, dict) else following), found

    def rebuild(self, revisions: Sequence[Revision]) -> None:
        """Write these blocks as they are."""
        batch: list[Command] = []
        size = 0
        for revision in revisions:
            batch += rebuild_commands(revision, self.keys)
            size += len(revision.block.value) if revision.block else 0
            if size > _BATCH_CHARS:
                self.apply(batch)
                batch, size = [], 0
        if batch:
            self.apply(batch)

    def end_rebuild(self, seq: int, at: str) -> None:
        """The mirror is whole and stands at `seq`; whoever listens is told to read everything again."""
        meta = {**self._about, "schema": str(SCHEMA), "epoch": self.epoch, "seq": str(seq)}
        words = [word for pair in meta.items() for word in pair]
        self.apply([("HSET", self.keys.meta, *words), *self._reset_commands(seq, at)])
        self.place = Place(self.epoch, seq)

    def announce_reset(self, at: str) -> None:
        """Tell whoever listens to read everything again."""
        assert self.place is not None
        self.apply(self._reset_commands(self.place.seq, at))

    def describe(self) -> None:
        """Put this daemon's facts into the mirror's meta, after taking over one that was level."""
        words = [word for pair in self._about.items() for word in pair]
        self.apply([("HSET", self.keys.meta, *words)])

    def announce_repaired(self, labels: Sequence[str], agents: Sequence[str], indexes: Sequence[str], at: str) -> None:
        """Tell the subscribers of these blocks and agents, and those of everything, that they were shown wrongly until now."""
        assert self.place is not None
        keys = self.keys
        change = repaired(labels, agents, indexes, self.epoch, at)
        concerned = sorted({*agents, *filter(None, map(owner, labels))})
        channels = (*map(keys.changes_of_block, labels), *map(keys.changes_of_agent, concerned))
        self.apply([announcement(self._next_entry(self.place.seq), change, keys.changes, *channels)])

    def _reset_commands(self, seq: int, at: str) -> list[Command]:
        keys = self.keys
        change = reset(seq, self.epoch, at)
        return [announcement(self._next_entry(seq), change, keys.changes, keys.resets)]

    def _next_entry(self, seq: int) -> str:
        """The id, in the stream, of what is announced at a seq without a number of its own."""
        last = self.answer("XREVRANGE", self.keys.changes, "+", "-", "COUNT", "1")
        after = int(str(last[0][0]).partition("-")[2]) if last and str(last[0][0]).startswith(f"{seq}-") else 0
        return f"{seq}-{after + 1}"

    def apply(self, commands: Sequence[Command]) -> None:
        """Apply commands in one atomic call."""
        self.settle()
        self._send([_encode(commands)])
        self.settle()

    def _send(self, batch: Sequence[str], *, at: int | None = None) -> None:
        """Send lists of commands, each in JSON, to be applied in one atomic call; with `at`, only if the mirror stands there."""
        place = ("", "") if at is None else (self.epoch, str(at))
        joined = ",".join(commands[1:-1] for commands in batch if len(commands) > 2)
        with self._doubted():
            # Should it be run twice, the second time is refused: the mirror then stands elsewhere.
            self._sent = (self._lease, *place, f"[{joined}]")
            self._apply.send(self._written, self._sent)

    @property
    def _written(self) -> tuple[str, ...]:
        return self.keys.lease, self.keys.meta, self.keys.changes

    def settle(self) -> None:
        """Wait for what is under way."""
        if self._apply.under_way is None:
            return
        with self._doubted():
            outcome = self._apply.outcome()
            if outcome[0] == "lease" and not outcome[1] and self._is_still_ours():
                outcome = self._apply.call(self._written, self._sent)
        if outcome[0] != "ok":
            self.place = None
            if outcome[0] == "place":
                raise LeaseLost("the mirror has moved", holder=outcome[1])
            if not outcome[1]:
                raise LeaseLost("the lease was evicted or has expired", holder="")
            raise LeaseLost("another daemon is in charge of the mirror", holder=outcome[1])

    def _is_still_ours(self) -> bool:
        """Take a lease that is not there again; True if the mirror stands where this daemon left it, so nobody else had it.

        What was to be written at a place is refused by the script itself if the mirror stands elsewhere.
        """
        held, epoch, seq, _ = self._ask_lease()
        there = _place_of(epoch, seq)
        is_ours = held in ("", self._lease) and (
            self._sent[1] != "" or (there == self.place and there.epoch == self.epoch)
        )
        if is_ours:
            self.times_retaken += 1
            _log.warning("the lease was evicted or has expired; no other daemon had it, and it was taken again")
        return is_ours

    @contextmanager
    def _doubted(self) -> Iterator[None]:
        """While the mirror is written: after any error it is unknown where it stands."""
        try:
            yield
        except BaseException:
            self.place = None
            raise


def _place_of(epoch: str, seq: str) -> Place:
    """The place a mirror says it has; if that is not what a daemon writes, it has none."""
    return Place(epoch, int(seq)) if epoch and _SEQ.fullmatch(seq) else Place(None, 0)
