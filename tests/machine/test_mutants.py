"""The machine is worth what it catches: each of these daemons has one mistake in it, and is found out."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from blocksd.core import core, decide, intake, parts, projector, recovery
from blocksd.core.core import Core
from blocksd.core.deletions import Deletions
from blocksd.core.executor import Executor
from blocksd.core.intake import Intake
from blocksd.core.request_flow import RequestFlow
from blocksd.files import agent_file, beneath, root, staging, writer
from blocksd.files.folder import Absent
from blocksd.files.root import Root
from blocksd.files.writer import OTHER, Content, Writer, content
from blocksd.journal import journal, opening
from blocksd.journal.intents import Intents
from blocksd.journal.journal import Journal
from blocksd.mirror import aside, mirror, projection, runs
from blocksd.model import edits
from blocksd.model.attachment import Attachments
from blocksd.model.properties import Properties
from blocksd.requests import agent_operations, answers, saving, undoing
from blocksd.requests.changeset import Changeset
from blocksd.requests.operations import Operations
from blocksd.requests.request import parse
from blocksd.state import moves, stale
from blocksd.state.state import State
from blocksd.state.state_draft import StateDraft
from machine import hands
from machine.broken import Broken, must
from machine.disk import ALL
from machine.hands import CALLS, COMPOSED, HandledRoot, Moody, calls_of_root
from machine.machine import HEADS, PROPERTIES, SAID, World
from machine.power import PowerWorld
from rig import EFFECTS
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Patch = pytest.MonkeyPatch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def server() -> Iterator[RedisServer]:
    """One server for all worlds."""
    World.server = RedisServer(valkey_binary())
    World.server.start()
    yield World.server
    World.server.remove()


# --- what happens: short ways through the machine ---


def crashes_while_writing(world: World) -> None:
    for calls in range(14):
        world.append("notes", "operator")
        world.batch({"notes", "plan", "team/goals"})
        world.create("agents/ann/persona", "operator")
        world.plain("agents/ann/persona", "operator", "delete")
        world.crash_while_writing(calls)
        world.rest()


def crashes_between_effects(world: World) -> None:
    for at in range(8):
        world.append("notes", "operator")
        world.batch({"notes", "plan"})
        world.crash_before_effect(at)
        world.rest()


def is_killed_before_every_effect(world: World) -> None:
    for effect in EFFECTS:
        for count in (1, 2):
            world.save("team/goals", HEADS[0], 1, 2)
            world.append("notes", "operator")
            world.insert("notes", "ann", 0, None)
            world.batch({"notes", "team/goals"})
            world.create_agent("dan", ("persona",), {"team/goals"})
            world.kill_before_effect(effect, count)
            world.delete_agent("dan")
            world.restore("notes", 99)
            world.kill_before_effect(effect, count)
            world.rest()


def is_killed_before_it_tidies(world: World) -> None:
    world.append("notes", "operator")
    world.kill_before_effect("tidy", 1)
    world.rest()


def asks_twice(world: World) -> None:
    world.append_and_wait("notes", "ann")
    world.repeat(0)
    world.rounds(2)


def saves_while_it_writes(world: World) -> None:
    for at in range(12):
        world.append("notes", "operator")
        world.meanwhile(at, "notes", "add")
        world.at_the_last_moment("notes", "plan", "add", at % 8)
        world.rest()


def saves_what_was_read_before(world: World) -> None:
    for _ in range(3):
        world.save_what_was_read_before("notes", "ann", 0, 2)


def cannot_read(world: World) -> None:
    world.make_unreadable("notes")
    world.rounds(1)
    world.wait(1.5)
    world.wait(1.5)


def edits_what_others_have_changed(world: World) -> None:
    for at in range(3):
        world.append_and_wait("notes", "operator")
        world.look("notes")
        world.replace("notes", "operator", 0, "middle", None)  # of a single line at first, which has it twice
        world.rounds(1)
        world.insert("notes", "ann", at, None)
        world.rounds(1)
        world.patch("notes", "bob", at, at, 1, None)
        world.rounds(1)
        for which in ("line", "lines", "middle", "end"):
            world.replace("notes", "operator", at, which, None)
        world.rounds(1)


def edits_another_version(world: World) -> None:
    for on_conflict in ("merge", "fail", "overwrite"):
        world.append_and_wait("Plan", "operator")
        world.look("Plan")
        world.append_and_wait("Plan", "operator")
        world.insert("Plan", "operator", 0, on_conflict)
        world.replace("Plan", "operator", 0, "line", on_conflict)
        world.patch("Plan", "operator", 0, 0, 0, on_conflict)
        world.rounds(1)


def makes_and_deletes_agents(world: World) -> None:
    for blocks in (None, (), ("persona", "a/b")):
        world.create_agent("dan", blocks, {"team/goals", "notes"})
        world.rounds(1)
        world.make_agent_anew("dan", blocks, {"team/goals"}, is_for_good=True)
        world.rounds(1)
        world.delete_agent("dan")
        world.create_agent("dan", blocks, set())
        world.rounds(1)
        world.delete_agent("dan")
        world.rounds(1)
        world.make_agent_anew("dan", blocks, {"team/goals"}, is_for_good=False)
        world.rest()


def brings_blocks_of_the_deleted_back(world: World) -> None:
    world.create_agent("dan", ("persona", "a/b"), {"team/goals"})
    world.append_and_wait("agents/dan/persona", "operator")
    world.append_and_wait("agents/dan/a/b", "operator")
    files = {path: path.read_text() for path in (world.rig.root / "agents/dan").rglob("*.md")}
    world.delete_agent("dan")
    world.rest()
    assert len(files) == 2
    assert not (world.rig.root / "agents/dan").exists()
    for _ in files:
        world.bring_back(0)
        world.rounds(1)
    back = {path: path.read_text() for path in (world.rig.root / "agents/dan").rglob("*.md")}
    must("brought back", back == files, back, "instead of", files)


def crashes_while_agents_come_and_go(world: World) -> None:
    for at in range(9):
        world.create_agent("dan", ("a/b",), {"team/goals"})
        world.rounds(1)
        world.delete_agent("dan")
        world.crash_before_effect(at)
        world.rest()


def finds_a_full_disk_while_agents_come(world: World) -> None:
    for calls in range(12):
        world.create_agent("dan", ("persona", "a/b"), set())
        world.fill_disk(calls, 1)
        world.rest()
        world.delete_agent("dan")
        world.rounds(1)


def leaves_a_file_with_an_agent(world: World) -> None:
    world.spoil("agents/cyd/team/goals", b"caf\xe9\n", 0)
    world.rounds(1)
    world.delete_agent("cyd")
    world.rest()


def removes_what_is_asked_for(world: World) -> None:
    world.remove("notes")
    world.rounds(1)
    world.append("notes", "operator")


def deletes_and_creates(world: World) -> None:
    for actor in ("operator", "ann"):
        world.create("agents/ann/persona", actor)
        world.plain("agents/ann/persona", actor, "delete")
        world.rounds(2)


def detaches(world: World) -> None:
    world.attach("notes", "cyd", "attach")
    world.rounds(2)
    world.attach("notes", "cyd", "detach")
    world.rounds(2)


def fills_the_disk_of_the_journal(world: World) -> None:
    for transactions in range(4):
        world.save_what_was_read_before("plan", "ann", 0, 1)
        world.append("notes", "operator")
        world.fill_disk_of_journal(transactions, 2)
        world.rest()


def saves_again_before_it_is_merged(world: World) -> None:
    world.open_in_editor("notes")
    world.append_and_wait("notes", "ann")
    world.save_from_editor(0, 0, is_kept=True)
    world.hands.before_renaming(lambda: world.save_from_editor(0, 0, is_kept=True))
    world.rounds(1)
    world.hands.forget()


def puts_back_what_was_there(world: World) -> None:
    world.add("notes", 0)
    world.rounds(1)
    world.put_back("notes", 0, 0, comes_first=True)
    world.rounds(2)


def takes_a_line_out(world: World) -> None:
    world.append_and_wait("notes", "ann")
    world.append_and_wait("notes", "bob")
    world.take_out("notes", 0, 0, adds=False)
    world.rounds(2)


def takes_out_what_a_merge_brought_back(world: World) -> None:
    world.save_what_was_read_before("notes", "ann", 0, 1)
    world.wait(4.0)
    world.take_out("notes", 0, 0, adds=True)
    world.rounds(2)


def takes_a_line_out_later(world: World) -> None:
    world.append_and_wait("notes", "ann")
    world.wait(70.0)
    world.take_out("notes", 0, 0, adds=False)
    world.rounds(1)


def saves_in_two_steps(world: World) -> None:
    world.add("notes", 0)
    world.rounds(2)
    world.save_in_two_steps("notes", 0, 2, "wait")
    world.save_in_two_steps("notes", 0, 2, "ask")
    world.rounds(2)


def makes_what_was_deleted_by_hand(world: World) -> None:
    world.plain("notes", "operator", "delete")
    world.rounds(2)
    world.save("notes", HEADS[0], 0, 0)


def saves(world: World) -> None:
    world.add("notes", 0)
    world.rounds(1)


def moves_a_file(world: World) -> None:
    world.save("notes", HEADS[0], 1, 0)
    world.move_at_rest("notes", "team/goals", 0, is_down=False)
    world.move_at_rest("team/goals", "notes", 1, is_down=True)


def moves_a_file_and_makes_another(world: World) -> None:
    world.move_at_rest("notes", "team/goals", 2, is_down=False)
    world.create("notes", "operator")
    world.rest()


def cannot_remove(world: World) -> None:
    for name in ("unlink", "remove_directory", "close", "sync"):
        world.append("notes", "operator")
        world.create_agent("dan", ("persona",), set())
        world.fail_calls(name, 0, errno.EIO, None, 2)
        world.delete_agent("dan")
        world.fail_calls(name, 0, errno.ESTALE, None, 2)
        world.rest()


def cannot_look_while_it_writes(world: World) -> None:
    for calls in range(8):
        world.hands.is_blind = True  # else what was displaced need not be read again
        world.append("notes", "operator")
        world.fail_calls("read", calls, errno.EIO, 1 + calls % 2, 1)
        world.append("plan", "operator")
        world.fail_at_start("read", calls, errno.EIO, calls * 2)
        world.rest()


def fails_in_one_request(world: World) -> None:
    world.append("notes", "operator")
    world.append("plan", "operator")
    world.rounds(2)


def loses_its_folder(world: World) -> None:
    for is_replaced in (False, True):
        world.take_folder_away("notes", 2, is_replaced=is_replaced)
        world.rest()


def has_a_directory_linked_away(world: World) -> None:
    world.link_directory("operator", 4)


def writes_to_what_it_holds_open(world: World) -> None:
    world.hold_open("notes")
    world.append("notes", "operator")
    world.rounds(2)
    world.write_to_what_is_open("notes")
    world.rounds(1)


def saves_to_what_is_displaced(world: World) -> None:
    for effect in ("project", "clear away"):
        for is_killed in (False, True):
            world.add("notes", 0)
            world.rounds(1)
            world.save_to_what_is_displaced("notes", effect, is_killed=is_killed)
            world.rest()


def comments_on_a_file(world: World) -> None:
    for comment in (b"# why", b"# and why not"):
        world._put("notes", b"---\n" + comment + b"\nagents: [ann, bob]\n---\n", 0)
        world.rounds(2)


def renames_after_a_loss(world: World) -> None:
    comments_on_a_file(world)
    world.rename("notes", "team/goals", "operator")
    world.rounds(2)
    world.empty_redis()


def saves_on_another_host(world: World) -> None:
    for is_of_now in (True, False, False):
        world.save_elsewhere("notes", is_of_now=is_of_now, tells_base=True)
        world.rounds(2)
        world.append_and_wait("notes", "operator")


def has_a_bad_file(world: World) -> None:
    world.spoil("notes", b"caf\xe9\n", 0)
    world.rounds(2)


def saves_in_private(world: World) -> None:
    world.add("notes", 1)
    world.rounds(2)
    world.append_and_wait("notes", "operator")


def changes_properties(world: World) -> None:
    ann = PROPERTIES[0]
    world.say(ann, SAID[1], 0)
    world.rounds(2)
    world.update_agent(ann, {"name": "@", "metadata": {"owner": "@"}})
    world.rest()
    world.bring_properties_back(ann, "ann", "undo", 1)
    world.rounds(2)
    world.bring_properties_back(ann, "operator", "undo", 1)
    world.rounds(2)
    world.say(ann, SAID[1], 0)
    world.rounds(2)
    world.say_what_was_read_before(ann, {"description": "@"}, 0)
    world.rest()
    world.update_agent(ann, {"system": "You are @."})
    world.rounds(2)
    world.put_back(ann, 0, 0, comes_first=False)
    world.rounds(2)


def loses_power_when_properties_are_changed(world: PowerWorld) -> None:
    for at in range(12):
        world.update_agent(PROPERTIES[0], {"name": "@"})
        world.cut_power(at, 0, 0, 0, loses_redis=False)
        world.rest()
    world.update_agent(PROPERTIES[0], {"name": "@"})
    world.rounds(1)
    world.cut_power(0, 0, 0, 0, loses_redis=False)


def is_killed_while_it_writes(world: World) -> None:
    """By a process of its own, which is really killed."""
    for effect in ("put in", "finish"):
        world.append("notes", "operator")
        world.batch({"notes", "plan"})
        world.kill_before_effect(effect, 1)
        world.rest()


def empties_redis(world: World) -> None:
    world.empty_redis()
    world.rounds(2)


def has_an_agent_without_blocks(world: World) -> None:
    world.create_agent("dan", (), set())
    world.rounds(2)


def comes_back_after_a_folder_went(world: World) -> None:
    """A private folder without a block goes, and the process is killed before it sees that."""
    world.create_agent("cyd", (), set())
    world.rest()
    (world.rig.root / "agents/cyd").rmdir()
    world.rig.crash()
    world._come_back()
    world.rounds(2)


# --- the power is cut ---


def asks_for_all_kinds(world: PowerWorld) -> None:
    world.create("agents/ann/persona", "operator")
    world.plain("team/goals", "operator", "delete")
    world.append("notes", "operator")


def loses_power_at_every_effect(world: PowerWorld) -> None:
    for at in range(0, 45, 3):
        asks_for_all_kinds(world)
        world.create("team/goals", "operator")
        world.plain("agents/ann/persona", "operator", "delete")
        world.cut_power(at, 0x2A5 >> (at % 7), 0, at % 2, loses_redis=False)
        world.rest()


def loses_power_when_all_is_done(world: PowerWorld) -> None:
    asks_for_all_kinds(world)
    world.rounds(1)
    world.cut_power(0, 0, 0, 0, loses_redis=False)


def loses_power_after_a_save(world: PowerWorld) -> None:
    world.append("notes", "operator")
    world.rounds(1)
    world.add("notes", 2)
    world.cut_power(0, -1, -1, 0, loses_redis=True)


def loses_power_with_an_agent(world: PowerWorld) -> None:
    world.create_agent("dan", ("persona", "a/b"), {"team/goals"})
    world.rounds(2)
    world.cut_power(99, 0, 0, 0, loses_redis=False)


def loses_power_beside_a_save(world: PowerWorld) -> None:
    """What one request put in can no longer be told; another's file is not touched for it."""
    world.create("agents/ann/persona", "operator")
    world.append("notes", "operator")
    world.rounds(1)
    world.add("notes", 0)
    world.cut_power(0, -1, -1, 0, loses_redis=False)


