"""Repeats: which requests are sent again by an SDK, so that the daemon does them once.

An SDK repeats a request when the connection fails or the answer is late, also when it was done. It sends no key of
idempotency, only a count of its attempts (`x-stainless-retry-count`). So the gateway remembers under which id it asked the
daemon for each request, and asks for a repeated one under the same id.
"""

from __future__ import annotations

import uuid
from hashlib import sha256
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEPT = 10_000
"""How many requests are remembered: those of minutes, while an SDK repeats within seconds."""


class Repeats:
    """The ids of the last requests of SDKs that may repeat them."""

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}

    def request_id(self, headers: Mapping[str, str], *facts: str | bytes) -> str:
        """Return the id for a request of the daemon. `facts` are the caller, method, path and body of what was sent here.

        A request with an `Idempotency-Key` has an id made of that.
        """
        named = headers.get("idempotency-key")
        if named:
            *asked, _ = facts  # the daemon refuses another body under the same id
            return f"http-{sha256(repr((asked, named)).encode()).hexdigest()[:32]}"
        made = str(uuid.uuid4())
        count = headers.get("x-stainless-retry-count")
        if not count:
            return made
        mark = sha256()
        for fact in facts:
            mark.update(fact.encode("utf-8", "surrogatepass") if isinstance(fact, str) else fact)
            mark.update(b"\0")
        key = mark.hexdigest()
        if count.isascii() and count.isdigit() and int(count[:9]) > 0 and key in self._ids:
            return self._ids[key]
        self._ids.pop(key, None)
        self._ids[key] = made
        if len(self._ids) > _KEPT:
            del self._ids[next(iter(self._ids))]
        return made
