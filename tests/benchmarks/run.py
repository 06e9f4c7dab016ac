"""Measure blocksd against its floors, side by side in one run, and print the table of ratios.

    python tests/benchmarks/run.py            all of it (several minutes)
    python tests/benchmarks/run.py --quick    a tenth of it
    python tests/benchmarks/run.py save burst only these

Floor and blocksd take turns, edit by edit or run by run, so that a noisy machine is noisy for both. What counts is the
ratio of medians.
"""

from __future__ import annotations

import argparse
import gc
import io
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import redis

import floors
from blocksd.config import Config
from blocksd.report import Reporter
from blocksd.service import Service
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BODY = "A line of text, as people write them into memory blocks.\n" * 18


@dataclass(frozen=True)
class Row:
    """One line of the table. `bound` is what the ratio is meant to stay below, if anything."""

    name: str
    floor: str
    blocksd: str
    ratio: float | None
    bound: float | None = None
    note: str = ""


def write_blocks(directory: Path, count: int) -> None:
    """Files of about 1 KiB, each with a frontmatter of its own, a thousand to a directory."""
    for number in range(count):
        if number % 1000 == 0:
            (directory / f"part{number // 1000}").mkdir(parents=True)
        path = directory / f"part{number // 1000}" / f"block{number}.md"
        path.write_text(matter(number) + BODY)


def matter(number: int) -> str:
    return (
        f"---\ndescription: What is known about topic {number}.\nlimit: {4000 + number % 1000}\n"
        f"agents: [agent-{number % 50}, agent-{number % 7}]\ntags: [benchmark]\n---\n"
    )


def save(path: Path, text: str) -> None:
    """As editors do: a temporary file in the same directory, then a rename."""
    temporary = path.with_name(".benchmark-save")
    temporary.write_text(text)
    temporary.rename(path)


@contextmanager
def service(folder: Path, state: Path, url: str) -> Iterator[Service]:
    """A daemon in this process, on the thread it needs: used where the process is what is measured."""
    running = Service(Config(folder=str(folder), redis=url, state_dir=str(state)), Reporter(io.StringIO()))
    yield running
    running._give_up()


@contextmanager
def daemon(folder: Path, state: Path, url: str) -> Iterator[subprocess.Popen[str]]:
    """A daemon in a process of its own, ready."""
    words = [sys.executable, "-m", "blocksd", "run", str(folder), "--redis", url, "--state-dir", str(state)]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, text=True, env={**os.environ, "BLOCKSD_CONFIG": os.devnull}
    )
    assert process.stderr is not None
    for line in process.stderr:
        if "ready:" in line:
            break
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


