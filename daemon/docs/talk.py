"""An MCP client for people: appends each line that is typed to a block, and shows each change of it, no matter whose.

As `python talk.py AGENT LABEL`.
"""

from __future__ import annotations

import asyncio
import sys

from mcp import Client, StdioServerParameters


async def main(agent: str, label: str) -> None:
    uri = f"blocks://{agent}/{label}"

    async def show_updates() -> None:
        async for _ in updates:
            block = (await client.call_tool("memory_view", {"label": label})).structured_content
            print(f"\r{label}: … {block['value'].splitlines()[-1]}\n{agent}> ", end="", flush=True)

    server = StdioServerParameters(command="blocksd", args=["mcp", "--agent", agent])
    async with Client(server) as client, client.listen(resource_subscriptions=[uri]) as updates:
        showing = asyncio.create_task(show_updates())
        print(f"{agent}> ", end="", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            result = await client.call_tool("memory_append", {"label": label, "content": line.rstrip("\n")})
            if result.is_error:
                print(*(part.text for part in result.content if part.type == "text"))
        showing.cancel()


asyncio.run(main(*sys.argv[1:]))
