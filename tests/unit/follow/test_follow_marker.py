"""The marker of a copy: what a crash has left beside it goes at the next start, and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from blocksd.follow.marker import NAME
from blocksd.follow.opening import Copy
from blocksd.monitoring.events import Notices
from blocksd.settings.config import Config

if TYPE_CHECKING:
    from pathlib import Path


def test_what_a_crash_left_beside_the_marker(tmp_path: Path) -> None:
    """It was not in place yet."""
    config = Config(folder=str(tmp_path / "copy"), state_dir=str(tmp_path / "state"))

    def opened() -> Copy:
        return Copy(config, lambda _: None, Notices([]), is_read_only=True, adopts=False)

    copy = opened()
    copy.mark("e1")
    copy.close()
    for name in (f"{NAME}-0123456789abcdef", f"{NAME}-notes", "notes.md"):
        (tmp_path / "copy" / name).write_text("{")
    opened().close()
    assert sorted(os.listdir(tmp_path / "copy")) == [NAME, f"{NAME}-notes", "notes.md"]
