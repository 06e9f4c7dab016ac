"""The server: listens, answers until a signal comes, and closes."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from typing import TYPE_CHECKING, Any

import uvicorn

from blocksd.errors import Misconfigured
from blocksd.http.app import application
from blocksd.http.places import Places, check_address, is_loopback
from blocksd.http.tokens import configured
from blocksd.monitoring import sd_notify

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.settings.config import Config

_CLOSING_SECONDS = 5
"""How long requests in hand may take when the server stops."""
_IDLE_SECONDS = 75
"""How long an idle connection is kept: longer than clients and proxies keep theirs, so that none is closed as it is used."""
_BACKLOG = 2048


def serve(config: Config, url: str, notice: Callable[[str], None]) -> None:
    """Serve the mirror at this URL until SIGTERM or SIGINT. `notice` is told when requests are taken.

    Raises:
        Misconfigured: an address, a token or a certificate is wrong, or the address would be open to everyone.
    """
    host, port = config.gateway_address
    tokens = configured(config)
    check_address(host, has_tokens=bool(tokens))
    places = Places(config.hosts, has_tokens=bool(tokens))
    app = application(url, config.namespace, tokens=tokens, places=places, by=config.by)
    certificate = _certificate(config)
    listening = listener(host, port)
    logging.getLogger("uvicorn").setLevel(
        logging.ERROR
    )  # a warning for each request that is no HTTP would fill the log
    # No access log: it would be a line for each read. Headers of proxies are not needed, and anyone could send them.
    settings: dict[str, Any] = {
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "ws": "none",
        "timeout_keep_alive": _IDLE_SECONDS,
        "timeout_graceful_shutdown": _CLOSING_SECONDS,
        "backlog": _BACKLOG,
        **certificate,
    }
    scheme = "https" if certificate else "http"
    place = f"{scheme}://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
    who = "callers with a token" if tokens else "every program of this machine"
    if tokens and not certificate and not is_loopback(host):
        notice("tokens are sent without TLS: set certificate, or let a proxy on this machine have it")
    server = _Server(uvicorn.Config(app, **settings), lambda: notice(f"serving at {place}, for {who}"))
    asyncio.run(server.serve(sockets=[listening]))


class _Server(uvicorn.Server):
    """A server that says when it is ready, and ends by a signal without an error."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()
            sd_notify.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        sd_notify.stopping()
        await super().shutdown(sockets)

    def handle_exit(self, _sig: int, _frame: object) -> None:
        """Stop; the second time without waiting. The signal is not raised again, as uvicorn would do."""
        self.force_exit = self.should_exit
        self.should_exit = True


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raise Misconfigured if it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        # Its connections inherit this. asyncio does not set it for them, as the socket names no protocol; without it the
        # body of each answer waits up to 40 ms until the client has confirmed the head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        raise Misconfigured(
            f"the gateway cannot listen at {host}:{port}: {error.strerror or error}", key="listen", errno=error.errno
        ) from None
    return listening


def _certificate(config: Config) -> dict[str, str]:
    """Return uvicorn's settings for TLS, none without. Raise Misconfigured if the files cannot be used."""
    if config.certificate is None:
        if config.certificate_key is not None:
            raise Misconfigured("certificate_key is set without certificate", key="certificate")
        return {}
    key = config.certificate_key or config.certificate
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(config.certificate, key)
    except (OSError, ValueError) as error:  # of ssl, too
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Misconfigured(
            f"{config.certificate} with {key} cannot be used for TLS: {why}", key="certificate"
        ) from None
    return {"ssl_certfile": config.certificate, "ssl_keyfile": key}
