"""The control socket: a question to the running daemon, and the answer of its main loop.

It is `control.sock` in the state directory, for its user alone. One question is one word on a line, its answer one line
of JSON, and then the connection is closed. That the loop itself answers proves that it lives.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from blocksd.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STATUS = "status"
"""How does the daemon stand?"""
ACCEPT_DELETIONS = "accept-deletions"
"""Are deletions held back? Then they are meant."""

ANSWER_SECONDS = 5.0
"""How long a question waits for the loop: a Redis that hangs may hold it for some seconds."""

_NAME = "control.sock"
_TRANSFER_SECONDS = 1.0
_QUESTION_BYTES = 100
_PAUSE_SECONDS = 0.1  # until the next connection is taken, when one could not be


class Question:
    """A word that was asked; whoever takes it from the queue answers it."""

    def __init__(self, word: str) -> None:
        self.word = word
        self._answer: Future[dict[str, Any]] = Future()

    def answer(self, answer: dict[str, Any]) -> None:
        self._answer.set_result(answer)

    def wait(self, seconds: float) -> dict[str, Any]:
        """The answer.

        Raises:
            TimeoutError: there is none yet.
        """
        return self._answer.result(seconds)


class Control:
    """Listens, from a thread of its own, and passes questions to `sink`, one at a time."""

    def __init__(self, state: str, sink: Callable[[Question], object]) -> None:
        self._state = state
        self._sink = sink
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._place: tuple[int, int] | None = None  # device and inode of the socket's file
        self._ending = threading.Event()

    def start(self) -> None:
        """Listen. What another daemon of this state directory has left is removed: the lock proves it dead.

        Raises:
            OSError: there can be no socket in this directory.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(listening.fileno(), 0o600)  # the file takes its mode from here: it never is anybody else's
            with _address(self._state) as address:
                with suppress(FileNotFoundError):
                    os.unlink(address)
                listening.bind(address)
                self._place = _place_of(address)
            listening.listen()
        except OSError:
            listening.close()
            raise
        self._socket, self._ending = listening, threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening, self._ending), name="control", daemon=True)
        self._thread.start()

    @property
    def is_in_place(self) -> bool:
        """Return True if questions are taken at the socket that is in the directory, as far as that can be told."""
        if self._thread is None or not self._thread.is_alive():
            return False
        try:
            return _place_of(os.path.join(self._state, _NAME)) == self._place
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:
            return True

    def stop(self) -> None:
        """Stop listening; a question under way is dropped."""
        if self._socket is None or self._thread is None:
            return
        with suppress(OSError):
            if self.is_in_place or not self._thread.is_alive():  # else it is not ours to remove
                os.unlink(os.path.join(self._state, _NAME))
        self._ending.set()
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._thread.join(_TRANSFER_SECONDS)
        self._socket.close()
        self._socket = self._thread = None

    def _run(self, listening: socket.socket, ending: threading.Event) -> None:
        while not ending.is_set():
            try:
                connection, _ = listening.accept()
            except OSError:  # too many files are open, say: that passes
                ending.wait(_PAUSE_SECONDS)
                continue
            with connection, suppress(OSError):  # whoever asked has gone, or never said what
                connection.settimeout(_TRANSFER_SECONDS)
                with connection.makefile("rwb") as channel:
                    question = Question(channel.readline(_QUESTION_BYTES).decode("utf-8", "replace").strip())
                    self._sink(question)
                    channel.write(json.dumps(question.wait(ANSWER_SECONDS)).encode("utf-8") + b"\n")


def ask(state: str, word: str, *, seconds: float = ANSWER_SECONDS + _TRANSFER_SECONDS) -> dict[str, Any]:
    """What the daemon of this state directory answers.

    Raises:
        Unavailable: nobody listens, or there is no answer in time. Facts: `socket`, where it was asked.
    """
    path = os.path.join(state, _NAME)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(seconds)
            with _address(state) as address:
                connection.connect(address)
            connection.sendall(f"{word}\n".encode())
            with connection.makefile("rb") as channel:
                answer: dict[str, Any] = json.loads(channel.readline())
    except (OSError, ValueError):
        raise Unavailable(f"the daemon does not answer at {path}", socket=path) from None
    if "error" in answer:
        raise Unavailable(f"the daemon cannot answer: {answer['error']}", socket=path)
    return answer


def _place_of(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


@contextmanager
def _address(state: str) -> Iterator[str]:
    """The socket's address while it is used: its path may be longer than the 107 bytes that an address takes."""
    directory = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{_NAME}"
    finally:
        os.close(directory)
