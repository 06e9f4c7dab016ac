"""The tests of files have them on a disk, whose inodes and flushes are not those of memory."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """An empty directory in the system's place for temporary ones."""
    with tempfile.TemporaryDirectory(prefix="blocksd-test-") as path:
        yield Path(path)
