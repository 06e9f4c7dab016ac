"""The log: one event per line, with its level, whoever reads it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import LeaseLost, Misconfigured, Unavailable
from blocksd.model.faults import Fault
from blocksd.model.problem import Problem, reverted
from blocksd.model.revision import Revision
from blocksd.monitoring.log import EventLog, _LibraryLog
from blocksd.requests.reply import Answer, accepted, refused
from blocksd.requests.request import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

AT = "2026-11-20T09:00:00.000Z"
REVISION = Revision(6, "notes", 2, "updated", None, AT, AT, "support-1", fields=("value",), attached=("ann",))
ANSWER = Answer(Entry("support-1", "1-0", "{}"), "r1", accepted("r1", {"seq": 6}, "")[1], "append")
EVENTS: dict[str, tuple[str, Callable[[EventLog], object]]] = {
    "revision": ("info", lambda log: log.on_revision(REVISION)),
    "request": ("debug", lambda log: log.on_request(ANSWER, 0.0042)),
    "problem": ("error", lambda log: log.on_problem(Problem("bad.md", "problem_file", "no", "do", line=3))),
    "warning": ("warning", lambda log: log.on_problem(Problem("odd.md", "warning", "odd", warning=True))),
    "cleared": ("info", lambda log: log.on_cleared(Problem("bad.md", "problem_file", "no"))),
    "away": ("warning", lambda log: log.on_mirror_unreachable(Unavailable("it does not serve", url="redis://here"))),
    "refused": (
        "error",
        lambda log: log.on_mirror_unreachable(Misconfigured("it refuses the login", url="redis://here")),
    ),
    "level": ("info", lambda log: log.on_mirror_in_sync("rebuilt")),
    "repaired": ("warning", lambda log: log.on_repaired(2)),
    "fault": ("error", lambda log: log.on_fault(Fault("reading", "KeyError", "x.py:3", "line\n  more"), is_new=True)),
    "note": ("error", lambda log: log.on_notice("not well", "error")),
    "stop": ("info", lambda log: log.on_stop()),
    "failure": ("error", lambda log: log.on_failure(Misconfigured("no Redis", key="redis"), "give one")),
}


def said(level: str = "debug", *, as_json: bool = False, event: str | None = None) -> list[str]:
    """The lines of one event, or of all."""
    stream = io.StringIO()
    log = EventLog(stream, level=level, as_json=as_json)
    log._is_ready = True
    for name, (_, tell) in EVENTS.items():
        if event in (None, name):
            tell(log)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("event", EVENTS)
def test_every_event_is_one_line_with_its_level(event: str) -> None:
    """As text with a time, as JSON with the level by name."""
    (line,) = said(event=event)
    assert re.match(r"\d\d:\d\d:\d\d \S", line)
    (line,) = said(event=event, as_json=True)
    shown = json.loads(line)
    assert shown["level"] == EVENTS[event][0]
    assert {"at", "event", "message"} <= shown.keys()


@pytest.mark.parametrize("level", ["error", "warning", "info", "debug"])
def test_level_is_the_least_that_is_said(level: str) -> None:
    """What matters less is left out, alike in both forms."""
    levels = ["error", "warning", "info", "debug"]
    wanted = [one for one, _ in EVENTS.values() if levels.index(one) <= levels.index(level)]
    assert [json.loads(line)["level"] for line in said(level, as_json=True)] == wanted
    assert len(said(level)) == len(wanted)


def test_words_for_people() -> None:
    """Each says what happened to what, and what to do."""
    lines = [line[9:] for line in said()]
    assert lines == [
        "updated notes v2 (value) by support-1 +ann",
        "request: append by support-1: ok, 4.2 ms",
        "problem: bad.md:3: no (do)",
        "warning: odd.md: odd",
        "cleared: bad.md",
        "Redis is unreachable: it does not serve; changes are still journaled",
        "Redis is unreachable: it refuses the login; changes are still journaled",
        "the mirror is in sync again (rebuilt)",
        "the mirror differed in 2 places and was repaired",
        "failed reading, which is a fault in blocksd: KeyError at x.py:3; line\\n  more",
        "not well",
        "stopped",
        "no Redis (give one)",
    ]


def test_facts_for_programs() -> None:
    """Nothing need be parsed out of a message, and no fact can pass for the event or its level."""
    events = {json.loads(line)["event"]: json.loads(line) for line in said(as_json=True)}
    assert (events["updated"]["seq"], events["updated"]["fields"]) == (6, ["value"])
    assert (events["request"]["op"], events["request"]["outcome"], events["request"]["seconds"]) == (
        "append",
        "ok",
        0.0042,
    )
    assert (events["problem"]["subject"], events["problem"]["line"], events["problem"]["hint"]) == ("bad.md", 3, "do")
    stream = io.StringIO()
    log = EventLog(stream, as_json=True)
    log.on_mirror_unreachable(LeaseLost("taken", holder={"pid": 7}, event="x", level="y", at="z"))
    shown = json.loads(stream.getvalue())
    assert (shown["event"], shown["level"], shown["holder"]) == ("away", "warning", {"pid": 7})
    assert shown["at"] != "z"


def test_outcome_of_a_refused_request() -> None:
    """Its code is in the log; what was no request at all is called that."""
    stream = io.StringIO()
    log = EventLog(stream, level="debug")
    log.on_request(Answer(ANSWER.entry, "r2", refused("r2", Unavailable("later")), "update"), 1.0)
    log.on_request(Answer(ANSWER.entry, None, None), 0.0)
    assert [line[9:] for line in stream.getvalue().splitlines()] == [
        "request: update by support-1: unavailable, 1000.0 ms",
        "request: an invalid request by support-1: invalid_request, 0.0 ms",
    ]


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_ends_a_line_early(*, as_json: bool) -> None:
    """Line ends of any kind, and what moves a terminal's cursor, are escaped."""
    stream = io.StringIO()
    EventLog(stream, as_json=as_json).on_notice("a\nb\r\nc\x1b[2Jd\x85e\u2028f\x00", "warning")
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    if as_json:
        assert json.loads(line)["message"] == "a\nb\r\nc\x1b[2Jd\x85e\u2028f\x00"
    else:
        assert line.endswith(r"a\nb\r\nc\x1b[2Jd\x85e\u2028f\x00")


