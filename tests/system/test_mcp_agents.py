"""Claude Code, Codex and Gemini CLI, from npm, with an agent's memory: a scripted model in place of the real one.

It plays the vendors' streams, and calls a tool. All clients are told to ask this model alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from gateways import Served, daemon
from support import do_without, eventually, require, run_here

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PACKAGES = {
    "claude": "@anthropic-ai/claude-code",
    "codex": "@openai/codex",
    "gemini": "@google/gemini-cli",
}
ASKED = "Remember that Kim likes tea."
ARGUMENTS = {"label": "human", "content": "Kim likes tea."}


class Model(ThreadingHTTPServer):
    """Calls memory_append in its first answer, and is done in the second."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        is_anthropics = self.path.startswith("/v1/messages")
        if "tools" in body:
            self.server.asked.append(body)
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        if "streamGenerateContent" in self.path:
            self.wfile.write(f"data: {json.dumps(GEMINIS)}\r\n\r\n".encode())
            return
        for event in (messages if is_anthropics else responses)(body):
            self.wfile.write(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


GEMINIS = {
    "candidates": [
        {"content": {"role": "model", "parts": [{"text": "All done."}]}, "finishReason": "STOP", "index": 0}
    ],
    "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2},
}
"""The one answer to Google's Gemini, as a stream."""


def messages(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The stream of Anthropic's Messages."""
    name = "mcp__memory__memory_append"
    is_call = name in {tool.get("name") for tool in body.get("tools", [])} and "tool_result" not in json.dumps(body)
    usage = {"input_tokens": 1, "output_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "model": body["model"], "content": [], "usage": usage}
    block, delta = {"type": "text", "text": ""}, {"type": "text_delta", "text": "All done."}
    if is_call:
        block = {"type": "tool_use", "id": "call", "name": name, "input": {}}  # type: ignore[dict-item]
        delta = {"type": "input_json_delta", "partial_json": json.dumps(ARGUMENTS)}
    yield {"type": "message_start", "message": message}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {"type": "message_delta", "delta": {"stop_reason": "tool_use" if is_call else "end_turn"}, "usage": usage}
    yield {"type": "message_stop"}


def responses(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The stream of OpenAI's Responses."""
    spaces = [tool for tool in body["tools"] if tool.get("name") == "mcp__memory"]
    text = {"type": "output_text", "text": "All done.", "annotations": []}
    item: dict[str, Any] = {"type": "message", "id": "m", "role": "assistant", "content": [text]}
    if spaces and "function_call_output" not in json.dumps(body):
        item = {"type": "function_call", "id": "f", "call_id": "call", "arguments": json.dumps(ARGUMENTS)}
        item |= {"namespace": "mcp__memory", "name": "memory_append"}
    usage = {"input_tokens": 1, "input_tokens_details": None, "output_tokens": 1, "output_tokens_details": None}
    yield {"type": "response.created", "response": {"id": "r"}}
    yield {"type": "response.output_item.done", "output_index": 0, "item": item}
    yield {"type": "response.completed", "response": {"id": "r", "usage": {**usage, "total_tokens": 2}}}


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Installs a client once; its program."""
    made: dict[str, Path] = {}

    def installed(name: str) -> str:
        if name not in made:
            directory = made[name] = tmp_path_factory.mktemp(name)
            (directory / "package.json").write_text("{}")
            words = [require("npm"), "install", "--silent", "--no-audit", "--no-fund", PACKAGES[name]]
            done = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=200, check=False)
            if done.returncode:
                do_without(f"{PACKAGES[name]} could not be installed: {(done.stderr or done.stdout)[-300:]}")
        return str(made[name] / "node_modules/.bin" / name)

    return installed


def run_claude(program: str, server: dict[str, Any], model: Model, home: Path) -> subprocess.CompletedProcess[str]:
    """Have Claude Code do what it is asked, with this server."""
    (home / "mcp.json").write_text(json.dumps({"mcpServers": {"memory": server}}))
    options = ["--mcp-config", "mcp.json", "--strict-mcp-config", "--allowedTools", "mcp__memory__memory_append"]
    env = {
        "ANTHROPIC_BASE_URL": model.url,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
        # Else it asks the model before its servers have started, and without their tools. In milliseconds.
        "MCP_CONNECTION_NONBLOCKING": "false",
        "MCP_CONNECT_TIMEOUT_MS": "60000",
        "MCP_TIMEOUT": "60000",
    }
    return run([program, "-p", ASKED, *options], home, env)


def run_codex(program: str, server: dict[str, Any], model: Model, home: Path) -> subprocess.CompletedProcess[str]:
    """Have Codex do what it is asked, with this server."""
    (home / ".codex").mkdir()
    keys = "\n".join(f"{key} = {json.dumps(value)}" for key, value in server.items() if key != "type")
    (home / ".codex/config.toml").write_text(
        f'model = "scripted"\nmodel_provider = "local"\n[model_providers.local]\nname = "local"\n'
        f'base_url = "{model.url}/v1"\nwire_api = "responses"\n'
        f'[mcp_servers.memory]\n{keys}\ndefault_tools_approval_mode = "approve"\nrequired = true\nstartup_timeout_sec = 60\n'
    )
    return run([program, "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", ASKED], home, {})


def run(words: list[str], home: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    env = {"HOME": str(home), "PATH": path, "TERM": "xterm", "BLOCKSD_CONFIG": os.devnull, **env}
    return subprocess.run(
        words, cwd=home, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("way", ["stdio", "http"])
@pytest.mark.parametrize(("name", "client"), [("claude", run_claude), ("codex", run_codex)])
def test_agents_have_the_memory(
    program: Callable[[str], str], tmp_path: Path, name: str, client: Callable[..., Any], way: str
) -> None:
    """The model is told the memory, calls a tool, and is told the answer; the file has what it wrote."""
    home, model = tmp_path / "home", Model()
    home.mkdir()
    with (
        daemon(tmp_path, {"agents/me/human.md": "The human is called Kim.\n"}) as (server, folder),
        ExitStack() as stack,
    ):
        file = folder / "agents/me/human.md"
        served = Served(tmp_path / "serve.log", "--redis", server.url).ready()
        stack.callback(served.end)
        servers = {
            # As on a busy machine: a client that does not wait would ask the model without tools.
            "stdio": {"command": "sh", "args": ["-c", f"sleep 3; exec blocksd mcp --agent me --redis {server.url}"]},
            "http": {"type": "http", "url": f"http://127.0.0.1:{served.port}/mcp?agent=me"},
        }
        done = client(program(name), servers[way], model, home)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "All done." in done.stdout
        first, second = (json.dumps(body) for body in model.asked)
        assert "The memory of the agent 'me'" in first
        assert "The human is called Kim." in first
        assert "memory_undo" in first
        assert r"\"label\":\"human\",\"chars\":39" in second
        assert file.read_text().endswith("The human is called Kim.\nKim likes tea.\n")
    assert "Traceback" not in served.said()
    model.shutdown()
    model.server_close()


def ask_claude(program: str, model: Model, home: Path, settings: dict[str, Any], *words: str) -> None:
    """Ask Claude Code something, in the last session if there was one, with these settings of hooks."""
    (home / ".claude").mkdir(exist_ok=True)
    (home / ".claude/settings.json").write_text(json.dumps(settings))
    env = {
        "ANTHROPIC_BASE_URL": model.url,
        "ANTHROPIC_API_KEY": "none",
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "DISABLE_AUTOUPDATER": "1",
    }
    done = run([program, "-p", *(["--continue"] if model.asked else []), *words], home, env)
    assert done.returncode == 0, done.stdout + done.stderr


def ask_codex(program: str, model: Model, home: Path, settings: dict[str, Any], *words: str) -> None:
    """Ask Codex the same."""
    (home / ".codex").mkdir(exist_ok=True)
    (home / ".codex/hooks.json").write_text(json.dumps(settings))
    (home / ".codex/config.toml").write_text(
        f'model = "scripted"\nmodel_provider = "local"\n[model_providers.local]\nname = "local"\n'
        f'base_url = "{model.url}/v1"\nwire_api = "responses"\n'
    )
    options = ["--skip-git-repo-check", "--dangerously-bypass-hook-trust"]
    done = run([program, "exec", *options, *(["resume", "--last"] if model.asked else []), *words], home, {})
    assert done.returncode == 0, done.stdout + done.stderr


def ask_gemini(program: str, model: Model, home: Path, settings: dict[str, Any], *words: str) -> None:
    """Ask Gemini CLI the same."""
    (home / ".gemini").mkdir(exist_ok=True)
    auth = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    (home / ".gemini/settings.json").write_text(json.dumps({**settings, **auth}))
    env = {"GEMINI_API_KEY": "none", "GOOGLE_GEMINI_BASE_URL": model.url, "GEMINI_CLI_TRUST_WORKSPACE": "true"}
    options = ["--model", "gemini-2.5-flash", *(["--resume", "latest"] if model.asked else [])]
    done = run([program, *options, "--prompt", *words], home, env)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("name", "client", "ask"),
    [("claude", "claude-code", ask_claude), ("codex", "codex", ask_codex), ("gemini", "gemini", ask_gemini)],
)
def test_hooks_give_the_memory(
    program: Callable[[str], str], tmp_path: Path, name: str, client: str, ask: Callable[..., None]
) -> None:
    """By the settings that are printed: all of it when a session starts, and at a later prompt what has changed."""
    home, model = tmp_path / "home", Model()
    home.mkdir()
    lines = "".join(f"Fact {number} of Kim.\n" for number in range(30))
    with daemon(tmp_path, {"agents/me/human.md": lines}) as (server, folder):
        file = folder / "agents/me/human.md"
        settings = json.loads(run_here("hook", client, "--agent", "me", "--redis", server.url, "--print-config").stdout)
        ask(program(name), model, home, settings, "Hello.")
        assert "Fact 29 of Kim." in json.dumps(model.asked[-1])
        del settings["hooks"]["SessionStart"]  # else the session that goes on begins with everything
        ask(program(name), model, home, settings, "Nothing new.")
        assert "memory_changes" not in json.dumps(model.asked[-1])
        file.write_text(lines.replace("Fact 7 of", "Fact seven of"))
        eventually(lambda: "seven" in run_here("show", "agents/me/human", "--redis", server.url).stdout)
        ask(program(name), model, home, settings, "Something new.")
        assert r"-Fact 7 of Kim.\n+Fact seven of Kim." in json.dumps(model.asked[-1])
    model.shutdown()
    model.server_close()
