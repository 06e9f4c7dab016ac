"""An agent's memory, as agents program against it."""

from collections.abc import Awaitable, Callable, Collection, Mapping
from logging import DEBUG
from types import TracebackType
from typing import Any, Self
from weakref import WeakSet, finalize

from blocksd.client import tools
from blocksd.client.memory_writes_async import AsyncMemoryWrites
from blocksd.client.reading_async import block_of_agent, look
from blocksd.client.transport_async import AsyncTransport
from blocksd.client.watch import AsyncWatch
from blocksd.errors import BlocksdError, Misconfigured, NotAttached, NotFound, Unavailable
from blocksd.mirror.view import BlockView, FileView
from blocksd.model.prompt import Style, ToolUsageRules, compile_rows, order, render_block, style_of
from blocksd.protocol.numbers import whole
from blocksd.protocol.reset import Item
from blocksd.protocol.sight import Sight, files_in, not_attached
from blocksd.protocol.watching import Watching


class AsyncMemory(AsyncMemoryWrites):
    """The blocks of one agent, under its own names for them, and the text they make in its context window.

    The agent is the author of what is written here. What its client writes, here or for others, is seen here at once. From
    the first question on, the memory follows the agent's changes in the background, on another connection: while nothing
    that concerns the agent changes, nothing is asked again. While that connection is interrupted, every answer is read anew.
    A connection that is cut without a sign is noticed within a quarter of a minute.
    """

    def __init__(self, transport: AsyncTransport, agent_id: str, opened: WeakSet[AsyncWatch]) -> None:
        super().__init__(transport, agent_id)
        self._opened = opened
        self._follower: AsyncWatch | None = None
        self._former: AsyncWatch | None = None
        self._finalizer: finalize[..., Any] | None = None

    async def get_blocks(self) -> list[BlockView]:
        """The blocks attached to the agent: persona, human, then by name."""
        return order((await self._sight()).blocks.values())

    async def get_block(self, label: str) -> BlockView:
        """The block the agent knows by this name.

        Raises:
            NotFound: it has none; the message names those it has.
        """
        blocks = (await self._sight()).blocks
        if label not in blocks:
            raise not_attached(self._agent, label, blocks)
        return blocks[label]

    async def list_block_labels(self) -> list[str]:
        """The names the agent has for its blocks, in the same order."""
        return [block.name for block in await self.get_blocks()]

    async def list_files(self) -> list[FileView]:
        """The files of sources that the agent sees, those that are open with their text."""
        return files_in(await self._sight())

    async def list_sources(self) -> list[str]:
        """The names of the file sources that the agent sees."""
        return [source.name for source in (await self._sight()).sources]

    async def compile(
        self,
        *,
        blocks: Collection[str] | None = None,
        style: Style | None = None,
        tool_usage_rules: ToolUsageRules | str | None = None,
        sources: Collection[str] | None = None,
        max_files_open: int | None = None,
    ) -> str:
        """The text for the agent's context window; no round trip while nothing that concerns it has changed.

        `style` is `standard`, `line-numbered`, `nested` or `directories`; None is that of the agent's type. `sources` names the file sources to show; None
        shows all that the agent sees. With `max_files_open`, only so many open files, those last opened, are shown open.
        `blocks` names the blocks to show; None shows all that are not hidden.
        """
        if max_files_open is not None:
            max_files_open = whole("max_files_open", max_files_open)
        picked = None if blocks is None else frozenset(blocks)
        shown = None if sources is None else tuple(sources)
        key = (picked, style, tool_usage_rules, shown, max_files_open)
        if not self._is_followed:
            await self._follow()
        text, sight = self._kept.found(key)
        if text is None:
            sight = sight or await self._read_sight()
            text = compile_rows(
                sight.rows if picked is None else [row for row in sight.rows if row[0] in picked],
                style_of(sight.agent_type) if style is None else style,
                tool_usage_rules,
                [source for source in sight.sources if shown is None or source.name in shown],
                max_files_open,
            )
            self._kept.put_text(key, text, sight)
        return text

    async def count_tokens(self, counter: Callable[[str], int]) -> dict[str, int]:
        """How many tokens `counter` finds in each block as `compile` shows it, by name: to pick what fits."""
        blocks = [block for block in await self.get_blocks() if not (block.hidden or block.is_template)]
        return {block.name: counter(render_block(block)) for block in blocks}

    async def _sight(self) -> Sight:
        if not self._is_followed:
            await self._follow()
        return self._kept.sight or await self._read_sight()

    async def _read_sight(self) -> Sight:
        mark = self._kept.mark()
        sight = await look(self._transport, self._agent)
        self._kept.put(sight, mark)
        return sight

    def tools(self, *, only: Collection[str] | None = None) -> "AsyncTools":
        """The tools for a language model to read and write here: their definitions, and a way to call them.

        `only` names the tools to offer; None offers all. Raises InvalidField if one is the name of no tool.
        """
        return AsyncTools(self._transport, self._agent, self, only)

    def watch(
        self,
        *,
        since: int | tuple[str, int] | Item | None = None,
        callback: Callable[[Item], Awaitable[object] | object] | None = None,
    ) -> AsyncWatch:
        """Every change to what the agent is attached to, as that changes; like the client's `watch`."""
        watching = Watching(self._transport.keys, since=since, agent=self._agent)
        watch = AsyncWatch(self._transport, watching, callback)
        self._opened.add(watch)
        return watch

    @property
    def _is_followed(self) -> bool:
        """True if what is kept is told of changes here: after a fork, or in another event loop, it is not."""
        return self._follower is not None and self._follower.is_here

    async def _follow(self) -> None:
        if self._finalizer is not None:
            self._finalizer.detach()
            self._former = self._follower  # kept: after a fork, its connection is the parent's
            self._begin_anew()
        follower = self._follower = AsyncWatch(self._transport, self._watching)
        self._opened.add(follower)
        self._finalizer = finalize(self, follower.stop)  # a memory that is collected follows no longer
        try:
            await follower.start()
        except BaseException:
            self._follower = None
            raise
        follower.call(self._kept.forget, level=DEBUG)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop following."""
        if self._follower is not None:
            await self._follower.close()


class AsyncTools(tools.ToolDefinitions):
    """An agent's memory as tools: hand a model the definitions, and pass on what it calls."""

    def __init__(
        self, transport: AsyncTransport, agent: str, memory: AsyncMemory, only: Collection[str] | None = None
    ) -> None:
        super().__init__(only)
        self._transport = transport
        self._agent = agent
        self._memory = memory

    async def call(
        self, name: str, arguments: Mapping[str, Any] | str, *, request_id: str | None = None
    ) -> tools.ToolResult:
        """Call a tool for a model. `arguments` may be the JSON text that the model gave; `text` of the result is for it.

        A mistake of the model, and a refusal, is a result in words that the model can act on, and never raised. A call made
        again with the same `request_id` is done once.

        Raises:
            Unavailable: Redis or the daemon does not serve; whether it was done may not be known.
        """
        try:
            method, given = self._checked(name, arguments)
            if method == tools.VIEW:
                block = await block_of_agent(self._transport, self._agent, given["label"])
            else:
                block = await getattr(self._memory, method)(**given, request_id=request_id)
        except (Unavailable, Misconfigured):
            raise
        except (NotFound, NotAttached) as error:
            if "names" in error.facts:  # and in the message
                return tools.not_done(error)
            sight = await look(self._transport, self._agent)
            return tools.not_done(error, [block.name for block in order(sight.blocks.values())])
        except (tools.Mistake, BlocksdError) as error:
            return tools.not_done(error)
        return tools.done(method, block, str(given["label"]))
