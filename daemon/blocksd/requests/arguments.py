"""Reads and checks the arguments of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidField, InvalidRequest
from blocksd.files.document import normalize_newlines
from blocksd.model.block import FILE_KEYS, Block, check_fields, default_block
from blocksd.model.label import PRIVATE, owner, parse_agent, parse_label
from blocksd.model.nearest import nearest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.requests.request import Request

FIELDS = ("value", *FILE_KEYS)
"""The fields that a request may set."""

OF_AGENTS = ("value", "description")
"""Those that a request by an agent may set."""


def named(text: str | None, field: str, why: str) -> str:
    """The name of a block; `why` says who names it how, should it be missing."""
    if not isinstance(text, str):
        raise InvalidRequest(f"{why}: {field!r} is missing", field=field)
    return text


def private_label(agent: str, name: str) -> str:
    """The label of the private block that an agent calls so. Raise InvalidLabel if no block of its can be called so."""
    return parse_label(f"{PRIVATE}/{agent}/{parse_label(name)}")


def agents_of(request: Request) -> list[str]:
    """The only argument, `agents`: at least one id."""
    request.only("agents")
    agents = [parse_agent(agent) for agent in request.list_of("agents")]
    if not agents:
        raise InvalidField("agents must name at least one agent", field="args.agents")
    return agents


def check_shared(label: str, field: str) -> None:
    """Raise InvalidRequest if a block is private: it is attached to its agent, and to no other."""
    agent = owner(label)
    if agent is not None:
        message = f"{label!r} is private: it belongs to {agent!r} alone, and cannot be attached or detached"
        raise InvalidRequest(message, field=field, label=label, owner=agent)


def block_fields(label: str, args: Mapping[str, Any], *, is_operator: bool) -> dict[str, Any]:
    """The block fields among the arguments; null stands for the default."""
    allowed = FIELDS if is_operator else OF_AGENTS
    for key in args:
        if key not in FIELDS:
            near = nearest(key, FIELDS)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the fields are {', '.join(FIELDS)}"
            raise InvalidRequest(f"a block has no field {key[:80]!r}{hint}", field=f"args.{key[:80]}")
        if key not in allowed:
            raise InvalidRequest(f"an agent may change {' and '.join(allowed)}, not {key}", field=f"args.{key}")
    value = args.get("value")
    if value is not None and not isinstance(value, str):
        raise InvalidField(f"Provided value must be a string, not {type(value).__name__}", field="args.value")
    checked = check_fields(label, {key: given for key, given in args.items() if key != "value"})
    defaults = default_block(label)
    found = {
        key: checked[key] if given is not None and key in checked else getattr(defaults, key)
        for key, given in args.items()
        if key != "value"
    }
    if "value" in args:
        found["value"] = normalize_newlines(value or "")
    return found


def new_block(label: str, args: Mapping[str, Any], *, is_operator: bool) -> Block:
    """A block with the fields among the arguments, and else the defaults."""
    return Block(label, **{**check_fields(label, {}), **block_fields(label, args, is_operator=is_operator)})
