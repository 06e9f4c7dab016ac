"""What each step of a first mirror and of a restart takes beside the bare cost of the same step in Python.

    python tests/benchmarks/bulk.py [first|restart] [--files 10000]

Printed are µs of CPU time for each file, of the best of some runs in turns. The core runs without threads. Bare is what any
program needs that does the step with the same data, and nothing else.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import defaultdict
from functools import wraps
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import yaml
from run import service, settle, write_blocks

import blocksd.core.core
import floors
from blocksd.core.intake import Intake
from blocksd.core.scanner import Scanner
from blocksd.core.verifier import Verifier
from blocksd.journal.heads import _COLUMNS
from blocksd.journal.journal import Journal
from blocksd.mirror.mirror import Mirror
from blocksd.mirror.script import packed
from blocksd.state.overlay import Overlay
from blocksd.state.state import State
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Costs = dict[str, float]
_RUNS = 5


class Meter:
    """CPU time by step: that of a step is without what is metered within it."""

    def __init__(self) -> None:
        self.costs: defaultdict[str, float] = defaultdict(float)
        self._within = [0.0]

    def measure(self, step: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, metered."""

        @wraps(work)
        def measured(*words: Any, **more: Any) -> Any:
            begin = time.process_time()
            self._within.append(0.0)
            try:
                return work(*words, **more)
            finally:
                took = time.process_time() - begin
                self.costs[step] += took - self._within.pop()
                self._within[-1] += took

        return measured


STEPS: dict[str, dict[str, list[tuple[Any, str]]]] = {
    "first": {
        "sweep": [(Scanner, "step")],
        "read": [(Intake, "read")],
        "decide": [(blocksd.core.core, "decide")],
        "journal": [(Journal, "append"), (Journal, "bound_log")],
        "commands": [(Mirror, "project")],
        "send": [(Mirror, "_send"), (Mirror, "wait")],
        "put into force": [(Overlay, "apply"), (Intake, "follow")],
        "verify": [(Verifier, "step")],
    },
    "restart": {"sweep": [(Scanner, "step")], "read heads": [(State, "load")]},
}


def ours(what: str, folder: Path, state: Path, server: RedisServer) -> tuple[Costs, list[tuple[str, ...]]]:
    """What the daemon takes, and the arguments of its calls of the server."""
    meter, kept, sent = Meter(), list[tuple[Any, str, Any]](), list[tuple[str, ...]]()
    for step, places in STEPS[what].items():
        for owner, name in places:
            kept.append((owner, name, getattr(owner, name)))
            setattr(owner, name, meter.measure(step, getattr(owner, name)))
    try:
        begin = time.process_time()
        with service(folder, state, server.url) as running:
            if what == "first":
                script = running.core.projector._mirror._apply
                send = script.send
                script.send = lambda keys, words: (sent.append(words), send(keys, words))  # type: ignore[method-assign,func-returns-value,assignment]
            settle(running)
            meter.costs["all"] = time.process_time() - begin
    finally:
        for owner, name, work in kept:
            setattr(owner, name, work)
    meter.costs["the rest"] = meter.costs["all"] - sum(meter.costs[step] for step in STEPS[what])
    return meter.costs, sent


