"""The way of a change is short: the modules that a save, a request and an idle round go through."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from moves import ways

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import RedisServer

MOST = {"one saved file": (70, 20), "one append": (320, 45), "an idle round": (15, 10)}
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
