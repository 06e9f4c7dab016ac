"""A leader and two writable followers in this process: people and agents write, and anything between and in them fails."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import tempfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from blocksd.errors import BlocksdError, Unavailable
from blocksd.follow.leader import Begun
from blocksd.follow.local_edits import LocalEdits
from blocksd.follow.mirrored import Mirrored
from blocksd.follow.outgoing import Outgoing
from blocksd.follow.report import LEADER, Report
from blocksd.follow.sender import Answered, Sender
from blocksd.follow.work import Work
from blocksd.mirror.keys import Keys
from blocksd.model.revision import MERGE, OPERATOR, Change
from blocksd.protocol import wire
from blocksd.requests.request import Entry
from blocksd.settings.config import Config
from followers import Side
from machine.hands import HandledRoot, Hands, Killed
from rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.follow.outbox import Unsent
    from support import RedisServer

SHARED = ("a", "b", "c")
"""Blocks that everyone writes to, and nobody removes."""
HOSTS = ("leader", "one", "two")
AGENTS = ("ann", "bob")
_HEAD = "---\nagents: [ann, bob]\nlimit: 100000\n---\n"
_MOST_TURNS = 80
_IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # what is synced there costs nothing

hosts = st.sampled_from(HOSTS)
followers = st.sampled_from(HOSTS[1:])
names = st.sampled_from(SHARED)
calls = st.integers(0, 12)


class Clock:
    """The time of the followers; stands in for the module `time` where they read it."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


class Copy(Side):
    """The folder and the state of a follower, all of whose effects go through hands. The folder has its marker."""

    is_marked = True
    adopts = False

    def __init__(self, path: Path, hands: Hands) -> None:
        root: Any = lambda where: HandledRoot(where, hands)  # noqa: E731
        super().__init__(path, root=root)
        transaction = self.place.transaction

        @contextmanager
        def counted(**given: Any) -> Iterator[None]:
            hands.live()
            with transaction(**given):
                yield
            hands.live()

        self.place.transaction = counted  # type: ignore[method-assign]

    def refusal(self) -> None:
        """The folder is always the copy."""

    def mark(self, _epoch: str) -> None:
        """Nobody takes the folder away."""


class Cuttable(Mirrored):
    """A mirror that can be out of reach."""

    is_cut = False

    def _ask(self, *commands: Any, is_whole: bool = True) -> list[Any]:
        if self.is_cut:
            raise Unavailable("the wire is cut")
        return super()._ask(*commands, is_whole=is_whole)


