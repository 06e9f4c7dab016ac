"""Faults of the program in the frame around the core: each is logged once, and the daemon goes on."""

from __future__ import annotations

import io
import signal
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from blocksd import Client
from blocksd.core.core import Core
from blocksd.errors import BlocksdError
from blocksd.monitoring.log import EventLog
from blocksd.requests.consumer import Consumer
from blocksd.service.control import STATUS, ask
from blocksd.service.folder_watch import FolderWatch
from blocksd.service.inbox_feed import InboxFeed
from blocksd.service.reloader import Reloader
from blocksd.service.service import Service
from blocksd.service.state_directory import StateDirectory
from blocksd.service.threads import Threads
from blocksd.settings.config import Config
from support import DEADLINE, RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

PLACES: dict[str, tuple[type, str]] = {
    # what is said to have failed: where the fault is
    "to start the threads": (FolderWatch, "start"),
    "to do a round": (Core, "round"),
    "to direct the inbox reader": (InboxFeed, "direct"),
    "to report the progress of the start": (Service, "_begin_to_serve"),
    "to reload the configuration": (Reloader, "reload"),
    "to find out how long to wait": (Core, "wait_seconds"),
    "to hear of files and news": (FolderWatch, "apply_hint"),
    "to handle news from threads": (Threads, "handle"),
    "to check the state directory": (StateDirectory, "restore"),
    "to check the embedded server": (Threads, "_check_server"),
    "to check the inbox reader": (InboxFeed, "check"),
    "to check the folder watch": (FolderWatch, "check"),
    "to check the health": (Threads, "vitals"),
    "to report the status": (Service, "status"),
    "reading the inboxes": (Consumer, "_serve"),
}


class Faulty:
    """A service in the main thread, and what is asked of it meanwhile, in another."""

    def __init__(self, folder: Path, state: Path, url: str) -> None:
        self.config = Config(folder=str(folder), redis=url, state_dir=str(state), resync_seconds=3600.0)
        self.log = io.StringIO()
        self.service = Service(self.config, [EventLog(self.log)])
        self.failure: BaseException | None = None

    def run(self, story: Callable[[], None]) -> None:
        """Run until the story, told in another thread, is over."""

        def tell() -> None:
            try:
                story()
            except BaseException as failure:  # noqa: BLE001  # raised again in the main thread
                self.failure = failure
            finally:
                self.service.stop()

        thread = threading.Thread(target=tell)
        thread.start()
        self.service.run()
        thread.join(DEADLINE)
        if self.failure is not None:
            raise self.failure

    def said(self, words: str) -> int:
        return self.log.getvalue().count(words)


@pytest.fixture
def signals() -> Iterator[None]:
    """The handlers of this process, put back after a service has had its own."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


def fail_first(monkeypatch: pytest.MonkeyPatch, owner: type, name: str, times: int = 1) -> None:
    """A method raises what nobody foresaw, the first so many times it is called; then it works."""
    original, left = getattr(owner, name), [None] * times

    def method(*args: Any, **kwargs: Any) -> Any:
        if left:
            left.pop()
            raise ZeroDivisionError(name)
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, method)


def is_shown(server: RedisServer, label: str) -> bool:
    client = server.client()
    try:
        return client.zscore("blocks:labels", label) is not None
    finally:
        client.close()


@pytest.mark.usefixtures("signals")
def test_fault_in_each_part_of_the_loop(
    folder: Path, tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them in one run: each is logged with its traceback, and everything works in the end."""
    (folder / "notes.md").write_text("one\n")
    faulty = Faulty(folder, tmp_path / "state", server.url)
    for owner, name in PLACES.values():
        fail_first(monkeypatch, owner, name, 2)

    def story() -> None:
        eventually(lambda: faulty.said("ready:"), "it is ready")
        faulty.service._must_reload = True
        with Client(server.url) as client:
            for number in range(3):
                client.blocks.append("notes", f"line {number}")
            for number in range(3):
                (folder / f"saved-{number}.md").write_text("text\n")
                eventually(partial(is_shown, server, f"saved-{number}"), "it is seen")
        eventually(answers, "it answers")
        eventually(lambda: all(faulty.said(f"failed {during},") for during in PLACES), "all have failed")

    def answers() -> bool:
        try:
            return bool(ask(faulty.config.state, STATUS)["ready"])
        except BlocksdError:
            return False

    faulty.run(story)
    for during in PLACES:
        assert faulty.said(f"failed {during},") == 1, during
    assert (folder / "notes.md").read_text() == "one\nline 0\nline 1\nline 2\n"
    assert "ZeroDivisionError" in faulty.log.getvalue()


@pytest.mark.usefixtures("signals")
def test_loop_that_only_fails_is_noticed(
    folder: Path, tmp_path: Path, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its watchdog is no longer fed, though the ticks go on."""
    faulty = Faulty(folder, tmp_path / "state", server.url)
    monkeypatch.setattr("blocksd.service.fault_barrier.LASTING_SECONDS", 0.5)

    def story() -> None:
        eventually(lambda: faulty.said("ready:"), "it is ready")
        fail_first(monkeypatch, Core, "round", 1_000_000)
        eventually(lambda: faulty.said("unhealthy: each attempt fails to do a round"), "it is said")

    faulty.run(story)


@pytest.mark.usefixtures("signals")
def test_watcher_that_ends_by_a_fault_is_begun_again(folder: Path, tmp_path: Path, server: RedisServer) -> None:
    """And the fault is counted and logged."""
    faulty = Faulty(folder, tmp_path / "state", server.url)

    def story() -> None:
        eventually(lambda: faulty.said("ready:"), "it is ready")
        watcher = faulty.service._threads.folder_watch._watcher
        assert watcher is not None
        assert watcher._tree is not None

        def fail() -> NoReturn:
            raise ZeroDivisionError("in the watcher")

        watcher._tree.inotify.read = fail  # type: ignore[method-assign]  # whatever it hears of next
        (folder / "notes.md").write_text("one\n")
        eventually(lambda: is_shown(server, "notes"), "it is seen all the same")
        eventually(lambda: faulty.service._threads.folder_watch._watcher not in (None, watcher), "another watches")
        threading.Thread(target=fail, name="some").start()
        eventually(lambda: faulty.said("failed in the thread 'some'"), "a thread is no exception")

    faulty.run(story)
    assert faulty.said("failed to hear of files and news") == 1
