"""A leader, and a follower that is edited, killed and cut off at random: all comes to be equal, and no text is lost."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from blocksd.errors import NotFound, Unavailable, VersionConflict
from blocksd.files.staging import digest
from blocksd.follow.local_edits import LocalEdits
from blocksd.follow.outgoing import Outgoing
from blocksd.follow.plan import Wanted
from blocksd.follow.report import Report
from blocksd.follow.sender import Answered
from blocksd.model.label import label_of_path
from blocksd.settings.config import Config
from followers import Side
from support import examples

if TYPE_CHECKING:
    from blocksd.follow.outbox import Unsent

NAMES = ("a", "b", "c", "d", "e", "f")


class Leader:
    """What a leader's daemon does with the requests of a follower, in a few lines: a text is lines, and a merge their union."""

    def __init__(self) -> None:
        self.blocks: dict[str, tuple[int, str]] = {}
        self.versions: dict[str, int] = {}
        self.history: set[tuple[str, str]] = set()
        self.outcomes: dict[str, dict[str, Any] | Exception] = {}
        self.times: dict[str, int] = {}

    def put(self, label: str, text: str) -> int:
        version = self.versions[label] = self.versions.get(label, 0) + 1
        self.blocks[label] = version, text
        self.history.add((label, text))
        return version

    def shown(self, label: str) -> Wanted | None:
        if label not in self.blocks:
            return None
        version, text = self.blocks[label]
        return Wanted(f"{label}.md", label, version, f"{version} {text}", 0o644, text.encode())

    def do(self, edit: Unsent) -> dict[str, Any] | Exception:
        """Do a request once, however often it comes."""
        self.times[edit.id] = self.times.get(edit.id, 0) + 1
        if edit.id not in self.outcomes:
            self.outcomes[edit.id] = self._do(edit)
        return self.outcomes[edit.id]

    def _do(self, edit: Unsent) -> dict[str, Any] | Exception:
        version, text = self.blocks.get(edit.label, (0, ""))
        if edit.op == "save":
            saved = (edit.text or b"").decode()
            if version and edit.base != digest(text.encode()):
                self.history.add((edit.label, saved))
                number = self.put(edit.label, saved)
                self.put(edit.label, "\n".join(dict.fromkeys(f"{text}\n{saved}".split("\n"))))
                return {"label": edit.label, "version": number + 1, "saved": number, "block": {"value": None}}
            return {"label": edit.label, "version": self.put(edit.label, saved), "block": {"value": saved}}
        if not version:
            return NotFound("gone", label=edit.label)
        if version != edit.version:
            return VersionConflict("newer", expected=edit.version, version=version)
        del self.blocks[edit.label]
        self.versions[edit.label] += 1
        label = edit.label
        if edit.to is not None:
            label = label_of_path(edit.to)
            return {"label": label, "version": self.put(label, text)}
        return {"label": label, "version": self.versions[label]}


