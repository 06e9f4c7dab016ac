"""Count the processor's instructions of the hot paths: a save, an append, the parse of a file, a prompt, a retrieve.

    python tests/benchmarks/instructions.py

Counts are the same on a busy machine as on a quiet one. valgrind's callgrind counts, in one process, between two calls
of the C library that nothing else makes. Builds of Python differ, and so the counts are brought to one scale: a piece of
plain Python is counted, too, and stands for `UNIT` instructions. `BOUNDS` has for each path what
tests/system/test_instructions.py accepts; this program prints the present counts, to set them anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARGIN = 1.15
"""How much more than the count in `BOUNDS` is accepted."""

BOUNDS = {
    "save": 1055,
    "another": 1350,
    "append": 2785,
    "parse": 330,
    "prompt": 310,
    "retrieve": 204,
}
"""Thousands of instructions of each path, as this program last printed them; `another` is a save of a block
that was not saved of late, `parse` is of two files."""

UNIT = 2_250_000
"""How many instructions the plain Python of `_plain` stands for: what it takes of a Python 3.11 built without profiles."""

_TIMES = 10
"""How often each path is followed. The first few times, which fill caches, are not counted."""


def counts() -> dict[str, float]:
    """Thousands of instructions of each path. Raises RuntimeError if valgrind has not counted."""
    from support import RedisServer, valkey_binary

    home = Path(tempfile.mkdtemp(prefix="blocksd-instructions-"))
    server = RedisServer(valkey_binary())
    server.start()
    try:
        return _read(home, _run(home, server.url))
    finally:
        server.remove()
        shutil.rmtree(home)


def _run(home: Path, url: str) -> list[str]:
    """Follow all paths under valgrind; their names, in the order of the files that it wrote."""
    environ = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPYCACHEPREFIX": str(home / "compiled")}
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Once without valgrind, so that everything is compiled: that would take most of the time.
    program = [sys.executable, __file__, "--follow"]
    subprocess.run([*program, str(home / "first"), url, "first"], env=environ, check=True, stdout=subprocess.DEVNULL)
    words = [
        "valgrind",
        "--tool=callgrind",
        f"--callgrind-out-file={home}/counts",
        "--dump-line=no",
        "--instr-atstart=no",
    ]
    words += ["--zero-before=getpgid", "--dump-before=getsid", *program, str(home / "counted"), url, "counted"]
    done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"valgrind ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout.split()


def _read(home: Path, names: list[str]) -> dict[str, float]:
    """The counts of the files that valgrind wrote, on one scale."""
    found = {}
    for number, name in enumerate(names, 1):
        text = (home / f"counts.{number}").read_text(errors="replace")
        summary = re.search(r"^(?:summary|totals): (\d+)", text, re.MULTILINE)
        if summary is None:
            raise RuntimeError(f"valgrind has not counted {name}")
        found[name] = int(summary[1]) / _TIMES
    scale = UNIT / found.pop("plain")
    return {name: count * scale / 1000 for name, count in found.items()}


# --- below: the process that valgrind runs ---


def _follow(home: Path, url: str, namespace: str) -> None:
    is_to_count = namespace == "counted"
    for name, path in _paths(home, url, namespace):
        for prepared in (path, *[path] * 2):
            prepared()
        if is_to_count:
            _count()
            is_to_count = False
        os.getpgid(0)
        for _ in range(_TIMES):
            path()
        os.getsid(0)
        print(name, flush=True)


def _count() -> None:
    """Have valgrind begin to count: before, it is four times as fast. It looks for orders while the process computes."""
    switch = subprocess.Popen(["callgrind_control", "--instr=on", str(os.getpid())], stdout=subprocess.DEVNULL)
    while switch.poll() is None:
        pass
    assert switch.returncode == 0


def _plain() -> None:
    """Plain Python of many kinds: calls, attributes, texts, containers, JSON, regular expressions."""
    words: dict[str, list[int]] = {}
    for number in range(200):
        word = f"{number % 47:>4}".strip()
        words.setdefault(word, []).append(number)
        if re.match(r"(\d)\1", word) is not None:
            words[word] = sorted(words[word], key=lambda one: -one)
    text = json.dumps(words)
    assert json.loads(text) == words
    assert text.encode().decode().replace(" ", "").split(",")


def _paths(home: Path, url: str, namespace: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Each path, ready to be followed."""
    from blocksd.client.blocking.client import Client
    from blocksd.files.document import Parser
    from blocksd.model.prompt import compile_rows
    from blocksd.protocol.sight import Look

    yield "plain", _plain
    daemon = Alone(home, url, namespace)
    yield "save", daemon.save
    yield "another", daemon.save_another
    yield "append", daemon.append
    heads = [
        f"---\ndescription: Topic {number}.\nlimit: {4000 + number}\nagents: [ann, bob]\n---\n" for number in (1, 2)
    ]
    texts = [(head + _BODY).encode() for head in heads]

    def parse() -> None:
        for text in texts:  # the frontmatter is another one each time
            parser.parse(text, "notes")

    parser = Parser()
    yield "parse", parse
    client = Client(url, namespace)
    transport = client._transport
    look = Look(transport.keys, "ann")
    second = transport.ask(*look.second_commands(transport.ask(*look.first_commands())))

    def prompt() -> None:
        sight = look.sight(second)
        assert sight is not None
        assert len(compile_rows(sight.rows)) > len(_BODY)

    yield "prompt", prompt
    yield "retrieve", lambda: client.blocks.retrieve("topic7")
    client.close()
    daemon.close()


