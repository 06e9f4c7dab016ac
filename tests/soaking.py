"""People and agents that write at the same time without end, and an independent model of what must come of it."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

import redis

from blocksd import Reset
from blocksd.journal.history import JournalReader
from blocksd.model.revision import MERGE
from following import Scope

if TYPE_CHECKING:
    from pathlib import Path

    from blocksd import Item
    from blocksd.model.revision import Revision
    from support import Daemon

BLOCKS = 6
AGENTS = 5
PEOPLE = 2
HEAD = f"---\nagents: [{', '.join(f'agent-{number}' for number in range(AGENTS))}]\nlimit: 100000\n---\n"
"""Of each of the blocks that all agents have."""

_MOST_LINES = 150  # of a block: a person who finds more begins it anew
_UNSEEN = 40  # so many lines that a person takes away may be in no version, if the daemon was down meanwhile


@dataclass
class Model:
    """The replies to agents and the saves of people, by the unique lines they wrote. Independent of the daemon."""

    patience: float  # for how many seconds a reply may be waited for
    acknowledged: set[str] = field(default_factory=set)  # request ids, each of which is the line it writes
    refused: set[str] = field(default_factory=set)
    notes: dict[str, dict[str, str]] = field(default_factory=dict)  # agent → its private blocks → their text
    saved: dict[str, str] = field(default_factory=dict)  # line → label
    replaced: set[str] = field(default_factory=set)  # by edits that were asked for, and may be done by now
    lost: list[str] = field(default_factory=list)  # what is known to be lost before the end
    errors: list[BaseException] = field(default_factory=list)
    power: threading.Lock = field(default_factory=threading.Lock)  # people hold it while they save
    stop: threading.Event = field(default_factory=threading.Event)


class Actor(threading.Thread):
    """A thread that does the same again and again, until all is to stop; its errors go to the model."""

    def __init__(self, model: Model, name: str) -> None:
        super().__init__(name=name)
        self.model = model
        self.random = random.Random(name)
        self.count = 0

    def run(self) -> None:
        try:
            while not self.model.stop.is_set():
                self.act()
        except BaseException as error:  # noqa: BLE001  # whatever it is, the test has to know
            self.model.errors.append(error)

    def act(self) -> None:
        raise NotImplementedError

    def line(self) -> str:
        self.count += 1
        return f"{self.name}-{self.count:06}."


class Agent(Actor):
    """Edits blocks that all agents have, and private ones; repeats each request under its id until there is a reply."""

    def __init__(self, model: Model, name: str, url: str) -> None:
        super().__init__(model, name)
        self.url = url
        self.last: dict[str, str] = {}
        self.notes = model.notes.setdefault(name, {})
        self.client: Any = None

    def act(self) -> None:
        if self.random.random() < 0.3:
            self.keep_notes()
        else:
            self.edit()

    def keep_notes(self) -> None:
        """Create, edit, rename or delete a block that nobody else writes: of these the whole text is known."""
        line, new = self.line(), f"note-{self.count}"
        op = self.random.choice(("create", "append", "rename", "delete")) if self.notes else "create"
        name = new if op == "create" else self.random.choice(list(self.notes))
        args = {"create": {"value": line}, "append": {"content": line}, "rename": {"to": new}, "delete": {}}[op]
        reply = self.ask({"id": line, "op": op, "name": name, "args": args})
        text = self.notes.pop(name, "")
        if not reply["ok"]:
            self.model.lost.append(f"{op} of {name} of {self.name}: {reply['error']}")
            return
        self.model.acknowledged.add(line)
        if op == "rename":
            self.notes[new] = text
        elif op != "delete":
            self.notes[name] = f"{text}\n{line}" if text else line

    def edit(self) -> None:
        """Append a line to a shared block, or put it in the place of the last one."""
        label, line = f"block-{self.random.randrange(BLOCKS)}", self.line()
        old = self.last.get(label)
        if old is not None and self.random.random() < 0.3:
            op, args = "replace", {"old_content": old, "new_content": line}
            self.model.replaced.add(old)
        else:
            op, args = "append", {"content": line}
        reply = self.ask({"id": line, "op": op, "name": label, "args": args})
        if reply["ok"]:
            self.model.acknowledged.add(line)
            self.last[label] = line
        else:
            self.model.refused.add(line)
            self.last.pop(label, None)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ask until there is a reply, which may come when all is well again."""
        deadline = time.monotonic() + self.model.patience
        while time.monotonic() < deadline:
            try:
                if self.client is None:
                    self.client = redis.Redis.from_url(self.url, decode_responses=True, socket_timeout=2.0)
                self.client.xadd(f"blocks:inbox:{self.name}", {"request": json.dumps(request)})
                found = self.client.blpop([f"blocks:reply:{self.name}:{request['id']}"], timeout=1)
            except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError, OSError):
                self.client = None
                time.sleep(0.02)
                continue
            reply: dict[str, Any] | None = json.loads(found[1]) if found else None
            if reply is not None and (reply["ok"] or reply["error"]["code"] != "unavailable"):
                return reply
        raise AssertionError(f"no reply to {request}")


