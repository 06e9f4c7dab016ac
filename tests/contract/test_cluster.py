"""A cluster of three nodes: a namespace is on one of them, and who follows it hears all that concerns it."""

from __future__ import annotations

import json
import re
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.client.blocking.client import Client
from blocksd.errors import Misconfigured, Unavailable
from blocksd.mirror.acl import users
from blocksd.mirror.keys import Keys
from blocksd.protocol import watching as watching_module
from clusters import NODES, Cluster
from following import WAYS, Follower, Writer, client_of
from rig import Rig, assert_level
from sentinels import free_ports
from support import Daemon, RedisServer, eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd.mirror.projection import Command

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def lasting_cluster() -> Iterator[Cluster]:
    made = Cluster()
    yield made
    made.close()


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One that tests share; of its own for a test that changes it, which is marked by the fixture `served`."""
    if "served" not in request.fixturenames:
        yield request.getfixturevalue("lasting_cluster")
        return
    made = Cluster()
    yield made
    made.close()


@pytest.fixture(params=["blocking", "asyncio"])
def follow(
    request: pytest.FixtureRequest, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Follower]]:
    """Start to follow something in a namespace. A proof of the subscription, which finds a reset too, never comes."""
    monkeypatch.setattr(watching_module, "LISTEN_SECONDS", 0.05)
    monkeypatch.setattr(watching_module, "PROVE_SECONDS", 3600.0)
    followers: list[Follower] = []

    def start(namespace: str, **options: Any) -> Follower:
        followers.append(Follower(request.param, cluster.url, namespace=namespace, **options))
        return followers[-1]

    yield start
    for follower in followers:
        follower.close()


def last_of(follower: Follower, item: tuple[str, int | None]) -> bool:
    return follower.all()[-1:] == [item]


@pytest.mark.parametrize("name", ["a", "b", "c", "d"])
def test_reset_is_heard_by_who_follows_one_block_or_agent(
    tmp_path: Path, cluster: Cluster, follow: Callable[..., Follower], name: str
) -> None:
    """On whatever node the namespace is, and whichever node a client asks first."""
    namespace = f"{{{name}-{tmp_path.name}}}"
    rig = Rig(tmp_path, cluster.url, namespace=namespace)
    rig.write("notes", "---\nagents: [ann]\n---\none\n")
    rig.settle()
    raw = cluster.holder(rig.mirror.keys.meta)
    followers = [follow(namespace), follow(namespace, label="notes"), follow(namespace, agent="ann")]
    rig.save_and_settle("notes", "---\nagents: [ann]\n---\ntwo\n")
    for follower in followers:
        assert follower.until(2) == [("updated", 2)]
    raw.delete(f"{namespace}:block:notes")
    rig.resync()
    for follower in followers:
        eventually(partial(last_of, follower, ("repaired", None)))
    raw.delete(f"{namespace}:meta")
    rig.run(lambda: rig.heard.level[-1] == "rebuilt" and len(rig.heard.level) == 2)
    for follower in followers:
        eventually(partial(last_of, follower, ("reset", 2)))
        assert follower.all() == [("updated", 2), ("repaired", None), ("reset", 2)]
    assert_level(rig, raw)
    rig.crash()


def test_change_is_one_message_on_the_shard_of_its_namespace(tmp_path: Path, cluster: Cluster) -> None:
    """No other node is sent it. So it is with what has no revision, such as a problem."""
    namespace = "{sharded}"
    rig = Rig(tmp_path, cluster.url, namespace=namespace)
    rig.write("notes", "one\n")
    rig.settle()
    channel = rig.mirror.keys.changes
    clients = [server.client(protocol=2) for server in cluster.servers]
    at_nodes = [client.pubsub(ignore_subscribe_messages=True) for client in clients]
    for pubsub in at_nodes:
        pubsub.subscribe(channel)
    sharded = clients[cluster.number(channel)].pubsub(ignore_subscribe_messages=True)
    sharded.ssubscribe(channel)
    rig.save_and_settle("notes", "two\n")
    rig.save_and_settle("broken", "---\nlimit: none\n---\n")
    assert [json.loads(message["data"])["kind"] for message in _messages(sharded)] == ["updated", "rejected"]
    assert [list(_messages(pubsub)) for pubsub in at_nodes] == [[], [], []]
    for one in (sharded, *at_nodes, *clients):
        one.close()
    rig.crash()


def _messages(pubsub: Any) -> Iterator[dict[str, Any]]:
    """What has come, up to the answer to a ping."""
    pubsub.ping()
    while (message := eventually(lambda: pubsub.get_message(timeout=1))) and message["type"] != "pong":
        yield message


@pytest.fixture
def served(tmp_path: Path, cluster: Cluster) -> Iterator[Daemon]:
    """A daemon in a process of its own, of the namespace {served}."""
    folder = tmp_path / "blocks.d"
    folder.mkdir()
    (folder / "notes.md").write_text("---\nagents: [ann]\n---\n")
    daemon = Daemon(folder, tmp_path / "state", "--redis", cluster.url, "--namespace", "{served}")
    yield daemon.start()
    daemon.stop()


def is_shown(daemon: Daemon, raw: Any) -> bool:
    """Return True if the mirror at this node shows the file, to which each line was appended once."""
    text = (daemon.folder / "notes.md").read_text().rpartition("---\n")[2].rstrip("\n")
    return bool(raw.hget("{served}:block:notes", "value") == text)


def test_slot_of_a_namespace_moves_to_another_node(
    cluster: Cluster, follow: Callable[..., Follower], served: Daemon
) -> None:
    """While requests flow: none is lost or done twice, and a watch gets each change, without a reset."""
    source = cluster.number("{served}:meta")
    target = (source + 1) % NODES
    followers = [follow("{served}", **options) for options in ({}, {"label": "notes"}, {"agent": "ann"})]
    writer = Writer(cluster.url, "{served}")
    try:
        writer.more()
        for _ in cluster.move(cluster.slot("{served}:meta"), source, target):
            time.sleep(0.05)  # requests come in meanwhile
        writer.more()
        lines = writer.stop()
        assert (served.folder / "notes.md").read_text().split()[4:] == lines
        eventually(lambda: is_shown(served, cluster.raw[target]), "the mirror is in sync at the other node")
        for follower in followers:
            assert follower.until(len(lines) + 1) == [("updated", 2 + number) for number in range(len(lines))]
    finally:
        writer.stop()


def test_call_is_put_off_while_its_keys_are_on_either_node(tmp_path: Path, cluster: Cluster) -> None:
    """A reply is never lost without an error, although a script that meets a key of the other node goes on."""
    rig = Rig(tmp_path, cluster.url, namespace="{moved}")
    rig.write("notes", "one\n")
    rig.settle()
    source = cluster.number("{moved}:meta")
    target, slot = (source + 1) % NODES, cluster.slot("{moved}:meta")
    reply: Command = ("REPLY", "{moved}:inbox:operator", "1-1", "{moved}:reply:operator:x", "60", "done")
    for _ in cluster.move(slot, source, target):
        with pytest.raises(Unavailable):
            rig.mirror.apply([reply])
    rig.mirror.take_lease()
    rig.mirror.apply([reply])
    assert cluster.raw[target].lrange("{moved}:reply:operator:x", 0, -1) == ["done"]
    rig.crash()
    for _ in cluster.move(slot, target, source):
        pass


def test_node_of_a_namespace_is_lost_and_comes_back_empty(cluster: Cluster, served: Daemon) -> None:
    """The mirror is rebuilt there; no request is lost or done twice."""
    number = cluster.number("{served}:meta")
    writer = Writer(cluster.url, "{served}")
    try:
        writer.more()
        cluster.servers[number].kill()
        eventually(lambda: "Redis is unreachable" in served.said(), "the daemon has noticed")
        cluster.start(number)
        writer.more()
        lines = writer.stop()
        assert (served.folder / "notes.md").read_text().split()[4:] == lines
        eventually(lambda: is_shown(served, cluster.raw[number]), "the mirror is in sync")
    finally:
        writer.stop()


def test_cluster_users(tmp_path: Path, cluster: Cluster) -> None:
    """The users of `blocksd acl` suffice for a daemon and its clients on a cluster."""
    for client in cluster.raw:
        for line in users(Keys("{acl}"), ["ann"]):
            _, user, *rules = line.replace("PASSWORD", ">secret").split()
            client.execute_command("ACL", "SETUSER", user, *rules)
    rig = Rig(tmp_path, cluster.url.replace("://", "://acl-daemon:secret@"), namespace="{acl}")
    rig.write("notes", "---\nagents: [ann]\n---\none\n")
    rig.settle()
    rig.resync()
    assert_level(rig, cluster.holder("{acl}:meta"))
    url = cluster.url.replace("://", "://acl-agent-ann:secret@")
    follower = Follower("blocking", url, namespace="{acl}", agent="ann")
    rig.save_and_settle("notes", "---\nagents: [ann]\n---\ntwo\n")
    assert follower.until(2) == [("updated", 2)]
    follower.close()
    for user in ("operator", "reader", "agent-ann"):
        with Client(cluster.url.replace("://", f"://acl-{user}:secret@"), "{acl}") as reading:
            assert reading.blocks.count(label_search="note") == 1
            assert reading._transport.may_run_scripts is (user == "operator")
            assert [block.label for block in reading.blocks.list(order_by="updated_at", limit=1)] == ["notes"]
    rig.crash()


def test_wrong_settings_for_a_cluster_are_named(tmp_path: Path, cluster: Cluster) -> None:
    """A node named as if it were one server, and a namespace whose keys are spread."""
    number = (cluster.number("{wrong}:meta") + 1) % NODES
    for url, namespace, said in (
        (f"redis://127.0.0.1:{cluster.ports[number]}", "{wrong}", r"redis\+cluster://"),
        (cluster.url, "wrong", "put it in braces"),
    ):
        rig = Rig(tmp_path / namespace, url, namespace=namespace)
        rig.round()
        assert isinstance(rig.heard.away[0], Misconfigured)
        assert re.search(said, rig.heard.away[0].message)
        rig.crash()
        with pytest.raises(Misconfigured, match=said), Client(url, namespace) as client:
            client.blocks.retrieve("missing")


@pytest.mark.parametrize("way", WAYS)
def test_why_a_cluster_does_not_serve(cluster: Cluster, way: str) -> None:
    """A wrong login, a server that is no cluster, nobody there: each is named, and only the last one may pass."""
    single = RedisServer(valkey_binary())
    (port,) = free_ports(1)
    try:
        single.start("--port", str(port))
        for url, kind, said in (
            (cluster.url.replace("://", "://nobody:wrong@"), Misconfigured, "refuses the login"),
            (f"redis+cluster://127.0.0.1:{port}", Misconfigured, "is no cluster"),
            ("redis+cluster://127.0.0.1:1", Unavailable, "Error 111"),
        ):
            with client_of(way, url, "{why}") as client, pytest.raises(kind, match=said) as refusal:
                client.blocks.retrieve("missing")
            assert "wrong" not in refusal.value.message
    finally:
        single.remove()


@pytest.mark.parametrize("way", WAYS)
def test_slot_without_a_node_is_the_loss_of_its_namespaces(cluster: Cluster, way: str) -> None:
    """Where the nodes are set to serve the other slots, namespaces there go on."""
    slot, holder = cluster.slot("{down}:meta"), cluster.holder("{down}:meta")
    try:
        for node in cluster.raw:
            node.config_set("cluster-require-full-coverage", "no")
            node.execute_command("CLUSTER", "DELSLOTS", slot)
        for namespace, said in (("{down}", "no node of the cluster has the slot"), ("{up}", "no mirror")):
            with (
                client_of(way, cluster.url, namespace) as client,
                pytest.raises(Unavailable, match=said),
            ):
                client.blocks.retrieve("missing")
    finally:
        holder.execute_command("CLUSTER", "ADDSLOTS", slot)
        for node in cluster.raw:
            eventually(lambda node=node: "cluster_slots_ok:16384" in str(node.execute_command("CLUSTER", "INFO")))  # type: ignore[misc]
            node.config_set("cluster-require-full-coverage", "yes")
