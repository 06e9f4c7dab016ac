"""Carries plans out: blocking, and for asyncio."""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from blocksd.client.plan import Ask, Pause
from blocksd.errors import BlocksdError, Damaged, Misconfigured, Unavailable
from blocksd.mirror.connection import connect, masked, translated
from blocksd.mirror.keys import Keys
from blocksd.settings.record import looked_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.client.plan import Plan

R = TypeVar("R")

_REPLY_SECONDS = 10.0
_MOVED = "the daemon's server is another now: what is asked next is asked there"


@contextmanager
def reading_mirror(url: str) -> Iterator[None]:
    """Errors as ours. A key of another type, until the daemon has repaired it, is a mirror that does not serve."""
    try:
        with translated(url):
            yield
    except Damaged as error:
        raise Damaged(f"the mirror cannot be read: {error.__cause__ or error}") from error


class Blocking:
    """One namespace of one server, for blocking code. It may be used by several threads."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.keys = Keys(namespace)
        self._redis = connect(url, reply_seconds=_REPLY_SECONDS)

    def run(self, plan: Plan[R]) -> R:
        """Carry a plan out.

        Raises:
            Unavailable: Redis does not serve, or the mirror is being mended.
        """
        answer, error = None, None
        try:
            while True:
                step = plan.send(answer) if error is None else plan.throw(error)
                answer, error = None, None
                try:
                    answer = self._perform(step)
                except BlocksdError as raised:
                    error = raised
        except StopIteration as done:
            result: R = done.value
            return result

    def _perform(self, step: Ask | Pause) -> list[Any] | None:
        if isinstance(step, Ask):
            return self.ask(step)
        time.sleep(step.seconds)
        return None

    def ask(self, question: Ask) -> list[Any]:
        try:
            return self._ask(question)
        except (Unavailable, Misconfigured) as error:
            url = looked_up(self.url)
            if url == self.url:
                raise
            self.url, self._redis = url, connect(url, reply_seconds=_REPLY_SECONDS)
            raise Unavailable(_MOVED, url=masked(url)) from error

    def _ask(self, question: Ask) -> list[Any]:
        commands = question.commands
        with reading_mirror(self.url):
            if len(commands) == 1:
                return [self._redis.execute_command(*commands[0])]
            pipeline = self._redis.pipeline(transaction=question.together)
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = pipeline.execute()
            return replies

    def close(self) -> None:
        self._redis.close()


class Asyncio:
    """One namespace of one server, for asyncio code."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.keys = Keys(namespace)
        self._redis = connect(url, reply_seconds=_REPLY_SECONDS, asynchronous=True)

    async def run(self, plan: Plan[R]) -> R:
        """Carry a plan out.

        Raises:
            Unavailable: Redis does not serve, or the mirror is being mended.
        """
        answer, error = None, None
        try:
            while True:
                step = plan.send(answer) if error is None else plan.throw(error)
                answer, error = None, None
                try:
                    answer = await self._perform(step)
                except BlocksdError as raised:
                    error = raised
        except StopIteration as done:
            result: R = done.value
            return result

    async def _perform(self, step: Ask | Pause) -> list[Any] | None:
        if isinstance(step, Ask):
            return await self.ask(step)
        await asyncio.sleep(step.seconds)
        return None

    async def ask(self, question: Ask) -> list[Any]:
        try:
            return await self._ask(question)
        except (Unavailable, Misconfigured) as error:
            url = looked_up(self.url)
            if url == self.url:
                raise
            self.url, self._redis = url, connect(url, reply_seconds=_REPLY_SECONDS, asynchronous=True)
            raise Unavailable(_MOVED, url=masked(url)) from error

    async def _ask(self, question: Ask) -> list[Any]:
        commands = question.commands
        with reading_mirror(self.url):
            if len(commands) == 1:
                return [await self._redis.execute_command(*commands[0])]
            pipeline = self._redis.pipeline(transaction=question.together)
            for command in commands:
                pipeline.execute_command(*command)
            replies: list[Any] = await pipeline.execute()
            return replies

    async def close(self) -> None:
        await self._redis.aclose()
