"""Whether this machine, the folder and the state directory are fit for a daemon, and what to change: facts in, findings out."""

from __future__ import annotations

import shlex
from datetime import datetime
from typing import TYPE_CHECKING

from blocksd.doctor.finding import Finding, dotted, numbers, size
from blocksd.journal.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.doctor.host import Inotify, JournalState, Library, Place, Program, Running, SourcePlace, Tree, Trial
    from blocksd.settings.config import Config

_OLDEST_PYTHON = (3, 11)
_OLDEST_SQLITE = (3, 37)  # the first with STRICT tables

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "fuse.sshfs", "fuse.glusterfs")
_SHARED = ("fuse", "fuseblk", "virtiofs", "vboxsf", "vmhgfs", "prl_fs")  # with another system, or made by a program
_FLEETING = ("tmpfs", "ramfs")

_LITTLE_SPACE = (16 * 2**20, 256 * 2**20)  # bytes: wrong, warning
_FEW_FILES = (100, 10_000)
_SLOW_SYNC_SECONDS = 0.1
_FULL = 0.9
_OPEN_FILES = 256
_CLIENTS = 10_000  # that a Redis server takes unless its limit of open files is lower
_OWN_FILES = 32  # that it keeps for itself
_CLOCK_SECONDS = 2.0

_POLL = "set 'poll = true' in blocksd.toml, or run the daemon with --poll"


# --- what runs blocksd ---


def python(program: Program) -> Finding:
    version = dotted(program.python)
    if program.python < _OLDEST_PYTHON:
        return Finding(
            "program.python",
            "wrong",
            f"Python {version} is older than {dotted(_OLDEST_PYTHON)}",
            f"install blocksd with a newer one: 'python{dotted(_OLDEST_PYTHON)} -m venv', or 'pipx install --python'",
        )
    return Finding("program.python", "ok", f"Python {version}")


def sqlite(program: Program) -> Finding:
    version = dotted(program.sqlite)
    if program.sqlite < _OLDEST_SQLITE:
        return Finding(
            "program.sqlite",
            "wrong",
            f"SQLite {version} cannot keep the journal, which needs {dotted(_OLDEST_SQLITE)}",
            "install blocksd with a Python that has a newer SQLite: \"python -c 'import sqlite3; "
            "print(sqlite3.sqlite_version)'\" says which it has",
        )
    return Finding("program.sqlite", "ok", f"SQLite {version}")


def libraries(program: Program) -> Iterator[Finding]:
    fitting = [library for library in program.libraries if fits(library.installed, library.wanted)]
    for library in program.libraries:
        if library not in fitting:
            yield _unfit(library)
    if fitting:
        yield Finding(
            "program.libraries", "ok", ", ".join(f"{library.name} {library.installed}" for library in fitting)
        )


def _unfit(library: Library) -> Finding:
    is_there = f"{library.name} {library.installed}" if library.installed else f"no {library.name}"
    return Finding(
        "program.libraries",
        "wrong",
        f"{is_there} is installed, and {library.wanted} is needed",
        f"pip install '{library.name}{library.wanted}'",
    )


def fits(version: str | None, wanted: str) -> bool:
    """Whether a version is among those wanted: `>=` and `<` with a number, joined with commas."""
    has = numbers(version or "")
    parts = [part.strip() for part in wanted.split(",")]
    return bool(has) and all(
        has >= numbers(part[2:]) if part.startswith(">=") else has < numbers(part[1:]) for part in parts
    )


def user(ours: str, running: Running | None) -> Iterator[Finding]:
    if running is not None and running.user not in ("", ours):
        yield Finding(
            "program.user",
            "warning",
            f"the daemon runs as user {running.user}, and what follows was tried as user {ours}",
            f"run it as the daemon's user: 'sudo -u {running.user} blocksd doctor …'",
        )


# --- settings and folder ---


def settings(config: Config, file: str | None) -> Finding:
    where = f"those in {file}" if file is not None else "there is no settings file, and they"
    return Finding("settings.file", "ok", f"{where} are in order; the namespace is {config.namespace!r}")


def variables(unknown: tuple[str, ...]) -> Iterator[Finding]:
    for sentence in unknown:
        yield Finding("settings.variables", "warning", sentence, "'blocksd config' shows what is set, and where")


