from __future__ import annotations

from collections import Counter
from fnmatch import fnmatchcase

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksd.model import attachment
from blocksd.model.attachment import NOBODY, Attachments, matches
from blocksd.model.label import name_for_agent, owner
from support import examples


@pytest.mark.parametrize(
    ("entry", "agent", "named"),
    [
        ("ann", "ann", True),
        ("ann", "anna", False),
        ("*", "ann", True),
        ("support-*", "support-1", True),
        ("support-*", "sales-1", False),
        ("s?", "s1", True),
        ("s?", "s12", False),
        ("s[12]", "s2", True),
        ("s[!12]", "s2", False),
        ("S*", "s1", False),
        ("a.b", "axb", False),
        ("a.*", "axb", False),
        ("*-1", "support-1", True),
        ("*-1", "support-2", False),
        ("a*b*", "axbx", True),
        ("a[b]*", "abx", True),
        ("support-*", "support-", True),
        ("*", "", True),
    ],
)
def test_entry_names_an_agent(entry: str, agent: str, *, named: bool) -> None:
    """An entry is an id, or a shell pattern in which only `*`, `?` and brackets are special; case counts."""
    assert matches(entry, agent) is named


def test_blocks_of_the_same_agents_share_one_set() -> None:
    """It is in memory once, however many blocks have it."""
    attachments = Attachments()
    for label in ("one", "two"):
        attachments.set_entries(label, tuple(name.lower() for name in ("Ann", "Bob")))
    assert attachments.attached["one"] == {"ann", "bob"}
    assert attachments.attached["one"] is attachments.attached["two"]


def test_plain_entry_makes_its_agent_known() -> None:
    """Being named in a list is enough to be known, and to be attached."""
    attachments = Attachments()
    assert attachments.set_entries("notes", ("ann", "bob")) == {"notes": {"ann", "bob"}}
    assert attachments.known == {"ann", "bob"}
    assert "ann" in attachments.known
    assert "eve" not in attachments.known


def test_pattern_makes_nobody_known() -> None:
    """A pattern names known agents only."""
    attachments = Attachments()
    assert attachments.set_entries("notes", ("support-*", "*")) == {}
    assert attachments.attached == {"notes": NOBODY}
    assert attachments.known == NOBODY


def test_pattern_follows_the_known_agents() -> None:
    """An agent that comes to be known is attached where a pattern names it, and detached when it is known no more."""
    attachments = Attachments()
    attachments.set_entries("all", ("*",))
    attachments.set_entries("support", ("support-*",))
    assert attachments.set_entries("notes", ("support-1", "ann")) == {
        "notes": {"support-1", "ann"},
        "all": {"support-1", "ann"},
        "support": {"support-1"},
    }
    assert attachments.set_entries("notes", ("ann",)) == {"notes": {"ann"}, "all": {"ann"}, "support": NOBODY}
    assert attachments.remove("notes") == {"all": NOBODY}
    assert attachments.known == NOBODY


def test_agent_named_twice_stays_known() -> None:
    """An agent is known for as long as anything names it."""
    attachments = Attachments()
    attachments.set_entries("all", ("*",))
    attachments.set_entries("one", ("ann",))
    attachments.set_entries("two", ("ann",))
    assert attachments.remove("one") == {}
    assert attachments.attached["all"] == {"ann"}
    assert attachments.remove("two") == {"all": NOBODY}


def test_private_folder_makes_its_agent_known() -> None:
    """An agent with a folder is known, with blocks in it or without."""
    attachments = Attachments()
    attachments.set_entries("all", ("*",))
    assert attachments.set_folders(["ann"]) == {"all": {"ann"}}
    assert attachments.folders == {"ann"}
    assert attachments.set_folders([]) == {"all": NOBODY}


def test_private_block_belongs_to_its_agent() -> None:
    """A private block is attached to its owner, and to nobody else, whatever patterns there are."""
    attachments = Attachments()
    attachments.set_folders(["ann"])
    attachments.set_entries("all", ("*", "bob"))
    assert attachments.set_entries("agents/ann/persona", ()) == {"agents/ann/persona": {"ann"}}
    assert attachments.attached["all"] == {"ann", "bob"}


def test_first_holder_of_a_name_keeps_it() -> None:
    """Of a shared and a private block of one name, the one that came first is attached; the later is refused there."""
    shared_first = Attachments()
    shared_first.set_entries("persona", ("ann", "bob"))
    assert shared_first.set_entries("agents/ann/persona", ()) == {}
    assert shared_first.refused == {"agents/ann/persona": {"ann"}}
    private_first = Attachments()
    private_first.set_entries("agents/ann/persona", ())
    assert private_first.set_entries("persona", ("ann", "bob")) == {"persona": {"bob"}}
    assert private_first.refused == {"persona": {"ann"}}


