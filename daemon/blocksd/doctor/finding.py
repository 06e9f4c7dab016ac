"""A finding: the result of one check, for people and as JSON."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ok", "warning", "wrong", "unknown"]
"""`wrong`: a daemon cannot keep its promises. `warning`: it may fail one day, or something is at risk."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `check` is `<group>.<name>` and stable; `advice` says what to change, if anything."""

    check: str
    state: State
    message: str
    advice: str = ""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def size(count: int) -> str:
    """Return a number of bytes as text."""
    for exponent, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB")):
        if count >= 1024**exponent:
            return f"{count / 1024**exponent:.1f} {unit}"
    return f"{count // 1024} KiB"


def numbers(version: str) -> tuple[int, ...]:
    """Return a version's leading numbers: `8.2rc1` is 8, 2."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
