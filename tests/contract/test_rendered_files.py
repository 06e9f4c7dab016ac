"""Files that follow agents' memories: written on a change, and when they were changed, whatever happens to the server."""

from __future__ import annotations

import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from blocksd.assistants import rendered_file
from blocksd.assistants import renderer as renderer_module
from blocksd.assistants.rendered_file import Outcome, RenderedFile
from blocksd.assistants.renderer import Output, Renderer
from blocksd.client import watch as watch_module
from blocksd.client.blocking.transport import Transport
from blocksd.errors import Unavailable
from blocksd.protocol import watching, wire
from machine.disk import ALL, Choice, Disk
from machine.hands import HandledRoot, Hands, Killed
from rig import Rig
from support import RedisServer, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SAM = "agents/sam/persona"


@pytest.fixture(autouse=True)
def _impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again sooner than in life."""
    monkeypatch.setattr(watching, "LISTEN_SECONDS", 0.02)
    monkeypatch.setattr(watching, "PROVE_SECONDS", 0.2)
    monkeypatch.setattr(watching, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(watch_module, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(wire, "REPLY_SECONDS", 0.4)
    monkeypatch.setattr(renderer_module, "_FIRST_PAUSE", 0.02)
    monkeypatch.setattr(renderer_module, "_LONGEST_PAUSE", 0.04)


class Running:
    """A renderer in a thread, and what it has logged."""

    def __init__(self, *outputs: Output, url: Callable[[], str]) -> None:
        self.said: list[str] = []
        self.connects = 0

        def connect() -> Transport:
            self.connects += 1
            return Transport(url(), "blocks")

        self._renderer = Renderer(outputs, connect, lambda text, _: self.said.append(text))
        self._thread = threading.Thread(target=self._renderer.run)
        self._thread.start()

    def close(self) -> None:
        self._renderer.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file."""
    project = tmp_path / "project"
    project.mkdir()
    return project / "CLAUDE.md"


@pytest.fixture
def rig(tmp_path: Path, server: RedisServer) -> Iterator[Rig]:
    """A daemon without threads, with one agent."""
    made = Rig(tmp_path / "one", server.url)
    made.save_and_settle(SAM, "I am Sam.\n")
    yield made
    made.crash()


@pytest.fixture
def run(server: RedisServer) -> Iterator[Callable[..., Running]]:
    """Start to keep files up to date."""
    begun: list[Running] = []

    def start(*outputs: Output, url: Callable[[], str] = lambda: server.url) -> Running:
        begun.append(Running(*outputs, url=url))
        return begun[-1]

    yield start
    for one in begun:
        one.close()


def has(path: Path, text: str) -> None:
    eventually(lambda: path.exists() and text in path.read_text(), f"{text!r} is in {path}")


def test_change_of_the_memory_is_written(rig: Rig, run: Callable[..., Running], path: Path) -> None:
    """At the start, and whenever a block of the agent changes, comes or goes; another agent's is none of its business."""
    path.write_text("# Rules\n")
    running = run(Output("sam", str(path)))
    has(path, "I am Sam.")
    rig.save_and_settle(SAM, "I like tea.\n")
    has(path, "I like tea.")
    rig.save_and_settle("policies", "---\nagents: [sam]\n---\nBe brief.\n")
    has(path, "Be brief.")
    before = path.stat().st_ino
    rig.save_and_settle("agents/bob/persona", "I am Bob.\n")
    rig.remove("policies")
    rig.settle()
    eventually(lambda: "Be brief." not in path.read_text())
    assert path.stat().st_ino != before
    assert path.read_text().startswith("# Rules\n")
    eventually(lambda: len(running.said) == 4, "one line for each time it was written")


def test_several_files_of_several_agents(rig: Rig, run: Callable[..., Running], path: Path) -> None:
    """One process keeps them; two agents may share a file."""
    rig.save_and_settle("agents/bob/persona", "I am Bob.\n")
    other = path.with_name("AGENTS.md")
    run(Output("sam", str(path)), Output("bob", str(path)), Output("sam", str(other), style="nested"))
    has(path, "I am Sam.")
    has(path, "I am Bob.")
    has(other, "I am Sam.")
    rig.save_and_settle(SAM, "New.\n")
    has(path, "New.")
    has(other, "New.")
    assert "I am Bob." in path.read_text()


