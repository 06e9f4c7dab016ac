"""`blocksd doctor` as it is typed: before the first start, beside a daemon, for another user, and in bad places."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.journal.journal import Journal
from rig import revision
from support import Daemon, RedisServer, bound_by_rights, require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow


OF_THE_PLACE = {"state.disk", "state.writing", "state.space", "folder.writing", "folder.space"}
"""Checks that may warn of where the tests run: in the layer of a container, on a slow or a full disk."""


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> None:
    """A working directory with an empty folder of blocks, in which nothing is configured."""
    for name in list(os.environ):
        if name.startswith(("BLOCKSD_", "STATE_DIRECTORY", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(folder.parent)


def doctor(*words: str, under: Sequence[str] = (), **options: Any) -> subprocess.CompletedProcess[str]:
    command = [*under, sys.executable, "-m", "blocksd", "doctor", *words]
    result = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL, **options
    )
    assert "Traceback" not in result.stderr, result.stderr
    if result.stdout.startswith("["):
        states = {finding["state"] for finding in json.loads(result.stdout)}
        assert result.returncode == (0 if states <= {"ok", "unknown"} else 1), result
    return result


def found(result: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    """The findings of `--json`, by check."""
    findings: list[dict[str, str]] = json.loads(result.stdout)
    assert all(set(finding) == {"check", "state", "message", "advice"} for finding in findings)
    return {finding["check"]: finding for finding in findings}


def states(result: subprocess.CompletedProcess[str], *checks: str) -> list[str]:
    by_check = found(result)
    return [by_check[check]["state"] for check in checks]


def test_before_the_first_start(folder: Path, tmp_path: Path) -> None:
    """It says which server would be started, is satisfied, and makes nothing."""
    by_check = found(doctor("blocks.d", "--state-dir", "state", "--json"))
    assert "the daemon starts" in by_check["redis.server"]["message"]
    assert by_check["state.access"]["message"] == f"{tmp_path}/state is made at the first start"
    assert {name for name, finding in by_check.items() if finding["state"] != "ok"} <= OF_THE_PLACE
    assert list(tmp_path.iterdir()) == [folder]
    assert list(folder.iterdir()) == []


def test_beside_a_daemon(folder: Path, run_daemon: RunDaemon) -> None:
    """The folder and the server are those of the daemon that runs, which does not notice."""
    (folder / "notes.md").write_text("text\n")
    daemon = run_daemon()
    before = sorted(path.name for path in folder.iterdir())
    by_check = found(doctor("--state-dir", str(daemon.state), "--json"))
    assert by_check["folder.access"]["message"] == f"{folder} can be read and written"
    assert by_check["redis.rights"]["state"] == "ok"
    assert by_check["state.journal"]["state"] == "ok"
    assert by_check["clock.journal"]["state"] == "ok"
    assert "Valkey" in by_check["redis.server"]["message"]
    assert sorted(path.name for path in folder.iterdir()) == before
    assert daemon.stop() == 0
    assert "Traceback" not in daemon.said()


def test_with_a_server_of_its_own(folder: Path, tmp_path: Path) -> None:
    """All is well with the server that a daemon starts for itself."""
    (folder / "notes.md").write_text("text\n")
    daemon = Daemon(folder, tmp_path / "state").start()
    try:
        result = doctor("--state-dir", str(daemon.state), "--json")
        assert {name for name, one in found(result).items() if one["state"] != "ok"} <= OF_THE_PLACE
        checks = ("redis.memory", "redis.persistence", "redis.rights", "redis.exposure")
        assert states(result, *checks) == ["ok"] * 4
    finally:
        daemon.stop()


def test_text(folder: Path) -> None:
    """A line for each check, by group, no wider than a terminal; the advice is below what it is for."""
    result = doctor("blocks.d", "--state-dir", "state", "--redis", f"unix://{folder}/none.sock")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "folder",
        "state",
        "limits",
        "redis",
    ]
    at = next(number for number, line in enumerate(lines) if line.startswith("  wrong"))
    assert lines[at - 1] == "redis"
    rest = " ".join(line.strip() for line in lines[at:])
    assert "does not serve" in rest
    assert "start it, or name another with --redis URL" in rest
    assert re.match(r"\d+ checks: 1 problem, \d+ warnings?$", result.stderr)
    assert all(len(line) <= 80 or "/" in line for line in lines)


def test_missing_folder() -> None:
    """How to make one is said."""
    result = doctor("missing.d", "--state-dir", "state", "--json")
    assert result.returncode == 1
    assert found(result)["folder.access"]["advice"].startswith("'mkdir ")


def test_name_that_is_not_utf8() -> None:
    """It is shown with its bytes escaped."""
    result = doctor(os.fsdecode(b"not-\xff-utf8"), "--state-dir", "state")
    assert result.returncode == 1
    assert "not-\\\\xff-utf8" in result.stdout


def test_wrong_settings(tmp_path: Path) -> None:
    """What is wrong with them is a finding, too."""
    (tmp_path / "blocksd.toml").write_text("namspace = 'x'\n")
    result = doctor("--json")
    assert result.returncode == 1
    assert list(found(result)) == ["settings.file"]
    assert "did you mean 'namespace'?" in found(result)["settings.file"]["message"]


def test_polling() -> None:
    """A daemon that polls needs no events."""
    result = doctor("blocks.d", "--state-dir", "state", "--poll", "--json")
    by_check = found(result)
    assert "no file events" in by_check["folder.events"]["message"]


def test_damaged_journal(tmp_path: Path) -> None:
    """It is found without a start, and left as it is."""
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    journal = Journal(str(state / "journal.db"))
    journal.append([revision(1, "notes", value="text")], {})
    journal.close()
    data = (state / "journal.db").read_bytes()
    (state / "journal.db").write_bytes(b"x" * 4096 + data[4096:])
    before = (state / "journal.db").read_bytes()
    result = doctor("blocks.d", "--state-dir", "state", "--json")
    assert result.returncode == 1
    assert states(result, "state.journal") == ["wrong"]
    assert (state / "journal.db").read_bytes() == before


# --- rights ---


def test_read_only_folder(folder: Path, server: RedisServer) -> None:
    """Who may read it and not write it is told what will be refused; a daemon may serve it all the same, but not all is well."""
    (folder / "notes.md").write_text("text\n")
    folder.chmod(0o555)
    words = ("blocks.d", "--state-dir", "state", "--redis", server.url, "--json")
    result = doctor(*words, under=bound_by_rights())
    folder.chmod(0o755)
    by_check = found(result)
    assert result.returncode == 1, result
    assert "wrong" not in {finding["state"] for finding in by_check.values()}
    assert by_check["folder.access"]["state"] == "warning"
    assert "refused" in by_check["folder.access"]["message"]
    assert f"setfacl -R -m u:USER:rwX {folder}" in by_check["folder.access"]["advice"]
    assert by_check["folder.events"]["state"] == "unknown"


def test_folder_that_cannot_be_read(folder: Path) -> None:
    """That is wrong."""
    words = ("blocks.d", "--state-dir", "state", "--json")
    folder.chmod(0)
    result = doctor(*words, under=bound_by_rights())
    folder.chmod(0o755)
    assert result.returncode == 1
    assert states(result, "folder.access") == ["wrong"]


def test_state_directory_of_another(tmp_path: Path) -> None:
    """One that cannot be written, or made, is wrong; one that others may look into is a warning."""
    state = tmp_path / "state"
    state.mkdir(mode=0o755)
    words = ("blocks.d", "--state-dir", str(state), "--json")
    assert states(doctor(*words), "state.access", "state.private") == ["ok", "warning"]
    state.chmod(0o555)
    result = doctor(*words, under=bound_by_rights())
    below = doctor("blocks.d", "--state-dir", str(state / "below"), "--json", under=bound_by_rights())
    state.chmod(0o755)
    assert states(result, "state.access") == states(below, "state.access") == ["wrong"]
    assert (result.returncode, below.returncode) == (1, 1)


def test_few_files_may_be_open() -> None:
    """A low limit is found."""
    result = doctor("blocks.d", "--state-dir", "state", "--json", under=(require("prlimit"), "--nofile=128:128"))
    assert states(result, "limits.files") == ["wrong"]
    assert "128 files" in found(result)["limits.files"]["message"]
