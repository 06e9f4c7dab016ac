"""The application: all routes put together, behind the guard."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Match, Route, Router

from blocksd.errors import BlocksdError
from blocksd.http import page_files
from blocksd.http.answers import answer_error, answer_fault, answer_http
from blocksd.http.api import agents as our_agents
from blocksd.http.api import batch, changes, document, health, history, session
from blocksd.http.api import blocks as our_blocks
from blocksd.http.call import Gateway
from blocksd.http.connections import Repeats, SharedTransport
from blocksd.http.guard import Guard
from blocksd.http.letta import agents, blocks, common, memory
from blocksd.http.metrics import IS_AVAILABLE, Measured, Metrics, metrics_route

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from blocksd.http.places import Places
    from blocksd.http.tokens import Tokens

SUBJECTS = (
    blocks,
    memory,
    agents,
    common,
    our_blocks,
    our_agents,
    history,
    changes,
    batch,
    health,
    session,
    document,
)
"""The modules that have routes, those first that are asked most often."""


class Part(Protocol):
    """A part of the gateway that another package adds: routes behind the same guard."""

    routes: list[Route]

    def end_streams(self) -> None:
        """End answers that have no end: their callers may have lost their tokens."""

    async def close(self) -> None:
        """End everything."""


def application(
    url: str,
    namespace: str,
    *,
    tokens: Tokens,
    places: Places,
    by: str | None = None,
    parts: Iterable[Callable[[Gateway], Part]] = (),
) -> Starlette:
    """Return the application. Nothing is sent to Redis yet.

    `by` says who the operator is where no tokens are set. Raises Misconfigured if `url` or `namespace` is none.
    """
    gateway = Gateway(SharedTransport(url, namespace, by), Repeats(), tokens)
    added = [make(gateway) for make in parts]

    def end_streams() -> None:
        gateway.feed.end_all()
        for part in added:
            part.end_streams()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        for part in added:
            await part.close()
        await gateway.feed.close()
        await gateway.client.close()

    routes = [*(route for subject in SUBJECTS for route in subject.routes(gateway)), *page_files.routes()]
    routes += [route for part in added for route in part.routes]
    metrics = Metrics(routes, gateway.feed, gateway.guesses) if IS_AVAILABLE else None
    app = Starlette(routes=[*routes, metrics_route(metrics)])
    app.state.stopping = gateway.stopping
    app.state.end_streams = end_streams
    app.router = _Table(app.routes, redirect_slashes=False, lifespan=lifespan)  # the guard takes both forms of a slash
    guarded = _Answered(Guard(app.router, tokens=tokens, guesses=gateway.guesses, places=places))
    # What Starlette would put here costs each call twice as much.
    app.middleware_stack = guarded if metrics is None else Measured(guarded, metrics=metrics)
    return app


class _Answered:
    """An ASGI application around another, which answers its errors."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_begun = False

        async def noted(message: Message) -> None:
            nonlocal is_begun
            is_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noted)
        except Exception as error:
            if is_begun or scope["type"] != "http":
                raise
            is_fault = not isinstance(error, (BlocksdError, HTTPException))
            answer = answer_fault if is_fault else answer_http if isinstance(error, HTTPException) else answer_error
            response = await answer(Request(scope), error)
            await response(scope, receive, send)
            if is_fault:
                raise  # for the log
            error.__traceback__ = None  # of an error that is raised again and again


class _Table(Router):
    """The routes by the first two parts of their paths.

    Starlette compares a path with one route after the other; a path that is wrong, with all of them.
    """

    def __init__(self, routes: Sequence[BaseRoute], **options: Any) -> None:
        super().__init__(routes, **options)
        self._found: dict[str, list[Route]] = {}
        for route in routes:
            assert isinstance(route, Route)
            self._found.setdefault(_begin(route.path.partition("/{")[0]), []).append(route)

    async def app(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await super().app(scope, receive, send)
            return
        begin = _begin(scope["path"])
        routes = self._found.get(begin, self._found.get(begin.rpartition("/")[0], ()))
        for route in routes:
            if not route.methods or scope["method"] in route.methods:
                match, found = route.matches(scope)
                if match is Match.FULL:
                    scope.update(found)
                    await route.handle(scope, receive, send)
                    return
        # All methods of the path: Starlette names those of the first route alone.
        methods = {name for one in routes if one.matches(scope)[0] is Match.PARTIAL for name in one.methods or ()}
        if methods:
            raise HTTPException(405, headers={"allow": ", ".join(sorted(methods))})
        raise HTTPException(404)


def _begin(path: str) -> str:
    """Return the first two parts of a path."""
    return "/".join(path.split("/", 3)[:3])
