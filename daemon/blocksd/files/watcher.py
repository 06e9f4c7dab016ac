"""File events → hints. A hint names a place to look at; only a look tells what is there.

The observer is watchdog's, the emitter is ours. watchdog's own emitter for Linux holds back a file that is moved out of
the folder, and all events behind it, for half a second. Nor does it tell of lost events, of a directory that it could not
watch, or a file that is made from one that is moved in whole. A thread for it would cost two changes of threads for each
hint, so ours is read by the thread that waits for its handle, in a selector.
"""

from __future__ import annotations

import os
import selectors
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from watchdog.events import FileSystemEventHandler
from watchdog.observers.api import BaseObserver, EventEmitter

from blocksd.files import inotify
from blocksd.files.inotify import Inotify
from blocksd.model.label import CONFIG_MAP, is_block_file, is_ignored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# Reading a file is no event, or each look would cause another.
_MASK = (
    inotify.CLOSE_WRITE
    | inotify.ATTRIB  # the rights of a file or directory
    | inotify.MOVED_FROM
    | inotify.MOVED_TO
    | inotify.CREATE
    | inotify.DELETE
    | inotify.DELETE_SELF
    | inotify.ONLYDIR
)
_OF_NO_FILE = inotify.OVERFLOW | inotify.IGNORED | inotify.ISDIR


class Hint(NamedTuple):
    """Look here. `path` is below the folder.

    `closed`: a file whose writer is done, or that was moved in whole; `touched`: a file something else happened to;
    `tree`: a directory; `everything`: events were lost.
    """

    kind: Literal["closed", "touched", "tree", "everything"]
    path: str = ""


class Watcher:
    """Watches a folder. Events are read when `selector` finds that there are some; what they tell is passed to `sink`.

    It can fail in silence: the limit on watches, a lost root, events that could not be read. `is_healthy` and `unwatched`
    tell.
    """

    def __init__(
        self,
        root: str,
        sink: Callable[[Hint], object],
        selector: selectors.BaseSelector,
        *,
        wanted: Callable[[str], bool] = is_block_file,
    ) -> None:
        """`wanted` tells by its name whether a file is of interest. What `selector` finds ready is called as its data."""
        self._root = root
        self._sink = sink
        self._selector = selector
        self._wanted = wanted
        self._observer: BaseObserver | None = None
        self._tree: _Tree | None = None
        self._identity: tuple[int, int] | None = None

    def start(self) -> None:
        """Watch the directory that is there now.

        Raise OSError if it cannot be watched: it is gone, or the user's inotify instances or watches are used up.
        """
        status = os.stat(self._root)
        self._tree = tree = _Tree(os.fsencode(self._root))
        self._observer = observer = BaseObserver(_Emitter, tree=tree, sink=self._sink, wanted=self._wanted)
        try:
            observer.schedule(FileSystemEventHandler(), self._root, recursive=True)
            observer.start()
            self._selector.register(tree.inotify.handle, selectors.EVENT_READ, self.read)
        except BaseException:
            self.stop()
            raise
        self._identity = (status.st_dev, status.st_ino)

    def read(self) -> bool:
        """Pass on what events tell that have come; return True if that is anything.

        After an error none is read any more: what they told is lost.
        """
        assert self._observer is not None
        emitters: Any = self._observer.emitters
        try:
            return bool([one for one in emitters if one.take()])
        except BaseException:
            self._forget_handle()
            self._observer.stop()
            raise

    def _forget_handle(self) -> None:
        if self._tree is not None:
            with suppress(KeyError, ValueError):  # it is closed, or was never registered
                self._selector.unregister(self._tree.inotify.handle)

    def stop(self) -> None:
        """Stop watching."""
        self._forget_handle()
        observer, self._observer, self._identity = self._observer, None, None
        if observer is not None:
            observer.stop()
            if observer.is_alive():
                observer.join()
        if self._tree is not None:
            self._tree.close()

    def is_healthy(self) -> bool:
        """Return True if the directory that is there now is watched, and its events can be read."""
        try:
            status = os.stat(self._root)
        except OSError:
            return False
        if self._observer is None or self._identity != (status.st_dev, status.st_ino):
            return False
        emitters = self._observer.emitters
        return bool(emitters) and all(one.should_keep_running() for one in (self._observer, *emitters))

    @property
    def watches(self) -> int:
        """The number of the user's inotify watches in use."""
        return len(self._tree.paths) if self._tree is not None else 0

    def unwatched(self, directories: set[str]) -> set[str]:
        """Return those of these directories (below the root) that no events come from."""
        prefix = os.fsencode(self._root) + b"/"
        paths = list(self._tree.paths.values()) if self._tree is not None else []
        return directories - {os.fsdecode(path.removeprefix(prefix)) for path in paths}


