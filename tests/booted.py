"""Machines to try a service on: systemd as PID 1, in namespaces, over an overlay of a root file system."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from support import do_without, eventually, require

ROOT = Path(__file__).resolve().parents[1]
CLONE = "/usr/src/blocksd"
"""Where a machine has this repository."""

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_NETWORK = ("PIP_", "SSL_", "http_proxy", "https_proxy", "no_proxy")
"""What this system needs in its environment to fetch packages begins like this."""


class Room:
    """Where machines stand. What they write is kept, in memory, until the room is closed; then nothing is left of it.

    Should the tests be killed, `boot.sh` sees the end of its input, and does the same.
    """

    def __init__(self) -> None:
        for tool in ("bash", "nsenter", "setpriv", "systemctl", "unshare"):
            require(tool)
        if os.geteuid() != 0:
            do_without("whoever is not root may not boot a machine")
        lower = os.environ.get("BLOCKSD_TEST_ROOT", "/")
        words = ["unshare", "--mount", "--propagation", "private", str(ROOT / "tests" / "boot.sh"), lower, str(ROOT)]
        self._process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
        )

    def ask(self, *words: str) -> str:
        """Have `boot.sh` carry out a command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(*words, file=self._process.stdin, flush=True)
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            do_without("no machine can be booted here")
        return answer.strip()

    def close(self) -> None:
        self._process.communicate(timeout=20)


class Machine:
    """One machine in a room."""

    def __init__(self, room: Room, name: str, *, base: str = "") -> None:
        """`base` names a machine, switched off for good, that this one is a copy of."""
        self._room = room
        self.name = name
        self._base = base
        self.pid = 0

    def boot(self) -> Machine:
        """Switch it on; wait until it has started what is enabled."""
        self.pid = int(self._room.ask("boot", self.name, self._base))
        eventually(lambda: self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"))
        return self

    def cut(self) -> None:
        """Cut its power."""
        self._room.ask("cut", self.name)
        self.pid = 0

    def shut_down(self) -> None:
        """Let it stop what runs, in order, and switch it off."""
        self.run("systemctl", "poweroff", "--no-block")
        eventually(lambda: not os.path.exists(f"/proc/{self.pid}/root/"), "the machine has shut down")
        self.cut()

    def path(self, path: str) -> Path:
        """Where a file of the machine is to be found from here."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def command(self, *words: str, network: bool = False) -> list[str]:
        """What runs a command in the machine, in its clone; with `network`, in this system's network."""
        spaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", *([] if network else ["--net"])]
        kept = {name: value for name, value in os.environ.items() if network and name.startswith(_NETWORK)}
        environment = {**kept, "PATH": _PATH, "HOME": "/root", "LANG": "C.UTF-8"}
        return [
            *("nsenter", f"--target={self.pid}", *spaces, "--root", f"--wd={self.path(CLONE)}"),
            *("env", "--ignore-environment", *(f"{name}={value}" for name, value in environment.items())),
            *words,
        ]

    def run(self, *words: str, check: bool = True, network: bool = False) -> str:
        """Run a command in the machine; what it printed."""
        done = subprocess.run(
            self.command(*words, network=network),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        if check and done.returncode:
            pytest.fail(f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def says(self, unit: str, name: str) -> str:
        """A property of a unit, as systemd has it."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit).strip()

    def log(self, unit: str) -> str:
        """All that a unit has logged, and what systemd said of it."""
        return self.run("journalctl", "--quiet", "--output=cat", f"--unit={unit}")
