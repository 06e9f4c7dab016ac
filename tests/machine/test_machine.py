"""Whatever people, agents, crashes and failures do, in whatever order: nothing is lost, nothing is doubled, and it ends."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from machine.machine import World
from machine.power import PowerWorld
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = int(os.environ.get("BLOCKSD_MACHINE_EXAMPLES", "0"))
"""How many worlds are tried, each another one every time; 0: a few, always the same."""


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
    run_state_machine_as_test(
        kind,
        settings=settings(
            max_examples=EXAMPLES or 30,
            stateful_step_count=30,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            print_blob=False,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
