"""The options that name a daemon, and the configuration and client that follow from them."""

from __future__ import annotations

import difflib
import math
import os
import shlex
import shutil
import sys
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli.advice import command
from blocksd.cli.console import place_of
from blocksd.errors import (
    InvalidLabel,
    InvalidRequest,
    JournalUnusable,
    Misconfigured,
    NotFound,
    ProblemFile,
    Unavailable,
)
from blocksd.model.label import SUFFIX
from blocksd.settings import loading as configuration
from blocksd.settings.config import SETTINGS, state_of_user
from blocksd.settings.record import FoundUrl, running_daemon, running_daemons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blocksd.client.blocking.client import Client
    from blocksd.settings.config import Config
    from blocksd.settings.loading import Resolved


def daemon_options(
    command: Callable[..., Any],
    *,
    redis_default: str = "the running daemon's",
    config_default: str = "blocksd.toml",
) -> Callable[..., Any]:
    """Add the options that name a daemon; the help says these defaults."""
    for option in (
        click.option("--namespace", metavar="NAME", help="The namespace in Redis.  [default: blocks]"),
        click.option(
            "--redis",
            metavar="URL",
            help="The Redis server: redis://, rediss://, unix://, redis+sentinel://, "
            f"redis+cluster://.  [default: {redis_default}]",
        ),
        click.option(
            "--state-dir",
            metavar="DIR",
            type=click.Path(),
            help="The directory of the daemon's journal.  [default: ~/.local/state/blocksd/NAMESPACE]",
        ),
        click.option(
            "--config",
            "config_path",
            metavar="FILE",
            type=click.Path(),
            help=f"The file of settings, in TOML.  [default: {config_default}]",
        ),
    ):
        command = option(command)
    return command