def loses_power_after_a_rename(world: PowerWorld) -> None:
    """The label was free, and the journal is back at what was prepared: the file stays where it was acknowledged."""
    world.rename("team/goals", "agents/ann/persona", "operator")
    world.rounds(1)
    world.cut_power(0, ALL, ALL, 0, loses_redis=False)


def loses_power_after_a_deletion_that_a_person_undoes(world: PowerWorld) -> None:
    """A person makes the file anew before the journal's word of its deletion is on disk."""
    world.plain("notes", "operator", "delete")
    world.rounds(1)
    world.save("notes", HEADS[0], 1, 2)
    world.cut_power(0, ALL, ALL, 0, loses_redis=False)


def loses_power_after_a_creation_beside_a_deletion(world: PowerWorld) -> None:
    """The same, with a request of another actor in the same round: it has nothing to do with that file."""
    world.create("agents/ann/persona", "operator")
    world.plain("notes", "operator", "delete")
    world.rounds(1)
    world.save("notes", HEADS[0], 1, 2)
    world.cut_power(0, ALL, ALL, 0, loses_redis=False)


def loses_power_after_a_save_over_what_an_agent_wrote(world: PowerWorld) -> None:
    """What the agent wrote is in no file any more, and stays in the history."""
    world.append("notes", "ann")
    world.rounds(1)
    world.save("notes", HEADS[0], 1, 2)
    world.cut_power(0, ALL, ALL, 0, loses_redis=False)


