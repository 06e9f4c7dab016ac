"""The tools that an MCP client is offered: their names, their arguments, what they answer, and how safe a call is.

All names begin with `memory_`: some clients show the tools of all their servers in one list. Names and arguments are those
of `client/tools.py`, but for `memory_append`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mcp_types import Tool as Listed
from mcp_types import ToolAnnotations

from blocksd.client.tools import TOOLS, Tool

_LABEL = TOOLS["memory_view"].parameters["label"]

LIST = Tool(
    "memory_list",
    "List your memory blocks: labels, descriptions, sizes, and which of them you may change.",
    {},
    "list",
)
VIEW = Tool(
    "memory_view",
    "Read a memory block as it is now: its description, its size and limit, and its value. Others may change shared "
    "blocks at any time.",
    {
        "label": _LABEL,
        "version": ("integer", "An earlier version to read instead, by its number in memory_history."),
    },
    "view",
    optional=("version",),
)
SEARCH = Tool(
    "memory_search",
    "Find a text in the labels, descriptions and values of your memory blocks, in capital or small letters alike.",
    {
        "query": ("string", "The text to find, word for word."),
        "limit": ("integer", "How many lines to return at most; 20 by default."),
    },
    "search",
    optional=("limit",),
)
HISTORY = Tool(
    "memory_history",
    "List the versions of a memory block, newest first: when each was made, by whom, and what it changed.",
    {"label": _LABEL, "limit": ("integer", "How many versions to return at most; 10 by default.")},
    "history",
    optional=("limit",),
)
UNDO = Tool(
    "memory_undo",
    "Undo the newest change of a memory block, no matter who made it. Called again, it undoes the change before. A private "
    "block that you deleted comes back.",
    {"label": _LABEL},
    "undo",
)

CALLED: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        LIST,
        VIEW,
        SEARCH,
        replace(TOOLS["core_memory_append"], name="memory_append"),
        TOOLS["memory_replace"],
        TOOLS["memory_insert"],
        TOOLS["memory_rethink"],
        TOOLS["memory_update_description"],
        TOOLS["memory_create"],
        TOOLS["memory_rename"],
        TOOLS["memory_delete"],
        HISTORY,
        UNDO,
    )
}
"""The tools by name, in the order in which they are listed."""

_READS = frozenset(("list", "view", "search", "history"))
_ADDS = frozenset(("append", "insert", "create_block"))
_MAY_BE_REPEATED = frozenset(("rethink", "update_block_description", "delete_block"))


def _object(**properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


_TEXT, _NUMBER, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
# Not `"type": ["string", "null"]`: clients that translate schemas for a model may refuse a tool for it.
_TEXT_OR_NONE, _NUMBER_OR_NONE = ({"anyOf": [kind, {"type": "null"}]} for kind in (_TEXT, _NUMBER))
_BLOCK: dict[str, dict[str, Any]] = {
    "label": _TEXT,
    "description": _TEXT_OR_NONE,
    "chars": _NUMBER,
    "limit": _NUMBER,
    "read_only": _FLAG,
    "private": {**_FLAG, "description": "True if no other agent has the block."},
    "version": _NUMBER,
    "updated_at": _TEXT,
    "updated_by": {**_TEXT, "description": "file (a person saved the file), operator, merge, or the id of an agent."},
}
_WRITTEN = _object(
    label=_TEXT,
    chars={**_NUMBER_OR_NONE, "description": "The size of the value; null if the block is deleted."},
    limit=_NUMBER_OR_NONE,
    version=_NUMBER_OR_NONE,
)
_OUTPUTS = {
    "list": _object(blocks={"type": "array", "items": _object(**_BLOCK)}),
    "view": _object(**_BLOCK, value=_TEXT),
    "search": _object(
        matches={
            "type": "array",
            "items": _object(
                label=_TEXT,
                line={**_NUMBER_OR_NONE, "description": "From 1; null if it is the label or the description."},
                text=_TEXT,
            ),
        },
        more={**_FLAG, "description": "True if there are more matches than were asked for."},
    ),
    "history": _object(
        label=_TEXT,
        versions={
            "type": "array",
            "items": _object(
                version=_NUMBER,
                at=_TEXT,
                author=_BLOCK["updated_by"],
                kind=_TEXT,
                fields={"type": "array", "items": _TEXT},
                chars=_NUMBER_OR_NONE,
            ),
        },
        more=_FLAG,
    ),
}
"""What each tool that reads answers, as JSON schemas; the others answer `_WRITTEN`."""


def listed() -> list[Listed]:
    """Return the tools as the protocol lists them."""
    return [_listed(tool) for tool in CALLED.values()]


def _listed(tool: Tool) -> Listed:
    definition, method = tool.definition, tool.method
    reads = method in _READS
    hints = ToolAnnotations(
        read_only_hint=reads,
        destructive_hint=not reads and method not in _ADDS,
        idempotent_hint=reads or method in _MAY_BE_REPEATED,
        open_world_hint=False,
    )
    return Listed(
        name=tool.name,
        description=definition["description"],
        input_schema=definition["parameters"],
        output_schema=_OUTPUTS.get(method, _WRITTEN),
        annotations=hints,
    )
