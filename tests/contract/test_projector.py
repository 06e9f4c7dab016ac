"""What Redis can do to a daemon, one by one: the folder goes on being journaled, and the mirror comes level again."""

from __future__ import annotations

import json
import random
import shutil
import socket
import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.core import verifier
from blocksd.errors import Damaged, JournalUnusable, Misconfigured, Unavailable
from blocksd.mirror import mirror as mirror_module
from blocksd.mirror import projection, runs
from blocksd.model.block import block_id
from blocksd.monitoring.status import status_of
from rig import Ear, Rig, announced, assert_level
from support import RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd.model.revision import Revision
    from blocksd.monitoring.status import Status


@pytest.fixture
def server(any_server: RedisServer) -> RedisServer:
    """What a server decides must hold on every kind of it; the scripts are run on each by the tests of mirror and repair."""
    return any_server


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    """A client that looks at the server, and breaks it."""
    client: Any = server.client()
    yield client
    client.close()


@pytest.fixture
def make_rig(tmp_path: Path, server: RedisServer) -> Iterator[Callable[..., Rig]]:
    """Make a rig on a folder of its own; its connections are closed with the test."""
    rigs: list[Rig] = []

    def make(name: str = "one", **options: Any) -> Rig:
        rigs.append(Rig(tmp_path / name, options.pop("url", server.url), **options))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.crash()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    """A daemon that is level: two shared blocks, a private one, two agents, and a file that is no block."""
    made = make_rig()
    made.write("notes", "---\nagents: [ann]\n---\none\n")
    made.write("agents/bob/persona", "I am Bob.\n")
    made.write("shared", "---\nagents: '*'\ntags: [x]\n---\nfor all\n")
    made.write("bad", "---\nlimit: none\n---\n")
    made.settle()
    return made


@pytest.fixture
def ear(raw: Any, rig: Rig) -> Iterator[Ear]:  # noqa: ARG001  # the rig is level first
    """What is announced from the moment the rig was level."""
    heard = Ear(raw, "blocks:changes")
    yield heard
    heard.close()


def is_away(rig: Rig) -> bool:
    return bool(rig.heard.away) and not rig.core.projector.is_in_sync


def save_while_away(rig: Rig, text: str) -> None:
    """Save, and see it journaled although the mirror is away."""
    before = rig.journal.seq
    rig.write("notes", text)
    rig.run(lambda: rig.journal.seq > before, "it is journaled")
    assert not rig.core.projector.is_in_sync


def seqs(changes: list[dict[str, Any]]) -> list[int]:
    return [change["seq"] for change in changes if change["kind"] not in ("rejected", "cleared")]


# --- level ---


@pytest.mark.every_backend
def test_mirror_is_level_after_the_start(rig: Rig, raw: Any) -> None:
    """A new daemon on an empty server shows the folder: blocks, agents, problems, and where it stands."""
    assert_level(rig, raw)
    assert raw.smembers("blocks:attached:shared") == {"ann", "bob"}
    assert raw.hgetall("blocks:agent:bob") == {"persona": "agents/bob/persona", "shared": "shared"}
    assert raw.hkeys("blocks:problems") == ["bad.md"]
    assert rig.heard.away == []
    assert raw.exists("blocks:lease")


@pytest.mark.every_backend
def test_each_save_is_announced_once(rig: Rig, raw: Any, ear: Ear) -> None:
    """A save is one revision, one entry, one message; a save of the same text is none."""
    seq = rig.journal.seq
    rig.save_and_settle("notes", "---\nagents: [ann]\n---\ntwo\n")
    rig.save_and_settle("notes", "---\nagents: [ann]\n---\ntwo\n")
    rig.save_and_settle("bad", "good now\n")
    rig.remove("notes")
    rig.settle()
    rig.write("new", "n\n")
    rig.settle()
    assert_level(rig, raw)
    changes = ear.changes()
    # With nobody naming her any more, Ann is unknown, and detached from the block for all.
    assert [(change["kind"], change.get("label")) for change in changes] == [
        ("updated", "notes"),
        ("created", "bad"),
        ("cleared", None),
        ("deleted", "notes"),
        ("updated", "shared"),
        ("created", "new"),
    ]
    assert seqs(changes) == list(range(seq + 1, rig.journal.seq + 1))
    assert changes[4]["detached"] == ["ann"]


def test_restarted_daemon_goes_on_where_it_was(rig: Rig, raw: Any, ear: Ear) -> None:
    """After an orderly stop nothing is announced again, the lease was given up, and the new daemon's facts are shown."""
    rig.close()
    assert not raw.exists("blocks:lease")
    rig.open().settle()
    assert rig.heard.level == ["level"]
    assert_level(rig, raw)
    assert seqs(ear.changes()) == []


def test_mirror_of_another_layout_is_rebuilt(rig: Rig, raw: Any) -> None:
    """A mirror that another version of blocksd wrote has all the keys of this one after an upgrade."""
    rig.crash()
    raw.delete("blocks:created", "blocks:updated")
    raw.hset("blocks:meta", "schema", "2")
    rig.open().settle()
    assert rig.heard.level == ["rebuilt"]
    assert_level(rig, raw)


def test_private_folder_that_goes_with_its_last_block(rig: Rig, raw: Any) -> None:
    """Nobody tells of the folder itself: the agent is unknown with the deletion of the block, not only after the next sweep."""
    sweeps = rig.core.intake.scanner.sweeps
    shutil.rmtree(rig.root / "agents" / "bob")
    rig.core.intake.hint_file("agents/bob/persona.md", closed=True)
    rig.settle()
    assert rig.core.intake.scanner.sweeps == sweeps
    assert rig.core.state.attachments.known == {"ann"}
    assert raw.smembers("blocks:attached:shared") == {"ann"}
    assert_level(rig, raw)


def test_private_folder_that_goes_while_no_daemon_runs(rig: Rig, raw: Any, ear: Ear) -> None:
    """The agent that only this folder made known is detached, and stays so through every comparison."""
    folder = rig.root / "agents" / "eve"
    folder.mkdir()
    rig.core.intake.hint_all()
    rig.settle()
    assert raw.sismember("blocks:attached:shared", "eve")
    ear.changes()
    rig.crash()
    folder.rmdir()
    rig.open().settle()
    assert not raw.sismember("blocks:attached:shared", "eve")
    assert [change["detached"] for change in ear.changes()] == [["eve"]]
    rig.resync()
    assert_level(rig, raw)


@pytest.mark.parametrize("journaled", [False, True], ids=["saved only", "journaled only"])
def test_killed_daemon_loses_and_doubles_nothing(rig: Rig, raw: Any, ear: Ear, *, journaled: bool) -> None:
    """kill -9 before or after the journal took a save: the next daemon shows it at once, and announces it once."""
    rig.write("notes", "---\nagents: [ann, eve]\n---\ntwo\n")
    for effect in rig.core.round():
        if effect == ("project" if journaled else "journal"):
            break
    rig.crash()
    rig.open().settle()
    assert rig.heard.level == ["caught up"]
    assert_level(rig, raw)
    assert raw.hget("blocks:block:notes", "value") == "two"
    assert seqs(ear.changes()) == list(range(rig.journal.seq - 1, rig.journal.seq + 1))


