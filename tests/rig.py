"""The core in this process, on a clock that only moves when a test moves it; and an independent idea of the mirror."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.core.core import Core
from blocksd.core.listener import Listener
from blocksd.errors import InvalidFile
from blocksd.files.folder import Folder
from blocksd.journal.journal import Journal
from blocksd.mirror.connection import connect
from blocksd.mirror.file_form import FORM_FIELDS, form_shown
from blocksd.mirror.keys import Keys
from blocksd.mirror.mirror import Mirror
from blocksd.model.block import FILE_KEYS, Block, block_id
from blocksd.model.label import is_properties, owner, path_of_label
from blocksd.model.revision import Revision
from blocksd.service.machine import folder_id
from blocksd.settings.config import Config
from parsed import parse
from support import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from blocksd.errors import BlocksdError
    from blocksd.model.problem import Problem
    from blocksd.model.revision import Kind
    from blocksd.requests.reply import Answer

AT = "2026-11-20T09:00:00.000Z"
MADE = round(datetime.fromisoformat(AT).timestamp() * 1000)
"""The same in milliseconds since 1970."""
ABOUT = {
    "directory": "/srv/blocks.d",
    "host": "one",
    "machine": "m1",
    "folder_id": "fd:1",
    "pid": "11",
    "started_at": AT,
}


def revision(
    seq: int,
    label: str = "notes",
    *,
    kind: Kind = "created",
    version: int = 1,
    agents: Sequence[str] = (),
    attached: Sequence[str] | None = None,
    detached: Sequence[str] = (),
    changed: Sequence[str] = (),
    **fields: Any,
) -> Revision:
    """A revision as the core would make it, of a file that needs no fields; a new block's agents were all attached by it."""
    block = None if kind == "deleted" else Block(label, agents=tuple(agents), **fields)
    if attached is None:
        attached = agents if kind == "created" else ()
    return Revision(
        seq=seq,
        label=label,
        version=version,
        kind=kind,
        block=block,
        at=AT,
        created_at=AT,
        fields=tuple(changed or (fields if kind == "updated" else ())),
        form={},
        agents=frozenset(agents),
        attached=tuple(sorted(attached)),
        detached=tuple(sorted(detached)),
        digest=block.digest if block is not None else None,
    )


class Ear:
    """A subscriber: what it has heard so far, in the order it was said."""

    def __init__(self, client: Any, *channels: str) -> None:
        self._client = client
        self._channels = channels
        self._pubsub = client.pubsub()
        self._pubsub.subscribe(*channels, "end-of-what-was-said")
        for _ in range(len(channels) + 1):
            assert self._next()["type"] == "subscribe"

    def messages(self) -> list[tuple[str, str]]:
        """Channel and text of every message since the last call: all that was published before this one."""
        self._client.publish("end-of-what-was-said", "")
        messages = []
        while (message := self._next())["channel"] != "end-of-what-was-said":
            messages.append((message["channel"], message["data"]))
        return messages

    def changes(self) -> list[dict[str, Any]]:
        """The same, as parsed JSON."""
        return [json.loads(text) for _, text in self.messages()]

    def kinds(self) -> list[str]:
        return [change["kind"] for change in self.changes()]

    def _next(self) -> Any:
        message = self._pubsub.get_message(timeout=DEADLINE)
        assert message is not None, "nothing was said"
        return message

    def close(self) -> None:
        self._pubsub.close()


