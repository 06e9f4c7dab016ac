"""What to ask Redis and what to make of the answers, apart from how it is asked: one text for blocking and asyncio code."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeVar

Command = tuple[str | int, ...]
"""A Redis command, word by word."""

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Ask:
    """Send these commands together, in one round trip; what comes back is a list of their replies.

    `together` says that nobody else's command may come between them.
    """

    commands: tuple[Command, ...]
    together: bool = False


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait, then go on."""

    seconds: float


Plan = Generator[Ask | Pause, Any, R]
"""Asks, is sent the replies (or has the error raised at the `yield`), and returns what it was made for."""


def ask(*commands: Command, together: bool = False) -> Plan[list[Any]]:
    """The plan of a single round trip."""
    replies: list[Any] = (yield Ask(commands, together)) if commands else []
    return replies
