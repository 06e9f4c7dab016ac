"""Lists of agents in a journal, each stored once however many revisions have it."""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

from blocksd.attachment import NOBODY
from blocksd.row import words

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.database import Database

Agents = tuple[str, ...] | frozenset[str]
_Kind = TypeVar("_Kind")

_REMEMBERED = 1024


class _Remembered(dict[int | None, _Kind]):
    """What was read is remembered: a dictionary, so that what is in it costs no more than a look into one."""

    def __init__(self, read: Callable[[int | None], _Kind]) -> None:
        super().__init__()
        self._read = read

    def __missing__(self, number: int | None) -> _Kind:
        agents = self._read(number)
        if len(self) >= _REMEMBERED:
            self.clear()
        self[number] = agents
        return agents


class AgentLists:
    """The lists by their numbers: as `written` in a block, and as sets of those `attached`. None is the empty list."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.written = _Remembered(partial(_list, database))
        self.attached = _Remembered(partial(_set, self.written))

    def read_ahead(self) -> None:
        """Remember as many as can be, in one go."""
        rows = self._database.execute("SELECT id, agents FROM agent_lists ORDER BY id LIMIT ?", (_REMEMBERED,))
        self.written.update((number, words(agents)) for number, agents in rows)


def _list(database: Database, number: int | None) -> tuple[str, ...]:
    if number is None:
        return ()
    (text,) = database.execute("SELECT agents FROM agent_lists WHERE id = ?", (number,)).fetchone()
    return words(text)


def _set(written: _Remembered[tuple[str, ...]], number: int | None) -> frozenset[str]:
    return frozenset(written[number]) if number is not None else NOBODY


class ListNumbers:
    """The numbers of lists. One that has none yet is stored, and gets one, in the transaction that is open.

    Such a number stands once the transaction is committed: whoever opens it calls `begin` before and `keep` after it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[Agents, int] = {}
        self._same: dict[int, tuple[Agents, int]] = {}  # by the identity of the list
        self._new: dict[Agents, int] = {}

    def begin(self) -> None:
        """A transaction begins: what was given out in one that failed is void."""
        self._new.clear()

    def of(self, agents: Agents) -> int | None:
        """The number of a list; None of the empty one.

        Lists are recognised by identity first: most revisions leave theirs alone, and theirs may be long.
        """
        if not agents:
            return None
        same = self._same.get(id(agents))
        if same is not None and same[0] is agents:
            return same[1]
        number = self._known.get(agents)
        if number is not None:  # an equal list: from now on it is recognised, too
            if len(self._same) >= 2 * _REMEMBERED:
                self._same.clear()
            self._same[id(agents)] = (agents, number)
            return number
        number = self._new.get(agents)
        if number is None:
            text = ",".join(sorted(agents) if isinstance(agents, frozenset) else agents)
            digest = blake2b(text.encode("utf-8"), digest_size=16).digest()
            found = self._database.execute("SELECT id FROM agent_lists WHERE digest = ?", (digest,)).fetchone()
            if found is None:
                found = self._database.execute(
                    "INSERT INTO agent_lists (digest, agents) VALUES (?, ?) RETURNING id", (digest, text)
                ).fetchone()
            number = self._new[agents] = int(found[0])
        return number

    def keep(self) -> None:
        """The transaction is committed: the numbers given out in it stand."""
        if len(self._known) + len(self._new) > _REMEMBERED:
            self._known.clear()
            self._same.clear()
        for agents, number in self._new.items():
            self._known[agents] = number
            self._same[id(agents)] = (agents, number)
        self._new.clear()
