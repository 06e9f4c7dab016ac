"""Moving a file, in every way people and tools have of doing it, is one renaming of its block."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from blocksd.model.block import block_id
from support import eventually, quiet_environ, require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support import Changes, Daemon, RedisServer

pytestmark = pytest.mark.slow

TEXT = "---\nagents: [ann]\n---\nThe plan.\n"


class Moved:
    """A folder with some blocks, served by a daemon."""

    def __init__(self, folder: Path, server: RedisServer, daemon: Daemon, changes: Changes) -> None:
        self.folder = folder
        self.daemon = daemon
        self.changes = changes
        self.client = server.client()

    def is_renamed(self, old: str, new: str) -> bool:
        """Return True if all that happened is that a block has another label: id, history and agents followed."""
        happened = [(one["kind"], one.get("from"), one.get("label"), one["author"]) for one in self.changes.settle()]
        assert happened == [("renamed", old, new, "file")]
        self.changes.all.clear()
        assert self.client.hgetall("blocks:problems") == {}
        assert self.client.hget("blocks:ids", block_id("plan")) == new
        assert self.client.hget(f"blocks:block:{new}", "id") == block_id("plan")
        assert self.client.hgetall("blocks:agent:ann") == {new: new}
        assert not self.client.exists(f"blocks:block:{old}", f"blocks:attached:{old}")
        assert self.daemon.revisions(new)[0].label == "plan"
        return True


@pytest.fixture
def moved(
    folder: Path, server: RedisServer, run_daemon: Callable[..., Daemon], request: pytest.FixtureRequest
) -> Iterator[Moved]:
    (folder / "plan.md").write_text(TEXT)
    (folder / "notes.md").write_text("Some notes.\n")
    daemon = run_daemon("--delete-grace", "0.3", BLOCKSD_HISTORY_VERSIONS="1000000")
    result = Moved(folder, server, daemon, request.getfixturevalue("changes"))
    yield result
    result.client.close()


def run(*words: str, cwd: Path) -> None:
    subprocess.run(
        words, check=True, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, env=quiet_environ()
    )


def git(folder: Path, *words: str) -> None:
    run(require("git"), "-c", "commit.gpgsign=false", "-c", "gc.auto=0", *words, cwd=folder)


def test_mv(moved: Moved) -> None:
    """Under another name, in another case, into a directory that is made for it, and out again."""
    run("mv", "plan.md", "goals.md", cwd=moved.folder)
    assert moved.is_renamed("plan", "goals")
    eventually(lambda: "renamed goals v2 (from plan)" in moved.daemon.said())
    assert "label (from plan)" in moved.daemon.command("history", "goals").stdout
    run("mv", "goals.md", "Goals.md", cwd=moved.folder)
    assert moved.is_renamed("goals", "Goals")
    run("sh", "-c", "mkdir team && mv Goals.md team/goals.md", cwd=moved.folder)
    assert moved.is_renamed("Goals", "team/goals")
    run("mv", "team", "archive", cwd=moved.folder)
    assert moved.is_renamed("team/goals", "archive/goals")
    run("sh", "-c", "mv archive/goals.md plan.md && rmdir archive", cwd=moved.folder)
    assert moved.is_renamed("archive/goals", "plan")


def test_mv_right_after_a_save(moved: Moved) -> None:
    """A file that is so new that its signature proves nothing is known all the same."""
    (moved.folder / "plan.md").write_text(TEXT.replace("The plan", "Another plan"))
    eventually(lambda: moved.client.hget("blocks:block:plan", "value") == "Another plan.")
    moved.changes.all.clear()
    run("mv", "plan.md", "goals.md", cwd=moved.folder)
    assert [(one["kind"], one["label"]) for one in moved.changes.settle()][-1] == ("renamed", "goals")


def test_mv_by_way_of_another_directory(moved: Moved) -> None:
    """Out of the folder, and back under another name before it counts as deleted."""
    run("sh", "-c", "mv plan.md .. && mv ../plan.md goals.md", cwd=moved.folder)
    assert moved.is_renamed("plan", "goals")


def test_mv_while_the_daemon_is_down(moved: Moved) -> None:
    """It is found at the start."""
    moved.daemon.stop()
    run("mv", "plan.md", "goals.md", cwd=moved.folder)
    moved.daemon.start()
    assert moved.is_renamed("plan", "goals")
    moved.daemon.kill()
    (moved.folder / "goals.md").unlink()  # and made anew, as a checkout does
    (moved.folder / "plan.md").write_text(TEXT)
    moved.daemon.start()
    assert moved.is_renamed("goals", "plan")


def test_git_mv_and_checkout(moved: Moved) -> None:
    """`git checkout` removes the file and makes it anew under the other name."""
    git(moved.folder, "init", "-q", "-b", "main")
    git(moved.folder, "add", ".")
    git(moved.folder, "commit", "-q", "-m", "main")
    git(moved.folder, "checkout", "-q", "-b", "other")
    git(moved.folder, "mv", "plan.md", "goals.md")
    assert moved.is_renamed("plan", "goals")
    git(moved.folder, "commit", "-q", "-m", "other")
    git(moved.folder, "checkout", "-q", "main")
    assert moved.is_renamed("goals", "plan")
    git(moved.folder, "checkout", "-q", "other")
    assert moved.is_renamed("plan", "goals")


def test_large_directory_is_moved(moved: Moved) -> None:
    """No deletion is held back for it, and none happens."""
    labels = [f"big/d{number % 20}/block-{number}" for number in range(1500)]
    for label in labels:
        path = moved.folder / f"{label}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{label}\n")
    eventually(lambda: moved.client.zcard("blocks:labels") == len(labels) + 2)
    moved.changes.forget()
    run("mv", "big", "large", cwd=moved.folder)
    happened = sorted((one["kind"], one["from"], one["label"]) for one in moved.changes.settle())
    assert happened == sorted(("renamed", label, label.replace("big", "large", 1)) for label in labels)
    assert moved.client.hgetall("blocks:problems") == {}
    shutil.rmtree(moved.folder / "large")


def test_moved_to_a_name_that_cannot_be(moved: Moved) -> None:
    """The block stays under the label it has, and follows as soon as the name is right."""
    run("mv", "plan.md", "agents.md", cwd=moved.folder)
    assert moved.is_renamed("plan", "agents")
    run("sh", "-c", "mkdir -p agents && mv agents.md agents/plan.md", cwd=moved.folder)
    eventually(lambda: moved.client.hexists("blocks:problems", "agents/plan.md"))
    moved.changes.settle()
    assert moved.client.hget("blocks:block:agents", "value") == "The plan."
    result = moved.daemon.command("append", "agents", "more")
    assert result.returncode != 0
    assert "agents/plan.md" in result.stderr
    moved.changes.all.clear()
    run("mv", "agents/plan.md", "goals.md", cwd=moved.folder)
    eventually(lambda: moved.client.hget("blocks:ids", block_id("plan")) == "goals")
    eventually(lambda: not moved.client.exists("blocks:problems"))


def test_mv_without_events(moved: Moved) -> None:
    """Where nothing tells of it, the next comparison of the folder finds it."""
    moved.daemon.stop()
    moved.daemon.options = (*moved.daemon.options, "--poll")
    moved.daemon.start()
    run("mv", "plan.md", "goals.md", cwd=moved.folder)
    assert moved.is_renamed("plan", "goals")
