"""Measure save → visible to another reader, of blocksd and of other programs that do this, edit by edit in turns.

    python tests/benchmarks/peers.py [--edits N] [--environment DIR]

The others are installed into an environment that is made for it, in a temporary directory or in DIR, which is kept. All
work on the same texts, in turns, with a reader that has been connected before:

- blocksd: a subscriber of its channel, and then HGETALL
- watchfiles + redis: the script that one writes in an afternoon: awatch, HSET, PUBLISH; the same reader
- basic-memory: its MCP server over standard input and output; `read_note` until the new text is there
- git: the memory of letta-code: a commit, a push to a bare repository, and a pull by the reader, as fast as they go

A row says what the way gives beside, so that nobody reads one number alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import redis
from run import BODY, Subscriber, daemon, percentile, save

from support import RedisServer, quiet_environ, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGES = ("watchfiles", "redis", "basic-memory")

_SCRIPT = """
import asyncio, sys
from pathlib import Path
import redis.asyncio, watchfiles

async def main(directory, url):
    client = redis.asyncio.Redis.from_url(url)
    await client.ping()
    print("ready", flush=True)
    async for changes in watchfiles.awatch(directory):
        for _, path in changes:
            if path.endswith(".md"):
                name = Path(path).stem
                await client.hset(f"script:{name}", "value", Path(path).read_text())
                await client.publish("script:changes", name)