class Follower:
    """A follower without threads: its work, what it hears, and the one request that is under way."""

    def __init__(self, path: Path, server: RedisServer, raw: Any, namespace: str) -> None:
        self.hands = Hands()
        self._path, self._url, self._raw, self._keys = path, server.url, raw, Keys(namespace)
        path.mkdir()
        sender: Any = Sender(server.url, namespace, path.name, lambda _: None)
        sender._transport.close()
        sender._transport = self
        self._sender = sender
        self.deaths = 0
        self.is_cut = False
        self.start()

    def start(self) -> None:
        """Begin, as a process does."""
        self.hands.revive()
        self.copy = Copy(self._path, self.hands)
        self.folder = self.copy.path
        copy: Any = self.copy
        config = Config(
            state_dir=str(self._path / "state"), namespace=self._keys.namespace, delete_grace=0.5, resync_seconds=60.0
        )
        sender: Any = self
        self.mirrored = Cuttable(self._url, self._keys.namespace)
        self.report = Report(config, copy, "", [])
        self.outgoing = Outgoing(copy, self.report, sender)
        self.edits = LocalEdits(copy, self.report, config, self.outgoing)
        self.work = Work(config, copy, self.mirrored, self.edits, self.outgoing, self.report, lambda *_: None)
        self.flying: Unsent | None = None
        self._heard: tuple[str, int] | None = None  # None: it must begin
        self.set_cut(is_cut=self.is_cut)

    def close(self) -> None:
        self.mirrored.close()
        self.copy.close()
        self.hands.revive()

    def set_cut(self, *, is_cut: bool) -> None:
        """Cut it off from Redis, or not."""
        self.is_cut = self.mirrored.is_cut = is_cut
        if is_cut:
            self._heard = None

    def turn(self) -> bool:
        """Hear what there is to hear, and do a part of the work; return True if there is no more for now. It may be killed."""
        try:
            with self.hands.at_work():
                self._hear()
                return self.work.go_on()
        except Killed:
            self.deaths += 1
            self.close()
            self.start()
            return False

    def _hear(self) -> None:
        """Hear changes, as `Leader` passes them on."""
        try:
            stand = self.mirrored.stand()
        except BlocksdError as error:
            self.report.lose(error)
            return
        if stand.epoch is None:
            self._heard = None
            return
        self.report.clear(LEADER)
        if self._heard is None:
            place = self.copy.place
            self._heard = self.work.goal or ((place.epoch, place.seq) if place.epoch is not None else None)
            is_continued = self._heard is not None and self._heard[0] == stand.epoch and self._heard[1] <= stand.seq
            self._heard = self._heard if is_continued and self._heard is not None else (stand.epoch, stand.seq)
            self.work.begin(Begun(stand.epoch, stand.seq, self._heard[1] if is_continued else None))
        last = self._heard[1]
        entries = self._raw.xrange(self._keys.changes, f"({last}-18446744073709551615", "+")
        changes = [Change.loads(fields["change"]) for _, fields in entries]
        numbers = [change.seq for change in changes]
        if (
            stand.epoch != self._heard[0]
            or numbers != list(range(last + 1, last + 1 + len(numbers)))
            or (not numbers and stand.seq != last)
            or any(change.kind == "reset" for change in changes)
        ):
            self.work.compare(stand.epoch, stand.seq)
            self._heard = stand.epoch, stand.seq
            return
        for change in changes:
            self.work.hear(change)
            self._heard = stand.epoch, change.seq or last

    # --- requests ---

    def send(self, edit: Unsent) -> None:
        """As the sender has it."""
        self.flying = edit

    def request(self, actor: str, op: str, args: Any = None, **terms: Any) -> dict[str, Any]:
        """As the sender's transport has it, but that it waits for no reply."""
        request = wire.Request(self._keys, actor, op, args=args, by=self._path.name, **terms)
        self._raw.execute_command(*request.commands()[0])
        return {}

    def deliver(self) -> None:
        """Put the request that is under way into the inbox, once more perhaps."""
        if self.flying is not None and not self.is_cut:
            self._sender._ask(self.flying)

    def answer(self, *, is_lost: bool) -> None:
        """Take the leader's answer; if it is lost, or there is none, that there is none."""
        edit, self.flying = self.flying, None
        if edit is None:
            return
        answered = Answered(edit, None, Unavailable("no answer", request_id=edit.id))
        key = self._keys.reply(f"{OPERATOR}:{edit.id}")
        if not (is_lost or self.is_cut) and (text := self._raw.lpop(key)) is not None:
            try:
                answered = Answered(edit, wire.outcome(text, edit.id))
            except BlocksdError as error:
                answered = Answered(edit, None, error)
        try:
            with self.hands.at_work():
                self.work.answer(answered)
        except Killed:
            self.deaths += 1
            self.close()
            self.start()


