"""The one wait of the main loop: for news from threads, and for handles that can be read."""

from __future__ import annotations

import os
import queue
import selectors
import time
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """News that any thread may put in, and a selector, both of which the main loop waits for at once.

    What is registered with the selector has as data what reads it, which the main loop calls: so file events reach it
    without a change of threads. It returns True if there is something to do then, and nothing need be put in.
    """

    def __init__(self) -> None:
        self._news: queue.SimpleQueue[T] = queue.SimpleQueue()
        self._is_waiting = False
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self._wake, selectors.EVENT_READ, partial(os.eventfd_read, self._wake))

    def put(self, news: T) -> None:
        """Put news in, from any thread or a signal's handler."""
        self._news.put(news)
        if self._is_waiting:
            os.eventfd_write(self._wake, 1)

    @property
    def is_empty(self) -> bool:
        """True if no news wait."""
        return self._news.empty()

    def wait(self, seconds: float) -> None:
        """Read what can be read, and wait for news or something to do, at most so long. What a reader raises is raised."""
        until = time.monotonic() + seconds
        while True:
            self._is_waiting = True  # before it is seen whether there are news
            is_last = seconds <= 0 or not self._news.empty()
            ready = self.selector.select(0 if is_last else seconds)
            self._is_waiting = False
            for one, _ in ready:
                is_last = one.data() or is_last
            if is_last or not self._news.empty():
                return
            seconds = until - time.monotonic()

    def get(self) -> T:
        """Take the first of the news. Raise `queue.Empty` if there are none."""
        return self._news.get_nowait()

    def close(self) -> None:
        """Free the handles. News may still be put in, and are for nobody."""
        self.selector.close()
        os.close(self._wake)
