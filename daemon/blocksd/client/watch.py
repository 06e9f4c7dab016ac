"""Changes one by one, as they happen: for blocking code (a thread for a callback) and for asyncio code (a task)."""

import asyncio
import inspect
import logging
import os
import threading
from collections.abc import Awaitable, Callable
from functools import partial
from types import TracebackType
from typing import Any, Self

from blocksd.client import reading_async
from blocksd.client.blocking import reading
from blocksd.client.blocking.subscription import Subscription
from blocksd.client.blocking.transport import Transport
from blocksd.client.subscription_async import AsyncSubscription
from blocksd.client.transport_async import AsyncTransport
from blocksd.errors import BlocksdError, Misconfigured, Unavailable
from blocksd.protocol.reset import Item, Reset
from blocksd.protocol.steps import Ask, Emit, Live, Pause, Step
from blocksd.protocol.watching import Watching
from blocksd.settings.record import FoundUrl

RETRY_SECONDS = 1.0
"""Until a callback's watch that failed by another error than a lost connection begins again."""

_log = logging.getLogger(__name__)


class _Driver:
    """Takes the steps of a watch one by one, and keeps what came of the last."""

    def __init__(self, watching: Watching) -> None:
        self._watching = watching
        self._process = os.getpid()
        self._level: int | None = None  # how an interruption is logged; None: by nobody, since it iterates
        self._is_reported = False  # that it is interrupted
        self._steps = watching.steps()
        self._answer: Any = None
        self._error: BlocksdError | None = None
        self._first: Item | None = None
        self._is_started = False

    @property
    def place(self) -> tuple[str | None, int | None]:
        """The epoch, and the seq up to which everything was passed on."""
        return self._watching.place

    def _next_step(self) -> Step:
        step = self._steps.send(self._answer) if self._error is None else self._steps.throw(self._error)
        self._answer, self._error = None, None
        return step

    def _end(self) -> None:
        self._steps.close()
        self._watching.life = None

    def _begin_again(self) -> None:
        """Go on after the last item, with a new connection: the steps ended by an error."""
        self._steps = self._watching.steps()
        self._answer, self._error = None, None

    @property
    def is_here(self) -> bool:
        """True where the watch can be used: it was begun in this process and event loop, or not yet."""
        return self._process == os.getpid()

    def _check_here(self) -> None:
        if not self.is_here:
            raise Misconfigured("this watch was begun in another process or event loop: begin one here", key="watch")

    def _failed(self, error: BlocksdError, url: str) -> None:
        """Have the steps told of an error, which is logged once for each interruption."""
        if isinstance(error, Misconfigured) and isinstance(url, FoundUrl):
            # The server has a new password already, and the state directory will have it in a moment.
            error = Unavailable(error.message, **error.facts)
        self._error = error
        self._report(error)

    def _report(self, error: Exception) -> None:
        if self._level is not None and not self._is_reported:
            self._is_reported = True
            trace = None if isinstance(error, BlocksdError) else error
            _log.log(self._level, "a watch is interrupted: %s; it connects again", error, exc_info=trace)

    def _report_live(self) -> None:
        if self._level is not None and self._is_reported:
            self._is_reported = False
            _log.log(min(self._level, logging.INFO), "a watch that was interrupted goes on")

    @staticmethod
    def _report_callback(item: Item, error: Exception) -> None:
        _log.error("the callback of a watch failed on %r; it gets the next item", item, exc_info=error)


