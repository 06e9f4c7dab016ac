"""`blocksd run --http`: the gateway beside a daemon starts after it, is restarted, reloaded, and ends with it."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from gateways import free_port
from support import DEADLINE, Daemon, RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow

TOKENS = ["operator:kim a-token-of-the-operator", "reader a-token-of-a-reader"]


def get(port: int, path: str, token: str = "") -> Any:
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def answers(port: int, path: str = "/v1/health", token: str = "") -> Any:
    """The answer, None while there is none."""
    try:
        return get(port, path, token)
    except (OSError, http.client.HTTPException):
        return None


def status(daemon: Daemon) -> Any:
    return json.loads(daemon.command("status", "--json").stdout)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0] != "Z"


def test_gateway_beside_the_daemon(folder: Path, run_daemon: RunDaemon) -> None:
    """It serves once the daemon is ready, `status` shows it, its log is in the daemon's, and it ends with the daemon."""
    (folder / "persona.md").write_text("I am Sam.\n")
    port = free_port()
    daemon = run_daemon("--http", str(port))
    assert eventually(lambda: answers(port, "/v1/blocks/persona"))["value"] == "I am Sam."
    eventually(lambda: "the gateway: serving at" in daemon.said())
    assert daemon.said().index("ready:") < daemon.said().index("the gateway: serving at")
    shown = status(daemon)["gateway"]
    assert (shown["url"], shown["phase"], shown["answer"]) == (f"http://127.0.0.1:{port}", "serving", "ok")
    assert f"http://127.0.0.1:{port}, pid {shown['pid']}: it answers" in daemon.command("status").stdout
    assert daemon.stop() == 0
    assert not is_alive(shown["pid"])
    assert "Traceback" not in daemon.said()
    assert daemon.said().endswith("stopped\n")
    assert daemon.said().count("stopped\n") == 1


def test_ends_with_a_daemon_that_is_killed(run_daemon: RunDaemon) -> None:
    """kill -9 leaves no gateway behind."""
    port = free_port()
    daemon = run_daemon("--http", str(port))
    eventually(lambda: answers(port))
    pid = status(daemon)["gateway"]["pid"]
    daemon.kill()
    eventually(lambda: not is_alive(pid), "the gateway ends")


def test_restarted_when_it_ends(run_daemon: RunDaemon) -> None:
    """It is back after a second or two; in between there is a problem with a remedy."""
    port = free_port()
    daemon = run_daemon("--http", str(port))
    eventually(lambda: answers(port))
    pid = status(daemon)["gateway"]["pid"]
    os.kill(pid, signal.SIGKILL)
    (problem,) = eventually(lambda: status(daemon)["problems"])
    assert (problem["subject"], problem["hint"]) == ("<gateway>", "it is retried")
    assert "it ended with signal 9" in problem["message"]
    eventually(lambda: answers(port))
    eventually(lambda: not status(daemon)["problems"])
    assert status(daemon)["gateway"]["pid"] != pid


def test_address_in_use(folder: Path, run_daemon: RunDaemon) -> None:
    """The daemon goes on, `status` says so, and the gateway serves when the address is free."""
    (folder / "persona.md").write_text("I am Sam.\n")
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        daemon = run_daemon("--http", f"127.0.0.1:{port}")
        (problem,) = eventually(lambda: status(daemon)["problems"])
        assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in problem["message"]
        assert daemon.command("show", "persona").stdout == "I am Sam.\n"
        assert "does not run" in daemon.command("status").stdout
    eventually(lambda: answers(port))
    eventually(lambda: not status(daemon)["problems"])


def test_new_tokens_by_a_reload(run_daemon: RunDaemon, tmp_path: Path) -> None:
    """SIGHUP: those in the file count from then on; with a mistake in the file the ones before stay."""
    tokens = tmp_path / "tokens"
    tokens.write_text(TOKENS[0])
    port = free_port()
    daemon = run_daemon("--http", str(port), BLOCKSD_TOKENS_FILE=str(tokens))
    assert daemon.process is not None
    old, new = (line.split()[1] for line in TOKENS)
    eventually(lambda: answers(port, "/v1/blocks", old) == [])
    eventually(lambda: "the gateway: serving" in daemon.said())
    tokens.write_text(TOKENS[1])
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: answers(port, "/v1/blocks", new) == [])
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(port, "/v1/blocks", old)
    tokens.write_text("nobody x")
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: "the tokens before stay in force" in daemon.said())
    assert get(port, "/v1/blocks", new) == []
    assert "a-token-of" not in daemon.said()


def test_finds_the_embedded_server(folder: Path, tmp_path: Path) -> None:
    """Also when that was restarted."""
    (folder / "persona.md").write_text("I am Sam.\n")
    port = free_port()
    daemon = Daemon(folder, tmp_path / "state", "--http", str(port)).start()
    try:
        eventually(lambda: answers(port, "/v1/blocks/persona"))
        pid = status(daemon)["gateway"]["pid"]
        os.kill(json.loads((tmp_path / "state" / "redis" / "server.json").read_text())["pid"], signal.SIGKILL)
        eventually(lambda: answers(port, "/v1/blocks/persona"))
        assert status(daemon)["gateway"]["pid"] == pid
    finally:
        assert daemon.stop() == 0


def test_without_the_extra(folder: Path, tmp_path: Path, server: RedisServer) -> None:
    """The command that installs it is named; without --http it is not needed."""
    none = tmp_path / "none"
    none.mkdir()
    (none / "sitecustomize.py").write_text(
        "import importlib.util\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'uvicorn' else find(name, *more)\n"
    )
    env = {"PYTHONPATH": str(none)}
    daemon = Daemon(folder, tmp_path / "state", "--redis", server.url, "--http", env=env).start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(DEADLINE) == 2
    assert "pip install 'blocksd[http]'" in daemon.said()
    assert Daemon(folder, tmp_path / "state", "--redis", server.url, env=env).start().stop() == 0


def test_wrong_address(folder: Path, tmp_path: Path) -> None:
    """It is refused at once, also where it is a folder that was meant."""
    daemon = Daemon(folder, tmp_path / "state", "--http", "blocks.d").start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(DEADLINE) == 2
    assert "--http must be a port" in daemon.said()
