"""The machine is worth what it catches: each of these daemons has one mistake in it, and is found out."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from blocksd import core, edits, mirror, projection, recovery, stale
from blocksd.attempt import Attempt
from blocksd.clerk import Clerk
from blocksd.content import Content, content
from blocksd.core import Core
from blocksd.folder import Absent
from blocksd.intake import Intake
from blocksd.ledger import Ledger
from blocksd.operations import Operations
from blocksd.pending import Pending
from blocksd.writer import Writer
from machine.hands import Moody
from machine.machine import HEADS, World
from rig import EFFECTS
from support import RedisServer, valkey_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Patch = pytest.MonkeyPatch


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
            world.save("plan", HEADS[0], 1, 0)
            world.append("notes", "operator")
            world.insert("notes", "ann", 0, None)
            world.batch({"notes", "team/goals"})
            world.create_agent("dan", ("persona",), {"team/goals"})
            world.kill_before_effect(effect, count)
            world.delete_agent("dan")
            world.restore("notes", 99)
            world.kill_before_effect(effect, count)
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
    assert {path: path.read_text() for path in (world.rig.root / "agents/dan").rglob("*.md")} == files


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


def makes_what_was_deleted_by_hand(world: World) -> None:
    world.plain("notes", "operator", "delete")
    world.rounds(2)
    world.save("notes", HEADS[0], 0, 0)


def saves(world: World) -> None:
    world.add("notes", 0)
    world.rounds(1)


STORIES = (
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
    makes_what_was_deleted_by_hand,
    saves,
)


def play(story: Callable[[World], None]) -> World:
    world = World()
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


def test_processes_are_killed_before_every_effect() -> None:
    """There is none that they do not come to."""
    assert play(is_killed_before_every_effect).killed_before == set(EFFECTS)


# --- the mistakes ---


def finishes_before_files_are_put_in(patch: Patch) -> None:
    prepare, finish = Pending.prepare, Pending.finish

    def both(self: Pending, prepared: Any, *, is_durable: bool = True) -> None:
        prepare(self, prepared, is_durable=is_durable)
        finish(self, prepared)

    patch.setattr(Pending, "prepare", both)
    patch.setattr(Pending, "finish", lambda _self, _prepared, _signatures=None: None)


def puts_in_what_was_not_prepared(patch: Patch) -> None:
    finish, prepare = Pending.finish, Pending.prepare

    def both(self: Pending, prepared: Any, *signatures: Any) -> None:
        prepare(self, prepared)
        finish(self, prepared, *signatures)

    patch.setattr(Pending, "prepare", lambda _self, _prepared, **_: None)
    patch.setattr(Pending, "finish", both)


def takes_unreadable_for_absent(patch: Patch) -> None:
    read, is_absent = Moody.read, Moody.is_absent
    patch.setattr(
        Moody,
        "read",
        lambda self, path, closed: Absent() if path in self.unreadable else read(self, path, closed=closed),
    )
    patch.setattr(Moody, "is_absent", lambda self, path: path in self.unreadable or is_absent(self, path))


def removes_requests_when_they_are_read(patch: Patch) -> None:
    carry_out = Clerk.carry_out

    def removing(self: Clerk) -> Any:
        client = World.server.client()
        for key in client.scan_iter("*:inbox:*"):
            client.delete(key)
        client.close()
        return carry_out(self)

    patch.setattr(Clerk, "carry_out", removing)


def forgets_outcomes(patch: Patch) -> None:
    prepare = Pending.prepare
    patch.setattr(
        Pending,
        "prepare",
        lambda self, prepared, **more: prepare(self, replace(prepared, outcomes={}), **more),
    )


def throws_displaced_saves_away(patch: Patch) -> None:
    patch.setattr(Writer, "_give_back", lambda self, staged, _full: self.remove(staged.aside))


def trusts_that_nobody_saved(patch: Patch) -> None:
    put_in = Writer.put_in

    def trusting(self: Writer, staged: Any) -> bool:
        real = content
        base = Content(staged.base, is_open=False)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(
                "blocksd.writer.content", lambda root, path: base if path == staged.aside else real(root, path)
            )
            return put_in(self, staged)

    patch.setattr(Writer, "put_in", trusting)
    patch.setattr(Writer, "give_back_save", lambda *_: False)


def merges_no_stale_saves(patch: Patch) -> None:
    patch.setattr(Clerk, "_merge", lambda _self, _label: None)


def takes_what_is_not_merged_for_a_base(patch: Patch) -> None:
    def base(_saved: Any, newest: Any, _at: float, before: Callable[[int], Any], **_: Any) -> Any:
        return newest if newest.stale_base is not None else before(newest.version - 1)

    patch.setattr(stale, "stale_base", base)


def starts_without_looking_at_what_was_prepared(patch: Patch) -> None:
    patch.setattr(core, "recover", lambda pending, _writer: pending.give_up())


def takes_nothing_back_at_start(patch: Patch) -> None:
    patch.setattr(Writer, "take_back", lambda self, staged: self.discard(staged))
    patch.setattr(recovery, "_settle", lambda group, *_, **__: not group.staged)


def reuses_versions_of_the_deleted(patch: Patch) -> None:
    delete = Ledger.delete

    def forgetting(self: Ledger, label: str, **more: Any) -> None:
        delete(self, label, **more)
        self._versions[label] = 0

    patch.setattr(Ledger, "delete", forgetting)


def rewrites_equal_bytes(patch: Patch) -> None:
    put = Intake._put

    def rewriting(self: Intake, block: Any, saved_at: float) -> bool:
        path = os.path.join(self._folder.root, self._ledger.paths[block.label])
        with open(path, "rb+") as file:
            data = file.read()
            file.seek(0)
            file.write(data)
        return put(self, block, saved_at)

    patch.setattr(Intake, "_put", rewriting)


def announces_no_deletions(patch: Patch) -> None:
    commands_of = projection.commands_of
    patch.setattr(
        mirror,
        "commands_of",
        lambda revision, *more: [
            command
            for command in commands_of(revision, *more)
            if revision.kind != "deleted" or command[0] != "ANNOUNCE"
        ],
    )


def shows_the_detached_as_attached(patch: Patch) -> None:
    commands_of = projection.commands_of
    patch.setattr(mirror, "commands_of", lambda revision, *more: commands_of(replace(revision, detached=()), *more))


def replies_before_it_is_done(patch: Patch) -> None:
    prepare = Pending.prepare

    def replying(self: Pending, prepared: Any, **more: Any) -> None:
        prepare(self, prepared, **more)
        client = World.server.client()
        (lease,) = client.scan_iter("*:lease")
        for (actor, number), outcome in prepared.outcomes.items():
            key = f"{lease.removesuffix(':lease')}:reply:{actor}:{number}"
            client.delete(key)
            client.rpush(key, outcome)
        client.close()

    patch.setattr(Pending, "prepare", replying)


def goes_on_with_what_the_journal_has_half_done(patch: Patch) -> None:
    patch.setattr(Core, "_recover", lambda _self: None)


def patches_what_was_there_before(patch: Patch) -> None:
    def patched(self: Operations, label: str, request: Any) -> None:
        newest = self._ledger.newest(label)
        before = self._desk.version(label, newest.version - 1).block if newest is not None else None
        value = before.value if before is not None else ""
        self._edit(label, request, lambda _: edits.patch(value, request.args["patch"]))

    patch.setattr(Operations, "_patch", patched)


def patches_the_lines_that_were_named(patch: Patch) -> None:
    patch.setattr(edits, "_locate", lambda hunk, _framed, _starts, done: max(hunk.stated, done))


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
    patch.setattr(Attempt, "expected", lambda *_: None)


def forgets_the_folders_of_the_deleted(patch: Patch) -> None:
    patch.setattr(Writer, "remove_directory", lambda *_: True)


def forgets_the_folders_of_the_deleted_in_a_crash(patch: Patch) -> None:
    recover = recovery.recover

    def forgetting(pending: Pending, hand: Writer) -> bool:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Writer, "remove_directory", lambda *_: True)
            return recover(pending, hand)

    patch.setattr(core, "recover", forgetting)


def leaves_the_deleted_attached(patch: Patch) -> None:
    patch.setattr(Attempt, "naming", lambda *_: [])


def does_not_see_what_a_batch_has_made(patch: Patch) -> None:
    patch.setattr(Attempt, "private", lambda self, agent: self._ledger.attachments.private(agent))


def makes_no_folders(patch: Patch) -> None:
    patch.setattr(Writer, "make_directory", lambda *_: None)


def leaves_the_folders_of_the_refused(patch: Patch) -> None:
    patch.setattr(Writer, "remove_made", lambda _self: None)


def takes_folders_for_gone(patch: Patch) -> None:
    patch.setattr(Intake, "hint_tree", lambda *_: None)


def brings_back_the_version_before(patch: Patch) -> None:
    bring_back = Operations._bring_back

    def earlier(self: Operations, label: str, version: int, **more: Any) -> None:
        bring_back(self, label, max(version - 1, 1), **more)

    patch.setattr(Operations, "_bring_back", earlier)


def tries_again_all_the_time(patch: Patch) -> None:
    patch.setattr(Clerk, "_try_again_at", lambda self: self._clock() + 0.01)


class Mutant(NamedTuple):
    """A mistake, and what shows it."""

    mistake: Callable[[Patch], None]
    story: Callable[[World], None]


MUTANTS = (
    Mutant(finishes_before_files_are_put_in, crashes_while_writing),
    Mutant(puts_in_what_was_not_prepared, crashes_while_writing),
    Mutant(finishes_before_files_are_put_in, is_killed_before_every_effect),
    Mutant(puts_in_what_was_not_prepared, is_killed_before_every_effect),
    Mutant(takes_unreadable_for_absent, cannot_read),
    Mutant(removes_requests_when_they_are_read, crashes_between_effects),
    Mutant(forgets_outcomes, asks_twice),
    Mutant(forgets_outcomes, crashes_between_effects),
    Mutant(forgets_outcomes, is_killed_before_every_effect),
    Mutant(throws_displaced_saves_away, saves_while_it_writes),
    Mutant(trusts_that_nobody_saved, saves_while_it_writes),
    Mutant(merges_no_stale_saves, saves_what_was_read_before),
    Mutant(takes_what_is_not_merged_for_a_base, saves_again_before_it_is_merged),
    Mutant(starts_without_looking_at_what_was_prepared, crashes_while_writing),
    Mutant(starts_without_looking_at_what_was_prepared, is_killed_before_every_effect),
    Mutant(takes_nothing_back_at_start, crashes_while_writing),
    Mutant(reuses_versions_of_the_deleted, deletes_and_creates),
    Mutant(rewrites_equal_bytes, saves),
    Mutant(announces_no_deletions, deletes_and_creates),
    Mutant(shows_the_detached_as_attached, detaches),
    Mutant(replies_before_it_is_done, crashes_while_writing),
    Mutant(goes_on_with_what_the_journal_has_half_done, fills_the_disk_of_the_journal),
    Mutant(patches_what_was_there_before, edits_what_others_have_changed),
    Mutant(patches_the_lines_that_were_named, edits_what_others_have_changed),
    Mutant(counts_inserted_lines_from_one, edits_what_others_have_changed),
    Mutant(replaces_the_first_of_several, edits_what_others_have_changed),
    Mutant(replaces_all_of_several, edits_what_others_have_changed),
    Mutant(counts_no_places_that_overlap, edits_what_others_have_changed),
    Mutant(looks_at_no_version, edits_another_version),
    Mutant(forgets_the_folders_of_the_deleted, makes_and_deletes_agents),
    Mutant(forgets_the_folders_of_the_deleted_in_a_crash, crashes_while_agents_come_and_go),
    Mutant(leaves_the_deleted_attached, makes_and_deletes_agents),
    Mutant(does_not_see_what_a_batch_has_made, makes_and_deletes_agents),
    Mutant(makes_no_folders, makes_and_deletes_agents),
    Mutant(leaves_the_folders_of_the_refused, finds_a_full_disk_while_agents_come),
    Mutant(takes_folders_for_gone, leaves_a_file_with_an_agent),
    Mutant(brings_back_the_version_before, brings_blocks_of_the_deleted_back),
    Mutant(tries_again_all_the_time, removes_what_is_asked_for),
)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.mistake.__name__}-{mutant.story.__name__}")
def test_mistake_is_caught(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon with this mistake in it fails where the sound one does not."""
    mutant.mistake(monkeypatch)
    with pytest.raises(AssertionError):
        play(mutant.story)
