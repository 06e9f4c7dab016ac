"""Compares all that the mirror shows with the journal, over and over, a little at a time, and repairs what differs."""

from __future__ import annotations

import logging
import random
import zlib
from collections import Counter
from typing import TYPE_CHECKING

from blocksd.errors import BlocksdError, InvalidLabel
from blocksd.mirror.projection import in_parts
from blocksd.mirror.repair import differing, differing_properties, repair_agents, repair_changes, repair_index, suspects
from blocksd.mirror.stray_keys import Strays
from blocksd.model.label import name_for_agent, owner, parse_label, properties_label
from blocksd.model.revision import timestamp
from blocksd.state.part import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from blocksd.core.listener import Listener
    from blocksd.mirror.mirror import Mirror
    from blocksd.model.revision import Revision
    from blocksd.sources.source_mirror import SourceMirror
    from blocksd.sources.sources import Sources
    from blocksd.state.part import Shared
    from blocksd.state.state import State

PASS_SECONDS = 600.0
"""Within this time all blocks are compared by version and digest, however many there are."""
KEYS_A_SECOND = 200
"""How many keys are compared in a second, if there are not more than a pass can hold."""
READ_IN_FULL = 1000
"""How many blocks, and agents, are read in full in each pass: a different part of all each time."""
_NAMES_READ = 50_000  # of blocks that agents have, read in full in one pass
_SLICE = 64
_WALKED = 4096  # entries of a dictionary looked at between two slices
_SAY_SECONDS = 30.0

_log = logging.getLogger(__name__)


