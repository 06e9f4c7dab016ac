"""A daemon with a server of its own: nobody waits for it, and it goes when it must."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest
import redis

from support import Daemon, binary_of, eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

LAZY = """#!/bin/sh
case "$1" in --version) exec {binary} --version ;; esac
while [ ! -e {go} ]; do sleep 0.05; done
exec {binary} "$@"
"""
"""A server that does nothing until a file is there."""


@pytest.fixture
def run_own(folder: Path, tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon with a server of its own; all are ended with the test."""
    started: list[Daemon] = []

    def run(binary: str = "", *, ready: bool = True, code: str = "") -> Daemon:
        """`code` is run in the daemon's process before it begins."""
        path = tmp_path / "bin"
        path.mkdir(exist_ok=True)
        program = path / "valkey-server"
        program.unlink(missing_ok=True)
        if binary:
            program.symlink_to(binary)
        (path / "sitecustomize.py").write_text(code)
        env = {"PATH": f"{path}:{os.environ['PATH']}", "PYTHONPATH": str(path)}
        started.append(Daemon(folder, tmp_path / "state", env=env))
        return started[-1].start(ready=ready)

    yield run
    for daemon in started:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


def server_of(daemon: Daemon) -> int:
    pid: int = json.loads((daemon.state / "redis" / "server.json").read_text())["pid"]
    return pid


def client_of(daemon: Daemon) -> Any:
    return redis.Redis.from_url((daemon.state / "redis-url").read_text().strip(), decode_responses=True)


def is_gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_folder_is_journaled_while_the_server_starts(
    folder: Path, tmp_path: Path, run_own: Callable[..., Daemon]
) -> None:
    """However long that takes: the daemon is ready, answers, says why the mirror is not there, and journals what is saved."""
    program = tmp_path / "lazy"
    program.write_text(LAZY.format(binary=valkey_binary(), go=tmp_path / "go"))
    program.chmod(0o755)
    (folder / "notes.md").write_text("one\n")
    daemon = run_own(str(program))
    assert "the embedded server is not ready yet" in daemon.said()
    (folder / "notes.md").write_text("two\n")
    eventually(lambda: daemon.values("notes") == ["one", "two"], "it is journaled")
    status = json.loads(daemon.command("status", "--json").stdout)
    assert (status["mirror"], status["ready"]) == ("away", True)
    assert "embedded server is not ready yet" in status["away_reason"]
    (tmp_path / "go").touch()
    eventually(lambda: "cleared: <server>" in daemon.said(), f"the server is there; it said {daemon.said()}")
    eventually(lambda: client_of(daemon).hget("blocks:block:notes", "value") == "two", "the mirror is in sync")
    assert daemon.stop() == 0


def test_server_of_another_kind_takes_over(folder: Path, run_own: Callable[..., Daemon]) -> None:
    """Debian's Redis on the data of a newer Valkey: the mirror is rebuilt, and the clients stay."""
    (folder / "notes.md").write_text("one\n")
    first = run_own(valkey_binary())
    url = (first.state / "redis-url").read_text()
    first.stop()
    second = run_own(binary_of("redis"))
    eventually(lambda: "were set aside" in second.said(), "it is said")
    eventually(lambda: client_of(second).hget("blocks:block:notes", "value") == "one", "the mirror is rebuilt")
    assert (second.state / "redis-url").read_text().partition("@")[0] == url.partition("@")[0]
    second.stop()
    third = run_own(valkey_binary())
    eventually(lambda: client_of(third).hget("blocks:block:notes", "value") == "one", "and back again")


def test_stop_with_a_hung_server(folder: Path, run_own: Callable[..., Daemon]) -> None:
    """It takes less than five seconds in all, and leaves nothing running."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_own()
    pid = server_of(daemon)
    os.kill(pid, signal.SIGSTOP)
    (folder / "notes.md").write_text("two\n")
    eventually(lambda: daemon.values("notes") == ["one", "two"], "it is journaled")
    assert daemon.process is not None
    daemon.process.terminate()
    assert daemon.process.wait(5) == 0
    assert is_gone(pid)
    assert "Traceback" not in daemon.said()


def test_hung_server_is_said_and_started_again(folder: Path, run_own: Callable[..., Daemon]) -> None:
    """`status` names it and fails; the server is replaced on its data, and all is in sync, though nobody helps."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_own(code="import blocksd.embedded.supervisor\nblocksd.embedded.supervisor.PROBE_SECONDS = 0.25\n")
    eventually(lambda: client_of(daemon).hget("blocks:block:notes", "value") == "one", "the mirror is in sync")
    pid, url = server_of(daemon), (daemon.state / "redis-url").read_text()
    os.kill(pid, signal.SIGSTOP)
    (folder / "notes.md").write_text("two\n")
    shown = eventually(lambda: (found := daemon.command("status")).returncode == 1 and found.stdout, "status fails")
    assert "unreachable since" in shown
    eventually(lambda: "the embedded server does not answer" in daemon.command("status").stdout, "status names it")
    assert daemon.values("notes") == ["one", "two"]
    eventually(lambda: "did not answer for 2.5 seconds: it was ended" in daemon.said(), "it is ended")
    eventually(lambda: is_gone(pid), "it is gone")
    eventually(lambda: daemon.command("status").returncode == 0, "all is well")
    assert client_of(daemon).hget("blocks:block:notes", "value") == "two"
    assert (daemon.state / "redis-url").read_text() == url
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.said()


def test_killed_server_is_started_again(folder: Path, run_own: Callable[..., Daemon]) -> None:
    """With the daemon, which goes on meanwhile."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_own()
    os.kill(server_of(daemon), signal.SIGKILL)
    (folder / "notes.md").write_text("two\n")
    eventually(lambda: "was restarted" in daemon.said(), "it is said")
    eventually(lambda: client_of(daemon).hget("blocks:block:notes", "value") == "two", "the mirror is in sync")
    pid = server_of(daemon)
    daemon.kill()
    eventually(lambda: is_gone(pid), "it ends with its daemon, also the second")


@pytest.mark.parametrize("lost", ["state", "redis"])
def test_server_whose_directory_is_removed(folder: Path, run_own: Callable[..., Daemon], lost: str) -> None:
    """It is started again on a new one, with its password and its port, and what clients look up is there again."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_own()
    pid, url = server_of(daemon), (daemon.state / "redis-url").read_text()
    shutil.rmtree(daemon.state if lost == "state" else daemon.state / "redis")
    eventually(lambda: (daemon.state / "redis" / "server.json").exists() and server_of(daemon) != pid, "another serves")
    eventually(lambda: is_gone(pid), "the one before has ended")
    eventually(lambda: daemon.command("append", "notes", "two").returncode == 0, "its commands find it")
    assert (daemon.state / "redis-url").read_text() == url
    eventually(lambda: client_of(daemon).hget("blocks:block:notes", "value") == "one\ntwo", "the mirror is rebuilt")
    assert "were removed while it ran" in daemon.said()
    for name in ("redis-url", "redis-password"):
        (daemon.state / name).unlink()
        eventually((daemon.state / name).exists, f"{name} is there again")
    assert (daemon.state / "redis-url").read_text() == url
    eventually(lambda: daemon.command("status").returncode == 0, "all is well")
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.said()
