"""Projects revisions into Redis: what to write is decided by pure functions, and applied by one atomic script."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from blocksd.block import FILE_KEYS, Block, block_id
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
"""A Redis command, word by word."""

CHANGES_KEPT = 100_000
LEASE_SECONDS = 10
BATCH = 256
"""How many revisions, or blocks, one script call applies: a few milliseconds of Redis' one thread."""

_BATCH_CHARS = 1024 * 1024
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
    fields = {
        "label": block.label,
        "value": block.value,
        "version": str(revision.version),
        "digest": revision.digest or "",
        "id": block_id(block.label),
        "created_at": revision.created_at,
        "updated_at": revision.at,
        "updated_by": revision.author,
        "chars": str(len(block.value)),
    }
    for name in FILE_KEYS:
        value = getattr(block, name)
        if value is None or name == "agents":
            continue
        fields[name] = value if isinstance(value, str) else _json(value)
    return fields


def block_of(fields: Mapping[str, str], agents: Iterable[str] = ()) -> Block:
    """A block from its hash in the mirror, with the ids attached to it."""
    known: dict[str, Any] = {}
    for name, text in fields.items():
        if name in _TEXT_FIELDS:
            known[name] = text
        elif name in _FIELDS:
            known[name] = json.loads(text)
    known["tags"] = tuple(known.get("tags", ()))
    return Block(agents=tuple(sorted(agents)), **known)


_FIELDS = frozenset(("label", "value", *FILE_KEYS)) - {"agents"}
_TEXT_FIELDS = frozenset(
    (
        "label",
        "value",
        "description",
        "project_id",
        "template_name",
        "template_id",
        "base_template_id",
        "deployment_id",
        "entity_id",
    )
)


def _json(value: object) -> str:
    if value is True:
        return "true"
    if value is False:
        return "false"
    return str(value) if isinstance(value, int) else json.dumps(value, ensure_ascii=False)


def commands_of(revision: Revision, keys: Keys, epoch: str) -> list[Command]:
    """One revision in the mirror, its entry in the stream and its notifications: the data first."""
    label = revision.label
    commands = _block_commands(revision, keys, is_new=revision.kind == "created")
    name = name_for_agent(label)
    for words in _in_parts(revision.detached):
        commands.append(("SREM", keys.attached(label), *words))
        commands += [("HDEL", keys.agent(agent), name) for agent in words]
    for words in _in_parts(revision.attached):
        commands.append(("SADD", keys.attached(label), *words))
        commands += [("HSET", keys.agent(agent), name, label) for agent in words]
    change = revision.change(epoch)
    commands.append(("XADD", keys.changes, "MAXLEN", "~", str(CHANGES_KEPT), f"{revision.seq}-0", "change", change))
    commands.append(("PUBLISH", keys.changes, change))
    commands.append(("PUBLISH", keys.changes_of_block(label), change))
    concerned = {*revision.attached, *revision.detached, *filter(None, [owner(label)])}
    commands += [("PUBLISH", keys.changes_of_agent(agent), change) for agent in sorted(concerned)]
    commands.append(("HSET", keys.meta, "seq", str(revision.seq)))
    return commands


def _block_commands(revision: Revision, keys: Keys, *, is_new: bool) -> list[Command]:
    label = revision.label
    if revision.block is None:
        return [
            ("DEL", keys.block(label), keys.attached(label)),
            ("ZREM", keys.labels, label),
            ("HDEL", keys.ids, block_id(label)),
        ]
    # The whole hash each time, on a clean place: whatever stood there (other fields, an expiry, another type) is gone.
    hash_words = [word for pair in fields_of(revision).items() for word in pair]
    commands: list[Command] = [("DEL", keys.block(label)), ("HSET", keys.block(label), *hash_words)]
    if is_new:
        commands.append(("ZADD", keys.labels, "0", label))
        commands.append(("HSET", keys.ids, block_id(label), label))
    return commands


