"""The settings: what each one means, its default and range, and which follow a reload."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from blocksd.errors import Misconfigured
from blocksd.model.block import MAX_LIMIT
from blocksd.model.label import parse_namespace
from blocksd.model.prompt import STYLES
from blocksd.model.revision import MAX_BY, is_by

if TYPE_CHECKING:
    from collections.abc import Callable


_YEAR = 31_536_000.0


def listen_address(text: str, name: str = "metrics") -> tuple[str, int]:
    """Return host and port to listen at: `9464` (of this machine alone), `127.0.0.1:9464`, `[::1]:9464`.

    Raise Misconfigured, which names the setting, if it has another form, or no such port can be.
    """
    found = re.fullmatch(r"(?:([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):)?([0-9]{1,5})", text)
    if found is not None and 1 <= int(found[2]) <= 65_535:
        host = (found[1] or "127.0.0.1").strip("[]")
        if found[1] is None or not found[1].startswith("[") or _is_ipv6(host):
            return host, int(found[2])
    raise Misconfigured(
        f"{name} must be a port from 1 to 65535, or host:port as in 127.0.0.1:9464 or [::1]:9464, not {text!r}"
    )


def _not_empty(text: str) -> None:
    """Raise Misconfigured if a directory's path is empty: that would be the working directory."""
    if not text:
        raise Misconfigured("state_dir must be the path of a directory, and is empty")


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _check_by(by: str) -> None:
    if not is_by(by):
        raise Misconfigured(f"by must be 1 to {MAX_BY} printable characters, with no space at an end, not {by[:120]!r}")


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
    """Declare a setting: its meaning and range.

    `example` is for settings whose default is none. `is_live`: it follows a reload; else it needs a restart.
    `is_secret`: its value is never shown.
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
    limit: int = _setting(20_000, "how many characters of an open file are shown", least=1, most=MAX_LIMIT)
    mistake: str = ""


@dataclass(frozen=True, slots=True)
class RenderSettings:
    """A file that `blocksd render` keeps up to date with an agent's memory: `[render.<name>]`.

    `mistake` is as in `SourceSettings`.
    """

    name: str
    agent: str = _setting("", "the agent whose memory it has", example="support-1")
    output: str = _setting("", "the file", example="~/project/CLAUDE.md")
    style: str | None = _setting(
        None, "the form of the text; none: that of the agent's type", choices=STYLES, example="standard"
    )
    mistake: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """The settings in force.

    Precedence: flags, `BLOCKSD_<NAME>` in the environment, credentials of systemd, `blocksd.toml`, the defaults here.
    """

    folder: str = _setting("blocks.d", "the directory of block files")
    namespace: str = _setting(
        "blocks", "what every Redis key and channel starts with, before a colon", check=parse_namespace
    )
    redis: str | None = _setting(
        None,
        "URL of the Redis server; none: the daemon starts a server itself",
        example="redis://127.0.0.1:6379/0",
        is_secret=True,
    )
    by: str | None = _setting(
        None,
        "who you are, in the history of what you change by commands and Python programs; none: nobody",
        check=_check_by,
        example="ann",
        is_live=True,
    )
    state_dir: str | None = _setting(
        None,
        "where the journal is kept; none: $STATE_DIRECTORY, or a directory of this user's, by namespace",
        check=_not_empty,
        example="/var/lib/blocksd",
    )
    resync_seconds: float = _setting(
        60.0,
        "how often the whole folder and the mirror are compared; a folder that takes long to compare, less often",
        least=0.1,
        most=_YEAR,
        is_live=True,
    )
    delete_grace: float = _setting(
        1.0, "for how many seconds a file must be gone to count as deleted", least=0.0, most=_YEAR, is_live=True
    )
    stale_window: float = _setting(
        5.0,
        "for how many seconds after an agent's write a save may be of the text before it, and is merged",
        least=0.0,
        most=_YEAR,
        is_live=True,
    )
    poll: bool = _setting(default=False, meaning="do without file events: sweep every poll_seconds")
    poll_seconds: float = _setting(1.0, "how often to sweep when polling", least=0.05, most=_YEAR, is_live=True)
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
    http: bool = _setting(default=False, meaning="serve over HTTP, too: `blocksd run` runs a `blocksd serve` beside it")
    listen: str = _setting(
        "127.0.0.1:8283",
        "where `blocksd serve` listens: a port of this machine, or host:port",
        check=partial(listen_address, name="listen"),
    )
    hosts: str | None = _setting(
        None,
        "names under which `blocksd serve` is reached, with commas between; none: this machine's",
        example="memory.example.com",
    )
    tokens: str | None = _setting(
        None,
        "who may use `blocksd serve`: lines of a role and a token; none: every program of this machine",
        example="reader 0123456789abcdef",
        is_secret=True,
    )
    tokens_file: str | None = _setting(None, "a file with lines as in tokens", example="/etc/blocksd/tokens")
    certificate: str | None = _setting(
        None, "a file with the TLS certificate of `blocksd serve`; none: no TLS", example="/etc/blocksd/tls.pem"
    )
    certificate_key: str | None = _setting(
        None, "a file with the key of the certificate; none: it is in the same file", example="/etc/blocksd/tls.key"
    )
    sources: tuple[SourceSettings, ...] = _setting(
        (), "directories of text files that agents see, a table for each", is_live=True
    )
    render: tuple[RenderSettings, ...] = _setting(
        (), "files that `blocksd render` keeps up to date with an agent's memory, a table for each", is_live=True
    )

    @property
    def state(self) -> str:
        """The state directory in force. Raise Misconfigured if none is named, and this user has no home directory."""
        if self.state_dir is not None:
            return os.path.abspath(self.state_dir)
        given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        return given or state_of_user(self.namespace)

    @property
    def sweep_seconds(self) -> float:
        """The seconds between two sweeps."""
        return self.poll_seconds if self.poll else self.resync_seconds

    @property
    def metrics_address(self) -> tuple[str, int] | None:
        """The host and port where metrics are served; None: nowhere."""
        return listen_address(self.metrics) if self.metrics is not None else None

    @property
    def gateway_address(self) -> tuple[str, int]:
        """The host and port where the gateway listens."""
        return listen_address(self.listen, "listen")


def state_of_user(namespace: str) -> str:
    """Return the state directory that a daemon of this user has for a namespace, unless another is named.

    Raise Misconfigured if this user has no home directory.
    """
    home = "" if os.environ.get("HOME") == "" else os.path.expanduser("~")  # that makes the root of an empty $HOME
    states = os.environ.get("XDG_STATE_HOME") or os.path.join(home, ".local", "state")
    if not os.path.isabs(states):
        raise Misconfigured("this user has no home directory, where the state directory would be", key="state_dir")
    return os.path.join(states, "blocksd", namespace)


SETTINGS = {setting.name: setting for setting in fields(Config)}
TABLES = {
    name: {key.name: key for key in fields(kind) if key.metadata}
    for name, kind in (("sources", SourceSettings), ("render", RenderSettings))
}
"""The settings that are tables of tables, and the keys of each."""


class Reload(NamedTuple):
    """The result of reading a configuration while another is in force."""

    config: Config
    """The configuration in force from now on."""
    changed: list[str]
    """The settings that have changed."""
    waiting: list[str]
    """Changed settings that wait for the next start."""


def reloaded(old: Config, new: Config) -> Reload:
    """Return the part of a new configuration that comes into force at once."""
    differing = [name for name in SETTINGS if getattr(old, name) != getattr(new, name)]
    changed = [name for name in differing if SETTINGS[name].metadata["is_live"]]
    config = replace(old, **{name: getattr(new, name) for name in changed})
    return Reload(config, changed, [name for name in differing if name not in changed])
