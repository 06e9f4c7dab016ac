"""Which requests were under way when the daemon ended without an end: those that may have ended it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blocksd.requests.request import Entry

ATTEMPTS = 3
"""How often a request is begun: after that it is taken for what ends the daemon."""

_MOST_SUSPECTS = 1024  # a round has fewer requests; more are of rounds long ago
_MOST_BYTES = 1024 * 1024
_NOTHING = b"[]\n"


class _Key(NamedTuple):
    actor: str
    id: str


class StartedRequests:
    """The requests of the round that is under way, in a file beside the journal.

    It is overwritten in place and never synced: it is to outlive the process, not the machine, and must cost nothing. A
    file system that takes no more of it only costs the daemon its memory of what may have ended it.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self.counts: dict[_Key, int] = {}
        self._handle: int | None = None
        self._size = 0
        with suppress(OSError):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._read()
            self.end()

    def open_again(self) -> None:
        """Go on in a file that is there: the one so far may have been removed."""
        self.close()
        self._size = 0
        with suppress(OSError):
            self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._size = os.fstat(self._handle).st_size
            self.end()

    def _read(self) -> None:
        """Count one attempt more for each request that was under way."""
        assert self._handle is not None
        self._size = os.fstat(self._handle).st_size
        with suppress(ValueError, TypeError, KeyError, OverflowError, RecursionError):  # damaged: it says nothing
            for actor, entry, count in json.loads(os.pread(self._handle, _MOST_BYTES, 0))[:_MOST_SUSPECTS]:
                self.counts[_Key(str(actor), str(entry))] = int(count)

    def attempts(self, entry: Entry) -> int:
        """How often the daemon ended while this request was under way."""
        return self.counts.get(_Key(entry.actor, entry.id), 0) if self.counts else 0

    def first_alone(self, entries: Sequence[Entry]) -> int:
        """How many of the entries to begin at once: one that has a last attempt left is begun alone.

        So those that were only in its company are cleared, and the one that ends the daemon is found.
        """
        for place, entry in enumerate(entries):
            if self.attempts(entry) >= ATTEMPTS - 1:
                return max(place, 1)
        return len(entries)

    def begin(self, entries: Iterable[Entry]) -> None:
        """These are under way from now on."""
        counts = {_Key(entry.actor, entry.id): self.attempts(entry) + 1 for entry in entries}
        self._write(self.counts | counts)

    def end(self, entries: Iterable[Entry] = ()) -> None:
        """Nothing is under way any more; these are done, and no longer suspected."""
        for entry in entries if self.counts else ():
            self.counts.pop(_Key(entry.actor, entry.id), None)
        self._write(self.counts)

    def _write(self, counts: dict[_Key, int]) -> None:
        if self._handle is None:
            return
        data = json.dumps([[*key, count] for key, count in counts.items()]).encode() + b"\n" if counts else _NOTHING
        # A shorter text leaves the end of a longer one behind: blanks take its place, and no block is given back.
        with suppress(OSError):
            os.pwrite(self._handle, data.ljust(self._size), 0)
            self._size = max(self._size, len(data))

    def close(self) -> None:
        """Give the file back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __del__(self) -> None:
        self.close()
