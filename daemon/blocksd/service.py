"""Lock, threads, signals, back-off, health: the frame around the core. It decides nothing about blocks."""

from __future__ import annotations

import fcntl
import gc
import os
import queue
import re
import secrets
import signal
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from blocksd import notify, record
from blocksd.config import reloaded, unknown_variables
from blocksd.connection import connect, masked
from blocksd.core import Core
from blocksd.embedded import EmbeddedServer
from blocksd.errors import AlreadyRunning, Misconfigured, Unavailable
from blocksd.folder import Folder
from blocksd.inbox import Reader
from blocksd.journal import Journal
from blocksd.keys import Keys
from blocksd.label import is_ignored, printable
from blocksd.mirror import Mirror
from blocksd.problem import CONFIG, WATCHER, Problem
from blocksd.projector import Listener
from blocksd.revision import timestamp
from blocksd.watcher import Hint, Watcher, Watchers

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from blocksd.config import Config, Reload
    from blocksd.inbox import Entry

_TICK_SECONDS = 1.0
_HINTS_AT_ONCE = 4096


class _SourceHint(NamedTuple):
    """Look here, in this source."""

    source: str
    hint: Hint


if TYPE_CHECKING:
    _News = Hint | _SourceHint | list[Entry] | str
    """What threads pass on: where to look, and what was read from inboxes; a text is for the log."""


class Reporter(Listener, Protocol):
    """Who is told how the service goes, besides what becomes of the blocks."""

    def on_start(self, service: Service) -> None: ...
    def on_progress(self, done: int, left: int) -> None: ...
    def on_ready(self, service: Service) -> None: ...
    def on_reload(self, reload: Reload) -> None: ...
    def on_note(self, message: str) -> None: ...
    def on_stop(self) -> None: ...


class Lock:
    """The right to be the one daemon of a directory, for as long as this process lives."""

    def __init__(self, path: str, what: str, *, key: str) -> None:
        """Lock the file or directory at `path`; `what` names it in the error, `key` is the setting it comes from.

        Raises:
            AlreadyRunning: another process has it. Facts: `pid`, if it can be told.
            Misconfigured: it cannot be opened.
        """
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC
            is_directory = os.path.isdir(path)
            self._handle = os.open(path, flags | (os.O_DIRECTORY if is_directory else os.O_CREAT), 0o600)
        except OSError as error:
            raise Misconfigured(f"{path} cannot be opened: {error.strerror}", key=key) from None
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = holder(os.fstat(self._handle))
            os.close(self._handle)
            who = f" with pid {pid}" if pid else ""
            raise AlreadyRunning(f"the {what} is in the charge of another daemon{who}", pid=pid) from None

    def release(self) -> None:
        os.close(self._handle)


def holder(status: os.stat_result) -> int | None:
    """The process that holds the lock on a file, if it can be told: the kernel lists all locks by inode."""
    with suppress(OSError), open("/proc/locks", encoding="ascii") as locks:
        for line in locks:
            found = re.search(r"FLOCK\s+ADVISORY\s+WRITE (\d+) \w+:\w+:(\d+) ", line)
            if found and int(found[2]) == status.st_ino:
                return int(found[1])
    return None


