"""The process of the gateway beside a daemon: its settings, its log, and what becomes of failures."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

from blocksd.model.problem import GATEWAY, Problems
from blocksd.monitoring.events import Notices, ServiceListener
from blocksd.service.gateway import FIRST_SECONDS, LONGEST_SECONDS, MOST_LATE, GatewayProcess, _Pings, environ_of
from blocksd.settings.config import Config
from blocksd.settings.loading import load
from gateways import free_port
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from blocksd.model.faults import Failed
    from blocksd.monitoring.events import Level


class Heard(ServiceListener):
    def __init__(self) -> None:
        self.notices: list[tuple[str, str]] = []

    def on_notice(self, message: str, level: Level) -> None:
        self.notices.append((level, message))


class Rig:
    def __init__(self) -> None:
        self.problems = Problems(lambda: 0.0)
        self.heard = Heard()
        self.failures: list[Failed] = []
        config = Config(state_dir="/state", listen="8284")
        self.gateway = GatewayProcess(config, self.problems, Notices([self.heard]), self.failures.append)


def test_settings_are_the_daemons(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in force, whatever a file, the environment or systemd said; and what systemd says is for the daemon alone."""
    for name in ("BLOCKSD_LISTEN", "BLOCKSD_TOKENS", "NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"):
        monkeypatch.setenv(name, "9999")
    config = Config(
        state_dir="/state",
        redis="redis://:secret@host",
        namespace="team",
        listen="8284",
        tokens_file="/tokens",
        by="ann",
    )
    environ = environ_of(config)
    assert "NOTIFY_SOCKET" not in environ
    assert "CREDENTIALS_DIRECTORY" not in environ
    assert environ["PATH"] == os.environ["PATH"]
    found = load({}, environ=environ)
    for name in ("state_dir", "redis", "namespace", "listen", "tokens", "tokens_file", "by", "hosts", "certificate"):
        assert getattr(found, name) == getattr(config, name), name


def test_log_of_the_gateway_is_in_the_daemons() -> None:
    """Its failure becomes the problem, with the next step; a line that is no event, as of Python itself, is a warning."""
    rig = Rig()
    gateway = rig.gateway
    gateway._hear('{"event": "serving", "level": "info", "message": "serving at x", "url": "http://127.0.0.1:8284"}')
    gateway.report()
    assert (gateway.phase, gateway.url, list(rig.problems)) == ("serving", "http://127.0.0.1:8284", [])
    gateway._hear("Segmentation fault")
    gateway._hear("[1]")
    gateway._hear('{"event": "stop", "level": "info", "message": "stopped"}')
    assert rig.heard.notices == [
        ("info", "the gateway: serving at x"),
        ("warning", "the gateway: Segmentation fault"),
        ("warning", "the gateway: [1]"),
    ]
    gateway._hear('{"event": "failure", "level": "error", "message": "no", "hint": "do"}')
    gateway.phase, gateway._reason = "failed", (gateway._last_words, gateway._next_step)
    gateway.report()
    assert rig.problems[GATEWAY].message == "the gateway at http://127.0.0.1:8284 does not run: no"
    assert rig.problems[GATEWAY].hint == "do; it is retried"


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a problem in words, no fault of the program, and is tried again; the end of the daemon waits for nothing."""
    tries: list[None] = []

    def no_process(*_: Any, **__: Any) -> None:
        tries.append(None)
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    rig = Rig()
    rig.gateway.start()
    eventually(lambda: rig.gateway.phase == "failed")
    rig.gateway.report()
    message = (
        f"the gateway at {rig.gateway.url} does not run: its process cannot be run: Resource temporarily unavailable"
    )
    assert rig.problems[GATEWAY].message == message
    assert rig.problems[GATEWAY].hint.startswith("see how many processes and open files")
    rig.gateway.reload()  # tries at once
    eventually(lambda: len(tries) > 1)
    rig.gateway.stop()
    assert rig.failures == []
    assert rig.gateway._thread is not None
    assert not rig.gateway._thread.is_alive()


def test_pause_grows_until_one_has_lived_for_long() -> None:
    """A gateway that cannot start takes little of the machine."""
    gateway = Rig().gateway
    pauses = [gateway._pause(0.1) for _ in range(9)]
    assert pauses[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert pauses[-1] == LONGEST_SECONDS
    assert gateway._pause(LONGEST_SECONDS + 1) == FIRST_SECONDS


def test_a_gateway_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real SIGSTOP: after some looks it is a problem, which passes if it goes on; else it is ended, and another starts."""
    monkeypatch.setattr("blocksd.service.gateway.FIRST_SECONDS", 0.0)
    rig = Rig()
    config = Config(redis=f"unix://{tmp_path}/none.sock", state_dir=str(tmp_path), listen=str(free_port()))
    gateway = GatewayProcess(config, rig.problems, Notices([rig.heard]), rig.failures.append)
    gateway.start()
    try:

        def is_well() -> bool:
            gateway._late = 0  # it looks more often than once a second
            gateway.report()
            return gateway.phase == "serving" and gateway._late == 0 and GATEWAY not in rig.problems

        def look(until: Callable[[], bool]) -> None:
            for _ in range(MOST_LATE):
                gateway.report()
                if until():
                    return

        eventually(is_well)
        first = gateway.as_json()["pid"]
        os.kill(first, signal.SIGSTOP)
        look(lambda: GATEWAY in rig.problems)
        assert rig.problems[GATEWAY].message.endswith("does not respond")
        os.kill(first, signal.SIGCONT)
        eventually(is_well)
        os.kill(first, signal.SIGSTOP)
        look(lambda: gateway._late == 0)
        eventually(lambda: gateway.phase == "failed")
        gateway.report()
        assert "it did not respond, and was ended" in rig.problems[GATEWAY].message
        eventually(lambda: gateway.as_json()["pid"] not in (None, first) and is_well())
    finally:
        gateway.stop()
    assert rig.failures == []


def test_pings_of_others_do_not_count() -> None:
    """Any program may send to an abstract socket; the kernel says who it was."""
    with closing(_Pings()) as pings, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
        address = "\0" + pings.address[1:]
        sending.sendto(b"WATCHDOG=1", address)
        assert not pings.came_from(os.getpid() + 1)
        sending.sendto(b"WATCHDOG=1", address)
        assert pings.came_from(os.getpid())
        assert not pings.came_from(os.getpid())
