"""Carries one request out, op by op, on a changeset of the workspace, or says why it is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.errors import (
    BlocksdError,
    InvalidField,
    InvalidRequest,
    MergeConflict,
    NotAttached,
    NotFound,
    OtherBlock,
)
from blocksd.files.document import normalize_newlines
from blocksd.model import edits
from blocksd.model.attachment import matches
from blocksd.model.block import block_id, replaced
from blocksd.model.label import owner, parse_label
from blocksd.model.merge import merge
from blocksd.model.properties import parse_versioned
from blocksd.model.revision import OPERATOR
from blocksd.requests.agent_operations import create_agent, delete_agent, update_agent
from blocksd.requests.arguments import agents_of, block_fields, check_shared, named, new_block, private_label
from blocksd.requests.block_changes import make, put, remove, rename
from blocksd.requests.changeset import Changeset
from blocksd.requests.queries import QUERIES
from blocksd.requests.reply import carried_out
from blocksd.requests.saving import save
from blocksd.requests.undoing import MERGE_WORK, merge_reverted, redo, restore, undo

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.model.block import Block
    from blocksd.model.revision import Revision
    from blocksd.requests.request import Request
    from blocksd.requests.workspace import Workspace
    from blocksd.state.state_draft import StateDraft

_OF_WHOLE_AGENTS = {"create_agent": create_agent, "update_agent": update_agent, "delete_agent": delete_agent}
_OF_VERSIONS = {"undo": undo, "redo": redo, "restore": restore, "merge": merge_reverted, "save": save}
_OF_ABSENT = ("undo", "redo", "restore", "save")
_MAX_BATCH = 1000

_EDIT_WORK, _PATCH_WORK = 2, 16
"""How often an edit goes through a value, and a patch in its lines: in units of one search for a text."""


def carry_out(workspace: Workspace, request: Request, *, is_again: bool = False) -> tuple[str, str]:
    """Do what is asked in the workspace; return the reply, as it is kept and as it is sent.

    `is_again`: a daemon ended while it did the same.

    Raises:
        Postponed: it cannot be told yet.
        BlocksdError: it is refused. After any error the workspace is as it was.
    """
    actor = request.entry.actor
    draft = workspace.draft.branch(by=request.by)
    changeset = Changeset(workspace, draft, actor, request.id, is_operator=actor == OPERATOR, is_again=is_again)
    try:
        label = Operations(changeset).do(request.op, request)
        changeset.finish()
    finally:
        workspace.work += changeset.work
    draft = changeset.draft
    newest = _newest(draft, label) if label is not None else [_newest(draft, one) for one in changeset.labels]
    replies = carried_out(request, changeset.facts, newest)
    workspace.take(changeset.draft, changeset.files)
    workspace.agents_gone = workspace.agents_gone | changeset.agents_gone
    workspace.rejected |= changeset.rejected
    workspace.directories |= changeset.directories
    workspace.folders_made = (workspace.folders_made - changeset.folders_gone) | changeset.folders_made
    workspace.folders_gone = (workspace.folders_gone - changeset.folders_made) | changeset.folders_gone
    return replies


def _newest(draft: StateDraft, label: str) -> Revision:
    newest = draft.drafted.get(label) or draft.newest(label)
    assert newest is not None
    return newest


class Operations:
    """The ops: `_<op>` changes a block in the changeset, or raises why it is refused."""

    def __init__(self, changeset: Changeset) -> None:
        self._changeset = changeset

    def do(self, op: str, request: Request) -> str | None:
        """Do one thing; the label of the block it was done to, or None when it was done to several."""
        if op == "batch":
            self._batch(request)
            return None
        if op in _OF_WHOLE_AGENTS:
            self._only_operator(op)
            _OF_WHOLE_AGENTS[op](self._changeset, request)
            return None
        label = self._new_label(request) if op == "create" else self._label(request)
        if request.expect_id is not None:
            self._check_id(label, request.expect_id)
        if op in _OF_VERSIONS:
            _OF_VERSIONS[op](self._changeset, label, request)
        else:
            getattr(self, f"_{op}")(label, request)
        to: str = self._changeset.facts.pop("to", label)
        return to

    # --- naming ---

    def _label(self, request: Request) -> str:
        """The label of the block a request names; to an operator, by some ops also of an agent's properties."""
        if self._changeset.is_operator:
            parsed = parse_versioned if request.op in (*_OF_VERSIONS, "delete") else parse_label
            label = parsed(named(request.label, "label", "operators name a block by its label"))
            if not (self._changeset.has(label) or request.expect_id or request.op in _OF_ABSENT):
                raise self._changeset.unknown(label)
            return label
        changeset, agent = self._changeset, self._changeset.actor
        name = request.name or named(None, "name", "agents name a block by the name they have for it")
        found = changeset.called(name)  # most are in their one spelling
        if found is not None:
            return found
        name = parse_label(name)
        found = changeset.called(name)
        if found is not None:
            return found
        if changeset.has(name):
            raise NotAttached(f"the block {name!r} is not attached to {agent!r}", agent=agent, name=name)
        private = private_label(agent, name)
        if request.op in ("undo", "redo", "restore") and changeset.draft.newest(private) is not None:
            return private
        raise NotFound(f"{agent!r} has no block {name!r}", agent=agent, name=name)

    def _check_id(self, label: str, expected: str) -> None:
        """Raise OtherBlock if a label is not that of the block with this id, which may have another label now."""
        if not self._changeset.has(label) or block_id(self._changeset.draft.origin_of(label) or label) != expected:
            raise OtherBlock(
                f"{label!r} is not the label of the block {expected[:100]!r}", label=label, id=expected[:100]
            )

    def _new_label(self, request: Request) -> str:
        if self._changeset.is_operator:
            return parse_label(named(request.label, "label", "operators name a block by its label"))
        name = named(request.name, "name", "agents name a block by the name they have for it")
        return private_label(self._changeset.actor, name)

    def _only_operator(self, what: str) -> None:
        if not self._changeset.is_operator:
            raise InvalidRequest(f"an agent may not {what.replace('_', ' an ', 1)}", field="op")

    # --- operations ---

    def _create(self, label: str, request: Request) -> None:
        make(self._changeset, new_block(label, request.args, is_operator=self._changeset.is_operator))

    def _update(self, label: str, request: Request) -> None:
        wanted = block_fields(label, request.args, is_operator=self._changeset.is_operator)
        block = self._changeset.present(label)
        base = self._changeset.expected(label, request)
        if base is not None:
            for name, value in wanted.items():
                before, now = getattr(base, name), getattr(block, name)
                if name == "value":
                    wanted[name] = self._merged(before, value, now)
                elif now not in (before, value):
                    raise MergeConflict(
                        f"{name} was changed meanwhile", field=name, base=before, ours=value, theirs=now
                    )
        put(self._changeset, label, replaced(block, wanted))

    def _append(self, label: str, request: Request) -> None:
        (content,) = request.texts("content")
        base = self._base(label, request) if request.expect is not None else None
        if base is None:
            self._changeset.append(label, content)
        else:
            self._edit(label, base, lambda value: edits.append(value, content))

    def _replace(self, label: str, request: Request) -> None:
        old, new = request.texts("old_content", "new_content")
        self._edit(label, self._base(label, request), lambda value: edits.replace(value, old, new))

    def _insert(self, label: str, request: Request) -> None:
        request.only("content", "line")
        content = request.text("content")
        line = request.number("line", -1, least=-1)
        self._edit(label, self._base(label, request), lambda value: edits.insert(value, content, line))

    def _patch(self, label: str, request: Request) -> None:
        (patch,) = request.texts("patch")
        self._edit(
            label,
            self._base(label, request),
            lambda value: edits.patch(value, patch, spend=self._changeset.spend),
            work=_PATCH_WORK,
        )

    def _base(self, label: str, request: Request) -> Block | None:
        """The block to merge against, if there is one, of a block that is there."""
        self._changeset.check_present(label)
        return self._changeset.expected(label, request)

    def _edit(self, label: str, base: Block | None, change: Callable[[str], str], *, work: int = _EDIT_WORK) -> None:
        block = self._changeset.present(label)
        self._changeset.spend(work * len((block if base is None else base).value))
        value = change(block.value) if base is None else self._merged(base.value, change(base.value), block.value)
        put(self._changeset, label, replaced(block, {"value": normalize_newlines(value)}))

    def _merged(self, base: str, ours: str, theirs: str) -> str:
        self._changeset.spend(MERGE_WORK * (len(base) + len(ours) + len(theirs)))
        return merge(base, ours, theirs, budget=self._changeset.effort)

    def _delete(self, label: str, request: Request) -> None:
        request.only()
        self._changeset.expected(label, request)
        remove(self._changeset, label)

    def _rename(self, label: str, request: Request) -> None:
        (to,) = request.texts("to")
        self._changeset.present(label)
        if not self._changeset.is_operator:
            if owner(label) != self._changeset.actor:
                raise InvalidRequest(
                    f"an agent may rename its private blocks, not {label!r}, which is shared", field="name"
                )
            to = private_label(self._changeset.actor, to)
        new = parse_label(to)
        self._changeset.expected(label, request)
        if new != label:
            rename(self._changeset, label, new)
            self._changeset.facts["to"] = new

    def _attach(self, label: str, request: Request) -> None:
        self._only_operator("attach")
        self._changeset.expected(label, request)
        block = self._changeset.present(label)
        check_shared(label, "label")
        new = [a for a in agents_of(request) if not any(matches(entry, a) for entry in block.agents)]
        put(self._changeset, label, replace(block, agents=(*block.agents, *dict.fromkeys(new))))

    def _detach(self, label: str, request: Request) -> None:
        self._only_operator("detach")
        self._changeset.expected(label, request)
        agents = agents_of(request)
        for agent in agents:
            self._check_detachable(label, agent)
        block = self._changeset.present(label)
        put(
            self._changeset, label, replace(block, agents=tuple(entry for entry in block.agents if entry not in agents))
        )

    def _check_detachable(self, label: str, agent: str) -> None:
        block = self._changeset.present(label)
        check_shared(label, "label")
        if agent in block.agents:
            return
        patterns = [entry for entry in block.agents if matches(entry, agent)]
        if patterns:
            raise InvalidRequest(
                f"{agent!r} is attached to {label!r} by {patterns[0]!r}: change 'agents' instead",
                field="args.agents",
                label=label,
            )
        raise NotAttached(f"the block {label!r} is not attached to {agent!r}", agent=agent, name=label)

    # --- several ---

    def _batch(self, request: Request) -> None:
        request.only("requests")
        parts = request.args.get("requests")
        if not isinstance(parts, list) or not 1 <= len(parts) <= _MAX_BATCH:
            raise InvalidField(f"requests must be a list of 1 to {_MAX_BATCH} requests", field="args.requests")
        for number, part in enumerate(parts, 1):
            self._changeset.part = number
            try:
                one = request.part(part)
                if one.op in ("batch", "save", "open_file", "close_file", *QUERIES):
                    raise InvalidRequest(f"{one.op} cannot be part of a batch", field="op")
                label = self.do(one.op, one)
            except BlocksdError as error:
                error.facts["request"] = number
                raise
            if label is not None:
                self._changeset.labels.append(label)
