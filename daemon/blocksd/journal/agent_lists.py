"""Lists of agents in a journal, each stored once however many revisions have it."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from blocksd.errors import JournalDamaged
from blocksd.journal.row import digest_of_list, words
from blocksd.model.attachment import NOBODY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blocksd.journal.database import Database

Agents = tuple[str, ...] | frozenset[str]
_Kind = TypeVar("_Kind", bound=Collection[str])

_REMEMBERED = 1024
_REMEMBERED_AGENTS = 1_000_000
_READ_AHEAD_CHARS = 10_000
_LONG = 32  # from so many agents on, a list is stored as its difference to another
_RECENT = 4  # how many long lists are tried as that other


class _Remembered(dict[int | None, _Kind]):
    """Remembers lists that were read: a dictionary, so that a remembered list costs one look-up."""

    def __init__(self, read: Callable[[int | None], _Kind]) -> None:
        super().__init__()
        self._read = read
        self._agents = 0

    def __missing__(self, number: int | None) -> _Kind:
        agents = self._read(number)
        self._agents += len(agents)
        if len(self) >= _REMEMBERED or self._agents > _REMEMBERED_AGENTS:
            self.clear()
            self._agents = len(agents)
        self[number] = agents
        return agents


class AgentLists:
    """The lists by their numbers: as `written` in a block, and as sets of those `attached`. None is the empty list."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.written: _Remembered[tuple[str, ...]] = _Remembered(partial(_list, database))
        self.attached: _Remembered[frozenset[str]] = _Remembered(partial(_set, database))

    def read_ahead(self) -> None:
        """Read as many lists as are remembered, with one query."""
        rows = self._database.execute(
            "SELECT id, agents, digest FROM agent_lists WHERE base IS NULL AND length(agents) < ? ORDER BY id LIMIT ?",
            (_READ_AHEAD_CHARS, _REMEMBERED),
        )
        self.written.update(
            (number, words(agents))
            for number, agents, digest in rows
            if isinstance(agents, str) and digest == digest_of_list(None, agents)
        )

    def forget_all(self) -> None:
        """Forget all lists: some of their numbers were given up."""
        self.written.clear()
        self.attached.clear()


def _row(database: Database, number: int | None) -> tuple[str, int | None]:
    """Return a list's text, and the number of the list that it is to be added to.

    Raise JournalDamaged if there is no such list, or it is not as it was written.
    """
    found = database.execute("SELECT agents, base, digest FROM agent_lists WHERE id = ?", (number,)).fetchone()
    if found is None or not isinstance(found[0], str) or found[2] != digest_of_list(found[1], found[0]):
        raise JournalDamaged(f"the journal's list of agents {number} is not what was written", path=database.path)
    return found[0], found[1]


def _list(database: Database, number: int | None) -> tuple[str, ...]:
    if number is None:
        return ()
    text, base = _row(database, number)
    return words(text) if base is None else tuple(sorted(_set(database, number)))


def _set(database: Database, number: int | None) -> frozenset[str]:
    if number is None:
        return NOBODY
    return _together(number, partial(_row, database))


def _together(number: int, row: Callable[[int], tuple[str, int | None]]) -> frozenset[str]:
    """Return a set of agents from its difference to another set, and so on, down to one that is stored whole."""
    steps: list[str] = []
    seen = {number}
    text, base = row(number)
    while base is not None:
        steps.append(text)
        if base in seen:
            break
        seen.add(base)
        text, base = row(base)
    agents = set(words(text))
    for step in reversed(steps):
        more, _, fewer = step.partition(";")
        agents.update(words(more))
        agents.difference_update(words(fewer))
    return frozenset(agents)


class _Long(NamedTuple):
    """A long list that has a number: what differs from it in a few agents is stored as that.

    `left` is how many characters more may be stored so before the next list is stored whole: as many as that takes, so
    that all of them together take no more than twice what was different.
    """

    agents: frozenset[str]
    number: int
    left: int


class ListNumbers:
    """The numbers of lists. One that has none yet is stored, and gets one, in the transaction that is open.

    Such a number stands once the transaction is committed. As long as there are `fresh` ones, `begin_transaction` is to be called
    before a transaction, and `keep_fresh` after it.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[Agents, int] = {}
        self.same: dict[int, tuple[Agents, int]] = {}  # by the identity of the list
        self.fresh: dict[Agents, int] = {}
        self._long: list[_Long] = []
        self._fresh_long: list[_Long] = []

    def begin_transaction(self) -> None:
        """Begin a transaction: numbers given out in one that failed are void."""
        self.fresh.clear()
        self._fresh_long = self._long

    def number_of(self, agents: Agents) -> int | None:
        """Return the number of a list; None of the empty one.

        Lists are recognised by identity first: most revisions leave theirs alone, and theirs may be long.
        """
        if not agents:
            return None
        same = self.same.get(id(agents))
        if same is not None and same[0] is agents:
            return same[1]
        number = self._known.get(agents)
        if number is not None:  # an equal list: from now on it is recognised, too
            if len(self.same) >= 2 * _REMEMBERED:
                self.same.clear()
            self.same[id(agents)] = (agents, number)
            return number
        number = self.fresh.get(agents)
        if number is None:
            is_long = isinstance(agents, frozenset) and len(agents) >= _LONG
            number = self.fresh[agents] = self._store_long(agents) if is_long else self._store(None, _joined(agents))
        return number

    def _store_long(self, agents: Agents) -> int:
        """Store a long set: as its difference to one that was stored before, if that is small, or whole."""
        assert isinstance(agents, frozenset)
        for place, other in enumerate(self._fresh_long):
            if abs(len(agents) - len(other.agents)) > len(agents) // 4:
                continue
            text = f"{_joined(agents - other.agents)};{_joined(other.agents - agents)}"
            if len(text) <= other.left:
                number = self._store(other.number, text)
                others = [*self._fresh_long[:place], *self._fresh_long[place + 1 :]]
                self._fresh_long = [_Long(agents, number, other.left - len(text)), *others]
                return number
        text = _joined(agents)
        number = self._store(None, text)
        self._fresh_long = [_Long(agents, number, len(text)), *self._fresh_long[: _RECENT - 1]]
        return number

    def _store(self, base: int | None, text: str) -> int:
        digest = digest_of_list(base, text)
        found = self._database.execute("SELECT id FROM agent_lists WHERE digest = ?", (digest,)).fetchone()
        if found is None:
            found = self._database.execute(
                "INSERT INTO agent_lists (digest, agents, base) VALUES (?, ?, ?) RETURNING id", (digest, text, base)
            ).fetchone()
        return int(found[0])

    def keep_fresh(self) -> None:
        """Keep the numbers given out in the transaction, which is committed."""
        if not self.fresh:
            return
        if len(self._known) + len(self.fresh) > _REMEMBERED or sum(map(len, self._known)) > _REMEMBERED_AGENTS:
            self._known.clear()
            self.same.clear()
        for agents, number in self.fresh.items():
            self._known[agents] = number
            self.same[id(agents)] = (agents, number)
        self._long = self._fresh_long
        self.fresh.clear()

    def forget_all(self) -> None:
        """Forget all numbers: some were given up."""
        self._known.clear()
        self.same.clear()
        self.fresh.clear()
        self._long.clear()


def _joined(agents: Iterable[str]) -> str:
    return ",".join(sorted(agents) if isinstance(agents, frozenset) else agents)
