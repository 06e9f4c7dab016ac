"""The form of files that are not read: those that requests leave, and those that nothing is known of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.files.document import serialize
from blocksd.files.staging import mode_of_new
from blocksd.mirror.file_form import USUAL_MODE, form_fields
from blocksd.model.label import path_of_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.files.file_edit import BlockFile
    from blocksd.model.revision import Revision


def form_of_file(file: BlockFile) -> dict[str, str] | None:
    """Return the form of a file as requests leave it, as `Revision.form` has it; None: there is none."""
    if file.block is None or file.data is None:
        return None
    mode = mode_of_new() if file.mode is None else file.mode
    return form_fields(file.data, file.block, path=file.path, mode=mode)


def form_of_revision(revision: Revision) -> Mapping[str, str]:
    """Return the form by which a revision is shown; if it is unknown, that of a new file which says the block."""
    block = revision.block
    assert block is not None
    if revision.form is not None:
        return revision.form
    return form_fields(serialize(block), block, path=path_of_label(block.label), mode=USUAL_MODE)