def makes_an_agent_where_a_killed_process_has_made_its_folder(world: PowerWorld) -> None:
    """The name of that folder is in no directory that was synced."""
    (world.rig.root / "agents/dan").mkdir(parents=True)
    world.create_agent("dan", ("persona",), set())
    world.rounds(2)
    world.cut_power(99, 0, 0, 9, loses_redis=False)


POWER_STORIES = (
    loses_power_at_every_effect,
    loses_power_when_all_is_done,
    loses_power_when_properties_are_changed,
    loses_power_after_a_save,
    loses_power_with_an_agent,
    loses_power_beside_a_save,
    loses_power_after_a_rename,
    loses_power_after_a_deletion_that_a_person_undoes,
    loses_power_after_a_creation_beside_a_deletion,
    loses_power_after_a_save_over_what_an_agent_wrote,
    makes_an_agent_where_a_killed_process_has_made_its_folder,
)

STORIES = (
    comments_on_a_file,
    renames_after_a_loss,
    saves_on_another_host,
    crashes_while_writing,
    crashes_between_effects,
    asks_twice,
    saves_while_it_writes,
    saves_what_was_read_before,
    cannot_read,
    deletes_and_creates,
    detaches,
    edits_what_others_have_changed,
    edits_another_version,
    makes_and_deletes_agents,
    brings_blocks_of_the_deleted_back,
    crashes_while_agents_come_and_go,
    finds_a_full_disk_while_agents_come,
    leaves_a_file_with_an_agent,
    removes_what_is_asked_for,
    fills_the_disk_of_the_journal,
    saves_again_before_it_is_merged,
    puts_back_what_was_there,
    changes_properties,
    takes_a_line_out,
    takes_out_what_a_merge_brought_back,
    takes_a_line_out_later,
    saves_in_two_steps,
    makes_what_was_deleted_by_hand,
    saves,
    cannot_remove,
    cannot_look_while_it_writes,
    fails_in_one_request,
    loses_its_folder,
    has_a_directory_linked_away,
    writes_to_what_it_holds_open,
    saves_to_what_is_displaced,
    has_a_bad_file,
    saves_in_private,
    is_killed_while_it_writes,
    empties_redis,
    has_an_agent_without_blocks,
    comes_back_after_a_folder_went,
)


