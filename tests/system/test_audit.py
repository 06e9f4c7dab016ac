"""`blocksd audit --to-block` and `--schedule`: findings that an agent can act on."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support import Daemon

pytestmark = pytest.mark.slow

LABEL = "maintenance/audit"


def test_findings_in_a_block(run_daemon: Callable[..., Daemon], folder: Path) -> None:
    """Made when there are some, changed when they have changed, and never a finding itself."""
    daemon = run_daemon()
    first = daemon.command("audit", "--to-block", LABEL)
    assert (first.returncode, first.stderr) == (0, f"{LABEL}: unchanged\n0 findings in 0 blocks\n")
    assert not (folder / f"{LABEL}.md").exists()
    daemon.command("new", "notes", "One.")
    created = daemon.command("audit", "--to-block", LABEL)
    assert f"{LABEL}: created\n" in created.stderr
    block = json.loads(daemon.command("show", LABEL, "--json").stdout)
    assert block["value"].startswith("- notes: no agent is attached to it\n  name those who should see it")
    assert (block["read_only"], block["tags"], block["version"]) == (True, ["audit"], 1)
    again = daemon.command("audit", "--to-block", LABEL)
    assert f"{LABEL}: unchanged\n" in again.stderr
    assert LABEL not in daemon.command("show", LABEL).stdout
    daemon.command("set", "notes", "--description", "Notes.", "--agent", "sam")
    assert f"{LABEL}: updated\n" in daemon.command("audit", "--to-block", LABEL).stderr
    assert daemon.command("show", LABEL).stdout == "No findings.\n"
    assert len(daemon.values(LABEL)) == 2


def test_limit_of_the_block_holds(run_daemon: Callable[..., Daemon], folder: Path) -> None:
    """What does not fit is counted."""
    for number in range(20):
        (folder / f"notes-{number}.md").write_text("x\n")
    daemon = run_daemon()
    daemon.command("new", LABEL, "", "--limit", "500", "--tag", "audit")
    assert daemon.command("audit", "--to-block", LABEL).returncode == 0
    value = json.loads(daemon.command("show", LABEL, "--json").stdout)["value"]
    assert len(value) <= 500
    assert value.endswith("more findings: 'blocksd audit' lists all")


def test_block_for_something_else_is_not_overwritten(run_daemon: Callable[..., Daemon]) -> None:
    """A slip in the label must not cost a persona."""
    daemon = run_daemon()
    daemon.command("new", "persona", "I am Sam.")
    result = daemon.command("audit", "--to-block", "persona")
    assert result.returncode == 1
    assert "the block 'persona' is not one that the audit writes" in result.stderr
    assert "give this one the tag 'audit'" in result.stderr
    assert daemon.command("show", "persona").stdout == "I am Sam.\n"


def test_schedule(run_daemon: Callable[..., Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command of the unit finds this daemon from anywhere, with the same options; wrong times are refused."""
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, text in {
        "systemctl": "",
        "systemd-analyze": "case $2 in now*) echo no such time >&2; exit 1; esac",
    }.items():
        (commands / name).write_text(f"#!/bin/sh\n{text}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    daemon = run_daemon()
    result = daemon.command("audit", "--to-block", LABEL, "--schedule", "daily")
    assert result.returncode == 0, result.stderr
    path = tmp_path / "config/systemd/user/blocksd-audit.timer"
    assert result.stderr == f"scheduled: {path}\n"
    (line,) = [line for line in path.with_suffix(".service").read_text().splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(line.removeprefix("ExecStart="))
    assert words[words.index("audit") :] == [
        *("audit", "--stale-days", "90", "--prompt-chars", "65536", "--to-block", LABEL),
        *("--state-dir", str(daemon.state), "--config", "/dev/null"),
    ]
    wrong = daemon.command("audit", "--schedule", "now and then")
    assert wrong.returncode == 2
    assert "systemd-analyze refuses: no such time\n  see systemd.time(7)" in wrong.stderr
