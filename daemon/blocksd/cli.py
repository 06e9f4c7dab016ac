"""The group of commands: errors become sentences with the next step, and exit codes.

Exit codes: 0 done; 1 refused, or problems found; 2 used or configured wrongly; 3 the daemon or Redis is unavailable.
"""

from __future__ import annotations

import itertools
import sys

import click

from blocksd.commands_admin import completion, doctor
from blocksd.commands_config import config
from blocksd.commands_daemon import check, resume, run, status
from blocksd.commands_read import acl, agents, audit, diff, history, list_blocks, render, show, watch
from blocksd.commands_write import COMMANDS as WRITING
from blocksd.console import complain, exit_code
from blocksd.errors import BlocksdError

_EPILOG = (
    "Exit codes: 0 done, 1 refused or problems found, 2 wrong usage or configuration, 3 daemon or Redis unavailable."
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


def main() -> None:
    """The command `blocksd`."""
    try:
        sys.exit(cli.main(standalone_mode=False) or 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BlocksdError as error:
        complain(error)
        sys.exit(exit_code(error))
