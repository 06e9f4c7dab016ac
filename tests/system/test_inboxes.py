"""What is in inboxes cannot hurt a real daemon: its memory, its other agents, its next start."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support import Daemon, RedisServer

MEBIBYTES = int(os.environ.get("BLOCKSD_TEST_ENTRY_MEBIBYTES", "20"))
"""How long an entry is here. Up to 511."""

HIGHEST = "18446744073709551615-18446744073709551615"


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    connected = server.client(socket_timeout=60)
    yield connected
    connected.close()


@pytest.fixture
def daemon(folder: Path, run_daemon: Callable[..., Daemon]) -> Daemon:
    (folder / "notes.md").write_text("---\nagents: [ann, bob]\n---\none\n")
    return run_daemon()


def append(client: Any, actor: str, number: int, **more: Any) -> dict[str, Any]:
    """Ask as any program can, and wait for the reply."""
    request = {"id": f"r-{number}", "op": "append", "name": "notes", "args": {"content": f"line {number}"}}
    client.xadd(f"blocks:inbox:{actor}", {"request": json.dumps(request)}, **more)
    return reply(client, actor, f"r-{number}")


def reply(client: Any, actor: str, request_id: str) -> dict[str, Any]:
    found = client.blpop([f"blocks:reply:{actor}:{request_id}"], timeout=20)
    assert found, "no reply"
    answered: dict[str, Any] = json.loads(found[1])
    return answered


def peak_memory(daemon: Daemon) -> float:
    """The most memory the daemon ever had, in MiB."""
    assert daemon.process is not None
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{daemon.process.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@pytest.mark.slow
def test_long_entries_cost_no_memory(daemon: Daemon, client: Any) -> None:
    """Eight of them are refused, with a reply where they have an id, and never come to the daemon."""
    assert append(client, "bob", 1)["ok"]
    before = peak_memory(daemon)
    for number in range(8):
        text = f'{{"id": "long-{number}", "op": "append", "args": {{"content": "'
        client.xadd("blocks:inbox:ann", {"request": text + "x" * (MEBIBYTES << 20)})
    for number in range(8):
        error = reply(client, "ann", f"long-{number}")["error"]
        assert error["code"] == "invalid_request"
        assert "over the 1048576 allowed" in error["message"]
    assert append(client, "ann", 2)["ok"]
    assert append(client, "bob", 3)["ok"]
    assert client.xlen("blocks:inbox:ann") == 0
    assert peak_memory(daemon) - before < 20
    shown = json.loads(daemon.command("status", "--json").stdout)
    assert shown["refused"] == {"dropped": 0, "oversized": 8, "surplus": 0}
    assert "8 too long" in daemon.command("status").stdout
    eventually(lambda: "dropped from the inbox of ann: " in daemon.said(), "it is logged")


@pytest.mark.parametrize("is_running", [True, False], ids=["running", "at its start"])
def test_entry_with_the_highest_id(daemon: Daemon, client: Any, *, is_running: bool) -> None:
    """It is carried out, and the same actor can ask again."""
    if not is_running:
        daemon.kill()
        request = {"id": "r-1", "op": "append", "name": "notes", "args": {"content": "line 1"}}
        client.xadd("blocks:inbox:ann", {"request": json.dumps(request)}, id=HIGHEST)
        daemon.start()
        assert reply(client, "ann", "r-1")["ok"]
    else:
        assert append(client, "ann", 1, id=HIGHEST)["ok"]
    eventually(lambda: not client.exists("blocks:inbox:ann"), "the inbox is made anew")
    assert append(client, "ann", 2)["ok"]
    assert daemon.values("notes")[-1] == "one\nline 1\nline 2"


def test_flood_does_not_keep_others_waiting(daemon: Daemon, client: Any) -> None:
    """Entries beyond what an inbox may hold are refused; all are gone in the end, and are counted."""
    pipeline = client.pipeline(transaction=False)
    for number in range(30_000):
        pipeline.xadd("blocks:inbox:ann", {"request": f"no request {number}"})
        if number % 1000 == 999:
            pipeline.execute()
            assert append(client, "bob", number)["ok"]
    eventually(lambda: client.xlen("blocks:inbox:ann") == 0, "the flood is over")
    assert append(client, "ann", 1)["ok"]
    refused = json.loads(daemon.command("status", "--json").stdout)["refused"]
    assert refused["dropped"] + refused["surplus"] == 30_000
