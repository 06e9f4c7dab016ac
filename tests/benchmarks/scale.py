"""Measure what each part of a large installation costs, check that against a run, and work out plans: daemon/docs/scale.json.

    python tests/benchmarks/scale.py           measure, check and plan (three minutes)
    python tests/benchmarks/scale.py --plan    plan with the figures that scale.json has

A plan adds up CPU and memory, and then plays ten minutes of the busiest shard, change by change: what waits behind what.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import copies
import over_http
from run import (
    BODY,
    Subscriber,
    allow_connections,
    cpu_seconds,
    crowd,
    daemon,
    percentile,
    resident,
    save,
    write_blocks,
)

import blocksd
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DATA = Path(__file__).resolve().parents[2] / "daemon" / "docs" / "scale.json"
FULL = 0.6
"""How much of a core is planned to be used: above it, what waits grows fast."""
COLD = 2.0
"""What is woken for one change takes so many times as much as for one of many in a row: the check shows 1.5 to 2."""
STREAMS = 10_000
"""Clients of one gateway: more of them wait too long for each other."""
CORES, GIBIBYTES, MEGABITS, PRICE = 16, 64, 10_000, 400
"""A host, and what one like it is let for in a month, in euros: assumed, not measured."""


@dataclass(frozen=True)
class Slopes:
    """What one more of each costs: CPU in milliseconds, memory in KiB."""

    save_daemon: float
    save_redis: float
    append_daemon: float
    append_redis: float
    subscriber_redis: float
    """One subscriber more, for each change."""
    change_gateway: float
    """One change that a gateway hears of and has one client for."""
    stream_gateway: float
    """One client of the stream more, for each change."""
    idle_daemon: float
    """A second of a daemon that has nothing to do."""
    daemon_memory: float
    stream_memory: float
    subscriber_memory: float
    block_memory: float
    """A block of 1 KiB, in Redis."""
    change_bytes: float
    """A change as it is sent."""
    follower_redis: float
    """One follower more, for each change: it hears of it, and reads the block."""
    follower_daemon: float
    """The same, of the leader's daemon."""
    follower_own: float
    """A follower, for each change: it writes a file, and syncs it."""
    follower_memory: float


@dataclass(frozen=True)
class Followed:
    """What a save costs a leader with so many followers, in milliseconds of CPU, and how long until the last has the file."""

    followers: int
    redis: float
    daemon: float
    follower: float
    """Of one of them."""
    delay: float


@dataclass(frozen=True)
class Load:
    """What an installation has to bear. Namespaces are alike; `by_http` is the share of subscribers that use the gateway."""

    namespaces: int
    agents: int
    subscribers: int
    writes: float
    """Appends a second, over all namespaces."""
    by_http: float = 0.5
    blocks: int = 100
    """Of a namespace."""


@dataclass(frozen=True)
class Plan:
    """What a load takes: cores that are busy, and processes with at most `FULL` of a core each; waits in milliseconds."""

    redis_cores: float
    daemon_cores: float
    gateway_cores: float
    shards: int
    gateways: int
    memory_gib: float
    megabits: float
    hosts: int
    p50: float
    p99: float
    first_to_fill: str
    """What would be full first if all namespaces wrote more, and how many times more."""


def plan(slopes: Slopes, load: Load) -> Plan:
    """Add up what a load takes."""
    direct = load.subscribers * (1 - load.by_http) / load.namespaces
    streams = load.subscribers * load.by_http / load.namespaces
    bells = math.ceil(streams / STREAMS)  # the gateways that have clients of a namespace
    append = COLD * slopes.append_daemon
    redis = COLD * (slopes.append_redis + slopes.subscriber_redis * (direct + bells))
    gateway = COLD * (slopes.change_gateway * bells + slopes.stream_gateway * streams) if streams else 0.0
    redis_cores, gateway_cores = load.writes * redis / 1000, load.writes * gateway / 1000
    daemon_cores = (load.writes * append + load.namespaces * slopes.idle_daemon) / 1000
    shards = min(max(1, math.ceil(redis_cores / FULL)), load.namespaces)
    clients = load.subscribers * load.by_http
    gateways = math.ceil(max(gateway_cores / FULL, clients / STREAMS))
    memory = load.namespaces * (slopes.daemon_memory + load.blocks * slopes.block_memory)
    memory += load.subscribers * (load.by_http * slopes.stream_memory + (1 - load.by_http) * slopes.subscriber_memory)
    megabits = load.writes * load.subscribers / load.namespaces * slopes.change_bytes * 8 / 1e6
    cores, rate = redis_cores + daemon_cores + gateway_cores, load.writes / load.namespaces
    hosts = math.ceil(max(cores / CORES / FULL, memory / 1024**2 / GIBIBYTES / FULL, megabits / MEGABITS / FULL))
    full = {
        "a daemon": 1000 / append / rate,
        "Redis, of a shard": shards / redis_cores if redis_cores else math.inf,
        "a gateway": gateways / gateway_cores if gateway_cores else math.inf,
        "the network of a host": MEGABITS * hosts / megabits,
        "the cores of a host": CORES * hosts / cores,
    }
    first = min(full, key=lambda name: full[name])
    last = COLD * slopes.stream_gateway * min(streams, STREAMS)
    waits = waits_of(load.writes / shards, redis, append, last)
    return Plan(
        redis_cores=redis_cores,
        daemon_cores=daemon_cores,
        gateway_cores=gateway_cores,
        shards=shards,
        gateways=gateways,
        memory_gib=memory / 1024**2,
        megabits=megabits,
        hosts=hosts,
        p50=percentile(waits, 0.5),
        p99=percentile(waits, 0.99),
        first_to_fill=f"{first}, at {full[first]:.3g} times as many writes",
    )


