"""Forgets what is old in the journal: versions, deleted blocks, outcomes of requests, unused lists of agents."""

from __future__ import annotations

import sqlite3
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from blocksd.journal.pruning import compress, forget_deleted, forget_versions
from blocksd.model.label import owner
from blocksd.model.revision import OPERATOR, timestamp
from blocksd.state.part import Part

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.state.part import Shared

_DAY_SECONDS = 86_400.0
_PASS_SECONDS = 3600.0  # from one look at everything to the next
_SLICE_SECONDS = 0.25  # from one slice to the next
_TOUCHED = 100  # labels of a slice
_LABELS = 500
_LISTS = 500  # revisions whose lists a slice notes
_GONE_DAYS = 2  # for so long the outcomes of agents that are not known are kept
_DAMAGED_DAYS = 30  # for so long it is said that versions were damaged
_STEADY_SECONDS = 3600.0  # for how long the time of day must have gone on as it should before it decides
_SWERVE_SECONDS = 5.0


class Limits(NamedTuple):
    """How much history is kept: so many versions of a block, and for how many days; 0 days: for good.

    What agents had that are gone is kept for `departed_days`, if that is shorter.
    """

    versions: int
    days: float
    departed_days: float = 0.0


class Retention(Part):
    """Forgets what is old, a slice at a time: no transaction of it is long.

    Ages of history are by the time of day, once that has gone on steadily for an hour: a clock that is wrong for a
    moment, or has just been set, forgets nothing.

    On a full disk, and where the journal cannot be written, nothing is forgotten: there is another time.
    """

    def __init__(self, shared: Shared, limits: Limits) -> None:
        super().__init__(shared)
        self.limits = limits
        self.touched: set[str] = set()  # blocks with a new version: their old ones are looked at soon
        self._steps: Iterator[None] | None = None
        self._schedule["retention"] = self._pass_at = self._clock() + _SLICE_SECONDS
        self._seen_at: tuple[float, float] | None = None  # the last time, by the clock and by the time of day
        self._steady_since = self._clock()

    def restart(self) -> None:
        """The journal is another one: what was found in it is void."""
        self._steps = None

    def step(self, pause: float) -> None:
        """Forget one slice of what is old; when there is no more, pause for so many seconds."""
        now = self._clock()
        self._watch_clock(now)
        try:
            with self._journal.database.reading:
                if self._steps is None:
                    self._steps = self._pass(now)
                is_over = next(self._steps, _OVER) is _OVER
        except _Refused:
            self._steps, is_over = None, True
        if is_over:
            self._steps = None
        self._schedule["retention"] = now + (max(pause, _SLICE_SECONDS) if is_over else _SLICE_SECONDS)

    def _watch_clock(self, now: float) -> None:
        """See whether the time of day goes on as time does."""
        wall = self._wall()
        if self._seen_at is not None:
            then, wall_then = self._seen_at
            if abs((wall - wall_then) - (now - then)) > _SWERVE_SECONDS:
                self._steady_since = now
        self._seen_at = (now, wall)

    @property
    def is_steady(self) -> bool:
        """Return True if the time of day has gone on as it should for long enough to decide by it."""
        return self._clock() - self._steady_since >= _STEADY_SECONDS

    @property
    def before(self) -> str | None:
        """From before when history is forgotten; None: from no time on, or it is not known what time it is."""
        return self._days_ago(self.limits.days)

    @property
    def before_departed(self) -> str | None:
        """The same, of what agents had that are gone."""
        ages = (self.before, self._days_ago(self.limits.departed_days))
        return max((at for at in ages if at is not None), default=None)

    def _days_ago(self, days: float) -> str | None:
        return timestamp(self._wall() - days * _DAY_SECONDS) if days and self.is_steady else None

    def _pass(self, now: float) -> Iterator[None]:
        yield from self._prune_touched()
        if now < self._pass_at:
            return
        self._pass_at = now + _PASS_SECONDS
        yield from self._prune_all()
        self._forget_asides()
        yield from self._forget_outcomes_of_gone()
        yield from self._forget_lists()

    # --- history ---

    def _prune_touched(self) -> Iterator[None]:
        while self.touched:
            labels = list(islice(self.touched, _TOUCHED))
            with self._writing():
                forget_versions(self._journal, labels, versions=self.limits.versions, before=self.before)
                compress(self._journal, labels)
            self.touched.difference_update(labels)
            yield

    def _prune_all(self) -> Iterator[None]:
        """Look at every label, beginning where the last run came to."""
        begun = label = str(self._meta("pruned_to") or "")
        has_turned = not begun
        while True:
            rows = self._journal.database.execute(
                "SELECT label, path FROM heads WHERE label > ? ORDER BY label LIMIT ?", (label, _LABELS)
            ).fetchall()
            before, before_departed = self.before, self.before_departed
            with self._writing():
                forget_versions(self._journal, (one for one, _ in rows), versions=self.limits.versions, before=before)
                for one, path in rows:
                    if path is None:
                        self._forget_deleted(one, before_departed if self._is_departed(owner(one)) else before)
                label = rows[-1][0] if len(rows) == _LABELS else ""
                self._set_meta("pruned_to", label)
            yield
            if not label and has_turned:
                return
            has_turned = has_turned or not label
            if has_turned and begun and label >= begun:
                return

    def _forget_deleted(self, label: str, before: str | None) -> None:
        """Forget a label that no block has, once its last revision is too old. A block of that label begins anew."""
        if before is not None and label not in self._state.paths and forget_deleted(self._journal, label, before):
            self._state.forget(label)

    def _is_departed(self, agent: str | None) -> bool:
        return agent is not None and not self._state.attachments.is_known(agent)

    def _forget_asides(self) -> None:
        """Forget open files of agents that are not known, once they are too old, and damaged versions after a month."""
        if self.is_steady:
            found_before = timestamp(self._wall() - _DAMAGED_DAYS * _DAY_SECONDS)
            with self._writing():
                self._journal.database.execute(
                    "DELETE FROM damaged WHERE at < ? AND seq < ?", (found_before, self._journal.seq)
                )
        before = self.before_departed
        if before is None:
            return
        known = self._state.attachments.known
        execute = self._journal.database.execute
        with self._writing():
            gone = [
                agent
                for (agent,) in execute(
                    "SELECT agent FROM open_files GROUP BY agent HAVING max(last_accessed_at) < ?", (before,)
                )
                if agent not in known
            ]
            for agent in gone:
                execute("DELETE FROM open_files WHERE agent = ?", (agent,))

    def _forget_outcomes_of_gone(self) -> Iterator[None]:
        """Forget what came of the requests of agents that are not known any more, once it is some days old."""
        execute = self._journal.database.execute
        actor = ""
        while self.is_steady:
            before = timestamp(self._wall() - _GONE_DAYS * _DAY_SECONDS)
            known = self._state.attachments.known
            with self._writing():
                for _ in range(_TOUCHED):
                    (found,) = execute("SELECT min(actor) FROM requests WHERE actor > ?", (actor,)).fetchone()
                    if found is None:
                        return
                    actor = found
                    if actor != OPERATOR and actor not in known:
                        execute("DELETE FROM requests WHERE actor = ? AND at < ?", (actor, before))
            yield

    # --- lists of agents ---

    def _forget_lists(self) -> Iterator[None]:
        """Forget the lists of agents that no revision has any more.

        The numbers that revisions have are noted on the way through all of them. Those that are written meanwhile come at
        the end: with the last slice it is known, in one transaction, which numbers are in use.
        """
        execute = self._journal.database.execute
        used: set[int] = set()
        seq = -1
        while True:
            rows = execute(
                "SELECT seq, entries, agents FROM revisions WHERE seq > ? ORDER BY seq LIMIT ?", (seq, _LISTS)
            ).fetchall()
            for seq, entries, agents in rows:  # noqa: B007  # the last is where the next slice begins
                used.update((entries, agents))
            if len(rows) < _LISTS:
                break
            yield
        for entries, agents in execute("SELECT entries, agents FROM heads"):
            used.update((entries, agents))
        bases: dict[int, int | None] = dict(execute("SELECT id, base FROM agent_lists"))
        for number in list(used):
            base = bases.get(number)
            while base is not None and base not in used:
                used.add(base)
                base = bases.get(base)
        unused = [(number,) for number in bases if number not in used]
        if unused:
            with self._writing():
                self._journal.database.executemany("DELETE FROM agent_lists WHERE id = ?", unused)
            self._journal.lists.forget_all()
            self._journal.numbers.forget_all()

    # --- ---

    def _meta(self, key: str) -> object:
        row = self._journal.database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def _set_meta(self, key: str, value: object) -> None:
        self._journal.database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """A transaction; where the journal is sound and cannot be written, no more than this is given up."""
        self._journal.check_in_place()
        try:
            with self._journal.database.transaction:
                yield
        except sqlite3.OperationalError:
            raise _Refused from None


class _Refused(Exception):  # never leaves this module
    pass


_OVER = object()
