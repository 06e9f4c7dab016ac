"""The daemon's process: how it stops, crashes, starts again, and shares the machine with others of its kind."""

from __future__ import annotations

import io
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.files.watcher import Hint, Watcher
from blocksd.monitoring.log import EventLog
from blocksd.requests.consumer import Readable
from blocksd.service.service import Service
from blocksd.settings.config import Config
from rig import Rig
from support import Daemon, do_without, eventually, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd.model.revision import Revision
    from support import Changes, RedisServer

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    connected = server.client()
    yield connected
    connected.close()


def texts(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text().removesuffix("\n") for path in folder.glob("*.md")}


def shown(client: Any) -> dict[str, str]:
    labels = client.zrange("blocks:labels", 0, -1)
    pipeline = client.pipeline()
    for label in labels:
        pipeline.hget(f"blocks:block:{label}", "value")
    return dict(zip(labels, pipeline.execute(), strict=True))


def assert_whole(daemon: Daemon, client: Any, folder: Path) -> None:
    """The mirror is what the files say; the journal has no gap; nothing was numbered, journaled or announced twice."""
    eventually(lambda: shown(client) == texts(folder), "the mirror is level with the files")
    revisions = daemon.revisions()
    assert [revision.seq for revision in revisions] == list(range(1, len(revisions) + 1))
    newest: dict[str, Revision] = {}
    for revision in revisions:
        before = newest.get(revision.label)
        assert revision.version == (before.version + 1 if before else 1)
        assert before is None or before.block != revision.block
        newest[revision.label] = revision
    stream = [entry_id for entry_id, _ in client.xrange("blocks:changes") if entry_id.endswith("-0")]
    # It may begin late: a rebuild leaves in it only what came after.
    assert stream == [f"{seq}-0" for seq in range(len(revisions) + 1 - len(stream), len(revisions) + 1)]


# --- stopping and crashing ---


def test_sigterm_ends_it_in_order(folder: Path, client: Any, run_daemon: RunDaemon) -> None:
    """Told to stop in the middle of a burst it ends at once, with exit code 0, a closed journal, the lease given up."""
    (folder / "first.md").write_text("text\n")
    daemon = run_daemon()
    for number in range(2000):
        (folder / f"burst-{number}.md").write_text(f"text {number}\n")
    eventually(lambda: client.zcard("blocks:labels") > 10)
    assert daemon.process is not None
    daemon.process.terminate()
    assert daemon.process.wait(5) == 0
    assert "Traceback" not in daemon.said()
    assert daemon.said().rstrip().endswith("stopped")
    assert not client.exists("blocks:lease")
    assert sorted(path.name for path in daemon.state.iterdir()) == ["journal.db", "journal.db-begun", "lock"]
    with sqlite3.connect(daemon.state / "journal.db") as journal:
        assert journal.execute("SELECT value FROM meta WHERE key = 'clean'").fetchone() == (1,)
    journal.close()
    assert_whole(run_daemon(), client, folder)


@pytest.mark.slow
def test_killed_at_any_moment_it_loses_and_doubles_nothing(folder: Path, client: Any, run_daemon: RunDaemon) -> None:
    """kill -9 in the middle of bursts of saves, again and again: each start finds what is left to do, and only that."""
    random_ = random.Random(2026)
    for round_ in range(6):
        daemon = run_daemon("--delete-grace", "0.1")
        enough = int(client.hget("blocks:meta", "seq") or 0) + random_.randrange(1, 250)
        for number in range(300):
            (folder / f"block-{random_.randrange(150)}.md").write_text(f"text {round_} {number}\n")
        eventually(lambda: int(client.hget("blocks:meta", "seq") or 0) >= min(enough, 120))  # noqa: B023  # right here
        daemon.kill()
        (folder / f"block-{random_.randrange(150)}.md").write_text(f"while it was away {round_}\n")
    daemon = run_daemon()
    assert_whole(daemon, client, folder)
    assert not client.hgetall("blocks:problems")
    daemon.stop()
    count = len(daemon.revisions())
    assert_whole(run_daemon(), client, folder)
    assert len(daemon.revisions()) == count


