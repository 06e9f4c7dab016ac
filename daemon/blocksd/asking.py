"""Requests to the daemon, and its replies: plans.

Whatever is asked for here is done when the call returns: the file is replaced, the revision is in the history, and the
mirror shows it. What the daemon refuses is raised, as the exception of the reply's code, with its facts.
"""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, Required, TypedDict, Unpack

from blocksd.errors import InvalidField, InvalidRequest, NotFound, Unavailable, VersionConflict, from_json
from blocksd.label import parse_agent
from blocksd.plan import Pause, ask
from blocksd.queries import resolve, retrieve, retrieve_block_of_agent
from blocksd.revision import OPERATOR
from blocksd.view import AgentView, BlockView

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.keys import Keys
    from blocksd.plan import Plan

OnConflict = Literal["fail", "merge", "overwrite"]

TIMEOUT_SECONDS = 30.0
_WAIT_SECONDS = 5.0  # at a time; less than a connection waits for any reply
_LONGEST_PAUSE = 1.0
_LONGEST_EDIT_PAUSE = 0.1


class Terms(TypedDict, total=False):
    """How a request is made."""

    timeout_seconds: float
    """For how long its reply is waited for. What is not done by then is not done later either."""
    request_id: str | None
    """A request that is made again under the id of an earlier one is done once, and has the first outcome."""


class Expectation(Terms, total=False):
    """How a request to change one block is made."""

    expect_version: int | None
    """The version the block must have."""
    on_conflict: OnConflict | None
    """What to do when it has another: `fail` (VersionConflict, the default), `overwrite`, or `merge` what is asked for
    with what was written since, which is a MergeConflict where both changed the same place."""


class Fields(TypedDict, total=False):
    """What a block says. None stands for a field's default; a field that is not given is left as it is."""

    value: str | None
    description: str | None
    limit: int | None
    read_only: bool | None
    hidden: bool | None
    tags: Collection[str] | None
    metadata: Mapping[str, Any] | None
    agents: Collection[str] | None
    """Who it is attached to: ids, patterns (`support-*`), or `*` for every agent."""
    project_id: str | None
    is_template: bool | None
    template_name: str | None
    template_id: str | None
    base_template_id: str | None
    deployment_id: str | None
    entity_id: str | None
    preserve_on_migration: bool | None


class NewBlock(Fields, Terms, total=False):
    """A block to be made, and how."""


class Changes(Fields, Expectation, total=False):
    """What is to change in a block, and how."""


class Update(Fields, total=False):
    """One of several blocks to change, and what in it; conditions are as in `Expectation`."""

    block_id: Required[str]
    expect_version: int | None
    on_conflict: OnConflict | None


class AgentBlock(Fields, total=False):
    """A private block of an agent to be made; `label` and `name` are the same, what the agent is to call it."""

    label: str
    name: str


# --- one request ---


def send(
    keys: Keys,
    actor: str,
    op: str,
    *,
    label: str | None = None,
    name: str | None = None,
    args: Mapping[str, Any] | None = None,
    expect_version: int | None = None,
    on_conflict: OnConflict | None = None,
    timeout_seconds: float = TIMEOUT_SECONDS,
    request_id: str | None = None,
) -> Plan[dict[str, Any]]:
    """Make one request, and wait for the reply to it: one round trip.

    When the connection fails, the same request is sent again: under one id, it is done once.

    Raises:
        Unavailable: there was no reply in time; whether it was done is not known. Facts: `request_id`.
        NotFound: `actor` is no agent that is known, so that nobody reads what it sends.
        BlocksdError: the daemon refuses.
    """
    request_id = request_id or str(uuid.uuid4())
    give_up_at = time.monotonic() + timeout_seconds
    request = {
        "id": request_id,  # first, so that it is found in a request that cannot be read whole
        "op": op,
        "label": label,
        "name": name,
        "args": args,
        "expect": None if expect_version is None else {"version": expect_version},
        "on_conflict": on_conflict,
        "deadline": _deadline(timeout_seconds),
    }
    put = ("XADD", keys.inbox(actor), "*", "request", _encoded(request))
    failures, is_put, is_kept = 0, False, True
    trouble: Unavailable | None = None
    while (left := give_up_at - time.monotonic()) > 0:
        wait = ("BLPOP", keys.reply(actor, request_id), f"{max(min(left, _WAIT_SECONDS), 0.01):.3f}")
        try:
            if actor != OPERATOR and not is_put:
                yield from _check_agent(keys, actor)
            *_, is_kept, reply = yield from ask(*(() if is_put else (put,)), ("EXISTS", keys.lease), wait)
        except Unavailable as error:
            trouble, is_put = error, False
            failures = min(failures + 1, 8)
            yield Pause(min(0.05 * 2**failures, _LONGEST_PAUSE, left) * random.uniform(0.5, 1.0))
            continue
        trouble, failures, is_put = None, 0, True
        if reply is not None:
            return _outcome(json.loads(reply[1]))
    raise _unanswered(request_id, timeout_seconds, trouble, is_kept=bool(is_kept))