class Watch(_Driver):
    """Changes one by one, as they happen: an iterator that ends when it is closed.

    What happens after it was made is in it. With a callback, a thread passes every item to it instead, one after the
    other. It logs what the callback raises, and lost connections, to the logger `blocksd.client.watch`, and goes on. A watch
    is of the process that began it: after a fork, the child begins another.
    """

    def __init__(
        self, transport: Transport, watching: Watching, callback: Callable[[Item], object] | None = None
    ) -> None:
        """Listens at once. Raises Unavailable when Redis does not serve."""
        super().__init__(watching)
        self._transport = transport
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
        self._check_here()
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

    def start(self) -> None:
        """Listen from now on, if it does not yet. Raises Unavailable when Redis does not serve."""
        self._check_here()
        if not self._is_started:
            self._first = self._next_item(until_live=True)
            self._is_started = True

    def call(self, callback: Callable[[Item], object], *, level: int = logging.WARNING) -> None:
        """Pass every item to `callback` from now on, in the background. `level` is that of the log of interruptions."""
        self._check_here()
        self._level = level
        self._thread = threading.Thread(target=self._call, args=(callback,), name="blocksd-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Have it end soon: a caller that waits for the next item stops waiting within a second."""
        if self.is_here:  # else its locks are as the other process left them
            self._closed.set()

    def close(self) -> None:
        """End it, and wait for what runs in the background."""
        if not self.is_here:
            return
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
            while not self._closed.is_set():
                try:
                    with self._busy:
                        item = self._advance()
                except Exception as error:  # noqa: BLE001  # it is logged, and the watch goes on
                    self._report(error)
                    self._begin_again()
                    self._closed.wait(RETRY_SECONDS)
                    continue
                if item is not None:
                    try:
                        callback(item)
                    except Exception as error:  # noqa: BLE001  # it is logged, and the next item is passed on
                        self._report_callback(item, error)
        finally:
            self._closed.set()
            self._release()

    def _release(self) -> None:
        self._end()
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
            step = self._next_step()
            if isinstance(step, Live):
                self._report_live()
            if isinstance(step, Emit):
                if isinstance(step.item, Reset):
                    step.item.read_by(partial(reading.blocks_with, self._transport), asynchronous=False)
                return step.item
            if until_live and isinstance(step, Live):
                return None
            try:
                self._answer = self._perform(step)
            except BlocksdError as error:
                self._failed(error, self._transport.url)
        return None

    def _perform(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return self._transport.ask(*step.commands)
        if isinstance(step, Pause):
            return self._closed.wait(step.seconds)
        if isinstance(step, (Emit, Live)):
            return None
        return self._subscription.perform(step)


class AsyncWatch(_Driver):
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
        super().__init__(watching)
        self._transport = transport
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
        self._check_here()
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

    async def start(self) -> None:
        """Listen from now on, if it does not yet. Raises Unavailable when Redis does not serve."""
        self._check_here()
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
        self._check_here()
        self._loop = asyncio.get_running_loop()
        self._level = level
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
            return super().is_here
        try:
            return self._loop is asyncio.get_running_loop() and super().is_here
        except RuntimeError:  # none runs
            return False

    async def _call(self, callback: Callable[[Item], Awaitable[object] | object]) -> None:
        try:
            while not self._closed:
                try:
                    await self._be_started()
                    item = await self._advance()
                except Exception as error:  # noqa: BLE001  # it is logged, and the watch goes on
                    self._report(error)
                    self._begin_again()
                    await asyncio.sleep(RETRY_SECONDS)
                    continue
                if item is not None:
                    try:
                        outcome = callback(item)
                        if inspect.isawaitable(outcome):
                            await outcome
                    except Exception as error:  # noqa: BLE001  # it is logged, and the next item is passed on
                        self._report_callback(item, error)
        finally:
            self._closed = True
            await self._release()

    async def _release(self) -> None:
        if self._under_way is not None:
            self._under_way.cancel()
            await asyncio.gather(self._under_way, return_exceptions=True)
        self._end()
        await self._subscription.close()

    async def _advance(self, *, until_live: bool = False) -> Item | None:
        """The next item; None when closed (or, if so asked, when live)."""
        if self._first is not None:
            item, self._first = self._first, None
            return item
        while not self._closed:
            if self._under_way is None:
                step = self._next_step()
                if isinstance(step, Live):
                    self._report_live()
                if isinstance(step, Emit):
                    if isinstance(step.item, Reset):
                        step.item.read_by(partial(reading_async.blocks_with, self._transport), asynchronous=True)
                    return step.item
                if until_live and isinstance(step, Live):
                    return None
                self._under_way = asyncio.create_task(self._perform(step))
            # Who waits may be cancelled, by a timeout say, and ask again: what is under way is not, and not lost.
            await asyncio.wait((self._under_way,))
            done, self._under_way = self._under_way, None
            if not done.cancelled():  # by a close
                try:
                    self._answer = done.result()
                except BlocksdError as error:
                    self._failed(error, self._transport.url)
        return None

    async def _perform(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return await self._transport.ask(*step.commands)
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, (Emit, Live)):
            return None
        return await self._subscription.perform(step)
