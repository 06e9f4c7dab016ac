"""Editors and agents on several hosts, one of which is the leader's, and what must come of all that they wrote."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

from blocksd.files.staging import digest
from blocksd.model.revision import MERGE
from followers import tree
from soaking import HEAD, Actor, Agent, faults_of, journal_of
from support import MORTAL, quiet_environ, require

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hosts import Host
    from soaking import Model
    from support import Daemon

AT_ONCE = 3
"""How many shared blocks everyone writes to at a time."""
TURN_SECONDS = 20.0
"""How long: then others take their place, so that no text becomes long."""


class Shared:
    """The labels of the blocks that everyone writes to: other ones after a while."""

    def __init__(self, seconds: float) -> None:
        self.labels = [f"block-{number}" for number in range(AT_ONCE * (int(seconds / TURN_SECONDS) + 1))]
        self._begin = time.monotonic()

    def now(self) -> list[str]:
        turn = int((time.monotonic() - self._begin) / TURN_SECONDS)
        return self.labels[turn * AT_ONCE :][:AT_ONCE] or self.labels[-AT_ONCE:]


class Appender(Agent):
    """An agent on a host: it appends lines to shared blocks, and keeps private ones. It takes no line away."""

    def __init__(self, model: Model, name: str, url: str, host: Host, shared: Shared) -> None:
        super().__init__(model, name, url)
        self._host = host
        self._shared = shared
        self.appended: set[str] = set()  # lines that must be in a file at the end

    def run(self) -> None:
        self._host.enter()
        super().run()

    def edit(self) -> None:
        label, line = self.random.choice(self._shared.now()), self.line()
        reply = self.ask({"id": line, "op": "append", "name": label, "args": {"content": line}})
        if reply["ok"]:
            self.model.acknowledged.add(line)
            self.appended.add(line)
        else:
            self.model.lost.append(f"append of {line} to {label}: {reply['error']}")


class Editor(Actor):
    """The one person on a host: reads a file, adds a line, and saves it in one of the ways that editors have."""

    def __init__(self, model: Model, name: str, folder: Path, shared: Shared) -> None:
        super().__init__(model, name)
        self.folder = folder
        self.own: dict[str, str] = {}  # path → text, of the files that nobody else writes
        self.saves: Counter[str] = Counter()
        self._shared = shared

    def act(self) -> None:
        if self.random.random() < 0.2:
            self.keep_own()
        else:
            self.edit()
        self.model.stop.wait(self.random.uniform(0.02, 0.3))

    def edit(self) -> None:
        label, line = self.random.choice(self._shared.now()), self.line()
        path = self.folder / f"{label}.md"
        way = self.random.choices(("in place", "renamed", "appended", "vim", "ed"), (4, 4, 2, 1, 1))[0]
        self.saves[way] += 1
        if way == "appended":
            with path.open("a") as file:
                file.write(f"{line}\n")
        elif way == "vim":
            self.in_vim(path, line)
        elif way == "ed":
            script = f"$a\n{line}\n.\nw\nq\n".encode()
            subprocess.run(
                [*MORTAL, require("ed"), "-s", path], input=script, capture_output=True, check=True, timeout=30
            )
        else:
            head, _, text = path.read_text().rpartition("---\n")
            lines = text.splitlines()
            lines.insert(self.random.choice((0, len(lines), self.random.randint(0, len(lines)))), line)
            time.sleep(self.random.choice((0.0, 0.0, 0.1)))  # what is written meanwhile, this person has not read
            self.put(path, head + "---\n" + "".join(f"{one}\n" for one in lines), is_in_place=way == "in place")
        self.model.saved[line] = label

    def in_vim(self, path: Path, line: str) -> None:
        """Append a line in vim, which writes in place, or aside. It says if the file has changed since it read it."""
        words = [*MORTAL, require("vim"), "-u", "NONE", "-N", "-i", "NONE", "-n", "-es"]
        words += ["-c", f"set backupcopy={self.random.choice(('yes', 'no'))} backupskip="]
        words += ["-c", f"$put ='{line}'", "-c", "wq", str(path)]
        for _ in range(20):
            done = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, env=quiet_environ(), check=False
            )
            if done.returncode == 0:
                return
        raise AssertionError(f"vim does not save: {done.stdout!r}")

    def keep_own(self) -> None:
        """Make, edit, move or remove a file of one's own."""
        line, new = self.line(), f"own/{self.name}-{self.count}.md"
        op = self.random.choice(("make", "edit", "edit", "move", "remove")) if self.own else "make"
        old = new if op == "make" else self.random.choice(list(self.own))
        path = self.folder / old
        self.saves[op] += 1
        if op in ("make", "edit"):
            path.parent.mkdir(exist_ok=True)
            self.own[old] = self.own.get(old, "") + f"{line}\n"
            self.put(path, self.own[old], is_in_place=self.random.random() < 0.5)
        elif op == "move":
            path.rename(self.folder / new)
            self.own[new] = self.own.pop(old)
        else:
            path.unlink()
            del self.own[old]

    def put(self, path: Path, text: str, *, is_in_place: bool) -> None:
        if is_in_place:
            path.write_text(text)
            return
        aside = path.with_name(f".{path.name}.{self.name}~")
        aside.write_text(text)
        os.replace(aside, path)


