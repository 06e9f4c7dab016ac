"""A client that found the daemon's server by the state directory looks there again when it is refused or cut off."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from blocksd.client.blocking.transport import Transport
from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import Misconfigured, Unavailable
from blocksd.service.lock import lock_state
from blocksd.settings.record import FoundUrl, write
from following import WAYS, client_of
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
def test_question_is_asked_where_the_server_is_now(
    server: RedisServer, other: RedisServer, tmp_path: Path, how: str
) -> None:
    """The one that failed, too: a read may be repeated, and a request is done once; a URL that was given stays as it is."""
    state = str(tmp_path / "state")
    lock = lock_state(state)
    there = f"unix://:secret@{other.socket}"
    write(state, folder="/f", namespace="blocks", redis=server.url)
    before = server.url if how == "cut off" else f"unix://:wrong@{other.socket}"
    transport = Transport(FoundUrl(before, state), "blocks")
    given = Transport(before, "blocks")
    write(state, folder="/f", namespace="blocks", redis=there)
    if how == "cut off":
        server.kill()
    assert transport.ask(("PING",))
    with pytest.raises((Unavailable, Misconfigured)):
        given.ask(("PING",))
    with pytest.raises((Unavailable, Misconfigured)):
        given.ask(("PING",))
    transport.close()
    given.close()
    lock.release()


async def _ask(url: str) -> bool:
    transport = AsyncTransport(url, "blocks")
    found = await transport.ask(("PING",))
    await transport.close()
    return bool(found)


def test_asyncio_does_the_same(other: RedisServer, tmp_path: Path) -> None:
    """After a refusal."""
    import asyncio

    state = str(tmp_path / "state")
    lock = lock_state(state)
    write(state, folder="/f", namespace="blocks", redis=f"unix://:secret@{other.socket}")
    assert asyncio.run(_ask(FoundUrl(f"unix://:wrong@{other.socket}", state)))
    lock.release()


@pytest.mark.parametrize("way", WAYS)
def test_watch_goes_on_at_the_new_place(server: RedisServer, other: RedisServer, tmp_path: Path, way: str) -> None:
    """It misses nothing of what the daemon shows there."""
    state = str(tmp_path / "state")
    lock = lock_state(state)
    rig = Rig(tmp_path / "one", server.url)
    rig.save_and_settle("notes", "one\n")
    write(state, folder="/f", namespace="blocks", redis=server.url)
    seen: list[int | None] = []
    with client_of(way, FoundUrl(server.url, state)) as client:
        client.watch(since=0, callback=lambda item: seen.append(item.seq))
        eventually(lambda: seen)
        rig.crash()
        rig.url = f"unix://:secret@{other.socket}"
        rig.open()
        rig.save_and_settle("later", "two\n")
        write(state, folder="/f", namespace="blocks", redis=rig.url)
        server.kill()
        eventually(lambda: rig.journal.seq in seen, "it is heard of at the new place")
        assert client.counts()["blocks"] == 2
    rig.close()
    lock.release()


@pytest.mark.parametrize("way", WAYS)
def test_watch_outlives_a_password(other: RedisServer, tmp_path: Path, way: str) -> None:
    """While the server refuses the old one, and the state directory has no other yet, the watch waits for that."""
    state = str(tmp_path / "state")
    lock = lock_state(state)
    url = f"unix://:secret@{other.socket}"
    rig = Rig(tmp_path / "one", url)
    rig.save_and_settle("notes", "one\n")
    write(state, folder="/f", namespace="blocks", redis=url)
    seen: list[int | None] = []
    with client_of(way, FoundUrl(url, state)) as client:
        client.watch(since=0, callback=lambda item: seen.append(item.seq))
        eventually(lambda: seen)
        raw = other.client(password="secret")
        raw.config_set("requirepass", "new")
        for kind in ("normal", "pubsub"):
            raw.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        raw.close()
        rig.crash()
        with pytest.raises(Misconfigured, match="refuses the login"):
            client.counts()
        rig.url = f"unix://:new@{other.socket}"
        rig.open()
        rig.save_and_settle("later", "two\n")
        write(state, folder="/f", namespace="blocks", redis=rig.url)
        eventually(lambda: rig.journal.seq in seen, "it is heard of with the new password")
        assert client.counts()["blocks"] == 2
    rig.close()
    lock.release()
