"""The command line loads what the command needs, and no more."""

from __future__ import annotations

import subprocess
import sys

from blocksd.cli.main import cli

_LOADED = """
import sys
from blocksd.cli.main import cli
try:
    cli.main(["show", "notes", "--redis", "unix:///nowhere"], standalone_mode=False)
except Exception as error:
    assert "does not serve" in str(error), error
print(*(name for name in sys.modules if name.startswith("blocksd.") or "." not in name))
"""


def test_each_command_is_where_the_table_says() -> None:
    """Its name is the one under which it is loaded."""
    assert {name: command.name for name, command in cli.commands.items()} == {name: name for name in cli.commands}
    assert "no-such-command" not in cli.commands


def test_show_loads_what_it_needs() -> None:
    """Neither the modules of other commands nor what only the daemon uses: a start of Python is most of its time."""
    done = subprocess.run([sys.executable, "-c", _LOADED], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert "blocksd.client.blocking.client" in loaded
    assert {name for name in loaded if name.startswith("blocksd.cli.commands_")} == {"blocksd.cli.commands_read"}
    assert not {"yaml", "sqlite3", "watchdog", "rich", "pydantic", "blocksd.core", "blocksd.journal.journal"} & loaded
