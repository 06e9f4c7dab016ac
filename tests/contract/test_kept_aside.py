"""What lies aside, and may be a save, is not removed unread: neither by a restart, nor when its place is out of reach."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.files.folder import Folder
from blocksd.files.root import Root
from blocksd.model.problem import JOURNAL, KEPT
from blocksd.requests.request import Entry
from failing import FailingRoot
from machine.disk import ALL, Choice, Disk, Log
from machine.hands import Hands, Killed
from rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer

TEMPORARY = ".blocksd-"


class Sick:
    """A folder in which what lies aside cannot be opened, as long as a test wants it."""

    def __init__(self) -> None:
        self.is_sick = False

    def folder(self, path: str) -> Folder:
        return Folder(FailingRoot(path, self._fails))

    def _fails(self, name: str, *args: Any) -> int | None:
        is_aside = name == "open" and TEMPORARY in str(args[0]) and not args[1] & os.O_CREAT
        return errno.EIO if self.is_sick and is_aside else None


@pytest.fixture
def sick() -> Sick:
    return Sick()


@pytest.fixture
def rig(tmp_path: Path, server: RedisServer, sick: Sick, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(Root, "has_writer", lambda *_: None)  # nobody can tell who has a file open
    made = Rig(tmp_path, server.url, kind=sick.folder)
    made.write("deep/notes", "one\n")
    made.settle()
    yield made
    made.close()


def ask(rig: Rig, number: int, label: str = "deep/notes") -> None:
    content = f'{{"id": "r-{number}", "op": "append", "label": "{label}", "args": {{"content": "line {number}"}}}}'
    rig.core.inbox.add([Entry("operator", f"{number}-0", content)])


def until(rig: Rig, effect: str) -> None:
    """Round after round, up to the first effect of this name; the daemon dies there."""
    for _ in range(100):
        for name in rig.core.round():
            if name == effect:
                rig.crash()
                return
        rig.clock.advance(max(rig.core.wait_seconds(), 0.001))
    pytest.fail(f"no {effect}")


def asides(rig: Rig) -> list[str]:
    return [name for name in os.listdir(rig.root / "deep") if name.startswith(TEMPORARY)]


@pytest.mark.parametrize("how", ["stop", "crash", "power cut"])
def test_late_save_that_cannot_be_read_outlives_a_restart(rig: Rig, sick: Sick, how: str) -> None:
    """It is put back when it can be read; after a power cut, which may have left anything in it, it is shown."""
    notes = rig.root / "deep" / "notes.md"
    with notes.open("r+") as file:
        ask(rig, 1)
        for name in rig.core.round():
            if name == "finish":
                file.write("a late save\n")
                file.truncate()
                file.flush()
                sick.is_sick = True
    rig.run(lambda: KEPT in rig.core.problems)
    if how == "stop":
        rig.core.close()
    else:
        rig.crash()
    if how == "power cut":
        rig.boot_id = "another boot"
    rig.open()
    rig.run(lambda: KEPT in rig.core.problems)
    rig.resync()
    assert len(asides(rig)) == 1
    sick.is_sick = False
    if how == "power cut":
        rig.resync()
        (aside,) = asides(rig)
        assert (rig.root / "deep" / aside).read_text() == "a late save\n"
        (rig.root / "deep" / aside).unlink()
    rig.run(lambda: KEPT not in rig.core.problems)
    rig.run(lambda: not asides(rig), "nothing is left")
    if how != "power cut":
        assert notes.read_text().startswith("a late save\n")  # merged with the line, if it was stale


def test_late_save_that_recovery_cannot_put_back(rig: Rig) -> None:
    """It came after a crash between the exchange and the end: it is found, but fails to be put back."""
    notes = rig.root / "deep" / "notes.md"
    with notes.open("r+") as file:
        ask(rig, 1)
        until(rig, "finish")
        file.write("a late save\n")
        file.truncate()
    fails = [True]
    failing: Any = FailingRoot
    real = failing.renameat2

    def renameat2(self: FailingRoot, *args: Any) -> Any:
        if fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, *args)

    failing.renameat2 = renameat2
    try:
        rig.open()
        rig.settle()
        rig.resync()
        assert len(asides(rig)) == 1
        fails.clear()
        rig.run(lambda: KEPT not in rig.core.problems)
    finally:
        failing.renameat2 = real
    rig.run(lambda: not asides(rig), "nothing is left")
    assert notes.read_text().startswith("a late save\n")


@pytest.mark.parametrize("boot", ["one boot", "another boot"])
@pytest.mark.parametrize("effect", ["put in", "finish"])
@pytest.mark.parametrize("what", ["symlink", "gone", "file"])
def test_directory_on_the_way_is_another_thing_after_a_crash(
    rig: Rig, tmp_path: Path, what: str, effect: str, boot: str
) -> None:
    """The request in doubt counts as done after a while, what lay aside is kept, and everything else goes on."""
    for number in range(9):  # so that one that is missing is no lost disk
        rig.write(f"block-{number}", "text\n")
    rig.save_and_settle("other", "x\n")
    ask(rig, 1)
    until(rig, effect)
    deep, moved = rig.root / "deep", tmp_path / "moved"
    deep.rename(moved)
    if what == "symlink":
        deep.symlink_to(moved)
    elif what == "file":
        deep.write_text("no directory\n")
    before = {path.name: path.read_text() for path in moved.iterdir()}
    rig.boot_id = boot
    rig.open()
    rig.run(lambda: rig.core.is_settled and JOURNAL not in rig.core.problems, "nothing is blocked")
    ask(rig, 2, "other")
    rig.run(lambda: (rig.root / "other.md").read_text() == "x\nline 2\n", "another request is done")
    assert {path.name: path.read_text() for path in moved.iterdir()} == before
    rig.resync()
    if what != "gone":
        deep.unlink()
    moved.rename(deep)
    rig.resync()
    rig.run(lambda: KEPT not in rig.core.problems, "it is decided")
    rig.settle()
    assert asides(rig) == []
    assert (deep / "notes.md").read_text() in ("one\n", "one\nline 1\n")
    head = rig.journal.head("deep/notes")
    assert head is not None
    assert head.block is not None
    assert f"{head.block.value}\n" == (deep / "notes.md").read_text()


@pytest.mark.parametrize("boots", [False, True], ids=["one boot", "another boot"])
@pytest.mark.parametrize("effect", ["project", "clear away"])
@pytest.mark.parametrize("durability", ["disk", "process"])
def test_save_between_the_end_of_a_request_and_a_crash(
    tmp_path: Path,
    server: RedisServer,
    sick: Sick,
    durability: str,
    effect: str,
    boots: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was displaced is read at the next start, too: a save to it is put back, and merged with the request.

    After a power cut it is not: what a program has not synced may be there in part.
    """
    monkeypatch.setattr(Root, "has_writer", lambda *_: None)
    rig = Rig(tmp_path, server.url, kind=sick.folder, durability=durability)
    rig.save_and_settle("deep/notes", "one\n")
    notes = rig.root / "deep" / "notes.md"
    with notes.open("r+") as file:
        ask(rig, 1)
        until(rig, effect)
        assert notes.read_text() == "one\nline 1\n"
        file.write("one\nlate\n")
    rig.boot_id = "another boot" if boots else "one boot"
    rig.open()
    rig.settle()
    rig.resync()
    assert asides(rig) == []
    assert notes.read_text() == ("one\nline 1\n" if boots else "one\nline 1\nlate\n")
    authors = [one.author for one in rig.journal.history("deep/notes")]
    assert authors == (["operator", "file"] if boots else ["merge", "file", "operator", "file"])
    rig.close()


