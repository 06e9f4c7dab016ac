"""Commands that change blocks, as requests of the operator to the daemon."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli import completion
from blocksd.cli.advice import UNKNOWN_AGENT, command
from blocksd.cli.console import complain, print_json
from blocksd.cli.options import by_option, client_for, daemon_options, json_option, single_words, tags_option
from blocksd.cli.text_input import text_of
from blocksd.errors import BlocksdError, InvalidRequest, Misconfigured, NotFound, Unavailable
from blocksd.model.block import MAX_LIMIT
from blocksd.model.label import is_pattern
from blocksd.requests.request import MAX_NUMBER

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.client.blocking.client import Client
    from blocksd.mirror.view import BlockView
    from blocksd.protocol.wire import OnConflict


def _field_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add options for the fields of a block, except its value."""
    for option in (
        click.option("--hidden/--no-hidden", default=None, help="Leave it out of lists and prompts."),
        click.option("--read-only/--no-read-only", default=None, help="Agents may not change it."),
        click.option(
            "--limit", type=click.IntRange(1, MAX_LIMIT), metavar="N", help="The most characters it may have."
        ),
        tags_option,
        click.option(
            "--agent",
            "agents",
            metavar="AGENT",
            shell_complete=completion.agents,
            multiple=True,
            callback=single_words,
            help="An agent, or a pattern; may be repeated; an empty one: none.",
        ),
        click.option("--description", metavar="TEXT", help="What the block is for; agents read it."),
    ):
        command = option(command)
    return command


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that were given as options; a list of one empty text is an empty list."""
    lists = {name: list(value) for name, value in fields.items() if isinstance(value, tuple) and value}
    plain = {name: value for name, value in fields.items() if value is not None and not isinstance(value, tuple)}
    return {**plain, **{name: [] if entries == [""] else entries for name, entries in lists.items()}}


_version_option = click.option(
    "--version",
    "version",
    type=click.IntRange(0, MAX_NUMBER),
    metavar="N",
    help="Only if the block is at this version; else nothing is changed.",
)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("value", required=False)
@daemon_options
@by_option
@_field_options
@json_option
def new(label: str, value: str | None, *, as_json: bool, **flags: Any) -> None:
    """Create a block.

    Without VALUE, the value is read from standard input, or, on a terminal, written in $EDITOR. A LABEL such as
    agents/AGENT/NAME makes a private block of one agent.

    \b
    blocksd new policies/refunds "30 days." --agent 'support-*'
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    fields = _given({name: flags.pop(name) for name in _FIELDS})
    with client_for(flags) as client, text_of(value, "") as text:
        print_block(client.blocks.create(label=label, value=text, **fields), "created", as_json=as_json)


@click.command("set")
@click.argument("label", shell_complete=completion.labels)
@click.argument("value", required=False)
@daemon_options
@by_option
@_field_options
@_version_option
@json_option
def set_block(label: str, value: str | None, *, version: int | None, as_json: bool, **flags: Any) -> None:
    """Change a block's value or fields, or both.

    Without VALUE and options, the value is read from standard input, or, on a terminal, edited in $EDITOR; edits by others
    meanwhile are merged. VALUE - stands for standard input. The agents and tags that are named replace all that the block
    has: to add an agent, use 'blocksd attach'.
    """
    fields = _given({name: flags.pop(name) for name in _FIELDS})
    with client_for(flags, label) as client, ExitStack() as stack:
        before = client.blocks.retrieve(label)
        on_conflict: OnConflict | None = None
        if value is not None or not fields:
            text = text_of(value, before.value, empties=command("set", label, ""))
            fields["value"] = stack.enter_context(text)
            if value is None and version is None and sys.stdin.isatty():
                version, on_conflict = before.version, "merge"
        block = client.blocks.update(label, expect_version=version, on_conflict=on_conflict, **fields)
        print_block(block, "updated", before=before, as_json=as_json)


_FIELDS = ("description", "agents", "tags", "limit", "read_only", "hidden")


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("content", required=False)
@daemon_options
@by_option
@json_option
def append(label: str, content: str | None, *, as_json: bool, **flags: Any) -> None:
    """Add lines to the end of a block.

    Without CONTENT, they are read from standard input, or, on a terminal, written in $EDITOR.
    """
    with client_for(flags, label) as client, text_of(content, "", empties=command("append", label, "")) as text:
        block = client.blocks.append(label, text)
        # Of all that can be appended, only the empty text leaves an empty block as it is.
        print_block(block, "updated", before=None if block.value else block, as_json=as_json)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("old")
