"""Checks of this machine, the folder and the state directory: pure functions from facts to findings."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING

from blocksd.doctor.finding import Finding, size
from blocksd.model.problem import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.doctor.host import JournalState, Place, Trial
    from blocksd.state.folder_match import Match

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "fuse.sshfs", "fuse.glusterfs")
_SHARED = ("fuse", "fuseblk", "virtiofs", "vboxsf", "vmhgfs", "prl_fs")  # with another system, or provided by a program
_FLEETING = ("tmpfs", "ramfs")

_LITTLE_SPACE = (16 * 2**20, 256 * 2**20)  # bytes: wrong, warning
_FEW_FILES = (100, 10_000)
_SLOW_SYNC_SECONDS = 0.1
_OPEN_FILES = 256
_CLIENTS = 1000  # fewer that an embedded server takes are a warning
_OWN_FILES = 32  # a Redis server keeps for itself
_CLOCK_SECONDS = 2.0

_POLL = "set 'poll = true' in blocksd.toml, or run the daemon with --poll"


def user(ours: str, daemon: str | None) -> Iterator[Finding]:
    if daemon not in (None, ours):
        yield Finding(
            "program.user",
            "warning",
            f"the daemon runs as user {daemon}, but these checks ran as user {ours}",
            f"run it as the daemon's user: 'sudo -u {daemon} blocksd doctor …'",
        )


# --- the folder ---


def folder_access(place: Place) -> Finding:
    check = "folder.access"
    if place.kind == "missing":
        return Finding(
            check,
            "wrong",
            f"there is no folder {place.path}",
            f"'mkdir {shlex.quote(place.path)}', or name another: 'blocksd doctor FOLDER', 'folder' in blocksd.toml",
        )
    if place.kind == "other":
        return Finding(check, "wrong", f"{place.path} is no directory", "name another as 'folder' in blocksd.toml")
    if not {"r", "x"} <= set(place.rights):
        return Finding(check, "wrong", f"{place.path} cannot be read", _give(place, "rwX"))
    if "w" not in place.rights:
        return Finding(
            check,
            "warning",
            f"{place.path} can be read, but not written: requests of agents are refused",
            f"to let agents write: {_give(place, 'rwX')}",
        )
    return Finding(check, "ok", f"{place.path} can be read and written")


def folder_sharing(place: Place) -> Iterator[Finding]:
    is_for_group = place.mode & 0o020 and place.is_shared
    if place.kind == "directory" and is_for_group and not place.mode & 0o2000:
        yield Finding(
            "folder.sharing",
            "warning",
            f"the group {place.group} may write, but a new file gets the group of the user who makes it",
            f"'chmod g+s {shlex.quote(place.path)}', and the same for the directories in it: then a new file gets this group",
        )


def folder_events(place: Place, trial: Trial | None, *, polls: bool) -> Iterator[Finding]:
    check, kind = "folder.events", place.disk.kind
    where = f"the folder is on {kind or 'a file system of unknown type'}"
    if place.kind != "directory":
        return
    if polls:
        yield Finding(check, "ok", "the daemon polls, and needs no file events")
    elif kind in _NETWORK:
        yield Finding(check, "warning", f"{where}: changes by other machines give no file events", _POLL)
    elif trial is not None and trial.is_noticed is False:
        yield Finding(check, "wrong", f"{where}, and a new file gave no file event", _POLL)
    elif _is_shared(kind):
        yield Finding(check, "warning", f"{where}: changes from outside may give no file events", _POLL)
    elif trial is None or trial.is_noticed is None:
        yield Finding(check, "unknown", f"{where}; file events could not be tried")
    else:
        yield Finding(check, "ok", f"{where}, and changes give file events")


def folder_writing(place: Place, trial: Trial | None) -> Iterator[Finding]:
    check = "folder.writing"
    if trial is None:
        return
    if trial.error:
        yield Finding(check, "wrong", f"no file can be written in {place.path}: {trial.error}", _disk_advice(place))
    elif not trial.can_exchange:
        yield Finding(
            check,
            "warning",
            f"the file system{f' {place.disk.kind}' if place.disk.kind else ''} cannot exchange two files in one step: a save "
            "at the moment of an agent's write can be lost",
            "keep the folder on a local file system such as ext4, xfs or btrfs",
        )
    else:
        yield _synced(check, "files are exchanged in one step", trial)


def space(check: str, place: Place) -> Finding:
    """Check the space left on a file system: bytes, and files."""
    disk = place.disk
    where = f"on {disk.mount or place.nearest}"
    for free, (least, few), text in (
        (disk.free_bytes, _LITTLE_SPACE, f"{size(disk.free_bytes)} are left {where}"),
        (disk.free_files, _FEW_FILES, f"room for {count(disk.free_files or 0, 'file')} is left {where}"),
    ):
        if free is not None and free < few:
            return Finding(check, "wrong" if free < least else "warning", text, "free some space, or use another disk")
    return Finding(check, "ok", f"{size(disk.free_bytes)} are left {where}")


# --- the state directory ---


def state_access(place: Place) -> Finding:
    check, has_all = "state.access", set("rwx") <= set(place.rights)
    other = "name another with --state-dir, or as 'state_dir' in blocksd.toml"
    if place.kind == "other":
        return Finding(check, "wrong", f"{place.path} is no directory", other)
    if place.kind == "missing":
        if has_all:
            return Finding(check, "ok", f"{place.path} is made at the first start")
        return Finding(check, "wrong", f"{place.path} cannot be made in {place.nearest}", other)
    if not has_all:
        return Finding(check, "wrong", f"{place.path} cannot be read and written", f"{_give(place, 'rwX')}, or {other}")
    return Finding(check, "ok", f"{place.path} can be read and written")


def state_folder(place: Place, other: Match | None) -> Iterator[Finding]:
    if other is not None:
        error = other.error(place.path)
        yield Finding("state.folder", "wrong", error.message, str(error.facts["hint"]))


def state_private(place: Place) -> Iterator[Finding]:
    if place.kind == "directory" and place.mode & 0o077:
        yield Finding(
            "state.private",
            "warning",
            f"other users may look into {place.path} (mode {place.mode:o})",
            f"chmod 700 {shlex.quote(place.path)}",
        )


def state_disk(place: Place) -> Finding:
    check, path, kind = "state.disk", place.path, place.disk.kind
    elsewhere = "keep it on a local disk: --state-dir, or 'state_dir' in blocksd.toml"
    if kind in _NETWORK:
        return Finding(check, "wrong", f"{path} is on {kind}, where a journal is not safe", elsewhere)
    if kind in _FLEETING:
        return Finding(check, "warning", f"{path} is on {kind}: the history is lost at a reboot", elsewhere)
    if kind == "overlay":
        message = f"{path} is in the layer of a container: the history is lost with the container"
        return Finding(check, "warning", message, "mount a volume there")
    if _is_shared(kind):
        return Finding(check, "warning", f"{path} is on {kind}, where a journal may not be safe", elsewhere)
    if not kind:
        return Finding(check, "unknown", f"the kernel does not say on what file system {path} is")
    return Finding(check, "ok", f"the state directory is on {kind}")


def state_writing(place: Place, trial: Trial | None) -> Iterator[Finding]:
    if trial is not None and trial.error:
        yield Finding(
            "state.writing", "wrong", f"no file can be written in {place.path}: {trial.error}", _disk_advice(place)
        )
    elif trial is not None:
        yield _synced("state.writing", "files are written", trial)


def journal(state: JournalState | None, *, is_copy: bool = False) -> Finding:
    check = "state.journal"
    if state is None:
        why = "a promotion" if is_copy else "the first start"
        return Finding(check, "ok", f"there is no journal yet: {why} makes one")
    if state.error:
        return Finding(
            check,
            "wrong",
            f"the journal cannot be read: {state.error}",
            "correct its rights; if it is damaged, the next start keeps it aside and begins a new one",
        )
    if state.damage is None:
        return Finding(
            check,
            "unknown",
            "the journal is too large to be checked in a few seconds",
            "when the daemon is stopped: sqlite3 journal.db 'PRAGMA quick_check', in the state directory",
        )
    if state.damage:
        return Finding(
            check,
            "wrong",
            f"the journal is damaged: {state.damage}",
            "stop the daemon and move journal.db away: the next start begins a new one from the folder; "
            '"sqlite3 journal.db .recover" may save the history',
        )
    return Finding(check, "ok", "the journal is sound")


# --- limits ---


def open_files(soft: int, hard: int, *, has_own_server: bool) -> Finding:
    check = "limits.files"
    raised = "raise it: 'ulimit -n', or LimitNOFILE= in the service's unit"
    if 0 <= soft < _OPEN_FILES:
        return Finding(check, "wrong", f"only {soft} files may be open at once", raised)
    if has_own_server and 0 <= hard < _CLIENTS + _OWN_FILES:
        clients = max(0, hard - _OWN_FILES)
        return Finding(check, "warning", f"the embedded server takes no more than {count(clients, 'client')}", raised)
    return Finding(check, "ok", f"{soft if soft >= 0 else 'any number of'} files may be open at once")


# --- clocks ---


def journal_clock(state: JournalState | None, now: float) -> Iterator[Finding]:
    if state is None or not state.newest_at:
        return
    ahead = datetime.fromisoformat(state.newest_at).timestamp() - now
    if ahead > _CLOCK_SECONDS:
        yield Finding(
            "clock.journal",
            "warning",
            f"the newest revision is {ahead:.0f} s in the future: the clock was set back",
            "'timedatectl set-ntp true', and 'date' to see whether it is right now",
        )
    else:
        yield Finding("clock.journal", "ok", "no revision is in the future")


# --- words ---


def _is_shared(kind: str) -> bool:
    return kind.partition(".")[0] in _SHARED


def _synced(check: str, done: str, trial: Trial) -> Finding:
    text = f"{done}, and are on disk after {trial.sync_seconds * 1000:.1f} ms"
    if trial.sync_seconds > _SLOW_SYNC_SECONDS:
        advice = "use a faster disk, or set 'durability = \"process\"' in blocksd.toml"
        return Finding(check, "warning", f"{text}, which every write of an agent waits for", advice)
    return Finding(check, "ok", text)


def _give(place: Place, rights: str) -> str:
    """Return how to give the daemon's user rights to a directory and what is in it, as setfacl(1) writes them."""
    return f"as its owner: 'setfacl -R -m u:USER:{rights} {shlex.quote(place.path)}', or chown, chmod"


def _disk_advice(place: Place) -> str:
    return f"check whether {place.disk.mount or place.path} is full, read-only or failing: 'df', 'mount', 'dmesg'"
