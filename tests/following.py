"""Programs that follow changes, in either way, one that makes them, and what may come between them and their server."""

from __future__ import annotations

import asyncio
import inspect
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from blocksd import AsyncClient, Client, Reset
from blocksd.errors import Unavailable
from support import DEADLINE, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from blocksd import Item
    from blocksd.model.revision import Revision

WAYS = ("blocking", "asyncio")

_END = object()


class Alike:
    """What is made for asyncio code, used like its blocking twin: all of it runs on a loop in a thread of its own."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        return Alike(found, self._loop) if callable(found) or _is_asynchronous(found) else found

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._run(self._target, *args, **kwargs)

    def __enter__(self) -> Any:
        return self._run(self._target.__aenter__)

    def __exit__(self, *error: object) -> None:
        self._run(self._target.__aexit__, *error)

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        item = self._run(self._target.__anext__)
        if item is _END:
            raise StopIteration
        return item

    def _run(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        if self._loop.is_closed():  # nothing is left that could have an item
            return _END

        async def call() -> Any:
            try:
                result = method(*args, **kwargs)
                return await result if inspect.isawaitable(result) else result
            except StopAsyncIteration:
                return _END

        result = asyncio.run_coroutine_threadsafe(call(), self._loop).result()
        return Alike(result, self._loop) if _is_asynchronous(result) else result


def _is_asynchronous(one: object) -> bool:
    return type(one).__name__.startswith("Async")


def alike(client: Client | AsyncClient, loop: asyncio.AbstractEventLoop) -> Client:
    """A client of either kind, used like a blocking one."""
    return cast("Client", Alike(client, loop) if isinstance(client, AsyncClient) else client)


@contextmanager
def looping() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="loop")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextmanager
def client_of(way: str, url: str, namespace: str = "blocks") -> Iterator[Client]:
    """A client of either kind, used like a blocking one."""
    if way == "blocking":
        with Client(url, namespace) as client:
            yield client
    else:
        with looping() as loop:
            client = alike(AsyncClient(url, namespace), loop)
            try:
                yield client
            finally:
                client.close()


def is_served(ask: Callable[[], object]) -> bool:
    """Return True if what is asked is answered."""
    try:
        ask()
    except Unavailable:
        return False
    return True


class Follower:
    """A program that follows the changes, in a thread of its own. It listens once it is made."""

    def __init__(self, way: str, url: str, *, namespace: str = "blocks", **options: Any) -> None:
        """`agent`, `label` and `since` as a watch has them. Raises what the watch does at its beginning."""
        self.heard: list[Item] = []
        self.error: Exception | None = None
        self._way = way
        self._url = url
        self._namespace = namespace
        self._options = options
        self._begun = threading.Event()
        self._watch: Any = None
        self._thread = threading.Thread(target=self._follow, name="follower")
        self._thread.start()
        assert self._begun.wait(DEADLINE)
        if self.error is not None:
            self._thread.join()
            raise self.error

    def _follow(self) -> None:
        try:
            if self._way == "blocking":
                with Client(self._url, self._namespace) as client, client.watch(**self._options) as self._watch:
                    self._begun.set()
                    for item in self._watch:
                        while isinstance(item, Reset) and not is_served(item.load):
                            time.sleep(0.01)
                        self.heard.append(item)
            else:
                asyncio.run(self._follow_in_loop())
        except Exception as error:  # noqa: BLE001  # whatever it is, the test has to know
            self.error = error
        self._begun.set()

    async def _follow_in_loop(self) -> None:
        async with AsyncClient(self._url, self._namespace) as client, client.watch(**self._options) as watch:
            self._watch = Alike(watch, asyncio.get_running_loop())
            self._begun.set()
            async for item in watch:
                while isinstance(item, Reset):
                    with suppress(Unavailable):
                        await item.aload()
                        break
                    await asyncio.sleep(0.01)
                self.heard.append(item)

    @property
    def place(self) -> tuple[str | None, int | None]:
        place: tuple[str | None, int | None] = self._watch.place
        return place

    def reach(self, seq: int) -> list[tuple[str, int | None]]:
        """All that was heard, once everything up to this seq was passed on."""
        eventually(
            lambda: self.error or (self.place[1] or 0) >= seq,
            f"seq {seq} is reached; it is at {self.place}, and heard {self.all()[-10:]}",
        )
        return self.all()

    def until(self, seq: int) -> list[tuple[str, int | None]]:
        """All that was heard, once it includes this seq or a later one."""
        eventually(
            lambda: self.error or any((item.seq or 0) >= seq for item in list(self.heard)),
            f"seq {seq} is heard; it is at {self.place}, and heard {self.all()[-10:]}",
        )
        return self.all()

    def all(self) -> list[tuple[str, int | None]]:
        """Kind and seq of each item."""
        if self.error is not None:
            raise self.error
        return [(item.kind, item.seq) for item in self.heard]

    def close(self) -> None:
        """End it, while it waits."""
        if self._thread.is_alive():
            self._watch.close()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()


class Writer:
    """A program that appends one line after the other, in a thread, until it is told to stop."""

    def __init__(self, url: str, namespace: str) -> None:
        self.done: list[str] = []
        self._url, self._namespace = url, namespace
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write, name="writer")
        self._thread.start()

    def _write(self) -> None:
        with Client(self._url, self._namespace) as client:
            while not self._ending.is_set():
                client.blocks.append("notes", f"line-{len(self.done)}")
                self.done.append(f"line-{len(self.done)}")

    def more(self, *, seconds: float = DEADLINE) -> None:
        """Wait until some more are done."""
        enough = len(self.done) + 5
        eventually(lambda: len(self.done) >= enough, f"{enough} are done", seconds=seconds)

    def stop(self) -> list[str]:
        """Stop; all lines that were acknowledged."""
        self._ending.set()
        self._thread.join(DEADLINE)
        return self.done


class Between:
    """Stands between clients and a server's socket: passes everything on, until it is told to cut or to stall."""

    def __init__(self, socket_path: Path, name: str = "between") -> None:
        self._server = socket_path
        self.path = socket_path.with_name(f"{name}.sock")
        self.url = f"unix://{self.path}"
        self._peers: dict[socket.socket, socket.socket] = {}
        self._stalled: list[socket.socket] = []
        self._orders: deque[str] = deque()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self._call, self._called = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._called, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._serve, name="between")
        self._thread.start()

    def cut(self) -> None:
        """End every connection there is."""
        self._tell("cut")

    def stall(self) -> None:
        """Pass nothing on any more on the connections there are, without a sign to either side."""
        self._tell("stall")

    def close(self) -> None:
        self._tell("close")
        self._thread.join()
        for one in (self._call, self._called, self._listener):
            one.close()
        self._selector.close()
        self.path.unlink()

    def _tell(self, order: str) -> None:
        self._orders.append(order)
        self._call.sendall(b".")

    def _serve(self) -> None:
        while True:
            for key, _ in self._selector.select():
                ready = cast("socket.socket", key.fileobj)
                if ready is self._called:
                    ready.recv(1)
                    if self._obey(self._orders.popleft()):
                        return
                elif ready is self._listener:
                    self._accept()
                elif ready in self._peers:
                    self._pass_on(ready)

    def _obey(self, order: str) -> bool:
        for one in list(self._peers):
            if order == "stall":
                self._selector.unregister(one)
                self._stalled.append(one)
                del self._peers[one]
            elif one in self._peers:
                self._drop(one)
        if order == "close":
            for one in self._stalled:
                one.close()
        return order == "close"

    def _accept(self) -> None:
        client, server = self._listener.accept()[0], socket.socket(socket.AF_UNIX)
        try:
            server.connect(str(self._server))
        except OSError:  # it is down
            client.close()
            server.close()
            return
        self._peers |= {client: server, server: client}
        for one in (client, server):
            self._selector.register(one, selectors.EVENT_READ)

    def _pass_on(self, ready: socket.socket) -> None:
        try:
            data = ready.recv(1 << 16)
            self._peers[ready].sendall(data)
        except OSError:
            data = b""
        if not data:
            self._drop(ready)

    def _drop(self, one: socket.socket) -> None:
        for end in (one, self._peers[one]):
            self._selector.unregister(end)
            del self._peers[end]
            end.close()


