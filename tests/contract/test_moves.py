"""The way of a change is short: the modules that a save, a request and an idle round go through."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.files.root import Root
from blocksd.requests.request import Entry
from rig import Rig

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from moves import ways

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import RedisServer

MOST = {"one saved file": (69, 20), "one append": (150, 33), "an idle round": (0, 1)}
"""Moves between modules, and modules."""


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer is at work, which counts as calls")
def test_way_of_a_change_is_short(tmp_path: Path, standing_server: Callable[[str], RedisServer]) -> None:
    """Who follows it reads few modules, each once."""
    server = standing_server("valkey")
    client: Any = server.client()
    found = ways(tmp_path, server.url, client)
    client.close()
    for name, way in found.items():
        moves, modules = MOST[name]
        assert way.moves <= moves, f"{name}: {way}"
        assert way.modules <= modules, f"{name}: {way}"


def test_append_reads_its_file_twice(
    tmp_path: Path, standing_server: Callable[[str], RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it is decided on, and when it is displaced."""
    parts: list[bytes] = []

    def read(handle: int, size: int) -> bytes:
        parts.append(os.read(handle, size))
        return parts[-1]

    monkeypatch.setattr(Root, "read", staticmethod(read))
    rig = Rig(tmp_path, standing_server("valkey").url, durability="disk")
    rig.write("notes", "one\n")
    os.utime(rig.root / "notes.md", (time.time() - 100,) * 2)
    rig.settle()
    for number, value in enumerate(("one\ntwo\n", "one\ntwo\nthree\n")):  # one that a person wrote, and one of ours
        before = (rig.root / "notes.md").read_bytes()
        parts.clear()
        request = {"id": f"r{number}", "op": "append", "label": "notes", "args": {"content": value.split()[-1]}}
        rig.core.inbox.add([Entry("operator", f"{number + 1}-0", json.dumps(request))])
        rig.round()
        assert (rig.root / "notes.md").read_bytes() == value.encode()
        assert [part for part in parts if part] == [before] * 2
    rig.crash()
