"""How long a failover is felt: `python tests/benchmarks/outages.py [RUNS]`.

An agent appends one line after the other; a watch, a client of the gateway's stream and a follower take them. Prints, for each
fault, the medians of the seconds from the fault to the promotion, which is the servers' business, and from the promotion until
the agent has the next reply, and each of the others has that line. Asserts that no line that was acknowledged is lost or doubled.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from events import Events
from failovers import FAULTS, NAMESPACE
from followers import Follower as Copy
from followers import tree
from following import Follower, Writer
from gateways import Served
from support import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

_RUNS = 5
_COLUMNS = ("until the promotion", "the next reply", "a watch", "a client of the gateway", "a follower")


class Streamed:
    """A client of a gateway's stream, in a thread: the last seq that it has."""

    def __init__(self, events: Events) -> None:
        self.seq = 0
        self._events = events
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while True:
            try:
                self.seq = max(self.seq, self._events.event().data.get("seq") or 0)
            except (OSError, ValueError, AssertionError, AttributeError):  # the gateway has ended
                return


def felt(kind: Callable[[], Any], fail: Callable[[Any], None], directory: Path) -> list[float]:
    """Return the seconds of each column."""
    folder = directory / "blocks.d"
    folder.mkdir()
    (folder / "notes.md").write_text("---\nlimit: 1000000\n---\n")
    with ExitStack() as stack:
        servers = kind()
        stack.callback(servers.close)
        at = ("--redis", servers.url, "--namespace", NAMESPACE)
        daemon = Daemon(folder, directory / "state", *at).start()
        stack.callback(daemon.stop)
        copy = Copy(directory / "copy", directory / "copy-state", *at).start()
        stack.callback(copy.stop)
        gateway = Served(directory / "gateway.log", *at)
        stack.callback(gateway.end)
        streamed = Streamed(Events(gateway.ready(), seconds=60).place())
        watch = Follower("asyncio", servers.url, namespace=NAMESPACE)
        stack.callback(watch.close)
        writer = Writer(servers.url, NAMESPACE)
        stack.callback(writer.stop)
        writer.more()
        began = time.monotonic()
        fail(servers)
        promoted = time.monotonic()
        count = len(writer.done) + 1  # the one under way may have been answered before
        seq, line = count + 2, f"line-{count}"
        conditions: list[Callable[[], bool]] = [
            lambda: len(writer.done) > count,
            lambda: (watch.place[1] or 0) >= seq,
            lambda: streamed.seq >= seq,
            lambda: line in (copy.folder / "notes.md").read_text().split(),
        ]
        times: dict[int, float] = {}

        def all_have_it() -> bool:
            for number, condition in enumerate(conditions):
                if number not in times and condition():
                    times[number] = time.monotonic() - promoted
            return len(times) == len(conditions)

        eventually(all_have_it, "it is served again", seconds=60)
        lines = writer.stop()
        assert (folder / "notes.md").read_text().split()[4:] == lines
        eventually(lambda: tree(folder) == tree(copy.folder), "the copy is whole")
    return [promoted - began, *(times[number] for number in range(len(conditions)))]


def main() -> None:
    """Print a line for each fault."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    print(f"| fault | {' | '.join(_COLUMNS)} |\n{'|---' * (len(_COLUMNS) + 1)}|")
    for name, (kind, fail) in FAULTS.items():
        times = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as directory:
                times.append(felt(kind, fail, Path(directory)))
        cells = (f"{statistics.median(one):.2f} s" for one in zip(*times, strict=True))
        print(f"| {name} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
