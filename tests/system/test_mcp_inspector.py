"""The MCP inspector, the protocol's own client from npm, against both servers, in an era each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.mcp.definitions import CALLED
from gateways import Served, daemon
from support import do_without, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

INSPECTOR = "@modelcontextprotocol/inspector@2"


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The inspector's command, installed."""
    directory = tmp_path_factory.mktemp("inspector")
    (directory / "package.json").write_text(json.dumps({"type": "module"}))
    words = [require("npm"), "install", "--silent", "--no-audit", "--no-fund", INSPECTOR]
    done = subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=200, check=False)
    if done.returncode:
        do_without(f"{INSPECTOR} could not be installed: {(done.stderr or done.stdout)[-300:]}")
    return [
        require("node"),
        str(directory / "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"),
    ]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], list[str]]]:
    """How the inspector reaches a server: as a command, or in a gateway."""
    directory = tmp_path_factory.mktemp("mcp")
    with daemon(directory, {"agents/sam/human.md": "Likes tea.\n"}) as (server, _):
        served = Served(directory / "serve.log", "--redis", server.url).ready()
        targets = {
            "stdio": [sys.executable, "-m", "blocksd", "mcp", "--agent", "sam", "--redis", server.url],
            "http": [f"http://127.0.0.1:{served.port}/mcp?agent=sam", "--transport", "http"],
        }
        yield targets.__getitem__
        served.end()
        assert "Traceback" not in served.said()


@pytest.mark.parametrize(("way", "era"), [("stdio", "legacy"), ("http", "modern")])
def test_inspector_finds_everything(
    inspector: list[str], target: Callable[[str], list[str]], tmp_path: Path, way: str, era: str
) -> None:
    """Tools without anything that a client could stumble over, a call, a resource and the prompt."""

    def asked(*words: str, code: int = 0) -> tuple[Any, str]:
        command = [*inspector, "--cli", *target(way), "--protocol-era", era, "--method", *words]
        env = {**os.environ, "HOME": str(tmp_path), "BLOCKSD_CONFIG": os.devnull}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=env, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout), done.stderr

    tools, said = asked("tools/list", "--strict")
    assert [tool["name"] for tool in tools["tools"]] == list(CALLED)
    assert "Warning" not in said
    line = f"Over {way}, {era}."
    append = ("tools/call", "--tool-name", "memory_append", "--tool-arg", "label=human", "--tool-arg")
    assert asked(*append, f"content={line}")[0]["structuredContent"]["label"] == "human"
    assert line in asked("resources/read", "--uri", "blocks://sam/human")[0]["contents"][0]["text"]
    assert line in asked("prompts/get", "--prompt-name", "memory")[0]["messages"][0]["content"]["text"]
    refused, _ = asked("tools/call", "--tool-name", "memory_view", "--tool-arg", "label=nope", code=5)
    assert "memory_list" in refused["content"][0]["text"]
