"""Commands about versions: history and diff show them, from the journal; undo, redo, restore and merge bring them back."""

from __future__ import annotations

import difflib
import os
import sys
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli import completion
from blocksd.cli.advice import command
from blocksd.cli.commands_write import print_block
from blocksd.cli.console import ago, print_json, print_table
from blocksd.cli.options import (
    by_option,
    client_for,
    daemon_options,
    explained,
    json_option,
    load,
    open_client,
    problem_of_file,
    running_options,
    version_of,
)
from blocksd.errors import Misconfigured, NotFound, Unavailable, VersionDamaged
from blocksd.model.differences import unified
from blocksd.model.label import is_properties, owner
from blocksd.model.properties import parse_versioned

if TYPE_CHECKING:
    from blocksd.client.blocking.client import Client
    from blocksd.mirror.view import BlockView
    from blocksd.model.revision import Revision
    from blocksd.settings.config import Config


@click.command()
@click.argument("label", shell_complete=completion.labels)
@daemon_options
@click.option(
    "-n",
    "--limit",
    metavar="N",
    type=click.IntRange(1, 10**9),
    default=20,
    show_default=True,
    help="How many versions.",
)
@json_option
def history(label: str, limit: int, as_json: bool, **flags: Any) -> None:
    """List a block's versions, newest first.

    A version that is damaged in the journal is named instead, and the exit code is 1.
    """
    revisions, damaged = _revisions(load(flags), label, limit)
    for error in damaged:
        click.echo(f"warning: {error.message}", err=True)
    if as_json:
        print_json([_revision_json(revision) for revision in revisions])
    else:
        _print_history(revisions)
    if damaged:
        sys.exit(1)


def _print_history(revisions: list[Revision]) -> None:
    rows = [
        (
            f"v{revision.version}",
            str(revision.seq),
            ago(revision.at),
            revision.who,
            revision.kind,
            str(len(revision.block.value)) if revision.block else "-",
            ", ".join(revision.fields) + _named_before(revision) + _taken(revision),
        )
        for revision in revisions
    ]
    print_table(("version", "seq", "when", "who", "what", "chars", "fields"), rows)


def _named_before(revision: Revision) -> str:
    return f" (from {revision.renamed_from})" if revision.renamed_from is not None else ""


def _taken(revision: Revision) -> str:
    return f"; took away text of v{', v'.join(map(str, revision.reverts))}" if revision.reverts else ""


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("old", required=False, metavar="[A]")
@click.argument("new", required=False, metavar="[B]")
@daemon_options
@json_option
def diff(label: str, old: str | None, new: str | None, as_json: bool, **flags: Any) -> None:
    """Show how a block's value changed.

    It compares version A with B, or A with the value now. Without either, it shows the newest change.

    \b
    blocksd diff notes        # the newest change
    blocksd diff notes v3 v7
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    found, damaged = _revisions(load(flags), label, -1)
    revisions = {revision.version: revision for revision in found}
    wrong = {error.facts["version"]: error for error in damaged}
    newest = max({*revisions, *(version for version in wrong if isinstance(version, int))}, default=0)
    before = version_of(old) if old is not None else newest - 1
    after = version_of(new) if new is not None else newest
    for version in (before, after):
        if version in wrong:
            raise wrong[version]
        if version != 0 and version not in revisions:
            raise NotFound(f"version {version} of {label!r} is not kept", label=label, version=version)
    old_lines, new_lines = (_value_lines(revisions.get(version)) for version in (before, after))
    lines = unified(old_lines, new_lines, f"{label} v{before}", f"{label} v{after}")
    if as_json:
        print_json({"label": label, "from": before, "to": after, "diff": "".join(f"{line}\n" for line in lines)})
        return
    if not lines:
        click.echo(f"the value is the same in v{before} and v{after}", err=True)
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in lines:
        click.echo(click.style(line, fg=colours.get(line[:1])))


def _value_lines(revision: Revision | None) -> list[str]:
    return revision.block.value.split("\n") if revision is not None and revision.block is not None else []


def _revisions(config: Config, label: str, limit: int) -> tuple[list[Revision], list[VersionDamaged]]:
    """Return a block's versions, newest first, and those that are damaged in the journal."""
    from blocksd.journal.history import JournalReader

    path = os.path.join(config.state, "journal.db")
    if not os.path.exists(path):
        raise Unavailable(f"there is no journal in {config.state}", journal=path, running=running_options())
    with closing(JournalReader(path)) as journal:
        if journal.is_pending:
            click.echo(
                "the last write is not finished, and not listed: a daemon that was killed does that when it starts",
                err=True,
            )
        damaged: list[VersionDamaged] = []
        revisions = journal.history(label, limit=limit, damaged=damaged)
        if not revisions and not damaged:
            near = difflib.get_close_matches(label, [head.label for head in journal.heads()], n=1)
            error = NotFound(f"the journal has no block {label!r}", label=label, near=near)
            with suppress(Unavailable, Misconfigured), open_client(config) as client, explained(config, client, label):
                parse_versioned(label)
                raise error
            raise error
        present = journal.renamed_to(label)
        if present is not None:
            since = f"{command('history', present)} has all of its versions"
            click.echo(f"{label!r} was renamed to {present!r}: {since}", err=True)
        return revisions, damaged


