"""Saving a file, in every way editors and tools have of doing it, is one change, and never a deletion."""

from __future__ import annotations

import fcntl
import os
import pty
import shutil
import struct
import subprocess
import termios
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from support import eventually, quiet_environ, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import Changes, Daemon, RedisServer

pytestmark = pytest.mark.slow

GRACE = "0.3"
"""Shorter than by default, for speed; still far longer than any editor leaves a file away."""


class Saved:
    """A folder with a block `notes` that says `one`, in the charge of a daemon."""

    def __init__(self, folder: Path, server: RedisServer, daemon: Daemon, changes: Changes) -> None:
        self.folder = folder
        self.file = folder / "notes.md"
        self.daemon = daemon
        self.changes = changes
        self.client = server.client()

    def value(self, label: str = "notes") -> str | None:
        found: str | None = self.client.hget(f"blocks:block:{label}", "value")
        return found

    def is_updated_once(self, value: str = "two", label: str = "notes") -> bool:
        """Whether this value, once shown, came by a single update, and nothing else happened at all."""
        eventually(lambda: self.value(label) == value, f"the mirror shows {value!r}, not {self.value(label)!r}")
        happened = [(change["kind"], change.get("label")) for change in self.changes.settle()]
        assert happened == [("updated", label)]
        assert self.client.hgetall("blocks:problems") == {}
        return True


@pytest.fixture
def saved(
    folder: Path, server: RedisServer, run_daemon: Callable[..., Daemon], request: pytest.FixtureRequest
) -> Iterator[Saved]:
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon("--delete-grace", GRACE, BLOCKSD_HISTORY_VERSIONS="1000000")
    result = Saved(folder, server, daemon, request.getfixturevalue("changes"))
    yield result
    result.client.close()


def run(*words: str | Path, cwd: Path | None = None) -> None:
    subprocess.run(
        words, check=True, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, env=quiet_environ()
    )


# --- editors ---


@pytest.mark.parametrize("options", [[], ["set backupcopy=yes"], ["set backup"], ["set nowritebackup"]])
def test_vim_saves_once(saved: Saved, options: list[str]) -> None:
    """However vim writes, a `:w` is one update: its probe, its backup and its swap file are nobody's business."""
    words = [word for option in options for word in ("-c", option)]
    vim = require("vim")
    words += ["-c", "set backupskip="]  # else there are no backups below /tmp, and files are written in place
    run(vim, "-u", "NONE", "-N", "-i", "NONE", "-es", *words, "-c", "%s/one/two/", "-c", "wq", saved.file)
    assert saved.is_updated_once()


def test_nano_saves_once(saved: Saved) -> None:
    """A save in nano, at a terminal, is one update."""
    words = [require("nano"), "--ignorercfiles", str(saved.file)]
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    nano = subprocess.Popen(words, stdin=slave, stdout=slave, stderr=slave, env=quiet_environ(), start_new_session=True)
    os.close(slave)
    os.set_blocking(master, False)
    screen = b""

    def shows(text: bytes) -> bool:
        nonlocal screen
        with suppress(OSError):  # nothing yet, or nano has ended
            screen += os.read(master, 65536)
        return text in screen

    try:
        eventually(lambda: shows(b"one") and shows(b"Exit"), "nano shows the file")
        os.write(master, b"\x0btwo\x0f\r")  # cut the line, type, write out under the same name
        eventually(lambda: shows(b"Wrote"), f"nano wrote; its screen: {screen!r}")
        os.write(master, b"\x18")
        eventually(lambda: shows(b"") and nano.poll() is not None, "nano ended")
    finally:
        nano.kill()
        nano.wait(10)
        os.close(master)
    assert saved.is_updated_once()


