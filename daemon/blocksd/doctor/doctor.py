"""Looks at all that a daemon depends on, and says what is wrong with it and what to change."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from blocksd.doctor import host_checks as checks
from blocksd.doctor import server_checks
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


def examine(config: Config, file: str | None) -> list[Finding]:
    """Look, and judge: all findings, by group; `file` is the settings file that was read, if any.

    Neither a silent server nor a large folder or journal takes it long.
    """
    host = look_at_host(config)
    found = findings(host, redis_of(config), config, file, now=time.time())
    return [replace(one, message=printable(one.message), advice=printable(one.advice)) for one in found]


def redis_of(config: Config) -> Redis:
    """The server that is configured, or the running daemon's, or else the one a daemon would start."""
    daemon = running_daemon(config.state)
    url = config.redis if config.redis is not None else daemon["redis"] if daemon is not None else None
    try:
        return find_binary() if url is None else look_at_server(url, Keys(config.namespace))
    except BlocksdError as error:
        return error


def findings(host: Host, redis: Redis, config: Config, file: str | None, *, now: float) -> Iterator[Finding]:
    """What all checks come to, by group. `now` is in seconds since 1970."""
    folder, state = host.folder, host.state
    yield checks.python(host.program)
    yield checks.sqlite(host.program)
    yield from checks.libraries(host.program)
    yield from checks.user(host.user, host.running)
    yield checks.settings(config, file)
    yield from checks.variables(host.unknown_variables)
    for source in host.sources:
        yield checks.file_source(source)
    yield checks.folder_access(folder, host.tree)
    yield from checks.folder_sharing(folder)
    yield from checks.folder_events(folder, host.folder_trial, polls=config.poll)
    yield from checks.folder_writing(folder, host.folder_trial)
    yield checks.space("folder.space", folder)
    yield from checks.folder_holder(folder, host.folder_holder, host.running)
    yield checks.state_access(state)
    yield from checks.state_private(state)
    yield checks.state_disk(state)
    yield from checks.state_writing(state, host.state_trial)
    yield checks.space("state.space", state)
    yield checks.journal(host.journal)
    yield from checks.set_aside(host.set_aside)
    yield checks.daemon(host.running, host.state_holder)
    if not config.poll:
        trees = [host.tree, *(source.tree for source in host.sources)]
        yield checks.watches(host.inotify, sum(tree.directories for tree in trees if tree is not None))
        yield checks.instances(host.inotify, 1 + len(host.sources))
    yield checks.open_files(*host.open_files, has_own_server=config.redis is None)
    yield from server_checks.server(redis, host, config)
    if isinstance(redis, Server):
        yield server_checks.clock(redis.user, redis.offset)
    yield from checks.journal_clock(host.journal, now)
    yield from checks.machine_clock(host.clock_is_kept)
