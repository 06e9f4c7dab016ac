"""What `doctor` says of the gateway."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING

import pytest

from blocksd.doctor.gateway import findings, health, is_unencrypted
from blocksd.settings.config import Config
from gateways import free_port
from support import advises

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blocksd.doctor.finding import Finding

TOKEN = "operator:kim a-token-of-the-operator"


@pytest.fixture
def says() -> Iterator[tuple[int, list[tuple[int, str]]]]:
    """A port at which a program answers as the list says."""
    answers: list[tuple[int, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answers[-1]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        yield server.server_port, answers
        server.shutdown()
        thread.join()


def found(check: str, config: Config) -> Finding | None:
    return next((one for one in findings(config) if one.check == f"gateway.{check}"), None)


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (200, '{"version": "0.1.0", "status": "ok"}', "ok"),
        (503, '{"detail": "Redis does not serve"}', "no blocks"),
        (403, '{"detail": "this gateway is not reached as …"}', "ok"),
        (200, "<html>", "not blocksd"),
        (404, "no", "not blocksd"),
    ],
)
def test_answers_of_a_gateway(says: tuple[int, list[tuple[int, str]]], status: int, body: str, answer: str) -> None:
    """Its own are told from those of another program at its address."""
    port, answers = says
    answers.append((status, body))
    assert health(f"http://0.0.0.0:{port}") == answer
    is_ours = answer in ("ok", "no blocks")
    assert (found("answer", Config(listen=str(port))) is not None) == is_ours
    expected = "ok" if answer == "ok" else "wrong"
    advises(found("answer", Config(http=True, listen=str(port))), expected, str(port))


def test_gateway_that_is_not_there() -> None:
    """It is missed where the daemon is to run one, and nowhere else."""
    port = str(free_port())
    assert list(findings(Config(listen=port))) == []
    advises(found("answer", Config(http=True, listen=port)), "wrong", "does not answer", "status")


def test_who_may_use_it(tmp_path: Path) -> None:
    """Settings that keep it from starting, tokens that others may read, and a network without TLS."""
    port = free_port()
    advises(found("access", Config(listen=f"0.0.0.0:{port}")), "wrong", "without tokens")
    file = tmp_path / "tokens"
    advises(found("access", Config(tokens_file=str(file))), "wrong", "cannot be read")
    file.write_text(TOKEN)
    file.chmod(0o644)
    config = Config(listen=f"0.0.0.0:{port}", tokens_file=str(file))
    advises(found("access", config), "warning", "mode 644", "chmod 600")
    file.chmod(0o600)
    assert found("access", config) is None
    advises(found("network", config), "warning", "without TLS", "certificate")
    assert not is_unencrypted("https://0.0.0.0:8283")
    assert not is_unencrypted("http://[::1]:8283")
