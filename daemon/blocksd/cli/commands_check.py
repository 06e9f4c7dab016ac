"""The command check: what is wrong with the files of a folder, or with one file, and what they could be called."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import click

from blocksd.cli import completion
from blocksd.cli.console import print_json, print_problems
from blocksd.cli.options import load
from blocksd.doctor.renaming import Renaming, rename, renamings
from blocksd.errors import BlocksdError, InvalidFile, JournalUnusable, Misconfigured
from blocksd.files.document import Parser
from blocksd.model.label import SUFFIX, clash_key, is_block_file, label_of_path, printable
from blocksd.model.problem import Problem, Problems, count, label_conflict, problem_of, tally, warning_of
from blocksd.monitoring.status import tally_text
from blocksd.settings.record import running_daemon

if TYPE_CHECKING:
    from collections.abc import Collection

    from blocksd.settings.config import Config
    from blocksd.state.state import State


@click.command()
@click.argument("folder", required=False, shell_complete=completion.directories)
@click.option("--config", "config_path", metavar="FILE", type=click.Path(), help="Settings in TOML.")
@click.option("--format", "form", type=click.Choice(["text", "json"]), default="text", help="How to print.")
@click.option("--all", "everything", is_flag=True, help="On a terminal, show all problems of a kind.")
@click.option("--rename", "is_to_rename", is_flag=True, help="Propose names for files whose names are no labels.")
@click.option("--yes", is_flag=True, help="With --rename: rename the files without asking.")
def check(form: str, *, everything: bool, is_to_rename: bool, yes: bool, **flags: Any) -> None:
    """Check the files in FOLDER (default: blocks.d), or one file.

    It lists what is wrong with each file, and needs neither Redis nor a daemon. Exit code 1 if a daemon would not accept a file.

    With --rename it proposes names for files that cannot be blocks because of their names, and on a terminal asks
    whether to rename them. Links in other files to those names are not changed.

    \b
    blocksd check blocks.d/notes.md
    blocksd check blocks.d --rename
    """  # noqa: D301  # \b is click's mark for lines that stay as they are
    folder, file, config = _place(flags)
    if file is not None and not is_block_file(os.path.basename(file)):
        blocks, problems = 0, [_no_block(file)]
    elif file is not None and folder not in _folders(config):
        blocks, problems = _examine_alone(os.path.join(folder, file))
    else:
        blocks, problems = examine(folder, file, held=_held(config))
    proposed = [one for one in renamings(folder) if file in (None, one.old)] if is_to_rename else []
    if form == "json":
        found = {"folder": os.path.realpath(folder), "blocks": blocks, "problems": [p.as_json() for p in problems]}
        print_json({**found, "renamings": [one.as_json() for one in proposed]} if is_to_rename else found)
    else:
        _print(blocks, problems, everything=everything)
    if is_to_rename:
        _rename(folder, proposed, yes=yes, is_shown=form == "text")
    if tally(problem.warning for problem in problems).problems:
        sys.exit(1)


def _place(flags: dict[str, Any]) -> tuple[str, str | None, Config]:
    """Return the folder, the path below it of the one file to check, None for all, and the configuration.

    The folder of a file is the configured one or the running daemon's, if the file is in it, else its own directory.
    """
    given = flags["folder"]
    config = load({**flags, "folder": None} if given is not None and not os.path.isdir(given) else flags)
    if given is None or os.path.isdir(given):
        if not os.path.isdir(config.folder):
            running = [shlex.quote(one) for one in _folders(config)[1:]]
            hint = f"name one: 'blocksd check {running[0] if running else 'FOLDER'}'"
            raise Misconfigured(f"there is no folder {config.folder!r}", key="folder", hint=hint)
        return config.folder, None, config
    if not _may_be_there(given):
        near = [
            f"{one}{SUFFIX}" for one in (given, os.path.join(config.folder, given)) if os.path.isfile(f"{one}{SUFFIX}")
        ]
        hint = "name a folder of blocks, or a file in it: 'blocksd check FOLDER'"
        raise Misconfigured(f"there is no folder or file {given!r}", key="folder", near=near, hint=hint)
    file = os.path.join(os.path.realpath(os.path.dirname(given) or "."), os.path.basename(given))
    for root in _folders(config):
        if file.startswith(f"{root}/"):
            return root, file.removeprefix(f"{root}/"), config
    return os.path.dirname(file), os.path.basename(file), config


def _may_be_there(path: str) -> bool:
    """Return True unless it is certain that there is nothing at a path."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _folders(config: Config) -> list[str]:
    """Return the folders whose files are known to be blocks: the configured one, and the running daemon's."""
    daemon = running_daemon(config.state)
    return [os.path.realpath(one) for one in (config.folder, *([daemon["folder"]] if daemon is not None else []))]


def _no_block(file: str) -> Problem:
    message = f"it is no block: only files are that end in {SUFFIX!r} and are not hidden or temporary"
    return Problem(printable(file), "problem_file", message, f"give it a name such as notes{SUFFIX}")


