"""`blocksd follow`: what is edited in a copy reaches the leader, comes back merged, and is done once."""

from __future__ import annotations

import json
import os
import shutil
import signal
from functools import partial
from typing import TYPE_CHECKING

import pytest

from followers import MARKER, Hosts, same, tree
from support import eventually

if TYPE_CHECKING:
    from followers import Follower


def settled(copy: Follower) -> bool:
    report = copy.status()
    return report["in_sync"] and not report["unsent"] and not report["problems"]


def test_edits_new_files_deletions_and_renames_reach_the_leader(hosts: Hosts) -> None:
    """Byte for byte, with the host's name in the history; a rename keeps the block's history."""
    for name in ("a", "b", "c", "d"):
        hosts.save(f"{name}.md", f"---\n# why\nlimit: 900\n---\n{name} 1\n")
    hosts.leader.start()
    copy = hosts.follower(read_only=False).start()
    text = "---\n# because\nlimit:  800\n---\n\nedited\r\nthere"
    hosts.save("a.md", text, copy.folder)
    hosts.save("deep/new.md", "new\n", copy.folder)
    (copy.folder / "b.md").unlink()
    (copy.folder / "deep").mkdir(exist_ok=True)
    (copy.folder / "c.md").rename(copy.folder / "deep/moved.md")
    there = ["a.md", "d.md", "deep/moved.md", "deep/new.md"]
    eventually(lambda: settled(copy) and sorted(tree(hosts.folder)) == there, "all is sent")
    assert (hosts.folder / "a.md").read_bytes() == text.encode()
    same(hosts.folder, copy.folder)
    newest = json.loads(hosts.leader.command("history", "a", "--json").stdout)[0]
    assert newest["by"] == os.uname().nodename
    assert hosts.leader.values("deep/moved") == ["c 1", "c 1"]
    hosts.save("a.md", "back\n")
    same(hosts.folder, copy.folder)


def test_edits_of_both_hosts_are_merged(hosts: Hosts) -> None:
    """Also those of hours without Redis, which survive that the follower is killed."""
    hosts.save("a.md", "one\n\ntwo\n\nthree\n")
    hosts.leader.start()
    copy = hosts.follower(read_only=False).start()
    hosts.server.kill()
    hosts.save("a.md", "one\n\ntwo\n\nthree, here\n", copy.folder)
    hosts.save("mine.md", "mine\n", copy.folder)
    eventually(lambda: copy.status()["unsent"] == ["a.md", "mine.md"], "the edits are noted")
    assert copy.command("follow", "--status").returncode == 1
    copy.kill()
    hosts.save("a.md", "one, there\n\ntwo\n\nthree\n")
    eventually(lambda: len(hosts.leader.values("a")) == 2)
    copy.start(ready=False)
    hosts.save("mine.md", "mine, again\n", copy.folder)
    hosts.server.start()
    both = "one, there\n\ntwo\n\nthree, here\n"
    eventually(lambda: (hosts.folder / "a.md").read_text() == both, "both edits are in it")
    eventually(lambda: settled(copy), "all is answered")
    same(hosts.folder, copy.folder)
    assert "one\n\ntwo\n\nthree, here" in hosts.leader.values("a")
    assert (hosts.folder / "mine.md").read_text() == "mine, again\n"
    assert hosts.leader.values("mine").count("mine, again") == 1


@pytest.mark.slow
def test_file_that_is_renamed_there_and_edited_here(hosts: Hosts) -> None:
    """The edit goes to the block under its new name, and the old file goes."""
    hosts.save("a.md", "one\n")
    hosts.save("b.md", "b\n")
    hosts.leader.start()
    copy = hosts.follower(read_only=False).start()
    copy.kill()
    hosts.leader.command("mv", "a", "deep/moved")
    hosts.save("a.md", "one\ntwo\n", copy.folder)
    copy.start(ready=False)
    eventually(lambda: (hosts.folder / "deep/moved.md").read_text() == "one\ntwo\n", "the edit arrives")
    eventually(lambda: settled(copy))
    assert sorted(tree(copy.folder)) == ["b.md", "deep/moved.md"]
    same(hosts.folder, copy.folder)


