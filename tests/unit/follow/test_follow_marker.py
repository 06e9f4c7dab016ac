"""The marker of a copy: what a crash has left beside it goes at the next start, and nothing else."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from blocksd.follow import marker as markers
from blocksd.follow.marker import NAME
from blocksd.follow.opening import Copy
from blocksd.monitoring.events import Notices
from blocksd.settings.config import Config

if TYPE_CHECKING:
    from pathlib import Path

    from blocksd.files.root import Root


class Crash(BaseException):
    """The process ends here."""


def opened(path: Path) -> Copy:
    config = Config(folder=str(path / "copy"), state_dir=str(path / "state"))
    return Copy(config, lambda _: None, Notices([]), is_read_only=True, adopts=False)


def test_what_a_crash_left_beside_the_marker(tmp_path: Path) -> None:
    """It was not in place yet."""
    copy = opened(tmp_path)
    copy.mark("e1")
    copy.close()
    for name in (f"{NAME}-0123456789abcdef", f"{NAME}-notes", "notes.md"):
        (tmp_path / "copy" / name).write_text("{")
    opened(tmp_path).close()
    assert sorted(os.listdir(tmp_path / "copy")) == [NAME, f"{NAME}-notes", "notes.md"]


@pytest.mark.parametrize("is_written", [False, True])
def test_process_that_ends_while_it_marks_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_written: bool
) -> None:
    """Folder and state directory are of two starts then, and are not taken for ones from a backup."""
    copy = opened(tmp_path)
    copy.mark("e1")
    write = markers.write

    def dies(root: Root, marker: markers.Marker) -> None:
        if is_written:
            write(root, marker)
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(markers, "write", dies)
        with pytest.raises(Crash):
            copy.mark("e1")
    copy.close()
    again = opened(tmp_path)
    assert (again.is_marked, again.adopts) == (True, False)
    again.close()
