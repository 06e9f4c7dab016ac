"""Measure how the cost of a piece of work grows with what there is: curves.json, curves.svg and the table in benchmarks.md.

    python tests/benchmarks/curves.py            all of it (about ten minutes, 12 GB of /dev/shm, all of it removed again)
    python tests/benchmarks/curves.py agents     only what this measures; the other curves stay as they are
    python tests/benchmarks/curves.py --most 100000    no more of anything than this
    python tests/benchmarks/curves.py --draw     only the drawing and the table, of what curves.json has

Costs are CPU time, of the process that works: of the daemon, the server or the client. Other programs on the machine change
them by some tenths, not by times.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from run import BODY, Fan, Subscriber, allow_connections, cpu_seconds, crowd, daemon, fans_of, mebibytes, save

import blocksd
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

Point = tuple[int, float]
"""How many there are, and the cost: milliseconds, or MiB."""
Measured = tuple[str, int, float]
"""The name of a curve, and a point of it."""

DOCS = Path(__file__).resolve().parents[2] / "daemon" / "docs"
TABLE = ("<!-- curves -->\n", "<!-- /curves -->\n")
"""What is around the table in benchmarks.md."""
_SAVES = 40
_LISTED = 10_000  # agents that one frontmatter may list
_SMALL = "A block of a folder that has very many of them: it is small, so that a million fit into memory.\n"
_MILLION_BYTES = 12_000_000_000  # of a million small blocks: files, journal and mirror


def cpu_of_saves(
    process: subprocess.Popen[str], path: Path, head: str, subscriber: Subscriber, saves: int = _SAVES
) -> float:
    """The daemon's CPU time for a save of a file, in milliseconds: the median of five runs."""
    took = []
    for turn in range(5):
        before = cpu_seconds(process.pid)
        for number in range(saves // 5):
            save(path, f"{head}{BODY}{turn} {number} {time.monotonic_ns()}\n")
            while path.stem.encode() not in subscriber.wait()["data"]:
                pass
        took.append((cpu_seconds(process.pid) - before) / (saves // 5) * 1000)
    return statistics.median(took)


def _rest(process: subprocess.Popen[str]) -> None:
    """Wait until a daemon computes nothing."""
    for _ in range(60):
        before = cpu_seconds(process.pid)
        time.sleep(1)
        if cpu_seconds(process.pid) - before < 0.02:
            return


def by_blocks(server: RedisServer, root: Path, most: int) -> Iterator[Measured]:
    for count in _powers(100, min(most, 1_000_000)):
        where = root if count < 1_000_000 else _in_memory()
        if where is None:
            print("a million blocks need 12 GB in /dev/shm: they are left out")
            return
        folder, state, name = where / f"blocks-{count}", where / f"blocks-{count}-state", f"blocks-{count}"
        try:
            for number in range(count):
                if number % 1000 == 0:
                    (folder / f"part{number // 1000}").mkdir(parents=True)
                (folder / f"part{number // 1000}" / f"block{number}.md").write_text(_SMALL)
            path = folder / "part0" / "block7.md"
            with daemon(folder, state, server.url, "--namespace", name) as process:
                yield "first", count, cpu_seconds(process.pid) * 1000
                yield "memory", count, mebibytes(Path(f"/proc/{process.pid}/status").read_text(), "VmHWM")
                _rest(process)  # files that were new at the start are looked at once more
                subscriber = Subscriber(server.url, f"{name}:changes")
                yield "blocks", count, cpu_of_saves(process, path, "", subscriber)
                _rest(process)
            with daemon(folder, state, server.url, "--namespace", name) as process:
                yield "restart", count, cpu_seconds(process.pid) * 1000
        finally:
            server.client().flushall()
            shutil.rmtree(folder, ignore_errors=True)
            shutil.rmtree(state, ignore_errors=True)
            if where is not root:
                shutil.rmtree(where, ignore_errors=True)


def _in_memory() -> Path | None:
    """A directory in memory, where a million blocks have room; None if they have not."""
    try:
        free = os.statvfs("/dev/shm")  # it is asked what is free there
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    available = next((int(line.split()[1]) for line in lines if line.startswith("MemAvailable")), 0)
    if min(free.f_bavail * free.f_frsize, available * 1024) < _MILLION_BYTES or free.f_favail < 1_100_000:
        return None
    return Path(tempfile.mkdtemp(prefix="blocksd-curves-", dir="/dev/shm"))  # with a name of its own


def _powers(first: int, most: int) -> Iterator[int]:
    """Powers of ten."""
    while first <= most:
        yield first
        first *= 10


def by_agents(server: RedisServer, root: Path, most: int) -> Iterator[Measured]:
    for count in _powers(1, min(most, _LISTED)):
        with fans_of(count, root, server.url) as fans:
            yield "agents", count, _cpu_of_fan(server, fans[0])


def by_pattern(server: RedisServer, root: Path, most: int) -> Iterator[Measured]:
    for count in _powers(1, min(most, 100_000)):
        folder, name = root / f"pattern-{count}", f"pattern-{count}"
        folder.mkdir()
        ids = [f"helper-{number:06}" for number in range(count)]
        for first in range(0, count, _LISTED):
            (folder / f"list{first}.md").write_text(
                f"---\nagents: [{', '.join(ids[first : first + _LISTED])}]\n---\nlist\n"
            )
        head = '---\nagents: ["helper-*"]\n---\n'
        (folder / "all.md").write_text(head + BODY)
        (folder / "other.md").write_text(BODY)
        with daemon(folder, root / f"{name}-state", server.url, "--namespace", name) as process:
            assert server.client().scard(f"{name}:attached:all") == count
            _rest(process)
            yield "pattern", count, _cpu_of_fan(server, Fan(count, process.pid, folder / "all.md", head, name))
            yield "known", count, _cpu_of_fan(server, Fan(count, process.pid, folder / "other.md", "", name))
        server.client().flushall()


def _cpu_of_fan(server: RedisServer, fan: Fan, saves: int = 20) -> float:
    """The daemon's CPU time for a save that changes the body alone, in milliseconds: the median of five runs."""
    subscriber, took = Subscriber(server.url, f"{fan.namespace}:changes"), []
    for turn in range(5):
        before = cpu_seconds(fan.pid)
        for number in range(saves // 5):
            fan.save(f"{turn} {number}")
            while fan.path.stem.encode() not in subscriber.wait()["data"]:
                pass
        took.append((cpu_seconds(fan.pid) - before) / (saves // 5) * 1000)
    return statistics.median(took)


def by_attached(server: RedisServer, root: Path, most: int) -> Iterator[Measured]:
    for count in _powers(1, min(most, 10_000)):
        folder, name = root / f"attached-{count}", f"attached-{count}"
        (folder / "agents" / "ann").mkdir(parents=True)
        for number in range(count):
            (folder / "agents" / "ann" / f"topic{number}.md").write_text(BODY)
        with (
            daemon(folder, root / f"{name}-state", server.url, "--namespace", name),
            blocksd.connect(server.url, name) as client,
        ):
            memory, took = client.memory("ann"), []
            for _ in range(20 if count <= 1000 else 5):
                memory._kept.forget()
                begin = time.thread_time()
                memory.compile()
                took.append((time.thread_time() - begin) * 1000)
            yield "attached", count, statistics.median(took)


def by_history(server: RedisServer, root: Path, most: int) -> Iterator[Measured]:
    folder = root / "history"
    folder.mkdir()
    (folder / "note.md").write_text(BODY)
    with daemon(folder, root / "history-state", server.url, "--namespace", "history") as process:
        subscriber, made = Subscriber(server.url, "history:changes"), 1
        for count in _powers(1, min(most, 10_000)):
            while made < count:
                save(folder / "note.md", f"{BODY}{made}\n")
                subscriber.wait()
                made += 1
            yield "history", count, cpu_of_saves(process, folder / "note.md", "", subscriber)
            made += _SAVES


def by_subscribers(server: RedisServer, root: Path, most: int) -> Iterator[Measured]:
    folder = root / "subscribers"
    folder.mkdir()
    (folder / "note.md").write_text(BODY)
    client: Any = server.client()
    pid = int(client.info("server")["process_id"])
    with daemon(folder, root / "subscribers-state", server.url, "--namespace", "subscribers"):
        for count in _powers(1, min(most, 10_000)):
            if not allow_connections(client, count + 100):
                return
            with crowd(server.socket, "subscribers:changes", count) as heard:
                before, saves = cpu_seconds(pid), 10
                for number in range(saves):
                    save(folder / "note.md", f"{BODY}{count} {number}\n")
                    heard()
                yield "subscribers", count, (cpu_seconds(pid) - before) / saves * 1000


MEASURES: dict[str, Callable[[RedisServer, Path, int], Iterator[Measured]]] = {
    "blocks": by_blocks,
    "agents": by_agents,
    "pattern": by_pattern,
    "attached": by_attached,
    "history": by_history,
    "subscribers": by_subscribers,
}

CURVES = {
    "blocks": ("a save, of so many blocks: CPU of the daemon", "flat: a save looks at one file and one block", "ms"),
    "agents": (
        "a save, of a block that lists so many agents: CPU of the daemon",
        "the list is a text in the file, which is read and compared",
        "ms",
    ),
    "pattern": (
        "a save, of a block that a pattern attaches to so many agents",
        "flat: a save that changes no list asks nobody's",
        "ms",
    ),
    "known": ("a save, of another block beside so many agents", "flat: no agent is looked at", "ms"),
    "attached": (
        "a cold prompt of so many blocks: CPU of the client",
        "each block is read and shown; Python's collector goes through what many are made of",
        "ms",
    ),
    "history": ("a save, of a block with so many versions: CPU of the daemon", "flat: a version is added", "ms"),
    "subscribers": ("a save, with so many subscribers: CPU of the server", "each is sent the change", "ms"),
    "first": (
        "the first mirror of so many small files, with the start of Python",
        "each is read, journaled and shown",
        "ms",
    ),
    "restart": (
        "a restart with so many unchanged blocks: CPU of the daemon",
        "each file is looked at, each head read",
        "ms",
    ),
    "memory": (
        "peak memory of the daemon in a first mirror of so many",
        "labels, versions, agents and signatures",
        "MiB",
    ),
}
"""Title, reason and unit of each curve."""


def drawing(data: dict[str, list[Point]]) -> str:
    """The curves as an SVG, each in a field, both axes logarithmic."""
    width, height, left, top = 420, 190, 58, 34
    rows = (len(data) + 1) // 2
    size = f'width="{2 * width}" height="{rows * height}" viewBox="0 0 {2 * width} {rows * height}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for place, (name, points) in enumerate(data.items()):
        title, reason, unit = CURVES[name]
        inner, deep = width - left - 24, height - top - 42
        low, high = (round(edge(math.log10(y) for _, y in points)) for edge in (min, max))
        low, high = min(low, high - 1) - 1, high + 1
        decades = max(1, round(math.log10(points[-1][0])))

        def at(
            x: float,
            y: float,
            *,
            inner: int = inner,
            deep: int = deep,
            decades: int = decades,
            low: int = low,
            high: int = high,
        ) -> tuple[float, float]:
            return left + math.log10(x) / decades * inner, top + deep * (high - math.log10(y)) / (high - low)

        parts.append(f'<g transform="translate({place % 2 * width},{place // 2 * height})">')
        parts.append(
            f'<text x="8" y="15" font-weight="bold">{title}</text><text x="8" y="28" fill="#666">{reason}</text>'
        )
        for power in range(low, high + 1):
            y = at(1, 10.0**power)[1]
            parts.append(f'<path d="M{left} {y:.1f}h{inner}" stroke="#ddd"/>')
            parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} {unit}</text>')
        for power in range(decades + 1):
            x = at(10**power, 1)[0]
            parts.append(f'<text x="{x:.1f}" y="{top + deep + 16}" text-anchor="middle">{10**power:,}</text>')
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in points))
        parts.append(f'<polyline points="{line}" fill="none" stroke="#0a62c9" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#0a62c9"/>' for x, y in (at(*point) for point in points)
        ]
        parts.append("</g>")
    return "\n".join([*parts, "</svg>", ""])


def table(data: dict[str, list[Point]]) -> str:
    """The same as a table: a column for each power of ten."""
    powers = range(round(math.log10(max(points[-1][0] for points in data.values()))) + 1)
    lines = [f"| what | {' | '.join(f'{10**power:,}' for power in powers)} | why |", f"|{'---|' * (len(powers) + 2)}"]
    for name, points in data.items():
        title, reason, unit = CURVES[name]
        costs = {count: f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}" for count, cost in points}
        cells = [f"{costs[10**power]} {unit}" if 10**power in costs else "" for power in powers]
        lines.append(f"| {title} | {' | '.join(cells)} | {reason} |")
    return "\n".join([*lines, ""])


def _write_table(text: str) -> None:
    path = DOCS / "benchmarks.md"
    before, rest = path.read_text(encoding="utf-8").split(TABLE[0])
    path.write_text(f"{before}{TABLE[0]}{text}{TABLE[1]}{rest.split(TABLE[1])[1]}", encoding="utf-8")


def main() -> None:
    """Measure, write the data, draw it, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="WHAT", help=", ".join(MEASURES))
    parser.add_argument("--most", type=int, default=1_000_000, metavar="COUNT")
    parser.add_argument("--draw", action="store_true")
    arguments = parser.parse_args()
    data_file = DOCS / "curves.json"
    data: dict[str, list[Point]] = {}
    if data_file.exists():
        data = {name: [(x, y) for x, y in points] for name, points in json.loads(data_file.read_text()).items()}
    for name in () if arguments.draw else arguments.names or MEASURES:
        root, server = Path(tempfile.mkdtemp(prefix="blocksd-curves-")), RedisServer(valkey_binary())
        server.start()
        new: dict[str, list[Point]] = {}
        try:
            for curve, count, cost in MEASURES[name](server, root, arguments.most):
                new.setdefault(curve, []).append((count, round(cost, 3)))
                print(f"{curve:<12} {count:>9,} {cost:>11,.3f} {CURVES[curve][2]}", flush=True)
        finally:
            server.remove()
            shutil.rmtree(root, ignore_errors=True)
        data |= new
        data = {one: data[one] for one in CURVES if one in data}
        lines = ",\n".join(f" {json.dumps(one)}: {json.dumps(points)}" for one, points in data.items())
        data_file.write_text(f"{{\n{lines}\n}}\n")
    (DOCS / "curves.svg").write_text(drawing(data), encoding="utf-8")
    _write_table(table(data))


if __name__ == "__main__":
    main()