@pytest.mark.slow
def test_paused_leader_has_each_edit_once(hosts: Hosts) -> None:
    """What is saved again while an answer is awaited is sent afterwards; a kill in between doubles nothing."""
    hosts.save("a.md", "1\n")
    hosts.leader.start()
    copy = hosts.follower(read_only=False).start()
    assert hosts.leader.process is not None
    hosts.leader.process.send_signal(signal.SIGSTOP)
    hosts.save("a.md", "1\n2\n", copy.folder)
    client = hosts.server.client()
    eventually(lambda: client.xlen("blocks:inbox:operator") == 1, "the edit is sent")
    copy.kill()
    hosts.save("a.md", "1\n2\n3\n", copy.folder)
    copy.start(ready=False)
    eventually(lambda: client.xlen("blocks:inbox:operator") == 2, "the same edit is sent again")
    hosts.leader.process.send_signal(signal.SIGCONT)
    eventually(lambda: (hosts.folder / "a.md").read_text() == "1\n2\n3\n", "the last save arrives")
    eventually(lambda: settled(copy))
    assert hosts.leader.values("a") == ["1", "1\n2", "1\n2\n3"]


@pytest.mark.slow
def test_emptied_folder_never_reaches_the_leader(hosts: Hosts) -> None:
    """With its marker or without; a person may say that it is meant."""
    for number in range(5):
        hosts.save(f"n{number}.md", f"{number}\n")
    hosts.leader.start()
    copy = hosts.follower(read_only=False).start()
    for path in copy.folder.glob("*.md"):
        path.unlink()
    eventually(lambda: [one["code"] for one in copy.status()["problems"]] == ["halted"], "it halts")
    assert len(tree(hosts.folder)) == 5
    assert "was gone, and is here again" in copy.revert("n0")
    assert (copy.folder / "n0.md").read_text() == "0\n"
    hosts.save("n1.md", "another\n")
    assert "4" in copy.command("resume", "--accept-deletions").stdout
    same(hosts.folder, copy.folder)
    assert sorted(tree(hosts.folder)) == ["n0.md", "n1.md"]
    (copy.folder / MARKER).unlink()
    (copy.folder / "n0.md").unlink()
    eventually(lambda: [one["code"] for one in copy.status()["problems"]] == ["halted"], "it halts")
    hosts.save("n0.md", "0, again\n")
    copy.kill()
    copy.start(ready=False)
    assert copy.process is not None
    assert copy.process.wait(10) == 3
    assert sorted(tree(hosts.folder)) == ["n0.md", "n1.md"]


@pytest.mark.slow
def test_text_that_the_leader_refuses_stays_here(hosts: Hosts) -> None:
    """It is a problem, as the leader tells it; a good text or a revert ends that."""
    hosts.save("a.md", "1\n")
    hosts.save("b.md", "1\n")
    hosts.leader.start()
    copy = hosts.follower(read_only=False).start()
    hosts.save("a.md", "---\nlimit: many\n---\n1\n", copy.folder)
    hosts.save("b.md", b"\xff\xfe", copy.folder)
    eventually(lambda: copy.status()["local_edits"] == ["a.md", "b.md"], "both are refused")
    assert {one["subject"] for one in copy.status()["problems"]} == {"a.md", "b.md"}
    assert (hosts.folder / "a.md").read_text() == "1\n"
    copy.kill()
    copy.start()
    assert copy.status()["local_edits"] == ["a.md", "b.md"]
    hosts.save("a.md", "---\nlimit: 800\n---\n2\n", copy.folder)
    corrected = hosts.folder / "a.md"
    eventually(lambda: corrected.read_text() == "---\nlimit: 800\n---\n2\n", "the corrected text is sent")
    copy.revert("b.md")
    eventually(lambda: settled(copy))
    (copy.folder / "link.md").symlink_to("/etc/hostname")
    refused = copy.command("follow", "--revert", "link.md")
    assert (refused.returncode, "leads out of the folder" in refused.stderr) == (1, True)
    assert "SIGSTOP" not in refused.stderr
    (copy.folder / "link.md").unlink()
    same(hosts.folder, copy.folder)


@pytest.mark.slow
def test_three_hosts_edit_at_once(hosts: Hosts) -> None:
    """Every line is there once, in all folders alike, whatever is killed meanwhile."""
    hosts.save("log.md", "start\n")
    hosts.leader.start()
    copies = [hosts.follower(name, read_only=False).start() for name in ("one", "two")]
    for number in range(6):
        for copy in copies:
            path = copy.folder / f"{copy.folder.name}.md"
            before = path.read_text() if path.exists() else ""
            hosts.save(path.name, f"{before}line {number}\n", copy.folder)
        hosts.save(f"leader{number}.md", f"{number}\n")
        if number == 2:
            copies[0].kill()
        if number == 3:
            copies[0].start()
            hosts.server.kill()
            hosts.server.start()
        eventually(lambda: all(settled(copy) for copy in copies if copy.process and copy.process.poll() is None))
    for copy in copies:
        eventually(partial(settled, copy))
        same(hosts.folder, copy.folder)
    for copy in copies:
        text = (hosts.folder / f"{copy.folder.name}.md").read_text()
        assert text == "".join(f"line {number}\n" for number in range(6))


