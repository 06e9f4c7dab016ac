"""Letta's container of memory blocks, over an agent's memory or over blocks in this process alone."""

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import Any, Protocol

from blocksd.client.blocking.memory import Memory
from blocksd.client.blocking.transport import Transport
from blocksd.errors import InvalidRequest, NotFound
from blocksd.mirror.view import AgentView, FileView
from blocksd.model import edits
from blocksd.model.block import DEFAULT_LIMIT, MAX_LIMIT, Block, check_value, default_description, replaced
from blocksd.model.label import parse_label
from blocksd.model.prompt import ToolUsageRules, compile_prompt, style_of
from blocksd.protocol.fields import text
from blocksd.protocol.numbers import whole


class MemoryBlock(Protocol):
    """A block that can be put into a container. It may also have a `description` and a `limit`."""

    @property
    def label(self) -> str:
        """The name of the block."""
        ...

    @property
    def value(self) -> str:
        """Its text."""
        ...


class BasicBlockMemory:
    """Letta's `Memory` and `BasicBlockMemory`: the blocks of an agent, under the names it has for them.

    Over `client.memory(agent)`, or as `client.agents.retrieve(agent).memory`, it reads and writes the agent's blocks as that
    does. Over a list of blocks it keeps them here, and nothing is sent.
    """

    prompt_template: str = ""

    def __init__(self, blocks: Iterable[MemoryBlock] | Memory = (), *, agent_type: str | None = None) -> None:
        """`agent_type` decides in which style `compile` shows the blocks.

        Raises:
            LimitExceeded: a value is over its limit.
        """
        self.agent_type = agent_type
        self._memory = blocks if isinstance(blocks, Memory) else None
        self._own: dict[str, Block] = {}
        if not isinstance(blocks, Memory):
            for block in blocks:
                self.set_block(block)

    @property
    def blocks(self) -> list[Any]:
        """The blocks, as `get_blocks` gives them."""
        return self.get_blocks()

    @property
    def file_blocks(self) -> list[FileView]:
        """The files that the agent sees beside its blocks."""
        return [] if self._memory is None else self._memory.list_files()

    def get_prompt_template(self) -> str:
        """The text that was set. Like Letta's present server, blocksd keeps it and compiles without it."""
        return self.prompt_template

    def set_prompt_template(self, prompt_template: str) -> None:
        """Keep a text, which changes nothing."""
        self.prompt_template = text(prompt_template)

    def list_block_labels(self) -> list[str]:
        """The names of the blocks."""
        return list(self._own) if self._memory is None else self._memory.list_block_labels()

    def get_blocks(self) -> list[Any]:
        """The blocks: each has `label`, `value`, `description`, `limit` and the other fields."""
        return list(self._own.values()) if self._memory is None else list(self._memory.get_blocks())

    def get_block(self, label: str) -> Any:
        """The block of this name. Raises NotFound, which is a KeyError, when there is none."""
        if self._memory is not None:
            return self._memory.get_block(label)
        if label not in self._own:
            names = list(self._own)
            raise NotFound(f"there is no block {label!r} (there are: {', '.join(names) or 'none'})", names=names)
        return self._own[label]

    def set_block(self, block: MemoryBlock) -> None:
        """Put a block in, in the place of one of its name. Of an agent it sets the value and the description.

        Raises:
            LimitExceeded: the value is over the limit.
        """
        description, limit = getattr(block, "description", None), getattr(block, "limit", None)
        limit = DEFAULT_LIMIT if limit is None else whole("limit", limit, 1, MAX_LIMIT)
        if self._memory is not None:
            self._memory.set_block(block.label, block.value, description)
            return
        check_value(text(block.value), limit)
        about = default_description(block.label) if description is None else description
        self._own[block.label] = Block(
            parse_label(block.label),
            block.value,
            about,
            limit,
            read_only=getattr(block, "read_only", False),
            hidden=getattr(block, "hidden", False),
        )

    def update_block_value(self, label: str, value: str) -> None:
        """Replace the value of a block. Raises a ValueError when it is no text or over the limit."""
        value = text(value)
        if self._memory is not None:
            self._memory.update_block_value(label, value)
            return
        block = self.get_block(label)
        check_value(value, block.limit)
        self._own[label] = replaced(block, {"value": value})

    def compile(
        self,
        tool_usage_rules: ToolUsageRules | str | None = None,
        sources: Collection[Any] | None = None,
        max_files_open: int | None = None,
        llm_config: Any = None,
    ) -> str:
        """The text for the context window, in the style of the agent's type.

        `sources` are names, or objects with a `name`. With an `llm_config`, lines are numbered for Anthropic's models alone.
        """
        style = style_of(self.agent_type)
        if style == "line-numbered" and getattr(llm_config, "model_endpoint_type", "anthropic") != "anthropic":
            style = "standard"
        if max_files_open is not None:
            max_files_open = whole("max_files_open", max_files_open)
        names = None if sources is None else [getattr(one, "name", one) for one in sources]
        if self._memory is None:
            return compile_prompt(
                self._own.values(), style=style, tool_usage_rules=tool_usage_rules, max_files_open=max_files_open
            )
        return self._memory.compile(
            style=style, tool_usage_rules=tool_usage_rules, sources=names, max_files_open=max_files_open
        )

    async def compile_async(
        self,
        tool_usage_rules: ToolUsageRules | str | None = None,
        sources: Collection[Any] | None = None,
        max_files_open: int | None = None,
        llm_config: Any = None,
    ) -> str:
        """The same for asyncio code: a thread waits for the server."""
        return await asyncio.to_thread(self.compile, tool_usage_rules, sources, max_files_open, llm_config)

    def core_memory_append(
        self=None,  # type: ignore[assignment]  # Letta's programs call it on the class
        agent_state: Any = None,
        label: str = "",
        content: str = "",
    ) -> None:
        """Add text on a new line at the end of a block: of the memory of `agent_state`, or of this one."""
        memory = _memory_of(self, agent_state)
        content = text(content)
        if memory._memory is not None:  # noqa: SLF001  # of this class
            memory._memory.append(label, content)  # noqa: SLF001
        else:
            memory.update_block_value(label, edits.append(memory.get_block(label).value, content))

    def core_memory_replace(
        self=None,  # type: ignore[assignment]  # as above
        agent_state: Any = None,
        label: str = "",
        old_content: str = "",
        new_content: str = "",
    ) -> None:
        """Replace text that is in exactly one place of a block. Raises a ValueError when it is not."""
        memory = _memory_of(self, agent_state)
        old_content, new_content = text(old_content), text(new_content)
        if memory._memory is not None:  # noqa: SLF001  # of this class
            memory._memory.replace(label, old_content, new_content)  # noqa: SLF001
        else:
            value = edits.replace(memory.get_block(label).value, old_content, new_content)
            memory.update_block_value(label, value)


class ChatMemory(BasicBlockMemory):
    """A container that begins with a `persona` and a `human`."""

    def __init__(self, persona: str, human: str, limit: int = DEFAULT_LIMIT) -> None:
        """Raises LimitExceeded when one of them is over the limit."""
        super().__init__([Block("persona", persona, limit=limit), Block("human", human, limit=limit)])


def _memory_of(memory: BasicBlockMemory | None, agent_state: Any) -> BasicBlockMemory:
    found = memory if agent_state is None else getattr(agent_state, "memory", None)
    if isinstance(found, Memory):
        found = BasicBlockMemory(found)
    if not isinstance(found, BasicBlockMemory):
        raise InvalidRequest(
            "an agent_state with a memory is needed, as a blocking client gives it", argument="agent_state"
        )
    return found


def with_memory(agent: AgentView, transport: Any) -> AgentView:
    """Return the agent with its memory as a container, if a blocking client asks."""
    if not isinstance(transport, Transport):
        return agent
    memory = BasicBlockMemory(Memory(transport, agent.id, transport.opened), agent_type=agent.agent_type)
    return replace(agent, memory=memory)
