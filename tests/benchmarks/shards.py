"""What three masters of a cluster carry, beside one: `python tests/benchmarks/shards.py [CHANGES]`.

The same namespaces, spread evenly, have the same changes on both clusters, which run side by side and take turns. Two cores do
not show how fast six processes would be, so what counts is CPU: a cluster is full when its busiest node is, and the capacity is
how many changes there are for each second of CPU that this node has used. What the nodes use at rest is taken off, and shown.

`script` sends what a daemon writes for a change, by a plain client. `daemons` are real ones, with an agent that appends.
"""

from __future__ import annotations

import shutil
import socket
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from hiredis import pack_command
from run import cpu_seconds, daemon

import blocksd
from bench import EPOCH, rebuild
from blocksd.mirror.connection import connect
from blocksd.mirror.keys import Keys
from blocksd.mirror.mirror import Mirror
from clusters import NODES, Cluster
from rig import ABOUT, revision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHANGES = 12_000
"""By the script; a twentieth of them by daemons."""
ROUNDS = 5
AT_ONCE = 32
"""Changes of each namespace that are under way."""
LISTENING = 5
"""Subscribers of each namespace."""
_DONE = b"*1\r\n$2\r\nok\r\n"
_BODY = "What is known about this topic. " * 32


def namespaces(cluster: Cluster, of_each: int) -> list[str]:
    """Names in braces, of which each master of three has as many, in turns."""
    by_node: list[list[str]] = [[] for _ in range(NODES)]
    number = 0
    while any(len(names) < of_each for names in by_node):
        name = f"{{shard{number}}}"
        names = by_node[cluster.number(f"{name}:meta")]
        if len(names) < of_each:
            names.append(name)
        number += 1
    return [name for some in zip(*by_node, strict=True) for name in some]


@contextmanager
def listening(cluster: Cluster, names: list[str]) -> Iterator[Callable[[], None]]:
    """Subscribe to each namespace, at its node; what is called reads all that was sent."""
    with ExitStack() as stack:
        connections = []
        for name in names * LISTENING:
            port = cluster.ports[cluster.number(f"{name}:meta")]
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connection.sendall(f"SSUBSCRIBE {name}:changes\r\n".encode())
            connection.recv(1024)
            connection.setblocking(False)
            connections.append(connection)

        def drain() -> None:
            for connection in connections:
                try:
                    while connection.recv(1 << 16):
                        pass
                except BlockingIOError:
                    continue

        yield drain


class Replayed:
    """The calls by which a mirror writes changes, recorded once for some namespaces."""

    def __init__(self, cluster: Cluster, names: list[str], changes: int) -> None:
        self.calls: dict[str, list[bytes]] = {}
        self.lease: dict[str, str] = {}
        for name in names:
            mirror = Mirror(connect(cluster.url), Keys(name), url=cluster.url, epoch=EPOCH, token="t", about=ABOUT)
            mirror.take_lease()
            rebuild(mirror, [], seq=0)
            self.lease[name] = str(cluster.raw[0].get(mirror.keys.lease))
            script, self.calls[name] = mirror._apply, []
            for seq in range(1, changes + 1):
                kind: Any = "created" if seq == 1 else "updated"
                mirror.project([revision(seq, version=seq, kind=kind, value=f"{_BODY}{seq}", agents=("ann",))])
                assert script.under_way is not None
                self.calls[name].append(pack_command(("EVALSHA", script._name, *script.under_way)))
                mirror.wait()
        self.text = script._text


class ByScript:
    """Namespaces whose changes are written by plain clients: some for each are under way at a time, as when a node is full."""

    def __init__(self, cluster: Cluster, recorded: Replayed) -> None:
        self._connections = {}
        self._calls = recorded.calls
        self._next = 0
        for client in cluster.raw:
            client.flushall()
            client.script_load(recorded.text)
        for name, lease in recorded.lease.items():
            keys, node = Keys(name), cluster.holder(f"{name}:meta")
            node.set(keys.lease, lease)
            node.hset(keys.meta, mapping={"epoch": EPOCH, "seq": "0"})
            port = cluster.ports[cluster.number(keys.meta)]
            self._connections[name] = socket.create_connection(("127.0.0.1", port))

    def __call__(self) -> int:
        """Make some changes in each; return how many."""
        first, self._next = self._next, self._next + AT_ONCE
        for name, connection in self._connections.items():
            connection.sendall(b"".join(self._calls[name][first : self._next]))
        for connection in self._connections.values():
            got = b""
            while got.count(_DONE) < AT_ONCE:
                got += connection.recv(1 << 16)
                assert got.startswith(_DONE), got
        return AT_ONCE * len(self._connections)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for connection in self._connections.values():
            connection.close()


