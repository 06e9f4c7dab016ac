"""The journal of a real daemon is removed or damaged: said, put right, and nothing of it is a traceback."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from blocksd import Client
from blocksd.errors import JournalUnusable
from blocksd.journal.history import JournalReader
from blocksd.service.control import ACCEPT_DELETIONS, ask
from shimmed import shim
from support import Daemon, RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow


def kept(daemon: Daemon, label: str) -> list[str | None]:
    """Every value that a journal in its place has; none while there is no such journal."""
    try:
        reader = JournalReader(str(daemon.state / "journal.db"))
    except JournalUnusable:
        return []
    try:
        return [one.block.value if one.block else None for one in reader.history(label)][::-1]
    finally:
        reader.close()


@pytest.mark.parametrize("lost", ["journal", "directory"])
def test_journal_removed_while_it_runs(run_daemon: RunDaemon, server: RedisServer, folder: Path, lost: str) -> None:
    """All that was acknowledged before and after is in the journal that is put back, and the log says so."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    with Client(server.url) as client:
        for number in range(5):
            client.blocks.append("notes", f"before {number}")
        if lost == "journal":
            for name in os.listdir(daemon.state):
                if name.startswith("journal.db"):
                    (daemon.state / name).unlink()
        else:
            shutil.rmtree(daemon.state)
        eventually(lambda: len(kept(daemon, "notes")) == 6, "the journal is back, though nobody asked for anything")
        for number in range(5):
            client.blocks.append("notes", f"after {number}")
    eventually(lambda: len(kept(daemon, "notes")) == 11, "all is in force")
    eventually(lambda: "begin a new epoch" in daemon.said(), "it is in the log")
    if lost == "journal":
        eventually(lambda: daemon.command("status").returncode == 0, "all is well")
    assert daemon.stop() == 0
    assert (folder / "notes.md").read_text().count("after") == 5


def cut(size: int) -> Callable[[Daemon], object]:
    """What `truncate -s` does."""
    return lambda daemon: os.truncate(daemon.state / "journal.db", size)


def copy_backup_over(daemon: Daemon) -> None:
    """What `cp` does: the same file, with another content."""
    shutil.copyfile(daemon.state.parent / "backup.db", daemon.state / "journal.db")


def copy_other_over(daemon: Daemon) -> None:
    """A database of something else, that is longer."""
    other = daemon.state.parent / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE meta AS SELECT randomblob(1000000) AS value")
    db.close()
    shutil.copyfile(other, daemon.state / "journal.db")


def truncate_log(daemon: Daemon) -> None:
    os.truncate(daemon.state / "journal.db-wal", 0)


OVERWRITES = {
    "empty": cut(0),
    "cut": cut(8192),
    "backup": copy_backup_over,
    "other": copy_other_over,
    "log": truncate_log,
}


@pytest.mark.parametrize("name", OVERWRITES)
def test_journal_overwritten_while_it_runs(run_daemon: RunDaemon, server: RedisServer, folder: Path, name: str) -> None:
    """Though nobody asks for anything: it is said, a sound journal is in its place, and all goes on in a new epoch."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    with Client(server.url) as client:
        daemon.stop()
        shutil.copyfile(daemon.state / "journal.db", daemon.state.parent / "backup.db")
        daemon.start()
        for number in range(40):
            client.blocks.append("notes", f"before {number}")
        raw = server.client()
        epoch = raw.hget("blocks:meta", "epoch")
        OVERWRITES[name](daemon)
        eventually(lambda: "overwritten or cut by another program" in daemon.said(), "it is said")
        eventually(lambda: raw.hget("blocks:meta", "epoch") not in (epoch, None), "there is a new epoch")
        raw.close()
        for number in range(5):
            client.blocks.append("notes", f"after {number}")
    assert len(kept(daemon, "notes")) >= 6
    assert (folder / "notes.md").read_text().count("before") == 40
    assert "problem: <journal>" in daemon.said()
    eventually(lambda: "it was put together again from what could still be read" in daemon.said(), "it is in the log")
    assert "what was there is kept as" in daemon.said()
    eventually(lambda: daemon.command("status").returncode == 0, "all is well")
    assert daemon.stop() == 0
    daemon.start()
    assert len(kept(daemon, "notes")) >= 46, "what the daemon still held is not lost"
    assert "Traceback" not in daemon.said()


@pytest.mark.parametrize("name", ["empty", "cut"])
def test_request_after_the_journal_was_overwritten(
    run_daemon: RunDaemon, server: RedisServer, folder: Path, name: str
) -> None:
    """Before anybody has noticed: what is acknowledged is in the journal that takes its place."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    with Client(server.url) as client:
        for number in range(10):
            client.blocks.append("notes", f"line {number}")
            if number % 4 == 1:
                OVERWRITES[name](daemon)
    eventually(lambda: len(kept(daemon, "notes")) == 11, "all versions are in it")
    assert [str(value).count("\n") for value in kept(daemon, "notes")] == list(range(11))
    assert (folder / "notes.md").read_text().count("line") == 10
    assert daemon.stop() == 0


