"""The tools that a language model is offered for an agent's memory: their definitions, and how calls are checked."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from blocksd.errors import BlocksdError, InvalidField
from blocksd.mirror.view import BlockView
from blocksd.model.prompt import render_block

VIEW = "view"
"""Stands for the method of the tool that reads."""

_TYPES = {"string": str, "integer": int}
_LABEL = "The name of the block."
_NUMBERS = "Line numbers shown beside a value are not part of it: leave them out."


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool: `parameters` is name → JSON type and description; `optional` ones may be left out.

    `method` is the memory's method that does it, `names` its names of those parameters that are called otherwise there.
    """

    name: str
    description: str
    parameters: Mapping[str, tuple[str, str]]
    method: str
    names: Mapping[str, str] = field(default_factory=dict)
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

    def checked(self, arguments: object) -> dict[str, Any]:
        """Return the arguments of a call by their names, without optional ones that are null. `2.0` is a whole number, as in JSON.

        Raises:
            Mistake: the tool does not take these arguments.
        """
        if not isinstance(arguments, Mapping):
            raise Mistake(f"the arguments of {self.name} are an object")
        for argument in arguments:
            if argument not in self.parameters:
                takes = ", ".join(self.parameters) or "none"
                raise Mistake(f"{self.name} has no argument {argument!r}. Its arguments: {takes}")
        given = {name: value for name, value in arguments.items() if value is not None or name not in self.optional}
        for argument, (kind, _) in self.parameters.items():
            if argument not in given and argument not in self.optional:
                raise Mistake(f"{self.name} needs the argument {argument!r}")
            value = given.get(argument)
            if kind == "integer" and isinstance(value, float) and value.is_integer():
                given[argument] = value = int(value)
            if argument in given and type(value) is not _TYPES[kind]:
                raise Mistake(f"{argument!r} must be {'a text' if kind == 'string' else 'a whole number'}")
        return given


def _replacing(name: str, old: str, new: str) -> Tool:
    return Tool(
        name,
        "Replace text in a memory block. The old text must be given exactly as it is in the block, and must be in "
        f"only one place of it: give enough of the text around it. {_NUMBERS}",
        {
            "label": ("string", _LABEL),
            old: ("string", "The text to replace, with the same white space and line breaks."),
            new: ("string", "What to put in its place; empty to remove the text."),
        },
        "replace",
        names={old: "old_content", new: "new_content"},
    )


