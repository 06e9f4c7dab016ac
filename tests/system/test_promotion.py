"""A follower's host becomes the leader: what had reached it is kept, others are told, and the old leader writes no more."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from followers import MARKER, Hosts, same, tree
from support import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from followers import Follower
    from support import RedisServer

pytestmark = pytest.mark.slow


@pytest.fixture
def hosts(server: RedisServer, tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(server, tmp_path)
    yield made
    made.end()


def promoted(hosts: Hosts, copy: Follower, *options: str) -> Daemon:
    """A daemon on the folder and the state of a follower."""
    return hosts.own(Daemon(copy.folder, copy.state, "--redis", hosts.server.url, *options))


def refused(daemon: Daemon, words: str) -> None:
    daemon.start(ready=False)
    assert daemon.process is not None
    assert daemon.process.wait(20) == 2
    assert words in daemon.said()


def test_follower_takes_the_place_of_a_paused_leader(hosts: Hosts) -> None:
    """Another follower goes on with the new one; the old leader, when it wakes up, changes nothing."""
    for name in ("a", "b", "c", "d"):
        hosts.save(f"{name}.md", f"---\n# why\n---\n{name} 1\n")
    hosts.leader.start()
    copy, other = hosts.follower("copy").start(), hosts.follower("other").start()
    epoch = copy.status()["epoch"]
    assert hosts.leader.process is not None
    hosts.leader.process.send_signal(signal.SIGSTOP)
    copy.stop()
    refused(promoted(hosts, copy), "is a follower's copy")
    assert (copy.folder / MARKER).exists()
    new = promoted(hosts, copy, "--promote").start()
    assert "this host becomes the leader" in new.said()
    assert not (copy.folder / MARKER).exists()
    hosts.save("a.md", "a 2\n", copy.folder)
    same(copy.folder, other.folder)
    eventually(lambda: other.status()["in_sync"])
    assert other.status()["epoch"] != epoch
    hosts.leader.process.send_signal(signal.SIGCONT)
    hosts.save("b.md", "written by the old leader\n")
    eventually(lambda: "is served by the daemon" in hosts.leader.said(), "it is told")
    hosts.save("c.md", "c 2\n", copy.folder)
    same(copy.folder, other.folder)
    assert (other.folder / "b.md").read_text().endswith("b 1\n")
    hosts.leader.kill()
    new.stop()
    assert new.start().stop() == 0


def test_what_may_not_be_promoted(hosts: Hosts, tmp_path: Path) -> None:
    """A folder that is no copy, one of another state directory, one that is behind, and one that was emptied."""
    for number in range(5):
        hosts.save(f"n{number}.md", f"{number}\n")
    refused(Daemon(hosts.folder, tmp_path / "s", "--redis", hosts.server.url, "--promote"), "nothing to promote")
    hosts.leader.start()
    copy = hosts.follower().start()
    copy.stop()
    hosts.save("n0.md", "newer\n")
    eventually(lambda: hosts.server.client().hget("blocks:meta", "seq") == "6")
    refused(promoted(hosts, copy, "--promote"), "the copy is 1 change behind")
    elsewhere = Daemon(copy.folder, tmp_path / "elsewhere", "--redis", hosts.server.url, "--promote")
    refused(elsewhere, "is not that of the follower")
    copy.start()
    copy.stop()
    for path in copy.folder.glob("*.md"):
        path.unlink()
    refused(promoted(hosts, copy, "--promote"), "5 files of 5 are gone")
    assert (copy.folder / MARKER).exists()
    assert len(tree(hosts.folder)) == 5