def play(story: Callable[[Any], None], kind: type[World] = World) -> World:
    world = kind()
    try:
        story(world)
        world.rest()
    finally:
        world.close()
    return world


@pytest.mark.parametrize("story", STORIES)
def test_daemon_lives_through_every_story(story: Callable[[World], None]) -> None:
    """Without a mistake in it, the daemon does all that it must in each of the stories by which mistakes are found."""
    play(story)


@pytest.mark.parametrize("story", POWER_STORIES)
def test_daemon_lives_through_every_power_cut(story: Callable[[PowerWorld], None]) -> None:
    """The same for those in which the power is cut."""
    play(story, PowerWorld)


def test_every_call_on_the_folder_can_be_made_to_fail() -> None:
    """A call that is new is noticed: it must go through the hands, or be made of calls that do."""
    assert calls_of_root() == {*CALLS, *COMPOSED}


def test_there_are_mutants_enough() -> None:
    assert len(set(MUTANTS)) >= ENOUGH


def test_processes_are_killed_before_every_effect() -> None:
    """There is none that they do not come to. What was displaced waits to be removed only where all is to be on disk."""
    killed = play(is_killed_before_every_effect).killed_before
    assert killed == set(EFFECTS) - {"tidy"}
    assert play(is_killed_before_it_tidies, PowerWorld).killed_before == {"tidy"}


# --- the mistakes ---


def finishes_before_files_are_put_in(patch: Patch) -> None:
    prepare, finish = Intents.prepare, Intents.finish
    finished: list[Any] = []

    def both(self: Intents, prepared: Any, *, is_durable: bool = True) -> None:
        prepare(self, prepared, is_durable=is_durable)
        finish(self, prepared)
        finished.append(prepared)

    def later(self: Intents, prepared: Any, *signatures: Any, **more: Any) -> None:
        if not any(prepared is one for one in finished):  # what recovery finds prepared, it finishes as ever
            finish(self, prepared, *signatures, **more)

    patch.setattr(Intents, "prepare", both)
    patch.setattr(Intents, "finish", later)


def puts_in_what_was_not_prepared(patch: Patch) -> None:
    finish, prepare = Intents.finish, Intents.prepare

    def both(self: Intents, prepared: Any, *signatures: Any, **more: Any) -> None:
        prepare(self, prepared)
        finish(self, prepared, *signatures, **more)

    patch.setattr(Intents, "prepare", lambda _self, _prepared, **_: None)
    patch.setattr(Intents, "finish", both)


def takes_unreadable_for_absent(patch: Patch) -> None:
    read, is_absent = Moody.read, Moody.is_absent
    patch.setattr(
        Moody,
        "read",
        lambda self, path, closed: Absent() if path in self.unreadable else read(self, path, closed=closed),
    )
    patch.setattr(Moody, "is_absent", lambda self, path: path in self.unreadable or is_absent(self, path))


def removes_requests_when_they_are_read(patch: Patch) -> None:
    collect = RequestFlow.collect

    def removing(self: RequestFlow, due: Any) -> Any:
        client = World.server.client()
        for key in client.scan_iter("*:inbox:*"):
            client.delete(key)
        client.close()
        return collect(self, due)

    patch.setattr(RequestFlow, "collect", removing)


def forgets_outcomes(patch: Patch) -> None:
    for name in ("prepare", "finish"):
        real = getattr(Intents, name)
        patch.setattr(Intents, name, _without_outcomes(real))


def _without_outcomes(real: Callable[..., None]) -> Callable[..., None]:
    return lambda self, prepared, *more, **options: real(self, replace(prepared, outcomes={}), *more, **options)


def throws_displaced_saves_away(patch: Patch) -> None:
    patch.setattr(Writer, "_give_back", lambda self, staged, _full: (self.remove(staged.aside), True)[1])


def trusts_that_nobody_saved(patch: Patch) -> None:
    put_in = Writer.put_in

    def trusting(self: Writer, staged: Any) -> bool:
        real = content
        base = Content(staged.base, is_open=False)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(
                "blocksd.files.writer.content",
                lambda root, path, *more: base if path == staged.aside else real(root, path, *more),
            )
            return put_in(self, staged)

    patch.setattr(Writer, "put_in", trusting)
    patch.setattr(Writer, "is_saved_late", lambda *_: False)


