"""Attachment: `agents:` entries and private folders → agent ids; and where two names collide."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter
from fnmatch import translate
from functools import lru_cache
from typing import TYPE_CHECKING

from blocksd.model.label import PRIVATE, is_pattern, is_properties, name_for_agent, owner
from blocksd.model.layer import Layer

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, MutableMapping, Sequence

NOBODY: frozenset[str] = frozenset()

_PRIVATE, _AFTER_PRIVATE = f"{PRIVATE}/", f"{PRIVATE}0"  # 0 follows /


@lru_cache(maxsize=1024)
def _matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


@lru_cache(maxsize=1024)
def _sorted_out(entries: tuple[str, ...]) -> tuple[frozenset[str], bool]:
    """Return the ids that an `agents:` list names plainly, and True if it has patterns besides."""
    plain = frozenset(entry for entry in entries if not is_pattern(entry))
    return plain, len(plain) < len(entries)


def matches(pattern: str, agent: str) -> bool:
    """Return True if an entry of `agents:` names this agent."""
    if not is_pattern(pattern):
        return pattern == agent
    # Most patterns are `*` or `support-*`. No pattern is compiled for these: there may be more than are remembered.
    if _is_prefix(pattern):
        return agent.startswith(pattern[:-1])
    return bool(_matcher(pattern).match(agent))


def _is_prefix(pattern: str) -> bool:
    """Return True if a pattern is the beginning of an id, and then anything."""
    return pattern.find("*") == len(pattern) - 1 and "?" not in pattern and "[" not in pattern


_PARTS = ("attached", "refused", "_entries", "_patterned", "_named", "_private")


class Attachments:
    """The attachment sets of all blocks in force, kept expanded.

    Invariants, after each method:
      1. an agent is known iff an `agents:` entry names it plainly, or its private folder exists;
      2. `attached[label]` holds known agents only, each matched by an entry of the block, or its owner;
      3. no agent is attached to two blocks under one name: who came first stays, the later is in `refused`.

    A `branch` takes changes that leave this one as it is, until `merge` makes them here.
    """

    def __init__(self) -> None:
        self.attached: MutableMapping[str, frozenset[str]] = {}
        self.refused: MutableMapping[str, frozenset[str]] = {}
        self._entries: MutableMapping[str, tuple[str, ...]] = {}
        self._patterned: MutableMapping[str, None] = {}
        self._named: MutableMapping[str, int] = {}  # how many blocks name an agent plainly
        self._private: MutableMapping[str, MutableMapping[str, None]] = {}  # a private block's name → its owners
        self._folders: frozenset[str] = NOBODY
        self.listed: frozenset[str] | None = None  # the known agents, if they were listed since they changed
        self.turned: set[str] = set()  # agents that became known or unknown since this was last cleared

    def branch(self) -> Attachments:
        """Return attachments that are as these, and can change without them."""
        branch = Attachments()
        for name in _PARTS:
            setattr(branch, name, Layer(getattr(self, name)))
        branch._folders, branch.listed = self._folders, self.listed
        return branch

    def merge(self, branch: Attachments) -> None:
        """Make the changes of a branch here."""
        for name in _PARTS:
            getattr(branch, name).merge()
        self._folders, self.listed, self.turned = branch._folders, branch.listed, self.turned | branch.turned

    @property
    def known(self) -> frozenset[str]:
        """The ids of all known agents: the same object for as long as they are the same."""
        if self.listed is None:
            self.listed = self._folders.union(self._named)
        return self.listed

    def is_known(self, agent: str) -> bool:
        """Return True if the agent is known, without a list of all that are."""
        return agent in self._named or agent in self._folders

    def load(
        self, labels: Sequence[str], entries: Sequence[tuple[str, ...]], attached: Sequence[frozenset[str]]
    ) -> None:
        """Take blocks over, sorted by label, as the journal has them; `loaded` comes after the last. Nothing is decided anew."""
        self.attached.update(zip(labels, attached, strict=True))
        pairs = zip(labels, entries, strict=True)
        self._entries.update(pairs if all(entries) else [(label, its) for label, its in pairs if its])
        for label in labels[bisect_left(labels, _PRIVATE) : bisect_left(labels, _AFTER_PRIVATE)]:
            self._entries.pop(label, None)
            if not is_properties(label):
                self._note(label, ())

    def loaded(self, folders: Iterable[str] = ()) -> None:
        """Complete the loading. The private folders are `folders`, and those that blocks are in.

        No agent is attached or detached by it. An agent that is attached by a pattern alone had a private folder when that was
        journaled, so it counts as one that has: if the folder went since, the first sweep that sees all folders
        detaches the agent.
        """
        lists = list(self._entries.values())
        counts, distinct = Counter(map(id, lists)), dict(zip(map(id, lists), lists, strict=True))
        named, patterned = dict(self._named), set[int]()
        for key, entries in distinct.items():
            plain, has_patterns = _sorted_out(entries)
            for name in plain:
                named[name] = named.get(name, 0) + counts[key]
            if has_patterns:
                patterned.add(key)
        if patterned:
            self._patterned.update((label, None) for label, its in self._entries.items() if id(its) in patterned)
        self._named = named
        sets = {id(agents): agents for agents in map(self.attached.__getitem__, self._patterned)}
        matched = NOBODY.union(*sets.values()).difference(named)
        self._folders = matched.union(self.owners, folders)
        self.listed = None
        for name in self._private:
            if name in self.attached:
                for label in (name, *self._private_twins(name, self._private[name])):
                    self._expand(label)

    def expand_all(self) -> dict[str, frozenset[str]]:
        """Expand all blocks anew, whatever was loaded; return the new sets of all blocks whose set changed."""
        return self._settle(list(self.attached))

    @property
    def owners(self) -> set[str]:
        """The agents that have private blocks."""
        return {agent for agents in self._private.values() for agent in agents}

    def set_entries(self, label: str, entries: tuple[str, ...]) -> dict[str, frozenset[str]]:
        """Add or change a block with these entries; return the new sets of all blocks whose set changed."""
        if label not in self.attached:
            self.attached[label] = NOBODY
        if is_properties(label):
            return {}
        appeared, vanished = self._note(label, entries)
        changed = appeared | vanished if appeared or vanished else appeared
        return self._settle({label, *self._touching(label), *self._matching(changed)})

    def remove(self, label: str) -> dict[str, frozenset[str]]:
        """Remove a block; return the new sets of the other blocks whose set changed."""
        if is_properties(label):
            self.attached.pop(label, None)
            return {}
        affected = self._touching(label)
        _, vanished = self._note(label, ())
        self._patterned.pop(label, None)
        agent = owner(label)
        if agent is not None:
            owners = self._owners(name_for_agent(label))
            owners.pop(agent, None)
            if next(iter(owners), None) is None:
                del self._private[name_for_agent(label)]
        gone_from = self.attached.pop(label, NOBODY)
        self.refused.pop(label, None)
        if agent is None:
            affected |= self._private_twins(label, gone_from)
        return self._settle({*affected, *self._matching(vanished)})

    def set_folders(self, agents: Iterable[str]) -> dict[str, frozenset[str]]:
        """Set the agents that have a private folder; return the new sets of all blocks whose set changed."""
        new = frozenset(agents)
        changed = {agent for agent in new ^ self._folders if agent not in self._named}
        self._folders, self.listed, self.turned = new, None, self.turned | changed
        return self._settle(self._matching(changed))

    @property
    def folders(self) -> frozenset[str]:
        """The agents that have a private folder."""
        return self._folders

    def has_folder(self, agent: str) -> bool:
        """Return True if an agent has a private folder."""
        return agent in self._folders

    def private(self, agent: str) -> list[str]:
        """Return the private blocks of an agent, by label."""
        return sorted(f"{_PRIVATE}{agent}/{name}" for name, owners in self._private.items() if agent in owners)

    def rivals(self, label: str, entries: Iterable[str]) -> frozenset[str]:
        """Return the agents that a block with these entries could not have, since they see another under its name."""
        agent, name = owner(label), name_for_agent(label)
        if agent is not None:
            return self.attached.get(name, NOBODY) & {agent}
        return frozenset(
            one
            for one in self._private.get(name, ())
            if self.attached.get(f"{_PRIVATE}{one}/{name}") and any(matches(entry, one) for entry in entries)
        )

    def entries(self, label: str) -> tuple[str, ...]:
        """Return a block's entries, as written."""
        return self._entries.get(label, ())

    def naming(self, agent: str) -> list[str]:
        """Return the blocks whose entries name an agent plainly, by label."""
        if agent not in self._named:
            return []
        return sorted(label for label, entries in self._entries.items() if agent in entries)

    def _note(self, label: str, entries: tuple[str, ...]) -> tuple[set[str], set[str]]:
        """Take note of a block's entries; which agents became known by it, and which unknown."""
        agent = owner(label)
        if agent is not None:
            self._owners(name_for_agent(label))[agent] = None
            return set(), set()
        old = self._entries.get(label, ())
        if old is entries or old == entries:
            return set(), set()
        if entries:
            self._entries[label] = entries
        else:
            self._entries.pop(label, None)
        after, has_patterns = _sorted_out(entries)
        if has_patterns:
            self._patterned[label] = None
        else:
            self._patterned.pop(label, None)
        before, _ = _sorted_out(old)
        appeared, vanished = set(), set()
        named = self._named
        for name in after - before:
            if name in named:
                named[name] += 1
                continue
            named[name] = 1
            if name not in self._folders:
                appeared.add(name)
        for name in before - after:
            named[name] -= 1
            if not named[name]:
                del named[name]
                if name not in self._folders:
                    vanished.add(name)
        if appeared or vanished:
            self.listed = None
            self.turned |= appeared | vanished
        return appeared, vanished

    def _owners(self, name: str) -> MutableMapping[str, None]:
        """Return the owners of the private blocks of a name, to be changed."""
        private = self._private
        if isinstance(private, Layer) and not private.has_changed(name):
            private[name] = Layer(private.get(name, {}))
        return private.setdefault(name, {})

    def _matching(self, agents: set[str]) -> set[str]:
        """Return the blocks with a pattern that names one of these agents."""
        if not agents:
            return set()
        return {
            label
            for label in self._patterned
            if any(matches(entry, agent) for entry in self._entries[label] if is_pattern(entry) for agent in agents)
        }

    def _touching(self, label: str) -> set[str]:
        """Return the blocks that share a name with this one, for some agent."""
        agent = owner(label)
        if agent is None:
            return self._private_twins(label, self._private.get(label, ()))
        name = name_for_agent(label)
        return {name} if name in self.attached else set()

    def _private_twins(self, label: str, agents: Iterable[str]) -> set[str]:
        owners: Collection[str] = self._private.get(label, ())
        return {f"{_PRIVATE}{agent}/{label}" for agent in agents if agent in owners}

    def _settle(self, labels: Iterable[str]) -> dict[str, frozenset[str]]:
        """Expand these blocks again, and whatever that frees or takes a name for; what changed.

        It ends: a name once taken is only given up by its holder, and each block that loses an agent frees one name.
        """
        changed: dict[str, frozenset[str]] = {}
        # Private blocks first: of two that come at the same moment, the agent's own wins.
        todo = [label for label in labels if label in self.attached]
        if len(todo) > 1:
            todo.sort(key=lambda label: (owner(label) is None, label))
        while todo:
            label = todo.pop(0)
            if label not in self.attached:
                continue
            old, new = self.attached[label], self._expand(label)
            if new != old:
                self.attached[label] = changed[label] = new
                if owner(label) is None:
                    todo += sorted(self._private_twins(label, old ^ new))
                else:
                    todo += sorted(self._touching(label))
        return changed

    def _expand(self, label: str) -> frozenset[str]:
        """Return the agents to attach; note in `refused` those that see another block under that name."""
        agent = owner(label)
        if agent is not None:
            wanted = frozenset((agent,))
            taken = wanted & self.attached.get(name_for_agent(label), NOBODY)
        else:
            wanted = self._wanted(label)
            taken = frozenset(
                owner_
                for owner_ in self._private.get(label, ())
                if owner_ in wanted and self.attached.get(f"{_PRIVATE}{owner_}/{label}")
            )
        if taken:
            self.refused[label] = taken
        else:
            self.refused.pop(label, None)
        return wanted - taken if taken else wanted

    def _wanted(self, label: str) -> frozenset[str]:
        entries = self._entries.get(label, ())
        plain, has_patterns = _sorted_out(entries)
        if not has_patterns:
            return plain  # the same object for all blocks with these entries
        if "*" in entries:
            return self.known
        patterns = [entry for entry in entries if is_pattern(entry)]
        prefixes = tuple(entry[:-1] for entry in patterns if _is_prefix(entry))
        others = [_matcher(entry) for entry in patterns if not _is_prefix(entry)]
        return frozenset(
            plain
            | {
                agent
                for agent in self.known
                if agent.startswith(prefixes) or any(other.match(agent) for other in others)
            }
        )
