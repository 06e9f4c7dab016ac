"""What each session of an assistant was shown last: a small file for each of the newest sessions."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import astuple, dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from blocksd.assistants.changes import Shown
from blocksd.settings.record import write_private

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_SESSIONS = 200


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session stands: all up to this seq of this epoch was shown, as these blocks, by id."""

    epoch: str
    seq: int
    blocks: Mapping[str, Shown]


class Sessions:
    """The sessions that are remembered in a directory. It is made when the first one is."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def place(self, *session: str) -> Place | None:
        """Return where a session stands; None if it is not known. `session` are the texts that name it."""
        try:
            with open(self._path(session), encoding="utf-8") as file:
                given: Any = json.load(file)
            blocks = {block: Shown(*seen) for block, seen in given["blocks"].items()}
            return Place(given["epoch"], given["seq"], blocks)
        except (
            OSError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ):  # none, or not ours: everything is shown again
            return None

    def remember(self, place: Place, *session: str) -> None:
        """Remember where a session stands; forget those that were not used for longest.

        Raises:
            OSError: it cannot be written.
        """
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        blocks = {block: astuple(seen) for block, seen in place.blocks.items()}
        write_private(self._path(session), json.dumps({"epoch": place.epoch, "seq": place.seq, "blocks": blocks}))
        paths = [entry.path for entry in os.scandir(self._directory)]
        if len(paths) > MOST_SESSIONS:
            for path in sorted(paths, key=_age)[: len(paths) - MOST_SESSIONS]:
                with suppress(OSError):
                    os.unlink(path)

    def _path(self, session: tuple[str, ...]) -> str:
        name = blake2b("\0".join(session).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return os.path.join(self._directory, name)


def _age(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
