"""The commands that change blocks: as an operator, through the daemon."""

from __future__ import annotations

import difflib
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli import completion
from blocksd.cli.console import print_json
from blocksd.cli.options import daemon_options, json_option, load, open_client
from blocksd.errors import InvalidRequest, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blocksd.client.blocking.client import Client
    from blocksd.mirror.view import BlockView


def _field_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The fields of a block but its value."""
    for option in (
        click.option("--hidden/--no-hidden", default=None, help="Leave it out of listings and prompts."),
        click.option("--read-only/--no-read-only", default=None, help="Agents may not change it."),
        click.option("--limit", type=int, metavar="N", help="How many characters it may have."),
        click.option("--tag", "tags", metavar="TAG", multiple=True, help="A tag; may be repeated."),
        click.option(
            "--agent",
            "agents",
            metavar="AGENT",
            shell_complete=completion.agents,
            multiple=True,
            help="An agent, or a pattern; may be repeated.",
        ),
        click.option("--description", metavar="TEXT", help="What it is for."),
    ):
        command = option(command)
    return command


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields that were given: no flag, and no repeated option without a value."""
    return {name: value for name, value in fields.items() if value not in (None, ())}


_version_option = click.option(
    "--version", "version", type=int, metavar="N", help="Only if it is at this version; else nothing is done."
)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("value", required=False)
@daemon_options
@_field_options
@json_option
def new(label: str, value: str | None, *, as_json: bool, **flags: Any) -> None:
    """Make a block. Without VALUE it is read from standard input, or, on a terminal, written in $EDITOR.

    LABEL agents/AGENT/NAME makes a private block of an agent.
    """
    fields = _given({name: flags.pop(name) for name in _FIELDS})
    with open_client(load(flags)) as client:
        _print(client.blocks.create(label=label, value=_value(value, ""), **fields), "created", as_json=as_json)


@click.command("set")
@click.argument("label", shell_complete=completion.labels)
@click.argument("value", required=False)
@daemon_options
@_field_options
@_version_option
@json_option
def set_block(label: str, value: str | None, *, version: int | None, as_json: bool, **flags: Any) -> None:
    """Change a block: its value, or what the options name, or both.

    Without VALUE and options the value is read from standard input, or, on a terminal, edited in $EDITOR; what others
    write while the editor is open is merged. VALUE - stands for standard input.
    """
    fields = _given({name: flags.pop(name) for name in _FIELDS})
    with open_client(load(flags)) as client, _near(label, client):
        if value is not None or not fields:
            before = client.blocks.retrieve(label)
            fields["value"] = _value(value, before.value)
            if value is None and version is None and sys.stdin.isatty():
                block = client.blocks.update(label, expect_version=before.version, on_conflict="merge", **fields)
                _print(block, "updated", as_json=as_json)
                return
        _print(client.blocks.update(label, expect_version=version, **fields), "updated", as_json=as_json)


_FIELDS = ("description", "agents", "tags", "limit", "read_only", "hidden")


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("content", required=False)
@daemon_options
@json_option
def append(label: str, content: str | None, *, as_json: bool, **flags: Any) -> None:
    """Add lines to the end of a block. Without CONTENT they are read from standard input, or written in $EDITOR."""
    with open_client(load(flags)) as client, _near(label, client):
        _print(client.blocks.append(label, _value(content, "")), "updated", as_json=as_json)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("old")
@click.argument("new_text", metavar="NEW")
@daemon_options
@json_option
def replace(label: str, old: str, new_text: str, *, as_json: bool, **flags: Any) -> None:
    """Replace a piece of a block's text.

    OLD, which must be in exactly one place of the block, becomes NEW.
    """
    with open_client(load(flags)) as client, _near(label, client):
        _print(client.blocks.replace(label, old, new_text), "updated", as_json=as_json)


