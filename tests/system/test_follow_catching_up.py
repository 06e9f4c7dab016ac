"""What a follower reads from a real server to catch up: the changes that it missed, or, if they are many, what differs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from blocksd.follow import leader as leaders
from blocksd.follow import mirrored as mirrors
from blocksd.follow.leader import Begun, Leader
from blocksd.follow.mirrored import Mirrored
from blocksd.mirror.keys import SCHEMA
from blocksd.model.revision import Change
from blocksd.protocol.reset import Reset
from support import eventually

if TYPE_CHECKING:
    import pytest

    from support import RedisServer


class Stream:
    """A mirror of which nothing is there but where it stands, and its changes."""

    def __init__(self, server: RedisServer) -> None:
        self._client: Any = server.client()
        self.seq = 0
        self.change(1)

    def change(self, count: int, lost: int = 0) -> None:
        """Make so many changes; the message of the first ones is `lost`."""
        for number in range(count):
            self.seq += 1
            change = json.dumps({"kind": "updated", "seq": self.seq, "epoch": "e", "label": "a", "version": self.seq})
            self._client.xadd("blocks:changes", {"change": change}, id=f"{self.seq}-0")
            self._client.hset("blocks:meta", mapping={"epoch": "e", "seq": self.seq, "schema": SCHEMA})
            if number >= lost:
                self._client.publish("blocks:changes", change)


class Heard:
    """What the thread of a follower passes on."""

    def __init__(self, url: str) -> None:
        self.news: list[Any] = []
        self.leader = Leader(url, "blocks", self.news.append)

    def kinds(self) -> list[object]:
        return [one.seq if isinstance(one, Change) else type(one) for one in self.news]

    def comes(self, *kinds: object) -> None:
        eventually(lambda: self.kinds() == list(kinds), f"{kinds} come; there are {self.kinds()}")


def test_what_was_missed_is_passed_on_after_the_place(server: RedisServer) -> None:
    """A follower begins where it was, not at the first change that it missed: that is still to come."""
    Stream(server).change(3)
    heard = Heard(server.url)
    heard.leader.start(("e", 2), lambda: 0)
    heard.comes(Begun, 3, 4)
    assert heard.news[0] == Begun("e", 4, 2)
    heard.leader.stop()


def test_more_changes_than_files_are_not_passed_on(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """To compare the files costs less: at the start, and when messages were lost."""
    monkeypatch.setattr(leaders, "_REPLAYED", 2)
    stream, heard = Stream(server), Heard(server.url)
    stream.change(3)
    heard.leader.start(("e", 1), lambda: 0)
    heard.comes(Begun, Reset)
    assert (heard.news[0], heard.news[1].seq) == (Begun("e", 4, 1), 4)
    eventually(lambda: heard.leader.life is not None)
    stream.change(2, lost=1)
    heard.comes(Begun, Reset, 5, 6)
    stream.change(3, lost=2)
    heard.comes(Begun, Reset, 5, 6, Reset)
    assert heard.news[-1].seq == 9
    heard.leader.stop()


def test_differing_blocks_are_read_together(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However far they are from each other in the list, up to a number and a size."""
    Stream(server)
    monkeypatch.setattr(mirrors, "PAGE", 4)
    client: Any = server.client()
    labels = [f"n{number:02}" for number in range(20)]
    for label in labels:
        fields = {"version": 1, "digest": label, "value": f"{label}\n", "chars": 4}
        client.hset(f"blocks:block:{label}", mapping=fields)
    mirrored = Mirrored(server.url, "blocks")
    known = {one.label: (one.version, one.form) for one in mirrored.read(labels).values() if one is not None}  # type: ignore[union-attr]
    assert [shown for _, shown in mirrored.differing(labels, known) if shown] == []
    for label in labels[::3]:  # seven of them
        client.hset(f"blocks:block:{label}", mapping={"version": 2, "value": "new"})
    client.hset(f"blocks:block:{labels[1]}", "mode", "600")  # the form alone
    client.delete(f"blocks:block:{labels[2]}")
    found = list(mirrored.differing(labels, known))
    assert [sorted(shown) for _, shown in found if shown] == [
        ["n00", "n01", "n02", "n03"],
        ["n06", "n09", "n12", "n15"],
        ["n18"],
    ]
    assert sum(looked for looked, _ in found) == 20
    assert found[2][1]["n02"] is None
    monkeypatch.setattr(mirrors, "_PAGE_BYTES", 1)
    assert [list(shown) for _, shown in mirrored.differing(labels[3:10], known) if shown] == [["n03"], ["n06"], ["n09"]]
    mirrored.close()
