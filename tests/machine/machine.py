"""A whole daemon, people, agents and mishaps, one small step after the other, in whatever order hypothesis likes."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from blocksd.inbox import Entry
from machine.audit import Asked, Memory, Save, block_of, check, path_of
from machine.hands import Hands, Killed, Moody
from rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import RedisServer

LABELS = ("notes", "plan", "Plan", "team/goals", "agents/ann/persona")
ACTORS = ("operator", "ann", "bob")
ANCHOR = "anchor"
"""A block that is never touched: as long as it is there, missing files are deletions, and both agents are known."""

MOST_ROUNDS = 60
"""How many rounds a daemon may need to come to rest, whatever was done to it."""

HEADS = (
    "---\nagents: [ann, bob]\n---\n",
    '---\n# by hand\nlimit: 5000\ndescription: \'what we "know"\'   # for now\nagents: [ ann, "bob" ]\n---\n',
    "\ufeff---\r\ntags: [a, 'b']\r\nagents:\r\n  - ann\r\n# end\r\n---\r\n",
    "---\nmetadata: {owner: ops}\nagents: [b*]\n---\n\n",
    "",
)
_INVALID = (
    b"---\nlimit: [\n---\nhalf\n",
    b"caf\xe9\n",
    b"---\nlimit: 5\nnever closed\n",
    b"---\nlimit: 2\n---\nlong\n",
)

labels = st.sampled_from(LABELS)
actors = st.sampled_from(ACTORS)
short = st.integers(0, 12)


class World(RuleBasedStateMachine):
    """What was acknowledged is there once, what was saved is in force or in the history, and then there is rest."""

    server: ClassVar[RedisServer]
    _runs: ClassVar[Any] = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="blocksd-machine-"))
        self.raw: Any = self.server.client()
        self._bytes: Any = self.server.client(decode_responses=False)
        self.raw.flushall()
        self.hands = Hands()
        self._stack = ExitStack()
        self._stack.enter_context(self.hands.on_writer())
        self.memory = Memory()
        for label, head in {ANCHOR: HEADS[0], **dict(zip(LABELS, HEADS[1:], strict=False))}.items():
            path = self.home / "blocks.d" / path_of(label)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(head.encode())
            path.chmod(0o644)
            self.memory.saves[path_of(label)] = [Save(head.encode(), 0.0, 0o644)]
        self.rig = Rig(
            self.home,
            self.server.url,
            namespace=f"run-{next(self._runs)}",
            kind=Moody,
            durability="process",
        )
        self.dump: dict[str, bytes] = {}
        self.buffers: dict[str, bytes] = {}  # what editors hold: path → what they have read
        self.read: dict[str, tuple[int, str]] = {}  # what clients hold: label → version and value
        self.held: dict[str, IO[bytes]] = {}
        self.tokens = itertools.count(1)
        self._opened()
        self._rest()

    # --- people ---

    @rule(label=labels, head=st.sampled_from(HEADS), size=st.integers(0, 2), how=st.integers(0, 7))
    def save(self, label: str, head: str, size: int, how: int) -> None:
        """A person writes a file anew."""
        newline = "\r\n" if "\r" in head else "\n"
        text = head + "".join(f"p{next(self.tokens)}{newline}" for _ in range(size))
        self._put(label, text.encode(), how)

    @rule(label=labels, how=st.integers(0, 7))
    def add(self, label: str, how: int) -> None:
        """A person adds a line to what is there."""
        path = self.rig.root / path_of(label)
        if path.exists():
            self._add_to(label, path.read_bytes(), how)

    @rule(label=labels)
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

    @rule(label=labels, data=st.sampled_from(_INVALID), how=st.integers(0, 7))
    def spoil(self, label: str, data: bytes, how: int) -> None:
        """A person saves what is no block."""
        self._put(label, data, how)

    @rule(label=labels)
    def remove(self, label: str) -> None:
        path = self.rig.root / path_of(label)
        if path.exists():
            path.unlink()
            self._note_removal(label)

    @rule(label=labels, to=labels)
    def move(self, label: str, to: str) -> None:
        """A person renames a file, over another one perhaps."""
        path, target = self.rig.root / path_of(label), self.rig.root / path_of(to)
        if path.exists() and path != target:
            target.parent.mkdir(parents=True, exist_ok=True)
            data, mode = path.read_bytes(), path.stat().st_mode & 0o777
            path.rename(target)
            self._note_removal(label)
            self._note_save(to, Save(data, time.time(), mode))

    @rule(label=labels, to=labels)
    def copy(self, label: str, to: str) -> None:
        path = self.rig.root / path_of(label)
        if path.exists():
            self._put(to, path.read_bytes(), 0)

    # --- agents and operators ---

    @rule(label=labels, actor=actors)
    def append(self, label: str, actor: str) -> None:
        token = self._token()
        self._ask("append", label, actor, token, content=token)

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
        token = self._token()
        given = f"{value}\n{token}" if value else token
        more = {"expect": {"version": version}, "on_conflict": on_conflict}
        asked = self._ask("update", label, actor, token, more, value=given)
        asked.args = {"value": given, "read": value, "on_conflict": on_conflict}

    @rule(label=labels, actor=actors)
    def create(self, label: str, actor: str) -> None:
        token = self._token()
        self._ask("create", label, actor, token, value=token)

    @rule(label=labels, actor=actors, op=st.sampled_from(("delete", "undo", "redo", "undo")))
    def plain(self, label: str, actor: str, op: str) -> None:
        self._ask(op, label, actor)

    @rule(label=labels, version=st.integers(1, 6))
    def restore(self, label: str, version: int) -> None:
        self._ask("restore", label, "operator", version=version)

    @rule(label=labels, to=labels, actor=actors)
    def rename(self, label: str, to: str, actor: str) -> None:
        self._ask("rename", label, actor, to=_name(to) if actor != "operator" else to)

    @rule(label=labels, agent=st.sampled_from(("ann", "bob", "cyd")), op=st.sampled_from(("attach", "detach")))
    def attach(self, label: str, agent: str, op: str) -> None:
        self._ask(op, label, "operator", agents=[agent])

    @rule(some=st.sets(labels, min_size=1, max_size=3))
    def batch(self, some: set[str]) -> None:
        """Appends to several blocks: all or none."""
        tokens = {label: self._token() for label in sorted(some)}
        parts = [{"op": "append", "label": label, "args": {"content": token}} for label, token in tokens.items()]
        self._ask("batch", "", "operator", requests=parts).args = dict(tokens)

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
                self.move(to, label)

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

    @rule(label=labels)
    def hold_open(self, label: str) -> None:
        """A program has a file open for writing, and lets it be."""
        path = self.rig.root / path_of(label)
        if path.exists() and label not in self.held:
            self.held[label] = path.open("rb+")

    @rule(label=labels)
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
            assert after[name] == thing, f"{name} changed, though nothing had happened"

    def teardown(self) -> None:
        try:
            self.rest()
        finally:
            self.close()

    def close(self) -> None:
        self._stack.close()
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
        rig, end = self.rig, self.rig.clock() + 2.5
        for _ in range(MOST_ROUNDS):
            for asked in self.memory.asked.values():
                if asked.may_be_lost and not asked.is_answered and not self._is_waiting(asked):
                    self._send(asked)  # as clients do, that wait in vain
            self._round()
            rig.clock.advance(max(rig.core.wait_seconds(), 0.05))
            is_asked = any(not asked.is_answered for asked in self.memory.asked.values())
            if rig.clock() > end and rig.is_settled() and not is_asked and not rig.core.inbox.is_waiting:
                break
        else:
            missing = [asked for asked in self.memory.asked.values() if not asked.is_answered]
            raise AssertionError(f"no rest after {MOST_ROUNDS} rounds; without a reply: {missing}; {rig.heard.away}")
        check(rig, self.raw, self.memory)

    def _everything(self) -> dict[str, Any]:
        files = {}
        for directory, _, names in os.walk(self.rig.root):
            for name in names:
                status = os.stat(os.path.join(directory, name))
                files[os.path.join(directory, name)] = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        said = self.raw.xrange(f"{self.rig.namespace}:changes")
        problems = set(self.rig.core.intake.problems)
        return {"journal": self.rig.journal.seq, "folder": files, "stream": said, "problems": problems}

    # --- how it is done ---

    @property
    def _folder(self) -> Any:
        return self.rig.core.intake._folder

    def _opened(self) -> None:
        self.hands.on_journal(self.rig.journal)

    def _round(self, at: int = -1, happens: Callable[[], None] | None = None) -> None:
        """What has come into the inboxes is passed on; then a round, in which something may happen before an effect."""
        rig = self.rig
        for actor in ACTORS:
            entries = self.raw.xrange(f"{rig.namespace}:inbox:{actor}")
            rig.core.inbox.put(Entry(actor, entry_id, fields.get("request")) for entry_id, fields in entries)
        try:
            for number, _ in enumerate(rig.core.round()):
                if number == at and happens is not None:
                    happens()
        except Killed:
            self.hands.forget()
            unreadable = self._folder.unreadable
            rig.crash()
            rig.open()
            self._folder.unreadable |= unreadable
            self._opened()
        rig.clock.advance(0.001)
        self._collect()

    def _collect(self) -> None:
        for key in self.raw.scan_iter(f"{self.rig.namespace}:reply:*"):
            (text,) = self.raw.lrange(key, 0, -1)
            self.raw.delete(key)
            reply = json.loads(text)
            asked = self.memory.asked[key.rpartition(":")[2]]
            if reply["ok"] or reply["error"]["code"] != "unavailable":
                asked.replies.append(text)
            else:
                asked.may_be_lost = True

    def _ask(
        self,
        op: str,
        label: str,
        actor: str,
        token: str = "",
        more: dict[str, Any] | None = None,
        **args: Any,
    ) -> Asked:
        number = f"r{len(self.memory.asked) + 1}"
        named = {"label": label} if actor == "operator" else {"name": _name(label)}
        request = {"id": number, "op": op, "args": args, **(named if label else {}), **(more or {})}
        meant = {label} if actor == "operator" else {_name(label), f"agents/{actor}/{_name(label)}"}
        asked = self.memory.asked[number] = Asked(number, actor, op, meant, json.dumps(request), token)
        self._send(asked)
        return asked

    def _send(self, asked: Asked) -> None:
        self.raw.xadd(f"{self.rig.namespace}:inbox:{asked.actor}", {"request": asked.text})

    def _lose(self) -> None:
        for asked in self.memory.asked.values():
            asked.may_be_lost = True

    def _is_waiting(self, asked: Asked) -> bool:
        entries = self.raw.xrange(f"{self.rig.namespace}:inbox:{asked.actor}")
        return any(fields["request"] == asked.text for _, fields in entries)

    def _token(self) -> str:
        return f"t{next(self.tokens)}"

    def _add_to(self, label: str, data: bytes, how: int) -> bytes:
        newline = b"\r\n" if b"\r\n" in data else b"\n"
        start = b"" if not data or data.endswith(b"\n") else newline
        added = data + start + f"p{next(self.tokens)}".encode() + newline
        self._put(label, added, how, read=data if block_of(label, data) is not None else None)
        return added

    def _put(self, label: str, data: bytes, how: int, *, read: bytes | None = None) -> None:
        """Save, in place or by renaming; in private or not; noticed at once or not."""
        path = self.rig.root / path_of(label)
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = 0o600 if how & 1 else 0o644
        target = path.with_name(f".{path.name}.swp") if how & 2 or not path.exists() else path
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


def _name(label: str) -> str:
    """What an agent calls a block."""
    return label.rpartition("/")[2] if label.startswith("agents/") else label