class Person(Actor):
    """Adds lines to files that no other person has, in place or by renaming a copy over them."""

    def __init__(self, model: Model, number: int, folder: Path) -> None:
        super().__init__(model, f"person-{number}")
        self.folder = folder
        self.number = number

    def act(self) -> None:
        with self.model.power:
            self.save()
        time.sleep(self.random.uniform(0.02, 0.2))

    def save(self) -> None:
        number, line = self.random.randrange(BLOCKS // PEOPLE) * PEOPLE + self.number, self.line()
        label = f"block-{number}"
        path = self.folder / f"{label}.md"
        text = path.read_text()
        if text.count("\n") > _MOST_LINES:
            self.put(path, HEAD + line + "\n")
            for unseen in [one for one, where in self.model.saved.copy().items() if where == label][-_UNSEEN:]:
                del self.model.saved[unseen]
        elif self.random.random() < 0.5:
            with path.open("a") as file:
                file.write(line + "\n")
        else:
            self.put(path, text + line + "\n")
        self.model.saved[line] = label

    def put(self, path: Path, text: str) -> None:
        aside = path.with_name(f".{path.name}.{self.name}~")
        aside.write_text(text)
        aside.replace(path)


def journal_of(daemon: Daemon) -> list[Revision]:
    reader = JournalReader(str(daemon.state / "journal.db"))
    try:
        found = {revision.seq: revision for head in list(reader.heads()) for revision in reader.history(head.label)}
    finally:
        reader.close()
    return [found[seq] for seq in sorted(found)]


def texts_of(folder: Path) -> dict[str, str]:
    """What the files say below their frontmatter, by label."""
    paths = [path for path in folder.rglob("*.md") if not path.name.startswith(".")]
    return {
        str(path.relative_to(folder))[:-3]: path.read_text().split("---\n")[-1].removesuffix("\n") for path in paths
    }


def faults_of(model: Model, daemon: Daemon) -> dict[str, list[str]]:
    """The edits and lines that are lost: acknowledged or saved, and in no version of their block; and those done twice."""
    revisions = journal_of(daemon)
    # A save on another host that is merged makes two: the text that was saved, and the merge.
    done = Counter(one.request_id for one in revisions if one.request_id is not None and one.author != MERGE)
    lines: defaultdict[str, set[str]] = defaultdict(set)
    doubled = [number for number, count in done.items() if count > 1]
    for one in revisions:
        counted = Counter(line for line in (one.block.value if one.block else "").split("\n") if line)
        doubled += [f"{line} in version {one.version} of {one.label}" for line, count in counted.items() if count > 1]
        lines[one.label].update(counted)
    expected = {f"agents/{agent}/{name}": text for agent, notes in model.notes.items() for name, text in notes.items()}
    private = {label: text for label, text in texts_of(daemon.folder).items() if label.startswith("agents/")}
    return {
        "lost": [number for number in model.acknowledged if not done[number]]
        + model.lost
        + [line for line, label in model.saved.items() if line not in lines[label]],
        "doubled": doubled,
        "refused and done": [number for number in model.refused if done[number]],
        "wrong": [
            f"{label}: {text!r} became {private.get(label)!r}"
            for label, text in expected.items()
            if private.get(label) != text
        ]
        + [f"{label} is back" for label in private.keys() - expected.keys()],
    }


def missed(heard: list[Item], revisions: list[Revision]) -> list[str]:
    """Why what was heard is not each revision once and in order, or a reset in place of some.

    A power cut ends an epoch, and may take revisions that were heard already: only its gaps are looked for. Of the last
    epoch every revision is compared.
    """
    numbered = [item for item in heard if item.seq is not None]  # what is said of problems has no number
    epochs = [list(items) for _, items in groupby(numbered, key=lambda item: item.epoch)]
    found = [] if len({items[0].epoch for items in epochs}) == len(epochs) else ["an epoch came back"]
    last: int | None = BLOCKS
    for items in epochs[:-1]:
        for item in items:
            if isinstance(item, Reset) or last is None:
                found += [] if isinstance(item, Reset) else [f"{item} begins an epoch"]
            elif item.seq != last + 1:
                found.append(f"{item.seq} was heard after {last}")
            last = item.seq
        last = None
    if epochs:
        after = BLOCKS if len(epochs) == 1 else epochs[-1][0].seq or 0
        try:
            Scope().check(epochs[-1], revisions, after=after)
        except AssertionError as error:
            found.append(str(error))
    return found
