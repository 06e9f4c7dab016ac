"""The command config: the settings in force and their origins, and an example of a settings file."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli.console import print_json, print_table
from blocksd.cli.options import daemon_options, json_option, resolve
from blocksd.mirror.connection import masked
from blocksd.model.label import printable
from blocksd.settings.config import SETTINGS, SOURCE_KEYS
from blocksd.settings.loading import unknown_variables

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.settings.loading import Resolved


@click.command()
@daemon_options
@json_option
@click.option("--example", is_flag=True, help="Print a settings file with every key, its meaning and its default.")
def config(example: bool, as_json: bool, **flags: Any) -> None:
    """Show the settings in force, and where each comes from.

    These are the settings that 'blocksd run' would use here, with these options and in this environment. Passwords are
    masked. Exit code 2 if a setting is wrong.
    """
    if example:
        click.echo("\n".join(_example()))
        return
    resolved = resolve(flags)
    warnings = unknown_variables(os.environ)
    if as_json:
        print_json({"file": resolved.file, "settings": _as_json(resolved), "warnings": warnings})
    else:
        print_table(("key", "value", "from"), _rows(resolved), folded=True)
        click.echo(f"settings file: {resolved.file or 'none'}", err=True)
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    wrong = [source for source in resolved.config.sources if source.mistake]
    for source in wrong:
        click.echo(f"blocksd: source {printable(source.name)}: {source.mistake}", err=True)
    if wrong:
        sys.exit(2)


def _value(resolved: Resolved, name: str) -> Any:
    """Return a setting without secrets; the state directory with its default."""
    value = resolved.config.state if name == "state_dir" else getattr(resolved.config, name)
    if value is None or not SETTINGS[name].metadata["is_secret"]:
        return value
    return masked(value) if name == "redis" else "***"


def _origin(resolved: Resolved, name: str) -> str:
    if name == "state_dir" and resolved.config.state_dir is None and os.environ.get("STATE_DIRECTORY"):
        return "$STATE_DIRECTORY"
    return resolved.origin(name)


def _as_json(resolved: Resolved) -> dict[str, Any]:
    shown = {name: {"value": _value(resolved, name), "from": _origin(resolved, name)} for name in SETTINGS}
    shown["sources"]["value"] = [
        {**asdict(source), "from": resolved.origin("sources", source.name)} for source in resolved.config.sources
    ]
    return shown


def _rows(resolved: Resolved) -> Iterator[tuple[str, str, str]]:
    for name in SETTINGS:
        value = _value(resolved, name)
        if name == "sources" and value:
            for source in value:
                what = "wrong, and not served" if source.mistake else printable(source.path)
                yield f"sources.{printable(source.name)}", what, resolved.origin("sources", source.name)
        else:
            yield name, _text(value), _origin(resolved, name)


def _text(value: Any) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


_HEAD = """\
# The settings of blocksd, as `blocksd config --example` prints them.
#
# This file is looked for as blocksd.toml in the working directory, then in
# ~/.config/blocksd/, then in /etc/blocksd/; `--config FILE` and
# $BLOCKSD_CONFIG name another. Flags and $BLOCKSD_<KEY> override it.
#
# Each line shows the default or, where there is none, an example: to change a
# setting, remove the `#` before its key. `blocksd config` shows the settings in
# force. A daemon that systemd runs reloads them by `systemctl reload blocksd`
# (SIGHUP); those marked "(restart)" apply at the next start.
"""


def _example() -> Iterator[str]:
    yield _HEAD.rstrip("\n")
    for name, setting in SETTINGS.items():
        about = setting.metadata
        yield ""
        yield from _comment(f"{about['meaning']}{'' if about['is_live'] else ' (restart)'}")
        if name == "sources":
            yield f"#[{name}.manuals]"
            for key, part in SOURCE_KEYS.items():
                yield f"#{key} = {_toml(part.metadata['example'])}  # {part.metadata['meaning']}"
        else:
            yield f"#{name} = {_toml(about['example'])}"


def _comment(text: str) -> Iterator[str]:
    import textwrap

    yield from textwrap.wrap(text[0].upper() + text[1:], 79, initial_indent="# ", subsequent_indent="# ")


def _toml(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
