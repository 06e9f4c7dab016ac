"""Anthropic's memory tool over an agent's private blocks, for Anthropic's Python SDK (the extra `anthropic`)."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

TYPE_CHECKING = False

if TYPE_CHECKING:
    from blocksd.anthropic.blocking.memory_tool import MemoryTool
    from blocksd.anthropic.memory_tool_async import AsyncMemoryTool

if find_spec("anthropic") is None:
    raise ModuleNotFoundError(
        "blocksd.anthropic needs Anthropic's SDK: install it by pip install 'blocksd[anthropic]'", name="anthropic"
    )

_HOMES = {"AsyncMemoryTool": "memory_tool_async", "MemoryTool": "blocking.memory_tool"}

__all__ = ["AsyncMemoryTool", "MemoryTool"]


def __getattr__(name: str) -> object:
    """Load a name when it is first used: the SDK takes a second or two to load."""
    if name not in _HOMES:
        raise AttributeError(f"module 'blocksd.anthropic' has no attribute {name!r}")
    return getattr(import_module(f"blocksd.anthropic.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
