"""What facts about the machine, the folder and the state directory mean: each check, fit and unfit."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import metadata
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.doctor import host_checks as checks
from blocksd.doctor.host import (
    Disk,
    Inotify,
    JournalState,
    Library,
    Place,
    Program,
    Running,
    SourcePlace,
    Tree,
    Trial,
)
from blocksd.journal.schema import SCHEMA
from blocksd.settings.config import Config
from support import advises

if TYPE_CHECKING:
    from blocksd.doctor.finding import Finding

PROGRAM = Program((3, 12, 1), (3, 40, 1), (Library("redis", "<9,>=8.1", "8.1.0"), Library("click", ">=8.2", "8.5.1")))
DISK = Disk("ext4", "/srv", 5 * 2**30, 100_000)
PLACE = Place("/srv/blocks.d", "directory", "/srv/blocks.d", "rwx", DISK, mode=0o755, group="root")
TRIAL = Trial("", 0.002, can_exchange=True, is_noticed=True)
INOTIFY = Inotify(8192, 128, 100, 3)
RUNNING = Running(11, "blocksd", "/srv/blocks.d")
JOURNAL = JournalState("", SCHEMA, "e1", "2026-11-20T09:00:00.000Z", "")
NOW = 1795165200.0  # the same moment


def place(**changes: Any) -> Place:
    return replace(PLACE, **changes)


def on(kind: str, **changes: Any) -> Place:
    return place(disk=replace(DISK, kind=kind, **changes))


def only(findings: Any) -> Finding | None:
    """The one finding there is, or none."""
    found = list(findings)
    assert len(found) <= 1
    return found[0] if found else None


# --- what runs blocksd ---


def test_python() -> None:
    """What is older than 3.11 does not run it."""
    advises(checks.python(PROGRAM), "ok", "Python 3.12.1")
    advises(checks.python(replace(PROGRAM, python=(3, 10, 9))), "wrong", "3.10.9", "python3.11 -m venv")
    advises(checks.python(replace(PROGRAM, python=(3, 11, 0))), "ok")


def test_sqlite() -> None:
    """The journal's tables are STRICT, which came with 3.37."""
    advises(checks.sqlite(PROGRAM), "ok", "3.40.1")
    advises(checks.sqlite(replace(PROGRAM, sqlite=(3, 36, 0))), "wrong", "3.36.0", "needs 3.37")


def test_libraries() -> None:
    """Each that is missing or of another version is named, with the command that mends it."""
    (fine,) = checks.libraries(PROGRAM)
    advises(fine, "ok", "redis 8.1.0, click 8.5.1")
    old, missing = Library("redis", "<9,>=8.1", "7.0.1"), Library("watchdog", "<8,>=7.1", None)
    unfit, absent = checks.libraries(replace(PROGRAM, libraries=(old, missing)))
    advises(unfit, "wrong", "redis 7.0.1 is installed", "pip install 'redis<9,>=8.1'")
    advises(absent, "wrong", "no watchdog is installed", "pip install 'watchdog<8,>=7.1'")


@pytest.mark.parametrize(
    ("version", "is_fit"),
    [
        ("8.1.0", True),
        ("8.1", True),
        ("8.10", True),
        ("8.0.9", False),
        ("9.0", False),
        ("9", False),
        ("10.1", False),
        ("8.2rc1", True),
        ("?", False),
        (None, False),
    ],
)
def test_versions(version: str | None, is_fit: bool) -> None:
    """Versions are compared number by number."""
    assert checks.fits(version, "<9,>=8.1") is is_fit


def test_requirements_are_understood() -> None:
    """What blocksd itself requires is written with nothing but `>=` and `<`, which is all that is understood."""
    needed = [text for text in metadata.requires("blocksd") or () if ";" not in text]
    assert len(needed) >= 5
    for text in needed:
        assert re.fullmatch(r"[\w-]+(?:,?(?:>=|<)\d+(?:\.\d+)*)+", text), text


def test_user() -> None:
    """Who is not the daemon's user is told to ask as that one."""
    assert only(checks.user("blocksd", RUNNING)) is None
    assert only(checks.user("root", None)) is None
    advises(only(checks.user("root", RUNNING)), "warning", "sudo -u blocksd blocksd doctor")


# --- settings and folder ---


def test_settings() -> None:
    """That they could be read is said, with the namespace."""
    advises(checks.settings(Config(namespace="work"), None), "ok", "no settings file", "'work'")
    advises(checks.settings(Config(), "/etc/blocksd/blocksd.toml"), "ok", "/etc/blocksd/blocksd.toml")


def test_variables() -> None:
    """One that looks like a setting and is none is told."""
    assert only(checks.variables(())) is None
    advises(only(checks.variables(("$BLOCKSD_FLODER is no setting",))), "warning", "FLODER", "blocksd config")


