"""Reads the text files of one source, when a hint or a scan finds a change. Writes nothing."""

from __future__ import annotations

import stat
from itertools import islice
from typing import TYPE_CHECKING

from blocksd.files.folder import Absent, Busy, Folder, Refused, signature_of
from blocksd.files.links import resolve
from blocksd.model.label import CONFIG_MAP, printable
from blocksd.model.problem import Problem
from blocksd.sources.text_file import Facts, Seen, is_path
from blocksd.sources.walk import walk
from blocksd.state.read_queue import ReadQueue

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator

    from blocksd.files.folder import Signature, Text
    from blocksd.settings.config import SourceSettings
    from blocksd.state.schedule import Schedule

MAX_FILES = 10_000
"""The most files one source may have."""

_RETRY_SECONDS = 1.0
_FILES_AT_ONCE = 64
_BYTES_AT_ONCE = 4 * 1024 * 1024
_NEVER = float("inf")
_DONE = object()


class Source:
    """The text files of one source. Times are of a monotonic clock, in seconds.

    A directory or file that cannot be read is neither absent nor changed: the facts known of it stay.
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
        self.is_listed = False  # it was scanned, and all files found were read
        self.unwatched = ""  # why changes are found late
        self._unreadable: dict[str, tuple[Signature | None, str]] = {}  # path → why
        self._unlisted: set[str] = set()  # directories that could not be listed
        self._has_too_many = False
        self._failure: Problem | None = None
        self._queue = ReadQueue(clock)
        self._scan: Iterator[None] | None = None
        self._scan_at = clock()
        schedule.hasten("sources", self._scan_at)

    @property
    def root(self) -> str:
        return self._folder.root

    @property
    def is_settled(self) -> bool:
        """True if all files have been read, or the directory cannot be."""
        return self.is_listed or self._failure is not None

    # --- hints ---

    def hint_file(self, path: str, *, closed: bool) -> None:
        """Read this file soon; `closed`: its writer was seen to close it."""
        if path.rpartition("/")[2] == CONFIG_MAP:  # one link of a ConfigMap switches all files
            self.hint_all()
        elif is_path(path):
            self._queue.hint(path, closed=closed)
            self._schedule.hasten("sources", self._queue.due)

    def hint_all(self) -> None:
        """Compare the whole directory soon."""
        self._scan_at = self._clock()
        self._schedule.hasten("sources", self._scan_at)

    def check_root(self) -> None:
        """Compare the directory if it is another one than was scanned: no event tells that it was moved."""
        if self._scan is None and self._identity_now() != self._identity:
            self.hint_all()

    def _identity_now(self) -> tuple[int, int] | None:
        """Return the directory's device and inode, wherever links lead; None if they are unknown."""
        try:
            return self._folder.identity()
        except OSError:
            return None

    @property
    def due(self) -> float:
        """The time of the next read or scan."""
        return 0.0 if self._scan is not None else min(self._scan_at, self._queue.due)

    @property
    def is_due(self) -> bool:
        return self.due <= self._clock()

    # --- reading ---

    def read_due(self) -> list[Seen]:
        """Read files that are due, and scan, for a few milliseconds."""
        try:
            return self._read_due()
        finally:
            self._folder.directory.release()  # it may be unmounted

    def _read_due(self) -> list[Seen]:
        now = self._clock()
        self._queue.advance(now)
        if self._scan is None and now >= self._scan_at:
            self._scan_at = _NEVER
            self._scan = self._scanning()
        if self._scan is not None and next(self._scan, _DONE) is _DONE:
            self._scan = None
        seen: list[Seen] = []
        size = 0
        for path in self._queue.first(_FILES_AT_ONCE):
            if size >= _BYTES_AT_ONCE or path not in self._queue:  # the directory has failed since
                break
            one = self._read(path, closed=self._queue.take(path))
            if one is not None:
                seen.append(one)
                size += one.facts.size if one.facts is not None else 0
        if not (self.is_listed or self._failure or self._scan or self._queue.backlog or self._scan_at <= now):
            self.is_listed = True
        return seen

    def read(self, path: str) -> Seen | None:
        """Read one file; None: it cannot be read for now, and the facts known of it stay."""
        try:
            return self._read(path, closed=False)
        finally:
            self._folder.directory.release()

    def _read(self, path: str, *, closed: bool) -> Seen | None:
        reading = self._folder.read(path, closed=closed)
        if isinstance(reading, Busy):
            self._queue.wait_for_writer(path)
            return None
        self._queue.stop_waiting(path)
        if isinstance(reading, Refused):
            if "errno" in reading.error.facts:
                self._unreadable[path] = (None, reading.error.message)
                return None
            if self._is_file(path):
                return self._leave_out(path, reading.signature, reading.error.message)
            reading = Absent()  # a directory, for example, is in its place
        if isinstance(reading, Absent):
            failure = self._find_failure()
            if failure is not None:
                self._fail(failure)
                return None
            self._unreadable.pop(path, None)
            return Seen(path, self.files.pop(path, None) is not None)
        return self._decode(path, reading)

    def _decode(self, path: str, reading: Text) -> Seen | None:
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
        self._unreadable.pop(path, None)
        known = self.files.get(path)
        facts = self.files[path] = Facts(reading.signature, len(reading.data), mtime_ns)
        return Seen(path, known is None or known[1:] != facts[1:], facts, text)

    def _leave_out(self, path: str, signature: Signature | None, why: str) -> Seen:
        self._unreadable[path] = (signature, why)
        return Seen(path, self.files.pop(path, None) is not None)

    def is_same(self, path: str) -> bool:
        """Return True if the file has not changed since it was read."""
        facts = self.files.get(path)
        try:
            return facts is not None and facts.signature == signature_of(self._status(path))
        except OSError:
            return False
        finally:
            self._folder.directory.release()

    def _status(self, path: str) -> os.stat_result:
        """Return the status of a file; of a symlink, that of its target."""
        directory = self._folder.directory
        status = directory.stat(path)
        return directory.stat(resolve(directory, path)) if stat.S_ISLNK(status.st_mode) else status

    def _is_file(self, path: str) -> bool:
        """Return True if there is a regular file or a symlink, or that is unknown."""
        try:
            mode = self._folder.directory.stat(path).st_mode
        except OSError:
            return True
        return stat.S_ISREG(mode) or stat.S_ISLNK(mode)

    def why_not(self, path: str) -> str:
        """Return why a file that exists is not listed; empty: no reason is known."""
        return self._unreadable.get(path, (None, ""))[1]

    # --- scanning ---

    def _scanning(self) -> Iterator[None]:
        """Compare the whole directory with the known facts, a slice at a time."""
        folder = self._folder
        folder.directory.reopen()  # a symlink may lead elsewhere now
        self._identity = self._identity_now()
        failure = self._find_failure()
        if failure is not None:
            self._fail(failure)
            return
        files: dict[str, Signature | None] = {}
        directories: set[str] = set()
        unlisted: set[str] = set()
        for slice_ in walk(folder.directory):
            for path, kind, signature, _ in slice_:
                if kind == "file":
                    files[path] = signature
                else:
                    (directories if kind == "directory" else unlisted).add(path)
            yield
            if len(files) > MAX_FILES:
                break
        if "" in unlisted:
            self._fail(self._find_failure() or self._unreadable_problem())
            return
        known = {path: facts.signature for path, facts in self.files.items()}
        known |= {path: signature for path, (signature, _) in self._unreadable.items()}
        changed, unseen = differing(known, files)
        self._has_too_many = len(files) > MAX_FILES
        # Nothing is known of files below a directory that was not listed, or that were not reached.
        unseen = {path for path in unseen if not any(path.startswith(f"{directory}/") for directory in unlisted)}
        if self._has_too_many:
            unseen = {path for path in unseen if folder.is_absent(path)}
        for path in [*sorted(unseen), *changed]:  # files that are gone make room
            self._queue.add(path)
        self._failure = None
        self.directories, self._unlisted = directories, unlisted

    def _find_failure(self) -> Problem | None:
        """Return why there is no directory to read; None: there is one."""
        try:
            if self._folder.identity() is not None:
                return None
        except OSError:
            return self._unreadable_problem()
        hint = "create it, or mount it; until then agents see what was last read"
        return self._problem("source_missing", f"there is no directory {printable(self.root)}", hint)

    def _unreadable_problem(self) -> Problem:
        hint = "give the daemon's user the right to read it; until then agents see what was last read"
        return self._problem("source_unreadable", f"the directory {printable(self.root)} cannot be listed", hint)

    def _fail(self, failure: Problem) -> None:
        """Record that the whole directory cannot be read, and retry later."""
        self._failure = failure
        self._scan_at = self._clock() + _RETRY_SECONDS
        self._queue.clear()

    # --- problems ---

    @property
    def subject(self) -> str:
        return f"source {self.name}"

    def _problem(self, code: str, message: str, hint: str, *, warning: bool = False) -> Problem:
        return Problem(self.subject, code, message, hint, warning=warning)

    def problem(self) -> Problem | None:
        """Return the problem that matters most; None while the first scan is under way."""
        if self._failure is not None or not self.is_listed:
            return self._failure
        if self._has_too_many:
            hint = "name a directory with fewer files, or split it into several sources"
            return self._problem("too_many_files", f"it has more than {MAX_FILES} files: the others are left out", hint)
        if self._unlisted:
            some = ", ".join(sorted(map(printable, self._unlisted))[:3])
            hint = "give the daemon's user the right to read them; the files below stay as they were"
            return self._problem("unlisted", f"{len(self._unlisted)} of its directories cannot be listed: {some}", hint)
        if self.unwatched:
            hint = "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl)"
            return self._problem("degraded", self.unwatched, hint, warning=True)
        if self._unreadable:
            path, (_, why) = min(self._unreadable.items())
            others = len(self._unreadable) - 1
            more = f", and {others} more" if others else ""
            hint = "only text files are shown to agents"
            return self._problem(
                "warning", f"not all of its files are read: {printable(path)} ({why}){more}", hint, warning=True
            )
        return None


def differing(known: dict[str, Signature | None], found: dict[str, Signature | None]) -> tuple[list[str], set[str]]:
    """Return the found files that differ from the known ones, at most `MAX_FILES`, and the known ones that are missing.

    A signature of None proves nothing, so its file differs.
    """
    some = islice(found.items(), MAX_FILES)
    changed = [path for path, signature in some if signature is None or known.get(path) != signature]
    return changed, known.keys() - found.keys()
