"""The commands that show blocks, agents, changes and history."""

from __future__ import annotations

import difflib
import json
import os
import sys
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli import completion
from blocksd.cli.console import age, ago, print_json, print_table
from blocksd.cli.options import daemon_options, json_option, load, open_client
from blocksd.errors import NotFound, Unavailable, VersionDamaged
from blocksd.mirror.acl import users
from blocksd.mirror.connection import database_of
from blocksd.mirror.keys import Keys
from blocksd.model.audit import Audited, Thresholds
from blocksd.model.audit import audit as audited
from blocksd.model.prompt import STYLES, compile_prompt
from blocksd.monitoring.status import count
from blocksd.protocol.reset import Reset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from blocksd.client.blocking.client import Client
    from blocksd.mirror.view import BlockView
    from blocksd.model.prompt import Style
    from blocksd.model.revision import Revision
    from blocksd.protocol.reset import Item
    from blocksd.settings.config import Config


@click.command("ls")
@daemon_options
@click.option("--label", metavar="PATTERN", help="Only labels that match, as `system/*`.")
@click.option("--search", metavar="TEXT", help="Only blocks whose label, description or value holds the text.")
@click.option(
    "--agent",
    metavar="AGENT",
    shell_complete=completion.agents,
    help="Only what is attached to the agent, under the agent's names.",
)
@click.option(
    "--tag", "tags", metavar="TAG", multiple=True, help="Only blocks with the tag; several: with all of them."
)
@click.option("--all", "show_hidden", is_flag=True, help="Hidden blocks, too.")
@json_option
def list_blocks(
    label: str | None,
    search: str | None,
    agent: str | None,
    tags: tuple[str, ...],
    *,
    show_hidden: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """List blocks."""
    with open_client(load(flags)) as client:
        listed = _blocks_of(client, agent) if agent is not None else client.blocks.list(show_hidden_blocks=True)
        found = [
            block
            for block in listed
            if (show_hidden or not block.hidden)
            and set(tags) <= set(block.tags)
            and _selects(label, block.label)
            and _mentions(block, search)
        ]
        counts = client.blocks.agents.counts([block.label for block in found])
    if as_json:
        print_json([{**block.as_json(), "name": block.name, "attached": counts[block.label]} for block in found])
        return
    rows = [
        (
            block.name if agent else block.label,
            f"{block.chars}/{block.limit}",
            "ro" if block.read_only else "",
            str(counts[block.label]),
            f"v{block.version}",
            age(block.updated_at),
            block.description or "",
        )
        for block in found
    ]
    print_table(("name" if agent else "label", "chars", "", "agents", "version", "age", "description"), rows)


def _blocks_of(client: Client, agent: str) -> Iterable[BlockView]:
    with _near(agent, lambda: [one.id for one in client.agents.list()]):
        return client.agents.blocks.list(agent)


@contextmanager
def _near(name: str, known: Callable[[], list[str]]) -> Iterator[None]:
    """When there is no such name, say which one may be meant."""
    try:
        yield
    except NotFound as error:
        error.facts["near"] = difflib.get_close_matches(name, known(), n=1)
        raise


def _selects(pattern: str | None, label: str) -> bool:
    from fnmatch import fnmatchcase

    return pattern is None or fnmatchcase(label, pattern)


def _mentions(block: BlockView, text: str | None) -> bool:
    return text is None or any(
        text.casefold() in part.casefold() for part in (block.label, block.description or "", block.value)
    )


@click.command()
@click.argument("label", shell_complete=completion.labels)
@daemon_options
@json_option
def show(label: str, as_json: bool, **flags: Any) -> None:
    """Show a block.

    Its value goes to standard output, all about it to standard error. LABEL may be the block's id, too.
    """
    with open_client(load(flags)) as client:
        with _near(label, lambda: [block.label for block in client.blocks.list(show_hidden_blocks=True)]):
            block = client.blocks.retrieve(label)
        agents = [agent.id for agent in client.blocks.agents.list(block.id, limit=None if as_json else 11)]
    if as_json:
        print_json({**block.as_json(), "agents": agents})
        return
    about = f"{block.label} v{block.version} · {block.chars} of {block.limit} characters · {ago(block.updated_at)} by {block.updated_by}"
    if block.read_only:
        about += " · read-only"
    if agents:
        about += f" · agents {', '.join(agents[:10])}{', …' if len(agents) > 10 else ''}"
    click.echo(click.style(about, dim=True), err=True)
    if block.description:
        click.echo(click.style(block.description, dim=True), err=True)
    click.echo(block.value)


@click.command()
@daemon_options
@json_option
def agents(as_json: bool, **flags: Any) -> None:
    """List the known agents, and what is attached to each."""
    with open_client(load(flags)) as client:
        known = client.agents.list()
    if as_json:
        print_json([agent.as_json() for agent in known])
        return
    rows = [(agent.id, str(len(agent.blocks)), ", ".join(sorted(agent.blocks))) for agent in known]
    print_table(("agent", "blocks", "names"), rows)


@click.command()
@click.argument("agent", shell_complete=completion.agents)
@daemon_options
@click.option("--style", type=click.Choice(STYLES), default="standard", show_default=True, help="How to write it.")
@click.option("--source", "sources", metavar="NAME", multiple=True, help="Only this file source; may be repeated.")
@click.option("--no-sources", is_flag=True, help="No file sources.")
@click.option("--max-files-open", type=click.IntRange(min=0), metavar="N", help="Show at most N files open.")
@json_option
def render(
    agent: str,
    style: Style,
    sources: tuple[str, ...],
    *,
    no_sources: bool,
    max_files_open: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Print the text an agent has in its context window."""
    with (
        open_client(load(flags)) as client,
        _near(agent, lambda: [one.id for one in client.agents.list()]),
        client.memory(agent) as memory,
    ):
        text = memory.compile(
            style=style,
            sources=() if no_sources else sources or None,
            max_files_open=max_files_open,
        )
    if as_json:
        print_json({"agent": agent, "style": style, "chars": len(text), "text": text})
    else:
        click.echo(text)


@click.command()
@click.argument("agents", nargs=-1, shell_complete=completion.agents, metavar="[AGENT]…")
@daemon_options
def acl(agents: tuple[str, ...], **flags: Any) -> None:
    """Print Redis users with the least rights, for an ACL file.

    One for the daemon, one for operators, one that only reads, and one for each AGENT (without any: those known to the
    running daemon). Put >secret in place of PASSWORD.
    """
    config = load(flags)
    if not agents:
        with suppress(Unavailable), open_client(config) as client:
            agents = tuple(agent.id for agent in client.agents.list())
    database = database_of(config.redis) if config.redis is not None else 0
    for line in users(Keys(config.namespace), agents, database=database):
        click.echo(line)


@click.command()
@daemon_options
@click.option("--strict", is_flag=True, help="Exit code 1 if there is anything to look at.")
@click.option(
    "--stale-days",
    type=click.IntRange(min=1),
    metavar="DAYS",
    default=Thresholds().stale_days,
    show_default=True,
    help="After how long without a change a block is stale.",
)
@click.option(
    "--prompt-chars",
    type=click.IntRange(min=1),
    metavar="N",
    default=Thresholds().prompt_chars,
    show_default=True,
    help="How many characters a prompt may have.",
)
@json_option
def audit(strict: bool, stale_days: int, prompt_chars: int, as_json: bool, **flags: Any) -> None:
    """Say which blocks and agents need a look, and what to do.

    Unused blocks, agents with none, missing or default descriptions, blocks near or at their limit, prompts that are
    too long, blocks nobody has changed for long.
    """
    with open_client(load(flags)) as client:
        blocks = {block.label: block for block in client.blocks.list(show_hidden_blocks=True)}
        counts = client.blocks.agents.counts(list(blocks))
        names = {agent.id: agent.blocks for agent in client.agents.list()}
    findings = audited(
        [
            Audited(
                label=block.label,
                chars=block.chars,
                limit=block.limit,
                description=block.description,
                updated_at=block.updated_at,
                agents=counts[block.label],
                read_only=block.read_only,
                hidden=block.hidden,
                is_template=block.is_template,
            )
            for block in blocks.values()
        ],
        names,
        {
            agent: len(compile_prompt([blocks[label] for label in attached.values() if label in blocks]))
            for agent, attached in names.items()
        },
        now=datetime.now(UTC),
        thresholds=Thresholds(stale_days=stale_days, prompt_chars=prompt_chars),
    )
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{finding.subject}: {finding.message}\n  {finding.advice}")
        click.echo(f"{count(len(findings), 'finding')} in {count(len(blocks), 'block')}", err=True)
    if strict and findings:
        sys.exit(1)


@click.command()
@daemon_options
@click.option("--since", metavar="EPOCH:SEQ", help="Begin with the change after this one, as this command prints it.")
@click.option("--block", "label", metavar="LABEL", shell_complete=completion.labels, help="Only this block.")
@click.option("--agent", metavar="AGENT", shell_complete=completion.agents, help="Only what is attached to the agent.")
@json_option
def watch(since: str | None, label: str | None, agent: str | None, as_json: bool, **flags: Any) -> None:
    """Print every change as it happens, until interrupted.

    With --since, what happened after that change comes first, from the stream. Where to go on, EPOCH:SEQ, is printed
    on standard error when it is interrupted. A number alone is taken for the epoch that the mirror has now.
    A `reset` says that changes were missed which are no longer kept, or that the epoch is another: what was read before
    may be stale. A `repaired` says so of some blocks.
    """
    place = None if since is None else _place_of(since)
    with open_client(load(flags)) as client, client.watch(since=place, label=label, agent=agent) as items:
        if isinstance(place, int):
            click.echo(f"--since {place} is taken for the epoch {items.place[0]}", err=True)
        if sys.stderr.isatty():
            click.echo(click.style(f"following changes after {_place(items.place)}; Ctrl-C ends", dim=True), err=True)
        try:
            for item in items:
                click.echo(json.dumps(_raw(item), ensure_ascii=False) if as_json else _describe(item))
        except KeyboardInterrupt:
            click.echo(click.style(f"go on with --since {_place(items.place)}", dim=True), err=True)
            raise


def _place_of(since: str) -> int | tuple[str, int]:
    epoch, colon, number = since.rpartition(":")
    if not (number.isascii() and number.isdigit() and len(number) <= 18) or (colon and not epoch):
        raise click.BadParameter(f"{since[:80]!r} is not EPOCH:SEQ", param_hint="'--since'")
    return (epoch, int(number)) if colon else int(number)


def _place(place: tuple[str | None, int | None]) -> str:
    return f"{place[0] or '?'}:{place[1] or 0}"


def _raw(item: Item) -> dict[str, Any]:
    if isinstance(item, Reset):
        return {"seq": item.seq, "kind": item.kind, "epoch": item.epoch, "labels": list(item.labels)}
    return item.raw


def _describe(item: Item) -> str:
    if isinstance(item, Reset):
        return (
            f"{item.seq:>6} reset: read everything again ({count(len(item.labels), 'block')} now, epoch {item.epoch})"
        )
    raw = item.raw
    if item.kind == "repaired":
        wrong = [*item.labels, *(f"agent {one}" for one in raw.get("agents", ())), *raw.get("indexes", ())]
        return f"{'':>6} repaired: shown wrongly until now: {', '.join(wrong)}"
    if item.seq is None:
        about = raw.get("subject") or raw.get("file") or f"source {raw.get('source')}"
        message = f": {raw['problem']['message']}" if "problem" in raw else ""
        return f"{'':>6} {item.kind} {about}{message}"
    people = " ".join([f"+{one}" for one in item.attached] + [f"-{one}" for one in item.detached])
    fields = f" ({', '.join(item.fields)})" if item.fields else ""
    return f"{item.seq:>6} {item.kind} {item.label} v{item.version}{fields} by {item.author} {people}".rstrip()


@click.command()
@click.argument("label", shell_complete=completion.labels)
@daemon_options
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many versions.")
@json_option
def history(label: str, limit: int, as_json: bool, **flags: Any) -> None:
    """List a block's versions, newest first.

    Versions that are damaged in the journal are named, not shown; the exit code is then 1.
    """
    revisions, damaged = _revisions(load(flags), label, limit)
    for error in damaged:
        click.echo(f"warning: {error.message}", err=True)
    _show_history(revisions, as_json=as_json)
    if damaged:
        sys.exit(1)


def _show_history(revisions: list[Revision], *, as_json: bool) -> None:
    if as_json:
        print_json([_revision_json(revision) for revision in revisions])
        return
    rows = [
        (
            f"v{revision.version}",
            str(revision.seq),
            ago(revision.at),
            revision.author,
            revision.kind,
            str(len(revision.block.value)) if revision.block else "-",
            ", ".join(revision.fields),
        )
        for revision in revisions
    ]
    print_table(("version", "seq", "when", "who", "what", "chars", "fields"), rows)


@click.command()
@click.argument("label", shell_complete=completion.labels)
@click.argument("old", required=False, metavar="[A]")
@click.argument("new", required=False, metavar="[B]")
@daemon_options
@json_option
def diff(label: str, old: str | None, new: str | None, as_json: bool, **flags: Any) -> None:
    """Show how a block's value changed.

    From version A to B, from A to now, or, with neither, by the newest change.
    """
    found, damaged = _revisions(load(flags), label, -1)
    revisions = {revision.version: revision for revision in found}
    wrong = {error.facts["version"]: error for error in damaged}
    newest = max({*revisions, *(version for version in wrong if isinstance(version, int))}, default=0)
    before = _version(old) if old is not None else newest - 1
    after = _version(new) if new is not None else newest
    for version in (before, after):
        if version in wrong:
            raise wrong[version]
        if version != 0 and version not in revisions:
            raise NotFound(f"version {version} of {label!r} is not kept", label=label, version=version)
    old_lines, new_lines = (_value_lines(revisions.get(version)) for version in (before, after))
    lines = list(difflib.unified_diff(old_lines, new_lines, f"{label} v{before}", f"{label} v{after}", lineterm=""))
    if as_json:
        print_json({"label": label, "from": before, "to": after, "diff": "".join(f"{line}\n" for line in lines)})
        return
    colours = {"+": "green", "-": "red", "@": "cyan"}
    for line in lines:
        click.echo(click.style(line, fg=colours.get(line[:1])))


def _version(text: str) -> int:
    try:
        return int(text.removeprefix("v"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a version; 'blocksd history LABEL' lists them") from None


def _value_lines(revision: Revision | None) -> list[str]:
    return revision.block.value.split("\n") if revision is not None and revision.block is not None else []


def _revisions(config: Config, label: str, limit: int) -> tuple[list[Revision], list[VersionDamaged]]:
    """A block's versions, the newest first; and those that are damaged in the journal."""
    from blocksd.journal.history import JournalReader

    path = os.path.join(config.state, "journal.db")
    if not os.path.exists(path):
        raise Unavailable(f"there is no journal in {config.state}")
    journal = JournalReader(path)
    try:
        damaged: list[VersionDamaged] = []
        revisions = journal.history(label, limit=limit, damaged=damaged)
        if not revisions and not damaged:
            near = difflib.get_close_matches(label, [head.label for head in journal.heads()], n=1)
            raise NotFound(f"there never was a block {label!r}", label=label, near=near)
        return revisions, damaged
    finally:
        journal.close()


def _revision_json(revision: Revision) -> dict[str, Any]:
    return {
        "seq": revision.seq,
        "version": revision.version,
        "kind": revision.kind,
        "at": revision.at,
        "author": revision.author,
        "fields": revision.fields,
        "attached": revision.attached,
        "detached": revision.detached,
        "digest": revision.digest,
        "request_id": revision.request_id,
        "block": revision.block and {**revision.block.as_json(), "agents": revision.block.agents},
    }