def test_save_made_of_a_text_that_is_being_taken_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """One save comes right before the exchange, and one right after it, of our text: that is in it once, and neither is lost."""
    notes = rig.root / "deep" / "notes.md"
    failing: Any = FailingRoot
    real = failing.renameat2
    saves: list[Callable[[], str]] = [lambda: "one\nearly\n", lambda: notes.read_text() + "on top\n"]

    def renameat2(self: FailingRoot, *args: Any) -> None:
        if len(saves) == 2:
            notes.write_text(saves.pop(0)())
        real(self, *args)
        if saves:
            replaced = rig.root / "replaced"
            replaced.write_text(saves.pop()())
            replaced.rename(notes)

    monkeypatch.setattr(FailingRoot, "renameat2", renameat2)
    ask(rig, 1)
    rig.settle()
    rig.resync()
    assert notes.read_text() == "one\nline 1\non top\n"
    assert [one.author for one in rig.journal.history("deep/notes")] == ["file", "operator", "file"]
    (aside,) = asides(rig)
    assert (rig.root / "deep" / aside).read_text() == "one\nearly\n"
    assert aside in rig.core.problems[KEPT].message
    rig.crash()
    rig.open()
    rig.settle()
    assert asides(rig) == [aside], "also after a restart"
    (rig.root / "deep" / aside).unlink()
    rig.run(lambda: KEPT not in rig.core.problems)


