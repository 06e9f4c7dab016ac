"""What a watch asks, listens to and passes on, step by step: no sockets, and a clock that a test moves."""

from __future__ import annotations

import itertools
import json
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest

from blocksd import Reset
from blocksd.errors import InvalidLabel, Misconfigured, Unavailable
from blocksd.mirror.keys import Keys
from blocksd.mirror.projection import commands_of, rebuild_commands
from blocksd.mirror.view import shown_as
from blocksd.model.revision import Change, repaired
from blocksd.protocol import steps
from blocksd.protocol import watching as watching_module
from blocksd.protocol.steps import Ask, Connect, Emit, Heard, Listen, Live, Pause, Ping, Subscribe
from blocksd.protocol.watching import Watching
from rig import AT, Clock, revision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blocksd import BlockView, Item

KEYS = Keys("blocks")
ALL = KEYS.changes
NOTES = KEYS.changes_of_block("notes")
OTHER = KEYS.changes_of_block("other")
ANN = KEYS.changes_of_agent("ann")


class Server:
    """A mirror, written by hand; and what of it a subscriber is told."""

    def __init__(self) -> None:
        self.redis: Any = fakeredis.FakeRedis(decode_responses=True, legacy_responses=False)
        self.epoch = "e1"
        self.seq = 0
        self.drivers: list[Driver] = []
        self._times = itertools.count(1)
        self.redis.hset(KEYS.meta, mapping={"epoch": "e1", "seq": 0})

    def change(self, label: str = "notes", *, is_told: bool = True, **fields: Any) -> Change:
        """One revision more, as the daemon projects it; if not `is_told`, its messages are lost."""
        self.seq += 1
        channels: Sequence[str] = ()
        for name, *words in commands_of(revision(self.seq, label, version=self.seq, **fields), KEYS, self.epoch):
            if name == "ANNOUNCE":
                (entry, _, text, *channels) = words
                self.redis.xadd(KEYS.changes, {"change": text}, id=entry)
            else:
                self.redis.execute_command(name, *words)
        if is_told:
            self.publish(text, channels)
        return Change.loads(text)

    def publish(self, text: str, channels: Sequence[str]) -> None:
        for driver in self.drivers:
            driver.inbox += [Heard("message", one, text) for one in channels if one in driver.subscribed]

    def note(self, channel: str, **raw: Any) -> None:
        """Something without a seq."""
        self.publish(json.dumps(raw), [channel])

    def clear(self) -> None:
        """What is left when a rebuild has begun."""
        self.redis.flushall()

    def rebuild(self, *labels: str, epoch: str | None = None, is_told: bool = True, **fields: Any) -> None:
        """The mirror is built anew where the journal stands, and the reset announced."""
        self.epoch = epoch or self.epoch
        self.clear()
        for label in labels:
            for command in rebuild_commands(revision(self.seq, label, **fields), KEYS):
                self.redis.execute_command(*command)
        self.redis.hset(KEYS.meta, mapping={"epoch": self.epoch, "seq": self.seq})
        self.reset(is_told=is_told)

    def repair(self, *labels: str, agents: Sequence[str] = (), is_told: bool = True) -> None:
        """Blocks and lists of agents that were shown wrongly are announced."""
        text = repaired(labels, agents, (), self.epoch, f"{AT}{next(self._times)}")
        self.redis.xadd(KEYS.changes, {"change": text}, id=f"{self.seq}-{next(self._times)}")
        if is_told:
            channels = [KEYS.changes, *map(KEYS.changes_of_block, labels), *map(KEYS.changes_of_agent, agents)]
            self.publish(text, channels)

    def reform(self, label: str, *, is_told: bool = True) -> None:
        """A file has another form, and says the same."""
        text = json.dumps(
            {"seq": None, "kind": "file", "label": label, "at": f"{AT}{next(self._times)}", "epoch": self.epoch}
        )
        self.redis.xadd(KEYS.changes, {"change": text}, id=f"{self.seq}-{next(self._times)}")
        if is_told:
            self.publish(text, [KEYS.changes])

    def reset(self, *, at: str = AT, is_told: bool = True) -> None:
        text = json.dumps({"seq": self.seq, "kind": "reset", "at": at, "epoch": self.epoch})
        last = self.redis.xrevrange(KEYS.changes, count=1)
        number = int(last[0][0].partition("-")[2]) + 1 if last and last[0][0].startswith(f"{self.seq}-") else 1
        self.redis.xadd(KEYS.changes, {"change": text}, id=f"{self.seq}-{number}")
        if is_told:
            self.publish(text, [KEYS.changes, KEYS.resets])


