"""Fixtures: real servers and daemons, each in a directory of its own."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING
from zlib import crc32

import hypothesis
import pytest
from _pytest.pathlib import import_path
from xdist.scheduler import LoadScopeScheduling

from followers import Hosts
from support import Changes, Daemon, RedisServer, Spares, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from xdist.remote import Producer

hypothesis.settings.register_profile("same", derandomize=os.environ.get("BLOCKSD_TEST_EXAMPLES") != "other")
hypothesis.settings.load_profile("same")

# In the background of a shell SIGINT is ignored; what tests start would ignore it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Hundreds of daemons and commands are started: without what Python has compiled before, each takes half a second more.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

MEMORY = "/dev/shm"
"""Where the tests have their files: what is synced there costs nothing. Slow tests, and those of files, have them on a disk."""
ROOM = 1 << 30  # bytes; a quarter is needed, unless much fails

MOST_PROCESSES = 16
"""How many processes share the tests at most, however many processors there are."""


def pytest_configure(config: pytest.Config) -> None:
    """Let pytest make its temporary directories in memory."""
    if config.getoption("markexpr") == "not slow" and os.access(MEMORY, os.W_OK):
        room = os.statvfs(MEMORY)
        if room.f_bavail * room.f_frsize > ROOM:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


def pytest_collection(session: pytest.Session) -> None:
    """Ten thousand tests are no garbage: let them be found without looking for any among them, here …

    In a fresh checkout most of this time goes to rewriting the assertions: each process does it for a share of the files.
    """
    gc.disable()
    worker = getattr(session.config, "workerinput", None)
    if worker is not None and session.config.args == session.config.getini("testpaths"):
        files = sorted(session.config.rootpath.glob("tests/*/**/test_*.py"))
        for path in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
            with suppress(Exception):  # it is told of when the file's turn comes
                import_path(path, mode="importlib", root=session.config.rootpath, consider_namespace_packages=False)


def pytest_collection_finish() -> None:
    """… nor each time that any is looked for later."""
    gc.freeze()
    gc.enable()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """Two processes for each processor, as half of the time a test waits; tests named one by one need no other process."""
    if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ:
        return None  # xdist reads it
    if all("::" in argument for argument in config.args):
        return 0
    return min(2 * len(os.sched_getaffinity(0)), MOST_PROCESSES)


WHOLE = (
    *("test_api_changes.py", "test_api_routes.py", "test_api_session.py", "test_client.py", "test_evidence.py"),
    *("test_gateway_access.py", "test_gateway_garbage.py", "test_letta_routes.py", "test_mcp_http.py"),
    *("test_mcp_resources.py", "test_mcp_tools.py", "test_memory_tool.py", "test_readme.py", "test_systemd.py"),
    *("test_wheel.py", "test_writing_client.py"),
)
"""Files whose tests share what takes long to make, so that one process runs all tests of a file."""
HALVED = "test_page.py"
"""The file whose tests share a browser, a daemon and a gateway, and are too many for one process: two share them."""


class Schedule(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
    """Gives each process that is free one test after the other, or all cases of a unit test, or a whole file.

    (The mark `xdist_group` of xdist 3.8 does nothing with pytest 9.2.)
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        if path.endswith(WHOLE):
            return path
        if path.endswith(HALVED):
            return f"{path}:{crc32(nodeid.encode()) % 2}"
        return nodeid.partition("[")[0] if path.startswith("tests/unit/") else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Schedule | None:
    """Return the schedule, unless another one is asked for."""
    return Schedule(config, log) if config.getoption("dist") == "load" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say why tests were skipped: one line for each reason."""
    skipped = [report.longrepr for report in terminalreporter.stats.get("skipped", [])]
    reasons = Counter(where[2].removeprefix("Skipped: ") for where in skipped)
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"SKIPPED {count}: {reason}")


@pytest.fixture(scope="session")
def spares() -> Iterator[Spares]:
    """Servers to be lent."""
    made = Spares()
    yield made
    made.close()


@pytest.fixture
def server(spares: Spares) -> Iterator[RedisServer]:
    """A running server (Valkey), empty, that a test may kill, restart and set up in another way."""
    with spares.lend(valkey_binary()) as lent:
        yield lent


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder of blocks."""
    path = tmp_path / "blocks.d"
    path.mkdir()
    return path


@pytest.fixture
def run_daemon(tmp_path: Path, folder: Path, server: RedisServer) -> Iterator[Callable[..., Daemon]]:
    """Start a daemon on `folder` and `server`, ready; all are ended with the test."""
    started: list[Daemon] = []

    def run(*options: str, state: str = "state", ready: bool = True, under: Sequence[str] = (), **env: str) -> Daemon:
        daemon = Daemon(folder, tmp_path / state, "--redis", server.url, *options, env=env, under=under)
        started.append(daemon)
        return daemon.start(ready=ready)

    yield run
    for daemon in started:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()


@pytest.fixture
def hosts(server: RedisServer, tmp_path: Path) -> Iterator[Hosts]:
    """A leader and its followers, none of which runs yet."""
    made = Hosts(server, tmp_path)
    yield made
    made.end()


@pytest.fixture
def changes(server: RedisServer, folder: Path) -> Iterator[Changes]:
    """What is announced from now on."""
    heard = Changes(server, folder)
    yield heard
    heard.close()
