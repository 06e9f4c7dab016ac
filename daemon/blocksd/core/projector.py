"""Shows each change in the mirror while it is in sync and the lease is ours, and waits for a Redis that is unreachable."""

from __future__ import annotations

import random
import sqlite3
from typing import TYPE_CHECKING

from blocksd.core.resync import Resync
from blocksd.errors import Damaged, JournalUnusable, LeaseLost, Misconfigured, Unavailable
from blocksd.mirror.aside import agents_commands, changed_problems, gone_commands, reformed_commands, reply_command
from blocksd.mirror.lease import LEASE_SECONDS
from blocksd.mirror.repair import repair_index
from blocksd.model.revision import timestamp
from blocksd.state.part import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blocksd.core.listener import Listener
    from blocksd.core.verifier import Verifier
    from blocksd.errors import BlocksdError
    from blocksd.mirror.mirror import Mirror
    from blocksd.mirror.projection import Command
    from blocksd.model.problem import Problem
    from blocksd.model.revision import Revision
    from blocksd.requests.reply import Answer
    from blocksd.sources.source_mirror import SourceMirror
    from blocksd.sources.sources import Sources
    from blocksd.state.part import Shared

HEARTBEAT_SECONDS = 1.0
_BACK_OFF_SECONDS = (0.05, 1.0)
_CONFIGURATION_SECONDS = 30.0
_LEASE_SECONDS = 2.0
_COMMIT_SECONDS = 3.0
"""How much of a lease must be left for a commit to begin: more than it takes, from its check until all is on disk.

A lease that was asked for at a moment is good for at least LEASE_SECONDS from that moment on, since Redis counts from when
it gets to it. A daemon that goes by the moment of asking therefore stops before another can begin, without asking Redis
again: only a commit that takes over 3 seconds, or two clocks that differ by as much in 10, could overlap with another's.
"""


