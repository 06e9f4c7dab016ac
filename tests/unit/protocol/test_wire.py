"""One request until its reply, step by step: no server, and a clock that a test moves."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from blocksd.errors import Damaged, InvalidRequest, NotFound, Unavailable
from blocksd.mirror.keys import Keys
from blocksd.protocol import wire
from blocksd.protocol.wire import Request
from rig import Clock

KEYS = Keys("blocks")


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(wire, "time", SimpleNamespace(monotonic=made))
    return made


def words(request: Request) -> list[str | int]:
    """The names of the commands that are sent next."""
    return [command[0] for command in request.commands()]


def test_request_is_sent_with_what_waits_for_its_reply() -> None:
    """One round trip puts the request, asks if a daemon is there, and waits; without what was not given."""
    put, lease, wait = Request(KEYS, "operator", "append", label="notes", args={"content": "é"}).commands()
    assert (put[:4], lease) == (("XADD", "blocks:inbox:operator", "*", "request"), ("EXISTS", KEYS.lease))
    sent = json.loads(str(put[4]))
    assert list(sent) == ["id", "op", "label", "args", "deadline"]
    assert wait == ("BLPOP", KEYS.reply(f"operator:{sent['id']}"), "1.000")


def test_request_is_put_once(clock: Clock) -> None:
    """While no reply comes, it is only waited for, and not longer than there is time."""
    request = Request(KEYS, "operator", "undo", timeout_seconds=3)
    assert request.take(["1-0", 1, None]) is None
    assert words(request) == ["EXISTS", "BLPOP"]
    clock.advance(2.5)
    assert request.commands()[-1][-1] == "0.500"
    clock.advance(0.5)
    assert not request.is_open


def test_request_is_put_again_after_a_failure(clock: Clock) -> None:
    """Under the same id, so that it is done once; the pauses grow, and end with the time there is."""
    request = Request(KEYS, "operator", "undo", timeout_seconds=30)
    first = request.commands()[0]
    request.take(["1-0", 1, None])
    pauses = [request.failed(Unavailable("gone")) for _ in range(9)]
    assert request.commands()[0] == first
    assert 0.05 <= pauses[0] <= 0.1
    assert 0.5 <= pauses[-1] <= 1.0
    clock.advance(29.9)
    assert request.failed(Unavailable("gone")) <= 0.1
    clock.advance(1)
    assert request.failed(Unavailable("gone")) == 0


def test_agent_is_looked_for_before_the_request_is_put() -> None:
    """One that is not known has no inbox that is read; while the mirror is being built, nobody can tell."""
    request = Request(KEYS, "ann", "append", name="human")
    assert [command[0] for command in request.check_commands()] == ["ZSCORE", "HGET"]
    request.check([None, None])
    request.check(["0", "epoch"])
    with pytest.raises(NotFound, match="there is no agent 'ann'"):
        request.check([None, "epoch"])
    request.take(["1-0", 1, None])
    assert request.check_commands() == ()
    assert Request(KEYS, "operator", "append").check_commands() == ()


@pytest.mark.parametrize(
    ("replies", "error", "message"),
    [
        ([1, None], None, "the daemon has not replied within 2 s; "),
        ([0, None], None, "no daemon is in charge, and none has replied within 2 s; "),
        ([1, None], Unavailable("gone", url="redis://x"), "gone; "),
    ],
)
def test_no_reply_is_said_with_its_reason(replies: list[Any], error: Unavailable | None, message: str) -> None:
    """Each time with the id of the request, of which it is not known whether it was done."""
    request = Request(KEYS, "operator", "undo", timeout_seconds=2, request_id="r-1")
    request.take(["1-0", *replies])
    if error is not None:
        request.failed(error)
    told = request.unanswered()
    assert told.message == f"{message}whether the request r-1 was done is not known"
    assert told.facts["request_id"] == "r-1"


def test_reply_is_the_outcome() -> None:
    """What was done is returned, what was refused is raised, and what is no reply is damage."""
    request = Request(KEYS, "operator", "undo", request_id="r-1")
    assert request.take(["1-0", 1, ["key", '{"ok": true}']]) == {"ok": True}
    with pytest.raises(NotFound, match="gone"):
        request.take([1, ["key", '{"ok": false, "error": {"code": "not_found", "message": "gone"}}']])
    with pytest.raises(Damaged, match="where the reply must be"):
        request.take([1, ["key", "[]"]])


@pytest.mark.parametrize("args", [{"value": object()}, {"value": float("nan")}, {"value": "\ud800"}, {"value": b"x"}])
def test_what_has_no_json_is_refused_before_it_is_sent(args: dict[str, Any]) -> None:
    """The caller's mistake is told at once."""
    with pytest.raises(InvalidRequest, match="value cannot be written as JSON"):
        Request(KEYS, "operator", "update", args=args)
