"""Files are brought to what the leader has: whatever is edited here stays, and no crash makes an edit of what was written."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import LabelConflict, StateUnusable, Unavailable
from blocksd.files.root import Root
from blocksd.follow.names import NameRules
from blocksd.follow.place import Place
from followers import Side, wanted

if TYPE_CHECKING:
    from collections.abc import Iterator


class Crash(BaseException):
    """The process ends here."""


class Mortal(Root):
    """A folder whose calls end the process after so many of them."""

    left = 1 << 60

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name in (
            "open",
            "rename",
            "renameat2",
            "link",
            "unlink",
            "make_directory",
            "remove_directory",
            "write",
            "sync",
        ):
            Mortal.left -= 1
            if Mortal.left < 0:
                raise Crash
        return found


class Synced(Place):
    """A place of which is known what was on disk at its last sync."""

    @contextmanager
    def transaction(self, *, is_synced: bool = True) -> Iterator[None]:
        with super().transaction(is_synced=is_synced):
            yield
        if is_synced:
            for path in Path(self._path).parent.glob("follower.db*"):
                shutil.copy(path, path.with_name(f"synced-{path.name}"))

    @staticmethod
    def cut_power(state: Path) -> None:
        """Put back what was on disk."""
        for path in state.glob("follower.db*"):
            path.unlink()
        for path in state.glob("synced-*"):
            if not path.name.endswith("-shm"):
                path.rename(path.with_name(path.name.removeprefix("synced-")))


@pytest.fixture
def side(tmp_path: Path) -> Any:
    made = Side(tmp_path)
    yield made
    made.close()


def test_files_are_written_renamed_and_removed(side: Side) -> None:
    """With the directories that they need, which go with the last file in them, if they were made here."""
    (side.path / "there").mkdir()
    side.bring({"a": "1", "deep/er/b": "1", "there/c": "1"})
    assert side.tree() == {"a.md": "1", "deep/er/b.md": "1", "there/c.md": "1"}
    assert side.place.directories == {"deep", "deep/er"}
    outcome = side.bring({"a": "2", "deep/er/b": None, "moved": "1", "there/c": None})
    assert side.tree() == {"a.md": "2", "moved.md": "1"}
    assert outcome.removed == ["deep/er/b.md", "there/c.md"]
    assert sorted(one.name for one in side.path.iterdir()) == ["a.md", "moved.md", "there"]
    assert side.place.directories == set()


def test_block_whose_path_is_another_one_moves(side: Side) -> None:
    """And two blocks that change places."""
    side.copier.bring({"a": wanted("a", "1"), "b": wanted("b", "2")}, restores=True)
    side.copier.bring({"a": wanted("a", "1", path="b.md"), "b": wanted("b", "2", path="a.md")}, restores=True)
    assert side.tree() == {"a.md": "2", "b.md": "1"}
    side.copier.bring({"a": wanted("a", "1", path="c.md")}, restores=True)
    assert side.tree() == {"a.md": "2", "c.md": "1"}
    assert side.place.paths == {"a": "c.md", "b": "a.md"}


def test_local_edits_stay(side: Side) -> None:
    """Whatever the leader does with the file."""
    side.bring({"a": "1", "b": "1"})
    for name in ("a", "b", "new"):
        (side.path / f"{name}.md").write_text("mine")
    outcome = side.bring({"a": "2", "b": None, "new": "1", "other": "1"})
    assert set(outcome.edited) == {"a.md", "b.md", "new.md"}
    assert side.tree() == {"a.md": "mine", "b.md": "mine", "new.md": "mine", "other.md": "1"}
    assert side.place.due == {"a", "b", "new"}
    outcome = side.bring({"a": "2"}, accepted={"a.md": outcome.edited["a.md"].digest})
    assert side.tree()["a.md"] == "2"
    assert side.place.due == {"b", "new"}


def test_file_that_was_removed_here(side: Side) -> None:
    """It is written again where that is asked for, and else named."""
    side.bring({"a": "1"})
    (side.path / "a.md").unlink()
    assert side.bring({"a": "1"}, restores=False).missing == ["a.md"]
    assert side.tree() == {}
    side.bring({"a": "1"})
    assert side.tree() == {"a.md": "1"}


def test_equal_files_are_not_written(side: Side) -> None:
    """Also if a person wrote them."""
    (side.path / "a.md").write_text("1")
    inode = (side.path / "a.md").stat().st_ino
    assert side.bring({"a": "1"}).written == []
    assert side.bring({"a": "1"}).written == []
    assert (side.path / "a.md").stat().st_ino == inode
    assert side.place.files["a.md"].label == "a"


def test_modes(side: Side) -> None:
    """A mode that is not the usual one is the leader's; the usual one is that of new files here."""
    mask = os.umask(0o027)
    try:
        side.copier.bring({"a": wanted("a", "1"), "b": wanted("b", "1", mode=0o600)}, restores=True)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in side.path.iterdir()}
        assert modes == {"a.md": 0o640, "b.md": 0o600}
        (side.path / "a.md").chmod(0o660)
        side.copier.bring({"a": wanted("a", "2"), "b": wanted("b", "1")}, restores=True)
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in side.path.iterdir()}
        assert modes == {"a.md": 0o660, "b.md": 0o640}
        side.copier.bring({"a": wanted("a", "3", mode=0o444)}, restores=True)
        assert stat.S_IMODE((side.path / "a.md").stat().st_mode) == 0o444
    finally:
        os.umask(mask)


