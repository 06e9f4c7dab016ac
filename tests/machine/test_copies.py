"""A leader and two followers, whatever people, agents, kills and a bad wire do: all is equal at the end, and nothing is lost."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from machine.copies import Clock, World
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = int(os.environ.get("BLOCKSD_MACHINE_EXAMPLES", "0"))
"""How many worlds are tried, others every time; 0: a few, always the same."""
SEED = int(os.environ.get("BLOCKSD_MACHINE_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[World]]:
    """The worlds, with a server, and with a clock that only they move."""
    World.server, World.clock = RedisServer(valkey_binary()), Clock()
    World.server.start()
    for module in ("work", "outgoing"):
        monkeypatch.setattr(f"blocksd.follow.{module}.time", World.clock)
    yield World
    World.server.remove()


@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_every_world_of_three_hosts_becomes_equal_and_loses_nothing(
    world: type[World], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line is there once, each host's files are as it left them, and no request is done twice."""
    if EXAMPLES:
        world = hypothesis.seed(SEED)(world)
    rules = settings(
        max_examples=EXAMPLES or 12,
        stateful_step_count=60,
        deadline=None,
        derandomize=not EXAMPLES,
        database=None,
        print_blob=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(world, settings=rules)
    except BaseException as error:
        error.add_note(f"again with BLOCKSD_MACHINE_SEED={SEED} BLOCKSD_MACHINE_EXAMPLES={EXAMPLES}")
        raise
    with capsys.disabled():
        print("\nworlds of three hosts:", ", ".join(f"{kind} {count}" for kind, count in sorted(world.seen.items())))
