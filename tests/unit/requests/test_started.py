"""Which requests were under way when the daemon ended: in a file that the next one reads."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from blocksd.requests.inbox import ATTEMPTS, StartedRequests
from blocksd.requests.request import Entry

if TYPE_CHECKING:
    from pathlib import Path

ENTRIES = [Entry(actor, f"{number}-0", "{}") for number, actor in enumerate(("ann", "bob", "operator"))]


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "begun")


def test_request_under_way_at_the_end_counts_as_begun(place: str) -> None:
    """Each time the daemon ends without an end; those that are over do not count, nor does an end in good order."""
    for attempt in range(ATTEMPTS + 2):
        begun = StartedRequests(place)
        assert [begun.attempts(one) for one in ENTRIES] == [attempt, 0, 0]
        begun.begin([ENTRIES[1]])
        begun.end([ENTRIES[1]])
        begun.begin([ENTRIES[0]])
    begun = StartedRequests(place)
    begun.end([ENTRIES[0]])
    begun.close()
    assert StartedRequests(place).attempts(ENTRIES[0]) == 0


def test_last_attempt_is_made_alone(place: str) -> None:
    """So that those that were begun with it are cleared."""
    begun = StartedRequests(place)
    assert begun.first_alone(ENTRIES) == 3
    for _ in range(ATTEMPTS - 1):
        begun = StartedRequests(place)
        assert begun.first_alone(ENTRIES) == 3
        begun.begin(ENTRIES[1:])
    begun = StartedRequests(place)
    assert begun.first_alone(ENTRIES) == 1, "up to the first of them"
    assert begun.first_alone(ENTRIES[1:]) == 1, "that one alone"
    begun.begin([ENTRIES[1]])
    begun.end([ENTRIES[1]])
    begun.begin([ENTRIES[2]])
    begun = StartedRequests(place)
    assert [begun.attempts(one) for one in ENTRIES] == [0, 0, ATTEMPTS]


@pytest.mark.parametrize("damage", [b"", b"[", b"[[1]]", b"{}", b"\xff", b"[[null, 3, []]]", b"5", b"[" * 10_000])
def test_damaged_file_says_nothing(place: str, damage: bytes) -> None:
    """It is written anew."""
    with open(place, "wb") as file:
        file.write(damage)
    begun = StartedRequests(place)
    assert [begun.attempts(one) for one in ENTRIES] == [0, 0, 0]
    begun.begin(ENTRIES)
    assert StartedRequests(place).attempts(ENTRIES[0]) == 1


def test_file_that_cannot_be_had_costs_nothing_but_the_memory(tmp_path: Path) -> None:
    """Requests are begun all the same."""
    begun = StartedRequests(os.path.join(tmp_path, "none", "begun"))
    begun.begin(ENTRIES)
    begun.end(ENTRIES)
    assert begun.first_alone(ENTRIES) == 3
    begun.close()
