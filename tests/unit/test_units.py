"""The units for systemd, as far as they can be judged without booting one."""

from __future__ import annotations

import difflib
import re
import subprocess
from pathlib import Path

import pytest

from blocksd.http.server import _BACKLOG
from blocksd.settings.config import Config
from support import require

UNITS = Path(__file__).resolve().parents[2] / "systemd"
SYSTEM = ("blocksd.service", "blocksd@.service")
GATEWAY = "blocksd-http.service"
SOCKET = "blocksd-http.socket"
ALL = (*SYSTEM, "user/blocksd.service")
RENDER = "user/blocksd-render.service"
FOLLOWER = "blocksd-follow.service"


def text_of(unit: str) -> str:
    return (UNITS / unit).read_text(encoding="utf-8")


@pytest.mark.parametrize("unit", [*SYSTEM, GATEWAY, FOLLOWER])
def test_systemd_understands_every_line(unit: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` is silent: what it does not know it only says, and returns 0."""
    paths = [tmp_path / unit, *([tmp_path / SOCKET] if unit == GATEWAY else [])]
    for path in paths:
        path.write_text(text_of(path.name).replace("ExecStart=/usr/local/bin/blocksd", "ExecStart=/bin/true"))
    words = [require("systemd-analyze"), "verify", "--man=no", *map(str, paths)]
    verified = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (verified.stdout + verified.stderr, verified.returncode) == ("", 0)


@pytest.mark.parametrize("unit", [*SYSTEM, GATEWAY, FOLLOWER])
def test_exposure_is_at_most_one(unit: str) -> None:
    """Of ten, as systemd counts."""
    words = [
        require("systemd-analyze"),
        "security",
        "--offline=true",
        "--threshold=10",
        "--no-pager",
        str(UNITS / unit),
    ]
    judged = subprocess.run(words, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout + judged.stderr


@pytest.mark.parametrize("unit", [*ALL, GATEWAY, SOCKET, RENDER, FOLLOWER])
def test_every_line_has_its_reason(unit: str) -> None:
    """A setting stands below a comment, alone or in a group."""
    service = re.split(r"\[(?:Service|Socket)\]\n", text_of(unit))[1].partition("[Install]")[0]
    for group in re.split(r"\n(?=#)|\n\n", service.strip()):
        assert group.startswith("#"), group


@pytest.mark.parametrize("unit", [*ALL, FOLLOWER])
def test_units_name_what_the_daemon_does(unit: str) -> None:
    """Each waits for READY, is fed its watchdog, reloads, and does not restart on a wrong configuration."""
    for line in (
        "Type=notify",
        "WatchdogSec=30",
        'ExecReload=/bin/sh -c "kill -HUP $MAINPID"',
        "Restart=on-failure",
        "RestartPreventExitStatus=2",
        "NoNewPrivileges=yes",
    ):
        assert f"\n{line}\n" in text_of(unit)


def test_gateway_may_do_no_more_than_the_daemon() -> None:
    """What the unit of the daemon takes away, that of the gateway takes away, too; it may write nowhere."""
    daemon, gateway = (
        {line for line in text_of(unit).splitlines() if "=" in line and line[0] != "#"} for unit in (SYSTEM[0], GATEWAY)
    )
    hardening = set(text_of(SYSTEM[0]).partition("# From here on")[2].splitlines()) & daemon
    assert hardening - gateway == {"UMask=0007", "ReadWritePaths=/etc/blocksd"}
    assert "StateDirectory" not in text_of(GATEWAY)


def test_socket_is_the_one_that_the_gateway_would_make() -> None:
    """By its address and its queue; as it is made outside of the service, its addresses are limited there."""
    socket, gateway = text_of(SOCKET).splitlines(), text_of(GATEWAY).splitlines()
    assert {f"ListenStream={Config().listen}", f"Backlog={_BACKLOG}"} < set(socket)
    limits = [line for line in gateway if line.startswith("IPAddress")]
    assert limits
    assert [line for line in socket if line.startswith("IPAddress")] == limits


def test_renderer_may_do_no_more_than_a_persons_daemon() -> None:
    """But for the umask: others may have to read what it writes."""
    daemon, renderer = (text_of(unit).partition("# From here on")[2].splitlines() for unit in (ALL[-1], RENDER))
    taken = [{line for line in lines if "=" in line and line[0] != "#"} for lines in (daemon, renderer)]
    assert taken[0] - taken[1] == {"UMask=0077"}
    assert taken[1] <= taken[0]


def test_follower_may_do_what_the_daemon_may() -> None:
    """It writes the same folder and the same state; which of the two does is a matter of one word."""
    daemon, follower = (text_of(unit).partition("# From here on")[2].splitlines() for unit in (SYSTEM[0], FOLLOWER))
    settings = [[line for line in lines if "=" in line and line[0] != "#"] for lines in (daemon, follower)]
    assert settings[0] == settings[1]


def test_instance_differs_where_it_must() -> None:
    """In its names; what it may do is the same."""
    one, several = (text_of(unit).partition("[Service]\n")[2].splitlines() for unit in SYSTEM)
    differing = [line[2:] for line in difflib.ndiff(one, several) if line.startswith("+ ") and line[2] != "#"]
    assert [line.partition("=")[0] for line in differing] == [
        "ExecStart",
        "WorkingDirectory",
        "StateDirectory",
        "LoadCredential",
        "ReadWritePaths",
    ]
    assert all("%i" in line for line in differing)