def test_daemon_killed_while_projecting_announces_once(rig: Rig, raw: Any, ear: Ear) -> None:
    """kill -9 after the mirror was written, before the daemon knew: nothing is announced twice."""
    seq = rig.journal.seq
    rig.write("shared", "two\n")
    for effect in rig.core.round():
        if effect == "mirror":
            break
    rig.crash()
    rig.open().settle()
    assert_level(rig, raw)
    assert seqs(ear.changes()) == [seq + 1]


# --- down, dying, half-open, slow ---


@pytest.mark.every_backend
def test_redis_down_at_the_start(make_rig: Callable[..., Rig], server: RedisServer) -> None:
    """down at start: the folder is journaled, it is said once, tried again with growing waits, and level once it is up."""
    server.kill()
    rig = make_rig()
    rig.write("notes", "one\n")
    rig.run(lambda: rig.journal.seq == 1)
    waits: list[float] = []
    for _ in range(12):
        rig.clock.advance(rig.core.projector.due - rig.clock())
        rig.round()
        waits.append(rig.core.projector.due - rig.clock())
    assert len(rig.heard.away) == 1
    assert isinstance(rig.heard.away[0], Unavailable)
    assert all(0.5 <= wait <= 1.0 for wait in waits[5:])
    assert waits[0] < 0.3
    assert len(set(waits[6:])) > 1, "the waits are jittered"
    server.start()
    back_at = rig.clock()
    rig.run(rig.is_settled)
    assert rig.clock() - back_at <= 2.0
    raw = server.client()
    assert_level(rig, raw)
    raw.close()


@pytest.mark.every_backend
def test_redis_dies_in_the_middle(rig: Rig, server: RedisServer) -> None:
    """dies in the middle, restarts empty: what was saved meanwhile is journaled, then shown; a reset is announced."""
    server.kill()
    rig.write("notes", "two\n")
    rig.run(lambda: is_away(rig))
    save_while_away(rig, "three\n")
    save_while_away(rig, "four\n")
    server.start()
    rig.settle()
    raw = server.client()
    assert_level(rig, raw)
    assert raw.hget("blocks:block:notes", "value") == "four"
    assert rig.heard.level[-1] == "rebuilt"
    assert len(rig.heard.away) == 1
    assert announced(raw)[-1] == (f"{rig.journal.seq}-1", "reset")
    raw.close()


def test_how_the_mirror_stands_is_known(rig: Rig, server: RedisServer) -> None:
    """Where it was last seen, since when it is away, and that this was said; when it is level, none of that."""
    projector, seq = rig.core.projector, rig.journal.seq
    assert (projector.shown_seq, projector.unreachable_since, projector.is_said_to_be_unreachable) == (seq, None, False)
    server.kill()
    rig.write("agents/bob/persona", "two\n")
    rig.run(lambda: rig.journal.seq == seq + 1 and projector.is_said_to_be_unreachable)
    since = projector.unreachable_since
    assert since is not None
    rig.clock.advance(100.0)
    rig.round()
    assert projector.silent_seconds >= 100.0
    assert (projector.shown_seq, projector.unreachable_since) == (seq, since)
    server.start()
    rig.settle()
    assert (projector.shown_seq, projector.unreachable_since, projector.is_said_to_be_unreachable) == (
        seq + 1,
        None,
        False,
    )
    assert projector.silent_seconds <= 1.5


def test_picture_of_the_mirror(rig: Rig, server: RedisServer) -> None:
    """It is level, away (with the reason), being rebuilt where nothing is known of it, behind, and level again."""

    def picture() -> Status:
        return status_of(rig.core, seq=rig.journal.seq, read=None, watches=0, watch_limit=None)

    def through(until: str) -> list[str]:
        """What it is called on the way to this."""
        seen: list[str] = [picture().mirror]
        while seen[-1] != until:
            rig.round()
            rig.clock.advance(max(rig.core.wait_seconds(), 0.001))
            if picture().mirror != seen[-1]:
                seen.append(picture().mirror)
        return seen

    for number in range(600):
        rig.write(f"many/{number}", "so that it takes several steps\n")
    rig.settle()
    assert (picture().mirror, picture().away_reason, picture().tally.problems) == ("level", None, 1)
    server.kill()
    assert through("away") == ["level", "away"]
    assert "does not serve" in str(picture().away_reason)
    assert picture().away_since is not None
    server.start()
    assert through("level") == ["away", "rebuilding", "level"]
    assert (picture().away_since, picture().mirror_lag) == (None, 0)
    rig.core.projector.is_in_sync = False
    rig.core.projector._retry_at = rig.clock() + 1.0
    for number in range(600):
        rig.write(f"many/{number}", "saved meanwhile\n")
    assert through("level") == ["away", "behind", "level"]


@pytest.mark.every_backend
def test_redis_keeps_its_data_over_a_crash(server: RedisServer, make_rig: Callable[..., Rig]) -> None:
    """dies in the middle, with its data kept: what was missed is replayed, and announced as the changes it was."""
    server.stop()
    server.start("--appendonly", "yes", "--appendfsync", "always")
    rig = make_rig()
    rig.write("notes", "one\n")
    rig.settle()
    server.kill()
    rig.write("notes", "two\n")
    rig.run(lambda: is_away(rig))
    save_while_away(rig, "three\n")
    server.start("--appendonly", "yes", "--appendfsync", "always")
    raw = server.client()
    ear = Ear(raw, "blocks:changes")
    rig.settle()
    assert_level(rig, raw)
    assert rig.heard.level[-1] == "caught up"
    assert [change["kind"] for change in ear.changes()] == ["updated", "updated"]
    assert announced(raw)[-2:] == [("2-0", "updated"), ("3-0", "updated")]
    ear.close()
    raw.close()


@pytest.mark.every_backend
def test_half_open_connection(make_rig: Callable[..., Rig], server: RedisServer, raw: Any) -> None:
    """half-open connection: a server that answers nothing holds a save up for one reply's time, and nothing is doubled."""
    rig = make_rig(reply_seconds=0.2)
    rig.write("notes", "one\n")
    rig.settle()
    ear = Ear(raw, "blocks:changes")
    server.pause()
    try:
        rig.write("notes", "two\n")
        rig.run(lambda: is_away(rig))
        save_while_away(rig, "three\n")
    finally:
        server.resume()
    rig.settle()
    assert_level(rig, raw)
    assert len(rig.heard.away) == 1
    assert "does not serve" in rig.heard.away[0].message
    assert seqs(ear.changes()) == [2, 3]
    assert [entry for entry, _ in announced(raw)][-2:] == ["2-0", "3-0"]
    ear.close()