def test_emacs_saves_once(saved: Saved) -> None:
    """A save in emacs is one update: its lock, auto-save and backup files are nobody's business."""
    edit = '(progn (auto-save-mode 1) (erase-buffer) (insert "two\\n"))'
    keep = '(unless (and (file-symlink-p ".#notes.md") (file-exists-p "#notes.md#")) (kill-emacs 9))'
    back_up = "(setq backup-enable-predicate (lambda (_) t))"  # even below /tmp
    steps = [word for step in (edit, "(do-auto-save)", keep, "(save-buffer)") for word in ("--eval", step)]
    run(require("emacs"), "-nw", "-Q", "--batch", "--eval", back_up, "notes.md", *steps, cwd=saved.folder)
    assert (saved.folder / "notes.md~").exists()
    assert saved.is_updated_once()


def test_jetbrains_saves_once(saved: Saved) -> None:
    """A "safe write" of a JetBrains editor is one update."""
    new, old = (saved.folder / f"notes.md___jb_{which}___" for which in ("tmp", "old"))
    new.write_text("two\n")
    saved.file.rename(old)
    new.rename(saved.file)
    old.unlink()
    assert saved.is_updated_once()


@pytest.mark.parametrize("temporary", [".goutputstream-XK2LS2", ".notes.md.x8Zq1p", "notes.md~", "#notes.md#", ".4913"])
def test_temporary_in_the_folder_renamed_over(saved: Saved, temporary: str) -> None:
    """A temporary file beside the block, renamed over it, is one update: gedit, rsync, GLib, and many more."""
    path = saved.folder / temporary
    path.write_text("two\n")
    path.rename(saved.file)
    assert saved.is_updated_once()


@pytest.mark.parametrize("leftover", [".notes.md.swp", "notes.md~", "#notes.md#", ".git/notes.md", "notes.md.swo"])
def test_leftover_of_an_editor_is_ignored(saved: Saved, leftover: str) -> None:
    """What editors and git keep beside a file is neither a block nor a problem."""
    (saved.folder / leftover).parent.mkdir(exist_ok=True)
    (saved.folder / leftover).write_bytes(b"\xff\x00 not a block")
    (saved.folder / ".#notes.md").symlink_to("someone@host.1:2")
    saved.file.write_text("two\n")
    assert saved.is_updated_once()


# --- tools ---


@pytest.mark.parametrize(
    "command",
    [
        "sed -i s/one/two/ notes.md",
        "perl -pi -e s/one/two/ notes.md",
        "perl -i.bak -pe s/one/two/ notes.md",
        "echo two > notes.md",
        "cp ../new.md notes.md",
        "cp --remove-destination ../new.md notes.md",
        "mv ../new.md notes.md",
        "install -m 644 ../new.md notes.md",
        "dd if=../new.md of=notes.md bs=1",
        "rsync --ignore-times ../new.md notes.md",
        "rsync --ignore-times --inplace ../new.md notes.md",
        "rm notes.md; cp ../new.md notes.md",
    ],
)
def test_tool_saves_once(saved: Saved, command: str) -> None:
    """A tool that writes a file, in place or by a temporary of its own, makes one update."""
    require(command.partition(" ")[0])
    (saved.folder.parent / "new.md").write_text("two\n")
    run("sh", "-ec", command, cwd=saved.folder)
    assert saved.is_updated_once()


def test_file_moved_in_from_elsewhere(saved: Saved) -> None:
    """A file written outside of the folder and moved over a block is one update."""
    outside = saved.folder.parent / "outside"
    outside.write_text("two\n")
    outside.rename(saved.file)
    assert saved.is_updated_once()


def test_directory_moved_in_from_elsewhere(saved: Saved) -> None:
    """The blocks in a directory that is moved in come into force, and later saves in it are seen."""
    outside = saved.folder.parent / "policies"
    outside.mkdir()
    (outside / "refunds.md").write_text("never\n")
    outside.rename(saved.folder / "policies")
    eventually(lambda: saved.value("policies/refunds") == "never")
    (saved.folder / "policies" / "refunds.md").write_text("always\n")
    eventually(lambda: saved.value("policies/refunds") == "always")
    happened = [(change["kind"], change["label"]) for change in saved.changes.settle()]
    assert happened == [("created", "policies/refunds"), ("updated", "policies/refunds")]


