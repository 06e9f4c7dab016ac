"""The commands for whoever keeps the machine: doctor, completion."""

from __future__ import annotations

import shutil
import sys
import textwrap
from dataclasses import replace
from itertools import groupby
from typing import Any

import click
from click.shell_completion import get_completion_class

from blocksd.cli import completion as offers
from blocksd.cli.console import print_json
from blocksd.cli.options import daemon_options, json_option, resolve
from blocksd.doctor.finding import Finding
from blocksd.errors import Misconfigured
from blocksd.monitoring.status import count
from blocksd.settings.record import running_daemon

_WIDTH = 80
_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red", "unknown": "cyan"}
_MARK = max(map(len, _COLOURS)) + 2


@click.command()
@click.argument("folder", required=False, shell_complete=offers.directories)
@daemon_options
@click.option("--poll", is_flag=True, default=None, help="As if the daemon did without file events.")
@json_option
def doctor(as_json: bool, **flags: Any) -> None:
    """Say whether all that a daemon needs is fit for it.

    If not, say what to change. FOLDER is by default what the running daemon serves, else what is configured. Looks at versions, rights, file
    systems, limits, the journal, Redis and its user, and clocks. Works before the first start and beside a running
    daemon, and is best run by its user. Leaves everything as it was. Exit code 1 if anything is wrong.
    """
    findings = _findings(flags)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        _print(findings)
    if any(finding.state == "wrong" for finding in findings):
        sys.exit(1)


def _findings(flags: dict[str, Any]) -> list[Finding]:
    from blocksd.doctor.doctor import examine

    try:
        config = resolve(flags).config
    except Misconfigured as error:
        return [
            Finding("settings.file", "wrong", error.message, "correct the setting it names; nothing else was checked")
        ]
    daemon = running_daemon(config.state)
    if daemon is not None and flags["folder"] is None:
        config = replace(config, folder=daemon["folder"])
    return examine(config)


def _print(findings: list[Finding]) -> None:
    for group, members in groupby(findings, key=lambda finding: finding.check.partition(".")[0]):
        click.echo(group)
        for finding in members:
            first, *others = _wrapped(finding.message, 0) + _wrapped(finding.advice, 2)
            click.echo(f"  {click.style(f'{finding.state:<{_MARK}}', fg=_COLOURS[finding.state])}{first}")
            for line in others:
                click.echo(f"  {'':{_MARK}}{line}")
    states = [finding.state for finding in findings]
    click.echo(f"{states.count('wrong')} wrong, {count(states.count('warning'), 'warning')}", err=True)


def _wrapped(text: str, indent: int) -> list[str]:
    width = min(_WIDTH, shutil.get_terminal_size((_WIDTH, 24)).columns) - 2 - _MARK
    space = " " * indent
    return textwrap.wrap(
        text,
        max(width, 20),
        initial_indent=space,
        subsequent_indent=space,
        break_long_words=False,
        break_on_hyphens=False,
    )


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what has SHELL complete commands, labels and agents.

    \b
    blocksd completion bash > ~/.local/share/bash-completion/completions/blocksd
    blocksd completion zsh > ~/.zfunc/_blocksd  # a directory of your $fpath
    blocksd completion fish > ~/.config/fish/completions/blocksd.fish

    It holds from the next shell on. Labels and agents are the running daemon's.
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    script = get_completion_class(shell)
    assert script is not None
    root = click.get_current_context().find_root().command
    click.echo(script(root, {}, "blocksd", "_BLOCKSD_COMPLETE").source())
