"""A daemon without threads, in a process of its own, that kills itself before the n-th effect of a name.

    mortal.py HOME URL NAME N

With N = 0 it lives until all requests are done and all is level.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from blocksd.requests.request import Entry
from rig import Rig

ROUNDS = 300


def main() -> None:
    home, url, name, count = sys.argv[1:]
    rig = Rig(Path(home), url)
    left = int(count)
    client = rig.client
    for _ in range(ROUNDS):
        waiting = 0
        for actor in ("operator", "ann"):
            entries = client.xrange(f"blocks:inbox:{actor}")
            waiting += len(entries)
            rig.core.inbox.add(Entry(actor, entry_id, fields.get("request")) for entry_id, fields in entries)
        for effect in rig.core.round():
            if effect == name:
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
        rig.clock.advance(max(rig.core.wait_seconds(), 0.01))
        if not waiting and rig.is_settled():
            break
    else:
        sys.exit("it does not come to rest")
    rig.close()


if __name__ == "__main__":
    main()
