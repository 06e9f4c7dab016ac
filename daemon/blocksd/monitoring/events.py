"""Events of a running service, and the listeners that receive them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from blocksd.core.listener import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from blocksd.model.problem import Tally
    from blocksd.monitoring.status import Status
    from blocksd.settings.config import Reload

Level = Literal["error", "warning", "info", "debug"]

RARE_SECONDS = 60.0
"""The least time between two notices on the same topic by `post_rarely`."""

_TOPICS_KEPT = 1000


@dataclass(frozen=True, slots=True)
class Started:
    """The daemon has started. `redis` is the server's URL without a password."""

    folder: str
    redis: str
    namespace: str
    state: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The daemon has read the folder: how many blocks, agents, problems and warnings there are, and the newest seq."""

    blocks: int
    agents: int
    tally: Tally
    seq: int
    is_in_sync: bool


class ServiceListener(Listener):
    """Receives events of the service, besides those of the core. Every method is a no-op by default."""

    is_timing = False
    """True if the listener wants `on_stage`."""

    def on_start(self, started: Started) -> None: ...
    def on_progress(self, done: int, left: int) -> None: ...
    def on_ready(self, ready: Ready) -> None: ...
    def on_reload(self, reload: Reload) -> None: ...
    def on_status(self, status: Status) -> None:
        """Receive the status, once a second."""

    def on_stage(self, stage: str, seconds: float) -> None:
        """Receive how long a stage of a round took."""

    def on_notice(self, message: str, level: Level) -> None: ...
    def on_stop(self) -> None: ...


class Notices:
    """Passes messages for the log to every listener."""

    def __init__(self, listeners: Sequence[ServiceListener], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._listeners = listeners
        self._clock = clock
        self._allowed_at: dict[str, float] = {}  # topic → when it may be posted again

    def post(self, message: str, level: Level) -> None:
        for listener in self._listeners:
            listener.on_notice(message, level)

    def post_rarely(self, topic: str, message: str) -> bool:
        """Post a warning, unless one on the topic was posted within `RARE_SECONDS`. Return True if it is posted."""
        now = self._clock()
        if now < self._allowed_at.get(topic, 0.0):
            return False
        if len(self._allowed_at) >= _TOPICS_KEPT:
            self._allowed_at = {other: at for other, at in self._allowed_at.items() if at > now}
        self._allowed_at[topic] = now + RARE_SECONDS
        self.post(message, "warning")
        return True


def time_stages(
    effects: Iterable[str], report: Callable[[str, float], object], *, clock: Callable[[], float] = time.perf_counter
) -> None:
    """Run a round, and report each stage with its seconds: from its effect to the next effect.

    The time before the first effect is called `look`.
    """
    stage, began = "look", clock()
    for effect in effects:
        now = clock()
        if stage != "look" or effect != "mirror":  # an idle round would hide how long a look takes that finds a file
            report(stage, now - began)
        stage, began = effect, now
    report(stage, clock() - began)
