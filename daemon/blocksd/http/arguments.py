"""Arguments of a request: the keys of a query and of a body, each of the type that it must have."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from blocksd.errors import InvalidField

if TYPE_CHECKING:
    from collections.abc import Container, Iterable

    from starlette.datastructures import QueryParams

_MOST_NUMBER = 2**53
_WORD = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_LONGEST_KEY = 80
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class Query:
    """The keys of a query. An empty text counts as not given."""

    def __init__(self, params: QueryParams) -> None:
        self._params = params

    def text(self, name: str) -> str | None:
        """Return a text, or None."""
        return self._params.get(name) or None

    def texts(self, *names: str) -> list[str]:
        """Return the texts of a key that may be there several times, under any of these names."""
        return [text for name in names for text in self._params.getlist(name) if text]

    def number(self, name: str, *, least: int = 0, most: int = _MOST_NUMBER) -> int | None:
        """Return a whole number, or None. Raise InvalidField if it is none, or out of range."""
        text = self.text(name)
        return None if text is None else _number(name, text, least, most)

    def numbers(self, *names: str) -> list[int]:
        """Return the numbers of a key that may be there several times."""
        return [_number(names[0], text, 0, _MOST_NUMBER) for text in self.texts(*names)]

    def flag(self, name: str) -> bool:
        """Return a truth value, false if it is not given. Raise InvalidField if it is none."""
        text = self.text(name)
        if text is None:
            return False
        if text.lower() not in _FLAGS:
            raise InvalidField(f"{name} must be true or false, not {text[:40]!r}", field=name)
        return _FLAGS[text.lower()]

    def choice(self, name: str, *choices: str) -> str:
        """Return one of these texts, the first if none is given. Raise InvalidField for another."""
        text = self.text(name) or choices[0]
        if text not in choices:
            raise InvalidField(f"{name} must be one of {', '.join(choices)}, not {text[:40]!r}", field=name)
        return text


def check_case(given: Iterable[str], known: Container[str]) -> None:
    """Check that no key is a known one in camelCase.

    Unknown keys are ignored, as Letta does. One that a program for another version of an SDK spells so would be, too: its
    agent would have no memory, and its search would find everything.

    Raises:
        InvalidField: one is.
    """
    for key in given:
        if not key.islower() and len(key) <= _LONGEST_KEY and key not in known:
            meant = _WORD.sub("_", key).lower()
            if meant in known:
                raise InvalidField(f"{key!r} is called {meant!r} here", field=key)


def _number(name: str, text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.removeprefix("-").isdigit() or len(text) > 20 or not least <= int(text) <= most:
        raise InvalidField(f"{name} must be a whole number from {least} to {most}, not {text[:40]!r}", field=name)
    return int(text)


def json_object(data: bytes, *, with_nulls: bool = False) -> dict[str, Any]:
    """Return the body of a request, without what is null, as SDKs send it for what shall stay. An empty body is `{}`.

    Raises:
        InvalidField: it is no JSON object in UTF-8.
    """
    if not data.strip():
        return {}
    try:
        found = json.loads(str(data, "utf-8-sig"))  # of bytes it would take UTF-16, and halves of surrogate pairs
        if b"\\u" in data:
            json.dumps(found, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise InvalidField(f"the body is not JSON: {str(error)[:200]}", field="body") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise InvalidField("the body must be a JSON object", field="body")
    return {name: value for name, value in found.items() if with_nulls or value is not None}


def text_of(body: dict[str, Any], name: str) -> str | None:
    """Return a text of a body, or None. Raise InvalidField if it is no text."""
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidField(f"{name} must be a text", field=name)
    return value


def list_of(body: dict[str, Any], name: str, kind: type) -> list[Any]:
    """Return a list of a body, empty if it is not given. Raise InvalidField if it is none of this kind."""
    value = body.get(name, [])
    if not isinstance(value, list) or not all(isinstance(one, kind) for one in value):
        raise InvalidField(f"{name} must be a list of {'objects' if kind is dict else 'texts'}", field=name)
    return value
