"""File events become hints; nothing that matters goes without one, and nothing else makes one."""

from __future__ import annotations

import errno
import gc
import os
import queue
import selectors
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

import pytest

from blocksd.files.inotify import Inotify, inotify_limit
from blocksd.files.watcher import Hint, Watcher, Watchers
from support import DEADLINE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


T = TypeVar("T")


class Heard(Generic[T]):
    """Hints, which are read when they are waited for."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self._hints: queue.SimpleQueue[T] = queue.SimpleQueue()
        self.put = self._hints.put

    def get(self) -> T:
        """The next hint."""
        while self._hints.empty():
            ready = self.selector.select(DEADLINE)
            assert ready, "no event came"
            for one, _ in ready:
                one.data()
        return self._hints.get_nowait()


class Watched:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.hints: Heard[Hint] = Heard()
        self.watcher = Watcher(str(root), self.hints.put, self.hints.selector)
        self._fences = 0

    def since(self) -> set[Hint]:
        """All hints since the last call: a file made now has the last one."""
        self._fences += 1
        fence = Hint("closed", f"fence-{self._fences}.md")
        (self.root / fence.path).touch()
        found = set()
        while (hint := self.hints.get()) != fence:
            found.add(hint)
        return {hint for hint in found if not hint.path.startswith("fence-")}


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    root = tmp_path / "blocks.d"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "notes.md").write_text("text")
    (root / "deep" / "notes.md").write_text("text")
    result = Watched(root)
    result.watcher.start()
    yield result
    result.watcher.stop()
    result.hints.selector.close()


def write(root: Path) -> None:
    (root / "notes.md").write_text("other")


def rename(root: Path) -> None:
    (root / "notes.md").rename(root / "deep" / "er" / "moved.md")


def rename_over(root: Path) -> None:
    (root / ".notes.tmp").write_text("other")
    (root / ".notes.tmp").rename(root / "notes.md")


def move_in(root: Path) -> None:
    (root.parent / "outside").write_text("other")
    (root.parent / "outside").rename(root / "notes.md")


def move_out(root: Path) -> None:
    (root / "notes.md").rename(root.parent / "outside")


def delete(root: Path) -> None:
    (root / "notes.md").unlink()


def link(root: Path) -> None:
    (root / "link.md").symlink_to("notes.md")


def hard_link(root: Path) -> None:
    os.link(root / "notes.md", root / "link.md")


def take_rights(root: Path) -> None:
    (root / "notes.md").chmod(0)


def take_rights_of_a_directory(root: Path) -> None:
    (root / "deep").chmod(0o700)


def swap(root: Path) -> None:
    (root / "..tmp").symlink_to("deep")
    (root / "..tmp").rename(root / "..data")


@pytest.mark.parametrize(
    ("act", "hints"),
    [
        (write, {Hint("closed", "notes.md")}),
        (rename, {Hint("touched", "notes.md"), Hint("closed", "deep/er/moved.md")}),
        (rename_over, {Hint("closed", "notes.md")}),
        (move_in, {Hint("closed", "notes.md")}),
        (move_out, {Hint("touched", "notes.md")}),
        (delete, {Hint("touched", "notes.md")}),
        (link, {Hint("touched", "link.md")}),
        (hard_link, {Hint("touched", "link.md")}),
        (take_rights, {Hint("touched", "notes.md")}),
        (take_rights_of_a_directory, {Hint("tree", "deep")}),
        (swap, {Hint("closed", "..data")}),
    ],
)
def test_what_happens_to_a_file_is_hinted_at(watched: Watched, act: Callable[[Path], None], hints: set[Hint]) -> None:
    """Whatever may change what a block says leads to a look at it; only a writer that is done is said to be."""
    act(watched.root)
    assert watched.since() >= hints


def read(root: Path) -> None:
    (root / "notes.md").read_text()


def list_all(root: Path) -> None:
    list(os.walk(root))


def touch_temporaries(root: Path) -> None:
    for name in (
        "4913",
        ".notes.md.swp",
        "notes.md~",
        "#notes.md#",
        "notes.md___jb_tmp___",
        "readme.txt",
        ".blocksd-1",
    ):
        (root / name).write_text("text")
        (root / name).chmod(0o640)
        os.utime(root / name)
        (root / name).unlink()
    (root / ".#notes.md").symlink_to("someone@host")


def test_symlink_in_the_place_of_a_directory_is_hinted_at(watched: Watched) -> None:
    """When it comes, when it goes, and when a file takes its place."""
    (watched.root / "deep").rename(watched.root.parent / "moved")
    assert watched.since() == {Hint("tree", "deep")}
    (watched.root / "deep").symlink_to("../moved")
    assert watched.since() == {Hint("tree", "deep")}
    (watched.root / "other").symlink_to("../moved")
    assert watched.since() == {Hint("tree", "other")}
    (watched.root / "other").rename(watched.root / "renamed")
    assert watched.since() == {Hint("tree", "other"), Hint("tree", "renamed")}
    (watched.root / "plain").write_text("text")
    assert watched.since() == set()
    (watched.root / "plain").rename(watched.root / "renamed")
    assert watched.since() == {Hint("tree", "renamed")}
    (watched.root / "deep").unlink()
    assert watched.since() == {Hint("tree", "deep")}
    (watched.root / "renamed").unlink()
    assert watched.since() == set()


@pytest.mark.parametrize("act", [read, list_all, touch_temporaries])
def test_what_is_nobodys_business_makes_no_hint(watched: Watched, act: Callable[[Path], None]) -> None:
    """Reading is no event, or each look would lead to another; nor are files that are never looked at."""
    act(watched.root)
    assert watched.since() == set()


def test_new_directories_are_watched(watched: Watched) -> None:
    """A directory that is made, moved in or renamed is hinted at as a tree, and what happens in it later is seen."""
    (watched.root / "made").mkdir()
    outside = watched.root.parent / "outside"
    (outside / "sub").mkdir(parents=True)
    outside.rename(watched.root / "moved-in")
    (watched.root / "deep").rename(watched.root / "renamed")
    trees = {Hint("tree", name) for name in ("made", "moved-in", "deep", "renamed")}
    assert watched.since() >= trees
    directories = {"made", "moved-in", "moved-in/sub", "renamed", "renamed/er"}
    eventually(lambda: not watched.watcher.unwatched(directories))
    for directory in directories:
        (watched.root / directory / "new.md").write_text("text")
    assert watched.since() >= {Hint("closed", f"{directory}/new.md") for directory in directories}


def test_lost_events_are_admitted(tmp_path: Path) -> None:
    """When the kernel drops events the hint is: look everywhere; and everything is watched on."""
    (tmp_path / "deep").mkdir()
    hints: Heard[Hint] = Heard()
    watcher = Watcher(str(tmp_path), hints.put, hints.selector)
    watcher.start()
    try:
        for _ in range((inotify_limit("max_queued_events") or 16_384) // 3 + 1):  # made, closed, deleted
            (tmp_path / "notes.tmp").touch()
            (tmp_path / "notes.tmp").unlink()
        (tmp_path / "made").mkdir()  # of which no event tells
        eventually(lambda: hints.get() == Hint("everything"))
        for directory in ("deep", "made"):
            (tmp_path / directory / "notes.md").write_text("other")
            eventually(lambda path=f"{directory}/notes.md": hints.get() == Hint("closed", path))  # type: ignore[misc]
    finally:
        watcher.stop()
        hints.selector.close()


def test_events_that_cannot_be_read_end_the_watch(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they told is lost, so the watcher is no longer healthy; and its handle is not found ready for ever."""
    write(watched.root)
    with monkeypatch.context() as patch:
        patch.setattr(Inotify, "read", lambda _: os.stat("/missing"))
        with pytest.raises(FileNotFoundError):
            watched.hints.get()
    assert not watched.watcher.is_healthy()
    assert not watched.hints.selector.get_map()


