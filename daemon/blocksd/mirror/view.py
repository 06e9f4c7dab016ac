"""Blocks and agents as the mirror shows them, and pages of a list."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from operator import itemgetter
from typing import Any, Generic, Self, TypeVar, overload

from blocksd.errors import Damaged
from blocksd.model.block import FILE_KEYS, TEXT_KEYS
from blocksd.model.label import is_properties, name_for_agent
from blocksd.model.properties import PROPERTIES
from blocksd.model.revision import timestamp

T = TypeVar("T")

_OURS = ("label", "id", "version", "value", "chars", "digest", "created_at", "updated_at", "updated_by")
_AT_ONCE = ("label", "value", "limit", "read_only", "hidden", "is_template")
_NEEDED = frozenset((*_AT_ONCE, *_OURS, "tags", "metadata", "preserve_on_migration"))
needed = itemgetter(*_AT_ONCE, *sorted(_NEEDED.difference(_AT_ONCE)))
_new = object.__new__
_json_of = json.JSONEncoder(ensure_ascii=False).encode  # `dumps` would make an encoder for each
short_name = lru_cache(maxsize=4096)(name_for_agent)
_TEXTS = frozenset(("label", "id", "value", "digest", "created_at", "updated_at", "updated_by", *TEXT_KEYS))
ORDER = (*_OURS[:5], *(key for key in FILE_KEYS if key != "agents"), *_OURS[5:])
"""The fields of a block as JSON."""


def incomplete(fields: Mapping[str, str]) -> Damaged:
    """Return the error for the hash of a block that has not all of the fields that are `needed`."""
    missing = ", ".join(sorted(_NEEDED - fields.keys()))
    return Damaged(f"the mirror shows an incomplete block {fields.get('label', '')!r}: {missing} missing")


def number(text: str) -> int:
    """Return a number in a hash. Raises Damaged if it is none."""
    try:
        return int(text)
    except ValueError:
        raise Damaged(f"the mirror shows {text[:20]!r} where a number must be") from None


class _Shown:
    """The fields that every prompt needs. They are set here, and never again once the object is a `BlockView`."""

    __slots__ = ("_fields", "description", "hidden", "is_template", "label", "limit", "name", "read_only", "value")

    _fields: Mapping[str, str]
    label: str
    name: str
    """The name of the block for the agents it is attached to."""
    value: str
    limit: int
    """The most characters (Unicode code points) the value may have."""
    description: str | None
    read_only: bool
    hidden: bool
    is_template: bool


class BlockView(_Shown):
    """One block, as it was when it was read. It never changes.

    Times are RFC 3339 texts in UTC. `client.blocks.agents.list(block.id)` lists the agents it is attached to.
    """

    __slots__ = ()

    def __new__(cls, fields: Mapping[str, str]) -> Self:
        """Take the fields of a hash. Raises Damaged if one is missing."""
        try:
            found = needed(fields)
        except KeyError:
            raise incomplete(fields) from None
        # Made as the mutable class, and turned at the end: setting slots past __setattr__ takes three times as long.
        view: Any = _new(_Shown)
        view._fields = fields
        view.label = label = found[0]
        view.name = short_name(label)
        view.value = found[1]
        view.limit = number(found[2])
        view.description = fields.get("description")
        view.read_only = found[3] == "true"
        view.hidden = found[4] == "true"
        view.is_template = found[5] == "true"
        view.__class__ = cls
        made: Self = view
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a block that was read cannot be changed: {name}")

    @property
    def id(self) -> str:
        """The id of the block: `block-` and a UUID."""
        return self._fields["id"]

    @property
    def chars(self) -> int:
        """The number of characters of the value."""
        return len(self.value)

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags, each once, in the order in which they are written."""
        return tuple(self._parsed("tags"))

    @property
    def metadata(self) -> dict[str, Any]:
        """The metadata, as JSON types."""
        metadata: dict[str, Any] = self._parsed("metadata")
        return metadata

    @property
    def version(self) -> int:
        """The number of the block's newest revision; never reused, not even after the block was deleted."""
        return number(self._fields["version"])

    @property
    def digest(self) -> str:
        """A digest of the block's content: equal blocks have equal digests."""
        return self._fields["digest"]

    @property
    def created_at(self) -> str:
        """The time when the block was created."""
        return self._fields["created_at"]

    @property
    def updated_at(self) -> str:
        """The time of the newest revision."""
        return self._fields["updated_at"]

    @property
    def updated_by(self) -> str:
        """The author of the newest revision: `file`, `operator` or an agent id."""
        return self._fields["updated_by"]

    @property
    def project_id(self) -> str | None:
        """A field of Letta, stored for compatibility, as the five that follow."""
        return self._fields.get("project_id")

    @property
    def template_name(self) -> str | None:
        """The name of the template it was made of."""
        return self._fields.get("template_name")

    @property
    def template_id(self) -> str | None:
        """The id of the template it was made of."""
        return self._fields.get("template_id")

    @property
    def base_template_id(self) -> str | None:
        """The id of the template's base."""
        return self._fields.get("base_template_id")

    @property
    def deployment_id(self) -> str | None:
        """The deployment it belongs to."""
        return self._fields.get("deployment_id")

    @property
    def entity_id(self) -> str | None:
        """The entity it belongs to."""
        return self._fields.get("entity_id")

    @property
    def preserve_on_migration(self) -> bool:
        """A field of Letta, stored for compatibility."""
        return self._fields["preserve_on_migration"] == "true"

    def as_json(self) -> dict[str, Any]:
        """Return every field, as JSON types."""
        return {name: self._parsed(name) for name in ORDER}

    def _parsed(self, name: str) -> Any:
        text = self._fields.get(name)
        if text is None or name in _TEXTS:
            return text
        if text == "[]":
            return []
        if text == "{}":
            return {}
        try:
            return json.loads(text)
        except ValueError:
            raise Damaged(f"the mirror shows an invalid {name} for {self.label!r}") from None

    def __eq__(self, other: object) -> bool:
        # A reply does not have the fields of the block's file.
        return isinstance(other, BlockView) and (self._fields == other._fields or self.as_json() == other.as_json())

    def __hash__(self) -> int:
        return hash((self.label, self.version, self.digest))

    def __repr__(self) -> str:
        return f"BlockView({self.label!r}, version={self.version}, chars={self.chars})"


