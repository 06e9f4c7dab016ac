"""Output of commands: JSON, tables, facts, ages, problems, and errors with their exit codes."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any, Literal

import click

from blocksd.cli.advice import in_own_words, next_step
from blocksd.errors import Misconfigured, Unavailable
from blocksd.mirror.connection import masked
from blocksd.monitoring.sd_notify import is_journal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType

    from blocksd.errors import BlocksdError


_SHOWN_OF_A_KIND = 3
_PARTICULARS = re.compile(r"""'[^']*'|"[^"]*"|[0-9]+""")


def print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, folded: bool = False) -> None:
    """Print a table to a terminal, and tab-separated lines elsewhere.

    On a narrow terminal the last column is cut; in a `folded` table all but the first are wrapped.
    """
    rows = list(rows)
    if not sys.stdout.isatty():
        for row in rows:
            click.echo("\t".join(row))
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True, padding=(0, 1, 0, 0))
    for number, column in enumerate(columns):
        gives_way = number > 0 if folded else number == len(columns) - 1
        overflow: Literal["fold", "ellipsis"] = "fold" if folded else "ellipsis"
        table.add_column(column, no_wrap=not (folded and gives_way), overflow=overflow, ratio=1 if gives_way else None)
    for row in rows:
        table.add_row(*row)
    print_rich(table)


def print_facts(facts: Iterable[tuple[str, str]]) -> None:
    """Print a name and a text on each line, wrapped at 80 columns."""
    for name, text in facts:
        print_wrapped(f"{name:<12} {text}", " " * 13)


def print_wrapped(text: str, indent: str) -> None:
    """Print a text wrapped at 80 columns, with all but its first line indented."""
    import textwrap

    for line in textwrap.wrap(text, 80, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False):
        click.echo(line)


def place_of(problem: dict[str, Any]) -> str:
    """Return the file of a problem, and the line if that is known."""
    return f"{problem['subject']}:{problem['line']}" if problem["line"] else str(problem["subject"])


def print_problem(problem: dict[str, Any], indent: str) -> None:
    """Print a problem, and its remedy below it."""
    warning = "warning: " if problem["warning"] else ""
    print_wrapped(f"{indent}{warning}{place_of(problem)}: {problem['message']}", f"{indent}  ")
    if problem["hint"]:
        print_wrapped(f"{indent}  {problem['hint']}", f"{indent}  ")


def print_problems(problems: Iterable[dict[str, Any]], indent: str, *, everything: bool) -> None:
    """Print problems by kind, warnings last: of each kind the first three and a count, or `everything`."""
    kinds: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for problem in sorted(problems, key=lambda problem: bool(problem["warning"])):
        kinds.setdefault(_kind(problem), []).append(problem)
    for members in kinds.values():
        shown = members if everything else members[:_SHOWN_OF_A_KIND]
        for problem in shown:
            print_problem(problem, indent)
        if len(members) > len(shown):
            click.echo(f"{indent}… and {len(members) - len(shown)} more of this kind: --all shows them")


def _kind(problem: dict[str, Any]) -> tuple[object, ...]:
    """Return what problems of one kind have in common: all but quoted names and numbers."""
    return problem["warning"], problem["code"], _PARTICULARS.sub("", problem["message"])


def print_rich(what: RenderableType) -> None:
    from rich.console import Console

    Console(highlight=False, markup=False).print(what)


def ago(at: str) -> str:
    return f"{age(at)} ago"


def age(at: str) -> str:
    from datetime import UTC, datetime

    return duration((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())


def duration(seconds: float) -> str:
    seconds = int(seconds)
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


def complain(error: BlocksdError) -> int:
    """Print an error and the next step, for systemd's journal in one line with its level; return the exit code."""
    message, step = in_own_words(error), next_step(error)
    if is_journal(sys.stderr):
        click.echo(f"<3>blocksd: {' '.join(message.split())}{f' ({step})' if step else ''}", err=True)
        return exit_code(error)
    click.echo(f"blocksd: {message}", err=True)
    if step:
        click.echo(f"  {step}", err=True)
    return exit_code(error)


def exit_code(error: BlocksdError) -> int:
    if error.facts.get("errno") in ("EACCES", "EPERM"):  # a file of the folder: no daemon and no Redis is missing
        return 1
    return 3 if isinstance(error, Unavailable) else 2 if isinstance(error, Misconfigured) else 1


def print_configuration(text: str, place: str, words: list[str]) -> None:
    """Print settings for another program with these words in them, and where to put them."""
    click.echo(text)
    click.echo(f"put this into {place}", err=True)
    if any("://" in word and masked(word) != word for word in words):
        step = "put the URL into a settings file that only you can read, and name that by --config instead"
        click.echo(
            f"it has a password, which others may read in that file and in the list of processes: {step}", err=True
        )
