"""Whatever people, agents, crashes and failures do, in whatever order: nothing is lost, nothing is doubled, and it ends."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from machine.machine import World
from machine.power import PowerWorld
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

EXAMPLES = int(os.environ.get("BLOCKSD_MACHINE_EXAMPLES", "0"))
"""How many worlds of each kind are tried, others every time; 0: a few, always the same."""

SEED = int(os.environ.get("BLOCKSD_MACHINE_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
"""Which worlds those are: a failure names its seed, and the seed alone finds it again."""

BATCH = 250
"""How many worlds one seed stands for, so that a failure is found again in a minute."""


@pytest.fixture(scope="module", autouse=True)
def world() -> Iterator[None]:
    """One server for all worlds."""
    World.server = RedisServer(valkey_binary())
    World.server.start()
    yield
    World.server.remove()


@pytest.mark.timeout(0 if EXAMPLES else 120)
@pytest.mark.parametrize("kind", [World, PowerWorld], ids=["crashes", "power cuts"])
def test_every_world_keeps_what_was_saved_and_what_was_acknowledged(kind: type[World]) -> None:
    """People save, agents ask, everything fails at any moment; then what must be there is there, once, and all is quiet."""
    if not EXAMPLES:
        run_state_machine_as_test(kind, settings=worlds(30, derandomize=True))
    for batch, tried in enumerate(range(0, EXAMPLES, BATCH)):
        seeded = hypothesis.seed(SEED + batch)(type(kind.__name__, (kind,), {}))
        try:
            run_state_machine_as_test(seeded, settings=worlds(min(BATCH, EXAMPLES - tried), derandomize=False))
        except BaseException as error:
            error.add_note(
                f"after {tried} clean worlds; again with BLOCKSD_MACHINE_SEED={SEED + batch} BLOCKSD_MACHINE_EXAMPLES={BATCH}"
            )
            raise


def worlds(examples: int, *, derandomize: bool) -> settings:
    """Return hypothesis' settings for that many worlds."""
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        derandomize=derandomize,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
