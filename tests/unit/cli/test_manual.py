"""The man page: complete, up to date, and understood by man."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import fields
from pathlib import Path

import click
import pytest

from blocksd.cli import manual
from blocksd.cli.main import cli
from blocksd.settings.config import Config
from support import require

PAGE = Path(__file__).resolve().parents[3] / "daemon" / "man" / "blocksd.1"


def shown(page: Path) -> str:
    """What man shows, on one line; it may have no complaint."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "200", "MAN_KEEP_FORMATTING": ""}
    command = [require("man"), "--warnings=w", "--local-file", str(page)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert result.stderr == ""
    return re.sub(r"\s+", " ", re.sub("\x1b\\[[0-9;]*m|.\b", "", result.stdout))


def test_page_is_up_to_date() -> None:
    """It is what `python -m blocksd.cli.manual > daemon/man/blocksd.1` writes."""
    assert PAGE.read_text(encoding="ascii") == manual.page()


def test_man_shows_every_command_option_and_setting() -> None:
    """With no complaint, and the words of `--help`."""
    text = shown(PAGE)
    assert "blocksd - memory blocks for AI agents, as plain files" in text
    for name, command in cli.commands.items():
        assert f"blocksd {name} [OPTIONS]" in text
        first = (command.help or "").split("\n\n")[0]
        assert re.sub(r"\s+", " ", first).replace("`", "").strip() in text
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.opts[-1] in text
                assert re.sub(r"\s+", " ", parameter.help or "").replace("`", "").strip() in text
    for setting in fields(Config):
        assert f"{setting.name}, BLOCKSD_{setting.name.upper()}" in text
    for code in ("0 done", "1 refused or problems found", "2 wrong usage", "3 daemon or Redis unavailable"):
        assert code in text


@pytest.mark.parametrize(
    "text",
    [".TH is no request here", "'x' is quoted", "a\\b", "--flag and kill -9", "→ and …", '100 % "quoted"', "a `b-c` d"],
)
def test_no_text_is_a_request(text: str, tmp_path: Path) -> None:
    """Dots, quotes and backslashes are shown as they are; what is not ASCII is named."""
    page = tmp_path / "page.1"
    page.write_text(f".TH PAGE 1\n.SH NAME\n{manual._roff(text)}\n", encoding="ascii")
    assert f"NAME {text.replace('`', '')} " in shown(page)


def test_groups_in_groups_and_lines_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of a group in the group is under its whole name; hidden ones are left out; examples keep their lines."""

    @click.group(epilog="Exit codes: 0 done.")
    def root() -> None:
        """The root."""

    @root.group()
    def inner() -> None:
        """The inner group."""

    @inner.command()
    @click.option("--deep", help="How deep.")
    def leaf(deep: str) -> None:
        """Do it.

        \b
        one
        two
        """

    @root.command(hidden=True)
    def secret() -> None:
        """Nothing for people."""

    monkeypatch.setattr(manual, "cli", root)
    page = manual.page()
    assert "\n.SS \\fBblocksd inner leaf\\fR [OPTIONS]\nDo it.\n.PP\n.EX\none\ntwo\n.EE\n" in page
    assert "\\fB\\-\\-deep\\fR \\fITEXT\\fR\nHow deep." in page
    assert "secret" not in page
