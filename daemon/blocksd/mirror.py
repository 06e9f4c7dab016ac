"""Projects revisions into Redis: what to write is decided by pure functions, and applied by one atomic script."""

from __future__ import annotations

import itertools
import json
import re
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from blocksd.block import FILE_KEYS, block_id
from blocksd.connection import masked, translated
from blocksd.errors import Damaged, LeaseLost
from blocksd.keys import SCHEMA
from blocksd.label import name_for_agent, owner
from blocksd.revision import reset

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from blocksd.keys import Keys
    from blocksd.problem import Problem
    from blocksd.revision import Revision

Command = tuple[str, ...]
"""A Redis command, word by word; or ANNOUNCE, which apply.lua explains."""

CHANGES_KEPT = 100_000
LEASE_SECONDS = 10
REPLY_SECONDS = 60
"""How long a reply waits for whoever asked."""

BATCH = 256
"""How many revisions, or blocks, one script call applies: a few milliseconds of Redis' one thread."""

_BATCH_CHARS = 1024 * 1024
_SEQ = re.compile("0|[1-9][0-9]{0,17}")
_WORDS = 1000  # Lua unpacks at most about 8,000 words into one call


@dataclass(frozen=True, slots=True)
class Place:
    """Where a mirror stands: the epoch it was projected from, and up to which seq. None: nowhere."""

    epoch: str | None
    seq: int


def fields_of(revision: Revision) -> dict[str, str]:
    """A block's hash in the mirror."""
    block = revision.block
    assert block is not None
    fields = {"label": block.label, "id": block_id(block.label), "created_at": revision.created_at}
    return fields | _shown(revision, ("value", *FILE_KEYS))


def _shown(revision: Revision, names: Iterable[str]) -> dict[str, str]:
    """These fields of a block as the hash has them, without those that are null, and what every revision changes."""
    block = revision.block
    shown = {
        "version": str(revision.version),
        "digest": revision.digest or "",
        "updated_at": revision.at,
        "updated_by": revision.author,
    }
    for name in names:
        value = getattr(block, name)
        if name == "value":
            shown["value"] = value
            shown["chars"] = str(len(value))
        elif name != "agents" and value is not None:
            shown[name] = value if isinstance(value, str) else _json(value)
    return shown


_encode = json.JSONEncoder(ensure_ascii=False).encode


def _json(value: object) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, int):
        return str(value)
    return _encode(value) if value else "{}" if isinstance(value, dict) else "[]"


def commands_of(revision: Revision, keys: Keys, epoch: str) -> list[Command]:
    """One revision in the mirror, its entry in the stream and its notifications: the data first."""
    label, block = revision.label, revision.block
    if block is not None and revision.kind == "updated":
        shown = _shown(revision, revision.fields)
        commands: list[Command] = [("HSET", keys.block(label), *(word for pair in shown.items() for word in pair))]
        nulls = [name for name in revision.fields if name not in shown and name != "agents"]
        if nulls:
            commands.append(("HDEL", keys.block(label), *nulls))
    else:
        commands = _block_commands(revision, keys)
    name = name_for_agent(label)
    if revision.renamed_from is not None:
        commands += _renaming_commands(revision, revision.renamed_from, keys)
    for words in _in_parts(revision.detached):
        commands.append(("SREM", keys.attached(label), *words))
        commands += [("HDEL", keys.agent(agent), name) for agent in words]
    for words in _in_parts(revision.attached):
        commands.append(("SADD", keys.attached(label), *words))
        commands += [("HSET", keys.agent(agent), name, label) for agent in words]
    change = revision.change(epoch)
    labels = [label] if revision.renamed_from is None else [label, revision.renamed_from]
    concerned = sorted({*revision.attached, *revision.detached, *filter(None, map(owner, labels))})
    channels = (*map(keys.changes_of_block, labels), *map(keys.changes_of_agent, concerned))
    commands.append(_announcement(f"{revision.seq}-0", change, keys.changes, *channels))
    commands.append(("HSET", keys.meta, "seq", str(revision.seq)))
    return commands