class ByDaemons:
    """Namespaces with a daemon each, and a client that appends."""

    def __init__(self, cluster: Cluster, names: list[str], root: Path, stack: ExitStack) -> None:
        self._clients = []
        for number, name in enumerate(names):
            folder = root / f"{cluster.ports[0]}-{number}"
            folder.mkdir(parents=True)
            (folder / "notes.md").write_text(f"---\nagents: [ann]\nlimit: 1000000\n---\n{_BODY}\n")
            state = root / f"{folder.name}-state"
            stack.enter_context(daemon(folder, state, cluster.url, "--namespace", name))
            self._clients.append(stack.enter_context(blocksd.connect(cluster.url, name)))

    def __call__(self) -> int:
        for client in self._clients:
            client.blocks.append("notes", "One line more.")
        return len(self._clients)


def pids(cluster: Cluster) -> list[int]:
    return [int(client.info("server")["process_id"]) for client in cluster.raw]


def used(cluster: Cluster, work: Callable[[], object]) -> tuple[list[float], float]:
    """The seconds of CPU that a piece of work has cost each node, and how long it took."""
    numbers = pids(cluster)
    before, begin = [cpu_seconds(pid) for pid in numbers], time.monotonic()
    work()
    elapsed = time.monotonic() - begin
    return [cpu_seconds(pid) - one for pid, one in zip(numbers, before, strict=True)], elapsed


class Load:
    """A cluster under a load: in microseconds of CPU, what each change costs each of its nodes."""

    def __init__(self, cluster: Cluster, change: Callable[[], int], drain: Callable[[], None]) -> None:
        self._cluster, self._change, self._drain = cluster, change, drain
        self.rounds: list[list[float]] = []
        self.rest = [0.0] * len(cluster.ports)

    def settle(self) -> None:
        """Look at the nodes while nothing is asked of them."""
        self._change()
        self._drain()
        time.sleep(2)
        seconds, elapsed = used(self._cluster, lambda: time.sleep(5))
        self.rest = [one / elapsed for one in seconds]

    def run(self, changes: int) -> None:
        """Make so many changes."""
        done = 0

        def work() -> None:
            nonlocal done
            while done < changes:
                done += self._change()
                self._drain()

        seconds, elapsed = used(self._cluster, work)
        self.rounds.append(
            [1e6 * max(0.0, one - rest * elapsed) / done for one, rest in zip(seconds, self.rest, strict=True)]
        )

    @property
    def cost(self) -> list[float]:
        """Of each node: the median of the rounds."""
        return [statistics.median(one) for one in zip(*self.rounds, strict=True)]

    @property
    def capacity(self) -> float:
        """How many changes the cluster carries for each second of CPU of its busiest node."""
        return 1e6 / max(self.cost)


def compare(name: str, three: Load, one: Load, changes: int) -> str:
    """Measure both in turns; return a row of a table."""
    for load in (three, one):
        load.settle()
    for _ in range(ROUNDS):
        for load in (three, one):
            load.run(changes // ROUNDS)
    costs = ", ".join(f"{cost:.1f}" for cost in three.cost)
    rest = f"{100 * max(three.rest):.2f} %, {100 * max(one.rest):.2f} %"
    ratio = three.capacity / one.capacity
    return f"| {name} | {costs} µs | {one.cost[0]:.1f} µs | {three.capacity:,.0f} | {one.capacity:,.0f} | {ratio:.2f} | {rest} |"


def main() -> None:
    """Print a row for each load."""
    changes = int(sys.argv[1]) if len(sys.argv) > 1 else CHANGES
    root = Path(tempfile.mkdtemp(prefix="blocksd-shards-"))
    print("| load | CPU of each of three for a change | of one | changes/s that three carry | one | ratio | at rest |")
    print("|---|---|---|---|---|---|---|")
    try:
        for name, of_each in (("script", 4), ("daemons", 1)):
            with ExitStack() as stack:
                clusters = [Cluster(), Cluster(masters=1)]
                for cluster in clusters:
                    stack.callback(cluster.close)
                names = namespaces(clusters[0], of_each)
                count = changes if name == "script" else changes // 20
                made: list[Callable[[], int]]
                if name == "script":
                    recorded = Replayed(clusters[1], names, 2 * AT_ONCE + count // len(names) + ROUNDS * AT_ONCE)
                    made = [stack.enter_context(ByScript(cluster, recorded)) for cluster in clusters]
                else:
                    made = [ByDaemons(cluster, names, root, stack) for cluster in clusters]
                three, one = (
                    Load(cluster, change, stack.enter_context(listening(cluster, names)))
                    for cluster, change in zip(clusters, made, strict=True)
                )
                print(compare(name, three, one, count), flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
