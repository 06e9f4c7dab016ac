"""Keeps rendered files up to date: a change of a memory, or of a file, wakes it."""

from __future__ import annotations

import math
import os
import select
import shlex
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blocksd.assistants.rendered_file import Outcome, RenderedFile
from blocksd.client.blocking.reading import look
from blocksd.client.watch import Watch
from blocksd.errors import BlocksdError, NotFound
from blocksd.files import inotify
from blocksd.model.prompt import compile_prompt, style_of
from blocksd.protocol.watching import Watching

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blocksd.client.blocking.transport import Transport
    from blocksd.model.prompt import Style
    from blocksd.monitoring.events import Level

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
"""Seconds until what failed is tried again; twice as many each time."""
_SAVED = inotify.CLOSE_WRITE | inotify.MOVED_TO


@dataclass(frozen=True, slots=True)
class Output:
    """A file to keep up to date, and what of an agent's memory is in it."""

    agent: str
    path: str
    style: Style | None = None
    sources: tuple[str, ...] | None = None
    max_files_open: int | None = None

    def compiled(self, transport: Transport) -> str:
        """Read the agent's memory, and return its text.

        Raises:
            NotFound: the agent is not known.
            Unavailable: Redis does not serve, or has no mirror.
        """
        sight = look(transport, self.agent)
        return compile_prompt(
            list(sight.blocks.values()),
            style=self.style or style_of(sight.agent_type),
            sources=[one for one in sight.sources if self.sources is None or one.name in self.sources],
            max_files_open=self.max_files_open,
        )


@dataclass(slots=True)
class _Kept:
    """An output as the renderer keeps it. `memory` is the text that its file is to have; None: not known yet."""

    output: Output
    file: RenderedFile
    memory: str | None = None
    told: str = ""  # what is wrong with it, as it was said last
    is_due: bool = True
    is_failing: bool = False  # and tried again after a pause
    written_at: float = -math.inf
    watched: set[int] = field(default_factory=set)


