"""The blocks and files an agent sees at one moment, and how long that holds."""

from __future__ import annotations

import json
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Any

from blocksd.errors import NotFound, Unavailable
from blocksd.mirror.connection import masked
from blocksd.mirror.prompt_rows import rows_of
from blocksd.mirror.view import BlockView, FileView
from blocksd.model.prompt import File, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from blocksd.mirror.keys import Keys
    from blocksd.model.prompt import Row
    from blocksd.protocol.watching import Watching
    from blocksd.protocol.wire import Command

_TEXTS_KEPT = 32
_WRITTEN_KEPT = 100
_READS = frozenset(("history", "version", "status"))
_EDITS = frozenset(("append", "replace", "insert", "patch", "update"))


class Sight:
    """The blocks an agent sees, by the names it has for them, and its file sources."""

    __slots__ = ("_blocks", "_hashes", "agent_type", "rows", "sources")

    def __init__(
        self,
        hashes: Mapping[str, Mapping[str, str]],
        rows: list[Row],
        sources: tuple[Source, ...] = (),
        agent_type: str | None = None,
    ) -> None:
        """Take the hashes of the blocks by label, and the rows of those that a prompt shows."""
        self._hashes = hashes
        self._blocks: dict[str, BlockView] | None = None
        self.rows = rows
        self.sources = sources
        self.agent_type = agent_type

    @property
    def blocks(self) -> Mapping[str, BlockView]:
        """The blocks by name. They are made when they are needed: a prompt does without."""
        if self._blocks is None:
            views = map(BlockView, self._hashes.values())
            self._blocks = {view.name: view for view in views}
        return self._blocks

    def shows_any(self, labels: Iterable[str | None]) -> bool:
        """Return True if one of these is the label of a block that is seen."""
        return not self._hashes.keys().isdisjoint(labels)


