"""What one agent sees, kept for as long as nothing that concerns it has changed, and what it writes there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from blocksd.client.asking import text
from blocksd.client.plan import ask
from blocksd.client.queries import not_attached
from blocksd.client.sending import TIMEOUT_SECONDS, Expectation, block_of, send
from blocksd.errors import AlreadyExists, NotAttached, NotFound, Unavailable
from blocksd.mirror.view import BlockView, shown_as
from blocksd.model.label import parse_agent
from blocksd.model.prompt import File, Source, compile_prompt, order

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from blocksd.client.plan import Plan
    from blocksd.client.watching import Watching
    from blocksd.mirror.keys import Keys
    from blocksd.model.prompt import Style, ToolUsageRules

_ATTEMPTS = 5
_TEXTS_KEPT = 32


@dataclass(frozen=True, slots=True)
class Sight:
    """What an agent sees at one moment: its blocks by the names it has for them, and its file sources."""

    blocks: Mapping[str, BlockView]
    sources: tuple[Source, ...]


class MemoryState:
    """An agent's sight, and what was compiled from it.

    Invariant: what is kept was read while the agent was followed (`watching.life`), and nothing was heard since.
    """

    def __init__(self, keys: Keys, agent_id: str, watching: Watching) -> None:
        self.keys = keys
        self.agent = parse_agent(agent_id)
        self._watching = watching
        self._heard = 0
        self._read_at: tuple[int, int | None] = (0, None)  # how much was heard then, and in which life
        self._sight: Sight | None = None
        self._texts: dict[object, str] = {}

    def forget(self, _item: object = None) -> None:
        """Something that concerns the agent has changed."""
        self._heard += 1

    @property
    def is_fresh(self) -> bool:
        heard, life = self._read_at
        return life is not None and life == self._watching.life and heard == self._heard

    def look(self) -> Plan[Sight]:
        """What the agent sees now."""
        if self._sight is not None and self.is_fresh:
            return self._sight
        read_at = (self._heard, self._watching.life)
        sight = yield from _look(self.keys, self.agent)
        self._sight, self._read_at, self._texts = sight, read_at, {}
        return sight

    def text(self, key: object) -> str | None:
        """What was compiled under this key, if it still holds."""
        return self._texts.get(key) if self.is_fresh else None

    def keep(self, key: object, text: str, sight: Sight) -> None:
        if sight is self._sight:
            if len(self._texts) >= _TEXTS_KEPT:
                self._texts.clear()
            self._texts[key] = text


def get_blocks(state: MemoryState) -> Plan[list[BlockView]]:
    """The blocks attached to the agent: persona, human, then by name."""
    sight = yield from state.look()
    return order(sight.blocks.values())


def get_block(state: MemoryState, label: str) -> Plan[BlockView]:
    """The block the agent knows by this name.

    Raises:
        NotFound: it has none; the message names those it has.
    """
    sight = yield from state.look()
    if label not in sight.blocks:
        raise not_attached(state.agent, label, sight.blocks)
    return sight.blocks[label]


def list_block_labels(state: MemoryState) -> Plan[list[str]]:
    """The names the agent has for its blocks, in the same order."""
    sight = yield from state.look()
    return [block.name for block in order(sight.blocks.values())]


def compile_memory(
    state: MemoryState,
    *,
    style: Style = "standard",
    tool_usage_rules: ToolUsageRules | str | None = None,
    sources: Collection[str] | None = None,
    max_files_open: int | None = None,
) -> Plan[str]:
    """The text for the agent's context window; no round trip while nothing that concerns it has changed.

    `style` is `standard`, `line-numbered`, `nested` or `directories`. `sources` names the file sources to show; None
    shows all that the agent sees. With `max_files_open`, only so many open files, those last opened, are shown open.
    """
    shown = None if sources is None else tuple(sources)
    key = (style, tool_usage_rules, shown, max_files_open)
    text = state.text(key)
    if text is None:
        sight = yield from state.look()
        text = compile_prompt(
            sight.blocks.values(),
            style=style,
            tool_usage_rules=tool_usage_rules,
            sources=[source for source in sight.sources if shown is None or source.name in shown],
            max_files_open=max_files_open,
        )
        state.keep(key, text, sight)
    return text


# --- what the agent writes ---

# An agent may change the value and the description of blocks attached to it that are not read-only; those of its own
# it may also make, rename and delete. What it is refused is raised: NotFound, NotAttached, ReadOnly, LimitExceeded,
# InvalidRequest (a ValueError) and the conflicts, each with its facts.


def append(state: MemoryState, label: str, content: str, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Put `content` on a line of its own at the end of the value."""
    block = yield from _write(state, "append", label, {"content": text(content)}, terms)
    return block


def replace(
    state: MemoryState, label: str, old_content: str, new_content: str, **terms: Unpack[Expectation]
) -> Plan[BlockView]:
    """Replace `old_content`, which must be in exactly one place of the value. Raises InvalidRequest when it is not."""
    args = {"old_content": text(old_content), "new_content": text(new_content)}
    block = yield from _write(state, "replace", label, args, terms)
    return block


def insert(
    state: MemoryState, label: str, content: str, line: int = -1, **terms: Unpack[Expectation]
) -> Plan[BlockView]:
    """Put `content` after line `line` of the value: 0 is before the first, -1 after the last."""
    block = yield from _write(state, "insert", label, {"content": text(content), "line": line}, terms)
    return block


