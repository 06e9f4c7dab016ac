"""What reads texts that others have written: each target is given bytes, and raises only what it says it raises."""

from __future__ import annotations

import json
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blocksd.errors import BlocksdError, Damaged, InvalidFile, NotFound
from blocksd.files.document import Parser, decode, serialize, split
from blocksd.files.file_edit import Postponed
from blocksd.mirror.file_form import form_of
from blocksd.model.label import label_of_path, parse_agent_pattern
from blocksd.model.revision import Change
from blocksd.protocol.wire import block_of, outcome
from blocksd.requests.agent_operations import access_of
from blocksd.requests.operations import carry_out
from blocksd.requests.reply import refused
from blocksd.requests.request import Entry, Request, parse
from blocksd.requests.workspace import Workspace
from blocksd.settings.config import SourceSettings
from blocksd.sources.sources import Sources
from blocksd.state.state_draft import StateDraft
from looking import Looking

if TYPE_CHECKING:
    from collections.abc import Callable

NOTES = "---\nagents: [ann]  # her\ntags: [a, b]\nmetadata: {k: 1}\n---\none\ntwo\nthree\n"


class Office(Looking):
    """A folder of a few blocks, on which requests are decided and thrown away; nothing is written."""

    def __init__(self) -> None:
        home = Path(tempfile.mkdtemp(prefix="blocksd-fuzz-"))
        super().__init__(home)
        weakref.finalize(self, _remove, home)
        self.write("notes", NOTES)
        self.write("open", "---\nagents: '*'\n---\nx\n")
        self.write("policy", "---\nread_only: true\nagents: [ann, 'b*']\n---\nlaw\n")
        self.write("agents/ann/persona", "I am Ann.\n")
        self.write("agents/bob/persona", "I am Bob.\n")
        self.sweep()
        self.parser = Parser()
        manuals = home / "manuals"
        manuals.mkdir()
        (manuals / "one.txt").write_text("text\n")
        settings = [SourceSettings("manuals", str(manuals), agents=("ann",))]
        self.sources = Sources(settings, self.state, self.problems, (), self.schedule, clock=lambda: self.now)
        while not self.sources.is_settled:
            self.sources.look()
            self.now += 1.0

    def decide(self, actor: str, text: str | None) -> None:
        """Decide on an entry, and throw it away; what is refused has changed nothing."""
        draft = StateDraft(self.state, "")
        workspace = Workspace(self.folder, draft, self.parser)
        request = parse(Entry(actor, "1-0", text))
        if not isinstance(request, Request):
            refused(request.id or "", request.error)
            return
        before, in_force = _facts(draft), _facts(StateDraft(self.state, ""))
        try:
            if request.op in ("open_file", "close_file"):
                json.dumps(access_of(request, self.sources, self._check_known, "").as_json())
            else:
                carry_out(workspace, request)
            workspace.edits()
        except Postponed:
            assert (_facts(draft), workspace.files) == (before, {})
        except BlocksdError as error:
            refused(request.id, error)
            assert (_facts(draft), workspace.files) == (before, {}), "what is refused has changed something"
        assert _facts(StateDraft(self.state, "")) == in_force, "what was thrown away has left something"

    def _check_known(self, agent: str) -> None:
        if not self.state.attachments.is_known(agent):
            raise NotFound("there is no such agent")


def _facts(draft: StateDraft) -> tuple[Any, ...]:
    attachments = draft.attachments
    paths = {label: draft.path_of(label) for label in draft.in_force()}
    return paths, list(draft.revisions), dict(attachments.attached), attachments.folders, attachments.known


def _remove(home: Path) -> None:
    for path in sorted(home.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    home.rmdir()


_office: list[Office] = []


def _text(data: bytes) -> str:
    """As the daemon reads what is in Redis."""
    return data.decode("utf-8", "surrogateescape")


def request(data: bytes) -> None:
    """An entry of an inbox: the first byte tells whose."""
    if not _office:
        _office.append(Office())
    actor = ("operator", "ann", "bob", "nobody")[data[0] % 4] if data else "operator"
    _office[0].decide(actor, _text(data[1:]) if data else None)


def file(data: bytes) -> None:
    """A block file: it is a block, and then says the same when it is written anew, or there is a reason why it is none."""
    parser = Parser()
    try:
        block, warnings = parser.parse(data, "notes")
    except InvalidFile as error:
        json.dumps(error.as_json())
        return
    assert parser.parse(data, "notes") == (block, warnings)
    assert split(decode(data)).text.encode() == data
    assert Parser().parse(serialize(block), "notes")[0] == block
    assert form_of(data, block.value).data(block.value) == data


def entry(data: bytes) -> None:
    """An entry of the stream, or a message on a channel, as a subscriber reads it; and a file's name, as the daemon does."""
    text = _text(data)
    with suppress(Damaged):
        change = Change.loads(text)
        for name in ("version", "fields", "attached", "detached", "author", "at", "renamed_from", "request_id"):
            getattr(change, name)
    for read in (label_of_path, parse_agent_pattern):
        with suppress(BlocksdError):
            read(text)


def reply(data: bytes) -> None:
    """A reply, as a client reads it."""
    with suppress(BlocksdError):
        block_of(outcome(_text(data), "r-1")).as_json()


TARGETS: dict[str, Callable[[bytes], None]] = {"request": request, "file": file, "entry": entry, "reply": reply}