def _revision_json(revision: Revision) -> dict[str, Any]:
    return {
        "seq": revision.seq,
        "version": revision.version,
        "kind": revision.kind,
        "at": revision.at,
        "author": revision.author,
        "by": revision.by,
        "fields": revision.fields,
        "attached": revision.attached,
        "detached": revision.detached,
        "digest": revision.digest,
        "request_id": revision.request_id,
        "reverts": revision.reverts,
        "block": revision.block and {**revision.block.as_json(), "agents": revision.block.agents},
    }


@click.command()
@click.argument("label", shell_complete=completion.labels)
@daemon_options
@by_option
@json_option
def undo(label: str, *, as_json: bool, **flags: Any) -> None:
    """Undo the newest edit of a block.

    The label agents/AGENT/agent.yaml stands for the properties of an agent, as in redo, restore and merge. A second undo undoes the edit before, and so on; a deletion can be undone, too. To undo a rename, use 'blocksd mv'.
    A save that is not in force, since the file has a problem, is undone first: its text is kept in a file beside it.
    """
    with client_for(flags, label) as client:
        problem = problem_of_file(client.problems(), label)
        if is_properties(label):
            _bring_back(client, label, "undo", as_json=as_json, is_repaired=problem is not None)
        else:
            _print_or_gone(label, client.blocks.undo(label), "undone", as_json=as_json)
    _tell_of_repair(problem)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@daemon_options
@by_option
@json_option
def redo(label: str, *, as_json: bool, **flags: Any) -> None:
    """Redo the edit that was undone last."""
    with client_for(flags, label) as client:
        if is_properties(label):
            _bring_back(client, label, "redo", as_json=as_json)
        else:
            _print_or_gone(label, client.blocks.redo(label), "redone", as_json=as_json)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("version")
@daemon_options
@by_option
@json_option
def restore(label: str, version: str, *, as_json: bool, **flags: Any) -> None:
    """Restore a block to an older VERSION.

    'blocksd history LABEL' lists the versions.
    """
    before: BlockView | None = None
    with client_for(flags, label) as client:
        problem = problem_of_file(client.problems(), label)
        if is_properties(label):
            number = version_of(version)
            _bring_back(client, label, "restore", number, as_json=as_json, is_repaired=problem is not None)
        else:
            with suppress(NotFound):
                before = client.blocks.retrieve(label)
            block = client.blocks.restore(label, version_of(version))
            print_block(block, "restored", before=None if problem else before, as_json=as_json)
    _tell_of_repair(problem)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("version", required=False)
@daemon_options
@by_option
@json_option
def merge(label: str, version: str | None, *, as_json: bool, **flags: Any) -> None:
    """Merge text back into a block that a save took away.

    It is the text that VERSION brought, or, without VERSION, all text that the newest such save took away: the log,
    'blocksd status' and 'blocksd history' tell of such saves. What the block has now stays.
    """
    number = None if version is None else version_of(version)
    with client_for(flags, label) as client:
        if is_properties(label):
            _bring_back(client, label, "merge", number, as_json=as_json)
        else:
            print_block(client.blocks.merge(label, number), "merged", as_json=as_json)


_DONE = {"undo": "undone", "redo": "redone", "restore": "restored", "merge": "merged"}


def _bring_back(
    client: Client, label: str, op: str, *args: int | None, as_json: bool, is_repaired: bool = False
) -> None:
    """Bring properties of an agent back, and print what was done."""
    versions = client.blocks.versions
    before = versions.list(label, limit=1)[0].version
    agent = getattr(client.agents, op)(owner(label), *args)
    if as_json:
        print_json(agent.as_json())
        return
    after = versions.list(label, limit=1)[0].version
    click.echo(f"{_DONE[op] if is_repaired or after != before else 'nothing changed:'} {label} v{after}")


def _tell_of_repair(problem: dict[str, Any] | None) -> None:
    """Say that a file that had this problem was repaired, and where its text is."""
    if problem is not None:
        path = problem["subject"]
        # Of several texts that were kept there, a number at the end says which; the reply that has it is not here.
        click.echo(f"{path} is in force again; what it said before is in the newest file {path}.rejected*", err=True)


def _print_or_gone(label: str, block: BlockView | None, done: str, *, as_json: bool) -> None:
    if block is not None:
        print_block(block, done, as_json=as_json)
    elif as_json:
        print_json(None)
    else:
        click.echo(f"{done} {label}: it is deleted, as it was before")
