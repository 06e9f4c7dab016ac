"""Memory blocks for AI agents, as plain files: what programs use.

`connect` and `aconnect` give a client; everything else here is what it hands out or raises.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blocksd.agent_memory import AsyncMemory, Memory
    from blocksd.client import AsyncClient, Client, aconnect, connect
    from blocksd.errors import (
        AlreadyExists,
        BlocksdError,
        Damaged,
        InvalidField,
        InvalidLabel,
        InvalidRequest,
        LabelConflict,
        LimitExceeded,
        MergeConflict,
        Misconfigured,
        NotAttached,
        NotFound,
        ProblemFile,
        ReadOnly,
        Unavailable,
        VersionConflict,
    )
    from blocksd.prompt import Style, ToolUsageRules
    from blocksd.revision import Change
    from blocksd.tools import AsyncTools, Tools
    from blocksd.view import AgentView, BlockView, Page
    from blocksd.watch import AsyncWatch, Watch
    from blocksd.watching import Item, Reset

_HOMES = {
    "AgentView": "view",
    "AlreadyExists": "errors",
    "AsyncClient": "client",
    "AsyncMemory": "agent_memory",
    "AsyncTools": "tools",
    "AsyncWatch": "watch",
    "BlockView": "view",
    "BlocksdError": "errors",
    "Change": "revision",
    "Client": "client",
    "Damaged": "errors",
    "InvalidField": "errors",
    "InvalidLabel": "errors",
    "InvalidRequest": "errors",
    "Item": "watching",
    "LabelConflict": "errors",
    "LimitExceeded": "errors",
    "Memory": "agent_memory",
    "MergeConflict": "errors",
    "Misconfigured": "errors",
    "NotAttached": "errors",
    "NotFound": "errors",
    "Page": "view",
    "ProblemFile": "errors",
    "ReadOnly": "errors",
    "Reset": "watching",
    "Style": "prompt",
    "ToolUsageRules": "prompt",
    "Tools": "tools",
    "Unavailable": "errors",
    "VersionConflict": "errors",
    "Watch": "watch",
    "aconnect": "client",
    "connect": "client",
}

__all__ = [
    "AgentView",
    "AlreadyExists",
    "AsyncClient",
    "AsyncMemory",
    "AsyncTools",
    "AsyncWatch",
    "BlockView",
    "BlocksdError",
    "Change",
    "Client",
    "Damaged",
    "InvalidField",
    "InvalidLabel",
    "InvalidRequest",
    "Item",
    "LabelConflict",
    "LimitExceeded",
    "Memory",
    "MergeConflict",
    "Misconfigured",
    "NotAttached",
    "NotFound",
    "Page",
    "ProblemFile",
    "ReadOnly",
    "Reset",
    "Style",
    "ToolUsageRules",
    "Tools",
    "Unavailable",
    "VersionConflict",
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
