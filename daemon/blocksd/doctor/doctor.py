"""Runs all checks. What a daemon reports itself, at its start or as a problem, is not checked here."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.doctor import gateway, server_checks
from blocksd.doctor import host_checks as checks
from blocksd.doctor.host import look as look_at_host
from blocksd.doctor.server import Server
from blocksd.doctor.server import look as look_at_server
from blocksd.embedded.binary import find_binary
from blocksd.errors import BlocksdError
from blocksd.mirror.keys import Keys
from blocksd.model.label import printable
from blocksd.settings.record import running_daemon

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blocksd.doctor.finding import Finding
    from blocksd.doctor.host import Host
    from blocksd.doctor.server_checks import Redis
    from blocksd.settings.config import Config


def examine(config: Config) -> list[Finding]:
    """Return all findings, by group. A server that hangs, or a large journal, takes it a few seconds."""
    found = [
        *findings(look_at_host(config), redis_of(config), config, now=time.time()),
        *gateway.findings(config),
    ]
    return [replace(one, message=printable(one.message), advice=printable(one.advice)) for one in found]


def redis_of(config: Config) -> Redis:
    """Return the server that is configured, or the running daemon's, else the program that a daemon would start."""
    daemon = running_daemon(config.state)
    url = config.redis if config.redis is not None else daemon["redis"] if daemon is not None else None
    try:
        return find_binary() if url is None else look_at_server(url, Keys(config.namespace))
    except BlocksdError as error:
        return error


def findings(host: Host, redis: Redis, config: Config, *, now: float) -> Iterator[Finding]:
    """Yield the findings of all checks, by group. `now` is in seconds since 1970."""
    folder, state = host.folder, host.state
    yield from checks.user(host.user, host.daemon_user)
    yield checks.folder_access(folder)
    yield from checks.folder_sharing(folder)
    yield from checks.folder_events(folder, host.folder_trial, polls=config.poll)
    yield from checks.folder_writing(folder, host.folder_trial)
    yield checks.space("folder.space", folder)
    yield checks.state_access(state)
    yield from checks.state_folder(state, host.other_folder)
    yield from checks.state_private(state)
    yield checks.state_disk(state)
    yield from checks.state_writing(state, host.state_trial)
    yield checks.space("state.space", state)
    yield checks.journal(host.journal, is_copy=host.is_copy)
    yield checks.open_files(*host.open_files, has_own_server=config.redis is None)
    yield from server_checks.server(redis, config, is_copy=host.is_copy)
    if isinstance(redis, Server):
        yield server_checks.clock(redis.user, redis.offset)
    yield from checks.journal_clock(host.journal, now)
