"""What can be seen of this machine, the folder and the state directory, as far as a daemon depends on it."""

from __future__ import annotations

import ctypes
import glob
import grp
import os
import pwd
import re
import resource
import secrets
import select
import socket
import sqlite3
import stat
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from blocksd.files.folder import Folder
from blocksd.files.root import Root
from blocksd.files.watcher import inotify_limit
from blocksd.model.label import TEMPORARY
from blocksd.service.lock import holder
from blocksd.service.machine import folder_id, machine_id
from blocksd.settings.config import unknown_variables
from blocksd.settings.record import running_daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blocksd.settings.config import Config, SourceSettings

CHECK_SECONDS = 5.0
"""For how long the journal is checked, and directories are counted."""

_EVENT_SECONDS = 1.0
_IN_CLOSE_WRITE = 0x8
_UNSYNCHRONIZED = 5  # what adjtimex(2) says of a clock that nobody keeps: TIME_ERROR

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Library:
    """A package blocksd needs: which versions (as `<8,>=7.1`), and the one that is installed."""

    name: str
    wanted: str
    installed: str | None


@dataclass(frozen=True, slots=True)
class Program:
    """What runs blocksd."""

    python: tuple[int, ...]
    sqlite: tuple[int, ...]
    libraries: tuple[Library, ...]


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system: its type as the kernel names it, where it is mounted, and what an ordinary user has left of it.

    `free_files` is None where their number has no bound.
    """

    kind: str
    mount: str
    free_bytes: int
    free_files: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """A directory. `rights`, those of `rwx` that this user has, and `disk` are those of `nearest`: the directory itself,
    or, while there is none, the nearest one above it.
    """

    path: str
    kind: Literal["directory", "missing", "other"]
    nearest: str
    rights: str
    disk: Disk
    mode: int = 0
    group: str = ""
    is_shared: bool = False  # its group is for more than its owner


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of making, syncing and exchanging two files in a directory.

    `error` is why that cannot be done; `sync_seconds` is how long fsync took; `is_noticed` whether an event came, None
    where none could be waited for.
    """

    error: str = ""
    sync_seconds: float = 0.0
    can_exchange: bool = False
    is_noticed: bool | None = None


@dataclass(frozen=True, slots=True)
class Tree:
    """How many directories are in one, itself included; how many cannot be listed; whether all of them were counted."""

    directories: int
    unlisted: int = 0
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class SourcePlace:
    """A file source; `mistake` is what is wrong with its settings, and then it has no place."""

    name: str
    mistake: str = ""
    place: Place | None = None
    tree: Tree | None = None


@dataclass(frozen=True, slots=True)
class Inotify:
    """The limits of each user's inotify watches and instances, and what this user's other programs have of them.

    None: the kernel does not say.
    """

    max_watches: int | None
    max_instances: int | None
    watches: int = 0
    instances: int = 0


@dataclass(frozen=True, slots=True)
class JournalState:
    """The journal as it lies there. `error`: why it cannot be read. `damage`: what is wrong with it, None: not known."""

    error: str = ""
    schema: int = 0
    epoch: str = ""
    newest_at: str = ""
    damage: str | None = ""


@dataclass(frozen=True, slots=True)
class Running:
    """The daemon of this state directory: who runs it (empty: it cannot be told), and what it serves, as it says."""

    pid: int
    user: str
    folder: str


@dataclass(frozen=True, slots=True)
class Host:
    """All of it. `folder_holder` and `state_holder` are the processes that have locked the two."""

    name: str
    user: str
    program: Program
    folder: Place
    state: Place
    sources: tuple[SourcePlace, ...]
    inotify: Inotify
    open_files: tuple[int, int]  # the soft and the hard limit
    clock_is_kept: bool | None
    running: Running | None = None
    folder_holder: int | None = None
    state_holder: int | None = None
    folder_trial: Trial | None = None
    state_trial: Trial | None = None
    tree: Tree | None = None
    journal: JournalState | None = None
    set_aside: tuple[str, ...] = ()
    machine: str = ""  # its id in this boot, and that of the folder; empty where it cannot be told
    folder_id: str = ""
    unknown_variables: tuple[str, ...] = ()  # a sentence for each that looks like a setting and is none


