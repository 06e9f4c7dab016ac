"""What facts about the machine, the folder and the state directory mean: each check, fit and unfit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.doctor import host_checks as checks
from blocksd.doctor.host import Disk, JournalState, Place, Trial
from support import advises

if TYPE_CHECKING:
    from blocksd.doctor.finding import Finding

DISK = Disk("ext4", "/srv", 5 * 2**30, 100_000)
PLACE = Place("/srv/blocks.d", "directory", "/srv/blocks.d", "rwx", DISK, mode=0o755, group="root")
TRIAL = Trial("", 0.002, can_exchange=True, is_noticed=True)
JOURNAL = JournalState("", "2026-11-20T09:00:00.000Z", "")
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


def test_user() -> None:
    """Who is not the daemon's user is told to ask as that one."""
    assert only(checks.user("blocksd", "blocksd")) is None
    assert only(checks.user("root", None)) is None
    advises(only(checks.user("root", "blocksd")), "warning", "sudo -u blocksd blocksd doctor")


# --- the folder ---


def test_folder_access() -> None:
    """It is there and can be read; one that cannot be written serves all but requests."""
    advises(checks.folder_access(PLACE), "ok")
    advises(checks.folder_access(place(kind="missing")), "wrong", "'mkdir /srv/blocks.d'")
    advises(checks.folder_access(place(kind="other")), "wrong", "is no directory")
    advises(checks.folder_access(place(rights="rw")), "wrong", "cannot be read")
    advises(checks.folder_access(place(rights="wx")), "wrong", "cannot be read")
    advises(checks.folder_access(place(rights="rx")), "warning", "refused", "setfacl")


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
    advises(only(checks.folder_events(PLACE, silent, polls=False)), "wrong", "gave no file event", "--poll")
    advises(only(checks.folder_events(PLACE, None, polls=False)), "unknown")
    advises(only(checks.folder_events(PLACE, Trial("No space left on device"), polls=False)), "unknown")
    assert only(checks.folder_events(place(kind="missing"), None, polls=False)) is None
    unknown = only(checks.folder_events(on(""), TRIAL, polls=False))
    advises(unknown, "ok", "the folder is on a file system of unknown type, and changes give file events")


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
    """It can be read, and is sound."""
    advises(checks.journal(None), "ok", "first start")
    advises(checks.journal(None, is_copy=True), "ok", "a promotion makes one")
    advises(checks.journal(JOURNAL), "ok", "sound")
    advises(checks.journal(JournalState("unable to open database file")), "wrong", "unable to open")
    advises(checks.journal(replace(JOURNAL, damage="row 7 missing from index")), "wrong", "row 7", ".recover")
    advises(checks.journal(replace(JOURNAL, damage=None)), "unknown", "quick_check")


# --- limits ---


def test_open_files() -> None:
    """Enough for the daemon, and for a server of its own and its clients."""
    advises(checks.open_files(1024, 4096, has_own_server=False), "ok")
    advises(checks.open_files(1024, 1_048_576, has_own_server=True), "ok")
    advises(checks.open_files(1024, 4096, has_own_server=True), "ok")
    advises(checks.open_files(512, 512, has_own_server=True), "warning", "480 clients", "LimitNOFILE")
    advises(checks.open_files(64, 64, has_own_server=False), "wrong", "64 files")
    advises(checks.open_files(-1, -1, has_own_server=True), "ok", "any number")


# --- clocks ---


def test_journal_clock() -> None:
    """A revision from the future tells of a clock that was set back."""
    advises(only(checks.journal_clock(JOURNAL, NOW)), "ok")
    advises(only(checks.journal_clock(JOURNAL, NOW - 100)), "warning", "100 s in the future", "timedatectl")
    assert only(checks.journal_clock(None, NOW)) is None
    assert only(checks.journal_clock(replace(JOURNAL, newest_at=""), NOW)) is None
