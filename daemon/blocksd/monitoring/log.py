"""The log of a running service, one event per line: text for a terminal or for systemd's journal, or JSON."""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from blocksd.errors import Misconfigured, Superseded
from blocksd.model.problem import count, reverted, unmerged_subject
from blocksd.model.revision import timestamp
from blocksd.monitoring.events import ServiceListener
from blocksd.monitoring.sd_notify import is_journal
from blocksd.monitoring.status import tally_text

if TYPE_CHECKING:
    from types import TracebackType

    from blocksd.errors import BlocksdError
    from blocksd.model.faults import Fault
    from blocksd.model.problem import Problem
    from blocksd.model.revision import Revision
    from blocksd.monitoring.events import Level, Ready, Started
    from blocksd.requests.reply import Answer
    from blocksd.settings.config import Reload

_PROGRESS_FROM = 500  # files; a smaller folder is read before a progress bar could be seen
_PROGRESS_SECONDS = 10.0  # between two lines about the progress of long work
_PRIORITIES: dict[str, int] = {"error": 3, "warning": 4, "info": 6, "debug": 7}  # in systemd's journal: sd-daemon(3)
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # they could end a line, or move a terminal's cursor
_ESCAPES = {  # made before the first line: Python reads a codec from a file, which a process without descriptors cannot
    found: found.encode("unicode_escape").decode("ascii")
    for found in map(chr, (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029))
}