def merges_no_stale_saves(patch: Patch) -> None:
    patch.setattr(Changeset, "merge_stale", lambda _self, _label: None)


def takes_what_is_not_merged_for_a_base(patch: Patch) -> None:
    def base(_saved: Any, newest: Any, past: Any) -> Any:
        return newest if newest.stale_base is not None else past.version(newest.version - 1)

    patch.setattr(stale, "stale_base", base)


def overrules_who_puts_a_text_back(patch: Patch) -> None:
    patch.setattr(StateDraft, "has_been", lambda _self, _block: False)


def does_not_see_what_a_save_was_made_of(patch: Patch) -> None:
    patch.setattr(stale, "marks_of", lambda _block: set())


def goes_back_behind_a_merge(patch: Patch) -> None:
    patch.setattr(stale, "MERGE", "nobody")


def believes_half_a_save(patch: Patch) -> None:
    patch.setattr(decide, "_may_be_half", lambda *_: False)


def takes_away_in_silence(patch: Patch) -> None:
    patch.setattr(stale, "reverts_of", lambda *_: ())


def merges_properties_into_what_was_saved(patch: Patch) -> None:
    patch.setattr(stale, "merged_properties", lambda _base, ours, _theirs: ours)


def keeps_no_property_but_those_given(patch: Patch) -> None:
    patch.setattr(agent_operations, "properties_of", lambda _: Properties())


def writes_properties_anew(patch: Patch) -> None:
    edited = agent_file.edited
    patch.setattr(agent_file, "edited", lambda _text, _block, new: edited("", None, new))


def lets_agents_change_their_properties(patch: Patch) -> None:
    label = Operations._label

    def of_whoever_asks(self: Operations, request: Any) -> str:
        is_theirs = request.name == "agent.yaml"
        return f"agents/{request.entry.actor}/agent.yaml" if is_theirs else label(self, request)

    patch.setattr(Operations, "_label", of_whoever_asks)


def starts_without_looking_at_what_was_prepared(patch: Patch) -> None:
    for module in (core, parts):
        patch.setattr(module, "recover", lambda intents, _writer, **_: intents.give_up())


def takes_nothing_back_at_start(patch: Patch) -> None:
    patch.setattr(Writer, "take_back", lambda self, staged: self.discard(staged))
    patch.setattr(recovery, "_settle", lambda group, *_, **__: not group.staged)


def rewrites_equal_bytes(patch: Patch) -> None:
    enforce = decide._enforce

    def rewriting(view: Any, draft: Any, one: Any, *read: Any, **more: Any) -> None:
        with open(os.path.join(view.folder.root, one.path), "rb+") as file:
            data = file.read()
            file.seek(0)
            file.write(data)
        enforce(view, draft, one, *read, **more)

    patch.setattr(decide, "_enforce", rewriting)


def announces_no_deletions(patch: Patch) -> None:
    commands_of = projection.commands_of

    def silent(revision: Any, *more: Any) -> list[Any]:
        commands = commands_of(revision, *more)
        return [one for one in commands if revision.kind != "deleted" or one[0] != "ANNOUNCE"]

    for module in (mirror, runs):
        patch.setattr(module, "commands_of", silent)


def shows_the_detached_as_attached(patch: Patch) -> None:
    commands_of = projection.commands_of
    for module in (mirror, runs):
        patch.setattr(module, "commands_of", lambda revision, *more: commands_of(replace(revision, detached=()), *more))


def replies_before_it_is_done(patch: Patch) -> None:
    prepare = Intents.prepare

    def replying(self: Intents, prepared: Any, **more: Any) -> None:
        prepare(self, prepared, **more)
        client = World.server.client()
        (lease,) = client.scan_iter("*:lease")
        for (actor, number), outcome in prepared.outcomes.items():
            key = f"{lease.removesuffix(':lease')}:reply:{actor}:{number}"
            client.delete(key)
            client.rpush(key, outcome)
        client.close()

    patch.setattr(Intents, "prepare", replying)


def goes_on_with_what_the_journal_has_half_done(patch: Patch) -> None:
    patch.setattr(Core, "_recover", lambda _self: None)


def patches_what_was_there_before(patch: Patch) -> None:
    def patched(self: Operations, label: str, request: Any) -> None:
        newest = self._changeset.draft.newest(label)
        before = self._changeset.draft.kept_version(label, newest.version - 1).block if newest is not None else None
        value = before.value if before is not None else ""
        self._edit(label, None, lambda _: edits.patch(value, request.args["patch"]))

    patch.setattr(Operations, "_patch", patched)


def patches_the_lines_that_were_named(patch: Patch) -> None:
    patch.setattr(edits, "_locate", lambda hunk, _framed, _starts, done, _spend: max(hunk.stated, done))


def counts_inserted_lines_from_one(patch: Patch) -> None:
    insert = edits.insert
    patch.setattr(edits, "insert", lambda value, content, line=-1: insert(value, content, max(line - 1, min(line, 0))))


def replaces_the_first_of_several(patch: Patch) -> None:
    real = edits.replace
    patch.setattr(
        edits,
        "replace",
        lambda value, old, new: value.replace(old, new, 1) if value.count(old) > 1 else real(value, old, new),
    )


def replaces_all_of_several(patch: Patch) -> None:
    real = edits.replace
    patch.setattr(
        edits,
        "replace",
        lambda value, old, new: value.replace(old, new) if value.count(old) > 1 else real(value, old, new),
    )


def counts_no_places_that_overlap(patch: Patch) -> None:
    real = edits.replace
    patch.setattr(
        edits,
        "replace",
        lambda value, old, new: value.replace(old, new) if value.count(old) == 1 else real(value, old, new),
    )


