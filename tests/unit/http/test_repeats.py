"""Which requests are sent again, and for how long that is known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.http.connections import Repeats

if TYPE_CHECKING:
    import pytest


def test_repeats_are_forgotten_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest, when there are too many: a gateway that runs for months keeps as much as one of today."""
    monkeypatch.setattr("blocksd.http.connections._KEPT", 2)
    repeats = Repeats()
    ids = [repeats.request_id(None, b"0", "kim", f"body {number}") for number in range(3)]
    assert repeats.request_id(None, b"1", "kim", "body 2") == ids[2]
    assert repeats.request_id(None, b"1", "kim", "body 1") == ids[1]
    assert repeats.request_id(None, b"1", "ann", "body 2") != ids[2]
    assert repeats.request_id(None, b"1", "kim", "body 0") != ids[0]
    for count in (b"\xb2", b"-1", b"x", b"9" * 5000):
        assert repeats.request_id(None, count, "kim", "odd")
    assert len({repeats.request_id(None, None, "kim", "body") for _ in range(2)}) == 2
