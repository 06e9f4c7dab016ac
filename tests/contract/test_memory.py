"""What an agent sees through its memory: the same as the mirror shows, without asking while nothing has changed."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakSet

import pytest

from blocksd import AsyncClient, Client
from blocksd.client.blocking.memory import Memory
from blocksd.client.blocking.transport import Transport
from blocksd.errors import InvalidField, InvalidLabel, Misconfigured, NotFound, Unavailable
from blocksd.mirror.keys import Keys
from blocksd.model.prompt import File, Source, ToolUsageRules, compile_prompt
from blocksd.protocol import watching as watching_module
from blocksd.protocol import wire
from following import Between, client_of
from rig import AT, Rig
from support import RedisServer, binary_of, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from blocksd.model.prompt import Style
    from blocksd.protocol.wire import Command

KEYS = Keys("blocks")
STYLES: tuple[Style, ...] = ("standard", "line-numbered", "nested", "directories")


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is doubted sooner than in life."""
    monkeypatch.setattr(watching_module, "LISTEN_SECONDS", 0.02)
    monkeypatch.setattr(watching_module, "PROVE_SECONDS", 0.2)
    monkeypatch.setattr(watching_module, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(wire, "REPLY_SECONDS", 0.4)


@pytest.fixture
def _undoubted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is not doubted: every question to the server is one of the test's."""
    monkeypatch.setattr(watching_module, "PROVE_SECONDS", 3600.0)


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer may take as long as in life, on a busy machine."""
    monkeypatch.setattr(wire, "REPLY_SECONDS", 10.0)


@pytest.fixture(params=[("valkey", "blocking"), ("redis", "asyncio")], ids="-".join)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Server, and kind of client."""
    pair: tuple[str, str] = request.param
    return pair


@pytest.fixture
def emptied(kind: tuple[str, str], standing_server: Callable[[str], RedisServer]) -> RedisServer:
    return standing_server(kind[0])


@pytest.fixture
def server(kind: tuple[str, str]) -> Iterator[RedisServer]:
    """A server that may be killed."""
    mortal = RedisServer(binary_of(kind[0]))
    mortal.start()
    yield mortal
    mortal.remove()


@pytest.fixture
def raw(emptied: RedisServer) -> Iterator[Any]:
    looking: Any = emptied.client()
    yield looking
    looking.close()


@pytest.fixture
def rig(tmp_path: Path, emptied: RedisServer) -> Iterator[Rig]:
    yield from begun(tmp_path, emptied)


@pytest.fixture
def rig_on_mortal(tmp_path: Path, server: RedisServer) -> Iterator[Rig]:
    yield from begun(tmp_path, server)


def begun(tmp_path: Path, server: RedisServer) -> Iterator[Rig]:
    made = Rig(tmp_path / "one", server.url)
    made.write("agents/ann/persona", "I am Ann.\n")
    made.write("agents/ann/human", "---\ndescription: Whom Ann talks to.\n---\nBob\n")
    made.write("notes", "---\nagents: [ann, bob]\nread_only: true\n---\none\ntwo\n")
    made.write("system/rules", "---\nagents: [ann]\n---\nbe kind\n")
    made.write("secret", "---\nagents: [ann]\nhidden: true\n---\nhush\n")
    made.write("others", "---\nagents: [bob]\n---\nnot hers\n")
    made.settle()
    yield made
    made.crash()


@pytest.fixture
def client(kind: tuple[str, str], emptied: RedisServer) -> Iterator[Client]:
    with client_of(kind[1], emptied.url) as made:
        yield made


@pytest.fixture
def memory(rig: Rig, client: Client) -> Memory:  # noqa: ARG001  # the rig makes what it sees
    return client.memory("ann")


def wanted(rig: Rig, agent: str = "ann", **options: Any) -> str:
    """The prompt of what the journal says, made without the mirror."""
    seen: list[Any] = [Seen(revision) for revision in attached(rig, agent)]
    return compile_prompt(seen, **options)


def attached(rig: Rig, agent: str) -> list[Any]:
    heads = [rig.journal.head(head.label) for head in rig.journal.heads()]
    return [head for head in heads if head is not None and head.block is not None and agent in head.agents]


class Seen:
    """A block of the journal, under the name its agent has for it."""

    def __init__(self, revision: Any) -> None:
        self.name = revision.label.removeprefix("agents/ann/")
        for field in ("value", "description", "limit", "read_only", "hidden", "is_template"):
            setattr(self, field, getattr(revision.block, field))


def calls(raw: Any) -> int:
    """How many commands the server has carried out, but for those that only look."""
    stats = raw.info("commandstats")
    return sum(stats[name]["calls"] for name in stats if name != "cmdstat_info")


def becomes(memory: Memory, text: Callable[[], str], what: str) -> None:
    """What was announced is in the next text as soon as it was heard."""
    eventually(lambda: memory.compile() == text(), what)


# --- what there is ---


def test_blocks_in_their_order(memory: Memory) -> None:
    """Persona and human come first, then the others by the names the agent has for them; hidden ones are there."""
    names = ["persona", "human", "notes", "secret", "system/rules"]
    assert memory.list_block_labels() == names
    assert [block.name for block in memory.get_blocks()] == names
    assert memory.agent_id == "ann"


def test_block_by_its_name(memory: Memory) -> None:
    """A block is known by the agent's own name for it."""
    block = memory.get_block("persona")
    assert (block.label, block.value) == ("agents/ann/persona", "I am Ann.")
    assert memory.get_block("system/rules").value == "be kind"


def test_name_it_does_not_have(memory: Memory) -> None:
    """The error names the blocks the agent has."""
    with pytest.raises(NotFound, match="others") as missing:
        memory.get_block("others")
    assert missing.value.facts["names"] == ["human", "notes", "persona", "secret", "system/rules"]


def test_unknown_agent(rig: Rig, client: Client) -> None:
    """An agent that nobody knows has no memory, until it is known; what is no id never has one."""
    memory = client.memory("zoe")
    for ask in (memory.compile, memory.get_blocks, memory.list_block_labels, lambda: memory.get_block("notes")):
        with pytest.raises(NotFound) as missing:
            ask()
        assert missing.value.facts == {"agent": "zoe"}
    rig.save_and_settle("agents/zoe/persona", "I am Zoe.\n")
    eventually(lambda: "I am Zoe." in memory.compile())
    with pytest.raises(InvalidLabel):
        client.memory("no/agent")


def test_agent_without_blocks(rig: Rig, client: Client) -> None:
    """A known agent that nothing is attached to has an empty text."""
    (rig.root / "agents" / "idle").mkdir()
    rig.core.intake.hint_all()
    rig.settle()
    memory = client.memory("idle")
    assert (memory.compile(), memory.get_blocks()) == ("", [])


@pytest.mark.parametrize("style", STYLES)
def test_text_is_the_prompt_of_the_blocks(rig: Rig, memory: Memory, style: Style) -> None:
    """The text is what `compile_prompt` makes of the blocks as they were saved."""
    rules = ToolUsageRules("How.", "Once.")
    assert memory.compile(style=style) == wanted(rig, style=style)
    assert memory.compile(style=style, tool_usage_rules=rules) == wanted(rig, style=style, tool_usage_rules=rules)
    assert memory.compile(style=style, tool_usage_rules="r") == wanted(rig, style=style, tool_usage_rules="r")


def test_no_such_style(memory: Memory) -> None:
    """A style that is none is said to be none, each time."""
    for _ in range(2):
        with pytest.raises(InvalidField):
            memory.compile(style="baroque")  # type: ignore[arg-type]


# --- what it costs ---


@pytest.mark.usefixtures("_undoubted")
def test_unchanged_agent_costs_nothing(memory: Memory, raw: Any) -> None:
    """While nothing that concerns the agent changes, no question reaches the server, whatever is asked."""
    texts = {style: memory.compile(style=style) for style in STYLES}
    before = calls(raw)
    for _ in range(100):
        for style in STYLES:
            assert memory.compile(style=style) is texts[style]
        memory.get_blocks()
        memory.get_block("notes")
        memory.list_block_labels()
    assert calls(raw) == before
    assert len({*texts.values()}) == len(STYLES)


@pytest.mark.usefixtures("_undoubted")
def test_every_way_of_compiling_is_kept(memory: Memory, raw: Any) -> None:
    """Each style is compiled from what is known already: no question more."""
    memory.list_block_labels()
    before = calls(raw)
    for style in STYLES:
        for rules in (None, "r", ToolUsageRules("d", "v")):
            text = memory.compile(style=style, tool_usage_rules=rules)
            assert memory.compile(style=style, tool_usage_rules=rules) is text
    assert calls(raw) == before


@pytest.mark.usefixtures("_undoubted")
def test_changes_that_do_not_concern_it_cost_nothing(rig: Rig, memory: Memory, client: Client) -> None:
    """Other blocks and agents may change as they like: the text is the very same object."""
    with client.watch() as watch:
        text = memory.compile()
        rig.save_and_settle("others", "---\nagents: [bob]\n---\nnew\n")
        rig.save_and_settle("agents/bob/persona", "I am Bob.\n")
        rig.save_and_settle("fresh", "nobody's\n")
        while next(watch).seq != rig.journal.seq:
            pass
    assert memory.compile() is text


# --- what changes ---


CHANGES: dict[str, Callable[[Rig], object]] = {
    "value": lambda rig: rig.write("system/rules", "---\nagents: [ann]\n---\nbe kinder\n"),
    "description": lambda rig: rig.write("agents/ann/human", "---\ndescription: Another.\n---\nBob\n"),
    "limit": lambda rig: rig.write("agents/ann/persona", "---\nlimit: 100\n---\nI am Ann.\n"),
    "read_only": lambda rig: rig.write("notes", "---\nagents: [ann, bob]\n---\none\ntwo\n"),
    "hidden": lambda rig: rig.write("secret", "---\nagents: [ann]\n---\nhush\n"),
    "attach": lambda rig: rig.write("others", "---\nagents: [ann, bob]\n---\nhers too\n"),
    "detach": lambda rig: rig.write("notes", "---\nagents: [bob]\nread_only: true\n---\none\ntwo\n"),
    "delete": lambda rig: rig.remove("system/rules"),
    "new private block": lambda rig: rig.write("agents/ann/diary", "Monday\n"),
    "private block deleted": lambda rig: rig.remove("agents/ann/human"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_change_is_seen(rig: Rig, memory: Memory, change: str) -> None:
    """Whatever concerns the agent is in the next text once it was announced; and what follows that change is, too."""
    before = memory.compile()
    CHANGES[change](rig)
    rig.settle()
    after = wanted(rig)
    assert after != before
    becomes(memory, lambda: after, f"{change} is seen")
    rig.save_and_settle("agents/ann/persona", "I am still Ann.\n")
    becomes(memory, lambda: wanted(rig), "what follows is seen")


def test_block_that_came_is_followed(rig: Rig, memory: Memory) -> None:
    """A block is followed from its attachment on, and no longer once it is detached."""
    memory.compile()
    rig.save_and_settle("others", "---\nagents: [ann, bob]\n---\none\n")
    for value in ("two", "three"):
        rig.save_and_settle("others", f"---\nagents: [ann, bob]\n---\n{value}\n")
        becomes(memory, lambda: wanted(rig), f"{value} is seen")
    rig.save_and_settle("others", "---\nagents: [bob]\n---\nthree\n")
    becomes(memory, lambda: wanted(rig), "it has gone")


@pytest.mark.usefixtures("_patient")
def test_what_is_heard_while_it_is_read(rig: Rig, memory: Memory, raw: Any) -> None:
    """Changes in quick succession, asked for all the time: no text is kept that the next question should not get."""
    memory.compile()
    stop = threading.Event()
    texts: list[str] = []

    def ask() -> None:
        while not stop.is_set():
            texts.append(memory.compile())

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for number in range(100):
            rig.save_and_settle("agents/ann/persona", f"{number:03}\n")
            if number % 10 == 0:
                raw.client_kill_filter(_type="pubsub")
    finally:
        stop.set()
        asking.join()
    seen = [text.partition("<value>\n")[2][:3] for text in texts]
    shown = [number for number in seen if number.isdigit()]
    assert shown == sorted(shown)
    becomes(memory, lambda: wanted(rig), "the last is seen")


class Interrupted(Transport):
    """Asks, and has something happen between the questions."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "blocks")
        self.meanwhile: Callable[[], object] = lambda: None

    def ask(self, *commands: Command, together: bool = False) -> list[Any]:
        replies = super().ask(*commands, together=together)
        self.meanwhile()
        return replies


def test_blocks_are_picked(rig: Rig, memory: Memory) -> None:
    """By the names the agent has for them, to make a prompt that fits; one that it has not is not shown."""
    picked = memory.compile(blocks=["notes", "human", "nothing"])
    assert "<notes>" in picked
    assert "<human>" in picked
    assert "<persona>" not in picked
    assert memory.compile(blocks=[]) == ""
    assert memory.compile() == wanted(rig)
    rig.save_and_settle("agents/ann/human", "Alice\n")
    eventually(lambda: "Alice" in memory.compile(blocks=["human"]), "what is picked is current")


def test_tokens_are_counted_by_what_is_passed_in(memory: Memory) -> None:
    """Of each block that is shown, as it is shown."""
    counts = memory.count_tokens(lambda text: len(text.split()))
    assert counts.keys() == {"persona", "human", "notes", "system/rules"}
    assert counts["notes"] == len(memory.compile(blocks=["notes"]).split()) - len(
        [
            "<memory_blocks>",
            "The",
            "following",
            "memory",
            "blocks",
            "are",
            "currently",
            "engaged",
            "in",
            "your",
            "core",
            "memory",
            "unit:",
            "</memory_blocks>",
        ]
    )


def forked(work: Callable[[], str], meanwhile: Callable[[], object]) -> str:
    """What `work` says in a child of this process, begun before `meanwhile` was done here."""
    (go, ready), (heard, said) = os.pipe(), os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads: that is what is tried
        child = os.fork()
    if child == 0:
        try:
            os.read(go, 1)
            os.write(said, work().encode())
        except BaseException as error:  # noqa: BLE001  # it is told
            os.write(said, repr(error).encode())
        finally:
            os._exit(0)
    os.close(said)
    meanwhile()
    os.write(ready, b"x")
    with os.fdopen(heard, "rb") as end:
        text = end.read().decode()
    os.waitpid(child, 0)
    for pipe in (go, ready):
        os.close(pipe)
    return text


def test_memory_is_current_after_a_fork(rig: Rig) -> None:
    """A child has none of the threads that follow here: it begins to follow by itself, as often as it forks."""
    with Client(rig.url) as client:
        memory = client.memory("ann")
        before = memory.compile()

        def in_child() -> str:
            first = memory.compile()
            assert memory.get_block("human").value == "Alice"
            assert memory.compile() == first
            client.close()
            return first

        def change() -> None:
            rig.save_and_settle("agents/ann/human", "Alice\n")

        text = forked(in_child, change)
        assert text != before
        assert text == wanted(rig)
        rig.save_and_settle("agents/ann/human", "Carol\n")
        eventually(lambda: memory.compile() == wanted(rig), "the parent follows as before")


def test_memory_in_asyncio_code_is_current_after_a_fork(rig: Rig) -> None:
    """A child runs a loop of its own, also if the parent's was running; the parent goes on as before."""

    async def fork() -> None:
        client = AsyncClient(rig.url)
        memory = client.memory("ann")
        before = await memory.compile()

        async def in_child() -> str:
            text = await memory.compile()
            assert await memory.compile() == text
            await client.close()
            gc.collect()
            return text

        def change() -> None:
            rig.save_and_settle("agents/ann/human", "Alice\n")

        text = forked(lambda: asyncio.run(in_child()), change)
        assert text != before
        assert text == wanted(rig)
        rig.save_and_settle("agents/ann/human", "Carol\n")
        async with asyncio.timeout(10):
            while await memory.compile() != wanted(rig):  # noqa: ASYNC110  # the memory tells nobody
                await asyncio.sleep(0.01)
        assert (await memory.get_block("human")).value == "Carol"
        await client.close()

    asyncio.run(fork())


def test_watch_is_of_the_process_that_began_it(rig: Rig) -> None:
    """In a child it says so, instead of waiting for a thread that is not there."""
    with Client(rig.url) as client:
        watch = client.watch()
        text = forked(lambda: str(next(watch)), lambda: None)
        assert "this watch was begun in another process or event loop: begin one here" in text
        rig.save_and_settle("agents/ann/human", "Alice\n")
        assert next(watch).kind == "updated"


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_client_in_one_event_loop_after_another(rig: Rig) -> None:
    """As in a program that calls `asyncio.run` more than once: connections are made anew, and memories are current."""
    client = AsyncClient(rig.url)
    memory = client.memory("ann")

    async def compile_twice() -> str:
        text = await memory.compile()
        assert await memory.compile() == text
        return text

    before = asyncio.run(compile_twice())
    rig.save_and_settle("agents/ann/human", "Alice\n")
    after = asyncio.run(compile_twice())
    assert before != after
    assert after == wanted(rig)
    rig.save_and_settle("agents/ann/human", "Carol\n")

    async def compile_and_close() -> str:
        text = await compile_twice()
        await client.close()
        return text

    assert asyncio.run(compile_and_close()) == wanted(rig)
    gc.collect()


def test_client_in_two_event_loops_at_once(rig: Rig) -> None:
    """While one loop runs, another one is told to make a client of its own."""
    client = AsyncClient(rig.url)

    async def ask() -> None:
        assert await client.is_kept()
        loop = asyncio.get_running_loop()
        with pytest.raises(Misconfigured, match="make a client in each"):
            await loop.run_in_executor(None, lambda: asyncio.run(client.is_kept()))
        assert await client.is_kept()
        await client.close()

    asyncio.run(ask())


def test_what_was_heard_while_it_was_read(rig: Rig) -> None:
    """What was read while a change was heard, or while nothing could be heard, is given once and not kept."""
    transport = Interrupted(rig.url)
    memory = Memory(transport, "ann", WeakSet())
    memory._follower = cast("Any", SimpleNamespace(is_here=True))
    watching, kept = memory._watching, memory._kept
    memory.get_blocks()
    assert not kept.is_fresh  # it does not listen yet
    watching.life = 1
    transport.meanwhile = kept.forget
    memory.get_blocks()
    assert not kept.is_fresh
    transport.meanwhile = lambda: None
    memory.get_blocks()
    assert kept.is_fresh
    watching.life = 2
    assert not kept.is_fresh
    transport.close()


# --- losses ---


@pytest.mark.parametrize("how", ["killed", "cut", "stalled"])
def test_no_stale_text_after_a_loss(kind: tuple[str, str], rig: Rig, emptied: RedisServer, raw: Any, how: str) -> None:
    """Changes that were announced while the connection was lost are in the text once the loss is noticed."""
    between = Between(emptied.socket)
    with client_of(kind[1], between.url) as client:
        memory = client.memory("ann")
        memory.compile()
        for number in range(2):
            {
                "killed": lambda: raw.client_kill_filter(_type="pubsub"),
                "cut": between.cut,
                "stalled": between.stall,
            }[how]()
            rig.save_and_settle("agents/ann/persona", f"{number}\n")
            eventually(lambda: ignoring(memory) == wanted(rig), "the change is seen")
    between.close()


def ignoring(memory: Memory) -> str | None:
    """The text, if the server can be asked."""
    try:
        return memory.compile()
    except Unavailable:
        return None


@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "empty"])
def test_server_restarted(kind: tuple[str, str], rig_on_mortal: Rig, server: RedisServer, *, is_kept: bool) -> None:
    """While the server is away there is no text; neither is there a wrong one until the mirror is whole again."""
    rig = rig_on_mortal
    if is_kept:
        rig.client.save()
    with client_of(kind[1], server.url) as client:
        memory = client.memory("ann")
        old = memory.compile()
        server.kill()
        eventually(lambda: ignoring(memory) is None, "the loss is noticed")
        with pytest.raises(Unavailable):
            memory.get_blocks()
        server.start()
        shown = ignoring(memory)
        assert shown == (old if is_kept else None)
        rig.write("agents/ann/persona", "I am new.\n")
        rig.settle()
        eventually(lambda: ignoring(memory) == wanted(rig), "the change is seen")


def test_mirror_that_is_built_anew_is_not_half_shown(rig: Rig, memory: Memory, client: Client, raw: Any) -> None:
    """While blocks are missing because the mirror is being built, asking for them is Unavailable, not NotFound."""
    text = memory.compile()
    raw.flushall()
    with client.watch() as watch:
        with pytest.raises(Unavailable, match="mirror"):
            client.memory("ann").compile()
        rig.settle()
        while next(watch).kind != "reset":
            pass
    assert client.memory("ann").compile() == text == wanted(rig)
    becomes(memory, lambda: wanted(rig), "it is as it was")
    rig.save_and_settle("agents/ann/persona", "I am new.\n")
    becomes(memory, lambda: wanted(rig), "the change is seen")


def test_memory_may_begin_while_the_server_is_away(kind: tuple[str, str], tmp_path: Path, server: RedisServer) -> None:
    """A memory whose first question failed answers as soon as there is a server and a mirror."""
    server.kill()
    with client_of(kind[1], server.url) as client:
        memory = client.memory("ann")
        for _ in range(2):
            with pytest.raises(Unavailable):
                memory.compile()
        server.start()
        with pytest.raises(Unavailable):
            memory.compile()
        for rig in begun(tmp_path, server):
            eventually(lambda rig=rig: ignoring(memory) == wanted(rig), "the blocks are seen")  # type: ignore[misc]


# --- its end ---


def test_closed_memory_leaves_nothing(rig: Rig, client: Client, raw: Any) -> None:
    """Closing a memory ends its thread and its connection; it follows from the first question on, not before."""
    bob = client.memory("bob")
    bob.compile()
    threads = threading.active_count()
    idle = client.memory("ann")
    assert (threading.active_count(), subscribers(raw, rig)) == (threads, 0)
    idle.close()
    for _ in range(5):
        with client.memory("ann") as memory:
            memory.compile()
            eventually(lambda: subscribers(raw, rig) == 1, "it is followed")
        assert threading.active_count() == threads
        eventually(lambda: subscribers(raw, rig) == 0, "it is followed no longer")


def test_memory_that_nobody_has_follows_nobody(rig: Rig, client: Client, raw: Any) -> None:
    """A memory need not be closed: when it is forgotten, its thread and connection go, too."""
    memory = client.memory("ann")
    memory.compile()
    eventually(lambda: subscribers(raw, rig) == 1, "it is followed")
    del memory
    gc.collect()
    eventually(lambda: subscribers(raw, rig) == 0, "it is followed no longer")


def subscribers(raw: Any, rig: Rig) -> int:
    ((_, count),) = raw.pubsub_numsub(Keys(rig.namespace).changes_of_agent("ann"))
    return int(count)


def test_client_closes_its_memories(kind: tuple[str, str], rig: Rig, raw: Any) -> None:
    """With the client, all that it has given out is closed."""
    threads = threading.active_count()
    with client_of(kind[1], rig.url) as client:
        memories = [client.memory(agent) for agent in ("ann", "bob")]
        for memory in memories:
            memory.compile()
    assert threading.active_count() == threads
    eventually(lambda: subscribers(raw, rig) == 0, "they are followed no longer")


# --- files ---


class Files:
    """File sources as the mirror shows them, written by hand."""

    def __init__(self, raw: Any, epoch: str) -> None:
        self._raw = raw
        self._epoch = epoch

    def source(self, name: str, *files: str, agents: tuple[str, ...] = ("ann",), **about: Any) -> None:
        about = {"description": None, "instructions": None, "limit": 50, "directory": f"/srv/{name}", **about}
        self._raw.hset(KEYS.sources, name, json.dumps(about))
        for file in files:
            self._raw.hset(KEYS.source(name), file, json.dumps({"bytes": 9, "updated_at": AT}))
        self._raw.delete(KEYS.source_agents(name))
        if agents:
            self._raw.sadd(KEYS.source_agents(name), *agents)
        notice = {"kind": "source", "source": name, "files": list(files), "at": AT, "epoch": self._epoch}
        self._raw.publish(KEYS.changes_of_source(name), json.dumps(notice))
        self._raw.publish(KEYS.changes_of_agent("ann"), json.dumps(notice))

    def open(self, file: str, value: str, at: str = AT) -> None:
        source, _, path = file.partition("/")
        shown = {"value": value, "chars": len(value), "limit": 50, "source": source, "path": path, "updated_at": AT}
        self._raw.hset(KEYS.file(file), mapping=shown)
        self._raw.hset(KEYS.open("ann"), file, at)
        self._say("opened", file)

    def close(self, file: str) -> None:
        self._raw.hdel(KEYS.open("ann"), file)
        self._say("closed", file)

    def _say(self, kind: str, file: str) -> None:
        notice = {"kind": kind, "agent": "ann", "file": file, "at": AT, "epoch": self._epoch}
        self._raw.publish(KEYS.changes_of_agent("ann"), json.dumps(notice))


@pytest.fixture
def files(rig: Rig, raw: Any) -> Files:
    made = Files(raw, rig.journal.epoch)
    made.source("manuals", "a.txt", "b/c.txt", description="All manuals.", instructions="Read them.")
    made.source("reports", "q1.md")
    made.source("payroll", "all.csv", agents=("bob",))
    return made


MANUALS = Source(
    "manuals",
    "All manuals.",
    "Read them.",
    (File("a.txt", is_open=False, value="", limit=50), File("b/c.txt", is_open=False, value="", limit=50)),
)
REPORTS = Source("reports", None, None, (File("q1.md", is_open=False, value="", limit=50),))


@pytest.mark.parametrize("style", STYLES)
def test_sources_are_shown(rig: Rig, memory: Memory, files: Files, style: Style) -> None:
    """The sources the agent sees follow its blocks, with their files; others are not shown."""
    assert memory.compile(style=style) == wanted(rig, style=style, sources=[MANUALS, REPORTS])
    files.open("manuals/a.txt", "Turn it on.")
    opened = Source(
        "manuals",
        "All manuals.",
        "Read them.",
        (File("a.txt", is_open=True, value="Turn it on.", limit=50, last_accessed_at=AT), MANUALS.files[1]),
    )
    text = wanted(rig, style=style, sources=[opened, REPORTS])
    eventually(lambda: memory.compile(style=style) == text, "the open file is seen")


def test_sources_are_chosen(rig: Rig, memory: Memory, files: Files) -> None:
    """`sources` names those to show; what the agent does not see is not shown for being named."""
    assert memory.compile(sources=["reports"]) == wanted(rig, sources=[REPORTS])
    assert memory.compile(sources=["reports", "payroll", "nothing"]) == wanted(rig, sources=[REPORTS])
    assert memory.compile(sources=[]) == wanted(rig)
    assert memory.compile() == wanted(rig, sources=[MANUALS, REPORTS])
    files.source("reports", agents=())
    eventually(lambda: memory.compile(sources=["reports"]) == wanted(rig), "it has gone")


def test_most_files_open(memory: Memory, files: Files) -> None:
    """`max_files_open` shows only those opened last as open."""
    files.open("manuals/a.txt", "first", "2026-01-01T00:00:00.000Z")
    files.open("manuals/b/c.txt", "second", "2026-01-02T00:00:00.000Z")
    files.open("reports/q1.md", "third", "2026-01-03T00:00:00.000Z")
    eventually(lambda: "third" in memory.compile(), "all are open")
    for count in range(4):
        text = memory.compile(max_files_open=count)
        shown = [value for value in ("first", "second", "third") if f"<value>\n{value}\n</value>" in text]
        assert shown == ["first", "second", "third"][3 - count :]
        assert f"- current_files_open={count}\n- max_files_open={count}\n" in text
    files.close("reports/q1.md")
    eventually(lambda: "third" not in memory.compile(), "it is closed")


def test_file_that_changed_is_seen(memory: Memory, files: Files) -> None:
    """What is announced of a source the agent sees is in the next text."""
    files.open("manuals/a.txt", "Turn it on.")
    eventually(lambda: "Turn it on." in memory.compile(), "the open file is seen")
    files.open("manuals/a.txt", "Turn it off.")
    eventually(lambda: "Turn it off." in memory.compile(), "its new text is seen")
    files.source("manuals", "new.txt")
    eventually(lambda: 'name="new.txt"' in memory.compile(), "the new file is seen")


def test_source_that_came_is_followed(rig: Rig, memory: Memory, files: Files, raw: Any) -> None:
    """A source that the agent begins to see is followed from then on."""
    memory.compile()
    files.source("late", agents=("ann",))
    eventually(lambda: '<directory name="late">' in memory.compile(), "the source is seen")
    eventually(lambda: raw.pubsub_numsub(KEYS.changes_of_source("late"))[0][1] == 1, "it is followed")
    raw.hset(KEYS.source("late"), "x.txt", json.dumps({"bytes": 1, "updated_at": AT}))
    notice = {"kind": "source", "source": "late", "files": ["x.txt"], "at": AT, "epoch": rig.journal.epoch}
    raw.publish(KEYS.changes_of_source("late"), json.dumps(notice))
    eventually(lambda: 'name="x.txt"' in memory.compile(), "its file is seen")


@pytest.mark.usefixtures("_undoubted")
def test_sources_cost_nothing_while_unchanged(memory: Memory, files: Files, raw: Any) -> None:
    """Files, too, are asked for once."""
    files.open("manuals/a.txt", "Turn it on.")
    memory.compile()
    eventually(lambda: memory.compile() is memory.compile(), "it is kept")
    before = calls(raw)
    for sources in (None, ["manuals"], []):
        for count in (None, 0, 1):
            memory.compile(sources=sources, max_files_open=count)
    assert calls(raw) == before