def test_freed_name_goes_to_who_was_refused() -> None:
    """When the holder of a name goes, or is detached, the refused block is attached at once."""
    attachments = Attachments()
    attachments.set_entries("persona", ("ann", "bob"))
    attachments.set_entries("agents/ann/persona", ())
    assert attachments.set_entries("persona", ("bob",)) == {"persona": {"bob"}, "agents/ann/persona": {"ann"}}
    assert attachments.refused == {}
    attachments.set_entries("persona", ("ann", "bob"))
    assert attachments.refused == {"persona": {"ann"}}
    assert attachments.remove("agents/ann/persona") == {"persona": {"ann", "bob"}}
    assert attachments.refused == {}


def test_dropping_a_shared_block_frees_its_names() -> None:
    """So it is when a shared block goes."""
    attachments = Attachments()
    attachments.set_entries("persona", ("ann", "bob"))
    attachments.set_entries("agents/ann/persona", ())
    assert attachments.remove("persona") == {"agents/ann/persona": {"ann"}}


def test_known_is_the_same_object_until_it_changes() -> None:
    """Whoever shows the known agents sees by identity that nothing has changed."""
    attachments = Attachments()
    attachments.set_entries("notes", ("ann",))
    known = attachments.known
    attachments.set_entries("notes", ("ann",))
    attachments.set_entries("agents/ann/x", ())
    assert attachments.known is known


# --- any order of events, compared with what the rules say ---

AGENTS = ("a1", "a2", "b1")
NAMES = ("persona", "human", "dir/notes")
SHARED = st.sampled_from((*NAMES, "other"))
PRIVATE = st.builds("agents/{}/{}".format, st.sampled_from(AGENTS), st.sampled_from(NAMES))
ENTRIES = st.lists(st.sampled_from((*AGENTS, "c9", "*", "a*", "b?", "[ac]*")), unique=True, max_size=3).map(tuple)
EVENTS = st.one_of(
    st.tuples(st.just("put"), SHARED, ENTRIES),
    st.tuples(st.just("put"), PRIVATE, st.just(())),
    st.tuples(st.just("drop"), st.one_of(SHARED, PRIVATE), st.just(())),
    st.tuples(st.just("folders"), st.just(""), st.lists(st.sampled_from(AGENTS), unique=True).map(tuple)),
)


class World:
    """The events so far, and what follows from them by the rules alone."""

    def __init__(self) -> None:
        self.blocks: dict[str, tuple[str, ...]] = {}
        self.folders: set[str] = set()
        self.attachments = Attachments()
        self.seen: dict[str, frozenset[str]] = {}  # the sets as whoever was told of all changes has them
        self.names: dict[str, dict[str, str]] = {}  # what each agent sees, written a change at a time

    @property
    def known(self) -> set[str]:
        named = {entry for entries in self.blocks.values() for entry in entries if not set("*?[") & set(entry)}
        return named | self.folders

    def wanted(self, label: str) -> set[str]:
        agent = owner(label)
        if agent is not None:
            return {agent}
        entries = self.blocks[label]
        return {known for known in self.known if any(known == entry or fnmatchcase(known, entry) for entry in entries)}

    def tell(self, label: str, new: frozenset[str]) -> None:
        """A block's set changed: the mirror takes the names away, and then gives them."""
        name = name_for_agent(label)
        for agent in self.seen.get(label, NOBODY) - new:
            self.names.get(agent, {}).pop(name, None)
        for agent in new - self.seen.get(label, NOBODY):
            self.names.setdefault(agent, {})[name] = label
        self.seen[label] = new

    def happen(self, kind: str, label: str, words: tuple[str, ...]) -> None:
        before = dict(self.attachments.attached)
        if kind == "put":
            self.blocks[label] = words
            if (agent := owner(label)) is not None and agent not in self.folders:
                # The core notes a private block's folder with the sweep that finds it: here, just before.
                self.folders.add(agent)
                self.spread(self.attachments.set_folders(self.folders))
                before = dict(self.attachments.attached)
            changed = self.attachments.set_entries(label, words)
            own = changed.pop(label, self.attachments.attached[label])
            self.tell(label, own)
        elif kind == "drop":
            if label not in self.blocks:
                return
            del self.blocks[label]
            changed = self.attachments.remove(label)
            assert label not in changed
            self.tell(label, NOBODY)
            del self.seen[label]
        else:
            self.folders = set(words) | {agent for block in self.blocks if (agent := owner(block)) is not None}
            changed = self.attachments.set_folders(self.folders)
        assert all(before.get(other) != new for other, new in changed.items()), "only what changed is told"
        self.spread(changed)

    def spread(self, changed: dict[str, frozenset[str]]) -> None:
        for label in sorted(changed):
            self.tell(label, changed[label])

    def check(self) -> None:
        attachments = self.attachments
        assert attachments.known == self.known
        assert attachments.attached.keys() == self.blocks.keys()
        assert attachments.attached == self.seen, "all changes were told"
        taken: Counter[tuple[str, str]] = Counter()
        for label, attached in attachments.attached.items():
            refused = attachments.refused.get(label, NOBODY)
            assert not attached & refused
            assert attached | refused == self.wanted(label)
            assert label not in attachments.refused or refused, "no empty refusals are kept"
            taken.update((agent, name_for_agent(label)) for agent in attached)
        assert all(count == 1 for count in taken.values()), "a name stands for one block"
        for label, refused in attachments.refused.items():
            assert label in self.blocks
            assert all(taken[agent, name_for_agent(label)] == 1 for agent in refused), "refused only for another's sake"
        by_agent: dict[str, dict[str, str]] = {}
        for label, attached in attachments.attached.items():
            for agent in attached:
                by_agent.setdefault(agent, {})[name_for_agent(label)] = label
        assert {agent: names for agent, names in self.names.items() if names} == by_agent


