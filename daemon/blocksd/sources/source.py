"""One source: which text files are below its directory, and what they say when they change.

As with blocks, hints say where to look; what is there, only a look tells. Nothing here writes anything.
"""

from __future__ import annotations

import errno
import json
import stat
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from blocksd.files.folder import Absent, Busy, Folder, Found, Refused, signature_of
from blocksd.files.links import resolve
from blocksd.model.label import CONFIG_MAP, is_ignored, printable
from blocksd.model.problem import Problem
from blocksd.model.revision import timestamp
from blocksd.state.read_queue import ReadQueue

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from blocksd.files.folder import Signature, Text
    from blocksd.files.root import Root
    from blocksd.settings.config import SourceSettings
    from blocksd.state.schedule import Schedule

MAX_FILES = 10_000
"""How many files one source may have."""

_RETRY_SECONDS = 1.0
_SLICE = 256
_LOOKED_AT_ONCE = 64
_READ_AT_ONCE = 4 * 1024 * 1024  # bytes
_NEVER = float("inf")


class Facts(NamedTuple):
    """What is known of a text file. `signature` is None while it proves nothing."""

    signature: Signature | None
    size: int
    mtime_ns: int

    @property
    def updated_at(self) -> str:
        return timestamp(self.mtime_ns / 1e9)

    def dumps(self) -> str:
        """The file as the mirror lists it."""
        return json.dumps({"bytes": self.size, "updated_at": self.updated_at})


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at one path came to: a text file that says `text`, or, without `facts`, none (any more).

    `is_news`: it was not listed before, or not as it is now.
    """

    path: str
    is_news: bool
    facts: Facts | None = None
    text: str = ""


class Source:
    """The view of one source's directory. Times are of a monotonic clock, in seconds.

    A directory or file that cannot be read is neither absent nor changed: what was known of it stays.
    """

    def __init__(self, settings: SourceSettings, schedule: Schedule, *, clock: Callable[[], float]) -> None:
        self.settings = settings
        self.name = settings.name
        self._schedule = schedule
        self._clock = clock
        self._folder = Folder(settings.path)
        self._identity: tuple[int, int] | None = None  # of the directory that was scanned
        self.files: dict[str, Facts] = {}
        self.directories: set[str] = set()  # as of the last scan
        self.is_listed = False  # it was scanned, and all that was found was looked at
        self.unwatched = ""  # why its changes are found late
        self._not_read: dict[str, tuple[Signature | None, str]] = {}  # path → why
        self._unlisted: set[str] = set()  # directories that could not be listed
        self._has_too_many = False
        self._trouble: Problem | None = None
        self._queue = ReadQueue(clock)
        self._scan: Iterator[None] | None = None
        self._scan_at = clock()
        schedule.hasten("sources", self._scan_at)

    @property
    def root(self) -> str:
        return self._folder.root

    @property
    def is_settled(self) -> bool:
        """Whether all of it has been looked at, or cannot be."""
        return self.is_listed or self._trouble is not None

    # --- hints ---

    def hint_file(self, path: str, *, closed: bool) -> None:
        """Something happened to this file; `closed` if its writer was seen to be done."""
        if path.rpartition("/")[2] == CONFIG_MAP:  # what the links lead to has changed, all at once
            self.hint_all()
        elif is_path(path):
            self._queue.hint(path, closed=closed)
            self._schedule.hasten("sources", self._queue.due)

    def hint_all(self) -> None:
        """Something happened somewhere: compare the directory with what is known of it."""
        self._scan_at = self._clock()
        self._schedule.hasten("sources", self._scan_at)

    def check_root(self) -> None:
        """See whether the directory is still the one that was scanned: no event tells when it is moved away."""
        if self._scan is None and self._identity_now() != self._identity:
            self.hint_all()

    def _identity_now(self) -> tuple[int, int] | None:
        """Device and inode of what is there, wherever links lead; None when that cannot be told."""
        try:
            return self._folder.identity()
        except OSError:
            return None

    @property
    def due(self) -> float:
        """When the next look is due."""
        return 0.0 if self._scan is not None else min(self._scan_at, self._queue.due)

    @property
    def is_due(self) -> bool:
        return self.due <= self._clock()

    # --- looking ---

    def look(self) -> list[Seen]:
        """Look at what is due, for a few milliseconds."""
        try:
            return self._look()
        finally:
            self._folder.directory.release()  # it may be unmounted

    def _look(self) -> list[Seen]:
        now = self._clock()
        self._queue.advance(now)
        if self._scan is None and now >= self._scan_at:
            self._scan_at = _NEVER
            self._scan = self._scanning()
        if self._scan is not None and next(self._scan, _DONE) is _DONE:
            self._scan = None
        seen: list[Seen] = []
        size = 0
        for path in self._queue.first(_LOOKED_AT_ONCE):
            if size >= _READ_AT_ONCE or path not in self._queue:  # it is in trouble since
                break
            one = self._look_at(path, closed=self._queue.take(path))
            if one is not None:
                seen.append(one)
                size += one.facts.size if one.facts is not None else 0
        if not (self.is_listed or self._trouble or self._scan or self._queue.backlog or self._scan_at <= now):
            self.is_listed = True
        return seen

    def look_at(self, path: str) -> Seen | None:
        """Look at one file; None: it cannot be told what it says, for now, and what was known of it stays."""
        try:
            return self._look_at(path, closed=False)
        finally:
            self._folder.directory.release()

    def _look_at(self, path: str, *, closed: bool) -> Seen | None:
        reading = self._folder.read(path, closed=closed)
        if isinstance(reading, Busy):
            self._queue.wait_for_writer(path)
            return None
        self._queue.stop_waiting(path)
        if isinstance(reading, Refused):
            if "errno" in reading.error.facts:
                self._not_read[path] = (None, reading.error.message)
                return None
            if self._is_file(path):
                return self._leave_out(path, reading.signature, reading.error.message)
            reading = Absent()  # a directory, say, is in its place
        if isinstance(reading, Absent):
            trouble = self._look_for_trouble()
            if trouble is not None:
                self._be_in_trouble(trouble)
                return None
            self._not_read.pop(path, None)
            return Seen(path, self.files.pop(path, None) is not None)
        return self._read(path, reading)

    def _read(self, path: str, reading: Text) -> Seen | None:
        why, text = "", ""
        try:
            text = reading.data.decode("utf-8-sig")
        except UnicodeDecodeError:
            why = "it is not UTF-8"
        if "\0" in text:
            why = "it has a NUL byte"
        elif not path.isprintable():
            why = "its name cannot be shown"
        elif path not in self.files and len(self.files) >= MAX_FILES:
            self._has_too_many = True
            return None
        if why:
            return self._leave_out(path, reading.signature, why)
        try:
            mtime_ns = reading.signature[0] if reading.signature else self._status(path).st_mtime_ns
        except OSError:  # gone since
            self._queue.add(path)
            return None
        self._not_read.pop(path, None)
        known = self.files.get(path)
        facts = self.files[path] = Facts(reading.signature, len(reading.data), mtime_ns)
        return Seen(path, known is None or known[1:] != facts[1:], facts, text)

    def _leave_out(self, path: str, signature: Signature | None, why: str) -> Seen:
        self._not_read[path] = (signature, why)
        return Seen(path, self.files.pop(path, None) is not None)

    def is_same(self, path: str) -> bool:
        """Whether the file is still what was read of it."""
        facts = self.files.get(path)
        try:
            return facts is not None and facts.signature == signature_of(self._status(path))
        except OSError:
            return False
        finally:
            self._folder.directory.release()

    def _status(self, path: str) -> os.stat_result:
        """The status of a file, or of what a symlink leads to."""
        directory = self._folder.directory
        status = directory.stat(path)
        return directory.stat(resolve(directory, path)) if stat.S_ISLNK(status.st_mode) else status

    def _is_file(self, path: str) -> bool:
        """Return True if there is a regular file or a symlink, or it cannot be told."""
        try:
            mode = self._folder.directory.stat(path).st_mode
        except OSError:
            return True
        return stat.S_ISREG(mode) or stat.S_ISLNK(mode)

    def why_not(self, path: str) -> str:
        """Why a file that is there is not listed; the empty text when there is nothing to say."""
        return self._not_read.get(path, (None, ""))[1]

    # --- scanning ---

    def _scanning(self) -> Iterator[None]:
        """Compare the whole directory with what is known of it, a slice at a time."""
        folder = self._folder
        folder.directory.reopen()  # it may be a symlink that leads elsewhere now
        self._identity = self._identity_now()
        trouble = self._look_for_trouble()
        if trouble is not None:
            self._be_in_trouble(trouble)
            return
        files: dict[str, Signature | None] = {}
        directories: set[str] = set()
        unlisted: set[str] = set()
        for slice_ in _walk(folder.directory):
            for path, kind, signature, _ in slice_:
                if kind == "file":
                    files[path] = signature
                else:
                    (directories if kind == "directory" else unlisted).add(path)
            yield
            if len(files) > MAX_FILES:
                break
        if "" in unlisted:
            self._be_in_trouble(self._look_for_trouble() or self._unreadable())
            return
        known = {path: facts.signature for path, facts in self.files.items()}
        known |= {path: signature for path, (signature, _) in self._not_read.items()}
        changed, unseen = differing(known, files)
        self._has_too_many = len(files) > MAX_FILES
        # Of what is below a directory that was not listed, nothing is known; of what was not reached, too.
        unseen = {path for path in unseen if not any(path.startswith(f"{directory}/") for directory in unlisted)}
        if self._has_too_many:
            unseen = {path for path in unseen if folder.is_absent(path)}
        for path in [*sorted(unseen), *changed]:  # what is gone makes room
            self._queue.add(path)
        self._trouble = None
        self.directories, self._unlisted = directories, unlisted

    def _look_for_trouble(self) -> Problem | None:
        """Why there is no directory to read; None when there is one."""
        try:
            if self._folder.identity() is not None:
                return None
        except OSError:
            return self._unreadable()
        hint = "create it, or mount it; what was last read of it stays until then"
        return self._problem("source_missing", f"there is no directory {printable(self.root)}", hint)

    def _unreadable(self) -> Problem:
        hint = "give the daemon's user the right to read it; what was last read of it stays until then"
        return self._problem("source_unreadable", f"the directory {printable(self.root)} cannot be listed", hint)

    def _be_in_trouble(self, trouble: Problem) -> None:
        """The directory as a whole cannot be read: it is tried again."""
        self._trouble = trouble
        self._scan_at = self._clock() + _RETRY_SECONDS
        self._queue.clear()

    # --- problems ---

    @property
    def subject(self) -> str:
        return f"source {self.name}"

    def _problem(self, code: str, message: str, hint: str, *, warning: bool = False) -> Problem:
        return Problem(self.subject, code, message, hint, warning=warning)

    def problem(self) -> Problem | None:
        """What is wrong with it that matters most; of a first scan that is under way, nothing is said yet."""
        if self._trouble is not None or not self.is_listed:
            return self._trouble
        if self._has_too_many:
            hint = "name a directory with fewer, or make several sources of it"
            return self._problem("too_many_files", f"it has more than {MAX_FILES} files: the others are left out", hint)
        if self._unlisted:
            some = ", ".join(sorted(map(printable, self._unlisted))[:3])
            hint = "give the daemon's user the right to read them; what is below stays as it was"
            return self._problem("unlisted", f"{len(self._unlisted)} of its directories cannot be listed: {some}", hint)
        if self.unwatched:
            hint = "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl)"
            return self._problem("degraded", self.unwatched, hint, warning=True)
        if self._not_read:
            path, (_, why) = min(self._not_read.items())
            others = len(self._not_read) - 1
            more = f", and {others} more" if others else ""
            hint = "only text files are shown to agents"
            return self._problem(
                "warning", f"not all of its files are read: {printable(path)} ({why}){more}", hint, warning=True
            )
        return None


_DONE = object()


def is_path(path: str) -> bool:
    """Whether this could be the path of a file that is listed: printable, and nothing hidden in it, nor `..`."""
    return path.isprintable() and all(segment and not is_ignored(segment) for segment in path.split("/"))


def differing(known: dict[str, Signature | None], found: dict[str, Signature | None]) -> tuple[list[str], set[str]]:
    """Which of the files that were found are not what is known of them, at most `MAX_FILES` in all, and which are missing.

    A signature that proves nothing (None) is no knowledge.
    """
    some = islice(found.items(), MAX_FILES)
    changed = [path for path, signature in some if signature is None or known.get(path) != signature]
    return changed, known.keys() - found.keys()


def _walk(root: Root) -> Iterator[list[Found]]:
    """All that could be a text file below `root`, and the directories, a few hundred at a time. No file is opened."""
    todo = [""]
    found: list[Found] = []
    while todo:
        directory = todo.pop()
        prefix = f"{directory}/" if directory else ""
        try:
            with root.scandir(directory) as entries:
                for entry in entries:
                    if is_ignored(entry.name):
                        continue
                    if len(found) >= _SLICE:
                        yield found
                        found = []
                    path = prefix + entry.name
                    if entry.is_dir(follow_symlinks=False):
                        todo.append(path)
                        found.append(Found(path, "directory"))
                        continue
                    try:
                        status = entry.stat(follow_symlinks=False)
                        if stat.S_ISLNK(status.st_mode):
                            status = root.stat(_led_to(root, path))
                    except OSError:
                        continue
                    if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                        found.append(Found(path, "file", signature_of(status)))
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            found.append(Found(directory, "unreadable", error=error))
    yield found


def _led_to(root: Root, path: str) -> str:
    """Where a symlink leads; that it leads out is seen when it is read, and said then."""
    try:
        return resolve(root, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return path
