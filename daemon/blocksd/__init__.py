"""Memory blocks for AI agents, as plain files: what programs use.

`connect` and `aconnect` give a client; everything else here is what it hands out or raises.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # typing takes a moment to load, and Ctrl-C meanwhile would print a traceback

if TYPE_CHECKING:
    from blocksd.client.batch_async import AsyncBatch
    from blocksd.client.blocking.batch import Batch
    from blocksd.client.blocking.client import Client, connect
    from blocksd.client.blocking.memory import Memory, Tools
    from blocksd.client.client_async import AsyncClient, aconnect
    from blocksd.client.letta import BasicBlockMemory, ChatMemory
    from blocksd.client.memory_async import AsyncMemory, AsyncTools
    from blocksd.client.tools import ToolResult
    from blocksd.client.watch import AsyncWatch, Watch
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
    from blocksd.mirror.view import AgentView, BlockView, FileView, Page, VersionView
    from blocksd.model.prompt import Style, ToolUsageRules
    from blocksd.model.revision import Change
    from blocksd.protocol.reset import Item, Reset

_HOMES = {
    "AgentView": "mirror.view",
    "AlreadyExists": "errors",
    "AsyncBatch": "client.batch_async",
    "AsyncClient": "client.client_async",
    "AsyncMemory": "client.memory_async",
    "AsyncTools": "client.memory_async",
    "AsyncWatch": "client.watch",
    "BasicBlockMemory": "client.letta",
    "Batch": "client.blocking.batch",
    "BlockView": "mirror.view",
    "BlocksdError": "errors",
    "Change": "model.revision",
    "ChatMemory": "client.letta",
    "Client": "client.blocking.client",
    "Damaged": "errors",
    "FileView": "mirror.view",
    "InvalidField": "errors",
    "InvalidLabel": "errors",
    "InvalidRequest": "errors",
    "Item": "protocol.reset",
    "LabelConflict": "errors",
    "LimitExceeded": "errors",
    "Memory": "client.blocking.memory",
    "MergeConflict": "errors",
    "Misconfigured": "errors",
    "NotAttached": "errors",
    "NotFound": "errors",
    "Page": "mirror.view",
    "ProblemFile": "errors",
    "ReadOnly": "errors",
    "Reset": "protocol.reset",
    "Style": "model.prompt",
    "ToolResult": "client.tools",
    "ToolUsageRules": "model.prompt",
    "Tools": "client.blocking.memory",
    "Unavailable": "errors",
    "VersionConflict": "errors",
    "VersionView": "mirror.view",
    "Watch": "client.watch",
    "aconnect": "client.client_async",
    "connect": "client.blocking.client",
}

__all__ = [
    "AgentView",
    "AlreadyExists",
    "AsyncBatch",
    "AsyncClient",
    "AsyncMemory",
    "AsyncTools",
    "AsyncWatch",
    "BasicBlockMemory",
    "Batch",
    "BlockView",
    "BlocksdError",
    "Change",
    "ChatMemory",
    "Client",
    "Damaged",
    "FileView",
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
    "ToolResult",
    "ToolUsageRules",
    "Tools",
    "Unavailable",
    "VersionConflict",
    "VersionView",
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
