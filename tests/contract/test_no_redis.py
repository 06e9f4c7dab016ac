"""Something that is no Redis answers where Redis should: the folder goes on being journaled, and Redis is waited for."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from blocksd import Client
from blocksd.errors import Unavailable
from blocksd.protocol import wire
from rig import Rig, assert_level
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

ANSWERS = {
    "a web server": b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    "a mail server": b"220 mail.example.org ESMTP\r\n",
    "bytes": bytes(range(256)),
    "always OK": b"+OK\r\n" * 8,
    "always a number": b":1\r\n" * 8,
    "always nothing": b"$-1\r\n" * 8,
    "always an empty list": b"*0\r\n" * 8,
    "always a list": b"*2\r\n$1\r\na\r\n*1\r\n:1\r\n" * 8,
    "an error of its own": b"-BOO nobody knows\r\n" * 8,
    "an endless list": b"*1000000000\r\n",
    "deep lists": b"*1\r\n" * 5000,
    "a length that is none": b"$x\r\nabc\r\n",
    "a huge text": b"$9999999999999999999\r\n",
    "not UTF-8": b"$2\r\n\xff\xfe\r\n" * 8,
    "a map": b"%1\r\n+server\r\n+valkey\r\n" * 8,
}


class Impostor:
    """Answers whatever is sent to a Unix socket with the same bytes."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self._answer = answer
        self._path = path
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                taken, _ = self._listener.accept()
                self._taken.append(taken)
                threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        with suppress(OSError):
            while taken.recv(1 << 16):
                taken.sendall(self._answer)

    def close(self) -> None:
        for one in (self._listener, *self._taken):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join(10)
        self._path.unlink(missing_ok=True)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    made = RedisServer(valkey_binary())
    yield made
    made.remove()


@pytest.mark.parametrize("moment", ["at the start", "while it runs"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_answers_is_no_redis(
    tmp_path: Path, server: RedisServer, answer: str, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is said once, in a sentence; nothing ends, files are journaled, and the mirror is in sync when Redis is there."""
    monkeypatch.setattr(wire, "REPLY_SECONDS", 0.2)
    url = server.url
    if moment == "while it runs":
        server.start()
        rig = Rig(tmp_path, url, reply_seconds=0.2)
        rig.write("notes", "one\n")
        rig.settle()
        server.kill()
        impostor = Impostor(server.socket, ANSWERS[answer])
    else:
        impostor = Impostor(server.socket, ANSWERS[answer])
        rig = Rig(tmp_path, url, reply_seconds=0.2)
        rig.write("notes", "one\n")
    rig.run(lambda: rig.heard.away)
    seq = rig.journal.seq
    rig.write("more", "two\n")
    rig.run(lambda: rig.journal.seq > seq)
    for _ in range(3):
        rig.clock.advance(2.0)
        rig.round()
    assert not rig.core.projector.is_in_sync
    assert len(rig.heard.away) <= 2
    assert all(isinstance(error, Unavailable) and "Redis" in error.message for error in rig.heard.away)
    with Client(url) as client, pytest.raises(Unavailable):
        client.blocks.retrieve("notes")
    impostor.close()
    server.start()
    rig.settle()
    raw = server.client()
    assert_level(rig, raw)
    raw.close()
    rig.crash()
