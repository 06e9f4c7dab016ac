"""Somebody new who does what a document says, word for word, in a clone and a home directory of their own."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import signal
import struct
import subprocess
import sys
import sysconfig
import termios
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
import redis

from blocksd.files.document import Parser
from blocksd.settings import loading
from fenced import ROOT, copy_sample
from gateways import free_port
from support import DEADLINE, eventually, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fenced import Fenced

TOOLS = ("redis-cli", "vim", "npm", "node", "curl")
"""What a document asks for besides Python."""

RUNS_ON = {
    r"blocksd run": r"ready: \d+ blocks",
    r"^blocksd follow (?!--)": r"ready: \d+ files",
    r"^blocksd serve": r"serving at",
    r"^blocksd watch$": "following changes",
    r"^redis-cli .* subscribe ": "subscribe",
    r"^python (follow|every_change)\.py$": "",
    r"^node follow(_changes)?\.mjs$": "",
    r"^curl -sN ": "id: ",
}
"""Commands that go on until they are stopped, each in a terminal of its own, and what they say when they are ready."""

WHEN_SETTLED = ("blocksd status", "blocksd doctor")
"""Commands that exit with another code than 0 while the last save is on its way."""

PORTS = ("8283", "9283")
"""The ports at which a document has the gateway listen, first the default."""

FOLLOWS = re.compile(r"subscribe|follow\.|every_change|api/changes")
"""Those of them that say something of each change."""

HANDS = {"vim blocks.d/persona.md": ("Go", "I ask when I am not sure.", "\x1b", ":wq\r")}
"""What a person types, once the editor is there."""

ELSEWHERE = {
    ".ci/run": (".ci/run", "# What CI runs"),
    "python3 -m venv .venv && .venv/bin/pip install --quiet --editable '.[test]' && .venv/bin/pytest": (
        ".ci/run",
        "'/<!-- test -->/,",
    ),
    "python3 -m venv .venv && .venv/bin/pip install --editable '.[dev]'": (
        ".ci/run",
        ".venv/bin/pip install --quiet --editable '.[dev]'",
    ),
    ".venv/bin/ruff check && .venv/bin/ruff format --check": (".ci/run", ".venv/bin/ruff format --check"),
    ".venv/bin/mypy": (".ci/run", ".venv/bin/mypy"),
    ".venv/bin/pytest": (".ci/run", "'/<!-- test -->/,"),
    ".venv/bin/pytest -m slow": (".ci/run", ".venv/bin/pytest -m slow"),
    ".venv/bin/python -m blocksd.cli.manual > daemon/man/blocksd.1": (
        "daemon/blocksd/cli/manual.py",
        "daemon/man/blocksd.1",
    ),
}
"""Commands that are not run here: which file has them run, and by which words in it."""

OF_MODELS = re.compile(r"(?:echo '[^']+' \| )?python (\w*agents?\w*\.py) [\w.-]+")
"""Commands that run an agent: tests/system/test_model_sdks.py runs these programs, with a model."""

_KEPT = re.compile(r"\. \S+|\w+=.*")  # of use to what comes after it in the same terminal
_ANSI = re.compile(r"\x1b(?:\[[0-9;?<>=]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\^_()][0-9A-B]?|[=>])")
_VARIES = (
    (r"\d\d:\d\d:\d\d", r"\d\d:\d\d:\d\d"),
    (r"127\.0\.0\.1:\d+", r"127\.0\.0\.1:\d+"),
    (r"Valkey [\d.]+", r"(?:Valkey|Redis) [\d.]+"),
    (r"…", r".*"),
)
_SAME = frozenset(("kind", "code", "message", "hint", "ok"))
"""The keys of a JSON example whose values are what the daemon says, not only of its type."""


class Terminal:
    """A command in a terminal: what it has said so far, and somebody to type."""

    def __init__(self, command: str, *, directory: Path, environment: dict[str, str]) -> None:
        self.command = command
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 500, 0, 0))  # so wide that no line is broken
        self.process = subprocess.Popen(
            ["bash", "-c", command],
            cwd=directory,
            env=environment,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)
        self._said = b""
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with suppress(OSError):  # the other end is closed
            while data := os.read(self._master, 65536):
                self._said += data

    def said(self) -> str:
        """All of it, as plain text."""
        return _ANSI.sub("", self._said.decode(errors="replace")).replace("\r", "")

    def wait_for(self, pattern: str, *, seconds: float = DEADLINE) -> None:
        def is_there() -> bool:
            if self.process.poll() is not None and not re.search(pattern, self.said()):
                pytest.fail(f"{self.command} ended: {self.said()}")
            return bool(re.search(pattern, self.said()))

        eventually(is_there, f"{self.command} says {pattern}; it said: {self.said()}", seconds=seconds)

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def end(self) -> None:
        """End all that was started in it, as closing the terminal does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(10)