def rebuild_commands(revision: Revision, keys: Keys) -> list[Command]:
    """A block as it is, over whatever the mirror holds of it; no notification."""
    commands = _block_commands(revision, keys, is_new=True)
    commands.append(("DEL", keys.attached(revision.label)))
    name = name_for_agent(revision.label)
    for words in _in_parts(sorted(revision.agents)):
        commands.append(("SADD", keys.attached(revision.label), *words))
        commands += [("HSET", keys.agent(agent), name, revision.label) for agent in words]
    return commands


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
        self._keys = keys
        self.url = url
        self.epoch = epoch
        self._lease = f"{epoch} {token}"
        self._about = about
        self._apply = client.register_script(files("blocksd").joinpath("apply.lua").read_text(encoding="utf-8"))
        self._take = client.register_script(files("blocksd").joinpath("lease.lua").read_text(encoding="utf-8"))
        self.place: Place | None = None

    def take(self) -> Place:
        """Take the lease, or renew it; where the mirror stands.

        A lease of this journal's own epoch, or of this very folder on this host, is a dead daemon's: the lock on the
        state directory proves it. Any other is respected.
        """
        self.place = None
        with translated(self.url):
            held, epoch, seq = self._ask_lease(take=False)
            if held not in ("", self._lease) and held.partition(" ")[0] != self.epoch:
                there = self._client.hgetall(self._keys.meta)
                mine = all(there.get(key) == self._about[key] for key in ("host", "directory"))
                if not mine:
                    raise LeaseLost(
                        f"namespace {self._keys.namespace!r} at {masked(self.url)} is served by the daemon with pid "
                        f"{there.get('pid', '?')} on {there.get('host', '?')}, for {there.get('directory', '?')}",
                        holder=there,
                    )
                held, epoch, seq = self._ask_lease(take=True)
        self.place = Place(epoch or None, int(seq) if seq.isdigit() else 0)
        return self.place

    def renew(self) -> bool:
        """Renew the lease; whether the mirror is still where this daemon left it."""
        before = self.place
        with translated(self.url):
            held, epoch, seq = self._ask_lease(take=False)
        return held == self._lease and before == Place(epoch or None, int(seq) if seq.isdigit() else 0)

    def _ask_lease(self, *, take: bool) -> tuple[str, str, str]:
        held, epoch, seq = self._take(
            keys=[self._keys.lease, self._keys.meta],
            args=[self._lease, LEASE_SECONDS * 1000, "1" if take else "0"],
        )
        return held, epoch, seq

    def release(self) -> None:
        """Give the lease up, so that a successor need not wait."""
        self._run([("DEL", self._keys.lease)])

    def project(self, revisions: Sequence[Revision]) -> None:
        """Bring the mirror forward by these revisions, the first of which follows its place."""
        assert self.place is not None
        batch: list[Command] = []
        size = 0
        start = self.place.seq
        for revision in revisions:
            commands = commands_of(revision, self._keys, self.epoch)
            chars = sum(len(word) for command in commands for word in command)
            if batch and size + chars > _BATCH_CHARS:
                self._run(batch, at=start)
                batch, size, start = [], 0, revision.seq - 1
            batch += commands
            size += chars
            self.place = Place(self.epoch, revision.seq)
        if batch:
            self._run(batch, at=start)

    def note(self, commands: Sequence[Command]) -> None:
        """Write what belongs to no revision: known agents, problems."""
        self._run(commands)

    def agents_commands(self, known: Iterable[str], unknown: Iterable[str]) -> list[Command]:
        """Agents that became known, and ones that are no longer."""
        commands: list[Command] = []
        commands += _zset_commands(self._keys.agents, known)[1:]
        commands += [("ZREM", self._keys.agents, *part) for part in _in_parts(sorted(unknown))]
        return commands

    def problem_commands(self, subject: str, problem: Problem | None, at: str) -> list[Command]:
        """A problem came (or changed), or, for None, went."""
        notice: dict[str, Any] = {"kind": "cleared", "subject": subject, "at": at, "epoch": self.epoch}
        stored: Command = ("HDEL", self._keys.problems, subject)
        if problem is not None:
            notice |= {"kind": "rejected", "label": problem.label, "problem": problem.as_json()}
            stored = ("HSET", self._keys.problems, subject, problem.dumps())
        return [stored, ("PUBLISH", self._keys.changes, _json(notice))]

    def begin_rebuild(self) -> Iterator[None]:
        """Clear the namespace of all that a rebuild writes; a step is one call.

        From the first step on the mirror has no place, so that a rebuild cut short is begun again.
        """
        keys = self._keys
        self._run([("DEL", keys.meta)])
        yield
        for pattern in (keys.block("*"), keys.attached("*"), keys.agent("*")):
            cursor = 0
            while True:
                with translated(self.url):
                    cursor, found = self._client.scan(cursor, match=pattern, count=1000)
                if found:
                    self._run([("UNLINK", *words) for words in _in_parts(found)])
                yield
                if not cursor:
                    break
        self._run([("DEL", keys.labels, keys.agents, keys.ids, keys.problems, keys.changes)])

    def rebuild(self, revisions: Sequence[Revision]) -> None:
        """Write these blocks as they are."""
        batch: list[Command] = []
        size = 0
        for revision in revisions:
            batch += rebuild_commands(revision, self._keys)
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
        self._run([("HSET", self._keys.meta, *words), *self._reset_commands(seq, at)])
        self.place = Place(self.epoch, seq)

    def announce_reset(self, at: str) -> None:
        """Tell whoever listens to read everything again."""
        assert self.place is not None
        self._run(self._reset_commands(self.place.seq, at))

    def describe(self) -> None:
        """Put this daemon's facts into the mirror's meta, after taking over one that was level."""
        words = [word for pair in self._about.items() for word in pair]
        self._run([("HSET", self._keys.meta, *words)])

    def _reset_commands(self, seq: int, at: str) -> list[Command]:
        change = reset(seq, self.epoch, at)
        with translated(self.url):
            last = self._client.xrevrange(self._keys.changes, count=1)
            # Who follows one block or one agent must hear of it too.
            channels = self._client.pubsub_channels(f"{self._keys.changes}:*")
        after = int(str(last[0][0]).partition("-")[2]) if last and str(last[0][0]).startswith(f"{seq}-") else 0
        entry = ("XADD", self._keys.changes, "MAXLEN", "~", str(CHANGES_KEPT), f"{seq}-{after + 1}", "change", change)
        return [entry, *(("PUBLISH", channel, change) for channel in [self._keys.changes, *sorted(channels)])]

    def _run(self, commands: Sequence[Command], *, at: int | None = None) -> None:
        """Apply commands in one atomic call; with `at`, only if the mirror stands there."""
        import redis

        words: list[object] = [self._lease, *(("", "") if at is None else (self.epoch, at))]
        for command in commands:
            words.append(len(command))
            words += command
        try:
            with translated(self.url):
                outcome = self._apply(keys=[self._keys.lease, self._keys.meta, self._keys.changes], args=words)
        except redis.ResponseError as error:
            self.place = None
            raise Damaged(f"a key of the mirror is not what it should be: {error}") from error
        except BaseException:
            self.place = None
            raise
        if outcome[0] != "ok":
            self.place = None
            raise LeaseLost(
                "another daemon is in charge of the mirror" if outcome[0] == "lease" else "the mirror has moved",
                holder=outcome[1],
            )

    def differing(self, revisions: Sequence[Revision]) -> list[Revision]:
        """Of these blocks, those the mirror does not show as they are: evicted, expired, edited by hand."""
        keys = self._keys
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
        keys = self._keys
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
            pipeline.hgetall(self._keys.agent(agent))
        with translated(self.url):
            answers = pipeline.execute(raise_on_error=False)
        wrong = [agent for agent, shown in zip(names, answers, strict=True) if shown != names[agent]]
        if wrong:
            self._run([command for agent in wrong for command in _hash_commands(self._keys.agent(agent), names[agent])])
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
        """Whether the stream still ends where the mirror stands; a key of another type in its place is removed."""
        assert self.place is not None
        last = self._answer("xrevrange", self._keys.changes, "+", "-", 1)
        if last is None:
            self._run([("DEL", self._keys.changes)])
        return self.place.seq == 0 or bool(last and str(last[0][0]).startswith(f"{self.place.seq}-"))


def _zset_commands(key: str, members: Iterable[str]) -> list[Command]:
    parts = _in_parts(sorted(members))
    return [("DEL", key), *(("ZADD", key, *(word for one in part for word in ("0", one))) for part in parts)]


def _hash_commands(key: str, fields: Mapping[str, str]) -> list[Command]:
    parts = _in_parts([word for pair in fields.items() for word in pair])
    return [("DEL", key), *(("HSET", key, *part) for part in parts)]
