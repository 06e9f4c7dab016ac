"""Metrics for Prometheus: counts of events, and gauges of the status, once a second.

No label can take arbitrarily many values: none names a block, an agent or a request.
"""

from __future__ import annotations

import errno
import time
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from blocksd.errors import Misconfigured
from blocksd.model.problem import FOLDER
from blocksd.model.revision import FILE, MERGE, OPERATOR
from blocksd.monitoring.events import ServiceListener
from blocksd.requests.inbox import REFUSALS
from blocksd.requests.request import OPS

if TYPE_CHECKING:
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

    from blocksd.errors import BlocksdError
    from blocksd.model.faults import Fault
    from blocksd.model.problem import Problem
    from blocksd.model.revision import Revision
    from blocksd.monitoring.events import Started
    from blocksd.monitoring.status import Status
    from blocksd.requests.reply import Answer

_SOURCES = (FILE, MERGE, OPERATOR)  # any other author is an agent
_STAGE_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

disable_created_metrics()  # type: ignore[no-untyped-call]  # the time a series began has no use here, and doubles the number of series


_GAUGES = {
    "blocks": "Blocks in force.",
    "agents": "Known agents.",
    "seq": "The number of the newest revision.",
    "mirror_lag": "How many revisions the mirror does not show; all, if that is not known.",
    "mirror_level": "1 if the mirror shows everything, else 0.",
    "watches": "inotify watches in use.",
    "ready": "1 once the folder has been read and the mirror was in sync, or Redis was reported unreachable.",
    "heartbeat_timestamp_seconds": "When the main loop last updated these gauges: once a second.",
}


class Served(ServiceListener):
    """Metrics that are served at `host` and `port` while a service runs."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        self._address = (host, port)
        self._server: tuple[WSGIServer, Thread] | None = None
        self.registry = registry

    def on_start(self, started: Started) -> None:
        """Start to serve.

        Raises:
            Misconfigured: the address cannot be used.
        """
        host, port = self._address
        try:
            self._server = start_http_server(port, host, registry=self.registry)
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror or error}"
            raise Misconfigured(f"the address for metrics, {host} port {port}, {why}", key="metrics") from None

    def on_stop(self) -> None:
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()
            self._server = None


class Metrics(Served):
    """Counts events, and serves the counts at `host` and `port` while the service runs."""

    is_timing = True

    def __init__(self, host: str, port: int) -> None:
        registry = CollectorRegistry()
        super().__init__(host, port, registry)
        self._is_unreachable = self._is_halted = False
        counter = partial(Counter, registry=registry)
        ProcessCollector(registry=registry)
        Info("blocksd_build", "The version of blocksd.", registry=registry).info({"version": version("blocksd")})
        self._revisions = counter(
            "blocksd_revisions",
            "Revisions since the start, by kind and source (file, merge, operator, agent).",
            ("kind", "source"),
        )
        self._requests = counter(
            "blocksd_requests",
            "Requests replied to since the start; the outcome is ok, or the code of the error.",
            ("op", "outcome"),
        )
        self._faults = counter(
            "blocksd_internal_errors", "Internal errors since the start, each of one request or one file."
        )
        self._request_seconds = Histogram(
            "blocksd_request_seconds",
            "From when the daemon received a request to its reply.",
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self._stage_seconds = Histogram(
            "blocksd_stage_seconds",
            "Parts of a round of work, from the beginning of each to that of the next: look (files are read), journal; "
            "of requests make_folder, stage, flush, prepare, put_in, finish, settle, remove_folders; project (to Redis, "
            "with the replies), clear_away, mirror (a slice of catching up or comparing, a heartbeat, or nothing).",
            ("stage",),
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        self._halts = counter("blocksd_halts", "How often deletions were held back since the start.")
        self._reconnects = counter(
            "blocksd_reconnects", "How often the mirror was in sync again after Redis was unreachable, since the start."
        )
        self._problems = Gauge("blocksd_problems", "Present problems.", ("severity",), registry=registry)
        self._refused = counter(
            "blocksd_refused_entries",
            "Inbox entries that were not executed since the start: dropped (no request, and no id to reply to), "
            "oversized, surplus (more than an inbox may hold).",
            ("reason",),
        )
        self._refusals: dict[str, int] = dict.fromkeys(REFUSALS, 0)
        self._queue = Gauge(
            "blocksd_queue", "Files waiting to be read, and requests that are not done.", ("what",), registry=registry
        )
        self._gauges = {name: Gauge(f"blocksd_{name}", text, registry=registry) for name, text in _GAUGES.items()}
        for op in OPS:  # so that the first request is an increase, not a new series
            self._requests.labels(op, "ok")

    def on_revision(self, revision: Revision) -> None:
        source = revision.author if revision.author in _SOURCES else "agent"
        self._revisions.labels(revision.kind, source).inc()

    def on_request(self, answer: Answer, seconds: float) -> None:
        self._requests.labels(answer.op or "none", answer.outcome).inc()
        self._request_seconds.observe(seconds)

    def on_fault(self, fault: Fault, is_new: bool) -> None:  # as the listener has it
        self._faults.inc()

    def on_stage(self, stage: str, seconds: float) -> None:
        self._stage_seconds.labels(stage.replace(" ", "_")).observe(seconds)

    def on_problem(self, problem: Problem) -> None:
        if problem.subject == FOLDER and not self._is_halted:
            self._is_halted = True
            self._halts.inc()

    def on_cleared(self, problem: Problem) -> None:
        if problem.subject == FOLDER:
            self._is_halted = False

    def on_mirror_unreachable(self, error: BlocksdError) -> None:
        self._is_unreachable = True

    def on_mirror_in_sync(self, how: str) -> None:
        if self._is_unreachable:
            self._is_unreachable = False
            self._reconnects.inc()

    def on_status(self, status: Status) -> None:
        values = {
            "blocks": status.blocks,
            "agents": status.agents,
            "seq": status.seq,
            "mirror_lag": status.mirror_lag,
            "mirror_level": status.mirror == "level",
            "watches": status.watches,
            "ready": status.read is None,
            "heartbeat_timestamp_seconds": time.time(),
        }
        for name, value in values.items():
            self._gauges[name].set(value)
        for reason, before in self._refusals.items():
            self._refusals[reason] = status.refused.get(reason, 0)
            self._refused.labels(reason).inc(self._refusals[reason] - before)
        self._problems.labels("problem").set(status.tally.problems)
        self._problems.labels("warning").set(status.tally.warnings)
        self._queue.labels("files").set(status.files)
        self._queue.labels("requests").set(status.requests)
