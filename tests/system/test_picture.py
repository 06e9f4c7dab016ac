"""The pictures of sessions in the documents show what the commands print today."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from fenced import ROOT
from support import require

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

DIFFERENT_EACH_TIME = (
    (r"\d\d:\d\d:\d\d", "hh:mm:ss"),
    (r"127\.0\.0\.1:\d+", "127.0.0.1:port"),
    (r"Valkey \d+\.\d+\.\d+", "Valkey x.y.z"),
    (r"after [0-9a-f]{32}", "after epoch"),
)


def printed(picture: Path) -> list[str]:
    """The lines of the daemon, the subscriber and the shell; the fourth part is the editor's own."""
    panes: dict[int, list[str]] = {0: [], 1: []}
    for row in picture.read_text(encoding="utf-8").splitlines():
        text = html.unescape("".join(re.findall(r"<text class=[^>]*>([^<]*)", row))).replace("\xa0", " ")
        for side, part in enumerate(re.split("[│┼]", text, maxsplit=1)):
            panes[side].append(part.rstrip())
    shown = "\n".join(panes[0]) + "\n".join(panes[1]).partition("───")[2]
    for pattern, name in DIFFERENT_EACH_TIME:
        shown = re.sub(pattern, name, shown)
    return [line for line in shown.splitlines() if line]


@pytest.mark.parametrize(
    ("name", "options", "lines"),
    [
        (
            "session.svg",
            [],
            ["hh:mm:ss updated human v4 (value) by operator", "undone human v4 · 77 of 5000 characters"],
        ),
        (
            "mcp.svg",
            ["--mcp"],
            ["hh:mm:ss updated human v5 (value) by support-2", *["human: … Without sugar."] * 2],
        ),
    ],
)
def test_picture_of_a_session_is_that_of_today(tmp_path: Path, name: str, options: list[str], lines: list[str]) -> None:
    """It is drawn again and compared, but for times, the port, the epoch and the server's version."""
    require("tmux")
    require("vim")
    drawn = tmp_path / name
    words = [sys.executable, str(ROOT / "daemon/docs/record.py"), *options, str(drawn)]
    result = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    assert result.returncode == 0, result.stderr
    shown = printed(ROOT / "daemon/docs" / name)
    assert Counter(lines) <= Counter(shown)
    assert printed(drawn) == shown, f"run python daemon/docs/record.py {' '.join(options)}"
