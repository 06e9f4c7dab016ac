"""Opens what a daemon needs to run, or refuses: state directory, folder, journal, namespace and embedded server."""

from __future__ import annotations

import os
import secrets
import socket
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from blocksd.embedded.server import EmbeddedServer
from blocksd.errors import JournalDamaged, Misconfigured, Unavailable
from blocksd.files.folder import Folder
from blocksd.files.root import Root
from blocksd.journal.journal import Journal
from blocksd.mirror.connection import check_namespace, connect, masked
from blocksd.mirror.keys import Keys
from blocksd.mirror.lease import superseded
from blocksd.mirror.mirror import Mirror
from blocksd.model.revision import timestamp
from blocksd.service.leadership import promote, wait_for_lease
from blocksd.service.lock import TRANSIENT_ERRORS, Lock, state_error
from blocksd.service.machine import boot_id, folder_id, machine_id
from blocksd.service.state_directory import StateDirectory
from blocksd.state.folder_match import match_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.monitoring.events import Notices
    from blocksd.service.control import Question
    from blocksd.service.leadership import Promotion
    from blocksd.settings.config import Config


class Resources:
    """The locks and open files of one daemon, in the order in which they are opened; `close` goes back.

    Attributes: `state`, `folder`, `journal`, `mirror`, `server` (the embedded one, if no Redis is configured), `redis_url`
    (with the password) and `about` (this daemon, as others are told).
    """

    def __init__(
        self,
        config: Config,
        sink: Callable[[Question], object],
        notices: Notices,
        *,
        takes_over: bool = False,
        promotion: Promotion | None = None,
    ) -> None:
        """Open everything. Questions from the control socket go to `sink`.

        Unless it `takes_over`, the daemon does not serve a folder with the journal of another one. With a `promotion` it
        becomes the leader, if no leader is alive and Redis has no change that it lacks.

        Raises:
            AlreadyRunning: another daemon has the folder, the state directory or the namespace.
            Misconfigured: a retry would not help; Superseded, if another host was promoted to leader.
            Unavailable: whether there is a leader cannot be told.
            JournalUnusable: the journal cannot be opened.
            StateUnusable: the state directory cannot be used for now.
        """
        self._config = config
        self._notices = notices
        if not os.path.isdir(config.folder):
            if os.path.lexists(config.folder):
                hint = "name the directory that the block files are in"
                raise Misconfigured(f"{config.folder!r} is no directory", key="folder", hint=hint)
            raise Misconfigured(f"there is no folder {config.folder!r}", key="folder")
        with ExitStack() as opened:
            try:
                self.state = StateDirectory(config.state, sink, notices)
                opened.callback(self.state.release)
                self._mirror: Mirror | None = None
                self._open_folder(opened)
                self.journal = Journal(os.path.join(config.state, "journal.db"), boot_id=boot_id())
                with ExitStack() as unowned:
                    unowned.callback(self.journal.close)
                    if not takes_over:
                        self._check_folder()
                    self._open_namespace(promotion)
                    self.state.publish(folder=self.folder.root, namespace=config.namespace, redis=self.redis_url)
                    unowned.pop_all()  # the caller closes the journal, before the rest
            except OSError as error:
                raise state_error(config.state, error) from error
            self._opened = opened.pop_all()

    def close(self) -> None:
        self._opened.close()

    def _open_folder(self, opened: ExitStack) -> None:
        """Open and lock the folder. The lock follows the open directory, wherever its path leads later."""
        self._folder_lock = Lock(f"folder {os.path.realpath(self._config.folder)}")
        opened.callback(self._folder_lock.release)
        directory = Root(self._config.folder, claim=self._claim_folder)
        if directory.refusal is not None:
            raise directory.refusal
        if directory.held is None:
            message = f"the folder {directory.path} cannot be opened: {os.strerror(directory.why)}"
            if directory.why in TRANSIENT_ERRORS:
                raise Unavailable(message, path=directory.path, errno=directory.why)
            raise Misconfigured(message, key="folder", path=directory.path, errno=directory.why)
        self.folder = Folder(directory)
        for error, what in ((self.state.lock_error, "state directory"), (self._folder_lock.unsupported, "folder")):
            if error:
                message = f"the {what} cannot be locked ({error}): only the lease in Redis keeps other daemons out"
                self._notices.post(message, "warning")

    def _claim_folder(self, handle: int) -> None:
        """Lock the directory that is at the folder's path now, before anything in it is read or written.

        Raises:
            AlreadyRunning: another daemon has it.
        """
        self._folder_lock.take_directory(handle)
        if self._mirror is not None:
            self._mirror.move(self._folder_id())

    def _check_folder(self) -> None:
        """Check that the journal is of this folder. Nothing of another one's blocks is shown, nor journaled as deleted.

        Raises:
            Misconfigured: it is of another folder.
        """
        with suppress(JournalDamaged):  # it is repaired, and what is missing in the folder is kept
            match = match_folder(self.journal, self.folder)
            if match is not None:
                raise match.error(self._config.state)

    def _folder_id(self) -> str:
        """Return the id of the locked folder; empty where the lock proves nothing."""
        status = self._folder_lock.status
        return "" if status is None or self._folder_lock.unsupported else folder_id(status)

    def _open_namespace(self, promotion: Promotion | None) -> None:
        """Take the namespace in Redis; while Redis is unreachable, go on without."""
        config, journal = self._config, self.journal
        if promotion is None and journal.newest_generation > journal.generation:
            raise superseded(config.namespace, journal.generation, journal.newest_generation, None)
        self.server = EmbeddedServer(config.state) if config.redis is None else None
        self._address = self.server.prepare() if self.server is not None else None
        self.redis_url = self._address.url if self._address is not None else str(config.redis)
        is_locked = not self.state.lock_error and bool(self._folder_id())
        self.about = {
            "directory": self.folder.root,
            "host": socket.gethostname(),
            "machine": machine_id() if is_locked else "",
            "folder_id": self._folder_id(),
            "pid": str(os.getpid()),
            "started_at": timestamp(time.time()),
        }
        check_namespace(self.redis_url, config.namespace)
        self.mirror = self._mirror = Mirror(
            connect(self.redis_url),
            Keys(config.namespace),
            url=self.redis_url,
            epoch=self.journal.epoch,
            token=secrets.token_hex(8),
            about=self.about,
            generation=journal.generation,
        )
        if promotion is not None and promote(
            promotion, journal, self.mirror, self._notices, is_shared=self.server is None
        ):
            return
        if self.server is None:
            with suppress(Unavailable):  # the core retries, and journals changes meanwhile
                wait_for_lease(self.mirror, journal, self._notices)

    @property
    def redis_place(self) -> str:
        """The server's URL without a password."""
        if self.server is None or self._address is None:
            return masked(self.redis_url)
        return f"redis://127.0.0.1:{(self.server.address or self._address).port}"

    @property
    def redis_description(self) -> str:
        """The server's URL, and its kind if it is the embedded one."""
        if self.server is None:
            return self.redis_place
        return f"{self.redis_place} (embedded {self.server.binary.name if self.server.binary else 'taken over'})"
