from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from blocksd.core.retention import Limits, Retention
from blocksd.errors import InvalidRequest
from blocksd.journal.journal import Journal
from blocksd.journal.results import Access, Results
from blocksd.model.block import Block
from blocksd.model.faults import Faults
from blocksd.model.problem import Problems
from blocksd.model.revision import timestamp
from blocksd.requests.undoing import undone
from blocksd.settings.config import Config
from blocksd.state.part import Shared
from blocksd.state.schedule import Schedule
from blocksd.state.state import State
from blocksd.state.state_draft import StateDraft
from journaled import chain, lists_in, put
from rig import AT, Clock, revision

if TYPE_CHECKING:
    from collections.abc import Iterator

DAY = 86_400.0


class Keeping:
    """A journal whose old content is forgotten, on clocks that only a test moves."""

    def __init__(self, journal: Journal, *, versions: int = 1000, days: float = 0.0) -> None:
        self.journal = journal
        self.clock = Clock()
        self.wall_offset = 0.0
        self.limits = Limits(versions, days)
        self.begin()

    def wall(self) -> float:
        return 1_800_000_000.0 + self.clock() + self.wall_offset

    def begin(self) -> None:
        self.state = State(self.journal)
        self.schedule = Schedule()
        problems = Problems(self.wall)
        shared = Shared(self.journal, self.state, problems, Faults(problems), self.schedule, self.clock, self.wall)
        self.retention = Retention(shared, self.limits)

    @property
    def due(self) -> float:
        """When the next step is due."""
        return self.schedule["retention"]

    def draft(self) -> StateDraft:
        """Return a draft on what is in force."""
        return StateDraft(self.state, timestamp(self.wall()))

    def restart(self) -> None:
        self.journal.close()
        self.journal = Journal(self.journal.path, boot_id="boot")
        self.begin()

    def write(self, label: str, value: str, *, agents: tuple[str, ...] = ()) -> None:
        draft = self.draft()
        draft.enforce(label, f"{label}.md")
        draft.put(Block(label, value=value, agents=agents))
        self.journal_it(draft)

    def delete(self, label: str) -> None:
        draft = self.draft()
        draft.delete(label)
        self.journal_it(draft)

    def set_folders(self, *agents: str) -> None:
        draft = self.draft()
        draft.set_folders(agents)
        draft.follow_folders()
        self.journal_it(draft)

    def journal_it(self, draft: StateDraft) -> None:
        drafted = draft.revisions
        files = {one.label: (f"{one.label}.md", None) for one in drafted if one.kind == "created"}
        self.journal.append(drafted, files)
        draft.apply()
        for one in drafted:
            if one.version > 1:
                self.retention.touched.add(one.label)

    def wait(self, seconds: float, step: float = 900.0) -> None:
        """Let time pass, and what is due then be done."""
        end = self.clock() + seconds
        while self.clock() < end:
            self.clock.advance(min(step, end - self.clock()))
            for _ in range(10_000):
                if self.due > self.clock():
                    if self.due > self.clock() + 1.0:
                        break
                    self.clock.advance(self.due - self.clock())
                self.retention.step(60.0)

    def rows(self, table: str) -> int:
        return int(self.journal.database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


@pytest.fixture
def keeping(journal: Journal) -> Iterator[Keeping]:
    made = Keeping(journal, versions=3, days=1.0)
    yield made
    made.journal.database.close()


def test_old_versions_go_whatever_was_touched(keeping: Keeping) -> None:
    """Also those of blocks that nobody has changed since the start."""
    for number in range(3):
        keeping.write("notes", f"{number}")
    keeping.restart()
    keeping.wait(2 * DAY)
    assert [one.version for one in keeping.journal.history("notes")] == [3]


def test_versions_beyond_the_newest_go_soon(keeping: Keeping) -> None:
    """Of a block that is changed all the time, within the minute."""
    for number in range(10):
        keeping.write("notes", f"{number}")
    keeping.wait(60.0, step=30.0)
    assert [one.version for one in keeping.journal.history("notes")] == [10, 9, 8]


def test_first_versions_cost_nothing(keeping: Keeping) -> None:
    """After the first mirror of a folder nothing is looked through for versions that no block has."""
    keeping.wait(60.0, step=30.0)  # the look at everything is done
    statements: list[str] = []
    keeping.write("notes", "one")
    keeping.journal.database.connection.set_trace_callback(statements.append)
    keeping.wait(60.0, step=30.0)
    assert not [one for one in statements if "notes" in one]
    keeping.write("notes", "two")
    keeping.wait(60.0, step=30.0)
    assert [one for one in statements if "SELECT" in one and "notes" in one]


def test_deleted_blocks_are_forgotten(keeping: Keeping) -> None:
    """With their last revision: their label is as one that never was; until then, versions go on."""
    keeping.write("notes", "x")
    keeping.delete("notes")
    keeping.write("notes", "y")
    assert keeping.state.newest("notes").version == 3  # type: ignore[union-attr]  # it is there
    keeping.delete("notes")
    keeping.write("other", "x")
    keeping.wait(DAY / 2)
    assert keeping.rows("heads") == 2
    keeping.wait(DAY)
    assert (keeping.rows("heads"), keeping.rows("revisions")) == (1, 1)
    assert keeping.state.newest("notes") is None
    keeping.write("notes", "z")
    assert keeping.state.newest("notes").version == 1  # type: ignore[union-attr]  # it is there
    keeping.restart()
    assert keeping.journal.seq == 6


def test_numbers_go_on_when_the_newest_revision_is_forgotten(keeping: Keeping) -> None:
    """The last change of all was a deletion, and is too old: its number is not given out again."""
    keeping.write("notes", "x")
    keeping.delete("notes")
    keeping.wait(2 * DAY)
    keeping.restart()
    keeping.write("notes", "y")
    assert keeping.journal.seq == 3


def test_renamed_block_keeps_its_history(keeping: Keeping) -> None:
    """Its old label is forgotten, not the block."""
    keeping.write("old", "x")
    draft = keeping.draft()
    draft.rename(Block("new", value="x"), old="old", path="new.md", author="operator", request_id="1")
    keeping.journal.append(draft.revisions, {"new": ("new.md", None)})
    draft.apply()
    assert [one.version for one in keeping.journal.history("new")] == [2, 1]
    keeping.wait(2 * DAY)
    assert [one.version for one in keeping.journal.history("new")] == [2]
    assert keeping.rows("heads") == 1
    assert keeping.state.block("new") == Block("new", value="x")


def test_clock_that_is_wrong_for_a_moment_forgets_nothing(keeping: Keeping) -> None:
    """Nor one that was set just now: the time of day decides once it has gone on for an hour."""
    keeping.write("notes", "x")
    keeping.write("notes", "y")
    keeping.wait(2 * 3600.0)
    keeping.wall_offset = 3650 * DAY
    keeping.retention.step(60.0)
    keeping.wait(1800.0, step=60.0)
    keeping.wall_offset = 0.0
    keeping.wait(2 * 3600.0, step=60.0)
    assert len(keeping.journal.history("notes")) == 2
    keeping.wall_offset = 10 * DAY
    keeping.wait(3 * 3600.0, step=60.0)
    assert len(keeping.journal.history("notes")) == 1


def test_unused_lists_are_forgotten_while_it_runs(keeping: Keeping) -> None:
    """Once no revision has them; those that others are stored by stay with these."""
    keeping.limits = keeping.retention.limits = Limits(1, 0.0)
    for number in range(60):
        keeping.write("notes", f"{number}", agents=tuple(f"agent-{one:03}" for one in range(number + 1)))
    assert len(lists_in(keeping.journal)) > 60
    keeping.wait(2 * 3600.0)
    assert len(lists_in(keeping.journal)) < 40
    agents = frozenset(f"agent-{one:03}" for one in range(60))
    keeping.restart()
    assert [head.agents for head in keeping.journal.heads()] == [agents]
    keeping.write("notes", "new", agents=("one", "two"))
    keeping.write("other", "new", agents=tuple(sorted(agents)))
    keeping.restart()
    assert [head.agents for head in keeping.journal.heads()] == [{"one", "two"}, agents]


def test_lists_written_meanwhile_stay(keeping: Keeping) -> None:
    """A list that nothing has when the look begins, and something when it ends."""
    keeping.limits = keeping.retention.limits = Limits(1, 0.0)
    keeping.write("notes", "x", agents=("ann", "bob"))
    keeping.write("notes", "x")
    for number in range(1200):
        keeping.write(f"b{number:04}", "x")
    steps = 0
    keeping.clock.advance(3601.0)
    while keeping.due <= keeping.clock() or steps < 100:
        keeping.clock.advance(0.3)
        keeping.retention.step(60.0)
        steps += 1
        if steps == 6:
            keeping.write("late", "x", agents=("ann", "bob"))
    keeping.restart()
    assert {head.label: head.agents for head in keeping.journal.heads()}["late"] == {"ann", "bob"}


def test_open_files_of_agents_that_are_gone_are_forgotten(keeping: Keeping) -> None:
    """Those of known agents stay, however old."""
    keeping.write("notes", "x", agents=("ann",))
    outcomes = Results(keeping.journal.database)
    outcomes.write([Access("ann", "m/a", AT), Access("bob", "m/a", AT)], {}, AT)
    keeping.wait(3 * 3600.0)
    assert [one.agent for one in outcomes.open_files()] == ["ann"]


def test_full_disk_forgets_nothing(keeping: Keeping) -> None:
    """There is another time."""
    for number in range(10):
        keeping.write("notes", f"{number}")
    keeping.journal.database.execute("PRAGMA query_only=1")
    keeping.wait(3 * 3600.0)
    assert len(keeping.journal.history("notes")) == 10
    keeping.journal.database.execute("PRAGMA query_only=0")
    keeping.wait(120.0, step=30.0)
    assert len(keeping.journal.history("notes")) == 3


def test_agents_that_come_and_go_leave_nothing(keeping: Keeping) -> None:
    """Sessions that each have a block of their own, and one for all: what they leave is bounded, whatever their number."""
    count = int(os.environ.get("BLOCKSD_TEST_SESSIONS", "500"))
    keeping.limits = keeping.retention.limits = Limits(10, 1.0)
    keeping.write("shared", "for all", agents=("*",))
    sizes, heads, lists, starts = [], [], [], []
    for part in range(4):
        for number in range(count // 4):
            label = f"agents/session-{part}-{number:06}/notes"
            keeping.write(label, f"what is said in {number}")
            keeping.write(label, f"what is said in {number}, and more")
            keeping.delete(label)
            keeping.set_folders()
            if number % 100 == 0:
                keeping.wait(120.0, step=60.0)
        keeping.wait(1.2 * DAY)
        (pages,), (free,) = (
            keeping.journal.database.execute(f"PRAGMA {name}").fetchone() for name in ("page_count", "freelist_count")
        )
        sizes.append(pages - free)
        heads.append(keeping.rows("heads"))
        lists.append(keeping.rows("agent_lists"))
        begun = time.perf_counter()
        keeping.begin()
        starts.append(time.perf_counter() - begun)
    print(
        f"pages in use {sizes}, heads {heads}, lists {lists}, loads {starts}, revisions {keeping.rows('revisions')}"
    )  # the figures, for who asks with -s
    assert heads == [2, 2, 2, 2]  # the newest revision of all is that of a deletion
    assert keeping.rows("revisions") <= 10
    assert max(lists) <= 12
    assert sizes[-1] <= sizes[0] + 4
    assert len(keeping.state.versions) == 1


def test_pruned_chain_is_untouched_by_others(journal: Journal) -> None:
    """A pass over all labels treats each by itself."""
    keeping = Keeping(journal, versions=2)
    put(journal, *chain(5), *chain(1, "other", start=6), revision(7, "third", value="x"))
    keeping.begin()
    keeping.wait(3700.0)
    assert [one.version for one in journal.history("notes")] == [5, 4]
    assert len(journal.history("other")) == len(journal.history("third")) == 1


def test_outcomes_of_agents_that_are_gone_are_forgotten(keeping: Keeping) -> None:
    """Those of known agents and of operators stay, as many as are kept."""
    keeping.write("notes", "x", agents=("ann",))
    outcomes = Results(keeping.journal.database)
    outcomes.write([], {(actor, "r-1"): "done" for actor in ("ann", "bob", "operator")}, AT)
    keeping.wait(3 * 3600.0)
    found = [actor for actor in ("ann", "bob", "operator") if outcomes.outcome_of(actor, "r-1")]
    assert found == ["ann", "operator"]


def test_what_departed_agents_had_is_forgotten_by_default(journal: Journal) -> None:
    """After a month, though other history is kept for good; what a known agent has deleted is other history."""
    keeping = Keeping(journal)
    keeping.limits = keeping.retention.limits = Limits(1000, 0.0, Config().departed_days)
    for label in ("agents/bob/notes", "agents/ann/old", "agents/ann/new", "shared"):
        keeping.write(label, "x")
    for label in ("agents/bob/notes", "agents/ann/old", "shared"):
        keeping.delete(label)
    keeping.write("last", "x")
    outcomes = Results(journal.database)
    outcomes.write([Access("ann", "m/a", AT), Access("bob", "m/a", AT)], {}, AT)
    keeping.set_folders("ann")
    keeping.wait(29 * DAY, step=4 * 3600.0)
    assert len(keeping.journal.history("agents/bob/notes")) == 2
    keeping.wait(2 * DAY, step=3600.0)
    assert not keeping.journal.history("agents/bob/notes")
    assert [one.agent for one in outcomes.open_files()] == ["ann"]
    assert len(keeping.journal.history("agents/ann/old")) == len(keeping.journal.history("shared")) == 2


def test_departed_agent_that_came_again_keeps_what_it_had(journal: Journal) -> None:
    """Its old blocks are those of an agent that is known."""
    keeping = Keeping(journal)
    keeping.limits = keeping.retention.limits = Limits(1000, 0.0, 1.0)
    keeping.write("agents/bob/notes", "x")
    keeping.delete("agents/bob/notes")
    keeping.write("last", "x")
    keeping.set_folders("bob")
    keeping.wait(3 * DAY, step=3600.0)
    assert len(keeping.journal.history("agents/bob/notes")) == 2


def test_agents_that_come_and_go_push_no_edit_out(keeping: Keeping) -> None:
    """A block for everybody keeps as many edits as any other, and undo finds them, whatever number of agents came."""
    keeping.limits = keeping.retention.limits = Limits(4, 0.0)
    for edit in range(6):
        keeping.write("shared", f"edit {edit}", agents=("*",))
        for number in range(10):
            keeping.set_folders(f"session-{edit}-{number}")
    keeping.wait(120.0, step=30.0)
    kept = keeping.journal.history("shared")
    assert [one.block.value for one in kept if one.position is None and one.block] == [
        "edit 5",
        "edit 4",
        "edit 3",
        "edit 2",
    ]
    assert len(kept) <= 3 * 4
    assert [one.version for one in kept[:4]] == [66, 65, 64, 63]
    positions, seen = keeping.journal.positions("shared"), []
    while True:
        try:
            version = undone(positions, "shared")
        except InvalidRequest:
            break
        found = keeping.journal.version("shared", version)
        assert found is not None
        assert found.block is not None
        seen.append(found.block.value)
        positions[max(positions) + 1] = version
    assert seen[:3] == ["edit 4", "edit 3", "edit 2"]
    keeping.write("notes", "x")
    keeping.wait(2 * 3600.0)
    assert [one.version for one in keeping.journal.history("shared")] == [one.version for one in kept]
