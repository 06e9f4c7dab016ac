"""File events → hints. A hint says where to look; what is there, only a look can tell."""

from __future__ import annotations

import logging
import os
import warnings
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from watchdog.events import (
    DirCreatedEvent,
    DirDeletedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileDeletedEvent,
    FileMovedEvent,
    FileSystemEvent,
    FileSystemEventHandler,
)
from watchdog.observers.api import BaseObserver
from watchdog.observers.inotify import InotifyEmitter
from watchdog.observers.inotify_c import InotifyFD
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper

if TYPE_CHECKING:
    from collections.abc import Callable

# Reading a file must not count as an event, or each look would cause another.
_EVENTS: list[type[FileSystemEvent]] = [
    FileClosedEvent,
    FileMovedEvent,
    FileDeletedEvent,
    FileCreatedEvent,
    DirMovedEvent,
    DirDeletedEvent,
    DirCreatedEvent,
]

# watchdog holds a file that was moved away back for half a second, and all later events with it, in case it turns up
# elsewhere. Hints need no pairing.
InotifyMoveEventGrouper.delay = 0

# Watching a directory again says so with a text as long as the table of all watches. It is harmless.
warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)


class Hint(NamedTuple):
    """Look here. `path` is below the folder.

    `closed`: a file whose writer is done; `touched`: a file something else happened to; `tree`: a directory;
    `everything`: events were lost.
    """

    kind: Literal["closed", "touched", "tree", "everything"]
    path: str = ""


class Watcher:
    """Watches a folder, and passes hints to `sink`, from threads of its own.

    It can fail in silence: the limit on watches, a lost root, a dead thread. `is_healthy` and `unwatched` tell.
    """

    def __init__(self, root: str, sink: Callable[[Hint], object]) -> None:
        self._root = root
        self._sink = sink
        self._observer: BaseObserver | None = None
        self._fd: InotifyFD | None = None
        self._identity: tuple[int, int] | None = None
        self._overflow = _OverflowHandler(sink)

    def start(self) -> None:
        """Watch the directory that is there now.

        Raises:
            OSError: it cannot be watched: it is gone, or the user's inotify instances are used up.
        """
        status = os.stat(self._root)
        self._fd = InotifyFD()
        self._fd.start()
        observer = BaseObserver(_Emitter, inotify_fd=self._fd, sink=self._sink, root=self._root)
        self._overflow.attach()
        self._observer = observer
        try:
            observer.schedule(FileSystemEventHandler(), self._root, recursive=True, event_filter=_EVENTS)
            observer.start()
        except BaseException:
            self.stop()
            raise
        self._identity = (status.st_dev, status.st_ino)

    def stop(self) -> None:
        """Stop watching; its threads end."""
        self._overflow.detach()
        self._identity = None
        if self._observer is not None and self._observer.is_alive():
            self._observer.stop()
            self._observer.join()
        if self._fd is not None and self._fd.is_alive():
            self._fd.stop()
            self._fd.join()
        self._observer = self._fd = None

    def is_healthy(self) -> bool:
        """Whether the directory that is there now is watched, by threads that live."""
        try:
            status = os.stat(self._root)
        except OSError:
            return False
        if self._observer is None or self._fd is None or self._identity != (status.st_dev, status.st_ino):
            return False
        emitters = self._observer.emitters
        threads = [self._observer, self._fd, *emitters]
        return bool(emitters) and all(thread.is_alive() and thread.should_keep_running() for thread in threads)

    def unwatched(self, directories: set[str]) -> set[str]:
        """Which of these directories (below the root) no events come from."""
        return directories - self._watched()

    @property
    def watches(self) -> int:
        """How many inotify watches are in use."""
        return len(self._watched())

    def _watched(self) -> set[str]:
        prefix = os.fsencode(self._root) + b"/"
        groups = [emitter._inotify for emitter in (self._observer.emitters if self._observer else ())]  # type: ignore[attr-defined]  # noqa: SLF001  # there is no public way to ask
        paths = [path for group in groups if group is not None for path in list(group._active_callbacks_by_path)]  # noqa: SLF001  # as above
        return {os.fsdecode(path.removeprefix(prefix)) for path in paths}


class _Emitter(InotifyEmitter):
    """Hands hints over right where the events are made: one thread less on the way."""

    def __init__(self, *args: Any, sink: Callable[[Hint], object], root: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sink = sink
        self._prefix = root.rstrip("/") + "/"

    def queue_event(self, event: FileSystemEvent) -> None:
        kind = type(event)
        if kind is FileClosedEvent:
            self._hint("closed", event.src_path)
        elif kind is FileMovedEvent:
            self._hint("touched", event.src_path)
            self._hint("closed", event.dest_path)
        elif kind is FileCreatedEvent or kind is FileDeletedEvent:
            self._hint("touched", event.src_path)
        elif kind is DirMovedEvent:
            self._hint("tree", event.src_path)
            self._hint("tree", event.dest_path)
        elif kind is DirCreatedEvent or kind is DirDeletedEvent:
            self._hint("tree", event.src_path)

    def _hint(self, kind: Literal["closed", "touched", "tree"], path: str | bytes) -> None:
        text = os.fsdecode(path)
        self._sink(Hint(kind, text[len(self._prefix) :] if text.startswith(self._prefix) else ""))


class _OverflowHandler(logging.Handler):
    """The kernel dropped events. watchdog tells nobody but its log."""

    _NAMES = ("watchdog.observers.inotify_c", "watchdog.observers.inotify")

    def __init__(self, sink: Callable[[Hint], object]) -> None:
        super().__init__(logging.WARNING)
        self._sink = sink

    def attach(self) -> None:
        for name in self._NAMES:
            logging.getLogger(name).addHandler(self)

    def detach(self) -> None:
        for name in self._NAMES:
            logging.getLogger(name).removeHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        if "overflow" in record.getMessage().lower():
            self._sink(Hint("everything"))
