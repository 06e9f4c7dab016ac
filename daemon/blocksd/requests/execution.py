"""Carries one request out in the workspace of a round: what it changes, and what its reply says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.mirror.view import shown
from blocksd.requests.changeset import Changeset
from blocksd.requests.operations import Operations

if TYPE_CHECKING:
    from blocksd.requests.request import Request
    from blocksd.requests.workspace import Workspace
    from blocksd.state.state_draft import StateDraft

MAX_REPLY = 1024 * 1024
"""How many characters of blocks a reply about several blocks shows; of the others it tells where they are."""


def carry_out(workspace: Workspace, request: Request) -> dict[str, Any]:
    """Do what is asked in the workspace; return the facts of the reply.

    Raises:
        Postponed: it cannot be told yet.
        BlocksdError: it is refused. After any error the workspace is to be put back, by its `all_or_nothing`.
    """
    changeset = Changeset(workspace, request.entry.actor)
    try:
        label = Operations(workspace, changeset).do(request.op, request)
        changeset.finish()
    finally:
        workspace.work += changeset.work
    draft = workspace.draft
    with draft.together():
        for step in changeset.steps:
            step(draft, changeset.actor, request.id)
    workspace.files = workspace.files | changeset.files  # a new one: the one before is what an error goes back to
    workspace.agents_gone = workspace.agents_gone | changeset.agents_gone
    workspace.directories |= changeset.directories
    workspace.folders_made = (workspace.folders_made - changeset.folders_gone) | changeset.folders_made
    workspace.folders_gone = (workspace.folders_gone - changeset.folders_made) | changeset.folders_gone
    if label is None:
        return {**changeset.facts, **_results(draft, changeset.labels)}
    return {**changeset.facts, **_result(draft, label)}


def _results(draft: StateDraft, labels: list[str]) -> dict[str, Any]:
    """The facts of a reply to a request about several blocks: a block once, and no more of them than it may hold."""
    results: list[dict[str, Any]] = []
    told: set[str] = set()
    left = MAX_REPLY
    for label in labels:
        newest = draft.newest(label)
        assert newest is not None
        result: dict[str, Any] = {"label": label, "seq": newest.seq, "version": newest.version}
        size = len(newest.block.value) + len(newest.block.facts) if newest.block is not None else 0
        if label not in told and size <= left:
            told.add(label)
            left -= size
            result["block"] = shown(newest)
        results.append(result)
    return {"seq": max((one["seq"] for one in results), default=None), "results": results}


def _result(draft: StateDraft, label: str) -> dict[str, Any]:
    newest = draft.newest(label)
    assert newest is not None
    return {"label": label, "seq": newest.seq, "version": newest.version, "block": shown(newest)}