class Diarist(Actor):
    """A person who writes another text over the last one, once that is on its way: so each is in the history, in its order.

    A text is on its way when the follower has noted that it is sent, or on the leader's host when it is in the journal. One
    that is replaced before that was never more than the draft of the next.
    """

    def __init__(self, model: Model, name: str, daemon: Daemon) -> None:
        super().__init__(model, name)
        self.host = daemon
        self.path = daemon.folder / f"{name}.md"
        self.texts: list[str] = []

    def act(self) -> None:
        self.texts.append(self.line())
        self.path.write_text(f"{self.texts[-1]}\n")
        while not self.is_on_its_way(self.texts[-1]) and not self.model.stop.wait(0.05):
            pass

    def is_on_its_way(self, text: str) -> bool:
        found = self.host.state / "follower.db"
        if not found.exists():
            return text in self.host.values(self.name)
        path, now = self.path.name, str(digest(f"{text}\n".encode()))
        with closing(sqlite3.connect(f"file:{found}?mode=ro", uri=True, timeout=20)) as place:
            rows = place.execute(
                "SELECT digest FROM unsent WHERE path = ?1 AND is_sent UNION SELECT digest FROM files WHERE path = ?1",
                (path,),
            )
            return (now,) in list(rows)


def faults(model: Model, leader: Daemon, folders: Iterable[Path], actors: Iterable[Actor]) -> dict[str, list[str]]:
    """What is wrong at the end, by kind."""
    files = {path: text.decode() for path, text in tree(leader.folder).items()}
    counts = Counter(line for text in files.values() for line in text.splitlines())
    found: dict[str, list[str]] = {**faults_of(model, leader), "not there once": [], "own": [], "diary": []}
    for folder in folders:
        if (other := tree(folder)) != tree(leader.folder):
            found["unequal"] = [
                path for path in {*files, *other} if files.get(path, "").encode() != other.get(path, b"")
            ]
    expected = list(model.saved)
    for actor in actors:
        if isinstance(actor, Appender):
            expected += actor.appended
        elif isinstance(actor, Editor):
            there = {path: text for path, text in files.items() if path.startswith(f"own/{actor.name}-")}
            found["own"] += [
                f"{path}: {actor.own.get(path)!r} became {there.get(path)!r}"
                for path in {*there, *actor.own}
                if there.get(path) != actor.own.get(path)
            ]
        elif isinstance(actor, Diarist):
            values = [value for value in leader.values(actor.name) if value]
            if values != actor.texts:
                lost = [text for text in actor.texts if text not in values]
                found["diary"].append(f"{actor.name}: without {lost}, of {values}")
    found["not there once"] = [f"{line}: {counts[line]} times" for line in expected if counts[line] != 1]
    return found


def merges(leader: Daemon) -> int:
    """How many texts the leader has merged."""
    return sum(one.author == MERGE for one in journal_of(leader))


def begin(folder: Path, shared: Shared, diaries: Iterable[str]) -> None:
    """Make the files that there are before anyone writes."""
    folder.mkdir()
    for label in shared.labels:
        (folder / f"{label}.md").write_text(HEAD)
    for name in diaries:
        (folder / f"{name}.md").write_text("")
