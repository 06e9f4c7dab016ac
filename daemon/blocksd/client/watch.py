"""Changes one by one, as they happen: for blocking and for asyncio code."""

from __future__ import annotations

import asyncio
import inspect
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

from blocksd.client.plan import Ask, Pause
from blocksd.client.subscription import AsyncSubscription, Subscription
from blocksd.client.watching import Emit, Live, Reset
from blocksd.errors import BlocksdError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from blocksd.client.runner import Asyncio, Blocking
    from blocksd.client.watching import Item, Step, Watching


class Watch:
    """Changes one by one, as they happen: an iterator that ends when it is closed.

    What happens after it was made is in it. With a callback, a thread of its own passes every item to it instead, one
    after the other; an exception from the callback ends the watch, and is shown like that of any thread.
    """

    def __init__(self, runner: Blocking, watching: Watching, callback: Callable[[Item], object] | None = None) -> None:
        """Raises Unavailable when Redis does not serve."""
        self._runner = runner
        self._watching = watching
        self._steps = watching.steps()
        self._answer: Any = None
        self._error: BlocksdError | None = None
        self._closed = threading.Event()
        self._busy = threading.Lock()
        self._subscription = Subscription(runner.url, runner.keys)
        self._thread: threading.Thread | None = None
        self._first = self._advance(until_live=True)
        if callback is not None:
            self._thread = threading.Thread(target=self._call, args=(callback,), name="blocksd-watch", daemon=True)
            self._thread.start()

    @property
    def place(self) -> tuple[str | None, int | None]:
        """The epoch, and the seq up to which everything was passed on."""
        return self._watching.place

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Item:
        with self._busy:
            item, self._first = self._first, None
            if item is None:
                item = self._advance()
            if item is None:
                self._release()
                raise StopIteration
            return item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def stop(self) -> None:
        """Have it end soon: whoever waits for the next item stops waiting within a second."""
        self._closed.set()

    def close(self) -> None:
        """End it, and wait for its thread, if it has one."""
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._busy.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._busy.release()

    def _call(self, callback: Callable[[Item], object]) -> None:
        try:
            for item in self:
                callback(item)
        finally:
            self._closed.set()
            self._release()

    def _release(self) -> None:
        self._steps.close()
        self._watching.life = None
        self._subscription.close()

    def _advance(self, *, until_live: bool = False) -> Item | None:
        """The next item; None when closed (or, if so asked, when live)."""
        while not self._closed.is_set():
            try:
                step = self._steps.send(self._answer) if self._error is None else self._steps.throw(self._error)
                self._answer, self._error = None, None
                if isinstance(step, Emit):
                    return self._ready(step.item)
                if until_live and isinstance(step, Live):
                    return None
            except BaseException:
                self._closed.set()
                self._release()
                raise
            try:
                self._answer = self._perform(step)
            except BlocksdError as error:
                self._error = error
        return None

    def _ready(self, item: Item) -> Item:
        if isinstance(item, Reset):
            item.read_by(self._runner.run, self._runner.keys, asynchronous=False)
        return item

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return self._runner.ask(step)
        if isinstance(step, Pause):
            return self._closed.wait(step.seconds)
        if isinstance(step, (Emit, Live)):
            return None
        return self._subscription.perform(step)


class AsyncWatch:
    """Changes one by one, as they happen: an asynchronous iterator that ends when it is closed.

    What happens after it was entered (`async with`), or first asked, is in it. With a callback, which may be a coroutine
    function, a task passes every item to it instead, one after the other.
    """

    def __init__(
        self, runner: Asyncio, watching: Watching, callback: Callable[[Item], Awaitable[object] | object] | None = None
    ) -> None:
        self._runner = runner
        self._watching = watching
        self._steps = watching.steps()
        self._answer: Any = None
        self._error: BlocksdError | None = None
        self._closed = False
        self._subscription = AsyncSubscription(runner.url, runner.keys)
        self._under_way: asyncio.Task[Any] | None = None
        self._starting = asyncio.Lock()
        self._is_started = False
        self._first: Item | None = None
        self._task: asyncio.Task[None] | None = None
        if callback is not None:
            self.call(callback)

    @property
    def place(self) -> tuple[str | None, int | None]:
        """The epoch, and the seq up to which everything was passed on."""
        return self._watching.place

    def __aiter__(self) -> AsyncWatch:
        return self

    async def __anext__(self) -> Item:
        if not self._is_started:
            await self.start()
        item, self._first = self._first, None
        if item is None:
            item = await self._advance()
        if item is None:
            await self._release()
            raise StopAsyncIteration
        return item

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def start(self) -> None:
        """Listen from now on. Raises Unavailable when Redis does not serve."""
        async with self._starting:
            if not self._is_started:
                self._first = await self._advance(until_live=True)
                self._is_started = True

    def call(self, callback: Callable[[Item], Awaitable[object] | object]) -> None:
        """Pass every item to `callback` from now on, in a task."""
        self._task = asyncio.create_task(self._call(callback))

    def stop(self) -> None:
        """Have it end soon."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()

    async def close(self) -> None:
        """End it."""
        self._closed = True
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self._release()

    async def _call(self, callback: Callable[[Item], Awaitable[object] | object]) -> None:
        try:
            async for item in self:
                outcome = callback(item)
                if inspect.isawaitable(outcome):
                    await outcome
        finally:
            self._closed = True
            await self._release()

    async def _release(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)
        self._steps.close()
        self._watching.life = None
        await self._subscription.close()

    async def _advance(self, *, until_live: bool = False) -> Item | None:
        """The next item; None when closed (or, if so asked, when live)."""
        while not self._closed:
            if self._under_way is None:
                try:
                    step = self._steps.send(self._answer) if self._error is None else self._steps.throw(self._error)
                    self._answer, self._error = None, None
                    if isinstance(step, Emit):
                        return self._ready(step.item)
                    if until_live and isinstance(step, Live):
                        return None
                except BaseException:
                    self._closed = True
                    await self._release()
                    raise
                self._under_way = asyncio.create_task(self._perform(step))
            # Who waits may be cancelled, by a timeout say, and ask again: what is under way is not, and not lost.
            await asyncio.wait((self._under_way,))
            done, self._under_way = self._under_way, None
            if not done.cancelled():  # by a close
                try:
                    self._answer = done.result()
                except BlocksdError as error:
                    self._error = error
        return None

    def _ready(self, item: Item) -> Item:
        if isinstance(item, Reset):
            item.read_by(self._runner.run, self._runner.keys, asynchronous=True)
        return item

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return await self._runner.ask(step)
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, (Emit, Live)):
            return None
        return await self._subscription.perform(step)