def bare_first(folder: Path, state: Path, sent: list[tuple[str, ...]], server: RedisServer) -> Costs:
    """The same steps, with the files, rows and commands that the daemon had."""
    meter, texts = Meter(), list[tuple[str, Any, str]]()

    def read() -> None:
        for path in floors._files(str(folder)):
            handle = os.open(path, os.O_RDONLY)
            text = os.read(handle, os.fstat(handle).st_size + 1).decode()
            os.close(handle)
            _, matter, value = text.split("---\n", 2)
            texts.append((path, yaml.load(matter, Loader=yaml.CSafeLoader), value))

    def decide() -> None:
        known: dict[str, Any] = {}
        for path, fields, value in texts:
            if known.get(path) is None:
                known[path] = blake2b(f"{json.dumps(fields)}\n{value}".encode(), digest_size=16).hexdigest()

    with sqlite3.connect(f"file:{state / 'journal.db'}?mode=ro", uri=True) as source:
        tables = {name: source.execute(f"SELECT * FROM {name}").fetchall() for name in ("revisions", "heads")}
        made = [
            sql for (sql,) in source.execute("SELECT sql FROM sqlite_master WHERE tbl_name IN ('revisions', 'heads')")
        ]
    source.close()
    target = sqlite3.connect(state / "bare.db", isolation_level=None)
    target.execute("PRAGMA journal_mode=WAL")
    target.execute("PRAGMA synchronous=NORMAL")
    for sql in filter(None, made):
        target.execute(sql)

    def journal() -> None:
        for first in range(0, len(tables["heads"]), 256):
            target.execute("BEGIN")
            for name, rows in tables.items():
                marks = ", ".join("?" * len(rows[0]))
                target.executemany(f"INSERT INTO {name} VALUES ({marks})", rows[first : first + 256])
            target.execute("COMMIT")

    client: Any = server.client()
    connection = client.connection_pool.get_connection()

    def send() -> None:
        for words in sent:  # to a command that answers with a number, and keeps nothing
            connection.send_packed_command(packed("DEL", *words))
            connection.read_response()

    meter.measure("sweep", floors.scan)(str(folder))
    for step, work in (("read", read), ("decide", decide), ("journal", journal), ("send", send)):
        meter.measure(step, work)()
    target.close()
    os.unlink(state / "bare.db")
    return meter.costs


def bare_restart(folder: Path, state: Path) -> Costs:
    """scandir and stat, and what the heads say taken over into dictionaries."""
    meter = Meter()
    meter.measure("sweep", floors.scan)(str(folder))
    database = sqlite3.connect(f"file:{state / 'journal.db'}?mode=ro", uri=True)

    def read_heads() -> list[dict[str, str]]:
        _, labels, _, versions, entries, agents, *_ = database.execute(_COLUMNS).fetchone()
        names = labels.split("\n")
        return [dict(zip(names, column.split(","), strict=True)) for column in (versions, entries, agents)]

    meter.measure("read heads", read_heads)()
    database.close()
    return meter.costs


def rows(what: str, files: int) -> Iterator[tuple[str, float, float | None]]:
    """Each step: its name, ours and bare, in µs for each file."""
    root, server = Path(tempfile.mkdtemp(prefix="blocksd-bulk-")), RedisServer(valkey_binary())
    server.start()
    best: dict[str, Costs] = {"ours": {}, "bare": {}}
    try:
        folder, state = root / "blocks", root / "state"
        write_blocks(folder, files)
        if what == "restart":
            with service(folder, state, server.url) as running:
                settle(running)
                time.sleep(0.1)  # what was written just before it was read is looked at once more
                running.core.intake.hint_all()
                settle(running)
        for _ in range(_RUNS):
            if what == "first":
                server.client().flushall()
                shutil.rmtree(state, ignore_errors=True)
            gc.collect()
            own, sent = ours(what, folder, state, server)
            gc.collect()
            bare = bare_first(folder, state, sent, server) if what == "first" else bare_restart(folder, state)
            for whose, costs in (("ours", own), ("bare", bare)):
                for step, cost in costs.items():
                    best[whose][step] = min(cost, best[whose].get(step, cost))
    finally:
        server.remove()
        shutil.rmtree(root, ignore_errors=True)
    for step in (*STEPS[what], "the rest", "all"):
        bare_cost = best["bare"].get(step)
        yield step, best["ours"][step] * 1e6 / files, None if bare_cost is None else bare_cost * 1e6 / files


def main() -> None:
    """Print both tables, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=STEPS)
    parser.add_argument("--files", type=int, default=10_000)
    arguments = parser.parse_args()
    for what in (arguments.what,) if arguments.what else STEPS:
        print(f"{what}, µs a file{'bare':>20} {'ours':>8}")
        for step, own, bare in rows(what, arguments.files):
            print(f"  {step:<32}{'' if bare is None else f'{bare:.2f}':>8} {own:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
