"""A master, a replica and the sentinel that watches over them, on the loopback interface."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import redis

from support import MORTAL, RedisServer, eventually


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nothing listens on."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class Watched:
    """A service named `main`: two servers and one sentinel, which promotes the replica a second after the master's death."""

    def __init__(self, binary: str, *, password: str = "", certified: tuple[Path, Path] | None = None) -> None:
        """`password` is the sentinel's own, for its user `asker`. With a key and a certificate all of them speak TLS alone."""
        self.ports = free_ports(3)
        port, scheme, trust, tls = "port", "redis", [], []
        if certified is not None:
            key, certificate = certified
            port, scheme, trust = "tls-port", "rediss", [f"ssl_ca_certs={certificate}"]
            files = (("cert-file", certificate), ("key-file", key), ("ca-cert-file", certificate))
            tls = [f"tls-{name} {path}" for name, path in files] + ["tls-auth-clients no", "tls-replication yes"]
        self.servers = [RedisServer(binary), RedisServer(binary)]
        self._directory = Path(tempfile.mkdtemp(prefix="blocksd-test-"))
        login = f"asker:{password}@" if password else ""
        self.sentinel_url = f"{scheme}://{login}127.0.0.1:{self.ports[2]}?{''.join(trust)}"
        own = [f"sentinel_username=asker&sentinel_password={password}"] if password else []
        self.url = f"{scheme}+sentinel://127.0.0.1:{self.ports[2]}/main?{'&'.join(trust + own)}"
        options = [word for line in tls for word in f"--{line}".split(" ", 1)]
        for server, number in zip(self.servers, self.ports, strict=False):
            server.start(f"--{port}", str(number), *options, "--repl-diskless-sync-delay", "0")
        self.raw: list[Any] = [server.client() for server in self.servers]
        self.raw[1].replicaof("127.0.0.1", self.ports[0])
        eventually(lambda: self.raw[1].info("replication")["master_link_status"] == "up", "the replica follows")
        settings = [
            *(["port 0"] if tls else []),
            f"{port} {self.ports[2]}",
            *tls,
            "bind 127.0.0.1",
            f"sentinel monitor main 127.0.0.1 {self.ports[0]} 1",
            "sentinel down-after-milliseconds main 1000",
            "sentinel failover-timeout main 2000",
            *([f"user asker on >{password} +@all", "user default off"] if password else []),
        ]
        settings_file = self._directory / "sentinel.conf"
        settings_file.write_text("\n".join(settings) + "\n")
        self._sentinel = subprocess.Popen(
            [*MORTAL, binary, str(settings_file), "--sentinel"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.asking: Any = redis.Redis.from_url(self.sentinel_url, decode_responses=True)
        eventually(self._knows_both, "the sentinel knows both servers")

    def _knows_both(self) -> bool:
        with suppress(redis.RedisError):
            replicas = self.asking.execute_command("SENTINEL", "REPLICAS", "main")
            return [str(replica["master-link-status"]) for replica in replicas] == ["ok"]
        return False

    def master(self) -> int:
        """The number of the server that is promoted right now, as the sentinel says."""
        _, port = self.asking.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main")
        return self.ports.index(int(port))

    def is_promoted(self, number: int) -> bool:
        """Return True if the sentinel names this server, and the server agrees."""
        return self.master() == number and self.raw[number].role()[0] == "master"

    def fail_over(self) -> None:
        """Have the replica promoted while the master lives."""
        self.asking.execute_command("SENTINEL", "FAILOVER", "main")

    def close(self) -> None:
        self.asking.close()
        self._sentinel.send_signal(signal.SIGKILL)
        self._sentinel.wait(10)
        for client in self.raw:
            client.close()
        for server in self.servers:
            server.remove()
        shutil.rmtree(self._directory, ignore_errors=True)
