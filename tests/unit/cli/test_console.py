"""What is said beneath an error."""

from __future__ import annotations

import pytest

from blocksd.cli.console import next_step
from blocksd.errors import Unavailable


@pytest.mark.parametrize(
    ("facts", "step"),
    [
        ({"path": "notes.md"}, "status"),
        ({"file": "docs/x.txt"}, "status"),
        ({"url": "redis://x"}, "run FOLDER"),
        ({}, "run FOLDER"),
    ],
)
def test_daemon_that_refuses_is_not_to_be_started(facts: dict[str, str], step: str) -> None:
    """A file that cannot be written now is something else than a daemon that cannot be reached."""
    assert step in next_step(Unavailable("not now", **facts))