# --- two of them ---


def refused(daemon: Daemon) -> str:
    assert daemon.process is not None
    assert daemon.process.wait(10) == 1, daemon.said()
    assert "Traceback" not in daemon.said()
    return daemon.said()


def test_second_daemon_is_refused(folder: Path, tmp_path: Path, server: RedisServer, run_daemon: RunDaemon) -> None:
    """A folder, a state directory and a namespace each have one daemon; a second one says who it is, and exits with 1."""
    (folder / "notes.md").write_text("one\n")
    first = run_daemon()
    assert first.process is not None
    pid = f"pid {first.process.pid}"
    other = tmp_path / "other.d"
    other.mkdir()
    same_folder = run_daemon("--namespace", "another", state="state-2", ready=False)
    said = refused(same_folder)
    assert f"the folder {folder} is served by another daemon with {pid}" in said
    same_state = Daemon(other, tmp_path / "state", "--redis", server.url, "--namespace", "another").start(ready=False)
    said = refused(same_state)
    assert f"the state directory {tmp_path / 'state'} is served by another daemon with {pid}" in said
    same_namespace = Daemon(other, tmp_path / "state-3", "--redis", server.url).start(ready=False)
    said = refused(same_namespace)
    assert f"is served by the daemon with {pid}" in said
    assert str(folder) in said
    eventually(lambda: first.command("status").returncode == 0, "the first is well")
    first.stop()
    assert Daemon(other, tmp_path / "state-3", "--redis", server.url).start().stop() == 0


def test_folder_put_in_anothers_place_has_one_daemon(
    folder: Path, tmp_path: Path, client: Any, run_daemon: RunDaemon
) -> None:
    """The folder was moved away, and the new one at its path is another daemon's: the first stops writing, no edit is doubled."""
    (folder / "log.md").write_text("")
    first = run_daemon()
    assert first.process is not None
    first.process.send_signal(signal.SIGSTOP)
    folder.rename(tmp_path / "moved.d")
    folder.mkdir()
    (folder / "log.md").write_text("")
    second = run_daemon("--namespace", "others", state="state-2")
    assert second.process is not None
    for number in range(40):
        request = {"id": f"r-{number}", "op": "append", "label": "log", "args": {"content": f"line {number}"}}
        for namespace in ("blocks", "others"):
            client.xadd(f"{namespace}:inbox:operator", {"request": json.dumps(request)})
    first.process.send_signal(signal.SIGCONT)
    replies = {namespace: replies_of(client, namespace, 40) for namespace in ("blocks", "others")}
    assert all(reply["ok"] for reply in replies["others"])
    assert (folder / "log.md").read_text().split() == [word for number in range(40) for word in ("line", str(number))]
    assert {reply["error"]["code"] for reply in replies["blocks"]} == {"unavailable"}
    assert (tmp_path / "moved.d" / "log.md").read_text() == ""
    why = f"the folder {folder} is served by another daemon with pid {second.process.pid}"
    eventually(lambda: why in first.said(), "the first says why it has stopped")
    (folder / "new.md").write_text("the second's\n")
    eventually(lambda: client.hget("others:block:new", "value"), "the second has seen it")
    shown = json.loads(first.command("status", "--json").stdout)
    assert [(problem["subject"], why in problem["message"]) for problem in shown["problems"]] == [("<folder>", True)]
    asked = first.command("append", "log", "more")
    assert (asked.returncode, why in asked.stderr, "start the daemon" in asked.stderr) == (3, True, False)
    assert "cannot be" not in first.said()
    second.stop()
    eventually(lambda: "cleared: <folder>" in first.said(), "what the second has left is the first's")
    client.xadd("blocks:inbox:operator", {"request": json.dumps({**request, "id": "r-40"})})
    assert replies_of(client, "blocks", 41)
    assert client.hget("blocks:block:new", "value") == "the second's"


