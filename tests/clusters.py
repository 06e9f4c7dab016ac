"""A cluster on the loopback interface: masters that share the slots, each with a replica if so asked."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import redis

from sentinels import free_ports
from support import RedisServer, eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Iterator


NODES = 3
SLOTS = 16_384
_NODE_TIMEOUT = 1000  # milliseconds; after twice that a replica stands for election


class Cluster:
    """Masters with an equal part of the slots each: the servers 0 to 2. Their replicas, if there are any, are 3 to 5, in that order."""

    def __init__(self, *, replicas: bool = False, binary: str = "", masters: int = NODES) -> None:
        self._masters = masters
        count = 2 * masters if replicas else masters
        ports = free_ports(2 * count)
        self.ports, self._buses = ports[:count], ports[count:]
        self.servers = [RedisServer(binary or valkey_binary()) for _ in range(count)]
        for number in range(count):
            self.launch(number)
        for server in self.servers:
            server.wait()
        self.raw: list[Any] = [server.client() for server in self.servers]
        for number, client in enumerate(self.raw):
            if number < masters:
                first, last = SLOTS * number // masters, SLOTS * (number + 1) // masters - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port, bus in zip(self.ports[1:], self._buses[1:], strict=True):
            self.raw[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        eventually(lambda: all(map(self._is_whole, self.raw)), "each node knows all slots")
        for number in range(masters, count):
            master = self.id(number - masters)
            eventually(partial(self._knows, number, master), "the replica knows its master")
            self.raw[number].execute_command("CLUSTER", "REPLICATE", master)
        for number in range(masters, count):
            eventually(partial(self.follows, number), "the replica follows")
        eventually(
            lambda: all(self._knows_replicas(client, count - masters) for client in self.raw), "replicas are known"
        )
        self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in self.ports)

    def launch(self, number: int) -> None:
        """Start a node; one that was ended has lost its keys, and knows its slots."""
        options = ("--cluster-enabled", "yes", "--cluster-port", str(self._buses[number]))
        timing = ("--cluster-node-timeout", str(_NODE_TIMEOUT), "--repl-diskless-sync-delay", "0")
        self.servers[number].launch("--port", str(self.ports[number]), *options, *timing)

    def start(self, number: int) -> None:
        """Start a node, and wait until it answers."""
        self.launch(number)
        self.servers[number].wait()

    def id(self, number: int) -> str:
        """The name that the cluster has for a node."""
        return str(self.raw[number].execute_command("CLUSTER", "MYID"))

    def _knows(self, number: int, node: str) -> bool:
        return node in str(self.raw[number].execute_command("CLUSTER", "NODES"))

    def _knows_replicas(self, client: Any, count: int) -> bool:
        return len(re.findall(r"\bslave\b", str(client.execute_command("CLUSTER", "NODES")))) == count

    def _is_whole(self, client: Any) -> bool:
        facts = str(client.execute_command("CLUSTER", "INFO")).split()
        is_ok = {"cluster_state:ok", f"cluster_slots_ok:{SLOTS}"}.issubset(facts)
        return is_ok and len(client.execute_command("CLUSTER", "SLOTS")) == self._masters

    def follows(self, number: int) -> bool:
        """Return True if a node is a replica that has all that its master had."""
        with suppress(redis.RedisError):
            return bool(self.raw[number].info("replication").get("master_link_status") == "up")
        return False

    def is_master(self, number: int) -> bool:
        """Return True if a node runs, and serves slots as their master."""
        with suppress(redis.RedisError):
            return bool(self.raw[number].role()[0] == "master")
        return False

    def slot(self, key: str) -> int:
        return int(self.raw[0].execute_command("CLUSTER", "KEYSLOT", key))

    def number(self, key: str) -> int:
        """The number of the node that has a key at the beginning."""
        return self.slot(key) * self._masters // SLOTS

    def holder(self, key: str) -> Any:
        """A client of that node."""
        return self.raw[self.number(key)]

    def move(self, slot: int, source: int, target: int) -> Iterator[None]:
        """Move a slot to another node, two keys at a step after one without any: meanwhile its keys are on both."""
        self.raw[target].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id(source))
        self.raw[source].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id(target))
        place = ("127.0.0.1", self.ports[target], "", 0, 5000, "KEYS")
        yield
        while keys := self.raw[source].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 2):
            self.raw[source].execute_command("MIGRATE", *place, *keys)
            yield
        for number in (target, source, *range(NODES)):
            self.raw[number].execute_command("CLUSTER", "SETSLOT", slot, "NODE", self.id(target))

    def close(self) -> None:
        for client in self.raw:
            client.close()
        for server in self.servers:
            server.remove()
