"""Notifications to systemd by its protocol (sd_notify(3)). Without systemd they do nothing."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import TextIO

_SEND_SECONDS = 0.5  # a busy systemd must not stop the main loop


def ready() -> None:
    """Say that the service has started, or has reloaded its settings."""
    _send("READY=1")


def reloading() -> None:
    """Say that the service reloads its settings; `ready` ends that."""
    _send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """Say that the service stops."""
    _send("STOPPING=1")


def starting(seconds: float) -> None:
    """Ask for so many seconds more to start: a large folder takes its time."""
    _send(f"EXTEND_TIMEOUT_USEC={seconds * 1_000_000:.0f}")


def watchdog(seconds: float = _SEND_SECONDS) -> None:
    """Ping the watchdog. A ping that would have to wait for longer than this is left out."""
    _send("WATCHDOG=1", seconds)


def status(text: str) -> None:
    """Set the line that `systemctl status` shows."""
    _send(f"STATUS={' '.join(text.split())}")


def is_journal(stream: TextIO) -> bool:
    """Return True if the stream leads to systemd's journal, which adds time and level to each line."""
    with suppress(OSError, ValueError):
        found = os.fstat(stream.fileno())
        return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
    return False


def _send(state: str, seconds: float = _SEND_SECONDS) -> None:
    """Send one datagram. A systemd that does not take it is ignored: the service goes on."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.settimeout(seconds)
        channel.connect("\0" + address[1:] if address.startswith("@") else address)  # `@`: an abstract socket
        channel.send(state.encode("utf-8"))
