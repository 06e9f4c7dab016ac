"""The marker in the folder of a follower, which says whose copy the folder is; and folders that lie in one another."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from blocksd.errors import InvalidFile, Misconfigured
from blocksd.files.beneath import NOT_THERE
from blocksd.model.label import printable
from blocksd.service.machine import folder_id

if TYPE_CHECKING:
    from blocksd.files.root import Root

NAME = ".blocksd.follow"
"""The marker's file, at the top of the folder. Its name is hidden, so that it is no block, and no temporary of a daemon."""

_MOST_BYTES = 4096
_ASIDE = re.compile(re.escape(NAME) + "-[0-9a-f]{16}")


class Marker(NamedTuple):
    """Whose copy a folder is: `id` names one follower's state directory, `epoch` the journal that the texts are of.

    `run` is of the last start of the follower: a folder and a state directory of different times have different ones.
    """

    id: str
    namespace: str
    epoch: str
    run: str = ""


def new_id() -> str:
    """Return an id for a new follower."""
    return secrets.token_hex(16)


def read(root: Root) -> Marker | None:
    """Return the marker of a folder; None if it has none.

    Raises:
        InvalidFile: there is one that cannot be understood.
        OSError: it cannot be read.
    """
    try:
        handle = root.open(NAME, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in NOT_THERE:
            return None
        raise
    try:
        data = root.read(handle, _MOST_BYTES)
    finally:
        root.close(handle)
    try:
        facts = json.loads(data)
        return Marker(str(facts["id"]), str(facts["namespace"]), str(facts["epoch"]), str(facts.get("run", "")))
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidFile(f"the marker {NAME} is not as a follower writes it") from None


def tidy(root: Root) -> None:
    """Remove what a crash has left beside the marker. What cannot be removed harms nothing."""
    with suppress(OSError), root.scandir("") as entries:
        for name in [entry.name for entry in entries if _ASIDE.fullmatch(entry.name)]:
            root.unlink(name)


def write(root: Root, marker: Marker) -> None:
    """Write the marker: it is whole, and on disk, when this returns.

    Raises:
        OSError: it cannot be written.
    """
    aside = f"{NAME}-{secrets.token_hex(8)}"
    handle = root.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        data = memoryview(json.dumps(marker._asdict()).encode() + b"\n")
        while data:
            data = data[root.write(handle, data) :]
        root.sync(handle)
    finally:
        root.close(handle)
    root.rename(aside, NAME)
    try:
        root.sync_directory("")
    except OSError as error:
        if error.errno != errno.EINVAL:  # of a file system that syncs no directories
            raise


# --- one folder in another: a copy in the leader's folder would be copied again, without end ---


def why_not_here(path: str, leader: str) -> Misconfigured | None:
    """Return why the folder at `path` may be no copy: it is the folder of the `leader`, or lies in that or in a copy.

    `leader` is the id of the leader's folder, if that is on this machine, else empty.
    """
    below, above = path, os.path.dirname(path)
    what = "is the leader's own folder" if _is_leaders(path, leader) else ""
    while not what and above != below:
        if _is_leaders(above, leader):
            what = f"is in the leader's folder {above}"
        elif os.path.lexists(os.path.join(above, NAME)):
            what = f"is in the copy {above} of another follower"
        below, above = above, os.path.dirname(above)
    if not what:
        return None
    return Misconfigured(
        f"the folder {path} {what}", key="folder", hint="name a folder outside of it, or move it there"
    )


def foreign_directory(root: Root, path: str, leader: str) -> str | None:
    """Return the directory on the way to a file that is the leader's folder, or another follower's copy; None: there is none."""
    directory = os.path.dirname(path)
    while directory:
        try:
            if folder_id(root.stat(directory)) == leader or root.exists(f"{directory}/{NAME}"):
                return directory
        except OSError:  # it is gone, or may not be entered
            return None
        directory = os.path.dirname(directory)
    return None


def not_sent(path: str, directory: str) -> Misconfigured:
    """Return why a new file is not sent that is in such a directory."""
    message = f"it is not sent: {printable(directory)} is a folder that blocksd serves or follows, or was one"
    return Misconfigured(message, path=path, hint=f"move {printable(directory)} out of this folder")


def _is_leaders(path: str, leader: str) -> bool:
    try:
        return bool(leader) and folder_id(os.stat(path)) == leader
    except OSError:
        return False
