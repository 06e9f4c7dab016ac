"""Commands for coding assistants: render, which keeps an agent's prompt in files, and hook."""

from __future__ import annotations

import difflib
import os
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from blocksd.assistants.hook_events import CLIENTS
from blocksd.cli import completion
from blocksd.cli.advice import next_step
from blocksd.cli.console import print_configuration, print_json
from blocksd.cli.options import (
    Seconds,
    daemon_options,
    daemon_options_in_project,
    given_options,
    json_option,
    load,
    load_in_project,
    near_agents,
    open_client,
    own_command,
    url_of,
)
from blocksd.errors import BlocksdError, Misconfigured, NotFound, Unavailable
from blocksd.model.label import parse_agent
from blocksd.model.prompt import STYLES, style_of
from blocksd.settings.config import state_of_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blocksd.assistants.renderer import Output
    from blocksd.client.blocking.transport import Transport
    from blocksd.model.prompt import Style
    from blocksd.settings.config import Config


@click.command()
@click.argument("agent", required=False, shell_complete=completion.agents)
@daemon_options
@click.option("--style", type=click.Choice(STYLES), help="The form of the text.  [default: that of the agent's type]")
@click.option("--source", "sources", metavar="NAME", multiple=True, help="Only this file source; may be repeated.")
@click.option("--no-sources", is_flag=True, help="No file sources.")
@click.option("--max-files-open", type=click.IntRange(0, 10**9), metavar="N", help="Show at most N files open.")
@click.option(
    "--output",
    "-o",
    "outputs",
    metavar="FILE",
    type=click.Path(),
    multiple=True,
    help="Write it to FILE, between markers; may be repeated.",
)
@click.option("--follow", is_flag=True, help="Keep the files up to date, until Ctrl-C or SIGTERM.")
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if a file is not up to date.")
@click.option("--discard-edits", is_flag=True, help="Write also over edits between the markers.")
@json_option
def render(
    agent: str | None,
    style: Style | None,
    sources: tuple[str, ...],
    outputs: tuple[str, ...],
    *,
    no_sources: bool,
    max_files_open: int | None,
    follow: bool,
    check: bool,
    discard_edits: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Print an agent's prompt, or keep it up to date in files.

    The prompt is what the agent's context window holds: all blocks attached to it, and the files it has open.

    \b
    blocksd render support-1
    blocksd render support-1 --output CLAUDE.md --follow
    blocksd render --follow  # the files that the settings name

    With --output the prompt stands between two markers in FILE. What is above and below them stays, and the file is written
    only when the prompt has changed. If a person has edited the text between the markers, the file is left as it is and
    reported, with exit code 1, until the edit is gone or --discard-edits is given. With --follow a change of the agent's
    blocks, or of a file, has the files written at once. Without AGENT, this is done for each `[render.NAME]` of the settings.
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    config = load(flags)
    shown = () if no_sources else sources or None
    if agent is not None and not outputs:
        if follow or check or discard_edits:
            raise click.UsageError("--follow, --check and --discard-edits need a file: --output FILE")
        _print(config, agent, style, shown, max_files_open, as_json=as_json)
        return
    if as_json or (follow and (check or discard_edits)) or (check and discard_edits):
        raise click.UsageError("--json, --follow, --check and --discard-edits do not go together with --output")
    from blocksd.assistants.renderer import Output

    if agent is None:
        if outputs or style or sources or no_sources or max_files_open is not None:
            raise click.UsageError("name the AGENT whose prompt is meant")
        kept = list(_configured(config))
    else:
        parse_agent(agent)
        kept = [Output(agent, path, style, shown, max_files_open) for path in outputs]
    _check_rivals(kept)
    if follow:
        _follow(config, kept)
    elif not _write(config, kept, may_write=not check, discards_edits=discard_edits):
        sys.exit(1)


def _print(
    config: Config,
    agent: str,
    style: Style | None,
    sources: tuple[str, ...] | None,
    max_files_open: int | None,
    *,
    as_json: bool,
) -> None:
    with open_client(config) as client, near_agents(client, agent), client.memory(agent) as memory:
        _check_sources(agent, sources or (), memory.list_sources())
        style = style or style_of(client.agents.retrieve(agent).agent_type)
        text = memory.compile(style=style, sources=sources, max_files_open=max_files_open)
    if as_json:
        print_json({"agent": agent, "style": style, "chars": len(text), "text": text})
    else:
        click.echo(text)


def _check_sources(agent: str, named: tuple[str, ...], seen: list[str]) -> None:
    """Raises NotFound when one of the file sources named is none that the agent sees."""
    unknown = next((name for name in named if name not in seen), None)
    if unknown is not None:
        near = difflib.get_close_matches(unknown, seen, n=1)
        those = (
            f"it sees {', '.join(map(repr, seen))}"
            if seen
            else "it sees none; 'blocksd config' shows which agents see a source"
        )
        raise NotFound(f"{agent!r} sees no file source {unknown!r}", source=unknown, near=near, hint=those)


def _configured(config: Config) -> Iterator[Output]:
    """Yield the outputs of the settings.

    Raises:
        Misconfigured: one of them is wrong, or there is none.
    """
    from blocksd.assistants.renderer import Output

    for one in config.render:
        if one.mistake:
            raise Misconfigured(f"render.{one.name}: {one.mistake}", key="render")
        yield Output(one.agent, one.output, one.style)  # type: ignore[arg-type]  # the settings have checked it
    if not config.render:
        raise click.UsageError("name an AGENT, or files in the settings: [render.NAME] with the keys agent and output")


def _check_rivals(outputs: Sequence[Output]) -> None:
    """Raise Misconfigured if two outputs are the same part of one file."""
    from blocksd.assistants.rendered_file import RenderedFile

    places: dict[tuple[str, str], str] = {}
    for output in outputs:
        place = RenderedFile(output.path, output.agent).target, output.agent
        if place in places:
            message = f"{output.path} is named twice for the agent {output.agent!r}"
            raise Misconfigured(message, key="render", hint="name each file once for each agent")
        places[place] = output.path


def _write(config: Config, outputs: Sequence[Output], *, may_write: bool, discards_edits: bool) -> bool:
    """Write the files once; return True if all are up to date then. What keeps one from it keeps no other."""
    from blocksd.assistants.rendered_file import Outcome, RenderedFile
    from blocksd.assistants.renderer import edited

    is_done = True
    transport = _connect(config)
    with open_client(config) as client:
        for output in outputs:
            file = RenderedFile(output.path, output.agent)
            try:
                with near_agents(client, output.agent):
                    memory = output.compiled(transport)
                outcome = file.update(memory, discards_edits=discards_edits, may_write=may_write)
            except Unavailable:
                raise
            except BlocksdError as error:
                step = next_step(error)
                click.echo(f"blocksd: {error.message}{f'{chr(10)}  {step}' if step else ''}", err=True)
                is_done = False
                continue
            said = {
                Outcome.WRITTEN: f"wrote {output.path}",
                Outcome.CURRENT: f"{output.path} is up to date",
                Outcome.STALE: f"{output.path} is not up to date",
                Outcome.EDITED: edited(file),
            }
            click.echo(said[outcome], err=True)
            is_done = is_done and outcome in (Outcome.WRITTEN, Outcome.CURRENT)
    transport.close()
    return is_done


def _follow(config: Config, outputs: Sequence[Output]) -> None:
    from blocksd.assistants.renderer import Renderer
    from blocksd.monitoring import sd_notify
    from blocksd.monitoring.log import EventLog

    log = EventLog(level=config.log_level, as_json=config.log_format == "json")
    log.capture()
    renderer = Renderer(outputs, lambda: _connect(config), log.on_notice, sd_notify.ready)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: renderer.stop())
    renderer.run()
    log.on_stop()


