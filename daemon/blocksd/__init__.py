"""Memory blocks for AI agents, as plain files: what programs use.

`connect` and `aconnect` give a client; everything else here is what it hands out or raises.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blocksd.client import AsyncClient, AsyncMemory, Client, Memory, aconnect, connect
    from blocksd.errors import BlocksdError, Damaged, InvalidField, InvalidLabel, Misconfigured, NotFound, Unavailable
    from blocksd.prompt import Style, ToolUsageRules
    from blocksd.revision import Change
    from blocksd.runner import AsyncWatch, Watch
    from blocksd.view import AgentView, BlockView, Page
    from blocksd.watching import Item, Reset

_HOMES = {
    "AgentView": "view",
    "AsyncClient": "client",
    "AsyncMemory": "client",
    "AsyncWatch": "runner",
    "BlockView": "view",
    "BlocksdError": "errors",
    "Change": "revision",
    "Client": "client",
    "Damaged": "errors",
    "InvalidField": "errors",
    "InvalidLabel": "errors",
    "Item": "watching",
    "Memory": "client",
    "Misconfigured": "errors",
    "NotFound": "errors",
    "Page": "view",
    "Reset": "watching",
    "Style": "prompt",
    "ToolUsageRules": "prompt",
    "Unavailable": "errors",
    "Watch": "runner",
    "aconnect": "client",
    "connect": "client",
}

__all__ = [
    "AgentView",
    "AsyncClient",
    "AsyncMemory",
    "AsyncWatch",
    "BlockView",
    "BlocksdError",
    "Change",
    "Client",
    "Damaged",
    "InvalidField",
    "InvalidLabel",
    "Item",
    "Memory",
    "Misconfigured",
    "NotFound",
    "Page",
    "Reset",
    "Style",
    "ToolUsageRules",
    "Unavailable",
    "Watch",
    "aconnect",
    "connect",
]


def __getattr__(name: str) -> object:
    """Names are loaded when first used: the daemon, which is quick to start, needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'blocksd' has no attribute {name!r}")
    return getattr(import_module(f"blocksd.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
