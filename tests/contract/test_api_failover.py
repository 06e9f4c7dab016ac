"""Streams of changes outlast a failover: clients stay connected, and are told what came meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import blocksd
from events import Events
from gateways import Served
from sentinels import Watched
from support import Daemon, eventually, valkey_binary

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_streams_outlast_a_failover(tmp_path: Path) -> None:
    """The master dies with the gateway's subscription: the changes of before, meanwhile and after come once, in order."""
    watched = Watched(valkey_binary())
    folder = tmp_path / "blocks.d"
    folder.mkdir()
    running = Daemon(folder, tmp_path / "state", "--redis", watched.url)
    gateway = None
    try:
        running.start()
        gateway = Served(tmp_path / "log", "--redis", watched.url).ready()
        with Events(gateway, seconds=60).place() as events, blocksd.connect(watched.url, "blocks") as client:
            client.blocks.create(label="kept", value="0")
            eventually(lambda: watched.raw[1].hget("blocks:meta", "seq") == "1", "the replica has it")
            watched.servers[0].kill()
            (folder / "meanwhile.md").write_text("x\n")
            eventually(lambda: watched.is_promoted(1), "the replica is promoted", seconds=60)
            eventually(lambda: watched.raw[1].hget("blocks:meta", "seq") == "2", "the daemon goes on", seconds=60)
            client.blocks.append("kept", "1")
            told = events.some(3)
            assert [(event.kind, event.label) for event in told] == [
                ("change", "kept"),
                ("change", "meanwhile"),
                ("change", "kept"),
            ]
            assert [event.data["seq"] for event in told] == [1, 2, 3]
    finally:
        if gateway is not None:
            gateway.end()
        running.stop()
        watched.close()
    assert gateway is not None
    assert "Traceback" not in gateway.said()
