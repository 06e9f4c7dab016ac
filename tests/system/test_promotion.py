"""A follower's host becomes the leader: what had reached it is kept, others are told, and the old leader writes no more."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import traceback
import warnings
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.cli import promotion as promoting
from blocksd.errors import Misconfigured
from blocksd.files.root import Root
from blocksd.follow import place as places
from blocksd.journal.history import JournalReader
from blocksd.journal.journal import Journal
from blocksd.mirror.lease import Lease
from blocksd.service.service import Service
from blocksd.settings.config import Config
from events import Events
from followers import MARKER, Follower, Hosts, same, tree
from gateways import Served
from hosts import Network
from printing import Printed
from support import Daemon, RedisServer, eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.slow


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    client: Any = server.client()
    yield client
    client.close()


def promoted(hosts: Hosts, copy: Follower, *options: str) -> Daemon:
    """A daemon on the folder and the state of a follower."""
    return hosts.own(Daemon(copy.folder, copy.state, "--redis", hosts.server.url, *options))


def refused(daemon: Daemon, words: str, code: int = 2) -> None:
    daemon.start(ready=False)
    ended(daemon, words, code)


def ended(daemon: Daemon, words: str, code: int = 2) -> None:
    """It has ended by itself, and said why; after the exit code 2 systemd does not start it again."""
    assert daemon.process is not None
    assert daemon.process.wait(20) == code
    assert words in daemon.said()


def in_sync(copy: Follower) -> bool:
    return bool(copy.status()["in_sync"])


def ask(raw: Any, request_id: str, label: str = "d") -> None:
    request = {"id": request_id, "op": "append", "label": label, "args": {"content": request_id}}
    raw.xadd("blocks:inbox:operator", {"request": json.dumps(request)})


def replies(raw: Any, request_id: str) -> list[bool]:
    return [json.loads(text)["ok"] for text in raw.lrange(f"blocks:reply:operator:{request_id}", 0, -1)]


def shown(raw: Any) -> dict[str, Any]:
    """All that is in Redis, but the lease."""
    return {key: raw.dump(key) for key in raw.scan_iter() if key != "blocks:lease"}


def test_paused_leader_wakes_up(hosts: Hosts, raw: Any, tmp_path: Path) -> None:
    """Others go on with the new leader; the old one writes nothing, says why and what it alone has, and ends for good.

    Also where the new leader is stopped at that moment, so that no one has the lease.
    """
    for name in ("a", "b", "c", "d"):
        hosts.save(f"{name}.md", f"---\n# why\n---\n{name} 1\n")
    hosts.leader.start()
    copy, other = hosts.follower("copy").start(), hosts.follower("other").start()
    writable = hosts.follower("writable", read_only=False).start()
    with ExitStack() as stack:
        printed = stack.enter_context(closing(Printed(hosts.server.url, tmp_path / "printed")))
        gateway = Served(tmp_path / "gateway.log", "--redis", hosts.server.url).ready()
        stack.callback(gateway.end)
        events = stack.enter_context(Events(gateway)).place()
        pubsub = stack.enter_context(closing(raw.pubsub(ignore_subscribe_messages=True)))
        pubsub.subscribe("blocks:changes:reset")

        def is_heard() -> bool:
            hosts.save("c.md", f"{os.urandom(4).hex()}\n")
            return bool(printed.all())

        eventually(is_heard, "the watch listens")
        for each in (copy, other, writable):
            same(hosts.folder, each.folder)
        epoch = copy.status()["epoch"]
        old, before = hosts.leader, tree(hosts.folder)
        assert old.process is not None
        old.process.send_signal(signal.SIGSTOP)
        ask(raw, "while-it-was-paused")
        hosts.save("b.md", "saved on the old host\n")
        copy.stop()
        refused(promoted(hosts, copy), "is a follower's copy")
        assert (copy.folder / MARKER).exists()
        new = promoted(hosts, copy, "--promote").start()
        assert "this host is the leader of 'blocks' now, of generation 1" in new.said()
        assert "see that the lost host is off" not in new.said()
        assert not (copy.folder / MARKER).exists()
        eventually(lambda: replies(raw, "while-it-was-paused") == [True])
        hosts.save("a.md", "a 2\n", copy.folder)
        for each in (other, writable):
            same(copy.folder, each.folder)
            eventually(partial(in_sync, each))
            assert each.status()["epoch"] != epoch
            assert each.status()["generation"] == 1
        assert "generation 1" in other.command("status").stdout
        new.stop()
        there = shown(raw)
        ask(raw, "while-no-one-leads")
        there |= {"blocks:inbox:operator": raw.dump("blocks:inbox:operator")}
        old.process.send_signal(signal.SIGCONT)
        ended(old, "was promoted to leader of the namespace 'blocks' (generation 1; here 0)")
        assert "what was saved last of 'b' is in this folder alone" in old.said()
        assert shown(raw) == there
        assert not raw.exists("blocks:lease")
        assert tree(hosts.folder) == before | {"b.md": b"saved on the old host\n"}
        status = old.command("status")
        assert status.returncode == 3
        assert "was promoted to leader" in status.stdout
        refused(old, "'blocksd follow FOLDER --adopt'")
        new.start()
        eventually(lambda: replies(raw, "while-no-one-leads") == [True])
        text = (copy.folder / "d.md").read_text()
        assert text.count("while-it-was-paused") == text.count("while-no-one-leads") == 1
        for each in (other, writable):
            same(copy.folder, each.folder)
        assert (other.folder / "b.md").read_text().endswith("b 1\n")
        assert [change["kind"] for change in printed.all()].count("reset") >= 1
        eventually(lambda: (pubsub.get_message(timeout=1) or {}).get("channel") == "blocks:changes:reset")
        eventually(lambda: events.event().kind == "reset", "a client of the gateway is told, too")
        assert json.loads(new.command("status", "--json").stdout)["generation"] == 1
    # The old host comes back: what it alone has is kept there, until a person has the leader's.
    back = hosts.own(Follower(hosts.folder, old.state, "--redis", hosts.server.url, "--adopt")).start()
    assert isinstance(back, Follower)
    eventually(lambda: set(back.status()["local_edits"]) >= {"a.md", "b.md"}, "both are told")
    assert (hosts.folder / "b.md").read_text() == "saved on the old host\n"
    assert (copy.folder / "b.md").read_text().endswith("b 1\n")
    eventually(lambda: not [back.revert(path) for path in back.status()["local_edits"]], "none is left")
    same(copy.folder, hosts.folder)
    eventually(lambda: not back.status()["problems"])
    assert back.stop() == new.stop() == 0


def test_what_may_not_be_promoted(hosts: Hosts, raw: Any, tmp_path: Path) -> None:
    """A folder that is no copy, one of another state directory, one that is behind, and one that was emptied."""
    for number in range(5):
        hosts.save(f"n{number}.md", f"{number}\n")
    refused(Daemon(hosts.folder, tmp_path / "s", "--redis", hosts.server.url, "--promote"), "nothing to promote")
    hosts.leader.start()
    copy = hosts.follower().start()
    copy.stop()
    hosts.save("n0.md", "newer\n")
    eventually(lambda: raw.hget("blocks:meta", "seq") == "6")
    refused(promoted(hosts, copy, "--promote"), "there is a leader: namespace 'blocks' at")
    hosts.leader.stop()
    refused(promoted(hosts, copy, "--promote"), "the copy is 1 change behind")
    assert not raw.exists("blocks:lease")
    hosts.leader.start()
    elsewhere = Daemon(copy.folder, tmp_path / "elsewhere", "--redis", hosts.server.url, "--promote")
    refused(elsewhere, "is not that of the follower")
    copy.start()
    copy.stop()
    for path in copy.folder.glob("*.md"):
        path.unlink()
    refused(promoted(hosts, copy, "--promote"), "5 files of 5 are gone")
    assert (copy.folder / MARKER).exists()
    assert len(tree(hosts.folder)) == 5
    assert raw.hget("blocks:meta", "generation") is None


def test_edit_that_crossed_with_the_lost_leaders_last_text(hosts: Hosts, raw: Any) -> None:
    """Neither is lost: it is not promoted before a person has taken the leader's text, and the one here is kept aside."""
    hosts.save("a.md", "a 1\n")
    hosts.save("b.md", "b 1\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    hosts.save("a.md", "a, edited here\n", copy.folder)
    hosts.save("b.md", "b, edited here\n", copy.folder)
    eventually(lambda: copy.status()["local_edits"] == ["a.md", "b.md"])
    hosts.save("a.md", "a 2\n")
    eventually(lambda: copy.status()["seq"] == 3)
    hosts.leader.stop()
    copy.stop()
    refused(promoted(hosts, copy, "--promote"), "Redis has a newer text of a.md, which was edited here")
    copy.start()
    kept = copy.revert("a.md").split()[-1]
    copy.stop()
    new = promoted(hosts, copy, "--promote").start()
    assert tree(new.folder) == {"a.md": b"a 2\n", "b.md": b"b, edited here\n"}
    assert Path(kept).read_text() == "a, edited here\n"
    assert raw.hget("blocks:block:b", "value") == "b, edited here"
    assert new.stop() == 0


def test_two_are_promoted_at_once(hosts: Hosts, raw: Any) -> None:
    """One becomes the leader; the other is told which, stays a follower, and may not be promoted with what it has."""
    hosts.save("a.md", "a 1\n")
    hosts.leader.start()
    copies = [hosts.follower(name).start() for name in ("one", "two")]
    for copy in copies:
        copy.stop()
    hosts.leader.stop()
    both = [promoted(hosts, copy, "--promote").start(ready=False) for copy in copies]
    eventually(lambda: sum(each.process is not None and each.process.poll() is None for each in both) == 1)
    (winner,) = [each for each in both if each.process is not None and each.process.poll() is None]
    (loser,) = [each for each in both if each is not winner]
    pid = winner.process.pid if winner.process is not None else 0
    named = f"is served by the daemon with pid {pid} on {socket.gethostname()}, for {winner.folder} "
    assert any(words in loser.said() for words in (named, "is served by another daemon, which has just begun"))
    ended(loser, "is served by")
    assert (loser.folder / MARKER).exists()
    hosts.save("a.md", "a 2\n", winner.folder)
    eventually(lambda: raw.hget("blocks:block:a", "value") == "a 2")
    winner.stop()
    refused(loser, "Redis has what another leader wrote")
    follower = next(copy for copy in copies if copy.folder == loser.folder).start()
    same(winner.folder, follower.folder)
    follower.stop()
    loser.start()
    assert raw.hget("blocks:meta", "generation") == "2"
    winner.options = winner.options[:-1]
    refused(winner, "was promoted to leader of the namespace 'blocks' (generation 2; here 1)")


def test_old_leader_is_promoted_on_purpose(hosts: Hosts, raw: Any) -> None:
    """Where the new one and its texts are lost: Redis was emptied, so nothing that another wrote is there."""
    hosts.save("a.md", "a 1\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    copy.stop()
    hosts.leader.stop()
    new = promoted(hosts, copy, "--promote").start()
    new.kill()
    raw.delete("blocks:lease")
    refused(hosts.leader, "was promoted to leader")
    again = hosts.own(Daemon(hosts.folder, hosts.leader.state, "--redis", hosts.server.url, "--promote"))
    refused(again, "Redis has what another leader wrote")
    raw.flushall()
    again.start()
    refused(new, "there is a leader")
    again.stop()
    assert again.start().stop() == 0


_EFFECTS = (
    (Lease, "ask"),
    (Journal, "begin_generation"),
    (Root, "unlink"),
    (Root, "sync_directory"),
    (os, "replace"),
)
"""The calls of a promotion that something lasting can come of."""


def promote_here(copy: Path, state: Path, url: str, crash_at: int) -> int:
    """Promote a copy in a process that ends before one of these calls, as by kill -9; return its exit code, 9 for that."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads of this process do nothing meanwhile
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        points = itertools.count()

        def crashing(function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                if next(points) == crash_at:
                    os._exit(9)
                return function(*args, **options)

            return call

        for owner, name in _EFFECTS:
            setattr(owner, name, crashing(getattr(owner, name)))
        config = Config(folder=str(copy), state_dir=str(state), redis=url)
        promotion, _ = promoting.check(config, promotes=True)
        service = Service(config, [], promotion=promotion)
        promoting.finish(config)
        service.close()
    except BaseException:  # noqa: BLE001  # this process must not return
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def test_promotion_that_is_interrupted(hosts: Hosts, raw: Any, tmp_path: Path) -> None:
    """At each call: it has not happened, and the old leader goes on, or the same command completes it."""
    for name in ("a", "b"):
        hosts.save(f"{name}.md", f"{name} 1\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    copy.stop()
    hosts.leader.stop()
    texts, url, codes = tree(copy.folder), hosts.server.url, []
    for point in itertools.count():
        folder, state = tmp_path / f"copy-{point}", tmp_path / f"state-{point}"
        shutil.copytree(copy.folder, folder)
        shutil.copytree(copy.state, state)
        raw.hdel("blocks:meta", "generation")
        raw.delete("blocks:lease")
        codes.append(promote_here(folder, state, url, point))
        config = Config(folder=str(folder), state_dir=str(state), redis=url)
        if (folder / MARKER).exists():
            with pytest.raises(Misconfigured, match="is a follower's copy"):
                promoting.check(config, promotes=False)
        else:
            assert raw.hget("blocks:meta", "generation") == "1"
        if codes[-1] == 0:
            break
        assert codes[-1] == 9
        assert promote_here(folder, state, url, -1) == 0
        assert not (folder / MARKER).exists()
        assert tree(folder) == texts
        with closing(JournalReader(str(state / "journal.db"))) as journal:
            assert journal.generation == int(raw.hget("blocks:meta", "generation"))
            assert journal.generation in (1, 2)
        promoting.check(config, promotes=False)
        assert not (state / places.NAME).exists()
    assert len(codes) > 6
    raw.hdel("blocks:meta", "generation")
    raw.delete("blocks:lease")
    assert promote_here(copy.folder, copy.state, url, 2) == 9  # the journal has it, and Redis has not
    assert raw.hget("blocks:meta", "generation") is None
    raw.delete("blocks:lease")
    hosts.leader.start()
    refused(promoted(hosts, copy, "--promote"), "there is a leader")


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(3)
    yield made
    made.close()


def test_leader_is_cut_off(network: Network, tmp_path: Path) -> None:
    """It goes on alone, and ends when the wire is whole. What an editor saved on a third host meanwhile is in force once."""
    here, middle, there = network.hosts
    folder = tmp_path / "leader"
    folder.mkdir()
    (folder / "a.md").write_text("one\n\ntwo\n\nthree\n")
    (folder / "b.md").write_text("b 1\n")
    with ExitStack() as stack:
        server = RedisServer(valkey_binary(), middle.under)
        stack.callback(server.remove)
        server.start("--port", "5000", "--bind", middle.address, "--protected-mode", "no")
        raw = server.client()
        stack.callback(raw.close)
        to = ("--redis", f"redis://{middle.address}:5000")

        def started(kind: type[Daemon], name: str, *options: str, under: list[str], ready: bool = True) -> Any:
            env = {"BLOCKSD_DELETE_GRACE": "0.1"}
            made = kind(tmp_path / name, tmp_path / f"{name}-state", *to, *options, under=under, env=env)
            made.start(ready=ready)
            stack.callback(made.kill)
            return made

        old = started(Daemon, "leader", under=here.under)
        copy = started(Follower, "copy", "--read-only", under=there.under)
        other = started(Follower, "other", under=middle.under)
        network.cut(here)
        eventually(lambda: "Redis is unreachable" in old.said() or not raw.exists("blocks:lease"), "it is cut off")
        (folder / "b.md").write_text("saved on the old host\n")
        (other.folder / "a.md").write_text("one\n\ntwo\n\nTHREE\n")
        eventually(lambda: raw.xlen("blocks:inbox:operator") == 1, "the edit waits for a leader")
        copy.stop()
        new = started(Daemon, "copy", "--promote", under=there.under)
        both = "ONE\n\ntwo\n\nTHREE\n"
        eventually(lambda: "THREE" in (new.folder / "a.md").read_text())
        (new.folder / "a.md").write_text(both)
        eventually(lambda: tree(other.folder) == tree(new.folder) == {"a.md": both.encode(), "b.md": b"b 1\n"})
        assert (folder / "a.md").read_text() == "one\n\ntwo\n\nthree\n"
        network.join()
        ended(old, "was promoted to leader of the namespace 'blocks' (generation 1; here 0)")
        assert "what was saved last of 'b' is in this folder alone" in old.said()
        assert tree(folder) == {"a.md": b"one\n\ntwo\n\nthree\n", "b.md": b"saved on the old host\n"}
        assert tree(other.folder) == tree(new.folder)
        back = started(Follower, "leader", "--adopt", under=here.under)
        eventually(lambda: back.status()["local_edits"] == ["a.md", "b.md"])
        for path in ("a.md", "b.md"):
            back.revert(path)
        eventually(lambda: tree(folder) == tree(new.folder), "the old host has what the others have")
        (folder / "b.md").write_text("b 2, from the old host\n")
        eventually(lambda: tree(folder) == tree(new.folder) == tree(other.folder))
        assert new.values("a") == ["one\n\ntwo\n\nthree", "one\n\ntwo\n\nTHREE", "ONE\n\ntwo\n\nTHREE"]
        assert new.stop() == 0


def test_old_leader_serves_a_redis_that_was_emptied(hosts: Hosts, raw: Any) -> None:
    """It never heard of the new one, which is stopped. Followers do not go back with it, and the new one takes over again."""
    hosts.save("a.md", "a 1\n")
    hosts.leader.start()
    copy, other = hosts.follower("copy").start(), hosts.follower("other").start()
    copy.stop()
    hosts.leader.kill()
    raw.delete("blocks:lease")
    new = promoted(hosts, copy, "--promote").start()
    hosts.save("a.md", "a 2\n", copy.folder)
    same(copy.folder, other.folder)
    new.stop()
    raw.flushall()
    hosts.leader.start()
    assert raw.hget("blocks:block:a", "value") == "a 1"
    report = eventually(lambda: [one for one in other.status()["problems"] if "generation" in one["message"]])
    assert "is of generation 0, and this copy is of generation 1: it is not followed back" in report[0]["message"]
    assert (other.folder / "a.md").read_text() == "a 2\n"
    new.start(ready=False)
    ended(hosts.leader, "was promoted to leader of the namespace 'blocks' (generation 1; here 0)")
    eventually(lambda: raw.hget("blocks:block:a", "value") == "a 2")
    eventually(lambda: in_sync(other) and not other.status()["problems"])
    assert (other.folder / "a.md").read_text() == "a 2\n"
    assert new.stop() == 0


def test_redis_is_lost_with_the_leader(hosts: Hosts) -> None:
    """The new leader starts a server itself, or has another one; a follower goes on there, with what was edited meanwhile."""
    hosts.save("a.md", "one\n\ntwo\n\nthree\n")
    hosts.leader.start()
    copy, other = hosts.follower("copy").start(), hosts.follower("other", read_only=False).start()
    hosts.leader.kill()
    hosts.server.kill()
    copy.stop()
    refused(promoted(hosts, copy, "--promote"), "redis", code=3)
    assert (copy.folder / MARKER).exists()
    hosts.save("a.md", "one\n\ntwo\n\nthree, edited\n", other.folder)
    eventually(lambda: other.status()["unsent"] == ["a.md"])
    other.stop()
    new = hosts.own(Daemon(copy.folder, copy.state, "--promote")).start()
    assert "see that the lost host is off" in new.said()
    hosts.save("a.md", "one, edited\n\ntwo\n\nthree\n", copy.folder)
    eventually(lambda: len(new.values("a")) == 2)
    other.options = ("--redis", (copy.state / "redis-url").read_text().strip())
    other.start()
    same(copy.folder, other.folder)
    assert tree(copy.folder) == {"a.md": b"one, edited\n\ntwo\n\nthree, edited\n"}
    assert other.status()["generation"] == 1
    assert new.stop() == 0
