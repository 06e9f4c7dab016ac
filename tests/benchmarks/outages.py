"""How long a failover is felt: `python tests/benchmarks/outages.py [RUNS]`.

An agent appends one line after the other, a watch listens. Prints, for each fault, the medians of: the seconds from the
fault to the promotion, which is the servers' business; from the promotion to the next reply; and from there to the watch.
Asserts that no line that was acknowledged is lost or doubled.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from failovers import FAULTS, NAMESPACE
from following import Follower, Writer
from support import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Callable

_RUNS = 5


def felt(kind: Callable[[], Any], fail: Callable[[Any], None], directory: Path) -> tuple[float, float, float]:
    """Return the seconds from the fault to the promotion, from there to the next reply, and from there to the watch."""
    folder = directory / "blocks.d"
    folder.mkdir()
    (folder / "notes.md").write_text("---\nlimit: 1000000\n---\n")
    with ExitStack() as stack:
        servers = kind()
        stack.callback(servers.close)
        daemon = Daemon(folder, directory / "state", "--redis", servers.url, "--namespace", NAMESPACE)
        stack.callback(daemon.stop)
        daemon.start()
        follower = Follower("asyncio", servers.url, namespace=NAMESPACE)
        stack.callback(follower.close)
        writer = Writer(servers.url, NAMESPACE)
        stack.callback(writer.stop)
        writer.more()
        began = time.monotonic()
        fail(servers)
        promoted = time.monotonic()
        count = len(writer.done) + 1  # the one under way may have been answered before
        eventually(lambda: len(writer.done) > count, "it is served again", seconds=60)
        served = time.monotonic()
        seq = len(writer.done) + 1
        eventually(lambda: (follower.place[1] or 0) >= seq, "it is told again", seconds=60)
        told = time.monotonic()
        lines = writer.stop()
        assert (folder / "notes.md").read_text().split()[4:] == lines
    return promoted - began, served - promoted, told - served


def main() -> None:
    """Print a line for each fault."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else _RUNS
    print("| fault | until the promotion | until the next reply | until the watch has it |\n|---|---|---|---|")
    for name, (kind, fail) in FAULTS.items():
        times = []
        for _ in range(runs):
            with tempfile.TemporaryDirectory() as directory:
                times.append(felt(kind, fail, Path(directory)))
        print(f"| {name} |", " | ".join(f"{statistics.median(one):.2f} s" for one in zip(*times, strict=True)), "|")


if __name__ == "__main__":
    main()
