"""Parses an entry of an inbox: its text → `Request`, or why it is none."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha1
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.errors import BlocksdError, InvalidRequest, Unavailable
from blocksd.model.revision import MAX_BY, OPERATOR, is_by

if TYPE_CHECKING:
    from collections.abc import Mapping

OPS = (
    "create",
    "update",
    "append",
    "replace",
    "insert",
    "patch",
    "delete",
    "undo",
    "redo",
    "restore",
    "merge",
    "rename",
    "save",
    "attach",
    "detach",
    "create_agent",
    "update_agent",
    "delete_agent",
    "batch",
    "open_file",
    "close_file",
    "history",
    "version",
    "status",
    "accept_deletions",
)
ON_CONFLICT = ("fail", "merge", "overwrite")
"""The ways to go on when the block is not of the version expected."""

MAX_BYTES = 1024 * 1024
"""How long a request may be, in UTF-8."""

MAX_DEPTH = 34
"""How many lists and objects may lie in one another: as deep as a block's `metadata`, and the request around it."""

MAX_NUMBER = 2**53
"""The greatest whole number: the greatest that every JSON library has exactly, and far from what SQLite can hold."""

MAX_NAME = 1000
"""How many characters a label or a name may have before its grammar is looked at, which takes longer than reading it."""

_KEYS = ("id", "op", "label", "name", "args", "expect", "on_conflict", "deadline", "by")
_KNOWN = frozenset(_KEYS)
_KEYS_OF_PARTS = ("op", "label", "name", "args", "expect", "on_conflict")
_ID = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_ID_IN_TEXT = re.compile(r'"id"\s*:\s*"([A-Za-z0-9_.-]{1,100})"')
_ID_WITHIN = 1000
_encode_sorted = json.JSONEncoder(sort_keys=True).encode


class Entry(NamedTuple):
    """One entry of an inbox: whose, its id in the stream, and the text of its field `request`, if it has one."""

    actor: str
    id: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """A request of an actor. The keys of the JSON that are not there are None; `args` is then empty."""

    entry: Entry
    id: str
    op: str
    args: Mapping[str, Any] = field(default_factory=dict)
    label: str | None = None
    name: str | None = None
    expect: int | None = None  # the version the block must have
    expect_id: str | None = None  # the id it must have
    on_conflict: str | None = None
    deadline: datetime | None = None
    by: str | None = None  # who the operator is
    mark: str = field(default="", compare=False)
    """A digest of all that is asked for, by which a request is known that is sent again; its deadline may differ."""

    @property
    def actor(self) -> str:
        return self.entry.actor

    def only(self, *names: str) -> None:
        """Raises InvalidRequest when there are arguments of other names."""
        for name in self.args:
            if name not in names:
                takes = f"it takes {', '.join(names)}" if names else "it takes none"
                raise InvalidRequest(f"{self.op} takes no argument {name[:80]!r}; {takes}", field=f"args.{name[:80]}")

    def text(self, name: str) -> str:
        """An argument that is a text and must be there."""
        text = self.args.get(name)
        if not isinstance(text, str):
            raise InvalidRequest(f"{self.op} needs the argument {name!r}, a text", field=f"args.{name}")
        return text

    def texts(self, *names: str) -> list[str]:
        """The arguments of these names, all of them texts; there are no others."""
        self.only(*names)
        return [self.text(name) for name in names]

    def number(self, name: str, default: int | None = None, *, least: int) -> int:
        """An argument that is a whole number from `least` to `MAX_NUMBER`."""
        number = self.args.get(name, default)
        if type(number) is not int or not least <= number <= MAX_NUMBER:
            raise InvalidRequest(f"{name} must be a whole number from {least} to {MAX_NUMBER}", field=f"args.{name}")
        return number

    def list_of(self, name: str) -> list[str]:
        """An argument that is a list of texts; empty when it is not there."""
        given = self.args.get(name) or []
        if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
            raise InvalidRequest(f"{name} must be a list of texts", field=f"args.{name}")
        return given

    def part(self, given: object) -> Request:
        """One request of a batch: whose it is, and until when it may be done, the batch says.

        Raises:
            InvalidRequest: it is none.
        """
        if not isinstance(given, dict):
            raise InvalidRequest("a request is an object", field="args.requests")
        for key in given:
            if key not in _KEYS_OF_PARTS:
                keys = ", ".join(_KEYS_OF_PARTS)
                raise InvalidRequest(
                    f"a request in a batch has no key {str(key)[:80]!r}; the keys are {keys}", field=str(key)[:80]
                )
        return _request(self.entry, {**given, "id": self.id}, self.id)

    def check_deadline(self, now: float) -> None:
        """Raises Unavailable when it is too late (`now` in seconds since 1970)."""
        if self.deadline is not None and self.deadline.timestamp() < now:
            raise Unavailable("the deadline has passed: nothing was done", field="deadline")


@dataclass(frozen=True, slots=True)
class Unusable:
    """An entry that is no request, and why. Without an `id` there is nowhere to reply to."""

    entry: Entry
    id: str | None
    error: BlocksdError