def looks_at_no_version(patch: Patch) -> None:
    patch.setattr(Changeset, "expected", lambda *_: None)


def forgets_the_folders_of_the_deleted(patch: Patch) -> None:
    patch.setattr(Writer, "remove_directory", lambda *_: True)


def forgets_the_folders_of_the_deleted_in_a_crash(patch: Patch) -> None:
    recover = recovery.recover

    def forgetting(pending: Intents, hand: Writer, **more: Any) -> bool:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Writer, "remove_directory", lambda *_: True)
            return recover(pending, hand, **more)

    for module in (core, parts):
        patch.setattr(module, "recover", forgetting)


def leaves_the_deleted_attached(patch: Patch) -> None:
    patch.setattr(agent_operations, "_naming", lambda *_: [])


def does_not_see_what_a_batch_has_made(patch: Patch) -> None:
    private = lambda changeset, agent: changeset.draft.attachments.private(agent)  # noqa: E731
    patch.setattr(agent_operations, "_private", private)


def makes_no_folders(patch: Patch) -> None:
    patch.setattr(Writer, "make_directory", lambda *_: None)


def leaves_the_folders_of_the_refused(patch: Patch) -> None:
    patch.setattr(Writer, "remove_made", lambda _self: None)


def brings_back_the_version_before(patch: Patch) -> None:
    bring_back = undoing._bring_back

    def earlier(changeset: Changeset, label: str, version: int, **more: Any) -> None:
        bring_back(changeset, label, max(version - 1, 1), **more)

    patch.setattr(undoing, "_bring_back", earlier)


def tries_again_all_the_time(patch: Patch) -> None:
    patch.setattr(RequestFlow, "_try_again_at", lambda self: self._clock() + 0.01)


def tells_of_an_error_in_clean_up(patch: Patch) -> None:
    patch.setattr(Writer, "remove", lambda self, path: self._root.unlink(path))


def takes_unreadable_for_another_text(patch: Patch) -> None:
    def reading(root: Any, path: str, *more: Any) -> Content:
        try:
            return content(root, path, *more)
        except OSError:
            return Content(OTHER, is_open=False)

    patch.setattr(writer, "content", reading)
    patch.setattr(writer, "digest_of", lambda root, path: reading(root, path).digest)


def lets_a_fault_of_one_request_out(patch: Patch) -> None:
    patch.setattr(answers._Deciding, "answer", lambda self, entry: self._answer_request(parse(entry)))
    _breaks_appends(patch)


def _breaks_appends(patch: Patch) -> None:
    def broken(_self: Operations, _label: str, _request: Any) -> None:
        raise ZeroDivisionError

    patch.setattr(Operations, "_append", broken)


def does_not_know_its_folder(patch: Patch) -> None:
    patch.setattr(Root, "check", lambda _self, _path="": None)
    patch.setattr(Deletions, "is_in_doubt", False, raising=False)
    patch.setattr(Root, "is_current", lambda _self: True)
    patch.setattr(Intake, "check_root", lambda _self: None)


def follows_symlinks(patch: Patch) -> None:
    def following(above: int, path: str, flags: int, mode: int = 0) -> int:
        return os.open(path, flags & ~os.O_NOFOLLOW, mode, dir_fd=above)

    for module, name in ((root, "openat2"), (beneath, "openat2"), (beneath, "walk")):
        patch.setattr(module, name, following)
    patch.setattr(Writer, "_make_directory", lambda *_: None)


def exchanges_what_is_open(patch: Patch) -> None:
    patch.setattr(Root, "has_writer", lambda _self, _handle: False)
    patch.setattr(hands, "_has_writer", lambda _self, _handle: False)
    patch.setattr(HandledRoot, "has_writer", lambda _self, _handle: False)


def removes_what_a_crash_has_left_unread(patch: Patch) -> None:
    patch.setattr(Intents, "of_this_boot", lambda _self, _staged: [])


def removes_what_is_displaced_unread(patch: Patch) -> None:
    patch.setattr(Writer, "is_saved_late", lambda _self, _staged: False)


def shows_no_problems(patch: Patch) -> None:
    patch.setattr(projector, "changed_problems", lambda *_: [])


def leaves_requests_in_their_inboxes(patch: Patch) -> None:
    reply_command = aside.reply_command

    def leaving(actor: str, _entry: str, *more: Any) -> Any:
        return reply_command(actor, "1-1", *more)

    patch.setattr(projector, "reply_command", leaving)


def gives_new_files_modes_of_their_own(patch: Patch) -> None:
    patch.setattr(staging, "_take_over", lambda root, handle, *_: root.set_mode(handle, 0o664))


def leaves_temporaries(patch: Patch) -> None:
    patch.setattr(Writer, "remove", lambda _self, _path: None)


def syncs_no_directories(patch: Patch) -> None:
    patch.setattr(Writer, "sync", lambda _self, _staged: None)


def syncs_no_directory_it_makes(patch: Patch) -> None:
    make = Writer._make_directory

    def making(self: Writer, directory: str) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(HandledRoot, "sync_directory", lambda *_: None)
            make(self, directory)

    patch.setattr(Writer, "_make_directory", making)


def syncs_no_texts(patch: Patch) -> None:
    patch.setattr(Root, "sync", lambda _self, _handle: None)
    patch.setattr(HandledRoot, "sync", lambda _self, _handle: None)


def prepares_in_memory(patch: Patch) -> None:
    prepare = Intents.prepare
    patch.setattr(Intents, "prepare", lambda self, prepared, **_: prepare(self, prepared, is_durable=False))


def keeps_its_epoch(patch: Patch) -> None:
    real = opening.open_to_write
    patch.setattr(journal, "open_to_write", lambda path, _boot, *more, **options: real(path, "boot", *more, **options))


def takes_all_back_when_in_doubt(patch: Patch) -> None:
    patch.setattr(recovery, "state_of", lambda *_, **__: recovery.State.OUT)


