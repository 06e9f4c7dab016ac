"""Who is told how the service goes."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from blocksd.core.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blocksd.monitoring.status import Standing
    from blocksd.settings.config import Reload

Level = Literal["error", "warning", "info", "debug"]

SELDOM_SECONDS = 60.0
"""Between two notes on what may happen again and again."""

_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon has started: its folder, its server (without a password), its namespace and its state directory."""

    folder: str
    redis: str
    namespace: str
    state: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The folder has been read: how many blocks, agents and problems there are, the newest seq, and how the mirror is."""

    blocks: int
    agents: int
    problems: int
    seq: int
    is_in_sync: bool


class ServiceListener(Listener):
    """Who is told how the service goes, besides what becomes of the blocks."""

    is_timing = False
    """Whether `on_stage` is wanted."""

    def on_start(self, started: Started) -> None: ...
    def on_progress(self, done: int, left: int) -> None: ...
    def on_ready(self, ready: Ready) -> None: ...
    def on_reload(self, reload: Reload) -> None: ...
    def on_standing(self, standing: Standing) -> None:
        """How the service stands, once a second."""

    def on_stage(self, stage: str, seconds: float) -> None:
        """How long a part of a round took: from the beginning of one effect to that of the next."""

    def on_note(self, message: str, level: Level) -> None: ...
    def on_stop(self) -> None: ...


class Notes:
    """What there is to say besides: every listener is told."""

    def __init__(self, listeners: Sequence[ServiceListener], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._listeners = listeners
        self._clock = clock
        self._due: dict[str, float] = {}  # what is said seldom → when it may be said again

    def say(self, message: str, level: Level) -> None:
        for listener in self._listeners:
            listener.on_note(message, level)

    def say_seldom(self, what: str, message: str) -> bool:
        """Say what may happen many times a second, but not as often; return True if it is said now."""
        now = self._clock()
        if now < self._due.get(what, 0.0):
            return False
        if len(self._due) >= _REMEMBERED:
            self._due = {said: due for said, due in self._due.items() if due > now}
        self._due[what] = now + SELDOM_SECONDS
        self.say(message, "warning")
        return True
