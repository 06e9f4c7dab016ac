"""What one request is to change, until it is known that all of it can be done."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blocksd.arguments import OF_AGENTS
from blocksd.attachment import NOBODY, matches
from blocksd.block import check_value
from blocksd.document import MAX_BYTES, decode, serialize, split
from blocksd.errors import (
    AlreadyExists,
    EditRefused,
    InvalidFile,
    InvalidRequest,
    LabelConflict,
    LimitExceeded,
    NotFound,
    ProblemFile,
    ReadOnly,
    VersionConflict,
)
from blocksd.label import PRIVATE, clash_key, name_for_agent, owner
from blocksd.revision import OPERATOR
from blocksd.sheet import edited
from blocksd.view import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from blocksd.block import Block
    from blocksd.desk import Desk
    from blocksd.document import Document
    from blocksd.request import Request
    from blocksd.sheet import Sheet

_FEW = 1000


class Attempt:
    """One request of an actor, who may not change everything: sheets on top of the desk's, and what they come to.

    `steps` tell the ledger, `labels` and `facts` are for the reply.
    """

    def __init__(self, desk: Desk, actor: str) -> None:
        self._desk = desk
        self._ledger = desk.ledger
        self.actor = actor
        self.sheets: dict[str, Sheet] = {}
        self.steps: list[Callable[[str, str], object]] = []
        self._changed: set[str] = set()
        self.labels: list[str] = []
        self.facts: dict[str, Any] = {}
        self.folders_made: set[str] = set()
        self.folders_gone: set[str] = set()

    @property
    def is_operator(self) -> bool:
        return self.actor == OPERATOR

    # --- what is there by now ---

    def _sheet(self, label: str) -> Sheet:
        if label not in self.sheets:
            self.sheets[label] = self._desk.open(label)
        return self.sheets[label]

    def block(self, label: str) -> Block | None:
        """A block as it is by now, without a look at its file."""
        for sheets in (self.sheets, self._desk.sheets):
            if label in sheets:
                return sheets[label].block
        return self._ledger.block(label)

    def present(self, label: str) -> tuple[Sheet, Block, Document]:
        """A block that is there and may be changed by who asks."""
        sheet = self._sheet(label)
        if sheet.block is None or sheet.document is None:
            raise self.unknown(label)
        if sheet.block.read_only and not self.is_operator:
            raise ReadOnly(f"the block {name_for_agent(label)!r} is read-only", label=label)
        return sheet, sheet.block, sheet.document

    def unknown(self, label: str) -> NotFound:
        """The error that there is no such block; it names one that is called nearly so."""
        paths = self._ledger.paths
        near = difflib.get_close_matches(label, paths, n=1) if len(paths) <= _FEW else []  # nobody waits for a guess
        return NotFound(f"there is no block {label!r}", label=label, near=near)

    def is_changed(self, label: str) -> bool:
        """Whether this very attempt is to change it."""
        return label in self._changed

    def private(self, agent: str) -> list[str]:
        """The private blocks of an agent as they are by now."""
        labels = {*self._ledger.attachments.private(agent), *(label for label in self.sheets if owner(label) == agent)}
        return sorted(label for label in labels if self.block(label) is not None)

    def naming(self, agent: str) -> list[str]:
        """The blocks that name an agent plainly by now."""
        labels = {*self._ledger.attachments.naming(agent), *self.sheets}
        return sorted(label for label in labels if (block := self.block(label)) is not None and agent in block.agents)

    def has_folder(self, agent: str) -> bool:
        return agent in self.folders_made or (
            self._ledger.attachments.has_folder(agent) and agent not in self.folders_gone
        )

    def expected(self, label: str, request: Request) -> Block | None:
        """The block to merge against, when it is not of the version expected; else None.

        Raises:
            VersionConflict: it is not, and neither to be merged nor overwritten.
        """
        newest = self._ledger.newest(label)
        version = newest.version if newest is not None else 0
        if request.expect is None or request.expect == version or request.on_conflict == "overwrite":
            return None
        if request.on_conflict == "merge":
            base = self._desk.version(label, request.expect)
            # What the block was under another label, nobody has read under this one: they mean another block's version.
            if base.block is not None and base.label == label:
                return base.block
        raise VersionConflict(
            f"{label!r} is at version {version}, not {request.expect}",
            label=label,
            expected=request.expect,
            version=version,
            block=shown(newest) if newest is not None else None,
        )

    # --- changing ---

    def put(self, label: str, new: Block, *, position: int | None = None) -> None:
        """The block is to be `new`."""
        sheet, block, document = self.present(label)
        if new == block:
            return
        changed = new.changed_fields(block)
        if not self.is_operator and not set(changed) <= set(OF_AGENTS):
            what = ", ".join(name for name in changed if name not in OF_AGENTS)
            raise InvalidRequest(f"an agent may change {' and '.join(OF_AGENTS)}, not {what}", field="args")
        check_value(new.value, new.limit)
        self._check_names(label, new.agents)
        try:
            document = edited(document, block, new)
        except EditRefused as error:
            raise ProblemFile(error.message, label=label, **error.facts) from None
        self._keep(label, replace(sheet, block=new, document=document))
        self.steps.append(lambda actor, id_: self._ledger.put(new, author=actor, request_id=id_, position=position))

    def make(self, block: Block, *, position: int | None = None) -> None:
        """The block is to come into being."""
        label = block.label
        self._check_free(label)
        check_value(block.value, block.limit)
        self._check_names(label, block.agents)
        document = split(decode(serialize(block)))
        self._keep(label, replace(self._sheet(label), block=block, document=document))
        path = self.sheets[label].path

        def step(actor: str, request_id: str) -> None:
            self._ledger.enforce(label, path)
            self._ledger.put(block, author=actor, request_id=request_id, position=position)

        self.steps.append(step)

    def _keep(self, label: str, sheet: Sheet) -> None:
        data = sheet.data
        assert data is not None
        if len(data) > MAX_BYTES:
            raise LimitExceeded(f"the file would be {len(data)} bytes, over the {MAX_BYTES} that are read", label=label)
        if self._desk.parse(data, label) != sheet.block:
            raise ProblemFile(
                f"the file of {label!r} cannot say this without losing something", label=label, hint="edit it by hand"
            )
        self.sheets[label] = sheet
        self._changed.add(label)

    def _check_free(self, label: str) -> None:
        """Raises AlreadyExists, or LabelConflict when some file systems could not tell the label from another."""
        if self.block(label) is not None:
            raise AlreadyExists(f"there is a block {label!r} already", label=label)
        key = clash_key(label)
        for other in (self._ledger.holder(label), *self.sheets):
            if other not in (None, label) and clash_key(str(other)) == key and self.block(str(other)) is not None:
                raise LabelConflict(f"{label!r} could not be told from {other!r}", label=label, other=other)

    def _check_names(self, label: str, entries: Iterable[str]) -> None:
        """Raises LabelConflict when an agent would see two blocks under one name (Letta's unique constraint)."""
        name, agent, attachments = name_for_agent(label), owner(label), self._ledger.attachments
        rivals = {
            one
            for one in attachments.rivals(label, entries) - attachments.refused.get(label, NOBODY)
            if self.block(name if agent is not None else f"{PRIVATE}/{one}/{name}") is not None
        }
        if agent is not None and agent not in attachments.known:  # it is about to be, and will match
            shared = self.block(name)
            rivals |= {agent} if shared is not None and any(matches(entry, agent) for entry in shared.agents) else set()
        for other, sheet in self.sheets.items():
            if other == label or sheet.block is None or name_for_agent(other) != name:
                continue
            if agent is None and owner(other) is not None:
                rivals |= {str(owner(other))} if any(matches(entry, str(owner(other))) for entry in entries) else set()
            elif agent is not None and owner(other) is None:
                rivals |= {agent} if any(matches(entry, agent) for entry in sheet.block.agents) else set()
        if rivals:
            some = ", ".join(sorted(rivals)[:5]) + (", …" if len(rivals) > 5 else "")
            raise LabelConflict(
                f"{some} has another block {name!r} already (unique constraint)", label=label, agents=sorted(rivals)
            )

    def remove(self, label: str) -> None:
        """The block is to be no more."""
        sheet, _, _ = self.present(label)
        if not self.is_operator and owner(label) != self.actor:
            raise InvalidRequest(f"an agent may delete blocks of its own, not {label!r}, which is shared", field="name")
        self.sheets[label] = replace(sheet, block=None, document=None)
        self._changed.add(label)
        self.steps.append(lambda actor, id_: self._ledger.delete(label, author=actor, request_id=id_))

    def rename(self, label: str, new: str) -> None:
        """The block is to be called `new`, with its file."""
        sheet, _, document = self.present(label)
        try:
            block = self._desk.parse(document.text.encode("utf-8"), new)
        except InvalidFile as error:
            raise InvalidRequest(f"{label!r} cannot be {new!r}: {error.message}", field="args.to") from None
        self.sheets[label] = replace(sheet, block=None, document=None)
        self._check_free(new)
        self._check_names(new, block.agents)
        self._keep(new, replace(self._sheet(new), block=block, document=document, like=sheet.path))
        path = self.sheets[new].path
        self.steps.append(
            lambda actor, id_: self._ledger.rename(block, old=label, path=path, author=actor, request_id=id_)
        )

    def make_folder(self, agent: str) -> None:
        """The agent is to have a private folder."""
        self._desk.check_writable(f"{PRIVATE}/{agent}")
        self.folders_made.add(agent)
        self.folders_gone.discard(agent)
        self.steps.append(lambda _actor, _id: self._set_folders(self._ledger.attachments.folders | {agent}))

    def remove_folder(self, agent: str) -> None:
        """The agent is to have none."""
        self.folders_gone.add(agent)
        self.folders_made.discard(agent)
        self.steps.append(lambda _actor, _id: self._set_folders(self._ledger.attachments.folders - {agent}))

    def _set_folders(self, folders: frozenset[str]) -> None:
        self._ledger.set_folders(folders)
        self._ledger.follow_folders()