def removes_the_evidence_at_once(patch: Patch) -> None:
    patch.setattr(Executor, "_retire", Executor._discard)


def takes_all_back_for_one(patch: Patch) -> None:
    """The evidence is one protection, and that the doubt about one request is none about another is the next one."""
    groups_of = recovery.groups_of

    def one_group(prepared: Any) -> list[recovery.Group]:
        groups = groups_of(prepared)
        parts = ("revisions", "staged", "keys", "folders_gone")
        return [recovery.Group(*([one for group in groups for one in getattr(group, part)] for part in parts))]

    patch.setattr(recovery, "groups_of", one_group)
    removes_the_evidence_at_once(patch)


def takes_a_save_for_its_own_failure(patch: Patch) -> None:
    state_of = recovery.state_of

    def judging(one: Any, place: Any, aside: Any, **more: Any) -> recovery.State:
        state = state_of(one, place, aside, **more)
        is_other = place is not None and one.data is not None and place.digest != one.data
        return recovery.State.OUT if is_other else state

    patch.setattr(recovery, "state_of", judging)


def trusts_folders_that_were_there(patch: Patch) -> None:
    make = Writer._make_directory

    def making(self: Writer, directory: str) -> None:
        if not os.path.isdir(os.path.join(self._root.path, directory)):
            make(self, directory)

    patch.setattr(Writer, "_make_directory", making)


def counts_versions_of_the_deleted_anew(patch: Patch) -> None:
    """As far as the journal lets it: a version that it has cannot be given out twice."""
    version_of = State.version_of

    def counted(self: State, label: str) -> int:
        version = version_of(self, label)
        return version if label in self.versions or not version else 10 * version

    patch.setattr(State, "version_of", counted)


def finds_no_moved_files(patch: Patch) -> None:
    patch.setattr(decide, "find_moves", lambda *_: {})


def knows_moved_files_by_their_content_alone(patch: Patch) -> None:
    patch.setattr(moves, "_identity", lambda _: object())


def knows_moved_files_by_their_inodes_alone(patch: Patch) -> None:
    patch.setattr(moves, "_said", lambda _: None)


def gives_the_id_of_another(patch: Patch) -> None:
    patch.setattr(StateDraft, "_has_other", lambda *_: False)


def takes_folders_for_gone(patch: Patch) -> None:
    patch.setattr(intake, "look_at_all", lambda *_: set())


def forgets_who_was_known_by_a_folder(patch: Patch) -> None:
    loaded = Attachments.loaded

    def forgetting(self: Attachments, folders: Any = ()) -> None:
        loaded(self, folders)
        self._folders, self.listed = frozenset(self.owners), None

    patch.setattr(Attachments, "loaded", forgetting)


def does_not_see_that_redis_is_empty(patch: Patch) -> None:
    renew = mirror.Mirror.renew_lease
    patch.setattr(mirror.Mirror, "renew_lease", lambda self: (renew(self), True)[1])


def shows_no_agents(patch: Patch) -> None:
    patch.setattr(projector, "agents_commands", lambda *_: [])


def shows_no_new_forms(patch: Patch) -> None:
    patch.setattr(projector, "reformed_commands", lambda *_: [])


def forgets_forms(patch: Patch) -> None:
    patch.setattr(Journal, "_keep_forms", lambda *_: None)


def saves_over_what_was_written(patch: Patch) -> None:
    patch.setattr(saving, "_merge", lambda changeset, _file, new, *_: saving._stand(changeset, new, ()))


def forgets_what_was_sent(patch: Patch) -> None:
    patch.setattr(saving, "merged", lambda _base, _saved, present, *_: present)


class Mutant(NamedTuple):
    """A mistake, what shows it, and the check that is to notice."""

    mistake: Callable[[Patch], None]
    story: Callable[[Any], None]
    check: str
    world: type[World] = World


