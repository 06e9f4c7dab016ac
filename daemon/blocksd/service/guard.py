"""Runs the parts of the service's loop, each of which may fail without ending the daemon."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.model.faults import Faults

LASTING_SECONDS = 10.0
"""For how long a part may do nothing but fail: then the daemon does not count as well, and its watchdog starts it again."""

_log = logging.getLogger(__name__)


class Guard:
    """Ends a part of the loop by its error, and nothing else; the error is counted, and logged once per kind.

    A part that fails again and again, and never once succeeds, is told by `failing`. So a loop that goes round and does
    nothing is not taken for one that works.
    """

    def __init__(self, faults: Faults, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._faults = faults
        self._clock = clock
        self._since: dict[str, float] = {}  # parts that have done nothing but fail since then
        self._parts: dict[str, _Part] = {}
        self.failures = 0

    def __call__(self, part: str) -> _Part:
        """`part` says what is done within, after "to"."""
        found = self._parts.get(part)
        if found is None:
            found = self._parts[part] = _Part(self, part)
        return found

    def failed(self, part: str, error: Exception) -> None:
        """A part was ended by this error: whatever it is, the daemon goes on; it is logged with its traceback."""
        self._since.setdefault(part, self._clock())
        self.note(f"to {part}", error)

    def succeeded(self, part: str) -> None:
        """A part came to its end."""
        if self._since:
            self._since.pop(part, None)

    def note(self, during: str, error: BaseException) -> None:
        """Count an error that has ended something; one while that is logged ends nothing, either."""
        self.failures += 1
        try:
            self._faults.note(during, error)
        except Exception:  # noqa: BLE001  # a listener that fails, say: it is told of failures, too
            _log.exception("could not tell of a failure %s", during)

    @property
    def failing(self) -> tuple[str, ...]:
        """The parts that have done nothing but fail for long."""
        if not self._since:
            return ()
        now = self._clock()
        return tuple(sorted(part for part, since in self._since.items() if now - since >= LASTING_SECONDS))


class _Part:
    """A context in which one part of the loop is done. Several are entered in every turn, so it is no generator."""

    __slots__ = ("_guard", "_part")

    def __init__(self, guard: Guard, part: str) -> None:
        self._guard = guard
        self._part = part

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        if error is None:
            self._guard.succeeded(self._part)
        elif isinstance(error, Exception):
            self._guard.failed(self._part, error)
        return isinstance(error, Exception)