def apply_patch(state: MemoryState, label: str, patch: str, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Apply a unified diff to the value: all of it, or InvalidRequest."""
    block = yield from _write(state, "patch", label, {"patch": text(patch)}, terms)
    return block


def rethink(state: MemoryState, label: str, new_value: str, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Put another value in place of the whole value."""
    block = yield from _write(state, "update", label, {"value": text(new_value)}, terms)
    return block


def update_block_value(state: MemoryState, label: str, value: str, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Put another value in place of the whole value."""
    block = yield from _write(state, "update", label, {"value": text(value)}, terms)
    return block


def set_block(
    state: MemoryState,
    label: str,
    value: str,
    description: str | None = None,
    *,
    timeout_seconds: float = TIMEOUT_SECONDS,
) -> Plan[BlockView]:
    """Have a block say this: the one the agent knows by this name, or else a new one of its own.

    Without `description`, a block that is there keeps the one it has.
    """
    args = {"value": text(value)} | ({} if description is None else {"description": description})
    terms = {"timeout_seconds": timeout_seconds}
    try:
        block = yield from _write(state, "update", label, args, terms)
    except (NotFound, NotAttached):
        try:
            block = yield from _write(state, "create", label, args, terms)
        except AlreadyExists:  # by now
            block = yield from _write(state, "update", label, args, terms)
    return block


def create_block(
    state: MemoryState, label: str, value: str = "", description: str | None = None, **terms: Unpack[Expectation]
) -> Plan[BlockView]:
    """Make a block of the agent's own. Raises AlreadyExists or LabelConflict when it has one of this name."""
    block = yield from _write(state, "create", label, {"value": text(value), "description": description}, terms)
    return block


def delete_block(state: MemoryState, label: str, **terms: Unpack[Expectation]) -> Plan[None]:
    """Delete a block of the agent's own; its history is kept."""
    yield from _ask(state, "delete", label, {}, terms)


def rename_block(state: MemoryState, label: str, to: str, **terms: Unpack[Expectation]) -> Plan[BlockView]:
    """Give a block of the agent's own another name."""
    block = yield from _write(state, "rename", label, {"to": to}, terms)
    return block


def core_memory_append(state: MemoryState, label: str, content: str) -> Plan[None]:
    """`append`, by the name it has in Letta."""
    yield from append(state, label, content)


def core_memory_replace(state: MemoryState, label: str, old_content: str, new_content: str) -> Plan[None]:
    """`replace`, by the name it has in Letta."""
    yield from replace(state, label, old_content, new_content)


def _write(
    state: MemoryState, op: str, name: str, args: Mapping[str, Any], terms: Mapping[str, Any]
) -> Plan[BlockView]:
    reply = yield from _ask(state, op, name, args, terms)
    return block_of(reply)


def _ask(
    state: MemoryState, op: str, name: str, args: Mapping[str, Any], terms: Mapping[str, Any]
) -> Plan[dict[str, Any]]:
    try:
        reply = yield from send(state.keys, state.agent, op, name=name, args=args, **terms)
    finally:
        state.forget()  # whoever writes and then reads must see it, whatever was heard by then
    return reply


# --- what it sees ---


def _look(keys: Keys, agent: str) -> Plan[Sight]:
    for _ in range(_ATTEMPTS):
        names, score, known, opened, epoch = yield from ask(
            ("HGETALL", keys.agent(agent)),
            ("ZSCORE", keys.agents, agent),
            ("HGETALL", keys.sources),
            ("HGETALL", keys.open(agent)),
            ("HGET", keys.meta, "epoch"),  # last: a mirror that is built anew is without it from before the beginning
        )
        if epoch is None:
            raise Unavailable("there is no mirror yet, or it is being built anew")
        if not names and score is None:
            raise NotFound(f"there is no agent {agent!r}", agent=agent)
        labels = list(names.values())
        sources = sorted(known)
        replies = yield from ask(
            *(("HGETALL", keys.block(label)) for label in labels),
            *(("SISMEMBER", keys.source_agents(name), agent) for name in sources),
            *(("HGETALL", keys.source(name)) for name in sources),
            *(("HGETALL", keys.file(file)) for file in opened),
        )
        hashes, rest = replies[: len(labels)], replies[len(labels) :]
        shown = [shown_as(label, fields) for label, fields in zip(labels, hashes, strict=True)]
        if not all(shown):
            continue  # changed while it was read
        blocks = {block.name: block for block in shown if block is not None}
        contents = dict(zip(opened, rest[2 * len(sources) :], strict=True))
        listings = rest[len(sources) : 2 * len(sources)]
        return Sight(
            blocks,
            tuple(
                _source(name, json.loads(known[name]), listing, opened, contents)
                for name, is_seen, listing in zip(sources, rest, listings, strict=False)
                if is_seen
            ),
        )
    raise Unavailable(f"the blocks of {agent!r} change faster than they can be read")


def _source(
    name: str,
    about: Mapping[str, Any],
    listing: Mapping[str, str],
    opened: Mapping[str, str],
    contents: Mapping[str, Mapping[str, str]],
) -> Source:
    files = []
    for path in sorted(listing):
        file = f"{name}/{path}"
        content = contents.get(file)
        files.append(
            File(
                path,
                is_open=bool(content),
                value=content["value"] if content else "",
                limit=int(about["limit"]),
                last_accessed_at=opened.get(file),
            )
        )
    return Source(name, about.get("description"), about.get("instructions"), tuple(files))
