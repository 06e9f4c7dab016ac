"""Runs the parts of the service's loop, each of which may fail without ending the daemon."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blocksd.faults import Faults

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
        self.failures = 0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """`part` says what is done within, after "to"."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever it is, the daemon goes on; it is logged with its traceback
            self._since.setdefault(part, self._clock())
            self.note(f"to {part}", error)
        else:
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
