"""What daemons at rest cost a host, one for each namespace as with `blocksd@.service`: `python tests/benchmarks/idle.py [COUNT]`.

Each has ten blocks; all are on one server. Prints the memory of all (shared pages count in part), the connections of each, and
the CPU that all use in half a minute, after half a minute in which they look once more at what was just written.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from run import cpu_seconds, daemon, write_blocks
from scale import proportional

from support import RedisServer, valkey_binary

_COUNT, _BLOCKS, _SECONDS = 20, 10, 30.0


def main() -> None:
    """Print a line for one daemon, and one for all."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else _COUNT
    root, server = Path(tempfile.mkdtemp(prefix="blocksd-idle-")), RedisServer(valkey_binary())
    try:
        server.start()
        client: Any = server.client()
        print("| daemons | memory | connections of each | CPU |\n|---|---|---|---|")
        with ExitStack() as stack:
            pids: list[int] = []
            for some in (1, count):
                while len(pids) < some:
                    name = f"idle{len(pids)}"
                    write_blocks(root / name, _BLOCKS)
                    state = root / f"{name}-state"
                    running = daemon(root / name, state, server.url, "--namespace", name)
                    pids.append(stack.enter_context(running).pid)
                time.sleep(_SECONDS)
                before, begin = sum(map(cpu_seconds, pids)), time.monotonic()
                time.sleep(_SECONDS)
                share = (sum(map(cpu_seconds, pids)) - before) / (time.monotonic() - begin)
                memory = sum(map(proportional, pids)) / 1024
                connections = (len(client.client_list()) - 1) / some
                print(f"| {some} | {memory:.0f} MiB | {connections:.0f} | {100 * share:.2f} % of a core |", flush=True)
    finally:
        server.remove()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
