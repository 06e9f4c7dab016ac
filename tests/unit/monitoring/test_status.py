"""How a daemon stands, in one sentence and as JSON."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from blocksd.model.problem import Tally
from blocksd.monitoring.status import Status

SERVING = Status(
    blocks=4,
    agents=2,
    seq=41,
    mirror="level",
    mirror_seq=41,
    away_since=None,
    away_reason=None,
    files=0,
    requests=3,
    watches=5,
    watch_limit=1000,
    tally=Tally(0, 0),
    read=None,
    halted=None,
)


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({}, "serving 4 blocks to 2 agents, seq 41, mirror in sync"),
        (
            {"blocks": 1, "agents": 1, "tally": Tally(1, 0)},
            "serving 1 block to 1 agent, seq 41, mirror in sync, 1 problem, 0 warnings",
        ),
        ({"tally": Tally(0, 1)}, "serving 4 blocks to 2 agents, seq 41, mirror in sync, 0 problems, 1 warning"),
        ({"mirror": "behind", "mirror_seq": 38}, "serving 4 blocks to 2 agents, seq 41, mirror 3 behind"),
        ({"mirror": "away"}, "serving 4 blocks to 2 agents, seq 41, mirror unreachable"),
        ({"read": 1200, "files": 8800}, "reading the folder: 1200 of 10000"),
        ({"read": 0}, "reading the folder"),
        (
            {"halted": "the folder is gone: deletions are held back"},
            "halted: the folder is gone: deletions are held back",
        ),
    ],
)
def test_sentence(changed: dict[str, Any], sentence: str) -> None:
    """What `systemctl status` shows."""
    assert replace(SERVING, **changed).sentence() == sentence


def test_lag_counts_revisions() -> None:
    """Those that the mirror does not show; when it is not known what it shows, all of them, and JSON has null."""
    assert SERVING.mirror_lag == SERVING.as_json()["mirror_lag"] == 0
    assert replace(SERVING, mirror_seq=30).as_json()["mirror_lag"] == 11
    unknown = replace(SERVING, mirror="rebuilding", mirror_seq=None)
    assert (unknown.mirror_lag, unknown.as_json()["mirror_lag"]) == (41, None)


def test_json_groups_what_belongs_together() -> None:
    """Numbers are numbers."""
    shown = SERVING.as_json()
    assert shown["queue"] == {"files": 0, "requests": 3}
    assert shown["watches"] == {"used": 5, "limit": 1000}
    assert (shown["ready"], replace(SERVING, read=3).as_json()["ready"]) == (True, False)
