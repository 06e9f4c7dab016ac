"""Signatures in memory, and the queue of what is to be read."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING
from unittest.mock import Mock

from hypothesis import given
from hypothesis import strategies as st

from blocksd.files.folder import packed, unpacked
from blocksd.state.read_queue import ReadQueue

if TYPE_CHECKING:
    import pytest

    from looking import Looking

NUMBERS = st.integers(-(2**63), 2**63 - 1)


@given(st.tuples(NUMBERS, NUMBERS, NUMBERS, st.integers(0, 2**64 - 1)))
def test_packed_signature_has_all_of_its_numbers(signature: tuple[int, int, int, int]) -> None:
    """In a third of the memory: a daemon has one for each block, for as long as it runs."""
    assert unpacked(packed(*signature)) == signature
    assert sys.getsizeof(packed(*signature)) <= 65


def test_queue_that_is_read_gives_its_memory_back() -> None:
    """At the start all files of the folder were in it."""
    queue = ReadQueue(lambda: 0.0)
    queue.add_all(map(str, range(1000)))
    assert len(queue.take_batch(0.0, 1000)) == 1000
    assert sys.getsizeof(queue.ready) == sys.getsizeof({})


def test_damaged_signature_in_the_journal_proves_nothing(looking: Looking) -> None:
    """Its file is read once more, and the daemon starts."""
    looking.save("notes", "text\n")
    with looking.journal.database.writing:
        looking.journal.database.execute("UPDATE heads SET signature = x'0102'")
    looking.state.reload()
    assert looking.state.signatures == {"notes.md": b""}
    assert looking.sweep() == []
    assert looking.state.signatures["notes.md"]


def test_new_files_that_wait_are_not_gone_through(looking: Looking, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which of the waiting files may have been moved is asked in every round: new ones, which may be very many, were not."""
    looking.save("known", "text\n")
    for number in range(50):
        looking.write(f"new-{number}", "text\n")
    looking.write("known", "changed\n")
    looking.intake.hint_all()
    assert looking.intake.collect(1)[1] == {"known.md": False}
    assert looking.intake.backlog == 50
    looking.intake.hint_file("known.md", closed=True)
    looked_up = Mock(wraps=looking.state.labels.get)
    monkeypatch.setattr(type(looking.state.labels), "__contains__", lambda _, path: looked_up(path) is not None)
    assert looking.intake.suspects == ["known.md"]
    assert looked_up.call_count == 1
