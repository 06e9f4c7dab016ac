"""`blocksd follow --read-only`: a live copy of the leader's folder, which no local edit is lost from."""

from __future__ import annotations

import json
import random
import stat
import time
from pathlib import Path

import pytest

from followers import MARKER, Hosts, same, tree
from support import eventually


def test_copy_follows_every_change(hosts: Hosts) -> None:
    """New files, saves, deletions, renames, directories, agents' properties, and every byte and mode."""
    hosts.save("persona.md", "I am Sam.\n")
    hosts.save("odd.md", b"\xef\xbb\xbf---\r\n# why\r\nlimit:   900\r\n---\r\n\r\nA\r\nB")
    hosts.save("mixed.md", b"A\r\nB\nC\n\n").chmod(0o600)
    hosts.save("empty.md", b"")
    hosts.save("notes/today.md", "Buy milk.\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    assert tree(copy.folder) == tree(hosts.folder)
    assert (copy.folder / MARKER).exists()
    hosts.save("persona.md", "I am Kim.\n")
    hosts.save("notes/deep/er.md", "New.\n")
    hosts.save("agents/sam/agent.yaml", "name:  Samantha  # why\n")
    hosts.save("odd.md", b"---\n# another comment\nlimit: 900\n---\n\nA\nB")
    (hosts.folder / "notes/today.md").unlink()
    same(hosts.folder, copy.folder)
    assert stat.S_IMODE((copy.folder / "mixed.md").stat().st_mode) == 0o600
    hosts.save("persona.md", "---\n# only a comment\n---\nI am Kim.\n")
    same(hosts.folder, copy.folder)
    hosts.leader.command("mv", "notes/deep/er", "other/place")
    same(hosts.folder, copy.folder)
    eventually(lambda: not (copy.folder / "notes").exists(), "the empty directory is removed")
    report = copy.status()
    assert (report["in_sync"], report["leader_runs"]) == (True, True)
    hosts.leader.stop()
    assert copy.status()["leader_runs"] is False
    shown = copy.command("follow", "--status")
    assert (shown.returncode, "its daemon does not run" in shown.stdout) == (0, True)
    assert copy.stop() == 0
    assert "start it with: blocksd follow FOLDER" in copy.command("status").stderr


def test_local_edit_is_kept_and_reported_until_it_is_reverted(hosts: Hosts) -> None:
    """The other files go on; a file that was removed comes back; a new one stays, too."""
    for name in ("a", "b", "c"):
        hosts.save(f"{name}.md", f"{name} 1\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    hosts.save("a.md", "a, edited here\n", copy.folder)
    hosts.save("mine.md", "new here\n", copy.folder)
    (copy.folder / "b.md").unlink()
    eventually(lambda: copy.status()["local_edits"] == ["a.md", "mine.md"], "the edits are reported")
    eventually((copy.folder / "b.md").exists, "the file that was removed is there again")
    hosts.save("a.md", "a 2\n")
    hosts.save("c.md", "c 2\n")
    eventually(lambda: (copy.folder / "c.md").read_text() == "c 2\n", "the others go on")
    assert (copy.folder / "a.md").read_text() == "a, edited here\n"
    assert "local edit" in copy.command("follow", "--status").stdout
    copy.kill()
    copy.start()
    report = copy.status()
    assert report["local_edits"] == ["a.md", "mine.md"]
    assert {problem["code"] for problem in report["problems"]} == {"local_edit"}
    hints = {problem["subject"]: problem["hint"] for problem in report["problems"]}
    assert "or no file if it has none" in hints["mine.md"]
    assert "or no file" not in hints["a.md"]
    said = copy.revert("a.md")
    kept = said.strip().rpartition(" ")[2]
    assert Path(kept).read_text() == "a, edited here\n"
    assert (copy.folder / "a.md").read_text() == "a 2\n"
    copy.revert("mine")
    assert not (copy.folder / "mine.md").exists()
    same(hosts.folder, copy.folder)
    assert copy.status()["problems"] == []
    assert copy.command("follow", "--status").returncode == 0


@pytest.mark.slow
def test_edit_that_is_undone_by_hand_is_no_edit_any_more(hosts: Hosts) -> None:
    """Then the leader's newest version is written, which came meanwhile."""
    hosts.save("a.md", "1\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    hosts.save("a.md", "mine\n", copy.folder)
    eventually(lambda: copy.status()["local_edits"] == ["a.md"])
    hosts.save("a.md", "2\n")
    eventually(lambda: copy.status()["in_sync"])
    assert (copy.folder / "a.md").read_text() == "mine\n"
    hosts.save("a.md", "1\n", copy.folder)
    same(hosts.folder, copy.folder)
    assert copy.status()["problems"] == []


@pytest.mark.slow
def test_lost_redis_restarted_leader_and_new_journal(hosts: Hosts) -> None:
    """The copy is right again after each, and files that do not differ are not written."""
    for number in range(20):
        hosts.save(f"n{number}.md", f"{number}\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    inodes = {path.name: path.stat().st_ino for path in copy.folder.glob("*.md")}
    hosts.server.kill()
    hosts.save("n1.md", "while Redis is lost\n")
    eventually(lambda: copy.status()["problems"], "the loss is reported")
    hosts.server.start()
    same(hosts.folder, copy.folder)
    eventually(lambda: not copy.status()["problems"], "the problem is over")
    copy.kill()
    hosts.leader.stop()
    (hosts.leader.state / "journal.db").unlink()
    hosts.save("n2.md", "under another journal\n")
    (hosts.folder / "n3.md").unlink()
    hosts.leader.start()
    copy.start()
    same(hosts.folder, copy.folder)
    eventually(lambda: copy.status()["in_sync"])
    changed = {path.name for path in copy.folder.glob("*.md") if path.stat().st_ino != inodes[path.name]}
    assert changed == {"n1.md", "n2.md"}


@pytest.mark.slow
def test_follower_that_is_killed_again_and_again(hosts: Hosts) -> None:
    """Between any two writes; what it wrote itself is no local edit, and nothing is left beside the files."""
    dice = random.Random(7)
    hosts.save("part/n0.md", "0\n")
    hosts.leader.start()
    copy = hosts.follower()
    for turn in range(6):
        copy.start(ready=turn == 0)
        for number in range(40):
            hosts.save(f"part/n{number}.md", f"{turn} {number}\n" * (number + 1))
            if dice.random() < 0.2:
                (hosts.folder / f"part/n{dice.randrange(number + 1)}.md").unlink(missing_ok=True)
        time.sleep(dice.random())  # it is killed at another moment each time
        copy.kill()
    copy.start()
    same(hosts.folder, copy.folder)
    assert copy.status()["local_edits"] == []
    assert [path.name for path in copy.folder.rglob(".*")] == [MARKER]


@pytest.mark.slow
def test_follower_with_the_least_rights(hosts: Hosts) -> None:
    """A reader's, or to send edits an operator's, as `blocksd acl` prints them."""
    hosts.save("a.md", "1\n")
    hosts.leader.start()
    client = hosts.server.client()
    for line in hosts.leader.command("acl").stdout.splitlines():
        name, *rules = line.replace("PASSWORD", ">secret").removeprefix("user ").split()
        if name in ("blocks-reader", "blocks-operator"):
            client.execute_command("ACL", "SETUSER", name, *rules)
    for name, is_read_only in (("reader", True), ("operator", False)):
        url = f"unix://blocks-{name}:secret@{hosts.server.socket}"
        copy = hosts.follower(name, "--redis", url, read_only=is_read_only).start()
        same(hosts.folder, copy.folder)
        hosts.save("a.md", f"{name}\n")
        same(hosts.folder, copy.folder)
        checked = {one["check"]: one for one in json.loads(copy.command("doctor", "--json", "--redis", url).stdout)}
        assert checked["redis.rights"]["state"] == "ok"
    hosts.save("b.md", "sent\n", copy.folder)
    same(hosts.folder, copy.folder)
    assert (hosts.folder / "b.md").exists()


@pytest.mark.slow
def test_changes_that_are_no_longer_kept_are_compared(hosts: Hosts) -> None:
    """A follower that was off while the stream was trimmed has every file right."""
    for number in range(20):
        hosts.save(f"n{number}.md", f"{number}\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    copy.kill()
    hosts.save("n1.md", "changed\n")
    hosts.leader.command("mv", "n2", "moved")
    (hosts.folder / "n3.md").unlink()
    client = hosts.server.client()
    eventually(lambda: client.hget("blocks:meta", "seq") == "23")
    client.xtrim("blocks:changes", maxlen=0, approximate=False)
    copy.start()
    same(hosts.folder, copy.folder)
    assert copy.status()["local_edits"] == []


@pytest.mark.slow
def test_folder_that_is_lost_or_without_its_marker_is_not_touched(hosts: Hosts) -> None:
    """While it runs and at a start; it goes on when the folder is back."""
    hosts.save("a.md", "1\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    marker = copy.folder / MARKER
    text = marker.read_text()
    marker.unlink()
    hosts.save("a.md", "2\n")
    eventually(lambda: [one["code"] for one in copy.status()["problems"]] == ["halted"], "it halts")
    assert (copy.folder / "a.md").read_text() == "1\n"
    marker.write_text(text)
    same(hosts.folder, copy.folder)
    elsewhere = copy.folder.rename(copy.folder.with_name("elsewhere"))
    copy.folder.mkdir()
    hosts.save("a.md", "3\n")
    eventually(lambda: [one["code"] for one in copy.status()["problems"]] == ["halted"], "it halts")
    assert list(copy.folder.iterdir()) == []
    copy.kill()
    copy.start(ready=False)
    assert copy.process is not None
    assert copy.process.wait(10) == 3
    assert "has no marker" in copy.said()
    assert list(copy.folder.iterdir()) == []
    copy.folder.rmdir()
    elsewhere.rename(copy.folder)
    copy.start()
    same(hosts.folder, copy.folder)


@pytest.mark.slow
def test_folder_with_other_files_is_refused(hosts: Hosts) -> None:
    """One with equal files is taken, and so is any with --adopt: then what differs is a local edit."""
    hosts.save("a.md", "1\n")
    hosts.save("b.md", "1\n")
    hosts.leader.start()
    copy = hosts.follower()
    hosts.save("a.md", "1\n", copy.folder)
    hosts.save("mine.md", "mine\n", copy.folder)
    copy.start(ready=False)
    assert copy.process is not None
    assert copy.process.wait(10) == 2
    assert "has 1 file not as the leader's: mine.md" in copy.said()
    assert sorted(tree(copy.folder)) == ["a.md", "mine.md"]
    assert not (copy.folder / MARKER).exists()
    copy.options = (*copy.options, "--adopt")
    copy.start()
    assert sorted(tree(copy.folder)) == ["a.md", "b.md", "mine.md"]
    assert copy.status()["local_edits"] == ["mine.md"]
    other = hosts.follower("other")
    hosts.save("a.md", "1\n", other.folder)
    other.start()
    same(hosts.folder, other.folder)


@pytest.mark.parametrize(
    "options",
    [
        ("--redis", "127.0.0.1:6379"),
        ("--redis", "redis+sentinel://127.0.0.1:26379"),
        ("--redis", "redis+cluster://127.0.0.1:6379", "--namespace", "blocks"),
    ],
    ids=("no scheme", "no service", "no braces"),
)
def test_wrong_url_makes_nothing(hosts: Hosts, options: tuple[str, ...]) -> None:
    """Else the state directory would be bound to the namespace of a mistaken command."""
    copy = hosts.follower("copy", *options)
    copy.start(ready=False)
    assert copy.process is not None
    assert copy.process.wait(10) == 2
    assert not copy.state.exists()
    assert not (copy.folder / MARKER).exists()


def test_questions_for_a_follower_name_the_leaders_daemon_as_what_it_is(hosts: Hosts) -> None:
    """`--status` and `--revert` without `--state-dir` may find the leader's daemon on its host."""
    hosts.save("a.md", "1\n")
    hosts.leader.start()
    for options in (("--status",), ("--revert", "a.md")):
        refused = hosts.leader.command("follow", *options)
        assert refused.returncode == 2
        assert "is that of a leader's daemon" in refused.stderr
        assert "--state-dir DIR" in refused.stderr


def test_namespace_without_a_mirror_is_named(hosts: Hosts) -> None:
    """A wrong namespace looks like a leader that has not started yet: the warning says what to do in both cases."""
    hosts.save("a.md", "1\n")
    hosts.leader.start()
    copy = hosts.follower("copy", "--namespace", "nope")
    copy.start(ready=False)
    eventually(lambda: "no mirror of the namespace 'nope'" in copy.said(), "the warning names the namespace")
    assert "correct --namespace or --redis" in copy.said()


@pytest.mark.slow
def test_one_process_has_a_folder(hosts: Hosts) -> None:
    """Not two followers, nor a daemon and a follower."""
    hosts.save("a.md", "1\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    second = hosts.follower("second")
    second.folder = copy.folder
    for other in (second, hosts.follower("third")):
        if other is not second:
            other.folder = hosts.folder
        other.start(ready=False)
        assert other.process is not None
        assert other.process.wait(10) == 1
        assert "is served by another daemon" in other.said()


@pytest.mark.slow
def test_removal_of_most_files_is_held_back(hosts: Hosts) -> None:
    """A leader that serves an empty folder under this name empties no copy, unless a person says so."""
    for number in range(12):
        hosts.save(f"n{number}.md", f"{number}\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    hosts.leader.stop()
    (hosts.leader.state / "journal.db").unlink()
    for path in hosts.folder.glob("*.md"):
        path.unlink()
    hosts.save("only.md", "1\n")
    hosts.leader.start()
    eventually((copy.folder / "only.md").exists)
    eventually(lambda: [one["subject"] for one in copy.status()["problems"]] == ["<deletions>"])
    assert len(tree(copy.folder)) == 13
    said = copy.command("resume", "--accept-deletions").stdout
    assert "12" in said
    same(hosts.folder, copy.folder)
    assert copy.status()["problems"] == []


def test_copy_that_lies_in_the_leaders_folder_is_refused(hosts: Hosts) -> None:
    """It would be copied into itself without end; so would one that is the leader's folder, or lies in another copy."""
    hosts.save("a.md", "1\n")
    hosts.leader.start()
    copy = hosts.follower().start()
    for folder, why in (
        (hosts.folder / "copy", "is in the leader's folder"),
        (copy.folder / "other", "is in the copy"),
    ):
        inner = hosts.follower(f"in-{folder.name}", read_only=False)
        inner.folder = folder
        inner.start(ready=False)
        assert inner.process is not None
        assert inner.process.wait(10) == 2
        assert why in inner.said()
    assert sorted(tree(hosts.folder)) == sorted(tree(copy.folder)) == ["a.md"]


@pytest.mark.slow
def test_leader_in_a_copy_and_copy_that_is_moved_to_the_leader(hosts: Hosts) -> None:
    """The leader's own files are not sent to it as new ones, and the copy that was moved writes nothing."""
    around = hosts.follower("around", "--adopt", read_only=False)
    hosts.folder = hosts.leader.folder = around.folder / "blocks"
    hosts.save("a.md", "1\n")
    hosts.leader.start()
    around.start()
    eventually(lambda: [one["subject"] for one in around.status()["problems"]] == ["blocks/a.md"], "it is told")
    assert "is a folder that blocksd serves" in around.status()["problems"][0]["message"]
    assert around.stop() == 0
    (around.folder / MARKER).unlink()
    copy = hosts.follower("copy").start()
    assert copy.stop() == 0
    copy.folder = copy.folder.rename(hosts.folder / "copy")
    copy.start(ready=False)
    eventually(lambda: "is in the leader's folder" in copy.said(), "it halts")
    eventually(lambda: hosts.leader.values("copy/a") == ["1"])
    hosts.save("a.md", "2\n")
    eventually(lambda: hosts.leader.values("a") == ["1", "2"])
    assert tree(copy.folder) == {"a.md": b"1\n"}
