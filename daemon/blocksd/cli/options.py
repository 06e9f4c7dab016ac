"""The options that say which daemon is meant, and what follows from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from blocksd.errors import Unavailable
from blocksd.settings import config as configuration
from blocksd.settings.record import FoundUrl, running_daemon

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.client.blocking.client import Client
    from blocksd.settings.config import Config, Resolved


def daemon_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which daemon is meant."""
    for option in (
        click.option("--namespace", metavar="NAME", help="Which namespace of Redis.  [default: blocks]"),
        click.option(
            "--redis",
            metavar="URL",
            help="Which Redis: redis://, rediss://, unix://, redis+sentinel://, "
            "redis+cluster://.  [default: the running daemon's]",
        ),
        click.option(
            "--state-dir",
            metavar="DIR",
            type=click.Path(),
            help="Where the daemon keeps its journal.  [default: ~/.local/state/blocksd/NAMESPACE]",
        ),
        click.option(
            "--config",
            "config_path",
            metavar="FILE",
            type=click.Path(),
            help="Settings in TOML.  [default: blocksd.toml]",
        ),
    ):
        command = option(command)
    return command


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def load(flags: dict[str, Any]) -> Config:
    """The configuration, with what was typed before all else.

    Raises:
        Misconfigured: something in it is wrong.
    """
    return resolve(flags).config


def resolve(flags: dict[str, Any], *, file: str | None = None) -> Resolved:
    """As `load`, with where each setting comes from; `file` is the settings file where no flag names one."""
    settings = {name: value for name, value in flags.items() if name != "config_path"}
    return configuration.resolve(settings, path=flags.get("config_path") or file)


def daemon_of(config: Config) -> dict[str, str]:
    """What the daemon that is meant says of itself.

    Raises:
        Unavailable: it does not run.
    """
    daemon = running_daemon(config.state)
    if daemon is None:
        raise Unavailable(f"no daemon is running for the namespace {config.namespace!r} (state in {config.state})")
    return daemon


def url_of(config: Config) -> str:
    """Where Redis is: as configured, else as the running daemon says.

    Raises:
        Unavailable: no daemon runs that could say where.
    """
    return config.redis if config.redis is not None else FoundUrl(daemon_of(config)["redis"], config.state)


def open_client(config: Config) -> Client:
    """A reader of the mirror the daemon keeps, wherever that is.

    Raises:
        Unavailable: no daemon runs that could say where.
    """
    from blocksd.client.blocking.client import Client

    return Client(url_of(config), config.namespace)