class Verifier(Part):
    """The schedule by which the mirror is compared, and what is found is repaired and announced.

    Every `seconds` a pass begins. In a pass each block is compared by version, digest and number of agents, each agent
    by the number of its blocks; a part of both, another one in each pass, is read in full. So an evicted or expired key,
    and one that was written by anyone who changed the version, is repaired within a pass, a value that was edited by
    hand under the same digest within as many passes as there are parts.
    """

    def __init__(
        self,
        shared: Shared,
        sources: Sources,
        source_mirror: SourceMirror,
        mirror: Mirror,
        listeners: Sequence[Listener],
        *,
        seconds: float,
    ) -> None:
        super().__init__(shared)
        self._listeners = listeners
        self.seconds = seconds
        self._source_mirror = source_mirror
        self._mirror = mirror
        self._strays = Strays(
            mirror,
            _owners_of_keys(shared.state, sources),
            lambda agent: not shared.state.has_seen_folders or shared.state.attachments.is_known(agent),
            clock=shared.clock,
        )
        self._number = random.randrange(1 << 16)  # of the pass: which part it reads in full
        self.running: Iterator[int] | None = None  # the pass that is under way
        self._begin_at = self._granted_at = self._clock()
        self._credit = 0.0  # how many keys may be compared now
        self._repaired = 0
        self._said_at = -_SAY_SECONDS
        self.passes = 0

    def begin(self) -> None:
        """Begin a pass soon: the mirror was just brought in sync, or was asked to be compared."""
        self._begin_at = min(self._begin_at, self._clock())

    def stop(self) -> None:
        """The mirror cannot be compared for now: the next pass begins at its beginning."""
        self.running, self._credit = None, 0.0
        self._strays.stop()

    @property
    def is_due(self) -> bool:
        """Return True if a slice may be compared right now."""
        return self.running is not None and self._credit > 0

    def grant(self) -> None:
        """Once a heartbeat: allow as many keys to be compared as the time since the last one is worth."""
        now = self._clock()
        elapsed, self._granted_at = now - self._granted_at, now
        if self.running is None and now >= self._begin_at:
            self._begin_at = now + self.seconds
            self._number += 1
            self.running = self._comparing()
            self._strays.begin()
        if self.running is not None:
            keys = len(self._state.paths) + len(self._state.attachments.known)
            self._credit += elapsed * max(KEYS_A_SECOND, keys / PASS_SECONDS)
        self._strays.is_granted = self.running is not None
        self._tell(now)

    def step(self) -> None:
        """Compare one slice, if one is due. Raises what the mirror does."""
        if self._strays.is_granted:
            self._remove_strays()
        if not self.is_due:
            return
        assert self.running is not None
        try:
            cost = next(self.running, None)
        except BaseException:
            self.stop()
            raise
        if cost is None:
            self.running, self._credit = None, 0.0
            self.passes += 1
            self._tell(self._clock())
        else:
            self._credit -= cost

    def _remove_strays(self) -> None:
        keys, removed = self._mirror.keys, self._strays.step()
        if removed:
            _log.warning("removed %d keys that belong to nothing, %r among them", len(removed), removed[0])
            blocks = [key.removeprefix(keys.block("")) for key in removed if key.startswith(keys.block(""))]
            self._announce(labels=[label for label in blocks if _is_label(label)])
            self._repaired += len(removed) - len(blocks)

    def _tell(self, now: float) -> None:
        if self._repaired and now - self._said_at >= _SAY_SECONDS:
            repaired, self._repaired, self._said_at = self._repaired, 0, now
            for listener in self._listeners:
                listener.on_repaired(repaired)

    # --- one pass ---

    def _comparing(self) -> Iterator[int]:
        """Yields after each slice how many keys it has compared."""
        labels = list(self._state.blocks())
        parts = -(-len(labels) // READ_IN_FULL) or 1
        for some in in_parts(labels, _SLICE):
            self._compare_blocks(some, parts)
            yield len(some)
        for some in in_parts(list(self._state.properties), _SLICE):
            self._compare_properties(some)
            yield len(some)
        is_thorough = self._number % 16 == 0
        problems = {subject: problem.dumps() for subject, problem in self._problems.copy().items()}
        known = self._state.attachments.known
        wrong = repair_index(
            self._mirror,
            self._state.blocks(),
            known,
            problems,
            origins=self._state.origins,
            times_of=self._state.agent_times.of,
            reads_agents=is_thorough or len(known) <= READ_IN_FULL,
            reads_problems=is_thorough or len(problems) <= READ_IN_FULL,
        )
        self._announce(indexes=wrong)
        yield 4
        yield from self._comparing_agents()
        for count in self._source_mirror.compare(timestamp(self._wall()), announce=True, is_repair=True):
            self._repaired += count
            yield _SLICE
        if not repair_changes(self._mirror):
            self._repaired += 1
            # Who comes back to this stream cannot be told what it missed.
            self._mirror.announce_reset(timestamp(self._wall()))

    def _compare_blocks(self, labels: Sequence[str], parts: int) -> None:
        heads = self._journal.digests(labels)
        found = set(suspects(self._mirror, heads)) if parts > 1 else set()
        found.update(head.label for head in heads if self._is_in_part(head.label, parts))
        wrong = differing(self._mirror, self._heads(sorted(found))) if found else []
        if wrong:
            self.rebuild(wrong)
            self._announce(labels=[revision.label for revision in wrong])

    def _compare_properties(self, labels: Sequence[str]) -> None:
        wrong = differing_properties(self._mirror, self._heads(labels))
        if wrong:
            self.rebuild(wrong)
            self._announce(agents=[str(owner(revision.label)) for revision in wrong])

    def _is_in_part(self, name: str, parts: int) -> bool:
        return zlib.crc32(name.encode()) % parts == self._number % parts

    def _heads(self, labels: Iterable[str]) -> list[Revision]:
        heads = (self._journal.head(label) for label in labels)
        return [head for head in heads if head is not None and head.block is not None]

    def rebuild(self, heads: Sequence[Revision]) -> None:
        """Write these blocks as they are. One that cannot be written is logged, and left out until the next pass."""
        try:
            self._mirror.rebuild(heads)
        except BlocksdError:
            raise
        except Exception as error:  # noqa: BLE001  # it is logged with its traceback, and the others are shown
            if len(heads) == 1:
                self._faults.count_error("showing a block in the mirror", error)
                return
            for head in heads:
                self.rebuild([head])

    def _comparing_agents(self) -> Iterator[int]:
        """Each agent by the number of its blocks, and some in full. Blocks with the same agents are looked at together."""
        attached = self._state.attachments.attached
        groups: dict[frozenset[str], list[str]] = {}
        for labels in in_parts(list(attached), _WALKED):
            for label in labels:
                if label in attached:
                    groups.setdefault(attached[label], []).append(label)
            yield 0
        counts: Counter[str] = Counter()
        for sets in in_parts(list(groups), _WALKED):
            for agents in sets:
                for agent in agents:
                    counts[agent] += len(groups[agents])
            yield 0
        known = self._state.attachments.known
        parts = max(-(-len(known) // READ_IN_FULL), -(-counts.total() // _NAMES_READ), 1)
        chosen: set[str] = set()
        for some in in_parts(list(known), _WALKED):
            chosen.update(agent for agent in some if self._is_in_part(agent, parts))
            yield 0
        names: dict[str, dict[str, str]] = {agent: {} for agent in chosen}
        for sets in in_parts(list(groups), _WALKED):
            for agents in sets:
                for agent in agents & chosen:
                    names[agent].update((name_for_agent(label), label) for label in groups[agents])
            yield 0
        for some in in_parts(list(known), _SLICE):
            keys = self._mirror.keys
            questions = [("HGETALL" if agent in chosen else "HLEN", keys.agent(agent)) for agent in some]
            wanted = [names[agent] if agent in chosen else counts[agent] for agent in some]
            shown = self._mirror.read_many(questions)
            wrong = [agent for agent, is_, want in zip(some, shown, wanted, strict=True) if is_ != want]
            if wrong:  # or merely changed since they were counted
                self._announce(agents=repair_agents(self._mirror, self._names_of(wrong)))
            yield len(some)

    def _names_of(self, agents: Iterable[str]) -> dict[str, dict[str, str]]:
        """The blocks of these agents as of now: name → label."""
        names: dict[str, dict[str, str]] = {agent: {} for agent in agents}
        some = names.keys()
        for label, attached in self._state.attachments.attached.items():
            for agent in attached & some:
                names[agent][name_for_agent(label)] = label
        return names

    def _announce(self, *, labels: Sequence[str] = (), agents: Sequence[str] = (), indexes: Sequence[str] = ()) -> None:
        if labels or agents or indexes:
            self._repaired += len(labels) + len(agents) + len(indexes)
            self._mirror.announce_repaired(labels, agents, indexes, timestamp(self._wall()))


def _owners_of_keys(state: State, sources: Sources) -> dict[str, Callable[[str], bool]]:
    """Return, for each kind of key in the mirror, what returns True for the names that are in force."""
    return {
        "block": lambda label: label in state.paths,
        "attached": lambda label: label in state.paths,
        "agent": lambda agent: agent in state.attachments.known,
        "agent-info": lambda agent: properties_label(agent) in state.properties,
        "source": lambda source: source in sources.names,
        "source-agents": lambda source: source in sources.names,
        "file": lambda file: file in sources.opened(),
        "open": lambda agent: agent in sources.known or bool(sources.opened_by(agent)),
    }


def _is_label(text: str) -> bool:
    try:
        parse_label(text)
    except InvalidLabel:
        return False
    return True
