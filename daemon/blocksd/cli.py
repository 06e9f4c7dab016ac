"""Commands. Turns errors into sentences with the next step, and into exit codes.

Exit codes: 0 done; 1 refused, or problems found; 2 used or configured wrongly; 3 the daemon or Redis is unavailable.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from blocksd import config as configuration
from blocksd.errors import AlreadyRunning, BlocksdError, Misconfigured, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import RenderableType

    from blocksd.client import Client, Shown
    from blocksd.config import Config
    from blocksd.problem import Problem
    from blocksd.revision import Change, Revision

_EPILOG = (
    "Exit codes: 0 done, 1 refused or problems found, 2 wrong usage or configuration, 3 daemon or Redis unavailable."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(package_name="blocksd", message="blocksd %(version)s")
def cli() -> None:
    """Memory blocks for AI agents, as plain files.

    `blocksd run blocks.d` watches a folder of Markdown files, mirrors each as a block into Redis, and announces every
    change. The other commands show what is there.
    """


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
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
            help="Where the daemon keeps its journal.  [default: ~/.local/state/blocksd/NAMESPACE]",
        ),
        click.option("--config", "config_path", metavar="FILE", help="Settings in TOML.  [default: blocksd.toml]"),
    ):
        command = option(command)
    return command


_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def _load(flags: dict[str, Any]) -> Config:
    path = flags.pop("config_path", None)
    return configuration.load(flags, path=path)


def _client(config: Config) -> Client:
    """A reader of the mirror the daemon keeps, wherever that is."""
    from blocksd.client import Client
    from blocksd.service import running_daemon

    url = config.redis
    if url is None:
        daemon = running_daemon(config.state)
        if daemon is None:
            raise Unavailable(f"no daemon is running for the namespace {config.namespace!r} (state in {config.state})")
        url = daemon["redis"]
    return Client(url, config.namespace)


@cli.command()
@click.argument("folder", required=False)
@_options
@click.option("--poll", is_flag=True, default=None, help="Do without file events, as for network file systems.")
@click.option("--resync-seconds", type=float, metavar="S", help="How often to compare everything.  [default: 60]")
@click.option(
    "--delete-grace", type=float, metavar="S", help="How long a file must be gone to count as deleted.  [default: 1]"
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="One line per event, as text or JSON.")
def run(**flags: Any) -> None:
    """Watch FOLDER (default: blocks.d) and keep the mirror.

    Without --redis a server of our own is started: valkey-server or redis-server if installed, else the one that comes
    with blocksd[embedded]. Its address, with the password, is in the file redis-url in the state directory.
    """
    from blocksd.report import Reporter
    from blocksd.service import Service

    config = _load(flags)
    reporter = Reporter(as_json=config.log_format == "json")
    Service(config, reporter).run()


@cli.command()
@click.argument("folder", required=False)
@click.option("--config", "config_path", metavar="FILE", help="Settings in TOML.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print.")
def check(form: str, **flags: Any) -> None:
    """Say what is wrong with the files in FOLDER (default: blocks.d).

    Needs no Redis and no daemon. Exit code 1 if a file is not, or would not be, in force.
    """
    config = _load(flags)
    if not os.path.isdir(config.folder):
        raise Misconfigured(f"there is no folder {config.folder!r}", key="folder")
    blocks, problems = _examine(config.folder)
    if form == "json":
        _print_json(
            {"folder": os.path.realpath(config.folder), "blocks": blocks, "problems": [p.as_json() for p in problems]}
        )
    else:
        for problem in problems:
            click.echo(f"{'warning: ' if problem.warning else ''}{problem.sentence()}")
        wrong = sum(not problem.warning for problem in problems)
        click.echo(
            f"{_count(blocks, 'block')} in order, {_count(wrong, 'problem')}, {_count(len(problems) - wrong, 'warning')}"
        )
    if any(not problem.warning for problem in problems):
        sys.exit(1)


def _examine(path: str) -> tuple[int, list[Problem]]:
    """Look at a folder just as the daemon does, with a journal that is thrown away."""
    from blocksd.folder import Folder
    from blocksd.intake import Intake
    from blocksd.journal import Journal

    with tempfile.TemporaryDirectory(prefix="blocksd-check-") as directory:
        journal = Journal(os.path.join(directory, "journal.db"))
        intake = Intake(Folder(path), journal, delete_grace=0.0, clock=time.monotonic, wall=time.time)
        intake.hint_all()
        while intake.due < float("inf"):
            time.sleep(min(0.05, max(0.0, intake.due - time.monotonic())))
            findings = intake.look(256)
            journal.append(findings.revisions, findings.files)
            if intake.is_stuck:
                break
        journal.close()
        return len(intake.paths), [intake.problems[subject] for subject in sorted(intake.problems)]


@cli.command()
@_options
@_json_option
def status(as_json: bool, **flags: Any) -> None:
    """Show the daemon: what it serves, where it stands, what is wrong.

    Works when the daemon is down, too, from the journal and what Redis still holds. Exit code 1 if there are problems,
    3 if no daemon is running.
    """
    config = _load(flags)
    report = _status(config)
    if as_json:
        _print_json(report)
    else:
        _show_status(report)
    if not report["running"]:
        sys.exit(3)
    if any(not problem["warning"] for problem in report["problems"]):
        sys.exit(1)


def _status(config: Config) -> dict[str, Any]:
    from blocksd.client import Client
    from blocksd.connection import masked
    from blocksd.errors import JournalUnusable
    from blocksd.journal import JournalReader
    from blocksd.service import running_daemon

    daemon = running_daemon(config.state)
    url = config.redis or (daemon["redis"] if daemon else None)
    report: dict[str, Any] = {
        "running": daemon is not None,
        "pid": daemon["pid"] if daemon else None,
        "namespace": config.namespace,
        "folder": daemon["folder"] if daemon else None,
        "state": config.state,
        "redis": masked(url) if url else None,
        "blocks": None,
        "agents": None,
        "seq": None,
        "mirror_seq": None,
        "mirror": "away",
        "started_at": None,
        "problems": [],
    }
    try:
        journal = JournalReader(os.path.join(config.state, "journal.db"))
        report["seq"], report["blocks"] = journal.seq, journal.count()
        journal.close()
    except JournalUnusable:
        pass
    if url is None:
        return report
    client = Client(url, config.namespace)
    try:
        meta, counts = client.meta(), client.counts()
        report["running"] = report["running"] or client.is_kept()
        report["problems"] = client.problems()
    except (Unavailable, Misconfigured) as error:
        report["mirror"] = error.message
        return report
    finally:
        client.close()
    if not meta:
        report["mirror"] = "never written"
        return report
    report |= {key: report[key] or meta.get(key) for key in ("pid", "started_at")}
    report["folder"] = report["folder"] or meta.get("directory")
    report["host"] = meta.get("host")
    report["agents"] = counts["agents"]
    report["blocks"] = report["blocks"] if report["blocks"] is not None else counts["blocks"]
    report["mirror_seq"] = int(meta["seq"]) if "seq" in meta else None
    behind = (report["seq"] or 0) - (report["mirror_seq"] or 0)
    report["mirror"] = "being rebuilt" if "seq" not in meta else "level" if behind <= 0 else f"{behind} behind"
    return report


def _show_status(report: dict[str, Any]) -> None:
    state = f"running, pid {report['pid']}" if report["running"] else "not running"
    if report["started_at"] and report["running"]:
        state += f", since {report['started_at']}"
    lines = [("daemon", state), *((key, report[key]) for key in ("folder", "redis", "state", "namespace"))]
    lines += [
        ("blocks", report["blocks"]),
        ("agents", report["agents"]),
        ("seq", report["seq"]),
        ("mirror", report["mirror"]),
    ]
    for name, value in lines:
        click.echo(f"{name:<10} {'-' if value is None else value}")
    problems = report["problems"]
    click.echo(f"{'problems':<10} {len(problems) or 'none'}")
    for problem in problems:
        hint = f" ({problem['hint']})" if problem["hint"] else ""
        place = f"{problem['subject']}:{problem['line']}" if problem["line"] else problem["subject"]
        click.echo(f"  {place}: {problem['message']}{hint}")
    if not report["running"]:
        click.echo("start it with: blocksd run FOLDER", err=True)


@cli.command("ls")
@_options
@click.option("--label", metavar="PATTERN", help="Only labels that match, as `system/*`.")
@click.option("--search", metavar="TEXT", help="Only blocks whose label, description or value holds the text.")
@click.option("--agent", metavar="AGENT", help="Only what is attached to the agent, under the agent's names.")
@click.option(
    "--tag", "tags", metavar="TAG", multiple=True, help="Only blocks with the tag; several: with all of them."
)
@click.option("--all", "show_hidden", is_flag=True, help="Hidden blocks, too.")
@_json_option
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
    client = _client(_load(flags))
    names = client.blocks_of(agent) if agent is not None else {one: one for one in client.labels()}
    wanted = {one: name for name, one in names.items() if _selects(label, one)}
    found = [
        (wanted[shown.block.label], shown)
        for shown in client.retrieve_many(sorted(wanted))
        if (show_hidden or not shown.block.hidden) and set(tags) <= set(shown.block.tags) and _mentions(shown, search)
    ]
    if as_json:
        _print_json([{"name": name, **shown.as_json()} for name, shown in found])
        return
    rows = [
        (
            name,
            f"{len(shown.block.value)}/{shown.block.limit}",
            "ro" if shown.block.read_only else "",
            str(len(shown.block.agents)),
            f"v{shown.version}",
            _age(shown.updated_at),
            shown.block.description or "",
        )
        for name, shown in sorted(found)
    ]
    _print_table(("name" if agent else "label", "chars", "", "agents", "version", "age", "description"), rows)


def _selects(pattern: str | None, label: str) -> bool:
    from fnmatch import fnmatchcase

    return pattern is None or fnmatchcase(label, pattern)


def _mentions(shown: Shown, text: str | None) -> bool:
    block = shown.block
    return text is None or any(
        text.casefold() in part.casefold() for part in (block.label, block.description or "", block.value)
    )


@cli.command()
@click.argument("label")
@_options
@_json_option
def show(label: str, as_json: bool, **flags: Any) -> None:
    """Show a block: its value on standard output, all about it on standard error."""
    client = _client(_load(flags))
    try:
        shown = client.retrieve(label)
    except NotFound as error:
        error.facts["near"] = difflib.get_close_matches(label, client.labels(), n=1)
        raise
    if as_json:
        _print_json(shown.as_json())
        return
    block = shown.block
    about = f"{block.label} v{shown.version} · {len(block.value)} of {block.limit} characters · {_ago(shown.updated_at)} by {shown.updated_by}"
    if block.read_only:
        about += " · read-only"
    if block.agents:
        about += f" · agents {', '.join(block.agents[:10])}{', …' if len(block.agents) > 10 else ''}"
    click.echo(click.style(about, dim=True), err=True)
    if block.description:
        click.echo(click.style(block.description, dim=True), err=True)
    click.echo(block.value)


@cli.command()
@_options
@_json_option
def agents(as_json: bool, **flags: Any) -> None:
    """List the known agents, and what is attached to each."""
    client = _client(_load(flags))
    known = {agent: client.blocks_of(agent) for agent in client.agents()}
    if as_json:
        _print_json([{"agent": agent, "blocks": names} for agent, names in known.items()])
        return
    rows = [(agent, str(len(names)), ", ".join(sorted(names))) for agent, names in known.items()]
    _print_table(("agent", "blocks", "names"), rows)


@cli.command()
@_options
@click.option("--since", type=click.IntRange(min=0), metavar="SEQ", help="Begin with the change after this number.")
@click.option("--block", "label", metavar="LABEL", help="Only this block.")
@click.option("--agent", metavar="AGENT", help="Only what is attached to the agent.")
@_json_option
def watch(since: int | None, label: str | None, agent: str | None, as_json: bool, **flags: Any) -> None:
    """Print every change as it happens, until interrupted.

    With --since, what happened after that number comes first, from the stream. A `reset` says that changes were
    missed which are no longer kept: what was read before may be stale.
    """
    if sys.stderr.isatty():
        click.echo(click.style("following changes; Ctrl-C ends", dim=True), err=True)
    for change in _client(_load(flags)).watch(since=since, label=label, agent=agent):
        click.echo(json.dumps(change.raw, ensure_ascii=False) if as_json else _describe(change))


def _describe(change: Change) -> str:
    raw = change.raw
    if change.kind == "reset":
        return f"{change.seq:>6} reset: read everything again"
    if change.seq is None:
        message = f": {raw['problem']['message']}" if "problem" in raw else ""
        return f"{'':>6} {change.kind} {raw.get('subject')}{message}"
    people = " ".join([f"+{one}" for one in raw["attached"]] + [f"-{one}" for one in raw["detached"]])
    fields = f" ({', '.join(raw['fields'])})" if raw["fields"] else ""
    return (
        f"{change.seq:>6} {change.kind} {change.label} v{raw['version']}{fields} by {raw['author']} {people}".rstrip()
    )


@cli.command()
@click.argument("label")
@_options
@click.option("-n", "--limit", type=click.IntRange(min=1), default=20, show_default=True, help="How many versions.")
@_json_option
def history(label: str, limit: int, as_json: bool, **flags: Any) -> None:
    """List a block's versions, newest first."""
    revisions = _revisions(_load(flags), label, limit)
    if as_json:
        _print_json([_revision_json(revision) for revision in revisions])
        return
    rows = [
        (
            f"v{revision.version}",
            str(revision.seq),
            _ago(revision.at),
            revision.author,
            revision.kind,
            str(len(revision.block.value)) if revision.block else "-",
            ", ".join(revision.fields),
        )
        for revision in revisions
    ]
    _print_table(("version", "seq", "when", "who", "what", "chars", "fields"), rows)