class Driver:
    """Performs the steps of a watch against a `Server`, as long as there is something to hear."""

    def __init__(self, server: Server, **options: Any) -> None:
        self.watching = Watching(KEYS, **options)
        self._server = server
        server.drivers.append(self)
        self._steps = self.watching.steps()
        self._answer: Any = None
        self._is_begun = False
        self.subscribed: set[str] = set()
        self.inbox: deque[Heard] = deque()
        self.log: list[Any] = []
        self.items: list[Item] = []
        self.is_down = False
        self.confirms = True
        self.answers_ping = True
        self.before_ask: Callable[[Ask], object] = lambda _: None
        self.after_emit: Callable[[], object] = lambda: None

    def run(self) -> list[Item]:
        """Until it listens to silence; what it passed on meanwhile."""
        before = len(self.items)
        if not self._is_begun:
            self._is_begun = True
            step = next(self._steps)
        else:  # it was listening
            step = self._resume(Listen(1.0))
        while not (isinstance(step, Listen) and not self.inbox):
            step = self._resume(step)
        return self.items[before:]

    def fail(self) -> Pause:
        """The connection for listening is lost while it listens."""
        self.inbox.clear()
        self.subscribed.clear()
        pause = self._steps.throw(Unavailable("gone"))
        assert isinstance(pause, Pause)
        return pause

    def retry(self) -> Pause:
        """Go on after a pause, in vain."""
        step = next(self._steps)
        while not isinstance(step, Pause):
            step = self._resume(step)
        return step

    def recover(self) -> list[Item]:
        """Go on after a pause."""
        before = len(self.items)
        step = next(self._steps)
        while not (isinstance(step, Listen) and not self.inbox):
            step = self._resume(step)
        return self.items[before:]

    def _blocks_with(self, labels: Sequence[str]) -> list[BlockView]:
        """As a client reads them."""
        replies = self._perform(Ask(tuple(("HGETALL", KEYS.block(label)) for label in labels)))
        found = [shown_as(label, fields) for label, fields in zip(labels, replies, strict=True)]
        return [block for block in found if block is not None]

    def _resume(self, step: Any) -> Any:
        if not isinstance(step, Ask | Listen):
            self.log.append(step)
        try:
            answer = self._perform(step)
        except Unavailable as error:
            return self._steps.throw(error)
        return self._steps.send(answer)

    def _perform(self, step: Any) -> Any:
        if isinstance(step, Listen):
            return self.inbox.popleft() if self.inbox else None
        if isinstance(step, Emit):
            if isinstance(step.item, Reset):
                step.item.read_by(self._blocks_with, asynchronous=False)
            self.items.append(step.item)
            self.after_emit()
        if self.is_down and not isinstance(step, Live | Pause | Emit):
            raise Unavailable("down")
        if isinstance(step, Ask):
            self.before_ask(step)
            return [self._server.redis.execute_command(*command) for command in step.commands]
        if isinstance(step, Connect):
            self.subscribed.clear()
            self.inbox.clear()
        elif isinstance(step, Subscribe):
            if step.off:
                self.subscribed -= set(step.channels)
            else:
                self.subscribed |= set(step.channels)
                if self.confirms:
                    self.inbox += [Heard("subscribe", channel, "1") for channel in step.channels]
        elif isinstance(step, Ping) and self.answers_ping:
            self.inbox.append(Heard("pong", "", ""))
        return None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(watching_module, "time", SimpleNamespace(monotonic=made))
    return made


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.redis.close()


def follow(server: Server, **options: Any) -> Driver:
    driver = Driver(server, **options)
    driver.run()
    return driver


def told(items: Sequence[Item]) -> list[tuple[str, int | None]]:
    return [(item.kind, item.seq) for item in items]


# --- beginning ---


def test_order_of_the_first_steps(server: Server) -> None:
    """It connects, subscribes, has it confirmed, looks at the stream, and only then is live."""
    driver = Driver(server)
    asked: list[str] = []
    driver.before_ask = lambda step: asked.extend(str(command[0]) for command in step.commands)
    assert driver.run() == []
    assert driver.log == [Connect(), Subscribe((ALL,)), Live()]
    assert asked == ["HMGET", "XRANGE", "HMGET", "XRANGE"]  # where things stand; after subscribing, what came since
    assert driver.watching.place == ("e1", 0)
    assert driver.watching.life == 1


