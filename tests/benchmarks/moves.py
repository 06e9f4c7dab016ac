"""Counts how often one saved file, one append and one idle round move between modules of the package.

A module is entered whenever the innermost frame of the package is in it; a move is a change of that module. Few moves mean
that a reader follows the way of a change through few modules, each once.

    python tests/benchmarks/moves.py            the counts
    python tests/benchmarks/moves.py --path     and each module in the order in which it is entered
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import blocksd
from blocksd.requests.request import Entry
from rig import Rig
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_PACKAGE = str(Path(blocksd.__file__).parent) + os.sep


class Way(NamedTuple):
    """The modules that one piece of work went through, in order, and how often functions of each were called."""

    stays: list[str]
    calls: Counter[str]

    @property
    def modules(self) -> int:
        return len(set(self.stays))

    @property
    def moves(self) -> int:
        return len(self.stays) - 1

    def __str__(self) -> str:
        return f"{self.modules} modules, {self.moves} moves, {self.calls.total()} calls"


def way_of(work: Callable[[], object]) -> Way:
    """Do a piece of work and note its way."""
    stays: list[str] = []
    calls: Counter[str] = Counter()
    stack: list[str | None] = []

    def profile(frame: FrameType, event: str, _argument: object) -> None:
        if event == "call":
            name = frame.f_code.co_filename
            module = name[len(_PACKAGE) : -len(".py")] if name.startswith(_PACKAGE) else None
            stack.append(module)
            if module is not None:
                calls[module] += 1
        elif event == "return":
            if stack:
                stack.pop()
        else:
            return
        top = next((module for module in reversed(stack) if module is not None), None)
        if top is not None and (not stays or stays[-1] != top):
            stays.append(top)

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return Way(stays, calls)


def ways(home: Path, url: str, client: Any) -> dict[str, Way]:
    """Follow a save, an append and an idle round of a daemon whose folder and mirror are at these places."""
    rig = Rig(home, url, durability="process")
    rig.write("notes", "---\nagents: [ann]\n---\nx\n")
    rig.write("other", "y\n")
    rig.settle()
    path = rig.root / "notes.md"
    found: dict[str, Way] = {}

    def save() -> None:
        path.write_text("---\nagents: [ann]\n---\nx\nmore\n")
        rig.core.intake.hint_file("notes.md", closed=True)
        rig.round()

    def prepare() -> None:
        """See that the file was not saved just now, and that nothing is due."""
        os.utime(path, (time.time() - 100,) * 2)
        rig.settle()
        rig.round()

    prepare()
    found["one saved file"] = way_of(save)
    prepare()

    def ask(number: int) -> list[Entry]:
        request = {"id": f"r{number}", "op": "append", "name": "notes", "args": {"content": "hi"}}
        client.xadd("blocks:inbox:ann", {"request": json.dumps(request)})
        return [Entry("ann", id_, fields.get("request")) for id_, fields in client.xrange("blocks:inbox:ann")]

    def append() -> None:
        rig.core.inbox.add(entries)
        rig.round()

    for number in range(2):  # with the first one of an actor, what it has asked for before is read
        entries = ask(number)
        found["one append"] = way_of(append)
        prepare()
    found["an idle round"] = way_of(rig.round)
    rig.crash()
    return found


def main() -> None:
    """Print the counts of all three."""
    server = RedisServer(valkey_binary())
    server.start()
    home = Path(tempfile.mkdtemp(prefix="blocksd-moves-"))
    try:
        for name, way in ways(home, server.url, server.client()).items():
            print(f"{name}: {way}")
            if "--path" in sys.argv:
                print("   " + " ".join(way.stays))
    finally:
        shutil.rmtree(home)
        server.remove()


if __name__ == "__main__":
    main()
