"""Finds keys of the mirror's kinds that belong to nothing, renamed or added by hand, and removes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.mirror.projection import in_parts
from blocksd.model.revision import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from blocksd.mirror.mirror import Mirror
    from blocksd.mirror.projection import Command

SCANNED = 500
"""How many keys of the server one step looks through; a shared server may have many that are not ours."""
_INBOX_SECONDS = 3600.0  # for how long requests of an agent that is not known are kept: it may become known
_MOST_INBOXES = 10_000  # of which it is noted since when requests wait there


class Strays:
    """A walk through all keys of the server, a step at a time. `step` is not to be called while anything is drafted.

    An inbox whose agent is not known goes, too: at once if it is empty, and if requests wait there, after an hour in which
    the agent was not known.
    """

    def __init__(
        self,
        mirror: Mirror,
        belongs: Mapping[str, Callable[[str], bool]],
        may_be_known: Callable[[str], bool],
        *,
        clock: Callable[[], float],
    ) -> None:
        """`belongs` has, for each kind of key, what returns True for the names that keys of this kind may have now.

        `may_be_known` returns True for an agent that is known, or that may become known when the folder has been read.
        """
        self._mirror = mirror
        self._belongs = belongs
        self._may_be_known = may_be_known
        self._clock = clock
        self._unknown: dict[str, float] = {}  # inboxes of agents that were not known in the last walk: since when
        self._found: dict[str, float] = {}  # the same of this walk
        self._cursor = 0
        self._prefix = f"{mirror.keys.namespace}:"
        self.is_granted = False
        """True if the next step may be made; each takes this back, and so does the end of the walk."""
        self._is_over = False

    def begin(self) -> None:
        """Walk from the beginning, unless a walk is under way."""
        self._is_over = False

    def stop(self) -> None:
        self._cursor, self.is_granted, self._is_over = 0, False, True
        self._found = {}

    def step(self) -> list[str]:
        """Look through some keys; the names of those that were removed."""
        self.is_granted = False
        if self._is_over:
            return []
        keys = self._mirror.keys
        self._cursor, found = self._mirror.scan(self._cursor, f"{keys.namespace}:*", SCANNED)
        self._is_over = self._cursor == 0
        self._forget_inboxes(found)
        strays = [key for key in found if self._is_stray(key)]
        for words in in_parts(strays):
            self._mirror.apply([("UNLINK", *words)])
        return strays

    def _forget_inboxes(self, found: Iterable[str]) -> None:
        """Remove inboxes of agents that are not known, as far as they are empty or their agents not known for long."""
        now, prefix = self._clock(), self._mirror.keys.inbox("")
        commands: list[Command] = []
        for key in found:
            actor = key.removeprefix(prefix)
            if actor in (key, OPERATOR) or self._may_be_known(actor):
                continue
            since = self._unknown.get(key, now)
            if now - since >= _INBOX_SECONDS:
                commands.append(("UNLINK", key))
                continue
            commands.append(("FORGET", key))
            if len(self._found) < _MOST_INBOXES:
                self._found[key] = since
        if commands:
            self._mirror.apply(commands)
        if self._is_over:
            self._unknown, self._found = self._found, {}

    def _is_stray(self, key: str) -> bool:
        kind, _, name = key.removeprefix(self._prefix).partition(":")
        belongs = self._belongs.get(kind)
        return belongs is not None and not belongs(name)
