"""Asking a daemon, and answering."""

from __future__ import annotations

import gc
import os
import queue
import socket
import stat
import threading
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import Unavailable
from blocksd.service import control
from blocksd.service.control import Control, Question, ask
from support import DEADLINE, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Loop:
    """A main loop that answers what it takes from its queue, as long as it is not stuck."""

    def __init__(self, state: Path, answers: dict[str, Any]) -> None:
        self.questions: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self.control = Control(str(state), self.questions.put)
        self._answers = answers
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while (question := self.questions.get(timeout=DEADLINE)) is not None:
            question.answer(self._answers[question.word])

    def start(self) -> None:
        self.control.start()
        self._thread.start()

    def stop(self) -> None:
        self.control.stop()
        if self._thread.is_alive():
            self.questions.put(None)
            self._thread.join(DEADLINE)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A directory whose name alone is longer than what a socket's address may be."""
    directory = tmp_path / ("x" * 200)
    directory.mkdir(mode=0o755)
    return directory


@pytest.fixture
def loop(state: Path) -> Iterator[Loop]:
    made = Loop(state, {"status": {"seq": 41, "text": "a\nb – c"}, "again": {"error": "it is no question"}})
    yield made
    made.stop()


def test_answer_comes_from_the_loop(loop: Loop, state: Path) -> None:
    """Whatever JSON it is, and however long the path; one question after the other."""
    loop.start()
    for _ in range(3):
        assert ask(str(state), "status") == {"seq": 41, "text": "a\nb – c"}


def test_socket_is_for_its_user_alone(loop: Loop, state: Path) -> None:
    """In a directory that others may enter, too, and whatever the umask."""
    before = os.umask(0)
    try:
        loop.start()
    finally:
        os.umask(before)
    assert stat.S_IMODE((state / "control.sock").stat().st_mode) == 0o600


def test_answer_is_one_line(loop: Loop, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any program can ask: a word on a line, and all that comes until the connection is closed."""
    loop.start()
    monkeypatch.chdir(state)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect("control.sock")
        connection.sendall(b"status\n")
        connection.settimeout(DEADLINE)
        heard = b"".join(iter(lambda: connection.recv(1000), b""))
    assert heard == b'{"seq": 41, "text": "a\\nb \\u2013 c"}\n'


def test_refused_question_is_an_error(loop: Loop, state: Path) -> None:
    """What the loop says of it is in the message."""
    loop.start()
    with pytest.raises(Unavailable, match="cannot answer: it is no question"):
        ask(str(state), "again")


def test_nobody_listens(loop: Loop, state: Path) -> None:
    """No socket, one that a killed daemon has left, or one that was closed: all the same."""
    for _ in range(2):
        with pytest.raises(Unavailable, match="does not answer at"):
            ask(str(state), "status")
        with socket.socket(socket.AF_UNIX) as left, control._address(str(state)) as address:
            if not os.path.exists(address):
                left.bind(address)
    loop.start()  # over what was left
    assert ask(str(state), "status")["seq"] == 41
    loop.stop()
    assert os.listdir(state) == []
    with pytest.raises(Unavailable):
        ask(str(state), "status")


def test_loop_that_is_stuck_is_not_waited_for(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both halves give up after a while; whoever asks when it is over gets an answer."""
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.05)
    questions: queue.SimpleQueue[Question] = queue.SimpleQueue()
    listening = Control(str(state), questions.put)
    listening.start()
    with pytest.raises(Unavailable, match="does not answer"):
        ask(str(state), "status", seconds=DEADLINE)  # the daemon's half
    with pytest.raises(Unavailable, match="does not answer"):
        ask(str(state), "status", seconds=0.001)  # one's own
    eventually(lambda: questions.qsize() == 2)
    questions.get().answer({})  # too late: nobody minds
    monkeypatch.setattr(control, "ANSWER_SECONDS", DEADLINE)
    questions.get()
    answering = threading.Thread(target=lambda: questions.get(timeout=DEADLINE).answer({"number": 3}))
    answering.start()
    assert ask(str(state), "status", seconds=DEADLINE) == {"number": 3}
    answering.join(DEADLINE)
    listening.stop()


def test_who_says_nothing_keeps_nobody_out(loop: Loop, state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither who connects and is silent, nor who goes away, nor who never ends his line."""
    monkeypatch.setattr(control, "_TRANSFER_SECONDS", 0.05)
    loop.start()
    with control._address(str(state)) as address:
        silent, endless, gone = (socket.socket(socket.AF_UNIX) for _ in range(3))
        for connection in (silent, endless, gone):
            connection.connect(address)
    gone.sendall(b"status\n")
    gone.close()
    endless.sendall(b"status" + b" " * 200)
    assert ask(str(state), "status", seconds=DEADLINE)["seq"] == 41
    silent.close()
    endless.close()


def test_stopping_leaves_no_thread(loop: Loop) -> None:
    """And may be done twice."""
    before = threading.active_count()
    loop.control.start()
    assert threading.active_count() == before + 1
    loop.control.stop()
    loop.control.stop()
    assert threading.active_count() == before


def test_directory_that_can_have_no_socket(tmp_path: Path) -> None:
    """It is an error at once, and leaves no handle behind."""
    gc.collect()
    handles = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        Control(str(tmp_path / "missing"), print).start()
    assert len(os.listdir("/proc/self/fd")) == handles
