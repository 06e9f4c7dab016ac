"""What else can be in a folder, and what can become of the folder itself, under the real daemon."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import unicodedata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from support import bound_by_rights, eventually, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support import Changes, Daemon, RedisServer

    RunDaemon = Callable[..., Daemon]

pytestmark = pytest.mark.slow

QUICK = ("--delete-grace", "0.2", "--resync-seconds", "0.3")
"""What no event tells is found this soon."""

PATIENT = ("--delete-grace", "0.2", "--resync-seconds", "3600")
"""Only events, and the look at the root every second, tell anything."""


class Mirror:
    """What Redis shows."""

    def __init__(self, server: RedisServer) -> None:
        self.client = server.client()

    def value(self, label: str) -> str | None:
        found: str | None = self.client.hget(f"blocks:block:{label}", "value")
        return found

    def labels(self) -> list[str]:
        return list(self.client.zrange("blocks:labels", 0, -1))

    def problem(self, subject: str) -> Any:
        found = self.client.hget("blocks:problems", subject)
        return json.loads(found) if found else None

    def problems(self) -> dict[str, str]:
        """Path → message, once the daemon has said all of it."""
        return {
            subject: json.loads(text)["message"] for subject, text in self.client.hgetall("blocks:problems").items()
        }


@pytest.fixture
def mirror(server: RedisServer) -> Iterator[Mirror]:
    result = Mirror(server)
    yield result
    result.client.close()


def fill(folder: Path, count: int) -> list[str]:
    """So many blocks, `block-00` and on, each of which says its own label."""
    labels = [f"block-{number:02}" for number in range(count)]
    for label in labels:
        (folder / f"{label}.md").write_text(f"{label}\n")
    return labels


def assert_serves(folder: Path, mirror: Mirror, text: str = "serves") -> None:
    """A save is still seen."""
    (folder / "alive.md").write_text(f"{text}\n")
    eventually(lambda: mirror.value("alive") == text, "a save is seen")


# --- links ---


def test_links(folder: Path, mirror: Mirror, run_daemon: RunDaemon, tmp_path: Path) -> None:
    """A symlink is followed inside the folder; one to the outside, to nothing, or to a directory is a problem."""
    (tmp_path / "secret").write_text("secret\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "within.md").write_text("secret\n")
    (folder / "real.md").write_text("real\n")
    (folder / "inside.md").symlink_to("real.md")
    (folder / "outside.md").symlink_to("../secret")
    (folder / "dangling.md").symlink_to("nothing.md")
    (folder / "loop.md").symlink_to("loop.md")
    (folder / "linked").symlink_to("../elsewhere")
    (folder / "linked.md").symlink_to("../elsewhere")
    run_daemon(*QUICK)
    assert mirror.labels() == ["inside", "real"]
    assert mirror.value("inside") == "real"
    problems = mirror.problems()
    assert set(problems) == {"outside.md", "dangling.md", "loop.md", "linked", "linked.md"}
    assert problems["outside.md"] == "the symlink leads out of the folder"
    assert (
        problems["linked"]
        == problems["linked.md"]
        == "it is a symlink to a directory: no block is read or written through it"
    )
    assert problems["dangling.md"] == "the symlink leads to nothing"
    (folder / "nothing.md").write_text("something\n")
    (folder / "outside.md").unlink()
    eventually(lambda: mirror.value("dangling") == "something" and mirror.problem("outside.md") is None)


@pytest.mark.parametrize("target", ["target.md", "data/target.txt", ".hidden/target"])
def test_block_follows_what_it_is_a_symlink_to(
    folder: Path, mirror: Mirror, run_daemon: RunDaemon, target: str
) -> None:
    """At once, whatever the target is called; also when it is replaced, or removed and made again."""
    path = folder / target
    path.parent.mkdir(exist_ok=True)
    path.write_text("one\n")
    run_daemon(*PATIENT)
    (folder / "link.md").symlink_to(target)
    eventually(lambda: mirror.value("link") == "one")
    labels = ["link", *(["target"] if target == "target.md" else [])]
    path.write_text("two\n")
    eventually(lambda: all(mirror.value(label) == "two" for label in labels))
    (folder / "new").write_text("three\n")
    (folder / "new").rename(path)
    eventually(lambda: all(mirror.value(label) == "three" for label in labels))
    path.unlink()
    eventually(lambda: mirror.problem("link.md"))
    assert mirror.value("link") == "three"
    path.write_text("four\n")
    eventually(lambda: all(mirror.value(label) == "four" for label in labels))
    eventually(lambda: mirror.problems() == {})


def test_config_map_is_swapped(folder: Path, mirror: Mirror, run_daemon: RunDaemon, changes: Changes) -> None:
    """When Kubernetes swaps `..data`, each block whose text is another is updated once."""

    def write(version: str, texts: dict[str, str]) -> None:
        (folder / f"..{version}").mkdir()
        for name, text in texts.items():
            (folder / f"..{version}" / f"{name}.md").write_text(text)
        (folder / "..data_tmp").symlink_to(f"..{version}")
        (folder / "..data_tmp").rename(folder / "..data")

    write("2026_1", {"persona": "one", "human": "same"})
    for name in ("persona", "human"):
        (folder / f"{name}.md").symlink_to(f"..data/{name}.md")
    run_daemon(*PATIENT)
    changes.forget()
    assert mirror.labels() == ["human", "persona"]
    for number, text in ((2, "two"), (3, "three")):
        write(f"2026_{number}", {"persona": text, "human": "same"})
        shutil.rmtree(folder / f"..2026_{number - 1}")
        eventually(lambda: mirror.value("persona") == text)  # noqa: B023  # waited for right here
    happened = [(change["kind"], change["label"]) for change in changes.settle()]
    assert happened == [("updated", "persona"), ("updated", "persona")]
    assert mirror.problems() == {}


def test_root_may_be_a_symlink(tmp_path: Path, folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """A folder reached by a symlink is watched like any other."""
    folder.rename(tmp_path / "real")
    folder.symlink_to("real")
    run_daemon(*PATIENT)
    assert_serves(tmp_path / "real", mirror)


# --- what is no regular file ---


def test_special_files(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """What is named like a block but is no regular file is a problem, is never opened, and blocks nothing."""

    def make(suffix: str) -> set[str]:
        os.mkfifo(folder / f"fifo{suffix}.md")
        (folder / f"directory{suffix}.md").mkdir()
        (folder / f"directory{suffix}.md" / "inner.md").write_text("inner\n")
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind(os.path.relpath(folder / f"socket{suffix}.md"))
        names = {f"fifo{suffix}.md", f"directory{suffix}.md", f"socket{suffix}.md"}
        try:
            os.mknod(folder / f"device{suffix}.md", stat.S_IFCHR | 0o600, os.makedev(1, 3))
            names.add(f"device{suffix}.md")
        except PermissionError:  # only root may
            pass
        return names

    names = make("-before")
    run_daemon(*PATIENT)
    assert set(mirror.problems()) == names
    names |= make("-after")
    eventually(lambda: set(mirror.problems()) == names, "those that came later are reported as soon")
    assert mirror.problems()["fifo-after.md"] == "a FIFO cannot be a block"
    assert mirror.problems()["directory-after.md"] == "a directory cannot be a block"
    assert mirror.labels() == []
    (folder / "fifo-after.md").unlink()
    shutil.rmtree(folder / "directory-after.md")
    eventually(lambda: set(mirror.problems()) == names - {"fifo-after.md", "directory-after.md"})
    assert_serves(folder, mirror)


def test_block_replaced_by_a_fifo_stays(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """When something unreadable takes a block's place, its last version stays in force."""
    (folder / "notes.md").write_text("one\n")
    run_daemon(*PATIENT)
    (folder / "notes.md").unlink()
    os.mkfifo(folder / "notes.md")
    eventually(lambda: mirror.problem("notes.md"))
    assert mirror.problem("notes.md")["label"] == "notes"
    assert_serves(folder, mirror)
    assert mirror.value("notes") == "one"
    (folder / "notes.md").unlink()
    (folder / "notes.md").write_text("two\n")
    eventually(lambda: mirror.value("notes") == "two" and mirror.problem("notes.md") is None)


