"""Lock, threads, signals: the frame around the core. It decides nothing about blocks."""

from __future__ import annotations

import gc
import os
import queue
import secrets
import signal
import socket
import threading
import time
from concurrent.futures import InvalidStateError
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from blocksd.core.core import Core
from blocksd.errors import AlreadyRunning, BlocksdError, LeaseLost, Misconfigured, Unavailable
from blocksd.files.folder import Folder
from blocksd.files.root import Root
from blocksd.files.watcher import Hint, inotify_limit
from blocksd.journal.journal import Journal
from blocksd.journal.rescue import sentence_of
from blocksd.mirror.connection import connect, masked
from blocksd.mirror.keys import Keys
from blocksd.mirror.mirror import LEASE_SECONDS, Mirror
from blocksd.model.faults import Failed
from blocksd.model.problem import CONFIG
from blocksd.model.revision import timestamp
from blocksd.monitoring import sd_notify as notify
from blocksd.monitoring.events import Notices, Ready, Started, time_stages
from blocksd.monitoring.status import Status, status_of
from blocksd.monitoring.watchdog import Watchdog, vitals_of
from blocksd.requests.consumer import Readable, Reader, Refused
from blocksd.service.control import ACCEPT_DELETIONS, STATUS, Question
from blocksd.service.deliveries import Deliveries
from blocksd.service.embedded import EmbeddedServer
from blocksd.service.guard import Guard
from blocksd.service.lock import PASSING, Lock, state_error
from blocksd.service.lookout import Lookout, SourceHint
from blocksd.service.machine import boot_id, folder_id, machine_id
from blocksd.service.presence import Presence
from blocksd.service.reloader import Reloader
from blocksd.service.supervisor import ServerNews, Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from blocksd.monitoring.events import ServiceListener
    from blocksd.requests.request import Entry
    from blocksd.settings.config import Config

    _News = Hint | SourceHint | list[Entry] | Readable | Refused | Question | ServerNews | Failed
    """What threads pass on: where to look, what was read from inboxes, and what somebody wants to know."""

_TICK_SECONDS = 1.0
_HINTS_AT_ONCE = 4096
_FAILED_SECONDS = 0.1  # a turn of the loop takes at least, in which something failed: it may at once fail again
_LOOK_SECONDS = 0.2  # between two looks at another daemon's lease


