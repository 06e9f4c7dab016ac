"""The shapes of our answers: blocks, agents and versions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.http.description import ANYTHING, CARRIED, FLAG, NUMBER, TEXT, keys, listed, mapped, one_of, or_null
from blocksd.model.properties import PROPERTIES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from blocksd.http.description import Schema
    from blocksd.mirror.view import AgentView, BlockView, VersionView

_RENAMED = {"chars": "size", "updated_by": "author", "updated_at": "at"}

_BLOCK: dict[str, Schema] = {
    "label": TEXT,
    "id": TEXT,
    "version": NUMBER,
    "size": NUMBER,
    "description": or_null(TEXT),
    "limit": NUMBER,
    "read_only": FLAG,
    "hidden": FLAG,
    "tags": listed(TEXT),
    "metadata": mapped(ANYTHING),
    **{name: or_null(TEXT) for name in CARRIED},
    "is_template": FLAG,
    "preserve_on_migration": FLAG,
    "digest": TEXT,
    "author": TEXT,
    "at": TEXT,
    "created_at": TEXT,
}
_BRIEF = ("label", "version", "size", "limit", "description", "read_only", "tags")
_VERSION: dict[str, Schema] = {
    "label": TEXT,
    "version": NUMBER,
    "seq": NUMBER,
    "kind": one_of("created", "updated", "deleted", "renamed"),
    "at": TEXT,
    "author": TEXT,
    "by": or_null(TEXT),
    "fields": listed(TEXT),
    "attached": listed(TEXT),
    "detached": listed(TEXT),
    "size": or_null(NUMBER),
    "digest": or_null(TEXT),
    "request_id": or_null(TEXT),
    "reverts": listed(NUMBER),
    "from": or_null(TEXT),
}
_AGENT: dict[str, Schema] = {
    "name": TEXT,
    "description": or_null(TEXT),
    "agent_type": or_null(TEXT),
    "system": or_null(TEXT),
    "tags": listed(TEXT),
    "metadata": mapped(ANYTHING),
}
AGENT_SCHEMAS: dict[str, Schema] = {name: or_null(schema) for name, schema in _AGENT.items()}
"""The properties of an agent, as a body has them: null takes one away."""
SCHEMAS: dict[str, Schema] = {
    "Block": keys({**_BLOCK, "value": TEXT, "agents": listed(TEXT)}),
    "ListedBlock": keys({**_BLOCK, "shared_by": or_null(NUMBER)}),
    "BriefBlock": keys({**{name: _BLOCK[name] for name in _BRIEF}, "shared_by": or_null(NUMBER)}),
    "DeletedBlock": keys({"label": TEXT, "version": NUMBER}),
    "Properties": keys({"label": TEXT, "version": NUMBER, "agent": TEXT, **_AGENT, "name": or_null(TEXT)}),
    "Version": keys(_VERSION),
    "Agent": keys({"id": TEXT, **_AGENT, "blocks": listed(TEXT)}),
    "Error": keys({"detail": TEXT}, {"code": TEXT, "facts": mapped(ANYTHING)}),
}
"""The schemas that several routes refer to."""


def listed_block(block: BlockView, shared_by: int | None) -> dict[str, Any]:
    """Return a block as a list shows it: without its text, and with the number of agents that have it."""
    shown = {_RENAMED.get(name, name): value for name, value in block.as_json().items() if name != "value"}
    return {**shown, "shared_by": shared_by}


def block_json(block: BlockView, agents: Collection[str]) -> dict[str, Any]:
    """Return a block with its text, and with the agents attached to it."""
    shown = {_RENAMED.get(name, name): value for name, value in block.as_json().items()}
    return {**shown, "agents": sorted(agents)}


def agent_json(agent: AgentView) -> dict[str, Any]:
    """Return an agent, with the labels of its blocks."""
    shown = {name: getattr(agent, name) for name in PROPERTIES}
    return {"id": agent.id, **shown, "blocks": sorted(agent.blocks.values())}


def version_json(version: VersionView) -> dict[str, Any]:
    """Return a version, without the block as it was."""
    shown: Mapping[str, Any] = {name: getattr(version, _OF_VIEW.get(name, name)) for name in _VERSION}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()}


_OF_VIEW = {"size": "chars", "from": "renamed_from"}