class Newcomer:
    """What they have so far: files, terminals, and what was said and replied."""

    def __init__(self, directory: Path, *, is_installed: bool = False) -> None:
        """With `is_installed`, the clone has a `.venv` with the package."""
        self.clone = directory / "blocksd"
        self.home = directory / "home"
        self.home.mkdir()
        left_out = shutil.ignore_patterns(".git", ".*cache", ".venv", ".hypothesis", "__pycache__", "node_modules")
        shutil.copytree(ROOT, self.clone, ignore=left_out)
        shutil.rmtree(self.clone / "blocks.d")
        copy_sample(self.clone)
        if is_installed:
            install(self.clone / ".venv")
        mine = ("BLOCKSD_", "XDG_STATE", "XDG_CONFIG_HOME", "VIRTUAL_ENV", "STATE_DIRECTORY")
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(mine)},
            "HOME": str(self.home),
            "TERM": "xterm",
            "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR", os.path.expanduser("~/.cache/pip")),
        }
        self._ports = {port: str(free_port()) for port in PORTS}
        self._environment["BLOCKSD_LISTEN"] = self._ports[PORTS[0]]
        self._kept: list[str] = []
        self.terminals: list[Terminal] = []
        self.heard: list[dict[str, Any]] = []
        self.replies: list[dict[str, Any]] = []
        self._last = ""
        self._edits = 0
        self._client: Any = None

    def do(self, block: Fenced) -> None:
        """Do what one code block says; fail when it does not come true, or nobody knows what it is."""
        ways: dict[str, Callable[[Fenced], None]] = {
            "console": self._console,
            "text": self._text,
            "json": self._json,
            "python": self._program,
            "html": self._program,
            "javascript": self._program,
            "toml": self._settings,
            "markdown": self._block_file,
        }
        if block.language not in ways:
            pytest.fail(f"nobody knows what to do with {block.language!r}")
        ways[block.language](block)

    # --- commands ---

    def _console(self, block: Fenced) -> None:
        commands: list[tuple[str, list[str]]] = []
        for line in block.text.splitlines():
            if line.startswith("$ "):
                commands.append((line.removeprefix("$ "), []))
            else:
                commands[-1][1].append(line)
        for command, output in commands:
            self.enter(command)
            if output:
                self._expect("\n".join(output))

    def enter(self, command: str) -> None:
        """Type one command."""
        if OF_MODELS.fullmatch(command):
            return
        if command in ELSEWHERE:
            file, words = ELSEWHERE[command]
            assert words in (ROOT / file).read_text(encoding="utf-8")
            return
        for tool in TOOLS:
            if command.startswith(f"{tool} "):
                require(tool)
        if command.startswith("node ") and not (self.clone / "node_modules").exists():
            pytest.skip("npm has installed nothing")
        if _KEPT.fullmatch(command):
            self._kept.append(command)
        ready = next((ready for pattern, ready in RUNS_ON.items() if re.search(pattern, command)), None)
        if ready is not None:
            self._leave_running(command, ready)
        elif command in HANDS:
            self._edit(command, HANDS[command])
        else:
            self._run(command)

    def _whole(self, command: str) -> str:
        return self._here("\n".join([*self._kept, command]))

    def _here(self, text: str) -> str:
        """Return a text with ports that are free here: others may run the same document."""
        for port, free in self._ports.items():
            text = text.replace(port, free)
        return text

    def _terminal(self, command: str) -> Terminal:
        terminal = Terminal(self._whole(command), directory=self.clone, environment=self._environment)
        self.terminals.append(terminal)
        return terminal

    def _done(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", self._whole(command)],
            cwd=self.clone,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )

    def _run(self, command: str) -> None:
        done = self._done(command)
        if command in WHEN_SETTLED and done.returncode:
            eventually(lambda: is_well(self._done(command)), f"{command} says that all is well: {done.stdout}")
            self._last = done.stdout + done.stderr
            return
        if done.returncode and "install" in command and os.environ.get("BLOCKSD_TEST_TOOLS") != "required":
            pytest.skip(f"{command}: {done.stderr[-200:]}")  # no network, most likely
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        self._last = done.stdout + done.stderr
        replies = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"id"')]
        self.replies += replies
        if command.startswith("redis-cli "):  # which takes an error, or no answer in time, for a success
            assert done.stdout.strip(), f"{command} got no answer"
            assert not re.match(r"[A-Z]+ ", done.stdout), f"{command}: {done.stdout}"
            assert all(reply["ok"] for reply in replies), f"{command}: {done.stdout}"

    def _leave_running(self, command: str, ready: str) -> None:
        terminal = self._terminal(command)
        terminal.wait_for(ready, seconds=100 if "install" in command else DEADLINE)
        if FOLLOWS.search(command):
            self._edit_until(lambda: re.search(r"updated\W.*persona", terminal.said()), f"{command} tells of edits")

    def _edit(self, command: str, keys: tuple[str, ...]) -> None:
        terminal = self._terminal(command)
        terminal.wait_for(re.escape(command.rpartition(" ")[2]) + r'" \d+')
        for some in keys:
            terminal.type(some)
        assert terminal.process.wait(DEADLINE) == 0

    def _edit_until(self, condition: Callable[[], Any], what: str) -> None:
        """Save a block again and again, each time with another text."""
        persona = self.clone / "blocks.d" / "persona.md"
        before = persona.read_text(encoding="utf-8")

        def is_so() -> Any:
            self._edits += 1
            persona.write_text(f"{before}I am edit {self._edits}.\n", encoding="utf-8")
            return condition()

        eventually(is_so, what)

    # --- what is said ---

    def _text(self, block: Fenced) -> None:
        if block.mark.startswith("drawing"):  # tests/unit/test_architecture.py looks at it
            return
        self._expect(block.text.rstrip("\n"))

    def _expect(self, text: str) -> None:
        """These lines are what a terminal says, one after the other, but for what is different each time."""
        pattern = r"\n.*?".join(map(self._pattern, text.splitlines()))

        def is_said() -> bool:
            said = [self._last, *(terminal.said() for terminal in self.terminals)]
            return any(re.search(f"^{pattern}$", one, re.MULTILINE) for one in said)

        eventually(is_said, f"somebody says {text!r}; said was {[t.said() for t in self.terminals]}")

    def _pattern(self, line: str) -> str:
        line = line.replace("/home/you/blocksd", str(self.clone)).replace("/home/you", str(self.home))
        rest = line
        pattern = ""
        while rest:
            found = [(one.start(), one.end(), by) for what, by in _VARIES if (one := re.search(what, rest))]
            start, end, by = min(found, default=(len(rest), len(rest), ""))
            pattern += re.escape(rest[:start]) + by
            rest = rest[end:]
        return pattern

    @property
    def client(self) -> Any:
        """A client of the daemon's own server."""
        if self._client is None:
            url = (self.home / ".local/state/blocksd/blocks/redis-url").read_text(encoding="utf-8").strip()
            self._client = redis.Redis.from_url(url, decode_responses=True)
        return self._client

    def announced(self) -> Iterator[dict[str, Any]]:
        """All changes that are known to have been announced."""
        for _, fields in self.client.xrange("blocks:changes"):
            yield json.loads(fields["change"])
        yield from self.heard

    def _json(self, block: Fenced) -> None:
        for document in documents(block.text):
            self._see_whether_true(document)

    def _see_whether_true(self, document: dict[str, Any]) -> None:
        if "op" in document:
            self.ask(document)
            assert self.replies[-1]["ok"], self.replies[-1]
            return
        if "ok" in document:
            real = self.replies
        elif "kind" in document:
            real = list(self.announced())
        elif "since" in document:
            real = [one["problem"] for one in self.heard if "problem" in one]
        else:
            pytest.fail(f"nobody knows what this is: {document}")
        assert any(is_like(document, one) for one in real), f"{document} is like none of {real}"

    def ask(self, request: dict[str, Any], actor: str | None = None) -> dict[str, Any]:
        """Send a request, as the agent support-2 or, where it has no `name`, as operator, and wait for its reply."""
        of_all = request["op"] in ("batch", "accept_deletions")
        is_operators = "label" in request or "agent" in request.get("args", {}) or of_all
        actor = actor or ("operator" if is_operators else "support-2")
        self.client.delete(f"blocks:reply:{actor}:{request['id']}")
        self.client.xadd(f"blocks:inbox:{actor}", {"request": json.dumps(request)})
        found = self.client.blpop([f"blocks:reply:{actor}:{request['id']}"], timeout=4)
        assert found is not None, f"no reply to {request}"
        reply: dict[str, Any] = json.loads(found[1])
        self.replies.append(reply)
        return reply

    # --- programs and files ---

    def _program(self, block: Fenced) -> None:
        kind, _, name = block.mark.partition(": ")
        if kind == "file":
            (self.clone / name).write_text(self._here(block.text), encoding="utf-8")
        elif kind == "from":
            assert block.text.rstrip() in (ROOT / name).read_text(encoding="utf-8")
        elif kind == "example" and block.language == "python":
            self._run_example(block)
        else:
            pytest.fail("it is not said what this program is: a file, an example, or from which file it is")

    def _run_example(self, block: Fenced) -> None:
        (self.clone / "example.py").write_text(block.text, encoding="utf-8")
        terminal = self._terminal("python example.py")
        self._edit_until(lambda: terminal.process.poll() is not None, f"{block} ends; it said {terminal.said()}")
        assert terminal.process.returncode == 0, terminal.said()

    def _settings(self, block: Fenced) -> None:
        """Put the file there, and start the daemon again."""
        name = block.mark.removeprefix("file: ")
        (self.clone / name).write_text(block.text, encoding="utf-8")
        loaded = loading.load({}, path=str(self.clone / name), environ={})
        assert all(not source.mistake for source in loaded.sources)
        daemon = next(one for one in self.terminals if "blocksd run" in one.command and one.process.poll() is None)
        daemon.end()
        self._client = None
        self.enter("blocksd run blocks.d")

    def _block_file(self, block: Fenced) -> None:
        _, warnings = Parser().parse(block.text.encode(), "block")
        assert not warnings

    def end(self) -> None:
        """Close all terminals, the last opened first."""
        if self._client is not None:
            self._client.close()
        for terminal in reversed(self.terminals):
            terminal.end()