class World(RuleBasedStateMachine):
    """All folders come to be equal; every line is there once, and each host's files are as it left them."""

    server: ClassVar[RedisServer]
    clock: ClassVar[Clock]
    seen: ClassVar[Counter[str]] = Counter()
    """What happened, in all worlds."""

    def __init__(self) -> None:
        super().__init__()
        self.home = Path(tempfile.mkdtemp(prefix="blocksd-machine-", dir=_IN_MEMORY))
        self.raw: Any = self.server.client()
        self.raw.flushall()
        self.hands = Hands()
        self.tokens = itertools.count(1)
        self.lines: dict[str, str] = {}  # that must be there once → the label of their block
        self.asked: dict[str, tuple[str, str]] = {}  # requests that are not answered → agent and request
        self.own: dict[str, dict[str, str]] = {
            name: {} for name in HOSTS
        }  # files that one host alone writes → their text
        self.is_cut = False
        leader = self.home / "leader" / "blocks.d"
        leader.mkdir(parents=True)
        for name in SHARED:
            (leader / f"{name}.md").write_text(_HEAD)
        self.rig = Rig(
            self.home / "leader",
            self.server.url,
            kind=self.hands.folder,
            beneath=self.hands.on_what_it_uses,
            history_versions=100_000,
        )
        self.rig.core.intake.hint_all()
        self.rig.settle()
        self.copies = {
            name: Follower(self.home / name, self.server, self.raw, self.rig.namespace) for name in HOSTS[1:]
        }
        self._settle()

    # --- people and agents ---

    def _token(self) -> str:
        return f"line-{next(self.tokens):04}."

    def _folder(self, host: str) -> Path:
        return self.rig.root if host == "leader" else self.copies[host].folder

    def _hint(self, host: str, name: str) -> None:
        if host == "leader":
            self.rig.core.intake.hint_file(f"{name}.md", closed=True)
        else:
            self.copies[host].edits.hint(f"{name}.md")

    def _put(self, host: str, name: str, text: str, *, is_in_place: bool, is_told: bool = True) -> None:
        path = self._folder(host) / f"{name}.md"
        if is_in_place:
            path.write_text(text)
        else:
            aside = path.with_name(f".{name}~")
            aside.write_text(text)
            aside.replace(path)
        if is_told:
            self._hint(host, name)

    @rule(host=hosts, name=names, at=st.integers(0, 3), is_in_place=st.booleans(), is_told=st.booleans())
    def save(self, host: str, name: str, at: int, *, is_in_place: bool, is_told: bool) -> None:
        """A person adds a line to a file."""
        text = (self._folder(host) / f"{name}.md").read_text()
        self._add(host, name, text, at, is_in_place=is_in_place, is_told=is_told)

    def _add(self, host: str, name: str, text: str, at: int, *, is_in_place: bool, is_told: bool = True) -> None:
        lines, line = text.removeprefix(_HEAD).splitlines(), self._token()
        lines.insert((0, len(lines), len(lines) // 2, 1)[at], line)
        self.lines[line] = name
        self._put(host, name, _HEAD + "".join(f"{one}\n" for one in lines), is_in_place=is_in_place, is_told=is_told)

    @rule(host=hosts, name=names, by=st.sampled_from((*HOSTS, *AGENTS)), at=st.integers(0, 3), how=st.integers(0, 15))
    def save_over(self, host: str, name: str, by: str, at: int, how: int) -> None:
        """A person saves what was read before another one's text came, which the editor has not seen."""
        is_in_place, is_off, comes_more, is_sent = (bool(how >> bit & 1) for bit in range(4))
        text = (self._folder(host) / f"{name}.md").read_text()
        self._write(by, name)
        for _ in range(3):
            self._turn(host)
        if is_off and host != "leader":
            self.copies[host].close()
        if by != host:
            self._add(host, name, text, at, is_in_place=is_in_place)
        if comes_more:
            self._write("ann", name)
        if is_off and host != "leader":
            self.copies[host].start()
        if is_sent:
            self._turn(host)
            self._exchange(host)

    def _write(self, by: str, name: str) -> None:
        """Another line comes to the leader, and is in force."""
        if by in AGENTS:
            self.ask(by, name)
        else:
            self._add(by, name, (self._folder(by) / f"{name}.md").read_text(), 1, is_in_place=False)
            self._turn(by)
            self._exchange(by)
        self._round()
        self._round()

    def _exchange(self, host: str) -> None:
        if host != "leader":
            self.exchange(host, 2, is_lost=False)

    @rule(
        host=hosts,
        which=calls,
        first=st.sampled_from(("make", "edit", "move", "remove")),
        then=st.sampled_from(("edit", "put back", "move", "remove", "nothing")),
        rounds=st.integers(0, 2),
        is_killed=st.booleans(),
    )
    def keep_own(self, host: str, which: int, first: str, then: str, rounds: int, *, is_killed: bool) -> None:
        """A person does two things to a file that this host alone writes; the leader has heard of the first perhaps."""
        names = sorted(self.own[host])
        if first != "make" and not names:
            return
        name = f"{host}-{next(self.tokens)}" if first == "make" else names[which % len(names)]
        before = self.own[host].get(name)
        now = self._act(host, name, "edit" if first == "make" else first)
        self._turn(host)
        if host != "leader":
            self.copies[host].deliver()
        for _ in range(rounds):
            self._round()
        if then == "put back":
            if before is not None:
                self.own[host][now] = before
                self._put(host, now, before, is_in_place=True)
        elif then != "nothing" and now in self.own[host]:
            self._act(host, now, then)
        if is_killed and host != "leader":
            self.copies[host].close()
            self.copies[host].start()
        self._turn(host)
        if host != "leader":
            self.copies[host].answer(is_lost=False)

    def _act(self, host: str, name: str, what: str) -> str:
        """Edit, move or remove a file that this host alone writes; return its name then."""
        own, folder = self.own[host], self._folder(host)
        if what == "edit":
            own[name] = f"{own.get(name, '')}{self._token()}\n"
            self._put(host, name, own[name], is_in_place=True)
            return name
        if what == "remove":
            (folder / f"{name}.md").unlink()
            del own[name]
            self._hint(host, name)
            return name
        new = f"{host}-{next(self.tokens)}"
        (folder / f"{name}.md").rename(folder / f"{new}.md")
        own[new] = own.pop(name)
        for one in (new, name):
            self._hint(host, one)
        return new

    @rule(agent=st.sampled_from(AGENTS), name=names)
    def ask(self, agent: str, name: str) -> None:
        """An agent asks to append a line."""
        line = self._token()
        self.lines[line] = name
        self.asked[line] = agent, json.dumps({"id": line, "op": "append", "name": name, "args": {"content": line}})
        self._send(line)

    @rule(which=calls)
    def ask_again(self, which: int) -> None:
        """An agent has no reply, and sends its request once more."""
        if self.asked:
            self._send(sorted(self.asked)[which % len(self.asked)])

    def _send(self, line: str) -> None:
        agent, request = self.asked[line]
        self.raw.xadd(f"blocks:inbox:{agent}", {"request": request})

    # --- what goes on ---

    def _turn(self, host: str) -> bool:
        return self._round() if host == "leader" else self.copies[host].turn()

    def _round(self) -> bool:
        """A round of the leader, in which it may be killed."""
        try:
            with self.hands.at_work():
                for key in sorted(self.raw.scan_iter("blocks:inbox:*")):
                    actor = key.removeprefix("blocks:inbox:")
                    self.rig.core.inbox.add(
                        Entry(actor, one, fields.get("request")) for one, fields in self.raw.xrange(key)
                    )
                self.rig.round()
        except Killed:
            self.seen["kills of the leader"] += 1
            self.rig.crash()
            self.hands.revive()
            self.rig.open()
            self.rig.core.intake.hint_all()
        self.rig.clock.advance(0.01)
        return True

    @rule(host=hosts, turns=st.integers(1, 4))
    def go_on(self, host: str, turns: int) -> None:
        """A host does something."""
        for _ in range(turns):
            self._turn(host)

    @rule(host=followers, is_lost=st.booleans(), rounds=st.integers(0, 3))
    def exchange(self, host: str, rounds: int, *, is_lost: bool) -> None:
        """The request under way comes to the leader, is done perhaps, and is answered, unless the answer is lost."""
        copy = self.copies[host]
        copy.deliver()
        for _ in range(rounds):
            self._round()
        copy.answer(is_lost=is_lost)

    @rule(host=followers)
    def deliver(self, host: str) -> None:
        """The request under way comes to the inbox."""
        self.copies[host].deliver()

    @rule(host=followers, is_cut=st.booleans())
    def cut(self, host: str, *, is_cut: bool) -> None:
        """A follower is cut off, or no longer."""
        self.copies[host].set_cut(is_cut=is_cut)

    @rule(host=hosts, name=names, calls=calls, is_busy=st.booleans())
    def kill(self, host: str, name: str, calls: int, *, is_busy: bool) -> None:
        """A process ends before the effect after so many others, while it has something to do perhaps."""
        (self.hands if host == "leader" else self.copies[host].hands).kill_in(calls)
        if is_busy:
            self._add(host, name, (self._folder(host) / f"{name}.md").read_text(), 1, is_in_place=False)
            for _ in range(3):
                self._turn(host)
                if host != "leader":
                    self.exchange(host, 2, is_lost=False)

    @rule(seconds=st.sampled_from((0.3, 1.0, 20.0)))
    def wait(self, seconds: float) -> None:
        """Time passes for the followers."""
        self.clock.now += seconds

    @rule(is_so=st.integers(0, 2))
    def lose_redis(self, is_so: int) -> None:
        """Redis loses all that it has, now and then."""
        if not is_so:
            self.seen["losses of Redis"] += 1
            self.raw.flushall()

    # --- the end ---

    def _trees(self) -> list[dict[str, str]]:
        return [
            {path.name: path.read_text() for path in self._folder(host).glob("*.md") if not path.name.startswith(".")}
            for host in HOSTS
        ]

    def _settle(self) -> None:
        """Let everything be well, and go on until all is quiet."""
        self.hands.forget()
        for copy in self.copies.values():
            copy.hands.forget()
            copy.set_cut(is_cut=False)
            for _ in copy.edits.sweep():
                pass
        self.rig.core.intake.hint_all()
        for _ in range(_MOST_TURNS):
            for line in self.asked:
                self._send(line)
            for copy in self.copies.values():
                copy.deliver()
            self._round()
            self.rig.run(self._accepts, "no deletion is held back")
            self.rig.settle()
            self.asked = {
                line: one for line, one in self.asked.items() if not self.raw.exists(f"blocks:reply:{one[0]}:{line}")
            }
            self.clock.now += 100.0
            for copy in self.copies.values():
                copy.answer(is_lost=False)
                copy.work.accept_deletions()
                for _ in range(20):
                    if copy.turn():
                        break
            trees = self._trees()
            if (
                not self.asked
                and trees[0] == trees[1] == trees[2]
                and all(self._is_quiet(one) for one in self.copies.values())
            ):
                return
        why = [(one.report.as_json(one.mirrored), one.outgoing.outbox.edits) for one in self.copies.values()]
        raise AssertionError(f"it does not come to rest: {self._trees()}, {self.asked}, {why}")

    def _accepts(self) -> bool:
        """A person means the deletions on the leader, however many they are."""
        return self.rig.core.intake.deletions.accept() is None and self.rig.is_settled()

    def _is_quiet(self, copy: Follower) -> bool:
        return not copy.outgoing.outbox.edits and not copy.report.problems and copy.flying is None

    def teardown(self) -> None:
        try:
            self._settle()
            self._check()
            for name, copy in self.copies.items():
                self.seen[f"kills of {name}"] += copy.deaths
            self.seen["worlds"] += 1
        finally:
            for copy in self.copies.values():
                copy.close()
            self.rig.close()
            self.hands.revive()
            self.raw.close()
            shutil.rmtree(self.home)

    def _check(self) -> None:
        tree = self._trees()[0]
        counts = Counter(line for text in tree.values() for line in text.splitlines())
        for line, name in self.lines.items():
            assert counts[line] == 1, f"{line} is there {counts[line]} times"
            assert line in tree[f"{name}.md"].splitlines(), f"{line} is not in {name}"
        own = {f"{name}.md": text for files in self.own.values() for name, text in files.items()}
        there = {path: text for path, text in tree.items() if path[:-3] not in SHARED}
        differ = {path: (own.get(path), there.get(path)) for path in {*own, *there} if own.get(path) != there.get(path)}
        assert not differ, f"as they were left, and as they are: {differ}"
        done: Counter[str] = Counter()
        for name in tree:
            for revision in self.rig.journal.history(name[:-3]):
                done.update([revision.request_id] if revision.request_id and revision.author != MERGE else [])
                self.seen["merges"] += revision.author == MERGE
        assert [one for one, times in done.items() if times > 1] == []
        self.seen["lines"] += len(self.lines)
