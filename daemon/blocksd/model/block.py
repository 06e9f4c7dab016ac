"""`Block`, an immutable value; limits and defaults."""

from __future__ import annotations

import json
import math
import re
import uuid
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from hashlib import blake2b, sha1
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidField, InvalidLabel, LimitExceeded
from blocksd.model.label import name_for_agent, owner, parse_agent_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

DEFAULT_LIMIT = 20_000
MAX_LIMIT = 4 * 1024 * 1024
"""A limit above the largest file that is read would promise what cannot be kept."""

# The texts of Letta's default descriptions, so that an agent moved here sees the prompt it knows.
_DESCRIPTIONS = {
    "persona": "The persona block: Stores details about your current persona, guiding how you behave and respond. "
    "This helps you to maintain consistency and personality in your interactions.",
    "human": "The human block: Stores key details about the person you are conversing with, allowing for more "
    "personalized and friend-like conversation.",
}

_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
is_unfit = _UNFIT.search
"""Returns something if no text of a block may hold this: `check_text` says why."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_DEPTH = 32
_FEW_AGENTS = 16  # longer lists are not remembered
_INTEGERS = 10**18  # what a frontmatter can say: see `frontmatter`
_quoted = json.encoder.encode_basestring  # in JSON, as `_CANONICAL` has a text
_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
_ID_NAMESPACE = uuid.UUID("7f1bba34-5a3c-5f0e-9c55-0d6a3c1f4b7e")


@dataclass(frozen=True, slots=True)
class Block:
    """A labelled piece of text in the context window of the agents attached to it.

    `agents` is the attachment set as its author wrote it: ids, `*`, patterns. Who is attached at the moment depends on
    the agents known, and is part of a revision. `metadata` is never changed in place.
    """

    label: str
    value: str = ""
    description: str | None = None
    limit: int = DEFAULT_LIMIT
    read_only: bool = False
    hidden: bool = False
    tags: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    agents: tuple[str, ...] = ()
    project_id: str | None = None
    is_template: bool = False
    template_name: str | None = None
    template_id: str | None = None
    base_template_id: str | None = None
    deployment_id: str | None = None
    entity_id: str | None = None
    preserve_on_migration: bool = False
    _facts: str = field(default="", repr=False, compare=False)

    @property
    def name(self) -> str:
        """The name by which an attached agent calls it."""
        return name_for_agent(self.label)

    @property
    def facts(self) -> str:
        """Every field but `value` and `agents`, as compact JSON with sorted keys.

        It is made once, and most new versions of a block take it over from the last: only their value is new.
        """
        if not self._facts:
            object.__setattr__(self, "_facts", facts_of(self.label, {name: getattr(self, name) for name in _FACTS}))
        return self._facts

    @property
    def digest(self) -> str:
        """BLAKE2b-128, in hex, of `facts`, a newline and the value, in UTF-8."""
        return blake2b(f"{self.facts}\n{self.value}".encode(), digest_size=16).hexdigest()

    def named(self, label: str) -> Block:
        """Return the block under another label; a description that comes with a name is that of the new name then."""
        description = self.description
        if description == default_description(self.label):
            description = default_description(label)
        return replace(self, label=label, description=description, _facts="")

    def as_json(self) -> dict[str, Any]:
        """Return every field but `agents`, as JSON types."""
        return {name: getattr(self, name) for name in _JSON_FIELDS}

    def changed_fields(self, other: Block) -> tuple[str, ...]:
        """Return the names of the fields in which `other` differs, in the order of the class."""
        pairs = zip(_ALL_FIELDS, _values_of(self), _values_of(other), strict=True)
        return tuple([name for name, mine, theirs in pairs if mine is not theirs and mine != theirs])


def fields_changed(known: Block | None, block: Block) -> tuple[str, ...]:
    """Return the fields in which a block differs from the known one; of a new block, those that are not at their defaults."""
    if known is not None:
        return known.changed_fields(block)
    pairs = zip(_ALL_FIELDS, _PLAIN, _values_of(block), strict=True)
    return tuple([name for name, plain, mine in pairs if mine is not plain and mine != plain][1:])  # but its label


_ALL_FIELDS = tuple(f.name for f in fields(Block) if f.name != "_facts")
_values_of = attrgetter(*_ALL_FIELDS)
_PLAIN = _values_of(Block(""))
_JSON_FIELDS = tuple(name for name in _ALL_FIELDS if name != "agents")
_FACTS = tuple(name for name in _JSON_FIELDS if name != "value")

_DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(Block) if f.name in _FACTS} | {
    "label": "",
    "metadata": {},
}


_DEFAULT_FACTS = {name: f'"{name}":{_CANONICAL.encode(value)}' for name, value in sorted(_DEFAULTS.items())}


def facts_of(label: str, given: Mapping[str, Any]) -> str:
    """Return `Block.facts` of a block with these fields; the others are at their defaults.

    Of most blocks most fields are, so their JSON is put together from what was made before.
    """
    facts = _DEFAULT_FACTS.copy()
    facts["label"] = f'"label":{_quoted(label)}'
    for name, value in given.items():
        if name in facts and name != "label" and value is not _DEFAULTS[name]:
            facts[name] = f'"{name}":{_in_json(value)}'
    return f"{{{','.join(facts.values())}}}"


def _in_json(value: object) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, tuple):
        return f"[{','.join(map(_quoted, value))}]"  # of texts, each of which takes less than a list does
    return str(value) if type(value) is int else _CANONICAL.encode(value)


FILE_KEYS = tuple(name for name in _ALL_FIELDS if name not in ("label", "value"))
"""The keys a frontmatter may have: every field but the label (the path) and the value (the body)."""


@lru_cache(maxsize=256)  # of blocks that are changed again and again
def block_id(origin: str) -> str:
    """Return the id that is made of an origin: the label that a block was created under, or another of `origins_of`.

    It is the same in every namespace, on every machine, for good.
    """
    # uuid.uuid5, without the object in between: this is done for every block of a folder.
    digest = bytearray(sha1(_ID_NAMESPACE.bytes + origin.encode()).digest()[:16])  # noqa: S324  # RFC 9562 has it so
    digest[6] = digest[6] & 0x0F | 0x50
    digest[8] = digest[8] & 0x3F | 0x80
    text = digest.hex()
    return f"block-{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def origins_of(label: str) -> Iterator[str]:
    """Yield what the id of a block may be made of that is created under a label: the label, or what no label can be."""
    yield label
    for number in count(2):
        yield f"{label}\n{number}"


def default_description(label: str) -> str | None:
    """Return the description of a block without one; None unless it is a persona or a human."""
    return _DESCRIPTIONS.get(name_for_agent(label).removeprefix("system/"))


def check_text(text: str, field_name: str) -> None:
    """Raise InvalidField when `text` holds a control character other than tab and newline, or half of a surrogate pair.

    Facts: `field`, `line` (from 1, within the text).
    """
    found = _UNFIT.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        kind = "lone surrogate" if found[0] >= "\ud800" else "control character"
        raise InvalidField(f"{field_name} holds the {kind} U+{ord(found[0]):04X}", field=field_name, line=line)


def check_value(value: str, limit: int) -> None:
    """Check a value by the rules that hold on every path it can come by.

    Raises:
        LimitExceeded: it has more code points than `limit`.
        InvalidField: it holds a control character other than tab and newline.
    """
    if len(value) > limit:
        raise LimitExceeded(
            f"Exceeds character limit: value is {len(value)} characters, over its limit of {limit}",
            chars=len(value),
            limit=limit,
        )
    check_text(value, "value")


def check_fields(label: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a block from those in a frontmatter or a request: types checked, never coerced.

    Keys that are no field are left out; null stands for a field's default, like an absent key.
    Raise InvalidField if a field has a value of the wrong type or out of range.
    """
    fields, errors = fields_and_errors(label, given)
    if errors:
        raise errors[0]
    return fields


