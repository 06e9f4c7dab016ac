"""Threads, signals, back-off, health: the frame around the core. It decides nothing about blocks."""

from __future__ import annotations

import gc
import os
import queue
import secrets
import signal
import socket
import time
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from blocksd import health, notify, record
from blocksd.config import reloaded, unknown_variables
from blocksd.connection import connect, masked
from blocksd.control import ACCEPT_DELETIONS, STATUS, Control, Question
from blocksd.core import Core
from blocksd.embedded import EmbeddedServer
from blocksd.errors import AlreadyRunning, BlocksdError, Misconfigured, Unavailable
from blocksd.folder import Folder
from blocksd.inbox import Readable, Reader
from blocksd.journal import Journal
from blocksd.keys import Keys
from blocksd.label import is_ignored, printable
from blocksd.lock import Lock
from blocksd.mirror import Mirror
from blocksd.problem import CONFIG, FOLDER, INBOX, SERVER, WATCHER, Problem
from blocksd.projector import Listener
from blocksd.revision import timestamp
from blocksd.standing import Standing, standing_of
from blocksd.watcher import Hint, Watcher, Watchers, inotify_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

    from blocksd.config import Config, Reload
    from blocksd.inbox import Entry

_TICK_SECONDS = 1.0
_HINTS_AT_ONCE = 4096
_START_SECONDS = 60.0  # how much longer systemd is asked to wait, as long as the start goes on
_SELDOM_SECONDS = 60.0  # between two lines on what may happen again and again
_UNREAD_TICKS = 3  # for so long inboxes may be unreadable, when Redis has only just come back
_SERVER_SECONDS = (1.0, 60.0)  # between two starts of the embedded server

Level = Literal["error", "warning", "info", "debug"]


class _SourceHint(NamedTuple):
    """Look here, in this source."""

    source: str
    hint: Hint


if TYPE_CHECKING:
    _News = Hint | _SourceHint | list[Entry] | Readable | Question
    """What threads pass on: where to look, what was read from inboxes, and what somebody wants to know."""


class ServiceListener(Listener):
    """Who is told how the service goes, besides what becomes of the blocks."""

    is_timing = False
    """Whether `on_stage` is wanted."""

    def on_start(self, service: Service) -> None: ...
    def on_progress(self, done: int, left: int) -> None: ...
    def on_ready(self, service: Service) -> None: ...
    def on_reload(self, reload: Reload) -> None: ...
    def on_standing(self, standing: Standing) -> None:
        """How the service stands, once a second."""

    def on_stage(self, stage: str, seconds: float) -> None:
        """How long a part of a round took: from the beginning of one effect to that of the next."""

    def on_note(self, message: str, level: Level) -> None: ...
    def on_stop(self) -> None: ...


