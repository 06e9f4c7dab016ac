"""Reads the inboxes of actors from Redis, in a thread."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.connection import connect, translated
from blocksd.errors import Misconfigured, Unavailable
from blocksd.request import Entry
from blocksd.revision import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.keys import Keys

_READ_PER_INBOX = 16
_BLOCK_SECONDS = 0.5
_BACK_OFF_SECONDS = (0.05, 1.0)


class Readable(NamedTuple):
    """Whether inboxes can be read: if not, why."""

    obstacle: str | None


class Reader:
    """Reads the inboxes, from a thread and a connection of its own, and passes what is in them to `sink`.

    What it passes is a list of entries, or, when that has changed, whether they can be read. It decides nothing and
    removes nothing.
    """

    def __init__(self, url: str, keys: Keys, sink: Callable[[list[Entry] | Readable], object]) -> None:
        self._url = url
        self._keys = keys
        self._sink = sink
        self._wanted: tuple[frozenset[str], int] = (frozenset(), 0)
        self._room = threading.Event()
        self._room.set()
        self._ending = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, or begin again if the thread has ended."""
        if not self.is_alive():
            self._thread = threading.Thread(target=self._run, name="inbox", daemon=True)
            self._thread.start()

    def is_alive(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def stop(self) -> None:
        """End, within the time that one reading takes."""
        self._ending.set()
        self._room.set()

    def join(self) -> None:
        if self._thread is not None:
            self._thread.join(4 * _BLOCK_SECONDS)

    def follow(self, agents: frozenset[str], restarts: int) -> None:
        """Read the inboxes of these agents, besides the operator's; when `restarts` changes, from the beginning."""
        self._wanted = (agents, restarts)

    def resume(self) -> None:
        """What was passed on has been taken: go on."""
        self._room.set()

    def _run(self) -> None:
        import redis

        failures = 0
        client: Any = None
        said = ""
        cursors: dict[str, str] = {}
        restarts = 0
        while not self._ending.is_set():
            agents, wanted = self._wanted
            if wanted != restarts:
                restarts = wanted
                cursors.clear()
                self._ending.wait(_BLOCK_SECONDS)  # whatever it was that could not be done, it takes a moment
            try:
                if client is None:
                    client = connect(self._url)
                entries = self._read(client, agents, cursors)
                failures = 0
                if said:
                    said = ""
                    self._sink(Readable(None))
            except (Unavailable, Misconfigured, redis.ResponseError) as error:
                if said != type(error).__name__:
                    said = type(error).__name__
                    self._sink(Readable(str(error)))
                cursors.clear()
                first, longest = _BACK_OFF_SECONDS
                self._ending.wait(min(first * 2**failures, longest))
                failures = min(failures + 1, 16)
                continue
            if entries:
                self._room.clear()
                self._sink(entries)
                self._room.wait()
            else:
                # Nothing new. What was read and is still there was forgotten, or the stream is another by now.
                cursors.clear()
        if client is not None:
            client.close()

    def _read(self, client: Any, agents: frozenset[str], cursors: dict[str, str]) -> list[Entry]:
        actors = {self._keys.inbox(actor): actor for actor in agents | {OPERATOR}}
        streams = {key: cursors.get(key, "0") for key in actors}
        with translated(self._url):
            answer = _xread(client, streams)
            if answer is None:
                # An actor made something else of its own inbox: that must not keep the others from being read.
                sound = self._sound(client, streams)
                answer = _xread(client, sound) if sound else None
            if answer is None:
                self._ending.wait(_BLOCK_SECONDS)
                return []
        entries: list[Entry] = []
        for key, found in answer.items():
            for entry_id, fields in found:
                entries.append(Entry(actors[key], entry_id, (fields or {}).get("request")))
                cursors[key] = entry_id
        return entries

    def _sound(self, client: Any, streams: dict[str, str]) -> dict[str, str]:
        """Those of the streams that are streams, or nothing yet."""
        pipeline = client.pipeline(transaction=False)
        for key in streams:
            pipeline.type(key)
        kinds = pipeline.execute()
        return {
            key: cursor
            for (key, cursor), kind in zip(streams.items(), kinds, strict=True)
            if kind in ("stream", "none")
        }


def _xread(client: Any, streams: dict[str, str]) -> dict[str, Any] | None:
    """What is in these streams, as soon as there is something; None when one of them is no stream."""
    import redis

    try:
        answer: dict[str, Any] = client.xread(streams, count=_READ_PER_INBOX, block=int(_BLOCK_SECONDS * 1000))
    except redis.ResponseError as error:
        if "WRONGTYPE" in str(error):
            return None
        raise
    return answer
