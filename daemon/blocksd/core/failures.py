"""Keeps the daemon alive: an error ends a part of a round, and what cannot be journaled is tried again later."""

from __future__ import annotations

import logging
import sqlite3
from typing import TYPE_CHECKING

from blocksd.errors import BlocksdError, JournalUnusable, LeaseLost
from blocksd.journal.rescue import HINT
from blocksd.model.problem import JOURNAL, Problem
from blocksd.state.schedule import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.core.listener import ProblemNews
    from blocksd.journal.rescue import Rescue
    from blocksd.model.faults import Faults
    from blocksd.model.problem import Problems
    from blocksd.state.schedule import Schedule

_RETRY_SECONDS = 1.0
_CALM_SECONDS = 2.0  # after which a journal that had nothing to take counts as repaired
_SPACE_HINT = "free some space, or make the state directory writable; it is retried"
_FOLDER_HINT = "see that the folder is there and can be written; it is retried"
_FAULT_HINT = "report the traceback, which is in the log; it is retried"

_log = logging.getLogger(__name__)


class Failures:
    """Failures so far, and until when nothing is taken in for them. Times are of a monotonic clock, in seconds."""

    def __init__(
        self,
        rescue: Rescue,
        problems: Problems,
        faults: Faults,
        news: ProblemNews,
        schedule: Schedule,
        *,
        begin_again: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:
        """`begin_again` forgets what is in memory only, so that it is read again."""
        self._rescue = rescue
        self._problems = problems
        self._faults = faults
        self._news = news
        self._schedule = schedule
        self._forget = begin_again
        self._clock = clock
        self.logged: dict[str, str] = {}  # part → the error of it that was logged last
        self.unexpected: Exception | None = None  # the last error that nobody foresaw
        self.blocked_until = 0.0  # nothing is taken in until then; 0: it is
        self.calm_at = 0.0  # when a journal that failed counts as repaired if nothing is left for it; 0: it is
        self.must_reload = False  # what is in memory is not what the journal has

    def ended_by(self, name: str, error: Exception, *, is_blocking: bool) -> None:
        """A part of a round was ended by this error."""
        if isinstance(error, LeaseLost):
            if is_blocking:
                self._forget()
                self._schedule["sweep"] = self._clock()
            self._log_once(name, error.message)
        elif isinstance(error, BlocksdError):
            if self._rescue.note_error(error):
                hint = str(error.facts.get("hint") or HINT)
                self._block(Problem(JOURNAL, JournalUnusable.code, error.message, hint), is_in_doubt=True)
                self.blocked_until = self._clock()
                self._schedule["retry"] = 0.0
                self._news.tell()  # it may be over before the next time
            elif is_blocking:
                self.block(error)
            self._log_once(name, error.message)
        elif isinstance(error, sqlite3.Error):
            if is_blocking:
                problem = Problem(JOURNAL, JournalUnusable.code, f"the journal fails: {error}", _SPACE_HINT)
                self._block(problem, is_in_doubt=True)
            self._log_once(name, str(error))
        else:  # whatever it is, the daemon goes on; it is logged with its traceback
            self.unexpected = error
            failure = self._faults.count_error(f"to {name}", error)
            if is_blocking:
                self._block(Problem(JOURNAL, failure.code, failure.message, _FAULT_HINT), is_in_doubt=True)

    def block(self, error: BlocksdError) -> None:
        """Nothing can be taken in for now, because of this error."""
        hint = error.facts.get("hint") or (_SPACE_HINT if isinstance(error, JournalUnusable) else _FOLDER_HINT)
        self._block(Problem(JOURNAL, error.code, error.message, str(hint)), is_in_doubt=False)

    def _block(self, problem: Problem, *, is_in_doubt: bool) -> None:
        """Nothing can be journaled for now, so nothing is taken in: begin again from what the journal has.

        `is_in_doubt`: it is not known how far the journal came. Then memory is made anew, as soon as it can be read.
        """
        now = self._clock()
        self.blocked_until = now + _RETRY_SECONDS
        self.calm_at = now + _CALM_SECONDS
        self._schedule["retry"] = self._schedule["sweep"] = self.blocked_until
        self.must_reload = self.must_reload or is_in_doubt
        self._problems.set(problem)
        self._forget()

    def check_repaired(self, *, has_journaled: bool, is_idle: bool) -> None:
        """See whether a journal that failed works again: it took something, or there is nothing left for it."""
        now = self._clock()
        if has_journaled or (now >= self.calm_at and is_idle):
            self.calm_at = 0.0
            self._problems.remove(JOURNAL)
        self._schedule["retry"] = self.calm_at if self.calm_at > now else NEVER

    def _log_once(self, part: str, message: str) -> None:
        """Log an error of a part, unless it is the one that was logged last."""
        if self.logged.get(part) != message:
            self.logged[part] = message
            _log.warning("could not %s: %s; it is retried", part, message)
