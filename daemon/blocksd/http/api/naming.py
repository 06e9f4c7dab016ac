"""Which block a path names, for this caller, and changes of it on the caller's condition."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from blocksd.client.reading_async import block_of_agent
from blocksd.errors import InvalidField, NotAttached, NotFound, VersionConflict
from blocksd.http.answers import JSONAnswer, PreconditionFailed
from blocksd.http.api.shapes import block_json
from blocksd.mirror.view import view_of
from blocksd.model.label import is_properties, name_for_agent, owner, parse_label
from blocksd.model.properties import parse_versioned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.http.call import Call
    from blocksd.mirror.view import BlockView

_ETAG = re.compile(r'(?:W/)?"([0-9]{1,16})(?:-[0-9a-f]{16})?"')


async def name_of(call: Call, agent: str, label: str) -> str:
    """Return the name that an agent has for a block, which may be deleted. Raises NotFound if the agent may not see it."""
    try:
        return (await block_of_agent(call.transport, agent, label)).name
    except (NotFound, NotAttached):
        return own_name(agent, label)


def own_name(agent: str, label: str) -> str:
    """Return the agent's name for a block of this label. Raises NotFound if the label is of another agent's block."""
    found = parse_label(label)
    if owner(found) not in (None, agent):
        raise NotFound(f"there is no block {found!r}", label=found)
    return name_for_agent(found)


async def shown(call: Call, block: BlockView, *, status: int = 200, **more: Any) -> JSONAnswer:
    """Return the answer that shows a block, with its version in the `ETag`. An agent is told of itself alone."""
    agents = [call.agent] if call.agent is not None else await call.blocks.agents.ids(block.label)
    return JSONAnswer({**block_json(block, agents), **more}, status, version=block.version)


async def change(
    call: Call, op: str, label: str, args: Mapping[str, Any] | None = None, **terms: Any
) -> dict[str, Any]:
    """Make a request to change a block, if it is of the version that `If-Match` names; the reply.

    Raises:
        PreconditionFailed: it is of another version.
    """
    expected = version_expected(call)
    if expected is not None:
        terms["expect_version"] = expected
    try:
        if call.agent is None and is_properties(label):
            return await call.ask(op, args, label=parse_versioned(label), **terms)
        if call.agent is None:
            return await call.change(op, label, args, **terms)
        return await call.ask(op, args, name=await name_of(call, call.agent, label), **terms)
    except VersionConflict as error:
        if expected is None:
            raise
        raise PreconditionFailed(error.message, **error.facts) from None


async def changed(call: Call, op: str, label: str, args: Mapping[str, Any] | None = None, **terms: Any) -> JSONAnswer:
    """Make a request to change a block, and return the answer that shows it; what is left of it, if it is deleted.

    Of an agent's properties the answer shows these.
    """
    reply = await change(call, op, label, args, **terms)
    more = {"rejected": reply["rejected"]} if "rejected" in reply else {}
    block, version = reply.get("block"), {"label": reply["label"], "version": reply["version"]}
    if block is None:
        return JSONAnswer({**version, **more})
    if is_properties(reply["label"]):
        return JSONAnswer({**version, **block, **more}, version=reply["version"])
    return await shown(call, view_of(block), **more)


def version_expected(call: Call) -> int | None:
    """Return the version that `If-Match` names; None: there is no condition. Raises InvalidField if it names none."""
    text = call.header("if-match")
    if text is None or text.strip() == "*":
        return None
    found = _ETAG.fullmatch(text.strip())
    if found is None:
        raise InvalidField('If-Match must be one version between quotes, as "3", or *', field="If-Match")
    return int(found[1])