def most_followers(slopes: Slopes, load: Load, planned: Plan) -> int:
    """How many followers each namespace may have until the shards are used as much as is planned."""
    free = max(0.0, planned.shards * FULL - planned.redis_cores) * 1000
    return int(free / load.writes / COLD / slopes.follower_redis)


def waits_of(rate: float, shard: float, before: float, after: float, seconds: float = 600) -> list[float]:
    """Play the changes of a shard: how long each takes from its request to its last subscriber, in milliseconds.

    Requests come by chance, `rate` a second. The shard does one change after the other; what a daemon does `before`, and a
    gateway `after` it, waits for nothing: other namespaces have other ones.
    """
    chance, free, now, waits = random.Random(1), 0.0, 0.0, []
    while now < seconds * 1000:
        now += chance.expovariate(rate) * 1000
        free = max(now + before, free) + shard
        waits.append(free + after - now)
    return waits


# --- what is measured ---


def cpu_of(pids: list[int], work: Callable[[], object]) -> list[float]:
    """What a piece of work costs each of these processes, in milliseconds."""
    before = [cpu_seconds(pid) for pid in pids]
    work()
    return [(cpu_seconds(pid) - one) * 1000 for pid, one in zip(pids, before, strict=True)]


def medians(pids: list[int], work: Callable[[], object], times: int, each: int) -> list[float]:
    """The medians of several measurements, for one of `each` pieces."""
    taken = [cpu_of(pids, work) for _ in range(times)]
    return [statistics.median(one) / each for one in zip(*taken, strict=True)]


