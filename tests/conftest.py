"""Fixtures: real servers and daemons, each in a directory of its own."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from support import Changes, Daemon, RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

# In the background of a shell SIGINT is ignored; what tests start would ignore it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A running server (Valkey) that a test may kill and restart."""
    running = RedisServer(valkey_binary())
    running.start()
    yield running
    running.remove()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of blocks."""
    path = tmp_path / "blocks.d"
    path.mkdir()
    return path


@pytest.fixture
def run_daemon(tmp_path: Path, folder: Path, server: RedisServer) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon on `folder` and `server`, ready; all are ended with the test."""
    started: list[Daemon] = []

    def run(*options: str, state: str = "state", ready: bool = True, under: Sequence[str] = (), **env: str) -> Daemon:
        daemon = Daemon(folder, tmp_path / state, "--redis", server.url, *options, env=env, under=under)
        started.append(daemon)
        return daemon.start(ready=ready)

    yield run
    for daemon in started:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


@pytest.fixture
def changes(server: RedisServer, folder: Path) -> Iterator[Changes]:
    """What is announced from now on."""
    heard = Changes(server, folder)
    yield heard
    heard.close()
