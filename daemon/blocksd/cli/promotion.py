"""Makes the host of a follower the leader, after the leader's host is lost."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from blocksd.errors import InvalidFile, Misconfigured, Unavailable
from blocksd.files.root import Root
from blocksd.files.staging import digest
from blocksd.follow import marker as markers
from blocksd.follow import place as places
from blocksd.follow.mirrored import PAGE, Mirrored
from blocksd.follow.outbox import Outbox
from blocksd.follow.plan import Wanted, removes_too_much
from blocksd.mirror.projection import in_parts
from blocksd.model.label import printable
from blocksd.model.problem import count
from blocksd.service.leadership import Promotion

if TYPE_CHECKING:
    from blocksd.settings.config import Config


def check(config: Config, *, promotes: bool) -> tuple[Promotion | None, str]:
    """Check before a daemon starts that its folder is no follower's copy, or may be made the leader's.

    Return with what it is promoted, and what to log; nothing if it is not a copy.

    Raises:
        Misconfigured: it is a copy and is not to be promoted, or is none, or has not all that can be had.
    """
    root = Root(config.folder)
    try:
        marker = markers.read(root) if root.held is not None else None
    except (OSError, InvalidFile):
        marker = markers.Marker("", "", "")
    finally:
        root.release()
    if marker is None:
        if not promotes:
            return None, ""
        if not os.path.exists(os.path.join(config.state, "journal.db")):
            message = f"the folder {config.folder} is no follower's copy: there is nothing to promote"
            raise Misconfigured(message, key="folder", hint="start it without --promote")
        return Promotion(), ""  # it was the leader's before, or is
    if not promotes:
        message = f"the folder {config.folder} is a follower's copy of the namespace {marker.namespace!r}"
        hint = "follow with 'blocksd follow'; if the leader's host is lost, and this one is to be the leader: --promote"
        raise Misconfigured(message, key="folder", hint=hint)
    if not os.path.exists(os.path.join(config.state, places.NAME)):
        message = f"the state directory {config.state} is not that of the follower of {config.folder}"
        raise Misconfigured(message, key="state_dir", hint="name the follower's with --state-dir DIR")
    with closing(places.Place(config.state)) as place:
        if (place.id, place.namespace) != (marker.id, config.namespace):
            message = f"the folder {config.folder} is the copy of another follower than that of {config.state}"
            raise Misconfigured(message, key="state_dir", hint="name the follower's --state-dir and --namespace")
        missing = sum(not os.path.lexists(os.path.join(config.folder, path)) for path in place.files)
        if removes_too_much(place.files, missing):
            message = (
                f"{count(missing, 'file')} of {len(place.files)} are gone from the copy: it is not made the leader's"
            )
            raise Misconfigured(message, key="folder", hint="put them back, or have 'blocksd follow' write them")
        unmerged = _unmerged(config, place)
        if unmerged:
            few = ", ".join(map(printable, unmerged[:3])) + (", …" if len(unmerged) > 3 else "")
            message = f"Redis has a newer text of {few}, which was edited here, or could not be written"
            hint = (
                "'blocksd follow --revert PATH' takes that text, and keeps the one that is here in the state directory"
            )
            raise Misconfigured(message, key="folder", hint=hint)
        waiting = Outbox(place).waiting
        edits = f", and {count(waiting, 'local edit')} that the leader has not answered" if waiting else ""
        told = (
            f"the folder has all up to change {place.seq} of the lost leader{edits}; versions are those of this host's "
            "journal, and the lost leader's history is not in it"
        )
        return Promotion(place.epoch or "", place.seq, place.generation), told


def _unmerged(config: Config, place: places.Place) -> list[str]:
    """Return the paths of files of which Redis has another text than the copy was given last."""
    found: list[str] = []
    if config.redis is None or not place.due:
        return found
    with suppress(Unavailable, Misconfigured), closing(Mirrored(config.redis, config.namespace)) as mirrored:
        for labels in in_parts(sorted(place.due), PAGE):
            for label, shown in mirrored.read(labels).items():
                written = place.files.get(place.paths.get(label, ""))
                given = written.digest if written is not None else None
                if isinstance(shown, Wanted) and digest(shown.data) != given:
                    found.append(shown.path)
    return found


def finish(config: Config) -> None:
    """Remove what makes the folder a copy, once the daemon has the folder and the state directory.

    Raises:
        Unavailable: the marker cannot be removed.
    """
    root = Root(config.folder)
    try:
        markers.tidy(root)
        with suppress(FileNotFoundError):  # a crash came after it
            root.unlink(markers.NAME)
        root.sync_directory("")
    except OSError as error:
        message = f"the marker {markers.NAME} cannot be removed from {config.folder}: {error.strerror or error}"
        raise Unavailable(message, path=markers.NAME, errno=error.errno) from None
    finally:
        root.release()
    places.set_aside(config.state)