def _deadline(timeout_seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=timeout_seconds)).isoformat(timespec="milliseconds")


def _encoded(request: Mapping[str, Any]) -> str:
    """The JSON of a request, without what is null. Raises InvalidRequest when it has none in UTF-8."""
    try:
        text = json.dumps(
            {name: value for name, value in request.items() if value is not None},
            ensure_ascii=False,
            allow_nan=False,
            default=_plain,
        )
        text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {str(error)[:200]}", field="args") from None
    return text


def _plain(value: object) -> object:
    """The collections that JSON has no name for, as those it has."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Collection) and not isinstance(value, (bytes, bytearray)):
        return sorted(value) if isinstance(value, AbstractSet) else list(value)
    raise TypeError(f"there is no JSON for {type(value).__name__}")


def _check_agent(keys: Keys, agent: str) -> Plan[None]:
    score, epoch = yield from ask(("ZSCORE", keys.agents, agent), ("HGET", keys.meta, "epoch"))
    if score is None and epoch is not None:
        raise NotFound(f"there is no agent {agent!r}", agent=agent)


def _outcome(reply: dict[str, Any]) -> dict[str, Any]:
    if not reply["ok"]:
        raise from_json(reply["error"])
    return reply


def _unanswered(request_id: str, seconds: float, trouble: Unavailable | None, *, is_kept: bool) -> Unavailable:
    unknown = f"whether the request {request_id} was done is not known"
    if trouble is not None:
        return Unavailable(f"{trouble.message}; {unknown}", **{**trouble.facts, "request_id": request_id})
    who = "the daemon has not replied" if is_kept else "no daemon is in charge, and none has replied"
    return Unavailable(f"{who} within {seconds:g} s; {unknown}", request_id=request_id)


def block_of(reply: Mapping[str, Any]) -> BlockView:
    """The block that a reply shows."""
    return view_of(reply["block"])


def view_of(block: Mapping[str, Any]) -> BlockView:
    """A block from the JSON of it in a reply: the same as when it is read from the mirror."""
    return BlockView(
        {
            name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for name, value in block.items()
            if value is not None
        }
    )


# --- what operators ask for: blocks ---


def create(keys: Keys, *, label: str, **block: Unpack[NewBlock]) -> Plan[BlockView]:
    """Make a block, and its file. A private one has the label `agents/<agent>/<name>`.

    Raises:
        AlreadyExists: there is one.
        LabelConflict: its label could not be told from another, or one of its agents has another block of this name.
        LimitExceeded: its value is over its limit.
        InvalidRequest: it cannot be: what is wrong is in the message.
    """
    fields, terms = _apart(block)
    reply = yield from send(keys, OPERATOR, "create", label=label, args=fields, **terms)
    return block_of(reply)


def update(keys: Keys, block_id: str, **changes: Unpack[Changes]) -> Plan[BlockView]:
    """Change fields of a block; the others stay, and so does all of its file that says them.

    Raises:
        NotFound: there is no such block.
        VersionConflict, MergeConflict: it is not of the version expected.
        LabelConflict: one of its new agents has another block of this name.
        LimitExceeded: its value would be over its limit.
        InvalidRequest: a field cannot be so: what is wrong is in the message.
        ProblemFile: its file has a problem, or cannot say this.
    """
    fields, terms = _apart(changes)
    block = yield from _changed(keys, "update", block_id, fields, terms)
    return block


def append(keys: Keys, block_id: str, content: str, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Put `content` on a line of its own at the end of the value, whatever the value is by now."""
    block = yield from _changed(keys, "append", block_id, {"content": content}, terms)
    return block


