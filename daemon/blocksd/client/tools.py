"""An agent's memory as tools for a language model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blocksd.client import memory
from blocksd.errors import BlocksdError, Misconfigured, NotAttached, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from blocksd.client.memory import MemoryState
    from blocksd.client.plan import Plan
    from blocksd.mirror.view import BlockView

_TYPES = {"string": str, "integer": int}
_LABEL = "The name of the block."
_NUMBERS = "Line numbers shown beside a value are not part of it: leave them out."


@dataclass(frozen=True, slots=True)
class _Tool:
    """`parameters` are those of `act`: name → JSON type and description; those in `optional` may be left out."""

    name: str
    description: str
    parameters: Mapping[str, tuple[str, str]]
    act: Callable[..., Plan[BlockView] | Plan[None]]
    optional: tuple[str, ...] = ()

    @property
    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "description": self.description,
            "parameters": {
                "type": "object",
                "properties": {
                    name: {"type": kind, "description": about} for name, (kind, about) in self.parameters.items()
                },
                "required": [name for name in self.parameters if name not in self.optional],
                "additionalProperties": False,
            },
        }


_TOOLS = {
    tool.name: tool
    for tool in (
        _Tool(
            "memory_append",
            f"Add text on a new line at the end of a memory block. {_NUMBERS}",
            {"label": ("string", _LABEL), "content": ("string", "The text to add.")},
            memory.append,
        ),
        _Tool(
            "memory_replace",
            "Replace text in a memory block. The old text must be given exactly as it is in the block, and must be in "
            f"only one place of it: give enough of the text around it. {_NUMBERS}",
            {
                "label": ("string", _LABEL),
                "old_content": ("string", "The text to replace, with the same white space and line breaks."),
                "new_content": ("string", "What to put in its place; empty to remove the text."),
            },
            memory.replace,
        ),
        _Tool(
            "memory_insert",
            f"Insert text into a memory block, as lines of their own. {_NUMBERS}",
            {
                "label": ("string", _LABEL),
                "content": ("string", "The text to insert."),
                "line": (
                    "integer",
                    "The line after which to insert it: 0 for the start, -1 (the default) for the end.",
                ),
            },
            memory.insert,
            optional=("line",),
        ),
        _Tool(
            "memory_rethink",
            "Replace everything in a memory block by new text. What is not in the new text is no longer in the block.",
            {"label": ("string", _LABEL), "new_value": ("string", "The whole new text of the block.")},
            memory.rethink,
        ),
        _Tool(
            "memory_apply_patch",
            "Apply a unified diff to a memory block: all of its hunks, or none. Each hunk begins with @@; below it, "
            "lines of context begin with a space, removed lines with -, added lines with +.",
            {"label": ("string", _LABEL), "patch": ("string", "The unified diff.")},
            memory.apply_patch,
        ),
        _Tool(
            "memory_create",
            "Create a new memory block of your own.",
            {
                "label": ("string", "The name of the new block: letters, digits, '_', '-' and '.', '/' for groups."),
                "value": ("string", "The text of the block."),
                "description": ("string", "What the block is for, and how to use it."),
            },
            memory.create_block,
            optional=("value", "description"),
        ),
        _Tool(
            "memory_delete",
            "Delete a memory block of your own. Blocks that are shared with others cannot be deleted.",
            {"label": ("string", _LABEL)},
            memory.delete_block,
        ),
        _Tool(
            "memory_rename",
            "Give a memory block of your own another name.",
            {"label": ("string", _LABEL), "to": ("string", "The new name.")},
            memory.rename_block,
        ),
    )
}


class _Definitions:
    """The tools, as models are told of them; whoever gets the definitions may change them."""

    def __init__(self, state: MemoryState) -> None:
        self._state = state

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """Each tool's `name`, `description` and `parameters` (a JSON schema)."""
        return [tool.definition for tool in _TOOLS.values()]

    def openai(self) -> list[dict[str, Any]]:
        """The same, as OpenAI's chat completions and whatever speaks like them take it for `tools`."""
        return [{"type": "function", "function": definition} for definition in self.definitions]

    def anthropic(self) -> list[dict[str, Any]]:
        """The same, as Anthropic's messages take it for `tools`."""
        return [
            {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
            for one in self.definitions
        ]


class Tools(_Definitions):
    """An agent's memory as tools: hand a model the definitions, and pass on what it calls."""

    def __init__(self, state: MemoryState, run: Callable[[Plan[str]], str]) -> None:
        super().__init__(state)
        self._run = run

    def call(self, name: str, arguments: Mapping[str, Any] | str) -> str:
        """Do what a model has called for; what to tell it. `arguments` may be the JSON text it gave.

        What it got wrong, and what it may not do, is told it in words that it can act on, and never raised.

        Raises:
            Unavailable: Redis or the daemon does not serve; whether it was done may not be known.
        """
        return self._run(call_tool(self._state, name, arguments))


class AsyncTools(_Definitions):
    """An agent's memory as tools, for asyncio code: like `Tools`, with `call` to be awaited."""

    def __init__(self, state: MemoryState, run: Callable[[Plan[str]], Coroutine[Any, Any, str]]) -> None:
        super().__init__(state)
        self._run = run

    async def call(self, name: str, arguments: Mapping[str, Any] | str) -> str:
        """Do what a model has called for; what to tell it. Like `Tools.call`."""
        return await self._run(call_tool(self._state, name, arguments))


class _Mistake(Exception):  # never leaves this module
    """The model called for what there is not."""


def call_tool(state: MemoryState, name: str, arguments: Mapping[str, Any] | str) -> Plan[str]:
    """The plan of one call."""
    try:
        tool = _tool(name)
        given = _checked(tool, arguments)
        block = yield from tool.act(state, **given)
    except _Mistake as mistake:
        return f"Not done: {mistake}"
    except (Unavailable, Misconfigured):
        raise
    except (NotFound, NotAttached) as error:
        names = yield from memory.list_block_labels(state)
        return f"Not done: {error.message}. Your blocks: {', '.join(names) or 'none'}"
    except BlocksdError as error:
        return f"Not done: {error.message}"
    if block is None:
        return f"Done: {given['label']!r} is deleted"
    return f"Done: {block.name!r} has {block.chars} of at most {block.limit} characters"


def _tool(name: str) -> _Tool:
    if name not in _TOOLS:
        raise _Mistake(f"there is no tool {name!r}. The tools: {', '.join(_TOOLS)}")
    return _TOOLS[name]


def _checked(tool: _Tool, arguments: Mapping[str, Any] | str) -> dict[str, Any]:
    """The arguments, without those that are optional and null."""
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise _Mistake(f"the arguments are not JSON: {error}") from None
    if not isinstance(arguments, Mapping):
        raise _Mistake(f"the arguments of {tool.name} are an object")
    for name in arguments:
        if name not in tool.parameters:
            takes = ", ".join(tool.parameters)
            raise _Mistake(f"{tool.name} has no argument {name!r}. Its arguments: {takes}")
    given = {name: value for name, value in arguments.items() if value is not None or name not in tool.optional}
    for name, (kind, _) in tool.parameters.items():
        if name not in given and name not in tool.optional:
            raise _Mistake(f"{tool.name} needs the argument {name!r}")
        if name in given and type(given[name]) is not _TYPES[kind]:
            raise _Mistake(f"{name!r} must be {'a text' if kind == 'string' else 'a whole number'}")
    return given
