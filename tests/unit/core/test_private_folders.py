"""An agent is known by its folder."""

from __future__ import annotations

from blocksd.core.scanner import look_at_all, look_at_some, private_folders
from looking import GRACE, Looking


def test_private_folder_makes_an_agent_known(looking: Looking) -> None:
    """An agent is known by its folder, even an empty one, and unknown again without it."""
    looking.save("shared", '---\nagents: "*"\n---\ntext\n')
    (looking.root / "agents" / "one").mkdir(parents=True)
    looking.intake.hint_tree("agents/one")
    (revision,) = looking.wait(1)
    assert (revision.label, revision.fields, revision.attached) == ("shared", ("agents",), ("one",))
    (looking.root / "agents" / "one").rmdir()
    looking.intake.hint_tree("agents/one")
    (revision,) = looking.wait(GRACE * 2)
    assert (revision.label, revision.detached) == ("shared", ("one",))


def test_first_private_folder_is_found_by_a_hint_of_the_directory_above(looking: Looking) -> None:
    """Both were made at once, so that only the outer one was seen to come."""
    (looking.root / "agents" / "ann").mkdir(parents=True)
    looking.intake.hint_tree("agents")
    looking.look_once(256)
    assert looking.state.attachments.known == {"ann"}


def test_private_folders_go_with_the_directory_above(looking: Looking) -> None:
    """It was moved away as a whole: nothing tells of each folder in it."""
    looking.save("shared", '---\nagents: "*"\n---\ntext\n')
    (looking.root / "agents" / "ann").mkdir(parents=True)
    looking.intake.hint_tree("agents")
    looking.wait(1)
    assert looking.state.attachments.known == {"ann"}
    (looking.root / "agents").rename(looking.home / "elsewhere")
    looking.intake.hint_tree("agents")
    (revision,) = looking.wait(GRACE * 2)
    assert (revision.label, revision.detached) == ("shared", ("ann",))


def test_only_folders_of_agents_count(looking: Looking) -> None:
    """Right below `agents`, named as an agent can be; one with a block in force counts as there until that is deleted."""
    looking.save("agents/ann/notes", "text\n")
    attachments, folder = looking.state.attachments, looking.folder
    every = look_at_all(folder, ["agents", "agents/bob", "agents/bob/deep", "agents/no agent", "bobby"], {"ann"})
    assert private_folders(attachments, {}, every) == {"ann", "bob"}
    attachments.set_folders({"ann", "bob"})
    assert private_folders(attachments, {}, look_at_all(folder, ["agents/bob", "agents/ann"], {"ann"})) == {
        "ann",
        "bob",
    }
    (looking.root / "agents" / "eve").mkdir()
    some = look_at_some(folder, ["agents/eve", "agents/bob", "agents/ann", "other"])
    assert private_folders(attachments, some, None) == {"ann", "eve"}
    attachments.set_folders({"ann", "eve"})
    assert private_folders(attachments, look_at_some(folder, ["agents/eve", "eve"]), None) == {"ann", "eve"}


def test_folder_without_a_block_is_an_agents_only_if_it_is_empty(looking: Looking) -> None:
    """Files of other programs make nobody known; what a desktop leaves behind does not count, and a bad block does."""
    for agent, path in (("ann", ".DS_Store"), ("bob", "deep/readme.txt"), ("cyd", "bad.md"), ("dan", "x/.blocksd-1")):
        full = looking.root / "agents" / agent / path
        full.parent.mkdir(parents=True)
        full.write_text("---\n")
    attachments, folder = looking.state.attachments, looking.folder
    directories = ["agents/ann", "agents/bob", "agents/bob/deep", "agents/cyd", "agents/dan", "agents/dan/x"]
    known = {"ann", "cyd", "dan"}
    assert private_folders(attachments, {}, look_at_all(folder, directories, set())) == known
    attachments.set_folders(known)
    some = look_at_some(folder, ["agents/ann", "agents/bob"])
    assert private_folders(attachments, some, None) == known
    (looking.root / "agents/bob/deep/readme.txt").unlink()
    assert private_folders(attachments, look_at_some(folder, ["agents/bob"]), None) == known | {"bob"}
