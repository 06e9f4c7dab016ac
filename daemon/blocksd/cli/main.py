"""The group of commands: errors become sentences with the next step, and exit codes.

Exit codes: 0 done; 1 refused, or problems found; 2 used or configured wrongly; 3 the daemon, Redis or, for
now, the journal is unavailable.
"""

from __future__ import annotations

import io
import itertools
import os
import sys

import click

from blocksd.cli.commands_admin import completion, doctor
from blocksd.cli.commands_config import config
from blocksd.cli.commands_daemon import check, resume, run, status
from blocksd.cli.commands_read import acl, agents, audit, diff, history, list_blocks, render, show, watch
from blocksd.cli.commands_write import COMMANDS as WRITING
from blocksd.cli.console import complain, exit_code
from blocksd.errors import BlocksdError, Misconfigured

_EPILOG = (
    "Exit codes: 0 done, 1 refused or problems found, 2 wrong usage or configuration, "
    "3 daemon or Redis unavailable or, for now, the journal."
)


SECTIONS = {
    "The daemon": (run, check, status, resume),
    "Look": (list_blocks, show, agents, render, watch, history, diff, audit),
    "Change": WRITING,
    "Keep the machine": (config, doctor, acl, completion),
}
"""All commands, in the order in which help shows them."""


class _Sections(click.Group):
    """A group whose help shows its commands by section."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        room = formatter.width - 6 - max(map(len, self.commands))
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(command.name or "", command.get_short_help_str(room)) for command in commands])


@click.group(cls=_Sections, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(package_name="blocksd", message="blocksd %(version)s")
def cli() -> None:
    """Memory blocks for AI agents, as plain files.

    `blocksd run blocks.d` watches a folder of Markdown files, mirrors each as a block into Redis, and announces every
    change. The other commands show what is there, and change it through the daemon.
    """


for _command in itertools.chain(*SECTIONS.values()):
    cli.add_command(_command)


def _speak_utf8() -> None:
    """Read and write UTF-8, whatever the locale says: files, labels and texts are UTF-8, and so are file names.

    Python takes arguments and file names in the locale's encoding, once and for all: where that is another, it is begun
    again in its UTF-8 mode.
    """
    if sys.getfilesystemencoding().lower() not in ("utf-8", "utf8") and not sys.flags.utf8_mode:
        words: list[str] = [sys.executable, "-X", "utf8", "-m", "blocksd", *sys.argv[1:]]
        os.execv(sys.executable, words)  # noqa: S606  # itself
    for stream, errors in ((sys.stdin, "strict"), (sys.stdout, "surrogateescape"), (sys.stderr, "backslashreplace")):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors=errors)


def main() -> None:
    """The command `blocksd`."""
    _speak_utf8()
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except UnicodeError as error:  # a byte that is none of UTF-8: of an argument, a variable, or what is piped in
        complain(Misconfigured(f"an argument or the input is not UTF-8: {error}"))
        sys.exit(2)
    except BlocksdError as error:
        complain(error)
        sys.exit(exit_code(error))
