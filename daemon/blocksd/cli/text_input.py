"""The text that a command is given: as an argument, on standard input, or in the editor."""

from __future__ import annotations

import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from blocksd.errors import BlocksdError, InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def text_of(given: str | None, before: str, *, empties: str = "") -> Iterator[str]:
    """Provide a text from the command line, from standard input, or from the editor.

    What was written in the editor is kept in a file if the request is refused.
    Raise InvalidRequest if standard input is empty, and a command is known that `empties` the block on purpose.
    """
    if given not in (None, "-"):
        yield str(given)
    elif given == "-" or not sys.stdin.isatty():
        try:
            text = sys.stdin.read()
        except OSError as error:  # it is closed, or a terminal that is gone
            hint = "give the text as an argument"
            raise InvalidRequest(f"standard input cannot be read: {error.strerror or error}", hint=hint) from None
        if not text and empties:
            raise InvalidRequest("standard input is empty: nothing was changed", hint=f"for an empty text: {empties}")
        yield text.removesuffix("\n")
    else:
        text = _written(before)
        try:
            yield text.removesuffix("\n")
        except BlocksdError:
            with tempfile.NamedTemporaryFile(
                "w", encoding="utf-8", prefix="blocksd-", suffix=".md", delete=False
            ) as file:
                file.write(text)
            click.echo(f"what you wrote is in {file.name}", err=True)
            raise


def _written(before: str) -> str:
    """Return what a person makes of a text in the editor. Raise InvalidRequest if that cannot be, or nothing was saved."""
    try:
        written = click.edit(f"{before}\n", extension=".md")
    except click.ClickException as error:
        hint = (
            "name another with $EDITOR, for example EDITOR=nano, or give the text as an argument or on standard input"
        )
        raise InvalidRequest(f"nothing was changed: {error.message}", hint=hint) from None
    if written is None:
        raise InvalidRequest("nothing was written: the editor was closed without saving")
    return written
