"""Measure how the cost of a piece of work grows with what there is, and draw it: daemon/docs/curves.json and curves.svg.

    python tests/benchmarks/curves.py            all of it (a few minutes)
    python tests/benchmarks/curves.py blocks     only this curve; the others stay as they are
    python tests/benchmarks/curves.py --draw     only draw what curves.json has

Costs are CPU time, of the process that works: of the daemon, the server or the client. Other programs on the machine change
them by some tenths, not by times.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from run import BODY, Subscriber, allow_connections, cpu_seconds, crowd, daemon, fans_of, save, write_blocks

import blocksd
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

Point = tuple[int, float]
"""How many there are, and the milliseconds."""

DOCS = Path(__file__).resolve().parents[2] / "daemon" / "docs"
_SAVES = 40


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


def by_blocks(server: RedisServer, root: Path) -> Iterator[Point]:
    for count in (100, 1000, 10_000, 100_000):
        folder, name = root / f"blocks-{count}", f"blocks-{count}"
        write_blocks(folder, count)
        with daemon(folder, root / f"{name}-state", server.url, "--namespace", name) as process:
            _rest(process)  # files that were new at the start are looked at once more
            path = folder / "part0" / "block7.md"
            yield count, cpu_of_saves(process, path, "", Subscriber(server.url, f"{name}:changes"))


def by_agents(server: RedisServer, root: Path) -> Iterator[Point]:
    for count in (1, 10, 100, 1000, 10_000):
        with fans_of(count, root, server.url) as fans:
            fan = fans[0]
            subscriber = Subscriber(server.url, f"{fan.namespace}:changes")
            before, saves = cpu_seconds(fan.pid), 20
            for number in range(saves):
                fan.save(str(number))
                subscriber.wait()
            yield count, (cpu_seconds(fan.pid) - before) / saves * 1000


def by_attached(server: RedisServer, root: Path) -> Iterator[Point]:
    for count in (1, 10, 100, 1000):
        folder, name = root / f"attached-{count}", f"attached-{count}"
        (folder / "agents" / "ann").mkdir(parents=True)
        for number in range(count):
            (folder / "agents" / "ann" / f"topic{number}.md").write_text(BODY)
        with (
            daemon(folder, root / f"{name}-state", server.url, "--namespace", name),
            blocksd.connect(server.url, name) as client,
        ):
            memory, took = client.memory("ann"), []
            for _ in range(20):
                memory._kept.forget()
                begin = time.thread_time()
                memory.compile()
                took.append((time.thread_time() - begin) * 1000)
            yield count, statistics.median(took)


def by_history(server: RedisServer, root: Path) -> Iterator[Point]:
    folder = root / "history"
    folder.mkdir()
    (folder / "note.md").write_text(BODY)
    with daemon(folder, root / "history-state", server.url, "--namespace", "history") as process:
        subscriber, made = Subscriber(server.url, "history:changes"), 1
        for count in (1, 10, 100, 1000, 5000):
            while made < count:
                save(folder / "note.md", f"{BODY}{made}\n")
                subscriber.wait()
                made += 1
            yield count, cpu_of_saves(process, folder / "note.md", "", subscriber)
            made += _SAVES


def by_subscribers(server: RedisServer, root: Path) -> Iterator[Point]:
    folder = root / "subscribers"
    folder.mkdir()
    (folder / "note.md").write_text(BODY)
    client: Any = server.client()
    pid = int(client.info("server")["process_id"])
    with daemon(folder, root / "subscribers-state", server.url, "--namespace", "subscribers"):
        for count in (1, 10, 100, 1000, 10_000):
            if not allow_connections(client, count + 100):
                return
            with crowd(server.socket, "subscribers:changes", count) as heard:
                before, saves = cpu_seconds(pid), 10
                for number in range(saves):
                    save(folder / "note.md", f"{BODY}{count} {number}\n")
                    heard()
                yield count, (cpu_seconds(pid) - before) / saves * 1000


CURVES: dict[str, tuple[Callable[[RedisServer, Path], Iterator[Point]], str, str]] = {
    "blocks": (by_blocks, "a save, of so many blocks: CPU of the daemon", "flat: a save looks at one file"),
    "agents": (
        by_agents,
        "a save, of a block that lists so many agents: CPU of the daemon",
        "the list is a text in the file",
    ),
    "attached": (by_attached, "a cold prompt of so many blocks: CPU of the client", "each block is read and shown"),
    "history": (by_history, "a save, of a block with so many versions: CPU of the daemon", "flat: a version is added"),
    "subscribers": (by_subscribers, "a save, with so many subscribers: CPU of the server", "each is sent the change"),
}


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
        _, title, reason = CURVES[name]
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
            parts.append(f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{10.0**power:g} ms</text>')
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


def main() -> None:
    """Measure, write the data and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="CURVE", help=", ".join(CURVES))
    parser.add_argument("--draw", action="store_true")
    arguments = parser.parse_args()
    data_file = DOCS / "curves.json"
    data: dict[str, list[Point]] = {}
    if data_file.exists():
        data = {name: [(x, y) for x, y in points] for name, points in json.loads(data_file.read_text()).items()}
    for name in () if arguments.draw else arguments.names or CURVES:
        root, server = Path(tempfile.mkdtemp(prefix="blocksd-curves-")), RedisServer(valkey_binary())
        server.start()
        try:
            data[name] = []
            for count, cost in CURVES[name][0](server, root):
                data[name].append((count, round(cost, 3)))
                print(f"{name:<12} {count:>9,} {cost:>9.3f} ms", flush=True)
        finally:
            server.remove()
            shutil.rmtree(root, ignore_errors=True)
        data = {one: data[one] for one in CURVES if one in data}
        lines = ",\n".join(f" {json.dumps(one)}: {json.dumps(points)}" for one, points in data.items())
        data_file.write_text(f"{{\n{lines}\n}}\n")
    (DOCS / "curves.svg").write_text(drawing(data), encoding="utf-8")


if __name__ == "__main__":
    main()
