"""The report of a daemon that answers, as `blocksd status --json` shows it."""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blocksd.core.core import Core
    from blocksd.monitoring.status import Status
    from blocksd.service.resources import Resources
    from blocksd.settings.config import Config


def describe(
    core: Core,
    config: Config,
    resources: Resources,
    status: Status,
    *,
    uptime: float,
    last_reload: dict[str, Any] | None,
    gateway: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the report; `uptime` is in seconds."""
    newest = resources.journal.newest()
    return {
        "running": True,
        "answers": True,
        "pid": os.getpid(),
        "version": version("blocksd"),
        "host": resources.about["host"],
        "started_at": resources.about["started_at"],
        "uptime_seconds": round(uptime, 1),
        "folder": resources.folder.root,
        "namespace": config.namespace,
        "generation": resources.journal.generation,
        "state": config.state,
        "redis": resources.redis_place,
        "redis_server": resources.mirror.server,
        "redis_embedded": resources.server is not None,
        "polling": config.poll,
        "gateway": gateway,
        **status.as_json(),
        "last_reload": last_reload,
        "last_change": newest.summary() if newest is not None else None,
        "problems": [problem.as_json() for _, problem in sorted(core.problems.items())],
    }
