"""Opens the folder and the state of a follower, or refuses: it writes to no folder that is not its copy."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from blocksd.errors import BlocksdError, InvalidFile, Misconfigured, Unavailable
from blocksd.files.folder import Folder
from blocksd.files.root import Root
from blocksd.files.writer import Writer
from blocksd.follow import marker as markers
from blocksd.follow import place as places
from blocksd.follow.comparison import Comparer
from blocksd.follow.copier import Copier
from blocksd.follow.names import probe
from blocksd.follow.place import Place
from blocksd.journal.identity import facts_of
from blocksd.model.label import is_ignored, is_junk, printable
from blocksd.model.problem import count
from blocksd.service.lock import TRANSIENT_ERRORS, Lock, state_error
from blocksd.service.state_directory import StateDirectory
from blocksd.state.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.follow.names import NameRules
    from blocksd.monitoring.events import Notices
    from blocksd.service.control import Question
    from blocksd.settings.config import Config

ADOPT = "to make this folder the copy, and keep what differs in it unsent, start the follower with --adopt"
_PUT_BACK = f"put the folder back, or mount it; {ADOPT}"


class Copy:
    """The folder of a follower, its locks and its state.

    Attributes: `state`, `root`, `folder`, `writer`, `place`, `comparer`, `copier` and `rules` (of names). `is_marked`: the
    folder has its marker, and is checked for it from then on. `adopts`: what is in the folder may differ. `leader_folder`:
    the id of the leader's folder, if that is on this machine, else empty.
    """

    def __init__(
        self, config: Config, sink: Callable[[Question], object], notices: Notices, *, is_read_only: bool, adopts: bool
    ) -> None:
        """Open everything. Questions from the control socket go to `sink`.

        Raises:
            AlreadyRunning: a daemon or another follower has the folder or the state directory.
            Misconfigured: the folder is not this follower's, or a retry would not help.
            Unavailable: the folder is not there, or is without its marker, as a disk that is not mounted.
            StateUnusable: the state directory cannot be used for now.
        """
        self._config = config
        self.is_read_only = is_read_only
        self.adopts = adopts
        self.is_marked = False
        self.leader_folder = ""
        with ExitStack() as opened:
            try:
                self.state = StateDirectory(config.state, sink, notices)
                opened.callback(self.state.release)
                self.place = self._open_place()
                opened.callback(self.place.close)
                self._lock = Lock(f"folder {os.path.realpath(config.folder)}")
                opened.callback(self._lock.release)
                self.root = self._open_root()
                self.folder = Folder(self.root)
                self._take_folder(notices)
                markers.tidy(self.root)
            except OSError as error:
                raise state_error(config.state, error) from error
            for why, what in ((self.state.lock_error, "state directory"), (self._lock.unsupported, "folder")):
                if why:
                    notices.post(f"the {what} cannot be locked ({why}): see that nothing else writes there", "warning")
            self.writer = Writer(self.root, is_durable=config.durability == "disk")
            self.rules: NameRules = self._probe()
            self.comparer = Comparer(self.folder, self.place, self.rules)
            self.copier = Copier(self.root, self.writer, self.place, self.comparer)
            self._opened = opened.pop_all()

    def close(self) -> None:
        self._opened.close()

    def _open_place(self) -> Place:
        state, is_durable, window = self._config.state, self._config.durability == "disk", self._config.stale_window
        if self.adopts:
            try:
                return Place(state, is_durable=is_durable, window=window)
            except Misconfigured:  # it is damaged
                places.set_aside(state)
        return Place(state, is_durable=is_durable, window=window)

    def _open_root(self) -> Root:
        folder = self._config.folder
        if self.place.epoch is None and not os.path.lexists(folder):
            try:
                os.makedirs(folder)
            except OSError as error:
                message = f"the folder {folder!r} cannot be made: {error.strerror or error}"
                raise Misconfigured(message, key="folder", hint="name another one: 'blocksd follow FOLDER'") from None
        root = Root(folder, claim=self._lock.take_directory)
        if root.refusal is not None:
            raise root.refusal
        if root.held is None:
            message = f"the folder {root.path} cannot be opened: {os.strerror(root.why)}"
            if self.place.epoch is not None or root.why in TRANSIENT_ERRORS:
                raise Unavailable(message, path=root.path, hint=_PUT_BACK)
            raise Misconfigured(message, key="folder", path=root.path, errno=root.why)
        return root

    def _take_folder(self, notices: Notices) -> None:
        """Check that the folder is this follower's copy, or make it so.

        A state directory or a folder that was copied or restored may be older than the other: then nothing is known of the
        files, as of those of an adopted folder.
        """
        place, namespace = self.place, self._config.namespace
        if place.namespace not in (None, namespace):
            message = f"the state directory {self._config.state} is of a follower of the namespace {place.namespace!r}"
            raise Misconfigured(message, key="state_dir", hint="name another one with --state-dir DIR")
        self.check_place()
        refusal = self._refusal()
        if self.adopts:
            place.note_generation(0)  # whichever leader there is
        is_older = self._is_copied() if refusal is None else bool(refusal.facts.get("is_older"))
        if refusal is None and not is_older:
            self.mark(place.epoch or "")
            return
        is_new = place.epoch is None and not place.files  # a crash may have come before the marker was written
        if not (self.adopts or is_older or (is_new and isinstance(refusal, Unavailable))):
            assert refusal is not None
            raise refusal
        if is_older:
            notices.post(
                f"the folder {self.root.path} or the state directory {self._config.state} was copied or restored, and may be older "
                "than the other: all files are compared, and those that differ are kept, and not sent",
                "warning",
            )
        identity = place.id if is_older and place.id is not None else markers.new_id()
        self.adopts = self.adopts or is_older
        place.begin(identity, namespace, is_adopted=self.adopts)
        if self.adopts:
            self.mark("")

    def _is_copied(self) -> bool:
        """Return True if the folder or the state directory is surely another one than it was."""
        pairs = zip(self.place.identities, self._identities(), strict=True)
        return any(was and now and was != now for was, now in pairs)

    def _identities(self) -> tuple[str, str]:
        state, folder = os.path.join(self._config.state, places.NAME), self.root.path
        return facts_of(state, state).identity, facts_of(folder, folder).identity

    def mark(self, epoch: str) -> None:
        """Write the marker into the folder, with a new run. Raise Unavailable if it cannot be written."""
        place, run, (state_identity, folder_identity) = self.place, markers.new_id(), self._identities()
        try:
            place.note(next_run=run)
            markers.write(self.root, markers.Marker(str(place.id), self._config.namespace, epoch, run))
            place.note(run=run, next_run=None, state_identity=state_identity, folder_identity=folder_identity)
        except OSError as error:
            message = f"the marker cannot be written to {self.root.path}: {error.strerror or error}"
            raise Unavailable(message, path=markers.NAME, errno=error.errno) from None
        self.is_marked = True

    def refusal(self) -> BlocksdError | None:
        """Return why nothing may be written to the folder at this moment; None: it is the copy."""
        try:
            self.root.check()
        except Unavailable as error:
            return Unavailable(error.message, path="", hint=_PUT_BACK)
        return self._refusal()

    def _refusal(self) -> BlocksdError | None:
        path = self.root.path
        try:
            found = markers.read(self.root)
        except (OSError, InvalidFile) as error:
            why = error.strerror if isinstance(error, OSError) else error
            hint = "see that this user may read it, and that the disk is well" if isinstance(error, OSError) else ADOPT
            return Unavailable(f"the marker {markers.NAME} in {path} cannot be read: {why}", path="", hint=hint)
        if found is None:
            message = f"the folder {path} has no marker {markers.NAME}: it is empty, lost, or was never a copy"
            return Unavailable(message, path="", hint=_PUT_BACK)
        if found.id != self.place.id:
            message = f"the folder {path} is the copy of another follower, of the namespace {found.namespace!r}"
            hint = f"name another folder, or the state directory of that follower with --state-dir; {ADOPT}"
            return Misconfigured(message, key="folder", hint=hint)
        if found.run not in self.place.runs:
            message = f"the folder {path} or the state directory was put back: one of them is older than the other"
            hint = "start the follower again: it keeps what differs, and does not send it"
            return Unavailable(message, path="", hint=hint, is_older=True)
        return markers.why_not_here(path, self.leader_folder)

    def check_place(self) -> None:
        """Check that the folder is not the leader's, nor in that or in a copy. Raise Misconfigured if it is."""
        refusal = markers.why_not_here(self.root.path, self.leader_folder)
        if refusal is not None:
            raise refusal

    # --- a folder that was never a copy ---

    def files(self) -> list[str]:
        """Return all that is in the folder and could be lost by a mistake: files of blocks, and others at its top.

        Raises:
            Unavailable: that cannot be told.
        """
        found = {entry.path for part in Sweep(self.folder).walk() for entry in part if entry.kind != "directory"}
        try:
            with self.root.scandir("") as entries:
                found |= {
                    entry.name
                    for entry in entries
                    if not (entry.is_dir(follow_symlinks=False) or is_ignored(entry.name) or is_junk(entry.name))
                }
        except OSError as error:
            raise Unavailable(f"the folder cannot be read: {error.strerror or error}", path="") from None
        return sorted(found)

    def _probe(self) -> NameRules:
        try:
            return probe(self.root)
        except OSError as error:
            message = f"nothing can be written to the folder {self.root.path}: {error.strerror or error}"
            raise Unavailable(message, path="", errno=error.errno) from None


def differing(paths: list[str], folder: str) -> Misconfigured:
    """Return why a folder is not taken that has these files, which are not the leader's."""
    few = ", ".join(map(printable, paths[:3])) + (", …" if len(paths) > 3 else "")
    message = f"the folder {folder} has {count(len(paths), 'file')} not as the leader's: {few}"
    return Misconfigured(message, key="folder", hint=f"name an empty folder; {ADOPT}")