def fields_and_errors(label: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[InvalidField]]:
    """Return the same, of the fields that are right, and an error for each of the others."""
    result: dict[str, Any] = {}
    errors: list[InvalidField] = []
    for key, value in given.items():
        check = _CHECKS.get(key)
        if check is not None and value is not None:
            try:
                result[key] = check(key, value)
            except InvalidField as error:
                errors.append(error)
    if result.get("agents") and owner(label) is not None:
        message = f"a private block belongs to {owner(label)!r} alone: it cannot have an 'agents' key"
        errors.append(InvalidField(message, field="agents", label=label, owner=owner(label)))
    if "description" not in result:
        result["description"] = default_description(label)
    return result, errors


def default_block(label: str) -> Block:
    """Return a block whose fields are all at their defaults."""
    return Block(label, description=default_description(label))


def replaced(block: Block, changes: Mapping[str, Any]) -> Block:
    """Return the block with these fields changed."""
    new = replace(block, **changes)
    return replace(new, _facts="") if not changes.keys().isdisjoint(_FACTS) else new


def _wrong(key: str, wanted: str, value: object) -> InvalidField:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    if len(shown) > 40:
        shown = shown[:39] + "…"
    return InvalidField(f"{key} must be {wanted}, not {shown}", field=key)


def _text(key: str, value: object) -> str:
    if not isinstance(value, str):
        raise _wrong(key, "text", value)
    if is_unfit(value):
        check_text(value, key)
    return value


