"""The application: all routes put together, behind the guard."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
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
    from starlette.types import Receive, Scope, Send

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
    measured = [] if metrics is None else [Middleware(Measured, metrics=metrics)]
    app = Starlette(
        routes=[*routes, metrics_route(metrics)],
        middleware=[*measured, Middleware(Guard, tokens=tokens, guesses=gateway.guesses, places=places)],
        exception_handlers={BlocksdError: answer_error, HTTPException: answer_http, Exception: answer_fault},
    )
    app.state.stopping = gateway.stopping
    app.state.end_streams = end_streams
    app.router = _Table(app.routes, redirect_slashes=False, lifespan=lifespan)  # the guard takes both forms of a slash
    return app


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
        methods: set[str] = set()
        for route in self._found.get(begin, self._found.get(begin.rpartition("/")[0], ())):
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                await route.handle(scope, receive, send)
                return
            if match is Match.PARTIAL:
                methods.update(route.methods or ())
        if methods:  # all of them: Starlette names those of the first route alone
            raise HTTPException(405, headers={"allow": ", ".join(sorted(methods))})
        raise HTTPException(404)


def _begin(path: str) -> str:
    """Return the first two parts of a path."""
    return "/".join(path.split("/", 3)[:3])