@settings(max_examples=examples(400), deadline=None)
@given(st.lists(EVENTS, max_size=25))
def test_invariants_hold_after_any_events(events: list[tuple[str, str, tuple[str, ...]]]) -> None:
    """Known agents, sets, refusals and what each agent sees follow the rules after every event, in whatever order."""
    world = World()
    for event in events:
        world.happen(*event)
        world.check()


@settings(max_examples=examples(200), deadline=None)
@given(st.lists(EVENTS, max_size=20))
def test_taken_over_state_goes_on_as_the_old(events: list[tuple[str, str, tuple[str, ...]]]) -> None:
    """What a restarted daemon takes over from the journal holds the same sets, refusals and known agents."""
    world = World()
    for event in events:
        world.happen(*event)
    # Folders without blocks are not journaled: the first sweep finds them.
    world.happen("folders", "", ())
    again = Attachments()
    for label, entries in world.blocks.items():
        again.load([label], [entries], [world.attachments.attached[label]])
    again.loaded()
    assert again.attached == world.attachments.attached
    assert again.known == world.attachments.known
    assert again.refused == world.attachments.refused
    assert again.folders == world.attachments.folders
    world.attachments = again
    for event in events:
        world.happen(*event)
        world.check()


def test_agent_known_by_its_folder_alone_is_detached_when_the_folder_went_meanwhile() -> None:
    """The journal knows the agent as attached only: it counts as known until all folders were seen."""
    attachments = Attachments()
    both = frozenset({"ann", "eve"})
    attachments.load(["shared", "teams"], [("*",), ("e*", "ann")], [both, both])
    attachments.loaded()
    assert attachments.known == {"ann", "eve"}
    assert attachments.set_folders(()) == {"shared": {"ann"}, "teams": {"ann"}}
    assert attachments.known == {"ann"}


class Entries(tuple[str, ...]):
    """A list of agents that counts how often one is compared with another."""

    __slots__ = ()

    compared = 0
    __hash__ = tuple.__hash__

    def __eq__(self, other: object) -> bool:
        Entries.compared += 1
        return tuple.__eq__(self, other)


def test_loading_compares_each_list_of_agents_a_few_times() -> None:
    """However many distinct lists with patterns there are: the work grows with their number, not with its square."""
    Entries.compared = 0
    attachments, count = Attachments(), 500
    for number in range(count):
        attachments.load([f"b{number}"], [Entries((f"team-{number}-*", f"ann{number}"))], [NOBODY])
    attachments.loaded()
    assert len(attachments.known) == count
    assert Entries.compared <= 10 * count
    assert attachments.set_entries("b7", ("zoe",)) == {"b7": {"zoe"}}


def test_most_patterns_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be more of them than are remembered, and each agent that comes is compared with all."""
    monkeypatch.setattr(attachment, "_matcher", lambda pattern: pytest.fail(f"{pattern} was compiled"))
    attachments = Attachments()
    for number in range(50):
        attachments.set_entries(f"b{number}", (f"team-{number}-*", "*"))
        attachments.set_entries(f"c{number}", (f"team-{number}-*",))
    assert attachments.set_entries("notes", ("team-7-ann",))["c7"] == {"team-7-ann"}
