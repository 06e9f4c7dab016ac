from __future__ import annotations

from dataclasses import replace

import pytest

from blocksd.errors import JournalDamaged, JournalUnusable
from blocksd.journal.history import JournalReader
from blocksd.journal.journal import Journal
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


def everybody(count: int) -> frozenset[str]:
    return frozenset(f"session-{number:06}" for number in range(count))


def test_long_lists_are_stored_by_what_is_different(journal: Journal) -> None:
    """A block for all agents has a longer list with each that comes: what is stored grows with those that come."""
    count = 300
    made = []
    for number in range(1, count + 1):
        before = everybody(number - 1)
        new = sorted(everybody(number) - before)
        one = revision(number, agents=("*",), kind="updated" if number > 1 else "created", version=number, attached=new)
        made.append(replace(one, agents=everybody(number)))
    for one in made:
        put(journal, one)
    size = sum(map(len, lists_in(journal)))
    assert size < 8 * count * len("session-000000,")
    assert journal.since(0, count) == made
    journal.database.close()
    again = Journal(journal.path, boot_id="boot")
    assert [head.agents for head in again.heads()] == [everybody(count)]
    assert again.since(0, count) == made
    again.database.close()


def test_agents_that_come_and_go_are_stored_by_themselves(journal: Journal) -> None:
    """Two blocks' lists in turn, each with one agent more and one fewer: neither is stored whole again."""
    one, other = everybody(200), frozenset(f"other-{number}" for number in range(200))
    seq = 0
    for number in range(50):
        for label, agents in (("notes", one), ("others", other)):
            seq += 1
            kind = "updated" if number else "created"
            made = revision(seq, label, agents=("*",), kind=kind, version=number + 1, attached=())  # type: ignore[arg-type]  # it is one
            put(journal, replace(made, agents=(agents - {sorted(agents)[number]}) | {f"new-{number}"}))
    whole = [text for text in lists_in(journal) if ";" not in text and text != "*"]
    assert len(whole) < 8
    assert journal.head("notes") == journal.since(seq - 2, 1)[0]


@pytest.mark.parametrize("table", ["text", "base"])
def test_list_that_is_not_what_was_written_is_not_read(journal: Journal, table: str) -> None:
    """Neither a list that was changed nor one that is to be added to another than it was."""
    made = [replace(revision(seq, f"b{seq}", agents=("*",)), agents=everybody(100 + seq)) for seq in (1, 2)]
    put(journal, *made)
    change = "agents = agents || ',eve'" if table == "text" else "base = NULL"
    journal.database.execute(f"UPDATE agent_lists SET {change} WHERE base IS NOT NULL")
    with pytest.raises(JournalDamaged, match="list of agents"):
        journal.head("b2")
