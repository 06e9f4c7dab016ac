"""TOML, credentials, environment and flags → one frozen `Config`."""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
import types
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args, get_origin, get_type_hints

from blocksd.errors import InvalidLabel, Misconfigured
from blocksd.model.label import parse_agent_pattern, parse_label, parse_namespace
from blocksd.settings.settings_file import SettingsFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Where = Callable[..., str]
    """Where a setting was made; of a table, by further keys, where what is in it was."""

CREDENTIAL = "blocksd.redis"
"""The systemd credential that holds the URL of the Redis server."""


def listen_address(text: str) -> tuple[str, int]:
    """Host and port to listen at: `9464` (of this machine alone), `127.0.0.1:9464`, `[::1]:9464`.

    Raises:
        Misconfigured: it has another form, or no such port can be.
    """
    found = re.fullmatch(r"(?:([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):)?([0-9]{1,5})", text)
    if found is not None and 1 <= int(found[2]) <= 65_535:
        host = (found[1] or "127.0.0.1").strip("[]")
        if found[1] is None or not found[1].startswith("[") or _is_ipv6(host):
            return host, int(found[2])
    raise Misconfigured(
        f"metrics must be a port from 1 to 65535, or host:port as in 127.0.0.1:9464 or [::1]:9464, not {text!r}"
    )


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _setting(
    default: Any,
    meaning: str,
    *,
    least: float | None = None,
    most: float | None = None,
    choices: tuple[str, ...] = (),
    check: Callable[[str], object] | None = None,
    example: Any = None,
    is_live: bool = False,
    is_secret: bool = False,
) -> Any:
    """A setting: what it means, and what it can be.

    `example` is for settings whose default is none. What `is_live` follows a reload, the rest needs a restart. What
    `is_secret` is shown to nobody as it is.
    """
    about = {
        "meaning": meaning,
        "least": least,
        "most": most,
        "choices": choices,
        "check": check,
        "example": default if example is None else example,
        "is_live": is_live,
        "is_secret": is_secret,
    }
    return field(default=default, repr=not is_secret, metadata=about)


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """A directory of text files that some agents see beside their blocks: `[sources.<name>]`.

    `mistake` says what is wrong with the table, and where: nothing of such a source is served, and everything else is.
    """

    name: str
    path: str = _setting("", "the directory", example="/srv/manuals")
    description: str | None = _setting(None, "what is in it, for the agents", example="Product manuals.")
    instructions: str | None = _setting(None, "what to do with it", example="Look things up here before you answer.")
    agents: tuple[str, ...] = _setting((), 'who sees it: ids and patterns, or "*"', example=["support-*"])
    limit: int = _setting(20_000, "how many characters of an open file are shown", least=1)
    mistake: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """What can be set.

    Precedence: flags, `BLOCKSD_<NAME>` in the environment, credentials of systemd, `blocksd.toml`, the defaults here.
    """

    folder: str = _setting("blocks.d", "the directory of block files")
    namespace: str = _setting(
        "blocks", "what every Redis key and channel starts with, before a colon", check=parse_namespace
    )
    redis: str | None = _setting(
        None,
        "URL of the Redis server; none: a server of our own is started",
        example="redis://127.0.0.1:6379/0",
        is_secret=True,
    )
    state_dir: str | None = _setting(
        None,
        "where the journal is kept; none: $STATE_DIRECTORY, or a directory of this user's, by namespace",
        example="/var/lib/blocksd",
    )
    resync_seconds: float = _setting(
        60.0, "how often the whole folder and the mirror are compared", least=0.1, is_live=True
    )
    delete_grace: float = _setting(
        1.0, "for how many seconds a file must be gone to count as deleted", least=0.0, is_live=True
    )
    stale_window: float = _setting(
        5.0,
        "for how many seconds after an agent's write a save may be of the text before it, and is merged",
        least=0.0,
        is_live=True,
    )
    poll: bool = _setting(default=False, meaning="do without file events: sweep every poll_seconds")
    poll_seconds: float = _setting(1.0, "how often to sweep when polling", least=0.05, is_live=True)
    history_versions: int = _setting(
        1000, "how many edits of each block are kept", least=1, most=1_000_000_000, is_live=True
    )
    history_days: float = _setting(
        0.0, "for how many days versions are kept; 0: for good", least=0.0, most=36_500.0, is_live=True
    )
    departed_days: float = _setting(
        30.0,
        "for how many days the deleted private blocks of an agent that is gone are kept; 0: for good",
        least=0.0,
        most=36_500.0,
        is_live=True,
    )
    durability: str = _setting(
        "disk",
        "what an acknowledged write survives: `disk`: power loss, `process`: kill -9",
        choices=("disk", "process"),
        is_live=True,
    )
    log_level: str = _setting(
        "info",
        "how much is logged: `error`, `warning`, `info` or `debug`",
        choices=("error", "warning", "info", "debug"),
        is_live=True,
    )
    log_format: str = _setting("text", "`text` or `json`, one line per event", choices=("text", "json"), is_live=True)
    metrics: str | None = _setting(
        None,
        "where to serve metrics for Prometheus: a port of this machine, or host:port; none: nowhere",
        check=listen_address,
        example="127.0.0.1:9464",
    )
    sources: tuple[SourceSettings, ...] = _setting(
        (), "directories of text files that agents see, a table for each", is_live=True
    )

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

    @property
    def sweep_seconds(self) -> float:
        """How often everything is compared."""
        return self.poll_seconds if self.poll else self.resync_seconds

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """Host and port where metrics are served."""
        return listen_address(self.metrics) if self.metrics is not None else None


