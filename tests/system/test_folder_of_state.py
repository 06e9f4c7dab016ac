"""A state directory is that of one folder: it follows a folder that is moved, and serves no other one."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from rig import shown
from support import Daemon, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import RedisServer

pytestmark = pytest.mark.slow

TEXTS = {name: f"{name}\n" for name in ("human", "notes", "persona", "team/plan", "team/rules")}


def fill(folder: Path, texts: dict[str, str]) -> None:
    for label, text in texts.items():
        (folder / f"{label}.md").parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{label}.md").write_text(text)


class Served:
    """A folder that was served with a state directory; `start` serves another place with the same one."""

    def __init__(self, folder: Path, state: Path, url: str, client: Any) -> None:
        self.folder = folder
        self.client = client
        self._state = state
        self._url = url
        self.started: list[Daemon] = []
        fill(folder, TEXTS)
        self.start(folder).stop()

    def start(self, folder: Path, *options: str, state: Path | None = None, ready: bool = True) -> Daemon:
        options = ("--redis", self._url, "--delete-grace", "0.2", *options)
        self.started.append(Daemon(folder, state or self._state, *options))
        return self.started[-1].start(ready=ready)

    def refused(self, folder: Path, *options: str) -> str:
        """What the refusal says."""
        daemon = self.start(folder, *options, ready=False)
        assert daemon.process is not None
        assert daemon.process.wait(20) == 2
        assert "Traceback" not in daemon.said()
        return " ".join(daemon.said().split())

    def labels(self, namespace: str = "blocks") -> list[str]:
        return list(self.client.zrange(f"{namespace}:labels", 0, -1))

    def keys(self) -> dict[str, Any]:
        """Everything in Redis."""
        return shown(self.client)


@pytest.fixture
def served(folder: Path, tmp_path: Path, server: RedisServer) -> Iterator[Served]:
    client = server.client()
    result = Served(folder, tmp_path / "state", server.url, client)
    yield result
    for daemon in result.started:
        if daemon.process is not None and daemon.process.poll() is None:
            daemon.kill()
    client.close()


def moved(folder: Path, place: Path) -> None:
    folder.rename(place)


def copied(folder: Path, place: Path) -> None:
    shutil.copytree(folder, place)


def restored(folder: Path, place: Path) -> None:
    """On another disk, by a tool that keeps no times; one file was edited since."""
    shutil.copytree(folder, place, copy_function=shutil.copyfile)
    (place / "notes.md").write_text("other notes\n")
    shutil.rmtree(folder)


@pytest.mark.parametrize("act", [moved, copied, restored])
def test_state_follows_its_folder(served: Served, tmp_path: Path, act: Callable[[Path, Path], None]) -> None:
    """History and numbers go on, and nothing is made or deleted for it."""
    place = tmp_path / "elsewhere"
    act(served.folder, place)
    daemon = served.start(place)
    assert served.labels() == sorted(TEXTS)
    assert served.client.hgetall("blocks:problems") == {}
    (place / "human.md").write_text("edited\n")
    eventually(lambda: served.client.hget("blocks:block:human", "value") == "edited")
    assert daemon.values("human") == ["human", "edited"]
    assert daemon.values("persona") == ["persona"]
    assert daemon.stop() == 0
    served.start(place)  # now it is the folder of this place
    assert served.labels() == sorted(TEXTS)


def test_moved_folder_that_lacks_a_block(served: Served, tmp_path: Path) -> None:
    """It may still be on its way: the block stays until a person says that it is gone."""
    place = tmp_path / "elsewhere"
    served.folder.rename(place)
    (place / "notes.md").unlink()
    daemon = served.start(place)
    eventually(lambda: served.client.hget("blocks:problems", "<folder>"))
    eventually(lambda: f"1 of 5 blocks are missing in the folder since it was {served.folder}" in daemon.said())
    assert served.labels() == sorted(TEXTS)
    assert daemon.command("resume", "--accept-deletions").returncode == 0
    eventually(lambda: "notes" not in served.labels())


def empty(place: Path) -> None:
    place.mkdir()


def other(place: Path) -> None:
    """With files of the same names, as from one template, and one of the same text."""
    fill(place, {label: f"another {text}" for label, text in TEXTS.items()} | {"persona": "persona\n", "new": "new\n"})


@pytest.mark.parametrize(("make", "few"), [(empty, "none"), (other, "1 of 5")])
def test_another_folder_is_refused(served: Served, tmp_path: Path, make: Callable[[Path], None], few: str) -> None:
    """Nothing of either folder changes; the message names both, and what to do."""
    place = tmp_path / "other.d"
    make(place)
    files, keys = sorted(tmp_path.rglob("*.md")), served.keys()
    said = served.refused(place)
    assert f"the state directory {tmp_path / 'state'} is that of another folder, {served.folder}" in said
    assert f"{few} of its blocks are in {place}" in said
    assert "another --namespace" in said
    assert "--take-over" in said
    findings = json.loads(served.started[-1].command("doctor", str(place), "--json").stdout)
    (finding,) = [one for one in findings if one["check"] == "state.folder"]
    assert finding["state"] == "wrong"
    assert f"of another folder, {served.folder}" in finding["message"]
    assert (sorted(tmp_path.rglob("*.md")), served.keys()) == (files, keys)
    daemon = served.start(served.folder)
    assert served.labels() == sorted(TEXTS)
    assert "state.folder" not in daemon.command("doctor", "--json").stdout
    assert [daemon.values(label) for label in TEXTS] == [[label] for label in TEXTS]


def test_two_folders_side_by_side(served: Served, tmp_path: Path) -> None:
    """With a namespace and a state directory for each, as the refusal says."""
    other(tmp_path / "other.d")
    served.start(served.folder)
    served.start(tmp_path / "other.d", "--namespace", "other", state=tmp_path / "other")
    assert served.labels() == sorted(TEXTS)
    assert served.labels("other") == sorted([*TEXTS, "new"])


def test_folder_takes_the_place_of_another(served: Served, tmp_path: Path) -> None:
    """With a person's word: its blocks come into force, those of the other are deleted, and can be brought back."""
    place = tmp_path / "other.d"
    fill(place, {"human": "another\n", "new": "new\n"})
    daemon = served.start(place, "--take-over")
    eventually(lambda: served.labels() == ["human", "new"])
    assert served.client.hgetall("blocks:problems") == {}
    assert daemon.values("human") == ["human", "another"]
    assert daemon.values("notes") == ["notes", None]
    assert daemon.command("undo", "notes").returncode == 0
    assert (place / "notes.md").read_text() == "notes\n"
    assert daemon.stop() == 0
    served.start(place)
    assert served.labels() == ["human", "new", "notes"]


def test_word_is_given_for_the_next_time_only(served: Served) -> None:
    """At its own folder the flag does nothing: what vanishes there is held back as ever."""
    shutil.rmtree(served.folder)
    served.folder.mkdir()
    served.start(served.folder, "--take-over")
    eventually(lambda: served.client.hget("blocks:problems", "<folder>"))
    assert served.labels() == sorted(TEXTS)


def test_emptied_folder_is_served_on(served: Served) -> None:
    """At its own path, where a disk may not be mounted yet, all blocks stay in force until they are back."""
    shutil.rmtree(served.folder)
    served.folder.mkdir()
    daemon = served.start(served.folder)
    eventually(lambda: served.client.hget("blocks:problems", "<folder>"))
    eventually(lambda: "all 5 blocks vanished at once" in daemon.said())
    assert served.labels() == sorted(TEXTS)
    fill(served.folder, TEXTS)
    eventually(lambda: served.client.hgetall("blocks:problems") == {})
    assert [daemon.values(label) for label in TEXTS] == [[label] for label in TEXTS]
