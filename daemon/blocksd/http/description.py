"""Descriptions: what a route takes and answers, as OpenAPI has it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = Mapping[str, Any]
"""A JSON schema, as OpenAPI 3.1 has them."""

TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
ANYTHING: Schema = {}

CARRIED = ("project_id", "template_name", "template_id", "base_template_id", "deployment_id", "entity_id")
"""The texts of a block that are Letta's: carried along, and never used."""


def or_null(schema: Schema) -> Schema:
    """Return a schema that null fits as well."""
    if "type" not in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    if isinstance(schema["type"], list):  # it fits already
        return schema
    return {
        **schema,
        "type": [schema["type"], "null"],
        **({"enum": [*schema["enum"], None]} if "enum" in schema else {}),
    }


def one_of(*texts: str) -> Schema:
    """Return the schema of one of these texts."""
    return {"type": "string", "enum": list(texts)}


def listed(schema: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema}


def mapped(schema: Schema) -> Schema:
    """Return the schema of an object with any keys."""
    return {"type": "object", "additionalProperties": schema}


def known(name: str) -> Schema:
    """Return a reference to a schema that is described once."""
    return {"$ref": f"#/components/schemas/{name}"}


def keys(needed: Mapping[str, Schema], may: Mapping[str, Schema] | None = None, *, others: bool = True) -> Schema:
    """Return the schema of an object: the keys that it must have, those that it may have, and if there may be others."""
    found: dict[str, Any] = {"type": "object", "properties": {**needed, **(may or {})}}
    if needed:
        found["required"] = list(needed)
    return found if others else {**found, "additionalProperties": False}


@dataclass(frozen=True, slots=True)
class About:
    """One route: a sentence, the keys of its query and body, and its answer.

    `needs` are those of the query that must be there.
    `answer` None: there is none in JSON. `shows_version`: its `ETag` begins with the block's version. `takes_version`: `If-Match` is obeyed.
    """

    summary: str
    query: Mapping[str, Schema] = field(default_factory=dict)
    needs: Collection[str] = ()
    body: Schema | None = None
    answer: Schema | None = field(default_factory=dict)
    status: int = 200
    media_type: str = "application/json"
    shows_version: bool = False
    takes_version: bool = False