def test_directory_renamed_while_it_is_new_is_watched_under_its_last_name(watched: Watched) -> None:
    """However fast its names follow each other."""
    names = set()
    for number in range(100):
        (watched.root / "t").mkdir()
        (watched.root / "t" / "notes.md").write_text("text")
        (watched.root / "t").rename(watched.root / f"k{number}")
        names.add(f"k{number}")
    watched.since()
    assert watched.watcher.unwatched(names) == set()
    for name in names:
        (watched.root / name / "notes.md").write_text("other")
    assert watched.since() >= {Hint("closed", f"{name}/notes.md") for name in names}


def test_directories_beyond_the_limit_are_known(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder is watched as far as the limit on watches goes."""
    add = Inotify.add

    def limited(self: Inotify, path: bytes, mask: int) -> int:
        if path.endswith(b"er"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return add(self, path, mask)

    monkeypatch.setattr(Inotify, "add", limited)
    other = Watcher(str(watched.root), lambda _: None, watched.hints.selector)
    other.start()
    assert other.is_healthy()
    assert (other.watches, other.unwatched({"deep", "deep/er"})) == (2, {"deep/er"})
    other.stop()


def test_unwatched_directories_are_known(watched: Watched) -> None:
    """Which directories give no events can be asked: here, one that is not there."""
    assert watched.watcher.unwatched({"deep", "deep/er", "elsewhere"}) == {"elsewhere"}
    assert watched.watcher.watches == 3


def test_health_is_that_of_the_directory_that_is_there_now(watched: Watched) -> None:
    """A watch on a directory that was moved away, replaced or deleted is worth nothing."""
    root, away = watched.root, watched.root.with_name("away")
    assert watched.watcher.is_healthy()
    root.rename(away)
    assert not watched.watcher.is_healthy()
    root.mkdir()
    assert not watched.watcher.is_healthy()
    root.rmdir()
    away.rename(root)
    assert watched.watcher.is_healthy()


def test_missing_root_cannot_be_watched(tmp_path: Path) -> None:
    """That is an error at once, and leaves nothing behind."""
    before = threading.active_count()
    watcher = Watcher(str(tmp_path / "missing"), print, selectors.DefaultSelector())
    with pytest.raises(FileNotFoundError):
        watcher.start()
    assert not watcher.is_healthy()
    watcher.stop()
    assert threading.active_count() == before


def test_stop_ends_every_thread_and_hint(tmp_path: Path) -> None:
    """A stopped watcher says nothing more, keeps no thread and no file handle, and may be stopped again."""
    gc.collect()
    with selectors.DefaultSelector() as selector:
        threads, handles = threading.active_count(), len(os.listdir("/proc/self/fd"))
    hints: list[Hint] = []
    selector = selectors.DefaultSelector()
    watcher = Watcher(str(tmp_path), hints.append, selector)
    watcher.start()
    assert watcher.is_healthy()
    watcher.stop()
    watcher.stop()
    assert not watcher.is_healthy()
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == handles
    assert not selector.select(0)
    selector.close()
    (tmp_path / "notes.md").write_text("text")
    assert hints == []


# --- several directories ---


class Watching:
    """Watchers of two directories, and what they hint at."""

    def __init__(self, home: Path) -> None:
        self.roots = {name: home / name for name in ("one", "two")}
        for root in self.roots.values():
            root.mkdir()
        self.hints: Heard[tuple[str, Hint]] = Heard()
        self.watchers = Watchers(
            lambda name, hint: self.hints.put((name, hint)), self.hints.selector, wanted=lambda name: name != "never"
        )

    def watch(self) -> list[str]:
        return [self.watchers.watch(name, str(root), set()) for name, root in self.roots.items()]

    def until(self, wanted: tuple[str, Hint]) -> set[tuple[str, Hint]]:
        """All hints up to this one."""
        found = set()
        while (hint := self.hints.get()) != wanted:
            found.add(hint)
        return found


@pytest.fixture
def watching(tmp_path: Path) -> Iterator[Watching]:
    made = Watching(tmp_path)
    yield made
    made.watchers.stop()
    made.hints.selector.close()


def test_each_directory_has_its_name(watching: Watching) -> None:
    """Files of any name are of interest that are wanted; begun, a directory is hinted at as a whole, once."""
    assert watching.watch() == ["", ""]
    assert watching.watch() == ["", ""]
    assert {watching.hints.get() for _ in range(2)} == {
        ("one", Hint("everything")),
        ("two", Hint("everything")),
    }
    (watching.roots["one"] / "never").touch()
    (watching.roots["two"] / "guide.txt").touch()
    (watching.roots["one"] / "last").touch()
    found = watching.until(("one", Hint("closed", "last")))
    assert not [hint for _, hint in found if hint.path == "never"]
    if ("two", Hint("closed", "guide.txt")) not in found:
        watching.until(("two", Hint("closed", "guide.txt")))


def test_directory_that_is_another_is_watched_anew(watching: Watching, tmp_path: Path) -> None:
    """Gone, there is nothing to say; replaced, it is watched from the next time on."""
    watching.watch()
    watching.roots["one"].rename(tmp_path / "away")
    assert watching.watch() == ["", ""]
    watching.roots["one"].mkdir()
    assert watching.watch() == ["", ""]
    watching.until(("one", Hint("everything")))
    watching.until(("one", Hint("everything")))
    (watching.roots["one"] / "new.txt").touch()
    watching.until(("one", Hint("closed", "new.txt")))
    watching.roots["one"] = tmp_path / "away"
    watching.watch()
    (tmp_path / "away" / "moved.txt").touch()
    watching.until(("one", Hint("closed", "moved.txt")))


def test_what_cannot_be_watched_is_told(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    """No inotify instance is left, or no watch for some directories below."""

    def refuse(_: Watcher) -> None:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "start", refuse)
        assert watching.watch() == ["it cannot be watched: Too many open files; changes are found late"] * 2
    assert watching.watch() == ["", ""]
    (watching.roots["one"] / "deep").mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(Watcher, "unwatched", lambda _, directories: directories)
        root = str(watching.roots["one"])
        assert watching.watchers.watch("one", root, {"deep", "gone"}) == ""
        said = watching.watchers.watch("one", root, {"deep", "gone"})
    assert said == "1 of 2 directories are not watched: changes there are found late"
    watching.watchers.retry_unwatched()
    assert watching.watch() == ["", ""]


def test_directories_that_are_of_no_interest_any_more(watching: Watching) -> None:
    """They are left alone, and the others go on being watched."""
    watching.watch()
    watching.until(("two", Hint("everything")))
    threads = threading.active_count()
    watching.watchers.watch_only(["two"])
    assert threading.active_count() < threads
    (watching.roots["one"] / "a.txt").touch()
    (watching.roots["two"] / "a.txt").touch()
    assert {name for name, _ in watching.until(("two", Hint("closed", "a.txt")))} <= {"two"}
    watching.watchers.watch_only([])
    assert watching.watch() == ["", ""]
    watching.until(("one", Hint("everything")))


def test_stopped_watchers_leave_nothing(watching: Watching) -> None:
    """No thread."""
    threads = threading.active_count()
    watching.watch()
    assert threading.active_count() > threads
    watching.watchers.stop()
    assert threading.active_count() == threads