_BODY = "A line of text, as people write them into memory blocks.\n" * 18


class Alone:
    """The core without threads, on a clock of its own, of a folder of twenty blocks."""

    def __init__(self, home: Path, url: str, namespace: str, *, durability: str = "process") -> None:
        from blocksd.core.core import Core
        from blocksd.core.listener import Listener
        from blocksd.files.folder import Folder
        from blocksd.journal.journal import Journal
        from blocksd.mirror.connection import connect
        from blocksd.mirror.keys import Keys
        from blocksd.mirror.mirror import Mirror
        from blocksd.settings.config import Config

        self._namespace = namespace
        self._root = home / "blocks.d"
        self._root.mkdir(parents=True)
        for number in range(20):
            self._write(number, "")
        self._now = 1000.0
        self._journal = Journal(str(home / "journal.db"), boot_id="one")
        self.client: Any = connect(url)
        about = dict.fromkeys(("directory", "host", "machine", "folder_id", "pid", "started_at"), "x")
        self._mirror = Mirror(
            self.client, Keys(namespace), url=url, epoch=self._journal.epoch, token="run-1", about=about
        )
        config = Config(folder=str(self._root), namespace=namespace, durability=durability)
        self.core = Core(Folder(str(self._root)), self._journal, self._mirror, [Listener()], config, clock=self._clock)
        for _ in range(20):
            self._round()
            self._now += 1
        self._number = 0

    def _clock(self) -> float:
        return self._now

    def _write(self, number: int, more: str) -> None:
        path = self._root / ".new"
        path.write_text(f"---\ndescription: Topic {number}.\nlimit: 900000\nagents: [ann]\n---\n{_BODY}{more}\n")
        path.rename(self._root / f"topic{number}.md")

    def _round(self) -> None:
        for _ in self.core.round():
            pass
        self._mirror.wait()

    def save(self) -> None:
        """A file is saved, and the change is in Redis."""
        self._number += 1
        self._write(self._number % 7, f"line {self._number}")
        seq = self._journal.seq
        self.core.intake.hint_file(f"topic{self._number % 7}.md", closed=True)
        self._round()
        assert self._journal.seq == seq + 1
        assert self._mirror.place is not None
        assert self._mirror.place.seq == seq + 1

    def save_another(self) -> None:
        """The same, of a block that was not saved of late, among very many: what is remembered of some is not of it."""
        state, parser = self.core.state, self.core.intake.parser
        state.recent.clear()
        state.others.clear()
        parser.forget(f"topic{(self._number + 1) % 7}")
        self.save()

    def append(self) -> None:
        """A request is carried out, and its reply is in Redis."""
        for _ in self.append_round():
            pass
        self._mirror.wait()
        self.take_reply()

    def append_round(self) -> Iterator[str]:
        """The round in which a request that was just sent is carried out."""
        from blocksd.requests.request import Entry

        self._number += 1
        self._now += 0.01
        request: dict[str, Any] = {"id": f"r{self._number}", "op": "append", "name": f"topic{7 + self._number % 7}"}
        request["args"] = {"content": f"line {self._number}"}
        id_ = self.client.xadd(f"{self._namespace}:inbox:ann", {"request": json.dumps(request)})
        self.core.inbox.add([Entry("ann", id_, json.dumps(request))])
        return self.core.round()

    def take_reply(self) -> None:
        """See that the last request was done."""
        reply = json.loads(self.client.lpop(f"{self._namespace}:reply:ann:r{self._number}"))
        assert reply["ok"], reply

    def close(self) -> None:
        self._journal.close()
        self.client.close()


def main() -> None:
    """Print the counts, as `BOUNDS` has them."""
    if sys.argv[1:2] == ["--follow"]:
        _follow(Path(sys.argv[2]), *sys.argv[3:])
        return
    for name, count in counts().items():
        print(f'    "{name}": {count:.0f},')


if __name__ == "__main__":
    main()
