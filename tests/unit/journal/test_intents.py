from __future__ import annotations

import json
import os
import random
from contextlib import closing
from dataclasses import replace

import pytest

from blocksd.errors import JournalUnusable
from blocksd.files.file_edit import Staged
from blocksd.journal.history import JournalReader
from blocksd.journal.intents import Intents, Prepared
from blocksd.journal.journal import Journal
from blocksd.journal.results import Results
from journaled import SIGNATURE, THEN, fill_up, make_room, of_requests, prepared, prune, put
from rig import revision


@pytest.fixture
def before(journal: Journal) -> Journal:
    """A journal with two blocks."""
    put(journal, revision(1, value="one"), revision(2, "gone", value="x"))
    return journal


def state(journal: Journal) -> tuple[object, ...]:
    heads = sorted((head.label, head.version, head.path, head.agents) for head in journal.heads())
    outcome = Results(journal.database).outcome_of("ann", "r-1")
    return journal.seq, journal.since(0, 99), heads, outcome, Intents(journal).prepared()


def again(journal: Journal) -> Journal:
    """The journal as the next process opens it, after kill -9."""
    journal.database.close()
    return Journal(journal.path, boot_id="boot")


@pytest.mark.parametrize("is_durable", [True, False])
@pytest.mark.parametrize("crashed", [False, True])
def test_prepared_comes_back_as_it_was(before: Journal, *, crashed: bool, is_durable: bool) -> None:
    """Every field of it, to whoever opens the journal after a crash; nobody else sees any of it."""
    old = state(before)
    Intents(before).prepare(prepared(), is_durable=is_durable)
    found = again(before) if crashed else before
    assert Intents(found).prepared() == prepared()
    assert state(found)[:-1] == old[:-1]
    found.database.close()


def test_nothing_is_prepared_in_a_new_journal(journal: Journal) -> None:
    """There is nothing to finish or to take back."""
    assert Intents(journal).prepared() is None
    Intents(journal).give_up()
    assert Intents(journal).prepared() is None


@pytest.mark.parametrize("crashed", [False, True])
def test_prepared_is_finished(before: Journal, *, crashed: bool) -> None:
    """Its revisions are the newest, their files known, their outcomes there; nothing is prepared any more."""
    Intents(before).prepare(prepared())
    found = again(before) if crashed else before
    Intents(found).finish(Intents(found).prepared() or prepared())
    found = again(found)
    assert found.seq == 6
    assert found.since(2, 99) == of_requests()
    assert Intents(found).prepared() is None
    assert {head.label: (head.version, head.path) for head in found.heads()} == {
        "notes": (3, "notes.md"),
        "new": (3, "new.md"),
        "gone": (2, None),
    }
    outcomes = Results(found.database)
    assert [outcomes.outcome_of(actor, "r-1") for actor in ("ann", "operator", "bob")] == ['{"ok": true}', "{}", None]
    found.database.close()


@pytest.mark.parametrize("crashed", [False, True])
def test_prepared_is_given_up(before: Journal, *, crashed: bool) -> None:
    """Then it is as if it had never been, and the same can be prepared again."""
    old = state(before)
    Intents(before).prepare(prepared())
    found = again(before) if crashed else before
    Intents(found).give_up()
    assert state(found) == old
    Intents(found).prepare(prepared())
    Intents(found).finish(prepared())
    assert found.since(2, 99) == of_requests()
    found.database.close()


def test_stop_keeps_what_is_prepared(before: Journal) -> None:
    """Also when the journal is closed in order in the middle of it: its lists of agents are not taken for unused."""
    Intents(before).prepare(prepared())
    before.close()
    found = Journal(before.path, boot_id="boot")
    assert Intents(found).prepared() == prepared()
    found.database.close()


def test_full_disk_prepares_and_finishes_nothing(before: Journal) -> None:
    """Each is written whole or not at all, and can be tried again when there is room."""
    old = state(before)
    big = replace(prepared(), outcomes={("ann", f"r-{n}"): "x" * 5000 for n in range(50)})
    fill_up(before)
    with pytest.raises(JournalUnusable, match="full"):
        Intents(before).prepare(big)
    assert state(before) == old
    make_room(before)
    Intents(before).prepare(big)
    fill_up(before)
    huge = [revision(seq, f"b{seq}", value="x" * 4000, agents=(f"a{seq}",)) for seq in range(3, 60)]
    with pytest.raises(JournalUnusable, match="full"):
        Intents(before).finish(replace(big, revisions=huge))
    assert before.seq == 2
    assert Intents(before).prepared() is not None
    make_room(before)
    Intents(before).finish(big)
    assert before.since(2, 99) == of_requests()
    assert Results(before.database).outcome_of("ann", "r-49") == "x" * 5000