class Proxy:
    """A Unix socket in front of a server, that can lose or hold replies, or lead to another server."""

    def __init__(self, directory: Path, target: Path) -> None:
        self.target = target
        self.path = directory / "proxy.sock"
        self.url = f"unix://{self.path}"
        self.lose_reply_to: bytes | None = None
        self.lost = 0
        self.held = threading.Event()
        self.held.set()
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.socket(socket.AF_UNIX)
            try:
                far.connect(str(self.target))
            except OSError:
                near.close()
                far.close()
                continue
            self._connections += [near, far]
            asked = bytearray()
            for source, sink, is_reply in ((near, far, False), (far, near, True)):
                threading.Thread(target=self._pass_on, args=(source, sink, asked, is_reply), daemon=True).start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, asked: bytearray, is_reply: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if is_reply:
                    self.held.wait()
                    wanted = self.lose_reply_to
                    if wanted is not None and wanted in asked:
                        self.lose_reply_to = None
                        self.lost += 1
                        break
                    asked.clear()
                else:
                    asked += data
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break all connections there are."""
        for end in self._connections:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.held.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.path.unlink()
        self.cut()
        for end in self._connections:
            end.close()


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    made = Proxy(server.directory, server.socket)
    yield made
    made.close()


@pytest.mark.every_backend
def test_reply_lost_after_the_command_ran(make_rig: Callable[..., Rig], proxy: Proxy, raw: Any) -> None:
    """reply lost after the command ran: the daemon finds the mirror where it should be, and no change is doubled."""
    rig = make_rig(url=proxy.url)
    rig.write("notes", "one\n")
    rig.settle()
    ear = Ear(raw, "blocks:changes")
    for number in range(2, 5):
        proxy.lose_reply_to = b"ANNOUNCE"
        rig.save_and_settle("notes", f"{number}\n")
    assert proxy.lost == 3
    assert_level(rig, raw)
    assert seqs(ear.changes()) == [2, 3, 4]
    assert announced(raw)[-3:] == [(f"{seq}-0", "updated") for seq in (2, 3, 4)]
    assert "rebuilt" not in rig.heard.level[1:]
    ear.close()


def test_reply_lost_while_rebuilding(make_rig: Callable[..., Rig], proxy: Proxy, raw: Any) -> None:
    """reply lost while the mirror is built: it is built again, and is whole."""
    rig = make_rig(url=proxy.url)
    for number in range(300):
        rig.write(f"b{number:03}", f"---\nagents: [ann]\n---\n{number}\n")
    proxy.lose_reply_to = b"blocks:block:b299"
    rig.settle()
    raw.flushall()
    proxy.lose_reply_to = b"blocks:block:b299"
    rig.write("b000", "new\n")
    rig.settle()
    assert proxy.lost == 2
    assert_level(rig, raw)


def test_latency_above_what_is_waited_for(make_rig: Callable[..., Rig], proxy: Proxy, raw: Any) -> None:
    """10 s latency: replies that come too late count as lost; the folder is journaled meanwhile, nothing is doubled."""
    rig = make_rig(url=proxy.url, reply_seconds=0.1)
    rig.write("notes", "one\n")
    rig.settle()
    ear = Ear(raw, "blocks:changes")
    proxy.held.clear()
    rig.write("notes", "two\n")
    rig.run(lambda: is_away(rig))
    save_while_away(rig, "three\n")
    save_while_away(rig, "four\n")
    proxy.held.set()
    rig.settle()
    assert_level(rig, raw)
    assert seqs(ear.changes()) == [2, 3, 4]
    ear.close()


# --- it comes back as another ---


@pytest.mark.every_backend
def test_flushall(rig: Rig, raw: Any, ear: Ear) -> None:
    """FLUSHALL: noticed at the next heartbeat or change; all is shown again, a reset announced, no file touched."""
    files = {path: path.read_bytes() for path in rig.root.rglob("*.md")}
    raw.flushall()
    rig.run(lambda: rig.heard.level[-1] == "rebuilt" and len(rig.heard.level) == 2, "the heartbeat notices")
    assert_level(rig, raw)
    raw.flushall()
    rig.save_and_settle("shared", "two\n")
    assert_level(rig, raw)
    assert rig.heard.away == []
    assert ear.kinds().count("reset") == 2
    del files[rig.root / "shared.md"]
    assert all(path.read_bytes() == data for path, data in files.items())
    assert not any(revision.kind == "deleted" for revision in rig.heard.revisions)


@pytest.mark.every_backend
def test_older_snapshot(tmp_path: Path, server: RedisServer, make_rig: Callable[..., Rig]) -> None:
    """older snapshot: what the restored mirror lacks is replayed, changes of the lost future included."""
    rig = make_rig()
    rig.write("notes", "one\n")
    rig.write("doomed", "---\nagents: [ann]\n---\nx\n")
    rig.settle()
    raw = server.client()
    raw.save()
    shutil.copy(server.directory / "dump.rdb", tmp_path / "older.rdb")
    rig.save_and_settle("notes", "two\n")
    rig.remove("doomed")
    rig.save_and_settle("later", "x\n")
    rig.run(lambda: "doomed" not in rig.core.state.paths)
    rig.settle()
    raw.close()
    server.kill()
    shutil.copy(tmp_path / "older.rdb", server.directory / "dump.rdb")
    server.start()
    raw = server.client()
    assert raw.exists("blocks:block:doomed")
    rig.settle()
    assert rig.heard.level == ["rebuilt", "caught up"]
    assert_level(rig, raw)
    assert not raw.exists("blocks:block:doomed")
    raw.close()


@pytest.mark.every_backend
def test_failover_to_a_stale_replica(
    server: RedisServer, proxy: Proxy, make_rig: Callable[..., Rig], free_port: int
) -> None:
    """failover to a stale replica: what it had not received yet is replayed to it."""
    server.kill()
    server.start("--port", str(free_port), "--repl-diskless-sync-delay", "0")
    replica = RedisServer(server.binary)
    replica.start("--replicaof", "127.0.0.1", str(free_port))
    rig = make_rig(url=proxy.url)
    rig.write("notes", "one\n")
    rig.settle()
    there = replica.client()
    eventually(lambda: there.hget("blocks:meta", "seq") == "1", "the replica has it")
    there.replicaof("NO", "ONE")
    rig.save_and_settle("notes", "two\n")
    server.kill()
    proxy.target = replica.socket
    proxy.cut()
    ear = Ear(there, "blocks:changes")
    rig.settle()
    assert_level(rig, there)
    assert rig.heard.level == ["rebuilt", "caught up"]
    assert seqs(ear.changes()) == [2]
    ear.close()
    there.close()
    replica.remove()


def test_another_journals_mirror(make_rig: Callable[..., Rig], raw: Any) -> None:
    """another journal's mirror: all of it is replaced once its daemon is gone, and a reset announced."""
    other = make_rig("other")
    other.write("theirs", "---\nagents: [eve]\n---\nx\n")
    for number in range(5):
        other.save_and_settle("shared", f"{number}\n")
    other.close()
    ear = Ear(raw, "blocks:changes")
    rig = make_rig()
    rig.write("shared", "mine\n")
    rig.settle()
    assert_level(rig, raw)
    assert rig.heard.level == ["rebuilt"]
    assert raw.zrange("blocks:labels", 0, -1) == ["shared"]
    assert "reset" in ear.kinds()
    assert {"theirs.md", "shared.md"} == {path.name for path in other.root.iterdir()}
    ear.close()


def test_journal_lost(rig: Rig, raw: Any, ear: Ear) -> None:
    """A journal that was lost begins a new epoch; its numbers begin anew, and whoever follows is told so."""
    epoch = rig.journal.epoch
    rig.crash()
    for path in rig.home.glob("journal.db*"):
        path.unlink()
    rig.open().settle()
    assert rig.journal.epoch != epoch
    assert_level(rig, raw)
    changes = ear.changes()
    assert any(change["kind"] == "reset" and change["epoch"] == rig.journal.epoch for change in changes)
    assert raw.hget("blocks:block:notes", "value") == "one"


