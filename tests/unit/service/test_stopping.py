"""Which command stops a daemon that a service manager runs."""

from __future__ import annotations

import pytest

from blocksd.service.stopping import command_of_unit

SYSTEM = "0::/system.slice/blocksd.service\n"
USER = "0::/user.slice/user-1000.slice/user@1000.service/app.slice/blocksd.service\n"
SHELL = "0::/user.slice/user-1000.slice/session-2.scope\n"


@pytest.mark.parametrize(
    ("environment", "groups", "command"),
    [
        (b"HOME=/\0SYSTEMD_EXEC_PID=7\0", SYSTEM, "systemctl stop blocksd.service"),
        (b"SYSTEMD_EXEC_PID=7\0", USER, "systemctl --user stop blocksd.service"),
        (b"SYSTEMD_EXEC_PID=7\0", "1:name=systemd:/x\n" + SYSTEM, "systemctl stop blocksd.service"),
        (b"SYSTEMD_EXEC_PID=6\0", SYSTEM, None),  # started by a program of the unit
        (b"XSYSTEMD_EXEC_PID=7\0", SYSTEM, None),
        (b"SYSTEMD_EXEC_PID=7\0", SHELL, None),
        (b"", SYSTEM, None),
        (b"SYSTEMD_EXEC_PID=7\0", "0::/\n", None),
    ],
)
def test_command_that_stops_a_unit(environment: bytes, groups: str, command: str | None) -> None:
    """Only the process that systemd started itself is stopped by systemctl."""
    assert command_of_unit(7, environment, groups) == command
