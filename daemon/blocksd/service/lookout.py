"""Has the folder and the sources watched, as far as they can be."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, NamedTuple

from blocksd.files.watcher import Hint, Watcher, Watchers, inotify_limit
from blocksd.model.label import is_ignored
from blocksd.model.problem import WATCHER, Problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.core.intake import Intake
    from blocksd.files.folder import Folder
    from blocksd.model.problems import Problems
    from blocksd.monitoring.events import Notices
    from blocksd.sources.sources import Sources


class SourceHint(NamedTuple):
    """Look here, in this source."""

    source: str
    hint: Hint


class Lookout:
    """The watchers of the folder and of the sources. They put hints into `sink`; whoever takes one out passes it on here.

    A watcher that has failed is begun again, and all that it watches is looked at. What cannot be watched is a problem:
    changes there are found every `resync_seconds`.
    """

    def __init__(
        self,
        folder: Folder,
        intake: Intake,
        problems: Problems,
        sources: Sources,
        sink: Callable[[Hint | SourceHint], object],
        notices: Notices,
        *,
        resync_seconds: float,
    ) -> None:
        """`folder` is what `intake` looks at."""
        self.resync_seconds = resync_seconds
        self._folder = folder
        self._intake = intake
        self._problems = problems
        self._sources = sources
        self._sink = sink
        self._notices = notices
        self._root = folder.root
        self._watcher: Watcher | None = None
        self._source_watchers = Watchers(
            lambda name, hint: sink(SourceHint(name, hint)), wanted=lambda name: not is_ignored(name)
        )
        self._rewatch_at = 0.0  # when to try other watchers for sources
        self._rearm_at = 0.0  # when to try another watcher for directories without a watch; 0: there are none

    def start(self) -> None:
        """Watch the folder; the sources follow."""
        self._root = self._folder.root  # which is another when the folder is a symlink that is switched
        watcher = Watcher(self._root, self._sink)
        try:
            watcher.start()
        except OSError as error:
            self._degraded(
                f"the folder cannot be watched: {error.strerror or error}",
                "raise fs.inotify.max_user_instances and fs.inotify.max_user_watches (sysctl)",
            )
            return
        self._watcher = watcher

    def keep(self) -> None:
        """Once a second: see whether all that is there is watched, and mend what is not."""
        self._keep_sources()
        if not os.path.isdir(self._folder.root):
            return
        watcher = self._watcher
        if watcher is None or self._root != self._folder.root or not watcher.is_healthy():
            self._rearm()
        else:
            self._see_what_is_watched(watcher)

    def stop(self) -> None:
        """Stop watching."""
        self._source_watchers.stop()
        if self._watcher is not None:
            self._watcher.stop()

    @property
    def is_watching(self) -> bool:
        """Whether file events come in from the folder that is there now."""
        return self._watcher is not None and self._watcher.is_healthy()

    @property
    def watches(self) -> int:
        """How many of the user's inotify watches it uses."""
        return self._source_watchers.watches + (self._watcher.watches if self._watcher is not None else 0)

    def pass_on(self, hint: Hint) -> None:
        """A hint from the folder: look there."""
        intake = self._intake
        if hint.kind == "closed" or hint.kind == "touched":
            intake.hint_file(hint.path, closed=hint.kind == "closed")
        elif hint.kind == "tree":
            intake.hint_tree(hint.path)
        else:
            self._notices.post_rarely("an overflow", "file events were lost; the whole folder is compared")
            intake.hint_all()

    def pass_on_from_source(self, name: str, hint: Hint) -> None:
        """A hint from a source: look there, if it is one still."""
        if name not in self._sources.names:  # it has gone since
            return
        source = self._sources.source(name)
        if hint.kind == "closed" or hint.kind == "touched":
            source.hint_file(hint.path, closed=hint.kind == "closed")
        else:
            source.hint_all()

    def _see_what_is_watched(self, watcher: Watcher) -> None:
        intake, now = self._intake, time.monotonic()
        # What the last sweep saw may be gone by now, and gives no events for that reason.
        root, unwatched = self._root, watcher.unwatched(intake.scanner.directories)
        missing = [directory for directory in unwatched if os.path.isdir(os.path.join(root, directory))]
        if not missing:
            self._rearm_at = 0.0
            self._problems.remove(WATCHER)
            return
        if self._rearm_at:  # not a race that events cannot show, since a new watcher has not reached them either
            self._degraded(
                f"{len(missing)} of {len(intake.scanner.directories)} directories are not watched: changes in them are found "
                f"every {self.resync_seconds:g} s",
                f"raise fs.inotify.max_user_watches (sysctl; now {inotify_limit('max_user_watches') or 'unknown'})",
            )
        if now >= self._rearm_at:
            self._rearm_at = now + self.resync_seconds
            self._rearm()

    def _keep_sources(self) -> None:
        sources, now = self._sources, time.monotonic()
        self._source_watchers.keep(sources.names)
        if now >= self._rewatch_at:
            self._rewatch_at = now + self.resync_seconds
            self._source_watchers.begin_again()
        for name in sources.names:
            source = sources.source(name)
            sources.set_unwatched(name, self._source_watchers.watch(name, source.root, source.directories))

    def _rearm(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher = None
        self.start()
        self._intake.hint_all()

    def _degraded(self, message: str, hint: str) -> None:
        self._problems.set(Problem(WATCHER, "degraded", message, hint, warning=True))
