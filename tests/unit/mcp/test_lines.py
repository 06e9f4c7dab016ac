"""Messages over two pipes: each line that asks for something is answered, whatever it is."""

from __future__ import annotations

import asyncio
import json
import os
from contextlib import suppress
from typing import Any

import anyio
import pytest
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCRequest, JSONRPCResponse

from blocksd.mcp.lines import Lines

PING = b'{"jsonrpc":"2.0","id":%d,"method":"ping"}'


class Talk:
    """A client: what it writes, and what it is answered."""

    def __init__(self) -> None:
        theirs, self.input = os.pipe()
        self.output, ours = os.pipe()
        self.lines = Lines(theirs, ours)

    def close(self) -> None:
        for handle in (self.input, self.output):
            with suppress(OSError):
                os.close(handle)


async def all_of(talk: Talk) -> list[Any]:
    os.close(talk.input)
    return [item.message async for item in talk.lines]


@pytest.mark.parametrize(
    ("line", "numbers"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x\\ud800"}}', [1]),
        (b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x\xff"}}', [1]),
        (b'{"jsonrpc":"2.0","id":"a\\ud800","method":"ping"}', ["a\ud800"]),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}', [1]),
        (b'{"id":1,"method":"ping"}', [1]),
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"ping"}', [1]),
        (b"[%b,%b]" % (PING % 1, PING % 2), [1, 2]),
        (b'{"jsonrpc":"2.0","id":1,"method":"ping"', []),
        (b"[" * 50_000, []),
        (b"[1,null]", []),
        (b"", []),
    ],
)
def test_request_that_cannot_be_parsed_is_an_error(line: bytes, numbers: list[object]) -> None:
    """Its client would wait for ever. What asks for nothing is not answered; the next request is served."""

    async def work() -> None:
        talk = Talk()
        os.write(talk.input, line + b"\n" + PING % 9)
        (message,) = await all_of(talk)
        assert isinstance(message, JSONRPCRequest)
        assert message.id == 9
        await talk.lines.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=9, result={})))
        *refused, served = map(json.loads, os.read(talk.output, 65_536).splitlines())
        assert served == {"jsonrpc": "2.0", "id": 9, "result": {}}
        assert [one["id"] for one in refused] == numbers
        assert all(one["error"]["code"] == -32600 and "surrogate" in one["error"]["message"] for one in refused)
        talk.close()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_messages_in_any_pieces() -> None:
    """A line may come in parts, several may come at once, and line separators of Unicode stand in them."""

    async def work() -> None:
        talk = Talk()
        text = b'{"jsonrpc":"2.0","id":3,"method":"x","params":{"a":"\xe2\x80\xa8\xc2\x85"}}'
        for piece in (b'{"jsonrpc":"2.0",', b'\r"id":1,"method":"ping"}\r\n' + PING % 2 + b"\n", text):
            os.write(talk.input, piece)
            await asyncio.sleep(0.01)
        assert [message.id for message in await all_of(talk)] == [1, 2, 3]
        with pytest.raises(anyio.EndOfStream):
            await talk.lines.receive()
        talk.close()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_nothing_waits_for_a_client_that_does_not_read() -> None:
    """Answers are written whole and in order once it reads; a handle that does not wait is waited for."""

    async def work() -> None:
        talk = Talk()
        os.set_blocking(talk.lines._writing, False)
        answers = [JSONRPCResponse(jsonrpc="2.0", id=number, result={"x": "y" * 50_000}) for number in range(10)]
        sending = [asyncio.create_task(talk.lines.send(SessionMessage(one))) for one in answers]
        await asyncio.sleep(0.02)
        sending[5].cancel()
        text = b""
        while text.count(b"\n") < 10:
            text += await asyncio.to_thread(os.read, talk.output, 65_536)
        assert [json.loads(line)["id"] for line in text.splitlines()] == list(range(10))
        await asyncio.gather(*sending, return_exceptions=True)
        talk.close()

    asyncio.run(asyncio.wait_for(work(), 20))


def test_output_that_is_closed_is_told() -> None:
    """To who sends, as the SDK expects it, and to the server."""

    async def work() -> None:
        talk = Talk()
        os.close(talk.output)
        with pytest.raises(anyio.BrokenResourceError):
            await talk.lines.send(SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=1, result={})))
        await talk.lines.broken.wait()
        assert isinstance(talk.lines.error, BrokenPipeError)
        talk.close()

    asyncio.run(asyncio.wait_for(work(), 20))
