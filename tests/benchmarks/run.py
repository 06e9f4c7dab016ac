"""Measure blocksd against its floors, side by side in one run, and print the table of ratios.

    python tests/benchmarks/run.py            all of it (several minutes)
    python tests/benchmarks/run.py --quick    a tenth of it
    python tests/benchmarks/run.py save burst only these

Floor and blocksd take turns, edit by edit or run by run, so that a noisy machine is noisy for both. What counts is the
ratio of medians. Where there is a bound, the row says whether it is kept; if one is broken, the exit code is 1.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import io
import itertools
import json
import os
import random
import resource
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import copies
import over_http
import over_mcp
import redis
import woken

import blocksd
import floors
from blocksd.journal.journal import Journal
from blocksd.journal.pruning import compress
from blocksd.model.block import Block
from blocksd.model.prompt import compile_prompt
from blocksd.model.revision import timestamp
from blocksd.monitoring.log import EventLog
from blocksd.service.service import Service
from blocksd.settings.config import Config
from blocksd.state.state import State
from blocksd.state.state_draft import StateDraft
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

BODY = "A line of text, as people write them into memory blocks.\n" * 18


@dataclass(frozen=True)
class Row:
    """One line of the table. `bound` is what must not be passed, if anything: by `value`, in `unit`, or else by the ratio."""

    name: str
    floor: str
    blocksd: str
    ratio: float | None
    bound: float | None = None
    note: str = ""
    value: float | None = None
    unit: str = ""

    @property
    def is_broken(self) -> bool:
        """Return True if the bound is passed."""
        value = self.ratio if self.value is None else self.value
        return self.bound is not None and value is not None and value > self.bound

    def line(self) -> str:
        """The row as the table shows it."""
        ratio = f"{self.ratio:.2f}" if self.ratio is not None else ""
        bound = f"≤ {_number(self.bound)}{self.unit}" if self.bound is not None else ""
        kept = "" if self.bound is None else "BROKEN" if self.is_broken else "kept"
        return f"{self.name:<48} {self.floor:>10} {self.blocksd:>10} {ratio:>7} {bound:>10} {kept:<6}  {self.note}".rstrip()


def _number(bound: float) -> str:
    return f"{bound:,.0f}" if bound >= 1000 else f"{bound:g}"


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


def save(path: Path, text: str) -> float:
    """As editors do: a temporary file in the same directory, then a rename. Returns when that began, monotonic."""
    temporary = path.with_name(".benchmark-save")
    temporary.write_text(text)
    begin = time.monotonic()
    temporary.rename(path)
    return begin


@contextmanager
def service(folder: Path, state: Path, url: str, namespace: str = "blocks") -> Iterator[Service]:
    """A daemon in this process, on the thread it needs: used where the process is what is measured."""
    config = Config(folder=str(folder), redis=url, state_dir=str(state), namespace=namespace)
    running = Service(config, [EventLog(io.StringIO())])
    yield running
    running.close()


@contextmanager
def daemon(
    folder: Path, state: Path, url: str, *options: str, program: Sequence[str] = ("-m", "blocksd")
) -> Iterator[subprocess.Popen[str]]:
    """A daemon in a process of its own, ready."""
    words = [sys.executable, *program, "run", str(folder), "--redis", url, "--state-dir", str(state), *options]
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


@contextmanager
def floor_process(what: str, directory: Path, url: str, *more: str) -> Iterator[None]:
    """One of the floors that serve, in a process of its own."""
    words = [sys.executable, floors.__file__, what, str(directory), url, *more]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()
        process.wait()


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
    bare, piped = root / "floor", root / "floor-pipelined"
    bare.mkdir()
    piped.mkdir()
    small, large = root / "small", root / "large"
    write_blocks(small, 100)
    write_blocks(large, 10_000 if quick else 100_000)
    floor_times: list[float] = []
    piped_times: list[float] = []
    times: list[float] = []
    grown: list[float] = []
    with floor_process("saves", bare, server.url), floor_process("saves_pipelined", piped, server.url):
        with daemon(small, root / "small-state", server.url):
            bare_subscriber = Subscriber(server.url, "floor:changes")
            subscriber = Subscriber(server.url, "blocks:changes")
            for number in range(edits):
                time_saves(bare / "x.md", matter(0), bare_subscriber, floor_times, str(number))
                time_saves(piped / "y.md", matter(0), bare_subscriber, piped_times, str(number))
                one = number % 100
                time_saves(small / "part0" / f"block{one}.md", matter(one), subscriber, times, str(number))
        for share, what, theirs, bound in (
            (0.5, "", floor_times, 1.4),
            (0.99, "", floor_times, 1.5),
            (0.5, ", pipelined floor", piped_times, 1.8),
        ):
            bare_time, own_time = percentile(theirs, share), percentile(times, share)
            name = f"(a) save → subscriber, p{share * 100:.0f}{what}"
            yield Row(name, ms(bare_time), ms(own_time), own_time / bare_time, bound)
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
        yield Row(f"(a) one save, of 100 → of {count:,} blocks, p50", ms(few), ms(many), many / few, 1.1)


def bench_woken(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(a) the steps of a save from when it has woken a process, each beside its bare calls in Python, in the best quarter."""
    edits = 200 if quick else 2000
    bare, folder, result = root / "floor", root / "woken", root / "woken.json"
    bare.mkdir()
    write_blocks(folder, 100)
    floor_times: list[float] = []
    times: list[float] = []
    with floor_process("saves_kept", bare, server.url):
        with daemon(folder, root / "woken-state", server.url, program=(woken.__file__, str(result))):
            bare_subscriber = Subscriber(server.url, "floor:changes")
            subscriber = Subscriber(server.url, "blocks:changes")
            for number in range(edits):
                one = number % 100
                time_saves(bare / f"block{one}.md", matter(one), bare_subscriber, floor_times, str(number))
                time_saves(folder / "part0" / f"block{one}.md", matter(one), subscriber, times, str(number))
        floor_steps = json.loads(server.client().get("floor:steps"))
    own_steps = json.loads(result.read_text())
    between = [said["all"] - sum(said[name] for name in woken.STEPS) for said in (floor_steps, own_steps)]
    for name, what in woken.STEPS.items():
        yield Row(f"(a) {what}", us(floor_steps[name]), us(own_steps[name]), own_steps[name] / floor_steps[name])
    yield Row("(a) between the steps", us(max(0.0, between[0])), us(between[1]), None)
    yield Row("(a) woken → sent", us(floor_steps["all"]), us(own_steps["all"]), own_steps["all"] / floor_steps["all"])
    yield median_row("(a) save → subscriber, beside these steps", floor_times, times, 2.2)


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
            1.5,
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
        f"(c) restart, {count:,} unchanged", f"{floor_time:.3f} s", f"{own_time:.3f} s", own_time / floor_time, 2.0
    )