@click.command()
@click.argument("labels", nargs=-1, shell_complete=completion.labels, required=True, metavar="LABEL…")
@daemon_options
@_version_option
def rm(labels: tuple[str, ...], *, version: int | None, **flags: Any) -> None:
    """Delete blocks, for every agent. 'blocksd undo LABEL' brings one back."""
    with open_client(load(flags)) as client:
        for label in labels:
            with _near(label, client):
                client.blocks.delete(label, expect_version=version)
            click.echo(f"deleted {label}")


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("to")
@daemon_options
@json_option
def mv(label: str, to: str, *, as_json: bool, **flags: Any) -> None:
    """Give a block another label; its history and its agents stay."""
    with open_client(load(flags)) as client, _near(label, client):
        _print(client.blocks.rename(label, to), f"renamed {label} to", as_json=as_json)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("agents", nargs=-1, shell_complete=completion.agents, required=True, metavar="AGENT…")
@daemon_options
@json_option
def attach(label: str, agents: tuple[str, ...], *, as_json: bool, **flags: Any) -> None:
    """Attach a block to agents."""
    with open_client(load(flags)) as client, _near(label, client):
        _print(client.blocks.attach(label, agents), "attached", as_json=as_json)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("agents", nargs=-1, shell_complete=completion.agents, required=True, metavar="AGENT…")
@daemon_options
@json_option
def detach(label: str, agents: tuple[str, ...], *, as_json: bool, **flags: Any) -> None:
    """Detach a block from agents."""
    with open_client(load(flags)) as client, _near(label, client):
        _print(client.blocks.detach(label, agents), "detached", as_json=as_json)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@daemon_options
@json_option
def undo(label: str, *, as_json: bool, **flags: Any) -> None:
    """Take the newest edit of a block back.

    A deletion, too, and that a deleted block came again; again for the edit
    before. A renaming stays: 'blocksd mv' takes it back.
    """
    with open_client(load(flags)) as client:
        _print_or_gone(label, client.blocks.undo(label), "undone", as_json=as_json)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@daemon_options
@json_option
def redo(label: str, *, as_json: bool, **flags: Any) -> None:
    """Do again what was undone last."""
    with open_client(load(flags)) as client:
        _print_or_gone(label, client.blocks.redo(label), "redone", as_json=as_json)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("version")
@daemon_options
@json_option
def restore(label: str, version: str, *, as_json: bool, **flags: Any) -> None:
    """Make a block again what it was at VERSION.

    'blocksd history LABEL' lists them.
    """
    if not version.removeprefix("v").isdecimal():
        raise click.BadParameter(f"{version!r} is not a version; 'blocksd history LABEL' lists them")
    with open_client(load(flags)) as client:
        _print(client.blocks.restore(label, int(version.removeprefix("v"))), "restored", as_json=as_json)


COMMANDS = (new, set_block, append, replace, rm, mv, attach, detach, undo, redo, restore)


def _value(given: str | None, before: str) -> str:
    """A text from the command line, from standard input, or from the editor."""
    if given not in (None, "-"):
        return str(given)
    if given == "-" or not sys.stdin.isatty():
        return sys.stdin.read().removesuffix("\n")
    written = click.edit(f"{before}\n", extension=".md")
    if written is None:
        raise InvalidRequest("nothing was written: the editor was left without saving")
    return written.removesuffix("\n")


@contextmanager
def _near(label: str, client: Client) -> Iterator[None]:
    """When there is no such block, say which one may be meant."""
    try:
        yield
    except NotFound as error:
        if not error.facts.get("near"):
            labels = [block.label for block in client.blocks.list(show_hidden_blocks=True)]
            error.facts["near"] = difflib.get_close_matches(label, labels, n=1)
        raise


def _print(block: BlockView, done: str, *, as_json: bool) -> None:
    if as_json:
        print_json(block.as_json())
    else:
        click.echo(f"{done} {block.label} v{block.version} · {block.chars} of {block.limit} characters")


def _print_or_gone(label: str, block: BlockView | None, done: str, *, as_json: bool) -> None:
    if block is not None:
        _print(block, done, as_json=as_json)
    elif as_json:
        print_json(None)
    else:
        click.echo(f"{done} {label}: it is deleted, as it was before")
