"""Places: where the gateway may listen without tokens, and which hosts and origins a request may name.

A web page that a person visits can make the browser send requests to this machine. With DNS rebinding the page's own name
leads here, so that the browser takes the answer for the page's. The header `Host` then has that name, and requests from
foreign pages have an `Origin`.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from blocksd.errors import Misconfigured

_MOST_SEEN, _LONGEST_SEEN = 100, 300
"""How many headers `Host` are remembered as ours, and of which length: most callers send one of a few."""


def check_address(host: str, *, has_tokens: bool) -> None:
    """Raise Misconfigured if everyone in the network could write: without tokens only this machine may be served."""
    if has_tokens or is_loopback(host):
        return
    try:
        found = {str(one[4][0]) for one in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        found = set()
    if not found or not all(map(is_loopback, found)):
        raise Misconfigured(
            f"without tokens the gateway listens at this machine alone (127.0.0.1), not at {host}: everyone who reaches it "
            "could change every block; set tokens or tokens_file",
            key="listen",
        )


def is_loopback(host: str) -> bool:
    """Return True if this is an address of this machine alone, or `localhost`."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Places:
    """The names under which the gateway is reached."""

    def __init__(self, names: str | None, *, has_tokens: bool) -> None:
        """Take names with commas between them. None: any with tokens, else those of this machine."""
        self._names = frozenset(name.strip().lower() for name in (names or "").split(",") if name.strip())
        self._is_any = has_tokens and not self._names
        self._seen: set[str] = set()

    def is_ours(self, host: str) -> bool:
        """Return True if the header `Host` names this gateway."""
        if host in self._seen:
            return True
        name = _name_of(host)
        is_ours = name is not None and (self._is_any or is_loopback(name) or name in self._names)
        if is_ours and len(self._seen) < _MOST_SEEN and len(host) <= _LONGEST_SEEN:
            self._seen.add(host)
        return is_ours

    def is_own_page(self, origin: str, host: str) -> bool:
        """Return True if the header `Origin` is of a page of this gateway, which the request reached as `host`."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.netloc.lower() == host.lower() or parts.hostname in self._names


def _name_of(host: str) -> str | None:
    """Return the name in a header `Host`, without the port; None if it is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if parts.netloc == host and "@" not in host else None
