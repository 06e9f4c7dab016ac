from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from blocksd.journal.identity import identity_of

if TYPE_CHECKING:
    from pathlib import Path


def test_file_is_the_same_wherever_it_is(tmp_path: Path) -> None:
    """Written to, renamed, given other rights: it is the same file."""
    path = tmp_path / "one"
    path.write_text("x")
    before = identity_of(str(path))
    path.write_text("y")
    path.chmod(0o600)
    os.rename(path, tmp_path / "other")
    assert identity_of(str(tmp_path / "other")) == before


def test_copy_is_another_file(tmp_path: Path) -> None:
    """Also one that has all its times, and the number of the inode that the first had."""
    path = tmp_path / "one"
    path.write_text("x")
    before = identity_of(str(path))
    if "+" not in before:
        pytest.skip("this file system keeps no births")
    shutil.copy2(path, tmp_path / "copy")
    assert identity_of(str(tmp_path / "copy")) != before
    numbers = set()
    for _ in range(50):
        inode = path.stat().st_ino
        path.unlink()
        path.write_text("x")
        numbers.add(inode)
        assert identity_of(str(path)) != before
    assert identity_of(str(path)) != before


def test_without_births_the_device_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system says no birth, a file is told by its number and its device."""
    monkeypatch.setattr("blocksd.journal.identity._birth_of", lambda _: None)
    status = os.stat(tmp_path)
    assert identity_of(str(tmp_path)) == f"{status.st_ino}@{status.st_dev}"


def test_missing_file_has_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        identity_of(str(tmp_path / "none"))
