"""How a running daemon stands: the one picture that systemd, metrics and `blocksd status` are shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from blocksd.model.problem import FOLDER, SERVER
from blocksd.requests.inbox import REFUSALS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.core.core import Core


@dataclass(frozen=True, slots=True)
class Standing:
    """A daemon at one moment, in numbers.

    The mirror is `level`, `behind` (some revisions are not shown yet), `rebuilding`, or `away`: then `away_since`
    (RFC 3339) and `away_reason` are given. `mirror_seq` is where it is known to stand. `watch_limit` is None where it
    cannot be seen, `read` once the daemon is ready.
    """

    blocks: int
    agents: int
    seq: int
    mirror: Literal["level", "behind", "rebuilding", "away"]
    mirror_seq: int | None
    away_since: str | None
    away_reason: str | None
    files: int  # to look at
    requests: int  # read and not done
    watches: int
    watch_limit: int | None
    problems: int
    warnings: int
    read: int | None  # files, on the way to the first readiness
    halted: str | None  # why deletions are held back
    refused: Mapping[str, int] = field(default_factory=dict)  # entries of inboxes, unseen, since the start, by reason

    @property
    def mirror_lag(self) -> int:
        """How many revisions the mirror does not show; all, where it is not known to show any."""
        return self.seq - (self.mirror_seq or 0)

    def as_json(self) -> dict[str, Any]:
        """The picture as `blocksd status` gets it; problems are listed there."""
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
        """One line for `systemctl status`."""
        if self.read is not None:
            total = self.read + self.files
            return "reading the folder" + (f": {self.read} of {total}" if total else "")
        if self.halted is not None:
            return f"halted: {self.halted}"
        mirror = f"{self.mirror_lag} behind" if self.mirror == "behind" else self.mirror
        problems = f", {count(self.problems, 'problem')}" if self.problems else ""
        return (
            f"serving {count(self.blocks, 'block')} to {count(self.agents, 'agent')}, seq {self.seq}, "
            f"mirror {mirror}{problems}"
        )


def standing_of(core: Core, *, seq: int, read: int | None, watches: int, watch_limit: int | None) -> Standing:
    """How a core stands, with what only its service knows."""
    problems, projector = core.problems, core.projector
    mirror: Literal["level", "behind", "rebuilding", "away"] = "away"
    if projector.is_in_sync:
        mirror = "level" if projector.shown_seq == seq else "behind"
    elif projector.is_busy:
        mirror = "rebuilding" if projector.shown_seq is None else "behind"
    error = projector.last_error if mirror == "away" else None
    server = problems.get(SERVER)
    reason = error.message if error is not None else server.message if server is not None else None
    halted = problems.get(FOLDER)
    return Standing(
        blocks=len(core.state.paths),
        agents=len(core.state.attachments.known),
        seq=seq,
        mirror=mirror,
        mirror_seq=projector.shown_seq,
        away_since=projector.unreachable_since if mirror == "away" else None,
        away_reason=reason if mirror == "away" else None,
        files=core.intake.backlog,
        requests=len(core.inbox),
        watches=watches,
        watch_limit=watch_limit,
        problems=len(problems) - problems.warnings,
        warnings=problems.warnings,
        read=read,
        halted=halted.message if halted is not None else None,
        refused=dict(core.inbox.refused),
    )


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
