"""Decides what follows from what was read and asked for: one round's draft. Nothing is changed by it.

What it needs of a file or an old version that was not read yet, it reads by way of the workspace and the state, which
change nothing. What fails on the way is logged and counted where it fails.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from blocksd.core.scanner import private_folders
from blocksd.errors import JournalUnusable
from blocksd.files.folder import Absent, Busy, Refused, Text
from blocksd.mirror.file_form import form_fields
from blocksd.model.label import is_properties
from blocksd.model.problem import label_conflict, problem_of, warning_of
from blocksd.model.revision import FILE
from blocksd.requests.answers import Answers, answer_requests
from blocksd.requests.workspace import Workspace
from blocksd.state.moves import NewFile, find_moves
from blocksd.state.observed import FileNews
from blocksd.state.read_queue import SETTLE_SECONDS
from blocksd.state.stale import origin_of, past_of
from blocksd.state.state_draft import StateDraft

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from blocksd.core.intake import Intake
    from blocksd.errors import BlocksdError
    from blocksd.files.file_edit import FileEdit
    from blocksd.files.folder import Folder, Signature
    from blocksd.model.block import Block
    from blocksd.model.problem import Problem
    from blocksd.model.revision import Revision
    from blocksd.requests.answers import RequestView
    from blocksd.requests.request import Entry
    from blocksd.state.observed import FileRead, Observed
    from blocksd.state.state import State

    Form = Mapping[str, str]


_FRONTMATTERS = (b"---", b"\xef\xbb\xbf---")
"""How a file with a frontmatter begins: what only looks like one is a problem."""


class Asked(NamedTuple):
    """The requests and merges to do in one round.

    `later` are requests that wait for the next round, `merges` blocks whose stale saves are to be merged. `unwritable` are
    files that could not be written to just now, and why: requests to them are refused. `view` is what may be read
    meanwhile, if there is anything to do.
    """

    entries: Sequence[Entry] = ()
    later: Sequence[Entry] = ()
    merges: frozenset[str] = frozenset()
    unwritable: Mapping[str, BlocksdError] = {}
    view: RequestView | None = None


NOTHING_ASKED = Asked()


@dataclass(slots=True)
class Draft:
    """The outcome of one round, decided on and not committed. To throw it away costs nothing.

    `observed` are the revisions of what the folder says, `files` which file says each label now. `requested` are those of
    what was asked for, on top of them, which come into force by the `edits` of files: `paths` are the files of the blocks
    that are touched by them, `gone` of those that are no more. `folders_made` and `folders_gone` are private folders.
    """

    seen: Observed
    observed: StateDraft
    requested: StateDraft
    asked: Asked
    files: dict[str, tuple[str, Signature | None]] = field(default_factory=dict)
    news: FileNews = field(default_factory=FileNews)
    answers: Answers = field(default_factory=Answers)
    edits: list[FileEdit] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)
    gone: dict[str, str] = field(default_factory=dict)
    folders_made: set[str] = field(default_factory=set)
    folders_gone: set[str] = field(default_factory=set)
    agents_gone: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        drafted = [*self.observed.revisions, *self.requested.revisions]
        lines = [f"{one.seq} {one.kind} {one.label} v{one.version} by {one.who}" for one in drafted]
        lines += [f"{'write' if edit.data is not None else 'remove'} {edit.path}" for edit in self.edits]
        lines += [f"reply {one.outcome} to {one.entry.actor} {one.entry.id}" for one in self.answers.answers]
        return "\n".join(lines)


class FolderView(NamedTuple):
    """The state and the folder, to be read while files are decided on.

    `is_recent` returns True if a revision was written in a share of the stale window before a file was saved, at a time of
    day.
    """

    state: State
    folder: Folder
    intake: Intake
    is_recent: Callable[[Revision, float, float], bool]


def decide(view: FolderView, requests: Callable[[], RequestView], seen: Observed, asked: Asked, at: str) -> Draft:
    """Decide what one round comes to. `at` is when its revisions happen; `requests` is called if a save is to be merged.

    Raises:
        JournalUnusable: what is in force cannot be read.
    """
    draft = decide_on_files(view, seen, asked, at)
    # A stale save is merged at once.
    new = {one.label for one in draft.observed.revisions if one.stale_base is not None}
    if asked.entries or asked.later or asked.merges or new:
        _decide_on_requests(view, asked.view or requests(), draft, new)
    return draft


# --- what files say ---


def decide_on_files(view: FolderView, seen: Observed, asked: Asked, at: str) -> Draft:
    """Decide what follows from what was seen of the folder."""
    while True:
        observed = StateDraft(view.state, at)
        draft = Draft(seen, observed, observed, asked)
        moves = _find_moves(view, draft)
        moved = set(moves.values())
        for path in [path for path in seen.deleted if path not in moved]:
            label = observed.label_of(path)
            if label is not None:
                observed.delete(label)
        if seen.folders or seen.all_folders is not None:
            observed.set_folders(private_folders(observed.attachments, seen.folders, seen.all_folders))
        for place, one in enumerate(seen.files):
            try:
                _decide_on_file(view, draft, one, moves.get(one.path))
            except JournalUnusable:
                raise
            except Exception as error:  # noqa: BLE001  # whatever it is: this file is a problem, and its last good version stays
                seen.files[place] = view.intake.failed(one.path, error)
                break
        else:
            if observed.moved:
                observed.follow_folders()
            return draft


def _find_moves(view: FolderView, draft: Draft) -> dict[str, str]:
    """Return which new files are those of blocks in force under another name: new path → the path it had."""
    observed, intake, files, labels = draft.observed, view.intake, draft.seen.files, view.state.labels
    new = [
        NewFile(one.path, one.reading.signature, one.block)
        for one in files
        if not one.is_known and isinstance(one.reading, Text) and not is_properties(one.path)
    ]
    if not new:
        return {}
    absent = {one.path for one in files if one.path in labels and isinstance(one.reading, Absent)}
    suspects = dict.fromkeys(
        path for path in (*absent, *draft.seen.deleted, *intake.suspects) if not is_properties(path)
    )
    heirs = intake.deletions.heirs
    known = {one.path: old for one in new if (old := heirs.get(one.path)) in suspects and view.folder.is_absent(old)}
    moves = known | find_moves(
        [one for one in new if one.path not in known],
        suspects.keys() - known.values(),
        observed,
        lambda path: path in absent or view.folder.is_absent(path),
    )
    # RACE: a program may put another file in the place of one that it has just moved aside: wait a moment for that.
    seen_to_be_gone = absent.union(draft.seen.deleted)
    settling = [path for path, old in moves.items() if not (old in seen_to_be_gone or intake.deletions.has_missed(old))]
    draft.news.later.update(dict.fromkeys(settling, SETTLE_SECONDS))
    return moves


def _decide_on_file(view: FolderView, draft: Draft, one: FileRead, old: str | None) -> None:
    """Draft what a file says, which may be the one of another block in force: then `old` is the name it had."""
    path, reading, state, news = one.path, one.reading, draft.observed, draft.news
    if isinstance(reading, Absent):
        _decide_on_missing(view, draft, path)
        return
    if path in news.later:
        return
    if isinstance(reading, Busy):
        assert one.error is not None
        news.reports[path] = problem_of(path, one.error, label=state.label_of(path))
        return
    news.missing[path] = False
    links = view.intake.links
    if not isinstance(reading, Text) or reading.way or reading.names > 1 or links.ways or links.inodes:
        _note_links(view, draft, one)
    label = one.label
    if not isinstance(reading, Text) or label is None:
        assert one.error is not None
        _refuse(draft, one, problem_of(path, one.error, label=state.label_of(path)), old)
        return
    if old is not None and state.label_of(old) == label:
        old = None  # the same label in another spelling
    holder: str | None = label
    taken_by, known_signature, newest = state.known(path, label)
    is_new = taken_by != path
    if taken_by is None:
        holder = state.holder(label)
        taken_by = state.path_of(holder) if holder is not None else None
    if taken_by is not None and taken_by != path:
        heir = view.intake.deletions.heir_of(taken_by) if holder != label else None
        if heir is not None or not view.folder.is_absent(taken_by):
            news.blocked[path] = label
            _refuse(draft, one, label_conflict(path, label, heir or taken_by), old)
            return
        if holder != label and taken_by != old:
            _decide_on_missing(view, draft, taken_by)
            news.later[path] = view.intake.deletions.grace
            return
        news.missing[taken_by] = False
    if one.block is None:
        assert one.error is not None
        _refuse(draft, one, problem_of(path, one.error, label=state.label_of(path)), old)
        return
    may_be_half = not is_new and newest is not None and _may_be_half(one.block, reading, newest.block)
    if may_be_half and view.intake.is_fresh(path, reading.saved_at):
        news.halves[path] = reading.saved_at
        return
    news.reports[path] = warning_of(path, label, one.warnings) if one.warnings else None
    form = form_fields(reading.data, one.block, path=path, mode=reading.mode)
    if old is not None:
        newest = _rename(draft, one.block, path, old, form)
    elif is_new:
        state.enforce(label, path)
    _enforce(view, draft, one, newest, form, has_changed=is_new or reading.signature != known_signature)


def _note_links(view: FolderView, draft: Draft, one: FileRead) -> None:
    """Note where a symlink leads, and which file one with several names is; most files are neither."""
    path, reading, links = one.path, one.reading, view.intake.links
    if isinstance(reading, Text):
        inode = reading.signature[3] if reading.names > 1 and not reading.way else None
        if reading.way or inode is not None or path in links.ways or path in links.inodes:
            draft.news.links[path] = (reading.way, inode)
        if inode is not None and path not in view.state.labels and links.inodes.get(path) != inode:
            draft.news.named_anew.add(path)
    elif isinstance(reading, Refused) and reading.way:  # its target may come
        draft.news.links[path] = (reading.way, None)


def _may_be_half(block: Block, reading: Text, before: Block | None) -> bool:
    """Return True if a file has become empty, or has lost its whole frontmatter: programs that truncate it first do that."""
    if before is None or reading.data.startswith(_FRONTMATTERS):
        return False
    return any(name != "value" or not reading.data.strip() for name in block.changed_fields(before))


def _refuse(draft: Draft, one: FileRead, problem: Problem, old: str | None) -> None:
    """Note that a file has a problem; a block whose file it was stays in force under the label that it has."""
    label = draft.observed.label_of(old) if old is not None else None
    if old is not None and label is not None:
        message = f"{problem.message}; {label!r}, whose file it was, stays as it is"
        problem = replace(problem, message=message, label=label)
        draft.news.heirs[one.path] = old
        draft.news.reports[old] = None
    assert isinstance(one.reading, (Text, Refused))
    draft.observed.signatures[one.path] = one.reading.signature
    draft.news.reports[one.path] = problem


def _rename(draft: Draft, block: Block, path: str, old: str, form: Form) -> Revision | None:
    """Draft that the file at `path` is the one that was at `old`; return the revision that says so."""
    state, was = draft.observed, draft.observed.label_of(old)
    before = state.block(was) if was is not None else None
    assert was is not None
    assert before is not None
    its_form = form if before.value == block.value else None
    state.rename(before.named(block.label), old=was, path=path, author=FILE, form=its_form)
    draft.news.missing[old] = False
    draft.news.moved.append(old)
    return state.newest(block.label)


def _decide_on_missing(view: FolderView, draft: Draft, path: str) -> None:
    """Note that a file is not there: of a block in force that is a deletion if it stays so."""
    links = view.intake.links
    if path in links.ways or path in links.inodes:
        draft.news.links[path] = ((), None)
    if draft.observed.label_of(path) is not None:
        draft.news.missing[path] = True
    else:
        draft.observed.forget_file(path)
        draft.news.reports[path] = None


def _enforce(
    view: FolderView, draft: Draft, one: FileRead, newest: Revision | None, form: Form, *, has_changed: bool
) -> None:
    """Draft what a file says; a save of an old text is to be merged with what was written since."""
    state, block, reading = draft.observed, one.block, one.reading
    assert block is not None
    assert isinstance(reading, Text)
    label = block.label
    state.signatures[one.path] = reading.signature
    changed = _save(view, state, block, newest, reading.saved_at, form)
    if not changed and newest is not None:
        has_changed = state.reform(newest, form) or has_changed
    if changed or has_changed:
        # What a file is warned of, and which other names it has, is not journaled: after a restart it is read again.
        draft.files[label] = (one.path, None if one.warnings or reading.names > 1 else reading.signature)


def is_plain_save(newest: Revision) -> bool:
    """Return True if a revision is an ordinary save of the file: what is saved on top of it was made of it."""
    is_saved = newest.author == FILE and newest.request_id is None
    return is_saved and newest.stale_base is None and newest.position is None


def _save(
    view: FolderView, state: StateDraft, block: Block, newest: Revision | None, saved_at: float, form: Form
) -> bool:
    """Draft a block as its file says it, and what the save takes back; return True if that makes a revision."""
    label, others = block.label, view.state.others
    if newest is None or (
        is_plain_save(newest) and (newest.version == 1 or others.get(label) == [] or not state.by_others(label))
    ):
        return state.put(block, form=form)  # made of that save, as most saves are, of a block that others leave alone
    past = past_of(label, state, lambda revision, share: view.is_recent(revision, saved_at, share))
    origin = origin_of(block, newest, past)
    return state.put(block, stale_base=origin.stale_base, reverts=origin.reverts, form=form)


# --- what was asked for ---


def _decide_on_requests(view: FolderView, requests: RequestView, draft: Draft, new: set[str]) -> None:
    read = {one.path: one.reading for one in draft.seen.files if isinstance(one.reading, Text)}
    unwritable = {**draft.asked.unwritable, **view.intake.links.refusals}
    asked = draft.asked
    workspace = Workspace(view.folder, draft.observed, view.intake.parser, read, unwritable)
    workspace.is_recent = lambda revision, share: view.is_recent(revision, requests.wall, share)
    draft.answers = answer_requests(requests, workspace, asked.entries, asked.merges | new, asked.later)
    draft.requested = workspace.draft if workspace.is_changed else draft.observed.branch()
    draft.edits, draft.paths, draft.gone = workspace.outcome()
    draft.folders_made, draft.folders_gone = workspace.folders_made, workspace.folders_gone
    draft.agents_gone = workspace.agents_gone
