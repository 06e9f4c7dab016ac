"""What operators ask for about blocks: plans."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Required, TypedDict, Unpack

from blocksd.client.plan import Pause
from blocksd.client.queries import resolve, retrieve
from blocksd.client.sending import TIMEOUT_SECONDS, Expectation, OnConflict, Terms, block_of, send
from blocksd.errors import InvalidField, VersionConflict
from blocksd.mirror.view import BlockView, view_of
from blocksd.model.revision import OPERATOR

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from blocksd.client.plan import Plan
    from blocksd.mirror.keys import Keys

_LONGEST_EDIT_PAUSE = 0.1


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


def undo(keys: Keys, block_id: str, **terms: Unpack[Expectation]) -> Plan[BlockView | None]:
    """Take the newest edit back that is not undone yet: a new version, with what was there before.

    A block that was deleted is named by its label. None: it was deleted before it came again, and is deleted now. Raises
    InvalidRequest when there is nothing to undo.
    """
    label = yield from resolve(keys, block_id)
    reply = yield from send(keys, OPERATOR, "undo", label=label, **terms)
    return block_of(reply) if reply.get("block") is not None else None


def redo(keys: Keys, block_id: str, **terms: Unpack[Expectation]) -> Plan[BlockView | None]:
    """Do again what was undone last; None: that was its deletion. Raises InvalidRequest when nothing was undone, or when
    an edit came since.
    """
    label = yield from resolve(keys, block_id)
    reply = yield from send(keys, OPERATOR, "redo", label=label, **terms)
    return block_of(reply) if reply.get("block") is not None else None


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
    shown = {one["label"]: block_of(one) for one in reply["results"] if "block" in one}
    blocks: list[BlockView] = []
    for result in reply["results"]:
        label = result["label"]
        if label not in shown:  # more than a reply shows: as it is by now
            shown[label] = yield from retrieve(keys, label)
        blocks.append(shown[label])
    return blocks


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