def test_mirror_newer_than_the_journal(tmp_path: Path, rig: Rig, raw: Any, ear: Ear) -> None:
    """newer than the journal: an older journal put back does not give out numbers that were used; all is shown anew."""
    rig.close()
    shutil.copy(rig.home / "journal.db", tmp_path / "older.db")
    rig.open().settle()
    rig.save_and_settle("notes", "two\n")
    rig.save_and_settle("notes", "three\n")
    rig.close()
    ear.changes()
    shutil.copy(tmp_path / "older.db", rig.home / "journal.db")
    rig.open().settle()
    assert_level(rig, raw)
    assert raw.hget("blocks:block:notes", "value") == "three"
    assert rig.heard.level == ["rebuilt"]
    assert "reset" in ear.kinds()


def test_journal_pruned_past_the_mirror(make_rig: Callable[..., Rig], server: RedisServer, raw: Any) -> None:
    """What the mirror lacks and the journal no longer has cannot be replayed: all is shown anew, a reset announced."""
    rig = make_rig(history_versions=1)
    rig.write("a", "1\n")
    rig.write("b", "1\n")
    rig.settle()
    raw.save()
    for number in range(2, 6):
        rig.save_and_settle("c" if number == 2 else "b", f"{number}\n")
    rig.resync()
    rig.save_and_settle("a", "2\n")
    raw.close()
    server.kill()
    server.start()
    after = server.client()
    # The first revision it lacks is there, a later one is not.
    assert rig.journal.since(2, 1)
    rig.settle()
    assert rig.heard.level == ["rebuilt", "rebuilt"]
    assert_level(rig, after)
    assert announced(after)[-1][1] == "reset"
    after.close()


def test_rebuild_is_interrupted_by_saves(make_rig: Callable[..., Rig], raw: Any) -> None:
    """What is saved while the mirror is built is neither missed nor undone by it."""
    rig = make_rig()
    for number in range(600):
        rig.write(f"b{number:03}", f"---\nagents: [ann]\n---\n{number}\n")
    rig.settle()
    raw.flushall()
    rig.clock.advance(2.0)
    rig.write("b000", "---\nagents: ['x*']\n---\n0\n")
    changed = 0
    while rig.heard.level != ["rebuilt", "rebuilt"]:
        changed += 1
        rig.write(f"b{changed * 7 % 599 + 1:03}", f"---\nagents: [x{changed}]\n---\nchanged {changed}\n")
        rig.write(f"new{changed}", "x\n")
        rig.round()
        rig.clock.advance(0.01)
    assert changed > 5
    rig.settle()
    assert_level(rig, raw)


@pytest.mark.parametrize("rounds", range(4))
def test_lease_is_given_up_by_a_start_that_is_cut_short(
    make_rig: Callable[..., Rig], raw: Any, monkeypatch: pytest.MonkeyPatch, rounds: int
) -> None:
    """However far the mirror had been built: whoever comes next need not wait for the lease to run out."""
    monkeypatch.setattr("blocksd.core.resync.BATCH", 1)
    rig = make_rig()
    for number in range(5):
        rig.write(f"block{number}", "text\n")
    for _ in range(rounds):
        rig.round()
    assert not rig.core.projector.is_in_sync
    rig.close()
    assert not raw.exists("blocks:lease")
    rig.open().settle()
    assert_level(rig, raw)


def test_lease_is_kept_through_a_long_rebuild(make_rig: Callable[..., Rig], raw: Any) -> None:
    """Building or comparing a large mirror may take longer than a lease lasts: it is renewed meanwhile."""
    rig = make_rig()
    for number in range(1000):
        rig.write(f"b{number:03}", f"{number}\n")
    rig.settle()
    raw.flushall()
    rig.clock.advance(2.0)
    rounds = 0
    rig.round()
    while not rig.core.projector.is_in_sync:
        raw.pexpire("blocks:lease", 5_000)
        rig.clock.advance(1.1)
        rig.round()
        assert raw.pttl("blocks:lease") > 5_000
        rounds += 1
    assert rounds > 2
    rig.clock.advance(61)
    rig.round()
    while rig.core.projector.is_busy:
        raw.pexpire("blocks:lease", 5_000)
        rig.clock.advance(1.1)
        rig.round()
        assert raw.pttl("blocks:lease") > 5_000
    assert rig.heard.away == []
    assert rig.heard.repaired == []


def test_daemon_killed_while_rebuilding(make_rig: Callable[..., Rig], raw: Any) -> None:
    """A rebuild cut short by kill -9 is begun again: half a mirror is never taken for a whole one."""
    rig = make_rig()
    for number in range(600):
        rig.write(f"b{number:03}", f"{number}\n")
    rig.settle()
    for rounds in (1, 3, 5, 6):
        raw.flushall()
        rig.clock.advance(2.0)
        for _ in range(rounds):
            rig.round()
            rig.clock.advance(0.3)
        rig.crash()
        rig.open().settle()
        assert_level(rig, raw)


# --- keys that are not what they should be ---


def retype(raw: Any, key: str) -> None:
    """Put a list where something else belongs."""
    raw.delete(key)
    raw.rpush(key, "x")


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "block evicted": lambda raw: raw.delete("blocks:block:notes"),
    "all blocks evicted": lambda raw: raw.delete(
        "blocks:block:notes", "blocks:block:shared", "blocks:block:agents/bob/persona"
    ),
    "attached evicted": lambda raw: raw.delete("blocks:attached:shared"),
    "agent evicted": lambda raw: raw.delete("blocks:agent:ann"),
    "agents evicted": lambda raw: raw.delete("blocks:agents"),
    "labels evicted": lambda raw: raw.delete("blocks:labels"),
    "counts evicted": lambda raw: raw.delete("blocks:counts"),
    "count edited": lambda raw: raw.zadd("blocks:counts", {"notes": 5}),
    "counted by hand": lambda raw: raw.zadd("blocks:counts", {"ghost": 5}),
    "index evicted": lambda raw: raw.delete("blocks:index"),
    "times evicted": lambda raw: raw.delete("blocks:created", "blocks:updated"),
    "time edited": lambda raw: raw.zadd("blocks:updated", {"notes": 5}),
    "timed by hand": lambda raw: raw.zadd("blocks:created", {"ghost": 5}),
    "indexed by hand": lambda raw: raw.zadd("blocks:index", {"ghost\x1fS\x1f\x1eghost": 0}),
    "indexed twice": lambda raw: raw.zadd("blocks:index", {"notes\x1fH\x1f\x1enotes": 0}),
    "ids evicted": lambda raw: raw.delete("blocks:ids"),
    "problems evicted": lambda raw: raw.delete("blocks:problems"),
    "stream evicted": lambda raw: raw.delete("blocks:changes"),
    "stream cut": lambda raw: raw.xdel("blocks:changes", raw.xrevrange("blocks:changes", count=1)[0][0]),
    "stream added to": lambda raw: raw.xadd("blocks:changes", {"change": "forged"}),
    "value edited": lambda raw: raw.hset("blocks:block:notes", "value", "forged"),
    "version edited": lambda raw: raw.hset("blocks:block:notes", "version", "99"),
    "field added": lambda raw: raw.hset("blocks:block:notes", "colour", "red"),
    "agent attached by hand": lambda raw: raw.sadd("blocks:attached:notes", "mallory"),
    "agent sees more by hand": lambda raw: raw.hset("blocks:agent:ann", "stolen", "agents/bob/persona"),
    "times of agents evicted": lambda raw: raw.delete("blocks:agents-created"),
    "time of an agent edited": lambda raw: raw.zadd("blocks:agents-created", {"ann": 5}),
    "time of an agent by hand": lambda raw: raw.zadd("blocks:agents-created", {"mallory": 5}),
    "agent known by hand": lambda raw: raw.zadd("blocks:agents", {"mallory": 0}),
    "label listed by hand": lambda raw: raw.zadd("blocks:labels", {"ghost": 0}),
    "label unlisted by hand": lambda raw: raw.zrem("blocks:labels", "notes"),
    "label replaced by hand": lambda raw: (raw.zrem("blocks:labels", "notes"), raw.zadd("blocks:labels", {"ghost": 0})),
    "id edited": lambda raw: raw.hset("blocks:ids", block_id("notes"), "shared"),
    "problem edited": lambda raw: raw.hset("blocks:problems", "bad.md", "{}"),
    **{
        f"{key} of another type": partial(retype, key=f"blocks:{key}")
        for key in (
            *("block:notes", "attached:notes", "agent:ann"),
            *(
                "agents",
                "agents-created",
                "labels",
                "ids",
                "counts",
                "index",
                "created",
                "updated",
                "problems",
                "changes",
            ),
        )
    },
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_key_is_repaired_at_resync(rig: Rig, raw: Any, ear: Ear, damage: str) -> None:
    """keys evicted, edited by hand, of a wrong type: found by the next comparison, repaired, reported, and announced.

    What is announced is what was repaired; only where the stream or all of the mirror is begun anew, it is a reset.
    """
    rig.resync()
    assert rig.heard.repaired == []
    DAMAGES[damage](raw)
    rig.resync()
    assert_level(rig, raw)
    if rig.heard.away:  # what was found could only be repaired by showing all anew
        assert [type(error) for error in rig.heard.away] == [Damaged]
        assert rig.heard.level == ["rebuilt", "rebuilt"]
    else:
        assert len(rig.heard.repaired) == 1
        assert rig.heard.repaired[0] >= 1
    if rig.heard.away or damage.startswith(("stream", "changes")):
        assert ear.kinds() == ["reset"]
    else:
        told = ear.changes()
        assert {change["kind"] for change in told} == {"repaired"}
        assert all(change["seq"] is None and change["epoch"] == rig.journal.epoch for change in told)
        assert any(change["labels"] or change["agents"] or change["indexes"] for change in told)
    said = len(rig.heard.repaired), len(rig.heard.away)
    rig.resync()
    assert said == (len(rig.heard.repaired), len(rig.heard.away))
    assert ear.kinds() == []


