"""`blocksd mcp` as clients start it: over standard input and output, until the input is closed or a signal comes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from mcp import Client

from mcp_clients import ERAS, Ear, command, done, refused, run, soon
from support import Daemon, RedisServer, eventually, run_here

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}
READY = {"jsonrpc": "2.0", "method": "notifications/initialized"}
LIST = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "memory_list", "arguments": {}}}


class Server:
    """The command in a process, spoken to line by line."""

    def __init__(self, *options: str) -> None:
        words = command("sam", "--create", *options)
        self.process = subprocess.Popen(
            [words.command, *words.args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=words.env,
        )

    def send(self, *messages: object) -> None:
        assert self.process.stdin is not None
        for one in messages:
            self.process.stdin.write(one if isinstance(one, bytes) else json.dumps(one).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self, number: int) -> dict[str, Any]:
        assert self.process.stdout is not None
        while True:
            message: dict[str, Any] = json.loads(self.process.stdout.readline())
            if message.get("id") == number:
                return message

    def end(self) -> tuple[bytes, bytes]:
        try:
            return self.process.communicate(timeout=15)
        finally:
            self.process.kill()


@pytest.mark.parametrize("era", ERAS)
def test_official_client(run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path, era: str) -> None:
    """Starts the command, reads the memory in the instructions, and edits it."""
    (folder / "team.md").write_text("---\nagents: '*'\n---\nWe meet on Mondays.\n")
    run_daemon()

    async def work() -> None:
        async with Client(command("sam", "--create", "--redis", server.url), mode=ERAS[era]) as client:
            assert client.protocol_version == era
            assert "We meet on Mondays." in (client.instructions or "")
            assert client.server_info is not None
            assert client.server_info.name == "blocksd"
            await done(client, "memory_append", label="team", content="In room 4.")
        assert (folder / "team.md").read_text().endswith("We meet on Mondays.\nIn room 4.\n")

    run(work())


@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
@pytest.mark.parametrize("era", ERAS)
def test_two_servers_share_a_block(
    run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path, era: str
) -> None:
    """An append by the client of one agent is in the other's next read, and in its update."""
    (folder / "team.md").write_text("---\nagents: [ann, bob]\n---\nWe meet on Mondays.\n")
    run_daemon()

    async def work() -> None:
        ear, uri = Ear(), "blocks://bob/team"
        ann = Client(command("ann", "--redis", server.url), mode=ERAS[era])
        bob = Client(command("bob", "--redis", server.url), mode=ERAS[era], **ear.options(era))
        async with ann, bob, ear.listening(bob, era, uri):
            await done(ann, "memory_append", label="team", content="In room 4.")
            assert (await done(bob, "memory_view", label="team"))["value"] == "We meet on Mondays.\nIn room 4."
            await ear.until(uri)
            (content,) = (await bob.read_resource(uri)).contents
            assert getattr(content, "text", "") == "We meet on Mondays.\nIn room 4."
            ear.heard.clear()
            (folder / "team.md").write_text(f"{(folder / 'team.md').read_text()}At noon.\n")  # as an editor does
            await ear.until(uri)
            assert (await done(bob, "memory_search", query="noon"))["matches"][0]["line"] == 3

    run(work())


def test_standard_output_has_nothing_but_the_protocol(run_daemon: Callable[..., Daemon], server: RedisServer) -> None:
    """Lines that are no messages, too, are answered or ignored in it; a closed input ends the server in order."""
    run_daemon()
    one = Server("--redis", server.url)
    one.send(b"no JSON\n", b'{"jsonrpc": "2.0"}\n', b"[1, 2\n", b"\xff\xfe\n", b"\n", HELLO, READY, LIST)
    assert one.answer(2)["result"]["structuredContent"]["blocks"]
    lone = (
        '{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"memory_view","arguments":{"label":"\\ud800"}}}'
    )
    one.send(lone.encode() + b"\n", {**LIST, "id": 4})
    assert one.answer(4)["result"]["structuredContent"]["blocks"]
    out, said = one.end()
    assert one.process.returncode == 0
    for line in out.splitlines():
        assert json.loads(line)["jsonrpc"] == "2.0"
    assert b"Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_in_order(run_daemon: Callable[..., Daemon], server: RedisServer, number: int) -> None:
    """While it waits for input."""
    run_daemon()
    one = Server("--redis", server.url)
    one.send(HELLO, READY, LIST)
    one.answer(2)
    one.process.send_signal(number)
    assert one.process.wait(10) == 0
    assert b"Traceback" not in one.end()[1]


