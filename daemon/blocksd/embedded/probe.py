"""Observes a server process: what it answers, whether it works, and what it logged last."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from blocksd.mirror.connection import connect

if TYPE_CHECKING:
    from blocksd.embedded.endpoint import Address

POLL_SECONDS = 0.005
"""Between two looks at a process that starts or ends."""

_LOG_PREFIX = re.compile(r"^\d+:\w \d+ \w+ \d+ [\d:.]+ \S ")  # pid and time


def state_of(address: Address) -> str | None:
    """Return `serves`, `refuses` (its password is another), or how far it has loaded its data; None: it does not answer."""
    import redis

    client = connect(address.url)
    try:
        client.ping()
    except redis.exceptions.BusyLoadingError:
        with suppress(redis.RedisError, OSError, ValueError, TypeError, KeyError):
            return f"it loads its data: {float(client.info('persistence')['loading_loaded_perc']):.0f} %"
        return "it loads its data"
    except (redis.AuthenticationError, redis.exceptions.AuthenticationWrongNumberOfArgsError):
        return "refuses"
    except (redis.RedisError, OSError):
        return None
    else:
        return "serves"
    finally:
        client.close()


def answers(address: Address, seconds: float) -> bool:
    """Return True if the server replies in time, even that it loads, is busy or is full."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(seconds)
            connection.connect(address.socket)
            with suppress(OSError):  # a server with too many clients replies and closes at once
                connection.sendall(b"PING\r\n")
            return bool(connection.recv(1))
    except OSError:
        return False


def work_of(pid: int) -> int:
    """Return a number that grows as the process works: ticks of processor time, and bytes read."""
    work = 0
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", encoding="ascii") as file:
        fields = file.read().rpartition(")")[2].split()
        work += int(fields[11]) + int(fields[12])
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/io", encoding="ascii") as file:
        work += int(file.readline().split()[1])
    return work


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def end_process(pid: int, grace: float) -> None:
    """End a process that is no child of this one, by force after `grace` seconds."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(OSError):
            os.kill(pid, number)
        deadline = time.monotonic() + grace
        while is_alive(pid) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)


def last_words(log: str) -> str:
    """Return the last line of the server's log."""
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.strip()]
    except OSError:
        return "it left no log"
    return _LOG_PREFIX.sub("", lines[-1]) if lines else "it logged nothing"