def in_place_of(folder: Path, real: Path) -> tuple[str, ...]:
    """What runs a command in a mount namespace of its own, in which `folder` is another directory."""
    require("unshare")
    require("mount")
    user = () if os.geteuid() == 0 else ("--map-root-user",)
    words = (
        "unshare",
        "--mount",
        *user,
        "sh",
        "-ec",
        'mount --bind "$1" "$2"; shift 2; exec "$@"',
        "sh",
        str(real),
        str(folder),
    )
    tried = subprocess.run([*words, "true"], check=False, capture_output=True, text=True)
    if tried.returncode:
        do_without(f"nothing can be mounted here ({tried.stderr.strip()})")
    return words


@pytest.mark.parametrize("is_same", [True, False], ids=["one folder", "two folders"])
def test_second_daemon_in_another_mount_namespace_is_refused(
    folder: Path, tmp_path: Path, server: RedisServer, client: Any, *, is_same: bool
) -> None:
    """As in two containers of one host name: one path, two state directories, one Redis. Each edit is done once."""
    reals = [tmp_path / "real-1", tmp_path / ("real-1" if is_same else "real-2")]
    for real in reals:
        real.mkdir(exist_ok=True)
        (real / "log.md").write_text("")
    daemons = [
        Daemon(folder, tmp_path / f"state-{number}", "--redis", server.url, under=in_place_of(folder, real))
        for number, real in enumerate(reals)
    ]
    first, second = daemons
    try:
        first.start()
        second.start(ready=False)
        for number in range(40):
            request = {"id": f"r-{number}", "op": "append", "label": "log", "args": {"content": f"line {number}"}}
            client.xadd("blocks:inbox:operator", {"request": json.dumps(request)})
        assert all(reply["ok"] for reply in replies_of(client, "blocks", 40))
        assert first.process is not None
        said = refused(second)
        pid = f"with pid {first.process.pid}"
        assert (f"the folder {folder} is served by another daemon {pid}" in said) == is_same
        assert (f"is served by the daemon {pid}" in said) != is_same
        assert len(set(re.findall(r"folder [0-9a-f]+:[0-9a-f]+", said))) == (0 if is_same else 2)  # each has its own
        lines = [word for number in range(40) for word in ("line", str(number))]
        assert [(real / "log.md").read_text().split() for real in reals] == [lines, lines if is_same else []]
        assert first.stop() == 0
        second.start()  # it may, as soon as the first has stopped
        assert second.stop() == 0
    finally:
        for daemon in daemons:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.kill()


def replies_of(client: Any, namespace: str, count: int) -> list[dict[str, Any]]:
    """All replies to the operator, once there are so many."""
    keys = eventually(
        lambda: len(found := client.keys(f"{namespace}:reply:operator:*")) == count and found, f"{count} replies"
    )
    return [json.loads(client.lindex(key, 0)) for key in keys]


def test_lease_of_a_daemon_that_may_be_dead_is_waited_for(folder: Path, client: Any, run_daemon: RunDaemon) -> None:
    """As after a reboot of the machine, or its clone's: it is taken when it expires, and not before."""
    (folder / "notes.md").write_text("one\n")
    client.set("blocks:lease", "e0 t0 another-machine fd:1", px=5000)  # longer than a start on a busy machine
    daemon = run_daemon()
    assert "waiting to see whether that daemon is alive" in daemon.said()
    assert client.get("blocks:lease").partition(" ")[0] != "e0"


# --- clocks ---


