"""The folder is watched, as far as it can be."""

from __future__ import annotations

import queue
import selectors
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.files.watcher import Hint, Watcher
from blocksd.monitoring.events import Notices
from blocksd.service.folder_watch import FolderWatch
from blocksd.sources.sources import Sources
from looking import Looking
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Watched(Looking):
    """A folder that is watched; its hints are passed on when a test says so."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.hints: queue.SimpleQueue[Any] = queue.SimpleQueue()
        sources = Sources((), self.state, self.problems, [], self.schedule, clock=lambda: self.now)
        self.selector = selectors.DefaultSelector()
        self.watch = FolderWatch(
            *(self.folder, self.intake, self.problems, sources, self.hints.put, self.selector, Notices([])),
            resync_seconds=3600.0,
        )
        self.write("deep/block", "text\n")
        self.watch.start()
        self.sweep()

    @property
    def watcher(self) -> Watcher:
        assert self.watch._watcher is not None
        return self.watch._watcher

    def hear(self) -> None:
        for one, _ in self.selector.select(0):
            one.data()

    def until(self, condition: Callable[[], Any]) -> None:
        def step() -> Any:
            self.hear()
            self.wait(0.01)
            return condition()

        eventually(step)

    def tick(self) -> None:
        self.watch.check()
        self.until(lambda: not self.intake.scanner.is_sweeping and not self.intake.backlog)

    def close(self) -> None:
        self.watch.stop()
        self.selector.close()
        super().close()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    made = Watched(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("which", ["observer", "emitter"])
def test_dead_watcher_is_replaced(watched: Watched, which: str) -> None:
    """When what watches has ended, the next tick puts another in its place and has the folder compared."""
    before = watched.watcher
    assert before._observer is not None
    (emitter,) = before._observer.emitters
    ended: Any = {"observer": before._observer, "emitter": emitter}[which]
    ended.stop()
    assert not watched.watch.is_watching
    watched.write("notes", "one\n")
    watched.tick()
    assert watched.watcher is not before
    assert watched.watch.is_watching
    assert "notes" in watched.state.paths
    watched.write("deep/later", "two\n")
    watched.until(lambda: "deep/later" in watched.state.paths)
    assert watched.problems == {}


def test_directory_without_a_watch(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watcher is replaced once for a directory it does not reach; if that does not help it is said, until it is over."""
    before, problems = watched.watcher, watched.problems
    monkeypatch.setattr(Watcher, "unwatched", lambda *_: {"deep"})
    watched.tick()
    again = watched.watcher
    assert again is not before
    for _ in range(3):
        watched.tick()
    assert watched.watcher is again
    assert problems["<watcher>"].message == "1 of 1 directories are not watched: changes in them are found every 3600 s"
    assert "fs.inotify.max_user_watches" in problems["<watcher>"].hint
    monkeypatch.undo()
    watched.tick()
    assert problems == {}


def test_directory_that_is_gone_needs_no_watch(watched: Watched) -> None:
    """A directory that the last sweep saw, and that was removed since, is no reason to do anything."""
    before = watched.watcher
    assert not before.unwatched({"deep"})
    shutil.rmtree(watched.root / "deep")
    watched.hear()
    assert before.unwatched({"deep"})
    watched.tick()
    assert watched.watcher is before
    assert watched.problems == {}


def test_lost_events_have_everything_compared(watched: Watched) -> None:
    """What came by no event is found."""
    watched.watch.stop()
    watched.write("unseen", "text\n")
    watched.watch.apply_hint(Hint("everything"))
    watched.until(lambda: "unseen" in watched.state.paths)


def test_symlink_in_the_place_of_a_directory_needs_no_watch(watched: Watched) -> None:
    """The watcher stays the same: another one would not know that it is a symlink, and miss that it goes."""
    watched.tick()
    watcher = watched.watcher
    (watched.root / "deep").rename(watched.home / "moved")
    (watched.root / "deep").symlink_to(watched.home / "moved")
    watched.tick()
    watched.tick()
    assert watched.watcher is watcher
    assert watched.problems.keys() <= {"deep"}
