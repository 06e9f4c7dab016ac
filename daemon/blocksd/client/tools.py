"""The tools that a language model is offered for an agent's memory: their definitions, and how calls are checked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blocksd.errors import BlocksdError
from blocksd.mirror.view import BlockView

_TYPES = {"string": str, "integer": int}
_LABEL = "The name of the block."
_NUMBERS = "Line numbers shown beside a value are not part of it: leave them out."


@dataclass(frozen=True, slots=True)
class _Tool:
    """`parameters` are those of the memory's `method`: name → JSON type and description; `optional` ones may be left out."""

    name: str
    description: str
    parameters: Mapping[str, tuple[str, str]]
    method: str
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
            "append",
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
            "replace",
        ),
        _Tool(
            "memory_insert",
            f"Insert text into a memory block, as separate lines. {_NUMBERS}",
            {
                "label": ("string", _LABEL),
                "content": ("string", "The text to insert."),
                "line": (
                    "integer",
                    "The line after which to insert it: 0 for the start, -1 (the default) for the end.",
                ),
            },
            "insert",
            optional=("line",),
        ),
        _Tool(
            "memory_rethink",
            "Replace everything in a memory block by new text. What is not in the new text is no longer in the block.",
            {"label": ("string", _LABEL), "new_value": ("string", "The whole new text of the block.")},
            "rethink",
        ),
        _Tool(
            "memory_apply_patch",
            "Apply a unified diff to a memory block: all of its hunks, or none. Each hunk begins with @@; below it, "
            "lines of context begin with a space, removed lines with -, added lines with +.",
            {"label": ("string", _LABEL), "patch": ("string", "The unified diff.")},
            "apply_patch",
        ),
        _Tool(
            "memory_create",
            "Create a new private memory block.",
            {
                "label": ("string", "The name of the new block: letters, digits, '_', '-' and '.', '/' for groups."),
                "value": ("string", "The text of the block."),
                "description": ("string", "What the block is for, and how to use it."),
            },
            "create_block",
            optional=("value", "description"),
        ),
        _Tool(
            "memory_delete",
            "Delete a private memory block. Blocks that are shared with others cannot be deleted.",
            {"label": ("string", _LABEL)},
            "delete_block",
        ),
        _Tool(
            "memory_rename",
            "Give a private memory block another name.",
            {"label": ("string", _LABEL), "to": ("string", "The new name.")},
            "rename_block",
        ),
    )
}


class ToolDefinitions:
    """The definitions of the tools. Each call makes them anew, so a caller may change them."""

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """Each tool's `name`, `description` and `parameters` (a JSON schema)."""
        return [tool.definition for tool in _TOOLS.values()]

    def openai(self) -> list[dict[str, Any]]:
        """The same, as OpenAI's chat completions and compatible APIs take it for `tools`."""
        return [{"type": "function", "function": definition} for definition in self.definitions]

    def anthropic(self) -> list[dict[str, Any]]:
        """The same, as Anthropic's messages take it for `tools`."""
        return [
            {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
            for one in self.definitions
        ]


class Mistake(Exception):
    """A model called a tool that does not exist, or with arguments it does not take."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def checked(name: str, arguments: Mapping[str, Any] | str) -> tuple[str, dict[str, Any]]:
    """The memory's method for a call, and its arguments, without those that are optional and null.

    Raises:
        Mistake: there is no such tool, or the arguments are not those it takes.
    """
    if name not in _TOOLS:
        raise Mistake(f"there is no tool {name!r}. The tools: {', '.join(_TOOLS)}")
    tool = _TOOLS[name]
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise Mistake(f"the arguments are not JSON: {error}") from None
    if not isinstance(arguments, Mapping):
        raise Mistake(f"the arguments of {tool.name} are an object")
    for argument in arguments:
        if argument not in tool.parameters:
            takes = ", ".join(tool.parameters)
            raise Mistake(f"{tool.name} has no argument {argument!r}. Its arguments: {takes}")
    given = {name: value for name, value in arguments.items() if value is not None or name not in tool.optional}
    for argument, (kind, _) in tool.parameters.items():
        if argument not in given and argument not in tool.optional:
            raise Mistake(f"{tool.name} needs the argument {argument!r}")
        if argument in given and type(given[argument]) is not _TYPES[kind]:
            raise Mistake(f"{argument!r} must be {'a text' if kind == 'string' else 'a whole number'}")
    return tool.method, given


def done(block: BlockView | None, label: str) -> str:
    """The answer to a model whose call was done; `block` is None when it is deleted."""
    if block is None:
        return f"Done: {label!r} is deleted"
    return f"Done: {block.name!r} has {block.chars} of at most {block.limit} characters"


def not_done(error: Mistake | BlocksdError, names: list[str] | None = None) -> str:
    """The answer to a model whose call was not done; `names` are the blocks there are, if the name was wrong."""
    blocks = "" if names is None else f". Your blocks: {', '.join(names) or 'none'}"
    return f"Not done: {error.message}{blocks}"