def parse(entry: Entry) -> Request | Unusable:
    """Parse an entry."""
    request_id: str | None = None
    try:
        given = _load(entry.text)
        request_id = _id_of(given)
        return _request(entry, given, request_id)
    except InvalidRequest as error:
        if request_id is None and error.facts["field"] == "request" and entry.text is not None:
            # It could not be read whole. Requests begin with their id.
            found = _ID_IN_TEXT.search(entry.text[:_ID_WITHIN])
            request_id = found[1] if found else None
        return Unusable(entry, request_id, error)


def _load(text: str | None) -> dict[str, Any]:
    if text is None:
        raise InvalidRequest("the entry has no field 'request'", field="request")
    try:
        size = len(text.encode("utf-8"))
        given = _decode(text) if size <= MAX_BYTES else {}
        if "\\u" in text:
            json.dumps(given, ensure_ascii=False).encode("utf-8")  # JSON can name half a character, UTF-8 cannot
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request is not JSON: {str(error)[:200]}", field="request") from None
    if size > MAX_BYTES:
        raise InvalidRequest(f"the request is {size} bytes, over the {MAX_BYTES} allowed", field="request")
    if not isinstance(given, dict):
        raise InvalidRequest("the request is not a JSON object", field="request")
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(given)
    return given


def _check_depth(given: dict[str, Any]) -> None:
    """Raises InvalidRequest when lists and objects lie deeper in one another than `MAX_DEPTH`."""
    layer: list[Any] = [given]
    for _ in range(MAX_DEPTH):
        layer = [
            inner
            for one in layer
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
        if not layer:
            return
    raise InvalidRequest(f"the request is nested over {MAX_DEPTH} deep", field="request")


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


_decode = json.JSONDecoder(parse_constant=_no_number).decode  # made once: to make it takes longer than to use it


def _id_of(given: dict[str, Any]) -> str | None:
    """Return the id of a request; None: what is given is none."""
    found = given.get("id")
    return found if isinstance(found, str) and _ID.fullmatch(found) else None


def _request(entry: Entry, given: dict[str, Any], request_id: str | None) -> Request:
    if request_id is None:
        raise InvalidRequest("id must be 1 to 100 letters, digits, '_', '-' and '.'", field="id")
    if not given.keys() <= _KNOWN:
        key = next(key for key in given if key not in _KNOWN)
        raise InvalidRequest(f"a request has no key {key[:80]!r}; the keys are {', '.join(_KEYS)}", field=key[:80])
    if None in given.values():
        given = {key: value for key, value in given.items() if value is not None}
    if given.get("op") not in OPS:
        raise InvalidRequest(
            f"op must be one of {', '.join(OPS)}, not {str(given.get('op'))[:80]!r}", field="op", known=OPS
        )
    for key in ("label", "name"):
        if not isinstance(given.get(key, ""), str):
            raise InvalidRequest(f"{key} must be text", field=key)
        if len(given.get(key, "")) > MAX_NAME:
            raise InvalidRequest(f"{key} is {len(given[key])} characters, over the {MAX_NAME} of any name", field=key)
    if not isinstance(given.get("args", {}), dict):
        raise InvalidRequest("args must be an object", field="args")
    expect, expect_id = _expected(given.get("expect"))
    on_conflict = _on_conflict(given.get("on_conflict"))
    op, label, name, args = given["op"], given.get("label"), given.get("name"), given.get("args", {})
    by = _by(given.get("by"), entry.actor)
    asked = [op, label, name, args, expect, on_conflict]  # the id expected only checks the label
    if by is not None:  # a request without has the digest it always had
        asked.append(by)
    mark = sha1(_encode_sorted(asked).encode()).hexdigest()[:16]  # noqa: S324  # no secret
    return Request(
        entry,
        request_id,
        op,
        args,
        label,
        name,
        expect,
        expect_id,
        on_conflict,
        _deadline(given.get("deadline")),
        by,
        mark,
    )


def _expected(expect: Any) -> tuple[int | None, str | None]:
    """Return the version and the id that the block must have."""
    if expect is None:
        return None, None
    given = expect if isinstance(expect, dict) and expect and expect.keys() <= {"version", "id"} else {"version": None}
    version, block_id = given.get("version", 0), given.get("id", "")
    if type(version) is not int or not 0 <= version <= MAX_NUMBER or type(block_id) is not str:
        raise InvalidRequest(
            f'expect must be {{"version": a whole number from 0 to {MAX_NUMBER}}}, {{"id": a text}}, or both',
            field="expect",
        )
    return given.get("version"), given.get("id")


def _on_conflict(text: Any) -> str | None:
    if text is not None and text not in ON_CONFLICT:
        raise InvalidRequest(f"on_conflict must be one of {', '.join(ON_CONFLICT)}", field="on_conflict")
    conflict: str | None = text
    return conflict


def _by(given: Any, actor: str) -> str | None:
    if given is None:
        return None
    if actor != OPERATOR:
        raise InvalidRequest(
            "by says who the operator is: the author of a request by an agent is the agent", field="by"
        )
    if not is_by(given):
        raise InvalidRequest(f"by must be 1 to {MAX_BY} printable characters, with no space at an end", field="by")
    by: str = given
    return by


def _deadline(text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        deadline = datetime.fromisoformat(text)
        if deadline.tzinfo is None:
            raise ValueError
        return deadline.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise InvalidRequest(
            "deadline must be a time as in RFC 3339, with its offset from UTC", field="deadline"
        ) from None
