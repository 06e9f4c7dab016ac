"""TOML, environment and flags → one frozen `Config`."""

from __future__ import annotations

import difflib
import os
import tomllib
import types
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from blocksd.errors import InvalidLabel, Misconfigured
from blocksd.keys import Keys
from blocksd.label import parse_agent_pattern, parse_label

if TYPE_CHECKING:
    from collections.abc import Mapping


def _setting(default: Any, meaning: str, *, least: float | None = None) -> Any:
    return field(default=default, metadata={"meaning": meaning, "least": least})


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """A directory of text files that some agents see beside their blocks: `[sources.<name>]`.

    `agents` are ids, patterns or `*`; `limit` is how many characters of an open file are shown. `mistake` says what is
    wrong with the table: nothing of such a source is served, and everything else is.
    """

    name: str
    path: str = ""
    description: str | None = None
    instructions: str | None = None
    agents: tuple[str, ...] = ()
    limit: int = 20_000
    mistake: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """What can be set. Precedence: flags, `BLOCKSD_<NAME>` in the environment, `blocksd.toml`, the defaults here."""

    folder: str = _setting("blocks.d", "the directory of block files")
    namespace: str = _setting("blocks", "every Redis key and channel starts with it and a colon")
    redis: str | None = _setting(None, "URL of the Redis server; none: a server of our own is started")
    state_dir: str | None = _setting(None, "where the journal is kept; none: a directory of this user's, by namespace")
    resync_seconds: float = _setting(60.0, "how often the whole folder and the mirror are compared", least=0.1)
    delete_grace: float = _setting(1.0, "for how many seconds a file must be gone to count as deleted", least=0.0)
    poll: bool = _setting(default=False, meaning="do without file events: sweep every poll_seconds")
    poll_seconds: float = _setting(1.0, "how often to sweep when polling", least=0.05)
    history_versions: int = _setting(1000, "how many versions of each block are kept", least=1)
    history_days: float = _setting(0.0, "for how many days versions are kept; 0: for good", least=0.0)
    durability: str = _setting("disk", "what an acknowledged write survives: `disk`: power loss, `process`: kill -9")
    log_format: str = _setting("text", "`text` or `json`, one line per event")
    sources: tuple[SourceSettings, ...] = _setting((), "directories of text files that agents see, a table for each")

    @property
    def state(self) -> str:
        """The state directory in force."""
        if self.state_dir is not None:
            return os.path.abspath(self.state_dir)
        given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        if given:
            return given
        home = os.environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
        return os.path.join(home, "blocksd", self.namespace)


def load(flags: Mapping[str, Any], *, path: str | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in force. `flags` that are None were not given; `path` names the TOML file, which then must exist.

    Raises:
        Misconfigured: an unknown key, or a value of the wrong kind; the message says where it was set.
    """
    environ = os.environ if environ is None else environ
    settings: dict[str, Any] = {}
    file = path or environ.get("BLOCKSD_CONFIG") or next(filter(os.path.exists, _places(environ)), None)
    if file is not None:
        settings |= _from_toml(file)
    for setting in fields(Config):
        variable = f"BLOCKSD_{setting.name.upper()}"
        if variable in environ:
            settings[setting.name] = _parsed(setting.name, environ[variable], f"${variable}")
    for name, value in flags.items():
        if value is not None:
            settings[name] = _checked(name, value, f"--{name.replace('_', '-')}")
    config = Config(**settings)
    Keys(config.namespace)
    return config


def _places(environ: Mapping[str, str]) -> list[str]:
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return ["blocksd.toml", os.path.join(home, "blocksd", "blocksd.toml"), "/etc/blocksd/blocksd.toml"]


def _from_toml(file: str) -> dict[str, Any]:
    try:
        given = tomllib.loads(Path(file).read_text(encoding="utf-8"))
    except OSError as error:
        raise Misconfigured(f"{file} cannot be read: {error.strerror}", key="config") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Misconfigured(f"{file} is not TOML: {error}", key="config") from None
    names = [setting.name for setting in fields(Config)]
    for key in given:
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the keys are {', '.join(names)}"
            raise Misconfigured(f"{file} has an unknown key {key!r}{hint}", key=key)
    return {key: _checked(key, value, file) for key, value in given.items()}


def _parsed(name: str, text: str, where: str) -> Any:
    """A setting from text, as the environment has it."""
    wanted = _type_of(name)
    try:
        if wanted is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        return _checked(name, tomllib.loads(text) if wanted is tuple else wanted(text), where)
    except (KeyError, ValueError) as error:
        if isinstance(error, Misconfigured):
            raise
        raise Misconfigured(f"{name} must be {_NAMES[wanted]}, not {text!r} ({where})", key=name) from None


def _checked(name: str, value: Any, where: str) -> Any:
    wanted = _type_of(name)
    if wanted is tuple and isinstance(value, dict):
        return tuple(_source(source, table) for source, table in value.items())
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if type(value) is not wanted:
        raise Misconfigured(f"{name} must be {_NAMES[wanted]}, not {value!r} ({where})", key=name)
    least = next(setting.metadata["least"] for setting in fields(Config) if setting.name == name)
    if least is not None and not value >= least:
        raise Misconfigured(f"{name} must be at least {least:g}, not {value:g} ({where})", key=name)
    if name in _CHOICES and value not in _CHOICES[name]:
        one, other = _CHOICES[name]
        raise Misconfigured(f"{name} must be {one!r} or {other!r}, not {value!r} ({where})", key=name)
    return value


_CHOICES = {"log_format": ("text", "json"), "durability": ("disk", "process")}


def _source(name: str, table: Any) -> SourceSettings:
    """One source; a mistake in it is kept, for the daemon to report."""
    try:
        return SourceSettings(name, **_source_settings(name, table))
    except (InvalidLabel, Misconfigured) as error:
        return SourceSettings(name, mistake=error.message)


def _source_settings(name: str, table: Any) -> dict[str, Any]:
    if parse_label(name) != name or "/" in name:
        raise Misconfigured(f"{name[:80]!r} is no name of a source: it is letters, digits, '_', '-' and '.'")
    if not isinstance(table, dict):
        raise Misconfigured(f"a source is a table, not {table!r}")
    given = dict(table)
    if isinstance(given.get("agents"), str):
        given["agents"] = [given["agents"]]
    for key, value in given.items():
        wanted = _SOURCE_KEYS.get(key)
        if wanted is None:
            raise Misconfigured(f"there is an unknown key {key!r}; the keys are {', '.join(_SOURCE_KEYS)}")
        if type(value) is not wanted or (wanted is list and not all(isinstance(entry, str) for entry in value)):
            raise Misconfigured(f"{key} must be {_NAMES[wanted]}, not {value!r}")
    if not given.get("path") or "\0" in given["path"]:
        raise Misconfigured("it has no path")
    if given.get("limit", 1) < 1:
        raise Misconfigured(f"limit must be at least 1, not {given['limit']}")
    return given | {"agents": tuple(map(parse_agent_pattern, given.get("agents", ())))}


_SOURCE_KEYS: dict[str, Any] = {
    "path": str,
    "description": str,
    "instructions": str,
    "agents": list,
    "limit": int,
}
_NAMES: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    float: "a number",
    int: "a whole number",
    list: "a list of agent ids and patterns",
    tuple: "a table of sources",
}


def _type_of(name: str) -> Any:
    """What a setting must be; a tuple is given as a table."""
    wanted = get_type_hints(Config)[name]
    if isinstance(wanted, types.UnionType):
        return get_args(wanted)[0]
    return get_origin(wanted) or wanted
