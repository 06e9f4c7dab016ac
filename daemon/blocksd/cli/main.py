"""The command `blocksd`: its commands by group, and its exit codes.

Errors become sentences with the next step. Exit codes: 0 done; 1 refused, or problems found; 2 wrong usage or
configuration; 3 the daemon, Redis or the journal is unavailable.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections import UserDict
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import click

from blocksd.cli.console import complain
from blocksd.errors import BlocksdError, Misconfigured

if TYPE_CHECKING:
    from collections.abc import Iterator

_EPILOG = (
    "Exit codes: 0 done, 1 refused or problems found (of status and doctor also warnings), 2 wrong usage or configuration, "
    "3 daemon or Redis unavailable or the journal unusable for now."
)


_TEXTS = ("value", "content", "new_text")
"""The arguments that are texts."""

SECTIONS = {
    "Read": {
        "ls": "commands_read.list_blocks",
        "show": "commands_read.show",
        "agents": "commands_read.agents",
        "render": "commands_assistants.render",
        "history": "commands_history.history",
        "diff": "commands_history.diff",
        "watch": "commands_read.watch",
        "audit": "commands_admin.audit",
    },
    "Write": {
        "new": "commands_write.new",
        "set": "commands_write.set_block",
        "append": "commands_write.append",
        "replace": "commands_write.replace",
        "rm": "commands_write.rm",
        "mv": "commands_write.mv",
        "attach": "commands_write.attach",
        "detach": "commands_write.detach",
        "undo": "commands_history.undo",
        "redo": "commands_history.redo",
        "restore": "commands_history.restore",
        "merge": "commands_history.merge",
    },
    "Administration": {
        "run": "commands_daemon.run",
        "follow": "commands_follow.follow",
        "serve": "commands_daemon.serve",
        "mcp": "commands_daemon.serve_mcp",
        "hook": "commands_assistants.hook",
        "stop": "commands_daemon.stop",
        "status": "commands_status.status",
        "check": "commands_check.check",
        "resume": "commands_daemon.resume",
        "doctor": "commands_admin.doctor",
        "config": "commands_admin.config",
        "acl": "commands_admin.acl",
        "completion": "commands_admin.completion",
    },
}
"""All commands by group, in the order of `--help`, and where each is. A module takes a moment to load."""


class _Commands(UserDict[str, click.Command]):
    """The commands by name. Each is loaded when it is first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self._places = {name: place for section in SECTIONS.values() for name, place in section.items()}

    def __getitem__(self, name: str) -> click.Command:
        if name not in self.data and name in self._places:
            module, _, function = self._places[name].partition(".")
            self.data[name] = getattr(import_module(f"blocksd.cli.{module}"), function)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class _Sections(click.Group):
    """A group of commands whose help shows them by section."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the words up to the command; say so of an option that comes after it."""
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            after = [name for name, one in self.commands.items() for its in one.params if error.option_name in its.opts]
            if not after:
                raise
            message = f"{error.message} It comes after the command: 'blocksd {after[0]} {error.option_name} …'"
            raise click.NoSuchOption(error.option_name, message, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        room = formatter.width - 6 - max(map(len, self.commands))
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(room)) for name in names])


@click.group(
    cls=_Sections, commands=_Commands(), context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG
)
@click.version_option(package_name="blocksd", message="blocksd %(version)s")
def cli() -> None:
    """Memory blocks for AI agents, as plain files.

    `blocksd run blocks.d` watches a folder of Markdown files, mirrors each file as a block into Redis, and announces every
    change. The other commands read blocks from the mirror, and change them through the daemon.

    \b
    blocksd run blocks.d           # in one terminal
    blocksd new notes "Be brief."  # in another
    blocksd ls
    blocksd watch
    """  # noqa: D301  # \b is click's mark for lines that stay as they are


def _open_closed_streams() -> None:
    """Open something in the place of each standard stream that is closed: else the next file would take its number.

    Reading and printing fail there, as they do on a closed stream; messages go nowhere.
    """
    for name, number, access in (("stdin", 0, os.O_WRONLY), ("stdout", 1, os.O_RDONLY), ("stderr", 2, os.O_WRONLY)):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, access)
            if opened != number:  # it is the lowest that is free, so no other
                os.dup2(opened, number)
                os.close(opened)
            os.set_inheritable(number, True)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def _give_up_output() -> None:
    """Have what is left of the output go nowhere: else Python tries to write it at the end, and exits with 120."""
    with suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _speak_utf8() -> None:
    """Use UTF-8 in any locale: files, labels, texts and file names are UTF-8.

    Python fixes the encoding of arguments and file names at its start: where that is another, restart it in UTF-8 mode.
    """
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8") and not sys.flags.utf8_mode:
        words: list[str] = [sys.executable, "-X", "utf8", "-m", "blocksd", *sys.argv[1:]]
        os.execv(sys.executable, words)  # noqa: S606  # itself
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def _after_surplus(error: click.ClickException) -> str:
    """Return what was probably meant if a command was given more arguments than it has; else empty."""
    if not isinstance(error, click.UsageError) or error.ctx is None or "unexpected extra argument" not in error.message:
        return ""
    steps = [
        f"repeat {option.opts[-1]} for each value"
        for option in error.ctx.command.params
        if isinstance(option, click.Option) and option.multiple and error.ctx.params.get(option.name or "")
    ]
    if any(parameter.name in _TEXTS for parameter in error.ctx.command.params):
        steps.append("a text of several words stands in quotes")
    return "; ".join(steps)


def main() -> None:
    """Run the command `blocksd`, and exit."""
    _open_closed_streams()
    _speak_utf8()
    try:
        if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        cli.main(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        if step := _after_surplus(error):
            click.echo(f"  {step}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except UnicodeError as error:  # in an argument, a variable, or standard input
        complain(Misconfigured(f"an argument or the input is not UTF-8: {error}"))
        sys.exit(2)
    except BlocksdError as error:
        sys.exit(complain(error))
    except OSError as error:  # a pipe that nobody reads has ended the command already
        if error.filename is None:
            why = "it is closed" if error.errno == errno.EBADF else error.strerror or error
            told = f"the output cannot be written: {why}; what was asked for may be done all the same"
            _give_up_output()
        else:
            told = f"{os.fsdecode(error.filename)} cannot be written or read: {error.strerror or error}"
        click.echo(f"blocksd: {told}", err=True)
        sys.exit(1)
    finally:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # the end of Python takes a moment, too
