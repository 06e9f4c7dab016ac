"""The report of a follower: problems, how far behind it is, and a line for each file that it writes."""

from __future__ import annotations

import os
import socket
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from blocksd.errors import BlocksdError
from blocksd.model.label import path_of_label, printable
from blocksd.model.problem import Problem, Problems, count
from blocksd.model.revision import timestamp
from blocksd.monitoring.events import Notices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blocksd.follow.comparison import Outcome
    from blocksd.follow.mirrored import Mirrored
    from blocksd.follow.opening import Copy
    from blocksd.follow.outbox import Outbox
    from blocksd.monitoring.events import Level, ServiceListener
    from blocksd.settings.config import Config

LEADER = "<leader>"
"""The subject of the problem that the leader's mirror cannot be read."""
_NAMED = 20  # files that are logged one by one


class Report:
    """The problems of a follower, and its status."""

    def __init__(self, config: Config, copy: Copy, redis: str, listeners: Sequence[ServiceListener]) -> None:
        self._config = config
        self._copy = copy
        self._redis = redis
        self._listeners = listeners
        self._notices = Notices(listeners)
        self._started_at = time.monotonic()
        self._is_ready = False
        self._heard = copy.place.seq
        self._behind_since: float | None = time.time()
        self.problems = Problems(time.time)
        self.edits: dict[str, str] = {}
        """Files with a local edit: path → the subject of the problem."""
        self.unsent: Outbox | None = None
        """The edits that wait for the leader; None: none is ever sent."""
        self.held: int | None = None
        """How many removals are held back."""
        self.written = 0
        """How many files were written or removed since the start."""

    # --- problems ---

    def set(self, problem: Problem) -> None:
        """Report a problem, once."""
        known = self.problems.get(problem.subject)
        self.problems.set(problem)
        if not problem.same_as(known):
            for listener in self._listeners:
                listener.on_problem(problem)

    def clear(self, subject: str) -> None:
        """Report that a problem is over, if there was one."""
        problem = self.problems.get(subject)
        if problem is not None:
            self.problems.remove(subject)
            for listener in self._listeners:
                listener.on_cleared(problem)

    def edit(self, problem: Problem, path: str) -> None:
        """Report a local edit."""
        self.edits[path] = problem.subject
        self.set(problem)

    def settle(self, path: str) -> None:
        """Report that a file is as it must be."""
        self.edits.pop(path, None)
        self.clear(printable(path))

    def notice(self, message: str, level: Level = "info") -> None:
        self._notices.post(message, level)

    def lose(self, error: BlocksdError) -> None:
        """Report that the leader is not heard."""
        if self._behind_since is None:
            self._behind_since = time.time()
        hint = str(error.facts.get("hint", "")) or (
            "it connects again by itself, and local files stay as they are; if this lasts, check that server and --redis"
            if error.code == "unavailable"
            else "correct --redis, or the rights of its user; local files stay as they are meanwhile"
        )
        self.set(Problem(LEADER, error.code, error.message, hint, warning=error.code == "unavailable"))

    def take(self, outcome: Outcome) -> None:
        """Log what became of files."""
        for path, error in outcome.failed.items():
            hint = str(error.facts.get("hint", "")) or "it is tried again"
            self.set(Problem(printable(path), error.code, error.message, hint))
        if self.problems:
            for label in outcome.done:  # what was wrong with it under a name that it has no longer, too
                self.clear(printable(label))
                if label not in self._copy.place.paths and (path := path_of_label(label)) not in self.edits:
                    self.clear(printable(path))
        self.written += len(outcome.written) + len(outcome.removed)
        if not self._is_ready:
            return
        for paths, what in ((outcome.written, "wrote"), (outcome.removed, "removed")):
            for path in paths[:_NAMED]:
                known = self._copy.place.files.get(path)
                self.notice(f"{what} {printable(path)}{f' v{known.version}' if known is not None else ''}")
            if len(paths) > _NAMED:
                self.notice(f"{what} {len(paths) - _NAMED} more files")

    # --- where it stands ---

    def hear(self, seq: int) -> None:
        """Note that the leader is at this change."""
        self._heard = seq
        if self._behind_since is None:
            self._behind_since = time.time()

    def arrive(self, epoch: str, seq: int) -> None:
        """Note that the copy is at this change: all that was heard is in it."""
        self._heard = seq
        if LEADER not in self.problems:
            self._behind_since = None

    def ready(self) -> None:
        """Log that the copy has caught up for the first time."""
        self._is_ready = True
        mode = "read-only" if self._copy.is_read_only else "writable"
        edits = f", {count(len(self.edits), 'local edit')}" if self.edits else ""
        place = self._copy.place
        self.notice(f"ready: {count(len(place.files), 'file')} at seq {place.seq}, {mode}{edits}")

    @property
    def is_in_sync(self) -> bool:
        """True if the copy has all that was heard, and everything is heard."""
        return self._is_ready and self._behind_since is None

    @property
    def lag_seconds(self) -> float:
        """For how long the copy is behind."""
        return max(0.0, time.time() - self._behind_since) if self._behind_since is not None else 0.0

    def sentence(self) -> str:
        """Return the status in one line."""
        state = "in sync" if self.is_in_sync else "behind" if self._is_ready else "starting"
        tally = self.problems.tally
        return (
            f"{state}, {count(len(self._copy.place.files), 'file')} at seq {self._copy.place.seq}, "
            f"{count(tally.problems, 'problem')}, {count(tally.warnings, 'warning')}"
        )

    def as_json(self, mirrored: Mirrored) -> dict[str, Any]:
        """Return the status; the leader is asked where it stands."""
        place, config = self._copy.place, self._config
        facts: dict[str, Any] = dict.fromkeys(
            ("leader", "leader_runs", "generation", "leader_epoch", "leader_seq", "lag")
        )
        try:
            stand = mirrored.stand()
            facts |= {"leader": stand.host, "leader_runs": stand.is_led, "generation": stand.generation}
            facts |= {"leader_epoch": stand.epoch, "leader_seq": stand.seq}
            if stand.epoch == place.epoch:
                facts["lag"] = max(0, stand.seq - place.seq)
        except BlocksdError as error:
            facts["unreachable"] = error.message
        return {
            "role": "follower",
            "running": True,
            "answers": True,
            "mode": "read-only" if self._copy.is_read_only else "writable",
            "pid": os.getpid(),
            "version": version("blocksd"),
            "host": socket.gethostname(),
            "uptime_seconds": time.monotonic() - self._started_at,
            "folder": self._copy.root.path,
            "namespace": config.namespace,
            "state": config.state,
            "redis": self._redis,
            "files": len(place.files),
            "epoch": place.epoch,
            "seq": place.seq,
            **facts,
            "lag_seconds": round(self.lag_seconds, 3),
            "behind_since": timestamp(self._behind_since) if self._behind_since is not None else None,
            "in_sync": self.is_in_sync and facts["lag"] == 0,
            "ready": self._is_ready,
            "unsent": sorted(self.unsent.edits) if self.unsent is not None else [],
            "local_edits": sorted(self.edits),
            "problems": [problem.as_json() for problem in self.problems.values()],
        }

    def numbers(self) -> dict[str, float]:
        """Return the status in numbers, for metrics."""
        return {
            "files": len(self._copy.place.files),
            "seq": self._copy.place.seq,
            "lag": max(0, self._heard - self._copy.place.seq),
            "lag_seconds": self.lag_seconds,
            "in_sync": self.is_in_sync,
            "unsent": self.unsent.waiting if self.unsent is not None else 0,
            "local_edits": len(self.edits),
            "written": self.written,
            "ready": self._is_ready,
        }