def test_save_that_changes_nothing_is_no_change(saved: Saved) -> None:
    """A file written with the text it had, or only touched, is not announced; its mode is, to those who copy the file."""
    saved.file.write_text("one\n")
    saved.file.touch()
    assert saved.changes.settle() == []
    saved.file.chmod(0o600)
    eventually(lambda: [change["kind"] for change in saved.changes.settle()] == ["file"])


def git(folder: Path, *words: str) -> None:
    run(require("git"), "-c", "commit.gpgsign=false", "-c", "gc.auto=0", *words, cwd=folder)


def test_git_changes_each_file_once(saved: Saved) -> None:
    """`git checkout` and `git stash`, which unlink and create many files, are one update per block that differs."""
    names = [f"topic-{number}" for number in range(40)]

    def write(text: str) -> None:
        for name in names:
            (saved.folder / f"{name}.md").write_text(f"{text}\n" * 100)

    def happened_since(count: int, text: str) -> dict[str, list[str]]:
        wanted = "\n".join([text] * 100)
        eventually(lambda: all(saved.value(name) == wanted for name in names))
        kinds: dict[str, list[str]] = {}
        for change in saved.changes.settle()[count:]:
            kinds.setdefault(change["label"], []).append(change["kind"])
        return kinds

    write("main")
    git(saved.folder, "init", "-q", "-b", "main")
    git(saved.folder, "add", ".")
    git(saved.folder, "commit", "-q", "-m", "main")
    created = happened_since(0, "main")
    assert created == {name: ["created"] for name in names}
    git(saved.folder, "checkout", "-q", "-b", "other")
    write("other")
    assert happened_since(len(names), "other") == {name: ["updated"] for name in names}
    git(saved.folder, "commit", "-q", "-a", "-m", "other")
    for count, words, text in (
        (2, ["checkout", "-q", "main"], "main"),
        (3, ["checkout", "-q", "other"], "other"),
        (4, ["checkout", "-q", "main"], "main"),
    ):
        git(saved.folder, *words)
        assert happened_since(count * len(names), text) == {name: ["updated"] for name in names}
    write("stashed")
    assert happened_since(5 * len(names), "stashed") == {name: ["updated"] for name in names}
    git(saved.folder, "stash", "-q")
    assert happened_since(6 * len(names), "main") == {name: ["updated"] for name in names}
    git(saved.folder, "stash", "pop", "-q")
    assert happened_since(7 * len(names), "stashed") == {name: ["updated"] for name in names}
    assert saved.client.hgetall("blocks:problems") == {}


# --- half saves ---


def test_text_written_in_pieces_is_published_whole(saved: Saved) -> None:
    """A file that is truncated and written in pieces is read when its writer is done: no empty and no half text."""
    texts = ["".join(f"{text} {number}\n" for number in range(6)) for text in ("first", "second")]
    for text in texts:
        with saved.file.open("w") as file:
            for line in text.splitlines(keepends=True):
                file.write(line)
                file.flush()
                time.sleep(0.05)  # longer than a file is left alone after the first event
        eventually(lambda: saved.value() == text.removesuffix("\n"))  # noqa: B023  # waited for right here
    assert [change["kind"] for change in saved.changes.settle()] == ["updated", "updated"]
    assert saved.daemon.values("notes") == ["one", *(text.removesuffix("\n") for text in texts)]


def test_file_emptied_and_written_in_two_steps_is_one_save(saved: Saved) -> None:
    """A program closes the file while it is empty, and opens it again: nobody is detached, and `read_only` is never off."""
    text = "---\nread_only: true\nagents: [ann]\n---\none\n"
    saved.file.write_text(text)
    eventually(lambda: saved.client.sismember("blocks:attached:notes", "ann"))
    saved.file.write_text("")
    time.sleep(0.3)
    saved.file.write_text(text.replace("one", "two"))
    eventually(lambda: saved.value() == "two")
    newest = saved.daemon.revisions("notes")[-1]
    assert (newest.version, newest.fields, newest.detached) == (3, ("value",), ())


