"""What a running service says: to a person at a terminal, or to a log, one event per line."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO

from blocksd.revision import FILE, timestamp

if TYPE_CHECKING:
    from blocksd.config import Reload
    from blocksd.errors import BlocksdError
    from blocksd.problem import Problem
    from blocksd.revision import Revision
    from blocksd.service import Service

_PROGRESS_FROM = 500
"""A folder with fewer blocks to read is there before anyone could look at a progress bar."""


class Reporter:
    """Says each event on one line of `stream`, with its facts: text for people, JSON for programs."""

    def __init__(self, stream: TextIO | None = None, *, as_json: bool = False) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._as_json = as_json
        self._is_ready = False
        self._progress: Any = None

    def on_start(self, service: Service) -> None:
        facts = {
            "folder": service.folder.root,
            "redis": service.describe_redis(),
            "namespace": service.config.namespace,
            "state": service.config.state,
        }
        self._say("start", " · ".join(f"{name} {value}" for name, value in facts.items()), **facts)

    def on_progress(self, done: int, left: int) -> None:
        if self._as_json or not self._stream.isatty() or done + left < _PROGRESS_FROM:
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("mirroring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(file=self._stream), transient=True)
            self._task = self._progress.add_task("")
            self._progress.start()
        self._progress.update(self._task, completed=done, total=done + left)

    def on_ready(self, service: Service) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._is_ready = True
        core = service.core
        blocks, agents = len(core.ledger.paths), len(core.ledger.attachments.known)
        problems = len(core.intake.problems)
        level = "" if core.projector.is_level else "; Redis is away, the mirror follows when it is back"
        text = f"ready: {_count(blocks, 'block')}, {_count(agents, 'agent')}, {_count(problems, 'problem')}{level}"
        self._say("ready", text, blocks=blocks, agents=agents, problems=problems, seq=service.journal.seq)

    def on_revision(self, revision: Revision) -> None:
        if not self._is_ready and not self._as_json:
            return  # the first mirroring is one event, not a thousand
        agents = [f"+{agent}" for agent in revision.attached] + [f"-{agent}" for agent in revision.detached]
        some = " ".join(agents[:5]) + (f" and {len(agents) - 5} more" if len(agents) > 5 else "")
        author = f" by {revision.author}" if revision.author != FILE else ""
        detail = f" ({', '.join(revision.fields)})" if revision.fields and revision.kind == "updated" else ""
        self._say(
            revision.kind,
            f"{revision.kind} {revision.label} v{revision.version}{detail}{author}{f' {some}' if some else ''}",
            seq=revision.seq,
            label=revision.label,
            version=revision.version,
            fields=list(revision.fields),
            author=revision.author,
        )

    def on_problem(self, problem: Problem) -> None:
        kind = "warning" if problem.warning else "problem"
        self._say(kind, f"{kind}: {problem.sentence()}", **problem.as_json())

    def on_cleared(self, problem: Problem) -> None:
        self._say("cleared", f"cleared: {problem.subject}", subject=problem.subject)

    def on_mirror_away(self, error: BlocksdError) -> None:
        self._say("away", f"Redis is away: {error.message}; the folder goes on being journaled", **error.as_json())

    def on_mirror_level(self, how: str) -> None:
        if self._is_ready:
            self._say("level", f"the mirror is level again ({how})", how=how)

    def on_repaired(self, count: int) -> None:
        self._say("repaired", f"the mirror differed in {_count(count, 'place')}, and was repaired", count=count)

    def on_reload(self, reload: Reload) -> None:
        """The configuration was read again: what it says of logging holds from here on."""
        self._as_json = reload.config.log_format == "json"
        changed = f"changed: {', '.join(reload.changed)}" if reload.changed else "nothing has changed"
        waiting = f"; needs a restart: {', '.join(reload.waiting)}" if reload.waiting else ""
        text = f"the configuration was read again, {changed}{waiting}"
        self._say("reload", text, changed=reload.changed, waiting=reload.waiting)

    def on_note(self, message: str) -> None:
        self._say("note", message)

    def on_stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._say("stop", "stopped")

    def _say(self, event: str, text: str, **facts: Any) -> None:
        if self._as_json:
            line = json.dumps(
                {"at": timestamp(time.time()), "event": event, "message": text, **facts},
                ensure_ascii=False,
                default=str,
            )
        else:
            line = f"{time.strftime('%H:%M:%S')} {text}"
        print(line, file=self._stream, flush=True)  # this is the log


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