# --- rights ---


def test_rights_taken_away(folder: Path, mirror: Mirror, run_daemon: RunDaemon, changes: Changes) -> None:
    """It is told at once. Nothing that cannot be read counts as changed or deleted, and a directory is one problem."""
    (folder / "policies" / "deep").mkdir(parents=True)
    for name in ("notes", "policies/refunds", "policies/deep/returns"):
        (folder / f"{name}.md").write_text("one\n")
    daemon = run_daemon(*PATIENT, under=bound_by_rights())
    changes.forget()
    (folder / "notes.md").chmod(0)
    eventually(lambda: mirror.problem("notes.md"))
    assert mirror.problem("notes.md")["message"] == "it cannot be read: Permission denied"
    assert "daemon's user" in mirror.problem("notes.md")["hint"]
    assert "notes.md: it cannot be read: Permission denied" in " ".join(daemon.command("status").stdout.split())
    (folder / "policies").chmod(0)
    eventually(lambda: mirror.problem("policies/"))
    assert_serves(folder, mirror, "all that is left")
    assert set(mirror.problems()) == {"notes.md", "policies/"}
    for mode in (0o000, 0o400, 0o100):
        (folder / "policies").chmod(mode)
        eventually(lambda: any(subject.startswith("policies/") for subject in mirror.problems()))
        assert_serves(folder, mirror, f"mode {mode:o}")
    assert mirror.labels() == ["alive", "notes", "policies/deep/returns", "policies/refunds"]
    (folder / "policies").chmod(0o700)
    eventually(lambda: set(mirror.problems()) == {"notes.md"})
    (folder / "notes.md").chmod(0o600)
    eventually(lambda: mirror.problems() == {})
    assert {change.get("label") for change in changes.settle() if change.get("seq")} == {"alive"}
    for label in ("notes", "policies/refunds", "policies/deep/returns"):
        (folder / f"{label}.md").write_text("two\n")
        eventually(lambda: mirror.value(label) == "two", "it is watched again")  # noqa: B023  # waited for right here


