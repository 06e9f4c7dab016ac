"""A disk that is really full, of the folder, of the state directory or of both, while a daemon serves, ends and starts."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import blocksd
from blocksd.errors import Unavailable
from support import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support import RedisServer

pytestmark = pytest.mark.slow

TEXT = "---\nagents: [ann]\nlimit: 4000000\n---\none\n"
MEGABYTES = 8
MAKE = {
    "tmpfs": "mount -t tmpfs -o size={size}M tmpfs {place}",
    "ext4": "truncate -s {size}M {place}.img && mkfs.ext4 -q -m 0 {place}.img && mount -o loop {place}.img {place}",
}


class SmallDisk:
    """A disk in a mount namespace: the daemon enters that, and this test looks into it by way of /proc."""

    def __init__(self, place: Path, kind: str) -> None:
        place.mkdir()
        script = (
            f"{MAKE[kind].format(size=MEGABYTES, place=place)} && mkdir {place}/blocks.d && echo mounted && exec cat"
        )
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", script],
            stdin=subprocess.PIPE,  # it ends with this test
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != "mounted\n":
            pytest.skip(f"no {kind} can be mounted here: {self._holder.communicate()[1]}")
        self.place = place
        self.inside = Path(f"/proc/{self._holder.pid}/root{place}")
        self.under = ("nsenter", "--target", str(self._holder.pid), "--mount", f"--wd={place.parent}")

    def fill(self) -> None:
        """Take all space that is left, to the last byte."""
        with open(self.inside / "fill", "ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                with suppress(OSError):
                    while True:
                        file.write(b"x" * size)
                with suppress(OSError):
                    os.fsync(file.fileno())

    def free(self) -> None:
        (self.inside / "fill").unlink()

    def close(self) -> None:
        self._holder.communicate()


@pytest.fixture(params=list(MAKE))
def disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    made = SmallDisk(tmp_path / "small", request.param)
    yield made
    made.close()


class Served:
    """A folder with a block, and a state directory, of which any may be on the small disk."""

    def __init__(self, disk: SmallDisk, folder: Path, state: Path, server: RedisServer, log: Path) -> None:
        self.disk = disk
        self.client = blocksd.connect(server.url)
        self.files = disk.inside / "blocks.d" if folder.is_relative_to(disk.place) else folder
        (self.files / "notes.md").write_text(TEXT)
        self.daemon = Daemon(folder, state, "--redis", server.url, under=disk.under)
        self.daemon.log = log
        self.daemon.start()

    @property
    def text(self) -> str:
        """The value that the file says."""
        return (self.files / "notes.md").read_text().removeprefix(TEXT.removesuffix("one\n"))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        words = (*self.disk.under, sys.executable, "-m", "blocksd", *words, "--state-dir", str(self.daemon.state))
        return subprocess.run(words, capture_output=True, text=True, check=False, env=self.daemon.env)

    def close(self) -> None:
        self.client.close()
        if self.daemon.process is not None and self.daemon.process.poll() is None:
            self.daemon.kill()


PLACES = {
    "folder": ("small/blocks.d", "state"),
    "journal": ("blocks.d", "small/state"),
    "both": ("small/blocks.d", "small/state"),
}


@pytest.fixture
def served(disk: SmallDisk, tmp_path: Path, server: RedisServer, request: pytest.FixtureRequest) -> Iterator[Served]:
    """The parameter says what is on the small disk."""
    where, state = PLACES[request.param]
    (tmp_path / "blocks.d").mkdir()
    result = Served(disk, tmp_path / where, tmp_path / state, server, tmp_path / "log")
    yield result
    result.close()


@pytest.mark.parametrize("served", ["folder"], indirect=True)
def test_folder_without_room(served: Served) -> None:
    """Requests are refused with the reason, and the file stays as it is; with room they are done again."""
    served.client.blocks.append("notes", "two")
    eventually(lambda: os.listdir(served.files) == ["notes.md"], "what was displaced is gone, and frees no more room")
    served.disk.fill()
    for text in ("three", "x" * 20_000):
        with pytest.raises(Unavailable, match=r"notes\.md cannot be written: No space left on device"):
            served.client.blocks.append("notes", text)
        with pytest.raises(Unavailable, match="No space left on device"):
            served.client.blocks.create(label="new", value=text)
    told = served.command("append", "notes", "three")
    assert told.returncode == 3
    assert "free some space" in told.stderr
    assert served.text == "one\ntwo\n"
    served.disk.free()
    assert served.client.blocks.append("notes", "four").value == "one\ntwo\nfour"
    eventually(lambda: os.listdir(served.files) == ["notes.md"], "no temporary is left")
    assert served.command("status").returncode == 0


def append(served: Served, text: str) -> bool:
    """Append; return True if that is acknowledged. While the journal takes nothing, requests wait until they are late."""
    try:
        served.client.blocks.append("notes", text, timeout_seconds=1.0)
    except Unavailable:
        return False
    return True


def fill_journal(served: Served) -> list[str]:
    """Append until the journal has no more room; return what was acknowledged, and last what was not."""
    served.disk.fill()
    asked = [f"{os.urandom(2000).hex()}"]
    while append(served, asked[-1]):
        asked.append(os.urandom(2000).hex())
        assert len(asked) < 500
    return asked


@pytest.mark.parametrize("served", ["journal"], indirect=True)
def test_journal_without_room(served: Served) -> None:
    """Nothing is acknowledged, nothing in force changes, and `status` says why; what was saved meanwhile is found then."""
    *done, late = fill_journal(served)
    assert served.text.split("\n")[1:-1] in (done, [*done, late])  # the file may have it, and the journal not yet
    problem = eventually(lambda: next((one for one in served.client.problems() if one["subject"] == "<journal>"), None))
    assert "full" in problem["message"]
    assert "<journal>" in served.command("status").stdout
    (served.files / "other.md").write_text("saved meanwhile\n")
    assert not append(served, "refused")
    assert "other" not in [block.label for block in served.client.blocks.list()]
    served.disk.free()
    eventually(lambda: served.command("status").returncode == 0, "it goes on by itself")
    assert served.client.blocks.retrieve("other").value == "saved meanwhile"
    assert append(served, "last")
    lines = served.text.split("\n")[1:-1]
    assert [line for line in lines if line not in (late, "refused")] == [*done, "last"]
    assert len(lines) == len(set(lines))
    assert "Traceback" not in served.daemon.said()


@pytest.mark.parametrize("served", ["journal"], indirect=True)
def test_start_on_a_full_disk(served: Served) -> None:
    """With a journal that has blocks: it is refused in words, as what may pass, and nothing is lost."""
    *done, late = fill_journal(served)
    served.daemon.kill()
    (served.files / "other.md").write_text("saved meanwhile\n")
    served.daemon.start(ready=False)
    assert served.daemon.process is not None
    code = served.daemon.process.wait(20)
    said = served.daemon.said()
    assert (code, "Traceback" in said) == (3, False), said
    assert "check that its disk has space" in said or "free some space" in said
    served.disk.free()
    served.daemon.start()
    assert served.client.blocks.retrieve("other").value == "saved meanwhile"
    lines = served.client.blocks.retrieve("notes").value.split("\n")[1:]
    assert lines in (done, [*done, late])
    assert served.client.problems() == []


@pytest.mark.parametrize("served", ["folder", "journal", "both"], indirect=True)
def test_disk_fills_up_under_load(served: Served, server: RedisServer) -> None:
    """Whatever was acknowledged is there once, what was refused is not there, over a kill and a start."""
    acknowledged: set[str] = set()
    refused: set[str] = set()

    def ask(number: int) -> None:
        with blocksd.connect(server.url) as client:
            failures = 0
            for turn in range(1000):
                text = f"<{number}-{turn}>"
                try:
                    client.blocks.append("notes", text + "." * 3000, timeout_seconds=1.0)
                    acknowledged.add(text)
                except Unavailable as error:
                    failures += 1
                    if "errno" in error.facts:  # else nobody knows
                        refused.add(text)
                if failures > 3:
                    return

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    eventually(lambda: len(acknowledged) > 20)
    served.disk.fill()
    for thread in threads:
        thread.join(60)
    served.daemon.kill()
    served.disk.free()
    served.daemon.start()
    lines = [line.rstrip(".") for line in served.client.blocks.retrieve("notes").value.split("\n")[1:]]
    assert sorted(set(lines)) == sorted(lines)
    assert acknowledged <= set(lines)
    assert not refused & set(lines)
    assert [line.rstrip(".") for line in served.text.split("\n")[1:-1]] == lines
    served.client.blocks.append("notes", "last")