def test_change_while_it_subscribes_is_passed_on(server: Server) -> None:
    """What happens between the first question and the subscription is in the watch, once."""
    driver = Driver(server)
    asked = 0

    def interrupt(_: Ask) -> None:
        nonlocal asked
        asked += 1
        if asked == 2:
            server.change(is_told=False)
        elif asked == 3:
            server.change()

    driver.before_ask = interrupt
    assert told(driver.run()) == [("created", 1), ("created", 2)]


def test_unavailable_at_the_beginning_is_raised(server: Server) -> None:
    """A watch that never began tells so, and does not try again by itself."""
    driver = Driver(server)
    driver.is_down = True
    with pytest.raises(Unavailable):
        driver.run()


def test_unavailable_after_the_first_item_is_not_raised(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch that has passed something on has begun, though it is still catching up: it waits for the server."""
    for _ in range(2):
        server.change()
    driver = Driver(server, since=0)

    def cut(_: Ask) -> None:
        if driver.items:
            driver.before_ask = lambda _: None
            raise Unavailable("down")

    driver.before_ask = cut
    monkeypatch.setattr(steps, "ENTRIES", 1)
    driver.run()
    assert told(driver.items) == [("created", 1), ("created", 2)]
    assert [type(step) for step in driver.log] == [
        *(Connect, Subscribe, Emit, Pause),
        *(Connect, Subscribe, Emit, Live),
    ]


def test_subscription_that_is_not_confirmed_is_unavailable(server: Server, clock: Clock) -> None:
    """A server that does not confirm is given up after a while."""
    driver = Driver(server)
    driver.confirms = False
    driver.run()
    clock.advance(watching_module.PATIENCE_SECONDS + 1)
    with pytest.raises(Unavailable, match="confirm"):
        driver.run()


def test_one_scope_at_most() -> None:
    """A watch is about one block or one agent, not both; and their names must be such."""
    with pytest.raises(Misconfigured) as wrong:
        Watching(KEYS, label="notes", agent="ann")
    assert wrong.value.facts == {"key": "label"}
    with pytest.raises(InvalidLabel):
        Watching(KEYS, label="no such/../label")
    with pytest.raises(InvalidLabel):
        Watching(KEYS, agent="two/segments")


def test_since_needs_a_seq() -> None:
    """One cannot go on from what has no number."""
    with pytest.raises(Misconfigured, match="rejected"):
        Watching(KEYS, since=Change.loads('{"kind": "rejected", "subject": "x.md"}'))


@pytest.mark.parametrize("how", ["seq", "change", "reset"])
def test_since(server: Server, how: str) -> None:
    """It goes on after a seq, a change or a reset."""
    first = server.change()
    server.change()
    server.change()
    since = {"seq": 1, "change": first, "reset": Reset(1, "e1", {})}[how]
    driver = Driver(server, since=since)
    assert told(driver.run()) == [("created", 2), ("created", 3)]


@pytest.mark.parametrize("how", ["change", "reset", "a pair"])
def test_since_another_epoch_is_a_reset(server: Server, how: str) -> None:
    """The last item tells its epoch: of another journal, the same seq means nothing."""
    server.change()
    server.change()
    change = Change.loads('{"kind": "updated", "seq": 2, "epoch": "e0", "label": "notes"}')
    since = {"change": change, "reset": Reset(2, "e0", {}), "a pair": ("e0", 2)}[how]
    driver = Driver(server, since=since)
    (reset,) = driver.run()
    assert isinstance(reset, Reset)
    assert (reset.seq, reset.epoch, [*reset.blocks]) == (2, "e1", ["notes"])


def test_since_the_future_is_a_reset(server: Server) -> None:
    """A seq that the mirror has not reached is another journal's."""
    server.change()
    assert told(Driver(server, since=5).run()) == [("reset", 1)]


# --- changes ---


def test_changes_in_order_once(server: Server) -> None:
    """Each change is passed on once, however often its message comes; an old one is dropped."""
    driver = follow(server)
    one, two = server.change(), server.change()
    server.publish(json.dumps(one.raw), [ALL])
    server.publish(json.dumps(two.raw), [ALL])
    assert driver.run() == [one, two]
    server.publish(json.dumps(one.raw), [ALL])
    assert driver.run() == []
    assert driver.watching.place == ("e1", 2)


def test_gap_is_filled_from_the_stream(server: Server) -> None:
    """A change that is not the next one shows that others were lost: the stream has them."""
    driver = follow(server)
    missed = [server.change(is_told=False) for _ in range(3)]
    last = server.change()
    assert driver.run() == [*missed, last]


def test_gap_longer_than_a_page(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream is read in pages."""
    monkeypatch.setattr(steps, "ENTRIES", 3)
    driver = follow(server)
    missed = [server.change(is_told=False) for _ in range(9)]
    last = server.change()
    assert driver.run() == [*missed, last]


def test_since_a_pair_of_this_epoch(server: Server) -> None:
    """Epoch and seq say where to go on, and nothing is passed on twice."""
    server.change()
    server.change()
    assert told(Driver(server, since=("e1", 1)).run()) == [("created", 2)]


# --- what was repaired, and what another says ---


def test_repaired_is_passed_on_once(server: Server) -> None:
    """It has no number: who heard it does not get it again from the stream, who was cut off gets it from there."""
    everything, notes, other = follow(server), follow(server, label="notes"), follow(server, label="other")
    server.change("notes")
    server.repair("notes")
    for driver, seen in ((everything, 2), (notes, 2), (other, 0)):
        assert len(driver.run()) == seen
        driver.fail()
    server.change("other", is_told=False)
    server.repair("notes", is_told=False)
    wanted = {everything: [("created", 2), ("repaired", None)], notes: [("repaired", None)], other: [("created", 2)]}
    for driver, items in wanted.items():
        before = len(driver.items)
        driver.recover()
        assert told(driver.items[before:]) == items
    assert everything.items[-1].labels == ("notes",)


def test_another_form_of_a_file_is_passed_on_once(server: Server) -> None:
    """To who follows everything, also from the stream; it costs nobody a reset."""
    everything, notes = follow(server), follow(server, label="notes")
    server.change("notes")
    server.reform("notes")
    for driver, seen in ((everything, 2), (notes, 1)):
        assert len(driver.run()) == seen
        driver.fail()
    server.change("notes", kind="updated", is_told=False)
    server.reform("notes", is_told=False)
    for driver, items in ((everything, [("updated", 2), ("file", None)]), (notes, [("updated", 2)])):
        before = len(driver.items)
        driver.recover()
        assert told(driver.items[before:]) == items


def test_repaired_list_of_an_agent(server: Server) -> None:
    """What an agent follows was read from a list that was wrong: it is read again."""
    server.change("notes", agents=["ann"])
    server.redis.delete(KEYS.agent("ann"))
    driver = follow(server, agent="ann")
    assert driver.subscribed == {ANN, KEYS.resets}
    server.redis.hset(KEYS.agent("ann"), "notes", "notes")
    server.repair(agents=["ann"])
    assert told(driver.run()) == [("repaired", None)]
    assert driver.subscribed == {ANN, NOTES, KEYS.resets}


def test_messages_of_another_database_are_not_passed_on(server: Server) -> None:
    """Channels are shared by the databases of a server: what the mirror's meta does not confirm is ignored."""
    driver = follow(server)
    asked: list[Ask] = []
    driver.before_ask = asked.append
    for _ in range(20):
        server.note(ALL, kind="rejected", subject="x.md", epoch="e9", problem={})
        server.note(ALL, kind="updated", seq=4, epoch="e9", label="notes", version=2)
        server.note(ALL, kind="repaired", seq=None, epoch="e9", labels=["notes"], agents=[])
        server.note(ALL, kind="reset", seq=4, epoch="e9", at=AT)
    server.note(ALL, kind="rejected", subject="y.md", epoch="e1", problem={})
    (item,) = driver.run()
    assert (item.kind, item.raw["subject"]) == ("rejected", "y.md")  # type: ignore[union-attr]
    assert server.change() in driver.run()
    assert sum(step.commands[0][0] == "HMGET" for step in asked) <= 25, "an epoch is asked about once, or at a reset"


@pytest.mark.parametrize(
    "text", ["", "x", "[]", "null", '"x"', "{}", '{"kind": 1}', '{"kind": "updated", "seq": "1"}', "[" * 100_000]
)
def test_what_is_no_change_is_ignored(server: Server, text: str) -> None:
    """On a channel it is not heard; in the stream it is a hole, which is a Reset."""
    driver = follow(server)
    server.publish(text, [ALL])
    assert driver.run() == []
    server.change(is_told=False)
    server.redis.xadd(KEYS.changes, {"change": text}, id="1-9")
    assert server.change() in driver.run()


def test_blocks_of_a_reset_are_read_when_asked_for(server: Server) -> None:
    """Until then nothing of them is read; then the page that is asked for; one that is gone by then is not in it."""
    for number in range(600):
        server.change(f"b{number:03}", value=f"{number}")
    driver = Driver(server, since=1000)
    asked: list[int] = []
    driver.before_ask = lambda step: asked.append(sum(command[0] == "HGETALL" for command in step.commands))
    (reset,) = driver.run()
    assert isinstance(reset, Reset)
    assert (sum(asked), len(reset.labels), len(reset.blocks)) == (0, 600, 600)
    assert reset.blocks["b007"].value == "7"
    assert sum(asked) == 256
    server.change("b500", kind="deleted")
    assert "b500" not in reset.blocks
    assert "b501" in reset.blocks
    assert "never" not in reset.blocks
    with pytest.raises(KeyError):
        reset.blocks["b500"]
    assert len(reset.load()) == 599
    assert sum(asked) == 600


@pytest.mark.parametrize("kept", [2, 0])
def test_gap_in_the_stream_is_a_reset(server: Server, kept: int) -> None:
    """What the stream has no longer is told as a Reset: where things stand, and the blocks as they are."""
    driver = follow(server)
    server.change("notes", is_told=False)
    server.change("other", is_told=False, value="v")
    server.change("notes", is_told=False, kind="deleted")
    server.redis.xtrim(KEYS.changes, maxlen=kept, approximate=False)
    server.publish(json.dumps({"kind": "deleted", "seq": 3, "epoch": "e1", "label": "notes"}), [ALL])
    (reset,) = driver.run()
    assert isinstance(reset, Reset)
    assert (reset.seq, {label: block.value for label, block in reset.blocks.items()}) == (3, {"other": "v"})
    assert told([server.change(), *driver.run()]) == [("created", 4), ("created", 4)]


def test_hole_in_the_stream_is_a_reset(server: Server) -> None:
    """What comes before the hole is passed on; the reset stands for what follows."""
    driver = follow(server)
    for _ in range(4):
        server.change(is_told=False)
    server.redis.xdel(KEYS.changes, "3-0")
    server.change()
    assert told(driver.run()) == [("created", 1), ("created", 2), ("reset", 5)]


def test_another_epoch_is_a_reset(server: Server) -> None:
    """Another journal has taken the namespace over: its numbers are others."""
    driver = follow(server)
    server.change()
    driver.run()
    server.seq = 0
    server.rebuild("notes", epoch="e2")
    (reset,) = driver.run()
    assert (reset.seq, reset.epoch) == (0, "e2")
    server.change()
    assert told(driver.run()) == [("created", 1)]


def test_change_of_another_epoch_is_a_reset(server: Server) -> None:
    """Even if it was not told of the reset, the next change shows it."""
    driver = follow(server)
    server.change()
    driver.run()
    server.rebuild("notes", epoch="e2", is_told=False)
    server.change()
    assert told(driver.run()) == [("reset", 2)]


def test_rebuild_is_one_reset(server: Server) -> None:
    """While the mirror is built anew nothing is passed on; when it is whole, one Reset is, however often it is told."""
    driver = follow(server)
    server.change()
    driver.run()
    server.clear()
    server.publish(json.dumps({"kind": "updated", "seq": 9, "epoch": "e1", "label": "notes"}), [ALL])
    assert driver.run() == []
    server.rebuild("notes")
    server.publish(json.dumps({"kind": "reset", "seq": 1, "epoch": "e1", "at": AT}), [ALL])
    assert told(driver.run()) == [("reset", 1)]


def test_mirror_cleared_while_it_is_read_makes_no_reset(server: Server) -> None:
    """Blocks that are missing because the mirror was cleared meanwhile are not told to be gone."""
    server.change()
    driver = Driver(server, since=5)

    def clear(step: Ask) -> None:
        if step.commands[0][0] == "ZRANGE":
            server.clear()

    driver.before_ask = clear
    assert driver.run() == []
    driver.before_ask = lambda _: None
    server.rebuild("notes")
    (reset,) = driver.run()
    assert isinstance(reset, Reset)
    assert [*reset.blocks] == ["notes"]


def test_each_reset_is_passed_on(server: Server) -> None:
    """Resets at one and the same seq are several."""
    driver = follow(server)
    server.change()
    driver.run()
    server.reset(at="first")
    assert told(driver.run()) == [("reset", 1)]
    server.reset(at="second")
    assert told(driver.run()) == [("reset", 1)]


def test_reset_from_before_is_no_news(server: Server) -> None:
    """A mirror that was built anew before the watch began is as it is; after a loss, too."""
    server.change()
    server.reset()
    driver = Driver(server)
    assert driver.run() == []
    driver.fail()
    assert driver.recover() == []


def test_mirror_that_goes_back_is_a_reset(server: Server) -> None:
    """A server that came back with older data: how things stand there, and then each change again."""
    driver = follow(server)
    for number in range(3):
        server.change(value=str(number))
    driver.run()
    driver.fail()
    server.clear()
    server.seq = 0
    server.change(is_told=False)
    server.redis.hset(KEYS.meta, "epoch", "e1")
    assert told(driver.recover()) == [("reset", 1)]
    server.change()
    assert told(driver.run()) == [("created", 2)]


def test_namespace_that_nobody_keeps_yet(server: Server) -> None:
    """A watch may begin before there is a mirror: its first item is the Reset of the first one."""
    server.clear()
    driver = Driver(server)
    assert driver.run() == []
    server.rebuild("notes")
    assert told(driver.run()) == [("reset", 0)]


# --- losing the connection ---


def test_pauses_grow_and_are_bounded(server: Server) -> None:
    """While Redis is away it tries again and again, more and more seldom, but never more seldom than every two seconds."""
    driver = follow(server)
    driver.is_down = True
    pauses = [driver.fail().seconds, *(driver.retry().seconds for _ in range(12))]
    assert all(0 < seconds <= 2.0 for seconds in pauses)
    assert pauses[0] <= 0.1
    assert all(seconds >= 1.0 for seconds in pauses[6:])


def test_it_goes_on_where_it_was(server: Server) -> None:
    """After a loss it connects and subscribes anew and passes on what it missed; this is another life."""
    driver = follow(server)
    server.change()
    driver.run()
    assert driver.watching.life == 1
    driver.fail()
    assert driver.watching.life is None
    server.change(is_told=False)
    driver.log.clear()
    assert told(driver.recover()) == [("created", 2)]
    assert [type(step) for step in driver.log] == [Connect, Subscribe, Emit, Live]
    assert driver.watching.life == 2


def test_loss_while_it_catches_up(server: Server) -> None:
    """An interruption in the middle of what was missed neither repeats nor leaves out anything."""
    driver = follow(server)
    for _ in range(4):
        server.change(is_told=False)
    driver.before_ask = lambda step: server.change(is_told=False) if step.commands[0][0] == "XRANGE" else None
    server.change()
    heard = told(driver.run())
    driver.before_ask = lambda _: None
    driver.fail()
    heard += told(driver.recover())
    assert heard == [("created", seq) for seq in range(1, server.seq + 1)]


def test_confirmation_nobody_asked_for(server: Server) -> None:
    """A subscription that was made again behind its back makes it look for what it missed."""
    driver = follow(server)
    server.change(is_told=False)
    driver.inbox.append(Heard("subscribe", ALL, "1"))
    assert told(driver.run()) == [("created", 1)]


def test_silence_is_put_to_the_proof(server: Server, clock: Clock) -> None:
    """After a while without a word it pings; the answer shows that nothing was missed."""
    driver = follow(server)
    driver.log.clear()
    driver.run()
    assert driver.log == []
    clock.advance(watching_module.PROVE_SECONDS)
    assert driver.run() == []
    assert driver.log == [Ping()]


def test_proof_comes_as_often_as_is_asked_for(server: Server, clock: Clock) -> None:
    """A follower that has lost its subscription finds that earlier than other programs."""
    driver = follow(server, prove_seconds=2.0)
    driver.log.clear()
    clock.advance(2.0)
    assert driver.run() == []
    assert driver.log == [Ping()]


def test_what_the_proof_shows_to_be_missing(server: Server, clock: Clock) -> None:
    """A watch of everything that has heard less than the mirror showed before the ping reads the stream."""
    driver = follow(server)
    server.change(is_told=False)
    clock.advance(watching_module.PROVE_SECONDS)
    assert told(driver.run()) == [("created", 1)]


@pytest.mark.parametrize("options", [{"label": "other"}, {"agent": "ann"}])
def test_proof_moves_the_place(server: Server, clock: Clock, options: dict[str, str]) -> None:
    """Who follows one block or agent hears nothing of others: the proof shows how far everything has been heard."""
    driver = follow(server, **options)
    for _ in range(3):
        server.change("notes")
    assert driver.run() == []
    assert driver.watching.place == ("e1", 0)
    clock.advance(watching_module.PROVE_SECONDS)
    assert driver.run() == []
    assert driver.watching.place == ("e1", 3)


def test_proof_sees_another_epoch(server: Server, clock: Clock) -> None:
    """A reset that was not heard shows in the epoch."""
    driver = follow(server, label="notes")
    server.rebuild("notes", epoch="e2", is_told=False)
    clock.advance(watching_module.PROVE_SECONDS)
    assert told(driver.run()) == [("reset", 0)]


@pytest.mark.parametrize("how", ["proof", "change"])
def test_reset_announced_to_others_only(server: Server, clock: Clock, how: str) -> None:
    """Who subscribed while the mirror was built anew may not be told of the reset: nothing that follows passes it over."""
    driver = follow(server, label="notes")
    server.change()
    driver.run()
    driver.fail()
    server.change(is_told=False)
    server.clear()
    assert driver.recover() == []
    server.rebuild("notes", is_told=False)
    if how == "proof":
        clock.advance(watching_module.PROVE_SECONDS)
    else:
        server.change()
    assert told(driver.run()) == [("reset", server.seq)]


def test_proof_while_the_mirror_is_built_anew(server: Server, clock: Clock) -> None:
    """A mirror without a place proves nothing: the reset is waited for."""
    driver = follow(server)
    server.change()
    driver.run()
    server.clear()
    clock.advance(watching_module.PROVE_SECONDS)
    assert driver.run() == []
    server.rebuild("notes")
    assert told(driver.run()) == [("reset", 1)]


def test_ping_without_an_answer_is_a_loss(server: Server, clock: Clock) -> None:
    """A subscription that has gone silent is given up, and what was missed passed on over the next."""
    driver = follow(server)
    driver.answers_ping = False
    clock.advance(watching_module.PROVE_SECONDS)
    driver.run()
    server.change(is_told=False)
    driver.log.clear()
    clock.advance(watching_module.PATIENCE_SECONDS)
    assert told(driver.run()) == [("created", 1)]
    assert [type(step) for step in driver.log] == [Pause, Connect, Subscribe, Emit, Live]


def test_slow_reader_is_no_silence(server: Server, clock: Clock) -> None:
    """Whoever takes long over each item is not disconnected for it: the pong comes behind what is still to be read."""
    driver = follow(server)
    driver.before_ask = lambda _: server.change() if server.seq < 4 else None
    clock.advance(watching_module.PROVE_SECONDS)
    for _ in range(3):
        server.change()
    driver.log.clear()
    driver.after_emit = lambda: clock.advance(watching_module.PATIENCE_SECONDS)
    assert told(driver.run()) == [("created", seq) for seq in range(1, server.seq + 1)]
    assert Connect() not in driver.log


# --- one block, one agent ---


def test_one_block(server: Server) -> None:
    """With `label`, the changes of that block only, also from the stream and in a Reset."""
    server.change("notes")
    driver = Driver(server, label="other", since=0)
    server.change("other")
    assert told(driver.run()) == [("created", 2)]
    server.change("notes")
    server.change("other")
    assert told(driver.run()) == [("created", 4)]
    assert driver.subscribed == {OTHER, KEYS.resets}
    server.rebuild("notes")
    (reset,) = driver.run()
    assert isinstance(reset, Reset)
    assert reset.blocks == {}


def test_attached_block_is_followed(server: Server) -> None:
    """A block that comes to the agent is subscribed to, and what became of it before that is passed on."""
    driver = follow(server, agent="ann")
    assert driver.subscribed == {ANN, KEYS.resets}
    server.change("notes", agents=["ann"])
    server.change("notes", kind="updated", agents=["ann"], value="two", is_told=False)
    assert told(driver.run()) == [("created", 1), ("updated", 2)]
    assert driver.subscribed == {ANN, NOTES, KEYS.resets}
    server.change("notes", kind="updated", agents=["ann"], value="three")
    assert told(driver.run()) == [("updated", 3)]


def test_detached_block_is_followed_no_longer(server: Server) -> None:
    """The change by which it goes is passed on, then its channel given up."""
    server.change("notes", agents=["ann"])
    driver = follow(server, agent="ann")
    driver.log.clear()
    server.change("notes", kind="updated", detached=["ann"], changed=["agents"])
    (change,) = driver.run()
    assert driver.log == [Emit(change), Subscribe((NOTES,), off=True)]
    assert driver.subscribed == {ANN, KEYS.resets}
    server.change("notes", kind="updated", value="secret")
    assert driver.run() == []


def test_change_of_a_block_on_its_way_out_is_heard_once(server: Server) -> None:
    """What is heard on the block's channel and on the agent's is one change."""
    server.change("notes", agents=["ann"])
    driver = follow(server, agent="ann")
    server.change("notes", kind="deleted", detached=["ann"])
    assert len(driver.inbox) == 2
    assert told(driver.run()) == [("deleted", 2)]


def test_agent_since_before_it_had_its_blocks(server: Server) -> None:
    """Changes are judged by what was attached when they happened, not by what is now."""
    server.change("notes", agents=["ann"])  # 1
    server.change("other")  # 2
    server.change("notes", kind="updated", agents=["ann"], value="two")  # 3
    server.change("notes", kind="updated", detached=["ann"], changed=["agents"])  # 4
    server.change("notes", kind="updated", value="not hers")  # 5
    server.change("other", kind="updated", agents=["ann"], attached=["ann"], changed=["agents"])  # 6
    server.change("other", kind="updated", agents=["ann"], value="hers")  # 7
    assert told(Driver(server, agent="ann", since=1).run()) == [
        ("updated", 3),
        ("updated", 4),
        ("updated", 6),
        ("updated", 7),
    ]
    assert told(Driver(server, agent="ann", since=4).run()) == [("updated", 6), ("updated", 7)]


def test_agent_after_a_reset_while_blocks_move(server: Server) -> None:
    """What came and went while a Reset was read is passed on after it, by what was attached then."""
    server.change("notes", agents=["ann"])
    server.change("other")
    driver = Driver(server, agent="ann", since=9)

    def move(step: Ask) -> None:
        if step.commands[0] == ("HGETALL", KEYS.agent("ann")) and server.seq == 2:
            driver.before_ask = lambda _: None
            server.change("notes", kind="updated", agents=["ann"], value="still hers")
            server.change("notes", kind="updated", detached=["ann"], changed=["agents"])
            server.change("other", kind="updated", value="not hers yet")
            server.change("other", kind="updated", agents=["ann"], attached=["ann"], changed=["agents"])

    def arm(step: Ask) -> None:
        if step.commands[0][0] == "XRANGE" and driver.log:  # once it has subscribed
            driver.before_ask = move

    driver.before_ask = arm
    assert told(driver.run()) == [("reset", 2), ("updated", 3), ("updated", 4), ("updated", 6)]


def test_notices_without_a_seq(server: Server) -> None:
    """Problems come with everything; what is said of sources and files, to the agents that see them."""
    everything, ann, block = follow(server), follow(server, agent="ann"), follow(server, label="notes")
    server.note(ALL, kind="rejected", subject="x.md")
    server.note(ANN, kind="opened", agent="ann", file="manuals/a.txt")
    assert [item.kind for item in everything.run()] == ["rejected"]
    assert [item.kind for item in ann.run()] == ["opened"]
    assert block.run() == []
    assert everything.watching.place == ("e1", 0)


def test_sources_come_and_go(server: Server) -> None:
    """The channels of the sources that the agent sees are subscribed to, as they come and go."""
    manuals = KEYS.changes_of_source("manuals")
    driver = follow(server, agent="ann")
    server.redis.hset(KEYS.sources, "manuals", "{}")
    server.redis.sadd(KEYS.source_agents("manuals"), "ann")
    server.note(ANN, kind="source", source="manuals", files=[])
    assert [item.kind for item in driver.run()] == ["source"]
    assert driver.subscribed == {ANN, manuals, KEYS.resets}
    server.note(manuals, kind="source", source="manuals", files=["a.txt"])
    assert [item.kind for item in driver.run()] == ["source"]
    server.redis.srem(KEYS.source_agents("manuals"), "ann")
    server.note(ANN, kind="source", source="manuals", files=[])
    assert [item.kind for item in driver.run()] == ["source"]
    assert driver.subscribed == {ANN, KEYS.resets}


def test_sources_are_looked_at_again_after_a_loss(server: Server) -> None:
    """What is not in the stream cannot be caught up with: it is asked again."""
    driver = follow(server, agent="ann")
    driver.fail()
    server.redis.hset(KEYS.sources, "manuals", "{}")
    server.redis.sadd(KEYS.source_agents("manuals"), "ann")
    driver.recover()
    assert driver.subscribed == {ANN, KEYS.changes_of_source("manuals"), KEYS.resets}
