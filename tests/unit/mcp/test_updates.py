"""What clients are told, and when, if changes cannot be followed at once."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self

from mcp_types import SubscriptionFilter, SubscriptionsListenRequestParams

from blocksd.mcp import updates
from blocksd.mcp.updates import Updates

if TYPE_CHECKING:
    import pytest

URI = "blocks://sam/human"


class Watch:
    """A watch that is live once a test says so, and hears nothing."""

    def __init__(self) -> None:
        self.live = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.live.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        await asyncio.Event().wait()
        raise StopAsyncIteration


class Connection:
    """A connection of a client of before 2026."""

    def __init__(self) -> None:
        self.exit_stack = AsyncExitStack()


class Stream:
    """The session of a request, and what was sent in it."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.confirmed: list[str] | None = None

    async def send_notification(self, notification: Any, related_request_id: object = None) -> None:
        await asyncio.sleep(0)
        self.sent.append(notification.method.removeprefix("notifications/"))
        if self.sent[-1] == "subscriptions/acknowledged":
            self.confirmed = notification.params.notifications.resource_subscriptions


async def listening(watch: Watch) -> tuple[Stream, asyncio.Task[Any], Updates]:
    """A client that has asked to listen."""
    access: Any = SimpleNamespace(client=SimpleNamespace(watch=lambda **_: watch))
    found, stream = Updates(access, "sam", lambda: None), Stream()
    context: Any = SimpleNamespace(request_id=1, session=stream)
    wanted = SubscriptionFilter(resources_list_changed=True, resource_subscriptions=[URI, "blocks://bob/human", "junk"])
    params = SubscriptionsListenRequestParams(notifications=wanted)
    return stream, asyncio.create_task(found.listen(context, params)), found


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_subscription_is_confirmed_when_changes_are_followed() -> None:
    """Not before: what happens in between would be missed."""

    async def work() -> None:
        watch = Watch()
        stream, task, found = await listening(watch)
        await settled()
        assert stream.sent == []
        watch.live.set()
        await settled()
        assert stream.sent == ["subscriptions/acknowledged"]
        await found.close()
        await asyncio.wait_for(task, 5)

    asyncio.run(work())


def test_a_client_that_could_wait_no_longer_is_told_that_everything_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once changes are followed."""
    monkeypatch.setattr(updates, "_PATIENCE_SECONDS", 0.0)

    async def work() -> None:
        watch = Watch()
        stream, task, found = await listening(watch)
        await settled()
        assert stream.sent == ["subscriptions/acknowledged"]
        watch.live.set()
        await settled()
        assert stream.sent[1:] == ["resources/updated", "resources/list_changed"]
        await found.close()
        await asyncio.wait_for(task, 5)

    asyncio.run(work())


def test_a_connection_that_ends_is_forgotten() -> None:
    """With its subscriptions, its task and, if it was the last one, the watch."""

    async def work() -> None:
        watch, ended = Watch(), list[str]()
        watch.live.set()
        access: Any = SimpleNamespace(client=SimpleNamespace(watch=lambda **_: watch))
        found = Updates(access, "sam", lambda: ended.append("sam"))
        before = len(asyncio.all_tasks())
        connection: Any = Connection()
        await found.subscribe(connection, URI)
        assert len(asyncio.all_tasks()) == before + 2
        await connection.exit_stack.aclose()
        await settled()
        assert len(asyncio.all_tasks()) == before
        assert ended == ["sam"]

    asyncio.run(work())


def test_only_an_agents_own_resources_are_confirmed() -> None:
    """Of those of others, and of what is no URI of a block, nothing would ever be told."""

    async def work() -> None:
        watch = Watch()
        watch.live.set()
        stream, task, found = await listening(watch)
        await settled()
        assert stream.confirmed == [URI]
        await found.close()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(work())
