"""Everything at once, at full speed, and everything fails: what was acknowledged is there once, and nobody missed a change.

`BLOCKSD_SOAK_SECONDS` is how long it takes; by default a few seconds.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from blocksd.history import JournalReader
from following import Between, Follower, Scope
from support import Daemon, RedisServer, eventually, require, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.revision import Revision

SECONDS = float(os.environ.get("BLOCKSD_SOAK_SECONDS", "0"))
"""For how long; 0: a few seconds."""

BLOCKS = 6
AGENTS = 5
PEOPLE = 2
END_SECONDS = 90.0
"""How long it may take until all that was asked for is done, after all is well again."""

_UNSEEN = 40  # lines that a person takes away again may not have been looked at, if the daemon was down meanwhile

MOST_LINES = 150
"""Of a block: whoever finds more begins it anew."""


@dataclass
class Model:
    """What agents were told and what people did, by the unique lines they wrote. Independent of the daemon."""

    acknowledged: dict[str, tuple[str, str]] = field(default_factory=dict)  # request id → label, line
    refused: dict[str, str] = field(default_factory=dict)  # request id → its error
    saved: dict[str, str] = field(default_factory=dict)  # line → label
    errors: list[BaseException] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)


class Actor(threading.Thread):
    """Somebody who does the same thing again and again, until all is to stop."""

    def __init__(self, model: Model, name: str) -> None:
        super().__init__(name=name)
        self.model = model
        self.random = random.Random(name)
        self.count = 0

    def run(self) -> None:
        try:
            while not self.model.stop.is_set():
                self.act()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test has to know
            self.model.errors.append(error)

    def act(self) -> None:
        raise NotImplementedError

    def line(self) -> str:
        self.count += 1
        return f"{self.name}-{self.count:06}."


class Agent(Actor):
    """Appends lines of its own, or replaces one by another; repeats each request under its id until there is a reply."""

    def __init__(self, model: Model, name: str, url: str) -> None:
        super().__init__(model, name)
        self.url = url
        self.last: dict[str, str] = {}
        self.client: Any = None

    def act(self) -> None:
        label, line = f"block-{self.random.randrange(BLOCKS)}", self.line()
        old = self.last.get(label)
        if old is not None and self.random.random() < 0.3:
            op, args = "replace", {"old_content": old, "new_content": line}
        else:
            op, args = "append", {"content": line}
        reply = self.ask({"id": line, "op": op, "name": label, "args": args})
        if reply["ok"]:
            self.model.acknowledged[line] = label, line
            self.last[label] = line
        else:
            self.model.refused[line] = reply["error"]["code"]
            self.last.pop(label, None)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + END_SECONDS + max(SECONDS, 20.0)
        while time.monotonic() < deadline:
            try:
                if self.client is None:
                    self.client = redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=2.0)
                self.client.xadd(f"blocks:inbox:{self.name}", {"request": json.dumps(request)})
                found = self.client.blpop([f"blocks:reply:{self.name}:{request['id']}"], timeout=1)
            except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError, OSError):
                self.client = None
                time.sleep(0.02)
                continue
            reply: dict[str, Any] | None = json.loads(found[1]) if found else None
            if reply is not None and (reply["ok"] or reply["error"]["code"] != "unavailable"):
                return reply
        raise AssertionError(f"no reply to {request}")


class Person(Actor):
    """Adds lines to files that no other person has, in place or by renaming a copy over them."""

    def __init__(self, model: Model, number: int, folder: Path) -> None:
        super().__init__(model, f"person-{number}")
        self.folder = folder
        self.number = number

    def act(self) -> None:
        number, line = self.random.randrange(BLOCKS // PEOPLE) * PEOPLE + self.number, self.line()
        label = f"block-{number}"
        path = self.folder / f"{label}.md"
        text = path.read_text()
        if text.count("\n") > MOST_LINES:
            self.put(path, HEAD + line + "\n")
            for unseen in [one for one, where in self.model.saved.copy().items() if where == label][-_UNSEEN:]:
                del self.model.saved[unseen]
        elif self.random.random() < 0.5:
            with path.open("a") as file:
                file.write(line + "\n")
        else:
            self.put(path, text + line + "\n")
        self.model.saved[line] = label
        time.sleep(self.random.uniform(0.02, 0.2))

    def put(self, path: Path, text: str) -> None:
        aside = path.with_name(f".{path.name}.{self.name}~")
        aside.write_text(text)
        aside.replace(path)


HEAD = f"---\nagents: [{', '.join(f'agent-{number}' for number in range(AGENTS))}]\nlimit: 100000\n---\n"


@pytest.fixture
def standing() -> Iterator[RedisServer]:
    server = RedisServer(valkey_binary())
    server.start()
    yield server
    server.remove()


def shim(tmp_path: Path) -> Path:
    """Have calls fail: a library that is put before the C library."""
    library = tmp_path / "failshim.so"
    source = Path(__file__).with_name("failshim.c")
    subprocess.run([require("gcc"), "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-ldl"], check=True)
    return library


def descriptors(daemon: Daemon) -> int:
    assert daemon.process is not None
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


def kilobytes(daemon: Daemon) -> int:
    """Of memory that are resident."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


