"""A real daemon as those see it who look after it: `status`, metrics, the log, and systemd."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

import blocksd
from blocksd.cli.commands_status import seen_in_mirror
from support import DEADLINE, Daemon, RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow

SECRET = "hush-hush"


def status(daemon: Daemon) -> dict[str, Any]:
    result = daemon.command("status", "--json", "--config", os.devnull)
    assert result.stderr == "" or "{" in result.stdout, result.stderr
    shown: dict[str, Any] = json.loads(result.stdout)
    return shown


@pytest.fixture
def watched(folder: Path, run_daemon: RunDaemon) -> Daemon:
    """A daemon over a block that has changed, one that has not, and a file that is none."""
    (folder / "notes.md").write_text("---\nagents: [ann]\n---\none\n")
    (folder / "other.md").write_text("same\n")
    (folder / "bad.md").write_text("---\n")
    (folder / "deep").mkdir()
    daemon = run_daemon()
    (folder / "notes.md").write_text("---\nagents: [ann]\n---\ntwo\n")
    eventually(lambda: daemon.values("notes") == ["one", "two"])
    return daemon


# --- status ---


def test_status_of_a_running_daemon(watched: Daemon, server: RedisServer) -> None:
    """The daemon itself answers, in numbers where there are numbers."""
    shown = status(watched)
    assert watched.process is not None
    assert (shown["running"], shown["answers"], shown["ready"], shown["pid"]) == (True, True, True, watched.process.pid)
    assert (shown["folder"], shown["state"], shown["namespace"]) == (str(watched.folder), str(watched.state), "blocks")
    assert (shown["redis"], shown["redis_embedded"]) == (server.url, False)
    assert shown["redis_server"].startswith("Valkey 9.")
    assert (shown["blocks"], shown["agents"], shown["seq"]) == (2, 1, 3)
    assert (shown["mirror"], shown["mirror_seq"], shown["mirror_lag"]) == ("level", 3, 0)
    assert (shown["away_since"], shown["away_reason"], shown["halted"]) == (None, None, None)
    change = shown["last_change"]
    assert (change["seq"], change["label"], change["version"], change["author"]) == (3, "notes", 2, "file")
    assert shown["queue"] == {"files": 0, "requests": 0}
    assert shown["watches"]["used"] == 2
    assert shown["watches"]["limit"] is None or shown["watches"]["limit"] > 0
    assert shown["uptime_seconds"] > 0
    assert [problem["subject"] for problem in shown["problems"]] == ["bad.md"]


def test_status_for_people(watched: Daemon) -> None:
    """Grouped, no wider than 80 columns but for paths, each problem with its remedy; the exit code is that of problems."""
    result = watched.command("status")
    assert (result.returncode, result.stderr) == (1, "")
    lines = result.stdout.splitlines()
    shown = {line[:12].strip(): line[13:] for line in lines if line[:1].strip()}
    assert watched.process is not None
    assert re.fullmatch(rf"running, pid {watched.process.pid}, for \d+ s, version 0\.\S+", shown["daemon"])
    assert re.fullmatch(r"3 notes v2, \d+ s ago by file", shown["last change"])
    assert shown["mirror"] == "in sync"
    assert shown["queue"] == "0 files to look at, 0 requests waiting"
    assert re.fullmatch(r"2( of \d+)?", shown["watches"])
    assert shown["problems"] == "1 problem, 0 warnings"
    assert "\n  bad.md:1: the frontmatter is opened with '---' but never closed\n    add a line" in result.stdout
    assert all(len(line) <= 80 for line in lines if "/" not in line)


def test_status_while_redis_is_away(watched: Daemon, server: RedisServer, folder: Path) -> None:
    """It says since when and why, and how things go on without; it fails for that alone."""
    (folder / "bad.md").unlink()
    eventually(lambda: watched.command("status").returncode == 0, "all is well")
    server.kill()
    (folder / "notes.md").write_text("three\n")
    shown = eventually(lambda: (found := status(watched))["mirror"] == "away" and found)
    assert "does not serve" in shown["away_reason"]
    assert shown["away_since"].endswith("Z")
    eventually(lambda: status(watched)["seq"] > 3, "the folder goes on being journaled")
    lag = status(watched)["mirror_lag"]
    assert lag == status(watched)["seq"] - 3
    told = watched.command("status")
    assert re.search(r"mirror +unreachable since \S+ \(\d+ s\): Redis at", told.stdout)
    assert (told.returncode, "problems     1" in told.stdout) == (1, True)
    assert "<mirror>: the mirror is unreachable" in told.stdout
    assert [problem["subject"] for problem in status(watched)["problems"]] == ["<mirror>"]
    server.start()
    eventually(lambda: status(watched)["mirror"] == "level")
    assert status(watched)["mirror_lag"] == 0


def test_status_looks_at_the_mirror_itself(server: RedisServer) -> None:
    """What a daemon takes for in sync is looked at again: Redis may have died or been emptied a moment ago."""
    report = {"mirror": "level", "namespace": "blocks", "seq": 4}
    raw = server.client()
    assert seen_in_mirror(server.url, report)["mirror"] == "empty"
    raw.hset("blocks:meta", "pid", "1")
    assert seen_in_mirror(server.url, report)["mirror"] == "rebuilding"
    raw.hset("blocks:meta", "seq", "3")
    assert seen_in_mirror(server.url, report) == {"mirror": "behind", "mirror_seq": 3, "mirror_lag": 1}
    raw.hset("blocks:meta", "seq", "4")
    assert seen_in_mirror(server.url, report) == {}
    raw.close()
    server.kill()
    assert seen_in_mirror(server.url, report)["mirror"] == "away"


def test_status_just_after_redis_has_died(watched: Daemon, server: RedisServer, folder: Path) -> None:
    """It fails from that moment on, and says why."""
    (folder / "bad.md").unlink()
    eventually(lambda: watched.command("status").returncode == 0, "all is well")
    server.kill()
    result = watched.command("status")
    assert result.returncode == 1
    assert "<mirror>: the mirror is unreachable" in result.stdout


def test_password_that_is_changed_while_the_daemon_runs(watched: Daemon, server: RedisServer, folder: Path) -> None:
    """The daemon's connections go on, and new ones are refused: `status` and `doctor` make one, and say so at once."""
    (folder / "bad.md").unlink()
    eventually(lambda: watched.command("status").returncode == 0, "all is well")
    raw = server.client()
    raw.config_set("requirepass", SECRET)
    result = watched.command("status")
    told = " ".join(result.stdout.split())
    assert result.returncode == 1
    assert "<mirror>: the mirror is unreachable" in told
    assert "refuses the login" in told
    assert "takes the user and password of 'redis'" in told
    findings = json.loads(watched.command("doctor", "--json").stdout)
    assert [one["check"] for one in findings if one["state"] == "wrong"] == ["redis.server"]
    raw.config_set("requirepass", "")
    raw.close()
    assert watched.command("status").returncode == 0