def look(config: Config) -> Host:
    """Look at everything. What is made for that, in the folder and in the state directory, is removed again."""
    record = running_daemon(config.state)
    running = _running(int(record["pid"]), record["folder"]) if record is not None else None
    folder, state = place_of(config.folder), place_of(config.state)
    journal = os.path.join(config.state, "journal.db")
    return Host(
        name=socket.gethostname(),
        user=_name_of(os.geteuid()),
        program=program(),
        folder=folder,
        state=state,
        sources=tuple(map(_source_place, config.sources)),
        inotify=_inotify(os.geteuid(), except_for=running.pid if running else None),
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        clock_is_kept=_clock_is_kept(),
        running=running,
        folder_holder=_holder(folder.path),
        state_holder=_holder(os.path.join(state.path, "lock")),
        folder_trial=_trial(folder),
        state_trial=_trial(state),
        tree=_tree(folder),
        journal=journal_state(journal) if os.path.exists(journal) else None,
        set_aside=tuple(sorted(name for name in glob.glob(f"{glob.escape(journal)}.damaged-*") if name[-1].isdigit())),
        machine=machine_id(),
        folder_id=_folder_id(folder.path),
        unknown_variables=tuple(unknown_variables(os.environ)),
    )


def _folder_id(path: str) -> str:
    with suppress(OSError):
        return folder_id(os.stat(path))
    return ""


def _running(pid: int, folder: str) -> Running:
    user = _user_of(pid)
    return Running(pid, _name_of(user) if user is not None else "", folder)


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _source_place(source: SourceSettings) -> SourcePlace:
    if source.mistake:
        return SourcePlace(source.name, source.mistake)
    place = place_of(source.path)
    return SourcePlace(source.name, "", place, _tree(place))


def _holder(path: str) -> int | None:
    with suppress(OSError):
        return holder(os.stat(path))
    return None


def _trial(place: Place) -> Trial | None:
    return try_out(place.path) if place.kind == "directory" and place.rights == "rwx" else None


def _tree(place: Place) -> Tree | None:
    return tree_of(place.path) if place.kind == "directory" else None


def program() -> Program:
    """The interpreter that runs this, and the libraries it has."""
    libraries = []
    requirements: list[str] = []
    with suppress(metadata.PackageNotFoundError):  # not installed, but run where it lies
        requirements = metadata.requires("blocksd") or []
    for text in requirements:
        found = re.fullmatch(r"([\w.-]+)([^;]*)", text)  # what has a marker is an extra's
        if found is not None:
            try:
                installed = metadata.version(found[1])
            except metadata.PackageNotFoundError:
                installed = None
            libraries.append(Library(found[1], found[2], installed))
    return Program(sys.version_info[:3], sqlite3.sqlite_version_info, tuple(libraries))


def place_of(path: str) -> Place:
    """What is at `path`."""
    path = os.path.realpath(path)
    kind: Literal["directory", "missing", "other"] = (
        "directory" if os.path.isdir(path) else "other" if os.path.lexists(path) else "missing"
    )
    nearest = path
    while not os.path.isdir(nearest):
        nearest = os.path.dirname(nearest)
    modes = {"r": os.R_OK, "w": os.W_OK, "x": os.X_OK}
    rights = "".join(right for right, mode in modes.items() if os.access(nearest, mode))
    status = os.stat(nearest)
    group, members = _group(status.st_gid)
    return Place(
        path,
        kind,
        nearest,
        rights,
        _disk(nearest),
        mode=stat.S_IMODE(status.st_mode),
        group=group,
        is_shared=bool(members),
    )


def _group(number: int) -> tuple[str, list[str]]:
    """The name of a group, and its members besides those whose own it is."""
    try:
        entry = grp.getgrgid(number)
    except KeyError:
        return str(number), []
    return entry.gr_name, entry.gr_mem


def _disk(path: str) -> Disk:
    mounts = ""
    with suppress(OSError):
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    mount, kind = mount_of(path, mounts)
    free = os.statvfs(path)
    return Disk(kind, mount, free.f_bavail * free.f_frsize, free.f_favail if free.f_files else None)


def mount_of(path: str, mountinfo: str) -> tuple[str, str]:
    """Where the file system of an absolute path is mounted, and its type, by what the kernel lists (proc(5)).

    Of mounts over one another the last counts. Two empty texts: it cannot be told.
    """
    found = ("", "")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        if len(mount) >= len(found[0]) and f"{path}/".startswith(mount.rstrip("/") + "/"):
            found = (mount, after.split(" ")[0])
    return found