def _flag(key: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _wrong(key, "true or false", value)
    return value


def _limit(key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_LIMIT:
        raise _wrong(key, f"a whole number from 1 to {MAX_LIMIT}", value)
    return value


def _tags(key: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(tag, str) and tag for tag in value):
        raise _wrong(key, "a list of texts", value)
    return tuple(dict.fromkeys([_text(key, tag) for tag in value]))


def _metadata(key: str, value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _wrong(key, "a mapping", value)
    if not _storable(value, _MAX_DEPTH):
        raise InvalidField(
            f"{key} must be text, numbers of at most 18 digits, true, false, null, lists and mappings, at most "
            f"{_MAX_DEPTH} deep",
            field=key,
        )
    return value


def _storable(value: object, depth: int) -> bool:
    """Return True if JSON, UTF-8 and YAML can hold `value`: a request may bring NaN, lone surrogates, a thousand brackets."""
    if isinstance(value, str):
        return not _SURROGATE.search(value)
    if isinstance(value, (list, tuple)):
        return depth > 0 and all(_storable(item, depth - 1) for item in value)
    if isinstance(value, dict):
        return depth > 0 and all(
            isinstance(name, str) and _storable(name, depth) and _storable(item, depth - 1)
            for name, item in value.items()
        )
    if isinstance(value, int):
        return -_INTEGERS < value < _INTEGERS
    return value is None or (isinstance(value, float) and math.isfinite(value))


def _agents(key: str, value: object) -> tuple[str, ...]:
    if value == "*":
        return ("*",)
    if not isinstance(value, (list, tuple)) or not all(isinstance(agent, str) for agent in value):
        raise _wrong(key, "a list of agent ids", value)
    try:
        return _patterns(tuple(value)) if len(value) <= _FEW_AGENTS else _patterns.__wrapped__(tuple(value))
    except InvalidLabel as error:
        raise InvalidField(f"agents: {error.message}", field=key) from None


@lru_cache(maxsize=4096)
def _patterns(agents: tuple[str, ...]) -> tuple[str, ...]:
    """Return the entries in their one spelling: the same object for many blocks, of which many have the same agents."""
    return tuple(dict.fromkeys(map(parse_agent_pattern, agents)))


_CHECKS: dict[str, Callable[[str, object], object]] = {
    "description": _text,
    "limit": _limit,
    "read_only": _flag,
    "hidden": _flag,
    "tags": _tags,
    "metadata": _metadata,
    "agents": _agents,
    "project_id": _text,
    "is_template": _flag,
    **dict.fromkeys(("template_name", "template_id", "base_template_id", "deployment_id", "entity_id"), _text),
    "preserve_on_migration": _flag,
}

TEXT_KEYS = tuple(key for key, check in _CHECKS.items() if check is _text)
"""The frontmatter keys whose values are text."""

FLAG_KEYS = tuple(key for key, check in _CHECKS.items() if check is _flag)
LIST_KEYS = ("tags", "agents")