def test_expired_key_is_repaired_at_resync(rig: Rig, raw: Any, ear: Ear) -> None:
    """keys expired: as those that were evicted."""
    keys = ["blocks:block:notes", "blocks:attached:shared", "blocks:agent:bob", "blocks:labels"]
    for key in keys:
        raw.pexpire(key, 1)
    eventually(lambda: not raw.exists(*keys), "they have expired")
    rig.resync()
    assert_level(rig, raw)
    assert set(ear.kinds()) == {"repaired"}


@pytest.mark.every_backend
@pytest.mark.parametrize("how", ["evicted", "of another type"])
def test_damaged_place_is_noticed_by_the_heartbeat(rig: Rig, raw: Any, how: str) -> None:
    """meta evicted or of a wrong type: noticed within a second, not only by the next comparison."""
    raw.delete("blocks:meta")
    if how != "evicted":
        raw.rpush("blocks:meta", "x")
    rig.run(lambda: len(rig.heard.level) == 2)
    rig.settle()
    assert_level(rig, raw)


@pytest.mark.parametrize(
    ("how", "met_by"),
    [
        ("evicted", "the heartbeat"),
        ("evicted", "a change"),
        ("evicted", "what belongs to no change"),
        ("of another type", "the heartbeat"),
    ],
)
def test_lease_that_is_gone_is_taken_again(
    rig: Rig, raw: Any, ear: Ear, how: str, met_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A lease that was evicted is nobody else's: it is taken again, with one line in the log, and all goes on."""
    raw.delete("blocks:lease")
    raw.hset("blocks:meta", "pid", "7")  # the server was restored to what an earlier process had written
    if how != "evicted":
        raw.rpush("blocks:lease", "x")
    if met_by == "a change":
        rig.write("agents/bob/persona", "two\n")
    elif met_by != "the heartbeat":
        rig.write("bad", "---\nlimit: nothing\n---\n")
    else:
        rig.clock.advance(1.1)
    rig.settle()
    assert raw.get("blocks:lease").startswith(rig.journal.epoch)
    assert_level(rig, raw)
    assert rig.heard.away == []
    assert rig.core.projector.last_error is None
    assert rig.heard.level == ["rebuilt"]
    assert "another daemon" not in caplog.text
    assert caplog.text.count("the lease was evicted") == 1
    assert "reset" not in ear.kinds()


STRAYS: dict[str, Callable[[Any], Any]] = {
    "block renamed": lambda raw: raw.rename("blocks:block:notes", "blocks:block:x"),
    "block copied": lambda raw: raw.copy("blocks:block:notes", "blocks:block:x"),
    "block with any label": lambda raw: raw.hset("blocks:block:../x", "value", "forged"),
    "set added": lambda raw: raw.sadd("blocks:attached:x", "mallory"),
    "agent added": lambda raw: raw.hset("blocks:agent:mallory", "notes", "notes"),
    "source added": lambda raw: raw.hset("blocks:source:x", "a", "{}"),
    "source's agents added": lambda raw: raw.sadd("blocks:source-agents:x", "mallory"),
    "file added": lambda raw: raw.hset("blocks:file:x/y", "value", "forged"),
    "open file added": lambda raw: raw.hset("blocks:open:mallory", "x/y", "z"),
    "of another type": lambda raw: raw.rpush("blocks:block:x", "y"),
}


@pytest.mark.parametrize("stray", STRAYS)
def test_stray_key_is_removed(rig: Rig, raw: Any, stray: str) -> None:
    """keys renamed or added by hand: what belongs to nothing is gone after a comparison, what is another's is not."""
    others = ("blocks:inbox:mallory", "blocks:reply:mallory:1", "blocks:mine", "blocksx", "other:block:x")
    for key in others:
        raw.rpush(key, "x")
    STRAYS[stray](raw)
    rig.resync()
    for key in others:
        assert raw.lrange(key, 0, -1) == ["x"]
        raw.delete(key)
    assert_level(rig, raw)


def test_blocks_are_compared_spread_out(
    make_rig: Callable[..., Rig], raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many blocks some are compared each second by version and digest, and read in full only where these differ.

    A value edited under its digest is found too, when the turn of its part has come: here within two passes.
    """
    monkeypatch.setattr(verifier, "KEYS_A_SECOND", 64)
    monkeypatch.setattr(verifier, "READ_IN_FULL", 200)
    rig = make_rig()
    for number in range(400):
        rig.write(f"b{number}", f"{number}\n")
    rig.settle()
    projector = rig.core.projector

    def one_pass() -> None:
        passes = projector.verifier.passes
        rig.run(lambda: projector.verifier.passes > passes and not projector.verifier.is_due)

    one_pass()
    raw.hset("blocks:block:b7", "version", "99")
    raw.delete("blocks:block:b8")
    raw.hset("blocks:block:b9", "value", "forged")
    raw.hset("blocks:block:b10", "value", "forged")
    read: list[int] = []
    compared: list[int] = []
    compare, ask = rig.mirror.compare, rig.mirror.read_many

    def counting_compare(blocks: str, *prefixes: str) -> list[int]:
        compared.append(len(json.loads(blocks)))
        return compare(blocks, *prefixes)

    def counting_ask(questions: Any) -> list[Any]:
        read.append(sum(question[1].startswith("blocks:block:") for question in questions))
        return ask(questions)

    monkeypatch.setattr(rig.mirror, "compare", counting_compare)
    monkeypatch.setattr(rig.mirror, "read_many", counting_ask)
    begun = rig.clock()
    one_pass()
    assert rig.clock() - begun >= 400 / 64 - 1
    assert sum(compared) == 400
    assert 100 < sum(read) < 300, "half of them are read in full, and those that differ"
    assert raw.hget("blocks:block:b7", "version") == "1"
    assert raw.hget("blocks:block:b8", "value") == "8"
    one_pass()
    assert raw.hget("blocks:block:b9", "value") == "9"
    assert raw.hget("blocks:block:b10", "value") == "10"
    assert_level(rig, raw)


def test_polling_does_not_compare_the_mirror_more_often(make_rig: Callable[..., Rig]) -> None:
    """The folder is polled every second, the mirror is compared once a minute."""
    rig = make_rig(poll=True)
    rig.write("notes", "one\n")
    rig.run(lambda: rig.core.projector.is_in_sync)
    verifier_ = rig.core.projector.verifier
    begun, passes = rig.clock(), verifier_.passes
    rig.run(lambda: rig.clock() > begun + 150)
    assert 2 <= verifier_.passes - passes <= 3


def test_repaired_block_is_told_to_who_follows_it(rig: Rig, raw: Any) -> None:
    """On the channel of the block, and of the agent whose blocks were shown wrongly; nobody is told to reset."""
    channels = ["blocks:changes:block:notes", "blocks:changes:block:shared", "blocks:changes:agent:bob"]
    ears = [Ear(raw, channel) for channel in (*channels, "blocks:changes:agent:ann", "blocks:changes:reset")]
    raw.delete("blocks:block:notes", "blocks:agent:bob")
    rig.resync()
    notes, shared, bob, ann, resets = ([(one["labels"], one["agents"]) for one in ear.changes()] for ear in ears)
    assert (notes, shared, ann, resets) == ([(["notes"], [])], [], [], [])
    assert bob == [([], ["bob"])]
    for ear in ears:
        ear.close()


def test_mirror_is_rebuilt_at_full_speed_while_the_journal_takes_nothing(
    rig: Rig, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk and a Redis that restarted empty: the rebuild does not wait between its slices."""
    for number in range(1500):
        rig.write(f"many/{number}", "x\n")
    rig.settle()

    def full(*_: Any, **__: Any) -> None:
        raise JournalUnusable("the journal cannot be written: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(rig.journal, "append", full)
        rig.write("notes", "two\n")
        rig.run(lambda: "<journal>" in rig.core.problems)
        raw.flushall()
        rig.run(lambda: not rig.core.projector.is_in_sync)
        begun = rig.clock()
        rig.run(lambda: rig.core.projector.is_in_sync)
        assert rig.clock() - begun < 1.5
    rig.settle()
    assert_level(rig, raw)


@pytest.mark.parametrize("moment", ["a change", "a rebuild", "a comparison"])
def test_unforeseen_error_while_the_mirror_is_written(
    rig: Rig, raw: Any, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is logged with its traceback and counted; one block is shown later, all others at once, and nothing ends."""

    def spoilt(name: str) -> None:
        make = getattr(projection, name)

        def fail(revision: Revision, *rest: Any) -> Any:
            if revision.label == "notes":
                raise RecursionError("nobody foresaw this")
            return make(revision, *rest)

        for module in (mirror_module, runs):
            if hasattr(module, name):
                patch.setattr(module, name, fail)

    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(rig.heard, "on_fault", lambda fault, _: told.append(fault.text))
        for name in ("rebuild_commands", "commands_of"):
            spoilt(name)
        if moment == "a rebuild":
            raw.flushall()
        elif moment == "a comparison":
            raw.delete("blocks:block:notes", "blocks:block:shared")
        rig.write("notes", "two\n") if moment == "a change" else None
        rig.write("agents/bob/persona", "I am Bob!\n")
        rig.clock.advance(rig.config.resync_seconds + 1)
        rig.run(lambda: rig.core.faults.count >= 1)
        rig.run(lambda: raw.hget("blocks:block:agents/bob/persona", "value") == "I am Bob!")
        rig.run(lambda: raw.hget("blocks:block:shared", "value") == "for all")
        rig.run(lambda: rig.core.projector.is_in_sync)
        assert "nobody foresaw this" in told[0]
        assert "in fail" in told[0], "the traceback leads to the place"
    rig.resync()
    rig.resync()
    assert_level(rig, raw)


@pytest.mark.parametrize("field", ["seq", "epoch"])
def test_edited_place_is_noticed_by_the_heartbeat(rig: Rig, raw: Any, ear: Ear, field: str) -> None:
    """meta edited by hand: a seq from the future, no number, another epoch: the mirror is not believed, but shown anew."""
    for value in ("999", "x", ""):
        raw.hset("blocks:meta", field, value)
        rig.clock.advance(1.1)
        rig.settle()
        assert_level(rig, raw)
    assert rig.heard.level == ["rebuilt"] * 4 or field == "seq"
    assert "reset" in ear.kinds()


@pytest.mark.every_backend
@pytest.mark.parametrize(
    "key", ["block:notes", "attached:notes", "agent:ann", "labels", "ids", "changes", "meta", "lease"]
)
def test_wrong_type_met_by_a_change(rig: Rig, raw: Any, ear: Ear, key: str) -> None:
    """a key of a wrong type met while a change is shown: the mirror is shown anew at once, the change not lost."""
    raw.delete(f"blocks:{key}")
    raw.set(f"blocks:{key}", "x")
    rig.save_and_settle("notes", "---\nagents: [ann, cid]\n---\ntwo\n")
    rig.resync()
    assert_level(rig, raw)
    assert raw.hget("blocks:block:notes", "value") == "two"
    assert {"reset", "updated"} & set(ear.kinds())


# --- errors of its own kind each ---


@pytest.mark.every_backend
def test_out_of_memory(rig: Rig, raw: Any) -> None:
    """OOM: it is said once, the folder goes on being journaled, and all is shown when there is room again."""
    raw.config_set("maxmemory-policy", "noeviction")
    raw.config_set("maxmemory", "1mb")
    rig.run(lambda: is_away(rig), "the heartbeat is refused")
    save_while_away(rig, "two\n")
    rig.clock.advance(5)
    rig.round()
    assert len(rig.heard.away) == 1
    assert isinstance(rig.heard.away[0], Unavailable)
    assert "maxmemory" in rig.heard.away[0].message
    raw.config_set("maxmemory", "0")
    rig.settle()
    assert_level(rig, raw)
    assert rig.heard.level == ["rebuilt", "caught up"]


@pytest.mark.every_backend
def test_read_only_replica(rig: Rig, raw: Any) -> None:
    """READONLY: a server that was made a replica is waited for, until it is a master again."""
    raw.replicaof("127.0.0.1", "1")
    rig.write("notes", "two\n")
    rig.run(lambda: is_away(rig))
    save_while_away(rig, "three\n")
    assert len(rig.heard.away) == 1
    assert isinstance(rig.heard.away[0], Unavailable)
    assert "read only" in rig.heard.away[0].message
    raw.replicaof("NO", "ONE")
    rig.settle()
    assert_level(rig, raw)


@pytest.mark.every_backend
def test_loading(rig: Rig, server: RedisServer, raw: Any) -> None:
    """LOADING: a server that is still reading its data is waited for, and then only brought forward."""
    for number in range(40):
        raw.set(f"other:{number}", str(number) * 4096)
    raw.save()
    raw.close()
    server.kill()
    slowly = ("--key-load-delay", "25000", "--loading-process-events-interval-bytes", "1024", "--rdbcompression", "no")
    server.launch(*slowly)
    rig.write("notes", "two\n")
    rig.run(
        lambda: any("LOADING" in str(error) or "loading" in str(error) for error in [rig.core.projector.last_error])
    )
    rig.write("notes", "three\n")
    server.wait()
    rig.settle()
    after = server.client()
    assert_level(rig, after)
    assert len(rig.heard.away) == 1
    assert rig.heard.level == ["rebuilt", "caught up"]
    after.close()


@pytest.mark.every_backend
def test_misconf(server: RedisServer, make_rig: Callable[..., Rig]) -> None:
    """MISCONF: a server that refuses writes because it cannot save is waited for."""
    server.kill()
    server.start("--save", "3600 1")
    (server.directory / "dump.rdb").mkdir()  # a snapshot cannot take its place
    raw = server.client()
    rig = make_rig()
    rig.write("notes", "one\n")
    rig.settle()
    raw.bgsave()
    eventually(lambda: raw.info("persistence")["rdb_last_bgsave_status"] == "err", "the snapshot fails")
    rig.write("notes", "two\n")
    rig.run(lambda: is_away(rig))
    save_while_away(rig, "three\n")
    assert len(rig.heard.away) == 1
    assert isinstance(rig.heard.away[0], Unavailable)
    assert "MISCONF" in rig.heard.away[0].message
    (server.directory / "dump.rdb").rmdir()
    raw.bgsave()
    rig.settle()
    assert_level(rig, raw)
    raw.close()


@pytest.mark.every_backend
def test_cluster_down(make_rig: Callable[..., Rig], server: RedisServer, free_port: int) -> None:
    """CLUSTERDOWN: a node whose slots nobody serves is waited for; the namespace lives in one slot by its hash tag."""
    server.kill()
    server.start("--port", str(free_port), "--cluster-enabled", "yes")
    rig = make_rig(namespace="{blocks}")
    rig.write("notes", "---\nagents: [ann]\n---\none\n")
    rig.run(lambda: is_away(rig))
    assert isinstance(rig.heard.away[0], Unavailable)
    raw = server.client()
    raw.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")

    def is_up() -> bool:
        time.sleep(0.02)  # it takes a second or two, and a round is made between two questions
        return bool(raw.cluster("INFO")["cluster_state"] == "ok")

    rig.run(is_up)
    rig.settle()
    assert len(rig.heard.away) == 1
    assert_level(rig, raw)
    raw.close()


@pytest.mark.every_backend
def test_cluster_client(make_rig: Callable[..., Rig], server: RedisServer, free_port: int) -> None:
    """A namespace on a cluster is built, brought forward, compared and repaired as on one server."""
    server.kill()
    server.start("--port", str(free_port), "--cluster-enabled", "yes")
    raw = server.client()
    raw.execute_command("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    eventually(
        lambda: (
            "cluster_state:ok" in str(raw.execute_command("CLUSTER", "INFO"))
            or raw.cluster("info")["cluster_state"] == "ok"
        )
    )
    rig = make_rig(namespace="{blocks}", url=f"redis+cluster://127.0.0.1:{free_port}")
    rig.write("notes", "---\nagents: [ann]\n---\none\n")
    rig.settle()
    assert_level(rig, raw)
    raw.hset("{blocks}:block:notes", "value", "forged")
    rig.resync()
    assert_level(rig, raw)
    raw.flushall()
    rig.settle()
    assert_level(rig, raw)
    raw.close()


@pytest.mark.every_backend
def test_script_flush(rig: Rig, raw: Any) -> None:
    """NOSCRIPT: scripts the server forgot are loaded again; nobody is told that anything was amiss."""
    raw.script_flush()
    rig.save_and_settle("notes", "two\n")
    assert_level(rig, raw)
    assert rig.heard.away == []
    assert rig.heard.level == ["rebuilt"]


@pytest.mark.every_backend
def test_wrong_password(make_rig: Callable[..., Rig], server: RedisServer, raw: Any) -> None:
    """wrong password: said once, without the password; tried again only every half minute; level when it is right."""
    raw.acl_setuser("daemon", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"], channels=["*"])
    rig = make_rig(url=server.url.replace("unix://", "unix://daemon:secret@"))
    rig.write("notes", "one\n")
    rig.settle()
    raw.acl_setuser("daemon", enabled=True, reset_passwords=True, passwords=["+other"])
    raw.client_kill_filter(_type="normal", skipme=True)
    rig.write("notes", "two\n")
    rig.run(lambda: is_away(rig) and isinstance(rig.heard.away[-1], Misconfigured))
    save_while_away(rig, "three\n")
    assert rig.core.projector.due - rig.clock() >= 10
    for _ in range(5):
        rig.clock.advance(40)
        rig.round()
    said = [error for error in rig.heard.away if isinstance(error, Misconfigured)]
    assert len(said) == 1
    assert "refuses the login" in said[0].message
    assert not any("secret" in f"{error} {error.facts}" for error in rig.heard.away)
    raw.acl_setuser("daemon", enabled=True, reset_passwords=True, passwords=["+secret"])
    rig.settle()
    assert_level(rig, raw)


@pytest.mark.every_backend
def test_missing_password(make_rig: Callable[..., Rig], raw: Any) -> None:
    """NOAUTH: a server that wants a login where none is configured is a matter of configuration."""
    raw.config_set("requirepass", "secret")
    rig = make_rig()
    rig.write("notes", "one\n")
    rig.run(lambda: is_away(rig))
    assert isinstance(rig.heard.away[0], Misconfigured)
    raw.config_set("requirepass", "")
    rig.settle()
    assert_level(rig, raw)


@pytest.mark.every_backend
@pytest.mark.parametrize("lacking", ["hset", "evalsha", "publish", "scan"])
def test_command_not_permitted(make_rig: Callable[..., Rig], server: RedisServer, raw: Any, lacking: str) -> None:
    """NOPERM: a user that may not do all it must: said once, slow back-off, level when it may."""
    raw.acl_setuser("daemon", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["*"], channels=["*"])
    raw.acl_setuser("daemon", enabled=True, commands=[f"-{lacking}"])
    rig = make_rig(url=server.url.replace("unix://", "unix://daemon:secret@"))
    rig.write("notes", "one\n")
    rig.run(lambda: is_away(rig))
    assert rig.core.projector.due - rig.clock() >= 10
    assert isinstance(rig.heard.away[0], Misconfigured)
    for _ in range(3):
        rig.clock.advance(40)
        rig.round()
    assert len(rig.heard.away) == 1
    raw.acl_setuser("daemon", enabled=True, commands=[f"+{lacking}"])
    rig.settle()
    assert_level(rig, raw)


@pytest.mark.every_backend
def test_keys_not_permitted(make_rig: Callable[..., Rig], server: RedisServer, raw: Any) -> None:
    """NOPERM: the same when the user may not touch the namespace's keys, or speak on its channels."""
    raw.acl_setuser(
        "daemon", enabled=True, passwords=["+secret"], categories=["+@all"], keys=["else:*"], channels=["else:*"]
    )
    rig = make_rig(url=server.url.replace("unix://", "unix://daemon:secret@"))
    rig.write("notes", "one\n")
    rig.run(lambda: is_away(rig))
    raw.acl_setuser("daemon", enabled=True, keys=["blocks:*"])
    for _ in range(3):
        rig.clock.advance(40)
        rig.round()
    assert {type(error) for error in rig.heard.away} == {Misconfigured}
    raw.acl_setuser("daemon", enabled=True, channels=["blocks:*"])
    rig.settle()
    assert_level(rig, raw)
    assert len(rig.heard.away) == 1


# --- two daemons, and the clock ---


def test_second_daemon_in_a_namespace(rig: Rig, raw: Any, make_rig: Callable[..., Rig]) -> None:
    """two daemons in one namespace: the second is refused, naming the first, and writes nothing; it takes over from it."""
    second = make_rig("two")
    second.write("theirs", "x\n")
    second.run(lambda: is_away(second))
    for _ in range(5):
        second.clock.advance(3)
        second.round()
    rig.settle()
    assert_level(rig, raw)
    assert len(second.heard.away) == 1
    assert f"pid {raw.hget('blocks:meta', 'pid')} on here, for {rig.root}" in second.heard.away[0].message
    assert rig.heard.away == []
    rig.close()
    second.settle()
    assert_level(second, raw)
    assert second.heard.level == ["rebuilt"]


def test_daemon_that_lost_its_lease_stands_back(rig: Rig, raw: Any, make_rig: Callable[..., Rig]) -> None:
    """A daemon that slept through its lease does not write over the one that took it, and says who that is."""
    raw.delete("blocks:lease")
    second = make_rig("two")
    second.write("theirs", "x\n")
    second.settle()
    rig.write("notes", "two\n")
    rig.run(lambda: is_away(rig))
    second.settle()
    assert_level(second, raw)
    assert f"for {second.root}" in rig.heard.away[0].message


@pytest.mark.parametrize("what", ["a save", "a deletion"])
def test_journal_that_takes_nothing_is_said_once(rig: Rig, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """However often it is tried, and though what needs no journal goes on; so is that it takes something again."""
    rig.heard.problems.clear()

    def full(*_: Any) -> None:
        raise JournalUnusable("the journal cannot be written: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(rig.journal, "append", full)
        if what == "a save":
            rig.write("notes", "two\n")
        else:
            rig.remove("notes")
        end = rig.clock() + 30.0
        rig.run(lambda: rig.clock() > end)
        assert [problem.subject for problem in rig.heard.problems] == ["<journal>"]
        assert rig.heard.cleared == []
    rig.settle()
    assert [problem.subject for problem in rig.heard.cleared] == ["<journal>"]


def test_journal_that_failed_once_is_mended_when_nothing_comes(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it could not take may be gone by then."""

    def full(*_: Any) -> None:
        raise JournalUnusable("the journal cannot be written: the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(rig.journal, "append", full)
        rig.write("new", "two\n")
        rig.run(lambda: "<journal>" in rig.core.problems)
    (rig.root / "new.md").unlink()
    rig.run(lambda: "<journal>" not in rig.core.problems)
    assert rig.journal.head("new") is None


@pytest.mark.parametrize("offset", [-86_400.0, 86_400.0 * 365])
def test_clock_steps(rig: Rig, raw: Any, ear: Ear, offset: float) -> None:
    """clock steps back or forward: changes go on in order, each once; only their times show it."""
    seq = rig.journal.seq
    rig.save_and_settle("agents/bob/persona", "two\n")
    rig.wall_offset = offset
    rig.save_and_settle("agents/bob/persona", "three\n")
    rig.resync()
    rig.save_and_settle("agents/bob/persona", "four\n")
    assert_level(rig, raw)
    assert seqs(ear.changes()) == [seq + 1, seq + 2, seq + 3]
    assert rig.heard.away == []
    assert rig.heard.repaired == []


def test_snapshot_of_the_same_place_with_an_older_problem(rig: Rig, raw: Any, server: RedisServer) -> None:
    """Redis comes back as it was before a problem came: no number tells, but the lease is gone, so all is compared."""
    by_bytes: Any = server.client(decode_responses=False)
    snapshot = {key: by_bytes.dump(key) for key in raw.scan_iter("*") if not key.endswith(":lease")}
    rig.write("worse", "---\nlimit: none\n---\n")
    rig.run(lambda: raw.hexists("blocks:problems", "worse.md"))
    raw.flushall()
    for key, data in snapshot.items():
        by_bytes.restore(key, 0, data)
    by_bytes.close()
    rig.settle()
    assert_level(rig, raw)


def test_journaled_change_is_shown_though_the_round_fails_after_it(
    rig: Rig, raw: Any, ear: Ear, monkeypatch: pytest.MonkeyPatch
) -> None:
    """journal that fails between a save and its projection: the mirror follows meanwhile, and nothing spins."""
    rig.run(lambda: rig.core.projector.verifier.passes > 0)
    monkeypatch.setattr(rig.core.intake, "follow", unusable)
    rig.core.projector.verifier.begin()
    rig.write("notes", "---\nagents: [ann]\n---\ntwo\n")
    rig.clock.advance(rig.core.wait_seconds())
    rounds = []
    for _ in range(12):
        rig.round()
        rounds.append(rig.core.wait_seconds())
        rig.clock.advance(rounds[-1] or 0.001)
    assert "<journal>" in rig.core.problems
    assert raw.hget("blocks:block:notes", "value") == "two"
    assert [change["label"] for change in ear.changes() if change["kind"] == "updated"] == ["notes"]
    assert sum(wait == 0 for wait in rounds) < 10, rounds
    monkeypatch.undo()
    rig.settle()
    assert_level(rig, raw)


def unusable(*_: object, **__: object) -> None:
    raise JournalUnusable("disk I/O error", path="journal.db")


def test_full_disk_holds_the_mirror_where_it_is(rig: Rig, raw: Any, ear: Ear) -> None:
    """journal on a full disk: nothing is announced that is not journaled; it is a problem until there is room again."""
    size = rig.journal.database.execute("PRAGMA page_count").fetchone()[0]
    rig.journal.database.execute(f"PRAGMA max_page_count={size}")
    seq = rig.journal.seq
    # Longer than the pages that are free, also when it is compressed.
    rig.write("agents/bob/persona", "".join(map(chr, random.Random(1).choices(range(0x4E00, 0x9FA0), k=19_000))))
    rig.run(lambda: "<journal>" in rig.core.problems)
    rig.run(lambda: raw.hexists("blocks:problems", "<journal>"))
    assert raw.hget("blocks:block:agents/bob/persona", "value") == "I am Bob."
    rig.journal.database.execute("PRAGMA max_page_count=1073741823")
    rig.settle()
    assert_level(rig, raw)
    changes = ear.changes()
    assert seqs(changes) == [seq + 1]
    assert [(change["kind"], change["subject"]) for change in changes if change["kind"] != "updated"] == [
        ("rejected", "<journal>"),
        ("cleared", "<journal>"),
    ]
    assert rig.heard.repaired == []
