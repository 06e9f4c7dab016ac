"""Checks a value against what `config` says of its setting, wherever it was set."""

from __future__ import annotations

import math
import types
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from blocksd.errors import InvalidLabel, Misconfigured
from blocksd.model.label import is_plain, parse_agent, parse_agent_pattern, parse_label
from blocksd.model.nearest import nearest
from blocksd.settings.config import SETTINGS, TABLES, Config, RenderSettings, SourceSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    Where = Callable[..., str]
    """Returns the place of a setting; with further keys of its table, the place of one of those."""


def checked(name: str, value: Any, where: Where) -> Any:
    """Return the value of a setting.

    Raise Misconfigured if it cannot have this one; the message says where it was set.
    """
    if name not in SETTINGS:
        raise Misconfigured(f"{where(name)} has an unknown key {name!r}{hint(name, list(SETTINGS))}", key=name)
    if name in TABLES and isinstance(value, dict):
        return tuple(_table(name, one, table, where) for one, table in value.items())
    if name in ("metrics", "listen") and type(value) is int:  # as one writes a port
        value = str(value)
    try:
        return _fitting(Config, name, value)
    except Misconfigured as error:
        raise Misconfigured(f"{error.message} ({where(name)})", key=name) from None


def _fitting(table: type[Config | SourceSettings | RenderSettings], name: str, value: Any) -> Any:
    """Return the value of a key of a table, if it fits."""
    wanted, about = type_of(table, name), table.__dataclass_fields__[name].metadata
    if wanted is float and type(value) is int:
        try:
            value = float(value)
        except OverflowError:  # out of every range
            value = math.inf if value > 0 else -math.inf
    given = "" if about["is_secret"] else f", not {value!r}"
    if type(value) is not wanted:
        raise Misconfigured(f"{name} must be {_NAMES[wanted]}{given}", key=name)
    least, most, choices = about["least"], about["most"], about["choices"]
    if least is not None and not value >= least:
        raise Misconfigured(f"{name} must be at least {_number(least)}, not {_number(value)}", key=name)
    if most is not None and value > most:
        raise Misconfigured(f"{name} must be at most {_number(most)}, not {_number(value)}", key=name)
    if choices and value not in choices:
        *others, last = map(repr, choices)
        raise Misconfigured(f"{name} must be {', '.join(others)} or {last}{given}", key=name)
    if about["check"] is not None:
        about["check"](value)
    return value


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.10g}"


def _table(setting: str, name: str, table: Any, where: Where) -> SourceSettings | RenderSettings:
    """Return one source or output; it keeps a mistake in its table, for the daemon or the command to report."""
    kind: type[SourceSettings | RenderSettings] = SourceSettings if setting == "sources" else RenderSettings
    try:
        return kind(name, **_table_settings(setting, kind, name, table))
    except (InvalidLabel, Misconfigured) as error:
        below = [key for key in [error.facts.get("key")] if isinstance(table, dict) and key in table]
        return kind(name, mistake=f"{error.message} ({where(setting, name, *below)})")


def _table_settings(setting: str, kind: type[SourceSettings | RenderSettings], name: str, table: Any) -> dict[str, Any]:
    what, needed = ("a source", ("path",)) if kind is SourceSettings else ("an output", ("agent", "output"))
    if parse_label(name) != name or not is_plain(name):
        raise Misconfigured(f"{name[:80]!r} is no name of {what}: it is letters, digits, '_', '-' and '.'")
    if not isinstance(table, dict):
        raise Misconfigured(f"{what} is a table [{setting}.NAME], not {table!r}")
    settings: dict[str, Any] = {}
    for key, value in table.items():
        if key not in TABLES[setting]:
            raise Misconfigured(f"there is an unknown key {key!r}{hint(key, list(TABLES[setting]))}", key=key)
        if key == "output" and isinstance(value, list):
            raise Misconfigured(f"output must be one file, not {value!r}: each has a table [render.NAME]", key=key)
        settings[key] = _agents(value) if key == "agents" else _fitting(kind, key, value)
    for key in needed:
        if not settings.get(key) or "\0" in settings[key]:
            raise Misconfigured(f"it has no {key}", key=key)
    if "agent" in needed:
        try:
            parse_agent(settings["agent"])
        except InvalidLabel as error:
            raise Misconfigured(error.message, key="agent") from None
    return settings


def _agents(value: Any) -> tuple[str, ...]:
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise Misconfigured(f"agents must be a list of agent ids and patterns, not {value!r}", key="agents")
    try:
        return tuple(map(parse_agent_pattern, entries))
    except InvalidLabel as error:
        raise Misconfigured(error.message, key="agents") from None


_NAMES: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    tuple: "a table",
}


def type_of(table: type[Config | SourceSettings | RenderSettings], name: str) -> Any:
    """Return the type that a key must have; a tuple is given as a table."""
    wanted = get_type_hints(table)[name]
    if isinstance(wanted, types.UnionType):
        return get_args(wanted)[0]
    return get_origin(wanted) or wanted


def near(name: str, known: list[str], *, prefix: str = "") -> str:
    """Return a question for the key that was probably meant; empty if none is alike."""
    found = nearest(name, known)
    return f"; did you mean '{prefix}{found[0]}'?" if found else ""


def hint(name: str, known: list[str]) -> str:
    """Return a question for the key that was probably meant, else a list of all keys."""
    return near(name, known) or f"; the keys are {', '.join(known)}"
