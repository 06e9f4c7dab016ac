"""The descriptions of Letta's routes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.http.description import (
    ANYTHING,
    CARRIED,
    FLAG,
    NUMBER,
    TEXT,
    About,
    keys,
    known,
    listed,
    mapped,
    one_of,
    or_null,
)

if TYPE_CHECKING:
    from blocksd.http.description import Schema

_GIVEN: dict[str, Schema] = {
    "value": TEXT,
    "description": TEXT,
    "limit": NUMBER,
    "read_only": FLAG,
    "hidden": FLAG,
    "tags": listed(TEXT),
    "metadata": mapped(ANYTHING),
    "is_template": FLAG,
    **dict.fromkeys(CARRIED, TEXT),
    "preserve_on_migration": FLAG,
}
_FIELDS = {name: or_null(schema) for name, schema in _GIVEN.items()}
_BLOCK: dict[str, Schema] = {
    "id": TEXT,
    "label": TEXT,
    **{name: or_null(schema) if name in (*CARRIED, "description") else schema for name, schema in _GIVEN.items()},
    "created_by_id": or_null(TEXT),
    "last_updated_by_id": or_null(TEXT),
    "full_label": TEXT,
    "version": NUMBER,
    "digest": TEXT,
    "created_at": TEXT,
    "updated_at": TEXT,
}
_MEMORY = keys(
    {"agent_type": TEXT, "blocks": listed(known("LettaBlock")), "file_blocks": listed(mapped(ANYTHING))},
)
_PROPERTIES: dict[str, Schema] = {
    "name": TEXT,
    "description": or_null(TEXT),
    "agent_type": TEXT,
    "system": TEXT,
    "tags": listed(TEXT),
    "metadata": mapped(ANYTHING),
}
SCHEMAS: dict[str, Schema] = {
    "LettaBlock": keys(_BLOCK),
    "LettaMemory": _MEMORY,
    "LettaAgent": keys(
        {
            "id": TEXT,
            **_PROPERTIES,
            "blocks": listed(known("LettaBlock")),
            "memory": known("LettaMemory"),
            "created_at": or_null(TEXT),
            "updated_at": or_null(TEXT),
        }
    ),
}
"""The schemas that several routes refer to. Letta's SDKs send and accept further keys."""

_PAGE: dict[str, Schema] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 10_000},
    "after": TEXT,
    "before": TEXT,
    "order": one_of("asc", "desc"),
}
_CONDITIONS: dict[str, Schema] = {
    "label": TEXT,
    "label_search": TEXT,
    "description_search": TEXT,
    "value_search": TEXT,
    "tags": listed(TEXT),
    "match_all_tags": FLAG,
    "connected_to_agents_count_gt": NUMBER,
    "connected_to_agents_count_lt": NUMBER,
    "connected_to_agents_count_eq": listed(NUMBER),
    "templates_only": FLAG,
    "show_hidden_blocks": FLAG,
    "identity_id": TEXT,
    "project_id": TEXT,
    "name": TEXT,
}
_OWN = {name: or_null(schema) for name, schema in _PROPERTIES.items()}
_BLOCK_ANSWER, _AGENT_ANSWER = known("LettaBlock"), known("LettaAgent")

HEALTH = About("Say that blocks can be read.", answer=keys({"version": TEXT, "status": TEXT}))
TAGS = About("List the tags of blocks.", query={**_PAGE, "query_text": TEXT, "name": TEXT}, answer=listed(TEXT))

LIST_BLOCKS = About(
    "List blocks.",
    query={**_PAGE, "order_by": one_of("created_at", "updated_at", "label"), **_CONDITIONS},
    answer=listed(_BLOCK_ANSWER),
)
COUNT_BLOCKS = About("Count blocks.", query=_CONDITIONS, answer=NUMBER)
CREATE_BLOCK = About("Make a block.", body=keys({"label": TEXT}, _FIELDS), answer=_BLOCK_ANSWER)
RETRIEVE_BLOCK = About("Read a block, by its id or its label.", answer=_BLOCK_ANSWER)
UPDATE_BLOCK = About(
    "Change a block. null leaves a field as it is; `label` renames.",
    body=keys({}, {"label": or_null(TEXT), **_FIELDS}),
    answer=_BLOCK_ANSWER,
)
DELETE_BLOCK = About("Delete a block; its history stays.", answer={"type": "null"})
LIST_BLOCK_AGENTS = About(
    "List the agents that have a block.",
    query={**_PAGE, "order_by": one_of("created_at")},
    answer=listed(_AGENT_ANSWER),
)

LIST_AGENTS = About(
    "List agents, the newest first unless told otherwise.",
    query={
        **_PAGE,
        **dict.fromkeys(("order_by", "sort_by"), one_of("created_at", "updated_at", "last_run_completion")),
        "ascending": FLAG,
        "name": TEXT,
        "query_text": TEXT,
        "tags": listed(TEXT),
        "match_all_tags": FLAG,
        **dict.fromkeys(("identity_id", "project_id", "template_id", "base_template_id"), TEXT),
    },
    answer=listed(_AGENT_ANSWER),
)
CREATE_AGENT = About(
    "Make an agent, with private blocks, attached to others.",
    body=keys(
        {},
        {**_OWN, "memory_blocks": or_null(listed(keys({"label": TEXT}, _FIELDS))), "block_ids": or_null(listed(TEXT))},
    ),
    answer=_AGENT_ANSWER,
)
COUNT_AGENTS = About("Count agents.", answer=NUMBER)
RETRIEVE_AGENT = About("Read an agent, with its blocks.", answer=_AGENT_ANSWER)
UPDATE_AGENT = About(
    "Change properties of an agent, and the shared blocks attached to it.",
    body=keys({}, {**_OWN, "block_ids": or_null(listed(TEXT))}),
    answer=_AGENT_ANSWER,
)
DELETE_AGENT = About("Delete an agent, with its private blocks.", answer=keys({"message": TEXT}))

LIST_OWN_BLOCKS = About("List the blocks of an agent.", query=_PAGE, answer=listed(_BLOCK_ANSWER))
RETRIEVE_OWN_BLOCK = About("Read a block by the agent's name for it.", answer=_BLOCK_ANSWER)
UPDATE_OWN_BLOCK = About(
    "Change a block, named as the agent does.",
    body=keys({}, {"label": or_null(TEXT), **_FIELDS}),
    answer=_BLOCK_ANSWER,
)
ATTACH = About("Attach a block to an agent.", answer=_AGENT_ANSWER)
DETACH = About("Detach a block from an agent.", answer=_AGENT_ANSWER)
CORE_MEMORY = About("Read the memory of an agent.", answer=known("LettaMemory"))
VARIABLES = About("List the variables of a prompt: there are none.", answer=keys({"variables": mapped(ANYTHING)}))
CONTEXT = About("Read the compiled memory of an agent.", answer=keys({"core_memory": TEXT}))
RECOMPILE = About("Compile the memory of an agent.", answer=TEXT)
RUN_TOOL = About(
    "Call a tool for memory, as the agent.",
    body=keys({}, {"args": or_null(mapped(ANYTHING))}),
    answer=keys({"status": one_of("success", "error"), "func_return": TEXT}),
)
