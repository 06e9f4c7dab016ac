"""Three hosts write at once, and all that is between them fails: at the end all folders are equal, and nothing is lost.

`BLOCKSD_SOAK_SECONDS` is how long it takes; by default a few seconds. `BLOCKSD_SOAK_SEED` chooses the faults; it is printed.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import pytest

from followers import Follower, tree
from hosts import Network
from soaking import Model
from soaking_hosts import Appender, Diarist, Editor, Shared, begin, faults, merges
from support import Daemon, RedisServer, eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from soaking import Actor

pytestmark = pytest.mark.slow

SECONDS = float(os.environ.get("BLOCKSD_SOAK_SECONDS", "0")) or 12.0
SEED = int(os.environ.get("BLOCKSD_SOAK_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)

LONGEST = min(10.0, SECONDS / 8)
"""How long a fault lasts at most, in seconds."""
END_SECONDS = 60.0
"""How long it may take until all is equal, after all is well again."""
PORT = 5000
_AT_ONCE = 2  # faults


class World:
    """A leader, Redis and two followers, each on a host of its own; and what fails, and until when."""

    def __init__(self, network: Network, directory: Path, chance: random.Random) -> None:
        self.network, self.chance = network, chance
        self.hosts = dict(zip(("leader", "one", "two", "Redis"), network.hosts, strict=True))
        self.model = Model(END_SECONDS + SECONDS)
        self.shared = Shared(SECONDS)
        self.server = RedisServer(valkey_binary(), self.hosts["Redis"].under)
        self.url = f"redis://{self.hosts['Redis'].address}:{PORT}"
        self.daemons: dict[str, Daemon] = {}
        for name in ("leader", "one", "two"):
            kind = Daemon if name == "leader" else Follower
            env = {"BLOCKSD_BY": name, "BLOCKSD_HISTORY_VERSIONS": "1000000", "BLOCKSD_RESYNC_SECONDS": "10"}
            self.daemons[name] = kind(
                directory / name,
                directory / f"{name}-state",
                "--redis",
                self.url,
                env=env,
                under=self.hosts[name].under,
            )
        for daemon in self.daemons.values():
            for setting in ("SECONDS", "SEED"):  # the daemon has none of these names
                daemon.env.pop(f"BLOCKSD_SOAK_{setting}", None)
        self.leader, *self.followers = self.daemons.values()
        self.counts: Counter[str] = Counter()
        self._undo: list[tuple[float, str, Callable[[], object]]] = []  # until when, what is concerned, and how it ends

    def start(self) -> None:
        begin(self.leader.folder, self.shared, [f"diary-{name}" for name in self.daemons])
        self.launch_server()
        for daemon in self.daemons.values():
            daemon.start()
        for follower in self.followers:
            eventually(lambda: tree(follower.folder) == tree(self.leader.folder), "the first copy is whole")  # noqa: B023

    def launch_server(self) -> None:
        """Start Redis on whatever data it has."""
        address = self.hosts["Redis"].address
        self.server.start("--port", str(PORT), "--bind", address, "--protected-mode", "no", "--appendonly", "yes")

    def close(self) -> None:
        for daemon in self.daemons.values():
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.kill()
        self.server.remove()

    # --- faults ---

    def live(self, seconds: float) -> None:
        """Have one thing after the other fail, up to two at once, each for a while."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.heal(time.monotonic())
            if len(self._undo) < _AT_ONCE and self.chance.random() < 0.5:
                self.fail()
            time.sleep(self.chance.uniform(0.1, 0.5))
            assert self.model.errors == []
            down = {what for _, what, _ in self._undo}
            for name, daemon in self.daemons.items():
                assert daemon.process is not None
                assert name in down or daemon.process.poll() is None, f"{name} ended: {daemon.said()[-3000:]}"
        self.heal(float("inf"))

    def fail(self) -> None:
        """Have something fail that is well."""
        kinds = {f"kill of {name}": name for name in self.daemons}
        kinds |= {f"partition of {name}": "wire" for name in self.hosts}
        kinds |= {"slow and lossy wire": "packets", "kill of Redis": "Redis", "loss of Redis": "Redis"}
        concerned = {what for _, what, _ in self._undo}
        kind = self.chance.choice([kind for kind, what in kinds.items() if what not in concerned])
        self.counts[kind] += 1
        self._undo.append((time.monotonic() + self.chance.uniform(0.5, LONGEST), kinds[kind], self._begin(kind)))

    def _begin(self, kind: str) -> Callable[[], object]:
        """Begin a fault; return how it ends."""
        word, _, name = kind.partition(" of ")
        if word == "partition":
            self.network.cut(self.hosts[name])
            return self.network.join
        if word == "slow and lossy wire":
            self.network.seconds, self.network.loss = self.chance.uniform(0.0, 0.05), self.chance.uniform(0.0, 0.1)
            return self._calm_wire
        if name == "Redis":
            self.server.kill()
            if word == "loss":
                shutil.rmtree(self.server.directory / "appendonlydir")
            return self.launch_server
        self.daemons[name].kill()
        return partial(self.daemons[name].start, ready=False)

    def _calm_wire(self) -> None:
        self.network.seconds = self.network.loss = 0.0

    def heal(self, now: float) -> None:
        """End the faults whose time is over."""
        for fault in [one for one in self._undo if one[0] <= now]:
            self._undo.remove(fault)
            fault[2]()

    # --- the end ---

    def is_quiet(self) -> bool:
        """Return True if all processes say that they are in order, and all folders are equal."""
        trees = [tree(daemon.folder) for daemon in self.daemons.values()]
        return trees[0] == trees[1] == trees[2] and not self.complaints()

    def complaints(self) -> list[str]:
        """What the commands that tell the status print, if not all is in order. Each runs on its own host."""
        asked = []
        for name, daemon in self.daemons.items():
            words = [sys.executable, "-m", "blocksd", *(["status"] if name == "leader" else ["follow", "--status"])]
            words = [*daemon.under, *words, "--state-dir", str(daemon.state)]
            asked.append(subprocess.run(words, capture_output=True, text=True, env=daemon.env, check=False))
        return [one.stdout + one.stderr for one in asked if one.returncode != 0]

    def settle(self) -> float:
        """Wait until all is quiet, and stays so; return how many seconds it took to come so far."""
        begin = time.monotonic()
        try:
            eventually(self.is_quiet, "all is equal and in order", seconds=END_SECONDS)
        except BaseException:
            print(*self.complaints(), sep="\n")
            raise
        took = time.monotonic() - begin
        time.sleep(1.5)  # a stale save is merged once nobody writes any more
        eventually(self.is_quiet, "the same", seconds=END_SECONDS)
        return took


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    network = Network(4)
    made = World(network, tmp_path, random.Random(SEED))
    print(f"seed {SEED}")
    yield made
    made.close()
    network.close()