def proportional(pid: int) -> float:
    """How many KiB of memory a process has; what it shares with others counts in part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("Pss:"))


FOLLOWERS = (1, 2, 4, 8)


def followed(url: str, root: Path, pids: list[int], path: Path) -> tuple[list[Followed], float]:
    """What followers cost their leader, whose daemon and Redis these are; and the memory of one, in KiB."""
    found, each = list[Followed](), 20
    with ExitStack() as stack:
        processes, arrivals = list[int](), list[copies.Arrivals]()
        for count in FOLLOWERS:
            while len(processes) < count:
                copy = root / f"copy{len(processes)}"
                state = copy.with_name(f"{copy.name}-state")
                processes.append(stack.enter_context(copies.follower(copy, state, url)).pid)
                arrivals.append(stack.enter_context(closing(copies.Arrivals(copy / path.parent.name))))
            delays = list[float]()

            def saves(delays: list[float] = delays) -> None:
                for number in range(each):
                    begin = save(path, f"{BODY}{time.monotonic_ns()} {number}\n")
                    for one in arrivals:
                        one.wait_for(path.name)
                    delays.append((time.monotonic() - begin) * 1000)

            saves()
            delays.clear()
            daemon_cpu, redis_cpu, own_cpu = medians([*pids, processes[0]], saves, 7, each)
            found.append(Followed(count, redis_cpu, daemon_cpu, own_cpu, percentile(delays, 0.5)))
        memory = proportional(processes[0])
    return found, memory


def used_memory(server: RedisServer) -> float:
    return float(server.client().info("memory")["used_memory"]) / 1024


def measured(server: RedisServer, root: Path) -> tuple[Slopes, list[Followed]]:
    """Every slope, on this machine; and of followers, what so many cost."""
    folder, empty, few, many, each = root / "slopes", used_memory(server), 100, 2000, 20
    client: Any = server.client()
    assert allow_connections(client, 3 * many)
    redis_pid = int(client.info("server")["process_id"])
    write_blocks(folder, 1000)
    path, other, port = folder / "part0" / "block7.md", "part0/block8", over_http.free_port()
    with daemon(folder, root / "slopes-state", server.url) as process, blocksd.connect(server.url) as caller:
        pids, block_memory = [process.pid, redis_pid], (used_memory(server) - empty) / 1000
        subscriber = Subscriber(server.url, "blocks:changes")

        def saves(heard: Callable[[], object]) -> None:
            for number in range(each):
                save(path, f"{BODY}{time.monotonic_ns()} {number}\n")
                heard()

        def appends() -> None:
            for _ in range(each):
                caller.blocks.append(other, "One line more.")

        time.sleep(10)  # what was just written is looked at once more
        begin = time.monotonic()
        idle = cpu_of([process.pid], lambda: time.sleep(60))[0]  # in each minute all is compared
        idle /= time.monotonic() - begin
        saves(subscriber.wait)
        daemon_memory = proportional(process.pid)
        save_daemon, save_redis = medians(pids, partial(saves, subscriber.wait), 7, each)
        append_daemon, append_redis = medians(pids, appends, 7, each)
        append_bytes = len(client.xrevrange("blocks:changes", count=1)[0][1]["change"])
        by_followers, follower_memory = followed(server.url, root, pids, path)
        costs, memory = [], []
        for count in (few, many):
            before = used_memory(server)
            with crowd(server.socket, "blocks:changes", count) as heard:
                memory.append(used_memory(server) - before)
                costs.append(medians([redis_pid], partial(saves, heard), 5, each)[0])
        subscriber_redis = (costs[1] - costs[0]) / (many - few)
        subscriber_memory = (memory[1] - memory[0]) / (many - few)
        with over_http.gateway(server.url, port) as gateway, over_http.Caller(port) as asked:
            asked.get("/v1/health")
            costs, memory = [], []
            for count in (1, many // 2):
                before = resident(gateway.pid)
                with crowd(port, "/api/changes", count) as heard:
                    memory.append(resident(gateway.pid) - before)
                    costs.append(medians([gateway.pid], partial(saves, heard), 5, each)[0])
        stream_gateway = (costs[1] - costs[0]) / (many // 2 - 1)
    one, *_, most = by_followers
    slopes = Slopes(
        save_daemon=save_daemon,
        save_redis=save_redis,
        append_daemon=append_daemon,
        append_redis=append_redis,
        subscriber_redis=subscriber_redis,
        change_gateway=costs[0],
        stream_gateway=stream_gateway,
        idle_daemon=idle,
        daemon_memory=daemon_memory,
        stream_memory=(memory[1] - memory[0]) / (many // 2 - 1),
        subscriber_memory=subscriber_memory,
        block_memory=block_memory,
        change_bytes=append_bytes,
        follower_redis=(most.redis - one.redis) / (most.followers - one.followers),
        follower_daemon=(most.daemon - one.daemon) / (most.followers - one.followers),
        follower_own=statistics.median(each.follower for each in by_followers),
        follower_memory=follower_memory,
    )
    return slopes, by_followers


NAMESPACES, EACH, SECONDS, RATE = 12, 1000, 30, 3.0
"""The largest run that two cores bear: namespaces, subscribers of each, how long, and appends a second in each."""


def checked(server: RedisServer, root: Path, slopes: Slopes) -> dict[str, list[float]]:
    """Run many namespaces at once; what was worked out for them, and what was measured, in cores and milliseconds."""
    client: Any = server.client()
    assert allow_connections(client, NAMESPACES * EACH + 500)
    redis_pid, names = int(client.info("server")["process_id"]), [f"check{number}" for number in range(NAMESPACES)]
    took: list[float] = []
    with ExitStack() as stack:
        processes, crowds = [], []
        for name in names:
            write_blocks(root / name, 100)
            state = root / f"{name}-state"
            processes.append(stack.enter_context(daemon(root / name, state, server.url, "--namespace", name)))
            crowds.append(stack.enter_context(crowd(server.socket, f"{name}:changes", EACH)))
        clients = [stack.enter_context(blocksd.connect(server.url, name)) for name in names]
        time.sleep(20)
        end = time.monotonic() + SECONDS

        def work(number: int) -> None:
            chance = random.Random(number)
            while time.monotonic() < end:
                time.sleep(chance.expovariate(RATE))
                begin = time.monotonic()
                clients[number].blocks.append("part0/block7", "One line more.")
                took.append((crowds[number]()[1] - begin) * 1000)

        pids = [redis_pid, *(process.pid for process in processes)]
        before, begin = [cpu_seconds(pid) for pid in pids], time.monotonic()
        threads = [threading.Thread(target=work, args=(number,)) for number in range(NAMESPACES)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.monotonic() - begin
        used = [(cpu_seconds(pid) - one) / elapsed for pid, one in zip(pids, before, strict=True)]
    rate = len(took) / elapsed
    expected = plan(slopes, Load(NAMESPACES, NAMESPACES, NAMESPACES * EACH, rate, by_http=0.0))
    return {
        "cores of Redis": [expected.redis_cores, used[0]],
        "cores of the daemons": [expected.daemon_cores, sum(used[1:])],
        "p50, append to last subscriber, ms": [expected.p50, percentile(took, 0.5)],
        "p99": [expected.p99, percentile(took, 0.99)],
    }


# --- what is planned ---

LOADS = {
    "a team": Load(1, 10, 100, 1),
    "a company": Load(100, 1000, 10_000, 17),
    "a large one": Load(1000, 10_000, 100_000, 170),
    "a million": Load(10_000, 100_000, 1_000_000, 1700),
    "a million, one namespace": Load(1, 100_000, 1_000_000, 1, by_http=1.0),
}
"""An agent writes once a minute."""


def table(slopes: Slopes) -> Iterator[str]:
    """The plans, as Markdown."""
    yield "| | " + " | ".join(LOADS) + " |"
    yield "|---" * (len(LOADS) + 1) + "|"
    plans = [plan(slopes, load) for load in LOADS.values()]
    given: list[tuple[str, list[str]]] = [
        (name, [f"{getattr(load, field):,.12g}" for load in LOADS.values()])
        for name, field in (
            ("namespaces", "namespaces"),
            ("agents", "agents"),
            ("subscribers", "subscribers"),
            ("of them by HTTP", "by_http"),
            ("writes a second", "writes"),
        )
    ]
    found = [
        ("cores of Redis", [f"{one.redis_cores:.2f}" for one in plans]),
        ("shards", [f"{one.shards:,}" for one in plans]),
        ("cores of daemons", [f"{one.daemon_cores:.2f}" for one in plans]),
        ("cores of gateways", [f"{one.gateway_cores:.2f}" for one in plans]),
        ("gateways", [f"{one.gateways:,}" for one in plans]),
        ("memory, GiB", [f"{one.memory_gib:.1f}" for one in plans]),
        ("sent, Mbit/s", [f"{one.megabits:,.1f}" for one in plans]),
        (f"hosts of {CORES} cores and {GIBIBYTES} GiB", [f"{one.hosts:,}" for one in plans]),
        (f"€ a month, at {PRICE} a host", [f"{one.hosts * PRICE:,}" for one in plans]),
        ("append → last subscriber, p50", [f"{one.p50:.1f} ms" for one in plans]),
        ("p99", [f"{one.p99:.1f} ms" for one in plans]),
        ("full first", [one.first_to_fill for one in plans]),
        (
            "followers of each namespace that these shards bear",
            [f"{most_followers(slopes, load, one):,}" for load, one in zip(LOADS.values(), plans, strict=True)],
        ),
    ]
    for name, cells in [*given, *found]:
        yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Measure, check, and print the plans."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="measure nothing")
    if not parser.parse_args().plan:
        root, server = Path(tempfile.mkdtemp(prefix="blocksd-scale-")), RedisServer(valkey_binary())
        server.start()
        try:
            slopes, by_followers = measured(server, root)
            server.client().flushall()
            check = checked(server, root, slopes)
        finally:
            server.remove()
            shutil.rmtree(root, ignore_errors=True)
        data = {"slopes": asdict(slopes), "followers": [asdict(one) for one in by_followers], "check": check}
        rounded = json.loads(json.dumps(data), parse_float=lambda text: round(float(text), 5))
        DATA.write_text(json.dumps(rounded, indent=1) + "\n")
    data = json.loads(DATA.read_text())
    for name, value in data["slopes"].items():
        print(f"{name:<20} {value:>12.4f}")
    for name, (expected, found) in data["check"].items():
        print(f"{name:<36} worked out {expected:>8.2f}, measured {found:>8.2f}")
    for one in data["followers"]:
        print(", ".join(f"{name} {value:.3g}" for name, value in one.items()))
    print("\n".join(table(Slopes(**data["slopes"]))))


if __name__ == "__main__":
    main()