def test_journal_of_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There each line begins with its priority, and the time is the journal's; only if it is the journal indeed."""
    path = tmp_path / "journal"
    with path.open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log = EventLog(stream, level="debug")
        for _, tell in EVENTS.values():
            tell(log)
        log.as_json = True
        log.on_repaired(1)
    lines = path.read_text().splitlines()
    assert lines[0] == "<7>request: append by support-1: ok, 4.2 ms"  # the first mirroring is one event
    assert lines[1] == "<3>problem: bad.md:3: no (do)"
    assert lines[2] == "<4>warning: odd.md: odd"
    assert lines[3] == "<6>cleared: bad.md"
    assert lines[-1].startswith('<4>{"at": ')
    with (tmp_path / "another").open("w") as stream:
        EventLog(stream).on_stop()
    assert re.fullmatch(r"\d\d:\d\d:\d\d stopped\n", (tmp_path / "another").read_text())


def test_level_again_needs_to_have_been_away() -> None:
    """A mirror whose lease had only run out was never said to be away; one that was built anew is news anyhow."""
    stream = io.StringIO()
    log = EventLog(stream)
    log.on_mirror_in_sync("level")  # the first time
    log._is_ready = True
    log.on_mirror_in_sync("level")
    assert stream.getvalue() == ""
    log.on_mirror_unreachable(Unavailable("gone"))
    log.on_mirror_in_sync("level")
    log.on_mirror_in_sync("level")
    log.on_mirror_in_sync("caught up")
    assert [line[9:] for line in stream.getvalue().splitlines()[1:]] == [
        "the mirror is in sync again",
        "the mirror is in sync again (caught up)",
    ]


def test_full_disk_does_not_stop_anything() -> None:
    """What cannot be logged is not."""
    with open("/dev/full", "w", encoding="utf-8") as stream:
        log = EventLog(stream)
        log.on_notice("text", "error")
        log.on_stop()
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # so that closing succeeds


