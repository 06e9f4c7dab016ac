"""Unexpected exceptions: each ends one request or one file, is logged once, and is counted."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import InternalError
from blocksd.model.problem import INTERNAL, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.model.problem import Problems

_KINDS = 100  # that are told apart: further ones are counted, and not told
_CHARS = 200  # of an exception's text, which may quote what a block says


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of failure: `during` which work, at which place of the program; `text` has the traceback."""

    during: str
    error: str
    place: str
    text: str


class Failed(NamedTuple):
    """An exception in another thread, for the thread that counts them."""

    during: str
    error: BaseException


class Faults:
    """Counts failures, and shows their number among the problems until the daemon ends."""

    def __init__(
        self, problems: Problems, tell: Callable[[Fault, bool], object] = lambda _fault, _is_new: None
    ) -> None:
        """`tell` is called with each failure, and True if its kind is new: then it is worth a traceback in a log."""
        self._problems = problems
        self._tell = tell
        self._kinds: set[tuple[str, str, str]] = set()
        self.count = 0

    def count_error(self, during: str, error: BaseException) -> InternalError:
        """Count an exception; return the error for the client that waits for the work that failed."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}" if frames else "?"
        text = "".join(traceback.format_list(frames)) + f"{type(error).__name__}: {str(error)[:_CHARS]}"
        traceback.clear_frames(error.__traceback__)  # they hold the values of the work, and memory may be short
        return self.count_fault(Fault(during, type(error).__name__, place, text))

    def count_fault(self, fault: Fault) -> InternalError:
        """Count a failure, which need not be an exception; return the error for the client."""
        self.count += 1
        kind = fault.during, fault.error, fault.place
        is_new = kind not in self._kinds and len(self._kinds) < _KINDS
        if is_new:
            self._kinds.add(kind)
        self._tell(fault, is_new)
        if is_new or self.count & (self.count - 1) == 0:  # at each doubling: a flood of failures is none of messages
            self._show(fault)
        return InternalError(
            f"the daemon failed {fault.during}, by a fault in its program ({fault.error}): nothing was done; see its log",
            error=fault.error,
        )

    def _show(self, fault: Fault) -> None:
        times = "once" if self.count == 1 else f"{self.count} times or more"
        self._problems.set(
            Problem(
                INTERNAL,
                InternalError.code,
                f"the daemon failed {times} since it started, last {fault.during}: {fault.error} at {fault.place}",
                "nothing else was harmed; see the log for the traceback, and report it",
                warning=True,
            )
        )