@click.argument("new_text", metavar="NEW")
@daemon_options
@by_option
@json_option
def replace(label: str, old: str, new_text: str, *, as_json: bool, **flags: Any) -> None:
    """Replace the text OLD of a block by NEW.

    OLD must occur exactly once in the block.
    """
    with client_for(flags, label) as client:
        before = client.blocks.retrieve(label)
        print_block(client.blocks.replace(label, old, new_text), "updated", before=before, as_json=as_json)


@click.command()
@click.argument("labels", nargs=-1, shell_complete=completion.labels, required=True, metavar="LABEL…")
@daemon_options
@by_option
@_version_option
def rm(labels: tuple[str, ...], *, version: int | None, **flags: Any) -> None:
    """Delete blocks, for every agent.

    Each is deleted by itself: if one cannot be, the others are all the same. 'blocksd undo LABEL' restores one.
    """
    code = 0
    for label in labels:
        try:
            with client_for(flags, label) as client:
                client.blocks.delete(label, expect_version=version)
            click.echo(f"deleted {label}")
        except (Unavailable, Misconfigured) as error:
            if error.facts.keys().isdisjoint(("label", "path")):  # no other can be deleted, either
                raise
            code = complain(error)
        except BlocksdError as error:
            code = complain(error)
    sys.exit(code)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("to")
@daemon_options
@by_option
@json_option
def mv(label: str, to: str, *, as_json: bool, **flags: Any) -> None:
    """Rename a block. It keeps its history and its agents."""
    with client_for(flags, label) as client:
        before = client.blocks.retrieve(label)
        print_block(client.blocks.rename(label, to), f"renamed {label} to", before=before, as_json=as_json)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("agents", nargs=-1, shell_complete=completion.agents, required=True, metavar="AGENT…")
@daemon_options
@by_option
@json_option
def attach(label: str, agents: tuple[str, ...], *, as_json: bool, **flags: Any) -> None:
    """Attach a block to agents.

    An agent that is not known yet becomes known by this.
    """
    _refuse_patterns(label, agents)
    with client_for(flags, label) as client:
        before = client.blocks.retrieve(label)
        block = client.blocks.attach(label, agents)
        print_block(block, "attached", before=before, as_json=as_json)
        unknown = [agent for agent in agents if not _is_known(client, agent)] if block.version == before.version else []
    if unknown:
        click.echo(f"a pattern in 'agents' fits {', '.join(unknown)}, not known so far: {UNKNOWN_AGENT}", err=True)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("agents", nargs=-1, shell_complete=completion.agents, required=True, metavar="AGENT…")
@daemon_options
@by_option
@json_option
def detach(label: str, agents: tuple[str, ...], *, as_json: bool, **flags: Any) -> None:
    """Detach a block from agents."""
    _refuse_patterns(label, agents)
    with client_for(flags, label) as client:
        print_block(client.blocks.detach(label, agents), "detached", as_json=as_json)


def _refuse_patterns(label: str, agents: tuple[str, ...]) -> None:
    """Raise InvalidRequest if one of these is a pattern."""
    for agent in filter(is_pattern, agents):
        raise InvalidRequest(
            f"{agent!r} is a pattern, and no agent's id",
            hint=f"{command('set', label, '--agent', agent)} is for all that it fits; it replaces the list 'agents', so name "
            "each entry that stays with another --agent",
        )


def _is_known(client: Client, agent: str) -> bool:
    try:
        client.agents.retrieve(agent)
    except NotFound:
        return False
    return True


def print_block(block: BlockView, done: str, *, as_json: bool, before: BlockView | None = None) -> None:
    """Print what was done to a block, or that it is as `before`."""
    if as_json:
        print_json(block.as_json())
        return
    if before is not None and (before.label, before.version) == (block.label, block.version):
        done = "nothing changed:"
    click.echo(f"{done} {block.label} v{block.version} · {block.chars} of {block.limit} characters")
