"""Changes one by one, as they happen: for blocking code (a thread for a callback) and for asyncio code (a task)."""

import asyncio
import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from socket import SHUT_RDWR, socket
from types import TracebackType
from typing import Any, Self

from blocksd.client import reading_async
from blocksd.client.blocking import reading
from blocksd.client.blocking.subscription import Subscription
from blocksd.client.blocking.transport import Transport
from blocksd.client.subscription_async import AsyncSubscription
from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import BlocksdError, Misconfigured
from blocksd.protocol.driver import Driver, report_callback
from blocksd.protocol.reset import Item
from blocksd.protocol.steps import Ask, Emit, Live, Pause, Step
from blocksd.protocol.watching import Watching

RETRY_SECONDS = 1.0
"""Until a callback's watch that failed by another error than a lost connection begins again."""


class Watch:
    """Changes one by one, as they happen: an iterator that ends when it is closed.

    What happens after it was made is in it. With a callback, a thread passes every item to it instead, one after the
    other. It logs what the callback raises, and lost connections, to the logger `blocksd.client.watch`, and goes on. A watch
    is of the process that began it: after a fork, the child begins another.
    """

    def __init__(
        self, transport: Transport, watching: Watching, callback: Callable[[Item], object] | None = None
    ) -> None:
        """Listens at once. Raises Unavailable when Redis does not serve."""
        self._driver = Driver(watching, partial(reading.blocks_with, transport), asynchronous=False)
        self._transport = transport
        self._first: Item | None = None
        self._is_started = False
        self._subscription = Subscription(transport.url, transport.keys)
        self._closed = threading.Event()
        self._busy = threading.Lock()
        self._thread: threading.Thread | None = None
        self.start()
        if callback is not None:
            self.call(callback)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        _check_here(self)
        with self._busy:
            item = self._next_item()
            if item is None:
                self._release()
                raise StopIteration
            return item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def place(self) -> tuple[str | None, int | None]:
        """The epoch, and the seq up to which everything was passed on."""
        return self._driver.place

    @property
    def is_here(self) -> bool:
        """True where the watch can be used: it was begun in this process and event loop, or not yet."""
        return self._driver.is_in_its_process

    def start(self) -> None:
        """Listen from now on, if it does not yet. Raises Unavailable when Redis does not serve."""
        _check_here(self)
        if not self._is_started:
            self._first = self._next_item(until_live=True)
            self._is_started = True

    def call(self, callback: Callable[[Item], object], *, level: int = logging.WARNING) -> None:
        """Pass every item to `callback` from now on, in the background. `level` is that of the log of interruptions."""
        _check_here(self)
        self._driver.level = level
        self._thread = threading.Thread(target=self._call, args=(callback,), name="blocksd-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Have it end soon: a caller that waits for the next item stops waiting within a second."""
        if self.is_here:  # else its locks are as the other process left them
            self._closed.set()
            with suppress(AttributeError, TypeError, OSError):  # RACE: a thread that connects now listens for a second
                socket.shutdown(self._subscription._pubsub.connection._sock, SHUT_RDWR)  # noqa: SLF001  # wakes the thread

    def close(self) -> None:
        """End it, and wait for what runs in the background."""
        if not self.is_here:
            return
        self.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        if self._busy.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._busy.release()

    def _call(self, callback: Callable[[Item], object]) -> None:
        try:
            while not self._closed.is_set():
                try:
                    with self._busy:
                        item = self._advance()
                except Exception as error:  # noqa: BLE001  # it is logged, and the watch goes on
                    self._driver.report(error)
                    self._driver.restart()
                    self._closed.wait(RETRY_SECONDS)
                    continue
                if item is not None:
                    try:
                        callback(item)
                    except Exception as error:  # noqa: BLE001  # it is logged, and the next item is passed on
                        report_callback(item, error)
        finally:
            self._closed.set()
            self._release()

    def _release(self) -> None:
        self._driver.end()
        self._subscription.close()

    def _next_item(self, *, until_live: bool = False) -> Item | None:
        """The next item, as `_advance` has it; an error ends the watch."""
        try:
            return self._advance(until_live=until_live)
        except Exception:
            self._closed.set()
            self._release()
            raise

    def _advance(self, *, until_live: bool = False) -> Item | None:
        """The next item; None when closed (or, if so asked, when live)."""
        if self._first is not None:
            item, self._first = self._first, None
            return item
        while not self._closed.is_set():
            step = self._driver.next_step()
            if isinstance(step, Emit):
                return step.item
            if until_live and isinstance(step, Live):
                return None
            try:
                self._driver.answer = self._perform(step)
            except BlocksdError as error:
                if not self._closed.is_set():
                    self._driver.fail(error, self._transport.url)
        return None

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return self._transport.ask(*step.commands)
        if isinstance(step, Pause):
            return self._closed.wait(step.seconds)
        if isinstance(step, (Emit, Live)):
            return None
        return self._subscription.perform(step)


class AsyncWatch:
    """Changes one by one, as they happen: an asynchronous iterator that ends when it is closed.

    What happens after it was entered (`async with`), or first asked, is in it. With a callback, which may be a coroutine
    function, a task passes every item to it instead, one after the other. It logs what the callback raises, and lost
    connections, to the logger `blocksd.client.watch`, and goes on. A watch is of the event loop that began it.
    """

    def __init__(
        self,
        transport: AsyncTransport,
        watching: Watching,
        callback: Callable[[Item], Awaitable[object] | object] | None = None,
    ) -> None:
        self._driver = Driver(watching, partial(reading_async.blocks_with, transport), asynchronous=True)
        self._transport = transport
        self._first: Item | None = None
        self._is_started = False
        self._subscription = AsyncSubscription(transport.url, transport.keys)
        self._closed = False
        self._under_way: asyncio.Task[Any] | None = None
        self._starting = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None  # that it was begun in
        self._task: asyncio.Task[None] | None = None
        if callback is not None:
            self.call(callback)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Item:
        if not self._is_started:
            await self.start()
        _check_here(self)
        try:
            item = await self._advance()
        except Exception:
            self._closed = True
            await self._release()
            raise
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

    @property
    def place(self) -> tuple[str | None, int | None]:
        """The epoch, and the seq up to which everything was passed on."""
        return self._driver.place

    async def start(self) -> None:
        """Listen from now on, if it does not yet. Raises Unavailable when Redis does not serve."""
        _check_here(self)
        self._loop = asyncio.get_running_loop()
        try:
            await self._be_started()
        except Exception:
            self._closed = True
            await self._release()
            raise

    async def _be_started(self) -> None:
        async with self._starting:
            if not self._is_started:
                self._first = await self._advance(until_live=True)
                self._is_started = True

    def call(self, callback: Callable[[Item], Awaitable[object] | object], *, level: int = logging.WARNING) -> None:
        """Pass every item to `callback` from now on, in the background. `level` is that of the log of interruptions."""
        _check_here(self)
        self._loop = asyncio.get_running_loop()
        self._driver.level = level
        self._task = asyncio.create_task(self._call(callback))

    def stop(self) -> None:
        """Have it end soon: a caller that waits for the next item stops waiting within a second."""
        self._closed = True
        if self._task is not None and self.is_here:
            self._task.cancel()

    async def close(self) -> None:
        """End it, and wait for what runs in the background."""
        self._closed = True
        if not self.is_here:
            return
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._release()

    @property
    def is_here(self) -> bool:
        """True where the watch can be used: it was begun in this process and event loop, or not yet."""
        if self._loop is None:
            return self._driver.is_in_its_process
        try:
            return self._loop is asyncio.get_running_loop() and self._driver.is_in_its_process
        except RuntimeError:  # none runs
            return False

    async def _call(self, callback: Callable[[Item], Awaitable[object] | object]) -> None:
        try:
            while not self._closed:
                try:
                    await self._be_started()
                    item = await self._advance()
                except Exception as error:  # noqa: BLE001  # it is logged, and the watch goes on
                    self._driver.report(error)
                    self._driver.restart()
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                if item is not None:
                    try:
                        outcome = callback(item)
                        if inspect.isawaitable(outcome):
                            await outcome
                    except Exception as error:  # noqa: BLE001  # it is logged, and the next item is passed on
                        report_callback(item, error)
        finally:
            self._closed = True
            await self._release()

    async def _release(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)
        self._driver.end()
        await self._subscription.close()

    async def _advance(self, *, until_live: bool = False) -> Item | None:
        """The next item; None when closed (or, if so asked, when live)."""
        if self._first is not None:
            item, self._first = self._first, None
            return item
        while not self._closed:
            if self._under_way is None:
                step = self._driver.next_step()
                if isinstance(step, Emit):
                    return step.item
                if until_live and isinstance(step, Live):
                    return None
                self._under_way = asyncio.create_task(self._perform(step))
            # Who waits may be cancelled, by a timeout say, and ask again: what is under way is not, and not lost.
            await asyncio.wait((self._under_way,))
            done, self._under_way = self._under_way, None
            if not done.cancelled():  # by a close
                try:
                    self._driver.answer = done.result()
                except BlocksdError as error:
                    self._driver.fail(error, self._transport.url)
        return None

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return await self._transport.ask(*step.commands)
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, (Emit, Live)):
            return None
        return await self._subscription.perform(step)


def _check_here(watch: Watch | AsyncWatch) -> None:
    if not watch.is_here:
        raise Misconfigured("this watch was begun in another process or event loop: begin one here", key="watch")