def is_well(done: subprocess.CompletedProcess[str]) -> bool:
    """Return True if a command says that all is well; `doctor` may warn of the disk that the tests are on."""
    return done.returncode == 0 or "checks: 0 problems" in done.stderr


def install(venv: Path) -> None:
    """Make a virtual environment with the packages of the one that runs this test: in a moment, and without network."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    places = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    borrowed = "".join(f"import site; site.addsitedir({place!r})\n" for place in places)
    (own,) = venv.glob("lib/python*/site-packages")
    (own / "borrowed.pth").write_text(borrowed, encoding="utf-8")
    for name, module in (("blocksd", "blocksd.cli.main"), ("pip", "pip._internal.cli.main")):
        script = venv / "bin" / name
        code = f"import sys\nfrom {module} import main\nsys.exit(main())\n"
        script.write_text(f"#!{venv}/bin/python\n{code}", encoding="utf-8")
        script.chmod(0o755)


def documents(text: str) -> list[dict[str, Any]]:
    """A JSON example: one value, or one on each line."""
    try:
        return [json.loads(text)]
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def is_like(example: object, real: object, key: str = "") -> bool:
    """Whether both have the same keys and types, and say the same where that is not a matter of the moment."""
    if key in _SAME:
        return example == real
    if example is None or real is None:
        return True
    if isinstance(example, dict) and isinstance(real, dict):
        return example.keys() == real.keys() and all(is_like(example[name], real[name], name) for name in example)
    if isinstance(example, list) and isinstance(real, list):
        return not example or not real or is_like(example[0], real[0])
    return type(example) is type(real)
