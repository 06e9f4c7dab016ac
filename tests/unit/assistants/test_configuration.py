"""The settings by which assistants run blocksd: each is parsed, and checked against the schema that its client publishes."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from blocksd.assistants.configuration import MCP_CLIENTS, hook_configuration, mcp_configuration
from blocksd.assistants.hook_events import CLIENTS, parse_event

SCHEMAS: dict[str, Any] = json.loads((Path(__file__).parent / "schemas.json").read_text(encoding="utf-8"))
"""The parts that are used of each schema, with its place."""

WORDS = ("/opt/my blocksd/\x7f'\"\\$é", "mcp", "--agent", "sam")
"""A command with what a shell, JSON and TOML would each take apart."""

PUBLISHED = {
    "codex": "codex: config.toml",
    "gemini": "gemini: settings.json",
    "opencode": "opencode: opencode.json",
    "vscode": "vscode: mcp.json",
}
"""The schemas of clients' settings about MCP. Claude Code, Claude Desktop, Cursor, Windsurf and Zed publish none."""

PUBLISHED_FOR_HOOKS = {
    "claude-code": "claude-code: settings.json",
    "codex": "codex: hooks.json",
    "gemini": "gemini: settings.json",
}


def check(schema: str | None, value: Any) -> None:
    """Check a value against a schema, and that the schema would refuse a key that is misspelt."""
    if schema is None:
        return
    found = SCHEMAS[schema]
    assert found["source"].startswith("https://")
    jsonschema.Draft7Validator.check_schema(found["schema"])
    jsonschema.validate(value, found["schema"], jsonschema.Draft7Validator)


@pytest.mark.parametrize("client", MCP_CLIENTS)
def test_mcp_server(client: str) -> None:
    """The client starts this command, word for word."""
    text, place = mcp_configuration(client, WORDS)
    given = tomllib.loads(text) if client == "codex" else json.loads(text)
    check(PUBLISHED.get(client), given)
    keys = ("mcpServers", "servers", "mcp_servers", "mcp", "context_servers")
    (servers,) = (given[key] for key in keys if key in given)
    server = servers["memory"]
    command = server["command"] if client == "opencode" else [server["command"], *server["args"]]
    assert tuple(command) == WORDS
    assert place


ADDED = {
    "claude-code": ["claude", "mcp", "add", "--scope", "user", "memory", "--"],
    "codex": ["codex", "mcp", "add", "memory", "--"],
    "gemini": ["gemini", "mcp", "add", "--scope", "user", "memory"],
    "opencode": ["opencode", "mcp", "add", "memory", "--"],
}
"""The commands by which programs of the terminal add a server themselves. Gemini CLI takes no `--`."""


@pytest.mark.parametrize("client", ADDED)
def test_place_names_a_command_that_can_be_typed(client: str) -> None:
    """A shell takes it apart into these words again."""
    _, place = mcp_configuration(client, WORDS)
    assert shlex.split(place.partition("run: ")[2]) == [*ADDED[client], *WORDS]


@pytest.mark.parametrize("client", CLIENTS)
def test_hooks(client: str) -> None:
    """They run this command, and each of their events is one that the command answers."""
    text, place = hook_configuration(client, WORDS)
    given = json.loads(text)
    check(PUBLISHED_FOR_HOOKS.get(client), given)
    assert place
    wanted = set()
    for name, entries in given["hooks"].items():
        hooks = entries if client in ("cursor", "vscode") else entries[0]["hooks"]
        assert tuple(shlex.split(hooks[0]["command"])) == WORDS
        wanted.add(parse_event(client, json.dumps({"hook_event_name": name, "session_id": "x"})).wanted)
    assert wanted == {"everything", "changes"}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_schemas_refuse_what_is_misspelt(schema: str) -> None:
    """Or they would show nothing."""
    wrong = {
        "hooks": {"SessionStarted": [{"hooks": [{"type": "command", "command": "x"}]}]},
        "mcp": {"x": {"type": "local", "command": "x"}},
        "mcpServers": {"x": {"comand": "x"}},
        "mcp_servers": {"x": {"comand": "x"}},
        "servers": {"x": {"comand": "x"}},
        "hookSpecificOutput": {"additionalContext": "x"},
    }
    for key in [key for key in wrong if key in SCHEMAS[schema]["schema"]["properties"]]:
        with pytest.raises(jsonschema.ValidationError):
            check(schema, {key: wrong[key]})
