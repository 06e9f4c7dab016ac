"""The main loop of a follower: its work, news from threads, signals, and a check of everything once a second."""

from __future__ import annotations

import os
import queue
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from blocksd.errors import BlocksdError, Misconfigured, Unavailable
from blocksd.files.watcher import Hint, Watcher
from blocksd.follow.leader import Begun, Leader, Lost
from blocksd.follow.local_edits import LocalEdits
from blocksd.follow.mirrored import Mirrored
from blocksd.follow.opening import Copy
from blocksd.follow.outgoing import Outgoing
from blocksd.follow.report import LEADER, Report
from blocksd.follow.sender import Answered, Sender
from blocksd.follow.work import Work
from blocksd.mirror.connection import masked
from blocksd.model.faults import Fault, Faults
from blocksd.model.label import PROPERTIES_FILE, is_block_file
from blocksd.model.problem import WATCHER, Problem
from blocksd.model.revision import is_by
from blocksd.monitoring import sd_notify
from blocksd.monitoring.events import Notices, Started
from blocksd.protocol.reset import Reset
from blocksd.service.control import ACCEPT_DELETIONS, REVERT, STATUS, Question
from blocksd.service.fault_barrier import FaultBarrier
from blocksd.service.mailbox import Mailbox

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from blocksd.model.problem import Tally
    from blocksd.model.revision import Change
    from blocksd.monitoring.events import ServiceListener
    from blocksd.settings.config import Config

_TICK_SECONDS = 1.0
_NEWS_AT_ONCE = 4096
_STARTING_SECONDS = 30.0


