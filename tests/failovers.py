"""The faults after which another server has a namespace: by sentinels, and in a cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from clusters import NODES, Cluster
from sentinels import Watched
from support import eventually, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable

NAMESPACE = "{served}"


class BySentinel(Watched):
    """Two servers and their sentinel."""

    def __init__(self) -> None:
        super().__init__(valkey_binary())

    def present(self) -> Any:
        """A client of the present master."""
        return self.raw[self.master()]

    def kill(self) -> None:
        """The master dies."""
        self.servers[0].kill()
        self._is_replaced()

    def replace(self) -> None:
        """The master is made a replica, and goes on."""
        self.fail_over()
        self._is_replaced()

    def kill_ahead_of_its_replica(self) -> None:
        """The master dies when its replica has not received all that it served: numbers go back."""
        self.raw[1].config_set("masterauth", "wrong")
        self.raw[0].execute_command("CLIENT", "KILL", "TYPE", "replica")
        seq = int(self.raw[0].hget(f"{NAMESPACE}:meta", "seq"))
        eventually(lambda: int(self.raw[0].hget(f"{NAMESPACE}:meta", "seq")) > seq + 10, "changes went on")
        assert int(self.raw[1].hget(f"{NAMESPACE}:meta", "seq")) <= seq
        self.kill()

    def _is_replaced(self) -> None:
        eventually(lambda: self.is_promoted(1), "the replica is promoted")


class InCluster(Cluster):
    """Three masters, each with a replica."""

    def __init__(self) -> None:
        super().__init__(replicas=True)
        self._at = self.number(f"{NAMESPACE}:meta")

    def present(self) -> Any:
        """A client of the node that has the namespace."""
        return self.raw[self._at]

    def kill(self) -> None:
        """The node dies."""
        self.servers[self._at].kill()
        self._is_replaced()

    def replace(self) -> None:
        """The node is made a replica, and goes on."""
        self.raw[self._at + NODES].execute_command("CLUSTER", "FAILOVER")
        self._is_replaced()

    def move_slot(self) -> None:
        """The slot goes to another node."""
        source, self._at = self._at, (self._at + 1) % NODES
        for _ in self.move(self.slot(f"{NAMESPACE}:meta"), source, self._at):
            time.sleep(0.02)  # requests come in meanwhile

    def _is_replaced(self) -> None:
        self._at += NODES
        eventually(lambda: self.is_master(self._at), "the replica is promoted")


FAULTS: dict[str, tuple[Callable[[], Any], Callable[[Any], None]]] = {
    "sentinel, master killed": (BySentinel, BySentinel.kill),
    "sentinel, master lives on": (BySentinel, BySentinel.replace),
    "sentinel, replica is behind": (BySentinel, BySentinel.kill_ahead_of_its_replica),
    "cluster, node killed": (InCluster, InCluster.kill),
    "cluster, node lives on": (InCluster, InCluster.replace),
    "cluster, slot moves": (InCluster, InCluster.move_slot),
}
