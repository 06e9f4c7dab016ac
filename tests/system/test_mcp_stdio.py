"""`blocksd mcp` as clients start it: over standard input and output, until the input is closed or a signal comes."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from mcp import Client, StdioServerParameters

from mcp_clients import ERAS, Ear, command, done, refused, run, soon
from support import Daemon, RedisServer, eventually, run_here

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.slow

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


def test_printed_configuration_starts_the_server(
    run_daemon: Callable[..., Daemon], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From a project's directory, whose blocksd.toml is not read: a repository must not say whose memory it is."""
    (folder / "agents/sam").mkdir(parents=True)
    (folder / "agents/sam/notes.md").write_text("Mine.\n")
    daemon = run_daemon()
    printed = daemon.command("mcp", "--agent", "sam", "--print-config", "cursor")
    assert (printed.returncode, printed.stderr) == (
        0,
        "put this into ~/.cursor/mcp.json, or .cursor/mcp.json of a project\n",
    )
    memory = json.loads(printed.stdout)["mcpServers"]["memory"]
    (tmp_path / "blocksd.toml").write_text('redis = "redis://203.0.113.7:1"\nnamespace = "theirs"\n')
    monkeypatch.chdir(tmp_path)

    async def work() -> None:
        words = StdioServerParameters(command=memory["command"], args=memory["args"], env={"HOME": str(tmp_path)})
        async with Client(words) as client:
            assert (await done(client, "memory_view", label="notes"))["value"] == "Mine."

    run(work())


@pytest.mark.filterwarnings("ignore:resources/(un)?subscribe is removed")
def test_two_clients_share_a_block(run_daemon: Callable[..., Daemon], server: RedisServer, folder: Path) -> None:
    """Of two agents, and of both eras: an append of one is in the other's next read and update, and so is a save."""
    file = folder / "team.md"
    file.write_text("---\nagents: [ann, bob]\n---\nWe meet on Mondays.\n")
    run_daemon()

    async def work() -> None:
        ears = {name: Ear() for name in ("ann", "bob")}
        eras = dict(zip(ears, ERAS, strict=True))
        clients = {
            name: Client(command(name, "--redis", server.url), mode=ERAS[eras[name]], **ear.options(eras[name]))
            for name, ear in ears.items()
        }
        async with AsyncExitStack() as stack:
            for name, client in clients.items():
                await stack.enter_async_context(client)
                assert client.protocol_version == eras[name]
                assert f"agent '{name}'" in (client.instructions or "")
                assert "We meet on Mondays." in (client.instructions or "")
                await stack.enter_async_context(ears[name].listening(client, eras[name], f"blocks://{name}/team"))
            await done(clients["ann"], "memory_append", label="team", content="In room 4.")
            assert (await done(clients["bob"], "memory_view", label="team"))["value"].endswith("In room 4.")
            await ears["bob"].until("blocks://bob/team")
            await done(clients["bob"], "memory_append", label="team", content="At noon.")
            (content,) = (await clients["ann"].read_resource("blocks://ann/team")).contents
            assert getattr(content, "text", "") == "We meet on Mondays.\nIn room 4.\nAt noon."
            for name, ear in ears.items():
                await ear.until(f"blocks://{name}/team")
                ear.heard.clear()
            file.write_text(f"{file.read_text()}Kim brings tea.\n")  # as an editor does
            for name, ear in ears.items():
                await ear.until(f"blocks://{name}/team")
                assert (await done(clients[name], "memory_search", query="brings"))["matches"][0]["line"] == 4

    run(work())


def test_standard_output_has_nothing_but_the_protocol(run_daemon: Callable[..., Daemon], server: RedisServer) -> None:
    """Lines that are no messages are answered or ignored in it, and bytes of a damaged mirror that are no text are shown as
    such; a closed input ends the server in order."""
    run_daemon()
    one = Server("--redis", server.url)
    deep = b"[" * 300_000 + b"\n"
    one.send(b"no JSON\n", b'{"jsonrpc": "2.0"}\n', b"[1, 2\n", deep, b"\xff\xfe\n", b"\n", HELLO, READY, LIST)
    assert one.answer(2)["result"]["structuredContent"]["blocks"]
    lone = (
        '{"jsonrpc":"2.0","id":3,"method":"tools/call","params":{"name":"memory_view","arguments":{"label":"\\ud800"}}}'
    )
    one.send(lone.encode() + b"\n", {**LIST, "id": 4})
    assert "surrogate" in one.answer(3)["error"]["message"]
    assert one.answer(4)["result"]["structuredContent"]["blocks"]
    with server.client() as client:
        client.execute_command("HSET", "blocks:block:agents/sam/human", "value", b"bad \xff bytes")
    view = {"name": "memory_view", "arguments": {"label": "human"}}
    one.send({"jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": view}, {**LIST, "id": 6})
    assert one.answer(5)["result"]["structuredContent"]["value"] == "bad \\udcff bytes"
    assert one.answer(6)["result"]["structuredContent"]["blocks"]
    out, said = one.end()
    assert one.process.returncode == 0
    for line in out.splitlines():
        assert json.loads(line)["jsonrpc"] == "2.0"
    assert b"Traceback" not in said


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_signals_end_it_in_order(run_daemon: Callable[..., Daemon], server: RedisServer, number: int) -> None:
    """While it waits for input."""
    run_daemon()
    one = Server("--redis", server.url)
    one.send(HELLO, READY, LIST)
    one.answer(2)
    one.process.send_signal(number)
    assert one.process.wait(10) == 0
    assert b"Traceback" not in one.end()[1]


def test_client_that_is_gone(run_daemon: Callable[..., Daemon], server: RedisServer) -> None:
    """It reads no answer any more: the server ends with the input, and without a fault."""
    run_daemon()
    one = Server("--redis", server.url)
    one.send(HELLO, READY, LIST)
    one.answer(2)
    assert one.process.stdout is not None
    assert one.process.stdin is not None
    assert one.process.stderr is not None
    one.process.stdout.close()
    one.send({**LIST, "id": 3}, {**LIST, "id": 4})
    one.process.stdin.close()
    assert one.process.wait(10) == 0
    assert one.process.stderr.read() == b""
    one.process.stderr.close()


@pytest.mark.parametrize("stream", ["stdin", "stdout"])
def test_streams_that_cannot_be_used(stream: str) -> None:
    """A closed input, or a full disk behind the output, is an error in one line."""
    words = command("sam", "--redis", "redis://127.0.0.1:1")
    line = shlex.join([words.command, *words.args]) + (" <&-" if stream == "stdin" else " >/dev/full")
    hello = json.dumps(HELLO) + "\n"
    ended = subprocess.run(["sh", "-c", line], input=hello, env=words.env, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1, ended.stderr
    assert "standard input or output cannot be written or read" in ended.stderr


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
    check = (
        "import sys; from blocksd.cli.main import cli; dict(cli.commands); "
        "sys.exit('mcp' in sys.modules or 'pydantic' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
