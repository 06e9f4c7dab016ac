"""One request: what it changes, if whoever asks may."""

from __future__ import annotations

import difflib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from blocksd import edits
from blocksd.attachment import NOBODY, matches
from blocksd.block import FILE_KEYS, Block, check_fields, check_value
from blocksd.document import MAX_BYTES, decode, normalize_newlines, serialize, split
from blocksd.errors import (
    AlreadyExists,
    BlocksdError,
    EditRefused,
    InvalidField,
    InvalidFile,
    InvalidRequest,
    LabelConflict,
    LimitExceeded,
    MergeConflict,
    NotAttached,
    NotFound,
    ProblemFile,
    ReadOnly,
    VersionConflict,
)
from blocksd.label import PRIVATE, clash_key, name_for_agent, owner, parse_agent, parse_label
from blocksd.merge import merge
from blocksd.revision import OPERATOR
from blocksd.sheet import default_block, edited, replaced
from blocksd.undoing import redone, undone
from blocksd.view import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from blocksd.desk import Desk
    from blocksd.document import Document
    from blocksd.inbox import Request
    from blocksd.revision import Revision
    from blocksd.sheet import Sheet

FIELDS = ("value", *FILE_KEYS)
"""What a request may set."""

_OF_AGENTS = ("value", "description")
_MAX_BATCH = 1000
_FEW = 1000