class Written:
    """What one client has had written, for its memories: they must show it before they hear of it."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._last: deque[str | None] = deque(maxlen=_WRITTEN_KEPT)
        self.count = 0

    def add(self, op: str, args: Mapping[str, Any] | None, label: str | None) -> None:
        """Note a request that was done, or may have been; `label` is that of the reply, None where there is none."""
        if op in _READS:
            return
        is_edit = op in _EDITS and "agents" not in (args or ())  # of one block, attached to whom it was before
        with self._lock:
            self._last.append(label if is_edit else None)
            self.count += 1

    def since(self, count: int) -> list[str | None]:
        """The labels of the blocks that were written since; None stands for any block."""
        with self._lock:
            new = self.count - count
            return [None] if new > len(self._last) else list(self._last)[len(self._last) - new :]


class Kept:
    """An agent's sight, and the texts compiled from it, as long as they hold.

    Invariant: what is kept was read while the agent was followed (`watching.life`), nothing was heard since, and this client
    has had nothing written since that concerns the agent.
    """

    def __init__(self, watching: Watching, written: Written) -> None:
        self._watching = watching
        self._written = written
        self._known = 0  # how much of what was written is in the sight, or does not concern it
        self._heard = 0
        self._read_at: tuple[int, int | None] = (0, None)  # how much was heard then, and in which life
        self._sight: Sight | None = None
        self._texts: dict[object, str] = {}

    def forget(self, _item: object = None) -> None:
        """Note a change that concerns the agent. What was kept is given up here, in the background, and not by the next reader."""
        self._heard += 1
        self._sight, self._texts = None, {}

    def mark(self) -> tuple[int, int | None, int]:
        """The moment before a sight is read."""
        return self._heard, self._watching.life, self._written.count

    @property
    def is_fresh(self) -> bool:
        """True while nothing has changed since the sight was read."""
        if self._known != self._written.count:
            count = self._written.count  # before what was written is read: more of it is looked at next time
            written, sight = self._written.since(self._known), self._sight
            if None in written or (sight is not None and sight.shows_any(written)):
                self.forget()
            self._known = count
        return self._read_at[1] is not None and self._read_at == (self._heard, self._watching.life)

    @property
    def sight(self) -> Sight | None:
        """The sight, while it holds."""
        return self._sight if self.is_fresh else None

    def put(self, sight: Sight, mark: tuple[int, int | None, int]) -> None:
        """Keep a sight that was read after `mark`."""
        heard, life, self._known = mark
        self._sight, self._read_at, self._texts = sight, (heard, life), {}

    def found(self, key: object) -> tuple[str | None, Sight | None]:
        """The text compiled under this key, and the sight, while they hold."""
        return (self._texts.get(key), self._sight) if self.is_fresh else (None, None)

    def put_text(self, key: object, text: str, sight: Sight) -> None:
        """Keep a text compiled from `sight`, unless another has been read since."""
        if sight is self._sight:
            if len(self._texts) >= _TEXTS_KEPT:
                self._texts.clear()
            self._texts[key] = text


def no_mirror(url: str | None = None) -> Unavailable:
    """Return the error that what is not found says nothing: there is no mirror, or only a part of one."""
    facts = {} if url is None else {"url": masked(url)}
    message = "there is no mirror in Redis yet, or it is being built anew: what is not found may be there all the same"
    return Unavailable(message, mirror=None, **facts)


class Look:
    """One attempt at reading what an agent sees, in two round trips."""

    def __init__(self, keys: Keys, agent: str) -> None:
        self._keys = keys
        self._agent = agent
        self._labels: list[str] = []
        self._sources: dict[str, str] = {}
        self._opened: dict[str, str] = {}
        self._agent_type: str | None = None

    def first_commands(self) -> Sequence[Command]:
        """Read the names of the agent's blocks, sources and open files."""
        keys, agent = self._keys, self._agent
        return (
            ("HGETALL", keys.agent(agent)),
            ("ZSCORE", keys.agents, agent),
            ("HGETALL", keys.sources),
            ("HGETALL", keys.open(agent)),
            ("HGET", keys.agent_info(agent), "agent_type"),
            ("HGET", keys.meta, "epoch"),  # last: a mirror that is built anew is without it from before the beginning
        )

    def second_commands(self, replies: Sequence[Any]) -> Sequence[Command]:
        """Read their contents, by the replies to the first commands.

        Raises:
            Unavailable: there is no mirror yet.
            NotFound: the agent is not known.
        """
        names, score, sources, self._opened, self._agent_type, epoch = replies
        if epoch is None:
            raise no_mirror()
        if not names and score is None:
            raise NotFound(f"there is no agent {self._agent!r}", agent=self._agent)
        keys = self._keys
        self._labels = list(names.values())
        block = keys.block
        blocks = [("HGETALL", block(label)) for label in self._labels]
        if not sources:
            return blocks
        self._sources = dict(sorted(sources.items()))
        return (
            *blocks,
            *(("SISMEMBER", keys.source_agents(name), self._agent) for name in self._sources),
            *(("HGETALL", keys.source(name)) for name in self._sources),
            *(("HGETALL", keys.file(file)) for file in self._opened),
        )

    def sight(self, replies: Sequence[Any]) -> Sight | None:
        """The agent's sight, by the replies to the second commands; None when it changed while it was read."""
        hashes = dict(zip(self._labels, replies, strict=False))  # what follows is of sources
        rows = rows_of(hashes)
        if rows is None:
            return None
        if not self._sources:
            return Sight(hashes, rows, (), self._agent_type)
        rest, count = replies[len(self._labels) :], len(self._sources)
        contents = dict(zip(self._opened, rest[2 * count :], strict=True))
        seen = zip(self._sources.items(), rest[:count], rest[count : 2 * count], strict=True)
        return Sight(
            hashes,
            rows,
            tuple(
                self._source(name, json.loads(about), listing, contents)
                for (name, about), is_seen, listing in seen
                if is_seen
            ),
            self._agent_type,
        )

    def _source(
        self, name: str, about: Mapping[str, Any], listing: Iterable[str], contents: Mapping[str, Mapping[str, str]]
    ) -> Source:
        files = []
        for path in sorted(listing):
            content = contents.get(f"{name}/{path}")
            files.append(
                File(
                    path,
                    is_open=bool(content),
                    value=content["value"] if content else "",
                    limit=int(about["limit"]),
                    last_accessed_at=self._opened.get(f"{name}/{path}"),
                )
            )
        return Source(name, about.get("description"), about.get("instructions"), tuple(files))


def files_in(sight: Sight) -> list[FileView]:
    """The files of an agent's sight, by source and path."""
    return [
        FileView(source.name, file.name, file.limit, file.value if file.is_open else None, file.last_accessed_at)
        for source in sight.sources
        for file in source.files
    ]


def not_attached(agent: str, name: str, names: Iterable[str]) -> NotFound:
    """The error for a name by which an agent knows no block."""
    known = sorted(names)
    shown = ", ".join(known[:10]) + (", …" if len(known) > 10 else "") if known else "none"
    return NotFound(f"agent {agent!r} has no block {name!r} (it has: {shown})", agent=agent, name=name, names=known)