def has_begun(daemon: Daemon) -> bool:
    """Return True if it is ready, or has ended."""
    assert daemon.process is not None
    return "ready:" in daemon.said() or daemon.process.poll() is not None


def start(daemon: Daemon, *, may_fail: bool) -> int:
    """Start it, again and again if calls fail; how often it did not come up."""
    for failed in range(50):
        daemon.start(ready=False)
        eventually(lambda: has_begun(daemon), "it is ready, or has ended", seconds=60)
        if daemon.process is not None and daemon.process.poll() is None:
            return failed
        assert may_fail, daemon.said()
    pytest.fail(f"it does not start: {daemon.said()}")


@pytest.mark.timeout(int(SECONDS) + 300)
@pytest.mark.parametrize("percent", [0, 1], ids=["all calls succeed", "one call in a hundred fails"])
def test_nothing_is_lost_doubled_or_missed(tmp_path: Path, standing: RedisServer, percent: int) -> None:
    """People save, agents ask, the daemon and the server are killed, the network is cut, and calls on the folder fail."""
    seconds = SECONDS or (12.0 if percent else 8.0)
    folder, rate = tmp_path / "blocks.d", tmp_path / "rate"
    folder.mkdir()
    for number in range(BLOCKS):
        (folder / f"block-{number}.md").write_text(HEAD)
    rate.write_text("0")
    env = {"BLOCKSD_HISTORY_VERSIONS": "1000000"}
    if percent:
        env |= {"LD_PRELOAD": str(shim(tmp_path)), "SHIM_ROOT": str(folder), "SHIM_RATE": str(rate)}
    between = Between(standing.socket)
    daemon = Daemon(folder, tmp_path / "state", "--redis", between.url, "--resync-seconds", "5", env=env)
    model = Model()
    follower: Follower | None = None
    actors: list[Actor] = [Agent(model, f"agent-{number}", standing.url) for number in range(AGENTS)]
    actors += [Person(model, number, folder) for number in range(PEOPLE)]
    try:
        start(daemon, may_fail=False)
        follower = Follower("blocking", standing.url)
        rate.write_text(str(percent / 100))
        for actor in actors:
            actor.start()
        events = trouble(daemon, standing, between, model, seconds, may_fail=bool(percent))
        rate.write_text("0")
        model.stop.set()
        for actor in actors:
            actor.join(END_SECONDS * 2)
            assert not actor.is_alive(), f"{actor.name} still waits for a reply; {daemon.said()[-2000:]}"
        assert model.errors == []
        revisions = settled(daemon, folder, follower)
        check(model, folder, revisions)
        heard = [item for item in follower.heard if item.seq is not None]  # but for what is said of problems
        Scope().check(heard, revisions, after=BLOCKS)
        print(f"{events}; {len(revisions)} revisions, {len(model.acknowledged)} acknowledged, {len(model.saved)} saved")
    finally:
        model.stop.set()
        for actor in actors:
            if actor.is_alive():
                actor.join(END_SECONDS)
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()
        if follower is not None:
            follower.close()
        between.close()


