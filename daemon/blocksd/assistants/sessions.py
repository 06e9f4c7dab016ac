"""What each session of an assistant was shown last: a small file for each of the newest sessions."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import astuple, dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from blocksd.assistants.changes import Shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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

    def stage(self, place: Place, *session: str) -> Callable[[], None]:
        """Write down where a session stands; what is returned makes it count, and forgets those not used for longest.

        Raises:
            OSError: it cannot be written.
        """
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        path = self._path(session)
        staged = f"{path}.{os.getpid()}"  # another process may write of the same session
        blocks = {block: astuple(seen) for block, seen in place.blocks.items()}
        handle = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"epoch": place.epoch, "seq": place.seq, "blocks": blocks}, file)
        except OSError:
            os.unlink(staged)
            raise

        def confirm() -> None:
            os.replace(staged, path)
            paths = [entry.path for entry in os.scandir(self._directory)]
            if len(paths) > MOST_SESSIONS:
                for old in sorted(paths, key=_age)[: len(paths) - MOST_SESSIONS]:
                    with suppress(OSError):
                        os.unlink(old)

        return confirm

    def forget(self, *session: str) -> None:
        """Forget a session: it has seen nothing. What cannot be removed stays."""
        with suppress(OSError):
            os.unlink(self._path(session))

    def _path(self, session: tuple[str, ...]) -> str:
        name = blake2b("\0".join(session).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return os.path.join(self._directory, name)


def _age(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except OSError:
        return 0.0
