"""Followers, when another server, or one that lacks what they have seen, has the namespace."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest

from followers import Hosts, same
from support import eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import Spares

pytestmark = pytest.mark.slow


@pytest.fixture
def hosts(tmp_path: Path, spares: Spares) -> Iterator[Hosts]:
    with spares.lend(valkey_binary()) as server:
        made = Hosts(server, tmp_path)
        yield made
        made.end()


class Photo:
    """All that a server has, to be put back later."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._keys = {key: client.dump(key) for key in client.scan_iter()}

    def put_back(self) -> None:
        """Put it back in the place of all that is there, and cut all clients off."""
        with self._client.pipeline() as commands:
            commands.flushall()
            for key, data in self._keys.items():
                commands.restore(key, 0, data)
            commands.execute()
        cut_off(self._client)


def cut_off(client: Any) -> None:
    for kind in ("normal", "pubsub"):
        client.execute_command("CLIENT", "KILL", "TYPE", kind)


def is_behind(status: dict[str, Any]) -> bool:
    return any("is older than this copy" in problem["message"] for problem in status["problems"])


def test_mirror_that_is_older_than_the_copies(hosts: Hosts) -> None:
    """Its old texts are not written over new ones, nor are new files removed: the copies wait until it has caught up."""
    hosts.save("notes.md", "first\n")
    hosts.leader.start()
    copies = [hosts.follower("one", read_only=False).start(), hosts.follower("two").start()]
    client = hosts.server.client(decode_responses=False)
    photo = Photo(client)
    for path, text in (("notes.md", "second\n"), ("new.md", "new\n")):
        hosts.save(path, text, copies[0].folder)
    for copy in copies:
        same(hosts.folder, copy.folder)
    before = [copy.folder.joinpath(name).stat() for copy in copies for name in ("notes.md", "new.md")]
    assert hosts.leader.process is not None
    hosts.leader.process.send_signal(signal.SIGSTOP)
    photo.put_back()
    for copy in copies:
        eventually(lambda copy=copy: is_behind(copy.status()), "it is reported")  # type: ignore[misc]
    hosts.save("mine.md", "saved meanwhile\n", copies[0].folder)
    hosts.leader.process.send_signal(signal.SIGCONT)
    for copy in copies:
        eventually(lambda copy=copy: copy.status()["in_sync"], "it is in sync")  # type: ignore[misc]
    eventually((hosts.folder / "mine.md").exists, "the new file has arrived")
    for copy in copies:
        same(hosts.folder, copy.folder)
    after = [copy.folder.joinpath(name).stat() for copy in copies for name in ("notes.md", "new.md")]
    assert [one.st_ino for one in after] == [one.st_ino for one in before], "nothing was written"
    assert hosts.leader.values("notes") == ["first", "second"]
    assert hosts.leader.values("new") == ["new"]
    client.close()