def test_clock_that_jumps_changes_no_decision(
    tmp_path: Path, server: RedisServer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of day may step by years, forward and back: what is saved, deleted and announced stays the same."""
    real, offset = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: real() + offset)
    rig = Rig(tmp_path, server.url)
    rig.write("doomed", "text")
    rig.write("notes", "0")
    rig.settle()
    for number, offset in enumerate((3e7, -3e7, 0.0, -9e8, 9e8), start=1):  # noqa: B007  # what `time.time` adds
        rig.save_and_settle("notes", f"{number}")
        assert client.hget("blocks:block:notes", "value") == f"{number}"
    rig.remove("doomed")
    for offset in (9e8, -9e8):  # noqa: B007  # as above
        rig.round()
        rig.clock.advance(rig.config.delete_grace * 0.4)
        assert client.exists("blocks:block:doomed")
    rig.settle()
    rig.run(lambda: not client.exists("blocks:block:doomed"))
    assert [revision.seq for revision in rig.journal.since(0, 100)] == list(range(1, 9))
    assert rig.heard.away == []
    rig.close()


# --- the journal ---


def test_damaged_journal_is_set_aside(folder: Path, client: Any, run_daemon: RunDaemon, changes: Changes) -> None:
    """A journal that is no database any more is kept under another name, and said; the mirror is built anew from the files."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    epoch = client.hget("blocks:meta", "epoch")
    daemon.stop()
    (daemon.state / "journal.db").write_bytes(b"this is no database" * 1000)
    (folder / "notes.md").write_text("two\n")
    daemon = run_daemon()
    assert "the journal was damaged: it was put together again" in daemon.said()
    (aside,) = daemon.state.glob("journal.db.damaged-*")
    assert aside.read_bytes().startswith(b"this is no database")
    assert client.hget("blocks:meta", "epoch") != epoch
    changes.until(lambda change: change["kind"] == "reset" and change["epoch"] != epoch)
    assert_whole(daemon, client, folder)


def test_journal_damaged_inside(folder: Path, client: Any, run_daemon: RunDaemon) -> None:
    """A journal whose header is sound, but not what is behind it, is set aside just the same."""
    for number in range(50):
        (folder / f"block-{number}.md").write_text(f"text {number}\n" * 20)
    daemon = run_daemon()
    daemon.stop()
    path = daemon.state / "journal.db"
    path.write_bytes(path.read_bytes()[:4096] + b"\xa5" * (path.stat().st_size - 4096))
    assert daemon.command("history", "block-1").stderr.startswith("blocksd: the journal cannot be read")
    daemon = run_daemon()
    assert "the journal was damaged: it was put together again" in daemon.said()
    assert_whole(daemon, client, folder)


def test_missing_journal_is_another_epoch(folder: Path, client: Any, run_daemon: RunDaemon, changes: Changes) -> None:
    """When the journal is gone, numbers begin anew under another epoch, and everyone is told to read again."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    epoch = client.hget("blocks:meta", "epoch")
    daemon.stop()
    for path in daemon.state.glob("journal.db*"):
        path.unlink()
    daemon = run_daemon()
    changes.until(lambda change: change["kind"] == "reset" and change["epoch"] != epoch)
    assert_whole(daemon, client, folder)


def test_journal_of_a_newer_version_is_refused(folder: Path, client: Any, run_daemon: RunDaemon) -> None:
    """A journal that a newer blocksd has written is left alone, and so is the mirror."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    daemon.stop()
    with sqlite3.connect(daemon.state / "journal.db") as journal:
        journal.execute("PRAGMA user_version = 99")
    journal.close()
    (folder / "notes.md").write_text("two\n")
    said = refused(run_daemon(ready=False))
    assert "the journal is of schema 99, newer than" in said
    assert client.hget("blocks:block:notes", "value") == "one"


def fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


def test_disk_of_the_journal_is_full(folder: Path, tmp_path: Path, client: Any, run_daemon: RunDaemon) -> None:
    """While nothing can be journaled nothing is taken in, and it is said; with space again, everything is made up for."""
    state = tmp_path / "state"
    state.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(state)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    daemon = None
    try:
        (folder / "notes.md").write_text("one\n")
        daemon = run_daemon()
        with pytest.raises(OSError, match="No space"):
            fill_up(state / "filler")
        for number in range(60):  # more than what the journal still has room for
            (folder / f"block-{number}.md").write_text(os.urandom(8750).hex())  # which does not become less when packed
        problem = json.loads(eventually(lambda: client.hget("blocks:problems", "<journal>")))
        assert "the journal cannot be written" in problem["message"]
        assert "free some space" in problem["hint"]
        (folder / "notes.md").write_text("two\n")
        (folder / "gone.md").write_text("never seen\n")
        (folder / "gone.md").unlink()
        (state / "filler").unlink()
        eventually(lambda: not client.exists("blocks:problems"), "it goes on by itself")
        assert_whole(daemon, client, folder)
        assert daemon.stop() == 0
    finally:
        if daemon is not None:
            daemon.stop()
        subprocess.run(["umount", "--lazy", state], check=True)


# --- threads ---


class InProcess:
    """A service whose rounds and ticks a test makes."""

    def __init__(self, folder: Path, state: Path, url: str) -> None:
        config = Config(folder=str(folder), redis=url, state_dir=str(state), resync_seconds=3600.0)
        self.log = io.StringIO()
        self.service = Service(config, [EventLog(self.log)])
        self.core = self.service.core
        self.service._threads.folder_watch.start()
        self.until(lambda: self.core.is_settled)

    @property
    def watcher(self) -> Watcher:
        assert self.service._threads.folder_watch._watcher is not None
        return self.service._threads.folder_watch._watcher

    def until(self, condition: Callable[[], Any]) -> None:
        def step() -> Any:
            for _ in self.core.round():
                pass
            self.service._receive(0.01)
            return condition()

        eventually(step)

    def said(self, words: str) -> list[str]:
        """The lines of the log that have these words in them."""
        return [line for line in self.log.getvalue().splitlines() if words in line]

    def tick(self) -> None:
        self.service._tick()
        self.until(lambda: not self.core.intake.scanner.is_sweeping and not self.core.intake.backlog)


@pytest.fixture
def in_process(folder: Path, tmp_path: Path, server: RedisServer) -> Iterator[InProcess]:
    (folder / "deep").mkdir()
    (folder / "deep" / "block.md").write_text("text\n")
    running = InProcess(folder, tmp_path / "state", server.url)
    yield running
    running.service.close()


class Idle:
    """A reader of inboxes that reads nothing."""

    def __init__(self, *, is_alive: bool = True) -> None:
        self.is_alive = lambda: is_alive

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def join(self) -> None: ...


def test_inboxes_that_cannot_be_read_are_said_once(in_process: InProcess) -> None:
    """What their reader says comes to the loop as all news do."""
    service = in_process.service
    service._threads.inbox_feed._reader = Idle()  # type: ignore[assignment]
    for obstacle in ("NOPERM no xread", None):
        service._mailbox.put(Readable(obstacle))
        for _ in range(5):
            in_process.tick()
    assert (len(in_process.said("no requests can be read")), len(in_process.said("cleared: <inbox>"))) == (1, 1)


def test_watchdog_starves_while_something_is_dead(in_process: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said when that lasts, once, and when it is over; what is amiss for a moment is not worth a word."""
    fed: list[None] = []
    monkeypatch.setattr("blocksd.monitoring.sd_notify.watchdog", lambda: fed.append(None))
    service = in_process.service
    in_process.tick()
    assert len(fed) == 1
    deliveries = service._threads.inbox_feed
    reader = deliveries._reader
    deliveries._reader = Idle(is_alive=False)  # type: ignore[assignment]
    in_process.tick()
    assert in_process.said("unhealthy") == []
    for _ in range(4):
        in_process.tick()
    assert len(fed) == 1
    deliveries._reader = reader
    for _ in range(3):
        in_process.tick()
    assert len(fed) == 4
    assert [line[9:] for line in in_process.said("healthy")] == [
        "unhealthy: the inboxes are not read; watchdog pings stopped",
        "healthy again; watchdog pings resumed",
    ]


def test_watchdog_is_fed_while_what_is_wrong_was_said(
    folder: Path, in_process: InProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is gone, or cannot be watched: starting again would not help."""
    fed: list[None] = []
    monkeypatch.setattr("blocksd.monitoring.sd_notify.watchdog", lambda: fed.append(None))

    def refuse(_: Watcher) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "start", refuse)
        in_process.watcher.stop()
        for _ in range(3):
            in_process.tick()
    assert len(fed) == 3
    assert len(in_process.said("the folder cannot be watched")) == 1
    folder.rename(folder.with_name("away"))
    in_process.until(lambda: "<folder>" in in_process.core.problems)
    in_process.tick()
    folder.with_name("away").rename(folder)
    in_process.until(lambda: "<folder>" not in in_process.core.problems)
    in_process.tick()
    assert len(fed) == 5
    assert in_process.said("unhealthy") == []


def test_what_happens_often_is_said_seldom(in_process: InProcess) -> None:
    """A storm of saves may overrun the queue of events many times a second."""
    for _ in range(5):
        in_process.service._threads.folder_watch.apply_hint(Hint("everything"))
        in_process.tick()
    assert len(in_process.said("events were lost")) == 1


# --- starting again ---


def test_restart_reads_no_file_that_has_not_changed(folder: Path, tmp_path: Path, run_daemon: RunDaemon) -> None:
    """What the journal knows by its stat is not opened again; the one file that changed is."""
    strace = require("strace")
    for number in range(20):
        path = folder / f"block-{number}.md"
        path.write_text(f"text {number}\n")
        os.utime(path, (1_700_000_000, 1_700_000_000))
    run_daemon().stop()
    trace = tmp_path / "trace"

    def opened() -> set[str]:
        under = (strace, "-D", "-f", "-q", "-e", "trace=open,openat,openat2", "-o", str(trace))
        run_daemon(under=under).stop()
        # Below the folder files are opened by a handle of their directory, so their paths are relative ones.
        return set(re.findall(r'"(?:[^"]*/)?([^"/]*\.md)"', trace.read_text()))

    assert opened() == set()
    (folder / "block-7.md").write_text("changed\n")
    os.utime(folder / "block-7.md", (1_700_000_000, 1_700_000_000))
    assert opened() == {"block-7.md"}


# --- Redis goes, the folder stays ---


def on_disk(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


def test_flushed_mirror_is_built_anew(folder: Path, client: Any, run_daemon: RunDaemon, changes: Changes) -> None:
    """After FLUSHALL the mirror is in sync again by itself, with a `reset`; edits meanwhile are in it; no file is touched."""
    for number in range(200):
        (folder / f"block-{number}.md").write_text(f"text {number}\n")
    daemon = run_daemon()
    for number in range(100):
        (folder / f"block-{number}.md").write_text(f"changed {number}\n")
        if number == 50:
            changes.all.clear()
            client.flushall()
    before = on_disk(folder)
    changes.until(lambda change: change["kind"] == "reset")
    eventually(lambda: client.hget("blocks:meta", "seq") == str(len(daemon.revisions())))
    eventually(lambda: shown(client) == texts(folder))
    assert on_disk(folder) == before
    assert len(daemon.revisions()) >= 300
    assert all(revision.kind in ("created", "updated") for revision in daemon.revisions())


def test_redis_killed_and_empty(folder: Path, client: Any, server: RedisServer, run_daemon: RunDaemon) -> None:
    """While Redis is dead the folder goes on being journaled; when it is back, empty, it is level again, with a `reset`."""
    (folder / "notes.md").write_text("one\n")
    (folder / "other.md").write_text("same\n")
    daemon = run_daemon()
    server.kill()
    (folder / "notes.md").write_text("two\n")
    eventually(lambda: daemon.values("notes") == ["one", "two"], "it is journaled without Redis")
    assert "Redis is unreachable" in eventually(lambda: "unreachable" in daemon.said() and daemon.said())
    before = on_disk(folder)
    server.start()
    eventually(lambda: shown(client) == {"notes": "two", "other": "same"})
    eventually(lambda: client.hget("blocks:meta", "seq") == "3")
    ((_, entry),) = client.xrevrange("blocks:changes", count=1)
    assert json.loads(entry["change"])["kind"] == "reset"
    assert on_disk(folder) == before
    assert daemon.values("notes") == ["one", "two"]
    (folder / "notes.md").write_text("three\n")
    eventually(lambda: client.hget("blocks:block:notes", "value") == "three")