def test_mode_that_was_changed_here(side: Side) -> None:
    """It stays with every new text, until the leader's file gets another mode."""
    side.bring({"a": "1"})
    path = side.path / "a.md"
    path.chmod(0o600)
    side.bring({"a": "1"})
    side.bring({"a": "2"})
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("2", 0o600)
    side.copier.bring({"a": wanted("a", "2", mode=0o640)}, restores=True)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_names_that_fall_together(tmp_path: Path) -> None:
    """One of two blocks is written, and the other is a problem until the name is free."""
    side = Side(tmp_path, NameRules(folds_case=True))
    outcome = side.bring({"Notes": "1", "notes": "2", "other": "3"})
    assert side.tree() == {"Notes.md": "1", "other.md": "3"}
    assert isinstance(outcome.failed["notes.md"], LabelConflict)
    outcome = side.bring({"notes": "2"})
    assert isinstance(outcome.failed["notes.md"], LabelConflict)
    side.bring({"Notes": None, "notes": "2"})
    assert side.place.due == {"notes"}
    side.bring({"notes": "2"})
    assert side.tree() == {"notes.md": "2", "other.md": "3"}
    assert side.place.due == set()
    side.close()


def test_save_that_comes_just_before_the_exchange_stays(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is compared once more then."""
    side.bring({"a": "1"})
    put_in = side.writer.put_in

    def saved_first(staged: Any) -> bool:
        (side.path / "a.md").write_text("mine")
        return put_in(staged)

    monkeypatch.setattr(side.writer, "put_in", saved_first)
    outcome = side.bring({"a": "2"})
    assert outcome.is_busy
    assert side.place.due == {"a"}
    assert side.tree() == {"a.md": "mine"}
    assert list(side.bring({"a": "2"}).edited) == ["a.md"]


def test_what_cannot_be_written_is_due(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other files are written, and nothing is left behind."""
    stage = side.writer.stage

    def failing(edit: Any) -> Any:
        if edit.path == "b.md":
            raise Unavailable("b.md cannot be written: No space left on device", path="b.md")
        return stage(edit)

    monkeypatch.setattr(side.writer, "stage", failing)
    outcome = side.bring({"a": "1", "b": "1"})
    assert set(outcome.failed) == {"b.md"}
    assert side.tree() == {"a.md": "1"}
    assert side.place.due == {"b"}


def test_state_that_cannot_be_written_leaves_the_files(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is written that could not be told from an edit later."""

    def full(_intents: object) -> None:
        raise StateUnusable("disk full", path="x")

    monkeypatch.setattr(side.place, "intend", full)
    with pytest.raises(StateUnusable):
        side.bring({"deep/a": "1"})
    assert list(side.path.iterdir()) == []


STEPS = 60


@pytest.mark.parametrize("is_power_cut", [False, True])
def test_crash_at_any_moment_makes_no_edit(tmp_path: Path, is_power_cut: bool) -> None:
    """After each, all files come to be as the leader's, and nothing lies beside them.

    After a power cut what was noted is as it was at its last sync, though the files are all as they were.
    """
    crashes = 0
    for calls in range(STEPS):
        path = tmp_path / str(calls)
        path.mkdir()
        Mortal.left = 1 << 60
        side = Side(path, root=Mortal, place=Synced)
        side.bring({"a": "1", "b": "1", "deep/c": "1"})
        Mortal.left = calls
        newer: dict[str, str | None] = {"a": "2", "b": None, "deep/c": "2", "new/d": "1"}
        try:
            side.bring(newer)
        except Crash:
            crashes += 1
        Mortal.left = 1 << 60
        side.close()
        if is_power_cut:
            Synced.cut_power(path / "state")
        side = Side(path)
        assert side.copier.recover() == []
        outcome = side.bring({label: f"{text}!" if text else None for label, text in newer.items()})
        assert outcome.edited == {}, calls
        assert side.place.due == set()
        assert {path: text for path, text in side.tree().items() if not path.rpartition("/")[2].startswith(".")} == {
            "a.md": "2!",
            "deep/c.md": "2!",
            "new/d.md": "1!",
        }
        side.close()
    assert 10 < crashes < STEPS


def test_save_beside_a_file_after_a_crash_is_kept(side: Side, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process had the file open, and saved to it when it was displaced already."""
    side.bring({"a": "1"})

    def crash(staged: Any) -> bool:
        (side.path / staged.aside).write_text("late")
        raise Crash

    monkeypatch.setattr(side.writer, "is_saved_late", crash)
    with pytest.raises(Crash):
        side.bring({"a": "2"})
    (aside,) = side.copier.recover()
    assert (side.path / aside).read_text() == "late"
    assert side.bring({"a": "2"}).edited == {}