@pytest.mark.parametrize("what", ["state", pytest.param("folder", marks=pytest.mark.slow)])
def test_state_directory_or_folder_of_last_week(hosts: Hosts, what: str) -> None:
    """A backup of one of the two makes no edits of old texts, and no deletions; what differs is kept and told."""
    for name in ("a", "b", "c", "old", "moved"):
        hosts.save(f"{name}.md", f"{name} 1\n")
    hosts.leader.start()
    copy = hosts.follower(read_only=False).start()
    assert copy.stop() == 0
    restored = copy.state if what == "state" else copy.folder
    shutil.copytree(restored, restored.with_name("backup"))
    copy.start()
    hosts.save("a.md", "a 2\n")
    hosts.save("new.md", "new 1\n")
    hosts.save("late.md", "late 1\n")
    (hosts.folder / "old.md").unlink()
    same(hosts.folder, copy.folder)
    eventually(lambda: copy.status()["in_sync"])
    assert copy.stop() == 0
    hosts.save("a.md", "a 3\n")
    (hosts.folder / "new.md").unlink()
    hosts.leader.command("mv", "moved", "elsewhere")
    there = {"a.md": b"a 3\n", "b.md": b"b 1\n", "c.md": b"c 1\n", "elsewhere.md": b"moved 1\n", "late.md": b"late 1\n"}
    eventually(lambda: hosts.leader.values("new")[-1] is None and tree(hosts.folder) == there)
    for path in restored.iterdir():
        path.unlink()
    restored.rmdir()
    shutil.copytree(restored.with_name("backup"), restored)
    copy.start()
    assert "was copied or restored" in copy.said()
    others = ["a.md", "moved.md", "new.md" if what == "state" else "old.md"]
    eventually(lambda: copy.status()["local_edits"] == others, "what differs is told")
    assert tree(hosts.folder) == there
    assert tree(copy.folder) == {**there, **{name: (copy.folder / name).read_bytes() for name in others}}
    hosts.save("moved.md", (copy.folder / "moved.md").read_text(), copy.folder)  # a person has it sent
    eventually((hosts.folder / "moved.md").exists)
    copy.kill()
    copy.start()
    assert "was copied or restored" not in copy.said()
    assert len(copy.status()["local_edits"]) == 2


@pytest.mark.slow
def test_file_that_was_removed_does_not_come_back_with_an_adopted_folder(hosts: Hosts) -> None:
    """As of a host that was the leader once: it is kept there, and not sent."""
    hosts.save("a.md", "1\n")
    hosts.leader.start()
    copy = hosts.follower("copy", "--adopt", read_only=False)
    hosts.save("gone.md", "1\n", copy.folder)
    hosts.save("a.md", "0\n", copy.folder)
    copy.start()
    eventually(lambda: copy.status()["local_edits"] == ["a.md", "gone.md"], "both are kept")
    hosts.save("new.md", "1\n", copy.folder)
    eventually((hosts.folder / "new.md").exists, "a new one is sent")
    assert tree(hosts.folder) == {"a.md": b"1\n", "new.md": b"1\n"}


@pytest.mark.slow
def test_agents_folder_that_is_renamed_or_removed(hosts: Hosts) -> None:
    """The properties go with the blocks: a rename is a new agent, which has them, and the old one's are gone."""
    hosts.save("a.md", "1\n")
    hosts.save("b.md", "1\n")
    for agent in ("sam", "kim"):
        hosts.save(f"agents/{agent}/agent.yaml", f"name: {agent}\n")
        hosts.save(f"agents/{agent}/x.md", f"{agent}\n")
    hosts.leader.start()
    copy = hosts.follower(read_only=False).start()
    (copy.folder / "agents/kim").rename(copy.folder / "agents/lee")
    shutil.rmtree(copy.folder / "agents/sam")
    there = ["a.md", "agents/lee/agent.yaml", "agents/lee/x.md", "b.md"]
    eventually(lambda: sorted(tree(hosts.folder)) == there, "both are sent")
    eventually(lambda: settled(copy))
    assert hosts.leader.values("agents/lee/x") == ["kim", "kim"]
    same(hosts.folder, copy.folder)
