"""An agent's blocks as resources, and its compiled memory as a prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    Annotations,
    GetPromptResult,
    Prompt,
    PromptMessage,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
)

from blocksd.errors import BlocksdError, InvalidLabel, InvalidRequest, LimitExceeded, NotAttached, NotFound
from blocksd.mcp.places import name_in, uri_of
from blocksd.mcp.refusals import refusal
from blocksd.model.prompt import order

if TYPE_CHECKING:
    from blocksd.mcp.memory import AgentMemory

_MEDIA_TYPE = "text/markdown"
_MISTAKES = (InvalidLabel, InvalidRequest, LimitExceeded, NotAttached, NotFound)
"""Errors in what a client asks for, whatever the state of the server."""

MEMORY = Prompt(
    name="memory",
    title="Memory",
    description="The whole memory as it is now: put it at the beginning of a conversation, or where it has changed.",
)
"""The one prompt. It takes no arguments."""


def failed(error: BlocksdError, agent: str) -> MCPError:
    """Return an error of blocksd as one of the protocol, in which all methods but the tools' say that they failed."""
    code = INVALID_PARAMS if isinstance(error, _MISTAKES) else INTERNAL_ERROR
    return MCPError(code, refusal(error, agent=agent), {"code": error.code})


async def resources(memory: AgentMemory) -> list[Resource]:
    """Return the agent's blocks, in the order of its prompt. Raises MCPError."""
    try:
        blocks = (await memory.sight()).blocks.values()
    except BlocksdError as error:
        raise failed(error, memory.agent) from None
    return [
        Resource(
            uri=uri_of(memory.agent, block.name),
            name=block.name,
            description=block.description,
            mime_type=_MEDIA_TYPE,
            size=len(block.value.encode()),
            annotations=Annotations(last_modified=block.updated_at),
        )
        for block in order(blocks)
    ]


def template(agent: str) -> ResourceTemplate:
    """Return how the URIs of an agent's blocks are made."""
    about = "A memory block by its label. A text of Markdown."
    uri = uri_of(agent, "") + "{+label}"
    return ResourceTemplate(uri_template=uri, name="block", description=about, mime_type=_MEDIA_TYPE)


async def read(memory: AgentMemory, uri: str) -> ReadResourceResult:
    """Return the value of the block with this URI, which clients must not keep. Raises MCPError."""
    try:
        block = await memory.block(name_in(uri, memory.agent))
    except BlocksdError as error:
        raise failed(error, memory.agent) from None
    contents = TextResourceContents(uri=uri, mime_type=_MEDIA_TYPE, text=block.value)
    return ReadResourceResult(contents=[contents], ttl_ms=0, cache_scope="private")


async def prompt(memory: AgentMemory, name: str) -> GetPromptResult:
    """Return the prompt of this name, with the memory as it is now. Raises MCPError."""
    if name != MEMORY.name:
        raise MCPError(INVALID_PARAMS, f"there is no prompt {name[:80]!a}: the one there is, is 'memory'")
    try:
        text = await memory.compiled()
    except BlocksdError as error:
        raise failed(error, memory.agent) from None
    content = TextContent(type="text", text=text or "There are no memory blocks yet.")
    return GetPromptResult(description=MEMORY.description, messages=[PromptMessage(role="user", content=content)])
