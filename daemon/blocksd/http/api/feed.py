"""The feed: one subscription of this process to all changes, for the streams of all its clients."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from blocksd.errors import Unavailable
from blocksd.http.api.stream import Frame, Place, Told, place_frame, reset_frame
from blocksd.model.revision import UNNUMBERED, Change
from blocksd.protocol.steps import Ask, entries_after, epoch_and_seq, labels_at

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from blocksd.client.client_async import AsyncClient
    from blocksd.client.transport_async import AsyncTransport
    from blocksd.client.watch import AsyncWatch
    from blocksd.http.api.stream import Stream
    from blocksd.protocol.reset import Item
    from blocksd.protocol.steps import Steps

HEARTBEAT_SECONDS = 15.0
MOST_STREAMS = 10_000
_AT_ONCE = 100
_ENDING_SECONDS = 1.0
"""How long the end of a stream may take when the gateway stops."""
T = TypeVar("T")


class Feed:
    """Follows everything from the first stream on, and tells each stream what it wants.

    Invariant: every stream in `_streams` is told each change after its `joined_at`, once and in order. As the watch goes on
    after a lost connection where it was, so do the streams.
    """

    def __init__(self, client: AsyncClient, transport: AsyncTransport, stopping: asyncio.Event) -> None:
        """`stopping` is set when the server begins to stop: it would wait for the streams."""
        self._client = client
        self._transport = transport
        self._watch: AsyncWatch | None = None
        self._starting = asyncio.Lock()
        self._telling = asyncio.Lock()
        self._streams: dict[Stream, None] = {}
        self.cut_off = 0
        """How many streams were cut off since the start, because the client did not read."""
        self._place: Place | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = stopping

    @property
    def streams(self) -> int:
        """How many streams there are."""
        return len(self._streams)

    async def join(self, stream: Stream) -> None:
        """Tell a stream everything from now on. Raises Unavailable if Redis does not serve, or streams are at an end."""
        if self._stopping.is_set():
            raise Unavailable("the gateway stops: connect again")
        if len(self._streams) >= MOST_STREAMS:
            raise Unavailable(f"there are {MOST_STREAMS} streams of changes: a gateway has no more")
        await self._start()
        stream.joined_at = self._place
        self._streams[stream] = None

    def leave(self, stream: Stream) -> None:
        """Forget a stream."""
        if stream in self._streams:
            del self._streams[stream]
            self.cut_off += stream.is_cut

    def end_all(self) -> None:
        """End all streams when what waits for them is sent; their clients come again, if they may."""
        for stream in list(self._streams):
            stream.end()

    async def close(self) -> None:
        """End all streams, and the watch."""
        self.end_all()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._watch is not None:
            await self._watch.close()

    async def _start(self) -> None:
        async with self._starting:
            if self._watch is not None:
                return
            watch = self._client.watch()
            await watch.start()
            epoch, seq = watch.place
            if epoch is None or seq is None:
                await watch.close()
                raise Unavailable("there is no mirror in Redis yet, or it is being built anew")
            self._place = Place(epoch, seq)
            watch.call(self._hear)
            self._watch = watch
            self._tasks = [asyncio.create_task(self._beat()), asyncio.create_task(self._end_in_time())]

    async def _hear(self, item: Item) -> None:
        if isinstance(item, Change):
            place = None if item.seq is None or item.epoch is None else Place(item.epoch, item.seq)
            if place is not None:
                if self._place is not None and place.epoch == self._place.epoch and place.seq <= self._place.seq:
                    return  # of before the first stream
                self._place = place
            told = Told.of(item, place)
        else:
            self._place = Place(item.epoch, item.seq)
            told = Told(None, self._place, Frame(reset_frame(self._place)))
        async with self._telling:
            for number, stream in enumerate(list(self._streams), 1):
                stream.tell(told)
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)  # requests have their turn

    async def _beat(self) -> None:
        """Now and then tell all clients where they are: those whose filter lets little through, too, resume from there."""
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            async with self._telling:  # else one could be told of a place whose change it is not told yet
                if self._place is not None:
                    frame = Frame(place_frame(self._place))
                    for stream in list(self._streams):
                        if stream.is_live and not stream.is_ended:
                            stream.put(frame)

    async def _end_in_time(self) -> None:
        await self._stopping.wait()
        self.end_all()
        await asyncio.sleep(_ENDING_SECONDS)
        for stream in list(self._streams):  # of clients that do not read
            stream.cut()

    async def beginning(self, stream: Stream, since: Place | None) -> AsyncGenerator[bytes, None]:
        """Yield what a stream begins with: what came after `since`, or a reset. Once it is read, the stream has what comes.

        Raises:
            Unavailable: Redis does not serve.
        """
        joined, wanted = stream.joined_at, stream.wanted
        assert joined is not None
        if since is not None and not await self._is_known(since, joined):
            yield reset_frame(joined)
            since = None
        last = joined.seq if since is None else since.seq
        await self._find_attached(stream, last)
        yield place_frame(Place(joined.epoch, last))
        after: str | None = f"{last}-0" if last < joined.seq else None
        while after is not None and last < joined.seq:
            frames = []
            entries, after = await self._run(entries_after(self._transport.keys, after))
            for entry, change in entries:
                number = int(entry.partition("-")[0])
                if number > joined.seq:
                    break
                if change.kind in UNNUMBERED and number == last:
                    frames.append(wanted.frame_of(Told.of(change, None)))
                    continue
                if change.kind == "reset" or number != last + 1:
                    after = None
                    break
                last = number
                frames.append(wanted.frame_of(Told.of(change, Place(joined.epoch, number))))
            if some := b"".join(frame.data for frame in frames if frame is not None):
                yield some
        if last < joined.seq:  # the stream was built anew, or does not reach back to there
            yield reset_frame(joined)
            last = joined.seq
            await self._find_attached(stream, last)
        stream.go_live(last)

    async def _is_known(self, since: Place, joined: Place) -> bool:
        """Return True if the changes after a place can be told, as far as its numbers say it."""
        if since.epoch != joined.epoch or since.seq <= joined.seq:
            return since.epoch == joined.epoch
        # Another gateway was ahead of this one; else the numbers are of a time that the daemon's journal has lost.
        epoch, seq = await self._run(epoch_and_seq(self._transport.keys))
        return epoch == since.epoch and seq >= since.seq

    async def _find_attached(self, stream: Stream, seq: int) -> None:
        attached = stream.wanted.attached
        if attached is not None:
            attached.labels = await self._run(labels_at(self._transport.keys, attached.agent, seq))

    async def _run(self, steps: Steps[T]) -> T:
        """Perform steps that only ask."""
        answer: Any = None
        try:
            while True:
                step = steps.send(answer)
                assert isinstance(step, Ask)
                answer = await self._transport.ask(*step.commands)
        except StopIteration as done:
            result: T = done.value
            return result
