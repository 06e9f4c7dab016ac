"""The application: all routes put together, behind the guard."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from blocksd.errors import BlocksdError
from blocksd.http import page_files
from blocksd.http.answers import answer_error, answer_fault, answer_http
from blocksd.http.api import agents as our_agents
from blocksd.http.api import batch, changes, document, health, history, session
from blocksd.http.api import blocks as our_blocks
from blocksd.http.call import Gateway
from blocksd.http.connections import SharedTransport
from blocksd.http.guard import Guard
from blocksd.http.letta import agents, blocks, common, memory
from blocksd.http.metrics import IS_AVAILABLE, Measured, Metrics, metrics_route
from blocksd.http.repeats import Repeats

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from starlette.routing import Route

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
        lifespan=lifespan,
    )
    app.state.stopping = gateway.stopping
    app.state.end_streams = end_streams
    app.router.redirect_slashes = False  # the guard takes both forms
    return app
