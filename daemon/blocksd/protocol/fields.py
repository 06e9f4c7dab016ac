"""The arguments of the client's methods: a block's fields as callers give them."""

from collections.abc import Collection, Iterable, Mapping
from enum import Enum
from typing import Any, Final, Required, TypedDict

from blocksd.errors import InvalidField
from blocksd.model.block import MAX_LIMIT
from blocksd.protocol.numbers import seconds, whole
from blocksd.protocol.wire import OnConflict


class Unchanged(Enum):
    """The type of `UNCHANGED`."""

    UNCHANGED = "UNCHANGED"

    def __repr__(self) -> str:
        return self.name


UNCHANGED: Final = Unchanged.UNCHANGED
"""The default of a field that is not given: it stays as it is. None stands for the field's own default."""


class Fields(TypedDict, total=False):
    """The fields of a block. None stands for a field's default; a field that is not given stays as it is."""

    value: str | None
    description: str | None
    limit: int | None
    read_only: bool | None
    hidden: bool | None
    tags: Collection[str] | None
    metadata: Mapping[str, Any] | None
    agents: Collection[str] | None
    """The agents it is attached to: ids, patterns (`support-*`), or `*` for every agent."""
    project_id: str | None
    is_template: bool | None
    template_name: str | None
    template_id: str | None
    base_template_id: str | None
    deployment_id: str | None
    entity_id: str | None
    preserve_on_migration: bool | None


class AgentBlock(Fields, total=False):
    """A private block of a new agent. `label` and `name` are the same: what the agent calls it."""

    label: str
    name: str


class Update(Fields, total=False):
    """One of several blocks to change, its new fields, and on which condition."""

    block_id: Required[str]
    expect_version: int | None
    on_conflict: OnConflict | None


FIELDS = tuple(Fields.__annotations__)
TERMS = ("expect_version", "on_conflict", "timeout_seconds", "request_id")
"""How a request to change one block is made."""


def given(arguments: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Of a method's arguments (its `locals()`), those with these names that are not UNCHANGED.

    Raises:
        InvalidField: a number among them is out of range, or none.
    """
    found = {name: arguments[name] for name in names if arguments[name] is not UNCHANGED}
    if found.get("limit") is not None:
        found["limit"] = whole("limit", found["limit"], 1, MAX_LIMIT)
    if found.get("expect_version") is not None:
        found["expect_version"] = whole("expect_version", found["expect_version"])
    if "timeout_seconds" in found:
        seconds("timeout_seconds", found["timeout_seconds"])
    return found


def text(value: object) -> str:
    """The value, which must be a text. Raises InvalidField when it is not."""
    if not isinstance(value, str):
        raise InvalidField("Provided value must be a string", field="value")
    return value


def listed(agents: str | Collection[str]) -> list[str]:
    """One agent, or several, as a list."""
    return [agents] if isinstance(agents, str) else list(agents)