def trouble(
    daemon: Daemon, server: RedisServer, between: Between, model: Model, seconds: float, *, may_fail: bool
) -> Counter[str]:
    """What happens for so long: the daemon is killed in the first half only, so that the rest shows whether it grows."""
    events, chance = Counter[str](), random.Random(7)
    begin = time.monotonic()
    settled_at: tuple[int, int] | None = None
    while (now := time.monotonic() - begin) < seconds:
        assert model.errors == []
        is_early = now < seconds / 2
        kind = chance.choice(("kill", "server", "cut", "stall") if is_early else ("server", "cut", "cut", "stall"))
        events[kind] += 1
        if kind == "kill":
            daemon.kill()
            events["start failed"] += start(daemon, may_fail=may_fail)
        elif kind == "server":
            server.kill()
            time.sleep(chance.uniform(0, 0.3))
            server.start()
        elif kind == "cut":
            between.cut()
        else:
            between.stall()
        time.sleep(chance.uniform(0.3, 1.5))
        assert daemon.process is not None
        assert daemon.process.poll() is None, f"it died: {daemon.said()[-3000:]}"
        if not is_early and settled_at is None:
            settled_at = descriptors(daemon), kilobytes(daemon)
    if settled_at is not None:
        eventually(lambda: descriptors(daemon) <= settled_at[0] + 8, "descriptors are as many as before")
        assert kilobytes(daemon) < settled_at[1] * 1.25 + 40_000, "memory grows"
        events["kB before"], events["kB after"] = settled_at[1], kilobytes(daemon)
    return events


def settled(daemon: Daemon, folder: Path, follower: Follower) -> list[Revision]:
    """All revisions, once what is in the files is journaled, and was heard."""

    def is_so() -> list[Revision] | None:
        journal = JournalReader(str(daemon.state / "journal.db"))
        try:
            revisions = journal_of(journal)
        finally:
            journal.close()
        newest = {one.label: one for one in revisions}
        if all(
            one.block is not None and one.block.value == value_of((folder / f"{label}.md").read_text())
            for label, one in newest.items()
        ):
            return revisions
        return None

    eventually(is_so, "what is in the files is journaled", seconds=END_SECONDS)
    time.sleep(1.5)  # a stale save is merged once nobody writes any more
    revisions: list[Revision] = eventually(is_so, "the same", seconds=END_SECONDS)
    eventually(lambda: (follower.place[1] or 0) >= revisions[-1].seq, "it was heard", seconds=END_SECONDS)
    return revisions


def journal_of(journal: JournalReader) -> list[Revision]:
    found = [revision for head in list(journal.heads()) for revision in journal.history(head.label)]
    return sorted(found, key=lambda one: one.seq)


def value_of(text: str) -> str:
    return text.partition("---\n")[2].partition("---\n")[2].removesuffix("\n")


def check(model: Model, folder: Path, revisions: list[Revision]) -> None:
    """Every line that was acknowledged or saved is in the history of its block, and done once; nothing refused is."""
    done: Counter[str] = Counter(one.request_id for one in revisions if one.request_id is not None)
    doubled = {number: count for number, count in done.items() if count > 1}
    lost = [number for number in model.acknowledged if not done[number]]
    untrue = [number for number in model.refused if done[number]]
    assert not lost, f"acknowledged, and in no revision: {lost}"
    assert not doubled, f"done more than once: {doubled}"
    assert not untrue, f"refused, and done: {untrue}"
    by_label: dict[str, set[str]] = {}
    for one in revisions:
        assert one.block is not None
        counted = Counter(one.block.value.split("\n"))
        assert all(count == 1 for line, count in counted.items() if line), f"twice in {one.label}: {counted}"
        by_label.setdefault(one.label, set()).update(counted)
    missing = [line for line, label in model.saved.items() if line not in by_label[label]]
    assert len(missing) == 0, f"saved, and in no version: {missing}"
    left = [path.name for path in folder.iterdir() if path.name.startswith(".blocksd-")]
    assert len(left) < 200, f"temporaries are left: {len(left)}"