def test_warnings_are_not_well(watched: Daemon, folder: Path) -> None:
    """A warning alone makes `status` fail."""
    (folder / "bad.md").write_text("---\nlimt: 5\n---\n")
    report = eventually(lambda: (found := status(watched))["problems"][0]["warning"] and found)
    assert len(report["problems"]) == 1
    assert watched.command("status").returncode == 1


def test_status_with_a_wrong_configuration(watched: Daemon, tmp_path: Path) -> None:
    """What is wrong in the settings is among the problems; the rest of them, and the daemon, are shown all the same."""
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(f'namspace = "x"\nresync_seconds = "often"\nstate_dir = "{watched.state}"\n')
    result = subprocess.run(
        [sys.executable, "-m", "blocksd", "status", "--json", "--config", str(wrong)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={**watched.env, "BLOCKSD_POLL": "perhaps"},
    )
    assert (result.returncode, result.stderr) == (1, "")
    report = json.loads(result.stdout)
    assert (report["running"], report["answers"], report["blocks"]) == (True, True, 2)
    told = " ".join(problem["message"] for problem in report["problems"] if problem["subject"] == "<config>")
    assert all(word in told for word in ("'namspace'", "resync_seconds", "poll"))
    unreadable = watched.command("status", "--config", str(tmp_path / "missing.toml"))
    assert unreadable.returncode == 1
    assert "missing.toml cannot be read" in " ".join(unreadable.stdout.split())


def test_daemon_that_hangs(watched: Daemon) -> None:
    """Who asks is told so after some seconds; what can be told without the daemon is; deletions are not accepted in vain."""
    assert watched.process is not None
    answering = status(watched)
    watched.process.send_signal(signal.SIGSTOP)
    try:
        words = (["status"], ["status", "--json"], ["resume", "--accept-deletions"])
        asking = [
            subprocess.Popen(
                [sys.executable, "-m", "blocksd", *one, "--state-dir", str(watched.state)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=watched.env,
            )
            for one in words
        ]
        (text, hint), (found, _), (nothing, refused) = [one.communicate(timeout=DEADLINE) for one in asking]
    finally:
        watched.process.send_signal(signal.SIGCONT)
    assert [one.returncode for one in asking] == [3, 3, 3]
    assert f"runs but does not answer, pid {watched.process.pid}" in text
    assert "see its log" in hint
    shown = json.loads(found)
    assert (shown["running"], shown["answers"], shown["seq"], shown["mirror"]) == (True, False, 3, "level")
    assert shown["last_change"] == answering["last_change"]
    assert shown.keys() == answering.keys()
    assert nothing == ""
    assert "does not answer at" in refused
    assert "see its log" in refused
    assert status(watched)["answers"] is True


def test_daemon_that_was_killed(watched: Daemon, server: RedisServer) -> None:
    """Journal and Redis tell what they can, under the same names; the socket it left is no obstacle to the next."""
    answering = status(watched)
    watched.kill()
    result = watched.command("status", "--json", "--redis", server.url)
    assert result.returncode == 3
    shown = json.loads(result.stdout)
    assert (shown["running"], shown["answers"], shown["seq"], shown["blocks"]) == (False, None, 3, 2)
    assert shown["pid"] == answering["pid"]
    assert shown["last_change"] == answering["last_change"]
    assert shown.keys() == answering.keys()
    assert (watched.state / "control.sock").exists()
    watched.start()
    assert status(watched)["answers"] is True
    assert watched.stop() == 0
    assert not (watched.state / "control.sock").exists()


def test_status_after_a_request(watched: Daemon, server: RedisServer) -> None:
    """What is done waits no longer; who asked for it is named."""
    with blocksd.connect(server.url) as client:
        client.blocks.append("notes", "three")
    assert status(watched)["queue"]["requests"] == 0
    assert status(watched)["last_change"]["author"] == "operator"


def test_status_after_a_reload(folder: Path, run_daemon: RunDaemon, tmp_path: Path) -> None:
    """What came of the last one, and when; the log has another level from then on."""
    (folder / "notes.md").write_text("one\n")
    settings = tmp_path / "blocksd.toml"
    settings.write_text("log_level = 'info'\n")
    daemon = run_daemon(BLOCKSD_CONFIG=str(settings))
    assert daemon.process is not None
    assert status(daemon)["last_reload"] is None
    assert "reloaded" not in daemon.command("status", "--config", os.devnull).stdout
    for settings_now, shown in (
        ("log_level = 'error'\nmetrics = 9464\n", "changed: log_level, needs a restart: metrics"),
        ("log_level = 'loud'\n", "failed: log_level must be 'error'"),
        ("log_level = 'error'\n", "nothing changed"),
    ):
        before = status(daemon)["last_reload"]
        settings.write_text(settings_now)
        daemon.process.send_signal(signal.SIGHUP)
        eventually(lambda: status(daemon)["last_reload"] != before)  # noqa: B023  # right here
        text = daemon.command("status", "--config", os.devnull).stdout
        assert re.search(rf"reloaded +\d+ s ago, {shown}", text)
    said = daemon.said()
    (folder / "notes.md").write_text("two\n")
    eventually(lambda: len(daemon.values("notes")) == 2)
    assert daemon.said() == said


def test_state_directory_without_a_socket(folder: Path, run_daemon: RunDaemon, tmp_path: Path) -> None:
    """Where there can be none, the daemon serves all the same, and says that nobody can ask it."""
    (folder / "notes.md").write_text("one\n")
    (tmp_path / "state" / "control.sock" / "in the way").mkdir(parents=True)
    daemon = run_daemon()
    assert daemon.said().count("no control socket can be made") == 1
    shown = status(daemon)
    assert (shown["running"], shown["answers"], shown["blocks"]) == (True, False, 1)


# --- metrics ---


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def scrape(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE) as answer:
        text = answer.read().decode()
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_scraped(folder: Path, run_daemon: RunDaemon, server: RedisServer) -> None:
    """What happened is counted, stage by stage, and how the daemon stands is a second old at most."""
    (folder / "notes.md").write_text("one\n")
    port = free_port()
    daemon = run_daemon("--metrics", str(port))
    with blocksd.connect(server.url) as client:
        client.blocks.append("notes", "two")
        with pytest.raises(blocksd.NotFound):
            client.blocks.append("missing", "x")
    found = eventually(lambda: (all_ := scrape(port))["blocksd_seq"] == 2 and all_)
    assert found["blocksd_revisions_total created file"] == 1
    assert found["blocksd_revisions_total updated operator"] == 1
    assert found["blocksd_requests_total append ok"] == 1
    assert found["blocksd_requests_total append not_found"] == 1
    assert found["blocksd_request_seconds_count"] == 2
    for stage in ("look", "journal", "stage", "prepare", "put_in", "finish", "project", "mirror"):
        assert found[f"blocksd_stage_seconds_count {stage}"] >= 1
    assert (found["blocksd_mirror_level"], found["blocksd_mirror_lag"], found["blocksd_ready"]) == (1, 0, 1)
    assert found["blocksd_watches"] == 1
    server.kill()
    eventually(lambda: scrape(port)["blocksd_mirror_level"] == 0)
    server.start()
    eventually(lambda: scrape(port)["blocksd_reconnects_total"] == 1)
    assert daemon.stop() == 0


def test_port_of_metrics_in_use(folder: Path, tmp_path: Path, server: RedisServer) -> None:
    """It is a mistake in the configuration; the daemon ends in order, and can be started without."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        options = ("--redis", server.url, "--metrics", f"127.0.0.1:{port}")
        daemon = Daemon(folder, tmp_path / "state", *options).start(ready=False)
        assert daemon.process is not None
        assert daemon.process.wait(DEADLINE) == 2
    assert f"the address for metrics, 127.0.0.1 port {port}, is in use" in daemon.said()
    assert Daemon(folder, tmp_path / "state", "--redis", server.url).start().stop() == 0


def test_metrics_without_their_package(folder: Path, tmp_path: Path, server: RedisServer) -> None:
    """The command that installs it is named; whoever wants no metrics needs it not."""
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "prometheus_client.py").write_text(
        "raise ModuleNotFoundError('No module named prometheus_client', name='prometheus_client')\n"
    )
    env = {"PYTHONPATH": str(tmp_path / "none")}
    daemon = Daemon(folder, tmp_path / "state", "--redis", server.url, "--metrics", "9464", env=env).start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(DEADLINE) == 2
    assert "pip install 'blocksd[metrics]'" in daemon.said()
    assert Daemon(folder, tmp_path / "state", "--redis", server.url, env=env).start().stop() == 0


# --- the log ---


def test_absence_of_redis_is_two_lines(watched: Daemon, server: RedisServer) -> None:
    """Its beginning and its end, however often it is tried in between; nothing else is said of it."""
    before = len(watched.said().splitlines())
    server.kill()
    eventually(lambda: "Redis is unreachable" in watched.said())
    away = status(watched)
    eventually(lambda: status(watched)["uptime_seconds"] > away["uptime_seconds"] + 3, "it is tried a few times")
    server.start()
    eventually(lambda: "in sync again" in watched.said())
    said = watched.said().splitlines()[before:]
    first, second = (line for line in said if "Redis" in line or "mirror" in line)
    assert "Redis is unreachable" in first
    assert "the mirror is in sync again (rebuilt)" in second


@pytest.mark.parametrize("form", ["text", "json"])
def test_password_is_nowhere(folder: Path, tmp_path: Path, server: RedisServer, form: str) -> None:
    """Not while all is well, while Redis is away, while it refuses the login or a command; neither in log nor status."""
    (folder / "notes.md").write_text("one\n")
    raw: Any = server.client()
    rules = ("on", f">{SECRET}", "~*", "&*", "+@all")
    raw.execute_command("ACL", "SETUSER", "tester", *rules)
    url = f"unix://tester:{SECRET}@{server.socket}"
    options = ("--redis", url, "--log-format", form, "--log-level", "debug")
    daemon = Daemon(folder, tmp_path / "state", *options).start(ready=False)
    seen = [daemon.command("status").stdout] if eventually(lambda: "ready" in daemon.said()) else []
    raw.execute_command("ACL", "SETUSER", "tester", "-xlen")
    raw.client_kill_filter(_type="normal", skipme=True)
    eventually(lambda: "no requests can be read" in daemon.said(), "a command is refused")
    seen.append(daemon.command("status").stdout)
    server.kill()
    eventually(lambda: "does not serve" in daemon.said(), "Redis is away")
    seen.append(daemon.command("status", "--json").stdout)
    server.start()  # without the user
    eventually(lambda: "refuses the login" in daemon.said().rpartition("does not serve")[2], "the login is refused")
    seen.append(daemon.command("status").stdout)
    seen.append(daemon.command("ls").stderr)
    daemon.stop()
    raw.close()
    again = Daemon(folder, tmp_path / "state", *options).start(ready=False)
    assert again.process is not None
    assert again.process.wait(DEADLINE) == 2
    seen += [daemon.said(), again.said()]
    assert all(seen)
    assert all("tester" in one or "unix://" in one or "ready" in one for one in seen)
    assert not [one for one in seen if SECRET in one]


def test_password_of_the_embedded_server_is_nowhere(folder: Path, tmp_path: Path) -> None:
    """Also when the server is killed, which is said in one line, and made good."""
    (folder / "notes.md").write_text("one\n")
    daemon = Daemon(folder, tmp_path / "state", "--log-level", "debug").start()
    try:
        password = json.loads((daemon.state / "redis" / "server.json").read_text())["password"]
        seen = [daemon.command("status").stdout, daemon.command("status", "--json").stdout]
        assert re.search(r"redis +redis://127\.0\.0\.1:\d+ \(embedded (Redis|Valkey) \d", seen[0])
        os.kill(json.loads((daemon.state / "redis" / "server.json").read_text())["pid"], signal.SIGKILL)
        eventually(lambda: "was restarted" in daemon.said())
        eventually(lambda: status(daemon)["mirror"] == "level")
        seen += [daemon.command("status").stdout, daemon.said()]
        assert daemon.said().count("embedded server") == 1
        assert not [one for one in seen if password in one]
    finally:
        assert daemon.stop() == 0


def test_log_of_a_daemon_that_cannot_start(folder: Path, tmp_path: Path) -> None:
    """In JSON the reason, and what to do, is an event, too, with the exit code of the error."""
    options = ("--redis", "http://here", "--log-format", "json")
    daemon = Daemon(folder, tmp_path / "state", *options).start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(DEADLINE) == 2
    (line,) = daemon.said().splitlines()
    shown = json.loads(line)
    assert (shown["event"], shown["level"], shown["code"]) == ("failure", "error", "misconfigured")
    assert "http://here" in shown["message"]


def in_the_journal(daemon: Daemon) -> Daemon:
    """Have its log be what systemd says the journal is."""
    daemon.log.touch()
    found = daemon.log.stat()
    daemon.env["JOURNAL_STREAM"] = f"{found.st_dev}:{found.st_ino}"
    return daemon


def test_log_in_the_journal(folder: Path, tmp_path: Path, server: RedisServer) -> None:
    """Each line has its priority, and no time."""
    (folder / "notes.md").write_text("one\n")
    (folder / "bad.md").write_text("---\n")
    daemon = in_the_journal(Daemon(folder, tmp_path / "state", "--redis", server.url)).start()
    assert daemon.stop() == 0
    lines = daemon.said().splitlines()
    assert lines[0].startswith("<6>folder /")
    assert "<3>problem: bad.md:1: " in daemon.said()
    assert "<6>ready: 1 block, 0 agents, 1 problem, 0 warnings" in lines
    assert all(re.match(r"<[3-7]>\D", line) for line in lines)
    refused = in_the_journal(Daemon(folder, tmp_path / "state", "--redis", "http://here")).start(ready=False)
    assert refused.process is not None
    assert refused.process.wait(DEADLINE) == 2
    (line,) = refused.said().splitlines()
    assert line.startswith("<3>blocksd: http://here is not a Redis URL")


def test_log_level(folder: Path, tmp_path: Path, server: RedisServer) -> None:
    """With `warning`, changes and the start are not worth a line; problems are."""
    (folder / "notes.md").write_text("one\n")
    (folder / "bad.md").write_text("---\n")
    options = ("--redis", server.url)
    daemon = Daemon(folder, tmp_path / "state", *options, env={"BLOCKSD_LOG_LEVEL": "warning"}).start(ready=False)
    eventually(lambda: "bad.md" in daemon.said())
    assert daemon.stop() == 0
    (line,) = daemon.said().splitlines()
    assert "problem: bad.md:1: " in line


# --- systemd ---


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that systemd listens on; its address is short enough for one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(os.path.relpath(tmp_path / "notify"))
        listening.settimeout(DEADLINE)
        yield listening


def heard(systemd: socket.socket, until: str) -> list[str]:
    """All that it is told up to something."""
    found: list[str] = []
    while not found or not re.fullmatch(until, found[-1]):
        found.append(systemd.recv(4096).decode())
    return found


def test_what_systemd_is_told(folder: Path, tmp_path: Path, server: RedisServer, systemd: socket.socket) -> None:
    """How far the start is, that it is ready, how it stands whenever that changes; and that it is well, Redis or not."""
    (folder / "notes.md").write_text("---\nagents: [ann]\n---\none\n")
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    daemon = Daemon(folder, tmp_path / "state", "--redis", server.url, env=env).start()
    told = heard(systemd, "READY=1")
    assert told[0].startswith("STATUS=reading the folder")
    assert not [one for one in told if "serving" in one]
    assert heard(systemd, "STATUS=.*") == ["STATUS=serving 1 block to 1 agent, seq 1, mirror in sync"]
    (folder / "notes.md").write_text("---\nagents: [ann]\n---\ntwo\n")
    heard(systemd, "STATUS=serving 1 block to 1 agent, seq 2, mirror in sync")
    server.kill()
    heard(systemd, "STATUS=serving 1 block to 1 agent, seq 2, mirror unreachable")
    for _ in range(3):
        assert heard(systemd, "WATCHDOG=1") == ["WATCHDOG=1"]
    assert daemon.stop() == 0
    assert heard(systemd, "STOPPING=1")[-1] == "STOPPING=1"
    assert "unhealthy" not in daemon.said()


def test_ready_without_redis(folder: Path, tmp_path: Path, server: RedisServer, systemd: socket.socket) -> None:
    """Once the folder has been read, and it was said that Redis is away, and why."""
    (folder / "notes.md").write_text("one\n")
    server.kill()
    env = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    daemon = Daemon(folder, tmp_path / "state", "--redis", server.url, env=env).start(ready=False)
    heard(systemd, "READY=1")
    assert "Redis is unreachable: " in daemon.said()
    assert heard(systemd, "STATUS=.*") == ["STATUS=serving 1 block to 0 agents, seq 1, mirror unreachable"]
    assert daemon.stop() == 0
