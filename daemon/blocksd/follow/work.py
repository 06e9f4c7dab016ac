"""The work of a follower, a part at a time: after a crash, sweeps, comparisons, and the changes that were heard."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from blocksd.errors import StateUnusable, Unavailable, Undecided
from blocksd.follow.mirrored import PAGE, texts
from blocksd.follow.resync import Resync
from blocksd.model.label import properties_label
from blocksd.model.problem import FOLDER, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blocksd.errors import BlocksdError
    from blocksd.follow.comparison import Outcome
    from blocksd.follow.leader import Begun
    from blocksd.follow.local_edits import LocalEdits
    from blocksd.follow.mirrored import Mirrored
    from blocksd.follow.opening import Copy
    from blocksd.follow.outgoing import Outgoing
    from blocksd.follow.report import Report
    from blocksd.follow.sender import Answered
    from blocksd.model.revision import Change
    from blocksd.protocol.reset import Reset
    from blocksd.settings.config import Config

STATE = "<state>"
"""The subject of the problem that the state directory cannot be written."""

_BUSY_SECONDS = 0.1
_SOON_SECONDS = 0.05
_HALTED_SECONDS = 1.0
_LONGEST_PAUSE = 60.0
_NEVER = float("inf")


class Work:
    """What there is to do. Times are of a monotonic clock.

    Invariants:
      1. nothing is written to the folder, unless it has the follower's marker;
      2. the place moves on only when all that was heard up to it is in the files, or due.
    """

    def __init__(
        self,
        config: Config,
        copy: Copy,
        mirrored: Mirrored,
        edits: LocalEdits,
        outgoing: Outgoing | None,
        report: Report,
        progress: Callable[[int, int], object],
    ) -> None:
        """`progress` is told how many files were compared, and how many are left."""
        self._config = config
        self._copy = copy
        self._mirrored = mirrored
        self._edits = edits
        self._outgoing = outgoing
        self._report = report
        self._progress = progress
        self._resync: Resync | None = None
        self._sweep: Iterator[None] | None = None
        self._sweep_at = 0.0
        self._trees: set[str] = set()  # directories to sweep before that
        self._changed: dict[str, None] = {}  # labels, in their order
        self.goal: tuple[str, int] | None = None
        """The epoch and the seq up to which all was heard; None before the leader is."""
        self._awaited = 0  # where the leader was when it was last found: there the copy has caught up
        self._retry_at, self._failures = 0.0, 0
        self._look_again_at = _NEVER  # at what is due
        self._pause = 1.0
        self._is_recovered = False
        self._asked_in: str | None = None  # the epoch in which the request that is under way was sent
        self._epoch = copy.place.epoch  # of the journal that counts the versions
        self.has_arrived = False
        """True once the copy has caught up."""
        self.waits_for_leader = False
        """True if the mirror could not be read at the last try."""
        if copy.place.epoch is not None:
            mirrored.see(copy.place.epoch, copy.place.seq)

    # --- what is heard ---

    def begin(self, begun: Begun) -> None:
        """All changes are heard from here on, and if they continue what was heard before, since then."""
        self.leader_serves()
        self._copy.leader_folder = begun.folder
        if begun.since is not None and self._resync is None:
            self.goal = (begun.epoch, begun.since) if self.goal is None else self.goal
            self._awaited = begun.seq
            self._report.hear(begun.seq)
            self._changed |= dict.fromkeys(self._copy.place.due)
        else:
            self.compare(begun.epoch, begun.seq)

    def compare(self, epoch: str, seq: int, *, accepts_deletions: bool = False) -> None:
        """Compare all files with the mirror, which is at this change."""
        self._resync = Resync(
            self._copy, self._mirrored, (epoch, seq), self._report, accepts_deletions=accepts_deletions
        )
        self._awaited = 0  # the goal is enough
        self._mirrored.see(epoch, seq)
        self._report.hear(seq)

    def reset(self, reset: Reset) -> None:
        """Changes were missed, or the mirror was built anew."""
        self.leader_serves()
        self.compare(reset.epoch, reset.seq)

    def hear(self, change: Change) -> None:
        """Take a change for a hint at a block: its present text is read."""
        labels: list[object] = [*change.labels, *([change.renamed_from] if change.renamed_from else [])]
        if change.kind == "repaired":
            agents = change.raw.get("agents")
            labels += map(properties_label, agents if isinstance(agents, list) else ())
        elif change.seq is None and change.kind != "file":
            return
        self._changed |= dict.fromkeys(texts(labels))
        if change.seq is not None and change.epoch is not None:
            self.goal = (change.epoch, change.seq)
            self._mirrored.see(*self.goal)
            self._report.hear(change.seq)
        self._retry_soon()

    def leader_serves(self) -> None:
        """Try again soon what has failed while the leader was not heard."""
        self._retry_soon()
        if self._outgoing is not None:
            self._outgoing.retry_by(time.monotonic() + _SOON_SECONDS)

    def _retry_soon(self) -> None:
        if self.waits_for_leader:
            self._retry_at = min(self._retry_at, time.monotonic() + _SOON_SECONDS)

    def sweep_soon(self, below: str = "") -> None:
        """Compare the files below a directory with what was written last; those of the whole folder, if none is named."""
        if below:
            self._trees.add(below)
        else:
            self._sweep_at = 0.0

    def accept_deletions(self) -> int | None:
        """Remove what the leader has no longer, and tell it of files that are gone here; return how many are held back.

        None if none are.
        """
        held, self._report.held = self._report.held, None
        if held is not None and self.goal is not None:
            self.compare(*self.goal, accepts_deletions=True)
        here = self._outgoing.accept_deletions() if self._outgoing is not None else None
        return None if held is None and here is None else (held or 0) + (here or 0)

    def answer(self, answered: Answered) -> None:
        """Take the leader's answer to a local edit."""
        assert self._outgoing is not None
        asked_in, self._asked_in = self._asked_in, None
        seq = (answered.reply or {}).get("seq")
        is_of_this_journal = asked_in is not None and asked_in == self._mirrored.epoch
        if is_of_this_journal and isinstance(seq, int):
            self._mirrored.see(str(asked_in), seq)
        try:
            labels, paths = self._outgoing.take(answered)
        except StateUnusable as error:  # the same edit is sent again, and answered alike
            self._report_state(error)
            return
        self._changed |= dict.fromkeys(labels)
        if labels and self.goal is not None:  # the copy is not in sync until they are read
            self._report.hear(self.goal[1])
        for path in paths:
            self._edits.hint(path)

    # --- what is done ---

    @property
    def due_at(self) -> float:
        """When there is something to do, unless something is heard."""
        send_at = self._outgoing.due_at if self._outgoing is not None else _NEVER
        edits_at = min(self._look_again_at, self._edits.due_at, send_at) if self._is_compared else _NEVER
        unfinished_at = 0.0 if self._resync is not None or (self._changed and self.goal is not None) else _NEVER
        sweep_at = 0.0 if self._trees else self._sweep_at
        return max(self._retry_at, min(unfinished_at, edits_at, sweep_at))

    @property
    def _is_compared(self) -> bool:
        """True if the files were compared with the leader's once: before that nothing tells what a local edit is."""
        return self._copy.place.epoch is not None

    def go_on(self) -> bool:
        """Do a part; return True if there is no more for now. What fails for now is reported, and tried again.

        Raises:
            Misconfigured: nothing was ever copied, and nothing can be.
        """
        if time.monotonic() < self._retry_at:
            return True
        try:
            is_idle = self._go_on()
        except (StateUnusable, Undecided) as error:
            self._report_state(error)
            self.fail()
            self.waits_for_leader = False
            return True
        except Unavailable as error:
            self._report.lose(error)
            self.fail()
            self.waits_for_leader = True
            return True
        self._failures, self.waits_for_leader = 0, False
        self._report.clear(STATE)
        return is_idle

    def _report_state(self, error: BlocksdError) -> None:
        hint = "see that its disk has room and can be written; it is tried again"
        self._report.set(Problem(STATE, error.code, error.message, hint))

    def fail(self) -> None:
        """Try again later, and later each time."""
        if self._resync is not None:
            self._resync = self._resync.anew()
        self._failures = min(self._failures + 1, 10)
        self._retry_at = time.monotonic() + min(0.05 * 2**self._failures, _LONGEST_PAUSE)

    def _go_on(self) -> bool:
        refusal = self._copy.refusal() if self._copy.is_marked else None
        if refusal is not None:
            self._halt(refusal)
            return True
        if FOLDER in self._report.problems:
            self._report.clear(FOLDER)
            self.sweep_soon()
        if not self._is_recovered:
            for path in self._copy.copier.recover():
                self._edits.keep_aside(path)
            self._is_recovered = True
        now = time.monotonic()
        if self._sweep is None and now >= self._sweep_at:
            self._sweep_at = now + self._config.resync_seconds
            self._sweep = self._edits.sweep()
            self._trees.clear()
        if self._sweep is None and self._trees:
            self._sweep = self._edits.sweep(self._trees.copy())
            self._trees.clear()
        if self._sweep is not None:
            if next(self._sweep, self) is self:
                self._sweep = None
            return False
        if self._resync is not None:
            self._forget_versions(self._resync.goal[0])
            self._compare_more(self._resync)
            return False
        return self._bring_changed(now)

    def _halt(self, refusal: BlocksdError) -> None:
        """Touch nothing, until the folder is the copy again."""
        hint = str(refusal.facts.get("hint", ""))
        self._report.set(Problem(FOLDER, "halted", f"{refusal.message}: nothing is written or sent", hint))
        self._retry_at = time.monotonic() + _HALTED_SECONDS

    def _forget_versions(self, epoch: str) -> None:
        """In another journal versions are counted anew: those that are known here mean nothing to the leader."""
        if self._outgoing is not None and self._epoch not in (None, epoch):
            self._copy.place.forget_versions()
        self._epoch = epoch

    def _compare_more(self, resync: Resync) -> None:
        outcome = resync.go_on()
        if outcome is not None:
            self._take(outcome)
            self._progress(resync.done, resync.left)
            return
        self._resync = None
        if self.goal is None or self.goal[0] != resync.goal[0] or self.goal[1] < resync.goal[1]:
            self.goal = resync.goal
        self._arrive()

    def _bring_changed(self, now: float) -> bool:
        if not self._is_compared:
            return True
        if now >= self._look_again_at:
            self._look_again_at = _NEVER
            self._changed |= dict.fromkeys(self._copy.place.due)
        self._changed |= dict.fromkeys(self._edits.take_due(now))
        if self._outgoing is not None:
            for path in self._outgoing.go_on(now, self._mirrored.read):
                self._edits.hint(path)
            if self._outgoing.is_asking and self._asked_in is None:
                self._asked_in = self._mirrored.epoch
        labels = list(self._changed)[:PAGE]
        if not labels or self.goal is None:  # before the leader is heard nothing is known of its files
            self._arrive()
            return True
        outcome = self._copy.copier.bring(self._mirrored.read(labels), restores=self._copy.is_read_only)
        for label in labels:
            del self._changed[label]
        self._take(outcome)
        self._arrive()
        return not self._changed

    def _take(self, outcome: Outcome) -> None:
        """Report what became of files, and see that what could not be done is tried again."""
        now = time.monotonic()
        self._edits.take(outcome, now)
        self._report.take(outcome)
        if outcome.is_busy:
            self._look_again_at = min(self._look_again_at, now + _BUSY_SECONDS)
        if outcome.failed:
            self._look_again_at = min(self._look_again_at, now + self._pause)
            self._pause = min(2 * self._pause, _LONGEST_PAUSE)
        elif outcome.written:
            self._pause = 1.0
        if outcome.due:
            self._look_again_at = min(self._look_again_at, now + self._config.resync_seconds)

    def _arrive(self) -> None:
        """Note the place, if all that was heard is in the files or due."""
        if self.goal is None or self._changed or self._resync is not None:
            return
        if self.goal[0] != self._copy.place.epoch:
            self._copy.mark(self.goal[0])
        self._copy.place.move(*self.goal)
        self.has_arrived = self.has_arrived or self.goal[1] >= self._awaited
        self._report.arrive(*self.goal)