class Subscriber:
    """A bare subscriber of one channel."""

    def __init__(self, url: str, channel: str) -> None:
        # The client must be kept: when it is collected, redis-py cuts the connections of its subscribers, too.
        client: Any = redis.Redis.from_url(url, socket_timeout=None)
        self._client = client
        self._pubsub = client.pubsub()
        self._pubsub.subscribe(channel)
        self.wait("subscribe")  # the server's word that it listens

    def wait(self, kind: str = "message") -> Any:
        """The next message of a kind."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            message = self._pubsub.get_message(timeout=1)
            if message is not None and message["type"] == kind:
                return message
        raise TimeoutError("a minute without a message: one was lost")


def percentile(times: list[float], share: float) -> float:
    return sorted(times)[min(len(times) - 1, int(len(times) * share))]


def time_saves(path: Path, head: str, subscriber: Subscriber, times: list[float], tag: str) -> None:
    text = f"{head}{BODY}{tag}\n"
    name = path.stem.encode()
    begin = time.perf_counter()
    save(path, text)
    while name not in subscriber.wait()["data"]:
        pass
    times.append(time.perf_counter() - begin)
    time.sleep(0.005)


def bench_save(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(a) save → subscriber, one edit at a time; and whether it grows with the number of blocks."""
    edits = 300 if quick else 2000
    floor_directory = root / "floor"
    floor_directory.mkdir()
    bare = subprocess.Popen(
        [sys.executable, floors.__file__, str(floor_directory), server.url], stdout=subprocess.PIPE, text=True
    )
    assert bare.stdout is not None
    bare.stdout.readline()
    small, large = root / "small", root / "large"
    write_blocks(small, 100)
    write_blocks(large, 10_000 if quick else 100_000)
    floor_times: list[float] = []
    times: list[float] = []
    grown: list[float] = []
    try:
        with daemon(small, root / "small-state", server.url):
            bare_subscriber = Subscriber(server.url, "floor:changes")
            subscriber = Subscriber(server.url, "blocks:changes")
            for number in range(edits):
                time_saves(floor_directory / "x.md", matter(0), bare_subscriber, floor_times, str(number))
                one = number % 100
                time_saves(small / "part0" / f"block{one}.md", matter(one), subscriber, times, str(number))
        for share, bound in ((0.5, 2.2), (0.99, 5.0)):
            bare_time, own_time = percentile(floor_times, share), percentile(times, share)
            yield Row(
                f"(a) save → subscriber, p{share * 100:.0f}", ms(bare_time), ms(own_time), own_time / bare_time, bound
            )
        second = RedisServer(valkey_binary())
        second.start()
        try:
            with daemon(small, root / "state-100", server.url), daemon(large, root / "state-large", second.url):
                subscriber = Subscriber(server.url, "blocks:changes")
                large_subscriber = Subscriber(second.url, "blocks:changes")
                times.clear()
                count = 10_000 if quick else 100_000
                for number in range(edits // 2):
                    one = number % 100
                    time_saves(small / "part0" / f"block{one}.md", matter(one), subscriber, times, f"b{number}")
                    one = number * 7919 % count
                    path = large / f"part{one // 1000}" / f"block{one}.md"
                    time_saves(path, matter(one), large_subscriber, grown, f"b{number}")
        finally:
            second.remove()
        few, many = statistics.median(times), statistics.median(grown)
        yield Row(f"(a) one save, of 100 → of {count:,} blocks, p50", ms(few), ms(many), many / few, 1.3)
    finally:
        bare.kill()
        bare.wait()


def bench_mirror(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(b) the first mirror of a folder."""
    for count in (1000, 10_000) if quick else (10_000, 100_000):
        folder = root / f"first-{count}"
        write_blocks(folder, count)
        floor_times, times = [], []
        for turn in range(3):
            server.client().flushall()
            floor_times.append(seconds(partial(floors.first_mirror, str(folder), server.url)))
            server.client().flushall()
            state = root / f"first-{count}-state-{turn}"
            with service(folder, state, server.url) as running:
                times.append(seconds(partial(settle, running)))
        floor_time, own_time = statistics.median(floor_times), statistics.median(times)
        yield Row(
            f"(b) first mirror of {count:,} files",
            f"{floor_time:.2f} s",
            f"{own_time:.2f} s",
            own_time / floor_time,
            2.5,
        )


def bench_restart(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(c) restart with nothing changed."""
    count = 10_000 if quick else 100_000
    folder, state = root / "restart", root / "restart-state"
    write_blocks(folder, count)
    server.client().flushall()
    with service(folder, state, server.url) as running:
        settle(running)
        # What was written just before it was read is looked at once more.
        time.sleep(0.1)
        running.core.intake.hint_all()
        settle(running)
    floor_times, times = [], []
    for _ in range(5):
        gc.collect()
        floor_times.append(seconds(lambda: floors.scan(str(folder))))
        gc.collect()
        begin = time.perf_counter()
        with service(folder, state, server.url) as running:
            settle(running)
            times.append(time.perf_counter() - begin)
    floor_time, own_time = statistics.median(floor_times), statistics.median(times)
    yield Row(
        f"(c) restart, {count:,} unchanged", f"{floor_time:.3f} s", f"{own_time:.3f} s", own_time / floor_time, 3.0
    )


def bench_burst(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(d) a burst of edits: the right end, nothing lost, and how long it takes."""
    edits, blocks = (1000 if quick else 10_000), 500
    folder = root / "burst"
    write_blocks(folder, blocks)
    server.client().flushall()
    with daemon(folder, root / "burst-state", server.url):
        subscriber = Subscriber(server.url, "blocks:changes")
        begin = time.perf_counter()
        for number in range(edits):
            one = number % blocks
            save(folder / "part0" / f"block{one}.md", f"{matter(one)}{BODY}{number}\n")
        written = time.perf_counter() - begin
        save(folder / "part0" / "last.md", "the end\n")
        changes = 0
        while b'part0/last"' not in subscriber.wait()["data"]:
            changes += 1
        level = time.perf_counter() - begin
        client = server.client()
        wrong = sum(
            client.hget(f"blocks:block:part0/block{one}", "value") != f"{BODY}{edits - blocks + one}"
            for one in range(blocks)
        )
        assert not wrong, f"{wrong} blocks are not what their files say"
    yield Row(
        f"(d) burst of {edits:,} saves",
        f"{written:.2f} s",
        f"{level:.2f} s",
        level / written,
        note=f"{changes:,} changes, all right",
    )


def bench_memory(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(e) the peak memory of the daemon."""
    count = 10_000 if quick else 100_000
    folder = root / "memory"
    write_blocks(folder, count)
    server.client().flushall()
    with daemon(folder, root / "memory-state", server.url) as process:
        peak = peak_memory(Path(f"/proc/{process.pid}/status").read_text())
    program = "import redis, yaml, sqlite3, watchdog.observers\nprint(open('/proc/self/status').read())"
    bare = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    floor = peak_memory(bare.stdout)
    yield Row(
        f"(e) peak memory, {count:,} blocks",
        f"{floor:.0f} MiB",
        f"{peak:.0f} MiB",
        peak / floor,
        note=f"{(peak - floor) * 1024 / count:.1f} KiB a block above the imports",
    )


def peak_memory(status: str) -> float:
    """In MiB, from what /proc says of a process."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")) / 1024


def settle(running: Service) -> None:
    """Rounds, until the folder is read and the mirror shows it."""
    core = running.core
    while not core.is_settled or core.projector.is_busy:
        for _ in core.round():
            pass


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def ms(value: float) -> str:
    return f"{value * 1000:.2f} ms"


BENCHMARKS = {
    "save": bench_save,
    "mirror": bench_mirror,
    "restart": bench_restart,
    "burst": bench_burst,
    "memory": bench_memory,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - BENCHMARKS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    print(f"{'':<48} {'floor':>10} {'blocksd':>10} {'ratio':>7} {'bound':>7}")
    for name in arguments.names or BENCHMARKS:
        root = Path(tempfile.mkdtemp(prefix="blocksd-benchmark-"))
        server = RedisServer(valkey_binary())
        server.start()
        try:
            for row in BENCHMARKS[name](server, root, quick=arguments.quick):
                ratio = f"{row.ratio:.2f}" if row.ratio is not None else ""
                bound = f"≤ {row.bound:g}" if row.bound is not None else ""
                print(f"{row.name:<48} {row.floor:>10} {row.blocksd:>10} {ratio:>7} {bound:>7}  {row.note}", flush=True)
        finally:
            server.remove()
            shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