def test_block_that_came_and_went_in_one_go_is_remembered(journal: Journal) -> None:
    """Created and renamed, or deleted, by one batch: no file ever said it, but its versions are used up."""
    made = [
        revision(1, "first", value="x"),
        replace(revision(2, "second", kind="renamed", version=2, value="x"), renamed_from="first"),
        revision(3, "third", value="x"),
        revision(4, "third", kind="deleted", version=2),
    ]
    whole = Prepared(made, {"second": "second.md"}, (), {}, THEN)
    Intents(journal).prepare(whole)
    Intents(journal).finish(whole)
    assert {head.label: (head.version, head.path) for head in journal.heads()} == {
        "first": (1, None),
        "second": (2, "second.md"),
        "third": (2, None),
    }


def appended(seq: int, value: str) -> Prepared:
    """A request that has changed a block, as the core prepares it."""
    label = "policies/refunds"
    key = ("support-1", f"0192f6d2b1c47c3a9d6e3f5a7b8c9d{seq:02}")
    reply = {"id": key[1], "ok": True, "label": label, "seq": seq, "version": seq, "block": True}
    made = revision(seq, label, kind="updated", version=seq, value=value, description="When to refund.", tags=("a",))
    made = replace(made, author=key[0], request_id=key[1])
    staged = [Staged(f"{label}.md", f"policies/.blocksd-{seq:016}", "0" * 32, "1" * 32, 1_234_567, 1_234_568)]
    return Prepared([made], {label: f"{label}.md"}, staged, {key: json.dumps(reply)}, THEN)


def prose(chars: int) -> str:
    """A text that is not easier to compress than what people write."""
    chance = random.Random(7)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(5000)]
    return " ".join(chance.choices(words, k=chars))[:chars]


def logged(journal: Journal, *all_prepared: Prepared) -> int:
    """How many bytes of log each of them takes, on average."""
    journal.database.checkpoint("TRUNCATE")
    for one in all_prepared:
        Intents(journal).prepare(one, is_durable=False)
        Intents(journal).finish(one, {one.staged[0].path: SIGNATURE})
    return journal.log_bytes // len(all_prepared)


def test_append_is_written_to_the_log_once(journal: Journal) -> None:
    """Two characters appended to a block of 19 kB: at most 45 kB, of which a good part is that SQLite writes pages."""
    value = prose(19_000)
    many = [appended(seq, value + "ab" * seq) for seq in range(1, 41)]
    assert logged(journal, *many) <= 45_000


def test_journal_grows_by_little_more_than_its_versions(journal: Journal) -> None:
    """A thousand appends of 10 characters to a block of 9 kB."""
    value = prose(19_000)
    many = [appended(seq, value[: 9_000 + 10 * seq]) for seq in range(1, 1001)]
    logged(journal, *many)
    journal.checkpoint()
    size = os.path.getsize(journal.path) + journal.log_bytes
    assert size < 12 * 1024 * 1024


def test_what_is_prepared_is_in_nobodys_sight(before: Journal) -> None:
    """Whatever is asked of the log, by the daemon or by another process."""
    old = before.since(0, 99), before.newest(), before.head("notes"), before.history("notes"), before.positions("notes")
    Intents(before).prepare(prepared())
    reader = JournalReader(before.path)
    assert reader.is_pending
    for history in (before, reader):
        assert (history.seq, history.count()) == (2, 2)
        assert (history.newest(), history.head("notes"), history.history("notes"), history.positions("notes")) == old[
            1:
        ]
        assert (history.head("new"), history.version("notes", 2), history.revision(3)) == (None, None, None)
        assert history.unmerged() == []
    assert before.since(0, 99) == old[0]
    assert before.reaches_back(0)
    prune(before, "notes", versions=1)
    Intents(before).finish(prepared())
    assert (reader.newest(), reader.revision(3)) == (of_requests()[-1], of_requests()[0])
    reader.close()
    with closing(JournalReader(before.path)) as reader:
        assert not reader.is_pending
    assert before.since(2, 99) == of_requests()


def test_part_of_what_is_prepared_is_finished(before: Journal) -> None:
    """The rest is as if it had never been; the numbers have no gap."""
    Intents(before).prepare(prepared())
    _, second, third, _ = of_requests()
    part = replace(prepared(), revisions=[replace(second, seq=3), replace(third, seq=4)], outcomes={("x", "1"): "done"})
    Intents(before).finish(part, was=prepared(), is_durable=True)
    found = again(before)
    assert found.since(2, 99) == part.revisions
    assert Intents(found).prepared() is None
    assert Results(found.database).outcome_of("ann", "r-1") is None
    assert {head.label: head.version for head in found.heads()} == {"notes": 1, "new": 3, "gone": 2}
    found.database.close()
