"""Fixtures of the unit tests: a journal, and a folder that is looked at, each in a directory of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blocksd.journal.journal import Journal
from looking import Fickle, Looking

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the journal is, or is to be."""
    return str(tmp_path / "journal.db")


@pytest.fixture
def journal(path: str) -> Iterator[Journal]:
    """A new one."""
    opened = Journal(path, boot_id="boot")
    yield opened
    opened.database.close()


@pytest.fixture
def looking(tmp_path: Path) -> Iterator[Looking]:
    """An empty folder that was swept; of its files a test may have said what it wants."""
    result = Looking(tmp_path, Fickle)
    result.sweep()
    yield result
    result.close()