@cli.command()
@click.argument("label")
@click.argument("old", required=False, metavar="[A]")
@click.argument("new", required=False, metavar="[B]")
@_options
@_json_option
def diff(label: str, old: str | None, new: str | None, as_json: bool, **flags: Any) -> None:
    """Show how a block's value changed: from version A to B, from A to now, or by the newest change."""
    revisions = {revision.version: revision for revision in _revisions(_load(flags), label, -1)}
    newest = max(revisions)
    before = _version(old) if old is not None else newest - 1
    after = _version(new) if new is not None else newest
    for version in (before, after):
        if version != 0 and version not in revisions:
            raise NotFound(f"version {version} of {label!r} is not kept", label=label, version=version)
    old_lines, new_lines = (_value_lines(revisions.get(version)) for version in (before, after))
    lines = list(difflib.unified_diff(old_lines, new_lines, f"{label} v{before}", f"{label} v{after}", lineterm=""))
    if as_json:
        _print_json({"label": label, "from": before, "to": after, "diff": "".join(f"{line}\n" for line in lines)})
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


def _revisions(config: Config, label: str, limit: int) -> list[Revision]:
    from blocksd.journal import JournalReader

    path = os.path.join(config.state, "journal.db")
    if not os.path.exists(path):
        raise Unavailable(f"there is no journal in {config.state}")
    journal = JournalReader(path)
    try:
        revisions = journal.history(label, limit=limit)
        if not revisions:
            near = difflib.get_close_matches(label, [head.label for head in journal.heads()], n=1)
            raise NotFound(f"there never was a block {label!r}", label=label, near=near)
        return revisions
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


