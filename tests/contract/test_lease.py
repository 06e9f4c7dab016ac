"""The lease is looked at before each commit: of two daemons that could do a request, one does."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.requests.request import Entry
from rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    client: Any = server.client()
    yield client
    client.close()


@pytest.fixture
def rig(tmp_path: Path, server: RedisServer) -> Iterator[Rig]:
    made = Rig(tmp_path, server.url)
    made.save_and_settle("notes", "one\n")
    yield made
    made.crash()


def append(rig: Rig, raw: Any, request_id: str) -> Callable[[], list[str]]:
    """Put a request into the operator's inbox, and have it read."""
    request = {"id": request_id, "op": "append", "label": "notes", "args": {"content": "more"}}
    entry_id = raw.xadd("blocks:inbox:operator", {"request": json.dumps(request)})
    rig.core.inbox.add([Entry("operator", entry_id, json.dumps(request))])
    return lambda: raw.lrange(f"blocks:reply:operator:{request_id}", 0, -1)


def test_daemon_that_lost_the_lease_does_nothing_for_requests(rig: Rig, raw: Any) -> None:
    """It was stopped for longer than the lease lasts, and another daemon has the namespace: the request is that one's."""
    replies = append(rig, raw, "r-1")
    raw.set("blocks:lease", "e2 t2 m2 fd:2", px=60_000)
    rig.clock.advance(11.0)
    before = (rig.root / "notes.md").read_bytes()
    for _ in range(20):
        rig.round()
        rig.clock.advance(0.1)
    assert (rig.root / "notes.md").read_bytes() == before
    assert not replies()
    assert raw.xlen("blocks:inbox:operator") == 1
    assert rig.journal.seq == int(raw.hget("blocks:meta", "seq"))


def test_lease_that_grew_old_is_renewed_before_a_request_is_done(rig: Rig, raw: Any) -> None:
    """A daemon that was only slow goes on at once."""
    replies = append(rig, raw, "r-1")
    rig.clock.advance(8.0)
    rig.round()
    assert json.loads(replies()[0])["ok"]


def test_lease_that_runs_out_while_a_request_is_decided(rig: Rig, raw: Any) -> None:
    """It is looked at again just before the commit: what was staged is taken back, and nothing is left of it."""
    before = rig.journal.seq
    append(rig, raw, "r-1")
    for effect in rig.core.round():
        if effect == "prepare":
            raw.set("blocks:lease", "e2 t2 m2 fd:2", px=60_000)
            rig.clock.advance(7.5)
    assert rig.journal.seq == before
    assert os.listdir(rig.root) == ["notes.md"]
    assert b"more" not in (rig.root / "notes.md").read_bytes()
    raw.delete("blocks:lease")
    rig.settle()
    replies = append(rig, raw, "r-2")
    rig.run(replies)
    assert json.loads(replies()[0])["ok"]
    assert (rig.root / "notes.md").read_bytes().count(b"more") == 1
