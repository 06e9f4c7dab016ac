"""The commands about the daemon itself: run, check, status, resume."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli import completion
from blocksd.cli.console import age, ago, duration, exit_code, next_step, print_facts, print_json, print_wrapped
from blocksd.cli.options import daemon_of, daemon_options, json_option, load, resolve
from blocksd.errors import BlocksdError, Misconfigured, Unavailable
from blocksd.monitoring.status import count
from blocksd.requests.inbox import REFUSALS
from blocksd.service.control import ACCEPT_DELETIONS, STATUS, ask
from blocksd.settings.record import running_daemon

if TYPE_CHECKING:
    from blocksd.model.problem import Problem
    from blocksd.monitoring.events import ServiceListener
    from blocksd.settings.config import Config


@click.command()
@click.argument("folder", required=False, shell_complete=completion.directories)
@daemon_options
@click.option("--poll", is_flag=True, default=None, help="Do without file events, as for network file systems.")
@click.option("--resync-seconds", type=float, metavar="S", help="How often to compare everything.  [default: 60]")
@click.option(
    "--delete-grace", type=float, metavar="S", help="How long a file must be gone to count as deleted.  [default: 1]"
)
@click.option(
    "--log-level", type=click.Choice(["error", "warning", "info", "debug"]), help="How much to log.  [default: info]"
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="One line per event, as text or JSON.")
@click.option("--metrics", metavar="[HOST:]PORT", help="Where to serve metrics for Prometheus.  [default: nowhere]")
def run(**flags: Any) -> None:
    """Watch FOLDER (default: blocks.d) and keep the mirror.

    Without --redis a server of our own is started: valkey-server or redis-server if installed, else the one that comes
    with blocksd[embedded]. Its address, with the password, is in the file redis-url in the state directory.
    """
    from blocksd.monitoring.log import EventLog
    from blocksd.service.service import Service

    resolved = resolve(flags)
    config = resolved.config
    log = EventLog(level=config.log_level, as_json=config.log_format == "json")
    log.capture()
    try:
        # Once there is a file, that it cannot be read is an error, and never a return to the defaults.
        listeners = [log, *_metrics(config)]
        Service(config, listeners, lambda: resolve(flags, file=resolved.file).config).run()
    except BlocksdError as error:
        if not log.as_json:
            raise
        log.on_failure(error, next_step(error))
        sys.exit(exit_code(error))


def _metrics(config: Config) -> list[ServiceListener]:
    """The listener that serves metrics, if one is wanted.

    Raises:
        Misconfigured: it needs a package that is not installed.
    """
    if config.metrics_address is None:
        return []
    try:
        from blocksd.monitoring.metrics import Metrics
    except ImportError as error:
        if error.name is None or not error.name.startswith("prometheus_client"):
            raise
        message = "metrics need the package prometheus-client: pip install 'blocksd[metrics]'"
        raise Misconfigured(message, key="metrics") from None
    return [Metrics(*config.metrics_address)]


@click.command()
@click.argument("folder", required=False, shell_complete=completion.directories)
@click.option("--config", "config_path", metavar="FILE", type=click.Path(), help="Settings in TOML.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print.")
def check(form: str, **flags: Any) -> None:
    """Say what is wrong with the files in a folder.

    FOLDER is by default blocks.d. Needs no Redis and no daemon. Exit code 1 if a file is not, or would not be, in force.
    """
    config = load(flags)
    if not os.path.isdir(config.folder):
        raise Misconfigured(f"there is no folder {config.folder!r}", key="folder")
    blocks, problems = examine(config.folder)
    if form == "json":
        print_json(
            {"folder": os.path.realpath(config.folder), "blocks": blocks, "problems": [p.as_json() for p in problems]}
        )
    else:
        for problem in problems:
            if sys.stdout.isatty():
                _show_problem(problem.as_json(), "")
            else:  # a line each, as other programs take them
                click.echo(f"{'warning: ' if problem.warning else ''}{problem.sentence()}")
        wrong = sum(not problem.warning for problem in problems)
        click.echo(
            f"{count(blocks, 'block')} in order, {count(wrong, 'problem')}, {count(len(problems) - wrong, 'warning')}"
        )
    if any(not problem.warning for problem in problems):
        sys.exit(1)


def examine(path: str) -> tuple[int, list[Problem]]:
    """Look at a folder just as the daemon does, with a journal that is thrown away.

    Returns how many blocks are in force, and what is wrong.
    """
    from blocksd.core.core import look_once
    from blocksd.core.decide import FolderView
    from blocksd.core.intake import Intake
    from blocksd.files.folder import Folder
    from blocksd.journal.journal import Journal
    from blocksd.model.faults import Faults
    from blocksd.model.problems import Problems
    from blocksd.model.revision import timestamp
    from blocksd.state.schedule import Schedule
    from blocksd.state.state import State

    with tempfile.TemporaryDirectory(prefix="blocksd-check-") as directory:
        journal = Journal(os.path.join(directory, "journal.db"))
        state, problems, folder = State(journal), Problems(time.time), Folder(path)
        faults, clock = Faults(problems), time.monotonic
        intake = Intake(folder, journal, state, problems, faults, Schedule(), delete_grace=0.0, clock=clock)
        view = FolderView(state, folder, intake, lambda _revision, _saved_at: False)
        intake.hint_all()
        while intake.due < float("inf"):
            time.sleep(min(0.05, max(0.0, intake.due - time.monotonic())))
            look_once(view, journal, 256, timestamp(time.time()))
            if intake.is_stuck:
                break
        journal.close()
        return len(state.paths), [problems[subject] for subject in sorted(problems)]


@click.command()
@daemon_options
@json_option
def status(as_json: bool, **flags: Any) -> None:
    """Show what the daemon serves, how it is, and what is wrong.

    The daemon itself is asked. When it is down, or does not answer, the journal and what Redis holds tell what they can.
    Exit code 1 if there are problems or the mirror is not in sync, 3 if no daemon is running, or it does not answer.
    """
    config = load(flags)
    report = _status(config)
    if as_json:
        print_json(report)
    else:
        _show_status(report)
    if not report["running"] or report["answers"] is False:
        sys.exit(3)
    if report["mirror"] != "level" or any(not problem["warning"] for problem in report["problems"]):
        sys.exit(1)


def _status(config: Config) -> dict[str, Any]:
    """What the daemon says of itself; what can be told without it, if it does not."""
    daemon = running_daemon(config.state)
    if daemon is not None:
        with suppress(Unavailable):
            return ask(config.state, STATUS)
    return _traces(config, daemon)


def _traces(config: Config, daemon: dict[str, str] | None) -> dict[str, Any]:
    """What the journal and Redis tell of a daemon that is not there, does not answer, or is elsewhere."""
    from blocksd.client.blocking.client import Client
    from blocksd.mirror.connection import masked

    url = config.redis or (daemon["redis"] if daemon else None)
    journaled, epoch = _journaled(config.state)
    report: dict[str, Any] = {
        "running": daemon is not None,
        "answers": None if daemon is None else False,
        "pid": daemon["pid"] if daemon else None,
        "version": None,
        "host": None,
        "started_at": None,
        "uptime_seconds": None,
        "folder": daemon["folder"] if daemon else None,
        "namespace": config.namespace,
        "state": config.state,
        "redis": masked(url) if url else None,
        "redis_server": None,
        "redis_embedded": None,
        "polling": None,
        **journaled,
        "agents": None,
        "mirror": "unknown",
        "mirror_seq": None,
        "mirror_lag": None,
        "away_since": None,
        "away_reason": None,
        "queue": {"files": None, "requests": None},
        "refused": dict.fromkeys(REFUSALS),
        "watches": {"used": None, "limit": None},
        "ready": None,
        "halted": None,
        "last_reload": None,
        "problems": [],
    }
    if url is None:
        return report
    client = Client(url, config.namespace)
    try:
        meta, counts = client.meta(), client.counts()
        # A lease outlives its daemon; that of this state directory is known to be dead by its lock.
        report["running"] = report["running"] or (client.is_kept() and meta.get("epoch") != epoch)
        report["problems"] = client.problems()
    except (Unavailable, Misconfigured) as error:
        return report | {"mirror": "away", "away_reason": error.message}
    finally:
        client.close()
    if not meta:
        return report | {"mirror": "empty"}
    report["pid"] = report["pid"] or int(meta["pid"])
    report["folder"] = report["folder"] or meta.get("directory")
    report |= {"host": meta.get("host"), "started_at": meta.get("started_at"), "agents": counts["agents"]}
    report["blocks"] = report["blocks"] if report["blocks"] is not None else counts["blocks"]
    if "seq" not in meta:
        return report | {"mirror": "rebuilding"}
    shown = int(meta["seq"])
    lag = max(0, (report["seq"] or 0) - shown)
    return report | {"mirror": "behind" if lag else "level", "mirror_seq": shown, "mirror_lag": lag}


def _journaled(state: str) -> tuple[dict[str, Any], str | None]:
    """What the journal tells, and its epoch, if there is one."""
    from blocksd.errors import JournalUnusable
    from blocksd.journal.history import JournalReader

    try:
        journal = JournalReader(os.path.join(state, "journal.db"))
        try:
            newest = journal.newest()
            last_change = newest.summary() if newest is not None else None
            return {"blocks": journal.count(), "seq": journal.seq, "last_change": last_change}, journal.epoch
        finally:
            journal.close()
    except JournalUnusable:
        return {"blocks": None, "seq": None, "last_change": None}, None


def _show_status(report: dict[str, Any]) -> None:
    print_facts(
        [
            ("daemon", _how_it_runs(report)),
            *((name, report[name] or "-") for name in ("folder", "namespace", "state")),
            ("redis", _which_redis(report)),
        ]
    )
    click.echo()
    print_facts(
        [
            *((name, _or_dash(report[name])) for name in ("blocks", "agents", "seq")),
            ("last change", _last_change(report["last_change"])),
            ("mirror", _how_the_mirror_is(report)),
        ]
    )
    if report["answers"]:
        queue, watches = report["queue"], report["watches"]
        click.echo()
        print_facts(
            [
                ("queue", f"{count(queue['files'], 'file')} to look at, {count(queue['requests'], 'request')} waiting"),
                *([("dropped", _dropped(report["refused"]))] if any(report["refused"].values()) else []),
                ("watches", "none, it polls" if report["polling"] else _of(watches["used"], watches["limit"])),
                *([("reloaded", _last_reload(report["last_reload"]))] if report["last_reload"] else []),
            ]
        )
    click.echo()
    problems = report["problems"]
    print_facts([("problems", str(len(problems) or "none"))])
    for problem in problems:
        _show_problem(problem, "  ")
    if not report["running"]:
        click.echo("start it with: blocksd run FOLDER", err=True)
    elif report["answers"] is False:
        click.echo("it may be stopped, hang, or be only just starting: its log tells more", err=True)


def _show_problem(problem: dict[str, Any], indent: str) -> None:
    """What is wrong, and below it what to do, in lines of 80 columns."""
    place = f"{problem['subject']}:{problem['line']}" if problem["line"] else problem["subject"]
    warning = "warning: " if problem["warning"] else ""
    print_wrapped(f"{indent}{warning}{place}: {problem['message']}", f"{indent}  ")
    if problem["hint"]:
        print_wrapped(f"{indent}  {problem['hint']}", f"{indent}  ")


def _how_it_runs(report: dict[str, Any]) -> str:
    if not report["running"]:
        return "not running"
    if report["answers"] is False:
        return f"runs, but does not answer, pid {report['pid']}; the rest is from the journal and Redis"
    how = f"{'starting' if report['ready'] is False else 'running'}, pid {report['pid']}"
    if report["answers"] is None:  # known by its lease alone
        return f"{how} on {report['host']}" + (f", for {age(report['started_at'])}" if report["started_at"] else "")
    return f"{how}, for {duration(report['uptime_seconds'])}, version {report['version']}"


def _which_redis(report: dict[str, Any]) -> str:
    about = " ".join(filter(None, ("embedded" if report["redis_embedded"] else "", report["redis_server"])))
    return f"{report['redis'] or '-'}{f' ({about})' if about else ''}"


def _last_change(change: dict[str, Any] | None) -> str:
    if change is None:
        return "-"
    return f"{change['seq']} {change['label']} v{change['version']}, {ago(change['at'])} by {change['author']}"


def _last_reload(reload: dict[str, Any]) -> str:
    when = ago(reload["at"])
    if reload["error"] is not None:
        return f"{when}, in vain: {reload['error']}"
    changed = f", changed: {', '.join(reload['changed'])}" if reload["changed"] else ""
    waiting = f", needs a restart: {', '.join(reload['waiting'])}" if reload["waiting"] else ""
    return f"{when}{changed or ', nothing changed'}{waiting}"


def _how_the_mirror_is(report: dict[str, Any]) -> str:
    mirror: str = report["mirror"]
    if mirror == "behind":
        return f"{report['mirror_lag']} behind"
    if mirror == "away":
        since = f" since {report['away_since']} ({age(report['away_since'])})" if report["away_since"] else ""
        return f"away{since}: {report['away_reason']}"
    return {"rebuilding": "being rebuilt", "empty": "never written"}.get(mirror, mirror)


def _dropped(refused: dict[str, int]) -> str:
    """How many entries of inboxes were not carried out since the start, and why."""
    reasons = zip(REFUSALS, ("not requests", "too long", "more than an inbox may hold"), strict=True)
    return ", ".join(f"{refused[reason]} {words}" for reason, words in reasons if refused[reason])


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def _of(number: int, limit: int | None) -> str:
    return str(number) if limit is None else f"{number} of {limit}"


@click.command()
@daemon_options
@click.option("--accept-deletions", is_flag=True, help="The files that vanished are meant to be gone.")
def resume(accept_deletions: bool, **flags: Any) -> None:
    """Let a daemon that has halted go on.

    It halts when so many files vanish at once that a lost disk is more likely than an edit, and goes on by itself when
    they are back. If they are not meant to come back, say so with --accept-deletions.
    """
    config = load(flags)
    daemon_of(config)
    if not accept_deletions:
        raise click.UsageError("say what to accept: --accept-deletions")
    missing = ask(config.state, ACCEPT_DELETIONS)["accepted"]
    if missing is None:
        click.echo("no deletions are held back")
    else:
        click.echo(f"accepted, with {count(missing, 'block')} missing so far; 'blocksd status' shows the rest")
