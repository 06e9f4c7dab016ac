"""Everything at once, at full speed, and everything fails: what was acknowledged is there once, and nobody missed a change.

`BLOCKSD_SOAK_SECONDS` is how long it takes; by default a few seconds.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from blocksd.journal.history import JournalReader
from following import Between, Follower
from shimmed import Machine
from soaking import AGENTS, BLOCKS, HEAD, PEOPLE, Actor, Agent, Model, Person, faults_of, journal_of, missed, texts_of
from support import Daemon, RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.model.revision import Revision

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("BLOCKSD_SOAK_SECONDS", "0"))
"""For how long; 0: a few seconds."""

END_SECONDS = 90.0
"""How long it may take until all that was asked for is done, after all is well again."""

_ENDS = {"power cuts": 4, "kills": 1}
_TROUBLES = {"Redis losses": 1, "network cuts": 1, "network stalls": 1}
"""What happens how often; the daemon ends in the first half only, so that the rest shows whether it grows."""


@dataclass
class World:
    """A daemon, its machine, its server and the network between them, all of which fail."""

    machine: Machine
    server: RedisServer
    may_not_start: bool = False
    model: Model = field(default_factory=lambda: Model(END_SECONDS + max(SECONDS, 20.0)))
    chance: random.Random = field(default_factory=lambda: random.Random(7))
    losses: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.between = Between(self.server.socket)
        self.counts = Counter(dict.fromkeys((*_ENDS, *_TROUBLES), 0))
        folder = self.machine.disk / "blocks.d"
        folder.mkdir()
        for number in range(BLOCKS):
            (folder / f"block-{number}.md").write_text(HEAD)
        env = {**self.machine.env, "BLOCKSD_HISTORY_VERSIONS": "1000000", "BLOCKSD_DURABILITY": "disk"}
        options = ("--redis", self.between.url, "--resync-seconds", "5")
        self.daemon = Daemon(folder, self.machine.disk / "state", *options, env=env)
        self.daemon.env.pop("BLOCKSD_SOAK_SECONDS", None)

    def close(self) -> None:
        if self.is_running:
            self.daemon.kill()
        self.between.close()

    @property
    def is_running(self) -> bool:
        return self.daemon.process is not None and self.daemon.process.poll() is None

    def start(self) -> None:
        """Start the daemon, again and again if calls fail."""
        for _ in range(50):
            self.daemon.start(ready=False)
            eventually(lambda: "ready:" in self.daemon.said() or not self.is_running, "ready, or ended", seconds=60)
            if self.is_running:
                return
            assert self.may_not_start, self.daemon.said()
        pytest.fail(f"it does not start: {self.daemon.said()}")

    def live(self, seconds: float) -> None:
        """Have something fail every second, for so long."""
        begin = time.monotonic()
        before: tuple[int, int] | None = None
        while (now := time.monotonic() - begin) < seconds:
            troubles = {**_ENDS, **_TROUBLES} if now < seconds / 2 else _TROUBLES
            self.fail(self.chance.choices([*troubles], [*troubles.values()])[0])
            time.sleep(self.chance.uniform(0.3, 1.5))
            assert self.model.errors == []
            ended = self.daemon.process.poll() if self.daemon.process is not None else None
            assert self.is_running, f"it ended with {ended}: {self.daemon.said()[-3000:]}"
            if troubles is _TROUBLES and before is None:
                before = self.used()
        if before is not None:
            eventually(lambda: self.used()[0] <= before[0] + 8, "descriptors are as many as before")
            assert self.used()[1] < before[1] * 1.25 + 40_000, "memory grows"
            self.counts["kB before"], self.counts["kB after"] = before[1], self.used()[1]

    def used(self) -> tuple[int, int]:
        """How many descriptors the daemon has, and kilobytes of memory that are resident."""
        assert self.daemon.process is not None
        process = Path(f"/proc/{self.daemon.process.pid}")
        memory = (process / "status").read_text().partition("VmRSS:")[2].split()[0]
        return len(os.listdir(process / "fd")), int(memory)

    def fail(self, kind: str) -> None:
        self.counts[kind] += 1
        if kind in _ENDS:
            self.daemon.kill()
        if kind == "Redis losses" or (kind == "power cuts" and self.chance.random() < 0.5):
            self.server.kill()
            time.sleep(self.chance.uniform(0, 0.3))
            self.server.start()
        if kind == "power cuts":
            self.cut_power(self.chance)
            if self.chance.random() < 0.3:  # and again, while what the first has left is recovered
                self.daemon.start(ready=False)
                time.sleep(self.chance.uniform(0.1, 0.8))
                self.daemon.kill()
                self.counts[kind] += 1
                self.cut_power(self.chance)
        if kind in _ENDS:
            self.start()
        elif kind == "network cuts":
            self.between.cut()
        elif kind == "network stalls":
            self.between.stall()

    def cut_power(self, chance: random.Random | None = None) -> None:
        """Take back what is not synced, all of it or a part by chance. The lines of acknowledged edits must stay in the files.

        Those of people may go, since they do not sync, and those that an agent has asked to replace. A machine takes longer
        to boot than a lease lasts.
        """
        with self.model.power:
            acknowledged, before = set(self.model.acknowledged), self._lines()
            self.counts.update(self.machine.cut_power(chance))
            gone = before - self._lines()
            if lost := sorted(gone & acknowledged - self.model.replaced):
                self.model.lost += lost
                self.losses.append(
                    f"{len(lost)} lines by a power cut that took something back of {self.machine.undone}"
                )
            for line in gone & self.model.saved.keys():
                del self.model.saved[line]
        client = self.server.client()
        client.delete("blocks:lease")
        client.close()

    def _lines(self) -> set[str]:
        """Those of the shared blocks. A private one may lie aside until a start has finished a rename of it."""
        texts = texts_of(self.daemon.folder)
        return {line for label, text in texts.items() if label.startswith("block-") for line in text.splitlines()}

    def settle(self, follower: Follower) -> list[Revision]:
        """All revisions, once what is in the files is journaled, and was heard."""

        def is_so() -> list[Revision] | None:
            revisions = journal_of(self.daemon)
            journaled: dict[str, str] = {}
            for one in revisions:
                journaled.pop(one.renamed_from or one.label, None)
                if one.block is not None:
                    journaled[one.label] = one.block.value
            return revisions if journaled == texts_of(self.daemon.folder) else None

        eventually(is_so, "what is in the files is journaled", seconds=END_SECONDS)
        time.sleep(1.5)  # a stale save is merged once nobody writes any more
        revisions: list[Revision] = eventually(is_so, "the same", seconds=END_SECONDS)
        reader = JournalReader(str(self.daemon.state / "journal.db"))
        place = (reader.epoch, revisions[-1].seq)
        reader.close()
        eventually(lambda: follower.place == place, "it was heard", seconds=END_SECONDS)
        return revisions


@pytest.fixture
def world(tmp_path: Path, server: RedisServer) -> Iterator[World]:
    made = World(Machine(tmp_path), server)
    yield made
    made.close()


@pytest.mark.timeout(int(SECONDS) + 300)
@pytest.mark.parametrize("percent", [0, 1], ids=["all calls succeed", "one call in a hundred fails"])
def test_nothing_is_lost_doubled_or_missed(world: World, percent: int, capsys: pytest.CaptureFixture[str]) -> None:
    """People save, agents ask, daemon and server are killed, power and network are cut, and calls on the folder fail."""
    model, machine = world.model, world.machine
    if percent:
        world.may_not_start = True
        world.daemon.env["SHIM_ROOT"] = str(world.daemon.folder)
    actors: list[Actor] = [Agent(model, f"agent-{number}", world.server.url) for number in range(AGENTS)]
    actors += [Person(model, number, world.daemon.folder) for number in range(PEOPLE)]
    world.start()
    follower = Follower("blocking", world.server.url)
    try:
        machine.fail(percent / 100)
        for actor in actors:
            actor.start()
        world.live(SECONDS or (12.0 if percent else 8.0))
        machine.fail(0)
        model.stop.set()
        for actor in actors:
            actor.join(END_SECONDS * 2)
            assert not actor.is_alive(), f"{actor.name} still waits for a reply; {world.daemon.said()[-2000:]}"
        assert model.errors == []
        revisions = world.settle(follower)
        faults = {**faults_of(model, world.daemon), "missed": missed(follower.heard, revisions)}
        done = {"saves": len(model.saved), "acknowledged": len(model.acknowledged), "refused": len(model.refused)}
        done |= world.counts | {"calls failed": machine.failed} | {kind: len(found) for kind, found in faults.items()}
        with capsys.disabled():
            print("\nsoak:", ", ".join(f"{kind} {count}" for kind, count in done.items()))
        assert not any(faults.values()), (faults, world.losses)
        left = list(world.daemon.folder.rglob(".blocksd-*"))
        assert len(left) < 200, f"temporaries are left: {len(left)}"
    finally:
        model.stop.set()
        for actor in actors:
            if actor.is_alive():
                actor.join(END_SECONDS)
        follower.close()


@pytest.mark.parametrize(
    "lies",
    ["", "journal.db-wal", "blocks.d"],
    ids=["honest disk", "commits not synced", "names in the folder not synced"],
)
def test_soak_finds_what_is_lost_by_a_disk_that_does_not_sync(world: World, lies: str) -> None:
    """A power cut loses acknowledged edits if the log of the journal, or the folder, is not synced, and else none."""
    world.daemon.env["SHIM_LIES"] = lies
    agent = Agent(world.model, "agent-0", world.server.url)
    world.start()
    for _ in range(3):
        agent.edit()
    world.daemon.kill()
    world.cut_power()
    world.start()
    assert set(faults_of(world.model, world.daemon)["lost"]) == (world.model.acknowledged if lies else set())