class Hosts(RuleBasedStateMachine):
    """Edits on both hosts, requests and answers that come, are lost or come late, and kills."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(
            prefix="blocksd-test-", dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")
        )
        self.path = Path(self._directory.name)
        self.leader = Leader()
        self.changed: set[str] = set(NAMES)
        self.now = 0.0
        self.count = 0
        self.seen: set[tuple[str, str]] = set()  # texts that the follower has seen
        self._start()

    def _start(self) -> None:
        self.side = Side(self.path)
        copy: Any = self.side
        sender: Any = self
        self.flying: list[Unsent] = []
        config = Config(state_dir=str(self.path / "state"), delete_grace=1.0)
        self.report = Report(config, copy, "", [])
        self.outgoing = Outgoing(copy, self.report, sender)
        self.edits = LocalEdits(copy, self.report, config, self.outgoing)
        assert self.side.copier.recover() == []
        for _ in self.edits.sweep():
            pass
        self.changed |= self.side.place.due

    def send(self, edit: Unsent) -> None:
        """As a sender does."""
        self.flying.append(edit)

    def _text(self) -> str:
        self.count += 1
        return f"text {self.count}"

    @initialize()
    def begin(self) -> None:
        for name in NAMES:
            self.leader.put(name, self._text())
        self.copy()

    @rule(name=st.sampled_from(NAMES))
    def leader_saves(self, name: str) -> None:
        self.leader.put(name, self._text())
        self.changed.add(name)

    @rule(name=st.sampled_from(NAMES))
    def leader_deletes(self, name: str) -> None:
        if name in self.leader.blocks and len(self.leader.blocks) > 3:
            del self.leader.blocks[name]
            self.changed.add(name)

    @rule(name=st.sampled_from(NAMES))
    def person_saves(self, name: str) -> None:
        path = self.side.path / f"{name}.md"
        before = f"{path.read_text()}\n" if path.exists() else ""
        path.write_text(before + self._text())
        self.edits.hint(path.name)

    @rule(name=st.sampled_from(NAMES))
    def person_removes(self, name: str) -> None:
        if len(list(self.side.path.glob("*.md"))) > 4:
            (self.side.path / f"{name}.md").unlink(missing_ok=True)
            self.edits.hint(f"{name}.md")

    @rule(old=st.sampled_from(NAMES), new=st.sampled_from(NAMES))
    def person_moves(self, old: str, new: str) -> None:
        paths = [self.side.path / f"{name}.md" for name in (old, new)]
        if paths[0].exists() and not paths[1].exists():
            paths[0].rename(paths[1])
            for path in paths:
                self.edits.hint(path.name)

    @rule(seconds=st.sampled_from((0.0, 0.5, 2.0)))
    def look(self, seconds: float) -> None:
        """The follower looks at its files, and sends."""
        self.now += seconds
        self.changed.update(self.edits.take_due(self.now))
        for edit in self.outgoing.outbox.edits.values():
            if edit.op == "save":
                self.seen.add((edit.path, (edit.text or b"").decode()))
        reads = lambda labels: {label: self.leader.shown(label) for label in labels}  # noqa: E731
        for path in self.outgoing.go_on(self.now + 1e9, reads):
            self.edits.hint(path)

    @rule()
    def copy(self) -> None:
        """The follower reads what has changed."""
        outcome = self.side.copier.bring(
            {label: self.leader.shown(label) for label in sorted(self.changed)}, restores=False
        )
        self.changed.clear()
        self.edits.take(outcome, self.now)
        self.changed |= outcome.due & set(NAMES)

    @rule(arrives=st.booleans(), is_answered=st.booleans())
    def answer(self, arrives: bool, is_answered: bool) -> None:
        if not self.flying:
            return
        edit = self.flying.pop()
        outcome = self.leader.do(edit) if arrives else None
        if arrives:
            self.changed |= {edit.label, *([label_of_path(edit.to)] if edit.to else [])}
        if isinstance(outcome, dict) and is_answered:
            answered = Answered(edit, outcome)
        elif outcome is not None and is_answered:
            answered = Answered(edit, None, outcome)  # type: ignore[arg-type]  # it is an error
        else:
            answered = Answered(edit, None, Unavailable("no answer", request_id=edit.id))
        labels, paths = self.outgoing.take(answered)
        self.changed.update(labels)
        for path in paths:
            self.edits.hint(path)

    @rule()
    def kill(self) -> None:
        self.side.close()
        self._start()

    @invariant()
    def each_request_is_done_once(self) -> None:
        assert set(self.leader.outcomes) == set(self.leader.times)

    def teardown(self) -> None:
        try:
            for _ in range(60):
                self.look(2.0)
                self.answer(arrives=True, is_answered=True)
                self.copy()
                self.changed |= self.side.place.due
            refused = {edit.path for edit in self.outgoing.outbox.edits.values()}
            assert all(edit.refusal is not None for edit in self.outgoing.outbox.edits.values())
            here = {name.removesuffix(".md"): text for name, text in self.side.tree().items() if name not in refused}
            there = {label: text for label, (_, text) in self.leader.blocks.items() if f"{label}.md" not in refused}
            assert here == there
        finally:
            self.side.close()
            self._directory.cleanup()


Hosts.TestCase.settings = settings(
    max_examples=examples(100),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
TestHosts = Hosts.TestCase
