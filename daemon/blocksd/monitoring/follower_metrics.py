"""Metrics of a follower for Prometheus: how far behind it is, and what waits."""

from __future__ import annotations

import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, Info, ProcessCollector

from blocksd.monitoring.metrics import Served

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.model.problem import Tally

_GAUGES = {
    "files": "Files that were copied.",
    "seq": "The change up to which the files are a copy.",
    "lag": "How many changes were heard and are not in the files.",
    "lag_seconds": "For how long the copy is behind, 0 if it is in sync.",
    "in_sync": "1 if the copy has all that was heard, and everything is heard, else 0.",
    "unsent": "Local edits that wait for the leader.",
    "local_edits": "Files that were edited here, and are kept: none is sent, or the leader refuses them.",
    "written": "Files that were written or removed since the start.",
    "ready": "1 once the copy has caught up.",
    "heartbeat_timestamp_seconds": "When the main loop last updated these gauges: once a second.",
}


class FollowerMetrics(Served):
    """Gauges of a follower, served at `host` and `port` while it runs."""

    def __init__(self, host: str, port: int) -> None:
        registry = CollectorRegistry()
        super().__init__(host, port, registry)
        ProcessCollector(registry=registry)
        Info("blocksd_build", "The version of blocksd.", registry=registry).info({"version": version("blocksd")})
        self._gauges = {
            name: Gauge(f"blocksd_follower_{name}", text, registry=registry) for name, text in _GAUGES.items()
        }
        self._problems = Gauge("blocksd_follower_problems", "Present problems.", ("severity",), registry=registry)

    def show(self, numbers: Mapping[str, float], tally: Tally) -> None:
        """Show the present status."""
        for name, value in numbers.items():
            self._gauges[name].set(value)
        self._gauges["heartbeat_timestamp_seconds"].set(time.time())
        self._problems.labels("problem").set(tally.problems)
        self._problems.labels("warning").set(tally.warnings)
