"""Reads the inboxes of actors from Redis, in a thread."""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import BlocksdError
from blocksd.model.faults import Failed
from blocksd.model.label import printable
from blocksd.requests.inbox import REFUSALS
from blocksd.requests.inbox_session import Orders, Session
from blocksd.requests.inboxes import KEPT, Inboxes
from blocksd.requests.request import MAX_BYTES, Entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.mirror.keys import Keys

_BACK_OFF_SECONDS = (0.05, 1.0)
_JOIN_SECONDS = 4.0


class Readable(NamedTuple):
    """Inboxes can be read, or the reason why not."""

    obstacle: str | None


class Refused(NamedTuple):
    """How many entries of one inbox were refused without being passed on; `Reading` says for what."""

    actor: str
    dropped: int = 0
    oversized: int = 0
    surplus: int = 0

    def counts(self) -> dict[str, int]:
        """By reason."""
        return dict(zip(REFUSALS, self[1:], strict=True))

    def added_to(self, other: Refused | None) -> Refused:
        """Both counts together; `other` is of the same actor."""
        if other is None:
            return self
        counts = zip(self[1:], other[1:], strict=True)
        return Refused(self.actor, *(one + more for one, more in counts))

    def sentence(self) -> str:
        """One line for a log."""
        reasons = (
            (self.dropped, "that are no requests and have no id to reply to"),
            (self.oversized, f"of over {MAX_BYTES} bytes"),
            (self.surplus, f"beyond the {KEPT} that wait"),
        )
        what = ", ".join(f"{number} {reason}" for number, reason in reasons if number)
        return f"dropped from the inbox of {printable(self.actor)}: {what}"


News = list[Entry] | Readable | Refused | Failed
"""The values that a consumer passes on."""


class Consumer:
    """Reads the inboxes, from a separate thread and connection, and passes what is in them to `sink`.

    What it passes is a list of entries; or, when that has changed, whether they can be read; or how many entries were
    refused. It reads only inboxes that have changed, and now and then looks whether one was missed.
    """

    def __init__(
        self, url: str, keys: Keys, sink: Callable[[News], object], *, lease: Callable[[], str] = lambda: ""
    ) -> None:
        """`lease` is what this daemon's lease says; without it, no entry is refused here."""
        self._url = url
        self._keys = keys
        self._sink = sink
        self._lease = lease
        self._orders = Orders()
        self._room = threading.Event()
        self._room.set()
        self._wants_room = False  # something is to be read as soon as there is room
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None
        self._pipe: tuple[int, int] | None = None
        self._failures = 0
        self._said = ""

    def start(self) -> None:
        """Begin, or begin again if the thread has ended."""
        if not self.is_alive():
            if self._pipe is None:
                self._pipe = os.pipe()
                for end in self._pipe:
                    os.set_blocking(end, False)
            self._thread = threading.Thread(target=self._run, args=(self._pipe[0],), name="inbox", daemon=True)
            self._thread.start()

    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End, within the time that one reading takes."""
        self._ending.set()
        self._wake()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(_JOIN_SECONDS)
        if self._pipe is not None and not self.is_alive():
            for end in self._pipe:
                with suppress(OSError):
                    os.close(end)
            self._pipe = None

    def follow(self, agents: frozenset[str], restarts: int) -> None:
        """Read the inboxes of these agents, besides the operator's; when `restarts` changes, read again what was read."""
        self._orders = self._orders._replace(agents=agents, restarts=restarts)
        self._wake()

    def read_strangers(self) -> None:
        """From now on read the inboxes of agents that are not known, too, a while after they have changed.

        Until the folder was read, agents may only seem not to be known.
        """
        self._orders = self._orders._replace(reads_strangers=True)
        self._wake()

    def hold_back(self, actors: frozenset[str]) -> None:
        """Pass on nothing more of these actors: enough of their entries wait."""
        self._orders = self._orders._replace(held_back=actors)
        self._wake()

    def resume(self) -> None:
        """Go on: what was passed on has been taken."""
        self._room.set()
        if self._wants_room:
            self._wake()

    def reconnect(self) -> None:
        """Begin anew on another connection: Redis was lost, and may be another server now."""
        self._orders = self._orders._replace(reconnects=self._orders.reconnects + 1)
        self._wake()

    def _wake(self) -> None:
        if self._pipe is not None:
            with suppress(OSError):  # full: it wakes anyway; whatever else it is: it wakes within a tick
                os.write(self._pipe[1], b"\0")

    def _run(self, wake: int) -> None:
        while not self._ending.is_set():
            try:
                orders = self._orders  # before it connects: what is ordered meanwhile concerns this connection, too
                inboxes = Inboxes(self._url, self._keys)
                try:
                    self._serve(inboxes, orders, wake)
                finally:
                    inboxes.close()
            except Exception as error:  # noqa: BLE001  # what is unforeseen is counted; it begins again all the same
                if not isinstance(error, (BlocksdError, OSError)):
                    self._sink(Failed("reading the inboxes", error))
                if self._said != type(error).__name__:
                    self._said = type(error).__name__
                    self._sink(Readable(str(error)))
                first, longest = _BACK_OFF_SECONDS
                self._ending.wait(min(first * 2**self._failures, longest))
                self._failures = min(self._failures + 1, 16)

    def _serve(self, inboxes: Inboxes, orders: Orders, wake: int) -> None:
        """Read on one connection, until it is to end or another connection is wanted than was when `orders` were given."""
        session = Session(inboxes, orders, time.monotonic())
        while not self._ending.is_set() and self._orders.reconnects == orders.reconnects:
            now = time.monotonic()
            session.take(self._orders, now)
            session.hear(now)
            session.look(now)
            self._failures = 0
            if self._said:
                self._said = ""
                self._sink(Readable(None))
            self._wants_room = session.wants_room  # told before it is seen whether there is room
            has_room = self._room.is_set()
            if has_room and session.is_ready(now):
                for actor, reading in session.read(now, self._lease()).items():
                    if reading.dropped or reading.oversized or reading.surplus:
                        self._sink(Refused(actor, *reading[4:]))
                if session.entries:
                    self._room.clear()
                    entries, session.entries = session.entries, []
                    self._sink(entries)
                continue
            if inboxes.wait(session.wait_seconds(now, has_room=has_room), wake):
                with suppress(OSError):
                    os.read(wake, 4096)
