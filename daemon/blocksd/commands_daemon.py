"""The commands about the daemon itself: run, check, status, resume."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from blocksd import completion
from blocksd.console import count, print_json
from blocksd.errors import Misconfigured, Unavailable
from blocksd.options import daemon_of, daemon_options, json_option, load, open_client, resolve

if TYPE_CHECKING:
    from blocksd.config import Config
    from blocksd.problem import Problem


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
    from blocksd.report import Reporter
    from blocksd.service import Service

    resolved = resolve(flags)
    reporter = Reporter(as_json=resolved.config.log_format == "json")
    # Once there is a file, that it cannot be read is an error, and never a return to the defaults.
    Service(resolved.config, reporter, lambda: resolve(flags, file=resolved.file).config).run()


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
    from blocksd.folder import Folder
    from blocksd.intake import Intake
    from blocksd.journal import Journal
    from blocksd.ledger import Ledger

    with tempfile.TemporaryDirectory(prefix="blocksd-check-") as directory:
        journal = Journal(os.path.join(directory, "journal.db"))
        ledger = Ledger(journal, wall=time.time)
        intake = Intake(
            Folder(path), journal, ledger, delete_grace=0.0, stale_window=0.0, clock=time.monotonic, wall=time.time
        )
        intake.hint_all()
        while intake.due < float("inf"):
            time.sleep(min(0.05, max(0.0, intake.due - time.monotonic())))
            files = intake.look(256)
            journal.append(ledger.drafted, files)
            ledger.settle()
            if intake.is_stuck:
                break
        journal.close()
        return len(ledger.paths), [intake.problems[subject] for subject in sorted(intake.problems)]


@click.command()
@daemon_options
@json_option
def status(as_json: bool, **flags: Any) -> None:
    """Show what the daemon serves, how it is, and what is wrong.

    Works when the daemon is down, too, from the journal and what Redis still holds. Exit code 1 if there are problems,
    3 if no daemon is running.
    """
    config = load(flags)
    report = _status(config)
    if as_json:
        print_json(report)
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
    from blocksd.record import running_daemon

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


@click.command()
@daemon_options
@click.option("--accept-deletions", is_flag=True, help="The files that vanished are meant to be gone.")
def resume(accept_deletions: bool, **flags: Any) -> None:
    """Let a daemon that has halted go on.

    It halts when so many files vanish at once that a lost disk is more likely than an edit, and goes on by itself when
    they are back. If they are not meant to come back, say so with --accept-deletions.
    """
    from blocksd.service import ACCEPT_DELETIONS

    config = load(flags)
    daemon_of(config)
    if not accept_deletions:
        raise click.UsageError("say what to accept: --accept-deletions")
    with suppress(Unavailable):  # without Redis there is no telling, and the daemon knows better anyway
        if not any(problem["code"] == "halted" for problem in open_client(config).problems()):
            click.echo("no deletions are held back")
            return
    with open(os.path.join(config.state, ACCEPT_DELETIONS), "w", encoding="utf-8"):
        pass
    click.echo("the deletions are accepted; 'blocksd status' shows the rest")