class _Tree:
    """The watches on a directory and all those below it. `paths` has them by their numbers."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self.paths: dict[int, bytes] = {}
        self._watches: dict[bytes, int] = {}
        self.inotify = Inotify()

    def close(self) -> None:
        self.inotify.close()
        self.paths.clear()
        self._watches.clear()

    def add(self, path: bytes) -> None:
        """Watch a directory and those below it, but for those that are gone, or for which no watch is left.

        A directory is listed after it is watched, so that none is missed that is made meanwhile.
        Raise OSError if it is the root, and cannot be watched.
        """
        todo = [path]
        while todo:
            directory = todo.pop()
            try:
                watch = self.inotify.add(directory, _MASK | (inotify.DONT_FOLLOW if directory != self.root else 0))
            except OSError:
                if directory == self.root:
                    raise
                continue
            self._watches.pop(self.paths.get(watch, b""), None)  # the same directory, under the name it had before
            self.paths[watch], self._watches[directory] = directory, watch
            with suppress(OSError), os.scandir(directory) as entries:
                todo += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]

    def drop(self, path: bytes) -> None:
        """Watch a directory no longer, nor those below it."""
        below = path + b"/"
        for one in [one for one in self._watches if one == path or one.startswith(below)]:
            watch = self._watches.pop(one)
            self.paths.pop(watch, None)
            self.inotify.remove(watch)

    def __contains__(self, path: bytes) -> bool:
        """Return True if a directory is watched."""
        return path in self._watches

    def forget(self, watch: int) -> None:
        """Forget a watch that the kernel has removed."""
        path = self.paths.pop(watch, b"")
        if self._watches.get(path) == watch:
            del self._watches[path]


class _Emitter(EventEmitter):
    """Reads the events of a folder when it is asked to, and passes hints to the sink."""

    def __init__(
        self, *args: Any, tree: _Tree, sink: Callable[[Hint], object], wanted: Callable[[str], bool], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self._tree = tree
        self._prefix = len(tree.root.rstrip(b"/")) + 1
        self._sink = sink
        self._wanted = wanted
        self._has_passed = False
        self._links: set[bytes] = set()  # that have come while this was watching

    def take(self) -> bool:
        """Pass on what events tell that have come. Return True if that is anything."""
        self._has_passed = False
        self.queue_events(0)
        return self._has_passed

    def _pass(self, hint: Hint) -> None:
        self._has_passed = True
        self._sink(hint)

    def start(self) -> None:
        """Watch the folder. No thread is started: `queue_events` is called when there are events."""
        self._tree.add(self._tree.root)

    def queue_events(self, timeout: float) -> None:  # as watchdog has it; nothing is waited for
        """Pass on what events tell that have come."""
        paths, last, is_wanted = self._tree.paths, b"", False
        for watch, mask, name in self._tree.inotify.read():
            directory = paths.get(watch)
            if not name or directory is None or mask & _OF_NO_FILE:
                self._pass_on_tree(watch, mask, name)
                continue
            text = os.fsdecode(name)
            if name != last:  # a save is several events of the same file
                last, is_wanted = name, self._wanted(text) or text == CONFIG_MAP
            # A file that is never looked at need not wake a thread: editors make such files with every save.
            if is_wanted:
                path = os.fsdecode(directory + b"/" + name)[self._prefix :]
                self._pass(Hint("closed" if mask & (inotify.CLOSE_WRITE | inotify.MOVED_TO) else "touched", path))
            elif (self._links or mask & (inotify.CREATE | inotify.MOVED_TO)) and not mask & inotify.ATTRIB:
                full = directory + b"/" + name
                if self._is_link(full, mask, text):
                    # Where a directory was, or may be: what is below it is out of reach.
                    self._pass(Hint("tree", os.fsdecode(full[self._prefix :])))

    def _pass_on_tree(self, watch: int, mask: int, name: bytes) -> None:
        """Pass on an event of a directory, or of the watches themselves."""
        tree = self._tree
        if mask & inotify.OVERFLOW:
            tree.drop(tree.root)
            tree.add(tree.root)
            self._pass(Hint("everything"))
        directory = tree.paths.get(watch)
        if directory is None:
            return
        full = directory + b"/" + name if name else directory
        if mask & inotify.IGNORED:
            tree.forget(watch)
        else:
            if mask & inotify.MOVED_FROM:  # its watches would tell of the name it had
                tree.drop(full)
            elif mask & (inotify.CREATE | inotify.MOVED_TO) or (mask & inotify.ATTRIB and full not in tree):
                tree.add(full)  # one that was there may have become readable
            self._pass(Hint("tree", os.fsdecode(full[self._prefix :])))

    def _is_link(self, path: bytes, mask: int, name: str) -> bool:
        """Return True if a symlink has come to a name at which no file is looked at, or has gone from there."""
        was = path in self._links
        self._links.discard(path)
        if mask & (inotify.CREATE | inotify.MOVED_TO) and not is_ignored(name) and os.path.islink(path):
            self._links.add(path)
            return True
        return was


class Watchers:
    """A watcher for each of several directories, by name, begun again when it fails or its directory is another."""

    def __init__(
        self, sink: Callable[[str, Hint], object], selector: selectors.BaseSelector, *, wanted: Callable[[str], bool]
    ) -> None:
        """`sink` is passed the name of the directory with each hint."""
        self._sink = sink
        self._selector = selector
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

    def watch_only(self, names: Iterable[str]) -> None:
        """Watch no others than these any more."""
        for name in self._watchers.keys() - set(names):
            self._end(name)

    @property
    def watches(self) -> int:
        """The number of the user's inotify watches in use."""
        return sum(watcher.watches for _, watcher in self._watchers.values())

    def retry_unwatched(self) -> None:
        """Give the directories without a watch another chance."""
        for name in [name for name, missing in self._missing.items() if missing]:
            self._end(name)

    def _begin(self, name: str, root: str) -> str:
        self._end(name)
        watcher = Watcher(root, partial(self._sink, name), self._selector, wanted=self._wanted)
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