MUTANTS = (
    Mutant(finishes_before_files_are_put_in, crashes_while_writing, "saved"),
    Mutant(puts_in_what_was_not_prepared, crashes_while_writing, "saved"),
    Mutant(takes_unreadable_for_absent, cannot_read, "removed"),
    Mutant(removes_requests_when_they_are_read, crashes_between_effects, "replied"),
    Mutant(forgets_outcomes, asks_twice, "one outcome"),
    Mutant(forgets_outcomes, crashes_between_effects, "done once"),
    Mutant(throws_displaced_saves_away, saves_while_it_writes, "saved"),
    Mutant(trusts_that_nobody_saved, saves_while_it_writes, "people"),
    Mutant(merges_no_stale_saves, saves_what_was_read_before, "stale save"),
    Mutant(takes_what_is_not_merged_for_a_base, saves_again_before_it_is_merged, "merged"),
    Mutant(overrules_who_puts_a_text_back, puts_back_what_was_there, "put back"),
    Mutant(does_not_see_what_a_save_was_made_of, takes_a_line_out, "stale base"),
    Mutant(goes_back_behind_a_merge, takes_out_what_a_merge_brought_back, "came back"),
    Mutant(believes_half_a_save, saves_in_two_steps, "half a save"),
    Mutant(takes_away_in_silence, takes_a_line_out_later, "reverts"),
    Mutant(takes_away_in_silence, changes_properties, "reverts"),
    Mutant(merges_properties_into_what_was_saved, changes_properties, "stale save"),
    Mutant(keeps_no_property_but_those_given, changes_properties, "several"),
    Mutant(writes_properties_anew, changes_properties, "style"),
    Mutant(lets_agents_change_their_properties, changes_properties, "asked"),
    Mutant(starts_without_looking_at_what_was_prepared, crashes_while_writing, "saved"),
    Mutant(takes_nothing_back_at_start, crashes_while_writing, "saved"),
    Mutant(finds_no_moved_files, moves_a_file, "moved"),
    Mutant(knows_moved_files_by_their_inodes_alone, moves_a_file, "moved"),
    Mutant(knows_moved_files_by_their_content_alone, moves_a_file_and_makes_another, "moved"),
    Mutant(gives_the_id_of_another, moves_a_file_and_makes_another, "ids"),
    Mutant(rewrites_equal_bytes, saves, "quiet"),
    Mutant(announces_no_deletions, deletes_and_creates, "stream"),
    Mutant(shows_the_detached_as_attached, detaches, "mirror"),
    Mutant(replies_before_it_is_done, crashes_while_writing, "one outcome"),
    Mutant(goes_on_with_what_the_journal_has_half_done, fills_the_disk_of_the_journal, "rest"),
    Mutant(patches_what_was_there_before, edits_what_others_have_changed, "edited"),
    Mutant(patches_the_lines_that_were_named, edits_what_others_have_changed, "edited"),
    Mutant(counts_inserted_lines_from_one, edits_what_others_have_changed, "edited"),
    Mutant(replaces_the_first_of_several, edits_what_others_have_changed, "edited"),
    Mutant(replaces_all_of_several, edits_what_others_have_changed, "edited"),
    Mutant(counts_no_places_that_overlap, edits_what_others_have_changed, "edited"),
    Mutant(looks_at_no_version, edits_another_version, "edited"),
    Mutant(forgets_the_folders_of_the_deleted, makes_and_deletes_agents, "folders"),
    Mutant(forgets_the_folders_of_the_deleted_in_a_crash, crashes_while_agents_come_and_go, "folders"),
    Mutant(leaves_the_deleted_attached, makes_and_deletes_agents, "several"),
    Mutant(does_not_see_what_a_batch_has_made, makes_and_deletes_agents, "several"),
    Mutant(makes_no_folders, makes_and_deletes_agents, "folders"),
    Mutant(leaves_the_folders_of_the_refused, finds_a_full_disk_while_agents_come, "folders"),
    Mutant(brings_back_the_version_before, brings_blocks_of_the_deleted_back, "brought back"),
    Mutant(tries_again_all_the_time, removes_what_is_asked_for, "replied"),
    Mutant(tells_of_an_error_in_clean_up, cannot_remove, "no unforeseen error"),
    Mutant(takes_unreadable_for_another_text, cannot_look_while_it_writes, "saved"),
    Mutant(lets_a_fault_of_one_request_out, fails_in_one_request, "no unforeseen error"),
    Mutant(does_not_know_its_folder, loses_its_folder, "boundary"),
    Mutant(follows_symlinks, has_a_directory_linked_away, "boundary"),
    Mutant(exchanges_what_is_open, writes_to_what_it_holds_open, "open writer"),
    Mutant(removes_what_a_crash_has_left_unread, saves_to_what_is_displaced, "people"),
    Mutant(removes_what_is_displaced_unread, saves_to_what_is_displaced, "people"),
    Mutant(shows_no_problems, has_a_bad_file, "mirror"),
    Mutant(shows_no_new_forms, comments_on_a_file, "mirror"),
    Mutant(forgets_forms, renames_after_a_loss, "mirror"),
    Mutant(saves_over_what_was_written, saves_on_another_host, "reverts"),
    Mutant(forgets_what_was_sent, saves_on_another_host, "acknowledged"),
    Mutant(leaves_requests_in_their_inboxes, saves_in_private, "inbox"),
    Mutant(gives_new_files_modes_of_their_own, saves_in_private, "style"),
    Mutant(leaves_temporaries, saves_in_private, "litter"),
    Mutant(syncs_no_directories, loses_power_when_all_is_done, "acknowledged file", PowerWorld),
    Mutant(syncs_no_directory_it_makes, loses_power_with_an_agent, "acknowledged file", PowerWorld),
    Mutant(syncs_no_texts, loses_power_when_all_is_done, "acknowledged file", PowerWorld),
    Mutant(prepares_in_memory, loses_power_when_all_is_done, "acknowledged", PowerWorld),
    Mutant(syncs_no_texts, loses_power_when_properties_are_changed, "acknowledged file", PowerWorld),
    Mutant(keeps_its_epoch, loses_power_when_all_is_done, "new epoch", PowerWorld),
    Mutant(takes_all_back_when_in_doubt, loses_power_when_all_is_done, "acknowledged", PowerWorld),
    Mutant(takes_all_back_when_in_doubt, loses_power_after_a_rename, "acknowledged", PowerWorld),
    Mutant(removes_the_evidence_at_once, loses_power_after_a_deletion_that_a_person_undoes, "acknowledged", PowerWorld),
    Mutant(takes_all_back_for_one, loses_power_after_a_creation_beside_a_deletion, "acknowledged", PowerWorld),
    Mutant(
        takes_a_save_for_its_own_failure,
        loses_power_after_a_save_over_what_an_agent_wrote,
        "acknowledged",
        PowerWorld,
    ),
    Mutant(
        trusts_folders_that_were_there,
        makes_an_agent_where_a_killed_process_has_made_its_folder,
        "acknowledged file",
        PowerWorld,
    ),
    Mutant(starts_without_looking_at_what_was_prepared, is_killed_while_it_writes, "saved"),
    Mutant(counts_versions_of_the_deleted_anew, deletes_and_creates, "numbers"),
    Mutant(takes_folders_for_gone, has_an_agent_without_blocks, "agents"),
    Mutant(forgets_who_was_known_by_a_folder, comes_back_after_a_folder_went, "mirror"),
    Mutant(does_not_see_that_redis_is_empty, empties_redis, "mirror"),
    Mutant(shows_no_agents, has_an_agent_without_blocks, "mirror"),
)


ENOUGH = 50


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.mistake.__name__}-{mutant.story.__name__}")
def test_mistake_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon with this mistake in it fails where the sound one does not."""
    mutant.mistake(monkeypatch)
    with pytest.raises(Broken) as caught:
        play(mutant.story, mutant.world)
    assert caught.value.check == mutant.check, caught.value
