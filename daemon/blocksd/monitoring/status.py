"""A status snapshot, shared by `blocksd status`, systemd and metrics."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from blocksd.model.problem import FOLDER, SERVER, count
from blocksd.requests.inbox import REFUSALS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.core.core import Core
    from blocksd.model.problem import Tally

MirrorState = Literal["level", "behind", "rebuilding", "away"]
"""The states of the mirror as JSON names them: `level` is in sync, `away` unreachable."""

MIRROR_WORDS = {"level": "in sync", "away": "unreachable", "rebuilding": "rebuilding"}


@dataclass(frozen=True, slots=True)
class Status:
    """A daemon at one moment, in numbers.

    `away_since` (RFC 3339) and `away_reason` are given while the mirror is `away`. `mirror_seq` is the last known seq of
    the mirror.
    """

    blocks: int
    agents: int
    seq: int
    mirror: MirrorState
    mirror_seq: int | None
    away_since: str | None
    away_reason: str | None
    files: int  # waiting to be read
    requests: int  # read and not done
    watches: int
    watch_limit: int | None  # None: unknown
    tally: Tally
    read: int | None  # files read so far while the daemon starts; None: it is ready
    halted: str | None  # why deletions are held back
    refused: Mapping[str, int] = field(default_factory=dict)  # inbox entries refused unread since the start, by reason

    @property
    def mirror_lag(self) -> int:
        """The number of revisions the mirror does not show; all of them, where that is unknown."""
        return self.seq - (self.mirror_seq or 0)

    def as_json(self) -> dict[str, Any]:
        """Return the status as `blocksd status` shows it, without the list of problems."""
        return {
            "blocks": self.blocks,
            "agents": self.agents,
            "seq": self.seq,
            "mirror": self.mirror,
            "mirror_seq": self.mirror_seq,
            "mirror_lag": None if self.mirror_seq is None else self.mirror_lag,
            "away_since": self.away_since,
            "away_reason": self.away_reason,
            "queue": {"files": self.files, "requests": self.requests},
            "refused": {reason: self.refused.get(reason, 0) for reason in REFUSALS},
            "watches": {"used": self.watches, "limit": self.watch_limit},
            "ready": self.read is None,
            "halted": self.halted,
        }

    def sentence(self) -> str:
        """Return one line for `systemctl status`."""
        if self.read is not None:
            total = self.read + self.files
            return "reading the folder" + (f": {self.read} of {total}" if total else "")
        if self.halted is not None:
            return f"halted: {self.halted}"
        mirror = MIRROR_WORDS.get(self.mirror, f"{self.mirror_lag} behind")
        problems = f", {tally_text(self.tally)}" if any(self.tally) else ""
        return (
            f"serving {count(self.blocks, 'block')} to {count(self.agents, 'agent')}, seq {self.seq}, "
            f"mirror {mirror}{problems}"
        )


def status_of(core: Core, *, seq: int, read: int | None, watches: int, watch_limit: int | None) -> Status:
    """Return the status of a core, with the facts that only its service knows."""
    problems, projector = core.problems, core.projector
    mirror: MirrorState = "away"
    if projector.is_in_sync:
        mirror = "level" if projector.shown_seq == seq else "behind"
    elif projector.is_busy:
        mirror = "rebuilding" if projector.shown_seq is None else "behind"
    reason = None
    if mirror == "away":
        cause = projector.last_error or problems.get(SERVER)
        reason = cause.message if cause is not None else None
    halted = problems.get(FOLDER)
    return Status(
        blocks=core.state.block_count,
        agents=len(core.state.attachments.known),
        seq=seq,
        mirror=mirror,
        mirror_seq=projector.shown_seq,
        away_since=projector.unreachable_since if mirror == "away" else None,
        away_reason=reason,
        files=core.intake.backlog,
        requests=len(core.inbox),
        watches=watches,
        watch_limit=watch_limit,
        tally=problems.tally,
        read=read,
        halted=halted.message if halted is not None else None,
        refused=dict(core.inbox.refused),
    )


def tally_text(tally: Tally) -> str:
    return f"{count(tally.problems, 'problem')}, {count(tally.warnings, 'warning')}"
