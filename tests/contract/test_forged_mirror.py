"""A follower that reads a mirror which another program has written to: no file leaves its folder, and one bad key harms one file."""

from __future__ import annotations

import json
import signal
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import Damaged
from blocksd.files.document import MAX_BYTES
from blocksd.follow.mirrored import Mirrored, texts
from blocksd.follow.plan import Wanted
from followers import Hosts, tree
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support import RedisServer

GOOD = {"value": "text", "version": "3", "digest": "d" * 32, "chars": "4"}


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    client = server.client()
    client.hset("blocks:meta", mapping={"epoch": "e" * 32, "seq": "1", "schema": "4"})
    client.hset("blocks:block:good", mapping=GOOD)
    yield client
    client.close()


FORGED = [
    ("path", b"../../evil.md"),
    ("path", b"/tmp/evil.md"),
    ("path", b"bad.md\0x"),
    ("path", b".git/config"),
    ("path", b"x/../bad.md"),
    ("path", b"bad"),
    ("path", b"good.md"),
    ("mode", b"a garbage"),
    ("mode", b"9" * 6000),
    ("head", b"\xff\xfe"),
    ("head", b"x" * (MAX_BYTES + 1)),
    ("file", b"\xff"),
    ("value", b"\xed\xa0\x80"),
    ("version", b"x"),
    ("version", b"-5"),
    ("version", b"9" * 30),
    ("version", b"9" * 6000),
    ("digest", None),
    ("value", None),
]


@pytest.mark.parametrize(("field", "forged"), FORGED, ids=[f"{name}-{str(text)[:9]}" for name, text in FORGED])
def test_one_forged_block_is_one_damaged_file(server: RedisServer, raw: Any, field: str, forged: bytes | None) -> None:
    """By itself, or among others; and the message is short."""
    raw.hset("blocks:block:bad", mapping={**GOOD, field: forged} if forged is not None else GOOD)
    if forged is None:
        raw.hdel("blocks:block:bad", field)
    with closing(Mirrored(server.url, "blocks")) as mirrored:
        shown = mirrored.read(["good", "bad"])
        assert isinstance(shown["good"], Wanted)
        assert isinstance(shown["bad"], Damaged)
        assert len(shown["bad"].message) < 300
        pages = dict(pair for _, page in mirrored.differing(["bad", "good"], {}) for pair in page.items())
        assert isinstance(pages["good"], Wanted)


@pytest.mark.parametrize(("mode", "bits"), [("4777", 0o777), ("0", 0o400), ("-1", 0o777), ("644", 0o644)])
def test_no_file_has_more_than_permission_bits(server: RedisServer, raw: Any, mode: str, bits: int) -> None:
    """And every one can be read again by the follower."""
    raw.hset("blocks:block:bad", "mode", mode)
    raw.hset("blocks:block:bad", mapping=GOOD)
    raw.hset("blocks:block:bad", "chars", "9" * 6000)
    with closing(Mirrored(server.url, "blocks")) as mirrored:
        ((shown,),) = [page.values() for _, page in mirrored.differing(["bad"], {}) if page]
        assert isinstance(shown, Wanted)
        assert (shown.mode, shown.data) == (bits, b"text\n")


def test_key_of_another_type_is_one_damaged_file(server: RedisServer, raw: Any) -> None:
    """Unless it is the one that tells of the whole mirror."""
    raw.set("blocks:block:bad", "text")
    with closing(Mirrored(server.url, "blocks")) as mirrored:
        shown = mirrored.read(["good", "bad"])
        assert isinstance(shown["good"], Wanted)
        assert isinstance(shown["bad"], Damaged)
        raw.delete("blocks:meta")
        raw.set("blocks:meta", "text")
        with pytest.raises(Damaged):
            mirrored.read(["good", "bad"])


@pytest.mark.parametrize(("field", "forged"), [("seq", b"x"), ("seq", b"9" * 6000), ("epoch", b"\xff")])
def test_mirror_that_does_not_tell_where_it_is(server: RedisServer, raw: Any, field: str, forged: bytes) -> None:
    """However it is asked: an error of ours, and none of Python's."""
    raw.hset("blocks:meta", field, forged)
    with closing(Mirrored(server.url, "blocks")) as mirrored:
        with pytest.raises(Damaged):
            mirrored.stand()
        with pytest.raises(Damaged):
            mirrored.labels()
        if field == "seq":
            with pytest.raises(Damaged):
                mirrored.read(["good"])


def test_names_that_no_block_can_have_are_left_out() -> None:
    assert texts(["a", "\ud800", "\udcff", 5, None, {"a": 1}, "é"]) == ["a", "é"]


def test_follower_goes_on_after_forged_changes(hosts: Hosts, tmp_path: Path) -> None:
    """The next true one is in the folder, nothing else is, and none of it is a fault of the program."""
    for name in ("a", "b"):
        hosts.save(f"{name}.md", "1\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    assert hosts.leader.process is not None
    hosts.leader.process.send_signal(signal.SIGSTOP)  # it would repair its mirror
    client = hosts.server.client()
    epoch = client.hget("blocks:meta", "epoch")
    forged: list[dict[str, Any]] = [
        {"label": "../../evil"},
        {"label": "\ud800"},
        {"label": ["a"]},
        {"label": None},
        {"label": "agents/../../x/agent.yaml"},
        {"kind": "repaired", "agents": 5},
        {"kind": "repaired", "agents": [1, "../.."], "labels": ["\udcff", 7]},
        {"kind": "renamed", "label": "a", "renamed_from": "\ud800"},
    ]
    client.hset("blocks:block:../../evil", mapping=GOOD)
    client.hset("blocks:block:b", mapping=GOOD)
    for seq, more in enumerate([*forged, {"label": "b"}], start=3):
        client.hset("blocks:meta", "seq", seq)
        client.publish("blocks:changes", json.dumps({"seq": seq, "epoch": epoch, "kind": "updated", **more}))
    eventually(lambda: tree(copy.folder).get("b.md") == b"text\n", "the true one is written")
    assert sorted(tree(copy.folder)) == ["a.md", "b.md"]
    assert "a fault in blocksd" not in copy.said()
    assert list(tmp_path.rglob("*evil*")) == []
