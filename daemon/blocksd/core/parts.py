"""Makes what a core consists of, from what the journal holds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocksd.core.decide import FolderView
from blocksd.core.executor import Executor
from blocksd.core.failures import Failures
from blocksd.core.intake import Intake
from blocksd.core.listener import ProblemNews, RevertWarnings
from blocksd.core.projector import Projector
from blocksd.core.recovery import recover
from blocksd.core.request_flow import RequestFlow
from blocksd.core.retention import Limits, Retention
from blocksd.core.scrub import Scrub
from blocksd.core.verifier import Verifier
from blocksd.errors import BlocksdError, JournalDamaged, JournalUnusable, ProblemFile, Unavailable
from blocksd.files.writer import Writer
from blocksd.journal.intents import Intents
from blocksd.journal.rescue import Rescue
from blocksd.journal.results import Results
from blocksd.model.faults import Faults
from blocksd.model.problem import Problems
from blocksd.requests.inbox import Handled, Inbox, StartedRequests
from blocksd.sources.source_mirror import SourceMirror
from blocksd.sources.sources import Sources
from blocksd.state.part import Shared
from blocksd.state.schedule import Schedule
from blocksd.state.stale import is_within
from blocksd.state.state import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blocksd.core.listener import Listener
    from blocksd.files.folder import Folder
    from blocksd.journal.journal import Journal
    from blocksd.mirror.mirror import Mirror
    from blocksd.model.faults import Fault
    from blocksd.model.revision import Revision
    from blocksd.requests.reply import Answer
    from blocksd.settings.config import Config


class Parts:
    """All that works together in a core, each part with those that it needs.

    Raises JournalDamaged only when a journal that was put together again is damaged, too.
    """

    def __init__(
        self,
        folder: Folder,
        journal: Journal,
        mirror: Mirror,
        listeners: Sequence[Listener],
        config: Config,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._journal = journal
        self._listeners = listeners
        self._config = config
        self._clock = clock
        self._wall = wall
        self.rescue = Rescue(journal, clock=clock)
        self.schedule = Schedule()
        for work in ("sweep", "roots", "mirror", "kept"):  # the first round does all of them
            self.schedule[work] = 0.0
        self.problems = Problems(wall)
        self.faults = Faults(self.problems, self._tell_fault)
        self._news = ProblemNews(self.problems, listeners)
        self._reverts = RevertWarnings(self.problems, clock)
        self.failures = Failures(
            self.rescue,
            self.problems,
            self.faults,
            self._news,
            self.schedule,
            begin_again=self._begin_again,
            clock=clock,
        )
        self._made: list[Revision] = []  # which listeners have not been told of
        self._sent: list[tuple[Answer, float]] = []  # replies, and when what they reply to was received
        self._doubt_since: float | None = None  # since when it cannot be told what was done to files
        try:
            self._make_parts(folder, mirror)
        except JournalDamaged as error:
            self.rescue.note_error(error)
            self.rescue.repair_if_needed()
            mirror.epoch = journal.epoch
            self._make_parts(folder, mirror)

    def _make_parts(self, folder: Folder, mirror: Mirror) -> None:
        """Make what the core consists of, from what the journal holds."""
        journal, config, schedule, clock, wall = self._journal, self._config, self.schedule, self._clock, self._wall
        writer = Writer(folder.directory, is_durable=config.durability == "disk")
        intents = Intents(journal)
        blocked: BlocksdError | None = None
        try:
            recover(intents, writer, is_patient=True)
        except JournalDamaged:
            raise
        except (JournalUnusable, Unavailable, ProblemFile) as error:  # it may pass: the first rounds try it again
            blocked = error
        self._intents = intents
        self._writer = writer
        results = Results(journal.database)
        self.state = State(journal, clock=clock, wall=wall)
        self._started = StartedRequests(f"{journal.path}-begun")
        shared = Shared(journal, self.state, self.problems, self.faults, schedule, clock, wall)
        self.intake = Intake(shared, folder, delete_grace=config.delete_grace)
        self._folder_view = FolderView(self.state, folder, self.intake, self._is_recent)
        self.sources = Sources(config.sources, self.state, self.problems, results.open_files(), schedule, clock=clock)
        self.inbox = Inbox(clock, schedule)
        self._handled = Handled(journal.database, wall=wall)
        self.requests = RequestFlow(
            shared, self.inbox, results, self._handled, self._started, self.intake, self.sources
        )
        source_mirror = SourceMirror(self.sources, mirror)
        verifier = Verifier(shared, self.sources, source_mirror, mirror, self._listeners, seconds=config.resync_seconds)
        self.projector = Projector(shared, self.sources, source_mirror, verifier, mirror, self._listeners)
        self.executor = Executor(shared, intents, results, self.intake, self.sources, writer)
        self.retention = Retention(shared, limits_of(config))
        self.scrub = Scrub(shared, folder, self.intake)
        if blocked is not None:
            self.failures.block(blocked)

    def reconfigure(self, config: Config) -> None:
        """Take over what can change at run time; everything is compared soon."""
        self._config = config
        self._writer.is_durable = config.durability == "disk"
        self.intake.deletions.grace = config.delete_grace
        self.retention.limits = limits_of(config)
        self.sources.reconfigure(config.sources)
        self.projector.verifier.seconds = config.resync_seconds
        self.projector.verifier.begin()
        self.intake.hint_all()
        self.schedule["sweep"] = 0.0

    def _is_recent(self, revision: Revision, saved_at: float, share: float) -> bool:
        """Return True if a revision was written so short before a file was saved that its text may be the older one."""
        window = self._config.stale_window * share
        return is_within(window, revision, saved_at, self.state, self._wall(), is_first=not self.intake.has_caught_up)

    def _begin_again(self) -> None:
        """Forget what is in memory only: it is read again."""
        self.requests.begin_again()
        self.intake.reset()

    def _tell_fault(self, fault: Fault, is_new: bool) -> None:  # as the listener has it
        for listener in self._listeners:
            listener.on_fault(fault, is_new)


def limits_of(config: Config) -> Limits:
    return Limits(config.history_versions, config.history_days, config.departed_days)