class Service:
    """One running daemon: `run` returns when it is told to stop."""

    def __init__(
        self, config: Config, listeners: Sequence[ServiceListener], read: Callable[[], Config] | None = None
    ) -> None:
        """Take the folder, the state directory and the namespace, or refuse.

        `read` reads the configuration again, as it was read for `config`; without it, that stays.

        Raises:
            AlreadyRunning: another daemon has one of them.
            Misconfigured: something is wrong that trying again will not help.
            JournalUnusable: the journal cannot be opened.
            StateUnusable: the state directory cannot be used for now.
        """
        self._reloader = Reloader(config, read or (lambda: config))
        self._must_reload = False
        self._listeners = listeners
        self._timing = [listener for listener in listeners if listener.is_timing]
        self._notices = Notices(listeners)
        self._watchdog = Watchdog(self._notices)
        self._queue: queue.SimpleQueue[_News | None] = queue.SimpleQueue()
        self._stopping = False
        self._began_at = time.monotonic()
        self._begun: int | None = 0  # how many files were read, until it is ready
        self._shown_status = ""
        self._presence: Presence | None = None
        self._folder_lock = Lock(f"folder {os.path.realpath(config.folder)}")
        self._mirror: Mirror | None = None
        self._embedded: EmbeddedServer | None = None
        self._supervisor: Supervisor | None = None
        if not os.path.isdir(config.folder):
            raise Misconfigured(f"there is no folder {config.folder!r}", key="folder")
        try:
            self._open()
        except BaseException:
            self._give_up()
            raise

    def _open(self) -> None:
        config, state = self.config, self.config.state
        # Nothing that is made until all blocks are there is garbage: the collector would walk through it again and again.
        gc.disable()
        try:
            self._presence = Presence(state, self._queue.put, self._notices)
            self._open_folder()
            self.journal = Journal(os.path.join(state, "journal.db"), boot_id=boot_id())
            self._take_namespace()
            self._presence.write(folder=self.folder.root, namespace=config.namespace, redis=self.redis_url)
            self._make_core()
        except OSError as error:
            raise state_error(state, error) from error
        self._say_what_is_wrong()

    def _open_folder(self) -> None:
        """Hold the folder, and lock what is held: from then on the lock goes with it, wherever its path leads."""
        directory = Root(self.config.folder, claim=self._claim_folder)
        if directory.refusal is not None:
            raise directory.refusal
        if directory.held is None:
            message = f"the folder {directory.path} cannot be opened: {os.strerror(directory.why)}"
            if directory.why in PASSING:
                raise Unavailable(message, path=directory.path, errno=directory.why)
            raise Misconfigured(message, key="folder")
        self.folder = Folder(directory)
        for lock, what in ((self._presence, "state directory"), (self._folder_lock, "folder")):
            if lock is not None and lock.unsupported:
                message = f"the {what} cannot be locked ({lock.unsupported}): only the lease in Redis keeps others out"
                self._notices.post(message, "warning")

    def _claim_folder(self, handle: int) -> None:
        """Lock the directory that is at the folder's path now, before anything in it is read or written.

        Raises:
            AlreadyRunning: another daemon has it.
        """
        self._folder_lock.take_directory(handle)
        if self._mirror is not None:
            self._mirror.move(self._folder_id())

    def _folder_id(self) -> str:
        """The id of the folder that is locked; none where the lock proves nothing."""
        status = self._folder_lock.status
        return "" if status is None or self._folder_lock.unsupported else folder_id(status)

    def _take_namespace(self) -> None:
        """Take the namespace in Redis; where Redis is away, go on without."""
        config = self.config
        if config.redis is None:
            self._embedded = EmbeddedServer(config.state)
            self._place = self._embedded.prepare()
            self.redis_url = self._place.url
        else:
            self.redis_url = config.redis
        is_locked = self._presence is not None and not self._presence.unsupported and bool(self._folder_id())
        self._about = {
            "directory": self.folder.root,
            "host": socket.gethostname(),
            "machine": machine_id() if is_locked else "",
            "folder_id": self._folder_id(),
            "pid": str(os.getpid()),
            "started_at": timestamp(time.time()),
        }
        self._mirror = Mirror(
            connect(self.redis_url),
            Keys(config.namespace),
            url=self.redis_url,
            epoch=self.journal.epoch,
            token=secrets.token_hex(8),
            about=self._about,
        )
        if self._embedded is None:
            with suppress(Unavailable):  # it may come back: the folder is journaled meanwhile
                self._wait_for_lease(self._mirror)

    def _wait_for_lease(self, mirror: Mirror) -> None:
        """Take the lease; that of a daemon that may be dead is waited for until it expires, or is seen to be renewed.

        Raises:
            AlreadyRunning: its daemon lives.
            Misconfigured: Redis refuses the login.
            Unavailable: Redis does not serve.
        """
        deadline = time.monotonic() + LEASE_SECONDS + 2 * _TICK_SECONDS
        left_before: int | None = None
        while True:
            try:
                mirror.take()
            except LeaseLost as error:
                left = mirror.lease_left()
                if left_before is None:
                    self._notices.post(f"{error.message}; it is seen whether that daemon lives", "warning")
                elif left > left_before or time.monotonic() > deadline:
                    raise AlreadyRunning(error.message, **error.facts) from None
                left_before = left
            else:
                return
            time.sleep(_LOOK_SECONDS)

    def _make_core(self) -> None:
        """Make the core, and what works for it."""
        config = self.config
        mirror = self._mirror
        assert mirror is not None
        core = Core(self.folder, self.journal, mirror, self._listeners, config)
        assert self._presence is not None
        core.rescue.claim = self._presence.claim
        self._guard = Guard(core.faults)
        reader = Reader(self.redis_url, mirror.keys, self._queue.put, lease=lambda: mirror.lease)
        self._deliveries = Deliveries(reader, core, self._notices)
        self._lookout = Lookout(
            self.folder,
            core.intake,
            core.problems,
            core.sources,
            self._queue.put,
            self._notices,
            resync_seconds=config.resync_seconds,
        )
        if self._embedded is not None:
            self._supervisor = Supervisor(self._embedded, config.state, core.problems, self._notices, self._queue.put)
            self._embedded.on_progress = self._supervisor.on_progress
            core.projector.hold(is_held=True)
        self.core = core  # the last: where it is, all is

    @property
    def config(self) -> Config:
        """The configuration in force."""
        return self._reloader.config

    def run(self) -> None:
        """Watch, until told to stop by `stop`, SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        hook, threading.excepthook = threading.excepthook, self._on_thread_failure
        try:
            folder, server = self.folder.root, self.describe_redis()
            started = Started(folder, server, self.config.namespace, self.config.state)
            for listener in self._listeners:
                listener.on_start(started)
            if sentence := sentence_of(self.journal.opened):
                self._notices.post(sentence, "error" if self.journal.opened.set_aside else "warning")
            self.core.rescue.done.clear()
            self._loop()
        finally:
            notify.stopping()
            self._give_up()
            threading.excepthook = hook
            for listener in self._listeners:
                listener.on_stop()

    def stop(self) -> None:
        """Stop soon: what is being written is finished first."""
        self._stopping = True
        if self._supervisor is not None:
            self._supervisor.begin_stop()
        self._queue.put(None)

    def _loop(self) -> None:
        """Turn after turn, each in parts: one that fails ends, and the rest goes on."""
        guard = self._guard
        with guard("start what works beside the loop"):  # what does not is begun again by the ticks
            if self._supervisor is not None:
                self._supervisor.start()
            # Armed first, swept second: what changes in between is seen by one or the other.
            if not self.config.poll:
                self._lookout.start()
            self._deliveries.start()
        tick_at = 0.0
        while not self._stopping:
            now, failures, wait = time.monotonic(), guard.failures, _TICK_SECONDS
            if now >= tick_at:
                tick_at = now + _TICK_SECONDS
                self._tick()
            before = self.journal.seq
            with guard("do a round"):
                self._round()
            with guard("direct the reader of inboxes"):
                self._deliveries.direct()
            if self._begun is not None:
                self._begun += self.journal.seq - before
                with guard("say how the start goes on"):
                    self._begin_to_serve(self._begun)
            elif self._must_reload:
                with guard("read the configuration again"):
                    self._reload()
            with guard("wait for what is due"):
                wait = min(self.core.wait_seconds(), max(0.0, tick_at - time.monotonic()))
                if wait > 0 and self._queue.empty():
                    self.core.idle()
            if guard.failures != failures:
                time.sleep(_FAILED_SECONDS)
            self._receive(wait)

    def _round(self) -> None:
        if self._timing:
            time_stages(self._effects(), self._tell_stage)
            return
        for _ in self._effects():
            pass

    def _effects(self) -> Iterator[str]:
        """A round. Between two of its effects the watchdog is fed: many that are slow are no hang."""
        for effect in self.core.round():
            self._watchdog.report_progress(is_starting=self._begun is not None)
            yield effect

    def _tell_stage(self, stage: str, seconds: float) -> None:
        for listener in self._timing:
            listener.on_stage(stage, seconds)

    def _begin_to_serve(self, read: int) -> None:
        """Say how far the start has come; that it is ready, when it is."""
        for listener in self._listeners:
            listener.on_progress(read, self.core.intake.backlog)
        if not self.core.is_settled:
            return
        self._begun = None
        gc.freeze()
        gc.enable()
        notify.ready()
        self._show(self.status())
        state, problems, is_in_sync = self.core.ledger, self.core.problems, self.core.projector.is_level
        blocks, agents = len(state.paths), len(state.attachments.known)
        ready = Ready(blocks, agents, len(problems), self.journal.seq, is_in_sync)
        for listener in self._listeners:
            listener.on_ready(ready)

    def _reload(self) -> None:
        """Read the configuration again: what can change at run time does, the rest is named, and everything is compared."""
        self._must_reload = False
        notify.reloading()
        reload = self._reloader.reload()
        if reload is None:
            self._notices.post("the configuration is invalid: the one before stays in force", "warning")
        else:
            for listener in self._listeners:
                listener.on_reload(reload)
        self._say_what_is_wrong()
        self._lookout.resync_seconds = self.config.resync_seconds
        self.core.reconfigure(self.config)
        notify.ready()

    def _say_what_is_wrong(self) -> None:
        """Say what is wrong with the configuration where problems are said."""
        if self._reloader.problem is not None:
            self.core.problems.set(self._reloader.problem)
        else:
            self.core.problems.remove(CONFIG)

    def _receive(self, wait: float) -> None:
        """Wait for news, and take all that are there."""
        try:
            news = self._queue.get(timeout=wait) if wait > 0 else self._queue.get_nowait()
            for _ in range(_HINTS_AT_ONCE):
                self._take(news)
                news = self._queue.get_nowait()
            self._take(news)
        except queue.Empty:
            pass

    def _take(self, news: _News | None) -> None:
        """Pass news on. What is lost by a failure is found again: files by comparing all, entries by reading them again."""
        failures = self._guard.failures
        with self._guard("take in what threads have passed on"):
            self._pass_on(news)
        if self._guard.failures == failures:
            return
        if isinstance(news, Question):
            with suppress(InvalidStateError):  # it was answered before that
                news.answer({"error": "the daemon failed to answer: see its log"})
        elif isinstance(news, (Hint, SourceHint)):
            self.core.compare_soon()
        elif isinstance(news, list):
            self.core.inbox.forget_all()

    def _pass_on(self, news: _News | None) -> None:
        if isinstance(news, Hint):
            self._lookout.pass_on(news)
        elif isinstance(news, SourceHint):
            self._lookout.pass_on_from_source(*news)
        elif isinstance(news, Readable):
            self._deliveries.note(news)
        elif isinstance(news, ServerNews):
            self._keep_server()
        elif isinstance(news, Failed):
            self._guard.note(*news)
        elif isinstance(news, Question):
            self._answer(news)
        elif news is not None:
            self._deliveries.put(news)

    def _tick(self) -> None:
        """Once a second: see whether all that should live does, and feed systemd's watchdog if so; say how things stand."""
        guard = self._guard
        with guard("see to the state directory"):
            self._keep_state()
        with guard("see to the embedded server"):
            self._keep_server()
        with guard("see to the reader of inboxes"):
            self._deliveries.keep()
        with guard("see to what is watched"):
            if not self.config.poll:
                self._lookout.keep()
        with guard("see whether all is well"):
            self._beat()
        with guard("tell how it stands"):
            status = self.status()
            self._show(status)
            for listener in self._listeners:
                listener.on_status(status)

    def _beat(self) -> None:
        vitals = vitals_of(
            self.core,
            is_polling=self.config.poll,
            is_watching=self._lookout.is_watching,
            is_reading=self._deliveries.is_reading,
            is_server_running=self._supervisor is None or self._supervisor.is_alive,
            failing=self._guard.failing,
        )
        self._watchdog.check(vitals, is_starting=self._begun is not None)

    def _keep_state(self) -> None:
        """Make again what was removed from the state directory; say it if the journal is another."""
        assert self._presence is not None
        self._presence.keep()
        if self._supervisor is not None:
            self._supervisor.is_barred = bool(self._presence.taken_by_another)
        for sentence in self.core.rescue.sentences():
            self._notices.post(sentence, "error")

    def _keep_server(self) -> None:
        """See how the embedded server is; while it does not serve, nothing waits for it."""
        if self._supervisor is not None:
            self._supervisor.keep()
            self.core.projector.hold(is_held=not self._supervisor.is_serving)

    def _show(self, status: Status) -> None:
        """Tell systemd how things stand, when that has changed."""
        sentence = status.sentence()
        if sentence != self._shown_status:
            self._shown_status = sentence
            notify.status(sentence)

    def _answer(self, question: Question) -> None:
        answer: dict[str, Any]
        try:
            if question.word == STATUS:
                answer = self.describe()
            elif question.word == ACCEPT_DELETIONS:
                answer = {"accepted": self.core.intake.deletions.accept()}
            else:
                answer = {"error": f"{question.word!r} is no question"}
        except BlocksdError as error:
            answer = {"error": error.message}
        question.answer(answer)

    def _on_thread_failure(self, failure: threading.ExceptHookArgs) -> None:
        """A thread has ended by an error: it is counted here, and the ticks begin the thread again."""
        if failure.exc_value is not None and not isinstance(failure.exc_value, SystemExit):
            name = failure.thread.name if failure.thread is not None else "?"
            self._queue.put(Failed(f"in the thread {name!r}", failure.exc_value))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._must_reload = True
            self._queue.put(None)
        else:
            self.stop()

    def _give_up(self) -> None:
        """End all that was begun, the last first."""
        gc.enable()
        if self._presence is not None:
            self._presence.stop_listening()
        is_open = hasattr(self, "core")
        if is_open:
            self._deliveries.stop()
            self._lookout.stop()
            self.core.close()
            self._deliveries.join()
        elif hasattr(self, "journal"):
            self.journal.close()
        if self._supervisor is not None:
            self._supervisor.stop()
        self._folder_lock.release()
        if self._presence is not None:
            self._presence.leave()

    def status(self) -> Status:
        """How the service stands right now."""
        return status_of(
            self.core,
            seq=self.journal.seq,
            read=self._begun,
            watches=self._lookout.watches,
            watch_limit=inotify_limit("max_user_watches"),
        )

    def describe(self) -> dict[str, Any]:
        """All that `blocksd status` tells of a daemon that answers."""
        newest = self.journal.newest()
        return {
            "running": True,
            "answers": True,
            "pid": os.getpid(),
            "version": version("blocksd"),
            "host": self._about["host"],
            "started_at": self._about["started_at"],
            "uptime_seconds": round(time.monotonic() - self._began_at, 1),
            "folder": self.folder.root,
            "namespace": self.config.namespace,
            "state": self.config.state,
            "redis": self.redis_place,
            "redis_server": self._mirror.server if self._mirror is not None else None,
            "redis_embedded": self._embedded is not None,
            "polling": self.config.poll,
            **self.status().as_json(),
            "last_reload": self._reloader.last,
            "last_change": newest.summary() if newest is not None else None,
            "problems": [problem.as_json() for _, problem in sorted(self.core.problems.items())],
        }

    @property
    def redis_place(self) -> str:
        """Where Redis is, for people: no password in it."""
        if self._embedded is None:
            return masked(self.redis_url)
        return f"redis://127.0.0.1:{(self._embedded.address or self._place).port}"

    def describe_redis(self) -> str:
        """Where Redis is, and what, if it is the embedded server."""
        if self._embedded is None:
            return self.redis_place
        name = self._embedded.binary.name if self._embedded.binary else "taken over"
        return f"{self.redis_place} (embedded {name})"