TOOLS = {
    tool.name: tool
    for tool in (
        Tool(
            "memory_view",
            "Read a memory block: its description, its size and limit, and its value.",
            {"label": ("string", _LABEL)},
            VIEW,
        ),
        Tool(
            "core_memory_append",
            f"Add text on a new line at the end of a memory block. {_NUMBERS}",
            {"label": ("string", _LABEL), "content": ("string", "The text to add.")},
            "append",
        ),
        _replacing("core_memory_replace", "old_content", "new_content"),
        _replacing("memory_replace", "old_string", "new_string"),
        Tool(
            "memory_insert",
            f"Insert text into a memory block, as separate lines. {_NUMBERS}",
            {
                "label": ("string", _LABEL),
                "new_string": ("string", "The text to insert."),
                "insert_line": (
                    "integer",
                    "The line after which to insert it: 0 for the start, -1 (the default) for the end.",
                ),
            },
            "insert",
            names={"new_string": "content", "insert_line": "line"},
            optional=("insert_line",),
        ),
        Tool(
            "memory_rethink",
            "Replace everything in a memory block by new text. What is not in the new text is no longer in the block.",
            {"label": ("string", _LABEL), "new_memory": ("string", "The whole new text of the block.")},
            "rethink",
            names={"new_memory": "new_value"},
        ),
        Tool(
            "memory_apply_patch",
            "Apply a unified diff to a memory block: all of its hunks, or none. Each hunk begins with @@; below it, "
            "lines of context begin with a space, removed lines with -, added lines with +.",
            {"label": ("string", _LABEL), "patch": ("string", "The unified diff.")},
            "apply_patch",
        ),
        Tool(
            "memory_update_description",
            "Change the description of a memory block, which says what the block is for and how to use it.",
            {"label": ("string", _LABEL), "description": ("string", "The whole new description.")},
            "update_block_description",
        ),
        Tool(
            "memory_create",
            "Create a new private memory block.",
            {
                "label": ("string", "The name of the new block; '/' makes groups, as in 'notes/today'."),
                "value": ("string", "The text of the block."),
                "description": ("string", "What the block is for, and how to use it."),
            },
            "create_block",
            optional=("value", "description"),
        ),
        Tool(
            "memory_delete",
            "Delete a private memory block. Blocks that are shared with others cannot be deleted.",
            {"label": ("string", _LABEL)},
            "delete_block",
        ),
        Tool(
            "memory_rename",
            "Give a private memory block another name.",
            {"label": ("string", _LABEL), "to": ("string", "The new name.")},
            "rename_block",
        ),
    )
}
"""The tools, by name. Names and arguments are those of Letta's tools where Letta has such a tool."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """The result of a call of a tool. `text` is the answer for the model.

    `ok` is False if the call was refused, or made no sense. `block` is the block after the call; None if it was deleted, and
    if the call was not done.
    """

    ok: bool
    text: str
    block: BlockView | None = None


class ToolDefinitions:
    """The definitions of the tools. Each call makes them anew, so a caller may change them."""

    def __init__(self, only: Collection[str] | None) -> None:
        """Take the names of the tools to offer; None offers all. Raises InvalidField if one is the name of no tool."""
        wanted = tuple(TOOLS) if only is None else only
        unknown = sorted(set(wanted) - TOOLS.keys())
        if unknown:
            raise InvalidField(f"there is no tool {unknown[0]!r}. The tools: {', '.join(TOOLS)}", field="only")
        self._offered = {name: tool for name, tool in TOOLS.items() if name in wanted}

    @property
    def definitions(self) -> list[dict[str, Any]]:
        """Each tool's `name`, `description` and `parameters` (a JSON schema)."""
        return [tool.definition for tool in self._offered.values()]

    def openai(self) -> list[dict[str, Any]]:
        """The definitions for `tools` of OpenAI's Chat Completions, and of APIs that are compatible with it."""
        return [{"type": "function", "function": definition} for definition in self.definitions]

    def openai_responses(self) -> list[dict[str, Any]]:
        """The definitions for `tools` of OpenAI's Responses.

        They are not strict: there, a strict tool has no optional arguments.
        """
        return [{"type": "function", **definition, "strict": False} for definition in self.definitions]

    def anthropic(self) -> list[dict[str, Any]]:
        """The definitions for `tools` of Anthropic's Messages."""
        return [
            {"name": one["name"], "description": one["description"], "input_schema": one["parameters"]}
            for one in self.definitions
        ]

    def _checked(self, name: str, arguments: Mapping[str, Any] | str) -> tuple[str, dict[str, Any]]:
        """Return the memory's method for a call, and its arguments, without optional ones that are null.

        Raises:
            Mistake: there is no such tool, or it does not take these arguments.
        """
        if name not in self._offered:
            raise Mistake(f"there is no tool {name!r}. The tools: {', '.join(self._offered)}")
        tool = self._offered[name]
        if isinstance(arguments, str):
            try:
                arguments = json.loads(arguments or "{}")
            except (ValueError, RecursionError) as error:
                raise Mistake(f"the arguments are not JSON: {error}") from None
        given = tool.checked(arguments)
        return tool.method, {tool.names.get(argument, argument): value for argument, value in given.items()}


class Mistake(Exception):
    """A model called a tool that does not exist, or with arguments it does not take."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


def done(method: str, block: BlockView | None, label: str) -> ToolResult:
    """Return the result of a call that was done; `block` is None when it is deleted."""
    if block is None:
        return ToolResult(ok=True, text=f"Done: {label!r} is deleted")
    if method == VIEW:
        return ToolResult(ok=True, text=render_block(block), block=block)
    text = f"Done: {block.name!r} has {block.chars} of at most {block.limit} characters"
    return ToolResult(ok=True, text=text, block=block)


def not_done(error: Mistake | BlocksdError, names: list[str] | None = None) -> ToolResult:
    """Return the result of a call that was not done; `names` are the blocks there are, if the name was wrong."""
    blocks = "" if names is None else f". Your blocks: {', '.join(names) or 'none'}"
    return ToolResult(ok=False, text=f"Not done: {error.message}{blocks}")
