"""The shapes in which Letta's SDKs expect blocks, agents and their memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from blocksd.model.prompt import order

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blocksd.mirror.view import AgentView, BlockView, FileView

AGENT_TYPE = "letta_v1_agent"
"""The type of an agent that has none: its memory is shown in the standard style."""

_CONTEXT_WINDOW = 128_000


def block_json(block: BlockView) -> dict[str, Any]:
    """Return a block with Letta's fields, and ours behind them. A private block has the name its agent has for it."""
    return {
        "id": block.id,
        "label": block.name,
        "value": block.value,
        "limit": block.limit,
        "description": block.description,
        "metadata": block.metadata,
        "read_only": block.read_only,
        "hidden": block.hidden,
        "tags": list(block.tags),
        "is_template": block.is_template,
        "template_name": block.template_name,
        "name": block.template_name,  # as Letta called it in 2025
        "project_id": block.project_id,
        "template_id": block.template_id,
        "base_template_id": block.base_template_id,
        "deployment_id": block.deployment_id,
        "entity_id": block.entity_id,
        "preserve_on_migration": block.preserve_on_migration,
        "created_by_id": None,
        "last_updated_by_id": block.updated_by,
        "full_label": block.label,
        "version": block.version,
        "digest": block.digest,
        "created_at": block.created_at,
        "updated_at": block.updated_at,
    }


def agent_json(agent: AgentView, blocks: Iterable[BlockView]) -> dict[str, Any]:
    """Return an agent with its blocks, all that a strict parser of either generation needs, and nothing invented.

    blocksd runs no models: their settings say so.
    """
    shown = [block_json(block) for block in order(blocks)]
    agent_type = agent.agent_type or AGENT_TYPE
    return {
        "id": agent.id,
        "name": agent.name,
        "agent_type": agent_type,
        "description": agent.description,
        "system": agent.system or "",
        "tags": list(agent.tags),
        "metadata": dict(agent.metadata),
        "blocks": shown,
        "memory": memory_json(shown, agent_type),
        "llm_config": {
            "model": "none",
            "model_endpoint_type": "openai",
            "context_window": _CONTEXT_WINDOW,
        },
        "embedding_config": {
            "embedding_endpoint_type": "openai",
            "embedding_model": "none",
            "embedding_dim": 1,
        },
        "model": None,
        "embedding": None,
        "hidden": None,
        "created_at": agent.created_at,
        "updated_at": agent.updated_at,
        "last_run_completion": None,
        **{name: [] for name in _EMPTY},
    }


_EMPTY = (
    *("tools", "sources", "identities", "identity_ids", "secrets", "tool_exec_environment_variables", "tool_rules"),
    "message_ids",
)
"""Lists of what blocksd does not have."""


def memory_json(blocks: Sequence[dict[str, Any]], agent_type: str, files: Sequence[FileView] = ()) -> dict[str, Any]:
    """Return the memory of an agent: its blocks, and the files that it has open."""
    return {
        "agent_type": agent_type,
        "git_enabled": False,
        "blocks": blocks,
        "file_blocks": [
            {
                "file_id": file.file,
                "source_id": file.source,
                "label": file.file,
                "value": file.value,
                "limit": file.limit,
                "is_open": True,
                "last_accessed_at": file.opened_at,
            }
            for file in files
            if file.is_open
        ],
        "prompt_template": "",
    }


def context_json(core_memory: str) -> dict[str, Any]:
    """Return the overview of a context window of which blocksd knows the memory alone."""
    counts = (
        *("context_window_size_current", "num_messages", "num_archival_memory", "num_recall_memory"),
        *("num_tokens_system", "num_tokens_core_memory", "num_tokens_external_memory_summary"),
        *("num_tokens_summary_memory", "num_tokens_messages", "num_tokens_functions_definitions"),
    )
    return {
        "context_window_size_max": _CONTEXT_WINDOW,
        **dict.fromkeys(counts, 0),
        "core_memory": core_memory,
        "system_prompt": "",
        "external_memory_summary": "",
        "summary_memory": None,
        "functions_definitions": [],
        "messages": [],
    }
