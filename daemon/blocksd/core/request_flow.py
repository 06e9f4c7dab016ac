"""Takes the requests of a round, and follows them until they are replied to, postponed or read again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.core.decide import Asked
from blocksd.model.revision import OPERATOR, timestamp
from blocksd.requests.answers import PAUSE_SECONDS, Answers, RequestView
from blocksd.state.part import Part
from blocksd.state.schedule import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from blocksd.core.decide import Draft
    from blocksd.core.executor import Conflict
    from blocksd.core.intake import Intake
    from blocksd.errors import BlocksdError
    from blocksd.journal.results import Results
    from blocksd.requests.inbox import Handled, Inbox, StartedRequests
    from blocksd.requests.request import Entry, Unusable
    from blocksd.sources.sources import Sources
    from blocksd.state.part import Shared
    from blocksd.state.schedule import Work

REQUESTS = 64
"""How many requests are carried out in one round: each may have to read a file."""

OUTCOMES_KEPT_SECONDS = 86_400.0
"""For how long a request that is sent again gets the first outcome, at least; the newest of each actor do for longer."""

_AT_ONCE = (0.0, 0.0)


class RequestFlow(Part):
    """Requests and merges on their way: taken, and then done, postponed, or forgotten to be read again."""

    def __init__(
        self,
        shared: Shared,
        inbox: Inbox,
        results: Results,
        handled: Handled,
        started: StartedRequests,
        intake: Intake,
        sources: Sources,
    ) -> None:
        super().__init__(shared)
        self._inbox = inbox
        self._results = results
        self._handled = handled
        self._started = started
        self._intake = intake
        self._sources = sources
        self._unwritable: dict[str, BlocksdError] = {}  # files that could not be written to in the last rounds, and why
        # Label → when a merge is tried again, and after how long then.
        self._merge_at: dict[str, tuple[float, float]] = {}
        self._waiting: dict[Entry, float] = {}  # requests that wait for an open file: since when
        self.status: Callable[[], Mapping[str, Any]] = dict  # what the service says of the daemon
        self.dropped: list[Unusable] = []  # entries that could not be replied to, for a log
        self.set_merges_due()

    def collect(self, due: Collection[Work]) -> Asked:
        """Take the requests to carry out now, noted as begun, and the stale saves to merge."""
        now = self._clock()
        merges = frozenset(label for label in self._state.unmerged if self._merge_at.get(label, _AT_ONCE)[0] <= now)
        # News of a file may be what a request waits for.
        is_due = self._schedule["requests"] < NEVER and ("requests" in due or "files" in due)
        if not merges and not is_due:
            return Asked()
        entries, later = self._inbox.begin(REQUESTS, self._started)
        return Asked(entries, later, merges, self._unwritable, self.view())

    def view(self) -> RequestView:
        """Return all that may be read while requests are decided."""
        deletions = self._intake.deletions
        return RequestView(
            self._results,
            self._handled,
            self._started,
            self._sources,
            self._problems,
            self._faults,
            self._waiting,
            deletions.refusal,
            deletions.is_in_doubt,
            lambda: deletions.held_back,
            self.status,
            self._clock(),
            self._wall(),
        )

    def follow(self, draft: Draft) -> None:
        """Take note of what follows from requests, once they are done."""
        answers, now = draft.answers, self._clock()
        self._unwritable = {}
        if answers.accepts_deletions:
            self._intake.deletions.accept()
        for label in answers.merged:
            self._state.unmerged.discard(label)
            self._merge_at.pop(label, None)
        for label, (shortest, longest) in answers.unmerged.items():
            _, wait = self._merge_at.get(label, _AT_ONCE)
            wait = min(max(2 * wait, shortest), longest)
            self._merge_at[label] = now + wait, wait
        for subject, problem in answers.problems.items():
            if problem is not None:
                self._problems.set(problem)
            else:
                self._problems.remove(subject)
        for path in answers.reread:
            self._intake.reread(path)
        if answers.waiting or self._waiting:
            decided = {answer.entry for answer in answers.answers}
            waiting = self._waiting | answers.waiting
            self._waiting = {entry: since for entry, since in waiting.items() if entry not in decided}
        self.dropped += answers.dropped
        if answers.postponed:
            self._inbox.postpone(answers.postponed, 0.0 if answers.cut else self._try_again_at(), cut=answers.cut)

    def throw_away(self, draft: Draft, conflict: Conflict) -> None:
        """Have all requests of a draft decided anew, since refusals may have been for the sake of those that were not done."""
        draft.answers = Answers()
        until = 0.0
        if conflict.why is not None:
            self._unwritable = {**self._unwritable, conflict.path: conflict.why}
        else:
            self._intake.hint_file(conflict.path, closed=False)
            until = self._try_again_at()
        entries = [*draft.asked.entries, *draft.asked.later]
        if entries:
            self._inbox.postpone(entries, until)

    def set_merges_due(self) -> None:
        """Note when the next stale save is to be merged."""
        at = [self._merge_at.get(label, _AT_ONCE)[0] for label in self._state.unmerged]
        self._schedule["merges"] = min(at, default=NEVER)

    def _try_again_at(self) -> float:
        """When postponed requests are tried again: soon if others wait, else when there may be news of a file."""
        now = self._clock()
        shortest, longest = PAUSE_SECONDS
        return now + shortest if self._inbox.is_waiting else min(max(now + shortest, self._intake.due), now + longest)

    def end(self) -> None:
        """Note that the requests taken are over, none of which was replied to: they are taken again."""
        self._inbox.end(self._started)

    def begin_again(self) -> None:
        """Forget all requests, and why files could not be written to for them: they are read again."""
        self.end()
        self._handled.end_before(self._inbox.entries)
        self._inbox.forget_all()
        self._unwritable = {}

    def forget_results(self, *, is_steady: bool) -> None:
        """Forget outcomes that are a day old, if it is known what time it is (`is_steady`); never before marks tell of them."""
        is_told = self._handled.write(self._state.attachments.known | {OPERATOR}, self._inbox.entries)
        if is_told and is_steady:
            self._results.forget_old(timestamp(self._wall() - OUTCOMES_KEPT_SECONDS))