def file_source(source: SourcePlace) -> Finding:
    check, name, place = "settings.source", f"source {source.name}", source.place
    if place is None:
        return Finding(check, "wrong", f"{name}: {source.mistake}", f"mend [sources.{source.name}] in blocksd.toml")
    if place.kind != "directory":
        return Finding(
            check,
            "wrong",
            f"{name}: there is no directory {place.path}",
            f"make it, or change 'path' of [sources.{source.name}] in blocksd.toml",
        )
    if not {"r", "x"} <= set(place.rights):
        return Finding(check, "wrong", f"{name}: {place.path} cannot be read", _give(place, "rX"))
    return Finding(check, "ok", f"{name}: {place.path} can be read")


def folder_access(place: Place, tree: Tree | None) -> Finding:
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
    if tree is not None and tree.unlisted:
        return Finding(
            check,
            "wrong",
            f"of the directories in {place.path}, {tree.unlisted} cannot be read",
            "'blocksd check' names them; " + _give(place, "rwX"),
        )
    if "w" not in place.rights:
        return Finding(
            check,
            "warning",
            f"{place.path} can be read, but not written: what agents write is refused",
            f"if agents are to write: {_give(place, 'rwX')}",
        )
    return Finding(check, "ok", f"{place.path} can be read and written")


def folder_sharing(place: Place) -> Iterator[Finding]:
    is_for_group = place.mode & 0o020 and place.is_shared
    if place.kind == "directory" and is_for_group and not place.mode & 0o2000:
        yield Finding(
            "folder.sharing",
            "warning",
            f"the group {place.group} may write, but new files get the group of whoever makes them",
            f"'chmod g+s {shlex.quote(place.path)}', and of the directories in it: then they get this one",
        )


def folder_events(place: Place, trial: Trial | None, *, polls: bool) -> Iterator[Finding]:
    check, kind = "folder.events", place.disk.kind
    if place.kind != "directory":
        return
    if polls:
        yield Finding(check, "ok", "it is compared again and again, and needs no events")
    elif kind in _NETWORK:
        yield Finding(check, "warning", f"it is on {kind}: what other machines change there gives no events", _POLL)
    elif trial is not None and trial.is_noticed is False:
        yield Finding(check, "wrong", f"it is on {kind}, and no event came when a file was made in it", _POLL)
    elif _is_shared(kind):
        yield Finding(check, "warning", f"it is on {kind}: what is changed from outside may give no events", _POLL)
    elif trial is None or trial.is_noticed is None:
        yield Finding(check, "unknown", "whether changes in it give events could not be tried")
    else:
        yield Finding(check, "ok", f"it is on {kind}, and changes give events")


def folder_writing(place: Place, trial: Trial | None) -> Iterator[Finding]:
    check = "folder.writing"
    if trial is None:
        return
    if trial.error:
        yield Finding(check, "wrong", f"no file can be written in {place.path}: {trial.error}", _mend(place))
    elif not trial.can_exchange:
        yield Finding(
            check,
            "warning",
            f"{place.disk.kind} cannot exchange two files at once: a save in the moment of an agent's write can be lost",
            "keep the folder on a local file system, as ext4, xfs or btrfs",
        )
    else:
        yield _synced(check, "files are exchanged at once", trial)


def folder_holder(place: Place, holder: int | None, running: Running | None) -> Iterator[Finding]:
    if holder is not None and (running is None or holder != running.pid):
        yield Finding(
            "folder.holder",
            "wrong",
            f"{place.path} is in the charge of a daemon with another state directory, pid {holder}",
            "name that one's --namespace or --state-dir, or stop it",
        )


def space(check: str, place: Place) -> Finding:
    """What is left of a file system: bytes, and files."""
    disk = place.disk
    where = f"on {disk.mount or place.nearest}"
    for free, (least, few), text in (
        (disk.free_bytes, _LITTLE_SPACE, f"{size(disk.free_bytes)} are left {where}"),
        (disk.free_files, _FEW_FILES, f"room for {disk.free_files} files is left {where}"),
    ):
        if free is not None and free < few:
            return Finding(check, "wrong" if free < least else "warning", text, "free some, or use another disk")
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
        return Finding(check, "warning", f"{path} is on {kind}: all history is lost at a reboot", elsewhere)
    if kind == "overlay":
        message = f"{path} is in a container's own layer: all history goes with the container"
        return Finding(check, "warning", message, "mount a volume there")
    if _is_shared(kind):
        return Finding(check, "warning", f"{path} is on {kind}, where a journal may not be safe", elsewhere)
    if not kind:
        return Finding(check, "unknown", f"the kernel does not say on what file system {path} is")
    return Finding(check, "ok", f"it is on {kind}")


