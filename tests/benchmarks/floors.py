"""The floors: the bare system calls and Redis commands each benchmark is held against."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import json
import os
import select
import signal
import socket
import sqlite3
import struct
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis
import yaml
from hiredis import pack_command
from woken import STEPS, best_quarter

if TYPE_CHECKING:
    from collections.abc import Callable

IN_CLOSE_WRITE, IN_MOVED_TO = 0x8, 0x80
_IN_CREATE_AND_GONE = 0x340  # which a daemon hears of, too
_EVENT = struct.Struct("iIII")
_libc = ctypes.CDLL(None)
_SHOW = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 'lease' end
local place = redis.call('HMGET', KEYS[2], 'epoch', 'seq')
if place[1] ~= ARGV[2] or place[2] ~= ARGV[3] then return 'place' end
redis.call('HSET', ARGV[5], unpack(ARGV, 9))
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[6])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', '100000', ARGV[4] .. '-0', 'change', ARGV[7])
redis.call('PUBLISH', KEYS[3], ARGV[7])
redis.call('PUBLISH', ARGV[8], ARGV[7])
redis.call('HSET', KEYS[2], 'seq', ARGV[4])
return 'ok'
"""
"""What the mirror's script does with one save: shows and announces it, if the lease is ours and the mirror in place."""


def inotify_loop(directory: str, url: str, *, is_pipelined: bool = False) -> None:
    """Read each saved file, HSET and PUBLISH: what any program that does the job must at least do.

    The second waits for the reply to the first, or both are sent at once.
    """
    libc = ctypes.CDLL(None)
    handle = libc.inotify_init1(0)
    libc.inotify_add_watch(handle, os.fsencode(directory), IN_CLOSE_WRITE | IN_MOVED_TO)
    client = redis.Redis.from_url(url)
    client.ping()
    print("ready", flush=True)
    while True:
        buffer = os.read(handle, 65536)
        at = 0
        names = set()
        while at < len(buffer):
            _, _, _, length = _EVENT.unpack_from(buffer, at)
            names.add(os.fsdecode(buffer[at + _EVENT.size : at + _EVENT.size + length].rstrip(b"\0")))
            at += _EVENT.size + length
        for name in names:
            if name.endswith(".md"):
                with open(f"{directory}/{name}", "rb") as file:
                    value = file.read()
                sender: Any = client.pipeline(transaction=False) if is_pipelined else client
                sender.hset(f"floor:block:{name}", "value", value)
                sender.publish("floor:changes", name)
                if is_pipelined:
                    sender.execute()


def keep_saves(directory: str, url: str) -> None:
    """Do with each save what blocksd promises, in as few lines as may be; what each step took is in `floor:steps`.

    The file is read if no program is writing it, its version is committed by SQLite with the file's signature, and one
    script shows and announces it in one step. There is one block format, nothing is ever wrong, and nothing else happens.
    """
    handle = _libc.inotify_init1(os.O_NONBLOCK)
    _libc.inotify_add_watch(handle, os.fsencode(directory), IN_CLOSE_WRITE | IN_MOVED_TO | _IN_CREATE_AND_GONE)
    ready = select.epoll()
    ready.register(handle, select.EPOLLIN)
    client: Any = redis.Redis.from_url(url)
    sha = client.script_load(_SHOW)
    client.set("floor:lease", "floor")
    client.hset("floor:meta", mapping={"epoch": "floor", "seq": "0"})
    server = client.connection_pool.get_connection()._sock
    db = sqlite3.connect(f"{directory}.db", isolation_level=None)
    for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "wal_autocheckpoint=0"):
        db.execute(f"PRAGMA {pragma}")
    db.execute("CREATE TABLE revisions (seq INTEGER PRIMARY KEY, label TEXT, version INTEGER, value TEXT, facts TEXT)")
    db.execute("CREATE UNIQUE INDEX of_block ON revisions (label, version)")
    db.execute("CREATE TABLE heads (label TEXT PRIMARY KEY, seq, version, mtime, ctime, size, inode) WITHOUT ROWID")
    folder, seq, versions, spent = os.open(directory, os.O_RDONLY), 0, dict[str, int](), list[tuple[float, ...]]()
    at, keys = "2026-11-27T11:18:35.640Z", ("4", "floor:lease", "floor:meta", "floor:changes", "floor:updated")
    print("ready", flush=True)
    while True:
        ready.poll()
        times = [time.perf_counter()]
        buffer, names, place = os.read(handle, 65536), [], 0
        while place < len(buffer):
            length = _EVENT.unpack_from(buffer, place)[3]
            place += _EVENT.size + length
            names.append(os.fsdecode(buffer[place - length : place].rstrip(b"\0")))
        name = names[-1]
        if not name.endswith(".md"):
            continue
        times.append(time.perf_counter())
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        text = os.read(file, status.st_size + 1).decode()
        assert os.fstat(file).st_mtime_ns == status.st_mtime_ns
        os.close(file)
        times.append(time.perf_counter())
        facts, value = text.split("\n---\n", 1)
        digest = hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
        times.append(time.perf_counter())
        seq, version = seq + 1, versions.get(name, 0) + 1
        versions[name] = version
        os.stat(f"{directory}.db")
        os.stat(f"{directory}.db-wal")
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO revisions VALUES (?, ?, ?, ?, ?)", (seq, name, version, value, facts))
        signature = (status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino)
        db.execute("INSERT OR REPLACE INTO heads VALUES (?, ?, ?, ?, ?, ?, ?)", (name, seq, version, *signature))
        db.execute("COMMIT")
        times.append(time.perf_counter())
        change = {
            "seq": seq,
            "kind": "updated",
            "label": name,
            "version": version,
            "fields": ["value"],
            "digest": digest,
        }
        fields = ("value", value, "chars", str(len(value)), "version", str(version), "digest", digest, "updated_at", at)
        wanted = ("floor", "floor", str(seq - 1), str(seq))
        shown = (
            f"floor:block:{name}",
            name,
            json.dumps(change),
            f"floor:changes:{name}",
            *fields,
            "updated_by",
            "file",
        )
        words: Any = ("EVALSHA", sha, *keys, *wanted, *shown)
        server.sendall(pack_command(words))
        times.append(time.perf_counter())
        assert b"ok" in server.recv(4096)
        spent.append((*map(float.__sub__, times[1:], times), times[-1] - times[0]))
        if len(spent) % 50 == 0:
            steps = map(best_quarter, zip(*spent, strict=True))
            client.set("floor:steps", json.dumps(dict(zip((*STEPS, "all"), steps, strict=True))))


