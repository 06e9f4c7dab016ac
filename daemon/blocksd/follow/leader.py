"""Follows the leader's changes in a thread, which connects again whenever it must."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, NamedTuple

from blocksd.client.blocking.transport import Transport
from blocksd.client.watch import Watch
from blocksd.errors import BlocksdError
from blocksd.follow.mirrored import Mirrored, no_mirror
from blocksd.mirror.keys import Keys
from blocksd.protocol.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.protocol.reset import Item

_LONGEST_PAUSE = 2.0
_PROVE_SECONDS = 2.0
"""How often it is checked that changes are heard from the server that has the namespace: after a failover the former one may
live on, and say nothing."""
_REPLAYED = 1000
"""How many changes are replayed at most, or as many as there are files: to compare all files costs less than more of them."""


class Begun(NamedTuple):
    """From here on every change is heard; the leader is at `seq`.

    All changes after `since` are passed on, or a reset; None: those after `seq`. `folder` is as `Stand` has it.
    """

    epoch: str
    seq: int
    since: int | None
    folder: str = ""


class Lost(NamedTuple):
    """Changes are not heard for now."""

    error: BlocksdError


class Leader:
    """Passes what it hears to `sink`: Begun, then changes and resets in their order, or Lost."""

    def __init__(self, url: str, namespace: str, sink: Callable[[Begun | Lost | Item], object]) -> None:
        self._url = url
        self._namespace = namespace
        self._sink = sink
        self._ending = threading.Event()
        self._watch: Watch | None = None
        self._watching: Watching | None = None
        self._thread: threading.Thread | None = None
        self._place: tuple[str, int] | None = None
        self._files: Callable[[], int] = lambda: 0

    def start(self, place: tuple[str, int] | None, files: Callable[[], int]) -> None:
        """Begin after this change; None: with what happens from now on. `files` tells how many files the copy has."""
        self._place, self._files = place, files
        self._thread = threading.Thread(target=self._run, name="blocksd-leader", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """True while the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def life(self) -> int | None:
        """A number while every change is heard, as far as that is known, another one after each interruption; else None."""
        return self._watching.life if self._watching is not None else None

    def stop(self) -> None:
        """End the thread; it ends within a second or two, or with the process."""
        self._ending.set()
        if self._watch is not None:
            self._watch.stop()
        if self._thread is not None:
            self._thread.join(2.0)

    def _run(self) -> None:
        failures = 0
        while not self._ending.is_set():
            try:
                self._follow()
                failures = 0
            except BlocksdError as error:
                self._sink(Lost(error))
            failures = min(failures + 1, 6)
            self._ending.wait(min(0.05 * 2**failures, _LONGEST_PAUSE) * random.uniform(0.5, 1.0))

    def _follow(self) -> None:
        since = self._place
        mirrored = Mirrored(self._url, self._namespace)
        try:
            stand = mirrored.stand()
            if stand.epoch is None:
                raise no_mirror(self._url, self._namespace)
            if since is not None:
                mirrored.see(*since)
                mirrored.check(stand.epoch, stand.seq)
        finally:
            mirrored.close()
        if since is not None and since[0] != stand.epoch:
            since = None
        transport = Transport(self._url, self._namespace)
        self._watching = Watching(
            Keys(self._namespace),
            since=since,
            most=lambda: max(_REPLAYED, self._files()),
            prove_seconds=_PROVE_SECONDS,
        )
        watch = self._watch = Watch(transport, self._watching)
        try:
            epoch, seq = watch.place
            if since is not None:  # the first change may have moved the place, and is passed on next
                self._sink(Begun(stand.epoch, stand.seq, since[1], stand.folder))
            else:
                self._sink(Begun(epoch or stand.epoch, seq or 0, None, stand.folder))
            for item in watch:
                self._sink(item)
                if watch.place[0] is not None and watch.place[1] is not None:
                    self._place = watch.place[0], watch.place[1]
        finally:
            watch.close()
            transport.close()