class Renderer:
    """Follows the agents of some outputs until it is stopped.

    A file in which a person has edited the text between the markers is left alone and reported, once, until it is put right.
    """

    def __init__(
        self,
        outputs: Sequence[Output],
        connect: Callable[[], Transport],
        say: Callable[[str, Level], None],
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        """`connect` finds the server, and raises Unavailable as long as there is none. `say` takes lines for the log.

        `ready` is called once each file was looked at: it is up to date, or was said why it is not.
        """
        self._ready = ready
        self._kept = [_Kept(output, RenderedFile(output.path, output.agent)) for output in outputs]
        self._connect = connect
        self._say = say
        self._transport: Transport | None = None
        self._watches: dict[str, Watch] = {}
        self._woken: set[str] = set()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._wakes, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._told_unreachable = ""
        self._pause = _FIRST_PAUSE
        self._retry_at = math.inf
        self._inotify: inotify.Inotify | None = None

    def stop(self) -> None:
        """Have `run` return soon; also from a signal's handler."""
        self._stopped.set()
        self._ring()

    def run(self) -> None:
        """Write all files now, and again whenever they are out of date, until `stop`."""
        try:
            self._inotify = inotify.Inotify()
        except OSError as error:
            self._say(f"edits of the files are seen late: there are no file events ({error.strerror})", "warning")
        try:
            while not self._stopped.is_set():
                for kept in self._kept:
                    if kept.is_due:
                        kept.is_due = False
                        kept.is_failing = not self._refresh(kept)
                self._ready()
                self._ready = lambda: None
                self._plan_retry()
                self._wait()
        finally:
            self._close()

    def _plan_retry(self) -> None:
        if not any(kept.is_failing for kept in self._kept):
            self._retry_at, self._pause = math.inf, _FIRST_PAUSE
        elif self._retry_at <= time.monotonic() or self._retry_at == math.inf:
            self._retry_at = time.monotonic() + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)

    def _wait(self) -> None:
        """Wait until an output may be out of date, or those that failed are to be tried again."""
        handles = [self._wakes, *([self._inotify.handle] if self._inotify is not None else [])]
        left = self._retry_at - time.monotonic()
        select.select(handles, (), (), None if left == math.inf else max(left, 0.0))
        with suppress(BlockingIOError):
            os.read(self._wakes, 4096)
        with self._lock:
            woken, self._woken = self._woken, set()
        for kept in self._kept:
            if kept.output.agent in woken:
                kept.memory, kept.is_due = None, True
            elif kept.is_failing and self._retry_at <= time.monotonic():
                kept.is_due = True
        for kept in self._touched():
            kept.is_due = True

    def _touched(self) -> list[_Kept]:
        """Return the outputs whose files were saved, or whose directories changed."""
        if self._inotify is None:
            return []
        events = self._inotify.read()
        if any(event.mask & inotify.OVERFLOW for event in events):
            return self._kept
        found = []
        for kept in self._kept:
            names = {os.fsencode(os.path.basename(path)) for path in (kept.file.target, kept.output.path)}
            ours = [event for event in events if event.watch in kept.watched]
            if any(event.name in names or event.mask & inotify.IGNORED for event in ours):
                found.append(kept)
        return found

    def _refresh(self, kept: _Kept) -> bool:
        """Bring one file up to date. Return False if that has failed, and is to be tried again without a change."""
        is_new = kept.memory is None
        try:
            if kept.memory is None:
                kept.memory = kept.output.compiled(self._following(kept.output.agent))
                self._told_unreachable = self._told(self._told_unreachable, "", "the memories can be read again")
        except NotFound as error:
            # Its change wakes this. The file keeps the agent's last memory: a person may want it.
            kept.told = self._told(kept.told, f"{kept.output.path} waits: {error.message}", "")
            return True
        except BlocksdError as error:
            self._told_unreachable = self._told(
                self._told_unreachable, f"the memories cannot be read: {error.message}", ""
            )
            return False
        self._watch_directories(kept)
        try:
            # Another program may write the same part again and again: then the two take turns with pauses.
            is_rival = time.monotonic() - kept.written_at < _FIRST_PAUSE and not is_new
            outcome = kept.file.update(kept.memory, may_write=not is_rival)
        except BlocksdError as error:
            hint = error.facts.get("hint")
            kept.told = self._told(kept.told, f"{error.message}{f' ({hint})' if hint else ''}", "")
            return "line" in error.facts  # broken markers: a save of the file wakes this
        if outcome is Outcome.STALE:
            return False
        if outcome is Outcome.EDITED:
            kept.told = self._told(kept.told, edited(kept.file), "")
            return True
        kept.told = self._told(kept.told, "", f"{kept.output.path} is in order again")
        if outcome is Outcome.WRITTEN:
            kept.written_at = time.monotonic()
            self._say(f"wrote the memory of {kept.output.agent} to {kept.output.path}", "info")
        return True

    def _told(self, before: str, now: str, over: str) -> str:
        """Say what is wrong once when it starts, and once when it ends; return what is wrong now."""
        if now and now != before:
            self._say(now, "warning")
        elif before and not now and over:
            self._say(over, "info")
        return now

    def _following(self, agent: str) -> Transport:
        """Return the connection to read an agent's memory from, which is followed from then on."""
        if self._transport is None:
            self._transport = self._connect()
        if agent not in self._watches:
            watching = Watching(self._transport.keys, agent=agent)
            self._watches[agent] = Watch(self._transport, watching, lambda _: self._rouse(agent))
        return self._transport

    def _rouse(self, agent: str) -> None:
        with self._lock:
            self._woken.add(agent)
        self._ring()

    def _ring(self) -> None:
        with suppress(BlockingIOError, OSError):  # full: it rings already
            os.write(self._wake, b"x")

    def _watch_directories(self, kept: _Kept) -> None:
        """Hear of saves of the file, and of another file in its place, from now on."""
        if self._inotify is None:
            return
        path = os.path.abspath(os.path.expanduser(kept.output.path))
        kept.watched.clear()
        for directory in {os.path.dirname(path), os.path.dirname(kept.file.target)}:
            with suppress(OSError):  # it is not there, which the file's update tells
                kept.watched.add(self._inotify.add(os.fsencode(directory), _SAVED | inotify.ONLYDIR))

    def _close(self) -> None:
        for watch in self._watches.values():
            watch.stop()
        for watch in self._watches.values():
            watch.close()
        if self._transport is not None:
            self._transport.close()
        if self._inotify is not None:
            self._inotify.close()
        wakes, self._wakes, self._wake = (self._wakes, self._wake), -1, -1
        for handle in wakes:
            os.close(handle)


def edited(file: RenderedFile) -> str:
    """Return a sentence about a file whose text between the markers was edited, with what to do."""
    command = shlex.join(("blocksd", "render", file.agent, "--output", file.path, "--discard-edits"))
    return (
        f"{file.path} was edited between the markers of blocksd, below line {file.edited_line}, and is left as it is: move "
        f"the edit above or below the markers, or into a block, then run: {command}"
    )