def first_mirror(directory: str, url: str) -> int:
    """Read every file, parse its frontmatter with the C loader, HSET what it says, a hundred in one pipeline."""
    client = redis.Redis.from_url(url)
    pipeline: Any = client.pipeline(transaction=False)
    count = 0
    for path in _files(directory):
        with open(path, "rb") as file:
            text = file.read().decode()
        _, matter, value = text.split("---\n", 2)
        fields = yaml.load(matter, Loader=yaml.CSafeLoader)
        pipeline.hset(
            f"floor:block:{path}", mapping={**{key: str(said) for key, said in fields.items()}, "value": value}
        )
        count += 1
        if count % 100 == 0:
            pipeline.execute()
    pipeline.execute()
    return count


def scan(directory: str) -> int:
    """scandir and stat, nothing else."""
    count = 0
    todo = [directory]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
                else:
                    entry.stat(follow_symlinks=False)
                    count += 1
    return count


def _files(directory: str) -> list[str]:
    found = []
    for parent, _, names in os.walk(directory):
        found += [f"{parent}/{name}" for name in names]
    return found


class Appending:
    """What one durable append takes at least: request and reply, file, directory, one commit of SQLite."""

    def __init__(self, url: str, directory: Path, *, is_durable: bool) -> None:
        directory.mkdir()
        self._path = str(directory / "block.md")
        Path(self._path).write_text("begin\n")
        self._aside = str(directory / ".aside")
        self._directory = os.open(directory, os.O_RDONLY)
        self._is_durable = is_durable
        self._client: Any = redis.Redis.from_url(url)
        self._db = sqlite3.connect(directory / "floor.db", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute(f"PRAGMA synchronous={'FULL' if is_durable else 'NORMAL'}")
        self._db.execute("CREATE TABLE log (text TEXT)")

    def append(self, line: str) -> None:
        self._client.xadd("floor:inbox", {"request": line})
        text = Path(self._path).read_text() + line + "\n"
        handle = os.open(self._aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.write(handle, text.encode())
        if self._is_durable:
            os.fsync(handle)
        os.close(handle)
        self._db.execute("INSERT INTO log VALUES (?)", (text,))
        _libc.renameat2(-100, os.fsencode(self._aside), -100, os.fsencode(self._path), 2)  # RENAME_EXCHANGE
        if self._is_durable:
            os.fsync(self._directory)
        self._client.rpush("floor:reply", line)

    def close(self) -> None:
        self._db.close()
        self._client.close()
        os.close(self._directory)


def batch(op: str, directory: Path, db: sqlite3.Connection, names: list[str], text: str) -> None:
    """What a batch of `create`, `append` or `delete` takes at least: all files together, then one commit of SQLite.

    All texts are on their way to disk before the first one is waited for.
    """
    folder = os.open(directory, os.O_RDONLY)
    handles = []
    for name in names if op != "delete" else ():
        handle = os.open(f"{directory}/.{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(handle, text.encode())
        _libc.sync_file_range(handle, ctypes.c_int64(0), ctypes.c_int64(0), 2)
        handles.append(handle)
    for handle in handles:
        os.fsync(handle)
        os.close(handle)
    os.fsync(folder)
    db.execute("BEGIN")
    db.executemany("INSERT INTO log VALUES (?)", ((f"{name}{text}",) for name in names))
    db.execute("COMMIT")
    for name in names:
        if op == "delete":
            os.unlink(f"{directory}/{name}")
        else:
            os.rename(f"{directory}/.{name}", f"{directory}/{name}")
    os.fsync(folder)
    os.close(folder)


def serve_appends(directory: str, url: str, durability: str) -> None:
    """Carry out appends as they come, all that are waiting at a time: what any such program must at least do.

    It speaks as blocksd does, in the namespace `floor`, so that the same clients can ask either.
    """
    client: Any = redis.Redis.from_url(url, decode_responses=True, socket_timeout=None, legacy_responses=False)
    db = sqlite3.connect(f"{directory}/floor.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute(f"PRAGMA synchronous={'FULL' if durability == 'disk' else 'NORMAL'}")
    db.execute("CREATE TABLE log (text TEXT)")
    folder = os.open(directory, os.O_RDONLY)
    cursor = "0"
    print("ready", flush=True)
    while True:
        (entries,) = client.xread({"floor:inbox:operator": cursor}, count=64, block=0).values()
        staged = []
        for cursor, fields in entries:  # noqa: B007  # the last one is where to go on
            request = json.loads(fields["request"])
            path = f"{directory}/{request['label']}.md"
            with open(path, encoding="utf-8") as file:
                text = file.read() + request["args"]["content"] + "\n"
            handle = os.open(f"{path}.aside", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(handle, text.encode())
            if durability == "disk":
                _libc.sync_file_range(handle, ctypes.c_int64(0), ctypes.c_int64(0), 2)
            staged.append((request, path, text, handle))
        for _, _, _, handle in staged:
            if durability == "disk":
                os.fsync(handle)
            os.close(handle)
        db.execute("BEGIN")
        db.executemany("INSERT INTO log VALUES (?)", ((text,) for _, _, text, _ in staged))
        db.execute("COMMIT")
        for _, path, _, _ in staged:
            _libc.renameat2(-100, os.fsencode(f"{path}.aside"), -100, os.fsencode(path), 2)
        if durability == "disk":
            os.fsync(folder)
        pipeline: Any = client.pipeline(transaction=False)
        for (entry_id, _), (request, _, text, _) in zip(entries, staged, strict=True):
            pipeline.hset(f"floor:block:{request['label']}", "value", text)
            pipeline.publish("floor:changes", request["label"])
            pipeline.rpush(f"floor:reply:operator:{request['id']}", '{"ok": true}')
            pipeline.xdel("floor:inbox:operator", entry_id)
        pipeline.execute()


def serve_http(_: str, url: str, port: str) -> None:
    """Answer a bare Starlette route with the JSON of one HGETALL."""
    import asyncio

    import uvicorn
    from redis.asyncio import Redis as AsyncRedis
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    client: Any = AsyncRedis.from_url(url, decode_responses=True)

    async def block(request: Any) -> JSONResponse:
        return JSONResponse(await client.hgetall(f"blocks:block:{request.path_params['label']}"))

    app = Starlette(routes=[Route("/block/{label:path}", block)])
    config = uvicorn.Config(app, port=int(port), log_level="warning", access_log=False)
    print("ready", flush=True)
    asyncio.run(uvicorn.Server(config).serve())


def serve_streams(_: str, url: str, port: str) -> None:
    """Write each message of a channel to all sockets that are connected, one after the other."""
    client: Any = redis.Redis.from_url(url, socket_timeout=None)
    listener = socket.create_server(("127.0.0.1", int(port)), backlog=2048)
    pubsub = client.pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe("floor:changes")
    print("ready", flush=True)
    clients: list[socket.socket] = []
    while True:
        for ready in select.select([listener, pubsub.connection._sock], [], [])[0]:
            if ready is listener:
                one, _peer = listener.accept()
                one.recv(4096)
                one.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n:\n\n\r\n")
                clients.append(one)
            elif (message := pubsub.get_message()) is not None:
                event = b"id: 1\nevent: change\ndata: %s\n\n" % message["data"]
                for one in clients:
                    one.sendall(b"%x\r\n%s\r\n" % (len(event), event))


SERVING: dict[str, Callable[..., None]] = {
    "saves": inotify_loop,
    "saves_pipelined": partial(inotify_loop, is_pipelined=True),
    "saves_kept": keep_saves,
    "appends": serve_appends,
    "http": serve_http,
    "streams": serve_streams,
}

if __name__ == "__main__":
    SERVING[sys.argv[1]](*sys.argv[2:])
