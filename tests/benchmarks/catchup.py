"""Measure a follower's first copy, and how it catches up with changes that it did not hear, beside bare loops.

    python tests/benchmarks/catchup.py            10,000 files, and 100,000 changes each time (about three minutes)
    python tests/benchmarks/catchup.py --quick    a tenth of both, where starts and connections take the most

The changes are written to Redis as the daemon writes them, by its own script and with its own commands, but without files and
a journal of a leader, which would take minutes. Bare loops and followers take turns. A follower is `stopped`, and started
again, or its process is `paused`, as on a computer that sleeps; then its connection is lost, for Redis keeps no more than
32 MB for it.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import copies
from run import BODY, cpu_seconds, daemon, mebibytes, write_blocks

from blocksd.follow.place import NAME
from blocksd.mirror.connection import connect
from blocksd.mirror.keys import Keys
from blocksd.mirror.mirror import BATCH, Mirror
from blocksd.model.block import Block
from blocksd.model.revision import Revision, timestamp
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

TURNS = 3
BOUND = 2.0


def label_of(number: int) -> str:
    return f"part{number // 1000}/block{number}"


class Leader:
    """What a leader writes to Redis: the mirror of a folder whose daemon has stopped, and changes to it."""

    def __init__(self, url: str) -> None:
        self._client = connect(url)
        self._keys = Keys("blocks")
        epoch, seq = self._client.hmget(self._keys.meta, "epoch", "seq")
        self._mirror = Mirror(self._client, self._keys, url=url, epoch=epoch, token="benchmark", about={})
        self._versions: defaultdict[str, int] = defaultdict(lambda: 1)
        self.seq = int(seq)

    def change(self, numbers: Sequence[int], count: int) -> None:
        """Change these blocks in turn, so many times in all."""
        self._mirror.take_lease()
        several: list[Revision] = []
        for number in islice(cycle(numbers), count):
            self.seq += 1
            label, at = label_of(number), timestamp(time.time())
            self._versions[label] += 1
            block = Block(label, value=f"{BODY}{self.seq}")
            several.append(
                Revision(
                    *(self.seq, label, self._versions[label], "updated", block, at, at),
                    fields=("value",),
                    digest=block.digest,
                    is_reformed=False,
                )
            )
            if len(several) == BATCH:
                self._mirror.project(several)
                several.clear()
                if self.seq % 20 == 0:
                    self._mirror.renew_lease()
        if several:
            self._mirror.project(several)
        self._mirror.wait()

    def trim(self) -> None:
        """Keep no change in the stream."""
        self._client.xtrim(self._keys.changes, maxlen=0, approximate=False)


@dataclass(frozen=True)
class Spent:
    """What a piece of work took: seconds by the clock, and of CPU."""

    clock: float
    cpu: float


def measured(work: Callable[[], object], cpu: Callable[[], float] = time.process_time) -> Spent:
    before, begin = cpu(), time.perf_counter()
    work()
    return Spent(time.perf_counter() - begin, cpu() - before)


class Report:
    """Collects what floors and followers took, in turns, and prints a row for each pair."""

    def __init__(self, *, has_bounds: bool) -> None:
        self._has_bounds = has_bounds
        self._taken: defaultdict[str, list[Spent]] = defaultdict(list)
        self.broken: list[str] = []

    def add(self, name: str, spent: Spent) -> None:
        self._taken[name].append(spent)

    def row(self, what: str, floors: Sequence[str], own: str, *, is_bound: bool = False) -> None:
        """Print the medians; the floor is one piece of work, or several. With `is_bound`, the ratio has a bound."""
        theirs, ours = [self._of(floor) for floor in floors], self._of(own)
        clock, cpu = sum(one.clock for one in theirs), sum(one.cpu for one in theirs)
        kept = "" if not (is_bound and self._has_bounds) else "kept" if ours.clock <= BOUND * clock else "BROKEN"
        times = f"{clock:>7.2f} s {ours.clock:>7.2f} s {ours.clock / clock:>6.2f} {kept:<6}"
        print(f"{what:<62} {times} {cpu * 1000:>6.0f} ms {ours.cpu * 1000:>6.0f} ms {ours.cpu / cpu:>6.2f}", flush=True)
        if kept == "BROKEN":
            self.broken.append(what)

    def _of(self, name: str) -> Spent:
        taken = self._taken[name]
        return Spent(*(statistics.median(getattr(one, what) for one in taken) for what in ("clock", "cpu")))


def started(report: Report, name: str, where: Path, url: str) -> float:
    """Have a follower start and catch up; its peak memory in MiB."""
    begin = time.perf_counter()
    with copies.follower(where, where.with_name(f"{where.name}-state"), url) as process:
        report.add(name, Spent(time.perf_counter() - begin, cpu_seconds(process.pid)))
        return mebibytes(Path(f"/proc/{process.pid}/status").read_text(), "VmHWM")


def first_copies(server: RedisServer, root: Path, report: Report, count: int) -> None:
    """The first copy of a folder."""
    folder, peaks = root / "leader", list[float]()
    write_blocks(folder, count)
    with daemon(folder, root / "leader-state", server.url):
        pass
    texts = copies.texts_of(folder)
    for turn in range(TURNS):
        for how in copies.SYNCS:
            target = root / f"bare-{how}-{turn}"
            report.add(f"copy, {how}", measured(partial(copies.write_all, texts, target, how)))
        peaks.append(started(report, "copy", root / f"copy-{turn}", server.url))
        started(report, "start", root / f"copy-{turn}", server.url)
    for how, what in copies.SYNCS.items():
        name = f"first copy of {count:,} files; the floor {what}"
        report.row(name, [f"copy, {how}"], "copy", is_bound=how == "each")
    report.row("  of it, the start of the process, beside the first of these", ["copy, each"], "start")
    print(f"  peak memory of the follower: {max(peaks):.0f} MiB")


def go_on(process: subprocess.Popen[str], state: Path, seq: int) -> None:
    """Let a paused follower go on; return when it has noted this change as its place."""
    process.send_signal(signal.SIGCONT)
    with closing(sqlite3.connect(f"file:{state / NAME}?mode=ro", uri=True, isolation_level=None)) as place:
        deadline = time.monotonic() + 120
        while place.execute("SELECT value FROM facts WHERE name = 'seq'").fetchone()[0] != str(seq):
            assert time.monotonic() < deadline, "it does not catch up"
            time.sleep(0.005)


def catches_up(server: RedisServer, root: Path, report: Report, count: int, changes: int) -> None:
    """A follower that was stopped, or paused, while there were many changes."""
    leader, copy, state = Leader(server.url), root / "copy-0", root / "copy-0-state"
    few = max(1, count // 1000)
    cases = [
        ("all in the stream", list(range(0, count, 10)), False),
        ("the stream is trimmed", list(range(3, count, 10)), True),
        ("all in the stream", list(range(0, count, count // few)), False),
    ]
    everything = [label_of(number) for number in range(count)]
    for kept, numbers, is_trimmed in cases:
        name = f"{changes:,} changes of {len(numbers):,} files, {kept}"
        labels = [label_of(number) for number in numbers]
        for _ in range(TURNS):
            for how in ("stopped", "paused"):
                if how == "stopped":
                    miss(leader, numbers, changes, is_trimmed=is_trimmed)
                    started(report, f"{name}, {how}", copy, server.url)
                else:
                    with copies.follower(copy, state, server.url) as process:
                        process.send_signal(signal.SIGSTOP)
                        miss(leader, numbers, changes, is_trimmed=is_trimmed)
                        spent = measured(partial(go_on, process, state, leader.seq), partial(cpu_seconds, process.pid))
                        report.add(f"{name}, {how}", spent)
                for syncs in copies.SYNCS:
                    target = root / f"bare-{syncs}-0"
                    work = partial(copies.fetch_and_write, server.url, labels, target, syncs)
                    report.add(f"{name}, {syncs}", measured(work))
                report.add(f"{name}, find", measured(partial(copies.find_differing, server.url, everything, {})))
        check(root, copy, numbers)
        print(name)
        for how in ("stopped", "paused"):
            for syncs, what in copies.SYNCS.items():
                bound = syncs == "each" and len(numbers) > few  # to find a few takes more than to write them
                report.row(f"  {how}; the floor {what}", [f"{name}, {syncs}"], f"{name}, {how}", is_bound=bound)
            floors = [f"{name}, find", f"{name}, each"]
            report.row(f"  {how}; the floor finds which differ, and syncs each", floors, f"{name}, {how}")


def miss(leader: Leader, numbers: Sequence[int], changes: int, *, is_trimmed: bool) -> None:
    """Make changes that the follower does not hear."""
    leader.change(numbers, changes)
    if is_trimmed:
        leader.trim()


def check(root: Path, copy: Path, numbers: Sequence[int]) -> None:
    """Check that floors and follower have written the same."""
    for number in numbers:
        path = f"{label_of(number)}.md"
        texts = {(where / path).read_bytes() for where in (copy, *(root / f"bare-{one}-0" for one in copies.SYNCS))}
        assert len(texts) == 1, path


def main() -> None:
    """Print what each takes beside its floors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the size")
    is_quick = parser.parse_args().quick
    count, changes = (1000, 10_000) if is_quick else (10_000, 100_000)
    root, server = Path(tempfile.mkdtemp(prefix="blocksd-catchup-")), RedisServer(valkey_binary())
    report = Report(has_bounds=not is_quick)
    server.start()
    print(f"{'':<62} {'floor':>9} {'follower':>9} {'ratio':>6} {'≤ 2':<6} {'CPU':>9} {'CPU':>9} {'ratio':>6}")
    try:
        first_copies(server, root, report, count)
        catches_up(server, root, report, count, changes)
    finally:
        server.remove()
        shutil.rmtree(root, ignore_errors=True)
    if report.broken:
        sys.exit("\n".join([f"{len(report.broken)} bounds are broken:", *report.broken]))


if __name__ == "__main__":
    main()
