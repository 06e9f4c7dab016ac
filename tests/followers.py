"""A leader and its followers: real processes, on one real server; and the side of a follower without any process."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from blocksd.files.folder import Folder
from blocksd.files.root import Root
from blocksd.files.writer import Writer
from blocksd.follow.comparison import Comparer
from blocksd.follow.copier import Copier
from blocksd.follow.names import NameRules
from blocksd.follow.place import Place
from blocksd.follow.plan import Wanted
from support import Daemon, eventually

if TYPE_CHECKING:
    from pathlib import Path

    from blocksd.follow.comparison import Outcome
    from support import RedisServer

MARKER = ".blocksd.follow"
EXACT = NameRules()
"""Those of a file system of Linux: every path is a file for itself."""


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
    found = {}
    for path in sorted(folder.rglob("*")):
        with suppress(FileNotFoundError):  # it is being removed
            if path.is_file() and not path.name.startswith("."):
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


def same(one: Path, other: Path) -> None:
    """Both folders come to have the same files."""
    try:
        eventually(lambda: tree(one) == tree(other), "the folders are equal")
    except BaseException:
        print(tree(one), tree(other), sep="\n")
        raise


class Editor:
    """An editor on a host: again and again it saves its file with one line more, and a new file, in a thread."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[str] = []
        self.lost: list[str] = []
        """What it did not find as it had left it."""
        self._folder = folder
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="editor")
        self._thread.start()

    def _work(self) -> None:
        while not self._ending.wait(0.2):
            self.look()
            number = len(self.lines)
            self.lines.append(f"edit {number}\n")
            save(self._folder / "edited.md", "".join(self.lines))
            save(self._folder / "new" / f"{number}.md", f"{number}\n")

    def look(self) -> None:
        """See that all is there, as it was saved last."""
        texts = {"edited.md": "".join(self.lines)} if self.lines else {}
        texts |= {f"new/{number}.md": f"{number}\n" for number in range(len(self.lines))}
        for path, text in texts.items():
            full = self._folder / path
            if not full.exists() or full.read_text() != text:
                self.lost.append(path)

    def stop(self) -> None:
        self._ending.set()
        self._thread.join()


def save(path: Path, text: str | bytes) -> Path:
    """Save a file as editors do: written aside, and moved."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.swp")
    aside.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.replace(aside, path)
    return path


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
        return save((folder or self.folder) / path, text)

    def follower(self, name: str = "copy", *options: str, read_only: bool = True) -> Follower:
        """A follower that is not started yet."""
        words = ["--redis", self.server.url, *(["--read-only"] if read_only else []), *options]
        found = Follower(self._path / name, self._path / f"{name}-state", *words, env={"BLOCKSD_DELETE_GRACE": "0.1"})
        self._processes.append(found)
        return found

    def own(self, process: Daemon) -> Daemon:
        """End this process with the others."""
        self._processes.append(process)
        return process

    def end(self) -> None:
        for process in self._processes:
            if process.process is not None and process.process.poll() is None:
                process.kill()


class Side:
    """The folder and the state of a follower."""

    def __init__(
        self, path: Path, rules: NameRules = EXACT, root: type[Root] = Root, place: type[Place] = Place
    ) -> None:
        self.path = path / "copy"
        self.path.mkdir(exist_ok=True)
        (path / "state").mkdir(exist_ok=True)
        self.place = place(str(path / "state"))
        self.root = root(str(self.path))
        self.folder = Folder(self.root)
        self.writer = Writer(self.root)
        self.comparer = Comparer(self.folder, self.place, rules)
        self.copier = Copier(self.root, self.writer, self.place, self.comparer)
        self.is_read_only = False
        self.leader_folder = ""

    def bring(self, texts: dict[str, str | None], *, restores: bool = True, **more: Any) -> Outcome:
        """Bring these blocks to these texts; None: there is no such block."""
        return self.copier.bring(
            {label: wanted(label, text) for label, text in texts.items()}, restores=restores, **more
        )

    def tree(self) -> dict[str, str]:
        return {
            str(path.relative_to(self.path)): path.read_text()
            for path in sorted(self.path.rglob("*"))
            if path.is_file()
        }

    def close(self) -> None:
        self.place.close()


def wanted(label: str, text: str | None, *, mode: int = 0o644, path: str = "", version: int = 1) -> Wanted | None:
    if text is None:
        return None
    return Wanted(path or f"{label}.md", label, version, f"{text} {mode}", mode, text.encode())