def test_save_made_of_a_text_that_was_taken_back(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was read in the moment of the exchange, and is saved after that: nothing is lost, though our text may be there twice."""
    notes = rig.root / "deep" / "notes.md"
    failing: Any = FailingRoot
    real = failing.renameat2
    read: list[str] = []

    def renameat2(self: FailingRoot, *args: Any) -> None:
        calls.append(1)
        if len(calls) == 1:
            notes.write_text("one\nearly\n")
        real(self, *args)
        if len(calls) == 1:
            read.append(notes.read_text())
        elif len(calls) == 2:
            notes.write_text(f"{read[0]}on top\n")

    calls: list[int] = []
    monkeypatch.setattr(Root, "has_writer", lambda *_: False)
    monkeypatch.setattr(FailingRoot, "renameat2", renameat2)
    ask(rig, 1)
    rig.settle()
    rig.resync()
    assert read == ["one\nline 1\n"]
    assert notes.read_text() == "one\nline 1\non top\nline 1\n"
    assert [one.author for one in rig.journal.history("deep/notes")] == ["operator", "file", "file"]
    assert asides(rig) == []


class Dead(BaseException):
    """The daemon is gone."""


def test_crash_between_two_saves_around_an_exchange(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second was made of our text: that is in it once, also when the client asks again, and the first is shown."""
    notes = rig.root / "deep" / "notes.md"
    failing: Any = FailingRoot
    real = failing.renameat2

    def renameat2(self: FailingRoot, *args: Any) -> None:
        early = rig.root / "early"
        early.write_text("one\nearly\n")
        early.rename(notes)
        real(self, *args)
        on_top = rig.root / "on top"
        on_top.write_text(f"{notes.read_text()}on top\n")
        on_top.rename(notes)
        raise Dead

    with monkeypatch.context() as patch:
        patch.setattr(FailingRoot, "renameat2", renameat2)
        ask(rig, 1)
        with pytest.raises(Dead):
            rig.round()
    rig.crash()
    rig.open()
    ask(rig, 1)
    rig.settle()
    rig.resync()
    assert notes.read_text() == "one\nline 1\non top\n"
    assert [one.author for one in rig.journal.history("deep/notes")] == ["file", "operator", "file"]
    (aside,) = asides(rig)
    assert (rig.root / "deep" / aside).read_text() == "one\nearly\n"
    assert aside in rig.core.problems[KEPT].message


def test_late_save_beside_a_save_to_the_file(rig: Rig) -> None:
    """Which is the newer one cannot be told: one is in the file, and the other is shown."""
    notes = rig.root / "deep" / "notes.md"
    with notes.open("r+") as file:
        ask(rig, 1)
        until(rig, "clear away")
        file.write("one\nlate\n")
    notes.write_text("one\nline 1\nby hand\n")
    rig.open()
    rig.settle()
    rig.resync()
    assert notes.read_text() == "one\nline 1\nby hand\n"
    (aside,) = asides(rig)
    assert (rig.root / "deep" / aside).read_text() == "one\nlate\n"
    assert aside in rig.core.problems[KEPT].message


def test_late_save_when_the_round_ends_in_an_error(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read before anything more is written to its file, and before a sweep finds it."""
    monkeypatch.setattr(Root, "has_writer", lambda *_: False)
    notes = rig.root / "deep" / "notes.md"
    rig.tolerates_errors = True

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    with notes.open("r+") as file, monkeypatch.context() as patch:
        patch.setattr(rig.core.projector, "project", broken)
        ask(rig, 1)
        rig.round()
        assert notes.read_text() == "one\nline 1\n"
        file.write("one\nlate\n")
    rig.core.failures.unexpected = None
    rig.settle()
    rig.resync()
    assert asides(rig) == []
    assert sorted(notes.read_text().split()) == ["1", "late", "line", "one"]
    ask(rig, 2)
    rig.run(lambda: notes.read_text().endswith("line 2\n"))


def test_late_save_to_a_block_of_an_agent_that_is_deleted(rig: Rig) -> None:
    """It stays, and the agent's folder with it: a person put it there."""
    rig.save_and_settle("agents/ann/persona", "one\n")
    persona = rig.root / "agents" / "ann" / "persona.md"
    with persona.open("r+") as file:
        rig.core.inbox.add([Entry("operator", "1-0", '{"id": "r", "op": "delete_agent", "args": {"agent": "ann"}}')])
        for name in rig.core.round():
            if name == "finish":
                file.write("late\n")
                file.flush()
    rig.settle()
    rig.resync()
    assert persona.read_text() == "late\n"


# --- a power cut while a save is put back ---


class Cut:
    """A daemon whose power is cut at one of its calls, while it puts back a save that came late."""

    def __init__(self, home: Path, url: str) -> None:
        (home / "blocks.d" / "deep").mkdir(parents=True)
        (home / "blocks.d" / "deep" / "notes.md").write_text("one\n")
        self.disk = Disk(home / "blocks.d", home / "inodes")
        self.log = Log(home / "journal.db")
        self.hands = Hands(self.disk, self.log)
        self.rig = Rig(
            home,
            url,
            kind=self.hands.folder,
            beneath=self.hands.on_what_it_uses,
            durability="disk",
            namespace=home.name,
        )
        self.rig.settle()
        self.disk.settle()
        self.notes = self.rig.root / "deep" / "notes.md"

    def save_late(self, *, is_synced: bool) -> Iterator[str]:
        """Up to where the save is put back: the rest of the round."""
        self.hands.is_blind = True
        with self.notes.open("r+") as file:
            ask(self.rig, 1)
            effects = self.rig.core.round()
            for effect in effects:
                if effect == "clear away":
                    break
            file.write("one\nlate\n")
            file.flush()
            if is_synced:
                os.fsync(file.fileno())
                self.disk.synced_file(file.fileno())
        return effects

    def lose_power(self, effects: Iterator[str], calls: int, choice: Choice) -> bool:
        """Cut it at the call after so many others; return True if it came to that."""
        self.hands.kill_in(calls)
        try:
            for _ in effects:
                pass
        except Killed:
            is_cut = True
        else:
            is_cut = False
        database = self.log.take(choice)
        self.rig.crash()
        self.disk.cut(choice)
        self.log.put(*database)
        return is_cut

    def come_back(self) -> None:
        self.hands.revive()
        self.rig.boot_id = "another boot"
        self.rig.open()
        self.rig.settle()


@pytest.mark.parametrize("entries", [0, ALL], ids=["no name on disk", "all names on disk"])
def test_half_of_a_save_never_takes_the_place_of_a_text_on_disk(
    tmp_path: Path, server: RedisServer, entries: int
) -> None:
    """A power cut at any call while a late save is put back leaves the one text or the other, whole."""
    for calls in range(20):
        cut = Cut(tmp_path / f"{calls}", server.url)
        effects = cut.save_late(is_synced=False)
        is_cut = cut.lose_power(effects, calls, Choice(entries))
        assert cut.notes.read_text() in ("one\nline 1\n", "one\nlate\n")
        cut.come_back()
        values = [one.block.value for one in cut.rig.journal.history("deep/notes") if one.block is not None]
        assert "one\nline 1" in values, "it was acknowledged"
        assert asides(cut.rig) == []
        cut.rig.crash()
        if not is_cut:
            assert calls > 3
            return
    pytest.fail("there was no end to it")


def test_save_that_was_kept_is_not_forgotten_before_it_is_on_disk_in_its_place(
    tmp_path: Path, server: RedisServer
) -> None:
    """After a power cut at any call it is in its place, or lies aside and is shown."""
    for calls in range(20):
        cut = Cut(tmp_path / f"{calls}", server.url)
        effects = cut.save_late(is_synced=True)
        cut.hands.fail_in(0, errno.EIO, names=("sync",))
        with cut.hands.at_work():
            for _ in effects:
                pass
        cut.hands.forget()
        assert KEPT in cut.rig.core.problems
        cut.rig.clock.advance(1.0)
        is_cut = cut.lose_power(cut.rig.core.round(), calls, Choice(0, ALL))
        cut.come_back()
        is_shown = [(cut.rig.root / "deep" / one).read_text() for one in asides(cut.rig)] == ["one\nlate\n"]
        is_shown &= KEPT in cut.rig.core.problems
        assert is_shown or "late" in cut.notes.read_text().split()
        cut.rig.crash()
        if not is_cut:
            assert calls > 3
            return
    pytest.fail("there was no end to it")
