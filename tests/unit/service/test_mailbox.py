"""The main loop waits once: for threads, for signals, and for what can be read."""

from __future__ import annotations

import os
import queue
import selectors
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from blocksd.service.mailbox import Mailbox
from support import DEADLINE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@pytest.fixture
def mailbox() -> Iterator[Mailbox[str]]:
    made: Mailbox[str] = Mailbox()
    yield made
    made.close()


def taken(mailbox: Mailbox[str]) -> list[str]:
    found = []
    while not mailbox.is_empty:
        found.append(mailbox.get())
    return found


def test_news_of_a_thread_end_the_wait(mailbox: Mailbox[str]) -> None:
    """Those that come during the wait, and those that were there before."""
    thread = threading.Timer(0.02, lambda: mailbox.put("late"))
    thread.start()
    begin = time.monotonic()
    mailbox.wait(DEADLINE)
    assert taken(mailbox) == ["late"]
    thread.join()
    mailbox.put("early")
    mailbox.wait(DEADLINE)
    assert taken(mailbox) == ["early"]
    assert time.monotonic() - begin < DEADLINE


def test_no_news_are_missed(mailbox: Mailbox[str]) -> None:
    """However the threads that put them in and the loop meet."""

    def put() -> None:
        for number in range(2000):
            mailbox.put(f"{number}")

    threads = [threading.Thread(target=put) for _ in range(3)]
    for thread in threads:
        thread.start()
    count = 0
    while count < 6000:
        mailbox.wait(DEADLINE)
        found = taken(mailbox)
        assert found, "news came, and the loop went on waiting"
        count += len(found)
    for thread in threads:
        thread.join()


def test_a_signal_ends_the_wait(mailbox: Mailbox[str]) -> None:
    """What its handler puts in comes at once."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        mailbox.put("signal")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        thread = threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        thread.start()
        mailbox.wait(DEADLINE)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert taken(mailbox) == ["signal"]


def test_what_can_be_read_is_read(mailbox: Mailbox[str]) -> None:
    """Also while news wait, and when nothing is waited for; if that makes no news, the wait goes on until its end."""
    reader, writer = os.pipe()
    read: list[bytes] = []

    def take() -> None:
        read.append(os.read(reader, 10))
        if read[-1] == b"news":
            mailbox.put("from the pipe")

    mailbox.selector.register(reader, selectors.EVENT_READ, take)
    try:
        os.write(writer, b"nothing")
        begin = time.monotonic()
        mailbox.wait(0.05)
        assert (time.monotonic() - begin >= 0.05, read, taken(mailbox)) == (True, [b"nothing"], [])
        os.write(writer, b"news")
        mailbox.wait(DEADLINE)
        assert taken(mailbox) == ["from the pipe"]
        mailbox.put("a thread")
        os.write(writer, b"news")
        mailbox.wait(DEADLINE)
        assert taken(mailbox) == ["a thread", "from the pipe"]
        os.write(writer, b"news")
        mailbox.wait(0)
        assert taken(mailbox) == ["from the pipe"]
    finally:
        mailbox.selector.unregister(reader)
        os.close(reader)
        os.close(writer)
    with pytest.raises(queue.Empty):
        mailbox.get()
