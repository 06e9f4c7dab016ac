"""How a daemon is stopped: by `blocksd stop`, by the end of its terminal, and by nothing that is meant for another."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support import MORTAL, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import Daemon, RedisServer

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow


def process_of(daemon: Daemon) -> subprocess.Popen[bytes]:
    assert daemon.process is not None
    return daemon.process


def test_stop(run_daemon: RunDaemon) -> None:
    """The daemon has ended in order when the command returns; then there is none to stop."""
    daemon = run_daemon()
    pid = process_of(daemon).pid
    result = daemon.command("stop")
    assert (result.returncode, result.stderr) == (0, "")
    assert f"pid {pid}" in result.stdout
    assert process_of(daemon).poll() == 0
    assert daemon.said().endswith("stopped\n")
    again = daemon.command("stop")
    assert (again.returncode, again.stdout) == (3, "")
    assert "no daemon is running" in again.stderr


def test_stop_of_a_frozen_daemon(run_daemon: RunDaemon) -> None:
    """A daemon that does not stop in time is named, with what can be done; it stops once it can."""
    daemon = run_daemon()
    process_of(daemon).send_signal(signal.SIGSTOP)
    result = daemon.command("stop", "--timeout", "0.1")
    assert result.returncode == 3
    assert "has not stopped within 0.1 s" in result.stderr
    assert f"kill -9 {process_of(daemon).pid}" in result.stderr
    process_of(daemon).send_signal(signal.SIGCONT)
    assert process_of(daemon).wait(10) == 0


def test_stop_signals_no_other_process(run_daemon: RunDaemon) -> None:
    """A record with a pid that is another process's, as after a copy of the state directory, ends nothing."""
    daemon = run_daemon()
    with subprocess.Popen([*MORTAL, "sleep", "60"]) as other:
        record = daemon.state / "daemon.json"
        record.write_text(json.dumps({**json.loads(record.read_text()), "pid": other.pid}))
        result = daemon.command("stop")
        assert result.returncode == 1
        assert "it cannot be told which process it is" in result.stderr
        assert other.poll() is None
        assert process_of(daemon).poll() is None
        other.kill()


@pytest.fixture
def on_terminal(folder: Path, tmp_path: Path, server: RedisServer) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a daemon whose standard input is a terminal, ready."""
    ours, terminal = pty.openpty()
    started: list[subprocess.Popen[bytes]] = []

    def start(*under: str) -> subprocess.Popen[bytes]:
        options = ("--redis", server.url, "--state-dir", str(tmp_path / "state"))
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [*under, sys.executable, "-m", "blocksd", "run", str(folder), *options],
                stdin=terminal,
                stdout=log,
                stderr=log,
                env={**os.environ, "BLOCKSD_CONFIG": os.devnull},
                preexec_fn=partial(signal.signal, signal.SIGHUP, signal.SIG_DFL),  # noqa: PLW1509  # the tests may run under nohup
            )
        started.append(process)
        eventually(lambda: "ready:" in (tmp_path / "log").read_text(), "the daemon is ready")
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)
    os.close(ours)
    os.close(terminal)


def test_hangup_of_a_terminal_stops(on_terminal: Callable[..., subprocess.Popen[bytes]]) -> None:
    """A daemon that was started on a terminal ends in order when that is closed."""
    process = on_terminal()
    process.send_signal(signal.SIGHUP)
    assert process.wait(10) == 0


def test_hangup_that_is_ignored_reloads(on_terminal: Callable[..., subprocess.Popen[bytes]], tmp_path: Path) -> None:
    """A daemon that is to outlive its terminal, by nohup, reloads its settings."""
    process = on_terminal("nohup")
    process.send_signal(signal.SIGHUP)
    eventually(lambda: "the configuration was reloaded" in (tmp_path / "log").read_text(), "it has reloaded")
    assert process.poll() is None


def test_interrupt_while_the_command_is_loaded(tmp_path: Path) -> None:
    """Ctrl-C at any time ends a command without a traceback, also while Python still loads it."""
    (tmp_path / "click.py").write_text("import time\nopen('loading', 'w').close()\ntime.sleep(60)\n")
    with subprocess.Popen(
        [sys.executable, "-m", "blocksd", "ls"],
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as process:
        eventually((tmp_path / "loading").exists, "it loads")
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (-signal.SIGINT, b"")
