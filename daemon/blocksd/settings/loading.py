"""Flags, environment, credentials and the settings file → one frozen `Config`, and where each setting comes from."""

from __future__ import annotations

import os
import re
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocksd.errors import Misconfigured
from blocksd.settings.checks import checked, near, type_of
from blocksd.settings.config import SETTINGS, Config, state_of_user
from blocksd.settings.settings_file import SettingsFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blocksd.settings.checks import Where

CREDENTIALS = {"redis": "blocksd.redis", "tokens": "blocksd.tokens"}
"""The settings that a systemd credential may hold, and the name of each credential."""

_NOT_OURS = re.compile("(TEST|MACHINE)_|(SERVICE|PORT)(_|$)")
"""The test suite's variables, and those that Kubernetes sets for a service called `blocksd`."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The configuration, and where it comes from. `file` is the settings file that was read, if any."""

    config: Config
    file: str | None
    origins: Mapping[str, Where]

    def origin(self, name: str, *below: str) -> str:
        """Return the place where a setting, or a key `below` it in a table, was made; `default` if nowhere."""
        return self.origins[name](name, *below) if name in self.origins else "default"


def load(flags: Mapping[str, Any], *, path: str | None = None, environ: Mapping[str, str] | None = None) -> Config:
    """Return the configuration in force. `flags` that are None were not given; `path` names a TOML file that must exist.

    Raise Misconfigured if an unknown key, or a value of the wrong kind; the message says where it was set.
    """
    return resolve(flags, path=path, environ=environ).config


def load_for_program(namespace: str | None, *, path: str | None = None, **flags: Any) -> Config:
    """Return the configuration for a program that looks for the daemon of this machine.

    What belongs to the program is not read: a `blocksd.toml` in its working directory, and the $STATE_DIRECTORY that
    systemd gave it. `path` names a file of settings that must exist, `flags` come before all other sources.
    """
    path = path or os.environ.get("BLOCKSD_CONFIG") or next(filter(os.path.exists, _places(os.environ)[1:]), None)
    config = resolve({"namespace": namespace, **flags}, path=path or os.devnull).config
    return config if config.state_dir is not None else replace(config, state_dir=state_of_user(config.namespace))


def resolve(
    flags: Mapping[str, Any],
    *,
    path: str | None = None,
    environ: Mapping[str, str] | None = None,
    mistakes: list[Misconfigured] | None = None,
) -> Resolved:
    """Return the same as `load`, and where each setting comes from.

    With `mistakes`, what is wrong in a file or in the environment is put there and left out, instead of raised.
    """
    environ = os.environ if environ is None else environ
    path = path or environ.get("BLOCKSD_CONFIG") or next(filter(os.path.exists, _places(environ)), None)
    settings: dict[str, Any] = {}
    origins: dict[str, Where] = {}

    def take(source: Iterator[tuple[str, Any, Where]], mistakes: list[Misconfigured] | None) -> None:
        with _noted(mistakes):
            for name, value, where in source:
                with _noted(mistakes):
                    settings[name], origins[name] = checked(name, value, where), where

    for source in (_from_file(path), _from_credentials(environ), _from_environment(environ)):
        take(source, mistakes)
    take(_from_flags(flags), None)
    return Resolved(Config(**settings), path, origins)


@contextmanager
def _noted(mistakes: list[Misconfigured] | None) -> Iterator[None]:
    """Put a mistake into the list instead of raising it, if there is a list."""
    try:
        yield
    except Misconfigured as error:
        if mistakes is None:
            raise
        mistakes.append(error)


def _places(environ: Mapping[str, str]) -> list[str]:
    home = environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return ["blocksd.toml", os.path.join(home, "blocksd", "blocksd.toml"), "/etc/blocksd/blocksd.toml"]


def _at(place: str) -> Where:
    return lambda *_: place


def _from_file(path: str | None) -> Iterator[tuple[str, Any, Where]]:
    if path is not None:
        file = SettingsFile(path)
        for name, value in file.content.items():
            yield name, value, file.place


def _from_credentials(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, Where]]:
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return
    for name, credential in CREDENTIALS.items():
        path = os.path.join(directory, credential)
        try:
            text = Path(path).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise Misconfigured(f"the credential {path} cannot be read: {error.strerror}", key=name) from None
        except UnicodeDecodeError:
            raise Misconfigured(f"the credential {path} is not UTF-8", key=name) from None
        if not text:
            holds = "the URL of the Redis server" if name == "redis" else "lines of a role and a token"
            raise Misconfigured(f"the credential {path} is empty: it holds {holds}", key=name)
        yield name, text, _at(f"credential {credential}")


def _from_environment(environ: Mapping[str, str]) -> Iterator[tuple[str, Any, Where]]:
    for name in SETTINGS:
        variable = f"BLOCKSD_{name.upper()}"
        if variable in environ:
            yield name, _parsed(type_of(Config, name), environ[variable]), _at(f"${variable}")


def _from_flags(flags: Mapping[str, Any]) -> Iterator[tuple[str, Any, Where]]:
    for name, value in flags.items():
        if value is not None:
            yield name, value, _at("the argument FOLDER" if name == "folder" else f"--{name.replace('_', '-')}")


def _parsed(wanted: Any, text: str) -> Any:
    """Return the value that a text stands for; the text itself, if it is none of the wanted kind."""
    try:
        if wanted is bool:
            return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}[text.lower()]
        return tomllib.loads(text) if wanted is tuple else wanted(text)
    except (KeyError, ValueError, RecursionError):
        return text


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable of the environment that looks like a setting and is none."""
    known = [*(name.upper() for name in SETTINGS), "CONFIG"]
    names = [name.removeprefix("BLOCKSD_") for name in sorted(environ) if name.startswith("BLOCKSD_")]
    strange = [name for name in names if name not in known and not _NOT_OURS.match(name)]
    return [f"$BLOCKSD_{name} is no setting{near(name, known, prefix='$BLOCKSD_')}" for name in strange]
