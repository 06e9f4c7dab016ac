"""A whole daemon, people, agents and mishaps, one small step after the other, in whatever order hypothesis likes."""

from __future__ import annotations

import difflib
import itertools
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from blocksd.files.staging import digest
from blocksd.journal.results import Results
from blocksd.mirror.file_form import form_shown
from blocksd.model.label import TEMPORARY, clash_key, owner
from blocksd.model.revision import OPERATOR
from blocksd.requests.inbox import ATTEMPTS
from blocksd.requests.request import Entry
from blocksd.state.read_queue import HALF_SECONDS
from machine.asked import Asked, Hunk, block_of, lines_of
from machine.audit import (
    Memory,
    Save,
    agent_parts,
    check,
    check_folders,
    is_of_a_person,
    is_token,
    path_of,
    private_files,
    private_folders,
)
from machine.broken import Broken, must
from machine.disk import Disk, Log
from machine.hands import CALLS, ERRORS, Hands, Killed
from rig import EFFECTS, Rig

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import RedisServer

LABELS = ("notes", "plan", "Plan", "team/goals", "agents/ann/persona", "agents/cyd/team/goals")
SHARED = LABELS[:4]
PROPERTIES = ("agents/ann/agent.yaml", "agents/cyd/agent.yaml")
ACTORS = ("operator", "ann", "bob", "cyd")
AGENTS = ("cyd", "dan", "ann")
"""Those who are created and deleted; the first two are not there from the start."""

ANCHOR = "anchor"
"""A block that no person touches: as long as it is there, missing files are deletions. It names both agents."""

MOST_ROUNDS = 4
"""In how many rounds a daemon may do something before it is at rest, whatever was done to it.

One takes in what is in the folder; one levels the mirror, which may have to be waited for; one does what was asked for,
which waits for a level mirror; and one decides about deletions once their grace is over, and does what waited for those.
One more does what an agent had asked for that was not known then, and that one of these has made known.
"""

MOST_ROUNDS_AT_ALL = 15
"""The same with those that find nothing to do: the daemon had named the time to look again, and names the next."""

MOST_SLICES = 24
"""How many rounds more may each compare a slice of the mirror: two passes of it, of at most a dozen slices each.

A pass begins when the mirror is in sync again, and at each resync. It is divided by kinds of keys, whatever there is of them.
"""

_IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # what is synced there costs nothing

_KEEPING_FOLDERS = {"remove_directory", "unlink", "scandir", "stat"}
"""Calls without which a folder cannot be removed, and is left."""

_ROUNDS_LIVED = 24
"""How many rounds a process lives that is killed before an effect which does not come."""

HEADS = (
    "---\nagents: [ann, bob]\n---\n",
    '---\n# by hand\nlimit: 5000\ndescription: \'what we "know"\'   # for now\nagents: [ ann, "bob" ]\n---\n',
    "\ufeff---\r\ntags: [a, 'b']\r\nagents:\r\n  - ann\r\n# end\r\n---\r\n",
    "---\nmetadata: {owner: ops}\nagents: [b*, c*]\n---\n\n",
    "",
)
_INVALID = (
    b"---\nlimit: [\n---\nhalf\n",
    b"caf\xe9\n",
    b"---\nlimit: 5\nnever closed\n",
    b"---\nlimit: 2\n---\nlong\n",
)

SAID = (
    "name: {0}\n",
    "# who it is\nname: '{0}'   # for people\ntags: [a, '{0}']\nsystem: |\n  You are {0}.\n\n  Be kind.\n# end\n",
    "\ufeff# by hand\r\ndescription: {0}\r\nmetadata: {{owner: ops}}\r\n",
    "name:\n  {0}\nof_ours: 1\n",
    "{{name: {0}}}\n",
)
"""What people say of an agent in its file."""

labels = st.sampled_from(LABELS)
properties = st.sampled_from(PROPERTIES)
files = st.sampled_from((*LABELS, *PROPERTIES))
facts = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(("@", "@", None)),
        "description": st.sampled_from(("@ is: one", "@", None)),
        "system": st.sampled_from(("You are @.\nBe kind.\n", None)),
        "tags": st.sampled_from((["a", "@"], [], None)),
        "metadata": st.sampled_from(({"owner": "@"}, {}, None)),
    },
)
"""Properties as a request has them; `@` stands for what is there once."""
actors = st.sampled_from(ACTORS)
agents = st.sampled_from(AGENTS)
names = st.sampled_from((None, (), ("persona",), ("notes", "team/goals")))
conflicts = st.sampled_from((None, None, "fail", "merge", "overwrite"))
short = st.integers(0, 12)


