# Made of client_async.py by tests/generate_client.py: edit that, and run this.
"""The client: one namespace of a server, for agents and operators to program against."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Self

from blocksd.client.blocking.agents import Agents
from blocksd.client.blocking.batch import Batch
from blocksd.client.blocking.blocks import Blocks, Tags
from blocksd.client.blocking.memory import Memory
from blocksd.client.blocking.transport import Transport
from blocksd.client.watch import Watch
from blocksd.errors import Unavailable, VersionConflict
from blocksd.mirror.view import BlockView, view_of
from blocksd.model.audit import MOST_DAYS, Audited, Finding, Thresholds
from blocksd.model.audit import audit as audited
from blocksd.model.prompt import compile_prompt
from blocksd.model.revision import OPERATOR
from blocksd.protocol.fields import text
from blocksd.protocol.numbers import seconds, whole
from blocksd.protocol.reset import Item
from blocksd.protocol.watching import Watching
from blocksd.protocol.wire import TIMEOUT_SECONDS
from blocksd.settings import loading as configuration
from blocksd.settings.record import FoundUrl, running_daemon

_LONGEST_EDIT_PAUSE = 0.1


def connect(url: str | None = None, namespace: str | None = None, *, by: str | None = None) -> "Client":
    """A client for blocking code. Nothing is sent yet; an unreachable Redis shows at the first question.

    `url` is a Redis URL; None stands for what the settings say (`BLOCKSD_REDIS`, the user's or the machine's
    `blocksd.toml`), and else for the server of the daemon that runs on this machine. `namespace` None is the one set, and
    else `blocks`. `by` says who you are, in the history of what you change; None is the one set, or nobody. With `url` and
    `namespace` no settings are read. A `blocksd.toml` in the working directory and $STATE_DIRECTORY are the program's, and
    are not read.

    Raises:
        Unavailable: no URL is given, nor set, and no daemon runs.
        Misconfigured: `url` or `namespace` is none.
    """
    if url is not None and namespace is not None:
        return Client(url, namespace, by=by)
    config = configuration.load_for_program(namespace)
    by = config.by if by is None else by
    url = url or config.redis
    if url is None:
        daemon = running_daemon(config.state)
        if daemon is None:
            raise Unavailable(
                f"no daemon is running for the namespace {config.namespace!r} (state in {config.state})",
                state=config.state,
            )
        url = FoundUrl(daemon["redis"], config.state)
    return Client(url, config.namespace, by=by)


class Client:
    """Reads and writes one namespace, in blocking code.

    Every method that asks raises Unavailable when Redis does not serve, or the mirror is being repaired; those that write,
    also when there was no reply in time. Blocks are named by id or label. Several threads may share a client; a watch or a
    memory belongs to one at a time.
    """

    def __init__(self, url: str, namespace: str = "blocks", *, by: str | None = None) -> None:
        """Nothing is sent yet. `by` says who you are, in the history of what you change: 1 to 100 printable characters.

        Raises Misconfigured when `url` or `namespace` is none.
        """
        self._use(Transport(url, namespace, by))

    def _use(self, transport: Transport) -> None:
        self._transport = transport
        self._opened = transport.opened

    @classmethod
    def over(cls, transport: Transport) -> Self:
        """A client that asks on this connection, and closes it."""
        client = cls.__new__(cls)
        client._use(transport)  # noqa: SLF001  # this class is its own friend
        return client

    @property
    def blocks(self) -> Blocks:
        """All blocks."""
        return Blocks(self._transport)

    @property
    def agents(self) -> Agents:
        """All known agents."""
        return Agents(self._transport)

    @property
    def tags(self) -> Tags:
        """The tags of all blocks."""
        return Tags(self._transport)

    def meta(self) -> dict[str, str]:
        """The daemon that keeps this mirror, and where the mirror stands; empty when there never was one."""
        (found,) = self._transport.ask(("HGETALL", self._transport.keys.meta))
        return dict(found)

    def status(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> dict[str, Any]:
        """The status of the daemon that keeps this mirror, as `blocksd status --json` shows it.

        Raises:
            Unavailable: no daemon replies.
        """
        reply = self._transport.request(OPERATOR, "status", timeout_seconds=timeout_seconds)
        return dict(reply["status"])

    def accept_deletions(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> int | None:
        """Accept the deletions that the daemon holds back, as `blocksd resume --accept-deletions` does.

        Returns how many there are so far; None: none are held back.

        Raises:
            Unavailable: no daemon replies.
        """
        reply = self._transport.request(OPERATOR, "accept_deletions", timeout_seconds=timeout_seconds)
        accepted: int | None = reply["accepted"]
        return accepted

    def is_kept(self) -> bool:
        """Return True if a daemon keeps the mirror right now."""
        (found,) = self._transport.ask(("EXISTS", self._transport.keys.lease))
        return bool(found)

    def counts(self) -> dict[str, int]:
        """How many blocks, agents and problems there are."""
        keys = self._transport.keys
        replies = self._transport.read(("ZCARD", keys.labels), ("ZCARD", keys.agents), ("HLEN", keys.problems))
        return dict(zip(("blocks", "agents", "problems"), replies, strict=True))

    def problems(self) -> list[dict[str, Any]]:
        """The problems of files, by path: the JSON of each."""
        (found,) = self._transport.read(("HGETALL", self._transport.keys.problems))
        return [json.loads(found[subject]) for subject in sorted(found)]

    def audit(
        self, *, stale_days: int = Thresholds().stale_days, prompt_chars: int = Thresholds().prompt_chars
    ) -> list[Finding]:
        """Blocks and agents that need care, with advice, as `blocksd audit` finds them. Everything is read for it.

        A block is stale after so many days without a change. A prompt with more characters than `prompt_chars` is too long.
        """
        stale_days = whole("stale_days", stale_days, 1, MOST_DAYS)
        thresholds = Thresholds(stale_days=stale_days, prompt_chars=whole("prompt_chars", prompt_chars, 1))
        blocks = {block.label: block for block in self.blocks.list(show_hidden_blocks=True, show_templates=True)}
        counts = self.blocks.agents.counts(list(blocks))
        names = {agent.id: agent.blocks for agent in self.agents.list()}
        sizes: dict[str, int] = {}
        for agent, attached in names.items():
            sizes[agent] = len(compile_prompt([blocks[label] for label in attached.values() if label in blocks]))
            sleep(0)  # others have their turn between two prompts
        facts = [_audited(block, counts[block.label]) for block in blocks.values()]
        return audited(facts, names, sizes, now=datetime.now(UTC), thresholds=thresholds)

    def edit(
        self, block_id: str, change: Callable[[str], str], *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> BlockView:
        """Replace a block's value by what `change` makes of it, without losing what another writes meanwhile.

        `change` is called again, with the newer value, whenever there is one. The block is returned as it is then.

        Raises:
            VersionConflict: the block changed faster than it could be changed.
            NotFound, LimitExceeded, ProblemFile: as `update` does.
        """
        seconds("timeout_seconds", timeout_seconds)
        give_up_at = monotonic() + timeout_seconds
        block = self.blocks.retrieve(block_id)
        while (value := text(change(block.value))) != block.value:
            try:
                return self.blocks.update(
                    block.label, value=value, expect_version=block.version, timeout_seconds=timeout_seconds
                )
            except VersionConflict as conflict:
                newer: Any = conflict.facts.get("block")
                if newer is None or monotonic() > give_up_at:
                    raise
                block = view_of(newer)
            sleep(random.uniform(0, _LONGEST_EDIT_PAUSE))
        return block

    def batch(self) -> Batch:
        """Several edits that are sent as one request: all of them are done, or none. Nothing is sent yet."""
        return Batch(self._transport)

    def memory(self, agent_id: str) -> Memory:
        """The memory of one agent. Nothing is sent yet.

        Raises:
            InvalidLabel: it cannot be the id of an agent.
        """
        return Memory(self._transport, agent_id, self._opened)

    def watch(
        self,
        *,
        label: str | None = None,
        agent: str | None = None,
        since: int | tuple[str, int] | Item | None = None,
        callback: Callable[[Item], object] | None = None,
    ) -> Watch:
        """Every change once, in order: from now on, or after `since`: a seq (of whatever epoch the mirror
        has), an epoch and a seq, or the last item received.

        With `label`, that block's changes only; with `agent`, those of whatever is attached to it, as that changes.
        A `Reset` among them tells that changes were missed which cannot be had any more, or that `since` is of another
        epoch; its `blocks` are the present state. A `repaired` tells which blocks the mirror showed wrongly until now. A
        lost connection is made again, and what was missed is caught up with. Problems of files (`rejected`, `cleared`)
        are passed on by a watch of everything, and only while it is connected.

        The watch is an iterator. With `callback`, every item is passed to that instead, in the background, until the
        watch is closed.

        Raises:
            Unavailable: Redis does not serve where the watch begins.
        """
        watching = Watching(self._transport.keys, since=since, label=label, agent=agent)
        watch = Watch(self._transport, watching, callback)
        self._opened.add(watch)
        return watch

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the client, with its watches and memories."""
        opened = list(self._opened)
        for one in opened:
            one.stop()
        try:
            for one in opened:
                with suppress(Exception):  # nothing that one of them raises keeps the others open
                    one.close()
        finally:
            self._transport.close()


def _audited(block: BlockView, agents: int) -> Audited:
    """The facts of a block that the audit uses."""
    return Audited(
        block.label,
        block.chars,
        block.limit,
        block.description,
        block.updated_at,
        agents,
        block.read_only,
        block.hidden,
        block.is_template,
    )
