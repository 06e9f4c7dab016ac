"""The control socket, `control.sock` in the state directory: commands ask the running daemon, and its main loop answers.

A question is one line, its answer one line of JSON, and then the connection is closed. An answer proves that the
main loop is alive.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidRequest, Unavailable
from blocksd.settings.record import inode_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STATUS = "status"
"""Asks for the report that `blocksd status` shows."""
ACCEPT_DELETIONS = "accept-deletions"
"""Accepts deletions that are held back."""
REVERT = "revert "
"""Asks a follower to take the leader's version of a file, whose path below the folder comes after it."""

ANSWER_SECONDS = 5.0
"""How long a question waits for the main loop, which a hanging Redis may block for some seconds."""

_NAME = "control.sock"
_TRANSFER_SECONDS = 1.0
_QUESTION_BYTES = 8192
_PAUSE_SECONDS = 0.1  # after a connection could not be accepted


class Question:
    """A question from the socket, which the main loop answers."""

    def __init__(self, word: str) -> None:
        self.word = word
        self._answer: Future[dict[str, Any]] = Future()

    def answer(self, answer: dict[str, Any]) -> None:
        self._answer.set_result(answer)

    def wait(self, seconds: float) -> dict[str, Any]:
        """Wait for the answer.

        Raises:
            TimeoutError: there is none in time.
        """
        return self._answer.result(seconds)


class Control:
    """A thread that listens and passes questions to `sink`, one at a time."""

    def __init__(self, state: str, sink: Callable[[Question], object]) -> None:
        self._state = state
        self._sink = sink
        self._socket: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._identity: tuple[int, int] | None = None  # device and inode of the socket's file
        self._ending = threading.Event()

    def start(self) -> None:
        """Listen. A socket that another daemon left is removed: the lock proves that daemon dead.

        Raises:
            OSError: no socket can be made in this directory.
        """
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(listening.fileno(), 0o600)  # the file takes this mode, so that no other user can ever connect
            with _address(self._state) as address:
                with suppress(FileNotFoundError):
                    os.unlink(address)
                listening.bind(address)
                self._identity = inode_of(address)
            listening.listen()
        except OSError:
            listening.close()
            raise
        self._socket, self._ending = listening, threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listening, self._ending), name="control", daemon=True)
        self._thread.start()

    @property
    def is_in_place(self) -> bool:
        """True if the thread listens at the socket that is in the directory, or that is unknown."""
        if self._thread is None or not self._thread.is_alive():
            return False
        with suppress(OSError):
            return inode_of(os.path.join(self._state, _NAME)) == self._identity
        return True

    def stop(self) -> None:
        """Stop listening; a question under way is dropped."""
        if self._socket is None or self._thread is None:
            return
        with suppress(OSError):
            if self.is_in_place or not self._thread.is_alive():  # else another daemon's socket is there
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
            except OSError:  # too many open files, for example
                ending.wait(_PAUSE_SECONDS)
                continue
            with connection, suppress(OSError):  # the client has gone, or sent nothing
                connection.settimeout(_TRANSFER_SECONDS)
                with connection.makefile("rwb") as channel:
                    question = Question(channel.readline(_QUESTION_BYTES).decode("utf-8", "replace").strip())
                    self._sink(question)
                    channel.write(json.dumps(question.wait(ANSWER_SECONDS)).encode("utf-8") + b"\n")


def ask(state: str, word: str, *, seconds: float = ANSWER_SECONDS + _TRANSFER_SECONDS) -> dict[str, Any]:
    """Ask the daemon of this state directory, and return its answer.

    Raises:
        Unavailable: no daemon listens, or none answers in time. Facts: `socket`, the path.
        InvalidRequest: it refuses what is asked.
    """
    path = os.path.join(state, _NAME)
    try:
        with connected(state, seconds=seconds) as connection:
            connection.sendall(f"{word}\n".encode())
            with connection.makefile("rb") as channel:
                answer: dict[str, Any] = json.loads(channel.readline())
    except (OSError, ValueError):
        raise Unavailable(f"the daemon does not answer at {path}", socket=path) from None
    if "error" in answer:
        raise Unavailable(f"the daemon cannot answer: {answer['error']}", socket=path)
    if "refusal" in answer:
        raise InvalidRequest(answer["refusal"], hint=answer["hint"])
    return answer


@contextmanager
def connected(state: str, *, seconds: float) -> Iterator[socket.socket]:
    """Provide a connection to the daemon of this state directory. Raise OSError if none listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(seconds)
        with _address(state) as address:
            connection.connect(address)
        yield connection


@contextmanager
def _address(state: str) -> Iterator[str]:
    """Provide the socket's address by a handle: its path may be longer than the 107 bytes that an address takes."""
    directory = os.open(state, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{_NAME}"
    finally:
        os.close(directory)