def _renaming_commands(revision: Revision, old: str, keys: Keys) -> list[Command]:
    """What is under the label a block had before goes; who stays attached has it under the new one."""
    label, name, old_name = revision.label, name_for_agent(revision.label), name_for_agent(old)
    commands: list[Command] = [
        ("DEL", keys.block(old), keys.attached(old), keys.attached(label)),
        ("ZREM", keys.labels, old),
        ("HDEL", keys.ids, block_id(old)),
    ]
    commands += [("HDEL", keys.agent(agent), old_name) for agent in sorted({*revision.agents, *revision.detached})]
    for words in _in_parts(sorted(revision.agents)):
        commands.append(("SADD", keys.attached(label), *words))
        commands += [("HSET", keys.agent(agent), name, label) for agent in words]
    return commands


def _announcement(entry_id: str, change: str, *channels: str) -> Command:
    """A change: into the stream, and, sent once, to any number of channels."""
    return ("ANNOUNCE", entry_id, str(CHANGES_KEPT), change, *channels)


def _block_commands(revision: Revision, keys: Keys) -> list[Command]:
    """All of a block but who is attached to it, on a clean place: whatever stood there is gone."""
    label = revision.label
    if revision.block is None:
        return [
            ("DEL", keys.block(label), keys.attached(label)),
            ("ZREM", keys.labels, label),
            ("HDEL", keys.ids, block_id(label)),
        ]
    fields = fields_of(revision)
    return [
        ("DEL", keys.block(label)),
        ("HSET", keys.block(label), *(word for pair in fields.items() for word in pair)),
        ("ZADD", keys.labels, "0", label),
        ("HSET", keys.ids, fields["id"], label),
    ]


def rebuild_commands(revision: Revision, keys: Keys) -> list[Command]:
    """A block as it is, over whatever the mirror holds of it; no notification."""
    commands = _block_commands(revision, keys)
    commands.append(("DEL", keys.attached(revision.label)))
    name = name_for_agent(revision.label)
    for words in _in_parts(sorted(revision.agents)):
        commands.append(("SADD", keys.attached(revision.label), *words))
        commands += [("HSET", keys.agent(agent), name, revision.label) for agent in words]
    return commands


def hash_commands(key: str, shown: object, wanted: Mapping[str, str]) -> list[Command]:
    """What makes the hash that is shown, or whatever else stands in its place, the one that is wanted."""
    if not isinstance(shown, dict):
        return _hash_commands(key, wanted)
    stray = sorted(field for field in shown if field not in wanted)
    changed = {field: text for field, text in wanted.items() if shown.get(field) != text}
    return [*(("HDEL", key, *part) for part in _in_parts(stray)), *_hash_commands(key, changed)[1:]]


def set_commands(key: str, shown: object, wanted: Collection[str]) -> list[Command]:
    """The same for a set."""
    commands: list[Command] = []
    if not isinstance(shown, (set, frozenset)):
        commands, shown = [("DEL", key)], frozenset[str]()
    commands += [("SREM", key, *part) for part in _in_parts(sorted(shown - set(wanted)))]
    return commands + [("SADD", key, *part) for part in _in_parts(sorted(set(wanted) - shown))]


def _in_parts(words: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(words), _WORDS):
        yield words[start : start + _WORDS]