class World(RuleBasedStateMachine):
    """What was acknowledged is there once, what was saved is in force or in the history, and then there is rest."""

    server: ClassVar[RedisServer]
    durability: ClassVar[str] = "process"
    _runs: ClassVar[Any] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="blocksd-machine-", dir=_IN_MEMORY))
        self.raw: Any = self.server.client()
        self._bytes: Any = self.server.client(decode_responses=False)
        self.raw.flushall()
        self.memory = Memory()
        for label, head in {ANCHOR: HEADS[0], **dict(zip(LABELS, HEADS[1:], strict=False))}.items():
            path = self.home / "blocks.d" / path_of(label)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(head.encode())
            path.chmod(0o644)
            self.memory.saves[path_of(label)] = [Save(head.encode(), 0.0, 0o644)]
        self.hands = Hands()
        if self.durability == "disk":
            self.hands.disk = Disk(self.home / "blocks.d", self.home / "inodes")
            self.hands.log = Log(self.home / "journal.db")
        self.rig = Rig(
            self.home,
            self.server.url,
            namespace=f"run-{next(self._runs)}",
            kind=self.hands.folder,
            beneath=self.hands.on_what_it_uses,
            durability=self.durability,
        )
        self.dump: dict[str, bytes] = {}
        self.deleted: set[str] = set()  # agents: what waits in the inbox of one is removed, once Redis is there
        self.buffers: dict[str, bytes] = {}  # what editors hold: path → what they have read
        self.read: dict[str, tuple[int, str]] = {}  # what clients hold: label → version and value
        self.copies: dict[str, tuple[int, bytes]] = {}  # what another host holds: label → version and file
        self.held: dict[str, IO[bytes]] = {}
        self.undecided: list[Asked] = []  # what was asked about agents
        self.killed_before: set[str] = set()  # effects
        self.tokens = itertools.count(1)
        self._rest()

    # --- people ---

    @rule(label=labels, head=st.sampled_from(HEADS), size=st.integers(0, 2), how=st.integers(0, 7))
    def save(self, label: str, head: str, size: int, how: int) -> None:
        """A person writes a file anew."""
        newline = "\r\n" if "\r" in head else "\n"
        text = head + "".join(f"{self._token('p')}{newline}" for _ in range(size))
        self._put(label, text.encode(), how)

    @rule(label=files, how=st.integers(0, 7))
    def add(self, label: str, how: int) -> None:
        """A person adds a line to what is there."""
        path = self.rig.root / path_of(label)
        if path.exists():
            self._add_to(label, path.read_bytes(), how)

    @rule(label=files)
    def open_in_editor(self, label: str) -> None:
        path = self.rig.root / path_of(label)
        if path.exists():
            self.buffers[label] = path.read_bytes()

    @rule(which=short, how=st.integers(0, 7), is_kept=st.booleans())
    def save_from_editor(self, which: int, how: int, *, is_kept: bool) -> None:
        """A person adds a line to what was there a while ago."""
        if not self.buffers:
            return
        label = sorted(self.buffers)[which % len(self.buffers)]
        data = self._add_to(label, self.buffers.pop(label), how)
        if is_kept:
            self.buffers[label] = data

    @rule(label=files, data=st.sampled_from(_INVALID), how=st.integers(0, 7))
    def spoil(self, label: str, data: bytes, how: int) -> None:
        """A person saves what is no block."""
        self._put(label, data, how)

    @rule(label=files, which=short, how=st.integers(0, 7), comes_first=st.booleans())
    def put_back(self, label: str, which: int, how: int, *, comes_first: bool) -> None:
        """A person puts a text back that was in the file before, right after others have added to it perhaps."""
        saves = self.memory.saves.get(path_of(label), [])
        if comes_first:
            self.append_and_wait(label, "ann")
        if saves:
            self._put(label, saves[-1 - which % len(saves)].data, how)

    @rule(label=files, which=short, how=st.integers(0, 7), adds=st.booleans())
    def take_out(self, label: str, which: int, how: int, *, adds: bool) -> None:
        """A program reads the file, takes a line out of it, and saves it, with a line more perhaps."""
        path = self.rig.root / path_of(label)
        given = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        places = [place for place, line in enumerate(given) if is_token(line.decode("utf-8", "replace").strip())]
        if places:
            del given[places[which % len(places)]]
            data = b"".join(given)
            self._put(label, self._with_a_line(label, data) if adds else data, how)

    @rule(label=files, how=st.integers(0, 3), rounds=st.integers(1, 4), act=st.sampled_from(("wait", "ask", "crash")))
    def save_in_two_steps(self, label: str, how: int, rounds: int, act: str) -> None:
        """A program empties a file and closes it, and a moment later writes it whole: the half is never in force."""
        path = self.rig.root / path_of(label)
        head = self.rig.journal.head(label)
        if not path.exists() or head is None or head.block is None or not path.read_bytes().strip():
            return
        if head.block != block_of(label, path.read_bytes()):
            return  # it is not in force, and nothing is to be kept
        data, mode = path.read_bytes(), path.stat().st_mode & 0o777
        self._leave_open(label)
        path.write_bytes(b"")
        began = time.time()
        self.rig.core.intake.hint_file(path_of(label), closed=True)
        if act == "ask":
            self.append(label, "operator")
        for _ in range(rounds):
            if act == "crash":
                self.rig.crash()
                self._come_back()
                self.rig.core.intake.hint_all()
            self._round()
            self.rig.clock.advance(0.05)
        since = self.rig.journal.history(label, limit=5)
        halves = [one for one in since if one.version > head.version and one.block == block_of(label, b"")]
        if (
            time.time() - began > HALF_SECONDS - 0.1
        ):  # this machine is slow: a process that has just begun may believe it
            self._note_save(label, Save(b"", began, mode))
        else:
            must("half a save", not any(map(is_of_a_person, halves)), path, "came into force:", halves)
            must("half a save", path.read_bytes() == b"", path, "was written to in the middle of a save")
        path.chmod(mode)
        path.write_bytes(data)
        self._add_to(label, data, how)

    @rule(label=files)
    def empty(self, label: str) -> None:
        """A person empties a file, and means it."""
        if (self.rig.root / path_of(label)).exists():
            self._put(label, b"", 0)

    @rule(label=files)
    def remove(self, label: str) -> None:
        path = self.rig.root / path_of(label)
        if path.exists():
            self._leave_open(label)
            path.unlink()
            self._note_removal(label)

    @rule(label=files, to=files, how=st.integers(0, 3))
    def move(self, label: str, to: str, how: int) -> None:
        """A person renames a file, over another one perhaps; or a program makes the same file under another name."""
        path, target = self.rig.root / path_of(label), self.rig.root / path_of(to)
        if path.exists() and path != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            data, mode = path.read_bytes(), path.stat().st_mode & 0o777
            self._leave_open(label)
            self._leave_open(to)
            if how & 1:
                path.unlink()
                target.write_bytes(data)
                target.chmod(mode)
            else:
                path.rename(target)
            self._note_removal(label)
            self._note_save(to, Save(data, time.time(), mode))
            if how & 2:
                self.rig.core.intake.hint_file(path_of(to), closed=True)

    @rule(label=labels, to=labels, is_told=st.booleans(), rounds=st.integers(0, 2))
    def move_and_wait(self, label: str, to: str, rounds: int, *, is_told: bool) -> None:
        """A file that nobody has touched for a while is moved."""
        self.rounds(2)
        self.move(label, to, 2 * is_told)
        for _ in range(rounds):
            self.rig.clock.advance(0.03)
            self._round()

    @rule(label=labels, to=labels, how=st.integers(0, 3), is_down=st.booleans())
    def move_at_rest(self, label: str, to: str, how: int, *, is_down: bool) -> None:
        """A file that is in force is moved to a free name, while the daemon runs or not: its block has that label then."""
        if label != to:
            self.remove(to)
        self._rest()
        state, problems, path = self.rig.core.state, self.rig.core.problems, path_of(label)
        is_taken = any(clash_key(other) == clash_key(to) for other in state.paths if other != label)
        if label == to or is_taken or state.paths.get(label) != path or path in problems:
            return
        if not (self.rig.root / path).exists():
            return  # it was moved before, to a name under which it is a problem
        data = (self.rig.root / path).read_bytes()
        block, seq = block_of(to, data), self.rig.journal.seq
        is_of_two_agents = len({owner(one) for one in (label, to)} - {None}) > 1
        if block is None or (how & 1 and (is_of_two_agents or not block.value)):
            return
        if is_down:
            self.rig.crash()
        self.move(label, to, how)
        if is_down:
            self._come_back()
        self._rest()
        happened = [one for one in self.rig.journal.since(seq, 1_000_000) if label in (one.label, one.renamed_from)]
        must("moved", happened[:1], label, "was moved to", to, "and nothing happened")
        must("moved", (happened[0].renamed_from, happened[0].label) == (label, to), "moved to", to, "but:", happened[0])

    @rule(label=labels, to=labels, rounds=st.integers(0, 1))
    def swap(self, label: str, to: str, rounds: int) -> None:
        """Two files get each other's name, by way of a third."""
        if label != to and all((self.rig.root / path_of(one)).exists() for one in (label, to)):
            for old, new in ((label, "between"), (to, label), ("between", to)):
                self.move(old, new, 2)
                self.rounds(rounds)

    @rule(label=files, to=files)
    def copy(self, label: str, to: str) -> None:
        path = self.rig.root / path_of(label)
        if path.exists():
            self._put(to, path.read_bytes(), 0)

    @rule(label=properties, said=st.sampled_from(SAID), how=st.integers(0, 7))
    def say(self, label: str, said: str, how: int) -> None:
        """A person says anew who an agent is."""
        self._put(label, said.format(self._token("p")).encode(), how)

    # --- agents and operators ---

    @rule(label=labels, actor=actors)
    def append(self, label: str, actor: str) -> None:
        self._ask("append", label, actor, content=self._token())

    @rule(label=labels, actor=actors)
    def append_and_wait(self, label: str, actor: str) -> None:
        self.append(label, actor)
        self.rounds(2)

    @rule(label=labels, actor=actors, count=st.integers(2, 5))
    def append_many(self, label: str, actor: str, count: int) -> None:
        for _ in range(count):
            self.append(label, actor)

    @rule(label=labels)
    def look(self, label: str) -> None:
        """A client reads a block, for a later update."""
        head = self.rig.journal.head(label)
        if head is not None and head.block is not None:
            self.read[label] = (head.version, head.block.value)

    @rule(which=short, actor=actors, on_conflict=st.sampled_from(("fail", "merge", "overwrite", "merge")))
    def update(self, which: int, actor: str, on_conflict: str) -> None:
        if not self.read:
            return
        label = sorted(self.read)[which % len(self.read)]
        version, value = self.read[label]
        given = "\n".join([*lines_of(value), self._token()])
        self._ask("update", label, actor, expect=version, on_conflict=on_conflict, value=given)

    @rule(label=labels, actor=actors, line=st.integers(-1, 4), on_conflict=conflicts)
    def insert(self, label: str, actor: str, line: int, on_conflict: str | None) -> None:
        self._edit("insert", label, actor, on_conflict, content=self._token(), line=line)

    @rule(
        label=labels,
        actor=actors,
        at=short,
        which=st.sampled_from(("line", "lines", "middle", "end")),
        on_conflict=conflicts,
    )
    def replace(self, label: str, actor: str, at: int, which: str, on_conflict: str | None) -> None:
        """A client replaces what it has read; part of a line may be in others, too, and in one of them twice."""
        lines = lines_of(self._seen(label)[1]) or ["nothing"]
        at %= len(lines)
        found = {"lines": "\n".join(lines[at : at + 2]), "middle": lines[at][2:4], "end": lines[at][3:]}
        old = found.get(which, lines[at])
        new = f"<{self._token()}>" if which in ("middle", "end") else self._token()
        self._edit("replace", label, actor, on_conflict, old_content=old, new_content=new)

    @rule(
        label=labels,
        actor=actors,
        at=short,
        removes=st.integers(0, 2),
        context=st.integers(0, 2),
        on_conflict=conflicts,
    )
    def patch(self, label: str, actor: str, at: int, removes: int, context: int, on_conflict: str | None) -> None:
        """A client changes what it has read in one place and at its end, and says so by a unified diff."""
        old = lines_of(self._seen(label)[1])
        at %= len(old) + 1
        new = [*old[:at], self._token(), *old[at + removes :], self._token()]
        groups = difflib.SequenceMatcher(None, old, new).get_grouped_opcodes(context)
        ranges = [(group[0][1], group[-1][2], group[0][3], group[-1][4]) for group in groups]
        hunks = [Hunk(start, old[start:end], new[from_:to]) for start, end, from_, to in ranges]
        text = "\n".join(difflib.unified_diff(old, new, lineterm="", n=context))
        self._edit("patch", label, actor, on_conflict, patch=text).hunks = hunks

    @rule(label=labels, is_of_now=st.booleans(), tells_base=st.booleans())
    def save_elsewhere(self, label: str, *, is_of_now: bool, tells_base: bool) -> None:
        """A person on another host adds a line to a file, which is there as the mirror shows it, or showed it a while ago."""
        fields = self.raw.hgetall(f"{self.rig.namespace}:block:{label}")
        if fields and (is_of_now or label not in self.copies):
            self.copies[label] = int(fields["version"]), form_shown(fields).data(fields["value"])
        version, data = self.copies.get(label, (0, b""))
        start = "" if not data or data.endswith((b"\n", b"\r")) else "\n"
        text = f"{data.decode()}{start}{self._token()}\n"
        base: dict[str, Any] = {"base": digest(data)} if tells_base else {}
        self._ask("save", label, "operator", file=text, version=version, **base)

    @rule(label=labels, actor=actors)
    def create(self, label: str, actor: str) -> None:
        self._ask("create", label, actor, value=self._token())

    @rule(label=labels, actor=actors, op=st.sampled_from(("delete", "undo", "redo", "undo")))
    def plain(self, label: str, actor: str, op: str) -> None:
        self._ask(op, label, actor)

    @rule(label=labels, version=st.integers(1, 6))
    def restore(self, label: str, version: int) -> None:
        self._ask("restore", label, "operator", version=version)

    @rule(label=labels, actor=actors, version=st.sampled_from((None, None, 2, 3, 4)))
    def merge(self, label: str, actor: str, version: int | None) -> None:
        """What a save took away is asked for, or what some version brought."""
        args: dict[str, Any] = {"version": version} if version is not None else {}
        self._ask("merge", label, actor, **args)

    @rule(which=short)
    def bring_back(self, which: int) -> None:
        """A block that was deleted is restored as it was before."""
        heads = [self.rig.journal.head(head.label) for head in sorted(self.rig.journal.heads()) if head.path is None]
        gone = [head for head in heads if head is not None and head.block is None]
        if gone:
            newest = gone[which % len(gone)]
            self._ask("restore", newest.label, "operator", version=newest.version - 1)

    @rule(label=labels, to=labels, actor=actors)
    def rename(self, label: str, to: str, actor: str) -> None:
        self._ask("rename", label, actor, to=_name(to) if actor != "operator" else to)

    @rule(label=labels, agent=st.sampled_from(("ann", "bob", "cyd")), op=st.sampled_from(("attach", "detach")))
    def attach(self, label: str, agent: str, op: str) -> None:
        self._ask(op, label, "operator", agents=[agent])

    @rule(some=st.sets(labels, min_size=1, max_size=3))
    def batch(self, some: set[str]) -> None:
        """Appends to several blocks: all or none."""
        parts = [{"op": "append", "label": label, "args": {"content": self._token()}} for label in sorted(some)]
        self._ask("batch", "", "operator", requests=parts)

    @rule(agent=agents, blocks=names, attach=st.sets(st.sampled_from(SHARED), max_size=2), said=st.none() | facts)
    def create_agent(
        self, agent: str, blocks: tuple[str, ...] | None, attach: set[str], said: dict[str, Any] | None = None
    ) -> None:
        about = self._about(agent, blocks, attach)
        if said is not None:
            about["properties"] = self._with_tokens(said)
        self._ask("create_agent", "", "operator", **about)

    @rule(label=properties, said=facts)
    def update_agent(self, label: str, said: dict[str, Any]) -> None:
        asked = self._ask("update_agent", "", "operator", agent=owner(label), **self._with_tokens(said))
        asked.labels = {label}

    @rule(
        label=properties,
        actor=st.sampled_from(("operator", "operator", "operator", "ann")),
        op=st.sampled_from(("undo", "redo", "undo", "restore", "merge")),
        version=st.integers(1, 6),
    )
    def bring_properties_back(self, label: str, actor: str, op: str, version: int) -> None:
        args: dict[str, Any] = {"version": version} if op == "restore" else {}
        self._ask(op, label, actor, **args)

    @rule(label=properties, said=facts, how=st.integers(0, 7))
    def say_what_was_read_before(self, label: str, said: dict[str, Any], how: int) -> None:
        """A person adds to a text that was read before others changed it."""
        self.open_in_editor(label)
        self.update_agent(label, said)
        self.rounds(2)
        if label in self.buffers:
            self._add_to(label, self.buffers.pop(label), how)
            self.rounds(2)

    @rule(label=properties, said=facts, how=st.integers(0, 7), is_new=st.booleans())
    def say_at_the_last_moment(self, label: str, said: dict[str, Any], how: int, *, is_new: bool) -> None:
        """A person says who an agent is, or no longer says it, right before the daemon puts its file in place."""
        self.update_agent(label, said)
        self.hands.before_renaming(
            lambda: self.say(label, SAID[how % len(SAID)], how) if is_new else self.remove(label)
        )
        self._round()
        self.hands.forget()

    @rule(agent=agents)
    def delete_agent(self, agent: str) -> None:
        self._ask("delete_agent", "", "operator", agent=agent)

    @rule(agent=agents, blocks=names, attach=st.sets(st.sampled_from(SHARED), max_size=1), is_for_good=st.booleans())
    def make_agent_anew(
        self, agent: str, blocks: tuple[str, ...] | None, attach: set[str], *, is_for_good: bool
    ) -> None:
        """An agent is deleted and created again at once, or created and deleted."""
        parts = [
            {"op": "delete_agent", "args": {"agent": agent}},
            {"op": "create_agent", "args": self._about(agent, blocks, attach)},
        ]
        self._ask("batch", "", "operator", requests=parts if is_for_good else parts[::-1])

    @rule(which=st.integers(0, 3))
    def repeat(self, which: int) -> None:
        """A client that missed the reply, or is not sure, sends a request once more."""
        for asked in list(self.memory.asked.values())[-1 - which : len(self.memory.asked) - which]:
            self._send(asked)

    # --- the daemon ---

    @rule(count=st.integers(1, 4))
    def rounds(self, count: int) -> None:
        for _ in range(count):
            self._round()

    @rule(at=short, label=labels, act=st.sampled_from(("add", "remove", "spoil", "buffer", "ask")))
    def meanwhile(self, at: int, label: str, act: str) -> None:
        """In the middle of a round a person does something."""

        def happens() -> None:
            if act == "add":
                self.add(label, at)
            elif act == "remove":
                self.remove(label)
            elif act == "spoil":
                self.spoil(label, _INVALID[0], at)
            elif act == "buffer":
                self.save_from_editor(at, at, is_kept=True)
            else:
                self.append(label, "operator")

        self._round(at, happens)

    @rule(label=labels, to=labels, act=st.sampled_from(("add", "remove", "spoil", "move")), how=st.integers(0, 7))
    def at_the_last_moment(self, label: str, to: str, act: str, how: int) -> None:
        """A person does something right before a file is put in another's place."""

        def happens() -> None:
            if act == "add":
                self.add(label, how)
            elif act == "remove":
                self.remove(label)
            elif act == "spoil":
                self.spoil(label, _INVALID[1], how)
            else:
                self.move(to, label, how & 2)

        self.append(label, "operator")
        self.hands.before_renaming(happens)
        self._round()
        self.hands.forget()

    @rule()
    def long_ago(self) -> None:
        """What is written in this round was written a while ago."""
        self.rig.wall_offset = -100.0
        self._round()
        self.rig.wall_offset = 0.0

    @rule(seconds=st.sampled_from((0.05, 1.5, 70.0)))
    def wait(self, seconds: float) -> None:
        self.rig.clock.advance(seconds)
        self._round()

    @rule(at=short)
    def crash_before_effect(self, at: int) -> None:
        """kill -9, between two durable effects of a round."""

        def die() -> None:
            raise Killed

        self._round(at, die)

    @rule(effect=st.sampled_from(EFFECTS), count=st.integers(1, 3))
    def kill_before_effect(self, effect: str, count: int) -> None:
        """kill -9 of a process that has the daemon's part meanwhile, before its n-th effect of a kind; at rest, if it comes
        to none.
        """
        self.rig.crash()
        pid = os.fork()
        if not pid:
            self.hands.disk = self.hands.log = None
            try:
                if self._comes_to(effect, count):
                    os.kill(os.getpid(), signal.SIGKILL)
                os._exit(0)
            finally:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        must("lives", os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL), "until it is killed")
        if self.hands.disk is not None:
            self.hands.disk.settle()  # nobody knows what that process has synced
        if status:
            self.killed_before.add(effect)
        self._come_back()
        self._just_done()
        self._collect()

    def _comes_to(self, effect: str, count: int) -> bool:
        """The life of that process: a few rounds, with connections of its own."""
        self._come_back()
        rig = self.rig
        for _ in range(_ROUNDS_LIVED):
            self._pass_on(rig.client)
            for name in rig.core.round():
                count -= name == effect
                if not count:
                    return True
            rig.clock.advance(rig.core.wait_seconds())
        return False

    @rule(calls=st.integers(0, 15))
    def crash_while_writing(self, calls: int) -> None:
        """kill -9, between two calls by which files are written."""
        self.hands.kill_in(calls)
        self._round()
        self.hands.forget()

    # --- mishaps ---

    @rule(calls=short, rounds=st.integers(1, 2))
    def fill_disk(self, calls: int, rounds: int) -> None:
        self.hands.fail_in(calls)
        self.rounds(rounds)
        self.hands.forget()

    @rule(
        name=st.sampled_from(CALLS),
        calls=short,
        error=st.sampled_from(ERRORS),
        count=st.sampled_from((1, 1, 3, None)),
        rounds=st.integers(1, 2),
    )
    def fail_calls(self, name: str, calls: int, error: int, count: int | None, rounds: int) -> None:
        """One system call on the folder fails, once or for a while, in clean-up and everywhere."""
        self.hands.fail_in(calls, error, names=(name,), count=count)
        self.rounds(rounds)
        self.hands.forget()

    @rule(seed=st.integers(0, 1000), percent=st.sampled_from((1, 5, 20)), rounds=st.integers(1, 3))
    def fail_some_calls(self, seed: int, percent: int, rounds: int) -> None:
        """Some of all calls fail: on the folder, of the journal, and of the server."""
        self.hands.fail_at_rate(percent / 100, seed)
        self.rounds(rounds)
        self.hands.forget()

    @rule(name=st.sampled_from(CALLS), calls=short, error=st.sampled_from(ERRORS), after=st.integers(0, 20))
    def fail_at_start(self, name: str, calls: int, error: int, after: int) -> None:
        """The process dies, and while the next one recovers what it left, a call on the folder fails."""
        self.hands.kill_in(after)
        self._round()
        self.rig.crash()
        self.hands.revive()
        self.memory.note_death()
        self.hands.fail_in(calls, error, names=(name,), count=None)
        self._open()
        self._round()
        self.hands.forget()

    @rule(statements=st.integers(0, 40), which=st.integers(0, 2), rounds=st.integers(1, 2))
    def fail_statement(self, statements: int, which: int, rounds: int) -> None:
        self.hands.fail_statement_in(statements, which)
        self.rounds(rounds)
        self.hands.forget()

    @rule(answers=st.integers(0, 6), which=st.integers(0, 5))
    def fail_answer(self, answers: int, which: int) -> None:
        """The server fails a command, or its answer does not arrive."""
        self.hands.fail_answer_in(answers, which)
        self._round()
        self.hands.forget()

    @rule(transactions=st.integers(0, 3), rounds=st.integers(1, 3))
    def fill_disk_of_journal(self, transactions: int, rounds: int) -> None:
        self.hands.fail_journal_in(transactions)
        self.rounds(rounds)
        self.hands.forget()

    @rule(rounds=st.integers(1, 3))
    def forbid_renaming(self, rounds: int) -> None:
        self.hands.hold_still()
        self.rounds(rounds)
        self.hands.forget()

    @rule(label=labels, actor=actors, how=st.integers(0, 3), count=st.integers(1, 3))
    def save_what_was_read_before(self, label: str, actor: str, how: int, count: int) -> None:
        """A person saves a text that was read before others added to it."""
        self.open_in_editor(label)
        for _ in range(count):
            self.append_and_wait(label, actor)
        if label in self.buffers:
            self._add_to(label, self.buffers.pop(label), how)
            self.rounds(2)

    @rule(label=files)
    def hold_open(self, label: str) -> None:
        """A program has a file open for writing, and lets it be."""
        path = self.rig.root / path_of(label)
        if path.exists() and label not in self.held:
            self.held[label] = path.open("rb+")

    @rule(label=files)
    def write_to_what_is_open(self, label: str) -> None:
        """A program that has held a file open for a while writes to it."""
        held, path = self.held.get(label), self.rig.root / path_of(label)
        if held is None:
            return
        held.seek(0, os.SEEK_END)
        line = self._with_a_line(label, b"")
        held.write(line)
        held.flush()
        data = path.read_bytes()
        must("open writer", line in data, path, "was exchanged under a program that had it open")
        self._note_save(label, Save(data, time.time(), path.stat().st_mode & 0o777))
        self.rig.core.intake.hint_file(path_of(label), closed=False)

    @rule(label=files, effect=st.sampled_from(("project", "clear away")), is_killed=st.booleans())
    def save_to_what_is_displaced(self, label: str, effect: str, *, is_killed: bool) -> None:
        """A program of which nobody can tell that it has a file open saves to it once the file is displaced."""
        path = self.rig.root / path_of(label)
        if not path.exists() or self.held:
            return
        if label in PROPERTIES:
            self.update_agent(label, {"system": "@"})
        else:
            self.append(label, "operator")
        with path.open("rb+") as held:

            def happens() -> None:
                asides = path.parent.glob(f"{TEMPORARY}*")
                if not any(os.path.samestat(os.fstat(held.fileno()), aside.stat()) for aside in asides):
                    return
                said = SAID[0].format(self._token("p")).encode() if label in PROPERTIES else b""
                data = said or self._with_a_line(label, held.read())
                held.seek(0)
                held.truncate()
                held.write(data)
                held.flush()
                self._note_save(label, Save(data, time.time(), os.fstat(held.fileno()).st_mode & 0o777))
                if is_killed:
                    raise Killed

            self.hands.is_blind = True
            self._round(effect, happens)
            self.hands.is_blind = False

    def _leave_open(self, label: str) -> None:
        """The file that a program has open is no longer the one that is there."""
        if label in self.held:
            self.held.pop(label).close()

    def take_folder_away(self, label: str, rounds: int, *, is_replaced: bool) -> None:
        """The folder is elsewhere for a while, and perhaps another is in its place: neither is written to."""
        root, elsewhere = self.rig.root, self.home / "elsewhere"
        root.rename(elsewhere)
        if is_replaced:
            root.mkdir()
        before = _contents(elsewhere)
        self.append(label, "operator")
        self.create("agents/ann/persona", "operator")
        for _ in range(rounds):
            self._pass_on(self.raw)
            self._live_a_round()
            self.rig.clock.advance(1.5)
        must("boundary", _contents(elsewhere) == before, "the folder was written to, which was not there")
        must("boundary", not is_replaced or not os.listdir(root), "a folder was written to that took the other's place")
        if is_replaced:
            root.rmdir()
        elsewhere.rename(root)
        self._collect()
        self.rounds(1)
        self.rig.core.intake.deletions.accept()  # what was missing before is really gone: an operator says so

    def link_directory(self, actor: str, rounds: int) -> None:
        """A person moves a directory elsewhere, and puts a symlink in its place: nothing is done through it."""
        directory, elsewhere = self.rig.root / "team", self.home / "team"
        for path in directory.glob("*.md"):
            self._note_removal(f"team/{path.stem}")
        directory.rename(elsewhere)
        directory.symlink_to(elsewhere)
        before = _contents(elsewhere)
        for _ in range(rounds):
            self.append("team/goals", actor)
            self.create("team/goals", actor)
            self.plain("team/goals", actor, "delete")
            self._round()
            self.rig.clock.advance(1.5)
        must("boundary", _contents(elsewhere) == before, "something was done through a symlink")
        directory.unlink()
        shutil.rmtree(elsewhere)
        self.rig.core.intake.hint_all()

    @rule(label=files)
    def make_unreadable(self, label: str) -> None:
        self._folder.unreadable.symmetric_difference_update({path_of(label)})
        self.rig.core.intake.hint_file(path_of(label), closed=True)

    @rule()
    def empty_redis(self) -> None:
        self.raw.flushall()
        self._lose()

    @rule()
    def take_snapshot(self) -> None:
        keys = list(self.raw.scan_iter("*"))
        self.dump = {key: self._bytes.dump(key) for key in keys if not key.endswith(":lease")}

    @rule()
    def restore_snapshot(self) -> None:
        """Redis comes back as it was a while ago."""
        if not self.dump:
            return
        self.raw.flushall()
        for key, data in self.dump.items():
            self._bytes.restore(key, 0, data, replace=True)
        self._lose()

    @rule(rounds=st.integers(1, 3))
    def cut_redis_off(self, rounds: int) -> None:
        ours = {self.raw.client_id(), self._bytes.client_id()}
        socket = self.server.socket
        away = socket.with_suffix(".away")
        socket.rename(away)
        for number in {int(client["id"]) for client in self.raw.client_list()} - ours:
            self.raw.client_kill_filter(_id=number)
        try:
            self.rounds(rounds)
        finally:
            away.rename(socket)

    # --- rest ---

    @rule()
    def rest(self) -> None:
        """All is well beneath the daemon, and nobody does anything: soon it has done all it was asked, and nothing more."""
        self._rest()
        before = self._everything()
        self.rig.clock.advance(self.rig.config.resync_seconds + 1)
        for _ in range(3):
            self._round()
        self._rest()
        after = self._everything()
        for name, thing in before.items():
            must("quiet", after[name] == thing, name, "changed, though nothing had happened")

    def teardown(self) -> None:
        try:
            self.rest()
        finally:
            self.close()

    def close(self) -> None:
        self.rig.crash()
        self.raw.close()
        self._bytes.close()
        for held in self.held.values():
            held.close()
        shutil.rmtree(self.home)

    def _rest(self) -> None:
        self.hands.forget()
        for path in sorted(self._folder.unreadable):
            self.rig.core.intake.hint_file(path, closed=True)
        self._folder.unreadable.clear()
        for held in self.held.values():
            held.close()
        self.held.clear()
        self.rig.core.intake.hint_all()  # not all that people did was noticed
        if any(problem.code == "left" for problem in self.rig.core.problems.values()):
            self.rig.clock.advance(self.rig.config.resync_seconds + 1)  # then it is tried again
        rig, end = self.rig, self.rig.clock() + 2.5
        in_doubt: set[str] = set()  # files that may hold half of a save: what each says is taken in a round later
        worked, unheard, compared, counted, told = 0, list[Asked](), 0, 0, 0
        seq, repaired = rig.journal.seq, self._repaired()
        # A request that was begun and not ended twice is done alone, lest it is what ends the daemon: a round for each, and
        # one more for the requests of others that come before it.
        alone = 2 * sum(count >= ATTEMPTS - 1 for count in rig.core._started.counts.values())
        while True:
            for asked in self._unanswered():
                if asked.may_be_lost and not self._is_waiting(asked):
                    self._send(asked)  # as clients do that get no reply
            unheard += (one for one in self.memory.asked.values() if not (one.is_answered or self._hears(one)))
            before, problems = self._done(), rig.core.problems.changes
            due = {work for work, at in rig.core.schedule.items() if at <= rig.clock()}
            is_compared = rig.core.projector.verifier.is_due or (
                bool(due) and due <= {"retention", "scrub", "roots", "merges", "sources"}
            )
            self._round()
            in_doubt.update(rig.core.intake._queue.halves)
            after = self._done()
            is_found_lost = after[:3] == before[:3] and before[-1] and not after[-1]  # the mirror: that is no work yet
            has_worked, has_told = after != before and not is_found_lost, rig.core.problems.changes != problems
            worked += has_worked
            told += has_told and not has_worked  # of a file whose label a decision of the round before has set free
            compared += is_compared and not has_worked
            counted += has_worked or not is_compared
            rig.clock.advance(rig.core.wait_seconds())
            # What may be a late save, and cannot be put back, is looked at once a second until a person removes it.
            is_tidy = rig.core.schedule["tidy"] == float("inf") or bool(rig.core._intents.kept)
            is_idle = not rig.core.inbox.is_waiting and is_tidy
            if rig.clock() > end and rig.is_settled() and is_idle and not self._unanswered():
                break
            if counted >= MOST_ROUNDS_AT_ALL + alone or compared > MOST_SLICES:
                missing = self._unanswered()
                facts = list(rig.core.problems.values()), rig.heard.away, missing
                raise Broken("replied" if missing else "rest", f"after {counted} and {compared} rounds:", *facts)
        check(rig, self.raw, self.memory)
        # A file whose label another has comes into force in the round after the one that decided that the other is gone.
        most = (
            MOST_ROUNDS + alone + self._has_set_free(seq) + any(asked.is_answered for asked in unheard) + len(in_doubt)
        )
        # A file that was repaired is read again in the next round, which finds that it has no problem.
        most += self._repaired() > repaired
        must("few rounds", worked <= most, "something was done in", worked, "rounds")
        must("few rounds", told <= 1, "problems came and went in", told, "rounds more")

    def _repaired(self) -> int:
        """How many replies have told that a file was repaired."""
        return sum("rejected" in str(reply) for asked in self.memory.asked.values() for reply in asked.replies)

    def _has_set_free(self, seq: int) -> bool:
        """Return True if a block came into force since `seq` under a label that is another spelling of a deleted one."""
        deleted: dict[str, str] = {}
        for one in self.rig.journal.since(seq, 1_000_000):
            if one.kind == "deleted":
                deleted[one.label.lower()] = one.label
            elif one.kind == "created" and deleted.get(one.label.lower(), one.label) != one.label:
                return True
        return False

    def _unanswered(self) -> list[Asked]:
        """The requests that are to be replied to: nobody listens to who is not known."""
        return [asked for asked in self.memory.asked.values() if not asked.is_answered and self._hears(asked)]

    def _hears(self, asked: Asked) -> bool:
        return asked.actor in self._listened_to()

    def _listened_to(self) -> frozenset[str]:
        return self.rig.core.state.attachments.known | {OPERATOR}

    def _done(self) -> tuple[Any, ...]:
        """What is another after each round in which anything was done."""
        core = self.rig.core
        replies = sum(len(asked.replies) for asked in self.memory.asked.values())
        sweeps = core.intake.scanner.sweeps
        return self.rig.journal.seq, replies, sweeps, self.rig.mirror.place, core.projector.is_in_sync

    def _everything(self) -> dict[str, Any]:
        files = {}
        for directory, _, names in os.walk(self.rig.root):
            for name in names:
                status = os.stat(os.path.join(directory, name))
                files[os.path.join(directory, name)] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        said = self.raw.xrange(f"{self.rig.namespace}:changes")
        known, problems = self.rig.core.state.attachments.known, set(self.rig.core.problems)
        seen = {"problems": problems, "agents": known}
        return {"journal": self.rig.journal.seq, "folder": files, "stream": said, **seen}

    # --- how it is done ---

    @property
    def _folder(self) -> Any:
        return self.rig.core.intake._folder

    def _round(self, at: int | str = -1, happens: Callable[[], None] | None = None) -> None:
        """What has come into the inboxes is passed on; then a round, in which something may happen before an effect."""
        rig, folders, seq = self.rig, private_folders(self.rig), self.rig.journal.seq
        files = private_files(rig)
        failed = len(self.hands.failed)
        self._pass_on(self.raw)
        try:
            self._live_a_round(at, happens)
        except Killed:
            rig.crash()
            self._come_back()
        rig.clock.advance(0.001)
        for new in range(seq + 1, rig.journal.seq + 1):
            self.memory.clock[new] = rig.clock()
        done = self._just_done()
        can_remove = _KEEPING_FOLDERS.isdisjoint(self.hands.failed[failed:])
        check_folders(rig, folders, files, seq, done, self.memory, can_remove=can_remove)
        self._collect()

    def _live_a_round(self, at: int | str = -1, happens: Callable[[], None] | None = None) -> None:
        core = self.rig.core
        try:
            with self.hands.at_work():
                for number, effect in enumerate(core.round()):
                    self.hands.live()
                    if at in (number, effect) and happens is not None:
                        with self.hands.at_work(is_so=False):
                            happens()
        except (Broken, Killed):
            raise
        except Exception as error:
            raise Broken("lives", repr(error)) from error
        if core.failures.unexpected is not None:
            raise Broken("no unforeseen error", repr(core.failures.unexpected)) from core.failures.unexpected

    def _come_back(self) -> None:
        """After a crash: another daemon, of the same journal; what cannot be read still cannot."""
        unreadable = self._folder.unreadable
        self.hands.revive()
        self.memory.note_death()
        self._open()
        self._folder.unreadable |= unreadable

    def _open(self) -> None:
        try:
            with self.hands.at_work():
                self.rig.open()
        except Exception as error:
            raise Broken("lives", "at its start:", repr(error)) from error

    def _pass_on(self, client: Any) -> None:
        """What has come into the inboxes of those that are listened to."""
        for actor in sorted(self._listened_to().intersection(ACTORS)):
            entries = client.xrange(f"{self.rig.namespace}:inbox:{actor}")
            self.rig.core.inbox.add(Entry(actor, entry_id, fields.get("request")) for entry_id, fields in entries)

    def _just_done(self) -> list[Asked]:
        """What was asked about agents and was done in this round, in order."""
        kept = Results(self.rig.journal.database)
        outcomes = {asked.id: kept.outcome_of(asked.actor, asked.id) for asked in self.undecided}
        decided = [asked for asked in self.undecided if outcomes[asked.id] is not None]
        self.undecided = [asked for asked in self.undecided if outcomes[asked.id] is None]
        done = [asked for asked in decided if json.loads(outcomes[asked.id] or "")["ok"]]
        deleted = {part["args"]["agent"] for one in done for part in agent_parts(one) if part["op"] == "delete_agent"}
        self.deleted |= deleted
        for asked in self.memory.asked.values():  # what waits in the inbox of an agent that is deleted goes with it
            asked.may_be_lost |= asked.actor in deleted
        return done

    def _collect(self) -> None:
        for key in self.raw.scan_iter(f"{self.rig.namespace}:reply:*"):
            (text,) = self.raw.lrange(key, 0, -1)
            self.raw.delete(key)
            reply = json.loads(text)
            asked = self.memory.asked[key.rpartition(":")[2]]
            if reply["ok"] or reply["error"]["code"] != "unavailable":
                asked.until = asked.until if asked.replies else self.rig.journal.seq
                asked.replies.append(text)
            else:
                asked.may_be_lost = True

    def _ask(
        self,
        op: str,
        label: str,
        actor: str,
        *,
        expect: int | None = None,
        on_conflict: str | None = None,
        **args: Any,
    ) -> Asked:
        number = f"r{len(self.memory.asked) + 1}"
        request: dict[str, Any] = {"id": number, "op": op, "args": args}
        if label:
            request |= {"label": label} if actor == OPERATOR else {"name": _name(label)}
        if expect is not None:
            request |= {"expect": {"version": expect}, "on_conflict": on_conflict}
        meant = {label} if actor == OPERATOR else {_name(label), f"agents/{actor}/{_name(label)}"}
        asked = Asked(number, actor, op, meant, json.dumps(request), args, self.rig.journal.seq)
        asked.expect, asked.on_conflict = expect, on_conflict
        self.memory.asked[number] = asked
        if agent_parts(asked):
            self.undecided.append(asked)
        self._send(asked)
        return asked

    def _edit(self, op: str, label: str, actor: str, on_conflict: str | None, **args: Any) -> Asked:
        """Ask for a change of what is there by now, or of what was read."""
        version = self._seen(label)[0] if on_conflict is not None else None
        return self._ask(op, label, actor, expect=version, on_conflict=on_conflict, **args)

    def _seen(self, label: str) -> tuple[int, str]:
        """The version and the value that a client has read, a while ago or just now."""
        if label not in self.read:
            self.look(label)
        return self.read.get(label, (0, ""))

    def _about(self, agent: str, blocks: tuple[str, ...] | None, attach: set[str]) -> dict[str, Any]:
        """What is to be said of an agent that is to be created."""
        given = [{"name": name, "value": self._token()} for name in blocks or ()]
        return {"agent": agent, "attach": sorted(attach), **({"blocks": given} if blocks is not None else {})}

    def _with_tokens(self, said: dict[str, Any]) -> dict[str, Any]:
        """Properties with something that is there once in the place of each `@`."""
        given: dict[str, Any] = json.loads(json.dumps(said).replace("@", self._token()))
        return given

    def _send(self, asked: Asked) -> None:
        asked.may_be_lost |= asked.actor in self.deleted and not self._hears(asked)
        self.raw.xadd(f"{self.rig.namespace}:inbox:{asked.actor}", {"request": asked.text})

    def _lose(self) -> None:
        for asked in self.memory.asked.values():
            asked.may_be_lost = True

    def _is_waiting(self, asked: Asked) -> bool:
        entries = self.raw.xrange(f"{self.rig.namespace}:inbox:{asked.actor}")
        return any(fields["request"] == asked.text for _, fields in entries)

    def _token(self, kind: str = "t") -> str:
        return f"{kind}{next(self.tokens):04}"

    def _with_a_line(self, label: str, data: bytes) -> bytes:
        """A file with a line more; that of an agent's properties with one that no request changes, or a key of no meaning."""
        newline = b"\r\n" if b"\r\n" in data else b"\n"
        start = b"" if not data or data.endswith(b"\n") else newline
        line = self._token("p")
        if label in PROPERTIES:
            line = f"{line}: kept" if b"agent_type" in data else f"agent_type: {line}"
        return data + start + line.encode() + newline

    def _add_to(self, label: str, data: bytes, how: int) -> bytes:
        added = self._with_a_line(label, data)
        self._put(label, added, how, read=data if block_of(label, data) is not None else None)
        return added

    def _put(self, label: str, data: bytes, how: int, *, read: bytes | None = None) -> None:
        """Save, in place or by renaming; in private or not; noticed at once or not."""
        path = self.rig.root / path_of(label)
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o600 if how & 1 else 0o644
        target = path.with_name(f".{path.name}.swp") if how & 2 or not path.exists() else path
        if target != path:
            self._leave_open(label)
        target.write_bytes(data)
        target.chmod(mode)
        target.replace(path)
        self._note_save(label, Save(data, time.time(), mode, read))
        if not how & 4:
            self.rig.core.intake.hint_file(path_of(label), closed=True)

    def _note_save(self, label: str, save: Save) -> None:
        self.memory.saves.setdefault(path_of(label), []).append(save)
        self.memory.last[path_of(label)] = save

    def _note_removal(self, label: str) -> None:
        self.memory.removed.add(label)
        self.memory.last[path_of(label)] = None
        self.rig.core.intake.hint_file(path_of(label), closed=False)


def _contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def _name(label: str) -> str:
    """What an agent calls a block."""
    return label.split("/", 2)[2] if label.startswith("agents/") else label