def test_file_source() -> None:
    """A source has a directory that can be read."""
    advises(checks.file_source(SourcePlace("manuals", place=place(rights="rx"))), "ok", "manuals")
    advises(checks.file_source(SourcePlace("manuals", place=place(rights="r"))), "wrong", "cannot be read", "setfacl")
    advises(checks.file_source(SourcePlace("manuals", place=place(kind="missing"))), "wrong", "[sources.manuals]")
    advises(checks.file_source(SourcePlace("manuals", "it has no path")), "wrong", "it has no path")


def test_folder_access() -> None:
    """It is there and can be read; one that cannot be written serves all but requests."""
    advises(checks.folder_access(PLACE, Tree(3)), "ok")
    advises(checks.folder_access(place(kind="missing"), None), "wrong", "'mkdir /srv/blocks.d'")
    advises(checks.folder_access(place(kind="other"), None), "wrong", "is no directory")
    advises(checks.folder_access(place(rights="rw"), None), "wrong", "cannot be read")
    advises(checks.folder_access(place(rights="wx"), None), "wrong", "cannot be read")
    advises(checks.folder_access(PLACE, Tree(3, unlisted=2)), "wrong", "2 cannot be read", "blocksd check")
    advises(checks.folder_access(place(rights="rx"), Tree(3)), "warning", "refused", "setfacl")


def test_folder_sharing() -> None:
    """A folder for a group has its setgid bit, or new files are not the group's."""
    shared = place(mode=0o775, group="staff", is_shared=True)
    advises(only(checks.folder_sharing(shared)), "warning", "staff", "chmod g+s /srv/blocks.d")
    for fine in (replace(shared, mode=0o2775), replace(shared, mode=0o755), replace(shared, is_shared=False)):
        assert only(checks.folder_sharing(fine)) is None


def test_folder_events() -> None:
    """Where events do not come, or not all of them, polling is advised."""
    advises(only(checks.folder_events(PLACE, TRIAL, polls=False)), "ok", "ext4")
    for kind in ("nfs4", "cifs", "9p", "fuse.sshfs"):
        advises(only(checks.folder_events(on(kind), TRIAL, polls=False)), "warning", kind, "--poll")
        advises(only(checks.folder_events(on(kind), TRIAL, polls=True)), "ok")
    for kind in ("fuse.grpcfuse", "virtiofs"):
        advises(only(checks.folder_events(on(kind), TRIAL, polls=False)), "warning", "from outside", "--poll")
    silent = replace(TRIAL, is_noticed=False)
    advises(only(checks.folder_events(PLACE, silent, polls=False)), "wrong", "no event came", "--poll")
    advises(only(checks.folder_events(PLACE, None, polls=False)), "unknown")
    advises(only(checks.folder_events(PLACE, Trial("No space left on device"), polls=False)), "unknown")
    assert only(checks.folder_events(place(kind="missing"), None, polls=False)) is None


def test_folder_writing() -> None:
    """Files can be made, exchanged at once, and are on disk soon."""
    advises(only(checks.folder_writing(PLACE, TRIAL)), "ok", "2.0 ms")
    assert only(checks.folder_writing(PLACE, None)) is None
    advises(
        only(checks.folder_writing(PLACE, Trial("Read-only file system"))), "wrong", "Read-only file system", "/srv"
    )
    advises(only(checks.folder_writing(PLACE, replace(TRIAL, can_exchange=False))), "warning", "can be lost")
    slow = replace(TRIAL, sync_seconds=0.25)
    advises(only(checks.folder_writing(PLACE, slow)), "warning", "250.0 ms", "durability")


def test_folder_holder() -> None:
    """The daemon that has the folder is the one that is meant."""
    assert only(checks.folder_holder(PLACE, None, None)) is None
    assert only(checks.folder_holder(PLACE, 11, RUNNING)) is None
    advises(only(checks.folder_holder(PLACE, 12, RUNNING)), "wrong", "pid 12", "--state-dir")
    advises(only(checks.folder_holder(PLACE, 12, None)), "wrong", "pid 12")


def test_space() -> None:
    """Neither bytes nor files run out; where files have no bound, there is none to reach."""
    advises(checks.space("folder.space", PLACE), "ok", "5.0 GiB")
    advises(checks.space("folder.space", on("ext4", free_bytes=100 * 2**20)), "warning", "100.0 MiB are left on /srv")
    advises(checks.space("folder.space", on("ext4", free_bytes=2**20)), "wrong", "1.0 MiB")
    advises(checks.space("folder.space", on("ext4", free_files=1000)), "warning", "1000 files")
    advises(checks.space("folder.space", on("ext4", free_files=5)), "wrong", "5 files")
    advises(checks.space("folder.space", on("btrfs", free_files=None)), "ok")


# --- the state directory ---


def test_state_access() -> None:
    """It is this user's to write, or can be made."""
    advises(checks.state_access(PLACE), "ok")
    advises(checks.state_access(place(rights="rx")), "wrong", "cannot be read and written", "--state-dir")
    advises(checks.state_access(place(kind="other")), "wrong", "--state-dir")
    advises(checks.state_access(place(kind="missing", nearest="/srv")), "ok", "first start")
    advises(checks.state_access(place(kind="missing", nearest="/srv", rights="rx")), "wrong", "in /srv")


