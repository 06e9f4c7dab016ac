"""Watches the folder and the sources, and passes hints to the core."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from blocksd.files.inotify import inotify_limit
from blocksd.files.watcher import Hint, Watcher, Watchers
from blocksd.model.label import PROPERTIES_FILE, is_block_file, is_ignored
from blocksd.model.problem import WATCHER, Problem

if TYPE_CHECKING:
    from collections.abc import Callable
    from selectors import BaseSelector

    from blocksd.core.intake import Intake
    from blocksd.files.folder import Folder
    from blocksd.model.problem import Problems
    from blocksd.monitoring.events import Notices
    from blocksd.sources.sources import Sources


class SourceHint(NamedTuple):
    """A hint about a path in a source."""

    source: str
    hint: Hint


class FolderWatch:
    """Runs the watchers of the folder and of the sources, which the main loop reads.

    What they tell of the folder is passed to the intake at once. Hints about sources go into `sink`, and the main loop passes
    them on here.

    A watcher that fails is replaced, and all that it watches is compared. Directories that cannot be watched are a problem:
    changes there are found every `resync_seconds`.
    """

    def __init__(
        self,
        folder: Folder,
        intake: Intake,
        problems: Problems,
        sources: Sources,
        sink: Callable[[SourceHint], object],
        selector: BaseSelector,
        notices: Notices,
        *,
        resync_seconds: float,
    ) -> None:
        """Watch `folder`, which `intake` reads. Events are read as the data of what `selector` finds ready."""
        self.resync_seconds = resync_seconds
        self._folder = folder
        self._intake = intake
        self._problems = problems
        self._sources = sources
        self._selector = selector
        self._notices = notices
        self._root = folder.root
        self._watcher: Watcher | None = None
        self._source_watchers = Watchers(
            lambda name, hint: sink(SourceHint(name, hint)), selector, wanted=lambda name: not is_ignored(name)
        )
        self._rewatch_at = 0.0  # when to try other watchers for sources
        self._rearm_at = 0.0  # when to try another watcher for directories without a watch; 0: there are none

    def start(self) -> None:
        """Watch the folder; `check` starts to watch the sources."""
        self._root = self._folder.root  # another one after a symlink to the folder was switched
        watcher = Watcher(self._root, self.apply_hint, self._selector, wanted=self._is_wanted)
        try:
            watcher.start()
        except OSError as error:
            self._report(
                f"the folder cannot be watched: {error.strerror or error}",
                "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl)",
            )
            return
        self._watcher = watcher

    def _is_wanted(self, name: str) -> bool:
        """Return True if a file of this name may be a block, an agent's properties, or what a symlink leads to."""
        return is_block_file(name) or name == PROPERTIES_FILE or name in self._intake.links.names

    def check(self) -> None:
        """Replace watchers that have failed or miss a directory; once a second."""
        self._check_sources()
        if not os.path.isdir(self._folder.root):
            return
        watcher = self._watcher
        if watcher is None or self._root != self._folder.root or not watcher.is_healthy():
            self._rearm()
        else:
            self._check_coverage(watcher)

    def stop(self) -> None:
        self._source_watchers.stop()
        if self._watcher is not None:
            self._watcher.stop()

    @property
    def is_watching(self) -> bool:
        """True if file events arrive from the folder that exists now."""
        return self._watcher is not None and self._watcher.is_healthy()

    @property
    def watches(self) -> int:
        """The number of inotify watches in use."""
        return self._source_watchers.watches + (self._watcher.watches if self._watcher is not None else 0)

    def apply_hint(self, hint: Hint) -> None:
        """Pass a hint about the folder to the intake."""
        intake = self._intake
        if hint.kind == "closed" or hint.kind == "touched":
            intake.hint_file(hint.path, closed=hint.kind == "closed")
        elif hint.kind == "tree":
            intake.hint_tree(hint.path)
        else:
            self._notices.post_rarely("an overflow", "file events were lost; the whole folder is compared")
            intake.hint_all()

    def apply_source_hint(self, name: str, hint: Hint) -> None:
        """Pass a hint to its source, unless that is no longer served."""
        if name not in self._sources.names:
            return
        source = self._sources.source(name)
        if hint.kind == "closed" or hint.kind == "touched":
            source.hint_file(hint.path, closed=hint.kind == "closed")
        else:
            source.hint_all()

    def _check_coverage(self, watcher: Watcher) -> None:
        intake, now = self._intake, time.monotonic()
        # A directory that the last sweep saw may have been removed since, or a symlink be on its way: it needs no watch then.
        # One that cannot be read is a problem already, and no limit is to be raised for it.
        unwatched = watcher.unwatched(intake.scanner.directories - intake.scanner.unlisted)
        missing = [directory for directory in unwatched if self._folder.is_directory(directory)]
        if not missing:
            self._rearm_at = 0.0
            self._problems.remove(WATCHER)
            return
        if self._rearm_at:  # a new watcher has not reached them either, so it is not a race with `mkdir`
            self._report(
                f"{len(missing)} of {len(intake.scanner.directories)} directories are not watched: changes in them are found "
                f"every {self.resync_seconds:g} s",
                f"raise fs.inotify.max_user_watches (sysctl; now {inotify_limit('max_user_watches') or 'unknown'})",
            )
        if now >= self._rearm_at:
            self._rearm_at = now + self.resync_seconds
            self._rearm()

    def _check_sources(self) -> None:
        sources, now = self._sources, time.monotonic()
        self._source_watchers.watch_only(sources.names)
        if now >= self._rewatch_at:
            self._rewatch_at = now + self.resync_seconds
            self._source_watchers.retry_unwatched()
        for name in sources.names:
            source = sources.source(name)
            sources.set_unwatched(name, self._source_watchers.watch(name, source.root, source.directories))

    def _rearm(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        self.start()
        self._intake.hint_all()

    def _report(self, message: str, hint: str) -> None:
        self._problems.set(Problem(WATCHER, "degraded", message, hint, warning=True))
