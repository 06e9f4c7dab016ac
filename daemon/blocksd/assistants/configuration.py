"""The settings by which assistants run blocksd: as an MCP server, and at their hooks.

Each function returns the text to paste, and the file that it belongs into. daemon/docs/mcp.md has the sources.
"""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVER = "memory"
"""The name that the MCP server has in the settings of a client, and so in the names of its tools."""

_HOOK_SECONDS = 10
"""How long an assistant waits for a hook: longer than the hook waits itself."""


def mcp_configuration(client: str, words: Sequence[str]) -> tuple[str, str]:
    """Return the settings of an MCP client that start this command, and where they belong.

    Raises:
        KeyError: there is no such client in `MCP_CLIENTS`.
    """
    form, place = MCP_CLIENTS[client]
    command, *arguments = words
    server: dict[str, Any] = {"command": command, "args": arguments}
    if form == "toml":
        text = f"[mcp_servers.{SERVER}]\ncommand = {_quoted(command)}\nargs = [{', '.join(map(_quoted, arguments))}]"
    elif form == "opencode":
        local = {"type": "local", "command": [command, *arguments], "enabled": True}
        text = _json({"$schema": "https://opencode.ai/config.json", "mcp": {SERVER: local}})
    elif form == "servers":
        text = _json({"servers": {SERVER: {"type": "stdio", **server}}})
    elif form == "zed":
        text = _json({"context_servers": {SERVER: server}})
    else:
        text = _json({"mcpServers": {SERVER: {"type": "stdio", **server} if form == "typed" else server}})
    return text, place.format(command=shlex.join(words))


MCP_CLIENTS = {
    "claude-code": ("typed", ".mcp.json of a project; or run: claude mcp add --scope user memory -- {command}"),
    "claude-desktop": ("plain", "claude_desktop_config.json, which Settings > Developer > Edit Config opens"),
    "codex": ("toml", "~/.codex/config.toml; or run: codex mcp add memory -- {command}"),
    "cursor": ("typed", "~/.cursor/mcp.json, or .cursor/mcp.json of a project"),
    "gemini": (
        "plain",
        "~/.gemini/settings.json or .gemini/settings.json of a project; or run: gemini mcp add --scope user memory {command}",
    ),
    "opencode": (
        "opencode",
        "~/.config/opencode/opencode.json, or opencode.json of a project; or run: opencode mcp add memory -- {command}",
    ),
    "vscode": ("servers", ".vscode/mcp.json of a project, or what the command 'MCP: Open User Configuration' opens"),
    "windsurf": ("plain", "~/.codeium/windsurf/mcp_config.json"),
    "zed": ("zed", "~/.config/zed/settings.json, or .zed/settings.json of a project"),
}
"""The clients, with the form of their settings and the file, and the command by which they add a server themselves."""


def hook_configuration(client: str, words: Sequence[str]) -> tuple[str, str]:
    """Return the settings that have an assistant run this command at its hooks, and where they belong.

    Raises:
        KeyError: there is no such client.
    """
    events, place = _HOOKS[client]
    hook: dict[str, Any] = {"type": "command", "command": shlex.join(words), "timeout": _HOOK_SECONDS}
    entries: list[dict[str, Any]] = [{"hooks": [hook]}]
    if client == "cursor":
        del hook["type"]
    if client in ("cursor", "vscode"):
        entries = [hook]
    if client == "gemini":
        hook |= {"name": "blocksd", "timeout": _HOOK_SECONDS * 1000}
    head = {"version": 1} if client == "cursor" else {}
    return _json({**head, "hooks": dict.fromkeys(events, entries)}), place


_HOOKS = {
    "claude-code": (
        ("SessionStart", "UserPromptSubmit", "SubagentStart"),
        "~/.claude/settings.json, or .claude/settings.local.json of a project",
    ),
    "codex": (
        ("SessionStart", "UserPromptSubmit", "SubagentStart"),
        "~/.codex/hooks.json, then trust it in Codex with /hooks",
    ),
    "cursor": (("sessionStart", "beforeSubmitPrompt"), "~/.cursor/hooks.json, or .cursor/hooks.json of a project"),
    "gemini": (("SessionStart", "BeforeAgent"), "~/.gemini/settings.json, or .gemini/settings.json of a project"),
    "vscode": (
        ("SessionStart", "PostToolUse", "SubagentStart"),
        "a file in ~/.copilot/hooks, or .github/hooks of a project",
    ),
}
"""The events at which each assistant takes context, and the file of its settings."""


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _quoted(text: str) -> str:
    """Return a text as TOML has it between quotes: as JSON does, but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
