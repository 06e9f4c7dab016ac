# Made of memory_tool_async.py by tests/generate_client.py: edit that, and run this.
"""The memory tool that is handed to Anthropic's SDK."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

from anthropic.lib.tools import BetaAbstractMemoryTool, ToolError

from blocksd.anthropic.files import MemoryFiles, Refused, inserted, replaced, snippet, value_of
from blocksd.client.blocking.memory import Memory
from blocksd.errors import BlocksdError, Misconfigured, NotFound, Unavailable, VersionConflict
from blocksd.mirror.view import BlockView, view_of

_COMMANDS = ("view", "create", "str_replace", "insert", "delete", "rename")
_ATTEMPTS = 10
_LONGEST_PAUSE = 0.05


class MemoryTool(BetaAbstractMemoryTool):
    """Anthropic's memory tool (`memory_20250818`) over the private blocks of an agent.

    What a model has in `/memories` are the blocks below `agents/<agent>/` in the folder: `/memories/notes.md` is the block
    that the agent calls `notes`. Shared blocks are not there: the prompt shows them, and `memory.tools()` edits them. A
    command on a directory is done as a whole, or not at all.

    A refusal is raised as the SDK's ToolError, whose text is for the model. NotFound (there is no such agent) and
    Unavailable (Redis or the daemon does not serve) are raised as they are.
    """

    def __init__(self, memory: Memory, *, cache_control: Any = None) -> None:
        """Take the memory of the agent: `client.memory(agent)`. `cache_control` is handed to the SDK."""
        super().__init__(cache_control=cache_control)
        self._memory = memory

    def execute(self, command: Any) -> Any:
        """Do one command, and return the text for the model."""
        if getattr(command, "command", None) not in _COMMANDS:
            raise ToolError(f"Error: There is no such command. The commands: {', '.join(_COMMANDS)}")
        return super().execute(command)

    def view(self, command: Any) -> str:
        """List a directory, or show the lines of a file."""
        files = self._files()
        with _told(files):
            return files.shown(files.place(_text(command, "path")), getattr(command, "view_range", None))

    def create(self, command: Any) -> str:
        """Create a private block."""
        files = self._files()
        with _told(files, command):
            place = files.place(_text(command, "path"))
            value = value_of(_text(command, "file_text"))
            self._memory.create_block(files.check_new(place), value)
        return f"File created successfully at: {place.path}"

    def str_replace(self, command: Any) -> str:
        """Replace text that is in one place of a block."""
        files = self._files()
        with _told(files, command):
            place = files.place(_text(command, "path"))
            old, new = _text(command, "old_str"), _text(command, "new_str", "")
            missing = f"Error: The path {place.path} does not exist. Please provide a valid path."
            block = files.check_edited(place, missing)
            before, after = self._edit(block, lambda value: replaced(place, value, old, new))
        return snippet(after, before, new)

    def insert(self, command: Any) -> str:
        """Insert lines into a block."""
        files = self._files()
        with _told(files, command):
            place = files.place(_text(command, "path"))
            line, text = getattr(command, "insert_line", None), _text(command, "insert_text")
            if type(line) is not int:
                raise Refused("Error: The argument `insert_line` must be a whole number")
            block = files.check_edited(place, f"Error: The path {place.path} does not exist")
            self._edit(block, lambda value: inserted(value, line, text))
        return f"The file {place.path} has been edited."

    def delete(self, command: Any) -> str:
        """Delete a private block, or all of a directory."""
        files = self._files()
        with _told(files, command):
            place = files.place(_text(command, "path"))
            self._together([("delete", block, {}) for block in files.check_deleted(place)])
        return f"Successfully deleted {place.path}"

    def rename(self, command: Any) -> str:
        """Rename a private block, or all of a directory."""
        files = self._files()
        with _told(files, command):
            old, new = files.place(_text(command, "old_path")), files.place(_text(command, "new_path"))
            self._together([("rename", block, {"to": name}) for block, name in files.check_renamed(old, new)])
        return f"Successfully renamed {old.path} to {new.path}"

    def _files(self) -> MemoryFiles:
        return MemoryFiles(self._memory.agent_id, self._memory.get_blocks())

    def _edit(self, block: BlockView, change: Callable[[str], str]) -> tuple[str, str]:
        """Replace the value by what `change` makes of it, of the newer one if there is one; the values before and after."""
        for attempt in range(_ATTEMPTS):
            value = change(block.value)
            try:
                self._memory.rethink(block.name, value, expect_version=block.version)
                break
            except VersionConflict as conflict:
                newer: Any = conflict.facts.get("block")
                if newer is None or attempt == _ATTEMPTS - 1:
                    raise
                block = view_of(newer)
            sleep(random.uniform(0, _LONGEST_PAUSE))
        return block.value, value

    def _together(self, parts: list[tuple[str, BlockView, dict[str, str]]]) -> None:
        """Do this to all of these blocks, or to none."""
        requests = [
            {"op": op, "name": block.name, "args": args, "expect": {"version": block.version}}
            for op, block, args in parts
        ]
        self._memory._request("batch", None, {"requests": requests}, {})  # noqa: SLF001  # no method of a memory does it


@contextmanager
def _told(files: MemoryFiles, command: Any = None) -> Iterator[None]:
    """Raise what a model is to be told as the SDK's ToolError."""
    try:
        yield
    except Refused as refused:
        raise ToolError(refused.text) from None
    except (Unavailable, Misconfigured):
        raise
    except BlocksdError as error:
        if isinstance(error, NotFound) and error.facts.keys() == {"agent"}:
            raise
        path = getattr(command, "path", None) or getattr(command, "new_path", None)
        raise ToolError(files.refusal(error, str(path)).text) from error


def _text(command: Any, name: str, default: str | None = None) -> str:
    """Return an argument that is a text. Raises Refused if it is none."""
    value = getattr(command, name, None)
    if value is None and default is not None:
        return default
    if not isinstance(value, str):
        raise Refused(f"Error: The argument `{name}` must be a text")
    return value