class Service:
    """One running daemon: `run` returns when it is told to stop."""

    def __init__(
        self, config: Config, listeners: Sequence[ServiceListener], read: Callable[[], Config] | None = None
    ) -> None:
        """Take the folder, the state directory and the namespace, or refuse.

        `read` reads the configuration again, as it was read for `config`; without it, that stays.

        Raises:
            AlreadyRunning: another daemon has one of them.
            Misconfigured: something is wrong that trying again will not mend.
            JournalUnusable: the journal cannot be opened.
        """
        self.config = config
        self._listeners = listeners
        self._read = read or (lambda: config)
        self._must_reload = False
        self._last_reload: dict[str, Any] | None = None
        self._timing = [listener for listener in listeners if listener.is_timing]
        self._queue: queue.SimpleQueue[_News | None] = queue.SimpleQueue()
        self._stopping = False
        self._rewatch_at = 0.0  # when to try other watchers for sources
        self._rearm_at = 0.0  # when to try another watcher for directories without a watch; 0: there are none
        self._serve_at, self._serve_seconds = 0.0, _SERVER_SECONDS[0]  # when to start the embedded server again
        self._began_at = time.monotonic()
        self._begun: int | None = 0  # how many files were read, until it is ready
        self._obstacle: str | None = None  # to reading inboxes
        self._obstacle_ticks = 0
        self._ailments: list[str] = []
        self._said_ailments: list[str] = []
        self._said_status = ""
        self._said_at: dict[str, float] = {}  # what is said seldom → when it was
        self._locks: list[Lock] = []
        self._embedded: EmbeddedServer | None = None
        self._watcher: Watcher | None = None
        self._source_watchers = Watchers(
            lambda name, hint: self._queue.put(_SourceHint(name, hint)), wanted=lambda name: not is_ignored(name)
        )
        self._reader: Reader | None = None
        self._control: Control | None = None
        self._followed: tuple[frozenset[str], int] | None = None
        self._was_read = False  # entries of inboxes have come in, and their reader waits to be told to go on
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
            os.makedirs(state, mode=0o700, exist_ok=True)
        except OSError as error:
            message = f"the state directory {state} cannot be made: {error.strerror}"
            raise Misconfigured(message, key="state_dir") from None
        self.folder = Folder(config.folder)
        self._locks.append(Lock(os.path.join(state, "lock"), f"state directory {state}", key="state_dir"))
        self._locks.append(Lock(self.folder.root, f"folder {self.folder.root}", key="folder"))
        self.journal = Journal(os.path.join(state, "journal.db"), boot_id=_boot_id())
        if config.redis is None:
            self._embedded = EmbeddedServer(state)
            self.redis_url = self._embedded.start().url
        else:
            self.redis_url = config.redis
        self._about = {
            "directory": self.folder.root,
            "host": socket.gethostname(),
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
        try:
            self._mirror.take()
        except Misconfigured:
            raise
        except Unavailable as error:
            if "holder" in error.facts:
                raise AlreadyRunning(error.message, **error.facts) from None
            # It may come back: the folder is journaled meanwhile.
        record.write(state, folder=self.folder.root, namespace=config.namespace, redis=self.redis_url)
        self.core = Core(self.folder, self.journal, self._mirror, self._listeners, config)
        self._judge(None)
        self._reader = Reader(self.redis_url, self._mirror.keys, self._queue.put)

    def run(self) -> None:
        """Watch, until told to stop by `stop`, SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            for listener in self._listeners:
                listener.on_start(self)
            if self.journal.opened.set_aside:
                self._note(f"the journal was damaged; it is kept as {self.journal.opened.set_aside}", "error")
            self._loop()
        finally:
            notify.stopping()
            self._give_up()
            for listener in self._listeners:
                listener.on_stop()

    def stop(self) -> None:
        """Stop soon: what is being written is finished first."""
        self._stopping = True
        self._queue.put(None)

    def _loop(self) -> None:
        # Armed first, swept second: what changes in between is seen by one or the other.
        self._watch()
        assert self._reader is not None
        self._reader.start()
        self._listen()
        core, tick_at = self.core, 0.0
        while not self._stopping:
            now = time.monotonic()
            if now >= tick_at:
                tick_at = now + _TICK_SECONDS
                self._tick()
            before = self.journal.seq
            self._round()
            self._direct(self._reader)
            if self._begun is not None:
                self._begun += self.journal.seq - before
                self._begin_to_serve(self._begun)
            elif self._must_reload:
                self._reload()
            wait = min(core.wait_seconds(), max(0.0, tick_at - time.monotonic()))
            if wait > 0 and self._queue.empty():
                core.idle()
            self._receive(wait)

    def _round(self) -> None:
        if not self._timing:
            for _ in self.core.round():
                pass
            return
        stage, began = "look", time.perf_counter()
        for effect in self.core.round():
            now = time.perf_counter()
            if stage != "look" or effect != "mirror":  # a round that finds nothing is none of interest
                self._tell_stage(stage, now - began)
            stage, began = effect, now
        self._tell_stage(stage, time.perf_counter() - began)

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
        self._show(self.standing())
        for listener in self._listeners:
            listener.on_ready(self)

    def _reload(self) -> None:
        """Read the configuration again: what can change at run time does, the rest is named, and everything is compared."""
        self._must_reload = False
        self._last_reload = {"at": timestamp(time.time()), "changed": [], "waiting": [], "error": None}
        notify.reloading()
        try:
            reload = reloaded(self.config, self._read())
        except Misconfigured as error:
            self._note("the configuration is wrong: the one before stays in force", "warning")
            self._last_reload["error"] = error.message
            self._judge(error)
        else:
            self._last_reload |= {"changed": reload.changed, "waiting": reload.waiting}
            self.config = reload.config
            for listener in self._listeners:
                listener.on_reload(reload)
            self._judge(None)
        self.core.reconfigure(self.config)
        notify.ready()

    def _judge(self, error: Misconfigured | None) -> None:
        """Say what is wrong with the configuration where problems are said."""
        intake, strange = self.core.intake, unknown_variables(os.environ)
        if error is not None:
            hint = "mend it, and reload again; the configuration before stays in force"
            intake.set_problem(Problem(CONFIG, error.code, error.message, hint))
        elif strange:
            hint = "correct the environment, and start again"
            intake.set_problem(Problem(CONFIG, "warning", "; ".join(strange), hint, warning=True))
        else:
            intake.remove_problem(CONFIG)

    def _direct(self, reader: Reader) -> None:
        """Tell the reader of inboxes whose to read, and when to go on."""
        core = self.core
        known, restarts = core.ledger.attachments.known, core.inbox.restarts
        if self._followed is None or self._followed[0] is not known or self._followed[1] != restarts:
            self._followed = (known, restarts)
            reader.follow(known, restarts)
        if self._was_read and not core.inbox.is_full:
            self._was_read = False
            reader.resume()
        if core.clerk.dropped:
            first = core.clerk.dropped[0]
            others = f" (and {len(core.clerk.dropped) - 1} more)" if len(core.clerk.dropped) > 1 else ""
            actor = printable(first.entry.actor)
            self._note_seldom(
                f"an inbox {actor}", f"dropped an entry of the inbox of {actor}: {first.error.message}{others}"
            )
            core.clerk.dropped.clear()

    def _receive(self, wait: float) -> None:
        """Wait for news, and take all that are there."""
        try:
            news = self._queue.get(timeout=wait) if wait > 0 else self._queue.get_nowait()
            for _ in range(_HINTS_AT_ONCE):
                self._pass_on(news)
                news = self._queue.get_nowait()
            self._pass_on(news)
        except queue.Empty:
            pass

    def _pass_on(self, news: _News | None) -> None:
        if isinstance(news, Hint):
            self._pass_on_hint(news)
        elif isinstance(news, _SourceHint):
            self._pass_on_source_hint(*news)
        elif isinstance(news, Readable):
            self._obstacle = news.obstacle
        elif isinstance(news, Question):
            self._answer(news)
        elif news is not None:
            self._was_read = True
            self.core.inbox.put(news)

    def _pass_on_source_hint(self, name: str, hint: Hint) -> None:
        if name not in self.core.sources.names:  # it has gone since
            return
        source = self.core.sources.source(name)
        if hint.kind == "closed" or hint.kind == "touched":
            source.hint_file(hint.path, closed=hint.kind == "closed")
        else:
            source.hint_all()

    def _pass_on_hint(self, hint: Hint) -> None:
        intake = self.core.intake
        if hint.kind == "closed" or hint.kind == "touched":
            intake.hint_file(hint.path, closed=hint.kind == "closed")
        elif hint.kind == "tree":
            intake.hint_tree(hint.path)
        else:
            self._note_seldom("an overflow", "file events were lost; the whole folder is compared")
            intake.hint_all()

    def _watch(self) -> None:
        if self.config.poll:
            return
        watcher = Watcher(self.folder.root, self._queue.put)
        try:
            watcher.start()
        except OSError as error:
            self._degraded(
                f"the folder cannot be watched: {error.strerror or error}",
                "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl)",
            )
            return
        self._watcher = watcher

    def _tick(self) -> None:
        """Once a second: see whether all that should live does, and feed systemd's watchdog if so; say how things stand."""
        if self._embedded is not None:
            self._keep_running(self._embedded)
        if self._reader is not None:
            self._reader.start()
        self._see_what_is_read()
        if not self.config.poll:
            self._watch_sources()
            if os.path.isdir(self.folder.root):
                self._keep_watching()
        self._feed(health.ailments(self._vitals()))
        standing = self.standing()
        self._show(standing)
        for listener in self._listeners:
            listener.on_standing(standing)

    def _keep_watching(self) -> None:
        if self._watcher is None or not self._watcher.is_healthy():
            self._rearm()
        else:
            self._see_what_is_watched(self._watcher)

    def _keep_running(self, server: EmbeddedServer) -> None:
        """Start the embedded server again if it has ended; the more often it does, the later."""
        now, (first, longest) = time.monotonic(), _SERVER_SECONDS
        if server.is_running():
            if now > self._serve_at + longest:
                self._serve_seconds = first
            return
        if now < self._serve_at:
            return
        self._serve_at = now + self._serve_seconds
        self._serve_seconds = min(2 * self._serve_seconds, longest)
        try:
            server.start()
        except (Unavailable, Misconfigured) as error:
            hint = f"see {os.path.join(self.config.state, 'redis', 'redis.log')}; it is tried again"
            self.core.intake.set_problem(
                Problem(SERVER, error.code, f"the embedded server has ended, and does not start: {error.message}", hint)
            )
            return
        self.core.intake.remove_problem(SERVER)
        self._note("the embedded server had ended; it was started again", "warning")

    def _see_what_is_read(self) -> None:
        """Whether requests are read while Redis is there; if not, it is said. That Redis is away, others say."""
        if self._obstacle is None:
            self._obstacle_ticks = 0
            self.core.intake.remove_problem(INBOX)
            return
        self._obstacle_ticks = self._obstacle_ticks + 1 if self.core.projector.is_level else 0
        if self._obstacle_ticks >= _UNREAD_TICKS:
            hint = "see 'blocksd acl' for what the daemon must be allowed; it is tried again"
            message = f"no requests can be read: {self._obstacle}"
            self.core.intake.set_problem(Problem(INBOX, "unavailable", message, hint))

    def _vitals(self) -> health.Vitals:
        problems, projector, server = self.core.intake.problems, self.core.projector, self._embedded
        return health.Vitals(
            is_polling=self.config.poll,
            is_watching=self._watcher is not None and self._watcher.is_healthy(),
            is_blindness_said=WATCHER in problems or FOLDER in problems,
            is_level=projector.is_level,
            is_levelling=projector.is_busy,
            is_absence_said=projector.is_said_to_be_away,
            silent_seconds=projector.silent_seconds,
            is_reading=self._reader is not None and self._reader.is_alive(),
            is_server_running=server is None or server.is_running(),
            is_server_loss_said=SERVER in problems,
        )

    def _feed(self, ailments: list[str]) -> None:
        """Feed the watchdog, unless something ails. It is said when it is seen a second time, and when it is over."""
        if not ailments:
            notify.watchdog()
            if self._begun is not None:
                notify.starting(_START_SECONDS)
        lasting = [ailment for ailment in ailments if ailment in self._ailments]
        self._ailments = ailments
        if lasting and lasting != self._said_ailments:
            self._said_ailments = lasting
            self._note(f"not well: {', '.join(lasting)}; the watchdog is not fed", "error")
        elif not ailments and self._said_ailments:
            self._said_ailments = []
            self._note("well again; the watchdog is fed", "info")

    def _show(self, standing: Standing) -> None:
        """Tell systemd how things stand, when that has changed."""
        status = standing.sentence()
        if status != self._said_status:
            self._said_status = status
            notify.status(status)

    def _note(self, message: str, level: Level) -> None:
        for listener in self._listeners:
            listener.on_note(message, level)

    def _note_seldom(self, what: str, message: str) -> None:
        """Say what may happen many times a second, but not as often."""
        now = time.monotonic()
        if now >= self._said_at.get(what, 0.0):
            self._said_at[what] = now + _SELDOM_SECONDS
            self._note(message, "warning")

    def _see_what_is_watched(self, watcher: Watcher) -> None:
        intake, now = self.core.intake, time.monotonic()
        # What the last sweep saw may be gone by now, and gives no events for that reason.
        root, unwatched = self.folder.root, watcher.unwatched(intake.directories)
        missing = [directory for directory in unwatched if os.path.isdir(os.path.join(root, directory))]
        if not missing:
            self._rearm_at = 0.0
            intake.remove_problem(WATCHER)
            return
        if self._rearm_at:  # not a race that events cannot show, since a new watcher has not reached them either
            self._degraded(
                f"{len(missing)} of {len(intake.directories)} directories are not watched: changes in them are found "
                f"every {self.config.resync_seconds:g} s",
                f"raise fs.inotify.max_user_watches (sysctl; now {inotify_limit('max_user_watches') or 'unknown'})",
            )
        if now >= self._rearm_at:
            self._rearm_at = now + self.config.resync_seconds
            self._rearm()

    def _watch_sources(self) -> None:
        sources, now = self.core.sources, time.monotonic()
        self._source_watchers.keep(sources.names)
        if now >= self._rewatch_at:
            self._rewatch_at = now + self.config.resync_seconds
            self._source_watchers.begin_again()
        for name in sources.names:
            source = sources.source(name)
            sources.set_unwatched(name, self._source_watchers.watch(name, source.root, source.directories))

    def _rearm(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        self._watch()
        self.core.intake.hint_all()

    def _degraded(self, message: str, hint: str) -> None:
        self.core.intake.set_problem(Problem(WATCHER, "degraded", message, hint, warning=True))

    def _listen(self) -> None:
        """Have questions asked; where there can be no socket, go on without."""
        control = Control(self.config.state, self._queue.put)
        try:
            control.start()
        except OSError as error:
            why = error.strerror or error
            self._note(f"there can be no control socket in {self.config.state} ({why}): nobody can ask", "warning")
            return
        self._control = control

    def _answer(self, question: Question) -> None:
        answer: dict[str, Any]
        try:
            if question.word == STATUS:
                answer = self.describe()
            elif question.word == ACCEPT_DELETIONS:
                answer = {"accepted": self.core.intake.accept_deletions()}
            else:
                answer = {"error": f"{question.word!r} is no question"}
        except BlocksdError as error:
            answer = {"error": error.message}
        question.answer(answer)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._must_reload = True
            self._queue.put(None)
        else:
            self.stop()

    def _give_up(self) -> None:
        """End all that was begun, the last first."""
        gc.enable()
        if self._control is not None:
            self._control.stop()
        if self._reader is not None:
            self._reader.stop()
        self._source_watchers.stop()
        if self._watcher is not None:
            self._watcher.stop()
        if hasattr(self, "core"):
            self.core.close()
        elif hasattr(self, "journal"):
            self.journal.close()
        if self._reader is not None:
            self._reader.join()
        if self._embedded is not None:
            self._embedded.stop()
        if hasattr(self, "core"):
            record.remove(self.config.state)
        for lock in reversed(self._locks):
            lock.release()

    def standing(self) -> Standing:
        """How the service stands right now."""
        watches = self._source_watchers.watches + (self._watcher.watches if self._watcher is not None else 0)
        limit = inotify_limit("max_user_watches")
        return standing_of(self.core, seq=self.journal.seq, read=self._begun, watches=watches, watch_limit=limit)

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
            "redis_server": self._mirror.server,
            "redis_embedded": self._embedded is not None,
            "polling": self.config.poll,
            **self.standing().as_json(),
            "last_reload": self._last_reload,
            "last_change": newest.summary() if newest is not None else None,
            "problems": [problem.as_json() for _, problem in sorted(self.core.intake.problems.items())],
        }

    @property
    def redis_place(self) -> str:
        """Where Redis is, for people: no password in it."""
        if self._embedded is None or self._embedded.address is None:
            return masked(self.redis_url)
        return f"redis://127.0.0.1:{self._embedded.address.port}"

    def describe_redis(self) -> str:
        """Where Redis is, and what, if it is the embedded server."""
        if self._embedded is None:
            return self.redis_place
        name = self._embedded.binary.name if self._embedded.binary else "taken over"
        return f"{self.redis_place} (embedded {name})"


def _boot_id() -> str:
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return ""
