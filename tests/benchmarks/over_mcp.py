"""An MCP server that does nothing, and the time of a tool call over standard input and output, for the benchmarks."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from mcp import StdioServerParameters

LABEL = "human"


async def _serve() -> None:
    """Serve one tool, whose answer is that of an append."""
    from mcp.server.lowlevel import Server
    from mcp.server.stdio import stdio_server
    from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool

    answer = {"label": LABEL, "chars": 100, "limit": 20_000, "version": 1}

    async def list_tools(_context: Any, _params: Any) -> ListToolsResult:
        await asyncio.sleep(0)
        return ListToolsResult(tools=[Tool(name="nothing", input_schema={"type": "object"})])

    async def call(_context: Any, _params: Any) -> CallToolResult:
        text = f"Done: {LABEL!r} has 100 of at most 20000 characters"
        return CallToolResult(content=[TextContent(type="text", text=text)], structured_content=answer)

    server = Server[Any]("nothing", on_list_tools=list_tools, on_call_tool=call)
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())


def _servers(url: str) -> tuple[StdioServerParameters, StdioServerParameters]:
    """The server, and the one that does nothing."""
    from mcp import StdioServerParameters

    env = {**os.environ, "BLOCKSD_CONFIG": os.devnull}
    words = ["-m", "blocksd", "mcp", "--agent", "sam", "--create", "--redis", url]
    return (
        StdioServerParameters(command=sys.executable, args=words, env=env),
        StdioServerParameters(command=sys.executable, args=[__file__], env=env),
    )


async def starts(url: str, count: int) -> tuple[list[float], list[float]]:
    """Time starts by turns, until the handshake is answered: of the server that does nothing, and of ours; in seconds."""
    from mcp import Client

    times: tuple[list[float], list[float]] = [], []
    for _ in range(count):
        for server, some in zip(reversed(_servers(url)), times, strict=True):
            began = time.perf_counter()
            async with Client(server, mode="legacy"):
                some.append(time.perf_counter() - began)
    return times


async def measured(url: str, count: int) -> dict[str, list[float]]:
    """Time calls by turns: by the Python client, of the empty tool, and of the tool that does the same; in seconds."""
    from mcp import Client

    import blocksd

    tools, empty = _servers(url)
    times: dict[str, list[float]] = {name: [] for name in ("append", "view", "nothing", "memory_append", "memory_view")}

    async def take(name: str, work: Awaitable[Any]) -> None:
        began = time.perf_counter()
        result = await work
        times[name].append(time.perf_counter() - began)
        assert not getattr(result, "is_error", False), result

    async with Client(tools) as ours, Client(empty) as floor, blocksd.aconnect(url, "blocks") as client:
        memory = client.memory("sam")
        for number in range(-20, count):  # the first ones are not counted
            content = {"label": LABEL, "content": f"{number} is a number."}
            await take("append", memory.append(LABEL, content["content"]))
            await take("nothing", floor.call_tool("nothing", content))
            await take("memory_append", ours.call_tool("memory_append", content))
            await take("view", client.agents.blocks.retrieve("sam", LABEL))
            await take("memory_view", ours.call_tool("memory_view", {"label": LABEL}))
            if number % 100 == 0:
                await memory.rethink(LABEL, "")
    return {name: some[20:] for name, some in times.items()}


if __name__ == "__main__":
    asyncio.run(_serve())
