"""Tells systemd how the service stands (sd_notify(3)), if there is one, and knows whether it has the log."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TextIO

_PATIENCE_SECONDS = 0.5  # for a systemd that is busy; the loop must go on


def ready() -> None:
    """The service has started, or has read its configuration again."""
    _send("READY=1")


def reloading() -> None:
    """The configuration is being read again; `ready` says when that is done."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """The service is ending."""
    _send("STOPPING=1")


def starting(seconds: float) -> None:
    """The service is still starting, and may take so much longer: a large folder takes its time."""
    _send(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000:.0f}")


def watchdog() -> None:
    """The service is well: feed the watchdog."""
    _send("WATCHDOG=1")


def status(text: str) -> None:
    """One line for `systemctl status`."""
    _send(f"STATUS={' '.join(text.split())}")


def is_journal(stream: TextIO) -> bool:
    """Whether what is written there goes to the journal of systemd, which has a time and a level for each line."""
    with suppress(OSError, ValueError):
        status = os.fstat(stream.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
    return False


def _send(state: str) -> None:
    """One datagram, UTF-8; `@` begins the address of an abstract socket. Whether anyone hears it is not ours to mend."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(_PATIENCE_SECONDS)
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.send(state.encode("utf-8"))
