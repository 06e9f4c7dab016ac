"""Takes the steps of a watch one by one, and logs when it is interrupted and when it goes on."""

import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from blocksd.errors import BlocksdError, Misconfigured, Unavailable
from blocksd.protocol.reset import Item, Reset
from blocksd.protocol.steps import Emit, Live, Step
from blocksd.protocol.watching import Watching
from blocksd.settings.record import FoundUrl

_log = logging.getLogger("blocksd.client.watch")


class Driver:
    """The steps of one watch. After a step was performed, `answer` is set, or `fail` called; then comes the next."""

    def __init__(self, watching: Watching, reads: Callable[[Sequence[str]], Any], *, asynchronous: bool) -> None:
        """`reads` gives the blocks with these labels; if `asynchronous`, to await."""
        self._watching = watching
        self._reads = reads
        self._is_asynchronous = asynchronous
        self._process = os.getpid()
        self._steps = watching.steps()
        self._error: BlocksdError | None = None
        self._is_reported = False  # that it is interrupted
        self.answer: Any = None
        self.level: int | None = None
        """How an interruption is logged; None: not at all, since the caller iterates and gets the error."""

    @property
    def place(self) -> tuple[str | None, int | None]:
        """The epoch, and the seq up to which everything was passed on."""
        return self._watching.place

    def next_step(self) -> Step:
        """Return the next step to perform; an Emit and a Live need nothing."""
        step = self._steps.send(self.answer) if self._error is None else self._steps.throw(self._error)
        self.answer, self._error = None, None
        if isinstance(step, Live):
            self._report_live()
        elif isinstance(step, Emit) and isinstance(step.item, Reset):
            step.item.read_by(self._reads, asynchronous=self._is_asynchronous)
        return step

    def end(self) -> None:
        """End the steps: nothing is heard any more."""
        self._steps.close()
        self._watching.life = None

    def restart(self) -> None:
        """Go on after the last item, with a new connection: the steps ended by an error."""
        self._steps = self._watching.steps()
        self.answer, self._error = None, None

    @property
    def is_in_its_process(self) -> bool:
        """Return True if this is the process that the watch was begun in."""
        return self._process == os.getpid()

    def fail(self, error: BlocksdError, url: str) -> None:
        """Have the steps told of an error, which is logged once for each interruption."""
        if isinstance(error, Misconfigured) and isinstance(url, FoundUrl):
            # The server has a new password already, and the state directory will have it in a moment.
            error = Unavailable(error.message, **error.facts)
        self._error = error
        self.report(error)

    def report(self, error: Exception) -> None:
        """Log an interruption, once."""
        if self.level is not None and not self._is_reported:
            self._is_reported = True
            trace = None if isinstance(error, BlocksdError) else error
            _log.log(self.level, "a watch is interrupted: %s; it connects again", error, exc_info=trace)

    def _report_live(self) -> None:
        if self.level is not None and self._is_reported:
            self._is_reported = False
            _log.log(min(self.level, logging.INFO), "a watch that was interrupted goes on")


def report_callback(item: Item, error: Exception) -> None:
    """Log an error that a callback has raised."""
    _log.error("the callback of a watch failed on %r; it gets the next item", item, exc_info=error)
