"""Calls of tools: each is checked, done with the agent's rights, and answered in words and as data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, TextContent

from blocksd.client.tools import VIEW, Mistake, done
from blocksd.errors import BlocksdError, NotFound
from blocksd.mcp.definitions import CALLED
from blocksd.mcp.refusals import refusal
from blocksd.model.label import owner
from blocksd.model.prompt import order, render_block

if TYPE_CHECKING:
    from blocksd.mcp.memory import AgentMemory
    from blocksd.mirror.view import BlockView

_MATCHES, _MOST_MATCHES = 20, 1000
_VERSIONS, _MOST_VERSIONS = 10, 1000
_LINE_CHARS = 300
"""How much of a line a search shows."""

Answer = tuple[str, dict[str, Any]]
"""The answer to a call, in words and as data."""


async def call(memory: AgentMemory, name: str, arguments: dict[str, Any]) -> CallToolResult:
    """Call a tool. A refusal is a result, too, which a model can act on.

    Raises:
        MCPError: there is no such tool.
    """
    tool = CALLED.get(name)
    if tool is None:
        raise MCPError(INVALID_PARAMS, f"there is no tool {name[:80]!r}. The tools: {', '.join(CALLED)}")
    try:
        given = {tool.names.get(key, key): value for key, value in tool.checked(arguments).items()}
        text, data = await (
            _READING[tool.method](memory, **given) if tool.method in _READING else _write(memory, tool.method, given)
        )
    except (BlocksdError, Mistake) as error:
        return CallToolResult(content=[_text(refusal(error, tool.names, agent=memory.agent))], is_error=True)
    return CallToolResult(content=[_text(text)], structured_content=data)


async def _write(memory: AgentMemory, method: str, given: dict[str, Any]) -> Answer:
    block = await memory.write(method, given)
    data = {"label": given["label"], "chars": None, "limit": None, "version": None}
    if block is not None:
        data = {"label": block.name, "chars": block.chars, "limit": block.limit, "version": block.version}
    return done(method, block, given["label"]).text, data


async def _list(memory: AgentMemory) -> Answer:
    blocks = order((await memory.sight()).blocks.values())
    lines = [_line(block) for block in blocks] or ["You have no blocks: memory_create makes one."]
    return "\n".join(lines), {"blocks": [_facts(block, memory.agent) for block in blocks]}


def _line(block: BlockView) -> str:
    rights = ", read-only" if block.read_only else ""
    about = f": {' '.join(block.description.split())}" if block.description else ""
    return f"{block.name} ({block.chars} of {block.limit} characters{rights}){about}"


async def _view(memory: AgentMemory, label: str, version: int | None = None) -> Answer:
    if version is None:
        block = await memory.block(label)
        return done(VIEW, block, label).text, {**_facts(block, memory.agent), "value": block.value}
    found = (await memory.version(label, version)).block
    if found is None:
        raise NotFound(f"version {version} of {label!r} is its deletion", label=label, version=version)
    return render_block(found), {**_facts(found, memory.agent), "value": found.value}


def _facts(block: BlockView, agent: str) -> dict[str, Any]:
    names = ("description", "chars", "limit", "read_only", "version", "updated_at", "updated_by")
    facts = {name: getattr(block, name) for name in names}
    return {"label": block.name, "private": owner(block.label) == agent, **facts}


async def _search(memory: AgentMemory, query: str, limit: int = _MATCHES) -> Answer:
    wanted = query.casefold()
    if not wanted:
        raise Mistake("'query' is empty: give the text to find")
    most = _within(limit, _MOST_MATCHES)
    found: list[tuple[str, int | None, str]] = []
    for block in order((await memory.sight()).blocks.values()):
        heads = (block.name, block.description or "")
        found += [(block.name, None, text) for text in heads if wanted in text.casefold()]
        if wanted in block.value.casefold():
            numbered = enumerate(block.value.split("\n"), 1)
            found += [(block.name, number, line) for number, line in numbered if wanted in line.casefold()]
        if len(found) > most:
            break
    shown = [(name, number, _around(text, wanted)) for name, number, text in found[:most]]
    lines = [f"{name}{'' if number is None else f', line {number}'}: {text}" for name, number, text in shown]
    if len(found) > most:
        lines.append("There are more: ask for a longer text, or set limit.")
    data = [{"label": name, "line": number, "text": text} for name, number, text in shown]
    return "\n".join(lines) or "Nothing found.", {"matches": data, "more": len(found) > most}


def _around(text: str, wanted: str) -> str:
    """Return a line, or of a long one the part with the text."""
    start = max(0, text.casefold().find(wanted) - _LINE_CHARS // 3)
    end = start + _LINE_CHARS
    return f"{'…' if start else ''}{text[start:end]}{'…' if end < len(text) else ''}"


async def _history(memory: AgentMemory, label: str, limit: int = _VERSIONS) -> Answer:
    page = await memory.versions(label, _within(limit, _MOST_VERSIONS))
    names = ("version", "at", "author", "kind", "chars")
    data = [{**{name: getattr(one, name) for name in names}, "fields": list(one.fields)} for one in page]
    lines = [f"v{one.version} {one.at} {one.kind} by {one.author}: {', '.join(one.fields)}" for one in page]
    return "\n".join(line.rstrip(": ") for line in lines), {
        "label": label,
        "versions": data,
        "more": page.next is not None,
    }


def _within(limit: int, most: int) -> int:
    if not 1 <= limit <= most:
        raise Mistake(f"'limit' must be from 1 to {most}")
    return limit


def _text(text: str) -> TextContent:
    return TextContent(type="text", text=text)


_READING: dict[str, Any] = {"list": _list, "view": _view, "search": _search, "history": _history}
