"""A leader and its followers: real processes, on one real server."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from support import Daemon, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from support import RedisServer

MARKER = ".blocksd.follow"


class Follower(Daemon):
    """A real `blocksd follow` in a process of its own."""

    command_name = "follow"

    def status(self) -> dict[str, Any]:
        """What it tells of itself."""
        report: dict[str, Any] = json.loads(self.command("follow", "--status", "--json").stdout)
        return report

    def revert(self, name: str) -> str:
        """Take the leader's version; what the command prints."""
        done = self.command("follow", "--revert", name)
        assert done.returncode == 0, done.stderr
        return done.stdout


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder, but hidden ones, by their paths below it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def same(one: Path, other: Path) -> None:
    """Both folders come to have the same files."""
    try:
        eventually(lambda: tree(one) == tree(other), "the folders are equal")
    except BaseException:
        print(tree(one), tree(other), sep="\n")
        raise


class Hosts:
    """A leader, and followers by name, each with a folder and a state directory."""

    def __init__(self, server: RedisServer, tmp_path: Path) -> None:
        self.server = server
        self._path = tmp_path
        self._processes: list[Daemon] = []
        self.folder = tmp_path / "leader"
        self.folder.mkdir()
        self.leader = Daemon(self.folder, tmp_path / "leader-state", "--redis", server.url, "--delete-grace", "0.1")
        self._processes.append(self.leader)

    def save(self, path: str, text: str | bytes, folder: Path | None = None) -> Path:
        """Save a file as editors do: written aside, and moved."""
        full = (folder or self.folder) / path
        full.parent.mkdir(parents=True, exist_ok=True)
        aside = full.with_name(f".{full.name}.swp")
        aside.write_bytes(text if isinstance(text, bytes) else text.encode())
        os.replace(aside, full)
        return full

    def follower(self, name: str = "copy", *options: str, read_only: bool = True) -> Follower:
        """A follower that is not started yet."""
        words = ["--redis", self.server.url, *(["--read-only"] if read_only else []), *options]
        found = Follower(self._path / name, self._path / f"{name}-state", *words, env={"BLOCKSD_DELETE_GRACE": "0.1"})
        self._processes.append(found)
        return found

    def end(self) -> None:
        for process in self._processes:
            if process.process is not None and process.process.poll() is None:
                process.kill()
