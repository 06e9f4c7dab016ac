"""Commands that run a daemon, the gateway or an MCP server, stop a daemon, and resume it after a halt."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from blocksd.assistants.configuration import MCP_CLIENTS, mcp_configuration
from blocksd.cli import completion
from blocksd.cli.advice import next_step, other_daemons
from blocksd.cli.console import exit_code, print_configuration
from blocksd.cli.options import (
    Seconds,
    daemon_of,
    daemon_options,
    daemon_options_in_project,
    given_options,
    load,
    load_in_project,
    own_command,
    resolve,
    running_options,
    url_of,
)
from blocksd.errors import AlreadyRunning, BlocksdError, Misconfigured, Unavailable
from blocksd.model.problem import count
from blocksd.protocol.numbers import MOST_SECONDS
from blocksd.service.control import ACCEPT_DELETIONS, ask
from blocksd.settings.config import listen_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blocksd.monitoring.events import ServiceListener
    from blocksd.monitoring.log import EventLog
    from blocksd.settings.config import Config


_NEEDS_MCP = "the MCP server needs the package mcp: pip install 'blocksd[mcp]'"


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a process that logs."""
    level = click.option(
        "--log-level",
        type=click.Choice(["error", "warning", "info", "debug"]),
        help="The least severe events to log.  [default: info]",
    )
    form = click.option(
        "--log-format", type=click.Choice(["text", "json"]), help="One line per event, as text or JSON."
    )
    return level(form(command))


@click.command()
@click.argument("folder", required=False, shell_complete=completion.directories)
@partial(daemon_options, redis_default="an embedded server")
@click.option(
    "--poll",
    is_flag=True,
    default=None,
    help="Compare the folder again and again instead of file events, for network file systems.",
)
@click.option("--resync-seconds", type=float, metavar="S", help="Seconds between two full comparisons.  [default: 60]")
@click.option(
    "--delete-grace",
    type=float,
    metavar="S",
    help="Seconds that a file must be gone to count as deleted.  [default: 1]",
)
@log_options
@click.option("--metrics", metavar="[HOST:]PORT", help="Serve metrics for Prometheus at this address.  [default: none]")
@click.option(
    "--http",
    metavar="[ADDRESS]",
    is_flag=False,
    flag_value="",
    help="Serve over HTTP, too, as 'blocksd serve' does, at [HOST:]PORT.  [default: not; 127.0.0.1:8283]",
)
@click.option(
    "--take-over",
    is_flag=True,
    help="Serve FOLDER in the place of the folder that the state directory is of; what is missing in it is deleted.",
)
@click.option(
    "--promote",
    is_flag=True,
    help="Make this host the leader, since the leader's is lost: FOLDER and the state directory are a follower's, or were the leader's before.",
)
def run(*, take_over: bool, promote: bool, http: str | None, **flags: Any) -> None:
    """Run the daemon for FOLDER (default: blocks.d).

    It watches the folder and keeps the mirror in Redis in sync, until Ctrl-C or SIGTERM. Without --redis the daemon starts its own server: valkey-server or redis-server if installed, else the one of
    blocksd[embedded]. The file redis-url in the state directory has its address and password.

    \b
    blocksd run blocks.d
    blocksd run blocks.d --redis redis://127.0.0.1:6379
    blocksd run blocks.d --http
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    from blocksd.follow.marker import NAME as MARKER
    from blocksd.monitoring.log import EventLog
    from blocksd.service.service import Service

    if http is not None:
        if http:
            listen_address(http, "--http")
        flags |= {"http": True, "listen": http or None}
    resolved = resolve(flags)
    config = resolved.config
    log = EventLog(level=config.log_level, as_json=config.log_format == "json")
    log.capture()
    with failure_in(log):
        if config.http:
            _check_packages()
        # A settings file that was read once and cannot be read now is an error, not a return to the defaults.
        listeners = [log, *_metrics(config)]
        promotion, told = None, ""
        if promote or os.path.lexists(os.path.join(config.folder, MARKER)):
            from blocksd.cli import promotion as promoting

            promotion, told = promoting.check(config, promotes=promote)
        with ExitStack() as opened:
            service = Service(
                config,
                listeners,
                lambda: resolve(flags, file=resolved.file).config,
                takes_over=take_over,
                promotion=promotion,
            )
            opened.callback(service.close)
            if promotion is not None:
                promoting.finish(config)
            if told:
                log.on_notice(told, "warning")
            opened.pop_all()
        service.run()


@contextmanager
def failure_in(log: EventLog) -> Iterator[None]:
    """Have a log that is JSON take the error that ends the process, too."""
    try:
        yield
    except BlocksdError as error:
        if isinstance(error, AlreadyRunning) and error.facts.get("pid"):
            error.facts["running"] = running_options(error.facts["pid"])
        if not log.as_json:
            raise
        log.on_failure(error, next_step(error))
        sys.exit(exit_code(error))


def _check_packages() -> None:
    """Raise Misconfigured if the packages that the gateway needs are not installed."""
    if not all(map(find_spec, ("starlette", "uvicorn"))):
        message = "the gateway needs the packages starlette and uvicorn: pip install 'blocksd[http]'"
        raise Misconfigured(message, key="http")


@contextmanager
def metrics_installed() -> Iterator[None]:
    """Have an import of metrics that are not installed say so.

    Raises:
        Misconfigured: it needs a package that is not installed.
    """
    try:
        yield
    except ImportError as error:
        if error.name is None or not error.name.startswith("prometheus_client"):
            raise
        message = "metrics need the package prometheus-client: pip install 'blocksd[metrics]'"
        raise Misconfigured(message, key="metrics") from None


def _metrics(config: Config) -> list[ServiceListener]:
    """Return the listener that serves metrics, if they are configured. Raise Misconfigured if a package is missing."""
    if config.metrics_address is None:
        return []
    with metrics_installed():
        from blocksd.monitoring.metrics import Metrics
    return [Metrics(*config.metrics_address)]


@click.command()
@daemon_options
@click.option("--listen", metavar="[HOST:]PORT", help="Where to listen.  [default: 127.0.0.1:8283]")
@click.option("--tokens-file", metavar="FILE", type=click.Path(), help="Who may use it: lines of a role and a token.")
@click.option("--hosts", metavar="NAMES", help="Names under which it is reached, with commas between.")
@click.option("--certificate", metavar="FILE", type=click.Path(), help="Serve by TLS, with this certificate.")
@click.option(
    "--certificate-key", metavar="FILE", type=click.Path(), help="The key of the certificate, if it is in another file."
)
@log_options
def serve(**flags: Any) -> None:
    """Serve blocks and agents over HTTP, until Ctrl-C or SIGTERM.

    Programs that use Letta's SDKs for Python and TypeScript read and write blocks by it, and MCP clients at /mcp. It speaks
    to Redis and needs no access to the folder. Without tokens it serves programs of this machine alone.

    \b
    blocksd serve
    blocksd serve --listen 0.0.0.0:8283 --tokens-file tokens --certificate tls.pem
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    from blocksd.monitoring.log import EventLog

    config = load(flags)
    log = EventLog(level=config.log_level, as_json=config.log_format == "json")
    log.capture()
    with failure_in(log):
        _check_packages()
        from blocksd.http.server import serve as serve_http
        from blocksd.mcp.over_http import OverHTTP

        serve_http(config, url_of(config), log, OverHTTP)
    log.on_stop()


