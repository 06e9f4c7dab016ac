"""Checks numbers that programs give, before anything is made of them."""

from __future__ import annotations

from operator import index
from typing import Any

from blocksd.errors import InvalidField
from blocksd.requests.request import MAX_NUMBER

MOST_SECONDS = 365 * 24 * 60 * 60
"""The longest time to wait for a reply."""
_SHOWN = 40  # characters of a value that is refused
_BITS = 128  # of a whole number that is shown: Python refuses to write one of thousands of digits


def whole(name: str, value: Any, least: int = 0, most: int = MAX_NUMBER) -> int:
    """Return a whole number in this range. Raises InvalidField, which names the argument, when it is none."""
    try:
        number = None if isinstance(value, bool) else index(value)
    except TypeError:
        number = None
    if number is None or not least <= number <= most:
        message = f"{name} must be a whole number from {least} to {most}, not {_shown(value)}"
        raise InvalidField(message, field=name)
    return number


def seconds(name: str, value: Any) -> None:
    """Raise InvalidField, which names the argument, when nothing can be waited for so many seconds."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= MOST_SECONDS:
        message = f"{name} must be a number over 0 and at most {MOST_SECONDS}, not {_shown(value)}"
        raise InvalidField(message, field=name)


def _shown(value: object) -> str:
    if isinstance(value, int) and value.bit_length() > _BITS:
        return "a number that is far from it"
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
