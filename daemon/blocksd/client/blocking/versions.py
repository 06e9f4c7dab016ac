# Made of versions_async.py by tests/generate_client.py: edit that, and run this.
"""The versions of a block, which the daemon reads from its history, and those of an agent's properties, brought back."""

import builtins
import json
from collections.abc import Callable, Mapping
from typing import Any

from blocksd.client.blocking.reading import agents_with, block_of_agent, resolve
from blocksd.client.blocking.transport import Transport
from blocksd.client.letta import with_memory
from blocksd.errors import NotAttached, NotFound
from blocksd.mirror.view import AgentView, Page, VersionView
from blocksd.model.differences import unified
from blocksd.model.label import is_properties, name_for_agent, owner, parse_agent, parse_label, properties_label
from blocksd.model.properties import parse_versioned
from blocksd.model.revision import OPERATOR
from blocksd.protocol.fields import given
from blocksd.protocol.numbers import seconds, whole
from blocksd.protocol.wire import TIMEOUT_SECONDS

_DIGITS = 16


class Versions:
    """The versions of a block, those before a renaming or a deletion among them. A deleted block is named by its label.

    The label `agents/<agent>/agent.yaml` is that of an agent's properties, which have versions, too.
    """

    def __init__(self, transport: Transport, agent: str | None = None) -> None:
        """With `agent`, those of its blocks, as it may see them."""
        self._transport = transport
        self._agent = agent

    def list(
        self,
        block_id: str,
        *,
        limit: int = 50,
        after: str | int | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> Page[VersionView]:
        """The versions, newest first, without the blocks as they were; `after` is a version after which the page begins.

        A page has at most 1,000 versions, and fewer if they are large. Versions that are damaged are left out.

        Raises:
            NotFound: there is no such block, and never was.
        """
        if isinstance(after, str) and after.isascii() and after.isdigit() and len(after) <= _DIGITS:
            after = int(after)  # the `next` of a page
        args = {"limit": whole("limit", limit, 1), "before": None if after is None else whole("after", after, 1)}
        reply = self._ask("history", block_id, args, timeout_seconds)
        following = reply["next"]
        return Page(tuple(map(VersionView.of, reply["versions"])), None if following is None else str(following))

    def retrieve(self, block_id: str, version: int, *, timeout_seconds: float = TIMEOUT_SECONDS) -> VersionView:
        """One version, with the block as it was.

        Raises:
            NotFound: it is not kept, is damaged, or never was.
        """
        return VersionView.of(
            self._ask("version", block_id, {"version": whole("version", version, 1)}, timeout_seconds)
        )

    def diff(
        self,
        block_id: str,
        old: int | None = None,
        new: int | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> str:
        """A unified diff of the value between two versions: of the newest change, if none is given; to the newest, if one is.

        Version 0 stands for nothing, which was there before the first.

        Raises:
            NotFound: one of them is not kept, is damaged, or never was.
        """
        old, new = [None if one is None else whole(name, one) for name, one in (("old", old), ("new", new))]
        seconds("timeout_seconds", timeout_seconds)
        label = self._label(block_id)
        if new is None:
            newest = self.list(label, limit=1, timeout_seconds=timeout_seconds)
            if not newest:
                raise NotFound(f"no version of {label!r} is kept", label=label)
            new = newest[0].version
        old = max(new - 1, 0) if old is None else old
        before, after = [self._lines(label, number, timeout_seconds=timeout_seconds) for number in (old, new)]
        lines = _computed(unified, before, after, f"{label} v{old}", f"{label} v{new}")
        return "".join(f"{line}\n" for line in lines)

    def _lines(self, label: str, number: int, *, timeout_seconds: float) -> builtins.list[str]:
        if number == 0:
            return []
        found = self.retrieve(label, number, timeout_seconds=timeout_seconds)
        if found.properties is not None:
            return json.dumps(found.properties, ensure_ascii=False, indent=1).split("\n")
        return [] if found.block is None else found.block.value.split("\n")

    def _ask(self, op: str, block_id: str, args: dict[str, int | None], timeout_seconds: float) -> dict[str, Any]:
        seconds("timeout_seconds", timeout_seconds)
        label, actor = self._label(block_id), OPERATOR if self._agent is None else self._agent
        named = {"label": label} if self._agent is None else {"name": name_for_agent(label)}
        return self._transport.request(actor, op, args, **named, timeout_seconds=timeout_seconds)

    def _label(self, block_id: str) -> str:
        """The label of a block, which may be deleted; to an agent, of one that it has, or of a private one that it had."""
        if self._agent is not None:
            try:
                return (block_of_agent(self._transport, self._agent, block_id)).label
            except (NotFound, NotAttached):
                pass
        if self._agent is None and is_properties(block_id):
            return parse_versioned(block_id)
        if self._agent is None:
            return resolve(self._transport, block_id)
        label = parse_label(block_id)  # an id is none of a block that it had: nothing is told of those of others
        if owner(label) not in (None, self._agent):
            raise NotFound(f"there is no block {label!r}", label=label)
        return label


_TERMS = ("timeout_seconds", "request_id")


class PropertiesUndo:
    """Brings earlier versions of an agent's properties back."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def undo(
        self, agent_id: str, *, timeout_seconds: float = TIMEOUT_SECONDS, request_id: str | None = None
    ) -> AgentView:
        """Undo the newest change of an agent's properties that is not undone yet, made in its `agent.yaml` or by `update`.

        `client.blocks.versions` has the versions, by the label `agents/<agent>/agent.yaml`. A file that has a problem says
        again what is in force. Raises NotFound when the agent never had properties, InvalidRequest when there is nothing to
        undo.
        """
        return self._bring_back("undo", agent_id, {}, given(locals(), _TERMS))

    def redo(
        self, agent_id: str, *, timeout_seconds: float = TIMEOUT_SECONDS, request_id: str | None = None
    ) -> AgentView:
        """Redo the change of an agent's properties that was undone last. Raises InvalidRequest when there is none."""
        return self._bring_back("redo", agent_id, {}, given(locals(), _TERMS))

    def restore(
        self,
        agent_id: str,
        version: int,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> AgentView:
        """Make an agent's properties again what they were at a version. Raises NotFound when that is not kept."""
        return self._bring_back("restore", agent_id, {"version": whole("version", version, 1)}, given(locals(), _TERMS))

    def merge(
        self,
        agent_id: str,
        version: int | None = None,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        request_id: str | None = None,
    ) -> AgentView:
        """Bring properties back that a save took away: those of a version, or all that the newest such save took.

        Raises MergeConflict when one was changed in another way since, InvalidRequest when there is nothing to merge.
        """
        args = {"version": whole("version", version, 1)} if version is not None else {}
        return self._bring_back("merge", agent_id, args, given(locals(), _TERMS))

    def _bring_back(self, op: str, agent_id: str, args: Mapping[str, Any], terms: Mapping[str, Any]) -> AgentView:
        agent = parse_agent(agent_id)
        self._transport.request(OPERATOR, op, args, label=properties_label(agent), **terms)
        (found,) = agents_with(self._transport, [agent])
        return with_memory(found, self._transport)


def _computed(function: Callable[..., builtins.list[str]], *args: Any) -> builtins.list[str]:
    """Return what a function returns that may take a second. Others go on meanwhile."""
    return function(*args)
