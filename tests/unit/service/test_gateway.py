"""The process of the gateway beside a daemon: its settings, its log, and what becomes of failures."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

from blocksd.model.problem import GATEWAY, Problems
from blocksd.monitoring.events import Notices, ServiceListener
from blocksd.service.gateway import FIRST_SECONDS, LONGEST_SECONDS, GatewayProcess, environ_of
from blocksd.settings.config import Config
from blocksd.settings.loading import load
from support import eventually

if TYPE_CHECKING:
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
    gateway.phase = "failed"
    gateway.report()
    assert rig.problems[GATEWAY].message == "the gateway at http://127.0.0.1:8284 does not run: no"
    assert rig.problems[GATEWAY].hint == "do; it is retried"


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a problem, is logged with its traceback, and is tried again; the end of the daemon waits for nothing."""

    def no_process(*_: Any, **__: Any) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(subprocess, "Popen", no_process)
    rig = Rig()
    rig.gateway.start()
    eventually(lambda: rig.failures)
    rig.gateway.report()
    assert "Resource temporarily unavailable" in rig.problems[GATEWAY].message
    rig.gateway.reload()  # tries at once
    eventually(lambda: len(rig.failures) > 1)
    rig.gateway.stop()
    assert rig.gateway._thread is not None
    assert not rig.gateway._thread.is_alive()


def test_pause_grows_until_one_has_lived_for_long() -> None:
    """A gateway that cannot start takes little of the machine."""
    gateway = Rig().gateway
    pauses = [gateway._pause(0.1) for _ in range(9)]
    assert pauses[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert pauses[-1] == LONGEST_SECONDS
    assert gateway._pause(LONGEST_SECONDS + 1) == FIRST_SECONDS
