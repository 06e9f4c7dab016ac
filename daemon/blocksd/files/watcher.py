"""File events → hints. A hint says where to look; what is there, only a look can tell."""

from __future__ import annotations

import logging
import os
import threading
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
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
from watchdog.observers.inotify import InotifyEmitter, InotifyWatchGroup
from watchdog.observers.inotify_c import InotifyFD
from watchdog.observers.inotify_move_event_grouper import InotifyMoveEventGrouper, PathedInotifyEvent

from blocksd.model.label import CONFIG_MAP, is_block_file, is_ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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

# Watching a directory again says so with a text as long as the table of all watches. It is harmless.
warnings.filterwarnings("ignore", message="Callback with id", category=RuntimeWarning)
# That events were lost is a hint, and said by whoever takes it.
logging.getLogger("watchdog").setLevel(logging.ERROR)


class Hint(NamedTuple):
    """Look here. `path` is below the folder.

    `closed`: a file whose writer is done, or that was moved in whole; `touched`: a file something else happened to;
    `tree`: a directory; `everything`: events were lost.
    """

    kind: Literal["closed", "touched", "tree", "everything"]
    path: str = ""


class Watcher:
    """Watches a folder, and passes hints to `sink`, from threads of its own.

    It can fail in silence: the limit on watches, a lost root, a dead thread. `is_healthy` and `unwatched` tell.
    """

    def __init__(
        self, root: str, sink: Callable[[Hint], object], *, wanted: Callable[[str], bool] = is_block_file
    ) -> None:
        """`wanted` tells by its name whether a file is of interest."""
        self._root = root
        self._sink = sink
        self._wanted = wanted
        self._observer: BaseObserver | None = None
        self._fd: InotifyFD | None = None
        self._identity: tuple[int, int] | None = None

    def start(self) -> None:
        """Watch the directory that is there now.

        Raises:
            OSError: it cannot be watched: it is gone, or the user's inotify instances are used up.
        """
        status = os.stat(self._root)
        self._fd = InotifyFD()
        self._fd.start()
        self._observer = observer = BaseObserver(_Emitter, inotify_fd=self._fd, sink=self._sink, wanted=self._wanted)
        try:
            observer.schedule(FileSystemEventHandler(), self._root, recursive=True, event_filter=_EVENTS)
            observer.start()
        except BaseException:
            self.stop()
            raise
        self._identity = (status.st_dev, status.st_ino)

    def stop(self) -> None:
        """Stop watching; its threads end."""
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

    @property
    def watches(self) -> int:
        """How many of the user's inotify watches it uses."""
        return len(self._fd._watch_for_wd) if self._fd is not None else 0  # noqa: SLF001  # there is no public way to ask

    def unwatched(self, directories: set[str]) -> set[str]:
        """Which of these directories (below the root) no events come from."""
        return directories - self._watched()

    def _watched(self) -> set[str]:
        prefix = os.fsencode(self._root) + b"/"
        groups = [emitter._inotify for emitter in (self._observer.emitters if self._observer else ())]  # type: ignore[attr-defined]  # noqa: SLF001  # there is no public way to ask
        paths = [path for group in groups if group is not None for path in list(group._active_callbacks_by_path)]  # noqa: SLF001  # as above
        return {os.fsdecode(path.removeprefix(prefix)) for path in paths}


