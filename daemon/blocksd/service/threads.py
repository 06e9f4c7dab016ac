"""What works for the core: folder watch, inbox reader, gateway and embedded server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.embedded.supervisor import ServerState, Supervisor
from blocksd.monitoring.watchdog import vitals_of
from blocksd.requests.consumer import Consumer, Readable, Refused
from blocksd.service.folder_watch import FolderWatch, SourceHint
from blocksd.service.gateway import GatewayProcess
from blocksd.service.inbox_feed import InboxFeed

if TYPE_CHECKING:
    from contextlib import ExitStack

    from blocksd.core.core import Core
    from blocksd.model.faults import Failed
    from blocksd.monitoring.events import Notices
    from blocksd.monitoring.watchdog import Vitals
    from blocksd.requests.request import Entry
    from blocksd.service.control import Question
    from blocksd.service.fault_barrier import FaultBarrier
    from blocksd.service.mailbox import Mailbox
    from blocksd.service.resources import Resources
    from blocksd.settings.config import Config

News = SourceHint | list["Entry"] | Readable | Refused | ServerState
"""A value that one of the threads passes to the main loop."""


class Threads:
    """Starts, directs, checks and stops the threads. All of it happens in the main loop."""

    def __init__(
        self,
        core: Core,
        resources: Resources,
        config: Config,
        mailbox: Mailbox[News | Question | Failed | None],
        notices: Notices,
        opened: ExitStack,
    ) -> None:
        """Make the threads, which put news into `mailbox`; `opened` takes how to stop them, and how to close the core."""
        sink = mailbox.put
        self._core = core
        self._state = resources.state
        self._is_polling = config.poll
        self.gateway: GatewayProcess | None = None
        if config.http:
            self.gateway = GatewayProcess(config, core.problems, notices, sink)
            opened.callback(self.gateway.stop)
        self._supervisor: Supervisor | None = None
        if resources.server is not None:
            self._supervisor = Supervisor(resources.server, config.state, core.problems, notices, sink)
            opened.callback(self._supervisor.stop)
            resources.server.on_progress = self._supervisor.on_progress
            core.projector.hold(is_held=True)
        mirror = resources.mirror
        reader = Consumer(resources.redis_url, mirror.keys, sink, lease=lambda: mirror.lease)
        self.inbox_feed = InboxFeed(reader, core, notices)
        opened.callback(self.inbox_feed.join)
        opened.callback(core.close)
        self.folder_watch = FolderWatch(
            resources.folder,
            core.intake,
            core.problems,
            core.sources,
            sink,
            mailbox.selector,
            notices,
            resync_seconds=config.resync_seconds,
        )
        opened.callback(self.folder_watch.stop)
        opened.callback(self.inbox_feed.stop)

    def start(self) -> None:
        if self._supervisor is not None:
            self._supervisor.start()
        # Watch first, sweep second: one of them sees a change in between.
        if not self._is_polling:
            self.folder_watch.start()
        self.inbox_feed.start()

    def start_gateway(self) -> None:
        """Start the gateway, if there is one, once the daemon is ready."""
        if self.gateway is not None:
            self.gateway.start()

    def begin_stop(self) -> None:
        """End the embedded server and the gateway soon; the other threads end when `opened` is closed."""
        if self._supervisor is not None:
            self._supervisor.begin_stop()
        if self.gateway is not None:
            self.gateway.begin_stop()

    def reconfigure(self, config: Config) -> None:
        self.folder_watch.resync_seconds = config.resync_seconds
        if self.gateway is not None:
            self.gateway.reload()

    def handle(self, news: News) -> None:
        """Pass news to the part of the core that needs it."""
        if isinstance(news, SourceHint):
            self.folder_watch.apply_source_hint(*news)
        elif isinstance(news, Readable):
            self.inbox_feed.set_obstacle(news)
        elif isinstance(news, ServerState):
            self._check_server()
        else:
            self.inbox_feed.receive(news)

    def recover_from_loss(self, news: object) -> None:
        """Find what a failure to handle news has lost: compare all files, or read the inboxes again."""
        if isinstance(news, SourceHint):
            self._core.compare_soon()
        elif isinstance(news, list):
            self._core.inbox.forget_all()

    def check(self, barrier: FaultBarrier) -> None:
        """Restart what has died, and report what cannot run; once a second."""
        with barrier("check the gateway"):
            if self.gateway is not None:
                self.gateway.report()
        with barrier("check the embedded server"):
            self._check_server()
        with barrier("check the inbox reader"):
            self.inbox_feed.check()
        with barrier("check the folder watch"):
            if not self._is_polling:
                self.folder_watch.check()

    def _check_server(self) -> None:
        """Report the state of the embedded server; while it does not serve, the projector does not wait for it."""
        if self._supervisor is not None:
            self._supervisor.is_blocked = bool(self._state.owner)
            self._supervisor.report()
            self._core.projector.hold(is_held=not self._supervisor.is_serving)

    def vitals(self, failing: tuple[str, ...]) -> Vitals:
        """Return the facts that the daemon's health depends on; `failing` are parts of the main loop."""
        return vitals_of(
            self._core,
            is_polling=self._is_polling,
            is_watching=self.folder_watch.is_watching,
            is_reading=self.inbox_feed.is_reading,
            is_server_running=self._supervisor is None or self._supervisor.is_alive,
            failing=failing,
        )
