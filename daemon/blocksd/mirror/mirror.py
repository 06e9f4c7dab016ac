"""Writes one namespace of one server, while this daemon holds the lease: each time with one atomic script."""

from __future__ import annotations

import logging
from itertools import chain
from typing import TYPE_CHECKING, Any

from blocksd.errors import Damaged, LeaseLost
from blocksd.mirror.connection import translated
from blocksd.mirror.keys import SCHEMA, Place, number_of
from blocksd.mirror.lease import Lease
from blocksd.mirror.projection import (
    announcement,
    commands_of,
    hash_commands,
    in_parts,
    new_hash_commands,
    rebuild_commands,
    written_keys,
)
from blocksd.mirror.runs import commands_of_runs
from blocksd.mirror.script import Script
from blocksd.model.label import owner
from blocksd.model.revision import repaired, reset

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from blocksd.mirror.keys import Keys
    from blocksd.mirror.projection import Command
    from blocksd.model.revision import Revision

BATCH = 256
"""The most revisions, or blocks, of one script call: a few milliseconds of Redis' one thread."""

_BATCH_CHARS = 1024 * 1024
_log = logging.getLogger(__name__)


class Mirror:
    """One namespace of one server, and this daemon's lease to write it.

    Every method raises Unavailable when the server does not serve, Misconfigured when it refuses the login, LeaseLost
    when another daemon holds the lease. After any of these, `place` is unknown until `take_lease` is called again.
    """

    def __init__(
        self,
        client: Any,
        keys: Keys,
        *,
        url: str,
        epoch: str,
        token: str,
        about: Mapping[str, str],
        generation: int = 0,
    ) -> None:
        """Take a client. `about` describes this daemon: to people by directory, host, pid and started_at, to other daemons by
        `machine` (in this boot) and `folder_id` (device and inode of its folder); either is empty if it is unknown.
        """
        self._client = client
        self.keys = keys
        self._keys_of_script = (keys.lease, keys.meta, keys.changes)
        self.url = url
        self.epoch = epoch
        self._lease = Lease(client, keys, url=url, epoch=epoch, token=token, about=about, generation=generation)
        self._apply = Script(client, "apply.lua", url=url)
        # A node of a cluster sends what PUBLISH says to every other node, also where no one listens.
        self._publish = "SPUBLISH" if self._apply.is_on_cluster else "PUBLISH"
        self._compare = Script(client, "compare.lua", url=url)
        self._sent: tuple[str, ...] = ()  # the arguments of the call under way
        self.place: Place | None = None
        self.failed_at: int | None = None
        """Where the mirror stood before the last call that projects, if that failed since the lease was taken."""
        self.times_retaken = 0  # how often a lost lease was taken again: other keys may be lost, too

    def move(self, folder_id: str) -> None:
        """Record that the folder is another directory now. The mirror shows it when the lease is renewed."""
        self._lease.describe(self.epoch, {**self._lease.about, "folder_id": folder_id})

    def begin_generation(self, epoch: str, generation: int) -> None:
        """Ask with the generation and the epoch that the journal has now."""
        self.epoch, self._lease.generation = epoch, generation

    @property
    def server(self) -> str | None:
        """The server's name and version; None before the first write, and for a cluster."""
        return self._apply.server

    @property
    def lease(self) -> str:
        """The value of the lease's key while this daemon holds it."""
        return self._lease.value

    def take_lease(self) -> Place:
        """Take the lease, or renew it, and return the mirror's position.

        The lease of a daemon that is certainly dead is taken over at once: one of the same folder or journal, on this machine
        in this boot, because this daemon has its locks. Any other is respected until it expires. Raises Superseded if the
        namespace has a leader of a higher generation.
        """
        self.place = None
        with translated(self.url):
            answer = self._lease.ask()
            if not answer.is_ours:
                raise self._lease.refusal(answer, self._client.hgetall(self.keys.meta))
        self.place, self.failed_at = answer.place, None
        return answer.place

    def shown_generation(self) -> int:
        """Return the namespace's generation, without asking for the lease."""
        return number_of(self.read_one("HGET", self.keys.meta, "generation")) or 0

    def lease_left(self) -> int:
        """Return for how many milliseconds the present lease, of any daemon, is valid; negative: there is none."""
        with translated(self.url):
            return int(self._client.pttl(self.keys.lease))

    def renew_lease(self) -> bool:
        """Renew the lease. Return True if the mirror is still at the position where this daemon left it."""
        self.wait()
        with translated(self.url):
            answer = self._lease.ask()
        is_kept = answer.is_ours and answer.held in ("", self.lease) and answer.place == self.place
        if is_kept and not answer.held:
            self._note_retaken()
        return is_kept

    def _note_retaken(self) -> None:
        self.times_retaken += 1
        _log.warning("the lease was evicted or has expired; no other daemon had it, and it was taken again")

    def release_lease(self) -> None:
        """Release the lease, so that a successor need not wait."""
        self.apply([("DEL", self.keys.lease)])

    def project(self, revisions: Sequence[Revision], aside: Sequence[Command] = ()) -> None:
        """Project revisions, the first of which follows the mirror's position, and write the commands `aside` with them.

        The last call may still be under way when this returns, so that the next round can begin. `wait` waits for it, and so
        does every other method.
        """
        if self._apply.under_way is not None:
            self.wait()
        assert self.place is not None
        start, keys, epoch = self.place.seq, self.keys, self.epoch
        if len(revisions) == 1:
            batch = commands_of(revisions[0], keys, epoch)
            size = sum(map(len, chain.from_iterable(batch))) if aside else 0
        else:
            batch, size = [], 0
            for before, commands in commands_of_runs(revisions, keys, epoch):
                size += sum(map(len, chain.from_iterable(commands)))
                if batch and size > _BATCH_CHARS:
                    self._send(batch, at=start)
                    self.wait()
                    batch, size, start = [], sum(map(len, chain.from_iterable(commands))), before
                batch += commands
        if aside and size + sum(map(len, chain.from_iterable(aside))) <= _BATCH_CHARS:
            batch += aside
            aside = ()
        self._send(batch, at=start)
        self.place = Place(self.epoch, revisions[-1].seq)
        if aside:
            self.write(aside)

    def write(self, commands: Sequence[Command]) -> None:
        """Write commands that belong to no revision: known agents, problems, sources, replies. Many are sent in several calls."""
        self._apply_groups((command,) for command in commands)

    def rebuild(self, revisions: Sequence[Revision]) -> None:
        """Write these blocks in full, each in one atomic call."""
        self._apply_groups(rebuild_commands(revision, self.keys) for revision in revisions)

    def _apply_groups(self, groups: Iterable[Sequence[Command]]) -> None:
        """Apply groups of commands in as few atomic calls as their size allows. No group is divided."""
        batch: list[Command] = []
        size = 0
        for group in groups:
            batch += group
            size += sum(map(len, chain.from_iterable(group)))
            if size > _BATCH_CHARS:
                self.apply(batch)
                batch, size = [], 0
        if batch:
            self.apply(batch)

    def read_many(self, questions: Sequence[Command]) -> list[Any]:
        """Return the answers to reading commands, in one round trip. The answer for a key of another type is an error."""
        self.wait()
        pipeline = self._client.pipeline(transaction=False)
        for words in questions:
            pipeline.execute_command(*words)
        with translated(self.url):
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers

    def read_one(self, *question: str) -> Any:
        """Return the answer to one reading command; None: the key is of another type."""
        self.wait()
        try:
            with translated(self.url):
                return self._client.execute_command(*question)
        except Damaged:
            return None

    def compare(self, blocks: str, prefix: str, attached_prefix: str) -> list[int]:
        """Return the numbers, from 1, of the blocks that the mirror shows wrongly, as compare.lua finds them."""
        self.wait()
        keys = self.keys
        outcome = self._compare.call(
            (keys.labels, keys.ids, keys.counts, keys.index, keys.created, keys.updated),
            (blocks, prefix, attached_prefix),
        )
        return outcome[1:]

    def begin_rebuild(self) -> Iterator[None]:
        """Clear the namespace of all that a rebuild writes, some keys at a step.

        From the first step on the mirror has no place, so that a rebuild cut short is begun again.
        """
        keys = self.keys
        self.apply(new_hash_commands(keys.meta, self._lease.facts))
        mine = tuple(key("") for key in keys.of_a_kind)
        cursor = 0
        while True:
            cursor, found = self.scan(cursor, f"{keys.namespace}:*", 1000)
            written = [key for key in found if key.startswith(mine)]
            if written:
                self.apply([("UNLINK", *words) for words in in_parts(written)])
            if not cursor:
                break
            yield
        lists = (keys.labels, keys.agents, keys.ids, keys.counts, keys.index, keys.created, keys.updated)
        self.apply([("DEL", *lists, keys.agents_created, keys.problems, keys.sources, keys.changes)])

    def scan(self, cursor: int, pattern: str, count: int) -> tuple[int, list[str]]:
        """Scan about `count` keys of the server. Return the next cursor (0: the end), and the keys that match."""
        self.wait()
        options: dict[str, Any] = {"match": pattern, "count": count}
        with translated(self.url):
            if hasattr(self._client, "get_node_from_key"):  # in a cluster a namespace is in one slot, so on one node
                options["target_nodes"] = self._client.get_node_from_key(self.keys.meta)
            following, found = self._client.scan(cursor, **options)
        return (next(iter(following.values())) if isinstance(following, dict) else following), found

    def end_rebuild(self, seq: int, at: str) -> None:
        """Complete a rebuild: the mirror is whole, at `seq`. A reset tells subscribers to read everything again."""
        meta = {**self._lease.facts, "schema": str(SCHEMA), "epoch": self.epoch, "seq": str(seq)}
        self.apply([*hash_commands(self.keys.meta, {}, meta), *self._reset_commands(seq, at)])
        self.place = Place(self.epoch, seq)

    def announce_reset(self, at: str) -> None:
        """Tell subscribers to read everything again."""
        assert self.place is not None
        self.apply(self._reset_commands(self.place.seq, at))

    def describe(self) -> None:
        """Write the facts about this daemon, after it took over a mirror that was in sync."""
        self.apply(hash_commands(self.keys.meta, {}, self._lease.facts))

    def announce_repaired(self, labels: Sequence[str], agents: Sequence[str], indexes: Sequence[str], at: str) -> None:
        """Tell the subscribers of these blocks and agents, and of everything, that the mirror showed them wrongly until now."""
        assert self.place is not None
        keys = self.keys
        change = repaired(labels, agents, indexes, self.epoch, at)
        concerned = sorted({*agents, *filter(None, map(owner, labels))})
        channels = (*map(keys.changes_of_block, labels), *map(keys.changes_of_agent, concerned))
        self.apply([announcement("", change, keys.changes, *channels)])

    def _reset_commands(self, seq: int, at: str) -> list[Command]:
        keys = self.keys
        change = reset(seq, self.epoch, at)
        return [announcement("", change, keys.changes, keys.resets)]

    def apply(self, commands: Sequence[Command]) -> None:
        """Apply commands in one atomic call."""
        self.wait()
        self._send(commands)
        self.wait()

    def _send(self, commands: Sequence[Command], *, at: int | None = None) -> None:
        """Send commands, to be applied in one atomic call; with `at`, only if the mirror is at that seq."""
        words = [self._lease.value, *(("", "") if at is None else (self.epoch, str(at))), self._publish]
        for command in commands:
            words.append(str(len(command)))
            words += command
        try:
            # A call that runs twice is refused the second time, because the mirror is at another position then.
            self._sent = tuple(words)
            self._apply.send(self._keys_of_call(), self._sent)
        except BaseException:
            self._doubt()
            raise

    def _doubt(self) -> None:
        """Note that the call failed, or that it is unknown if it did: the mirror's position is unknown."""
        self.place = None
        if self._sent[1]:
            self.failed_at = int(self._sent[2])

    def _keys_of_call(self) -> tuple[str, ...]:
        """Return the keys that the call declares.

        A cluster that moves the slot to another node puts a call off while some of its keys are on either node, but only
        if all of them are declared: else the script fails half-way there. One server needs no more than the first three.
        """
        keys = self._keys_of_script
        return (*keys, *written_keys(self._sent[4:])) if self._apply.is_on_cluster else keys

    def wait(self) -> None:
        """Wait for the call under way."""
        if self._apply.under_way is None:
            return
        try:
            outcome = self._apply.outcome()
            if outcome[0] == "lease" and not outcome[1] and self._is_still_ours():
                outcome = self._apply.call(self._keys_of_call(), self._sent)
        except BaseException:
            self._doubt()
            raise
        if outcome[0] != "ok":
            self._doubt()
            if outcome[0] == "place":
                raise LeaseLost("the mirror has moved", holder=outcome[1])
            if not outcome[1]:
                raise LeaseLost("the lease was evicted or has expired", holder="")
            raise LeaseLost("another daemon holds the lease of the mirror", holder=outcome[1])

    def _is_still_ours(self) -> bool:
        """Take a lost lease again. Return True if the mirror is where this daemon left it, so that no other daemon had it.

        A call for a position needs no check here: the script refuses it if the mirror is elsewhere.
        """
        answer = self._lease.ask()
        is_in_place = self._sent[1] != "" or (answer.place == self.place and answer.place.epoch == self.epoch)
        if not answer.is_ours or answer.held not in ("", self.lease) or not is_in_place:
            return False
        self._note_retaken()
        return True
