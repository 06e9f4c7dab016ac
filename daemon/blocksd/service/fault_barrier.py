"""Keeps an error in one part of the main loop from ending the others."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.model.faults import Faults

LASTING_SECONDS = 10.0
"""How long a part may fail each time before the daemon counts as unhealthy, so that systemd restarts it."""

_log = logging.getLogger(__name__)


class FaultBarrier:
    """Runs parts of the main loop: an error ends its part alone, is counted, and is logged once per kind.

    `failing` names the parts that have failed each time for long, so that a loop that turns and achieves nothing does not
    count as healthy.
    """

    def __init__(self, faults: Faults, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._faults = faults
        self._clock = clock
        self._failing_since: dict[str, float] = {}
        self._parts: dict[str, _Part] = {}
        self.failures = 0

    def __call__(self, part: str) -> _Part:
        """Return a context for a part; `part` completes the sentence "failed to …"."""
        found = self._parts.get(part)
        if found is None:
            found = self._parts[part] = _Part(self, part)
        return found

    def fail(self, part: str, error: Exception) -> None:
        self._failing_since.setdefault(part, self._clock())
        self.record(f"to {part}", error)

    def succeed(self, part: str) -> None:
        if self._failing_since:
            self._failing_since.pop(part, None)

    def record(self, during: str, error: BaseException) -> None:
        """Count and log an error. An error of a listener that logs it is caught, too."""
        self.failures += 1
        try:
            self._faults.count_error(during, error)
        except Exception:  # noqa: BLE001  # a listener failed, and is a part as any other
            _log.exception("could not report a failure %s", during)

    @property
    def failing(self) -> tuple[str, ...]:
        """The parts that have failed each time for `LASTING_SECONDS`."""
        now = self._clock()
        return tuple(sorted(part for part, since in self._failing_since.items() if now - since >= LASTING_SECONDS))


class _Part:
    """The context of one part. A class, because a generator would cost more, several times a turn."""

    __slots__ = ("_barrier", "_name")

    def __init__(self, barrier: FaultBarrier, name: str) -> None:
        self._barrier = barrier
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        if error is None:
            self._barrier.succeed(self._name)
        elif isinstance(error, Exception):
            self._barrier.fail(self._name, error)
        return isinstance(error, Exception)