SETTINGS = {setting.name: setting for setting in fields(Config)}
SOURCE_KEYS = {key.name: key for key in fields(SourceSettings) if key.metadata}


class Reload(NamedTuple):
    """What comes of a configuration that is read while another is in force."""

    config: Config
    """In force from now on."""
    changed: list[str]
    """The settings that are other ones now."""
    waiting: list[str]
    """Those that stay as they are until the next start."""


def reloaded(old: Config, new: Config) -> Reload:
    """What of a new configuration can come into force at once."""
    differing = [name for name in SETTINGS if getattr(old, name) != getattr(new, name)]
    changed = [name for name in differing if SETTINGS[name].metadata["is_live"]]
    config = replace(old, **{name: getattr(new, name) for name in changed})
    return Reload(config, changed, [name for name in differing if name not in changed])


# --- where settings come from ---


@dataclass(frozen=True, slots=True)
class Resolved:
    """The configuration, and where it comes from. `file` is the settings file that was read, if any."""

    config: Config
    file: str | None
    origins: Mapping[str, Where]

    def origin(self, name: str, *below: str) -> str:
        """Where a setting, or what is `below` it in a table, was made: `default`, if nowhere."""
        return self.origins[name](name, *below) if name in self.origins else "default"


def load(flags: Mapping[str, Any], *, path: str | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """The configuration in force. `flags` that are None were not given; `path` names the TOML file, which then must exist.

    Raises:
        Misconfigured: an unknown key, or a value of the wrong kind; the message says where it was set.
    """
    return resolve(flags, path=path, environ=environ).config


def resolve(flags: Mapping[str, Any], *, path: str | None = None, environ: Mapping[str, str] | None = None) -> Resolved:
    """As `load`, with where each setting comes from."""
    environ = os.environ if environ is None else environ
    path = path or environ.get("BLOCKSD_CONFIG") or next(filter(os.path.exists, _places(environ)), None)
    settings: dict[str, Any] = {}
    origins: dict[str, Where] = {}
    for name, value, where in (
        *(_from_file(SettingsFile(path)) if path is not None else ()),
        *_from_credentials(environ),
        *_from_environment(environ),
        *_from_flags(flags),
    ):
        settings[name], origins[name] = _checked(name, value, where), where
    return Resolved(Config(**settings), path, origins)


def _places(environ: Mapping[str, str]) -> list[str]:
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return ["blocksd.toml", os.path.join(home, "blocksd", "blocksd.toml"), "/etc/blocksd/blocksd.toml"]


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """A sentence for each variable of the environment that looks like a setting and is none."""
    known = [*(name.upper() for name in SETTINGS), "CONFIG"]
    names = [name.removeprefix("BLOCKSD_") for name in sorted(environ) if name.startswith("BLOCKSD_")]
    strange = [name for name in names if name not in known and not _NOT_OURS.match(name)]
    return [f"$BLOCKSD_{name} is no setting{_near(name, known, prefix='$BLOCKSD_')}" for name in strange]


_NOT_OURS = re.compile("(TEST|MACHINE)_|(SERVICE|PORT)(_|$)")
"""The test suite's variables, and those that Kubernetes sets for a service called `blocksd`."""


def _near(name: str, known: list[str], *, prefix: str = "") -> str:
    """The key that was probably meant."""
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean '{prefix}{near[0]}'?" if near else ""


def _hint(name: str, known: list[str]) -> str:
    """The key that was probably meant, else all there are."""
    return _near(name, known) or f"; the keys are {', '.join(known)}"


def _at(place: str) -> Where:
    return lambda *_: place


def _from_file(file: SettingsFile) -> Iterator[tuple[str, Any, Where]]:
    for name, value in file.content.items():
        if name not in SETTINGS:
            hint = _hint(name, list(SETTINGS))
            raise Misconfigured(f"{file.place(name)} has an unknown key {name!r}{hint}", key=name)
        yield name, value, file.place


def _from_credentials(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, Where]]:
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return
    path = os.path.join(directory, CREDENTIAL)
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return
    except OSError as error:
        raise Misconfigured(f"the credential {path} cannot be read: {error.strerror}", key="redis") from None
    except UnicodeDecodeError:
        raise Misconfigured(f"the credential {path} is not UTF-8", key="redis") from None
    if not text:
        raise Misconfigured(f"the credential {path} is empty: it holds the URL of the Redis server", key="redis")
    yield "redis", text, _at(f"credential {CREDENTIAL}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, Where]]:
    for name in SETTINGS:
        variable = f"BLOCKSD_{name.upper()}"
        if variable in environ:
            yield name, _parsed(_type_of(Config, name), environ[variable]), _at(f"${variable}")


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, Any, Where]]:
    for name, value in flags.items():
        if value is not None:
            yield name, value, _at("the argument FOLDER" if name == "folder" else f"--{name.replace('_', '-')}")


