"""The command status: asks the daemon, or finds out from the journal and Redis."""

from __future__ import annotations

import os
import sys
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli.advice import other_daemons
from blocksd.cli.commands_follow import show as show_follower
from blocksd.cli.console import age, ago, duration, print_facts, print_json, print_problems
from blocksd.cli.options import daemon_options, json_option, resolve, running_options
from blocksd.errors import Misconfigured, Unavailable
from blocksd.mirror.keys import Keys, number_of
from blocksd.model.problem import CONFIG, Problem, count, tally
from blocksd.model.revision import timestamp, who
from blocksd.monitoring.status import MIRROR_WORDS, tally_text
from blocksd.requests.inbox import REFUSALS
from blocksd.service.control import STATUS, ask
from blocksd.settings.record import running_daemon

if TYPE_CHECKING:
    from blocksd.settings.config import Config

FOLLOWER = "follower"
"""The role by which a follower answers in the place of a daemon."""

_KEYS = (
    *("running", "answers", "pid", "version", "host", "started_at", "uptime_seconds", "folder", "namespace", "state"),
    "generation",
    *("redis", "redis_server", "redis_embedded", "polling", "gateway", "blocks", "seq", "last_change", "agents"),
    *("mirror", "mirror_seq", "mirror_lag", "away_since", "away_reason", "queue", "refused", "watches", "ready"),
    *("halted", "last_reload", "problems"),
)
"""The keys of a report, in their order; null where nothing is known."""


@click.command()
@daemon_options
@click.option("--all", "everything", is_flag=True, help="Show all problems of a kind, and not only the first three.")
@json_option
def status(*, everything: bool, as_json: bool, **flags: Any) -> None:
    """Show the state of the daemon, and the problems by kind.

    The state is what the daemon serves, and whether the mirror is in sync. If the daemon does not run or does not answer, the facts come from the journal and from Redis, as far as they go. Exit
    code 1 if there are problems or warnings, or the mirror is not in sync; 3 if no daemon runs, or it does not answer.
    """
    mistakes: list[Misconfigured] = []
    config = resolve(flags, mistakes=mistakes).config
    report = _status(config)
    if report.get("role") == FOLLOWER:
        show_follower(report, as_json=as_json, everything=everything)
        return
    report["problems"] += [*_of_mirror(report), *(_of_settings(mistake) for mistake in mistakes)]
    if as_json:
        print_json(report)
    else:
        _show_status(report, everything=everything)
    if not report["running"] or report["answers"] is False:
        sys.exit(3)
    if report["mirror"] != "level" or report["problems"]:
        sys.exit(1)


def _status(config: Config) -> dict[str, Any]:
    """Return the daemon's report; without an answer, the facts from the journal and from Redis."""
    daemon = running_daemon(config.state)
    if daemon is not None:
        with suppress(Unavailable):
            report = ask(config.state, STATUS)
            _ask_gateway(report.get("gateway"))
            return report | seen_in_mirror(daemon["redis"], report) if report.get("mirror") == "level" else report
    return _traces(config, daemon)


def _ask_gateway(gateway: dict[str, Any] | None) -> None:
    """Add to the report of a gateway how it answers; None: it does not run."""
    from blocksd.doctor.gateway import health

    if gateway is not None:
        gateway["answer"] = health(gateway["url"]) if gateway["phase"] == "serving" else None


def seen_in_mirror(url: str, report: dict[str, Any]) -> dict[str, Any]:
    """Return what differs in Redis at this moment from a mirror in sync; the daemon finds it within a second or two."""
    from blocksd.mirror.connection import check_namespace, connect, translated

    try:
        check_namespace(url, report["namespace"])
        with connect(url) as client, translated(url):
            meta = client.hgetall(Keys(report["namespace"]).meta)
    except (Unavailable, Misconfigured) as error:
        return {"mirror": "away", "away_since": timestamp(time.time()), "away_reason": error.message}
    if "seq" not in meta:
        return {"mirror": "rebuilding" if meta else "empty", "mirror_seq": None, "mirror_lag": None}
    lag = max(0, report["seq"] - int(meta["seq"]))
    return {"mirror": "behind", "mirror_seq": int(meta["seq"]), "mirror_lag": lag} if lag else {}


