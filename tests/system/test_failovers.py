"""Failovers while an agent writes, by real sentinels and in a real cluster with replicas, as every interface and a copy see them."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from mcp import Client

from blocksd.client.blocking.subscription import Subscription
from blocksd.errors import NotFound
from blocksd.journal.history import JournalReader
from blocksd.mirror.keys import Keys
from blocksd.protocol.steps import Connect, Listen, Ping
from blocksd.protocol.steps import Subscribe as SubscribeTo
from events import Events
from failovers import FAULTS, NAMESPACE
from followers import Editor, same
from followers import Follower as Copy
from following import WAYS, Follower, Scope, Writer, client_of, is_served
from gateways import Served
from mcp_clients import Ear, command, done, run
from printing import Printed, check_numbers, has_seq
from support import Daemon, eventually

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

BACK_SECONDS = 5.0
"""Within which agents are served again after a promotion."""
COPIES = {"writable": (), "read-only": ("--read-only",)}
SCOPES = [Scope(), Scope(label="notes"), Scope(agent="ann")]


def shown(servers: Any) -> str:
    return str(servers.present().hget(f"{NAMESPACE}:block:notes", "value"))


def read(blocks: Any) -> None:
    """Read a block that is there, and one that is not: in a transaction."""
    assert blocks.retrieve("notes").label == "notes"
    with pytest.raises(NotFound):
        blocks.retrieve("missing")


def listen(subscription: Subscription) -> None:
    """Begin to listen to a channel, with a first proof."""
    subscription.perform(SubscribeTo((f"{NAMESPACE}:changes:block:other",)))
    prove(subscription)


def prove(subscription: Subscription) -> None:
    """Put a subscription to the proof, as a watch does every five seconds."""
    subscription.perform(Ping())
    while subscription.perform(Listen(0.05)) is not None:
        pass


@pytest.mark.parametrize("fault", FAULTS)
def test_everything_goes_on(tmp_path: Path, fault: str) -> None:
    """No line that was acknowledged is lost or doubled, and whatever follows the changes has each one, or is told to reload.

    What is saved in a copy on another host stays there, and reaches the leader once.
    """
    kind, fail = FAULTS[fault]
    folder = tmp_path / "blocks.d"
    folder.mkdir()
    (folder / "notes.md").write_text("---\nagents: [ann]\n---\n")
    with ExitStack() as stack:
        servers: Any = kind()
        stack.callback(servers.close)
        at = ("--redis", servers.url, "--namespace", NAMESPACE)
        daemon = Daemon(folder, tmp_path / "state", *at)
        stack.callback(daemon.stop)
        daemon.start()
        copies = [Copy(tmp_path / name, tmp_path / f"{name}-state", *at, *how) for name, how in COPIES.items()]
        for copy in copies:
            copy.start()
            stack.callback(copy.stop)
        gateway = Served(tmp_path / "gateway.log", *at)
        stack.callback(gateway.end)
        printed = Printed(servers.url, tmp_path / "printed", NAMESPACE)
        stack.callback(printed.close)
        followers = []
        for way in WAYS:
            for scope in SCOPES:
                followers.append((scope, Follower(way, servers.url, namespace=NAMESPACE, **scope.options)))
                stack.callback(followers[-1][1].close)
        events = stack.enter_context(Events(gateway.ready(), seconds=60).place())
        clients = [stack.enter_context(client_of(way, servers.url, NAMESPACE)) for way in WAYS]
        readings = [partial(read, client.blocks) for client in clients]
        for reading in readings:
            reading()
        subscription, late = (Subscription(servers.url, Keys(NAMESPACE)) for _ in range(2))
        for one in (subscription, late):
            stack.callback(one.close)
            one.perform(Connect())
        listen(subscription)
        writer = Writer(servers.url, NAMESPACE)
        stack.callback(writer.stop)
        editor = Editor(copies[0].folder)
        stack.callback(editor.stop)

        async def work() -> None:
            ear = Ear()
            async with (
                Client(command("ann", *at), **ear.options("2026-07-28")) as mcp,
                ear.listening(mcp, "2026-07-28", "blocks://ann/notes"),
            ):
                await ear.until("blocks://ann/notes")
                await asyncio.to_thread(eventually, printed.all, "the command prints")
                await asyncio.to_thread(fail, servers)
                await asyncio.to_thread(writer.more, seconds=BACK_SECONDS)
                served = partial(is_served, partial(prove, subscription))
                await asyncio.to_thread(eventually, lambda: not served(), "a silent subscription is given up")
                # In a cluster it goes to the node that had the namespace when it connected; sentinels are asked now.
                assert is_served(partial(listen, late)) is ("sentinel" in fault)
                for reading in readings:
                    await asyncio.to_thread(
                        eventually, partial(is_served, reading), "a client reads", seconds=BACK_SECONDS
                    )
                ear.heard.clear()
                await ear.until("blocks://ann/notes")
                assert "line-0" in str(await done(mcp, "memory_view", label="notes"))

        run(work())
        lines = writer.stop()
        editor.stop()
        assert (folder / "notes.md").read_text().split()[4:] == lines
        for copy in copies:
            same(folder, copy.folder)
        editor.look()
        assert not editor.lost
        texts = daemon.values("edited")
        assert texts == sorted(set(texts), key=lambda text: len(text or "")), "each save is there once, in order"
        assert f"{texts[-1]}\n" == "".join(editor.lines)
        journal = JournalReader(str(daemon.state / "journal.db"))
        newest = journal.newest()
        assert newest is not None
        revisions = [revision for seq in range(1, newest.seq + 1) if (revision := journal.revision(seq)) is not None]
        journal.close()
        last = revisions[-1].seq
        for scope, follower in followers:
            follower.until([revision.seq for revision in revisions if scope.concerns(revision)][-1])
            scope.check(follower.heard, revisions, after=1, leads_back="moves" not in fault)
        eventually(partial(has_seq, printed.all, last), "the command has printed all")
        check_numbers(printed.all(), last)
        streamed = [events.event().data]
        while streamed[-1]["seq"] < last:
            streamed.append(events.event().data)
        check_numbers(streamed, last)
        eventually(lambda: shown(servers).split() == lines, "the mirror shows it where the master is")
        assert "Traceback" not in daemon.said() + gateway.said() + "".join(copy.said() for copy in copies)