@cli.command()
@_options
@click.option("--accept-deletions", is_flag=True, help="The files that vanished are meant to be gone.")
def resume(accept_deletions: bool, **flags: Any) -> None:
    """Let a daemon that has halted go on.

    It halts when so many files vanish at once that a lost disk is more likely than an edit, and goes on by itself when
    they are back. If they are not meant to come back, say so with --accept-deletions.
    """
    from blocksd.service import ACCEPT_DELETIONS, running_daemon

    config = _load(flags)
    if running_daemon(config.state) is None:
        raise Unavailable(f"no daemon is running for the namespace {config.namespace!r} (state in {config.state})")
    if not accept_deletions:
        raise click.UsageError("say what to accept: --accept-deletions")
    with suppress(Unavailable):  # without Redis there is no telling, and the daemon knows better anyway
        if not any(problem["code"] == "halted" for problem in _client(config).problems()):
            click.echo("no deletions are held back")
            return
    with open(os.path.join(config.state, ACCEPT_DELETIONS), "w", encoding="utf-8"):
        pass
    click.echo("the deletions are accepted; 'blocksd status' shows the rest")


def _print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on a terminal; tab-separated lines, which other programs can cut, elsewhere."""
    rows = list(rows)
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.table import Table

    # On a narrow terminal only the last column gives way.
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True, padding=(0, 1, 0, 0))
    for column in columns[:-1]:
        table.add_column(column, no_wrap=True)
    table.add_column(columns[-1], no_wrap=True, ratio=1)
    for row in rows:
        table.add_row(*row)
    _print_rich(table)


def _print_rich(what: RenderableType) -> None:
    from rich.console import Console

    Console(highlight=False, markup=False).print(what)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _ago(at: str) -> str:
    return f"{_age(at)} ago"


def _age(at: str) -> str:
    from datetime import UTC, datetime

    seconds = int((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


def _next_step(error: BlocksdError) -> str:
    """What a person can do about an error."""
    near = error.facts.get("near")
    if near:
        return f"did you mean {near[0]!r}?"  # type: ignore[index]  # a list, as set above
    if isinstance(error, NotFound):
        return "'blocksd ls' lists the blocks, 'blocksd agents' the agents"
    if isinstance(error, AlreadyRunning):
        return "stop it first, or give this one a folder, a --namespace and a --state-dir of its own"
    if isinstance(error, Unavailable):
        return "start the daemon with 'blocksd run FOLDER', or say where Redis is with --redis URL"
    if error.facts.get("key") == "folder":
        return "make one with 'mkdir', or name another: 'blocksd run FOLDER'"
    return ""


def main() -> None:
    """The command `blocksd`."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BlocksdError as error:
        click.echo(f"blocksd: {error.message}", err=True)
        step = _next_step(error)
        if step:
            click.echo(f"  {step}", err=True)
        sys.exit(3 if isinstance(error, Unavailable) else 2 if isinstance(error, Misconfigured) else 1)