class Mirror:
    """One namespace of one server, and this daemon's right to write it.

    Every method raises Unavailable when the server does not serve, Misconfigured when it refuses the login, LeaseLost
    when another daemon is in charge. After any of these, `place` is unknown until `take` is called again.
    """

    def __init__(self, client: Any, keys: Keys, *, url: str, epoch: str, token: str, about: Mapping[str, str]) -> None:
        """`about` describes this daemon to people: directory, host, pid, started_at."""
        self._client = client
        self.keys = keys
        self.url = url
        self.epoch = epoch
        self._lease = f"{epoch} {token}"
        self._about = about
        self._apply = client.register_script(files("blocksd").joinpath("apply.lua").read_text(encoding="utf-8"))
        self._take = client.register_script(files("blocksd").joinpath("lease.lua").read_text(encoding="utf-8"))
        self.place: Place | None = None
        self._connection: Any = None
        self._under_way: tuple[Any, ...] | None = None

    @property
    def server(self) -> str | None:
        """What the server has called itself, and its version; None before it was written to, and of a cluster."""
        greeting = getattr(self._connection, "handshake_metadata", None) or {}
        name, version = greeting.get("server"), greeting.get("version")
        return f"{str(name).capitalize()} {version}" if name and version else None

    def take(self) -> Place:
        """Take the lease, or renew it; where the mirror stands.

        A lease of this journal's own epoch, or of this very folder on this host, is a dead daemon's: the lock on the
        state directory proves it. Any other is respected.
        """
        self.place = None
        with translated(self.url):
            held, epoch, seq = self._ask_lease(take=False)
            if held not in ("", self._lease) and held.partition(" ")[0] != self.epoch:
                there = self._client.hgetall(self.keys.meta)
                mine = all(there.get(key) == self._about[key] for key in ("host", "directory"))
                if not mine:
                    raise LeaseLost(
                        f"namespace {self.keys.namespace!r} at {masked(self.url)} is served by the daemon with pid "
                        f"{there.get('pid', '?')} on {there.get('host', '?')}, for {there.get('directory', '?')}",
                        holder=there,
                    )
                held, epoch, seq = self._ask_lease(take=True)
        self.place = _place_of(epoch, seq)
        return self.place

    def renew(self) -> bool:
        """Renew the lease; whether the mirror is still where this daemon left it."""
        self.settle()
        before = self.place
        with translated(self.url):
            held, epoch, seq = self._ask_lease(take=False)
        return held == self._lease and before == _place_of(epoch, seq)

    def _ask_lease(self, *, take: bool) -> tuple[str, str, str]:
        held, epoch, seq = self._take(
            keys=[self.keys.lease, self.keys.meta],
            args=[self._lease, LEASE_SECONDS * 1000, "1" if take else "0"],
        )
        return held, epoch, seq

    def release(self) -> None:
        """Give the lease up, so that a successor need not wait."""
        self._run([("DEL", self.keys.lease)])

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
        if sum(map(len, itertools.chain(*aside))) + size <= _BATCH_CHARS:
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
                self._run(batch)
                batch, size = [], 0
        if batch:
            self._run(batch)

    def ask(self, questions: Sequence[Command]) -> list[Any]:
        """What reading commands answer, in one round trip; of a key of another type, an error."""
        self.settle()
        pipeline = self._client.pipeline(transaction=False)
        for words in questions:
            pipeline.execute_command(*words)
        with translated(self.url):
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        return answers

    def agents_commands(self, known: Iterable[str], unknown: Iterable[str]) -> list[Command]:
        """Agents that became known, and ones that are no longer."""
        commands: list[Command] = []
        commands += _zset_commands(self.keys.agents, known)[1:]
        commands += [("ZREM", self.keys.agents, *part) for part in _in_parts(sorted(unknown))]
        return commands

    def problem_commands(self, subject: str, problem: Problem | None, at: str) -> list[Command]:
        """A problem came (or changed), or, for None, went."""
        notice: dict[str, Any] = {"kind": "cleared", "subject": subject, "at": at, "epoch": self.epoch}
        stored: Command = ("HDEL", self.keys.problems, subject)
        if problem is not None:
            notice |= {"kind": "rejected", "label": problem.label, "problem": problem.as_json()}
            stored = ("HSET", self.keys.problems, subject, problem.dumps())
        return [stored, ("PUBLISH", self.keys.changes, _json(notice))]

    def reply_command(self, actor: str, entry_id: str, request_id: str | None, reply: str | None) -> Command:
        """An entry of an inbox is done; None: it gets no reply."""
        done: Command = ("REPLY", self.keys.inbox(actor), entry_id)
        if request_id is None or reply is None:
            return done
        return (*done, self.keys.reply(actor, request_id), str(REPLY_SECONDS), reply)

    def begin_rebuild(self) -> Iterator[None]:
        """Clear the namespace of all that a rebuild writes, some keys at a step.

        From the first step on the mirror has no place, so that a rebuild cut short is begun again.
        """
        keys = self.keys
        self._run([("DEL", keys.meta)])
        of_a_kind = (keys.block, keys.attached, keys.agent, keys.source, keys.source_agents, keys.file, keys.open)
        mine = tuple(key("") for key in of_a_kind)
        cursor = 0
        while True:
            cursor, found = self._scan(cursor, f"{keys.namespace}:*")
            written = [key for key in found if key.startswith(mine)]
            if written:
                self._run([("UNLINK", *words) for words in _in_parts(written)])
            if not cursor:
                break
            yield
        indexes = (keys.labels, keys.agents, keys.ids, keys.problems, keys.changes, keys.sources)
        self._run([("DEL", *indexes)])

    def _scan(self, cursor: int, pattern: str) -> tuple[int, list[str]]:
        options: dict[str, Any] = {"match": pattern, "count": 1000}
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
                self._run(batch)
                batch, size = [], 0
        if batch:
            self._run(batch)

    def end_rebuild(self, seq: int, at: str) -> None:
        """The mirror is whole and stands at `seq`; whoever listens is told to read everything again."""
        meta = {**self._about, "schema": str(SCHEMA), "epoch": self.epoch, "seq": str(seq)}
        words = [word for pair in meta.items() for word in pair]
        self._run([("HSET", self.keys.meta, *words), *self._reset_commands(seq, at)])
        self.place = Place(self.epoch, seq)

    def announce_reset(self, at: str) -> None:
        """Tell whoever listens to read everything again."""
        assert self.place is not None
        self._run(self._reset_commands(self.place.seq, at))

    def describe(self) -> None:
        """Put this daemon's facts into the mirror's meta, after taking over one that was level."""
        words = [word for pair in self._about.items() for word in pair]
        self._run([("HSET", self.keys.meta, *words)])

    def _reset_commands(self, seq: int, at: str) -> list[Command]:
        change = reset(seq, self.epoch, at)
        with translated(self.url):
            last = self._client.xrevrange(self.keys.changes, count=1)
            # Who follows one block or one agent must hear of it too.
            channels = self._client.pubsub_channels(f"{self.keys.changes}:*")
        after = int(str(last[0][0]).partition("-")[2]) if last and str(last[0][0]).startswith(f"{seq}-") else 0
        return [_announcement(f"{seq}-{after + 1}", change, self.keys.changes, *sorted(channels))]

    def _run(self, commands: Sequence[Command]) -> None:
        """Apply commands in one atomic call."""
        self.settle()
        self._send([_encode(commands)])
        self.settle()

    def _send(self, batch: Sequence[str], *, at: int | None = None) -> None:
        """Send lists of commands, each in JSON, to be applied in one atomic call; with `at`, only if the mirror stands there."""
        import redis

        place = ("", "") if at is None else (self.epoch, str(at))
        joined = ",".join(commands[1:-1] for commands in batch if len(commands) > 2)
        keys = (self.keys.lease, self.keys.meta, self.keys.changes)
        self._under_way = (self._apply.sha, len(keys), *keys, self._lease, *place, f"[{joined}]")
        with self._translated():
            if self._connection is None and hasattr(self._client, "connection_pool"):
                self._connection = self._client.connection_pool.get_connection()
            if self._connection is not None:
                try:
                    self._connection.send_command("EVALSHA", *self._under_way)
                except redis.ConnectionError:
                    # The server went and came back while nothing was sent. Should the script have been run after all,
                    # it is refused now: the mirror then stands elsewhere.
                    self._connection.disconnect()
                    self._connection.send_command("EVALSHA", *self._under_way)

    def settle(self) -> None:
        """Wait for what is under way."""
        import redis

        if self._under_way is None:
            return
        words, self._under_way = self._under_way, None
        with self._translated():
            try:
                if self._connection is not None:
                    outcome = self._connection.read_response()
                else:  # a cluster's client finds the node for each command
                    outcome = self._client.evalsha(*words)
            except redis.exceptions.NoScriptError:
                self._client.script_load(self._apply.script)
                outcome = self._client.evalsha(*words)
        if outcome[0] != "ok":
            self.place = None
            raise LeaseLost(
                "another daemon is in charge of the mirror" if outcome[0] == "lease" else "the mirror has moved",
                holder=outcome[1],
            )

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """While the mirror is written: after any error it is unknown where it stands, and the connection is in doubt."""
        import redis

        try:
            with translated(self.url):
                yield
        except BaseException as error:
            self.place = self._under_way = None
            if self._connection is not None:
                self._connection.disconnect()
            if isinstance(error, redis.ResponseError):
                raise Damaged(f"a key of the mirror is not what it should be: {error}") from error
            raise

    def differing(self, revisions: Sequence[Revision]) -> list[Revision]:
        """Of these blocks, those the mirror does not show as they are: evicted, expired, edited by hand."""
        keys = self.keys
        pipeline = self._client.pipeline(transaction=False)
        for revision in revisions:
            pipeline.hgetall(keys.block(revision.label))
            pipeline.smembers(keys.attached(revision.label))
            pipeline.zscore(keys.labels, revision.label)
            pipeline.hget(keys.ids, block_id(revision.label))
        with translated(self.url):
            answers = pipeline.execute(raise_on_error=False)
        return [
            revision
            for revision, shown in zip(revisions, zip(*[iter(answers)] * 4, strict=True), strict=True)
            if shown != (fields_of(revision), set(revision.agents), 0.0, revision.label)
        ]

    def repair_index(self, labels: Collection[str], known: frozenset[str], problems: Mapping[str, str]) -> int:
        """Compare what lists blocks, agents and problems, and mend it; how many keys were wrong.

        Of labels and ids only the number is compared: that each one is there, `differing` has seen.
        """
        keys = self.keys
        repairs: list[Command] = []
        if self._answer("zcard", keys.labels) != len(labels):
            repairs += _zset_commands(keys.labels, labels)
        if self._answer("hlen", keys.ids) != len(labels):
            repairs += _hash_commands(keys.ids, {block_id(label): label for label in labels})
        if set(self._answer("zrange", keys.agents, 0, -1) or ()) != known:
            repairs += _zset_commands(keys.agents, known)
        if self._answer("hgetall", keys.problems) != problems:
            repairs += _hash_commands(keys.problems, problems)
        if repairs:
            self._run(repairs)
        return sum(command[0] == "DEL" for command in repairs)

    def repair_agents(self, names: Mapping[str, Mapping[str, str]]) -> int:
        """Compare these agents' blocks (name → label) and mend them; how many agents were wrong."""
        pipeline = self._client.pipeline(transaction=False)
        for agent in names:
            pipeline.hgetall(self.keys.agent(agent))
        with translated(self.url):
            answers = pipeline.execute(raise_on_error=False)
        wrong = [agent for agent, shown in zip(names, answers, strict=True) if shown != names[agent]]
        if wrong:
            self._run([command for agent in wrong for command in _hash_commands(self.keys.agent(agent), names[agent])])
        return len(wrong)

    def _answer(self, command: str, key: str, *args: object) -> Any:
        """What a reading command answers; None when the key is of another type."""
        import redis

        with translated(self.url):
            try:
                return getattr(self._client, command)(key, *args)
            except redis.ResponseError as error:
                if str(error).startswith("WRONGTYPE"):
                    return None
                raise

    def mend_changes(self) -> bool:
        """Whether the stream still ends where the mirror stands; one that does not is removed.

        What is left of it would make readers believe they have seen all, and an end above the mirror's place would
        keep every later change out: in a new one a reset tells what is missing.
        """
        assert self.place is not None
        last = self._answer("xrevrange", self.keys.changes, "+", "-", 1)
        if last:
            is_sound = str(last[0][0]).startswith(f"{self.place.seq}-")
        else:
            is_sound = last is not None and self.place.seq == 0
        if not is_sound:
            self._run([("DEL", self.keys.changes)])
        return is_sound


def _place_of(epoch: str, seq: str) -> Place:
    """The place a mirror says it has; if that is not what a daemon writes, it has none."""
    return Place(epoch, int(seq)) if epoch and _SEQ.fullmatch(seq) else Place(None, 0)


def _zset_commands(key: str, members: Iterable[str]) -> list[Command]:
    parts = _in_parts(sorted(members))
    return [("DEL", key), *(("ZADD", key, *(word for one in part for word in ("0", one))) for part in parts)]


def _hash_commands(key: str, fields: Mapping[str, str]) -> list[Command]:
    parts = _in_parts([word for pair in fields.items() for word in pair])
    return [("DEL", key), *(("HSET", key, *part) for part in parts)]