def _held(config: Config) -> list[str]:
    """Return the files that are in force by the journal here: of two with one label, the daemon keeps that one in force."""
    from blocksd.journal.history import JournalReader

    path = os.path.join(config.state, "journal.db")
    with suppress(JournalUnusable, Misconfigured), closing(JournalReader(path)) as journal:
        return [head.path for head in journal.heads(in_force=True) if head.path is not None]
    return []


def examine(path: str, file: str | None = None, *, held: Collection[str] = ()) -> tuple[int, list[Problem]]:
    """Read a folder as the daemon does, with a journal that is thrown away.

    Return the number of blocks in force, and the problems; of `file` alone, if it is named. Of two files with one label,
    one that is `held` stays in force.
    """
    from blocksd.core.core import look_once
    from blocksd.core.decide import FolderView
    from blocksd.core.intake import Intake
    from blocksd.files.folder import Folder
    from blocksd.journal.journal import Journal
    from blocksd.model.faults import Faults
    from blocksd.model.revision import timestamp
    from blocksd.state.part import Shared
    from blocksd.state.schedule import Schedule
    from blocksd.state.state import State

    with tempfile.TemporaryDirectory(prefix="blocksd-check-") as directory:
        journal = Journal(os.path.join(directory, "journal.db"))
        state, problems, folder = State(journal), Problems(time.time), Folder(path)
        shared = Shared(journal, state, problems, Faults(problems), Schedule(), time.monotonic, time.time)
        intake = Intake(shared, folder, delete_grace=0.0)
        view = FolderView(state, folder, intake, lambda *_: False)

        intake.hint_all()
        while intake.due < float("inf"):
            time.sleep(min(0.05, max(0.0, intake.due - time.monotonic())))
            look_once(view, journal, 256, timestamp(time.time()))
            if intake.is_stuck:
                break
        journal.close()
        _keep_in_force(held, state, problems)
        if file is None:
            return state.block_count, [problems[subject] for subject in sorted(problems)]
        names = (printable(file), state.labels.get(file))
        found = [
            problems[subject]
            for subject in sorted(problems)
            if subject in names or (problems[subject].code == "unreadable_directory" and file.startswith(subject))
        ]
        return int(file in state.labels and not any(problem.code == "label_conflict" for problem in found)), found


def _keep_in_force(held: Collection[str], state: State, problems: Problems) -> None:
    """Of two files with one label, have the one as the problem that is not in force already."""
    holders = {clash_key(label): path for path, label in state.labels.items()}
    for path in held:
        problem = problems.get(printable(path))
        if problem is None or problem.code != "label_conflict" or problem.label is None:
            continue
        other = holders.get(clash_key(problem.label))
        if other is not None and other not in held:
            problems.remove(problem.subject)
            problems.set(label_conflict(other, state.labels[other], path))


def _examine_alone(path: str) -> tuple[int, list[Problem]]:
    """Read a file that is in no folder of blocks; return 1 if it would be in force, else 0, and its problems."""
    from blocksd.files.folder import Folder, Refused, Text

    directory, name = os.path.split(path)
    reading = Folder(directory).read(name, closed=True)
    try:
        if isinstance(reading, Refused):
            raise reading.error
        if not isinstance(reading, Text):
            raise InvalidFile("it is gone, or just being written", hint="check it again")
        label = label_of_path(name)
        _, warnings = Parser().parse(reading.data, label)
    except BlocksdError as error:
        return 0, [problem_of(name, error)]
    return 1, [warning_of(name, label, warnings)] if warnings else []


def _print(blocks: int, problems: list[Problem], *, everything: bool) -> None:
    if sys.stdout.isatty():
        print_problems([problem.as_json() for problem in problems], "", everything=everything)
    else:  # a line each, as other programs take them
        for problem in problems:
            click.echo(f"{'warning: ' if problem.warning else ''}{problem.sentence()}")
    found = tally(problem.warning for problem in problems)
    click.echo(f"{count(blocks, 'block')} in order, {tally_text(found)}")


def _rename(folder: str, proposed: list[Renaming], *, yes: bool, is_shown: bool) -> None:
    """Show what could be renamed, and rename it if that is wanted."""
    possible = [one for one in proposed if not one.obstacle]
    if is_shown:
        for one in proposed:
            click.echo(f"{printable(one.old)} → {printable(one.new)}{f': {one.obstacle}' if one.obstacle else ''}")
        if not proposed:
            click.echo("no file needs another name")
    if not possible or not (yes or (sys.stdin.isatty() and is_shown)):
        return
    if not yes and not click.confirm(f"rename {count(len(possible), 'file')}?", err=True):
        return
    done = 0
    for one in possible:
        try:
            rename(folder, one)
            done += 1
        except OSError as error:
            click.echo(f"{printable(one.old)} was not renamed: {error.strerror}", err=True)
    click.echo(f"renamed {count(done, 'file')}", err=True)