def _connect(config: Config) -> Transport:
    from blocksd.client.blocking.transport import Transport

    return Transport(url_of(config), config.namespace, config.by)


class _NeverTwo(click.Command):
    """A command whose wrong usage ends with 1: by a 2 a hook would block what the user does."""

    def make_context(self, *given: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*given, **extra)
        except click.UsageError as error:
            error.show()
            sys.exit(1)


@click.command(cls=_NeverTwo)
@click.argument("client", type=click.Choice(CLIENTS))
@click.option("--agent", required=True, metavar="ID", shell_complete=completion.agents, help="Whose memory it is.")
@click.option(
    "--max-chars",
    type=click.IntRange(100, 10**9),
    metavar="N",
    default=10_000,
    show_default=True,
    help="The most characters to give; blocks that do not fit are named.",
)
@click.option(
    "--timeout",
    type=Seconds(0.1, 60),
    metavar="S",
    default=3.0,
    show_default=True,
    help="For how many seconds to try.",
)
@click.option("--print-config", is_flag=True, help="Print the settings that have the client run this command.")
@daemon_options_in_project
def hook(client: str, agent: str, max_chars: int, timeout: float, print_config: bool, **flags: Any) -> None:
    """Give an agent's memory to a coding assistant, as its hook.

    The assistant runs this command at its hooks and writes JSON to it. When a session starts, the command answers with the
    agent's whole memory; at each prompt with what has changed since the last one, as a short diff, or with nothing.

    \b
    blocksd hook claude-code --agent support-1 --print-config

    It never blocks or breaks a session: if no daemon runs, or something else is wrong, it says so and exits with 0. A
    blocksd.toml in the working directory is not read, since that is the project's.
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    from blocksd.assistants.configuration import hook_configuration

    if print_config:
        parse_agent(agent)
        words = [*own_command(), "hook", client, "--agent", agent, *given_options(flags)]
        print_configuration(*hook_configuration(client, words), words)
        return
    answers: list[tuple[str, Callable[[], None]]] = []
    # In a thread that nothing waits for: what it waits for, be it standard input, must not keep the user waiting.
    thread = threading.Thread(target=_answer, args=(answers, client, agent, max_chars, flags), daemon=True)
    thread.start()
    thread.join(timeout)
    if thread.is_alive():
        click.echo(f"blocksd: there was no answer within {timeout:g} s", err=True)
    elif answers:
        text, confirm = answers[0]
        if text:
            click.echo(text)
        with suppress(OSError):  # then it is shown once more
            confirm()


def _answer(
    answers: list[tuple[str, Callable[[], None]]], client: str, agent: str, most: int, flags: dict[str, Any]
) -> None:
    """Put the answer to the hook's call into the list, and what to call once it is given; no fault ends otherwise."""
    from blocksd.assistants.hook import Hook
    from blocksd.assistants.hook_events import parse_event
    from blocksd.assistants.sessions import Sessions

    event = None
    try:
        event = parse_event(client, _standard_input())
        config = load_in_project(flags)
        sessions = Sessions(f"{state_of_user(config.namespace)}.sessions")
        found = Hook(lambda: _connect(config), config.namespace, parse_agent(agent), sessions, most)
        text, confirm = found.context(event)
        answers.append((event.context(text) if text else "", confirm))
    except Exception as error:  # noqa: BLE001  # also one that nobody foresaw must not end the user's session
        step = next_step(error) if isinstance(error, BlocksdError) else ""
        message = f"blocksd: no memory of {agent!r}: {error}{f' ({step})' if step else ''}"
        click.echo(message, err=True)
        # Said once in a session, and not at each prompt.
        is_start = event is not None and event.wanted == "everything" and event.is_of_session
        answers.append((event.warning(message) if event is not None and is_start else "", lambda: None))


def _standard_input() -> str:
    """Read standard input, past Python's buffer: a thread that waits there would end the process with a fatal error."""
    pieces = []
    while piece := os.read(0, 65_536):
        pieces.append(piece)
    return b"".join(pieces).decode("utf-8", "replace")