def test_others_may_checkpoint_the_journal(run_daemon: RunDaemon, server: RedisServer, folder: Path) -> None:
    """A backup tool that does, or a `touch`, changes nothing that was written: the epoch stays."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    path = daemon.state / "journal.db"
    raw = server.client()
    epoch = raw.hget("blocks:meta", "epoch")
    with Client(server.url) as client:
        for number in range(3):
            client.blocks.append("notes", f"line {number}")
            if number == 1:
                os.utime(path)
            else:
                code = f"import sqlite3; sqlite3.connect({str(path)!r}).execute('PRAGMA wal_checkpoint')"
                subprocess.run([sys.executable, "-c", code], check=True)
            eventually(lambda: daemon.said().count("cleared: <journal>") == number + 1, "it is noticed")  # noqa: B023  # called at once
    assert len(kept(daemon, "notes")) == 4
    assert raw.hget("blocks:meta", "epoch") == epoch
    raw.close()
    assert "put together again" not in daemon.said()
    eventually(lambda: daemon.command("status").returncode == 0, "all is well")


def test_locks_fail_while_it_runs(run_daemon: RunDaemon, server: RedisServer, folder: Path, tmp_path: Path) -> None:
    """SQLite would wait for many seconds in each call: it is said at once, the daemon answers, and goes on after it."""
    rate = tmp_path / "rate"
    rate.write_text("0")
    (folder / "notes.md").write_text("one\n")
    state = str(tmp_path / "state")
    daemon = run_daemon(LD_PRELOAD=shim(tmp_path), SHIM_ROOT=state, SHIM_RATE=str(rate), SHIM_LOCKS="1")
    rate.write_text("1")
    eventually(lambda: "problem: <journal>: the journal cannot be locked" in daemon.said(), "it is said")
    raw = server.client()
    raw.xadd(
        "blocks:inbox:operator",
        {"request": json.dumps({"id": "1", "op": "append", "label": "notes", "args": {"content": "two"}})},
    )
    for _ in range(20):  # each of them within five seconds, or it counts as no answer
        assert "error" not in ask(str(daemon.state), ACCEPT_DELETIONS)
    assert not raw.exists("blocks:reply:operator:1")
    rate.write_text("0")
    eventually(lambda: raw.exists("blocks:reply:operator:1"), "what was asked for is done")
    raw.close()
    assert (folder / "notes.md").read_text() == "one\ntwo\n"
    eventually(lambda: "cleared: <journal>" in daemon.said(), "it is over")
    assert daemon.stop() == 0


def test_damaged_version_is_named(run_daemon: RunDaemon, folder: Path) -> None:
    """By history and diff, without a traceback; other versions are shown."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    for word in ("two", "three"):
        assert daemon.command("append", "notes", word).returncode == 0
    eventually(lambda: len(kept(daemon, "notes")) == 3, "the last one is in force")
    daemon.kill()
    with sqlite3.connect(daemon.state / "journal.db") as db:
        db.execute("UPDATE revisions SET value = 'forged' WHERE version = 2")
    db.close()
    shown = daemon.command("history", "notes")
    assert (shown.returncode, shown.stderr.count("version 2 of 'notes' is damaged")) == (1, 1)
    assert "v3" in shown.stdout
    assert "v1" in shown.stdout
    refused = daemon.command("diff", "notes", "2")
    assert refused.returncode != 0
    assert "version 2 of 'notes' is damaged" in refused.stderr
    assert daemon.command("diff", "notes", "1", "3").returncode == 0
    (daemon.state / "journal.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 8000)
    refused = daemon.command("history", "notes")
    assert refused.returncode != 0
    assert "the journal cannot be read" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_history_of_a_daemon_that_was_killed_in_a_write(run_daemon: RunDaemon, folder: Path) -> None:
    """It lists what is in force, says that there may be more, and has that once the daemon has run again."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    assert daemon.command("append", "notes", "two").returncode == 0
    eventually(lambda: len(kept(daemon, "notes")) == 2, "it is in force")
    listed = daemon.command("history", "notes")
    assert ("v2" in listed.stdout, listed.stderr) == (True, "")
    daemon.kill()
    with sqlite3.connect(daemon.state / "journal.db") as db:
        (plan,) = db.execute("SELECT plan FROM prepared").fetchone()  # what the append displaced
        staged = [one for one, _ in json.loads(plan)]
        plan = {"boot": "", "at": "", "paths": {"notes": "notes.md"}, "staged": staged, "outcomes": [], "folders": []}
        db.execute("UPDATE prepared SET seq = 2, plan = ?", (json.dumps(plan),))  # as it was before its second commit
    db.close()
    listed = daemon.command("history", "notes")
    assert (listed.returncode, "v1" in listed.stdout, "v2" in listed.stdout) == (0, True, False)
    assert "the last write is not finished" in listed.stderr
    daemon.start()
    listed = daemon.command("history", "notes")
    assert ("v2" in listed.stdout, listed.stderr) == (True, "")


def test_state_directory_is_whole_again(run_daemon: RunDaemon, folder: Path) -> None:
    """All that a daemon keeps there: it is known to run, answers, and keeps others out; the log says so."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    shutil.rmtree(daemon.state)
    eventually(lambda: daemon.command("status").returncode == 0, "it is known to run, and answers")
    assert (daemon.state.stat().st_mode & 0o077, "was taken again" in daemon.said()) == (0, True)
    second = run_daemon("--namespace", "other", ready=False)
    assert second.process is not None
    assert second.process.wait(20) != 0
    assert "served by another daemon" in second.said()
    assert daemon.command("append", "notes", "two").returncode == 0
    assert kept(daemon, "notes") == ["one", "one\ntwo"]
    for name in ("lock", "daemon.json", "control.sock"):
        (daemon.state / name).unlink()
        eventually(lambda: daemon.command("status").returncode == 0, f"{name} is made again")
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.said()


def test_state_directory_that_another_daemon_has_taken(
    run_daemon: RunDaemon, folder: Path, tmp_path: Path, server: RedisServer
) -> None:
    """Whoever lost it writes nothing there, and says so; it goes on when it can have it again."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    daemon.state.rename(tmp_path / "moved")
    daemon.state.mkdir(mode=0o700)
    lock = os.open(daemon.state / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(lock, fcntl.LOCK_EX)
    eventually(lambda: "another daemon owns it now" in daemon.said(), "it is said")
    (folder / "notes.md").write_text("two\n")
    client = server.client()
    eventually(lambda: client.hexists("blocks:problems", "<journal>"), "it is a problem")
    client.close()
    assert sorted(os.listdir(daemon.state)) == ["lock"]
    os.close(lock)
    eventually(lambda: kept(daemon, "notes") == ["one", "two"], "it goes on")
    eventually(lambda: daemon.command("status").returncode == 0, "it answers")
