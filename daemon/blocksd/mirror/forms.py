"""Shows the forms of the files of revisions, of which it may be unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blocksd.files.document import serialize
from blocksd.mirror.file_form import FORM_FIELDS, USUAL_MODE, form_fields
from blocksd.model.label import is_properties, owner, path_of_label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.mirror.keys import Keys
    from blocksd.model.revision import Revision


def form_of_revision(revision: Revision) -> Mapping[str, str]:
    """Return the form by which a revision is shown; if it is unknown, that of a new file which says the block."""
    block = revision.block
    assert block is not None
    if revision.form is not None:
        return revision.form
    return form_fields(serialize(block), block, path=path_of_label(block.label), mode=USUAL_MODE)


def reforming_commands(revision: Revision, keys: Keys) -> list[tuple[str, ...]]:
    """Return the commands that show the form of the file of a block in force, and nothing else of it."""
    label, form = revision.label, form_of_revision(revision)
    key = keys.agent_info(str(owner(label))) if is_properties(label) else keys.block(label)
    absent = [name for name in FORM_FIELDS if name not in form]
    commands: list[tuple[str, ...]] = [("HDEL", key, *absent)] if absent else []
    return [*commands, ("HSET", key, *(word for pair in form.items() for word in pair))] if form else commands