def state_writing(place: Place, trial: Trial | None) -> Iterator[Finding]:
    if trial is not None and trial.error:
        yield Finding("state.writing", "wrong", f"no file can be written in {place.path}: {trial.error}", _mend(place))
    elif trial is not None:
        yield _synced("state.writing", "files are written", trial)


def journal(state: JournalState | None) -> Finding:
    check = "state.journal"
    if state is None:
        return Finding(check, "ok", "there is no journal yet: the first start makes one")
    if state.error:
        return Finding(
            check,
            "wrong",
            f"the journal cannot be read: {state.error}",
            "mend its rights; if it is damaged, the next start keeps it aside and begins a new one",
        )
    if state.schema > SCHEMA:
        return Finding(
            check,
            "wrong",
            f"the journal is of schema {state.schema}, newer than the {SCHEMA} this blocksd knows",
            "upgrade: 'pip install --upgrade blocksd', or 'pipx upgrade blocksd'",
        )
    if state.damage is None:
        return Finding(
            check,
            "unknown",
            "the journal is too large to be checked in a few seconds",
            "when there is time: sqlite3 journal.db 'PRAGMA quick_check', in the state directory",
        )
    if state.damage:
        return Finding(
            check,
            "wrong",
            f"the journal is damaged: {state.damage}",
            "stop the daemon and move journal.db away: the next start begins a new one from the folder; "
            '"sqlite3 journal.db .recover" may save the history',
        )
    return Finding(check, "ok", f"the journal is sound (schema {state.schema})")


def set_aside(names: tuple[str, ...]) -> Iterator[Finding]:
    for name in names:
        yield Finding(
            "state.set-aside",
            "warning",
            f"a damaged journal was set aside: {name}",
            'its history may be saved with "sqlite3 FILE .recover"; remove it when nobody needs it',
        )


def daemon(running: Running | None, holder: int | None) -> Finding:
    check = "state.daemon"
    if running is not None:
        return Finding(check, "ok", f"a daemon runs, pid {running.pid}, and serves {running.folder}")
    if holder is not None:
        return Finding(check, "unknown", f"pid {holder} has the state directory, and does not say what it serves")
    return Finding(check, "ok", "no daemon runs")


# --- limits ---


def watches(inotify: Inotify, needed: int) -> Finding:
    return _limit("limits.watches", "max_user_watches", inotify.max_watches, inotify.watches, needed)


def instances(inotify: Inotify, needed: int) -> Finding:
    return _limit("limits.instances", "max_user_instances", inotify.max_instances, inotify.instances, needed)


def _limit(check: str, name: str, most: int | None, used: int, needed: int) -> Finding:
    setting, what = f"fs.inotify.{name}", f"inotify {check.partition('.')[2]}"
    if most is None:
        return Finding(check, "unknown", f"the kernel does not say what {setting} is")
    figures = f"{what}: {needed} needed, {used} in use by this user's other programs, of {most}"
    if needed + used <= _FULL * most:
        return Finding(check, "ok", figures)
    enough = 2 ** (2 * (needed + used)).bit_length()
    advice = f"'sysctl {setting}={enough}', and the same line in /etc/sysctl.d/blocksd.conf"
    return Finding(check, "wrong" if needed + used > most else "warning", figures, advice)


def open_files(soft: int, hard: int, *, has_own_server: bool) -> Finding:
    check = "limits.files"
    raised = "raise it: 'ulimit -n', or LimitNOFILE= in the service's unit"
    if 0 <= soft < _OPEN_FILES:
        return Finding(check, "wrong", f"only {soft} files may be open at once", raised)
    if has_own_server and 0 <= hard < _CLIENTS + _OWN_FILES:
        clients = max(0, hard - _OWN_FILES)
        return Finding(check, "warning", f"a server of our own takes no more than {clients} clients", raised)
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


def machine_clock(is_kept: bool | None) -> Iterator[Finding]:
    if is_kept:
        yield Finding("clock.machine", "ok", "this machine's clock is synchronized")
    elif is_kept is False:
        yield Finding(
            "clock.machine",
            "unknown",
            "the kernel knows of nothing that synchronizes this machine's clock",
            "'timedatectl set-ntp true', unless its host does",
        )


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
    """How to give the daemon's user rights to a directory and what is in it, as setfacl(1) writes them."""
    return f"as its owner: 'setfacl -R -m u:USER:{rights} {shlex.quote(place.path)}', or chown, chmod"


def _mend(place: Place) -> str:
    return f"see whether {place.disk.mount or place.path} is full, read-only or failing: 'df', 'mount', 'dmesg'"