def _of_mirror(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the problem that the mirror is not in sync, if it is not."""
    mirror = report["mirror"]
    if mirror in ("level", "unknown"):
        return []
    hint = "it is written now: look again"
    if mirror == "away":
        hint = "check that the Redis server runs, and takes the user and password of 'redis'; changes are journaled meanwhile"
    is_passing = mirror in ("behind", "rebuilding")
    return [_problem("<mirror>", "unavailable", f"the mirror is {_mirror_text(report)}", hint, is_warning=is_passing)]


def _of_leader(report: dict[str, Any], newest: int, host: str | None) -> list[dict[str, Any]]:
    """Return the problem that another host was promoted to leader since this one was."""
    from blocksd.mirror.lease import superseded

    own = report["generation"]
    if own is None or newest <= own:
        return []
    error = superseded(report["namespace"], own, newest, host)
    return [_problem("<leader>", error.code, error.message, str(error.facts["hint"]))]


def _of_settings(mistake: Misconfigured) -> dict[str, Any]:
    hint = "correct it; until then this command, and a daemon started here, do not know what it sets"
    return _problem(CONFIG, mistake.code, mistake.message, hint)


def _problem(subject: str, code: str, message: str, hint: str, *, is_warning: bool = False) -> dict[str, Any]:
    return Problem(subject, code, message, hint, warning=is_warning, since=timestamp(time.time())).as_json()


def _traces(config: Config, daemon: dict[str, str] | None) -> dict[str, Any]:
    """Return the facts about a daemon that does not run, does not answer, or runs elsewhere."""
    from blocksd.client.blocking.client import Client
    from blocksd.mirror.connection import masked

    url = config.redis or (daemon["redis"] if daemon else None)
    journaled, epoch, newest = _journaled(config.state)
    report: dict[str, Any] = dict.fromkeys(_KEYS) | {
        "running": daemon is not None,
        "answers": None if daemon is None else False,
        "pid": daemon["pid"] if daemon else None,
        "folder": daemon["folder"] if daemon else None,
        "namespace": config.namespace,
        "state": config.state,
        "redis": masked(url) if url else None,
        **journaled,
        "mirror": "unknown",
        "queue": {"files": None, "requests": None},
        "refused": dict.fromkeys(REFUSALS),
        "watches": {"used": None, "limit": None},
        "problems": [],
    }
    if url is None:
        return report | {"problems": _of_leader(report, newest, None)}
    client = Client(url, config.namespace)
    try:
        meta = client.meta()
        # A lease outlives its daemon; the lock proves that the daemon of this state directory is dead.
        report["running"] = report["running"] or (client.is_kept() and meta.get("epoch") != epoch)
        newest = max(newest, number_of(meta.get("generation")) or 0)
        if "epoch" in meta:
            report["problems"], report["agents"] = client.problems(), client.counts()["agents"]
            report["blocks"] = report["blocks"] if report["blocks"] is not None else client.counts()["blocks"]
    except (Unavailable, Misconfigured) as error:
        found = _of_leader(report, newest, None)
        return report | {"mirror": "away", "away_reason": error.message, "problems": found}
    finally:
        client.close()
    report["problems"] += _of_leader(report, newest, meta.get("host"))
    if not meta:
        return report | {"mirror": "empty"}
    report["pid"] = report["pid"] or int(meta["pid"])
    report["folder"] = report["folder"] or meta.get("directory")
    report |= {"host": meta.get("host"), "started_at": meta.get("started_at")}
    if "seq" not in meta:
        return report | {"mirror": "rebuilding"}
    shown = int(meta["seq"])
    lag = max(0, (report["seq"] or 0) - shown)
    return report | {"mirror": "behind" if lag else "level", "mirror_seq": shown, "mirror_lag": lag}


def _journaled(state: str) -> tuple[dict[str, Any], str | None, int]:
    """Return the facts from the journal, its epoch if there is one, and the newest generation of a leader that it has met."""
    from blocksd.errors import JournalUnusable
    from blocksd.journal.history import JournalReader

    try:
        with closing(JournalReader(os.path.join(state, "journal.db"))) as journal:
            newest = journal.newest()
            last_change = newest.summary() if newest is not None else None
            facts = {"blocks": journal.count(), "seq": journal.seq, "last_change": last_change}
            return facts | {"generation": journal.generation}, journal.epoch, journal.newest_generation
    except JournalUnusable:
        return dict.fromkeys(("blocks", "seq", "last_change", "generation")), None, 0


def _show_status(report: dict[str, Any], *, everything: bool) -> None:
    print_facts(
        [
            ("daemon", _daemon_text(report)),
            *((name, report[name] or "-") for name in ("folder", "namespace", "state")),
            ("redis", _redis_text(report)),
            *([("gateway", _gateway_text(report["gateway"]))] if report.get("gateway") else []),
        ]
    )
    click.echo()
    print_facts(
        [
            *((name, _or_dash(report[name])) for name in ("blocks", "agents", "seq")),
            ("last change", _change_text(report["last_change"])),
            ("mirror", _mirror_text(report)),
        ]
    )
    if report["answers"]:
        queue, watches = report["queue"], report["watches"]
        click.echo()
        print_facts(
            [
                ("queue", f"{count(queue['files'], 'file')} to look at, {count(queue['requests'], 'request')} waiting"),
                *([("dropped", _refused_text(report["refused"]))] if any(report["refused"].values()) else []),
                ("watches", "none, it polls" if report["polling"] else _of(watches["used"], watches["limit"])),
                *([("reloaded", _reload_text(report["last_reload"]))] if report["last_reload"] else []),
            ]
        )
    click.echo()
    problems = report["problems"]
    is_known = report["answers"] or report["mirror"] not in ("unknown", "away", "empty")
    found = tally(problem["warning"] for problem in problems)
    none = "none" if is_known else "unknown: no daemon answers"
    print_facts([("problems", tally_text(found) if problems else none)])
    print_problems(problems, "  ", everything=everything)
    if not report["running"]:
        from blocksd.follow.place import NAME

        others = other_daemons(running_options())
        word = "follow" if os.path.exists(os.path.join(report["state"], NAME)) else "run"
        click.echo(f"{others}{'; or ' if others else ''}start it with: blocksd {word} FOLDER", err=True)
    elif report["answers"] is False:
        click.echo("it may be stopped, hang, or be starting: see its log", err=True)


def _daemon_text(report: dict[str, Any]) -> str:
    if not report["running"]:
        return "not running"
    if report["answers"] is False:
        return f"runs but does not answer, pid {report['pid']}; the rest is from the journal and Redis"
    how = f"{'starting' if report['ready'] is False else 'running'}, pid {report['pid']}"
    if report["answers"] is None:  # known by its lease alone
        return f"{how} on {report['host']}" + (f", for {age(report['started_at'])}" if report["started_at"] else "")
    generation = f", generation {report['generation']}" if report["generation"] else ""
    return f"{how}, for {duration(report['uptime_seconds'])}, version {report['version']}{generation}"


def _redis_text(report: dict[str, Any]) -> str:
    about = " ".join(filter(None, ("embedded" if report["redis_embedded"] else "", report["redis_server"])))
    return f"{report['redis'] or '-'}{f' ({about})' if about else ''}"


def _gateway_text(gateway: dict[str, Any]) -> str:
    from blocksd.doctor.gateway import ANSWERS, is_unencrypted

    if gateway["answer"] is None:
        return f"{gateway['url']}, {'starting' if gateway['phase'] == 'starting' else 'does not run'}"
    unencrypted = ", without TLS" if is_unencrypted(gateway["url"]) else ""
    return f"{gateway['url']}{unencrypted}, pid {gateway['pid']}: {ANSWERS[gateway['answer']]}"


def _change_text(change: dict[str, Any] | None) -> str:
    if change is None:
        return "-"
    return f"{change['seq']} {change['label']} v{change['version']}, {ago(change['at'])} by {who(change['author'], change.get('by'))}"


def _reload_text(reload: dict[str, Any]) -> str:
    when = ago(reload["at"])
    if reload["error"] is not None:
        return f"{when}, failed: {reload['error']}"
    changed = f", changed: {', '.join(reload['changed'])}" if reload["changed"] else ""
    waiting = f", needs a restart: {', '.join(reload['waiting'])}" if reload["waiting"] else ""
    return f"{when}{changed or ', nothing changed'}{waiting}"


def _mirror_text(report: dict[str, Any]) -> str:
    mirror: str = report["mirror"]
    if mirror == "behind":
        return f"{report['mirror_lag']} behind"
    if mirror == "away":
        since = f" since {report['away_since']} ({age(report['away_since'])})" if report["away_since"] else ""
        return f"unreachable{since}: {report['away_reason']}"
    return {**MIRROR_WORDS, "empty": "never written"}.get(mirror, mirror)


def _refused_text(refused: dict[str, int]) -> str:
    """Return how many inbox entries were not executed since the start, and why."""
    reasons = zip(REFUSALS, ("not requests", "too long", "more than an inbox may hold"), strict=True)
    return ", ".join(f"{refused[reason]} {words}" for reason, words in reasons if refused[reason])


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def _of(number: int, limit: int | None) -> str:
    return str(number) if limit is None else f"{number} of {limit}"
