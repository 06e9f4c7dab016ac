"""How long an agent's memory keeps what it has read, while its client writes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from blocksd.protocol.sight import Kept, Sight, Written

LABEL = "agents/ann/notes"


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def kept(written: Written) -> Kept:
    """What Ann sees: one block."""
    made = Kept(cast("Any", SimpleNamespace(life=1)), written)
    made.put(seen(), made.mark())
    return made


def seen() -> Sight:
    return Sight({LABEL: {}}, [])


@pytest.mark.parametrize("op", ["append", "replace", "insert", "patch", "update"])
def test_an_edit_concerns_those_who_have_the_block(kept: Kept, written: Written, op: str) -> None:
    """Of other blocks it changes nothing; not even many."""
    for _ in range(100):
        written.add(op, {"value": "x"}, "others")
    assert kept.is_fresh
    written.add(op, {"value": "x"}, LABEL)
    written.add(op, {"value": "x"}, "others")
    assert not kept.is_fresh


@pytest.mark.parametrize(
    ("op", "args", "label"),
    [
        *(
            (op, None, "others")
            for op in ("create", "delete", "rename", "attach", "detach", "undo", "restore", "merge")
        ),
        *(
            (op, {}, None)
            for op in ("batch", "create_agent", "update_agent", "delete_agent", "open_file", "close_file")
        ),
        ("update", {"agents": ["ann"]}, "others"),
        ("append", {"content": "x"}, None),  # which was not answered
    ],
)
def test_what_may_change_who_has_what_concerns_all(
    kept: Kept, written: Written, op: str, args: dict[str, Any] | None, label: str | None
) -> None:
    """Whatever block it names, and also if it is not known what was done."""
    written.add(op, args, label)
    assert not kept.is_fresh


def test_reads_concern_nobody(kept: Kept, written: Written) -> None:
    """Versions and status change nothing."""
    for op in ("history", "version", "status"):
        written.add(op, None, LABEL)
    assert kept.is_fresh


def test_more_than_is_remembered_concerns_all(kept: Kept, written: Written) -> None:
    """Of the oldest it is then not known which blocks they were."""
    for _ in range(101):
        written.add("append", None, "others")
    assert not kept.is_fresh


def test_what_is_written_while_it_is_read_is_not_in_it(kept: Kept, written: Written) -> None:
    """A sight that was begun before a write is read again."""
    mark = kept.mark()
    written.add("append", None, LABEL)
    kept.put(seen(), mark)
    assert not kept.is_fresh
    kept.put(seen(), kept.mark())
    assert kept.is_fresh