asyncio.run(main(*sys.argv[1:]))
"""


def environment(directory: Path) -> Path:
    """Make the environment, unless it is there; its Python."""
    python = directory / "bin" / "python"
    if not python.exists():
        print(f"installing {', '.join(PACKAGES)} into {directory} …", file=sys.stderr, flush=True)
        venv.create(directory, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


@contextmanager
def by_blocksd(root: Path, url: str, _python: Path) -> Iterator[Callable[[int], None]]:
    folder = root / "blocks.d"
    folder.mkdir()
    (folder / "note.md").write_text(BODY)
    with daemon(folder, root / "state", url):
        yield _seen_in_redis(folder, url, "blocks:changes", "blocks:block:note")


@contextmanager
def by_script(root: Path, url: str, python: Path) -> Iterator[Callable[[int], None]]:
    folder = root / "script"
    folder.mkdir()
    words = [str(python), "-c", _SCRIPT, str(folder), url]
    with _process(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)  # it watches a moment after it says so
        yield _seen_in_redis(folder, url, "script:changes", "script:note")


def _seen_in_redis(folder: Path, url: str, channel: str, key: str) -> Callable[[int], None]:
    subscriber, reader = Subscriber(url, channel), redis.Redis.from_url(url)

    def edit(number: int) -> None:
        text = f"{BODY}{number}"
        save(folder / "note.md", text)
        while True:
            subscriber.wait()
            found: Any = reader.hgetall(key)
            if found[b"value"].decode().rstrip() == text:
                return

    return edit


@contextmanager
def by_basic_memory(root: Path, _url: str, python: Path) -> Iterator[Callable[[int], None]]:
    """Its MCP server, spoken to in lines of JSON-RPC, in a home directory for it."""
    home, folder = root / "home", root / "basic"
    folder.mkdir()
    home.mkdir()
    environ = {
        **quiet_environ(),
        "HOME": str(home),
        "BASIC_MEMORY_HOME": str(folder),
        "BASIC_MEMORY_SEMANTIC_SEARCH_ENABLED": "false",  # it would fetch a model
    }
    words = [str(python.parent / "basic-memory"), "mcp"]
    with _process(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environ) as one:
        writes, reads = one.stdin, one.stdout
        assert writes is not None
        assert reads is not None
        sent = 0

        def ask(method: str, **params: object) -> Any:
            nonlocal sent
            sent += 1
            writes.write(json.dumps({"jsonrpc": "2.0", "id": sent, "method": method, "params": params}) + "\n")
            writes.flush()
            for line in reads:
                answer = json.loads(line)
                if answer.get("id") == sent:
                    return answer["result"]
            raise RuntimeError("basic-memory has ended")

        about = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "peers", "version": "1"}}
        ask("initialize", **about)
        writes.write(json.dumps({"jsonrpc": "2.0", "method": "notifications/initialized"}) + "\n")
        writes.flush()
        head = "---\ntitle: note\ntype: note\npermalink: note\n---\n"

        def edit(number: int) -> None:
            save(folder / "note.md", f"{head}{BODY}number {number}\n")
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline:
                result = ask("tools/call", name="read_note", arguments={"identifier": "note"})
                if f"number {number}\n" in json.dumps(result).replace("\\n", "\n").replace("\\", ""):
                    return
            raise TimeoutError(f"basic-memory does not show the save: {json.dumps(result)[:300]}")

        yield edit


@contextmanager
def by_git(root: Path, _url: str, _python: Path) -> Iterator[Callable[[int], None]]:
    """Two clones of a bare repository on this machine: no network, no hooks, nobody else who pushes."""
    bare, writer, reader = root / "bare.git", root / "writer", root / "reader"

    def git(where: Path, *words: str) -> None:
        subprocess.run(["git", *words], cwd=where, check=True, capture_output=True, env=quiet_environ())

    git(root, "init", "--quiet", "--bare", "--initial-branch=main", str(bare))
    git(root, "clone", "--quiet", str(bare), str(writer))
    (writer / "note.md").write_text(BODY)
    for words in (
        ("checkout", "-q", "-B", "main"),
        ("add", "."),
        ("commit", "-qm", "first"),
        ("push", "-q", "-u", "origin", "main"),
    ):
        git(writer, *words)
    git(root, "clone", "--quiet", str(bare), str(reader))

    def edit(number: int) -> None:
        text = f"{BODY}{number}"
        save(writer / "note.md", text)
        for where, words in (
            (writer, ("commit", "-qam", f"edit {number}")),
            (writer, ("push", "-q")),
            (reader, ("pull", "-q", "--ff-only")),
        ):
            git(where, *words)
        assert (reader / "note.md").read_text() == text

    yield edit


@contextmanager
def _process(words: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(words, text=True, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


WAYS = {
    "blocksd": (by_blocksd, "each version kept, checked, numbered; the reader is told"),
    "watchfiles + redis, a script": (by_script, "the reader is told; nothing is kept, a restart misses what changed"),
    "basic-memory, read_note over MCP": (by_basic_memory, "search and links; the reader asks again"),
    "git: commit, push, pull": (
        by_git,
        "each version kept, over any network; the reader pulls, and three programs start",
    ),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=100)
    parser.add_argument("--environment", type=Path, metavar="DIR")
    parser.add_argument("--only", action="append", choices=[name.partition(" ")[0].rstrip(":,") for name in WAYS])
    arguments = parser.parse_args()
    server = RedisServer(valkey_binary())
    server.start()
    with ExitStack() as stack:
        root = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="blocksd-peers-", ignore_cleanup_errors=True))
        )
        stack.callback(server.remove)
        python = environment(arguments.environment or root / "environment")
        edits, times = {}, {}
        for number, (name, (way, _)) in enumerate(WAYS.items()):
            if arguments.only and name.partition(" ")[0].rstrip(":,") not in arguments.only:
                continue
            place = root / str(number)
            place.mkdir()
            edits[name], times[name] = stack.enter_context(way(place, server.url, python)), list[float]()
        for number in range(arguments.edits + 3):
            for name, edit in edits.items():
                begin = time.perf_counter()
                edit(number)
                if number >= 3:
                    times[name].append(time.perf_counter() - begin)
                time.sleep(0.02)  # what a program does after it is seen
        print(f"{'save → visible to another reader':<36} {'p50':>10} {'p99':>10}  what it gives beside")
        for name, took in times.items():
            p50, p99 = statistics.median(took) * 1000, percentile(took, 0.99) * 1000
            print(f"{name:<36} {p50:>7.1f} ms {p99:>7.1f} ms  {WAYS[name][1]}")


if __name__ == "__main__":
    main()