def test_state_private() -> None:
    """Nobody else looks into it."""
    assert only(checks.state_private(place(mode=0o700))) is None
    assert only(checks.state_private(place(kind="missing"))) is None
    advises(only(checks.state_private(place(mode=0o750))), "warning", "mode 750", "chmod 700")


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("ext4", "ok"),
        ("xfs", "ok"),
        ("nfs4", "wrong"),
        ("cifs", "wrong"),
        ("9p", "wrong"),
        ("tmpfs", "warning"),
        ("overlay", "warning"),
        ("virtiofs", "warning"),
        ("fuse.bindfs", "warning"),
        ("", "unknown"),
    ],
)
def test_state_disk(kind: str, state: str) -> None:
    """It is on a disk of this machine that outlasts a reboot and a container."""
    advises(checks.state_disk(on(kind)), state)


def test_state_writing() -> None:
    """Files can be written there and are on disk soon."""
    advises(only(checks.state_writing(PLACE, TRIAL)), "ok")
    advises(only(checks.state_writing(PLACE, replace(TRIAL, can_exchange=False))), "ok")
    advises(only(checks.state_writing(PLACE, Trial("Input/output error"))), "wrong", "Input/output error")
    assert only(checks.state_writing(PLACE, None)) is None


def test_journal() -> None:
    """It can be read, is sound, and of a schema that is known; an older one is brought up by the next start."""
    advises(checks.journal(None), "ok", "first start")
    advises(checks.journal(JOURNAL), "ok", "sound")
    advises(checks.journal(replace(JOURNAL, schema=1)), "ok")
    advises(checks.journal(replace(JOURNAL, schema=SCHEMA + 1)), "wrong", "pip install --upgrade blocksd")
    advises(checks.journal(JournalState("unable to open database file")), "wrong", "unable to open")
    advises(checks.journal(replace(JOURNAL, damage="row 7 missing from index")), "wrong", "row 7", ".recover")
    advises(checks.journal(replace(JOURNAL, damage=None)), "unknown", "quick_check")


def test_set_aside() -> None:
    """A journal that was set aside is not forgotten."""
    assert only(checks.set_aside(())) is None
    advises(only(checks.set_aside(("/state/journal.db.damaged-1",))), "warning", "journal.db.damaged-1", ".recover")


def test_daemon() -> None:
    """Who has the state directory is said."""
    advises(checks.daemon(RUNNING, 11), "ok", "pid 11", "/srv/blocks.d")
    advises(checks.daemon(None, None), "ok", "no daemon")
    advises(checks.daemon(None, 12), "unknown", "pid 12")


# --- limits ---


def test_watches() -> None:
    """The directories need fewer watches than this user has left."""
    advises(checks.watches(INOTIFY, 50), "ok", "50 needed", "100 in use", "of 8192")
    advises(checks.watches(INOTIFY, 7400), "warning", "sysctl fs.inotify.max_user_watches=16384")
    advises(checks.watches(INOTIFY, 8100), "wrong", "/etc/sysctl.d/")
    advises(checks.watches(replace(INOTIFY, max_watches=None), 50), "unknown")


def test_instances() -> None:
    """The folder and each source need one."""
    advises(checks.instances(INOTIFY, 3), "ok")
    advises(checks.instances(replace(INOTIFY, instances=120), 3), "warning")
    advises(checks.instances(replace(INOTIFY, instances=127), 3), "wrong", "max_user_instances=512")


def test_open_files() -> None:
    """Enough for the daemon, and for a server of its own and its clients."""
    advises(checks.open_files(1024, 4096, has_own_server=False), "ok")
    advises(checks.open_files(1024, 1_048_576, has_own_server=True), "ok")
    advises(checks.open_files(1024, 4096, has_own_server=True), "warning", "4064 clients", "LimitNOFILE")
    advises(checks.open_files(64, 64, has_own_server=False), "wrong", "64 files")
    advises(checks.open_files(-1, -1, has_own_server=True), "ok", "any number")


# --- clocks ---


def test_journal_clock() -> None:
    """A revision from the future tells of a clock that was set back."""
    advises(only(checks.journal_clock(JOURNAL, NOW)), "ok")
    advises(only(checks.journal_clock(JOURNAL, NOW - 100)), "warning", "100 s in the future", "timedatectl")
    assert only(checks.journal_clock(None, NOW)) is None
    assert only(checks.journal_clock(replace(JOURNAL, newest_at=""), NOW)) is None


def test_machine_clock() -> None:
    """What the kernel knows of the clock is passed on; it may not know what its host does."""
    advises(only(checks.machine_clock(is_kept=True)), "ok")
    advises(only(checks.machine_clock(is_kept=False)), "unknown", "timedatectl")
    assert only(checks.machine_clock(is_kept=None)) is None