def test_directory_that_could_not_be_read_at_the_start(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """What is in it, and below it, comes into force as soon as it may be read, and is watched from then on."""
    (folder / "policies" / "deep").mkdir(parents=True)
    (folder / "policies" / "deep" / "returns.md").write_text("one\n")
    (folder / "policies").chmod(0)
    run_daemon(*PATIENT, under=bound_by_rights())
    assert set(mirror.problems()) == {"policies/"}
    (folder / "policies").chmod(0o700)
    eventually(lambda: mirror.value("policies/deep/returns") == "one" and mirror.problems() == {})
    (folder / "policies" / "deep" / "returns.md").write_text("two\n")
    eventually(lambda: mirror.value("policies/deep/returns") == "two")


def test_temporaries_that_cannot_be_removed(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """What looks like a temporary of ours and cannot be removed, such as a directory, stays; everything else goes on."""
    (folder / ".blocksd-directory").mkdir()
    (folder / "notes.md").write_text("one\n")
    (folder / ".blocksd-file").write_text("left by a crash")
    run_daemon(*QUICK)
    assert (folder / ".blocksd-directory").is_dir()
    eventually(lambda: not (folder / ".blocksd-file").exists())
    assert_serves(folder, mirror)


def test_root_without_rights_is_a_problem_of_its_own(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """When the folder itself cannot be listed, everything stays as it is."""
    labels = fill(folder, 5)
    run_daemon(*PATIENT, under=bound_by_rights())
    folder.chmod(0)
    try:
        eventually(lambda: mirror.problem("./"), "the folder itself is reported")
    finally:
        folder.chmod(0o700)
    eventually(lambda: mirror.problems() == {})
    assert mirror.labels() == labels
    assert_serves(folder, mirror)


# --- names ---


def test_bad_names_harm_nothing(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """A file whose name is no label is a problem under its printable path; everything else goes on."""

    def make(suffix: str) -> set[str]:
        long = f"{'n' * 240}{suffix}.md"
        names = [os.fsencode(name) for name in (f"a?b{suffix}.md", f"new\nline{suffix}.md", f"*{suffix}.md", long)]
        names.append(b"not-\xff-utf8" + os.fsencode(suffix) + b".md")
        for name in names:
            (folder / os.fsdecode(name)).write_text("text\n")
        return {f"a?b{suffix}.md", f"new\\nline{suffix}.md", f"*{suffix}.md", long, f"not-\\\\xff-utf8{suffix}.md"}

    names = make("1")
    (folder / "..md").write_text("text\n")
    run_daemon(*PATIENT)
    assert set(mirror.problems()) == names | {"..md"}
    names |= make("2")
    eventually(lambda: set(mirror.problems()) == names | {"..md"})
    for problem in map(mirror.problem, names):
        assert problem["hint"].startswith("rename the file, for example to '")
    assert mirror.labels() == []
    (folder / "a?b1.md").rename(folder / "a b1.md")
    eventually(lambda: mirror.value("a b1") == "text" and mirror.problem("a?b1.md") is None)


def test_names_that_differ_in_case(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """Of names that differ in case only the first stays in force, and when it goes, another comes."""
    (folder / "Notes.md").write_text("first\n")
    run_daemon(*PATIENT)
    (folder / "notes.md").write_text("second\n")
    (folder / "NOTES.md").write_text("third\n")
    eventually(lambda: set(mirror.problems()) == {"notes.md", "NOTES.md"})
    assert mirror.problem("notes.md")["message"] == "its label 'notes' is taken by Notes.md"
    assert mirror.labels() == ["Notes"]
    (folder / "Notes.md").unlink()
    eventually(lambda: len(mirror.problems()) == 1)
    (winner,) = mirror.labels()
    other = {"notes": "NOTES", "NOTES": "notes"}[winner]
    assert mirror.problem(f"{other}.md")["message"] == f"its label {other!r} is taken by {winner}.md"
    (folder / f"{winner}.md").unlink()
    eventually(lambda: mirror.labels() == [other] and mirror.problems() == {})


def test_name_changes_its_case(folder: Path, mirror: Mirror, run_daemon: RunDaemon, changes: Changes) -> None:
    """A file renamed in case only is a renamed block, though both could not be in force at once."""
    (folder / "Notes.md").write_text("text\n")
    run_daemon(*PATIENT)
    changes.forget()
    (folder / "Notes.md").rename(folder / "notes.md")
    eventually(lambda: mirror.labels() == ["notes"])
    happened = [(change["kind"], change["label"]) for change in changes.settle()]
    assert happened == [("renamed", "notes")]
    assert mirror.problems() == {}


def test_names_that_differ_in_normalization(
    folder: Path, mirror: Mirror, run_daemon: RunDaemon, changes: Changes
) -> None:
    """NFC and NFD are one label: two files of it clash, a rename from one to the other is no change."""
    composed, decomposed = (folder / f"{unicodedata.normalize(form, 'café')}.md" for form in ("NFC", "NFD"))
    decomposed.write_text("first\n")
    run_daemon(*PATIENT)
    changes.forget()
    assert mirror.value("caf\u00e9") == "first"
    composed.write_text("second\n")
    eventually(lambda: mirror.problem(composed.name))
    composed.unlink()
    eventually(lambda: mirror.problems() == {})
    decomposed.rename(composed)
    composed.write_text("third\n")
    eventually(lambda: mirror.value("caf\u00e9") == "third")
    assert [change["kind"] for change in changes.settle()] == ["rejected", "cleared", "updated"]
    assert mirror.problems() == {}


# --- the folder as a whole ---


def assert_halted(mirror: Mirror, labels: list[str], said: str) -> None:
    problem = eventually(lambda: mirror.problem("<folder>"), "it halts")
    assert problem["code"] == "halted"
    assert said in problem["message"], problem["message"]
    assert mirror.labels() == labels


def assert_resumed(folder: Path, mirror: Mirror, labels: list[str]) -> None:
    eventually(lambda: mirror.problem("<folder>") is None, "it goes on by itself")
    assert mirror.labels() == labels
    assert_serves(folder, mirror)
    eventually(lambda: mirror.problems() == {})


@pytest.mark.parametrize("count", [1, 5])
def test_folder_renamed_away_and_back(
    folder: Path, mirror: Mirror, run_daemon: RunDaemon, changes: Changes, count: int
) -> None:
    """While the folder is gone nothing changes; when it is back everything goes on."""
    labels = fill(folder, count)
    daemon = run_daemon(*PATIENT)
    changes.forget()
    folder.rename(folder.with_name("away"))
    assert_halted(mirror, labels, "the folder is gone")
    status = daemon.command("status")
    assert status.returncode == 1
    assert "the folder is gone" in status.stdout
    folder.with_name("away").rename(folder)
    assert_resumed(folder, mirror, labels)
    happened = [(change["kind"], change.get("label")) for change in changes.settle()]
    assert happened == [("rejected", None), ("cleared", None), ("created", "alive")]


def test_folder_deleted_and_restored(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """A folder deleted and made anew, with the same files, is served as before, and watched again."""
    labels = fill(folder, 5)
    run_daemon(*PATIENT)
    shutil.rmtree(folder)
    assert_halted(mirror, labels, "")
    folder.mkdir()
    assert fill(folder, 5) == labels
    assert_resumed(folder, mirror, labels)


def test_folder_replaced_by_another(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """Blocks that are missing in a directory that took the folder's place are kept until a person says otherwise."""
    labels = fill(folder, 5)
    daemon = run_daemon(*PATIENT)
    other = folder.with_name("other")
    other.mkdir()
    fill(other, 3)
    folder.rename(folder.with_name("away"))
    other.rename(folder)
    eventually(lambda: "2 of 5 blocks are missing" in (mirror.problem("<folder>") or {"message": ""})["message"])
    assert mirror.labels() == labels
    accepted = daemon.command("resume", "--accept-deletions")
    assert accepted.returncode == 0, accepted.stderr
    eventually(lambda: mirror.labels() == labels[:3])
    assert_resumed(folder, mirror, labels[:3])


def test_folder_emptied(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """All files of a folder vanishing at once is taken for a lost disk, and over when they are back."""
    labels = fill(folder, 4)
    run_daemon(*PATIENT)
    for path in folder.iterdir():
        path.unlink()
    assert_halted(mirror, labels, "all 4 blocks vanished at once")
    fill(folder, 4)
    assert_resumed(folder, mirror, labels)


def test_folder_unmounted(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """A disk that is unmounted under the daemon is a folder that was replaced, until it is mounted again."""
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=False).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        labels = fill(folder, 5)
        run_daemon(*PATIENT)
        subprocess.run(["mount", "--bind", folder, folder], check=True)
        subprocess.run(["umount", folder], check=True)
        subprocess.run(["umount", "--lazy", folder], check=True)
        assert_halted(mirror, labels, "")
        subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
        fill(folder, 5)
        assert_resumed(folder, mirror, labels)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)


def test_mass_deletion_waits_for_the_files(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """More than half of many blocks vanishing at once is held back; the files returning ends it."""
    labels = fill(folder, 12)
    run_daemon(*PATIENT)
    for label in labels[:7]:
        (folder / f"{label}.md").unlink()
    assert_halted(mirror, labels, "7 of 12 blocks vanished at once")
    fill(folder, 7)
    assert_resumed(folder, mirror, labels)


def test_mass_deletion_is_accepted(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """`blocksd resume --accept-deletions` lets the deletions through: these, and not the next ones."""
    labels = fill(folder, 40)
    daemon = run_daemon(*PATIENT)
    for label in labels[:25]:
        (folder / f"{label}.md").unlink()
    assert_halted(mirror, labels, "25 of 40 blocks vanished at once")
    assert daemon.command("resume", "--accept-deletions").returncode == 0
    eventually(lambda: mirror.labels() == labels[25:])
    eventually(lambda: mirror.problems() == {})
    for label in labels[25:35]:
        (folder / f"{label}.md").unlink()
    assert_halted(mirror, labels[25:], "10 of 15 blocks vanished at once")


def test_deletion_is_held_back_over_a_restart(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """Blocks that vanished while no daemon ran are doubted like any others."""
    labels = fill(folder, 12)
    run_daemon(*PATIENT).stop()
    for label in labels[:11]:
        (folder / f"{label}.md").unlink()
    run_daemon(*PATIENT)
    assert_halted(mirror, labels, "11 of 12 blocks vanished at once")
    fill(folder, 12)
    assert_resumed(folder, mirror, labels)


def test_few_deletions_go_through(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """An ordinary deletion, or that of a whole directory, is just that."""
    fill(folder, 8)
    (folder / "policies").mkdir()
    fill(folder / "policies", 3)
    run_daemon(*PATIENT)
    shutil.rmtree(folder / "policies")
    (folder / "block-00.md").unlink()
    eventually(lambda: mirror.labels() == [f"block-{number:02}" for number in range(1, 8)])
    assert mirror.problems() == {}


# --- events that do not come ---


def test_overflow_of_the_event_queue(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """When the kernel drops events the whole folder is compared at once."""
    labels = fill(folder, 3)
    daemon = run_daemon(*PATIENT)
    process = daemon.process
    assert process is not None
    process.send_signal(signal.SIGSTOP)
    try:
        limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        for _ in range(limit // 3 + 1):  # each round: created, closed, moved from, moved to, deleted
            (folder / ".a").touch()
            (folder / ".a").rename(folder / ".b")
            (folder / ".b").unlink()
        (folder / "block-00.md").write_text("changed\n")
        (folder / "block-01.md").unlink()
        (folder / "new").mkdir()
        (folder / "new" / "block.md").write_text("new\n")
    finally:
        process.send_signal(signal.SIGCONT)
    eventually(lambda: mirror.labels() == [labels[0], labels[2], "new/block"])
    eventually(lambda: mirror.value("block-00") == "changed")
    assert "events were lost" in daemon.said()
    (folder / "new" / "block.md").write_text("newer\n")
    eventually(lambda: mirror.value("new/block") == "newer", "directories made meanwhile are watched")


def test_limit_on_watches(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """With more directories than watches it goes on, slower, and names the sysctl to raise."""
    require("unshare")
    limit = "/proc/sys/user/max_inotify_watches"
    under = ("unshare", "-Ur", "sh", "-ec", f'echo 6 > {limit}; exec "$@"', "sh")
    if subprocess.run([*under, "true"], check=False, capture_output=True).returncode:
        pytest.skip("user namespaces are not permitted here")
    directories = [f"d{number}" for number in range(10)]
    for directory in directories:
        (folder / directory).mkdir()
        (folder / directory / "block.md").write_text("one\n")
    daemon = run_daemon("--delete-grace", "0.2", "--resync-seconds", "1", under=under)
    problem = eventually(lambda: mirror.problem("<watcher>"), "it says so")
    assert problem["code"] == "degraded"
    assert "fs.inotify.max_user_watches" in problem["hint"]
    assert "not watched" in daemon.command("status").stdout
    for directory in directories:
        (folder / directory / "block.md").write_text("two\n")
    eventually(lambda: all(mirror.value(f"{directory}/block") == "two" for directory in directories))


def test_directories_that_slip_from_the_watch(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """Directories renamed right after they were made, some of which lose their watch, are found at the next sweep."""
    run_daemon("--delete-grace", "0.2", "--resync-seconds", "1")
    names = [f"d{number}" for number in range(200)]
    for name in names:
        (folder / "t").mkdir()
        (folder / "t" / "block.md").write_text("one\n")
        (folder / "t").rename(folder / name)
    labels = sorted(f"{name}/block" for name in names)
    eventually(lambda: mirror.labels() == labels)
    for text in ("two", "three"):
        for name in names:
            (folder / name / "block.md").write_text(f"{text}\n")
        eventually(lambda: all(mirror.value(label) == text for label in labels))  # noqa: B023  # waited for here
    eventually(lambda: mirror.problems() == {}, "all directories are watched in the end")


def test_poll_needs_no_events(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """With `--poll` the folder is swept often, and not one inotify watch is taken."""
    fill(folder, 2)
    daemon = run_daemon("--poll", "--delete-grace", "0.2", BLOCKSD_POLL_SECONDS="0.1")
    assert daemon.process is not None
    opened = Path(f"/proc/{daemon.process.pid}/fd")
    assert not [one for one in opened.iterdir() if "inotify" in os.readlink(one)]
    (folder / "block-00.md").write_text("changed\n")
    (folder / "block-01.md").unlink()
    (folder / "deep").mkdir()
    (folder / "deep" / "new.md").write_text("new\n")
    eventually(lambda: mirror.labels() == ["block-00", "deep/new"])
    eventually(lambda: mirror.value("block-00") == "changed")


def test_hangup_compares_everything(folder: Path, mirror: Mirror, run_daemon: RunDaemon) -> None:
    """SIGHUP makes the daemon look at the whole folder: what came by no event, as through a hard link, is found."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon(*PATIENT)
    os.link(folder / "notes.md", folder.with_name("elsewhere"))
    folder.with_name("elsewhere").write_text("two\n")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: mirror.value("notes") == "two")


@pytest.mark.parametrize("name", ["team", "agents"])
def test_symlink_in_the_place_of_a_directory(
    folder: Path, mirror: Mirror, run_daemon: RunDaemon, tmp_path: Path, name: str
) -> None:
    """It is a problem at once, as the status shows; the blocks below are deleted as any are, and come back with the directory."""
    for place in ("team", "agents/ann"):
        (folder / place).mkdir(parents=True)
        (folder / place / "block.md").write_text("text\n")
    (folder / "notes.md").write_text("text\n")
    daemon = run_daemon(*PATIENT)
    gone = {"team": "team/block", "agents": "agents/ann/block"}[name]
    (folder / name).rename(tmp_path / "moved")
    (folder / name).symlink_to(tmp_path / "moved")
    eventually(lambda: gone not in mirror.labels())
    problem = eventually(lambda: mirror.problem(name))
    assert problem["message"] == "it is a symlink to a directory: no block is read or written through it"
    assert problem["hint"].startswith("put the directory itself here")
    assert f"{name}: it is a symlink to a directory" in daemon.command("status").stdout
    (folder / name).unlink()
    eventually(lambda: mirror.problem(name) is None)
    (tmp_path / "moved").rename(folder / name)
    eventually(lambda: gone in mirror.labels())
    assert mirror.problems() == {}
