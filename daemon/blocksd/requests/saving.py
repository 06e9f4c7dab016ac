"""The op that saves a file for a person on another host, who may have edited an older text of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.errors import BlocksdError, InvalidRequest, JournalUnusable, LimitExceeded, NotFound, ProblemFile
from blocksd.files.document import MAX_BYTES, edited
from blocksd.files.staging import digest
from blocksd.journal.history import LAST
from blocksd.mirror.file_form import form_of, form_of_file
from blocksd.model.block import check_value, default_block
from blocksd.model.label import is_properties
from blocksd.model.revision import FILE, MERGE
from blocksd.requests.block_changes import check_free, count_directories
from blocksd.requests.undoing import MERGE_WORK, called
from blocksd.state.reverts import reverts_of
from blocksd.state.stale import merged, origin_of, past_of

if TYPE_CHECKING:
    from blocksd.files.document import Document
    from blocksd.files.file_edit import BlockFile
    from blocksd.model.block import Block
    from blocksd.model.revision import Revision
    from blocksd.requests.changeset import Changeset
    from blocksd.requests.request import Request
    from blocksd.state.reverts import Past
    from blocksd.state.state_draft import StateDraft

_DIGEST_CHARS = 32


def save(changeset: Changeset, label: str, request: Request) -> None:
    """The block's file is to have this text, if it is still the one that the text was made of; else both are merged.

    What cannot be merged stands, as a save in the folder does: what it takes away is named by `reverts`. A block that is gone
    is made again.

    Raises:
        ProblemFile: as a file, the text would have a problem, or the file has one.
    """
    if not changeset.is_operator:
        raise InvalidRequest("an agent may not save a file", field="op")
    request.only("file", "version", "base", "oldest")
    data, version = request.text("file").encode(), request.number("version", least=0)
    oldest = request.number("oldest", least=0) if "oldest" in request.args else None
    base = request.args.get("base")
    if base is not None and not (isinstance(base, str) and len(base) == _DIGEST_CHARS):
        raise InvalidRequest(f"base must be a digest, of {_DIGEST_CHARS} characters", field="args.base")
    if len(data) > MAX_BYTES:
        raise LimitExceeded(f"the file would be {len(data)} bytes, over the {MAX_BYTES} that are read", label=label)
    changeset.spend(len(data))
    changeset.merge_first(label)
    if version and not changeset.has(label):
        label = _renamed(changeset, label)
    try:
        saved, document = changeset.workspace.parser.open(data, label)
    except BlocksdError as error:
        raise ProblemFile(error.message, **{**error.facts, "label": label}) from None
    file = changeset.file(label)
    new = file._replace(block=saved, document=document, data=data)
    if file.block is None:
        check_free(changeset, label)
        count_directories(changeset, file.path)
        _stand(changeset, new, ())
        return
    is_present = base == digest(file.data) or (base is None and version == changeset.draft.version_of(label))
    if base is not None and not is_present and (number := _numbered(changeset, file, label, version, base)) is not None:
        version, oldest = number, oldest if number == version else number
    had = None  # what the host had
    if is_present:
        had = changeset.draft.newest(label)
    elif oldest is not None:
        had = _kept(changeset, label, version)
    past = _past(changeset, label, request.by, oldest if version else None)
    origin = origin_of(saved, had, past)
    if origin.stale_base is not None:  # the editor has read an older text than its host had
        _merge(changeset, file, new, past, origin.stale_base)
    elif data == file.data:
        return
    elif is_present:
        _stand(changeset, new, origin.reverts)
    else:
        _merge(changeset, file, new, past, version, base)


def _renamed(changeset: Changeset, label: str) -> str:
    """Return the label that a block has now whose text was read under this one."""
    to = changeset.draft.state.journal.renamed_to(label)
    if to is None or not changeset.has(to):
        return label
    changeset.facts["to"] = to
    return to


def _past(changeset: Changeset, label: str, by: str | None, oldest: int | None) -> Past:
    """Return the versions of a block, for a save on the host `by`: those that were saved there are not of others.

    With `oldest`, the editor may have read each version from that one on; else those of the stale window.
    """
    draft, is_recent = changeset.draft, changeset.workspace.is_recent

    def is_by_others(revision: Revision | None) -> bool:
        return revision is None or by is None or (revision.author, revision.by) != (FILE, by)

    past = past_of(label, draft, lambda revision, share: is_by_others(revision) and is_recent(revision, share))
    if oldest is not None:
        past = past._replace(is_recent=lambda revision, _share: revision.version > oldest, is_any=True)
    return past._replace(by_others=lambda: [one for one in draft.by_others(label) if is_by_others(past.version(one))])


def _stand(changeset: Changeset, new: BlockFile, reverts: tuple[int, ...]) -> None:
    """The file is to be as it was saved."""
    block = new.block
    assert block is not None
    changeset.count(block)
    changeset.set_file(block.label, new)
    form, request_id = form_of_file(new), changeset.request_id

    def step(draft: StateDraft) -> None:
        draft.enforce(block.label, new.path)
        draft.put(block, author=FILE, request_id=request_id, reverts=reverts, form=form)

    changeset.steps.append(step)


def _merge(
    changeset: Changeset, file: BlockFile, new: BlockFile, past: Past, version: int, base: str | None = None
) -> None:
    """Both what was saved, made of a `version`, and what was written since is to be in the file, as far as that can be."""
    present, saved = file.block, new.block
    assert present is not None
    assert saved is not None
    origin = _origin(changeset, saved.label, version)
    was = origin or default_block(saved.label)
    changeset.spend(MERGE_WORK * (len(was.value) + len(saved.value) + len(present.value)))
    try:
        both = merged(was, saved, present, changeset.effort)
        if not is_properties(both.label):
            check_value(both.value, both.limit)
        document = _document_of(file, new, both, was, base)
        data = changeset.workspace.parser.confirm(document, both)
    except JournalUnusable:
        raise
    except BlocksdError:  # they are in conflict, or no file can say both
        both = saved
    if both == saved:
        _stand(changeset, new, reverts_of(saved, (present,), past))
        return
    if both == present:
        return
    changeset.count(saved)
    changeset.count(both)
    file = file._replace(block=both, document=document, data=data)
    changeset.set_file(both.label, file)
    forms, request_id = (form_of_file(new), form_of_file(file)), changeset.request_id
    stale_base, reverts = version if origin is not None else None, reverts_of(both, (present,), past)

    def step(draft: StateDraft) -> None:
        draft.put(saved, author=FILE, request_id=request_id, stale_base=stale_base, form=forms[0])
        newest = draft.newest(saved.label)
        changeset.facts["saved"] = newest.version if newest is not None else version
        draft.put(both, author=MERGE, request_id=request_id, reverts=reverts, form=forms[1])

    changeset.steps.append(step)


def _origin(changeset: Changeset, label: str, version: int) -> Block | None:
    """Return the block that a text was made of; None if it was none, or is not kept."""
    kept = _kept(changeset, label, version)
    return called(label, kept.block) if kept is not None and kept.block is not None else None


def _numbered(changeset: Changeset, file: BlockFile, label: str, version: int, base: str) -> int | None:
    """Return the version that gives the digest `base`: this one, or one of the last; None if none does.

    The version may be another one here: the leader that gave the number was lost, and its journal.
    """
    newest = changeset.draft.version_of(label)
    numbers: list[int] = [version, *range(newest, max(0, newest - LAST), -1)]
    for number in numbers:
        block = _origin(changeset, label, number)
        if block is not None:
            changeset.spend(len(block.value))
            if _is_of(file, block.value, base):
                return number
    return None


def _kept(changeset: Changeset, label: str, version: int) -> Revision | None:
    """Return a version; None if there is none, or it is not kept."""
    try:
        return changeset.draft.kept_version(label, version) if version else None
    except NotFound:
        return None


def _is_of(file: BlockFile, value: str, base: str) -> bool:
    """Return True if the digest `base` is that of this file with another value."""
    assert file.block is not None
    assert file.data is not None
    return base == digest(form_of(file.data, file.block.value).data(value))


def _document_of(file: BlockFile, new: BlockFile, both: Block, was: Block, base: str | None) -> Document:
    """Return the document that says both texts: that of the file, or, if only the value was changed in it, that which was saved.

    So a comment stays that one of the two has written.
    """
    assert file.document is not None
    assert file.block is not None
    assert new.document is not None
    assert new.block is not None
    if base is None or _is_of(file, was.value, base):
        return edited(new.document, new.block, both)
    return edited(file.document, file.block, both)
