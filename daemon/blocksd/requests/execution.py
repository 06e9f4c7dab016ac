"""Decides on one request: what its blocks and their files become, and what its reply says. Nothing here writes anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.mirror.view import shown
from blocksd.requests.changeset import Attempt
from blocksd.requests.operations import Operations

if TYPE_CHECKING:
    from blocksd.requests.request import Request
    from blocksd.requests.workspace import Desk
    from blocksd.state.state import Ledger

MAX_REPLY = 1024 * 1024
"""How many characters of blocks a reply about several blocks shows; of the others it tells where they are."""


def decide(desk: Desk, request: Request) -> dict[str, Any]:
    """Do what is asked, as far as it can be done without writing; what the reply says of it.

    Raises:
        Postponed: it cannot be told yet.
        BlocksdError: it is refused.
    """
    mark = desk.mark
    try:
        return _decide(desk, request)
    except Exception:  # whatever it is: the request has changed nothing
        desk.back_to(mark)
        raise


def _decide(desk: Desk, request: Request) -> dict[str, Any]:
    attempt = Attempt(desk, request.actor)
    try:
        label = Operations(desk, attempt).do(request.op, request)
        attempt.finish()
    finally:
        desk.work += attempt.work
    with desk.ledger.together():
        for step in attempt.steps:
            step(request.actor, request.id)
    reply = _results(desk.ledger, attempt) if label is None else {**attempt.facts, **_outcome(desk.ledger, label)}
    desk.sheets = desk.sheets | attempt.sheets  # a new one: a mark has the old
    desk.agents_gone = desk.agents_gone | attempt.agents_gone
    desk.directories |= attempt.directories
    desk.folders_made = (desk.folders_made - attempt.folders_gone) | attempt.folders_made
    desk.folders_gone = (desk.folders_gone - attempt.folders_made) | attempt.folders_gone
    return reply


def _results(ledger: Ledger, attempt: Attempt) -> dict[str, Any]:
    """What the reply to a request about several blocks says: a block once, and no more of them than it may hold."""
    results: list[dict[str, Any]] = []
    told: set[str] = set()
    left = MAX_REPLY
    for label in attempt.labels:
        newest = ledger.newest(label)
        assert newest is not None
        result: dict[str, Any] = {"label": label, "seq": newest.seq, "version": newest.version}
        size = len(newest.block.value) + len(newest.block.facts) if newest.block is not None else 0
        if label not in told and size <= left:
            told.add(label)
            left -= size
            result["block"] = shown(newest)
        results.append(result)
    return {**attempt.facts, "seq": max((one["seq"] for one in results), default=None), "results": results}


def _outcome(ledger: Ledger, label: str) -> dict[str, Any]:
    newest = ledger.newest(label)
    assert newest is not None
    return {"label": label, "seq": newest.seq, "version": newest.version, "block": shown(newest)}