class _Emitter(InotifyEmitter):
    """An emitter whose events are hints already, and go to the sink without passing through its queue."""

    def __init__(
        self, *args: Any, sink: Callable[[Hint], object], wanted: Callable[[str], bool], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._sink = sink
        self._wanted = wanted

    def on_thread_start(self) -> None:
        root = os.fsencode(self.watch.path)
        self._inotify = _Group(
            self._inotify_fd,
            root,
            is_recursive=True,
            event_mask=self.get_event_mask_from_filter(),
            sink=self._sink,
            wanted=self._wanted,
        )


@dataclass
class _Group(InotifyWatchGroup):
    """The watches of a folder. watchdog tells of an overflow nowhere else but here."""

    sink: Callable[[Hint], object] = print
    wanted: Callable[[str], bool] = is_block_file

    def __post_init__(self) -> None:
        self._move_event_grouper = _Hints(self.path, self.sink, self.wanted)
        super().__post_init__()

    def on_queue_overflow(self) -> None:
        super().on_queue_overflow()
        self.sink(Hint("everything"))


class _Hints(InotifyMoveEventGrouper):
    """Stands where watchdog pairs the two halves of a move, for which it holds back a file moved away, and all events
    behind it, for up to half a second. Hints need no pairing: each half is one.
    """

    def __init__(self, root: bytes, sink: Callable[[Hint], object], wanted: Callable[[str], bool]) -> None:
        self._prefix = root.rstrip(b"/") + b"/"
        self._sink = sink
        self._wanted = wanted
        self._moved_from: PathedInotifyEvent | None = None
        self._links: set[bytes] = set()  # that have come while it was watching
        self._closed = threading.Event()

    def put_event(self, event: PathedInotifyEvent) -> None:
        inotify = event.ev
        path = os.fsdecode(event.path[len(self._prefix) :])
        if inotify.is_moved_from:
            self._moved_from = event
        if inotify.is_directory or not path:
            self._sink(Hint("tree", path))
            return
        name = path.rpartition("/")[2]
        # What nobody looks at anyway need not wake anyone: editors make such files with every save.
        if self._wanted(name) or name == CONFIG_MAP:
            self._sink(Hint("closed" if inotify.is_close_write or inotify.is_moved_to else "touched", path))
        elif self._is_link(event, name):  # where a directory was, or may be: what is below it is out of reach
            self._sink(Hint("tree", path))

    def _is_link(self, event: PathedInotifyEvent, name: str) -> bool:
        """Return True if a symlink has come to a name at which no file is looked at, or has gone from there."""
        was = event.path in self._links
        self._links.discard(event.path)
        if (event.ev.is_create or event.ev.is_moved_to) and not is_ignored(name) and os.path.islink(event.path):
            self._links.add(event.path)
            return True
        return was

    def get_queued_moved_from_event(self, cookie: int) -> PathedInotifyEvent | None:
        """Where a directory was moved from: its watches move with it."""
        found = self._moved_from
        return found if found is not None and found.ev.cookie == cookie else None

    def read_event(self) -> None:
        """The emitter's own thread has nothing to do."""
        self._closed.wait()

    def discard_pending_events(self) -> None:
        self._moved_from = None

    def close(self) -> None:
        self._closed.set()


def inotify_limit(name: str) -> int | None:
    """A limit of inotify (`max_user_watches`, `max_user_instances`); None where the kernel does not show it."""
    with suppress(OSError, ValueError), open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
        return int(file.read())
    return None


class Watchers:
    """A watcher for each of several directories, by name, begun again when it fails or its directory is another."""

    def __init__(self, sink: Callable[[str, Hint], object], *, wanted: Callable[[str], bool]) -> None:
        """`sink` is passed the name of the directory with each hint."""
        self._sink = sink
        self._wanted = wanted
        self._watchers: dict[str, tuple[str, Watcher]] = {}
        self._missing: dict[str, set[str]] = {}  # directories below that were seen to be without a watch

    def watch(self, name: str, root: str, directories: set[str]) -> str:
        """See to it that `root` and the `directories` below it are watched; why some are not, or the empty text.

        Whenever a watcher had to be begun, its directory is hinted at as a whole.
        """
        where, watcher = self._watchers.get(name, ("", None))
        if watcher is None or where != root or not watcher.is_healthy():
            return self._begin(name, root) if os.path.isdir(root) else ""
        missing = {path for path in watcher.unwatched(directories) if os.path.isdir(os.path.join(root, path))}
        still = missing & self._missing.get(name, set())  # what is only just there may get its watch yet
        self._missing[name] = missing
        return (
            f"{len(still)} of {len(directories)} directories are not watched: changes there are found late"
            if still
            else ""
        )

    def keep(self, names: Iterable[str]) -> None:
        """Watch no others than these any more."""
        for name in self._watchers.keys() - set(names):
            self._end(name)

    @property
    def watches(self) -> int:
        """How many of the user's inotify watches they use."""
        return sum(watcher.watches for _, watcher in self._watchers.values())

    def begin_again(self) -> None:
        """Give the directories without a watch another chance."""
        for name in [name for name, missing in self._missing.items() if missing]:
            self._end(name)

    def _begin(self, name: str, root: str) -> str:
        self._end(name)
        watcher = Watcher(root, partial(self._sink, name), wanted=self._wanted)
        try:
            watcher.start()
        except OSError as error:
            return f"it cannot be watched: {error.strerror or error}; changes are found late"
        self._watchers[name] = (root, watcher)
        self._sink(name, Hint("everything"))
        return ""

    def _end(self, name: str) -> None:
        self._missing.pop(name, None)
        _, watcher = self._watchers.pop(name, ("", None))
        if watcher is not None:
            watcher.stop()

    def stop(self) -> None:
        """Stop watching."""
        for name in list(self._watchers):
            self._end(name)