@click.command("mcp")
@click.option(
    "--agent", required=True, metavar="ID", shell_complete=completion.agents, help="Whose memory the client works with."
)
@click.option("--create", is_flag=True, help="Create the agent when it is first needed, if it is not known.")
@click.option(
    "--print-config",
    metavar="CLIENT",
    type=click.Choice(list(MCP_CLIENTS)),
    help=f"Print the settings by which a client starts this command: {', '.join(MCP_CLIENTS)}.",
)
@daemon_options_in_project
def serve_mcp(agent: str, create: bool, print_config: str | None, **flags: Any) -> None:
    """Serve an agent's memory to an MCP client, by stdio.

    The client, such as Claude Code, starts this command, and ends it by closing its input. The agent's blocks are tools, resources and a prompt
    there. If no daemon runs, or it restarts, the tools say so, and work again afterwards. A blocksd.toml in the working
    directory is not read, since that is the project's.

    \b
    blocksd mcp --agent support-1
    blocksd mcp --agent me --create --print-config claude-code
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    from blocksd.http.connections import SharedTransport
    from blocksd.model.label import parse_agent
    from blocksd.monitoring.log import EventLog

    agent = parse_agent(agent)
    if print_config is not None:
        words = [*own_command(), "mcp", "--agent", agent, *(["--create"] if create else []), *given_options(flags)]
        print_configuration(*mcp_configuration(print_config, words), words)
        if find_spec("mcp") is None:
            click.echo(_NEEDS_MCP, err=True)
        return
    config = load_in_project(flags)
    if find_spec("mcp") is None:
        raise Misconfigured(_NEEDS_MCP, key="mcp")
    log = EventLog(level="warning")
    log.capture()
    gc.disable()  # the SDK makes a million objects while it is imported, all of which stay: this saves a tenth of the start
    from blocksd.mcp.sdk import load_stdio

    stdio = load_stdio()
    gc.enable()

    def connect() -> SharedTransport:
        return SharedTransport(url_of(config), config.namespace, config.by)

    try:
        connect()
    except Unavailable as error:
        log.on_notice(f"{error.message}; {next_step(error)}", "warning")
    stdio.serve(agent, connect, creates=create)


@click.command()
@daemon_options
@click.option(
    "--timeout",
    type=Seconds(0, MOST_SECONDS),
    metavar="S",
    default=30.0,
    show_default=True,
    help="For how many seconds to wait until it has stopped.",
)
def stop(timeout: float, **flags: Any) -> None:
    """Stop the running daemon, and wait until it has stopped.

    It finishes the change in hand, and stops its embedded server. A daemon that systemd runs is stopped by systemctl: the
    command says how, and exits with 1.
    """
    from blocksd.service.stopping import stop as stop_daemon

    config = load(flags)
    try:
        daemon = daemon_of(config)
    except Unavailable as error:
        others = other_daemons(running_options()) or "name another one by its --state-dir or --namespace"
        error.facts["hint"] = f"there is nothing to stop; {others}"
        raise
    seconds = stop_daemon(config.state, int(daemon["pid"]), timeout=timeout)
    click.echo(f"stopped the daemon of {daemon['folder']}, pid {daemon['pid']}, in {seconds:.1f} s")


@click.command()
@daemon_options
@click.option("--accept-deletions", is_flag=True, help="Accept that the files that vanished are deleted.")
def resume(accept_deletions: bool, **flags: Any) -> None:
    """Resume a daemon that holds deletions back.

    The daemon holds deletions back when so many files vanish at once that a lost disk is more likely than an edit. It
    resumes by itself when the files are back. If they were deleted on purpose, use --accept-deletions.
    """
    config = load(flags)
    daemon_of(config)
    if not accept_deletions:
        raise click.UsageError("name what to accept: --accept-deletions")
    missing = ask(config.state, ACCEPT_DELETIONS)["accepted"]
    if missing is None:
        click.echo("no deletions are held back")
    else:
        click.echo(f"accepted, with {count(missing, 'block')} missing so far; 'blocksd status' shows the rest")