def daemon_options_in_project(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that name a daemon to a command that reads its settings by `load_in_project`."""
    return daemon_options(command, config_default="~/.config/blocksd/blocksd.toml")


def given_options(flags: dict[str, Any]) -> list[str]:
    """Return the options that name a daemon, also those of this environment, for a program that has another one.

    Paths are absolute. A URL has no `$`, `{` and `}`, which some programs take for variables.
    """
    words = []
    for name, value in flags.items():
        variable = "BLOCKSD_CONFIG" if name == "config_path" else f"BLOCKSD_{name.upper()}"
        given = str(value or os.environ.get(variable, ""))
        if given:
            option = "--config" if name == "config_path" else f"--{name.replace('_', '-')}"
            if name in ("state_dir", "config_path"):
                given = os.path.abspath(given)
            elif name == "redis":
                given = given.translate(_ESCAPED)
            words += [option, given]
    return words


_ESCAPED = {ord(character): f"%{ord(character):02X}" for character in "${}"}


def own_command() -> list[str]:
    """Return the words by which other programs run blocksd: a path, since they may have another $PATH."""
    path = shutil.which(sys.argv[0]) or shutil.which("blocksd")
    if path is None or os.path.basename(path) != "blocksd":
        return [sys.executable, "-m", "blocksd"]
    return [os.path.abspath(path)]


by_option = click.option(
    "--by", metavar="NAME", help="Who you are: shown in the history.  [default: the setting `by`; else nobody]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def single_words(_ctx: click.Context, param: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    """Refuse `--tag a,b`: it is meant as two tags, and would be one with a comma in it."""
    option, kind = param.opts[-1], param.metavar or ""
    for word in words:
        if "," in word:
            each = " ".join(f"{option} {shlex.quote(one.strip())}" for one in word.split(",") if one.strip())
            message = (
                f"{word!r} would be one {kind.lower()} with a comma in it; for several: {each or f'{option} {kind}'}"
            )
            raise click.BadParameter(message)
    return words


tags_option = click.option(
    "--tag",
    "tags",
    metavar="TAG",
    multiple=True,
    callback=single_words,
    help="A tag, without a comma; may be repeated; an empty one: none.",
)


def load(flags: dict[str, Any]) -> Config:
    """Return the configuration; options come before all other sources.

    Raises:
        Misconfigured: a setting is wrong.
    """
    return resolve(flags).config


def load_in_project(flags: dict[str, Any]) -> Config:
    """Return the configuration for a command that an assistant starts in a project's directory.

    A blocksd.toml there is the project's: one that was cloned must not say whose memory the assistant gets.

    Raises:
        Misconfigured: a setting is wrong.
    """
    others = {name: value for name, value in flags.items() if name not in ("config_path", "namespace")}
    return configuration.load_for_program(flags["namespace"], path=flags["config_path"], **others)


def resolve(flags: dict[str, Any], *, file: str | None = None, mistakes: list[Misconfigured] | None = None) -> Resolved:
    """Return the configuration and the origin of each setting.

    `file` is the settings file where no option names one. With `mistakes`, what is wrong apart from the options is put
    there and left out, instead of raised.
    """
    settings = {name: value for name, value in flags.items() if name != "config_path"}
    return configuration.resolve(settings, path=flags.get("config_path") or file, mistakes=mistakes)


def daemon_of(config: Config) -> dict[str, str]:
    """Return the record of the running daemon.

    Raises:
        Unavailable: none runs. Facts: `state`, and `running`, the options that name each daemon that does.
    """
    daemon = running_daemon(config.state)
    if daemon is None:
        raise Unavailable(
            f"no daemon is running for the namespace {config.namespace!r} (state in {config.state})",
            state=config.state,
            running=running_options(),
        )
    return daemon


def running_options(pid: object = None) -> dict[str, list[str]]:
    """Return the options that name each running daemon, or the one with this pid, by its folder; those near come first."""
    found = {
        record["folder"]: _naming(state, record["namespace"])
        for state, record in running_daemons().items()
        if pid in (None, record["pid"])
    }
    here = os.path.join(os.path.realpath("."), "")
    return dict(sorted(found.items(), key=lambda item: not item[0].startswith(here)))


def _naming(state: str, namespace: str) -> list[str]:
    """Return the options that name a daemon."""
    options = [] if namespace == SETTINGS["namespace"].default else ["--namespace", namespace]
    with suppress(Misconfigured):
        if os.path.realpath(state_of_user(namespace)) == os.path.realpath(state):
            return options
    return [*options, "--state-dir", state]


def url_of(config: Config) -> str:
    """Return the URL of Redis: the configured one, else the running daemon's.

    Raises:
        Unavailable: none is configured, and no daemon runs, or one of another namespace.
    """
    if config.redis is not None:
        return config.redis
    daemon = daemon_of(config)
    if daemon["namespace"] != config.namespace:
        raise Unavailable(
            f"the daemon with its state in {config.state} serves the namespace {daemon['namespace']!r}, "
            f"not {config.namespace!r}",
            state=config.state,
            running=running_options(daemon["pid"]),
        )
    return FoundUrl(daemon["redis"], config.state)


def open_client(config: Config) -> Client:
    """Return a client of the daemon's mirror.

    Raises:
        Unavailable: no Redis is configured, and no daemon runs.
    """
    from blocksd.client.blocking.client import Client

    return Client(url_of(config), config.namespace, by=config.by)


@contextmanager
def client_for(flags: dict[str, Any], *labels: str) -> Iterator[Client]:
    """Provide a client for a command about these blocks; an error about one that is not there says why, or which is near."""
    config = load(flags)
    with open_client(config) as client, explained(config, client, *labels):
        yield client


@contextmanager
def explained(config: Config, client: Client, *labels: str) -> Iterator[None]:
    """Have an error about a block that is not there say why, or which one is near."""
    try:
        yield
    except (InvalidLabel, InvalidRequest) as error:
        paths = (*labels, str(error.facts.get("label", "")))
        meant = list(filter(None, (_label_of_file(config, path) for path in paths)))
        if meant:
            error.facts["near"] = meant
        raise
    except (NotFound, ProblemFile) as error:
        label = str(error.facts.get("label", labels[0] if labels else ""))
        if not label or "version" in error.facts:
            raise
        problem = problem_of_file(client.problems(), label)
        if problem is not None:
            undo = (
                f"{undoing(problem)} brings the last good version back"
                if undoing(problem)
                else what_became(config, label)
            )
            raise ProblemFile(
                f"{label!r} is not in force, and its file has a problem: {place_of(problem)}: {problem['message']}",
                label=label,
                hint="; ".join(filter(None, (problem["hint"], undo))),
            ) from None
        if isinstance(error, NotFound):
            became = what_became(config, label)
            if became:
                error.facts["near"], error.facts["hint"] = [], became
            elif not error.facts.get("near"):
                known = [block.label for block in client.blocks.list(show_hidden_blocks=True, show_templates=True)]
                error.facts["near"] = difflib.get_close_matches(label, known, n=1)
        raise


def _label_of_file(config: Config, path: str) -> str:
    """Return the label that a path from here means; empty if it is not that of a block's file in the folder."""
    daemon = running_daemon(config.state)
    folder = os.path.join(os.path.realpath(config.folder if daemon is None else daemon["folder"]), "")
    file = os.path.realpath(path)
    is_inside = path.endswith(SUFFIX) and file.startswith(folder)
    return file.removeprefix(folder).removesuffix(SUFFIX) if is_inside else ""


def problem_of_file(problems: list[dict[str, Any]], label: str) -> dict[str, Any] | None:
    """Return the problem that keeps the file of a block from being in force, if there is one; not a mere warning."""
    own = (
        problem
        for problem in problems
        if problem["subject"].removesuffix(SUFFIX) == label
        or (problem["label"] == label and problem["code"] == ProblemFile.code)
    )
    return next((problem for problem in own if not problem["warning"]), None)


def undoing(problem: dict[str, Any]) -> str:
    """Return the command that brings the last good version back into a file; empty if it has none, or cannot be read."""
    can_be = problem["label"] and problem["code"] == ProblemFile.code and "cannot be read" not in problem["message"]
    return command("undo", problem["label"]) if can_be else ""


def what_became(config: Config, label: str) -> str:
    """Return what became of a block that is not there any more, as the journal here says; empty if there was none."""
    from blocksd.journal.history import JournalReader

    with suppress(JournalUnusable):
        with closing(JournalReader(os.path.join(config.state, "journal.db"))) as journal:
            present = journal.renamed_to(label) or label
            newest = journal.head(present)
        if newest is not None and newest.kind == "deleted":
            return f"it was deleted: {command('undo', present)} brings it back"
        if present != label:
            return f"it was renamed to {present!r}: {command('show', present)}"
    return ""


@contextmanager
def near_agents(client: Client, agent: str) -> Iterator[None]:
    """Add the most similar agent to an error about one that does not exist."""
    try:
        yield
    except NotFound as error:
        if "agent" in error.facts:
            error.facts["near"] = difflib.get_close_matches(agent, [one.id for one in client.agents.list()], n=1)
        raise


class Seconds(click.FloatRange):
    """A range of seconds, which `nan` is not in."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        return self.fail(f"{value!r} is not a number of seconds.", param, ctx) if math.isnan(number) else number


def version_of(text: str) -> int:
    """Return the version that an argument names, with or without `v`."""
    digits = text.removeprefix("v")
    if not digits.isdecimal() or len(digits) > 18:
        raise click.BadParameter(f"{text[:80]!r} is not a version; 'blocksd history LABEL' lists them")
    return int(digits)
