"""Worlds in which the power is cut, at any durable effect: what had not reached the disk is there, or not, or in part."""

from __future__ import annotations

import os
import sqlite3
import time
from typing import TYPE_CHECKING, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import rule

from blocksd.journal.history import JournalReader
from blocksd.journal.results import Results
from blocksd.model.label import label_of_path
from machine.asked import SEVERAL, block_of
from machine.audit import Save, agent_parts, is_read, path_of, private_folders
from machine.broken import must
from machine.disk import Choice
from machine.hands import Killed
from machine.machine import World

if TYPE_CHECKING:
    from blocksd.model.block import Block
    from machine.asked import Asked

_REPEATED = 3
"""How many of the requests that were acknowledged are sent once more after a power cut."""


class PowerWorld(World):
    """A world of a machine that may lose its power, with a daemon that has all it acknowledges on disk.

    After a cut people look at what is left in their files, as if they had saved it: what never reached the disk is not
    the daemon's to bring back. The daemon loses nothing that it acknowledged.
    """

    durability: ClassVar[str] = "disk"

    def __init__(self) -> None:
        self.boots = 0
        self.cuts: list[str] = []  # for a test that wants to know at which effects there was one
        super().__init__()

    @rule(
        at=st.integers(0, 60),
        entries=st.integers(0, 2**10 - 1),
        contents=st.integers(0, 2**8 - 1),
        commits=st.integers(0, 4),
        loses_redis=st.booleans(),
    )
    def cut_power(self, at: int, entries: int, contents: int, commits: int, loses_redis: bool) -> None:
        """The power is cut before one of the effects of a round, or right after the round."""
        choice = Choice(entries, contents, commits, loses_redis=loses_redis)
        self._pass_on(self.raw)
        self.hands.kill_in(at)
        try:
            self._live_a_round()
        except Killed:
            pass
        else:
            self._just_done()
        self._lose_power(choice)

    @rule(at=st.integers(0, 12), entries=st.integers(0, 2**10 - 1), commits=st.integers(0, 4), again=st.integers(0, 30))
    def cut_power_twice(self, at: int, entries: int, commits: int, again: int) -> None:
        """It is cut once more while what the first cut left is recovered."""
        self.cut_power(at, entries, 0, commits, loses_redis=False)
        self.cut_power(again, entries >> 1, 0, commits >> 1, loses_redis=False)

    def cut_at_start(self, calls: int, choice: Choice) -> bool:
        """The process begins anew, and the power is cut while it recovers; whether it came to that."""
        self.rig.crash()
        self.hands.revive()
        self.hands.kill_in(calls)
        try:
            self._open()
        except Killed:
            self._lose_power(choice)
            return True
        self.hands.forget()
        return False

    def _lose_power(self, choice: Choice) -> None:
        disk, log, rig = self.hands.disk, self.hands.log, self.rig
        assert disk is not None
        assert log is not None
        with self.hands.at_work(is_so=False):
            self._collect()
        revised, sure = self._revised(), self._acknowledged()
        epoch, before = rig.journal.epoch, self._texts()
        folders = self._folders_that_must_be()
        database = log.take(choice)
        rig.crash()
        for held in self.held.values():
            held.close()
        for editors in (self.held, self.buffers, self.read):
            editors.clear()
        disk.cut(choice)
        log.put(*database)
        if choice.loses_redis:
            self.raw.flushall()
            self._lose()
        self._look_at_what_is_left(before, sure)
        self.boots += 1
        rig.boot_id = f"boot {self.boots}"
        self._come_back()
        must("new epoch", rig.journal.epoch != epoch, "the numbers after a power cut are those of before")
        missing = folders - set(private_folders(rig))
        must("acknowledged folder", not missing, "agents were acknowledged, and their folders are gone:", missing)
        self._ask_again(revised)
        self._just_done()

    def _text(self, path: str) -> bytes | None:
        full = self.rig.root / path
        return full.read_bytes() if full.exists() else None

    def _revised(self) -> set[str]:
        """The requests of which there are revisions in force, as another process sees them."""
        database = sqlite3.connect(f"file:{self.rig.journal.path}?mode=ro", uri=True)
        try:
            found = database.execute("SELECT name FROM sqlite_master WHERE name = 'in_force'").fetchone()
            table = "in_force" if found else "revisions"
            rows = database.execute(f"SELECT request_id FROM {table} WHERE request_id IS NOT NULL").fetchall()
            return {number for (number,) in rows}
        finally:
            database.close()

    def _texts(self) -> dict[str, bytes]:
        root = self.rig.root
        found = (
            os.path.join(directory, name)
            for directory, _, names in os.walk(root)
            for name in names
            if is_read(os.path.relpath(os.path.join(directory, name), root))
        )
        texts = {}
        for full in found:
            with open(full, "rb") as file:
                texts[os.path.relpath(full, root)] = file.read()
        return texts

    def _acknowledged(self) -> dict[str, Block | None]:
        """What was last made of each label, where that was acknowledged and no request may have changed it since."""
        open_ = [asked for asked in self.memory.asked.values() if not asked.is_answered]
        if any(asked.op in (*SEVERAL, "rename") for asked in open_):
            return {}
        doubtful = {label for asked in open_ for label in asked.labels}
        journal = JournalReader(self.rig.journal.path)
        try:
            newest = [revision for head in list(journal.heads()) if (revision := journal.head(head.label)) is not None]
        finally:
            journal.close()
        sure: dict[str, Block | None] = {}
        for one in newest:
            asked = self.memory.asked.get(one.request_id or "")
            if asked is None or not asked.is_accepted or one.label in doubtful or asked.may_be_lost:
                continue
            sure[one.label] = one.block
            if one.renamed_from is not None:
                sure[one.renamed_from] = None
        return sure

    def _look_at_what_is_left(self, before: dict[str, bytes], sure: dict[str, Block | None]) -> None:
        """What a file says that it did not say before the cut is as if a person had saved it, and so is its end.

        Unless it said what was acknowledged: that must still be there.
        """
        for label, block in sure.items():
            path = path_of(label)
            was, now = before.get(path), self._text(path)
            said = None if was is None else block_of(label, was)
            if said == block and (said is None) == (was is None):  # a text that is no block says not that there is none
                must("acknowledged file", was == now, path, "was", was, "as acknowledged, and is", now)
        after = self._texts()
        for path in before.keys() | after.keys():
            data, saves = after.get(path), self.memory.saves.get(path)
            if data == before.get(path) and (
                data is None or not saves or (self.rig.root / path).stat().st_mode & 0o777 == saves[-1].mode
            ):
                continue
            label = label_of_path(path)
            if data is None:
                self.memory.removed.add(label)
                self.memory.last[path] = None
            else:
                mode = (self.rig.root / path).stat().st_mode & 0o777
                self._note_save(label, Save(data, time.time(), mode))

    def _folders_that_must_be(self) -> set[str]:
        """The agents whose creation was acknowledged, and of whom nothing else was asked that may have been done."""
        last: dict[str, Asked] = {}
        for asked in self.memory.asked.values():
            for part in agent_parts(asked):
                last[part["args"]["agent"]] = asked
        sure = {agent for agent, asked in last.items() if asked.is_accepted and not asked.may_be_lost}
        there = set(private_folders(self.rig))
        return {agent for agent in sure if agent_parts(last[agent])[-1]["op"] == "create_agent"} & there

    def _ask_again(self, revised: set[str]) -> None:
        """Clients repeat requests of theirs, and get the same replies: nothing that was acknowledged is forgotten."""
        kept, seq = Results(self.rig.journal.database), self.rig.journal.seq
        answered = [asked for asked in self.memory.asked.values() if asked.is_answered]
        for asked in answered:
            must(
                "acknowledged", kept.outcome_of(asked.actor, asked.id) is not None, "the outcome is forgotten of", asked
            )
        for asked in self.memory.asked.values():
            asked.since = min(asked.since, seq)
        for asked in answered[-_REPEATED:]:
            self._send(asked)