def test_ends_though_a_call_waits(run_daemon: Callable[..., Daemon], server: RedisServer) -> None:
    """The client closes the input while the daemon does not reply."""
    running = run_daemon()
    one = Server("--redis", server.url)
    one.send(HELLO, READY, LIST)
    one.answer(2)
    assert running.process is not None
    running.process.send_signal(signal.SIGSTOP)
    try:
        append = {"name": "memory_append", "arguments": {"label": "human", "content": "x"}}
        one.send({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": append})
        with server.client() as client:
            eventually(lambda: client.xlen("blocks:inbox:sam"), "the daemon is asked")
        assert b"Traceback" not in one.end()[1]
        assert one.process.returncode == 0
    finally:
        running.process.send_signal(signal.SIGCONT)


def test_damaged_mirror(run_daemon: Callable[..., Daemon], server: RedisServer) -> None:
    """Shows bytes that are no text, for example: they are shown as such, and the server goes on."""
    run_daemon()
    one = Server("--redis", server.url)
    one.send(HELLO, READY, LIST)
    one.answer(2)
    with server.client() as client:
        client.execute_command("HSET", "blocks:block:agents/sam/human", "value", b"bad \xff bytes")
    view = {"name": "memory_view", "arguments": {"label": "human"}}
    one.send({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": view})
    assert one.answer(3)["result"]["structuredContent"]["value"] == "bad \\udcff bytes"
    one.send({**LIST, "id": 4})
    assert one.answer(4)["result"]["structuredContent"]["blocks"]
    one.end()
    assert one.process.returncode == 0


def test_begins_before_the_daemon(tmp_path: Path, folder: Path) -> None:
    """The tools say that none runs, and work once one does, also after it has restarted with its embedded server."""
    (folder / "team.md").write_text("---\nagents: '*'\n---\nWe meet on Mondays.\n")
    state = tmp_path / "state"
    running = Daemon(folder, state)

    async def work() -> None:
        async with Client(command("sam", "--create", "--state-dir", str(state))) as client:
            assert "no daemon is running" in (client.instructions or "")
            assert "blocksd run FOLDER" in await refused(client, "memory_list")
            for _ in range(2):
                await asyncio.to_thread(running.start)
                await soon(lambda: works(client))
                await asyncio.to_thread(running.stop)
                said = await refused(client, "memory_view", label="team")
                assert "try again" in said

    async def works(client: Client) -> bool:
        return not (await client.call_tool("memory_view", {"label": "team"})).is_error

    try:
        run(work())
    finally:
        running.kill()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["mcp"], "Missing option '--agent'"),
        (["mcp", "--agent", "a/b"], "is not an agent id"),
        (["mcp", "--agent", "sam", "--redis", "http://x"], "is not a Redis URL"),
    ],
)
def test_wrong_usage(words: list[str], said: str) -> None:
    """Ends with exit code 2 and a sentence on standard error, and prints nothing."""
    done_ = run_here(*words, env={"BLOCKSD_CONFIG": os.devnull})
    assert done_.returncode in (1, 2)
    assert said in done_.stderr
    assert done_.stdout == ""


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Says how to install it."""
    monkeypatch.setattr("blocksd.cli.commands_daemon.find_spec", lambda _name: None)
    ended = run_here("mcp", "--agent", "sam", env={"BLOCKSD_CONFIG": os.devnull})
    assert ended.returncode == 2
    assert "pip install 'blocksd[mcp]'" in ended.stderr


def test_other_commands_do_not_load_the_sdk() -> None:
    """It takes a second."""
    check = "import sys, blocksd.cli.main; sys.exit('mcp' in sys.modules or 'pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