def test_file_left_open_is_read_when_it_has_settled(saved: Saved) -> None:
    """A writer that pauses with the file empty and open is waited for."""
    with saved.file.open("w") as file:
        time.sleep(0.5)  # the truncated file is there to be looked at for a while
        file.write("two\n")
    assert saved.is_updated_once()


def test_thousand_saves_a_second(saved: Saved) -> None:
    """Saves in place that come faster than they are read are coalesced: every text announced is one that was saved."""
    texts = [f"save {number}\n" + "line\n" * (number % 50) for number in range(3000)]
    began = time.monotonic()
    for number, text in enumerate(texts):
        saved.file.write_text(text)
        time.sleep(max(0.0, began + number / 1000 - time.monotonic()))
    eventually(lambda: saved.value() == texts[-1].removesuffix("\n"))
    kinds = [change["kind"] for change in saved.changes.settle()]
    assert set(kinds) == {"updated"}
    values = saved.daemon.values("notes")
    assert len(values) == 1 + len(kinds)
    assert set(values) <= {"one", *(text.removesuffix("\n") for text in texts)}


def test_thousand_atomic_saves_a_second(saved: Saved) -> None:
    """The same, by renaming over the file: it is never seen as deleted."""
    for number in range(2000):
        temporary = saved.folder / f".notes.{number}"
        temporary.write_text(f"save {number}\n")
        temporary.rename(saved.file)
    eventually(lambda: saved.value() == "save 1999")
    assert {change["kind"] for change in saved.changes.settle()} == {"updated"}
    assert set(saved.daemon.values("notes")) <= {"one", *(f"save {number}" for number in range(2000))}


# --- many ---


def test_rename_storm_ends_right(saved: Saved) -> None:
    """Files renamed to and fro faster than they are looked at end as the folder has them; nothing of the others is lost."""
    names = [f"storm-{number}" for number in range(30)]
    for name in names:
        (saved.folder / f"{name}.md").write_text(f"{name}\n")
    eventually(lambda: all(saved.value(name) == name for name in names))
    for number in range(900):
        path = saved.folder / f"{names[number % 30]}.md"
        path.rename(path.with_suffix(".moved.md"))
        path.with_suffix(".moved.md").rename(path)
    (saved.folder / "storm-0.md").rename(saved.folder / "calm.md")
    saved.changes.settle()
    eventually(lambda: set(saved.client.zrange("blocks:labels", 0, -1)) == {"notes", "calm", *names[1:]})
    assert all(saved.value(name) == name for name in names[1:])
    assert saved.value("calm") == "storm-0"
    assert saved.client.hgetall("blocks:problems") == {}
    gone = [change["label"] for change in saved.changes.all if change["kind"] == "deleted"]
    assert [label for label in gone if "moved" not in label and "fence" not in label] == []
    came = [change for change in saved.changes.all if change["label"] == "calm"]
    assert [change["kind"] for change in came] == ["renamed"]


def test_tree_of_thousands_is_copied_in(saved: Saved) -> None:
    """`cp -r` of thousands of files in many directories creates each block once."""
    source = saved.folder.parent / "source"
    labels = [f"big/d{number % 50}/e{number % 7}/block-{number}" for number in range(3000)]
    for label in labels:
        path = source.parent / f"source/{label.removeprefix('big/')}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{label}\n")
    run("cp", "-r", source, saved.folder / "big")
    eventually(lambda: saved.client.zcard("blocks:labels") == len(labels) + 1)
    happened = sorted((change["kind"], change["label"]) for change in saved.changes.settle())
    assert happened == sorted(("created", label) for label in labels)
    pipeline = saved.client.pipeline()
    for label in labels:
        pipeline.hget(f"blocks:block:{label}", "value")
    assert pipeline.execute() == labels
    shutil.rmtree(source)