class Clock:
    """Monotonic seconds that pass only in `advance`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class Recorder(Listener):
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.revisions: list[Revision] = []
        self.problems: list[Problem] = []
        self.cleared: list[Problem] = []
        self.away: list[BlocksdError] = []
        self.level: list[str] = []
        self.repaired: list[int] = []
        self.answers: list[Answer] = []

    def on_revision(self, revision: Revision) -> None:
        self.revisions.append(revision)

    def on_request(self, answer: Answer, seconds: float) -> None:
        self.answers.append(answer)

    def on_problem(self, problem: Problem) -> None:
        self.problems.append(problem)

    def on_cleared(self, problem: Problem) -> None:
        self.cleared.append(problem)

    def on_mirror_unreachable(self, error: BlocksdError) -> None:
        self.away.append(error)

    def on_mirror_in_sync(self, how: str) -> None:
        self.level.append(how)

    def on_repaired(self, count: int) -> None:
        self.repaired.append(count)


EFFECTS = (
    "journal",
    "make folder",
    "stage",
    "flush",
    "prepare",
    "put in",
    "finish",
    "remove folders",
    "settle",
    "agents",
    "project",
    "clear away",
    "mirror",
    "tidy",
)
"""The durable effects of a round, before each of which its name is yielded."""


class Rig:
    """A daemon without threads, processes and watchers: folder, journal and mirror, a round at a time."""

    boot_id = "one boot"

    def __init__(
        self,
        home: Path,
        url: str,
        *,
        namespace: str = "blocks",
        reply_seconds: float = 2.0,
        kind: Callable[[str], Folder] = Folder,
        beneath: Callable[[Journal, Any], None] | None = None,
        **settings: Any,
    ) -> None:
        """`kind` makes the folder of a path; `beneath` is called with journal and client before a core has them."""
        self._kind = kind
        self._beneath = beneath
        self.boot_id = "one boot"
        self.home = home
        self.url = url
        self.root = home / "blocks.d"
        self.root.mkdir(parents=True, exist_ok=True)
        self.namespace = namespace
        self.clock = Clock()
        self.wall_offset = 0.0  # how far the time of day is off
        self._reply_seconds = reply_seconds
        self._settings = settings
        self._tokens = 0
        self.tolerates_errors = False  # that nobody foresaw
        self.open()

    def open(self) -> Rig:
        """Start, as a daemon does; what was heard of an earlier run is forgotten."""
        self._tokens += 1
        self.heard = Recorder()
        self.journal = Journal(str(self.home / "journal.db"), boot_id=self.boot_id)
        about = {
            "directory": str(self.root),
            "host": "here",
            "machine": "a-machine",
            "folder_id": folder_id(os.stat(self.root)) if self.root.is_dir() else "",
            "pid": str(os.getpid()),
            "started_at": AT,
        }
        self.client = connect(self.url, reply_seconds=self._reply_seconds)
        self.mirror = Mirror(
            self.client,
            Keys(self.namespace),
            url=self.url,
            epoch=self.journal.epoch,
            token=f"run-{self._tokens}",
            about=about,
            generation=self.journal.generation,
        )
        if self._beneath is not None:
            self._beneath(self.journal, self.client)
        config = Config(folder=str(self.root), namespace=self.namespace, **self._settings)
        self.config = config
        self.core = Core(
            self._kind(str(self.root)),
            self.journal,
            self.mirror,
            [self.heard],
            config,
            clock=self.clock,
            wall=lambda: time.time() + self.wall_offset,
        )
        return self

    def write(self, label: str, text: str) -> None:
        """Save a file, and have the core told."""
        path = self.root / f"{label}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        self.core.intake.hint_file(f"{label}.md", closed=True)

    def remove(self, label: str) -> None:
        (self.root / f"{label}.md").unlink()
        self.core.intake.hint_file(f"{label}.md", closed=True)

    def round(self) -> None:
        """One round; an error in it that nobody foresaw, and that the daemon would survive, is one of the test, too."""
        for _ in self.core.round():
            pass
        if self.core.failures.unexpected is not None and not self.tolerates_errors:
            raise self.core.failures.unexpected

    def run(self, until: Callable[[], Any], what: str = "") -> None:
        """Round after round, without waiting for anything but the server, until it is so."""
        deadline = time.monotonic() + DEADLINE
        while not until():
            if time.monotonic() > deadline:
                problems = [f"{one.subject}: {one.code}" for one in self.core.problems.values()]
                pytest.fail(f"not so after {DEADLINE:g} s: {what or until}; away: {self.heard.away}; {problems}")
            self.round()
            self.clock.advance(max(self.core.wait_seconds(), 0.001))

    def settle(self) -> None:
        """Until all that was saved is in the mirror, and a heartbeat has seen that it is still there."""
        beat = self.clock() + 1.5
        self.run(lambda: self.clock() > beat and self.is_settled(), "settled and level")

    def is_settled(self) -> bool:
        core, place = self.core, self.mirror.place
        level = core.projector.is_in_sync and not core.projector.is_busy
        return (
            core.is_settled
            and not core.failures.calm_at  # the problem of a journal that failed is over a while after it works again
            and core.intake.due == float("inf")
            and level
            and place is not None
            and place.seq == self.journal.seq
        )

    def resync(self) -> None:
        """Let the time for the next comparison of everything come, and see it through."""
        self.clock.advance(self.config.resync_seconds + 1)
        self.round()
        self.settle()

    def save_and_settle(self, label: str, text: str) -> None:
        self.write(label, text)
        self.settle()

    def close(self) -> None:
        """Stop in order."""
        self.core.close()
        self.client.close()

    def crash(self) -> None:
        """Be gone, as after kill -9: nothing is given up, nothing is marked."""
        self.journal.database.close()
        self.client.close()


_READ: dict[str, tuple[Callable[[Any, str], Any], Callable[[Any], Any]]] = {
    "hash": (lambda reading, key: reading.hgetall(key), dict),
    "set": (lambda reading, key: reading.smembers(key), set),
    "zset": (lambda reading, key: reading.zrange(key, 0, -1, withscores=True), dict),
    "string": (lambda reading, key: reading.get(key), lambda text: ("string", text)),
}
"""How each type of key is asked for, in a pipeline, and what is made of the answer."""


def shown(client: Any, namespace: str = "blocks") -> dict[str, Any]:
    """All that stands in a namespace but the stream, the lease and what was of departed agents: key → content. It costs a scan and two round trips."""
    keys = list(client.scan_iter(f"{namespace}:*", count=1000))
    with client.pipeline(transaction=False) as reading:
        for key in keys:
            reading.type(key)
        kinds = dict(zip(keys, reading.execute(), strict=True))
        assert [key for key in keys if kinds[key] == "stream"] in ([], [f"{namespace}:changes"])
        left_out = f"{namespace}:lease", f"{namespace}:departed"
        keys = [key for key in keys if kinds[key] != "stream" and not key.startswith(left_out)]
        for key in keys:
            if kinds[key] in _READ:
                _READ[kinds[key]][0](reading, key)
            else:
                reading.exists(key)
        contents = dict(zip(keys, reading.execute(), strict=True))
    return {key: _READ[kind][1](contents[key]) if (kind := kinds[key]) in _READ else (kind, "") for key in keys}


def made_at(agents: Iterable[str]) -> dict[str, int]:
    """Agents that all became known at that time."""
    return dict.fromkeys(agents, MADE)


def expected(revisions: Iterable[Revision], agents: Mapping[str, int], namespace: str = "blocks") -> dict[str, Any]:
    """What a mirror of these newest revisions must show, but for meta and problems: written from the key table."""
    keys: dict[str, Any] = {}
    labels, ids, counts, index, created, updated = {}, {}, {}, {}, {}, {}
    for newest in revisions:
        block, label = newest.block, newest.label
        if block is None:
            continue
        if label.startswith("agents/") and label.endswith("/agent.yaml") and label.count("/") == 2:
            agent, said = label.split("/")[1], json.loads(block.value)
            about = {"agent": agent, "name": agent, "tags": [], "metadata": {}, **said}
            keys[f"{namespace}:agent-info:{agent}"] = {
                **{
                    name: text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)
                    for name, text in about.items()
                },
                "version": str(newest.version),
                "digest": newest.digest,
                "created_at": newest.created_at,
                "updated_at": newest.at,
                "updated_by": newest.author,
            }
            continue
        fields = {
            "label": label,
            "value": block.value,
            "version": str(newest.version),
            "digest": newest.digest,
            "id": block_id(newest.origin or label),
            "created_at": newest.created_at,
            "updated_at": newest.at,
            "updated_by": newest.author,
            "chars": str(len(block.value)),
        }
        for name in FILE_KEYS:
            value = getattr(block, name)
            if value is not None and name != "agents":
                fields[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        keys[f"{namespace}:block:{label}"] = fields
        labels[label] = 0.0
        ids[block_id(newest.origin or label)] = label
        counts[label] = float(len(newest.agents))
        created[label], updated[label] = (
            datetime.fromisoformat(at).timestamp() * 1000 for at in (newest.created_at, newest.at)
        )
        flag = {(False, False): "S", (True, False): "H", (False, True): "T", (True, True): "B"}
        tags = "".join(f"\x1d{tag}\x1d" for tag in sorted(block.tags))
        index[f"{label}\x1f{flag[block.hidden, block.is_template]}\x1f{tags}\x1e{label.casefold()}"] = 0.0
        if newest.agents:
            keys[f"{namespace}:attached:{label}"] = set(newest.agents)
        for agent in newest.agents:
            own = f"agents/{agent}/"
            keys.setdefault(f"{namespace}:agent:{agent}", {})[label.removeprefix(own)] = label
    known = dict.fromkeys(agents, 0.0)
    lists = {"labels": labels, "ids": ids, "agents": known, "counts": counts, "index": index}
    lists |= {"created": created, "updated": updated, "agents-created": dict(agents)}
    for name, content in lists.items():
        if content:
            keys[f"{namespace}:{name}"] = content
    return keys


def assert_level(rig: Rig, client: Any) -> None:
    """The mirror shows exactly what the journal says, problems included; the stream ends where the mirror stands."""
    namespace = rig.namespace
    everything = shown(client, namespace)
    meta = everything.pop(f"{namespace}:meta")
    assert (meta["epoch"], meta["seq"], meta["schema"]) == (rig.journal.epoch, str(rig.journal.seq), "4")
    assert (meta["directory"], meta["host"], meta["pid"]) == (str(rig.root), "here", str(os.getpid()))
    problems = everything.pop(f"{namespace}:problems", {})
    assert {subject: json.loads(text) for subject, text in problems.items()} == {
        subject: problem.as_json() for subject, problem in rig.core.problems.items()
    }
    newest = [rig.journal.head(head.label) for head in rig.journal.heads() if head.path is not None]
    for head in newest:
        assert head is not None
        kind, name = ("agent-info", owner(head.label)) if is_properties(head.label) else ("block", head.label)
        assert_form(rig, head, everything[f"{namespace}:{kind}:{name}"])
    wanted = expected(
        [head for head in newest if head is not None],
        rig.core.state.agent_times.of(rig.core.state.attachments.known),
        namespace,
    )
    assert everything == wanted
    if rig.journal.seq:
        last = client.xrevrange(f"{namespace}:changes", count=1)
        assert last[0][0].partition("-")[0] == str(rig.journal.seq)


def assert_form(rig: Rig, head: Revision, fields: dict[str, str]) -> None:
    """What the mirror shows of a block's file gives its bytes; a file that is not in force stands in the form it had before.

    The fields of the form are taken out of `fields`.
    """
    assert head.block is not None
    form = form_shown(fields)
    data, path = form.data(head.block.value), form.path or path_of_label(head.label)
    assert parse(data, head.label) == head.block
    for name in FORM_FIELDS:
        fields.pop(name, None)
    place = rig.root / path
    with suppress(OSError, InvalidFile):
        there = place.read_bytes()
        if parse(there, head.label) == head.block and rig.core.state.paths.get(head.label) == path:
            assert (data, form.mode) == (there, place.stat().st_mode & 0o777)


def announced(client: Any, namespace: str = "blocks") -> list[tuple[str, str]]:
    """Id and kind of every entry of the stream."""
    return [
        (entry_id, json.loads(fields["change"])["kind"]) for entry_id, fields in client.xrange(f"{namespace}:changes")
    ]