def _parsed(wanted: Any, text: str) -> Any:
    """What a text stands for; the text itself, when it stands for nothing that is wanted."""
    try:
        if wanted is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        return tomllib.loads(text) if wanted is tuple else wanted(text)
    except (KeyError, ValueError, RecursionError):
        return text


# --- what they can be ---


def _checked(name: str, value: Any, where: Where) -> Any:
    """The value of a setting.

    Raises:
        Misconfigured: it cannot have this one; the message says where it was set.
    """
    if name == "sources" and isinstance(value, dict):
        return tuple(_source(source, table, where) for source, table in value.items())
    if name == "metrics" and type(value) is int:  # as one writes a port
        value = str(value)
    try:
        return _fitting(Config, name, value)
    except Misconfigured as error:
        raise Misconfigured(f"{error.message} ({where(name)})", key=name) from None


def _fitting(table: type[Config | SourceSettings], name: str, value: Any) -> Any:
    """The value of a key of a table, if it can be that."""
    wanted, about = _type_of(table, name), table.__dataclass_fields__[name].metadata
    if wanted is float and type(value) is int:
        value = float(value)
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
    return str(value) if isinstance(value, int) else f"{value:g}"


def _source(name: str, table: Any, where: Where) -> SourceSettings:
    """One source; a mistake in it is kept, for the daemon to report."""
    try:
        return SourceSettings(name, **_source_settings(name, table))
    except (InvalidLabel, Misconfigured) as error:
        below = [key for key in [error.facts.get("key")] if isinstance(table, dict) and key in table]
        return SourceSettings(name, mistake=f"{error.message} ({where('sources', name, *below)})")


def _source_settings(name: str, table: Any) -> dict[str, Any]:
    if parse_label(name) != name or "/" in name:
        raise Misconfigured(f"{name[:80]!r} is no name of a source: it is letters, digits, '_', '-' and '.'")
    if not isinstance(table, dict):
        raise Misconfigured(f"a source is a table, not {table!r}")
    settings: dict[str, Any] = {}
    for key, value in table.items():
        if key not in SOURCE_KEYS:
            raise Misconfigured(f"there is an unknown key {key!r}{_hint(key, list(SOURCE_KEYS))}", key=key)
        settings[key] = _agents(value) if key == "agents" else _fitting(SourceSettings, key, value)
    if not settings.get("path") or "\0" in settings["path"]:
        raise Misconfigured("it has no path", key="path")
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
    tuple: "a table of sources",
}


def _type_of(table: type[Config | SourceSettings], name: str) -> Any:
    """What a key must be; a tuple is given as a table."""
    wanted = get_type_hints(table)[name]
    if isinstance(wanted, types.UnionType):
        return get_args(wanted)[0]
    return get_origin(wanted) or wanted