def test_edit_is_reported_at_once_and_kept(rig: Rig, run: Callable[..., Running], path: Path) -> None:
    """Without a change of the memory, and through one; once the edit is gone the file is written again."""
    running = run(Output("sam", str(path)))
    has(path, "I am Sam.")
    before = path.read_text()
    path.write_text(before.replace("I am Sam.", "I was here."))
    eventually(lambda: any("was edited between the markers" in line for line in running.said))
    rig.save_and_settle(SAM, "New.\n")
    rig.save_and_settle("agents/sam/other", "Other.\n")
    path.write_text(before)
    has(path, "New.")
    eventually(lambda: any("in order again" in line for line in running.said))
    assert len([line for line in running.said if "was edited" in line]) == 1
    assert "I was here." not in path.read_text()


def test_older_section_is_brought_up_to_date(rig: Rig, run: Callable[..., Running], path: Path) -> None:
    """As `git checkout` brings it back."""
    run(Output("sam", str(path)))
    has(path, "I am Sam.")
    older = path.read_text()
    rig.save_and_settle(SAM, "New.\n")
    has(path, "New.")
    path.write_text(older)
    has(path, "New.")


def test_removed_file_is_not_made_again_before_the_next_change(
    rig: Rig, run: Callable[..., Running], path: Path
) -> None:
    """Who removes it, as `git checkout` of another branch does, must not find it in the way."""
    run(Output("sam", str(path)))
    has(path, "I am Sam.")
    path.unlink()
    other = path.with_name("other")
    other.write_text("x")
    rig.save_and_settle("agents/bob/persona", "I am Bob.\n")
    assert not path.exists()
    rig.save_and_settle(SAM, "New.\n")
    has(path, "New.")


def test_what_is_in_the_way_is_reported_once_and_tried_again(rig: Rig, run: Callable[..., Running], path: Path) -> None:
    """A missing directory, a read-only file, broken markers: as soon as it is put right the file is written."""
    target = path.parent / "rules" / "memory.mdc"
    running = run(Output("sam", str(target)), Output("sam", str(path)))
    has(path, "I am Sam.")
    eventually(lambda: any("there is no directory" in line for line in running.said))
    target.parent.mkdir()
    has(target, "I am Sam.")
    path.write_text("<!-- blocksd:begin sam -->\n")
    eventually(lambda: any("changed, or has no partner" in line for line in running.said))
    path.write_text("# Rules\n")
    has(path, "I am Sam.")
    path.chmod(0o444)
    rig.save_and_settle(SAM, "New.\n")
    eventually(lambda: any("read-only" in line for line in running.said))
    path.chmod(0o644)
    has(path, "New.")
    assert len([line for line in running.said if "there is no directory" in line]) == 1
    eventually(lambda: len([line for line in running.said if "in order again" in line]) == 3)


