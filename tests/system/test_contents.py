"""What a file's content comes to, as people see it: in `blocksd check`, in the mirror, in the daemon that lives on."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faulty import BAD, GOOD
from support import eventually

if TYPE_CHECKING:
    from collections.abc import Callable

    from support import Daemon, RedisServer

    RunDaemon = Callable[..., Daemon]


def write_all(folder: Path) -> None:
    for name, bad in BAD.items():
        (folder / f"bad-{name}.md").write_bytes(bad.data)
    for name, (data, _) in GOOD.items():
        (folder / f"good-{name}.md").write_bytes(data)


def assert_said(problems: dict[str, dict[str, Any]]) -> None:
    assert set(problems) == {f"bad-{name}.md" for name in BAD}
    for name, bad in BAD.items():
        problem = problems[f"bad-{name}.md"]
        assert bad.message in problem["message"]
        assert problem["line"] == bad.line
        assert problem["hint"]


def check(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "blocksd", "check", str(folder), *words]
    environ = {**os.environ, "BLOCKSD_CONFIG": os.devnull}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, env=environ)


def test_check_says_what_is_wrong(folder: Path) -> None:
    """`blocksd check` names each bad file, the line, and what to do, and exits with 1; without bad files, with 0."""
    write_all(folder)
    (folder / "good-tab.md").write_text("---\nreadonly: true\n---\n")
    result = check(folder, "--format", "json")
    assert (result.returncode, result.stderr) == (1, "")
    report = json.loads(result.stdout)
    problems = {problem["subject"]: problem for problem in report["problems"]}
    assert problems.pop("good-tab.md")["warning"]
    assert_said(problems)
    assert report["blocks"] == len(GOOD)
    result = check(folder)
    assert (result.returncode, result.stderr) == (1, "")
    for name, bad in BAD.items():
        place = f"bad-{name}.md:{bad.line}: " if bad.line else f"bad-{name}.md: "
        assert re.search(f"^{re.escape(place)}.*{re.escape(bad.message)}", result.stdout, re.MULTILINE)
        (folder / f"bad-{name}.md").unlink()
    assert f"{len(GOOD)} blocks in order, {len(BAD)} problems, 1 warning" in result.stdout
    assert check(folder).returncode == 0


def test_daemon_serves_the_good_and_reports_the_bad(folder: Path, server: RedisServer, run_daemon: RunDaemon) -> None:
    """Bad files, found at start or saved later, are in `blocks:problems`, `status` and the log once; the rest is served."""
    write_all(folder)
    daemon = run_daemon()
    client = server.client()

    def problems() -> dict[str, Any]:
        return {path: json.loads(text) for path, text in client.hgetall("blocks:problems").items()}

    assert_said(problems())
    for name, (_, value) in GOOD.items():
        assert client.hget(f"blocks:block:good-{name}", "value") == value
    status = daemon.command("status", "--json")
    assert status.returncode == 1
    assert {problem["subject"] for problem in json.loads(status.stdout)["problems"]} == set(problems())
    for name in BAD:
        assert daemon.said().count(f" bad-{name}.md") == 1
    for name in BAD:
        (folder / f"bad-{name}.md").write_text("mended\n")
    eventually(lambda: problems() == {}, "all are cleared")
    for name, bad in BAD.items():
        (folder / f"bad-{name}.md").write_bytes(bad.data)
    eventually(lambda: len(problems()) == len(BAD))
    assert_said(problems())
    for name in BAD:
        assert client.hget(f"blocks:block:bad-{name}", "value") == "mended"
    assert daemon.process is not None
    assert daemon.process.poll() is None
    client.close()


def test_huge_files_take_no_memory(folder: Path, server: RedisServer, run_daemon: RunDaemon) -> None:
    """Files of a gigabyte, and one that grows and grows, are problems; the daemon's memory stays what it was."""
    (folder / "notes.md").write_text("one\n")
    daemon = run_daemon()
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status")

    def peak() -> int:
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0])

    client = server.client()
    before = peak()
    for number in range(5):
        with (folder / f"sparse-{number}.md").open("wb") as file:
            file.truncate(1 << 30)
    with (folder / "growing.md").open("wb", buffering=0) as growing:
        for number in range(64):
            growing.write(b"x" * 262_144)
            if number % 16 == 15:
                (folder / "notes.md").write_text(f"seen at {number}\n")
                eventually(lambda: client.hget("blocks:block:notes", "value") == f"seen at {number}")  # noqa: B023  # here
    eventually(lambda: client.hlen("blocks:problems") == 6)
    assert peak() - before < 16 * 1024
    client.close()
