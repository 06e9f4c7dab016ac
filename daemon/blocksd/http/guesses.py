"""Guesses: wrong tokens are counted by the address that they come from; too many are refused with 429, and logged."""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from typing import TYPE_CHECKING

from blocksd.http.answers import refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response
    from starlette.types import Scope

MOST, SECONDS = 20, 60.0
"""How many wrong tokens an address may send within how long."""
_MOST_ADDRESSES = 1000
"""How many addresses are counted at once; then the one whose first wrong token is the oldest is forgotten."""

_LOG = logging.getLogger("blocksd.http")


class Guesses:
    """Wrong tokens of the last minute.

    They never stand in the way of a right token: behind a proxy, all callers have one address.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._found: dict[str, tuple[float, int]] = {}  # address → when its count ends, and the count
        self._silent_until = 0.0
        self.total = 0
        """How many wrong tokens came since the start."""

    def count(self, scope: Scope) -> float:
        """Count a wrong token of a request; return for how many seconds its address sends too many of them, else 0."""
        self.total += 1
        address, now = _network_of((scope.get("client") or ("",))[0]), self._clock()
        end, number = self._found.get(address, (0.0, 0))
        if end <= now:
            self._found.pop(address, None)  # so that the order is that of the ends
            end, number = now + SECONDS, 0
            if len(self._found) >= _MOST_ADDRESSES:
                del self._found[next(iter(self._found))]
        self._found[address] = end, number + 1
        if number < MOST:
            return 0.0
        if self._silent_until <= now:  # not once for each of many addresses
            self._silent_until = now + SECONDS
            _LOG.warning(
                "over %s wrong tokens came from %s within a minute; see that no caller has an old one", MOST, address
            )
        return end - now

    def refused(self, scope: Scope, detail: str) -> Response:
        """Return the answer to a request with a wrong token: 401, or 429 when its address has sent too many."""
        seconds = self.count(scope)
        if not seconds:
            return refusal(401, detail, {"www-authenticate": "Bearer"})
        headers = {"retry-after": str(math.ceil(seconds)), "x-should-retry": "false", "connection": "close"}
        return refusal(429, "too many wrong tokens come from this address; a right one is taken at any time", headers)


def _network_of(address: str) -> str:
    """Return an address as it is counted: of IPv6 the network, in which one machine has all addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:100]
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address
