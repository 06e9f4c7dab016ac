"""Finds keys of the mirror's kinds that belong to nothing, renamed or added by hand, and removes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.projection import in_parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.ledger import Ledger
    from blocksd.mirror import Mirror
    from blocksd.sources import Sources

SCANNED = 500
"""How many keys of the server one step looks through; a shared server may have many that are not ours."""


class Strays:
    """A walk through all keys of the server, a step at a time. `step` is not to be called while anything is drafted."""

    def __init__(self, mirror: Mirror, ledger: Ledger, sources: Sources) -> None:
        self._mirror = mirror
        self._sources = sources
        self._cursor = 0
        self._prefix = f"{mirror.keys.namespace}:"
        self._belongs: dict[str, Callable[[str], bool]] = {
            "block": lambda label: label in ledger.paths,
            "attached": lambda label: label in ledger.paths,
            "agent": lambda agent: agent in ledger.attachments.known,
            "source": lambda source: source in sources.names,
            "source-agents": lambda source: source in sources.names,
            "file": lambda file: file in sources.opened(),
            "open": self._has_opened,
        }
        self.is_granted = False
        """Whether the next step may be made; each takes this back, and so does the end of the walk."""
        self._is_over = False

    def begin(self) -> None:
        """Walk from the beginning, unless a walk is under way."""
        self._is_over = False

    def stop(self) -> None:
        self._cursor, self.is_granted, self._is_over = 0, False, True

    def step(self) -> list[str]:
        """Look through some keys; the names of those that were removed."""
        self.is_granted = False
        if self._is_over:
            return []
        keys = self._mirror.keys
        self._cursor, found = self._mirror.scan(self._cursor, f"{keys.namespace}:*", SCANNED)
        self._is_over = self._cursor == 0
        strays = [key for key in found if self._is_stray(key)]
        for words in in_parts(strays):
            self._mirror.apply([("UNLINK", *words)])
        return strays

    def _is_stray(self, key: str) -> bool:
        kind, _, name = key.removeprefix(self._prefix).partition(":")
        belongs = self._belongs.get(kind)
        return belongs is not None and not belongs(name)

    def _has_opened(self, agent: str) -> bool:
        opened = self._sources.opened().values()
        return agent in self._sources.known or any(agent in agents for agents in opened)