class Scope:
    """What a watch is about: one block, one agent, or everything; and what it must have passed on."""

    def __init__(self, *, label: str | None = None, agent: str | None = None) -> None:
        self.label = label
        self.agent = agent

    @property
    def options(self) -> dict[str, Any]:
        return {"label": self.label, "agent": self.agent}

    def concerns(self, revision: Revision) -> bool:
        if self.agent is not None:
            return self.agent in (*revision.agents, *revision.attached, *revision.detached)
        return self.label in (None, revision.label)

    def shows(self, revision: Revision) -> bool:
        """Whether there is a block in it after this."""
        return revision.block is not None and (self.agent is None or self.agent in revision.agents)

    def check(
        self, heard: Iterable[Item], revisions: Iterable[Revision], *, after: int, leads_back: bool = False
    ) -> None:
        """Each revision after `after` that concerns it was heard once and in order, or a Reset was instead.

        Whoever applied what was heard to what there was at `after` has the blocks there are now. A Reset `leads_back` only
        to a server that had not received everything.
        """
        by_seq = {revision.seq: revision for revision in revisions}
        ours = [revision for revision in by_seq.values() if self.concerns(revision)]
        blocks: dict[str, str] = {}
        for revision in by_seq.values():
            if revision.seq <= after:
                self._apply(revision, blocks)
        last, heard = after, list(heard)
        for item in heard:
            assert item.seq is not None, item
            if isinstance(item, Reset):
                assert leads_back or item.seq >= last, f"a reset leads back from {last} to {item.seq}"
                blocks = {label: block.value for label, block in item.blocks.items()}
            else:
                expected = next((revision.seq for revision in ours if revision.seq > last), None)
                assert item.seq == expected, f"{item.seq} was heard after {last}, instead of {expected}"
                self._apply(by_seq[item.seq], blocks)
            last = item.seq
        missing = [revision.seq for revision in ours if revision.seq > last]
        assert not missing, f"after {last}, {missing} were not heard"
        now: dict[str, str] = {}
        for revision in by_seq.values():
            self._apply(revision, now)
        assert blocks == now

    def _apply(self, revision: Revision, blocks: dict[str, str]) -> None:
        if not self.concerns(revision):
            return
        if revision.renamed_from is not None:
            blocks.pop(revision.renamed_from, None)
        if self.shows(revision):
            assert revision.block is not None
            blocks[revision.label] = revision.block.value
        else:
            blocks.pop(revision.label, None)