class Attempt:
    """One request, until it is known that it can be done."""

    def __init__(self, desk: Desk, actor: str) -> None:
        self._desk = desk
        self._ledger = desk.ledger
        self._actor = actor
        self.sheets: dict[str, Sheet] = {}
        self.steps: list[Callable[[str, str], object]] = []
        self._changed: set[str] = set()
        self.labels: list[str] = []
        self.facts: dict[str, Any] = {}
        self.folders_made: set[str] = set()
        self.folders_gone: set[str] = set()

    @property
    def _is_operator(self) -> bool:
        return self._actor == OPERATOR

    def do(self, op: str, request: Request) -> str | None:
        """Do one thing; the label of the block it was done to, or None when it was done to several."""
        if op == "batch":
            self._batch(request)
            return None
        if op in ("create_agent", "delete_agent"):
            self._only_operator(op)
            (self._create_agent if op == "create_agent" else self._delete_agent)(request)
            return None
        label = self._new_label(request) if op == "create" else self._label(request)
        getattr(self, f"_{op}")(label, request)
        to: str = self.facts.pop("to", label)
        return to

    # --- naming ---

    def _label(self, request: Request) -> str:
        """The label of the block a request names."""
        if self._is_operator:
            label = parse_label(_named(request.label, "label", "operators name a block by its label"))
            if self._block(label) is None and request.op not in ("undo", "redo", "restore"):
                raise self._unknown(label)
            return label
        name = parse_label(_named(request.name, "name", "agents name a block by the name they have for it"))
        private = f"{PRIVATE}/{self._actor}/{name}"
        attached, refused = self._ledger.attachments.attached, self._ledger.attachments.refused
        if self._block(private) is not None and private not in refused:
            return private
        if self._block(name) is not None:
            if self._actor not in attached.get(name, ()):
                raise NotAttached(
                    f"the block {name!r} is not attached to {self._actor!r}", agent=self._actor, name=name
                )
            return name
        if request.op in ("undo", "redo", "restore") and self._ledger.newest(private) is not None:
            return private
        raise NotFound(f"{self._actor!r} has no block {name!r}", agent=self._actor, name=name)

    def _new_label(self, request: Request) -> str:
        if self._is_operator:
            return parse_label(_named(request.label, "label", "operators name a block by its label"))
        name = _named(request.name, "name", "agents name a block by the name they have for it")
        return parse_label(f"{PRIVATE}/{self._actor}/{parse_label(name)}")

    def _unknown(self, label: str) -> NotFound:
        paths = self._ledger.paths
        near = difflib.get_close_matches(label, paths, n=1) if len(paths) <= _FEW else []  # nobody waits for a guess
        return NotFound(f"there is no block {label!r}", label=label, near=near)

    def _only_operator(self, what: str) -> None:
        if not self._is_operator:
            raise InvalidRequest(f"an agent may not {what.replace('_', ' an ', 1)}", field="op")

    # --- reading ---

    def _sheet(self, label: str) -> Sheet:
        if label not in self.sheets:
            self.sheets[label] = self._desk.open(label)
        return self.sheets[label]

    def _block(self, label: str) -> Block | None:
        """A block as it is by now, without a look at its file."""
        for sheets in (self.sheets, self._desk.sheets):
            if label in sheets:
                return sheets[label].block
        return self._ledger.block(label)

    def _present(self, label: str) -> tuple[Sheet, Block, Document]:
        """A block that is there and may be changed by who asks."""
        sheet = self._sheet(label)
        if sheet.block is None or sheet.document is None:
            raise self._unknown(label)
        if sheet.block.read_only and not self._is_operator:
            raise ReadOnly(f"the block {name_for_agent(label)!r} is read-only", label=label)
        return sheet, sheet.block, sheet.document

    def _newest(self, label: str) -> Revision | None:
        return self._ledger.newest(label)

    # --- changing ---

    def _expected(self, label: str, request: Request) -> Block | None:
        """The block to merge against, when it is not of the version expected; else None.

        Raises:
            VersionConflict: it is not, and neither to be merged nor overwritten.
        """
        newest = self._newest(label)
        version = newest.version if newest is not None else 0
        if request.expect is None or request.expect == version or request.on_conflict == "overwrite":
            return None
        if request.on_conflict == "merge":
            block = self._desk.version(label, request.expect).block
            if block is not None:
                return block
        raise VersionConflict(
            f"{label!r} is at version {version}, not {request.expect}",
            label=label,
            expected=request.expect,
            version=version,
            block=shown(newest) if newest is not None else None,
        )

    def _set(self, label: str, new: Block, *, position: int | None = None) -> None:
        """The block is to be `new`."""
        sheet, block, document = self._present(label)
        if new == block:
            return
        changed = new.changed_fields(block)
        if not self._is_operator and not set(changed) <= set(_OF_AGENTS):
            what = ", ".join(name for name in changed if name not in _OF_AGENTS)
            raise InvalidRequest(f"an agent may change {' and '.join(_OF_AGENTS)}, not {what}", field="args")
        check_value(new.value, new.limit)
        self._check_names(label, new.agents)
        try:
            document = edited(document, block, new)
        except EditRefused as error:
            raise ProblemFile(error.message, label=label, **error.facts) from None
        self._keep(label, replace(sheet, block=new, document=document))
        self.steps.append(lambda actor, id_: self._ledger.put(new, author=actor, request_id=id_, position=position))

    def _make(self, block: Block, *, position: int | None = None) -> None:
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
        if self._block(label) is not None:
            raise AlreadyExists(f"there is a block {label!r} already", label=label)
        key = clash_key(label)
        for other in (self._ledger.holder(label), *self.sheets):
            if other not in (None, label) and clash_key(str(other)) == key and self._block(str(other)) is not None:
                raise LabelConflict(f"{label!r} could not be told from {other!r}", label=label, other=other)

    def _check_names(self, label: str, entries: Iterable[str]) -> None:
        """Raises LabelConflict when an agent would see two blocks under one name (Letta's unique constraint)."""
        name, agent, attachments = name_for_agent(label), owner(label), self._ledger.attachments
        rivals = {
            one
            for one in attachments.rivals(label, entries) - attachments.refused.get(label, NOBODY)
            if self._block(name if agent is not None else f"{PRIVATE}/{one}/{name}") is not None
        }
        if agent is not None and agent not in attachments.known:  # it is about to be, and will match
            shared = self._block(name)
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

    # --- operations ---

    def _create(self, label: str, request: Request) -> None:
        self._make(Block(label, **{**check_fields(label, {}), **self._fields(label, request.args)}))

    def _update(self, label: str, request: Request) -> None:
        wanted = self._fields(label, request.args)
        _, block, _ = self._present(label)
        base = self._expected(label, request)
        if base is not None:
            for name, value in wanted.items():
                before, now = getattr(base, name), getattr(block, name)
                if name == "value":
                    wanted[name] = merge(before, value, now)
                elif now not in (before, value):
                    raise MergeConflict(
                        f"{name} was changed meanwhile", field=name, base=before, ours=value, theirs=now
                    )
        self._set(label, replaced(block, wanted))

    def _append(self, label: str, request: Request) -> None:
        (content,) = _texts(request, "content")
        self._edit(label, request, lambda value: edits.append(value, content))

    def _replace(self, label: str, request: Request) -> None:
        old, new = _texts(request, "old_content", "new_content")
        self._edit(label, request, lambda value: edits.replace(value, old, new))

    def _insert(self, label: str, request: Request) -> None:
        _only(request, "content", "line")
        content = _text(request, "content")
        line = request.args.get("line", -1)
        if type(line) is not int:
            raise InvalidField("line must be a whole number", field="args.line")
        self._edit(label, request, lambda value: edits.insert(value, content, line))

    def _patch(self, label: str, request: Request) -> None:
        (patch,) = _texts(request, "patch")
        self._edit(label, request, lambda value: edits.patch(value, patch))

    def _edit(self, label: str, request: Request, change: Callable[[str], str]) -> None:
        _, block, _ = self._present(label)
        base = self._expected(label, request)
        value = change(block.value) if base is None else merge(base.value, change(base.value), block.value)
        self._set(label, replaced(block, {"value": normalize_newlines(value)}))

    def _delete(self, label: str, request: Request) -> None:
        _only(request)
        self._expected(label, request)
        self._remove(label)

    def _remove(self, label: str) -> None:
        sheet, _, _ = self._present(label)
        if not self._is_operator and owner(label) != self._actor:
            raise InvalidRequest(f"an agent may delete blocks of its own, not {label!r}, which is shared", field="name")
        self.sheets[label] = replace(sheet, block=None, document=None)
        self._changed.add(label)
        self.steps.append(lambda actor, id_: self._ledger.delete(label, author=actor, request_id=id_))

    def _rename(self, label: str, request: Request) -> None:
        (to,) = _texts(request, "to")
        sheet, _, document = self._present(label)
        if not self._is_operator:
            if owner(label) != self._actor:
                raise InvalidRequest(
                    f"an agent may rename blocks of its own, not {label!r}, which is shared", field="name"
                )
            to = f"{PRIVATE}/{self._actor}/{parse_label(to)}"
        new = parse_label(to)
        self._expected(label, request)
        if new == label:
            return
        try:
            block = self._desk.parse(document.text.encode("utf-8"), new)
        except InvalidFile as error:
            raise InvalidRequest(f"{label!r} cannot be {new!r}: {error.message}", field="args.to") from None
        self.sheets[label] = replace(sheet, block=None, document=None)
        self._check_free(new)
        self._check_names(new, block.agents)
        self._keep(new, replace(self._sheet(new), block=block, document=document, like=sheet.path))
        path = self.sheets[new].path
        self.facts["to"] = new
        self.steps.append(
            lambda actor, id_: self._ledger.rename(block, old=label, path=path, author=actor, request_id=id_)
        )

    def _attach(self, label: str, request: Request) -> None:
        self._only_operator("attach")
        self._expected(label, request)
        _, block, _ = self._present(label)
        if owner(label) is not None:
            raise InvalidRequest(f"{label!r} is private: it belongs to {owner(label)!r} alone", field="label")
        new = [a for a in _agents(request) if not any(matches(entry, a) for entry in block.agents)]
        self._set(label, replace(block, agents=(*block.agents, *dict.fromkeys(new))))

    def _detach(self, label: str, request: Request) -> None:
        self._only_operator("detach")
        self._expected(label, request)
        agents = _agents(request)
        for agent in agents:
            self._check_detachable(label, agent)
        _, block, _ = self._present(label)
        self._set(label, replace(block, agents=tuple(entry for entry in block.agents if entry not in agents)))

    def _check_detachable(self, label: str, agent: str) -> None:
        _, block, _ = self._present(label)
        if agent in block.agents:
            return
        patterns = [entry for entry in block.agents if matches(entry, agent)]
        if patterns:
            raise InvalidRequest(
                f"{agent!r} is attached to {label!r} by {patterns[0]!r}: change 'agents' instead", field="args.agents"
            )
        raise NotAttached(f"the block {label!r} is not attached to {agent!r}", agent=agent, name=label)

    def _undo(self, label: str, request: Request) -> None:
        self._go(label, request, undone)

    def _redo(self, label: str, request: Request) -> None:
        self._go(label, request, redone)

    def _positions(self, label: str) -> dict[int, int | None]:
        positions, newest = self._desk.positions(label), self._newest(label)
        if newest is None or not positions:
            raise self._unknown(label)
        if newest.block is not None and self._block(label) is None:
            raise NotFound(f"the block {label!r} has another label by now", label=label)
        return positions

    def _go(self, label: str, request: Request, where: Callable[[Mapping[int, int | None], str], int]) -> None:
        _only(request)
        if label in self._changed:  # what versions there will be is not known yet
            raise InvalidRequest(f"{label!r} was changed by the same batch: {request.op} it in another", field="op")
        version = where(self._positions(label), label)
        self._expected(label, request)
        self._bring_back(label, version, position=version)

    def _restore(self, label: str, request: Request) -> None:
        _only(request, "version")
        version = request.args.get("version")
        if type(version) is not int:
            raise InvalidField("version must be a whole number", field="args.version")
        self._positions(label)
        self._expected(label, request)
        self._bring_back(label, version, position=None)

    def _bring_back(self, label: str, version: int, *, position: int | None) -> None:
        block = self._desk.version(label, version).block
        if block is None:
            raise InvalidRequest(f"version {version} of {label!r} is its deletion", field="args.version")
        if block.label != label:  # as it was called then
            block = replaced(block, {"label": label})
        if self._block(label) is None:
            if not self._is_operator and owner(label) != self._actor:
                raise InvalidRequest("an agent may bring back blocks of its own", field="name")
            self._make(block, position=position)
        else:
            self._set(label, block, position=position)

    # --- agents ---

    def _create_agent(self, request: Request) -> None:
        _only(request, "agent", "blocks", "attach", "tags")
        agent = parse_agent(_text(request, "agent"))
        attachments = self._ledger.attachments
        # A folder alone may be what a crash has left of this very request.
        if self._private(agent) or self._naming(agent):
            raise AlreadyExists(f"there is an agent {agent!r} already", agent=agent)
        blocks = request.args.get("blocks")
        blocks = [{"name": "persona"}, {"name": "human"}] if blocks is None else blocks
        if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
            raise InvalidField("blocks must be a list of objects", field="args.blocks")
        self._desk.check_writable(f"{PRIVATE}/{agent}")
        self.folders_made.add(agent)
        self.folders_gone.discard(agent)
        self.steps.append(lambda _actor, _id: self._set_folders(attachments.folders | {agent}))
        for given in blocks:
            args = {"tags": request.args.get("tags"), **given}
            name = args.pop("name", None) or args.pop("label", None)
            label = parse_label(f"{PRIVATE}/{agent}/{parse_label(_named(name, 'name', 'a block needs a name'))}")
            self._make(Block(label, **{**check_fields(label, {}), **self._fields(label, args)}))
            self.labels.append(label)
        for name in _list(request, "attach"):
            label = parse_label(name)
            _, block, _ = self._present(label)
            if owner(label) is not None:
                raise InvalidRequest(f"{label!r} is private: it cannot be attached", field="args.attach")
            if not any(matches(entry, agent) for entry in block.agents):
                self._set(label, replace(block, agents=(*block.agents, agent)))
            self.labels.append(label)
        self.facts["agent"] = agent

    def _private(self, agent: str) -> list[str]:
        """The private blocks of an agent as they are by now."""
        labels = {*self._ledger.attachments.private(agent), *(label for label in self.sheets if owner(label) == agent)}
        return sorted(label for label in labels if self._block(label) is not None)

    def _naming(self, agent: str) -> list[str]:
        """The blocks that name an agent plainly by now."""
        labels = {*self._ledger.attachments.naming(agent), *self.sheets}
        return sorted(label for label in labels if (block := self._block(label)) is not None and agent in block.agents)

    def _has_folder(self, agent: str) -> bool:
        return agent in self.folders_made or (
            self._ledger.attachments.has_folder(agent) and agent not in self.folders_gone
        )

    def _set_folders(self, folders: frozenset[str]) -> None:
        self._ledger.set_folders(folders)
        self._ledger.follow_folders()

    def _delete_agent(self, request: Request) -> None:
        _only(request, "agent")
        agent = parse_agent(_text(request, "agent"))
        private, naming = self._private(agent), self._naming(agent)
        if not (private or naming or self._has_folder(agent)):
            raise NotFound(f"there is no agent {agent!r}", agent=agent)
        for label in private:
            self._remove(label)
            self.labels.append(label)
        for label in naming:
            _, block, _ = self._present(label)
            self._set(label, replace(block, agents=tuple(entry for entry in block.agents if entry != agent)))
            self.labels.append(label)
        self.folders_gone.add(agent)
        self.folders_made.discard(agent)
        self.steps.append(lambda _actor, _id: self._set_folders(self._ledger.attachments.folders - {agent}))
        self.facts["agent"] = agent

    # --- several ---

    def _batch(self, request: Request) -> None:
        _only(request, "requests")
        parts = request.args.get("requests")
        if not isinstance(parts, list) or not 1 <= len(parts) <= _MAX_BATCH:
            raise InvalidField(f"requests must be a list of 1 to {_MAX_BATCH} requests", field="args.requests")
        for number, part in enumerate(parts, 1):
            try:
                one = request.part(part)
                if one.op in ("batch", "open_file", "close_file"):
                    raise InvalidRequest(f"{one.op} cannot be part of a batch", field="op")
                label = self.do(one.op, one)
            except BlocksdError as error:
                error.facts["request"] = number
                raise
            if label is not None:
                self.labels.append(label)

    # --- arguments ---

    def _fields(self, label: str, args: Mapping[str, Any]) -> dict[str, Any]:
        """The block fields among the arguments; null stands for the default."""
        allowed = FIELDS if self._is_operator else _OF_AGENTS
        for key in args:
            if key not in FIELDS:
                near = difflib.get_close_matches(key, FIELDS, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; the fields are {', '.join(FIELDS)}"
                raise InvalidRequest(f"a block has no field {key[:80]!r}{hint}", field=f"args.{key[:80]}")
            if key not in allowed:
                raise InvalidRequest(f"an agent may change {' and '.join(allowed)}, not {key}", field=f"args.{key}")
        value = args.get("value")
        if value is not None and not isinstance(value, str):
            raise InvalidField("value must be text", field="args.value")
        checked = check_fields(label, {key: given for key, given in args.items() if key != "value"})
        defaults = default_block(label)
        found = {
            key: checked[key] if given is not None and key in checked else getattr(defaults, key)
            for key, given in args.items()
            if key != "value"
        }
        if "value" in args:
            found["value"] = normalize_newlines(value or "")
        return found


def _named(text: str | None, field: str, why: str) -> str:
    if not isinstance(text, str) or not text:
        raise InvalidRequest(f"{why}: {field!r} is missing", field=field)
    return text


def _only(request: Request, *names: str) -> None:
    for name in request.args:
        if name not in names:
            takes = f"it takes {', '.join(names)}" if names else "it takes none"
            raise InvalidRequest(f"{request.op} takes no argument {name[:80]!r}; {takes}", field=f"args.{name[:80]}")


def _text(request: Request, name: str) -> str:
    text = request.args.get(name)
    if not isinstance(text, str):
        raise InvalidField(f"{request.op} needs the argument {name!r}, a text", field=f"args.{name}")
    return text


def _texts(request: Request, *names: str) -> list[str]:
    _only(request, *names)
    return [_text(request, name) for name in names]


def _list(request: Request, name: str) -> list[str]:
    given = request.args.get(name) or []
    if not isinstance(given, list) or not all(isinstance(one, str) for one in given):
        raise InvalidField(f"{name} must be a list of texts", field=f"args.{name}")
    return given


def _agents(request: Request) -> list[str]:
    _only(request, "agents")
    agents = [parse_agent(agent) for agent in _list(request, "agents")]
    if not agents:
        raise InvalidField("agents must name at least one agent", field="args.agents")
    return agents
