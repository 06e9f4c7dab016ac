"""A leader and two followers, whatever people, agents, kills and a bad wire do: all is equal at the end, and nothing is lost."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from blocksd.follow import comparison, plan
from blocksd.follow.outbox import Outbox, Unsent, new_id
from blocksd.follow.place import Place
from blocksd.follow.plan import Written
from blocksd.requests import saving
from machine.copies import Clock, World
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


def try_worlds(world: type[World], count: int, *, is_random: bool) -> None:
    """Try so many worlds, the same each time or others; the first that fails is told as it is."""
    rules = settings(
        max_examples=count,
        stateful_step_count=60,
        deadline=None,
        derandomize=not is_random,
        database=None,
        print_blob=False,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(hypothesis.seed(SEED)(world) if is_random else world, settings=rules)


@pytest.mark.timeout(0 if EXAMPLES else 120)
def test_every_world_of_three_hosts_becomes_equal_and_loses_nothing(
    world: type[World], capsys: pytest.CaptureFixture[str]
) -> None:
    """Every line is there once, each host's files are as it left them, and no request is done twice."""
    try:
        try_worlds(world, EXAMPLES or 12, is_random=bool(EXAMPLES))
    except BaseException as error:
        error.add_note(f"again with BLOCKSD_MACHINE_SEED={SEED} BLOCKSD_MACHINE_EXAMPLES={EXAMPLES}")
        raise
    with capsys.disabled():
        print("\nworlds of three hosts:", ", ".join(f"{kind} {count}" for kind, count in sorted(world.seen.items())))


# --- the machine is worth what it catches: each of these has one mistake in it ---


class _Nothing(set[str]):
    def __contains__(self, _thing: object) -> bool:
        return False


def writes_where_an_answer_is_awaited(patch: pytest.MonkeyPatch) -> None:
    made = Place.__init__

    def without(self: Place, *args: Any, **given: Any) -> None:
        made(self, *args, **given)
        self.awaited = _Nothing()

    patch.setattr(Place, "__init__", without)


def takes_an_editor_to_have_read_the_last_text(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Written, "oldest", lambda self, *_: self.version)


def writes_over_local_edits(patch: pytest.MonkeyPatch) -> None:
    decide = plan.decide

    def always(wanted: str | None, written: str | None, found: str | None) -> str:
        step = decide(wanted, written, found)
        return "write" if step == "keep" and wanted is not None else step

    patch.setattr(comparison, "decide", always)


def sends_an_edit_again_as_another(patch: pytest.MonkeyPatch) -> None:
    mark_sent = Outbox.mark_sent

    def marked(self: Outbox, path: str) -> Unsent:
        self.put(mark_sent(self, path)._replace(id=new_id()))
        return self.edits[path]

    patch.setattr(Outbox, "mark_sent", marked)


def merges_without_the_text_that_both_were_made_of(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(saving, "_origin", lambda _changeset, _file, _label, version, _base: (version, None))


MISTAKES = (
    writes_where_an_answer_is_awaited,
    takes_an_editor_to_have_read_the_last_text,
    writes_over_local_edits,
    sends_an_edit_again_as_another,
    merges_without_the_text_that_both_were_made_of,
)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_caught(
    mistake: Callable[[pytest.MonkeyPatch], None], world: type[World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With this mistake in a follower, or in the leader, a world fails."""
    mistake(monkeypatch)
    with pytest.raises(AssertionError):
        try_worlds(world, 300, is_random=False)