class EventLog(ServiceListener):
    """Writes each event of at least `level` as one line to `stream`: as text, or as JSON with all facts."""

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        level: str = "info",
        as_json: bool = False,
        doing: str = "mirroring",
    ) -> None:
        """`doing` is what the bar and the lines of progress say."""
        self._stream = stream if stream is not None else sys.stderr
        self._is_journal = is_journal(self._stream)
        self.level = level
        self.as_json = as_json
        self._doing = doing
        self._is_ready = False
        self._is_unreachable = False  # Redis, and the log says so
        self._progress: Any = None
        self._progress_at: float | None = None  # when it was last logged, or the work began
        self._reverted: set[str] = set()  # the subjects of problems that the line of a revision has told

    def on_start(self, started: Started) -> None:
        facts = asdict(started)
        self._write("start", " · ".join(f"{name} {value}" for name, value in facts.items()), facts)

    def on_progress(self, done: int, left: int) -> None:
        if done + left < _PROGRESS_FROM:
            return
        if self.as_json or not self._stream.isatty():
            self._log_progress(done, left)
            return
        if self._progress is None:
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn(self._doing), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(file=self._stream), transient=True)
            self._task = self._progress.add_task("")
            self._progress.start()
        self._progress.update(self._task, completed=done, total=done + left)
        if not left:
            self._progress.stop()
            self._progress = None

    def _log_progress(self, done: int, left: int) -> None:
        """Log how far long work is, now and then."""
        now = time.monotonic()
        if not left:
            self._progress_at = None
        elif self._progress_at is None:
            self._progress_at = now
        elif now - self._progress_at >= _PROGRESS_SECONDS:
            self._progress_at = now
            text = f"{self._doing}: {done:,} of {done + left:,} files"
            self._write("progress", text, {"done": done, "left": left})

    def on_ready(self, ready: Ready) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._is_ready = True
        mirror = "" if ready.is_in_sync else "; Redis is unreachable, the mirror follows when it is back"
        counted = [count(ready.blocks, "block"), count(ready.agents, "agent"), tally_text(ready.tally)]
        facts = {"blocks": ready.blocks, "agents": ready.agents, **ready.tally._asdict(), "seq": ready.seq}
        self._write("ready", f"ready: {', '.join(counted)}{mirror}", facts)

    def on_revision(self, revision: Revision) -> None:
        if not self._is_ready and not self.as_json:
            return  # the first read of the folder is one line, not a thousand
        agents = [f"+{agent}" for agent in revision.attached] + [f"-{agent}" for agent in revision.detached]
        some = " ".join(agents[:5]) + (f" and {len(agents) - 5} more" if len(agents) > 5 else "")
        author = f" by {revision.who}" if revision.is_on_request else ""
        gone, told, level = "", {}, "info"
        self._reverted.discard(unmerged_subject(revision.label))
        if revision.reverts:  # this line stands for that of the problem, too
            problem, level = reverted(revision), "warning"
            gone = f", took away text of v{', v'.join(map(str, revision.reverts))}; {problem.hint}"
            told = {"reverts": revision.reverts, "hint": problem.hint}
            self._reverted.add(problem.subject)
        detail = f" ({', '.join(revision.fields)})" if revision.fields and revision.kind == "updated" else ""
        if revision.renamed_from is not None:
            detail = f" (from {revision.renamed_from})"
        self._write(
            revision.kind,
            f"{revision.kind} {revision.label} v{revision.version}{detail}{author}{f' {some}' if some else ''}{gone}",
            {
                "seq": revision.seq,
                "label": revision.label,
                "version": revision.version,
                "fields": list(revision.fields),
                "author": revision.author,
                **({"from": revision.renamed_from} if revision.renamed_from is not None else {}),
                **told,
                **({"by": revision.by} if revision.by is not None else {}),
            },
            level,
        )

    def on_request(self, answer: Answer, seconds: float) -> None:
        if self._is_logged("debug"):
            op, actor, outcome = answer.op or "an invalid request", answer.entry.actor, answer.outcome
            text = f"request: {op} by {actor}: {outcome}, {seconds * 1000:.1f} ms"
            facts = {"op": answer.op, "actor": actor, "id": answer.id, "outcome": outcome, "seconds": round(seconds, 6)}
            self._write("request", text, facts, "debug")

    def on_fault(self, fault: Fault, is_new: bool) -> None:  # as the listener has it
        if is_new:
            text = f"failed {fault.during}, which is a fault in blocksd: {fault.error} at {fault.place}; {fault.text}"
            facts = {"during": fault.during, "error": fault.error, "place": fault.place, "traceback": fault.text}
            self._write("fault", text, facts, "error")

    def on_problem(self, problem: Problem) -> None:
        if problem.code == "reverted" and problem.subject in self._reverted:
            return
        name, level = ("warning", "warning") if problem.warning else ("problem", "error")
        self._write(name, f"{name}: {problem.sentence()}", problem.as_json(), level)

    def on_cleared(self, problem: Problem) -> None:
        self._write("cleared", f"cleared: {problem.subject}", {"subject": problem.subject})

    def on_mirror_unreachable(self, error: BlocksdError) -> None:
        if isinstance(error, Superseded):  # it ends the daemon, and is said then
            return
        self._is_unreachable = True
        text = f"Redis is unreachable: {error.message}; changes are still journaled"
        self._write("away", text, error.as_json(), "error" if isinstance(error, Misconfigured) else "warning")

    def on_mirror_in_sync(self, how: str) -> None:
        if self._is_ready and (self._is_unreachable or how != "level"):
            detail = f" ({how})" if how != "level" else ""
            self._write("level", f"the mirror is in sync again{detail}", {"how": how})
        self._is_unreachable = False

    def on_repaired(self, places: int) -> None:
        text = f"the mirror differed in {count(places, 'place')} and was repaired"
        self._write("repaired", text, {"count": places}, "warning")

    def on_reload(self, reload: Reload) -> None:
        """Log the new settings, and follow those about logging."""
        self.as_json, self.level = reload.config.log_format == "json", reload.config.log_level
        changed = f"changed: {', '.join(reload.changed)}" if reload.changed else "nothing changed"
        waiting = f"; needs a restart: {', '.join(reload.waiting)}" if reload.waiting else ""
        text = f"the configuration was reloaded, {changed}{waiting}"
        self._write("reload", text, {"changed": reload.changed, "waiting": reload.waiting})

    def on_notice(self, message: str, level: Level) -> None:
        self._write("note", message, {}, level)

    def on_serving(self, url: str, who: str) -> None:
        """Log that the gateway takes requests."""
        self._write("serving", f"serving at {url}, for {who}", {"url": url})

    def on_stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._write("stop", "stopped", {})

    def on_failure(self, error: BlocksdError, next_step: str) -> None:
        """Log the error that kept the service from starting, or ended it."""
        step = f" ({next_step})" if next_step else ""
        self._write("failure", f"{error.message}{step}", {**error.as_json(), "hint": next_step}, "error")

    def capture(self) -> None:
        """Log the warnings of libraries, and uncaught exceptions of threads and of the process, too."""
        logging.getLogger().addHandler(_LibraryLog(self))
        logging.captureWarnings(capture=True)
        seen: set[tuple[str, type[BaseException]]] = set()

        def on_thread_failure(failure: threading.ExceptHookArgs) -> None:
            name = failure.thread.name if failure.thread is not None else "a thread"
            if failure.exc_value is not None and (name, failure.exc_type) not in seen:
                # It is restarted, and may fail again.
                seen.add((name, failure.exc_type))
                self._write_death(f"the thread {name} has died", failure.exc_value)

        def on_failure(_: type[BaseException], error: BaseException, __: TracebackType | None) -> None:
            self._write_death("blocksd has died", error)

        threading.excepthook = on_thread_failure
        sys.excepthook = on_failure

    def _write_death(self, what: str, error: BaseException) -> None:
        trace = "".join(traceback.format_exception(error)).rstrip()
        self._write("death", f"{what}, which is a fault in blocksd: {error!r}; {trace}", {}, "error")

    def _is_logged(self, level: str) -> bool:
        return _PRIORITIES[level] <= _PRIORITIES[self.level]

    def _write(self, event: str, text: str, facts: dict[str, Any], level: str = "info") -> None:
        if not self._is_logged(level):
            return
        if self.as_json:
            head = {"at": timestamp(time.time()), "level": level, "event": event}
            line = json.dumps({**head, "message": text, **facts, **head}, ensure_ascii=False, default=str)
            line = _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", line)
        else:
            line = _CONTROLS.sub(lambda found: _ESCAPES[found[0]], text)
            line = line if self._is_journal else f"{time.strftime('%H:%M:%S')} {line}"
        priority = f"<{_PRIORITIES[level]}>" if self._is_journal else ""
        with suppress(OSError):  # a log on a full disk must not stop the daemon
            self._stream.write(f"{priority}{line}\n")  # in one call, since threads log, too
            self._stream.flush()


class _LibraryLog(logging.Handler):
    """Passes what libraries log, from warnings on, to the log. Whatever is wrong with a record, its sender goes on."""

    def __init__(self, log: EventLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = f"{record.name}: {record.getMessage()}"
            if record.exc_info and record.exc_info[1] is not None:
                text += "; " + "".join(traceback.format_exception(record.exc_info[1])).rstrip()
        except Exception as error:  # noqa: BLE001  # of its arguments, or for want of descriptors
            text = f"{record.name}: {record.msg!r} ({type(error).__name__} in its arguments)"
        self._log.on_notice(text, "error" if record.levelno >= logging.ERROR else "warning")