@pytest.fixture
def captured(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """A log that has captured what libraries say, until the end of the test."""
    stream = io.StringIO()
    for module, name in ((threading, "excepthook"), (sys, "excepthook")):
        monkeypatch.setattr(module, name, getattr(module, name))
    root, before = logging.getLogger(), logging.getLogger().handlers[:]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        EventLog(stream).capture()
        yield stream
        logging.captureWarnings(capture=False)
    root.handlers[:] = before


def test_libraries_are_heard_in_one_line(captured: io.StringIO) -> None:
    """From warnings on, whatever they log it with."""
    logging.getLogger("redis.connection").info("nothing")
    logging.getLogger("redis.connection").warning("odd: %s", "a\nb")
    warnings.warn("deprecated", UserWarning, stacklevel=1)
    first, second = captured.getvalue().splitlines()
    assert first.endswith(r"redis.connection: odd: a\nb")
    assert "UserWarning: deprecated" in second


def test_libraries_go_on_when_their_record_is_wrong(captured: io.StringIO) -> None:
    """An event loop would end with the error of its own log."""
    record = logging.LogRecord("asyncio", logging.ERROR, "", 1, "%d of %d", ("none",), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _LibraryLog):  # the others are pytest's, which raise
            handler.handle(record)
    assert "asyncio: '%d of %d' (TypeError in its arguments)" in captured.getvalue()


WITHOUT_DESCRIPTORS = """
import logging, os, resource
from blocksd.monitoring.log import EventLog
EventLog().capture()
most = max(map(int, os.listdir("/proc/self/fd")))
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
try:
    [os.dup(2) for _ in range(most + 1)]
except OSError as error:
    logging.getLogger("asyncio").error("the socket cannot be accepted", exc_info=error)
"""


def test_process_without_descriptors_logs_on() -> None:
    """Nothing is read from a file for the first line that has a control character."""
    words = [sys.executable, "-c", WITHOUT_DESCRIPTORS]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert r"the socket cannot be accepted; Traceback (most recent call last):\n" in done.stderr
    assert "Too many open files" in done.stderr


def test_thread_that_dies_again_and_again_is_said_once(captured: io.StringIO) -> None:
    """With its traceback, in one line; what it dies of next is another matter."""

    def die(error: Exception) -> None:
        thread = threading.Thread(target=_raise, args=(error,), name="inbox")
        thread.start()
        thread.join()

    for error in (ValueError("first"), ValueError("first"), KeyError("second")):
        die(error)
    first, second = captured.getvalue().splitlines()
    assert "the thread inbox has died, which is a fault in blocksd: ValueError('first'); Traceback" in first
    assert "KeyError" in second


def test_death_of_the_process_is_one_line(captured: io.StringIO) -> None:
    """The traceback is in it."""
    try:
        _raise(RuntimeError("a\nb"))
    except RuntimeError as error:
        sys.excepthook(type(error), error, error.__traceback__)
    (line,) = captured.getvalue().splitlines()
    assert r"blocksd has died, which is a fault in blocksd: RuntimeError('a\nb'); Traceback" in line
    assert "in _raise" in line


def _raise(error: Any) -> None:
    raise error


@pytest.mark.parametrize("as_json", [True, False])
def test_renaming_says_from_what(*, as_json: bool) -> None:
    """The label before is in the line, for people and for programs."""
    stream = io.StringIO()
    log = EventLog(stream, level="info", as_json=as_json)
    log._is_ready = True
    log.on_revision(Revision(7, "goals", 3, "renamed", None, AT, AT, "file", fields=("label",), renamed_from="plan"))
    line = stream.getvalue()
    assert "renamed goals v3 (from plan)" in line
    assert not as_json or json.loads(line)["from"] == "plan"


@pytest.mark.parametrize("as_json", [False, True])
def test_text_that_a_save_takes_away_is_one_line(*, as_json: bool) -> None:
    """A warning with the command that brings it back; a problem that no line has told, as of a lost merge, has a line."""
    stream = io.StringIO()
    log = EventLog(stream, level="warning", as_json=as_json)
    log._is_ready = True
    taking = Revision(7, "notes", 3, "updated", None, AT, AT, "file", fields=("value",), reverts=(2,))
    log.on_revision(taking)
    log.on_problem(reverted(taking))
    (line,) = stream.getvalue().splitlines()
    assert "took away text of v2; to bring it back: blocksd merge notes" in line
    log.on_revision(REVISION)
    log.on_problem(reverted(taking))
    assert "a save, version 3 of 'notes', took away text of version 2" in stream.getvalue().splitlines()[-1]


def test_progress_of_long_work_is_logged_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every ten seconds, where no terminal shows a bar; what takes less has no line, nor have few files."""
    now = 100.0
    monkeypatch.setattr("blocksd.monitoring.log.time.monotonic", lambda: now)
    text, facts = io.StringIO(), io.StringIO()
    logs = [EventLog(text, doing="copying"), EventLog(facts, as_json=True)]
    for total, seconds in ((400, 60), (4000, 9), (40_000, 25)):
        for second in range(seconds):
            now += 1
            for log in logs:
                log.on_progress(second * total // seconds, total - second * total // seconds)
        for log in logs:
            log.on_progress(total, 0)
    lines = [line.split(" ", 1)[1] for line in text.getvalue().splitlines()]
    assert lines == ["copying: 16,000 of 40,000 files", "copying: 32,000 of 40,000 files"]
    found = [json.loads(line) for line in facts.getvalue().splitlines()]
    assert [(one["event"], one["done"], one["left"]) for one in found] == [
        ("progress", 16_000, 24_000),
        ("progress", 32_000, 8_000),
    ]
