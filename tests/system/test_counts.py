"""Problems and warnings of a folder: everything that shows them counts them alike."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import urllib.request
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from support import DEADLINE, bound_by_rights, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import Daemon, RedisServer

PROBLEMS = {
    "a?b.md": "name",
    "unclosed.md": "frontmatter",
    "several.md": "three errors of one file",
    "latin.md": "encoding",
    "markers.md": "conflict",
    "long.md": "limit",
    "notes.sync-conflict-20261120-120000-ABCDEFG.md": "copy",
    "same.md": "label of two files",
    "fifo.md": "special",
    "outside.md": "symlink",
    "linked": "symlink to a directory",
    "locked.md": "rights",
    "closed/": "rights of a directory",
}
WARNINGS = {
    "typo.md": "two unknown keys",
    "one.md": "hard link",
    "other.md": "hard link",
    "<names>": "three misnamed files",
    "notes": "a name that the agent has already",
}


@pytest.fixture
def faulty(folder: Path, tmp_path: Path) -> Iterator[Path]:
    """A folder with every kind of problem and warning that a folder can have."""
    texts = {
        "good.md": "text\n",
        "notes.md": "---\nagents: [ann]\n---\nshared\n",
        "agents/ann/notes.md": "private\n",
        "a?b.md": "text\n",
        "unclosed.md": "---\nlimit: 5\n",
        "several.md": "---\nlimit: x\nread_only: 3\nagents: 7\n---\ntext\n",
        "markers.md": "<<<<<<< HEAD\na\n=======\nb\n>>>>>>> theirs\n",
        "long.md": "---\nlimit: 3\n---\ntoo long\n",
        "notes.sync-conflict-20261120-120000-ABCDEFG.md": "text\n",
        "same.md": "text\n",
        "Same.md": "text\n",
        "typo.md": "---\nlimt: 5\nreadonly: true\n---\ntext\n",
        "one.md": "text\n",
        "NOTES.MD": "text\n",
        "a.markdown": "text\n",
        "b.mdx": "text\n",
        "locked.md": "text\n",
        "closed/within.md": "text\n",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "latin.md").write_bytes(b"caf\xe9\n")
    (folder / "other.md").hardlink_to(folder / "one.md")
    os.mkfifo(folder / "fifo.md")
    (folder / "outside.md").symlink_to("/etc/hostname")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "locked.md").chmod(0)
    (folder / "closed").chmod(0)
    yield folder
    (folder / "closed").chmod(0o700)


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(DEADLINE)
        yield listening


def test_everything_counts_alike(
    faulty: Path, tmp_path: Path, server: RedisServer, systemd: socket.socket, run_daemon: Callable[..., Daemon]
) -> None:
    """`check`, the log, `status`, systemd's status line, the metrics and Redis, each as text and as JSON."""
    under = bound_by_rights()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    daemon = run_daemon("--metrics", str(port), under=under, NOTIFY_SOCKET=str(tmp_path / "notify"))
    words = [*under, sys.executable, "-m", "blocksd", "check", str(faulty)]
    check, checked = (
        subprocess.run([*words, *form], capture_output=True, text=True, check=False, env=daemon.env).stdout
        for form in ((), ("--format", "json"))
    )
    problems, warnings = len(PROBLEMS), len(WARNINGS)
    told = f"{problems} problems, {warnings} warnings"
    shown = {"check": _kinds(json.loads(checked)["problems"])}
    shown["status"] = _kinds(json.loads(daemon.command("status", "--json").stdout)["problems"])
    client = server.client()
    shown["Redis"] = _kinds([json.loads(text) for text in client.hvals("blocks:problems")])
    client.close()
    assert shown == dict.fromkeys(shown, (set(PROBLEMS), set(WARNINGS)))
    assert check.splitlines()[-1].endswith(f" in order, {told}")
    assert re.search(rf"^problems +{told}$", daemon.command("status").stdout, re.MULTILINE)
    assert re.search(rf"ready: \d+ blocks, 1 agent, {told}$", daemon.said(), re.MULTILINE)
    while not (line := systemd.recv(4096).decode()).startswith("STATUS=serving"):
        pass
    assert line.endswith(f", {told}")
    eventually(lambda: _metrics(port) == {"problem": problems, "warning": warnings}, "once a second")
    daemon.stop()
    again = run_daemon("--log-format", "json", under=under)
    (ready,) = [json.loads(line) for line in again.said().splitlines() if '"ready"' in line]
    assert (ready["problems"], ready["warnings"]) == (problems, warnings)


def _kinds(found: list[dict[str, object]]) -> tuple[set[object], set[object]]:
    """The subjects of problems, and those of warnings."""
    return (
        {one["subject"] for one in found if not one["warning"]},
        {one["subject"] for one in found if one["warning"]},
    )


def _metrics(port: int) -> dict[str, float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
        samples = [sample for family in families if family.name == "blocksd_problems" for sample in family.samples]
    return {sample.labels["severity"]: sample.value for sample in samples}
