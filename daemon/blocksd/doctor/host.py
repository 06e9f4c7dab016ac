"""Facts about this machine, the folder and the state directory that a daemon depends on."""

from __future__ import annotations

import grp
import os
import pwd
import re
import resource
import secrets
import select
import sqlite3
import stat
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from blocksd.errors import JournalUnusable
from blocksd.files.folder import Folder
from blocksd.files.inotify import CLOSE_WRITE, Inotify
from blocksd.files.root import Root
from blocksd.follow.marker import NAME as MARKER
from blocksd.journal.database import quick_check, read_only
from blocksd.journal.history import JournalReader
from blocksd.model.label import TEMPORARY
from blocksd.settings.record import running_daemon
from blocksd.state.folder_match import match_folder

if TYPE_CHECKING:
    from blocksd.settings.config import Config
    from blocksd.state.folder_match import Match

CHECK_SECONDS = 5.0
"""How long the check of the journal may take."""

_EVENT_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Disk:
    """A file system. The space is what an ordinary user has left.

    `kind` is its type as the kernel names it, empty if that is unknown, as in a chroot without mounts. `free_files` is
    None where their number has no bound.
    """

    kind: str
    mount: str
    free_bytes: int
    free_files: int | None


@dataclass(frozen=True, slots=True)
class Place:
    """A directory. `nearest` is the directory itself, or, if it is missing, the nearest one above it.

    `disk` and `rights`, those of `rwx` that this user has, are those of `nearest`.
    """

    path: str
    kind: Literal["directory", "missing", "other"]
    nearest: str
    rights: str
    disk: Disk
    mode: int = 0
    group: str = ""
    is_shared: bool = False  # its group has other members


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of making, syncing and exchanging two files in a directory.

    `error` is why that failed, `sync_seconds` how long fsync took. `is_noticed` is True if an event came, None if events
    could not be tried.
    """

    error: str = ""
    sync_seconds: float = 0.0
    can_exchange: bool = False
    is_noticed: bool | None = None


@dataclass(frozen=True, slots=True)
class JournalState:
    """The state of a journal file. `error`: why it cannot be read. `damage`: what is wrong with it, None if unknown."""

    error: str = ""
    newest_at: str = ""
    damage: str | None = ""


@dataclass(frozen=True, slots=True)
class Host:
    """All facts. `daemon_user` is the user that runs the daemon of this state directory, if one runs."""

    user: str
    folder: Place
    state: Place
    open_files: tuple[int, int]  # the soft and the hard limit
    daemon_user: str | None = None
    folder_trial: Trial | None = None
    state_trial: Trial | None = None
    journal: JournalState | None = None
    other_folder: Match | None = None  # the journal is of another folder
    is_copy: bool = False  # the folder is a follower's


def look(config: Config) -> Host:
    """Collect all facts. Files that are made for a trial are removed again."""
    record = running_daemon(config.state)
    folder, state = place_of(config.folder), place_of(config.state)
    journal = os.path.join(config.state, "journal.db")
    return Host(
        user=_name_of(os.geteuid()),
        folder=folder,
        state=state,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE),
        daemon_user=_user_of(int(record["pid"])) if record is not None else None,
        folder_trial=_trial(folder),
        state_trial=_trial(state),
        journal=journal_state(journal) if os.path.exists(journal) else None,
        other_folder=_other_folder(journal, folder),
        is_copy=os.path.exists(os.path.join(config.folder, MARKER)),
    )


def _other_folder(path: str, folder: Place) -> Match | None:
    """Return how little the folder has of the blocks in the journal, if that is of another folder."""
    if folder.kind != "directory":
        return None
    # Without a journal, or if `journal_state` tells what is wrong with it, nothing is said here.
    with suppress(JournalUnusable), closing(JournalReader(path)) as journal:
        return match_folder(journal, Folder(folder.path))
    return None


def _user_of(pid: int) -> str | None:
    with suppress(OSError):
        return _name_of(os.stat(f"/proc/{pid}").st_uid)
    return None


def _name_of(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _trial(place: Place) -> Trial | None:
    return try_out(place.path) if place.kind == "directory" and place.rights == "rwx" else None


def place_of(path: str) -> Place:
    """Return the facts about the directory at `path`."""
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
    group, members = str(status.st_gid), []
    with suppress(KeyError):  # a group without a name
        entry = grp.getgrgid(status.st_gid)
        group, members = entry.gr_name, entry.gr_mem
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


def _disk(path: str) -> Disk:
    mounts = ""
    with suppress(OSError):
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    mount, kind = mount_of(path, mounts)
    free = os.statvfs(path)
    return Disk(kind, mount, free.f_bavail * free.f_frsize, free.f_favail if free.f_files else None)


def mount_of(path: str, mountinfo: str) -> tuple[str, str]:
    """Return the mount point and the type of a path's file system, from the kernel's list (proc(5)).

    Of mounts over one another the last counts. Two empty texts: the list does not have it.
    """
    found = ("", "")
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        mount = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        if len(mount) >= len(found[0]) and f"{path}/".startswith(mount.rstrip("/") + "/"):
            found = (mount, after.split(" ")[0])
    return found


def try_out(directory: str) -> Trial:
    """Make two files in a directory, as the daemon does when it writes. Their names are not those of blocks."""
    one, other = (os.path.join(directory, f"{TEMPORARY}{secrets.token_hex(8)}") for _ in range(2))
    events = _events_of(directory)
    try:
        seconds = max(map(_make, (one, other)))
        can_exchange = Root(directory).can_exchange(*map(os.path.basename, (one, other)))
        return Trial("", seconds, can_exchange, _is_noticed(events, os.path.basename(one)))
    except OSError as error:
        return Trial(os.strerror(error.errno or 0))
    finally:
        if events is not None:
            events.close()
        for path in (one, other):
            with suppress(OSError):
                os.unlink(path)


def _make(path: str) -> float:
    """Make a file, and return how many seconds fsync took."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(handle, b"blocksd doctor\n")
        begun = time.monotonic()
        os.fsync(handle)
        return time.monotonic() - begun
    finally:
        os.close(handle)


def _events_of(directory: str) -> Inotify | None:
    """Return what tells of files that are closed in a directory; None if a limit of inotify is reached."""
    with suppress(OSError):
        events = Inotify()
        try:
            events.add(os.fsencode(directory), CLOSE_WRITE)
        except OSError:
            events.close()
        else:
            return events
    return None


def _is_noticed(events: Inotify | None, name: str) -> bool | None:
    """Return True if an event tells that a file was closed; None if there are no events."""
    deadline = time.monotonic() + _EVENT_SECONDS
    while events is not None and select.select([events.handle], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if any(one.name == os.fsencode(name) for one in events.read()):
            return True
    return None if events is None else False


def journal_state(path: str) -> JournalState:
    """Return the state of a journal, checked for `CHECK_SECONDS` at most."""
    try:
        with closing(sqlite3.connect(read_only(path), uri=True, timeout=1.0)) as db:
            # Prepared revisions are not in force. Journals of earlier schemas keep them in another table, and have no such view.
            has_view = db.execute("SELECT 1 FROM sqlite_schema WHERE type = 'view' AND name = 'in_force'").fetchone()
            log = "in_force" if has_view else "revisions"
            newest = db.execute(f"SELECT at FROM {log} ORDER BY seq DESC LIMIT 1")  # noqa: S608  # one of two constants
            (newest_at,) = newest.fetchone() or ("",)
            found = quick_check(db, CHECK_SECONDS)
            return JournalState("", newest_at, "" if found == "ok" else found)
    except sqlite3.Error as error:
        return JournalState(str(error))
