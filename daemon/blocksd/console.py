"""How things are printed: JSON, tables, counts, ages."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Literal

import click

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import RenderableType


def print_json(value: object) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, folded: bool = False) -> None:
    """A table on a terminal; tab-separated lines, which other programs can cut, elsewhere.

    On a narrow terminal only the last column gives way; of a `folded` table all but the first do, and nothing is cut.
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


def print_rich(what: RenderableType) -> None:
    from rich.console import Console

    Console(highlight=False, markup=False).print(what)


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def ago(at: str) -> str:
    return f"{age(at)} ago"


def age(at: str) -> str:
    from datetime import UTC, datetime

    seconds = int((datetime.now(UTC) - datetime.fromisoformat(at)).total_seconds())
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"
