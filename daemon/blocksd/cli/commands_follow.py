"""The command follow: runs a follower, asks it, or gives the leader's version of a file back."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli import completion
from blocksd.cli.commands_daemon import failure_in, log_options, metrics_installed
from blocksd.cli.console import duration, print_facts, print_json, print_problems
from blocksd.cli.options import daemon_of, daemon_options, json_option, resolve
from blocksd.errors import InvalidRequest, Misconfigured
from blocksd.model.problem import tally
from blocksd.monitoring.status import tally_text
from blocksd.service.control import REVERT, STATUS, ask

if TYPE_CHECKING:
    from blocksd.monitoring.events import ServiceListener
    from blocksd.settings.config import Config


@click.command()
@click.argument("folder", required=False, shell_complete=completion.directories)
@partial(daemon_options, redis_default="none: it must be given, here or in the settings")
@click.option("--read-only", is_flag=True, help="Never send local edits to the leader: report them, and keep them.")
@click.option(
    "--adopt", is_flag=True, help="Make FOLDER the copy, whatever is in it: what differs is kept, and not sent."
)
@click.option("--revert", metavar="PATH", help="Have the running follower take the leader's version of this file.")
@click.option("--status", "shows_status", is_flag=True, help="Show the state of the running follower.")
@click.option("--metrics", metavar="[HOST:]PORT", help="Serve metrics for Prometheus at this address.  [default: none]")
@log_options
@json_option
def follow(
    *, read_only: bool, adopt: bool, revert: str | None, shows_status: bool, as_json: bool, **flags: Any
) -> None:
    """Keep a live copy of another host's folder.

    The leader is the host where 'blocksd run' serves the folder. The copy in FOLDER (default: blocks.d) has the same bytes,
    and follows every change within milliseconds. What is edited here is never written over. FOLDER must be empty or a copy already. It is marked by a
    file .blocksd.follow: without that, nothing is written to it.

    \b
    blocksd follow blocks.d --redis redis://leader:6379 --read-only
    blocksd follow --status
    blocksd follow --revert notes/today.md
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    resolved = resolve(flags)
    config = resolved.config
    if shows_status:
        show(_status(config), as_json=as_json)
        return
    if revert is not None:
        _revert(config.state, str(_status(config)["folder"]), revert)
        return
    if config.redis is None:
        message = "a follower needs the URL of the leader's Redis"
        raise Misconfigured(message, key="redis", hint="name it with --redis URL, or as 'redis' in blocksd.toml")
    from blocksd.follow.follower import Follower
    from blocksd.monitoring.log import EventLog

    log = EventLog(level=config.log_level, as_json=config.log_format == "json", doing="copying")
    log.capture()
    listeners: list[ServiceListener] = [log]
    with failure_in(log):
        more: dict[str, Any] = {}
        if config.metrics_address is not None:
            with metrics_installed():
                from blocksd.monitoring.follower_metrics import FollowerMetrics
            metrics = FollowerMetrics(*config.metrics_address)
            listeners, more = [*listeners, metrics], {"show": metrics.show}
        Follower(config, config.redis, listeners, is_read_only=read_only, adopts=adopt, **more).run()


def _status(config: Config) -> dict[str, Any]:
    """Return the status of the running follower.

    Raises:
        Misconfigured: the leader's daemon has the state directory.
        Unavailable: none runs, or it does not answer.
    """
    daemon_of(config)
    report = ask(config.state, STATUS)
    if report.get("role") != "follower":
        message = f"the state directory {config.state} is that of a leader's daemon, not of a follower"
        hint = "name the follower's with --state-dir DIR; 'blocksd status' shows the daemon's state"
        raise Misconfigured(message, key="state_dir", hint=hint)
    return report


def _revert(state: str, folder: str, name: str) -> None:
    """Have the follower take the leader's version of a file, which is named from here, from the folder, or by its label."""
    path = os.path.realpath(name)
    inside = os.path.join(folder, "")
    path = path.removeprefix(inside) if path.startswith(inside) and os.path.exists(path) else name
    if "\n" in path:
        raise InvalidRequest("a path has no line ends", field="path")
    answer = ask(state, f"{REVERT}{path}")
    if answer["kept"] is not None:
        click.echo(f"{answer['path']} is as the leader's now; the text that was here is kept as {answer['kept']}")
    elif answer.get("is_back"):
        click.echo(f"{answer['path']} was gone, and is here again, as the leader's")
    else:
        click.echo(f"{answer['path']} is as the leader's: there was nothing to revert")


def show(report: dict[str, Any], *, as_json: bool, everything: bool = False) -> None:
    """Print the status of a follower, and exit with 1 if it is behind, or has problems or edits that were not sent."""
    if as_json:
        print_json(report)
    else:
        _print(report, everything=everything)
    if not report["in_sync"] or report["problems"] or report["unsent"]:
        sys.exit(1)


def _print(report: dict[str, Any], *, everything: bool) -> None:
    how = "running" if report["ready"] else "starting"
    print_facts(
        [
            ("follower", f"{how}, pid {report['pid']}, for {duration(report['uptime_seconds'])}, {report['mode']}"),
            *((name, report[name] or "-") for name in ("folder", "namespace", "state", "redis")),
            ("leader", _leader(report)),
        ]
    )
    click.echo()
    edits = report["local_edits"]
    print_facts(
        [
            ("files", str(report["files"])),
            ("seq", f"{report['seq']}{_behind(report)}"),
            *([("unsent", str(len(report["unsent"])))] if report["mode"] == "writable" else []),
            ("local edits", str(len(edits)) if edits else "none"),
        ]
    )
    click.echo()
    problems = report["problems"]
    found = tally(problem["warning"] for problem in problems)
    print_facts([("problems", tally_text(found) if problems else "none")])
    print_problems(problems, "  ", everything=everything)


def _leader(report: dict[str, Any]) -> str:
    generation = f", generation {report['generation']}" if report["generation"] else ""
    stopped = ", its daemon does not run" if report.get("leader_runs") is False else ""
    return f"{report['leader'] or '-'}{generation}{stopped}"


def _behind(report: dict[str, Any]) -> str:
    if report["in_sync"]:
        return ", in sync"
    lag = "an unknown number of" if report["lag"] is None else str(report["lag"])
    return f", {lag} changes behind, for {duration(report['lag_seconds'])}"