class Projector(Part):
    """The mirror, seen from the journal. It is in sync, or unreachable, or on its way from one to the other."""

    def __init__(
        self,
        shared: Shared,
        sources: Sources,
        source_mirror: SourceMirror,
        verifier: Verifier,
        mirror: Mirror,
        listeners: Sequence[Listener],
    ) -> None:
        super().__init__(shared)
        self._listeners = listeners
        self._mirror = mirror
        self._sources = sources
        self._source_mirror = source_mirror
        self.verifier = verifier
        self._resync = Resync(shared, mirror, verifier, self._comparing_aside)
        self._asking = _Asking(self._is_noted)
        self._failures = 0
        self._said: str | None = None
        self._retry_at = 0.0
        self._heartbeat_at = 0.0
        self._catch_up_at = 0.0
        self._retaken = 0  # as of the mirror when it was last compared for it
        self._work: Iterator[None] | None = None  # being brought in sync, a slice at a time
        self._shown_agents: frozenset[str] = frozenset()
        self._shown_problems: dict[str, Problem] = {}
        self._shown_count = 0
        self._heard_at = self._clock()
        self._leased_at = float("-inf")  # when the lease was asked for that is ours
        self.is_held = False  # the server is known not to serve yet: it is not asked
        self.is_in_sync = False
        self.last_error: BlocksdError | None = None
        self.unreachable_since: str | None = None

    @property
    def due(self) -> float:
        """When the next step is due."""
        if self._work is not None:
            return 0.0
        if not self.is_in_sync:
            return float("inf") if self.is_held else self._retry_at
        if lag := self._lag:  # then nothing is compared
            return min(self._catch_up_at, self._heartbeat_at) if lag > 0 else self._heartbeat_at
        return 0.0 if self.verifier.running is not None and self.verifier.is_due else self._heartbeat_at

    @property
    def shown_seq(self) -> int | None:
        """Where the mirror was last known to stand; None while it is rebuilt."""
        return self._resync.shown_seq

    @property
    def is_said_to_be_unreachable(self) -> bool:
        """Return True if the listeners know that the mirror cannot be written, and why."""
        return self._said is not None

    @property
    def silent_seconds(self) -> float:
        """For how long Redis has not been heard of."""
        return self._clock() - self._heard_at

    def hold(self, *, is_held: bool) -> None:
        """Ask nothing of a server that is known not to serve yet; once it does, at once."""
        if self.is_held and not is_held:
            self._retry_at = 0.0
        self.is_held = is_held
        self._schedule["mirror"] = self.due

    def confirm(self) -> float:
        """Return until when a commit may begin: the lease, which is renewed if it is old, is ours for as long as that takes.

        So no other daemon does requests. A time that is over says that none may.
        """
        if self.is_in_sync and self._clock() >= self._leased_at + LEASE_SECONDS - _COMMIT_SECONDS:
            with self._asking:
                self._renew()
        return self._leased_at + LEASE_SECONDS - _COMMIT_SECONDS if self.is_in_sync else float("-inf")

    @property
    def is_busy(self) -> bool:
        """Return True if the mirror is being brought in sync or compared right now."""
        return self._work is not None or (self.is_in_sync and self.verifier.is_due)

    @property
    def _has_aside(self) -> bool:
        """Return True if agents, problems or sources changed since they were last shown."""
        return (
            self._state.attachments.listed is not self._shown_agents
            or self._problems.changes != self._shown_count
            or bool(self._state.reformed)
            or (self._sources.is_used and self._source_mirror.is_behind)
        )

    def begin_epoch(self) -> None:
        """The journal has another epoch: what the mirror shows is of none, and is built anew."""
        self._mirror.epoch = self._journal.epoch
        self.is_in_sync, self._work, self._retry_at = False, None, 0.0
        self._schedule["mirror"] = 0.0

    def project(
        self, revisions: Sequence[Revision], answers: Sequence[Answer], gone: set[str], *, are_in_force: bool = True
    ) -> bool:
        """Show what was just journaled, and what has changed in agents, problems and sources; then reply, and remove requests.

        What waits in the inboxes of agents that are `gone` is for nobody. If the mirror is unreachable, it is shown later.
        Return False, with nothing done, if the journal is needed for that, and the revisions are not in force there yet.
        """
        place = self._mirror.place
        is_next = place is not None and bool(revisions) and place.seq == revisions[0].seq - 1
        if not self.is_in_sync or not (are_in_force or (is_next and not self._state.reformed)):
            return are_in_force
        with self._asking:
            left = gone_commands(gone, self._mirror.keys) if gone else []
            if is_next:
                has_more = answers or left or self._has_aside
                self._mirror.project(revisions, [*left, *self._aside_commands(answers)] if has_more else ())
                self._aside_is_shown()
                self._resync.shown_seq = revisions[-1].seq
                return True
            while (self._lag or 0) > 0:
                self._resync.catch_up()
            self._show_aside(answers, left)
        return True

    def step(self, *, more_follows: bool = False) -> None:
        """One slice of bringing the mirror in sync or of comparing it, or a heartbeat, if due.

        `more_follows` tells that revisions are about to be made: what is under way to Redis need not be waited for.
        """
        now = self._clock()
        if self.is_in_sync and self._work is None and now < self._heartbeat_at and more_follows:
            return
        try:
            self._step(now, more_follows=more_follows)
        finally:
            self._schedule["mirror"] = self.due

    def _step(self, now: float, *, more_follows: bool) -> None:
        with self._asking:
            self._mirror.wait()
            if now >= self._heartbeat_at and (self.is_in_sync or self._work is not None):
                self._renew()
                if self.is_in_sync:
                    self._suspect()
                    self.verifier.grant()
            if self._work is None:
                if not self.is_in_sync and now >= self._retry_at and not self.is_held:
                    self._work = self._resynchronizing()
                elif self.is_in_sync and (self._lag or 0) > 0 and now >= self._catch_up_at:
                    self._catch_up_at = now + _BACK_OFF_SECONDS[1]  # should the journal not be readable
                    self._resync.catch_up()
                    self._catch_up_at = 0.0
                elif self.is_in_sync and self._has_aside:  # also while the journal takes nothing, and that is a problem
                    self._show_aside()
            if self._work is not None:
                try:
                    next(self._work, None)
                except BaseException:  # it has ended unfinished: not at once again, and never as if it were done
                    self._work, self._retry_at = None, now + _BACK_OFF_SECONDS[1]
                    raise
                self._heard_at = now
            elif self.verifier.running is not None and self.is_in_sync and not more_follows and self._lag == 0:
                # Else a difference is no damage.
                self.verifier.step()

    @property
    def _lag(self) -> int | None:
        """How many journaled revisions rounds that failed have not shown; below 0: shown, not yet in force; None: unknown."""
        place = self._mirror.place
        return None if place is None else self._journal.seq - place.seq

    def _renew(self) -> None:
        """A heartbeat: renew the lease, and see whether the mirror is where it was left."""
        now = self._clock()
        self._heartbeat_at = now + HEARTBEAT_SECONDS
        if self._mirror.renew_lease():
            self._leased_at = now
        # Bringing the mirror in sync may last longer than a lease does; that the mirror is not in place is no news to it.
        elif self.is_in_sync:
            self.is_in_sync, self._work, self._retry_at = False, None, 0.0
            self.verifier.stop()
        self._heard_at = now

    def _suspect(self) -> None:
        """Have the mirror compared soon if the lease was gone: the server may have been put back to an earlier state.

        What changed since without a revision, such as a problem, is not told by the place the mirror says it has.
        """
        if self._retaken != self._mirror.times_retaken:
            self._retaken = self._mirror.times_retaken
            self._mirror.describe()
            self.verifier.begin()

    def close(self) -> None:
        """Give the lease up, if there is anyone to give it to."""
        if self._mirror.place is not None:
            with self._asking:
                self._mirror.release_lease()
            self.is_in_sync = False

    def _is_noted(self, error: BaseException) -> bool:
        """Take note of what has ended a part in which the server was asked; False: it is others' to say what follows."""
        if isinstance(error, (Unavailable, Misconfigured)):
            self._be_unreachable(error)
        elif isinstance(error, (JournalUnusable, sqlite3.Error)) or not isinstance(error, Exception):
            return False  # the first two are of the journal, which is the core's to say
        else:  # whatever it is, the folder goes on being journaled
            failure = self._faults.count_error("writing the mirror", error)
            self._resync.must_rebuild = True  # without what could not be written, if need be
            self._be_unreachable(Unavailable(f"the mirror could not be written: {failure.message}"))
        return True

    def _be_unreachable(self, error: BlocksdError) -> None:
        """The mirror cannot be written for now: say so once, and try again later."""
        self.is_in_sync = False
        self._work = None
        self.verifier.stop()
        self.last_error = error
        self.unreachable_since = self.unreachable_since or timestamp(self._wall())
        first, longest = _BACK_OFF_SECONDS
        wait = min(first * 2**self._failures, longest)
        if isinstance(error, Misconfigured):
            wait = _CONFIGURATION_SECONDS
        elif isinstance(error, LeaseLost):
            wait = _LEASE_SECONDS if self._failures else first
        elif isinstance(error, Damaged):
            self._resync.must_rebuild = True
        self._failures = min(self._failures + 1, 16)
        self._retry_at = self._clock() + wait * random.uniform(0.5, 1.0)
        if self._said != type(error).__name__ and (self._failures > 1 or not isinstance(error, LeaseLost)):
            self._said = type(error).__name__
            for listener in self._listeners:
                listener.on_mirror_unreachable(error)

    def _resynchronizing(self) -> Iterator[None]:
        self._leased_at = self._clock()
        how = yield from self._resync.run()
        self._work, self._failures = None, 0
        self._said = self.last_error = self.unreachable_since = None
        self.is_in_sync = True
        self._heartbeat_at = self._clock() + HEARTBEAT_SECONDS
        self.verifier.begin()
        self._show_aside()
        for listener in self._listeners:
            listener.on_mirror_in_sync(how)

    def _comparing_aside(self, announce: bool) -> Iterator[object]:  # as `Resync` has it
        """Compare all that is shown of agents, problems and sources. Of sources, what changes meanwhile is shown as what changed."""
        self._shown_agents = self._state.attachments.known
        self._shown_problems = self._problems.copy()
        self._shown_count = self._problems.changes
        problems = {subject: problem.dumps() for subject, problem in self._shown_problems.items()}
        blocks, origins = self._state.blocks(), self._state.origins
        times_of = self._state.agent_times.of
        repair_index(self._mirror, blocks, self._shown_agents, problems, origins=origins, times_of=times_of)
        self._sources.shown()
        yield from self._source_mirror.compare(timestamp(self._wall()), announce=announce)

    def _show_aside(self, answers: Sequence[Answer] = (), left: Sequence[Command] = ()) -> None:
        self._mirror.write([*left, *self._aside_commands(answers)])
        self._aside_is_shown()

    def _aside_commands(self, answers: Sequence[Answer]) -> list[Command]:
        """Known agents, problems and sources, as far as they changed since they were last shown; then replies."""
        keys, epoch = self._mirror.keys, self._mirror.epoch
        newest = [self._state.newest(label) for label in sorted(self._state.reformed) if label in self._state.paths]
        commands = reformed_commands(newest, timestamp(self._wall()), keys, epoch) if newest else []
        if self._state.attachments.listed is not self._shown_agents:
            known, shown = self._state.attachments.known, self._shown_agents
            commands += agents_commands(self._state.agent_times.of(known - shown), shown - known, keys)
        if self._shown_count != self._problems.changes:
            at = timestamp(self._wall())
            commands += changed_problems(self._shown_problems, self._problems, at, keys, epoch)
        if self._sources.is_used and self._source_mirror.is_behind:
            at = timestamp(self._wall())
            self._source_mirror.show_listed(at)
            commands += self._source_mirror.changes(at)
        return commands + [reply_command(one.entry.actor, one.entry.id, one.id, one.reply, keys) for one in answers]

    def _aside_is_shown(self) -> None:
        self._state.reformed.clear()
        if self._shown_count != self._problems.changes:
            self._shown_count = self._problems.changes
            self._shown_problems = self._problems.copy()
        if self._sources.is_used and self._source_mirror.is_behind:
            self._sources.shown()
        if self._state.attachments.listed is not self._shown_agents:
            self._shown_agents = self._state.attachments.known


class _Asking:
    """The context in which the server is asked. A class, because each change enters it, and a generator would cost more."""

    __slots__ = ("_is_noted",)

    def __init__(self, is_noted: Callable[[BaseException], bool]) -> None:
        self._is_noted = is_noted

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> bool:
        return error is not None and self._is_noted(error)
