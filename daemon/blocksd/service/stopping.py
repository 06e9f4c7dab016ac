"""Stops the running daemon of a state directory: proves which process it is, and waits until that has ended."""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import struct
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from blocksd.errors import AlreadyRunning, InvalidRequest, Unavailable
from blocksd.service.control import connected
from blocksd.service.lock import holder

if TYPE_CHECKING:
    from collections.abc import Iterator

_CREDENTIALS = struct.Struct("3i")  # pid, uid and gid, as SO_PEERCRED gives them: unix(7)
_SERVICE = re.compile(r"/([^/]+\.service)$", re.MULTILINE)


def stop(state: str, recorded: int, *, timeout: float) -> float:
    """Stop the daemon with this state directory and this recorded pid; return the seconds that it took.

    Raises:
        Unavailable: it has not ended in time. Facts: `pid`.
        AlreadyRunning: its service manager must stop it, which would start it again. Facts: `pid`, `command`.
        InvalidRequest: it cannot be proved which process it is, or this user may not stop it.
    """
    begun = time.monotonic()
    with _handle(recorded) as process:
        pid = _serving(state)
        if process is None and pid is None:
            return 0.0  # it has just ended
        if process is None or pid != recorded:
            raise InvalidRequest(
                f"the daemon of {state} runs, and it cannot be told which process it is (pid {recorded} is another)",
                field="pid",
                pid=recorded,
            )
        command = _manager_command(pid)
        if command is not None:
            raise AlreadyRunning(f"a service manager runs the daemon, pid {pid}", pid=pid, command=command)
        try:
            signal.pidfd_send_signal(process, signal.SIGTERM)
        except ProcessLookupError:
            return time.monotonic() - begun
        except PermissionError:
            raise InvalidRequest(f"this user may not stop the daemon, pid {pid}", field="pid", pid=pid) from None
        if not select.select([process], [], [], timeout)[0]:
            raise Unavailable(f"the daemon, pid {pid}, has not stopped within {timeout:g} s", pid=pid)
    return time.monotonic() - begun


@contextmanager
def _handle(pid: int) -> Iterator[int | None]:
    """Provide a handle of a process, which means this one also if its pid is given to another; None: there is none."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        yield None
        return
    except OSError as error:
        message = f"the daemon, pid {pid}, cannot be stopped from here: {error.strerror}"
        raise InvalidRequest(message, field="pid", pid=pid) from None
    try:
        yield handle
    finally:
        os.close(handle)


def _serving(state: str) -> int | None:
    """Return the pid that listens at the control socket of a state directory, or else has its lock; None: unknown."""
    with suppress(OSError), connected(state, seconds=1.0) as connection:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid: int = _CREDENTIALS.unpack(credentials)[0]
        if pid > 0:  # 0: a process of another pid namespace
            return pid
    with suppress(OSError):
        return holder(os.stat(os.path.join(state, "lock")))
    return None


def _manager_command(pid: int) -> str | None:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        groups = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return command_of_unit(pid, environment, groups)


def command_of_unit(pid: int, environment: bytes, groups: str) -> str | None:
    """Return the command that stops the unit of systemd that started this very process; None: there is none.

    `environment` and `groups` are the process's files `environ` and `cgroup` in /proc. What a shell or a program of a unit
    starts has the unit's control group, too, and in $SYSTEMD_EXEC_PID another pid.
    """
    unit = _SERVICE.search(groups)
    if unit is None or f"SYSTEMD_EXEC_PID={pid}".encode() not in environment.split(b"\0"):
        return None
    return f"systemctl {'--user ' if '/user@' in groups else ''}stop {unit[1]}"
