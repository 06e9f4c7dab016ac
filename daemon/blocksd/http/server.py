"""The server: listens, answers until a signal comes, and closes."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import signal
import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import uvicorn

from blocksd.errors import Misconfigured
from blocksd.http.app import application
from blocksd.http.connection import Connection, Listening
from blocksd.http.places import Places, check_address, is_loopback
from blocksd.http.tokens import configured
from blocksd.monitoring import sd_notify
from blocksd.settings.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.http.app import Part
    from blocksd.http.call import Gateway
    from blocksd.http.tokens import Tokens
    from blocksd.monitoring.log import EventLog

_CLOSING_SECONDS = 2
"""How long requests in hand may take when the server stops. A daemon that runs it has 5 seconds to stop itself."""
_IDLE_SECONDS = 75
"""How long an idle connection is kept: longer than clients and proxies keep theirs, so that none is closed as it is used."""
_BACKLOG = 2048
_ACCEPTED_AT_ONCE = 16
"""How many connections are accepted before those of before are seen to: each has a descriptor already."""
_EXPIRING_SECONDS = 5
"""How often connections are looked at whose clients take too long."""
_FILES = 65_536
_PASSED = 3
"""The file descriptor of the first socket that systemd passes."""
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h
_LARGE = 512 * 1024
"""What is a large piece of memory: more than asyncio asks for at each read, 256 KiB, which would go to the system and come back."""


def serve(config: Config, url: str, log: EventLog, *parts: Callable[[Gateway], Part]) -> None:
    """Serve the mirror at this URL until SIGTERM or SIGINT. SIGHUP has the tokens read again; on a terminal it ends, too.

    `parts` make what other packages add.

    Raises:
        Misconfigured: an address, a token or a certificate is wrong, or the address would be open to everyone.
    """
    tokens = configured(config)
    passed = passed_listener()
    host, port = _address(config, passed)
    if host is not None:
        check_address(host, has_tokens=bool(tokens))
    places = Places(config.hosts, has_tokens=bool(tokens))
    app = application(url, config.namespace, tokens=tokens, places=places, by=config.by, parts=parts)
    certificate = _certificate(config)
    listening = Listening(fileno=(passed or listener(host or "", port)).detach())
    _raise_file_limit()
    give_memory_back()
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
        "backlog": _ACCEPTED_AT_ONCE,
        "http": Connection,
        "timeout_notify": 1,
        **certificate,
    }
    scheme = "https" if certificate else "http"
    place = f"{scheme}+unix:{_shown(listening)}" if host is None else f"{scheme}://{_shown(listening)}"
    who = "every program of this machine" if host is not None else "every program that may open it"
    if tokens:
        who = "callers with a token"
        if host is not None and not certificate and not is_loopback(host):
            notice = "tokens are sent without TLS: set certificate, or let a proxy on this machine have it"
            log.on_notice(notice, "warning")
    server = _Server(
        uvicorn.Config(app, **settings),
        app.state.stopping,
        ready=lambda: log.on_serving(place, who),
        reload=lambda: _reload(config, tokens, app.state.end_streams, log),
    )
    asyncio.run(server.serve(sockets=[listening]))


def _reload(config: Config, tokens: Tokens, end_streams: Callable[[], None], log: EventLog) -> None:
    """Read the file of tokens again; if something is wrong with it, the tokens before stay in force."""
    sd_notify.reloading()
    try:
        tokens.replace(configured(config))
    except Misconfigured as error:
        log.on_notice(f"{error.message}; the tokens before stay in force", "error")
    else:
        end_streams()  # of callers, too, whose token is gone
        log.on_notice("the tokens were read again", "info")
    sd_notify.ready()


class _Server(uvicorn.Server):
    """A server that says when it is ready, reloads by SIGHUP, and ends by another signal without an error."""

    def __init__(
        self, config: uvicorn.Config, stopping: asyncio.Event, *, ready: Callable[[], None], reload: Callable[[], None]
    ) -> None:
        """`stopping` is set when the server begins to stop."""
        super().__init__(config)
        config.callback_notify = self._look_after
        self._expired_at = 0.0
        self._stopping = stopping
        self._ready = ready
        self._reload = reload

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if not self.started:
            return
        for one in sockets or ():
            one.listen(_BACKLOG)  # asyncio has one number for this and for what it accepts at once
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup has it
            is_on_terminal = any(map(os.isatty, (0, 1, 2)))
            on_hangup = (lambda: self.handle_exit(signal.SIGHUP, None)) if is_on_terminal else self._reload
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hangup)
        self._ready()
        sd_notify.ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        sd_notify.stopping()
        self._stopping.set()
        await super().shutdown(sockets)
        if self.force_exit:  # then uvicorn leaves this out
            await self.lifespan.shutdown()

    async def _look_after(self) -> None:
        """Say that the event loop turns, to systemd's watchdog or the daemon that runs this gateway; close late connections."""
        sd_notify.watchdog(0)  # else a daemon that is stopped would stop the gateway for a while, ping by ping
        now = asyncio.get_running_loop().time()
        if now - self._expired_at >= _EXPIRING_SECONDS:
            self._expired_at = now
            for one in list(self.server_state.connections):
                if isinstance(one, Connection):
                    one.expire(now)

    def handle_exit(self, _sig: int, _frame: object) -> None:
        """Stop; the second time without waiting. The signal is not raised again, as uvicorn would do."""
        self.force_exit = self.should_exit
        self.should_exit = True


