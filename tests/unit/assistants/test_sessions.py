"""What each session of an assistant was shown last."""

from __future__ import annotations

import errno
import json
import os
import stat
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from blocksd.assistants import sessions as sessions_module
from blocksd.assistants.changes import Shown
from blocksd.assistants.sessions import Place, Sessions

if TYPE_CHECKING:
    from pathlib import Path

PLACE = Place("e1", 7, {"block-1": Shown("notes", 3, "abc")})


def test_session_is_remembered(tmp_path: Path) -> None:
    """Under all texts that name it, for this user alone, however strange they are."""
    sessions = Sessions(str(tmp_path / "a" / "sessions"))
    assert sessions.place("claude-code", "../../x\0y") is None
    sessions.stage(PLACE, "claude-code", "../../x\0y")()
    assert sessions.place("claude-code", "../../x\0y") == PLACE
    assert sessions.place("codex", "../../x\0y") is None
    (file,) = (tmp_path / "a" / "sessions").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_session_stands_where_it_stood_until_it_is_confirmed(tmp_path: Path) -> None:
    """What was not given to the model counts as not shown; a session that is forgotten has seen nothing."""
    sessions = Sessions(str(tmp_path))
    sessions.forget("one")
    sessions.stage(PLACE, "one")
    assert sessions.place("one") is None
    sessions.stage(PLACE, "one")()
    sessions.stage(replace(PLACE, seq=8), "one")
    assert sessions.place("one") == PLACE
    sessions.forget("one")
    assert sessions.place("one") is None


def test_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each turn of a session something is written: it must not become more."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(OSError, match="no space"):
        Sessions(str(tmp_path)).stage(PLACE, "one")
    assert list(tmp_path.iterdir()) == []


def test_number_of_sessions_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that were used last are kept."""
    monkeypatch.setattr(sessions_module, "MOST_SESSIONS", 3)
    sessions = Sessions(str(tmp_path / "sessions"))
    for number in range(5):
        sessions.stage(PLACE, str(number))()
        for file in (tmp_path / "sessions").iterdir():
            os.utime(file, ns=(0, file.stat().st_mtime_ns - 10**9))
    assert [number for number in range(5) if sessions.place(str(number)) is not None] == [2, 3, 4]


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}", '{"epoch": "e", "seq": 1, "blocks": {"x": [1]}}', "5"])
def test_damaged_record_is_none(text: str, tmp_path: Path) -> None:
    """The session is then shown everything, and remembered again."""
    sessions = Sessions(str(tmp_path))
    sessions.stage(PLACE, "one")()
    (file,) = tmp_path.iterdir()
    file.write_text(text)
    assert sessions.place("one") is None
    sessions.stage(PLACE, "one")()
    assert sessions.place("one") == PLACE
