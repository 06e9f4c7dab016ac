"""Commands for administrators: doctor, audit, config, acl, completion."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import get_completion_class

from blocksd.cli import completion as offers
from blocksd.cli.console import print_json, print_table
from blocksd.cli.options import daemon_options, given_options, json_option, load, open_client, own_command, resolve
from blocksd.doctor.finding import Finding
from blocksd.errors import Misconfigured, Unavailable
from blocksd.mirror.acl import users
from blocksd.mirror.connection import database_of, masked
from blocksd.mirror.keys import Keys
from blocksd.model.audit import MOST_DAYS, Thresholds
from blocksd.model.label import parse_label, printable
from blocksd.model.problem import count, tally
from blocksd.monitoring.status import tally_text
from blocksd.settings.config import SETTINGS, TABLES
from blocksd.settings.loading import unknown_variables
from blocksd.settings.record import running_daemon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.settings.loading import Resolved

_WIDTH = 80
_COLOURS = {"ok": "green", "warning": "yellow", "wrong": "red", "unknown": "cyan"}
_MARK = max(map(len, _COLOURS)) + 2


@click.command()
@click.argument("folder", required=False, shell_complete=offers.directories)
@daemon_options
@click.option("--poll", is_flag=True, default=None, help="Check for a daemon that uses no file events.")
@json_option
def doctor(as_json: bool, **flags: Any) -> None:
    """Check what a daemon depends on, and say what to change.

    It checks what a daemon cannot report itself: rights, file systems, space, the journal, limits, clocks, and the Redis
    server with its user. It works before the first start and beside a running daemon, changes nothing, and is best run by
    the daemon's user. FOLDER is by default the running daemon's, else the configured one. Exit code 0 only without problems and
    warnings.
    """
    findings = _findings(flags)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        _print(findings)
    if any(finding.state in ("wrong", "warning") for finding in findings):
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
    found = tally(finding.state == "warning" for finding in findings if finding.state in ("wrong", "warning"))
    click.echo(f"{count(len(findings), 'check')}: {tally_text(found)}", err=True)


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
@daemon_options
@click.option("--strict", is_flag=True, help="Exit code 1 if there is a finding.")
@click.option(
    "--stale-days",
    type=click.IntRange(1, MOST_DAYS),
    metavar="DAYS",
    default=Thresholds().stale_days,
    show_default=True,
    help="A block is stale after so many days without a change.",
)
@click.option(
    "--prompt-chars",
    type=click.IntRange(1, 10**9),
    metavar="N",
    default=Thresholds().prompt_chars,
    show_default=True,
    help="The most characters a prompt may have.",
)
@click.option(
    "--to-block",
    metavar="LABEL",
    shell_complete=offers.labels,
    help="Write the findings to this block, if they have changed; it is made if it is not there.",
)
@click.option(
    "--schedule",
    metavar="TIMES",
    help="Have systemd run this command at these times, such as daily or 'Mon 06:00', from now on.",
)
@json_option
def audit(
    strict: bool,
    stale_days: int,
    prompt_chars: int,
    to_block: str | None,
    schedule: str | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Find blocks and agents that need care, and say what to do.

    It finds unused blocks, agents without blocks, missing or default descriptions, blocks near their limit, prompts that
    are too long, and blocks that have not changed for long.

    \b
    blocksd audit --to-block maintenance/audit
    blocksd audit --to-block maintenance/audit --schedule daily

    With --to-block an agent can act on the findings: attach the block to it. With --schedule nothing is audited now; a
    timer of systemd runs the rest of the command, for root as the machine's, else as this user's.
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    if schedule is not None:
        if as_json:
            raise click.UsageError("--schedule and --json do not go together")
        words = [
            "--stale-days",
            str(stale_days),
            "--prompt-chars",
            str(prompt_chars),
            *(["--strict"] if strict else []),
        ]
        _schedule(schedule, words + (["--to-block", parse_label(to_block)] if to_block is not None else []), flags)
        return
    with open_client(load(flags)) as client:
        findings = client.audit(stale_days=stale_days, prompt_chars=prompt_chars)
        blocks = client.counts()["blocks"]
        if to_block is not None:
            from blocksd.assistants.upkeep import write_findings

            click.echo(f"{to_block}: {write_findings(client, to_block, findings)}", err=True)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{finding.subject}: {finding.message}\n  {finding.advice}")
        click.echo(f"{count(len(findings), 'finding')} in {count(blocks, 'block')}", err=True)
    if strict and findings:
        sys.exit(1)


def _schedule(times: str, words: list[str], flags: dict[str, Any]) -> None:
    """Have systemd run an audit with these options; the settings are those that hold here."""
    from blocksd.assistants.upkeep import schedule

    resolved = resolve(flags)
    flags["config_path"] = flags["config_path"] or resolved.file
    namespace = resolved.config.namespace
    name = "blocksd-audit" if namespace == SETTINGS["namespace"].default else f"blocksd-audit-{namespace.strip('{}')}"
    timer = schedule(name, [*own_command(), "audit", *words, *given_options(flags)], times)
    click.echo(f"scheduled: {timer}", err=True)


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
    wrong = [(name, one) for name in TABLES for one in getattr(resolved.config, name) if one.mistake]
    for name, one in wrong:
        click.echo(f"blocksd: {name}.{printable(one.name)}: {one.mistake}", err=True)
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
    for name in TABLES:
        tables = getattr(resolved.config, name)
        shown[name]["value"] = [{**asdict(one), "from": resolved.origin(name, one.name)} for one in tables]
    return shown


def _rows(resolved: Resolved) -> Iterator[tuple[str, str, str]]:
    for name in SETTINGS:
        value = _value(resolved, name)
        if name in TABLES and value:
            for one in value:
                path = one.path if name == "sources" else one.output
                what = "wrong, and not served" if one.mistake else printable(path)
                yield f"{name}.{printable(one.name)}", what, resolved.origin(name, one.name)
        else:
            yield name, _text(value), _origin(resolved, name)


def _text(value: Any) -> str:
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


_EXAMPLES = {"sources": "manuals", "render": "claude"}
"""The name of the table that the example has for each setting of tables."""

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
        if name in TABLES:
            yield f"#[{name}.{_EXAMPLES[name]}]"
            for key, part in TABLES[name].items():
                yield f"#{key} = {_toml(part.metadata['example'])}  # {part.metadata['meaning']}"
        else:
            yield f"#{name} = {_toml(about['example'])}"


def _comment(text: str) -> Iterator[str]:
    yield from textwrap.wrap(text[0].upper() + text[1:], 79, initial_indent="# ", subsequent_indent="# ")


def _toml(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


@click.command()
@click.argument("agents", nargs=-1, shell_complete=offers.agents, metavar="[AGENT]…")
@daemon_options
def acl(agents: tuple[str, ...], **flags: Any) -> None:
    """Print Redis users with the least rights they need.

    They are lines of an ACL file. There is one for the daemon, one for operators, one that only reads, one for the gateway, and one for each AGENT;
    without AGENT, for each agent of the running daemon. Replace PASSWORD by >secret.
    """
    config = load(flags)
    if not agents:
        with suppress(Unavailable), open_client(config) as client:
            agents = tuple(agent.id for agent in client.agents.list())
    database = database_of(config.redis) if config.redis is not None else 0
    for line in users(Keys(config.namespace), agents, database=database):
        click.echo(line)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print a script that completes words in SHELL.

    \b
    blocksd completion bash > ~/.local/share/bash-completion/completions/blocksd
    blocksd completion zsh > ~/.zfunc/_blocksd  # a directory of your $fpath
    blocksd completion fish > ~/.config/fish/completions/blocksd.fish

    It works in the next shell you open. It completes commands, labels and agents; the last two come from the
    running daemon.
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    script = get_completion_class(shell)
    assert script is not None
    root = click.get_current_context().find_root().command
    click.echo(script(root, {}, "blocksd", "_BLOCKSD_COMPLETE").source())
