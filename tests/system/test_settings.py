"""Settings, end to end: what `blocksd config` shows, and what a daemon makes of SIGHUP."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.cli.main import cli
from blocksd.settings.config import SETTINGS
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import Changes, Daemon, RedisServer

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A working directory of nobody's."""
    path = tmp_path / "place"
    path.mkdir()
    return path


def blocksd(place: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in an environment in which nothing is set but this."""
    inherited = {name: os.environ[name] for name in ("PATH",)}
    result = subprocess.run(
        [sys.executable, "-m", "blocksd", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        cwd=place,
        env={**inherited, "HOME": str(place), **environment},
    )
    assert "Traceback" not in result.stderr, result.stderr
    return result


# --- blocksd config ---


def test_nothing_is_set(place: Path) -> None:
    """Every setting has its default; the state directory is the one that follows."""
    result = blocksd(place, "config")
    assert result.returncode == 0
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert [row[0] for row in rows] == list(SETTINGS)
    assert {row[2] for row in rows} == {"default"}
    shown = {row[0]: row[1] for row in rows}
    assert shown["state_dir"] == f"{place}/.local/state/blocksd/blocks"
    assert (shown["poll"], shown["resync_seconds"], shown["redis"]) == ("false", "60", "-")
    assert result.stderr == "settings file: none\n"


def test_where_each_setting_was_made(place: Path) -> None:
    """In a file, a credential, the environment, by a flag, by systemd; no password is shown."""
    (place / "blocksd.toml").write_text(
        'folder = "b"\n\n[sources.manuals]\npath = "/srv/manuals"\n[sources.wrong]\nlimit = 5\n'
    )
    (place / "blocksd.redis").write_text("redis://u:hunter2@example.org/0\n")
    environment = {
        "CREDENTIALS_DIRECTORY": str(place),
        "STATE_DIRECTORY": "/var/lib/blocksd",
        "BLOCKSD_POLL": "yes",
        "BLOCKSD_POL_SECONDS": "5",
    }
    result = blocksd(place, "config", "--namespace", "n", **environment)
    rows = {key: (value, origin) for key, value, origin in (line.split("\t") for line in result.stdout.splitlines())}
    assert rows["folder"] == ("b", "blocksd.toml:1")
    assert rows["namespace"] == ("n", "--namespace")
    assert rows["redis"] == ("redis://u:***@example.org/0", "credential blocksd.redis")
    assert rows["state_dir"] == ("/var/lib/blocksd", "$STATE_DIRECTORY")
    assert rows["poll"] == ("true", "$BLOCKSD_POLL")
    assert rows["sources.manuals"] == ("/srv/manuals", "blocksd.toml:3")
    assert rows["sources.wrong"] == ("wrong, and not served", "blocksd.toml:5")
    assert "settings file: blocksd.toml\n" in result.stderr
    assert "warning: $BLOCKSD_POL_SECONDS is no setting; did you mean '$BLOCKSD_POLL_SECONDS'?" in result.stderr
    assert "blocksd: sources.wrong: it has no path (blocksd.toml:5)" in result.stderr
    assert result.returncode == 2
    as_json = blocksd(place, "config", "--json", **environment)
    assert as_json.returncode == 2
    report = json.loads(as_json.stdout)
    assert report["file"] == "blocksd.toml"
    assert list(report["settings"]) == list(SETTINGS)
    assert report["settings"]["redis"] == {"value": rows["redis"][0], "from": rows["redis"][1]}
    assert [source["from"] for source in report["settings"]["sources"]["value"]] == ["blocksd.toml:3", "blocksd.toml:5"]
    assert report["warnings"] == ["$BLOCKSD_POL_SECONDS is no setting; did you mean '$BLOCKSD_POLL_SECONDS'?"]
    assert "hunter2" not in result.stdout + result.stderr + as_json.stdout + as_json.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\npol = true\n", "blocksd.toml:2 has an unknown key 'pol'; did you mean 'poll'?"),
        ("\n\nresync_seconds = 0\n", "resync_seconds must be at least 0.1, not 0 (blocksd.toml:3)"),
        ("a = [\n", "blocksd.toml:1:1 is not TOML: Invalid value"),
    ],
)
def test_wrong_configuration(place: Path, text: str, said: str) -> None:
    """It is said with its place, alike by every command; exit code 2."""
    (place / "blocksd.toml").write_text(text)
    for words in (["config"], ["config", "--json"], ["run", "."], ["ls"], ["check", "."]):
        result = blocksd(place, *words)
        assert (result.returncode, result.stdout) == (2, "")
        assert f"blocksd: {said}\n" in result.stderr


class Terminal(io.StringIO):
    """Standard output of somebody who looks at it."""

    def isatty(self) -> bool:
        return True


def test_table_fits_a_terminal(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """80 columns, whatever is set; nothing of it is cut off."""
    host, name, path = "redis." + "a" * 70 + ".example.org", "s" * 20, "/" + "p" * 60
    file = place / "blocksd.toml"
    file.write_text(f'redis = "redis://u:hunter2@{host}"\n[sources.{name}]\npath = "{path}"\n')
    for variable, text in (("COLUMNS", "80"), ("TERM", "dumb"), ("BLOCKSD_CONFIG", str(file))):
        monkeypatch.setenv(variable, text)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    cli.main(["config"], standalone_mode=False)
    lines = terminal.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    head = next(line for line in lines if "key" in line)
    value, origin = head.index("value"), head.index("from")
    values = "".join(line[value:origin].strip() for line in lines)
    assert f"redis://u:***@{host}" in values
    assert path in values
    assert f"{file}:1" in "".join(line[origin:].strip() for line in lines)
    assert f"sources.{name}" in "".join(line[:value].strip() for line in lines)


# --- reload ---


@pytest.fixture
def client(server: RedisServer) -> Iterator[Any]:
    connected = server.client()
    yield connected
    connected.close()


class Reloaded:
    """A daemon with a settings file, and what it says after each reload."""

    def __init__(self, run_daemon: RunDaemon, path: Path, text: str, *options: str, **environment: str) -> None:
        self.path = path
        path.write_text(text)
        self.daemon = run_daemon(*options, BLOCKSD_CONFIG=str(path), **environment)
        self._seen = len(self.daemon.said())

    def hangup(self) -> None:
        assert self.daemon.process is not None
        self.daemon.process.send_signal(signal.SIGHUP)

    def reload(self, text: str | None) -> str:
        """Write other settings, and have them read; what the daemon says to it. None: there is no file any more."""
        if text is None:
            self.path.unlink()
        else:
            self.path.write_text(text)
        self._seen = len(self.daemon.said())
        self.hangup()
        return str(eventually(lambda: "configuration" in self.said() and self.said().endswith("\n") and self.said()))

    def said(self) -> str:
        return self.daemon.said()[self._seen :]


@pytest.fixture
def start(run_daemon: RunDaemon, tmp_path: Path) -> Callable[..., Reloaded]:
    return lambda text, *options, **env: Reloaded(run_daemon, tmp_path / "blocksd.toml", text, *options, **env)


def problem(client: Any, subject: str = "<config>") -> dict[str, Any] | None:
    text = client.hget("blocks:problems", subject)
    return json.loads(text) if text else None


def test_what_can_change_does_and_the_rest_is_named(start: Callable[..., Reloaded], folder: Path, client: Any) -> None:
    """Log format, resync and all that is live; flags go before the file, at a reload as at the start."""
    running = start("resync_seconds = 3600\n", "--delete-grace", "0.2")
    (folder / "notes.md").write_text("one\n")
    eventually(lambda: client.hget("blocks:block:notes", "value") == "one")
    said = running.reload(
        "resync_seconds = 0.3\ndelete_grace = 99\nlog_format = 'json'\nlog_level = 'debug'\nmetrics = 9464\n"
        "namespace = 'other'\npoll = true\nfolder = 'elsewhere'\n"
    )
    event = next(json.loads(line) for line in said.splitlines() if '"reload"' in line)
    assert event["event"] == "reload"
    assert event["changed"] == ["resync_seconds", "log_level", "log_format"]
    assert event["waiting"] == ["namespace", "poll", "metrics"]
    assert event["message"].endswith("; needs a restart: namespace, poll, metrics")
    client.hset("blocks:block:notes", "value", "damaged")  # which only a comparison finds
    eventually(lambda: client.hget("blocks:block:notes", "value") == "one", "it is compared every 0.3 s")
    said = running.reload("resync_seconds = 3600\n")
    assert "the configuration was reloaded, changed: resync_seconds, log_level, log_format\n" in said
    assert "the configuration was reloaded, nothing changed\n" in running.reload("resync_seconds = 3600\n")
    assert problem(client) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\nresync_seconds = -1\n", "resync_seconds must be at least 0.1, not -1 ({path}:2)"),
        ("\nresync = 1\n", "{path}:2 has an unknown key 'resync'"),
        ("resync_seconds = \n", "{path}:1:18 is not TOML"),
        (None, "{path} cannot be read: No such file or directory"),
    ],
    ids=["value", "key", "syntax", "gone"],
)
def test_wrong_configuration_leaves_the_one_before(
    start: Callable[..., Reloaded], folder: Path, client: Any, text: str | None, said: str
) -> None:
    """It is said with its place, in the log, in the mirror and by `status`, until a good one is read."""
    running = start("delete_grace = 0.2\n")
    where = said.format(path=running.path)
    answer = running.reload(text)
    assert "the configuration is invalid: the one before stays in force" in answer
    found = eventually(lambda: problem(client))
    assert where in found["message"]
    assert found["hint"] == "correct it, and reload again; the configuration before stays in force"
    eventually(lambda: f"problem: <config>: {found['message']}" in running.said())
    status = running.daemon.command("status", "--config", os.devnull)
    assert (status.returncode, f"<config>: {found['message']}" in " ".join(status.stdout.split())) == (1, True)
    (folder / "notes.md").write_text("one\n")
    eventually(lambda: client.hget("blocks:block:notes", "value") == "one", "it goes on")
    running.reload("delete_grace = 0.3\n")
    eventually(lambda: problem(client) is None)
    eventually(lambda: "cleared: <config>" in running.said())


def test_unknown_variable_is_told(start: Callable[..., Reloaded], client: Any) -> None:
    """From the start, as a warning, and still after reloads."""
    running = start("", BLOCKSD_RESYNC_SECOND="5")
    found = problem(client)
    assert found is not None
    assert found["warning"]
    assert found["message"] == "$BLOCKSD_RESYNC_SECOND is no setting; did you mean '$BLOCKSD_RESYNC_SECONDS'?"
    eventually(lambda: f"warning: <config>: {found['message']}" in running.daemon.said())
    running.reload("poll_seconds = -1\n")
    eventually(lambda: "poll_seconds" in (problem(client) or {})["message"])
    running.reload("")
    eventually(lambda: (problem(client) or {})["message"] == found["message"])


def test_sources_come_change_and_go(
    start: Callable[..., Reloaded], folder: Path, client: Any, tmp_path: Path, changes: Changes
) -> None:
    """A wrong table is mended, another is added, moved and removed; each is followed by events, and requests are served."""
    (folder / "notes.md").write_text("---\nagents: [ann]\n---\nnotes\n")
    one, two = tmp_path / "one", tmp_path / "two"
    for directory in (one, two):
        directory.mkdir()
        (directory / "a.txt").write_text(f"{directory.name}\n")
    table = '[sources.manuals]\npath = "{path}"\nagents = ["ann"]\n'
    running = start("resync_seconds = 3600\n[sources.manuals]\npth = 'x'\n")
    found = problem(client, "source manuals")
    assert found is not None
    assert found["message"] == f"there is an unknown key 'pth'; did you mean 'path'? ({running.path}:3)"
    running.reload("resync_seconds = 3600\n" + table.format(path=one))
    eventually(lambda: client.hkeys("blocks:source:manuals") == ["a.txt"])
    eventually(lambda: problem(client, "source manuals") is None)
    request = json.dumps({"id": "r-1", "op": "open_file", "args": {"file": "manuals/a.txt"}})
    client.xadd("blocks:inbox:ann", {"request": request})
    changes.until(lambda change: change["kind"] == "opened")
    for directory in (one, two):
        running.reload("resync_seconds = 3600\n" + table.format(path=directory))
        eventually(lambda: client.hget("blocks:file:manuals/a.txt", "value") == f"{directory.name}\n")  # noqa: B023
        (directory / "a.txt").write_text("saved\n")
        eventually(lambda: client.hget("blocks:file:manuals/a.txt", "value") == "saved\n")
    running.reload("resync_seconds = 3600\n")
    changes.until(lambda change: change["kind"] == "closed")
    eventually(lambda: not list(client.scan_iter("blocks:source*")) + list(client.scan_iter("blocks:file*")))
    (two / "a.txt").write_text("nobody sees it\n")
    assert running.daemon.stop() == 0
    assert "Traceback" not in running.daemon.said()


def test_no_save_is_missed_in_a_burst_of_reloads(
    start: Callable[..., Reloaded], folder: Path, changes: Changes, tmp_path: Path
) -> None:
    """Hundreds of SIGHUPs, with another configuration each time and often a wrong one: each save is announced, once."""
    running = start("delete_grace = 0.2\n")
    texts = [
        "delete_grace = 0.2\n",
        f"[sources.a]\npath = '{tmp_path}'\n",
        "delete_grace = -1\n",
        "durability = 'process'",
    ]
    saves = 300
    for number in range(saves):
        (folder / f"block-{number % 50}.md").write_text(f"text {number}\n")
        if number % 3 == 0:
            running.path.write_text(texts[number // 3 % 4])
        running.hangup()
        if number % 50 == 49:  # the fence that follows tells that these were seen
            changes.settle()
    seen = [change for change in changes.settle() if str(change.get("label")).startswith("block-")]
    newest = {label: max(c["version"] for c in seen if c["label"] == label) for label in {c["label"] for c in seen}}
    assert len(newest) == 50
    assert sorted(change["seq"] for change in seen) == sorted({change["seq"] for change in seen})
    for label, version in newest.items():
        assert [change["version"] for change in seen if change["label"] == label] == list(range(1, version + 1))
        assert running.daemon.values(label)[-1] == f"text {saves - 50 + int(label.removeprefix('block-'))}"
    assert all(len(running.daemon.values(label)) == 6 for label in newest)
    assert "Traceback" not in running.daemon.said()
    assert running.daemon.stop() == 0


def test_systemd_is_told_of_a_reload(start: Callable[..., Reloaded], tmp_path: Path) -> None:
    """When it begins, on which clock, and when it is done."""
    address = os.path.relpath(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(20)
        running = start("", NOTIFY_SOCKET=os.path.abspath(address))
        while systemd.recv(4096) != b"READY=1":
            pass
        running.reload("poll_seconds = 2\n")
        heard: list[str] = []
        while "READY=1" not in heard:
            heard.append(systemd.recv(4096).decode())
        heard = [text for text in heard if not text.startswith(("WATCHDOG", "STATUS"))]
        assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", heard[0])
        assert heard[1:] == ["READY=1"]
