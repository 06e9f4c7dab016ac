"""The socket at which the gateway listens."""

from __future__ import annotations

import socket

from blocksd.http.server import listener


def test_answers_are_sent_at_once() -> None:
    """Without TCP_NODELAY on its connections a body waits 40 ms, until the client has confirmed the head."""
    with listener("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
