"""A client that found the daemon's server by the state directory looks there again when it is refused or cut off."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from blocksd.client.client import Client
from blocksd.client.plan import Ask
from blocksd.client.runner import Asyncio, Blocking
from blocksd.errors import Misconfigured, Unavailable
from blocksd.service.lock import lock_state
from blocksd.settings.record import FoundUrl, write
from rig import Rig
from support import RedisServer, eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def other() -> Iterator[RedisServer]:
    """Another server, which wants a password."""
    running = RedisServer(valkey_binary())
    running.launch("--requirepass", "secret")
    eventually(lambda: os.path.exists(running.socket))
    yield running
    running.remove()


@pytest.mark.parametrize("how", ["cut off", "refused"])
def test_next_question_is_asked_where_the_server_is_now(
    server: RedisServer, other: RedisServer, tmp_path: Path, how: str
) -> None:
    """The one that failed is not repeated, since it may have been done; a URL that was given stays as it is."""
    state = str(tmp_path / "state")
    lock = lock_state(state)
    there = f"unix://:secret@{other.socket}"
    write(state, folder="/f", namespace="blocks", redis=server.url)
    before = server.url if how == "cut off" else f"unix://:wrong@{other.socket}"
    runner = Blocking(FoundUrl(before, state), "blocks")
    given = Blocking(before, "blocks")
    write(state, folder="/f", namespace="blocks", redis=there)
    if how == "cut off":
        server.kill()
    ping = Ask((("PING",),))
    with pytest.raises(Unavailable, match="is another now"):
        runner.ask(ping)
    assert runner.ask(ping)
    with pytest.raises((Unavailable, Misconfigured)):
        given.ask(ping)
    with pytest.raises((Unavailable, Misconfigured)):
        given.ask(ping)
    runner.close()
    given.close()
    lock.release()


async def _ask_twice(url: str) -> bool:
    runner = Asyncio(url, "blocks")
    with pytest.raises(Unavailable, match="is another now"):
        await runner.ask(Ask((("PING",),)))
    found = await runner.ask(Ask((("PING",),)))
    await runner.close()
    return bool(found)


def test_asyncio_does_the_same(other: RedisServer, tmp_path: Path) -> None:
    """After a refusal."""
    import asyncio

    state = str(tmp_path / "state")
    lock = lock_state(state)
    write(state, folder="/f", namespace="blocks", redis=f"unix://:secret@{other.socket}")
    assert asyncio.run(_ask_twice(FoundUrl(f"unix://:wrong@{other.socket}", state)))
    lock.release()


def test_watch_goes_on_at_the_new_place(server: RedisServer, other: RedisServer, tmp_path: Path) -> None:
    """It misses nothing of what the daemon shows there."""
    state = str(tmp_path / "state")
    lock = lock_state(state)
    rig = Rig(tmp_path / "one", server.url)
    rig.save_and_settle("notes", "one\n")
    write(state, folder="/f", namespace="blocks", redis=server.url)
    client = Client(FoundUrl(server.url, state))
    seen: list[int | None] = []
    watch = client.watch(since=0, callback=lambda item: seen.append(item.seq))
    eventually(lambda: seen)
    rig.crash()
    rig.url = f"unix://:secret@{other.socket}"
    rig.open()
    rig.save_and_settle("later", "two\n")
    write(state, folder="/f", namespace="blocks", redis=rig.url)
    server.kill()
    eventually(lambda: rig.journal.seq in seen, "it is heard of at the new place")
    assert [block.label for block in client.blocks.list()] == ["later", "notes"]
    watch.close()
    client.close()
    rig.close()
    lock.release()