class Service:
    """One running daemon: `run` returns when it is told to stop."""

    def __init__(self, config: Config, reporter: Reporter, read: Callable[[], Config] | None = None) -> None:
        """Take the folder, the state directory and the namespace, or refuse.

        `read` reads the configuration again, as it was read for `config`; without it, that stays.

        Raises:
            AlreadyRunning: another daemon has one of them.
            Misconfigured: something is wrong that trying again will not mend.
            JournalUnusable: the journal cannot be opened.
        """
        self.config = config
        self._reporter = reporter
        self._read = read or (lambda: config)
        self._must_reload = False
        self._queue: queue.SimpleQueue[_News | None] = queue.SimpleQueue()
        self._stopping = False
        self._rewatch_at = 0.0  # when to try other watchers for sources
        self._rearm_at = 0.0  # when to try another watcher for directories without a watch; 0: there are none
        self._locks: list[Lock] = []
        self._embedded: EmbeddedServer | None = None
        self._watcher: Watcher | None = None
        self._source_watchers = Watchers(
            lambda name, hint: self._queue.put(_SourceHint(name, hint)), wanted=lambda name: not is_ignored(name)
        )
        self._reader: Reader | None = None
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
        about = {
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
            about=about,
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
        self.core = Core(self.folder, self.journal, self._mirror, self._reporter, config)
        self._judge(None)
        self._reader = Reader(self.redis_url, self._mirror.keys, self._queue.put)

    def run(self) -> None:
        """Watch, until told to stop by `stop`, SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        self._reporter.on_start(self)
        if self.journal.opened.set_aside:
            self._reporter.on_note(f"the journal was damaged; it is kept as {self.journal.opened.set_aside}")
        try:
            self._loop()
        finally:
            notify.stopping()
            self._give_up()
            self._reporter.on_stop()

    def stop(self) -> None:
        """Stop soon: what is being written is finished first."""
        self._stopping = True
        self._queue.put(None)

    def _loop(self) -> None:
        # Armed first, swept second: what changes in between is seen by one or the other.
        self._watch()
        assert self._reader is not None
        self._reader.start()
        core, tick_at, ready, done = self.core, 0.0, False, 0
        while not self._stopping:
            now = time.monotonic()
            if now >= tick_at:
                tick_at = now + _TICK_SECONDS
                self._tick()
            before = self.journal.seq
            for _ in core.round():
                pass
            self._direct(self._reader)
            if not ready:
                done += self.journal.seq - before
                self._reporter.on_progress(done, core.intake.backlog)
                if core.is_settled:
                    ready = True
                    gc.freeze()
                    gc.enable()
                    notify.ready()
                    self._reporter.on_ready(self)
            if ready and self._must_reload:
                self._reload()
            wait = min(core.wait_seconds(), max(0.0, tick_at - time.monotonic()))
            if wait > 0 and self._queue.empty():
                core.idle()
            self._receive(wait)

    def _reload(self) -> None:
        """Read the configuration again: what can change at run time does, the rest is named, and everything is compared."""
        self._must_reload = False
        notify.reloading()
        try:
            reload = reloaded(self.config, self._read())
        except Misconfigured as error:
            self._reporter.on_note("the configuration is wrong: the one before stays in force")
            self._judge(error)
        else:
            self.config = reload.config
            self._reporter.on_reload(reload)
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
            self._reporter.on_note(
                f"dropped an entry of the inbox of {printable(first.entry.actor)}: {first.error.message}{others}"
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
        elif isinstance(news, str):
            self._reporter.on_note(news)
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
            self._reporter.on_note("file events were lost; the whole folder is compared")
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
        """Once a second: feed systemd's watchdog, see whether all that should live does."""
        notify.watchdog()
        self._take_orders()
        if self._embedded is not None and not self._embedded.is_running():
            self._reporter.on_note("the embedded server has ended; it is started again")
            with suppress(Unavailable):
                self._embedded.start()
        if self._reader is not None:
            self._reader.start()
        if not self.config.poll:
            self._watch_sources()
        if self.config.poll or not os.path.isdir(self.folder.root):
            return
        if self._watcher is None or not self._watcher.is_healthy():
            self._rearm()
        else:
            self._see_what_is_watched(self._watcher)

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
                f"raise fs.inotify.max_user_watches (sysctl; now {_sysctl('max_user_watches')})",
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

    def _take_orders(self) -> None:
        """What `blocksd resume` has left in the state directory."""
        order = os.path.join(self.config.state, ACCEPT_DELETIONS)
        if os.path.exists(order):
            os.unlink(order)
            self.core.intake.accept_deletions()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._must_reload = True
            self._queue.put(None)
        else:
            self.stop()

    def _give_up(self) -> None:
        """End all that was begun, the last first."""
        gc.enable()
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

    def describe_redis(self) -> str:
        """Where Redis is, for people: no password in it."""
        if self._embedded is None or self._embedded.address is None:
            return masked(self.redis_url)
        name = self._embedded.binary.name if self._embedded.binary else "taken over"
        return f"redis://127.0.0.1:{self._embedded.address.port} (embedded {name})"


ACCEPT_DELETIONS = "accept-deletions"


def _boot_id() -> str:
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()
    return ""


def _sysctl(name: str) -> str:
    with suppress(OSError), open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
        return file.read().strip()
    return "unknown"
