"""What each step of a change takes beside the bare cost of the same step in Python, in turns, in one process.

    python tests/benchmarks/steps.py [disk|process]

The core runs without threads, so that nothing is in it of waits, changes of threads and the client. Printed are µs, of the
best quarter. What is not in the floor's column has nothing like it there: it is what tells who changed what, keeps every
version, and loses nothing in a crash.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import sqlite3
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from instructions import Alone

if TYPE_CHECKING:
    from collections.abc import Iterator

_TIMES = 400
_libc = ctypes.CDLL(None)

APPEND = {
    "decide": "parse the request, read the file, make the new text and the reply",
    "stage": "the new text in a file beside it",
    "flush": "wait until that is on disk",
    "prepare": "one commit",
    "put in": "exchange the files; on disk, sync their directory",
    "project": "the block, the change and the reply, sent in one call",
    "finish": "after the reply: the revision in force, one commit",
    "clear away": "after the reply: look at what was displaced, remove it",
    "mirror": "after the reply: read Redis' answer",
}
"""The steps of an append, by the effect that each begins with."""


class BareAppend:
    """The same steps with nothing but the system calls and commands that any program needs for them."""

    def __init__(self, directory: Path, client: Any, *, is_durable: bool) -> None:
        directory.mkdir()
        self._path = str(directory / "block.md")
        Path(self._path).write_text("---\nagents: [ann]\n---\n" + "A line of text, as people write them.\n" * 25)
        self._folder = os.open(directory, os.O_RDONLY)
        self._client = client
        self._is_durable = is_durable
        self._db = sqlite3.connect(directory / "floor.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
        self._db.execute("CREATE TABLE log (text TEXT)")

    def steps(self, number: int) -> Iterator[str]:
        """Append once; yields the name of each step before it."""
        asked = json.dumps({"id": f"r{number}", "op": "append", "args": {"content": f"line {number}"}})
        yield "decide"
        request = json.loads(asked)
        with open(self._path, encoding="utf-8") as file:
            text = file.read() + request["args"]["content"] + "\n"
        reply = json.dumps({"id": request["id"], "ok": True, "block": {"value": text}})
        yield "stage"
        handle = os.open(f"{self._path}.aside", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(handle, text.encode())
        if self._is_durable:
            yield "flush"
            os.fsync(handle)
        os.close(handle)
        yield "prepare"
        self._db.execute("INSERT INTO log VALUES (?)", (text,))
        yield "put in"
        _libc.renameat2(-100, os.fsencode(f"{self._path}.aside"), -100, os.fsencode(self._path), 2)
        if self._is_durable:
            os.fsync(self._folder)
        yield "project"
        pipeline = self._client.pipeline(transaction=False)
        pipeline.hset("floor:block", "value", text).publish("floor:changes", "block").rpush("floor:reply", reply)
        connection = self._client.connection_pool.get_connection()
        connection.send_packed_command(connection.pack_commands([args for args, _ in pipeline.command_stack]))
        yield "mirror"
        for _ in range(3):
            connection.read_response()
        self._client.connection_pool.release(connection)
        yield ""
        os.unlink(f"{self._path}.aside")
        self._client.delete("floor:reply")

    def close(self) -> None:
        self._db.close()
        os.close(self._folder)


def timed(steps: Iterator[str], times: dict[str, list[float]], first: str = "") -> None:
    """Go through the steps, and add how long each took, by its name; what comes before the first has the name `first`."""
    spent: defaultdict[str, float] = defaultdict(float)
    name, begin = first, time.perf_counter()
    for following in steps:
        spent[name] += time.perf_counter() - begin
        name, begin = following, time.perf_counter()
    spent[name] += time.perf_counter() - begin
    for name, seconds in spent.items():
        times[name].append(seconds)


def append_steps(home: Path, url: str, durability: str) -> Iterator[str]:
    """The rows of a table: a step, the floor's µs, ours, and what it is."""
    daemon = Alone(home, url, "steps", durability=durability)
    floor = BareAppend(home / "floor", daemon.client, is_durable=durability == "disk")
    ours: defaultdict[str, list[float]] = defaultdict(list)
    theirs: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(_TIMES):
        timed(floor.steps(number), theirs)
        timed(daemon.append_round(), ours, "decide")
        daemon.take_reply()
    floor.close()
    daemon.close()
    in_all = [0.0, 0.0]
    for name, what in APPEND.items():
        if name in ours or name in theirs:
            both = [statistics.quantiles(times[name])[0] * 1e6 if name in times else 0.0 for times in (theirs, ours)]
            in_all = [one + more for one, more in zip(in_all, both, strict=True)]
            yield f"| {name}: {what} | {both[0]:.0f} | {both[1]:.0f} |"
    yield f"| in all | {in_all[0]:.0f} | {in_all[1]:.0f} |"


def main() -> None:
    from support import RedisServer, valkey_binary

    server = RedisServer(valkey_binary())
    server.start()
    try:
        for durability in sys.argv[1:] or ("disk", "process"):
            home = Path(tempfile.mkdtemp(prefix="blocksd-steps-"))
            print(f"| append, durability = {durability!r} | floor | blocksd |\n|---|---|---|")
            for row in append_steps(home, server.url, durability):
                print(row, flush=True)
            shutil.rmtree(home)
    finally:
        server.remove()


if __name__ == "__main__":
    main()
