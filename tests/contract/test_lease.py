"""The lease is looked at before each commit: of two daemons that could do a request, one does; and a promoted one wins."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import Superseded
from blocksd.mirror.lease import LEASE_SECONDS
from blocksd.requests.request import Entry
from blocksd.service.leadership import step_down
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
    assert "is served by another daemon, which has just begun" in str(rig.core.projector.last_error)
    raw.hset("blocks:meta", mapping={"machine": "m2", "folder_id": "fd:2", "pid": "77", "host": "there"})
    for _ in range(20):
        rig.round()
        rig.clock.advance(1.0)
    assert "is served by the daemon with pid 77 on there" in str(rig.core.projector.last_error)


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


@pytest.fixture
def promoted(tmp_path: Path, server: RedisServer, rig: Rig) -> Iterator[Rig]:
    """A daemon of the next generation, on another host, while the first one is paused and its lease has expired."""
    rig.clock.advance(LEASE_SECONDS + 1.0)
    made = Rig(tmp_path / "other", server.url)
    made.journal.begin_generation(1)
    made.mirror.begin_generation(made.journal.epoch, 1)
    made.write("notes", "new\n")
    raw = server.client()
    raw.delete("blocks:lease")
    made.settle()
    raw.close()
    yield made
    made.crash()


def step(*rigs: Rig, seconds: float) -> None:
    """Let time pass for several daemons, in turns."""
    for _ in range(round(seconds / 0.25)):
        for rig in rigs:
            rig.round()
            rig.clock.advance(0.25)


def test_old_leader_gets_no_lease_when_the_new_one_has_none(rig: Rig, promoted: Rig, raw: Any) -> None:
    """It wakes up while the new leader is stopped: nothing is written, no request is done, and it says why."""
    promoted.close()
    before = {key: raw.dump(key) for key in raw.keys("blocks:*")}
    replies = append(rig, raw, "r-1")
    rig.write("own", "saved where no one is led any more\n")
    step(rig, seconds=40.0)
    raw.delete("blocks:inbox:operator")
    assert {key: raw.dump(key) for key in raw.keys("blocks:*")} == before
    assert not replies()
    assert (rig.root / "notes.md").read_bytes() == b"one\n"
    error = rig.core.projector.last_error
    assert isinstance(error, Superseded)
    assert "here was promoted to leader of the namespace 'blocks' (generation 1; here 0)" in error.message
    with pytest.raises(Superseded, match="last of 'own' is in this folder alone"):
        step_down(rig.core.projector, rig.mirror, rig.journal)
    promoted.open()
    promoted.settle()
    assert raw.hget("blocks:block:notes", "value") == "new"


def test_old_leader_is_remembered_where_redis_was_emptied(rig: Rig, promoted: Rig) -> None:
    """What it was once told lies in its journal, also in one that is put together again."""
    step(rig, seconds=2.0)
    with pytest.raises(Superseded):
        step_down(rig.core.projector, rig.mirror, rig.journal)
    assert (rig.journal.generation, rig.journal.newest_generation) == (0, 1)
    rig.journal.repair()
    rig.crash()
    rig.open()
    assert (rig.journal.generation, rig.journal.newest_generation) == (0, 1)
    promoted.journal.repair()
    promoted.crash()
    promoted.open()
    assert (promoted.journal.generation, promoted.journal.newest_generation) == (1, 1)


def test_new_leader_has_an_emptied_server_back(rig: Rig, promoted: Rig, raw: Any) -> None:
    """An old leader that never heard of it takes the empty server first. Both never hold the lease at a time."""
    raw.flushall()
    rig.save_and_settle("old", "old\n")
    assert raw.exists("blocks:block:old")
    held = []
    for _ in range(60):
        step(promoted, rig, seconds=0.25)
        held.append(raw.get("blocks:lease"))
        assert not (rig.core.projector.is_in_sync and promoted.core.projector.is_in_sync)
    assert held[-1] == promoted.mirror.lease
    assert held.count(rig.mirror.lease) <= 8
    promoted.settle()
    assert raw.keys("blocks:block:*") == ["blocks:block:notes"]
    assert raw.hget("blocks:meta", "generation") == "1"
    assert isinstance(rig.core.projector.last_error, Superseded)


def test_new_leader_waits_for_an_older_one_that_hangs(rig: Rig, promoted: Rig, raw: Any) -> None:
    """The older one holds an emptied server's lease and does not ask: the newer one gets it when it expires."""
    raw.flushall()
    rig.settle()
    step(promoted, seconds=5.0)
    assert raw.get("blocks:lease") == rig.mirror.lease
    assert raw.hget("blocks:meta", "generation") == "1"
    raw.delete("blocks:lease")  # as after its 10 seconds
    promoted.settle()


@pytest.mark.parametrize("text", ["", "x", "-1", "1e9", "9" * 400, "2.5"])
def test_generation_that_no_daemon_wrote(rig: Rig, raw: Any, text: str) -> None:
    """It is none."""
    raw.hset("blocks:meta", "generation", text)
    rig.save_and_settle("more", "more\n")
    assert rig.mirror.shown_generation() == 0
    assert rig.core.projector.is_in_sync


def test_generation_is_kept_while_the_mirror_is_built_anew(promoted: Rig, raw: Any) -> None:
    """An old leader that asks in that time learns of it."""
    for _ in promoted.mirror.begin_rebuild():
        pass
    assert raw.hget("blocks:meta", "generation") == "1"
    assert raw.hget("blocks:meta", "epoch") is None
