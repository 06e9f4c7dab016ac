"""Commands that show blocks, agents and changes."""

from __future__ import annotations

import difflib
import json
import shlex
import sys
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli import completion
from blocksd.cli.advice import next_step
from blocksd.cli.console import age, ago, place_of, print_json, print_table
from blocksd.cli.options import (
    client_for,
    daemon_options,
    explained,
    json_option,
    load,
    near_agents,
    open_client,
    problem_of_file,
    undoing,
)
from blocksd.errors import NotFound, ProblemFile
from blocksd.model.label import SUFFIX, is_properties, owner
from blocksd.model.problem import count
from blocksd.model.revision import who
from blocksd.protocol.reset import Reset

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.client.blocking.client import Client
    from blocksd.mirror.view import BlockView
    from blocksd.protocol.reset import Item
    from blocksd.settings.config import Config


@click.command("ls")
@daemon_options
@click.option("--label", metavar="PATTERN", help="Only labels that match, such as `system/*`.")
@click.option("--search", metavar="TEXT", help="Only blocks with the text in label, description or value.")
@click.option(
    "--agent",
    metavar="AGENT",
    shell_complete=completion.agents,
    help="Only blocks attached to the agent, under its names for them.",
)
@click.option("--tag", "tags", metavar="TAG", multiple=True, help="Only blocks with the tag; repeat it for several.")
@click.option("--all", "show_all", is_flag=True, help="Hidden blocks and templates, too.")
@json_option
def list_blocks(
    label: str | None,
    search: str | None,
    agent: str | None,
    tags: tuple[str, ...],
    *,
    show_all: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """List blocks, with their length, their agents and their age.

    `ro` is a block that agents may not change, `problem` one whose file on disk is not in force, and `warning` one
    that `show` and `status` warn of, for example since its `read_only` is misspelt.

    For example, all blocks below `policies/` that mention refunds:

    \b
    blocksd ls --label 'policies/*' --search refund
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    with open_client(load(flags)) as client:
        if agent is None:
            listed = client.blocks.list(show_hidden_blocks=True, show_templates=True)
        else:
            with near_agents(client, agent):
                listed = client.agents.blocks.list(agent)
        found = [
            block
            for block in listed
            if (show_all or not (block.hidden or block.is_template))
            and set(tags) <= set(block.tags)
            and (label is None or block.label == label or fnmatchcase(block.label, label))
            and (search is None or _contains(block, search.casefold()))
        ]
        counts = client.blocks.agents.counts([block.label for block in found])
        problems = client.problems()
    wrong = {problem["label"]: problem for problem in problems if problem["label"] and not problem["warning"]}
    marks = {problem["label"]: "warning" for problem in problems} | dict.fromkeys(wrong, "problem")
    if as_json:
        more = (
            {"name": block.name, "attached": counts[block.label], "problem": wrong.get(block.label)} for block in found
        )
        print_json([{**block.as_json(), **facts} for block, facts in zip(found, more, strict=True)])
        return
    rows = [
        (
            block.name if agent else block.label,
            f"{block.chars}/{block.limit}",
            " ".join(filter(None, ("ro" if block.read_only else "", marks.get(block.label)))),
            str(counts[block.label]),
            f"v{block.version}",
            age(block.updated_at),
            block.description or "",
        )
        for block in found
    ]
    print_table(("name" if agent else "label", "chars", "", "agents", "version", "age", "description"), rows)
    unread = sum(problem["subject"].endswith(SUFFIX) and not problem["warning"] for problem in problems)
    if not found:
        click.echo(
            f"no block fits{_unknown_tags(tags, listed)}"
            if listed
            else "there are no blocks yet: 'blocksd new LABEL TEXT' makes one",
            err=True,
        )
    if unread:
        click.echo(f"not in force as on disk: {count(unread, 'file')}; 'blocksd status' says why", err=True)


def _unknown_tags(tags: tuple[str, ...], listed: Iterable[BlockView]) -> str:
    """Return which of the tags no block has, and which is near, as the end of a sentence; empty if all are known."""
    known = sorted({tag for block in listed for tag in block.tags})
    said = ""
    for tag in tags:
        if tag not in known:
            near = difflib.get_close_matches(tag, known, n=1)
            said += f"; none has the tag {tag!r}" + (f" (did you mean {near[0]!r}?)" if near else "")
    return said


def _contains(block: BlockView, text: str) -> bool:
    return any(text in part.casefold() for part in (block.label, block.description or "", block.value))


@click.command()
@click.argument("label", shell_complete=completion.labels)
@daemon_options
@json_option
def show(label: str, as_json: bool, **flags: Any) -> None:
    """Print a block's value.

    The value goes to standard output, so that it can be piped; version, author, agents and warnings go to standard error.
    LABEL may also be the block's id.
    """
    with client_for(flags, label) as client:
        block = client.blocks.retrieve(label)
        agents = [agent.id for agent in client.blocks.agents.list(block.id, limit=None if as_json else 11)]
        problems = client.problems()
    problem = problem_of_file(problems, block.label)
    if as_json:
        print_json({**block.as_json(), "agents": agents, "problem": problem})
        return
    about = f"{block.label} v{block.version} · {block.chars} of {block.limit} characters · {ago(block.updated_at)} by {block.updated_by}"
    if block.read_only:
        about += " · read-only"
    if agents:
        about += f" · agents {', '.join(agents[:10])}{', …' if len(agents) > 10 else ''}"
    click.echo(click.style(about, dim=True), err=True)
    if block.description:
        click.echo(click.style(block.description, dim=True), err=True)
    if problem is not None:
        click.echo(click.style(_not_in_force(problem), fg="yellow"), err=True)
    for warning in problems:
        if warning["warning"] and warning["label"] == block.label:
            click.echo(click.style(_warning(warning), fg="yellow"), err=True)
    click.echo(block.value)


def _warning(warning: dict[str, Any]) -> str:
    """Say what to look at in a file that is in force."""
    hint = f" ({warning['hint']})" if warning["hint"] else ""
    return f"warning: {place_of(warning)}: {warning['message']}{hint}"


def _not_in_force(problem: dict[str, Any]) -> str:
    """Say that a file is not in force, and why."""
    hint = f" ({problem['hint']})" if problem["hint"] else ""
    undo = f", and {undoing(problem)} brings it back into the file" if undoing(problem) else ""
    return (
        f"not in force: the file on disk, {place_of(problem)}, has a problem: {problem['message']}{hint}; "
        f"this is the last good version{undo}"
    )


@click.command()
@daemon_options
@json_option
def agents(as_json: bool, **flags: Any) -> None:
    """List the agents, with their blocks, names and descriptions."""
    with open_client(load(flags)) as client:
        known = client.agents.list()
    if as_json:
        print_json([agent.as_json() for agent in known])
        return
    rows = [
        (
            agent.id,
            str(len(agent.blocks)),
            ", ".join(sorted(agent.blocks)),
            agent.name if agent.name != agent.id else "",
            " ".join((agent.description or "").split()),
        )
        for agent in known
    ]
    print_table(("agent", "blocks", "names", "called", "description"), rows)


@click.command()
@daemon_options
@click.option("--since", metavar="EPOCH:SEQ", help="Start after this change, as an earlier call printed it.")
@click.option("--block", "label", metavar="LABEL", shell_complete=completion.labels, help="Only this block.")
@click.option(
    "--agent", metavar="AGENT", shell_complete=completion.agents, help="Only changes of blocks attached to the agent."
)
@json_option
def watch(since: str | None, label: str | None, agent: str | None, as_json: bool, **flags: Any) -> None:
    """Print every change as it happens, until Ctrl-C.

    At the end it prints EPOCH:SEQ, the place of the last change, on standard error. With --since EPOCH:SEQ it first prints
    the changes that you missed. A number alone counts in the present epoch.

    A `reset` means that missed changes are no longer kept, or that the epoch is new: read everything again. `repaired`
    means that the mirror showed the named blocks wrongly until now.
    """
    place = None if since is None else _place_of(since)
    config = load(flags)
    with open_client(config) as client, client.watch(since=place, label=label, agent=agent) as items:
        _tell_what_is_awaited(config, client, label, agent)
        if isinstance(place, int):
            click.echo(f"--since {place} is taken to be in the epoch {items.place[0]}", err=True)
        if sys.stderr.isatty():
            click.echo(click.style(f"following changes after {_place(items.place)}; Ctrl-C to end", dim=True), err=True)
        try:
            for item in items:
                click.echo(json.dumps(_raw(item), ensure_ascii=False) if as_json else _describe(item))
        except KeyboardInterrupt:
            click.echo(click.style(f"continue with --since {_place(items.place)}", dim=True), err=True)
            raise


def _tell_what_is_awaited(config: Config, client: Client, label: str | None, agent: str | None) -> None:
    """Say that the block or the agent to be watched is not there yet; it may come."""
    if label is not None and is_properties(label):
        agent, label = owner(label), None
    for name, look in ((label, client.blocks.retrieve), (agent, client.agents.retrieve)):
        if name is None:
            continue
        try:
            with explained(config, client), near_agents(client, name):
                look(name)
        except (NotFound, ProblemFile) as error:
            click.echo(f"{error.message}; waiting for it ({next_step(error)})", err=True)


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
        about = raw.get("subject") or raw.get("file") or item.label or f"source {raw.get('source')}"
        message = f": {raw['problem']['message']}" if "problem" in raw else ""
        return f"{'':>6} {item.kind} {about}{message}"
    people = " ".join([f"+{one}" for one in item.attached] + [f"-{one}" for one in item.detached])
    fields = f" ({', '.join(item.fields)})" if item.fields else ""
    if item.renamed_from is not None:
        fields = f" (from {item.renamed_from})"
    line = f"{item.seq:>6} {item.kind} {item.label} v{item.version}{fields} by {who(item.author, item.by)} {people}".rstrip()
    if item.reverts:
        gone, label = ", v".join(map(str, item.reverts)), shlex.quote(str(item.label))
        line += f", took away text of v{gone}; to bring it back: blocksd merge {label}"
    return line
