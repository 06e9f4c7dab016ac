from __future__ import annotations

from dataclasses import replace

import pytest

from blocksd.attachment import NOBODY
from blocksd.errors import JournalUnusable
from blocksd.history import JournalReader
from blocksd.journal import Journal
from journaled import lists_in, put
from rig import revision


def test_equal_lists_are_stored_once(journal: Journal) -> None:
    """However many revisions have a list of agents, and whether the same object or an equal one, it is stored once."""
    agents = tuple(f"agent-{number}" for number in range(1000))
    for seq in range(1, 6):
        put(journal, revision(seq, f"b{seq}", agents=(*agents[:500], *agents[500:]), value="x"))
    assert len(lists_in(journal)) == 2  # as written, and as attached, sorted
    assert all(found.agents == frozenset(agents) for found in journal.since(0, 9))
    assert all(found.block is not None and found.block.agents == agents for found in journal.since(0, 9))


def test_lists_of_a_failed_write_are_not_referred_to(journal: Journal) -> None:
    """What was rolled back with the revision it came with is stored again with the next one."""
    everyone = ("*",)
    made = [revision(seq, f"b{seq}", agents=everyone, value="x") for seq in (1, 2)]
    made = [replace(one, agents=frozenset({"ann"})) for one in made]
    twice = replace(made[1], label="b1")  # version 1 of b1 is there already
    with pytest.raises(JournalUnusable):
        put(journal, *made, twice)
    assert lists_in(journal) == []
    journal.append(made, {"b1": ("b1.md", None), "b2": ("b2.md", None)})
    reader = JournalReader(journal.path)
    assert {head.entries for head in reader.heads()} == {everyone}
    reader.close()
    assert journal.since(0, 9) == made


def test_unused_lists_are_dropped_at_the_end(path: str) -> None:
    """A list that no revision has any more is gone after an orderly stop."""
    journal = Journal(path, boot_id="boot")
    put(journal, revision(1, agents=("ann", "bob"), value="x"), revision(2, kind="updated", version=2, value="x"))
    journal.prune(["notes"], versions=1)
    journal.close()
    again = Journal(path, boot_id="boot")
    assert lists_in(again) == []
    assert again.history("notes")[0].agents == NOBODY
    again.close()


def test_more_lists_than_are_remembered(journal: Journal) -> None:
    """Whoever reads them all, and again, gets each as it was written; whoever writes one again gives it no new number."""
    made = [revision(seq, f"b{seq}", agents=(f"b{seq}", f"a{seq}"), value="x") for seq in range(1, 1501)]
    put(journal, *made)
    count = len(lists_in(journal))
    assert count == 3000  # as written, and as attached
    for _ in range(2):
        assert {head.entries for head in journal.heads()} == {one.block.agents for one in made if one.block}
        assert journal.since(0, 9999) == made
    put(journal, *(replace(one, seq=one.seq + 1500, version=2, kind="updated") for one in made))
    assert len(lists_in(journal)) == count
