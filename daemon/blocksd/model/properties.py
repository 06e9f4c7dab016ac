"""The properties of an agent: what may be said of it in its `agent.yaml`, and how the journal holds it."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidField
from blocksd.model.block import Block, check_text, fields_and_errors
from blocksd.model.label import is_properties, parse_agent, parse_label, properties_label

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_CHARS = 200
"""How many characters the name and the type of an agent may have."""

_ON_ONE_LINE = ("name", "agent_type")
_AS_OF_BLOCKS = ("description", "tags", "metadata")


@dataclass(frozen=True, slots=True)
class Properties:
    """Facts of an agent besides its blocks; None: the file does not say it. Without a `name` it is called by its id."""

    name: str | None = None
    description: str | None = None
    agent_type: str | None = None
    system: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> dict[str, Any]:
        """Those that are not at their defaults, as JSON types."""
        pairs = ((key, getattr(self, key)) for key in PROPERTIES)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in pairs if value or value == ""}


PROPERTIES = tuple(one.name for one in fields(Properties))
"""The keys that an `agent.yaml` may have."""


def properties_and_errors(given: Mapping[str, Any]) -> tuple[Properties, list[InvalidField]]:
    """Return the properties among these that are right, and an error for each of the others; null stands for the default."""
    found, errors = fields_and_errors("", {key: given[key] for key in _AS_OF_BLOCKS if key in given})
    for key in (*_ON_ONE_LINE, "system"):
        value = given.get(key)
        if value is None:
            continue
        try:
            found[key] = _text(key, value)
        except InvalidField as error:
            errors.append(error)
    return Properties(**found), errors


def parse_versioned(text: str) -> str:
    """Return the label of what has versions: of a block, or of an agent's properties. Raise InvalidLabel if it is neither."""
    return properties_label(parse_agent(text.split("/")[1])) if is_properties(text) else parse_label(text)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidField(f"{key} must be text, not {type(value).__name__}", field=key)
    if key in _ON_ONE_LINE and not (0 < len(value) <= MOST_CHARS and value.isprintable() and value == value.strip()):
        message = f"{key} must be 1 to {MOST_CHARS} printable characters, with no space at an end"
        raise InvalidField(message, field=key)
    check_text(value, key)
    return value


def block_of_properties(agent: str, properties: Properties) -> Block:
    """Return the block that holds them in the journal: its value is JSON, with a property on each line."""
    return Block(properties_label(agent), json.dumps(properties.said, ensure_ascii=False, indent=1))


def properties_of(block: Block | None) -> Properties:
    """Return the properties that a block holds; None holds none."""
    given = json.loads(block.value) if block is not None else {}
    return Properties(**{**given, "tags": tuple(given.get("tags", ()))})


def changed_properties(before: Block | None, after: Block) -> tuple[str, ...]:
    """Return the names of the properties in which two blocks of them differ."""
    old, new = properties_of(before), properties_of(after)
    return tuple(key for key in PROPERTIES if getattr(old, key) != getattr(new, key))
