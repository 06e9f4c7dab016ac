"""The properties of an agent: what may be said of it in its `agent.yaml`, and how the journal holds it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidField, MergeConflict
from blocksd.model.block import Block, check_text, fields_and_errors
from blocksd.model.label import MAX_AGENT_BYTES, RESERVED, is_properties, parse_agent, parse_label, properties_label

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_CHARS = 200
"""How many characters the name and the type of an agent may have."""

_NOT_OF_IDS = re.compile(r"[^\w.-]+")
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


def id_of_name(name: str, number: int) -> str:
    """Return an id that is made of a name, for the `number`-th agent of that name."""
    text = _NOT_OF_IDS.sub("-", name).strip("-.") or "agent"
    text = f"agent-{text}" if text in RESERVED else text
    end = "" if number == 1 else f"-{number}"
    while len(text.encode()) + len(end) > MAX_AGENT_BYTES:
        text = text[:-1]
    return text + end


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
    return Block(properties_label(agent), _dumped(properties.said))


def _dumped(said: Mapping[str, Any]) -> str:
    return json.dumps({key: said[key] for key in PROPERTIES if key in said}, ensure_ascii=False, indent=1)


def properties_of(block: Block | None) -> Properties:
    """Return the properties that a block holds; None holds none."""
    given = json.loads(block.value) if block is not None else {}
    return Properties(**{**given, "tags": tuple(given.get("tags", ()))})


def changed_properties(before: Block | None, after: Block) -> tuple[str, ...]:
    """Return the names of the properties in which two blocks of them differ."""
    old, new = properties_of(before), properties_of(after)
    return tuple(key for key in PROPERTIES if getattr(old, key) != getattr(new, key))


def merged_properties(base: str, ours: str, theirs: str) -> str:
    """Merge two values of such blocks, both made of `base`: every property that either changed.

    Raise MergeConflict if they changed one in different ways.
    """
    was, mine, other = (json.loads(value or "{}") for value in (base, ours, theirs))
    both = dict(other)
    for key in PROPERTIES:
        before, one, two = (said.get(key) for said in (was, mine, other))
        if one in (before, two):
            continue
        if two != before:
            raise MergeConflict(f"{key} was changed in two ways", field=key, base=before, ours=one, theirs=two)
        both[key] = one
    return _dumped({key: value for key, value in both.items() if value is not None})


def lines_of(block: Block) -> list[str]:
    """Return the lines of a block, to compare it with other versions; properties have one for each, and for each item."""
    if not is_properties(block.label):
        return block.value.split("\n") if block.value else []
    said = json.loads(block.value or "{}")
    items = {key: list(value.items()) if isinstance(value, dict) else value for key, value in said.items()}
    pieces = ((key, one) for key, value in items.items() for one in (value if isinstance(value, list) else [value]))
    return [f"{key}: {json.dumps(one)}" for key, one in pieces]