def test_two_that_write_the_same_part_take_turns(
    rig: Rig, run: Callable[..., Running], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each writes once for a change of the memory, and not again at once because the other did."""
    monkeypatch.setattr(renderer_module, "_FIRST_PAUSE", 3600.0)
    both = [run(Output("sam", str(path))), run(Output("sam", str(path), style="line-numbered"))]
    for number in range(10):
        eventually(lambda: all(len(one.said) > number for one in both))  # noqa: B023  # it is called at once
        rig.save_and_settle(SAM, f"{number}\n")
    eventually(lambda: all(len(one.said) > 10 for one in both))
    assert sum(len(one.said) for one in both) == 22


@pytest.mark.usefixtures("rig")
def test_switched_symlink_gets_the_memory(run: Callable[..., Running], path: Path) -> None:
    """The new target is written at once, and followed."""
    other = path.parent / "other"
    other.mkdir()
    path.symlink_to("one.md")
    run(Output("sam", str(path)))
    has(path.parent / "one.md", "I am Sam.")
    fresh = path.parent / "fresh"
    fresh.symlink_to("other/two.md")
    fresh.rename(path)
    has(other / "two.md", "I am Sam.")
    (other / "two.md").write_text("# Mine\n")
    has(other / "two.md", "I am Sam.")


def test_lost_server_and_new_epoch(rig: Rig, server: RedisServer, run: Callable[..., Running], path: Path) -> None:
    """While Redis is unreachable the file stays; then it has what has changed meanwhile, also in another epoch."""
    running = run(Output("sam", str(path)))
    has(path, "I am Sam.")
    server.kill()
    path.write_text(path.read_text().replace("I am Sam.", "I was here."))
    eventually(lambda: any("was edited" in line for line in running.said))
    path.unlink()
    server.start()
    rig.save_and_settle(SAM, "After the loss.\n")
    has(path, "After the loss.")
    rig.crash()
    (rig.home / "journal.db").unlink()
    rig.open()
    rig.save_and_settle(SAM, "In another epoch.\n")
    has(path, "In another epoch.")


@pytest.mark.usefixtures("rig")
def test_daemon_that_comes_later_is_waited_for(server: RedisServer, run: Callable[..., Running], path: Path) -> None:
    """As under systemd, where nothing says which of the two starts first; it is said once."""
    is_there = threading.Event()

    def url() -> str:
        if not is_there.is_set():
            raise Unavailable("no daemon is running")
        return server.url

    running = run(Output("sam", str(path)), url=url)
    eventually(lambda: running.connects > 2)
    assert running.said == ["the memories cannot be read: no daemon is running"]
    is_there.set()
    has(path, "I am Sam.")


def test_agent_that_comes_later_is_waited_for(rig: Rig, run: Callable[..., Running], path: Path) -> None:
    """It is named once, and its file written when it is there."""
    running = run(Output("bob", str(path)))
    eventually(lambda: running.said)
    assert "waits: there is no agent 'bob'" in running.said[0]
    rig.save_and_settle("agents/bob/persona", "I am Bob.\n")
    has(path, "I am Bob.")
    rig.remove("agents/bob/persona")
    rig.settle()
    eventually(lambda: "I am Bob." not in path.read_text())


def cut_in(root: Path, hands: Hands, at: int, choice: Choice) -> Outcome | None:
    """Render a memory, with the power cut at an effect, or right after the last one; the outcome, if it came to that."""
    outcome = None
    hands.kill_in(at)
    with suppress(Killed):
        outcome = RenderedFile(str(root / "CLAUDE.md"), "sam").update("new")
    assert hands.disk is not None
    hands.disk.cut(choice)
    return outcome


def test_power_is_cut_at_any_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file has the old text or the new one, whole; one that was written stays. The next start writes it as if nothing was."""
    choices = [Choice(entries, contents) for entries in (0, 1, 2, 3, 5, ALL) for contents in (0, 1, 2, ALL)]
    for number, choice in enumerate(choices):
        outcome, at = None, 0
        while outcome is None:
            root = tmp_path / f"{number}-{at}"
            root.mkdir()
            file = root / "CLAUDE.md"
            file.write_text("# Mine\n")
            RenderedFile(str(file), "sam").update("old")
            old = file.read_text()
            hands = Hands(Disk(root, tmp_path / f"{number}-{at}-store"))
            with monkeypatch.context() as patched:
                patched.setattr(rendered_file, "Root", lambda path, its=hands: HandledRoot(path, its))
                outcome = cut_in(root, hands, at, choice)
            new = old.replace("old", "new")
            written = re.sub("[0-9a-f]{16}", "", file.read_text())
            wanted = [re.sub("[0-9a-f]{16}", "", text) for text in (old, new)]
            assert written in wanted[outcome is not None :], (choice, at)
            assert RenderedFile(str(file), "sam").update("new") in (Outcome.WRITTEN, Outcome.CURRENT)
            assert file.read_text().startswith("# Mine\n")
            assert "\nnew\n" in file.read_text()
            at += 1
        assert at > 5
