"""The findings of the audit: as a text, and the units that have systemd write them."""

from __future__ import annotations

import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from blocksd.assistants.upkeep import findings_text, schedule, units
from blocksd.errors import Misconfigured
from blocksd.model.audit import Finding
from support import require

if TYPE_CHECKING:
    from pathlib import Path

FINDINGS = [Finding("unused", f"notes/{number}", "no agent is attached to it", "remove it") for number in range(100)]


def test_findings_are_a_list() -> None:
    """Each with its advice; none is said, too."""
    assert findings_text(FINDINGS[:2], 20_000) == (
        "- notes/0: no agent is attached to it\n  remove it\n- notes/1: no agent is attached to it\n  remove it"
    )
    assert findings_text([], 20_000) == "No findings."


@pytest.mark.parametrize("limit", [1, 60, 100, 500, 4000])
def test_findings_that_do_not_fit_are_counted(limit: int) -> None:
    """The text has no more characters than the block may have."""
    text = findings_text(FINDINGS, limit)
    assert len(text) <= limit
    if limit >= 100:
        entries = text.count("- notes/")
        assert text.endswith(f"… and {100 - entries} more findings: 'blocksd audit' lists all")
        assert len(text) > limit - 150


WORDS = ('/opt/my blocksd/b%d$x"\\', "audit", "--to-block", "a b")


def test_units_are_understood(tmp_path: Path) -> None:
    """By systemd, word for word, whatever is in them."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "say %i it"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name, text in units("blocksd-audit", [str(program), *WORDS[1:]], "Mon *-*-* 06:00").items():
        (tmp_path / name).write_text(text)
    verified = subprocess.run(
        [require("systemd-analyze"), "verify", "--man=no", str(tmp_path / "blocksd-audit.timer")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (verified.stdout + verified.stderr, verified.returncode) == ("", 0)


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A systemctl that writes down what it is asked for, and refuses what a file says; this user's units are here."""
    commands = tmp_path / "bin"
    commands.mkdir()
    log = tmp_path / "asked"
    for name in ("systemctl", "systemd-analyze"):
        (commands / name).write_text(
            f'#!/bin/sh\necho {name} "$@" >> {log}\nrefused=$(cat {tmp_path}/refused 2>/dev/null || echo nothing)\n'
            'case " $* " in *" $refused "*) echo what went wrong >&2; exit 1;; esac\n'
        )
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:/usr/bin:/bin")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    return log


def test_schedule_of_a_person(systemctl: Path, tmp_path: Path) -> None:
    """Both units are written, and the timer runs from now on; once more replaces them."""
    for times in ("daily", "weekly"):
        systemctl.unlink(missing_ok=True)
        path = schedule("blocksd-audit", WORDS, times)
        directory = tmp_path / "config" / "systemd" / "user"
        assert path == str(directory / "blocksd-audit.timer")
        assert f"\nOnCalendar={times}\n" in (directory / "blocksd-audit.timer").read_text()
        assert (directory / "blocksd-audit.service").stat().st_mode & 0o077 == 0
        assert systemctl.read_text().splitlines() == [
            f"systemd-analyze calendar {times}",
            "systemctl --user show --property=Version",
            "systemctl --user daemon-reload",
            "systemctl --user enable --now blocksd-audit.timer",
            "systemctl --user restart blocksd-audit.timer",
        ]


def test_times_that_are_none_are_refused_before_anything_is_written(systemctl: Path, tmp_path: Path) -> None:
    """With what systemd says."""
    (tmp_path / "refused").write_text("calendar")
    with pytest.raises(Misconfigured, match="systemd-analyze refuses: what went wrong"):
        schedule("blocksd-audit", WORDS, "now and then")
    assert not (tmp_path / "config").exists()
    assert systemctl.exists()


def test_systemd_that_refuses(systemctl: Path, tmp_path: Path) -> None:
    """The error names the command that did not work."""
    (tmp_path / "refused").write_text("daemon-reload")
    with pytest.raises(Misconfigured, match="systemctl refuses: what went wrong") as caught:
        schedule("blocksd-audit", WORDS, "daily")
    assert str(caught.value.facts["hint"]).endswith("then run: systemctl --user daemon-reload")
    assert systemctl.exists()


def test_systemd_that_does_not_run(systemctl: Path, tmp_path: Path) -> None:
    """Nothing is written, and the command that cron can run instead is named."""
    (tmp_path / "refused").write_text("show")
    with pytest.raises(Misconfigured, match="systemctl refuses: what went wrong") as caught:
        schedule("blocksd-audit", WORDS, "daily")
    assert str(caught.value.facts["hint"]).endswith(f"run: {shlex.join(WORDS)}")
    assert not (tmp_path / "config").exists()
    assert systemctl.exists()


def test_no_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(Misconfigured, match="systemctl cannot be run"):
        schedule("blocksd-audit", WORDS, "daily")
    assert not (tmp_path / "config").exists()