class Follower:
    """One running follower. `run` returns after `stop` or a signal."""

    def __init__(
        self,
        config: Config,
        url: str,
        listeners: Sequence[ServiceListener],
        *,
        is_read_only: bool,
        adopts: bool = False,
        show: Callable[[Mapping[str, float], Tally], object] = lambda _numbers, _tally: None,
    ) -> None:
        """Open what the follower needs, or refuse, as `Copy` does. `url` is the leader's Redis.

        `show` is passed the status once a second: in numbers, and how many problems there are.
        """
        self._show = show
        self._config = config
        self._url = url
        self._listeners = listeners
        self._mailbox: Mailbox[Any] = Mailbox()
        self._stopping = False
        self._failure: BlocksdError | None = None  # that ends it
        self._is_ready = False
        self._life: int | None = None  # of what is heard of the leader, at the last look
        notices = Notices(listeners)
        self._mirrored = Mirrored(url, config.namespace)  # refuses a wrong URL before anything is made
        self._copy = copy = Copy(config, self._mailbox.put, notices, is_read_only=is_read_only, adopts=adopts)
        self._leader = Leader(url, config.namespace, self._mailbox.put)
        self._watcher: Watcher | None = None
        self._report = Report(config, copy, masked(url), listeners)
        self._sender, self._outgoing = None, None
        if not is_read_only:
            by = config.by or socket.gethostname()
            self._sender = Sender(url, config.namespace, by if is_by(by) else "a follower", self._mailbox.put)
            self._outgoing = Outgoing(copy, self._report, self._sender)
        self._edits = LocalEdits(copy, self._report, config, self._outgoing)
        self._work = Work(config, copy, self._mirrored, self._edits, self._outgoing, self._report, self._show_progress)
        self._barrier = FaultBarrier(Faults(self._report.problems, self._tell_fault))

    def run(self) -> None:
        """Follow until `stop`, SIGTERM or SIGINT; on a terminal, until SIGHUP, which says that it is gone.

        Raises:
            Misconfigured: nothing was ever copied, and the folder has other files, or Redis refuses the login.
        """
        self._take_signals()
        copy, place = self._copy, self._copy.place
        try:
            copy.state.publish(folder=copy.root.path, namespace=self._config.namespace, redis=self._url)
            started = Started(copy.root.path, masked(self._url), self._config.namespace, self._config.state)
            for listener in self._listeners:
                listener.on_start(started)
            since = (place.epoch, place.seq) if place.epoch is not None else None
            self._leader.start(since, lambda: len(place.files))
            if self._sender is not None:
                self._sender.start()
            self._loop()
        finally:
            sd_notify.stopping()
            self.close()
            for listener in self._listeners:
                listener.on_stop()
        if self._failure is not None:
            raise self._failure

    def _take_signals(self) -> None:
        is_on_terminal = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN and any(map(os.isatty, (0, 1, 2)))

        def on_signal(number: int, _frame: FrameType | None) -> None:
            if number == signal.SIGHUP and not is_on_terminal:
                self._mailbox.put(Hint("everything"))
            else:
                self.stop()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, on_signal)

    def stop(self) -> None:
        """End `run` soon; a part of the work under way is finished."""
        self._stopping = True
        self._mailbox.put(None)

    def close(self) -> None:
        """Stop the threads, and close what was opened."""
        self._copy.state.stop_listening()
        self._leader.stop()
        if self._sender is not None:
            self._sender.stop()
        if self._watcher is not None:
            self._watcher.stop()
        self._mirrored.close()
        self._copy.close()

    # --- the loop ---

    def _loop(self) -> None:
        """Run turn after turn. An error of the program ends its part of a turn; the other parts go on."""
        tick_at = 0.0
        while not self._stopping:
            now, is_idle, failures = time.monotonic(), True, self._barrier.failures
            if now >= tick_at:
                tick_at = now + _TICK_SECONDS
                with self._barrier("check everything"):
                    self._tick()
            with self._barrier("bring files"):
                is_idle = self._go_on()
            if self._barrier.failures != failures:
                self._work.fail()
            wait = max(0.0, min(tick_at, self._work.due_at) - time.monotonic()) if is_idle else 0.0
            with self._barrier("hear of files and news"):
                self._mailbox.wait(wait)
            with suppress(queue.Empty):
                for _ in range(_NEWS_AT_ONCE):
                    news = self._mailbox.get()
                    with self._barrier("handle news"):
                        self._handle(news)

    def _go_on(self) -> bool:
        try:
            is_idle = self._work.go_on()
        except BlocksdError as error:
            self._end(error)
            return True
        if self._work.has_arrived and not self._is_ready:
            self._is_ready = True
            sd_notify.ready()
            self._report.ready()
        return is_idle

    def _end(self, error: BlocksdError) -> None:
        """End it for an error before anything was ever copied; later it is reported."""
        if self._copy.place.epoch is None:
            self._failure, self._stopping = error, True
        else:
            self._report.lose(error)
            self._work.fail()

    def _show_progress(self, done: int, left: int) -> None:
        for listener in self._listeners:
            listener.on_progress(done, left)

    def _tell_fault(self, fault: Fault, is_new: bool) -> None:  # as Faults calls it
        for listener in self._listeners:
            listener.on_fault(fault, is_new)

    # --- news ---

    def _handle(self, news: Question | Hint | Begun | Lost | Answered | Reset | Change | None) -> None:
        if isinstance(news, Question):
            self._answer(news)
        elif isinstance(news, Hint):
            if news.kind in ("closed", "touched"):
                self._edits.hint(news.path)
            else:
                self._work.sweep_soon(news.path)
        elif isinstance(news, Begun):
            self._report.clear(LEADER)
            self._work.begin(news)
        elif isinstance(news, Lost):
            self._report.lose(news.error)
            if isinstance(news.error, Misconfigured):
                self._end(news.error)
        elif isinstance(news, Answered):
            self._work.answer(news)
        elif isinstance(news, Reset):
            self._work.reset(news)
        elif news is not None:
            self._work.hear(news)

    def _answer(self, question: Question) -> None:
        answer: dict[str, Any]
        try:
            if question.word == STATUS:
                answer = self._report.as_json(self._mirrored)
            elif question.word == ACCEPT_DELETIONS:
                answer = {"accepted": self._work.accept_deletions()}
            elif question.word.startswith(REVERT):
                answer = self._edits.revert(question.word.removeprefix(REVERT), self._mirrored)
            else:
                answer = {"error": f"{question.word!r} is no question"}
        except BlocksdError as error:
            answer = {"refusal": error.message, "hint": str(error.facts.get("hint", ""))}
        question.answer(answer)

    # --- once a second ---

    def _tick(self) -> None:
        """Check everything that must be alive, and tell how it is."""
        self._copy.state.restore()
        if self._watcher is None or not self._watcher.is_healthy():
            self._watch()
        if not self._leader.is_alive:
            self._leader.start(self._work.goal, lambda: len(self._copy.place.files))
        self._check_leader()
        if not self._is_ready:
            sd_notify.starting(_STARTING_SECONDS)
        if not self._barrier.failing:
            sd_notify.watchdog()
        sd_notify.status(self._report.sentence())
        self._show(self._report.numbers(), self._report.problems.tally)

    def _check_leader(self) -> None:
        """Report that the leader cannot be heard, and why, or that it is heard again."""
        life = self._leader.life
        if life is not None and life != self._life:
            self._work.leader_serves()
        self._life = life
        if life is not None:
            if not self._work.waits_for_leader:
                self._report.clear(LEADER)
            return
        try:
            self._mirrored.stand()
        except (Unavailable, Misconfigured) as error:
            self._report.lose(error)

    def _watch(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
        watcher = Watcher(self._copy.root.path, self._mailbox.put, self._mailbox.selector, wanted=_is_wanted)
        try:
            watcher.start()
        except OSError as error:
            self._watcher = None
            message = f"the folder cannot be watched: {error.strerror or error}; local edits are found late"
            hint = "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl)"
            self._report.set(Problem(WATCHER, "degraded", message, hint, warning=True))
            return
        self._watcher = watcher
        self._report.clear(WATCHER)
        self._work.sweep_soon()


def _is_wanted(name: str) -> bool:
    return is_block_file(name) or name == PROPERTIES_FILE
