"""What users can type or set is in the README."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from blocksd.block import FILE_KEYS
from blocksd.cli import cli
from blocksd.config import Config
from blocksd.keys import Keys

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", sorted(cli.commands))
def test_every_command_is_in_the_readme(command: str) -> None:
    """A command nobody reads of is one nobody uses."""
    assert f"`blocksd {command}" in README


@pytest.mark.parametrize("name", [setting.name for setting in fields(Config)])
def test_every_setting_is_in_the_readme(name: str) -> None:
    """With its key in TOML and its name in the environment."""
    assert f"| `{name}` | `BLOCKSD_{name.upper()}` |" in README


@pytest.mark.parametrize("key", FILE_KEYS)
def test_every_frontmatter_key_is_in_the_readme(key: str) -> None:
    """Those of blocksd in the table, those that are only carried below it."""
    assert f"`{key}`" in README


def test_every_key_of_the_mirror_is_in_the_readme() -> None:
    """Other programs read them."""
    keys = vars(Keys("blocks"))
    del keys["namespace"]
    assert not [name for name in keys.values() if f"`{name}`" not in README]


def test_the_sample_blocks_are_in_order() -> None:
    """The first folder a user sees has no problem."""
    from blocksd.commands_daemon import examine

    blocks, problems = examine(str(ROOT / "blocks.d"))
    assert (blocks, problems) == (4, [])


def test_the_unit_names_what_the_daemon_does() -> None:
    """The unit waits for READY, is fed its watchdog, and does not restart on a wrong configuration."""
    unit = (ROOT / "systemd" / "blocksd.service").read_text(encoding="utf-8")
    for line in ("Type=notify", "WatchdogSec=30", "RestartPreventExitStatus=2", "StateDirectory=blocksd"):
        assert f"\n{line}\n" in unit