def replace(
    keys: Keys, block_id: str, old_content: str, new_content: str, **terms: Unpack[Expectation]
) -> Plan[BlockView]:
    """Replace `old_content`, which must be in exactly one place of the value. Raises InvalidRequest when it is not."""
    args = {"old_content": old_content, "new_content": new_content}
    block = yield from _changed(keys, "replace", block_id, args, terms)
    return block


def insert(keys: Keys, block_id: str, content: str, line: int = -1, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Put `content` after line `line` of the value: 0 is before the first, -1 after the last."""
    block = yield from _changed(keys, "insert", block_id, {"content": content, "line": line}, terms)
    return block


def apply_patch(keys: Keys, block_id: str, patch: str, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Apply a unified diff to the value: all of it, or InvalidRequest."""
    block = yield from _changed(keys, "patch", block_id, {"patch": patch}, terms)
    return block


def rename(keys: Keys, block_id: str, to: str, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Give a block another label, and so another id; its history and who it is attached to stay."""
    block = yield from _changed(keys, "rename", block_id, {"to": to}, terms)
    return block


def attach(keys: Keys, block_id: str, agents: str | Collection[str], **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Attach a block to these agents. Raises LabelConflict when one of them has another block of this name."""
    block = yield from _changed(keys, "attach", block_id, {"agents": _listed(agents)}, terms)
    return block


def detach(keys: Keys, block_id: str, agents: str | Collection[str], **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Detach a block from these agents. Raises NotAttached when one of them is not attached to it."""
    block = yield from _changed(keys, "detach", block_id, {"agents": _listed(agents)}, terms)
    return block


def undo(keys: Keys, block_id: str, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Take the newest edit back that is not undone yet: a new version, with what was there before.

    A block that was deleted is named by its label. Raises InvalidRequest when there is nothing to undo.
    """
    block = yield from _changed(keys, "undo", block_id, {}, terms)
    return block


def redo(keys: Keys, block_id: str, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Do again what was undone last. Raises InvalidRequest when nothing was, or when an edit came since."""
    block = yield from _changed(keys, "redo", block_id, {}, terms)
    return block


def restore(keys: Keys, block_id: str, version: int, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Make a block again what it was at a version. Raises NotFound when that is not kept."""
    block = yield from _changed(keys, "restore", block_id, {"version": version}, terms)
    return block


def delete(keys: Keys, block_id: str, **terms: Unpack[Expectation]) -> Plan[None]:
    """Delete a block and its file, for every agent; its history is kept."""
    label = yield from resolve(keys, block_id)
    yield from send(keys, OPERATOR, "delete", label=label, **terms)


def update_many(keys: Keys, updates: Collection[Update], **terms: Unpack[Terms]) -> Plan[list[BlockView]]:
    """Change several blocks at once: all of them, or, if one cannot be, none.

    Raises:
        BlocksdError: what `update` raises. Facts: `request`, which of them it was, from 1.
    """
    requests = []
    for one in updates:
        fields: dict[str, Any] = dict(one)
        version, on_conflict = fields.pop("expect_version", None), fields.pop("on_conflict", None)
        label = yield from resolve(keys, fields.pop("block_id"))
        expect = None if version is None else {"version": version}
        requests.append({"op": "update", "label": label, "args": fields, "expect": expect, "on_conflict": on_conflict})
    if not requests:
        return []
    reply = yield from send(keys, OPERATOR, "batch", args={"requests": requests}, **terms)
    return [block_of(result) for result in reply["results"]]


def edit(
    keys: Keys, block_id: str, change: Callable[[str], str], *, timeout_seconds: float = TIMEOUT_SECONDS
) -> Plan[BlockView]:
    """Make of a block's value what `change` makes of it, losing nothing that anybody else writes meanwhile.

    `change` is called again, with the newer value, whenever there is one. The block is returned as it is then.

    Raises:
        VersionConflict: the block changed faster than it could be changed.
        NotFound, LimitExceeded, ProblemFile: as `update` does.
    """
    give_up_at = time.monotonic() + timeout_seconds
    block = yield from retrieve(keys, block_id)
    while True:
        value = text(change(block.value))
        if value == block.value:
            return block
        try:
            block = yield from update(
                keys, block.label, value=value, expect_version=block.version, timeout_seconds=timeout_seconds
            )
        except VersionConflict as conflict:
            newer: Any = conflict.facts.get("block")
            if newer is None or time.monotonic() > give_up_at:
                raise
            block = view_of(newer)
        else:
            return block
        yield Pause(random.uniform(0, _LONGEST_EDIT_PAUSE))


# --- what operators ask for: agents ---


def create_agent(
    keys: Keys,
    *,
    name: str | None = None,
    memory_blocks: Collection[AgentBlock] | None = None,
    block_ids: Collection[str] = (),
    tags: Collection[str] | None = None,
    model: str | None = None,  # noqa: ARG001  # what an agent runs on is of no concern here
    **terms: Unpack[Terms],
) -> Plan[AgentView]:
    """Make an agent known, with private blocks of its own and attached to shared ones: all of it, or nothing.

    `name` is its id; None makes one up. Without `memory_blocks` it has an empty `persona` and `human`; `tags` are put
    on its own blocks that have none given. `model` is accepted for programs that give it, and not kept: blocksd runs no
    models.

    Raises:
        AlreadyExists: there is such an agent.
        NotFound: one of `block_ids` is no block.
        LabelConflict: two of its blocks would have one name.
    """
    agent = parse_agent(name) if name is not None else f"agent-{uuid.uuid4().hex[:8]}"
    labels = []
    for block_id in block_ids:
        labels.append((yield from resolve(keys, block_id)))  # noqa: PERF401  # a comprehension cannot yield
    args: dict[str, Any] = {"agent": agent, "attach": labels, "tags": tags}
    if memory_blocks is not None:
        args["blocks"] = list(memory_blocks)
    yield from send(keys, OPERATOR, "create_agent", args=args, **terms)
    view = yield from _agent(keys, agent)
    return view


def delete_agent(keys: Keys, agent_id: str, **terms: Unpack[Terms]) -> Plan[None]:
    """Delete an agent with its private blocks, and detach it from the shared ones that name it."""
    yield from send(keys, OPERATOR, "delete_agent", args={"agent": parse_agent(agent_id)}, **terms)


def attach_to_agent(keys: Keys, agent_id: str, block_id: str, **terms: Unpack[Expectation]) -> Plan[AgentView]:
    """Attach a block to an agent. Raises LabelConflict when the agent has another block of this name."""
    yield from attach(keys, block_id, agent_id, **terms)
    view = yield from _agent(keys, agent_id)
    return view


def detach_from_agent(keys: Keys, agent_id: str, block_id: str, **terms: Unpack[Expectation]) -> Plan[AgentView]:
    """Detach a block from an agent; the block stays. Raises NotAttached when it is not attached to it."""
    yield from detach(keys, block_id, agent_id, **terms)
    view = yield from _agent(keys, agent_id)
    return view


def _agent(keys: Keys, agent_id: str) -> Plan[AgentView]:
    """What an agent is attached to; one that nothing names any more is not known, and attached to nothing."""
    agent = parse_agent(agent_id)
    (names,) = yield from ask(("HGETALL", keys.agent(agent)))
    return AgentView(agent, names)


def update_of_agent(keys: Keys, agent_id: str, block_label: str, **changes: Unpack[Changes]) -> Plan[BlockView]:
    """Change fields of the block an agent knows by this name; a shared block changes for everyone it is attached to."""
    found = yield from retrieve_block_of_agent(keys, agent_id, block_label)
    block = yield from update(keys, found.label, **changes)
    return block


# --- arguments ---


def text(value: object) -> str:
    """The value, which must be a text. Raises InvalidField when it is not."""
    if not isinstance(value, str):
        raise InvalidField("Provided value must be a string", field="value")
    return value


def _apart(given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of a block, and how the request is made."""
    fields = {name: value for name, value in given.items() if name not in Expectation.__optional_keys__}
    return fields, {name: value for name, value in given.items() if name not in fields}


def _changed(keys: Keys, op: str, block_id: str, args: Mapping[str, Any], terms: Mapping[str, Any]) -> Plan[BlockView]:
    label = yield from resolve(keys, block_id)
    reply = yield from send(keys, OPERATOR, op, label=label, args=args, **terms)
    return block_of(reply)


def _listed(agents: str | Collection[str]) -> list[str]:
    return [agents] if isinstance(agents, str) else list(agents)