@pytest.mark.timeout(int(SECONDS) + 400)
def test_three_hosts_lose_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """Every line is there once, each host's own files are as they were left, and every text of a diary is in the history."""
    model, shared = world.model, world.shared
    world.start()
    actors: list[Actor] = [
        Appender(model, f"agent-{number}", world.url, world.hosts[name], shared)
        for number, name in enumerate(("one", "two"))
    ]
    for name, daemon in world.daemons.items():
        actors += [Editor(model, f"editor-{name}", daemon.folder, shared), Diarist(model, f"diary-{name}", daemon)]
    try:
        for actor in actors:
            actor.start()
        world.live(SECONDS)
        model.stop.set()
        for actor in actors:
            actor.join(END_SECONDS)
            assert not actor.is_alive(), f"{actor.name} still waits; {world.leader.said()[-2000:]}"
        assert model.errors == []
        took = world.settle()
        found = faults(model, world.leader, [one.folder for one in world.followers], actors)
        logs = {name: daemon.log.read_text() for name, daemon in world.daemons.items()}
        found["tracebacks"] = [name for name, text in logs.items() if "Traceback" in text]
        done: Counter[str] = Counter(
            saves=len(model.saved), acknowledged=len(model.acknowledged), merges=merges(world.leader)
        )
        for actor in actors:
            if isinstance(actor, Editor):
                done.update(actor.saves)
            elif isinstance(actor, Diarist):
                done["texts of diaries"] += len(actor.texts)
        done.update(world.counts)
        with capsys.disabled():
            print(f"\nsoak of hosts, seed {SEED}:", ", ".join(f"{kind} {count}" for kind, count in done.items()))
            print(f"equal after {took:.1f} s;", ", ".join(f"{kind} {len(some)}" for kind, some in found.items()))
        assert not any(found.values()), {kind: some[:20] for kind, some in found.items() if some}
    finally:
        model.stop.set()
        for actor in actors:
            if actor.is_alive():
                actor.join(END_SECONDS)