def passed_listener() -> socket.socket | None:
    """Return the socket that systemd listens at for this process (sd_listen_fds(3)); None: there is none.

    Raises:
        Misconfigured: there are several, or it is no socket of the kind that is needed.
    """
    # Programs that this one starts are not to take them for theirs.
    pid, count, _names = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    if pid != str(os.getpid()) or count in ("", "0"):
        return None
    if count != "1":
        message = f"systemd passes {count} sockets, and the gateway listens at one: have one ListenStream= in the unit"
        raise Misconfigured(message, key="listen")
    try:
        passed = socket.socket(fileno=_PASSED)
        is_right = passed.type == socket.SOCK_STREAM and passed.family in _FAMILIES
        if not is_right or not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            passed.close()
            raise OSError
    except OSError:
        message = (
            "what systemd passes is no socket that TCP or Unix streams are accepted at: set ListenStream= and Accept=no"
        )
        raise Misconfigured(message, key="listen") from None
    passed.set_inheritable(False)
    _send_at_once(passed)
    return passed


def _address(config: Config, passed: socket.socket | None) -> tuple[str | None, int]:
    """Return the host and the port to listen at; of a Unix socket no host. Raise Misconfigured if two are asked for."""
    asked = config.gateway_address
    if passed is None:
        return asked
    name = passed.getsockname()
    is_unix = passed.family == socket.AF_UNIX
    found: tuple[str | None, int] = (None, 0) if is_unix else (name[0], name[1])
    if config.listen != Config().listen and found != asked:
        where = f"listen is {config.listen}, and systemd listens at {_shown(passed)}"
        message = f"{where}: remove listen, or change ListenStream="
        raise Misconfigured(message, key="listen")
    return found


def _shown(listening: socket.socket) -> str:
    """Return where a socket listens, for messages."""
    name: Any = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return name if isinstance(name, str) else f"@{os.fsdecode(name[1:])}"
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


def listener(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Raise Misconfigured if it cannot."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        _send_at_once(listening)
    except OSError as error:
        raise Misconfigured(
            f"the gateway cannot listen at {host}:{port}: {error.strerror or error}", key="listen", errno=error.errno
        ) from None
    return listening


def _send_at_once(listening: socket.socket) -> None:
    """Have connections send without delay. They inherit it, and asyncio does not set it, as the socket names no protocol.

    Without it the body of each answer waits up to 40 ms until the client has confirmed the head.
    """
    if listening.family != socket.AF_UNIX:
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def give_memory_back() -> None:
    """Have the C library return large pieces of memory to the system when they are freed.

    glibc keeps them once it has seen some: after a burst of large answers a gateway would stay ten times as large. Other
    libraries have no such function, and need none.
    """
    with suppress(AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for which in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            mallopt(which, _LARGE)


def _raise_file_limit() -> None:
    """Allow as many connections as the system does: each stream of changes holds one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


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