def shown_as(label: str, fields: Mapping[str, str]) -> BlockView | None:
    """Return the block that a hash shows; None: the hash is empty, or belongs to another label."""
    return BlockView(fields) if fields and fields.get("label", label) == label else None


def view_of(block: Mapping[str, Any]) -> BlockView:
    """Return a block from its JSON in a reply, equal to one read from the mirror."""
    texts = {
        name: value if isinstance(value, str) else _text_of(value) for name, value in block.items() if value is not None
    }
    return BlockView(texts)


def _text_of(value: Any) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else _json_of(value)


@dataclass(frozen=True, slots=True)
class AgentView:
    """A known agent, with the blocks attached to it: the agent's name for the block → label."""

    id: str
    blocks: Mapping[str, str] = field(hash=False)
    memory: Any = field(default=None, compare=False, repr=False)
    """Of an agent that a blocking client has created or retrieved, its memory as a `BasicBlockMemory`; else None."""
    name: str = ""
    """Its name; the id, if its properties say none."""
    description: str | None = None
    agent_type: str | None = None
    system: str | None = None
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)
    created_at: str | None = None
    """When it became known; None, if it is not known."""
    updated_at: str | None = None
    """When its properties changed last; if they never did, when it became known."""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.id)

    @classmethod
    def of(cls, agent: str, blocks: Mapping[str, str], info: Mapping[str, str], ms: float | None = None) -> "AgentView":
        """Return an agent with the hash of its properties, empty if it has none, known since `ms`. Raises Damaged if it is none."""
        try:
            created_at = None if ms is None else timestamp(ms / 1000)
            updated_at = max(filter(None, (created_at, info.get("updated_at"))), default=None)
            tags, metadata = json.loads(info.get("tags", "[]")), json.loads(info.get("metadata", "{}"))
            shown: dict[str, Any] = {key: info.get(key) for key in ("description", "agent_type", "system")}
            shown |= {"tags": tuple(tags), "metadata": metadata, "created_at": created_at, "updated_at": updated_at}
            return cls(agent, blocks, None, info.get("name", agent), **shown)
        except (ValueError, TypeError, OverflowError, OSError):
            raise Damaged(f"the mirror does not show the properties of the agent {agent!r}") from None

    def as_json(self) -> dict[str, Any]:
        """Return the agent, as JSON types."""
        return {"agent": self.id, "blocks": self.blocks, **{key: getattr(self, key) for key in PROPERTIES}}


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version of a block: what its revision changed, and who made it.

    `chars` is the size of the value, None after a deletion. `reverts` are versions whose text it took away. `renamed_from` is
    the label before a renaming. `by` says who the operator was, if the request did. `block` is the whole block as it was, where it was asked for and not deleted;
    of an agent's `agent.yaml` that are its `properties`.
    """

    label: str
    version: int
    seq: int
    kind: str
    at: str
    author: str
    fields: tuple[str, ...]
    attached: tuple[str, ...]
    detached: tuple[str, ...]
    chars: int | None
    digest: str | None
    request_id: str | None
    reverts: tuple[int, ...]
    renamed_from: str | None
    block: BlockView | None = None
    by: str | None = None
    properties: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "VersionView":
        """Return a version as a reply tells of it. Raises Damaged if it does not."""
        try:
            block = facts.get("block")
            lists: dict[str, Any] = {name: tuple(facts[name]) for name in ("fields", "attached", "detached", "reverts")}
            names = ("label", "version", "seq", "kind", "at", "author", "chars", "digest", "request_id")
            lists |= {name: facts[name] for name in names}
            common: dict[str, Any] = {**lists, "renamed_from": facts["from"], "by": facts.get("by")}
            if block is not None and is_properties(facts["label"]):
                return cls(**common, properties={key: block[key] for key in PROPERTIES})
            return cls(**common, block=None if block is None else view_of(block))
        except (KeyError, TypeError):
            raise Damaged("a reply shows no version where one must be") from None


@dataclass(frozen=True, slots=True)
class FileView:
    """A text file of a source, as one agent sees it.

    `value` is its text while the agent has it open, at most `limit` characters; else None.
    """

    source: str
    path: str
    limit: int
    value: str | None
    opened_at: str | None

    @property
    def file(self) -> str:
        """The source and the path below it, by which the file is opened and closed."""
        return f"{self.source}/{self.path}"

    @property
    def is_open(self) -> bool:
        """True if the agent has the file open."""
        return self.value is not None


@dataclass(frozen=True, slots=True)
class Page(Sequence[T], Generic[T]):
    """A page of a list. Pass `next` as `after` to get the following page; None: this is the last one."""

    items: tuple[T, ...]
    next: str | None = None

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.items[index]
