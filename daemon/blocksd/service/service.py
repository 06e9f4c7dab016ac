"""The main loop: rounds of the core, hints and requests from threads, signals, and a check of all threads once a second."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import threading
import time
from concurrent.futures import InvalidStateError
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

from blocksd.core.core import Core
from blocksd.errors import BlocksdError, Superseded
from blocksd.files.inotify import inotify_limit
from blocksd.journal.rescue import sentence_of
from blocksd.model.faults import Failed
from blocksd.model.problem import CONFIG
from blocksd.monitoring import sd_notify
from blocksd.monitoring.events import Notices, Ready, Started, time_stages
from blocksd.monitoring.status import status_of
from blocksd.monitoring.watchdog import Watchdog
from blocksd.service.control import ACCEPT_DELETIONS, STATUS, Question
from blocksd.service.fault_barrier import FaultBarrier
from blocksd.service.leadership import step_down
from blocksd.service.lock import state_error
from blocksd.service.mailbox import Mailbox
from blocksd.service.reloader import Reloader
from blocksd.service.report import describe
from blocksd.service.resources import Resources
from blocksd.service.threads import Threads

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from blocksd.monitoring.events import ServiceListener
    from blocksd.monitoring.status import Status
    from blocksd.service.leadership import Promotion
    from blocksd.service.threads import News
    from blocksd.settings.config import Config

_TICK_SECONDS = 1.0
_NEWS_AT_ONCE = 4096
_FAILED_SECONDS = 0.1  # the pause after a turn of the loop in which a part failed, and may fail again at once


class Service:
    """One running daemon. `run` returns after `stop` or a signal."""

    def __init__(
        self,
        config: Config,
        listeners: Sequence[ServiceListener],
        read: Callable[[], Config] | None = None,
        *,
        takes_over: bool = False,
        promotion: Promotion | None = None,
    ) -> None:
        """Open what the daemon needs, or refuse. `read` reads the configuration again; without it, that never changes.

        If it `takes_over`, the folder takes the place of the journal's. Raises what `Resources` raises.
        """
        self._reloader = Reloader(config, read or (lambda: config))
        self._must_reload = False
        self._is_on_terminal = False
        self._listeners = listeners
        self._timing = [listener for listener in listeners if listener.is_timing]
        self._notices = Notices(listeners)
        self._watchdog = Watchdog(self._notices)
        self._mailbox: Mailbox[News | Question | Failed | None] = Mailbox()
        self._stopping = False
        self._started_at = time.monotonic()
        self._files_read: int | None = 0  # until the daemon is ready
        self._shown_status = ""
        # Nothing that is made until all blocks are read is garbage: the collector would walk through it again and again.
        gc.disable()
        with ExitStack() as opened:  # closed in the reverse order, also if the start fails
            opened.callback(gc.enable)
            opened.callback(self._mailbox.close)
            self._resources = Resources(
                config, self._mailbox.put, self._notices, takes_over=takes_over, promotion=promotion
            )
            opened.callback(self._resources.close)
            self.journal = self._resources.journal
            try:
                with ExitStack() as unowned:
                    unowned.callback(self.journal.close)
                    self.core = Core(self._resources.folder, self.journal, self._resources.mirror, listeners, config)
                    unowned.pop_all()  # the core closes the journal
            except OSError as error:
                raise state_error(config.state, error) from error
            if takes_over:
                self.core.intake.deletions.take_over()
            self.core.rescue.claim = self._resources.state.claim
            self.core.requests.status = self._report
            self._barrier = FaultBarrier(self.core.faults)
            self._threads = Threads(self.core, self._resources, config, self._mailbox, self._notices, opened)
            opened.callback(self._resources.state.stop_listening)
            self._opened = opened.pop_all()
        self._report_configuration()

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._reloader.config

    def run(self) -> None:
        """Serve until `stop`, SIGTERM or SIGINT; on a terminal, until SIGHUP, which says that it is gone."""
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
            self._is_on_terminal = any(map(os.isatty, (0, 1, 2)))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        hook, threading.excepthook = threading.excepthook, self._on_thread_failure
        try:
            redis = self._resources.redis_description
            started = Started(self._resources.folder.root, redis, self.config.namespace, self.config.state)
            for listener in self._listeners:
                listener.on_start(started)
            if sentence := sentence_of(self.journal.opened):
                self._notices.post(sentence, "error" if self.journal.opened.set_aside else "warning")
            self.core.rescue.done.clear()
            self._loop()
            step_down(self.core.projector, self._resources.mirror, self.journal)
        finally:
            sd_notify.stopping()
            self.close()
            threading.excepthook = hook
            for listener in self._listeners:
                listener.on_stop()

    def stop(self) -> None:
        """End `run` soon; a round under way is finished."""
        self._stopping = True
        self._threads.begin_stop()
        self._mailbox.put(None)

    def close(self) -> None:
        """Stop the threads, and close what was opened, in the reverse order."""
        self._opened.close()

    # --- the loop ---

    def _loop(self) -> None:
        """Run turn after turn. An error ends its part of a turn; the other parts go on."""
        barrier = self._barrier
        with barrier("start the threads"):  # the ticks start again what does not start now
            self._threads.start()
        tick_at = 0.0
        while not self._stopping:
            now, failures, wait = time.monotonic(), barrier.failures, _TICK_SECONDS
            if now >= tick_at:
                tick_at = now + _TICK_SECONDS
                self._tick()
            before = self.journal.seq
            with barrier("do a round"):
                self._round()
            with barrier("direct the inbox reader"):
                self._threads.inbox_feed.direct()
            if self._files_read is not None:
                self._files_read += self.journal.seq - before
                with barrier("report the progress of the start"):
                    self._begin_to_serve(self._files_read)
            elif self._must_reload:
                with barrier("reload the configuration"):
                    self._reload()
            with barrier("find out how long to wait"):
                wait = min(self.core.wait_seconds(), max(0.0, tick_at - time.monotonic()))
                if wait > 0 and self._mailbox.is_empty:
                    self.core.idle()
            if barrier.failures != failures:
                time.sleep(_FAILED_SECONDS)
            self._receive(wait)

    def _round(self) -> None:
        if self._timing:
            time_stages(self._effects(), self._report_stage)
            return
        for _ in self._effects():
            pass

    def _effects(self) -> Iterator[str]:
        """Run a round. Pings the watchdog between effects: many slow effects are no hang."""
        for effect in self.core.round():
            self._watchdog.report_progress(is_starting=self._files_read is not None)
            yield effect

    def _report_stage(self, stage: str, seconds: float) -> None:
        for listener in self._timing:
            listener.on_stage(stage, seconds)

    def _begin_to_serve(self, read: int) -> None:
        """Report the progress of the start; once everything is read, report that the daemon is ready."""
        for listener in self._listeners:
            listener.on_progress(read, self.core.intake.backlog)
        if not self.core.is_settled:
            return
        self._files_read = None
        gc.freeze()
        gc.enable()
        trim_memory()
        sd_notify.ready()
        self._show(self.status())
        state, problems, is_in_sync = self.core.state, self.core.problems, self.core.projector.is_in_sync
        ready = Ready(state.block_count, len(state.attachments.known), problems.tally, self.journal.seq, is_in_sync)
        for listener in self._listeners:
            listener.on_ready(ready)
        self._threads.start_gateway()

    def _reload(self) -> None:
        """Reload the configuration: apply what can change at run time, name the rest, and compare everything."""
        self._must_reload = False
        sd_notify.reloading()
        reload = self._reloader.reload()
        if reload is None:
            self._notices.post("the configuration is invalid: the one before stays in force", "warning")
        else:
            for listener in self._listeners:
                listener.on_reload(reload)
        self._report_configuration()
        self._threads.reconfigure(self.config)
        self.core.reconfigure(self.config)
        sd_notify.ready()

    def _report_configuration(self) -> None:
        if self._reloader.problem is not None:
            self.core.problems.set(self._reloader.problem)
        else:
            self.core.problems.remove(CONFIG)

    # --- news from threads ---

    def _receive(self, wait: float) -> None:
        """Wait for news, and handle all that has arrived."""
        with self._barrier("hear of files and news"):
            self._mailbox.wait(wait)
        for _ in range(_NEWS_AT_ONCE):
            if self._mailbox.is_empty:
                return
            self._handle_safely(self._mailbox.get())

    def _handle_safely(self, news: News | Question | Failed | None) -> None:
        """Handle news. After a failure, find what it may have lost: compare all files, or read the inboxes again."""
        failures = self._barrier.failures
        with self._barrier("handle news from threads"):
            self._handle(news)
        if self._barrier.failures == failures:
            return
        if isinstance(news, Question):
            with suppress(InvalidStateError):  # it was answered before the failure
                news.answer({"error": "the daemon failed to answer: see its log"})
        else:
            self._threads.recover_from_loss(news)

    def _handle(self, news: News | Question | Failed | None) -> None:
        if isinstance(news, Failed):
            self._barrier.record(*news)
        elif isinstance(news, Question):
            self._answer(news)
        elif news is not None:
            self._threads.handle(news)

    def _answer(self, question: Question) -> None:
        answer: dict[str, Any]
        try:
            if question.word == STATUS:
                answer = self._report()
            elif question.word == ACCEPT_DELETIONS:
                answer = {"accepted": self.core.intake.deletions.accept()}
            else:
                answer = {"error": f"{question.word!r} is no question"}
        except BlocksdError as error:
            answer = {"error": error.message}
        question.answer(answer)

    def _report(self) -> dict[str, Any]:
        uptime = time.monotonic() - self._started_at
        return describe(
            self.core,
            self.config,
            self._resources,
            self.status(),
            uptime=uptime,
            last_reload=self._reloader.last,
            gateway=None if self._threads.gateway is None else self._threads.gateway.as_json(),
        )

    def _on_thread_failure(self, failure: threading.ExceptHookArgs) -> None:
        """Count an error that ended a thread; the next tick restarts the thread."""
        if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
            name = failure.thread.name if failure.thread is not None else "?"
            self._mailbox.put(Failed(f"in the thread {name!r}", failure.exc_value))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP and not self._is_on_terminal:
            self._must_reload = True
            self._mailbox.put(None)
        else:
            self.stop()

    # --- once a second ---

    def _tick(self) -> None:
        """Check everything that must be alive, ping systemd's watchdog if it is, and report the status."""
        barrier = self._barrier
        with barrier("check the state directory"):
            self._check_state()
        self._threads.check(barrier)
        with barrier("check the health"):
            vitals = self._threads.vitals(barrier.failing)
            self._watchdog.check(vitals, is_starting=self._files_read is not None)
        with barrier("report the status"):
            status = self.status()
            self._show(status)
            for listener in self._listeners:
                listener.on_status(status)

    def _check_state(self) -> None:
        """Restore what was removed from the state directory, and report a journal that was rebuilt."""
        if isinstance(self.core.projector.last_error, Superseded):
            self.stop()
        self._resources.state.restore()
        for sentence in self.core.rescue.sentences():
            self._notices.post(sentence, "error")

    def _show(self, status: Status) -> None:
        """Send the status to systemd if it has changed."""
        sentence = status.sentence()
        if sentence != self._shown_status:
            self._shown_status = sentence
            sd_notify.status(sentence)

    def status(self) -> Status:
        """Return the present status."""
        return status_of(
            self.core,
            seq=self.journal.seq,
            read=self._files_read,
            watches=self._threads.folder_watch.watches,
            watch_limit=inotify_limit("max_user_watches"),
        )


def trim_memory() -> None:
    """Have glibc give the system the memory back that a start needed for a moment; other C libraries do so by themselves."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