def try_out(directory: str) -> Trial:
    """Make two files in a directory, as the daemon does when it writes; nobody takes them for blocks."""
    one, other = (os.path.join(directory, f"{TEMPORARY}{secrets.token_hex(8)}") for _ in range(2))
    try:
        with _listening(directory) as is_noticed:
            seconds = [_make(path) for path in (one, other)]
            return Trial(
                "",
                max(seconds),
                Root(directory).can_exchange(*map(os.path.basename, (one, other))),
                is_noticed(os.path.basename(one)),
            )
    except OSError as error:
        return Trial(os.strerror(error.errno or 0))
    finally:
        for path in (one, other):
            with suppress(OSError):
                os.unlink(path)


def _make(path: str) -> float:
    """Make a file; how many seconds it took to get it onto the disk."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, b"blocksd doctor\n")
        begun = time.monotonic()
        os.fsync(handle)
        return time.monotonic() - begun
    finally:
        os.close(handle)


@contextmanager
def _listening(directory: str) -> Iterator[Callable[[str], bool | None]]:
    """Listen to a directory's events; what is given tells whether a file of this name was seen to be closed."""
    handle = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if handle < 0:  # the limits say why
        yield lambda _: None
        return
    try:
        if _libc.inotify_add_watch(handle, os.fsencode(directory), _IN_CLOSE_WRITE) < 0:
            yield lambda _: None
            return

        def is_noticed(name: str) -> bool:
            deadline = time.monotonic() + _EVENT_SECONDS
            while select.select([handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
                if os.fsencode(name) in os.read(handle, 65536):
                    return True
            return False

        yield is_noticed
    finally:
        os.close(handle)


def tree_of(path: str) -> Tree:
    """The directories that are watched when `path` is."""
    deadline = time.monotonic() + CHECK_SECONDS
    directories, unlisted = 1, 0
    for found in Folder(path).sweep():
        directories += sum(one.kind == "directory" for one in found)
        unlisted += sum(one.kind == "unreadable" for one in found)
        if time.monotonic() > deadline:
            return Tree(directories, unlisted, is_whole=False)
    return Tree(directories, unlisted)


def _inotify(user: int, *, except_for: int | None) -> Inotify:
    watches = instances = 0
    for pid in os.listdir("/proc"):
        if pid.isdecimal() and int(pid) != except_for and _user_of(int(pid)) == user:
            for watched in _watched_by(pid):
                instances += 1
                watches += watched
    return Inotify(inotify_limit("max_user_watches"), inotify_limit("max_user_instances"), watches, instances)


def _watched_by(pid: str) -> Iterator[int]:
    """The number of watches of each inotify instance of a process, as far as it may be seen."""
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as handles:
        for handle in handles:
            with suppress(OSError):
                if os.readlink(handle.path) == "anon_inode:inotify":
                    info = Path(f"/proc/{pid}/fdinfo/{handle.name}").read_text(encoding="ascii")
                    yield info.count("inotify wd:")


def _user_of(pid: int) -> int | None:
    """Who runs a process; None: nobody, it is gone."""
    with suppress(OSError):
        return os.stat(f"/proc/{pid}").st_uid
    return None


def _clock_is_kept() -> bool | None:
    """Whether the kernel knows its clock to be synchronized; None: it does not say."""
    state = _libc.adjtimex(ctypes.create_string_buffer(1024))  # all zero: nothing is set
    return None if state < 0 else state != _UNSYNCHRONIZED


def journal_state(path: str) -> JournalState:
    """What a journal is like, looked at for no longer than `CHECK_SECONDS`."""
    db = None
    try:
        db = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=1.0)
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        (epoch,) = db.execute("SELECT value FROM meta WHERE key = 'epoch'").fetchone() or ("",)
        # What is prepared is not in force; journals of earlier schemas keep it in another table, and have no such view.
        is_view_there = db.execute("SELECT 1 FROM sqlite_schema WHERE type = 'view' AND name = 'in_force'").fetchone()
        log = "in_force" if is_view_there else "revisions"
        newest = db.execute(f"SELECT at FROM {log} ORDER BY seq DESC LIMIT 1")  # noqa: S608  # one of two constants
        (newest_at,) = newest.fetchone() or ("",)
        deadline = time.monotonic() + CHECK_SECONDS
        db.set_progress_handler(lambda: int(time.monotonic() > deadline), 100_000)
        return JournalState("", schema, str(epoch), newest_at, _damage(db))
    except sqlite3.Error as error:
        return JournalState(str(error))
    finally:
        if db is not None:
            db.close()


def _damage(db: sqlite3.Connection) -> str | None:
    try:
        (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            return None
        raise
    return "" if found == "ok" else str(found)