def bench_departed(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(i) agents that came and went: what they leave at once in Redis and the journal, and how long a start takes then."""
    yield from sessions_rows(server, root, sessions=50 if quick else 500)
    count = 10_000 if quick else 100_000
    folder, places = root / "departed", ("without", "with")
    write_blocks(folder, 10_000)
    for place in places:
        state = root / f"departed-{place}"
        with service(folder, state, server.url, place) as running:
            settle(running)
            time.sleep(0.1)  # as in `bench_restart`
            running.core.intake.hint_all()
            settle(running)
        if place == "with":
            note_departed(state / "journal.db", count)
            for key in server.client().scan_iter(f"{place}:*", count=1000):
                server.client().delete(key)
            with service(folder, state, server.url, place) as running:
                settle(running)
    times: defaultdict[str, list[float]] = defaultdict(list)
    for _ in range(9):
        for place in places:
            gc.collect()
            begin = time.perf_counter()
            with service(folder, root / f"departed-{place}", server.url, place) as running:
                settle(running)
                times[place].append(time.perf_counter() - begin)
    few, many = (statistics.median(times[place]) for place in places)
    name = f"(i) start, 10,000 blocks, 0 → {count:,} departed"
    yield Row(name, ms(few), ms(many), many / few, 1.5, "none of what they had is forgotten yet")


def note_departed(path: Path, count: int) -> None:
    """Put into a journal what so many agents leave that had a block of 1 KiB, changed it once, and were deleted."""
    journal = Journal(str(path))
    state = State(journal)
    for first in range(0, count, 500):
        labels = [f"agents/session-{number:06}/notes" for number in range(first, min(first + 500, count))]
        for value in (BODY, BODY + "more\n", None):
            draft = StateDraft(state, timestamp(time.time()))
            for label in labels:
                if value is None:
                    draft.delete(label)
                else:
                    draft.enforce(label, f"{label}.md")
                    draft.put(Block(label, value=value))
            journal.append(draft.revisions, {label: (f"{label}.md", None) for label in labels if value is not None})
            draft.apply()
        compress(journal, labels)
        draft = StateDraft(state, timestamp(time.time()))
        draft.set_folders(())
        draft.apply()
    journal.close()


def sessions_rows(server: RedisServer, root: Path, *, sessions: int) -> Iterator[Row]:
    """Sessions of create, append and delete with a daemon; what is there of it when the last one is over.

    A session writes two versions of its block, and two of the one for everybody: that it came and that it went.
    """
    folder, state = root / "sessions", root / "sessions-state"
    folder.mkdir()
    (folder / "shared.md").write_text(f"---\nagents: '*'\n---\n{BODY}")
    os.environ["BLOCKSD_DURABILITY"] = "process"
    counts, sizes = [], []
    for what, number in (("first", 1), ("more", sessions)):
        with (
            daemon(folder, state, server.url, "--namespace", "sessions"),
            blocksd.connect(server.url, "sessions") as client,
        ):
            for agent in [f"{what}-{one:06}" for one in range(number)]:
                client.agents.create(name=agent, memory_blocks=[{"label": "notes", "value": BODY}])
                client.memory(agent).append("notes", "a line")
                client.agents.delete(agent)
            counts.append(len(keys_of(server, "sessions")))
        sizes.append((state / "journal.db").stat().st_size)
    del os.environ["BLOCKSD_DURABILITY"]
    few, many = counts
    name = f"(i) keys in Redis after 1 → {sessions + 1} sessions"
    yield Row(name, f"{few}", f"{many}", many / few, 1.0, "but replies, which expire after 60 s")
    each, texts, bound = (sizes[1] - sizes[0]) / sessions, 4 * len(BODY), 12 * len(BODY)
    name = "(i) journal bytes per session, of its texts"
    yield Row(name, f"{texts:,}", f"{each:,.0f}", each / texts, bound, value=each, unit=" B")


def keys_of(server: RedisServer, namespace: str) -> list[str]:
    found = server.client().scan_iter(f"{namespace}:*", count=1000)
    return [key for key in found if not key.startswith(f"{namespace}:reply:")]


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


def bench_idle(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """What the daemon computes while nothing happens: the mirror is compared, all of it within ten minutes.

    Without polling, a sweep of the folder is in it. What is done once an hour (old versions are searched for) is not: it is
    waited for, since the first time is just after the start.
    """
    count, settled, measured = (10_000, 5.0, 10.0) if quick else (100_000, 150.0, 180.0)
    folder = root / "idle"
    write_blocks(folder, count)
    for options in ((), ("--poll",)):
        server.client().flushall()
        state = root / f"idle-state{''.join(options)}"
        # Polling, the folder is swept; that it is swept seldom leaves what the mirror costs.
        os.environ["BLOCKSD_POLL_SECONDS"] = "3600"
        with daemon(folder, state, server.url, *options) as process:
            time.sleep(settled)  # what was written just before it was read is looked at once more
            redis_pid = server.client().info("server")["process_id"]
            before, redis_before, begin = cpu_seconds(process.pid), cpu_seconds(redis_pid), time.monotonic()
            compared = server.client().info("commandstats").get("cmdstat_scard", {}).get("calls", 0)
            time.sleep(measured)
            elapsed = time.monotonic() - begin
            used = (cpu_seconds(process.pid) - before) / elapsed
            redis_used = (cpu_seconds(redis_pid) - redis_before) / elapsed
            compared = server.client().info("commandstats").get("cmdstat_scard", {}).get("calls", 0) - compared
        yield Row(
            f"idle, {count:,} blocks{', polling' if options else ''}",
            "",
            f"{used * 100:.2f} %",
            None,
            1.0,
            f"of a core; Redis {redis_used * 100:.2f} %; {compared / elapsed:.0f} blocks compared a second",
            value=used * 100,
            unit=" %",
        )


def bench_memory(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(e) the memory of the daemon: with 100 blocks, idle, and with many, at its peak.

    Compiled modules are kept, as where it is installed: else each start compiles redis-py, for which it takes much more.
    """
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = str(root / "compiled")
    program = "import redis, yaml, sqlite3, watchdog.observers\nprint(open('/proc/self/status').read())"
    words = [sys.executable, "-c", program]
    bare = [subprocess.run(words, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    floor = mebibytes(bare[-1], "VmHWM")

    def measured(name: str, count: int) -> str:
        folder = root / name
        write_blocks(folder, count)
        server.client().flushall()
        with daemon(folder, root / f"{name}-state", server.url) as process:
            time.sleep(3)
            return Path(f"/proc/{process.pid}/status").read_text()

    measured("compiling", 100)
    idle = mebibytes(measured("few", 100), "VmRSS")
    name = "(e) memory, idle with 100 blocks"
    yield Row(name, f"{floor:.0f} MiB", f"{idle:.0f} MiB", idle / floor, 40, value=idle, unit=" MiB")
    count = 10_000 if quick else 100_000
    peak = mebibytes(measured("many", count), "VmHWM")
    name, note = (
        f"(e) peak memory, {count:,} blocks",
        f"{(peak - floor) * 1024 / count:.1f} KiB a block above the imports",
    )
    yield Row(name, f"{floor:.0f} MiB", f"{peak:.0f} MiB", peak / floor, 120, note, peak, " MiB")


def mebibytes(status: str, name: str) -> float:
    """What /proc says of the memory of a process."""
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith(f"{name}:")) / 1024


FANS = (1, 50, 1000, 10_000)
"""To how many agents a block is attached, and how many subscribers follow it."""

Times = defaultdict[int, list[float]]
"""What was measured, in seconds, by the number of agents."""


@dataclass(frozen=True)
class Fan:
    """A block attached to all the agents of its daemon."""

    agents: int
    pid: int
    path: Path
    head: str
    namespace: str

    @property
    def channel(self) -> str:
        return f"{self.namespace}:changes:block:{self.path.stem}"

    def save(self, tag: object) -> float:
        """Change the body alone. Returns when the rename began."""
        return save(self.path, f"{self.head}{BODY}{tag}\n")


@contextmanager
def fans_of(agents: int, root: Path, url: str) -> Iterator[list[Fan]]:
    """A daemon with this many agents, and two blocks attached to them all: one lists them, the other has a pattern.

    Each number of agents has a daemon of its own: what many agents cost must not burden the block that has one.
    """
    folder, namespace = root / f"fan{agents}", f"fan{agents}"
    folder.mkdir()
    ids = ", ".join(f"helper-{number:05}" for number in range(agents))
    heads = {"listed": f"---\nagents: [{ids}]\n---\n", "by-pattern": '---\nagents: ["helper-*"]\n---\n'}
    for label, head in heads.items():
        (folder / f"{label}.md").write_text(head + BODY)
    with daemon(folder, root / f"{namespace}-state", url, "--namespace", namespace) as process:
        client: Any = redis.Redis.from_url(url)
        assert all(client.scard(f"{namespace}:attached:{label}") == agents for label in heads)
        yield [Fan(agents, process.pid, folder / f"{label}.md", head, namespace) for label, head in heads.items()]


def bench_follow(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(n) a follower: save on one host → file on another, beside save → subscriber; and the first copy of a folder."""
    count, edits = (2000, 100) if quick else (10_000, 1000)
    folder = root / "followed"
    write_blocks(folder, count)
    heard: list[float] = []
    arrived: list[float] = []
    bare: list[float] = []
    copied: list[float] = []
    with daemon(folder, root / "followed-state", server.url):
        for turn in range(3):
            bare.append(copies.bare_copy(folder, root / f"bare-copy-{turn}"))
            begin = time.perf_counter()
            with copies.follower(root / f"copy-{turn}", root / f"copy-{turn}-state", server.url):
                copied.append(time.perf_counter() - begin)
        with copies.follower(root / "copy-0", root / "copy-0-state", server.url):
            subscriber, arrivals = Subscriber(server.url, "blocks:changes"), copies.Arrivals(root / "copy-0" / "part0")
            for number in range(edits):
                one = number % 100
                path = folder / "part0" / f"block{one}.md"
                time_saves(path, matter(one), subscriber, heard, f"h{number}")
                arrivals.wait_for(path.name)
                begin = time.perf_counter()
                save(path, f"{matter(one)}{BODY}a{number}\n")
                arrivals.wait_for(path.name)
                arrived.append(time.perf_counter() - begin)
                subscriber.wait()
                time.sleep(0.005)
            arrivals.close()
    floor_time, own_time = percentile(heard, 0.5), percentile(arrived, 0.5)
    name = "(n) save → file on another host, p50"
    yield Row(name, ms(floor_time), ms(own_time), own_time / floor_time, 3.0, "the floor is save → subscriber")
    floor_time, own_time = statistics.median(bare), statistics.median(copied)
    name = f"(n) first copy of {count:,} files"
    yield Row(
        name, f"{floor_time:.2f} s", f"{own_time:.2f} s", own_time / floor_time, 2.0, "with the start of a process"
    )


@contextmanager
def crowd(place: object, channel: str, count: int) -> Iterator[Callable[[], tuple[float, float]]]:
    """That many subscribers of a channel. What it yields waits for a message: when the first and the last had it."""
    words = [sys.executable, str(Path(__file__).with_name("crowd.py")), str(place), channel, str(count)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = process.stdout

    def heard() -> tuple[float, float]:
        first, last = map(float, lines.readline().split())
        return first, last

    try:
        assert lines.readline() == "ready\n", f"{count} subscribers cannot be had"
        yield heard
    finally:
        process.kill()
        process.wait()


def bench_fanout(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(f) one change to a block of many agents: what it costs the daemon, and when the last subscriber has it."""
    with ExitStack() as stack:
        listed, by_pattern = zip(
            *[stack.enter_context(fans_of(agents, root, server.url)) for agents in FANS], strict=True
        )
        for fans in (listed, by_pattern):
            yield from fanout_cost(server, fans, rounds=20 if quick else 100)
        yield from fanout_receipt(server, listed, rounds=20 if quick else 200)


def fanout_cost(server: RedisServer, fans: Sequence[Fan], *, rounds: int) -> Iterator[Row]:
    """What a save that changes the body alone costs the daemon, and rename → subscriber, each fan in its turn."""
    saves = 10
    subscribers = {fan.agents: Subscriber(server.url, fan.channel) for fan in fans}
    work: Times = defaultdict(list)
    times: Times = defaultdict(list)
    for turn in range(rounds):
        for fan in fans:
            before = cpu_seconds(fan.pid)
            for number in range(saves):
                begin = fan.save(f"{turn} {number}")
                subscribers[fan.agents].wait()
                times[fan.agents].append(time.monotonic() - begin)
                time.sleep(0.005)
            work[fan.agents].append((cpu_seconds(fan.pid) - before) / saves)
    for what, measured in (("CPU of a save", work), ("rename → subscriber", times)):
        few = statistics.median(measured[fans[0].agents])
        for fan in fans[1:]:
            many = statistics.median(measured[fan.agents])
            yield Row(f"(f) {what}, 1 → {fan.agents:,} {fan.path.stem}", ms(few), ms(many), many / few, 1.2)


def fanout_receipt(server: RedisServer, fans: Sequence[Fan], *, rounds: int) -> Iterator[Row]:
    """Rename → the last of as many subscribers as agents. The floor is a bare PUBLISH of the same bytes to them."""
    client = server.client()
    if not allow_connections(client, sum(fan.agents for fan in fans) + 100):
        yield Row(
            f"(f) rename → last of {fans[-1].agents:,} subscribers", "", "", None, note="too few connections allowed"
        )
        fans = fans[:-1]
    floor_times: Times = defaultdict(list)
    first_times: Times = defaultdict(list)
    times: Times = defaultdict(list)
    with ExitStack() as stack:
        crowds = {fan.agents: stack.enter_context(crowd(server.socket, fan.channel, fan.agents)) for fan in fans}
        for turn in range(rounds):
            for fan in fans:
                heard = crowds[fan.agents]
                begin = fan.save(f"receipt {turn}")
                first, last = heard()
                first_times[fan.agents].append(first - begin)
                times[fan.agents].append(last - begin)
                change = client.xrevrange(f"{fan.namespace}:changes", count=1)[0][1]["change"]
                begin = time.monotonic()
                client.publish(fan.channel, change)
                floor_times[fan.agents].append(heard()[1] - begin)
    for fan in fans:
        first, last, floor = (statistics.median(found[fan.agents]) for found in (first_times, times, floor_times))
        name = f"(f) rename → last of {fan.agents:,} subscribers"
        yield Row(name, ms(floor), ms(last), last / floor, note=f"the first has it after {ms(first)}")


def bench_prompt(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """An agent's prompt of 20 blocks of 2 KiB; the floor is what the bare Redis commands take for the same blocks."""
    rounds = 100 if quick else 1000
    folder = root / "folder"
    (folder / "agents" / "ann").mkdir(parents=True)
    for number in range(20):
        text = f"---\ndescription: What is known about topic {number}.\n---\n" + "A line of a memory block.\n" * 80
        (folder / "agents" / "ann" / f"topic{number}.md").write_text(text[: 2048 + 60])
    with service(folder, root / "state", server.url) as running:
        settle(running)
    client = blocksd.connect(server.url)
    bare: Any = redis.Redis.from_url(server.url, decode_responses=True)
    memory = client.memory("ann")
    memory.compile()
    asked: list[float] = []
    ask = memory._transport.ask

    def timed(*commands: Any, **options: Any) -> list[Any]:
        begin = time.thread_time()
        try:
            return ask(*commands, **options)
        finally:
            asked.append(time.thread_time() - begin)

    floor_times, cold, beyond, scoped, plain, hgets = [], [], [], [], [], []
    memory._transport.ask = timed  # type: ignore[method-assign]
    for _ in range(rounds):
        begin = time.perf_counter()
        names = bare.hgetall("blocks:agent:ann")
        pipeline = bare.pipeline(transaction=False)
        for label in names.values():
            pipeline.hgetall(f"blocks:block:{label}")
        pipeline.execute()
        floor_times.append(time.perf_counter() - begin)
        memory._kept.forget()
        asked.clear()
        begin, computed = time.perf_counter(), time.thread_time()
        memory.compile()
        cold.append(time.perf_counter() - begin)
        beyond.append(time.thread_time() - computed - sum(asked))
        hgets.append(seconds(partial(bare.hgetall, "blocks:block:agents/ann/topic7")))
        plain.append(seconds(partial(client.blocks.retrieve, "agents/ann/topic7")))
        scoped.append(seconds(partial(client.agents.blocks.retrieve, "ann", "topic7")))
    blocks = memory.get_blocks()
    compiled = [seconds(lambda: compile_prompt(blocks)) for _ in range(10 * rounds)]
    warm = [seconds(lambda: [memory.compile() for _ in range(100)]) / 100 for _ in range(rounds)]
    median = statistics.median
    yield Row(
        "prompt of 20 blocks, cold", ms(median(floor_times)), ms(median(cold)), median(cold) / median(floor_times)
    )
    note = "CPU; blocks made of the replies included"
    yield Row("  beyond its round trips", "", us(median(beyond)), None, 60, note, median(beyond) * 1e6, " µs")
    yield Row("  blocks → text", "", us(median(compiled)), None, 25, value=median(compiled) * 1e6, unit=" µs")
    yield Row("prompt, nothing changed", "", us(median(warm)), None, 2, value=median(warm) * 1e6, unit=" µs")
    for what, times in (("a block by its label", plain), ("an agent's block by name", scoped)):
        yield Row(f"retrieve {what}", ms(median(hgets)), ms(median(times)), median(times) / median(hgets), 1.15)
    client.close()


def bench_show(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """`blocksd show` from the start of its process to the end; the floor is a Python that imports redis-py and does nothing."""
    folder = root / "folder"
    write_blocks(folder, 100)
    with service(folder, root / "state", server.url) as running:
        settle(running)
    # As installed: what is imported is compiled already.
    environ = {**os.environ, "BLOCKSD_CONFIG": os.devnull, "PYTHONPYCACHEPREFIX": str(root / "compiled")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    show = [sys.executable, "-m", "blocksd", "show", "part0/block7", "--redis", server.url]
    took: defaultdict[str, list[float]] = defaultdict(list)
    for turn in range(10 if quick else 40):
        for what, words in (("floor", [sys.executable, "-c", "import redis"]), ("show", show)):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            begin = time.perf_counter()
            subprocess.run(words, check=True, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
            if turn > 0:
                took[what].append(wall)
                cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
                took[f"{what}, CPU"].append(cpu)
    for what in ("", ", CPU"):
        bare, own = statistics.median(took[f"floor{what}"]), statistics.median(took[f"show{what}"])
        yield Row(f"`blocksd show`, start to end{what}", ms(bare), ms(own), own / bare, 1.5)


def bench_append(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """One durable append, request → reply; and eight clients on eight blocks against one."""
    rounds = 100 if quick else 500
    for durability in ("disk", "process"):
        folder = root / f"folder-{durability}"
        folder.mkdir()
        for number in range(9):
            (folder / f"block{number}.md").write_text("---\nlimit: 4000000\n---\nbegin\n")
        name = f"writing-{durability}"
        options = ("--namespace", name)
        os.environ["BLOCKSD_DURABILITY"] = durability
        with (
            daemon(folder, root / f"state-{durability}", server.url, *options),
            blocksd.connect(server.url, name) as client,
        ):
            floor = floors.Appending(server.url, root / f"floor-{durability}", is_durable=durability == "disk")
            theirs, ours = [], []
            for number in range(rounds):
                theirs.append(seconds(partial(floor.append, f"line {number}")))
                ours.append(seconds(partial(client.blocks.append, "block8", f"line {number}")))
            floor.close()
            bare = root / f"bare-{durability}"
            shutil.copytree(folder, bare)
            with floor_process("appends", bare, server.url, durability):
                bare_single, bare_eight = (throughput(server.url, "floor", labels, rounds) for labels in (ONE, EIGHT))
            single, eight = (throughput(server.url, name, labels, rounds) for labels in (ONE, EIGHT))
        median = statistics.median
        bound = 1.7 if durability == "disk" else 1.8
        yield Row(
            f"append, request → reply ({durability}), p50",
            ms(median(theirs)),
            ms(median(ours)),
            median(ours) / median(theirs),
            bound,
        )
        for what, before, after, note in (
            ("floor", bare_single, bare_eight, ""),
            ("blocksd", single, eight, "≥ 4 is meant, where the clients have cores of their own"),
        ):
            yield Row(
                f"  {what}: one → eight clients on eight ({durability})",
                f"{before:.0f}/s",
                f"{after:.0f}/s",
                after / before,
                None,
                note,
            )
    del os.environ["BLOCKSD_DURABILITY"]


def bench_journal(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """Bytes that appends take in the journal: of its log for each, and of its files in all, against one copy of each text."""
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(5000)]
    prose = " ".join(chance.choices(words, k=20_000))
    for chars, more, count, bound in ((19_000, 2, 20, 45_000), (9_000, 10, 100 if quick else 1000, 20_000)):
        folder, state, name = root / f"folder-{chars}", root / f"state-{chars}", f"journal-{chars}"
        folder.mkdir()
        (folder / "block.md").write_text(f"---\nlimit: 4000000\n---\n{prose[:chars]}\n")
        log = state / "journal.db-wal"
        with (
            daemon(folder, state, server.url, "--namespace", name),
            blocksd.connect(server.url, name) as client,
        ):
            before = log.stat().st_size
            texts = sum(len(client.blocks.append("block", "x" * (more - 1)).value) for _ in range(count))
            grown = log.stat().st_size - before
        size = sum(path.stat().st_size for path in state.glob("journal.db*"))
        each, of = (grown, "log") if chars > 10_000 else (size, "journal")
        yield Row(
            f"(h) {of} bytes per append of {more} to {chars:,} characters",
            f"{texts / count:,.0f}",
            f"{each / count:,.0f}",
            each / texts,
            bound,
            value=each / count,
            unit=" B",
        )


ASKING = 10
"""How many agents ask, in turn, of however many are known."""


@contextmanager
def known_agents(count: int, root: Path) -> Iterator[tuple[RedisServer, subprocess.Popen[str]]]:
    """A daemon that knows this many agents, on a server of its own. Some of them have a block to append to."""
    folder = root / f"known{count}"
    folder.mkdir()
    ids = [f"helper-{number:05}" for number in range(count)]
    (folder / "crowd.md").write_text(f"---\nagents: [{', '.join(ids)}]\n---\n{BODY}")
    for number in range(ASKING):
        head = f"---\nlimit: 4000000\nagents: [{asking(number, count)}]\n---\n"
        (folder / f"notes{number}.md").write_text(head)
    server = RedisServer(valkey_binary())
    server.start()
    try:
        with daemon(folder, root / f"known{count}-state", server.url) as process:
            yield server, process
    finally:
        server.remove()


def asking(number: int, count: int) -> str:
    """One of the agents that ask; they are spread over all."""
    return f"helper-{number * 7919 % count:05}"


class BareAgent:
    """Asks as a program in any language can: XADD, then BLPOP."""

    def __init__(self, url: str) -> None:
        self._client: Any = redis.Redis.from_url(url)
        self._number = 0

    def append(self, actor: str, name: str) -> None:
        self._number += 1
        request_id = f"bare-{self._number}"
        request = {"id": request_id, "op": "append", "name": name, "args": {"content": f"line {self._number}"}}
        self._client.xadd(f"blocks:inbox:{actor}", {"request": json.dumps(request)})
        reply = json.loads(self._client.blpop([f"blocks:reply:{actor}:{request_id}"], 30)[1])
        assert reply["ok"], reply

    def close(self) -> None:
        self._client.close()


def bench_batch(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(k) a batch of creations, appends and deletions in one request, beside the same system calls bare."""
    count, turns = (250, 3) if quick else (1000, 5)
    folder, bare = root / "batch", root / "batch-floor"
    folder.mkdir()
    bare.mkdir()
    db = sqlite3.connect(root / "floor.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("CREATE TABLE log (text TEXT)")
    client: Any = server.client()
    text = BODY[: len(BODY) // 2]  # a request of all of them has less than its limit of 1 MiB
    arguments = {"create": {"value": text}, "append": {"content": "more"}, "delete": {}}
    names = [f"block{number}" for number in range(count)]
    floor_times: dict[str, list[float]] = {op: [] for op in arguments}
    times: dict[str, list[float]] = {op: [] for op in arguments}
    with daemon(folder, root / "batch-state", server.url):
        for turn in range(turns):
            for op, args in arguments.items():
                floor_times[op].append(seconds(partial(floors.batch, op, bare, db, names, text)))
                time.sleep(2)  # what was displaced is removed a second later
                parts = [{"op": op, "label": name, "args": args} for name in names]
                request = json.dumps({"id": f"{op}-{turn}", "op": "batch", "args": {"requests": parts}})
                begin = time.perf_counter()
                client.xadd("blocks:inbox:operator", {"request": request})
                _, reply = client.blpop([f"blocks:reply:operator:{op}-{turn}"], 60)
                times[op].append(time.perf_counter() - begin)
                assert json.loads(reply)["ok"], reply
                time.sleep(2)
    db.close()
    for op in arguments:
        bare_time, own_time = statistics.median(floor_times[op]), statistics.median(times[op])
        yield Row(f"(k) {count:,} × {op} in one batch", ms(bare_time), ms(own_time), own_time / bare_time)


def bench_inbox(_server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(g) a request, of however many agents; what they cost when nothing happens; and beside a flood from one of them."""
    rounds = 10 if quick else 50
    few, many = 10, 10_000
    os.environ["BLOCKSD_DURABILITY"] = "process"  # else the disk hides what is measured
    with ExitStack() as stack:
        running = {count: stack.enter_context(known_agents(count, root)) for count in (few, many)}
        floor = floors.Appending(running[few][0].url, root / "floor", is_durable=False)
        ours: Times = defaultdict(list)
        bare: Times = defaultdict(list)
        theirs: list[float] = []
        urls = {count: server.url for count, (server, _) in running.items()}
        agents = {count: BareAgent(url) for count, url in urls.items()}
        clients = {count: stack.enter_context(blocksd.connect(url)) for count, url in urls.items()}
        memories = {
            (count, number): client.memory(asking(number, count))
            for count, client in clients.items()
            for number in range(ASKING)
        }
        for turn in range(rounds):
            for number in range(ASKING):
                theirs.append(rested(partial(floor.append, "a line")))
                for count in (few, many) if turn % 2 else (many, few):
                    ours[count].append(rested(partial(memories[count, number].append, f"notes{number}", "a line")))
                    bare[count].append(rested(partial(agents[count].append, asking(number, count), f"notes{number}")))
        floor.close()
        median = statistics.median
        for what, times, bound in (("client", ours, 1.1), ("XADD", bare, 1.5)):
            low, high = median(times[few]), median(times[many])
            yield Row(f"(g) append ({what}), {few} agents", ms(median(theirs)), ms(low), low / median(theirs))
            yield Row(f"(g) append ({what}), {few} → {many:,} agents", ms(low), ms(high), high / low, bound)
        yield idle_row(*running[many], agents=many, seconds=10 if quick else 70)
        yield from flood_rows(running[few][0], agents[few], few, rounds=rounds)
    del os.environ["BLOCKSD_DURABILITY"]


def rested(work: Callable[[], object]) -> float:
    """How long it takes when what was done before is over, also behind the reply."""
    time.sleep(0.003)
    return seconds(work)


def idle_row(server: RedisServer, process: subprocess.Popen[str], *, agents: int, seconds: int) -> Row:
    """How much of a core a daemon and its server use while nothing happens, in percent."""
    server_pid = server.client().info()["process_id"]
    before = cpu_seconds(process.pid), cpu_seconds(server_pid)
    time.sleep(seconds)
    daemon_share, server_share = (
        (cpu_seconds(pid) - begin) / seconds * 100 for pid, begin in zip((process.pid, server_pid), before, strict=True)
    )
    both = daemon_share + server_share
    note = f"of a core; the server alone {server_share:.2f} %"
    return Row(f"(g) idle, {agents:,} agents, daemon and server", "", f"{both:.2f} %", None, 1.0, note, both, " %")


FLOODS = {
    "no field": {"other": "x"},
    "no JSON": {"request": "x" * 200},
    "no id": {"request": '{"op": "append", "label": "notes"}'},
    "refused": {"request": '{"id": "f", "op": "no such op"}'},
}


def flood_rows(server: RedisServer, agent: BareAgent, count: int, *, rounds: int) -> Iterator[Row]:
    """The p99 of others, while one agent sends 10,000 entries a second that are no requests, of each kind.

    Quiet and loud take turns.
    """
    client = server.client()
    key = f"blocks:inbox:{asking(0, count)}"
    script = str(Path(__file__).with_name("flood.py"))

    def measure() -> list[float]:
        return [
            seconds(partial(agent.append, asking(number, count), f"notes{number}"))
            for _ in range(rounds)
            for number in range(1, ASKING)
        ]

    for what, entry in FLOODS.items():
        quiet, loud, left = [], [], 0
        for _ in range(4):
            quiet += measure()
            words = [sys.executable, script, server.url, key, json.dumps(entry)]
            process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
            assert process.stdout is not None
            process.stdout.readline()
            try:
                loud += measure()
            finally:
                process.kill()
                process.wait()
            left = max(left, client.xlen(key))
            deadline = time.monotonic() + 60
            while client.xlen(key) and time.monotonic() < deadline:
                time.sleep(0.05)
        before, after = percentile(quiet, 0.99), percentile(loud, 0.99)
        note = f"p50 {ms(statistics.median(quiet))} → {ms(statistics.median(loud))}, {left:,} are left"
        yield Row(f"(g) p99 beside 10,000/s of {what!r}", ms(before), ms(after), after / before, 5.0, note)
    client.close()


def bench_http(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(k) the gateway: one block by its id, and one durable update."""
    folder = root / "http"
    write_blocks(folder, 100)
    label = "part0/block7"
    with daemon(folder, root / "http-state", server.url), blocksd.connect(server.url) as client:
        block = client.blocks.retrieve(label)
        ports = over_http.free_port(), over_http.free_port()
        with (
            floor_process("http", root, server.url, str(ports[0])),
            over_http.gateway(server.url, ports[1]),
            over_http.Caller(ports[0]) as bare,
            over_http.Caller(ports[1]) as gateway,
        ):
            values = (f"{BODY}{number}" for number in itertools.count())
            yield over_http_row(
                "(k) retrieve by id over HTTP",
                lambda: bare.get(f"/block/{label}"),
                lambda: gateway.get(f"/v1/blocks/{block.id}"),
                1.3,
                rounds=500 if quick else 5000,
            )
            yield over_http_row(
                "(k) durable update: Redis client → over HTTP",
                lambda: client.blocks.update(block.id, value=next(values)),
                lambda: gateway.patch(f"/v1/blocks/{block.id}", {"value": next(values)}),
                1.2,
                rounds=100 if quick else 1000,
            )


def bench_streams(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(l) server-sent events: one client beside a bare subscriber, a thousand beside a bare loop, and their memory."""
    folder, port, floor_port = root / "streams", over_http.free_port(), over_http.free_port()
    write_blocks(folder, 100)
    count, rounds = 1000, 20 if quick else 200
    allow_connections(server.client(), 5000)
    path = folder / "part0" / "block7.md"
    with (
        daemon(folder, root / "streams-state", server.url),
        floor_process("streams", root, server.url, str(floor_port)),
        over_http.gateway(server.url, port) as process,
        over_http.Caller(port) as caller,
        crowd(server.socket, "blocks:changes", 1) as bare,
    ):
        caller.get("/v1/health")
        with crowd(port, "/api/changes", 1) as one:
            floor_times, times = [], []
            for number in range(10 * rounds):
                begin = save(path, f"{matter(7)}{BODY}{number}\n")
                floor_times.append(bare()[1] - begin)
                times.append(one()[1] - begin)
                time.sleep(0.005)
            yield median_row("(l) save → subscriber → client of the stream", floor_times, times, 1.5)
        before = resident(process.pid)
        with crowd(floor_port, "/", count) as floor, crowd(port, "/api/changes", count) as streams:
            after = resident(process.pid)
            publisher = server.client()
            floor_times, times = [], []
            for number in range(rounds):
                begin = save(path, f"{matter(7)}{BODY}. {number}\n")
                times.append(streams()[1] - begin)
                bare()
                text = json.dumps({"label": "part0/block7", "more": "x" * 500})
                begin = time.monotonic()
                publisher.publish("floor:changes", text)
                floor_times.append(floor()[1] - begin)
            yield median_row(f"(l) change → the last of {count:,} clients", floor_times, times, 3.0)
        each = (after - before) / count
        yield Row("(l) memory of a client that waits", "", f"{each:.0f} KiB", None, 60, value=each, unit=" KiB")


def bench_garbage(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(m) a minute of 1,000 requests a second of garbage: other callers of the gateway, its answers and its memory."""
    folder, port = root / "garbage", over_http.free_port()
    write_blocks(folder, 100)
    length = 6 if quick else 60
    with (
        daemon(folder, root / "garbage-state", server.url),
        over_http.gateway(server.url, port) as process,
        over_http.Caller(port) as caller,
    ):

        def measure(until: Callable[[], bool]) -> list[float]:
            times = []
            while not until():
                times.append(seconds(lambda: caller.get("/v1/blocks/part0%2Fblock7")))
                time.sleep(0.01)
            return times

        flood = [sys.executable, str(Path(__file__).with_name("garbage.py")), str(port)]
        subprocess.run([*flood, "3"], check=True, stdout=subprocess.DEVNULL)  # what is loaded at the first time
        end = time.monotonic() + length / 2
        quiet = measure(lambda: time.monotonic() > end)
        before = resident(process.pid)
        with subprocess.Popen([*flood, str(length)], stdout=subprocess.PIPE, text=True) as sender:
            loud = measure(lambda: sender.poll() is not None)
            assert sender.stdout is not None
            statuses = json.load(sender.stdout)
        grown = (resident(process.pid) - before) / 1024
        sent = sum(statuses.values())
        failed = sum(number for status, number in statuses.items() if status.startswith("5"))
        few, many = percentile(quiet, 0.99), percentile(loud, 0.99)
        note = f"p50 {ms(statistics.median(quiet))} → {ms(statistics.median(loud))}, {sent / length:.0f} a second"
        yield Row("(m) p99 of a reader, quiet → beside garbage", ms(few), ms(many), many / few, 5.0, note)
        yield Row("(m) answers 5xx to garbage", "", str(failed), None, 0, str(statuses), value=failed)
        yield Row("(m) memory after it", "", f"{grown:+.1f} MiB", None, 8, value=grown, unit=" MiB")


def bench_mcp(server: RedisServer, root: Path, *, quick: bool) -> Iterator[Row]:
    """(l) a tool call over stdio, beside the same by the Python client and an empty tool of the same SDK."""
    (root / "mcp").mkdir()
    with daemon(root / "mcp", root / "mcp-state", server.url):
        times = asyncio.run(over_mcp.measured(server.url, 200 if quick else 2000))
        empty, ours = map(statistics.median, asyncio.run(over_mcp.starts(server.url, 3 if quick else 10)))
    p50 = {name: statistics.median(some) for name, some in times.items()}
    for tool, call in (("memory_append", "append"), ("memory_view", "view")):
        floor, own = p50[call] + p50["nothing"], p50[tool]
        note = f"client {ms(p50[call])} + empty tool {ms(p50['nothing'])}"
        yield Row(f"(l) {tool} over stdio, p50", ms(floor), ms(own), own / floor, 1.3, note)
    yield Row("(l) start of the server → handshake answered", f"{empty:.2f} s", f"{ours:.2f} s", ours / empty, 1.5)


def resident(pid: int) -> float:
    """How many KiB of memory a process has."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(float(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))


def over_http_row(
    name: str, floor: Callable[[], object], product: Callable[[], object], bound: float, *, rounds: int
) -> Row:
    """A row for the run in the middle, of three: floor and gateway take turns, and either is the first."""
    rows = []
    for _ in range(3):
        floor_times, times = [], []
        for _ in range(rounds // 2):
            floor_times.append(seconds(floor))
            times += [seconds(product), seconds(product)]
            floor_times.append(seconds(floor))
        rows.append(median_row(name, floor_times, times, bound))
    rows.sort(key=lambda row: row.ratio or 0)
    return replace(rows[1], note=f"of three runs: {', '.join(f'{row.ratio:.2f}' for row in rows)}")


def median_row(name: str, floor_times: list[float], times: list[float], bound: float) -> Row:
    """A row for the medians of a floor and of the gateway."""
    bare, own = statistics.median(floor_times), statistics.median(times)
    return Row(f"{name}, p50", ms(bare), ms(own), own / bare, bound)


ONE, EIGHT = ["block0"], [f"block{number}" for number in range(1, 9)]


def throughput(url: str, namespace: str, labels: Sequence[str], count: int) -> float:
    """Appends a second, by one process for each of the blocks."""
    words = [sys.executable, "-c", _APPENDER, url, namespace, str(count)]
    processes = [subprocess.Popen([*words, label], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for label in labels]
    for process in processes:
        assert process.stdout is not None
        process.stdout.readline()
    begin = time.perf_counter()
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    for process in processes:
        process.wait(300)
    return count * len(labels) / (time.perf_counter() - begin)


_APPENDER = """
import json, sys, redis
url, namespace, count, label = sys.argv[1:]
client = redis.Redis.from_url(url)
client.ping()
print("ready", flush=True)
sys.stdin.read()
for number in range(int(count)):
    request = {"id": f"{label}-{number}", "op": "append", "label": label, "args": {"content": f"line {number}"}}
    client.xadd(f"{namespace}:inbox:operator", {"request": json.dumps(request)})
    reply = json.loads(client.blpop([f"{namespace}:reply:operator:{label}-{number}"], 30)[1])
    assert reply["ok"], reply
"""


def allow_connections(client: Any, count: int) -> bool:
    """Raise what limits the number of connections, of the processes started from here and of the server."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
        client.config_set("maxclients", count)
    except (ValueError, redis.ResponseError):
        return False
    return True


def cpu_seconds(pid: int) -> float:
    """How long a process has computed, in all its threads: its clock is the one clock_getcpuclockid(3) gives."""
    return time.clock_gettime(~pid << 3 | 2)


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


def us(value: float) -> str:
    return f"{value * 1e6:.1f} µs"


def ms(value: float) -> str:
    return f"{value * 1000:.2f} ms"


BENCHMARKS = {
    "save": bench_save,
    "woken": bench_woken,
    "mirror": bench_mirror,
    "restart": bench_restart,
    "departed": bench_departed,
    "burst": bench_burst,
    "memory": bench_memory,
    "idle": bench_idle,
    "fanout": bench_fanout,
    "follow": bench_follow,
    "prompt": bench_prompt,
    "show": bench_show,
    "append": bench_append,
    "batch": bench_batch,
    "inbox": bench_inbox,
    "journal": bench_journal,
    "http": bench_http,
    "streams": bench_streams,
    "garbage": bench_garbage,
    "mcp": bench_mcp,
}


def main() -> None:
    groups = [f"  {name:<10}{(bench.__doc__ or '').partition(chr(10))[0]}" for name, bench in BENCHMARKS.items()]
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n".join(["groups of rows:", *groups]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a group of rows (below; default: all)")
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - BENCHMARKS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    print(f"{'':<48} {'floor':>10} {'blocksd':>10} {'ratio':>7} {'bound':>10}")
    broken = []
    for name in arguments.names or BENCHMARKS:
        root = Path(tempfile.mkdtemp(prefix="blocksd-benchmark-"))
        server = RedisServer(valkey_binary())
        server.start()
        try:
            for row in BENCHMARKS[name](server, root, quick=arguments.quick):
                print(row.line(), flush=True)
                broken += [row] if row.is_broken else []
        finally:
            server.remove()
            shutil.rmtree(root, ignore_errors=True)
    if broken:
        sys.exit("\n".join([f"{len(broken)} bounds are broken:", *(f"  {row.name}" for row in broken)]))


if __name__ == "__main__":
    main()
