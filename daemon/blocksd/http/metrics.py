"""Metrics of the gateway for Prometheus: requests by route and status, the time to each answer, and streams.

No label can take arbitrarily many values: a route is named by the first two parts of its path.
"""

from __future__ import annotations

import asyncio
import time
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.routing import Route

from blocksd.http.answers import refusal
from blocksd.http.call import READS

try:
    from prometheus_client import (
        CONTENT_TYPE_LATEST,
        CollectorRegistry,
        Counter,
        Histogram,
        Info,
        ProcessCollector,
        disable_created_metrics,
        generate_latest,
    )
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector

    disable_created_metrics()  # type: ignore[no-untyped-call]  # the time a series began has no use here
    IS_AVAILABLE = True
except ImportError:
    IS_AVAILABLE = False
    Collector = object  # type: ignore[misc, assignment]  # what is derived from it is not used then

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prometheus_client.core import Metric
    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from blocksd.http.api.feed import Feed
    from blocksd.http.guesses import Guesses

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts what passes through an application, whose routes are given. Needs the package prometheus-client."""

    def __init__(self, routes: Iterable[BaseRoute], feed: Feed, guesses: Guesses) -> None:
        """`feed` has the clients that follow the changes, `guesses` the wrong tokens."""
        self.registry = registry = CollectorRegistry()
        self._groups = {group_of(route.path) for route in routes if isinstance(route, Route)}
        ProcessCollector(registry=registry)
        Info("blocksd_build", "The version of blocksd.", registry=registry).info({"version": version("blocksd")})
        self._requests = Counter(
            "blocksd_http_requests",
            "Requests answered since the start, by the first two parts of the path, and status.",
            ("route", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "blocksd_http_request_seconds",
            "From when the gateway received a request to the head of its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        registry.register(_Counted(feed, guesses))
        self._children: dict[tuple[str, int], tuple[Any, Any]] = {}

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count an answer."""
        group = group_of(path)
        key = group if group in self._groups else "other", status
        if key not in self._children:
            self._children[key] = self._requests.labels(key[0], str(status)), self._seconds.labels(key[0])
        requests, times = self._children[key]
        requests.inc()
        times.observe(seconds)

    def page(self) -> bytes:
        """Return what Prometheus reads."""
        return generate_latest(self.registry)


class _Counted(Collector):
    """Asks the feed and the guesses when the metrics are read."""

    def __init__(self, feed: Feed, guesses: Guesses) -> None:
        self._feed = feed
        self._guesses = guesses

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("blocksd_http_streams", "Clients that follow the changes now.", self._feed.streams)
        yield CounterMetricFamily(
            "blocksd_http_streams_cut_off",
            "Streams that were ended because the client did not read.",
            self._feed.cut_off,
        )
        yield CounterMetricFamily("blocksd_http_wrong_tokens", "Wrong tokens since the start.", self._guesses.total)


class Measured:
    """An ASGI application around another, whose answers it counts."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await self._app(scope, receive, partial(self._send, send, scope["path"], time.perf_counter()))

    async def _send(self, send: Send, path: str, began: float, message: Message) -> None:
        if message["type"] == "http.response.start":
            # Counted in the next turn of the loop: the caller has a short answer then.
            counted = path, message["status"], time.perf_counter() - began
            asyncio.get_running_loop().call_soon(self._metrics.answered, *counted)
        await send(message)


def group_of(path: str) -> str:
    """Return the first two parts of a path. `/latest` is `/v1`."""
    parts = path.split("/", 3)[1:3]
    if parts[:1] == ["latest"]:
        parts[0] = "v1"
    return "/" + "/".join(filter(None, parts))


def metrics_route(metrics: Metrics | None) -> Route:
    """Return the route /metrics, for operators and readers."""

    async def endpoint(request: Request) -> Response:
        if request.scope["caller"].role not in READS:
            return refusal(403, "metrics are for operators and readers")
        if metrics is None:
            return refusal(404, "metrics need the package prometheus-client: pip install 'blocksd[metrics]'")
        return Response(metrics.page(), headers={"content-type": CONTENT_TYPE_LATEST})

    return Route("/metrics", endpoint, methods=["GET"])
