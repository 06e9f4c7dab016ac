"""Writing a file: all of it or nothing, and never over what somebody has just saved."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.core.recovery import State, state_of
from blocksd.errors import ProblemFile, Unavailable, Undecided
from blocksd.files.file_edit import FileEdit
from blocksd.files.folder import signature_of
from blocksd.files.root import Root
from blocksd.files.writer import Writer
from blocksd.model.label import TEMPORARY, is_ignored

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from blocksd.files.file_edit import Staged


OLD, NEW = b"old\n", b"new\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "blocks.d"
    path.mkdir()
    return path


@pytest.fixture
def writer(root: Path) -> Writer:
    return Writer(str(root))


@pytest.fixture(params=["exchanging", "plain"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file system that can exchange two files, and one that knows nothing of renameat2."""
    if request.param == "plain":
        monkeypatch.setattr(Root, "renameat2", refuse(errno.EINVAL))
    kind: str = request.param
    return kind


def refuse(number: int) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return function


class Crash(BaseException):
    """The end of the process."""


def crash(*_: object, **__: object) -> None:
    raise Crash


def names(root: Path) -> list[str]:
    """Every file there is, hidden ones included."""
    return sorted(
        os.path.relpath(os.path.join(where, name), root) for where, _, found in os.walk(root) for name in found
    )


def update(path: str = "notes.md", base: bytes = OLD, data: bytes = NEW) -> FileEdit:
    return FileEdit(path, base, data)


def create(path: str = "notes.md", data: bytes = NEW, like: str | None = None) -> FileEdit:
    return FileEdit(path, None, data, like)


def delete(path: str = "notes.md", base: bytes = OLD) -> FileEdit:
    return FileEdit(path, base, None)


def state(root: Path, staged: Staged) -> State:
    """How far an edit came, as the next process sees it."""
    return state_of(staged, *Writer(str(root)).inspect(staged), is_same_boot=True)


def write(writer: Writer, edit: FileEdit) -> bool:
    """All that is done for one edit when nothing goes wrong."""
    staged = writer.stage(edit)
    is_in = writer.put_in(staged)
    if is_in:
        writer.sync([staged])
        writer.discard(staged)
    return is_in


EDITS = {"update": update(), "create": create("new.md"), "delete": delete()}


# --- when nothing goes wrong ---


@pytest.mark.usefixtures("either")
def test_file_is_replaced(root: Path, writer: Writer) -> None:
    """It says the new text, and nothing else is left."""
    (root / "notes.md").write_bytes(OLD)
    assert write(writer, update())
    assert (root / "notes.md").read_bytes() == NEW
    assert names(root) == ["notes.md"]


@pytest.mark.usefixtures("either")
def test_file_is_made_with_its_directories(root: Path, writer: Writer) -> None:
    """However deep it is to be."""
    assert write(writer, create("a/b/c/notes.md"))
    assert (root / "a/b/c/notes.md").read_bytes() == NEW
    assert names(root) == ["a/b/c/notes.md"]


@pytest.mark.usefixtures("either")
def test_file_is_removed(root: Path, writer: Writer) -> None:
    """Its directory stays, for whoever made it."""
    (root / "a").mkdir()
    (root / "a/notes.md").write_bytes(OLD)
    assert write(writer, delete("a/notes.md"))
    assert names(root) == []
    assert (root / "a").is_dir()


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_staging_changes_nothing(root: Path, writer: Writer, edit: FileEdit) -> None:
    """Until it is put in, the file says what it did; what lies beside it is nobody's business, and can be taken away."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    assert (root / "notes.md").read_bytes() == OLD
    assert all(is_ignored(name) for name in names(root) if name != "notes.md")
    assert state(root, staged) is State.OUT
    writer.discard(staged)
    writer.discard(staged)
    assert names(root) == ["notes.md"]


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_whether_it_is_in_can_be_told(root: Path, writer: Writer, edit: FileEdit) -> None:
    """As long as what it displaced was not discarded, also by another process, whoever has saved since."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    assert writer.put_in(staged)
    assert state(root, staged) is State.IN
    (root / edit.path).write_bytes(b"saved since\n")
    assert state(root, staged) is State.IN
    (root / edit.path).unlink()
    assert state(root, staged) is State.IN


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_what_is_in_can_be_taken_back(root: Path, writer: Writer, edit: FileEdit) -> None:
    """Then all is as if it had never been, and to do it twice does no harm."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    assert writer.put_in(staged)
    for _ in range(2):
        writer.take_back(staged)
        assert state(root, staged) is State.OUT
        assert (root / "notes.md").read_bytes() == OLD
    writer.discard(staged)
    assert names(root) == ["notes.md"]
    assert (root / "notes.md").read_bytes() == OLD


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_what_was_saved_since_is_not_taken_back(root: Path, writer: Writer, edit: FileEdit) -> None:
    """A save after it was put in stays, and nothing else does."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    assert writer.put_in(staged)
    (root / edit.path).write_bytes(b"saved since\n")
    writer.take_back(staged)
    writer.discard(staged)
    assert (root / edit.path).read_bytes() == b"saved since\n"
    assert names(root) == sorted({edit.path, "notes.md"})


def test_what_a_crash_left_half_exchanged_is_taken_back(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two files cannot be exchanged in one step, the old text has another name for a moment."""
    monkeypatch.setattr(Root, "renameat2", refuse(errno.EINVAL))
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(update())
    real = Root.rename
    with monkeypatch.context() as patch:
        patch.setattr(Root, "rename", lambda held, old, new: crash() if new == staged.aside else real(held, old, new))
        with pytest.raises(Crash):
            writer.put_in(staged)
    assert (root / "notes.md").read_bytes() == NEW
    other = Writer(str(root))
    assert state(root, staged) is State.IN
    other.take_back(staged)
    assert (root / "notes.md").read_bytes() == OLD
    assert names(root) == ["notes.md"]


# --- what stays ---


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o664, 0o440, 0o755])
def test_mode_stays(root: Path, writer: Writer, mode: int) -> None:
    """Whatever it is, and whatever the umask."""
    (root / "notes.md").write_bytes(OLD)
    (root / "notes.md").chmod(mode)
    before = os.umask(0o077)
    try:
        assert write(writer, update())
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "notes.md").stat().st_mode) == mode


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_new_file_gets_the_mode_of_any_other(root: Path, writer: Writer, mask: int, mode: int) -> None:
    """As the umask has it."""
    before = os.umask(mask)
    try:
        assert write(writer, create())
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "notes.md").stat().st_mode) == mode


def test_what_is_staged_is_nobody_elses_to_read(root: Path, writer: Writer) -> None:
    """A text beside a file that only its owner may read cannot be read under its other name."""
    (root / "notes.md").write_bytes(OLD)
    (root / "notes.md").chmod(0o600)
    staged = writer.stage(update())
    assert stat.S_IMODE((root / staged.aside).stat().st_mode) == 0o600


def test_renamed_file_is_like_the_old_one(root: Path, writer: Writer) -> None:
    """Its mode goes with it."""
    (root / "old.md").write_bytes(OLD)
    (root / "old.md").chmod(0o640)
    assert write(writer, create("a/new.md", like="old.md"))
    assert stat.S_IMODE((root / "a/new.md").stat().st_mode) == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_owner_and_group_stay(root: Path, writer: Writer) -> None:
    """A daemon that is root does not take files away from whoever they belong to."""
    (root / "notes.md").write_bytes(OLD)
    os.chown(root / "notes.md", 12345, 23456)
    (root / "notes.md").chmod(0o4640)
    assert write(writer, update())
    status = (root / "notes.md").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 23456, 0o4640)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EINVAL])
def test_owner_that_cannot_stay_is_no_hindrance(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A daemon that may not give files away, or does not know their owner, keeps at least the group if it can, and
    writes all the same; who was the owner may write as one of the group.
    """
    (root / "notes.md").write_bytes(OLD)
    (root / "notes.md").chmod(0o644)
    real, asked = Root.stat, []

    def elsewhere(held: Root, path: str) -> os.stat_result:
        found = list(real(held, path))
        found[4], found[5] = 12345, 23456
        return os.stat_result(found)

    def set_owner(_root: Root, _handle: int, uid: int, gid: int) -> None:
        asked.append((uid, gid))
        raise OSError(number, "no")

    monkeypatch.setattr(Root, "stat", elsewhere)
    monkeypatch.setattr(Root, "set_owner", set_owner)
    staged = writer.stage(update())
    monkeypatch.undo()
    assert asked == [(12345, 23456), (-1, 23456)]
    assert writer.put_in(staged)
    assert (root / "notes.md").read_bytes() == NEW
    assert stat.S_IMODE((root / "notes.md").stat().st_mode) == 0o664


@pytest.mark.parametrize(
    ("mode", "gid", "is_widened"),
    [
        (0o600, 23456, True),  # the group could not read it, and would have to be let
        (0o640, 0, True),  # another group would read it in place of its own
        (0o640, 23456, False),
        (0o660, 23456, False),
        (0o644, 0, False),  # all may read it
        (0o604, 23456, True),
    ],
)
def test_no_one_else_can_read_a_file_that_is_written(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, mode: int, gid: int, is_widened: bool
) -> None:
    """Where the daemon cannot keep owner and group, and the file's mode would let others read it, it is not written."""
    (root / "notes.md").write_bytes(OLD)
    (root / "notes.md").chmod(mode)
    real, real_status = Root.stat, Root.status

    def elsewhere(held: Root, path: str) -> os.stat_result:
        found = list(real(held, path))
        found[4], found[5] = 12345, 23456
        return os.stat_result(found)

    def as_kept(handle: int) -> SimpleNamespace:
        found = real_status(handle)
        fields = {name: getattr(found, name) for name in dir(found) if name.startswith("st_")}
        return SimpleNamespace(**{**fields, "st_gid": gid})

    def set_owner(_root: Root, _handle: int, _uid: int, _gid: int) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(Root, "stat", elsewhere)
    monkeypatch.setattr(Root, "status", staticmethod(as_kept))
    monkeypatch.setattr(Root, "set_owner", set_owner)
    if not is_widened:
        writer.stage(update())
        return
    with pytest.raises(ProblemFile, match="others could read it") as caught:
        writer.stage(update())
    assert "give the file to" in str(caught.value.facts["hint"])
    assert [path.name for path in root.iterdir()] == ["notes.md"]
    assert (root / "notes.md").read_bytes() == OLD


def test_access_control_list_must_stay(root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, the group bits of the mode would say more than it did; other attributes may be left out."""
    (root / "notes.md").write_bytes(OLD)
    lists = {"user.colour": b"red", "system.posix_acl_access": b"list"}

    def set_attribute(_root: Root, _handle: int, _name: str, _value: bytes) -> None:
        raise OSError(errno.ENOTSUP, "no")

    monkeypatch.setattr(Root, "attributes", lambda _root, _handle: lists)
    monkeypatch.setattr(Root, "set_attribute", set_attribute)
    with pytest.raises(ProblemFile, match="others could read it"):
        writer.stage(update())
    del lists["system.posix_acl_access"]
    writer.stage(update())


def test_set_group_id_bit_is_no_hindrance(root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that may not set it, as under RestrictSUIDSGID=, writes a file that has it all the same, without it."""
    real = Root.set_mode

    def set_mode(_held: Root, handle: int, mode: int) -> None:
        if mode & (stat.S_ISUID | stat.S_ISGID):
            raise PermissionError(errno.EPERM, "no")
        real(handle, mode)

    (root / "notes.md").write_bytes(OLD)
    (root / "notes.md").chmod(0o2660)
    monkeypatch.setattr(Root, "set_mode", set_mode)
    assert write(writer, update())
    assert stat.S_IMODE((root / "notes.md").stat().st_mode) == 0o660


def test_extended_attributes_stay(root: Path, writer: Writer) -> None:
    """Those that can be read and set."""
    (root / "notes.md").write_bytes(OLD)
    try:
        os.setxattr(root / "notes.md", "user.mine", b"kept")
    except OSError:
        pytest.skip("no extended attributes here")
    assert write(writer, update())
    assert os.getxattr(root / "notes.md", "user.mine") == b"kept"


def test_file_is_written_through_its_link(root: Path, writer: Writer) -> None:
    """The link stays a link, and what it leads to says the new text."""
    (root / "there").mkdir()
    (root / "there/notes.txt").write_bytes(OLD)
    (root / "notes.md").symlink_to("there/notes.txt")
    assert write(writer, update())
    assert os.readlink(root / "notes.md") == "there/notes.txt"
    assert (root / "there/notes.txt").read_bytes() == NEW
    assert names(root) == ["notes.md", "there/notes.txt"]


@pytest.mark.usefixtures("either")
def test_link_is_removed_alone(root: Path, writer: Writer) -> None:
    """What it leads to may be another block's file: it stays. Taken back, the link is there again."""
    (root / "there").mkdir()
    (root / "there/notes.txt").write_bytes(OLD)
    (root / "notes.md").symlink_to("there/notes.txt")
    staged = writer.stage(delete())
    assert writer.put_in(staged)
    assert state(root, staged) is State.IN
    writer.take_back(staged)
    assert os.readlink(root / "notes.md") == "there/notes.txt"
    assert write(writer, delete())
    assert names(root) == ["there/notes.txt"]


@pytest.mark.parametrize("length", [255, 254, 100, 4])
def test_file_of_any_name_is_written(root: Path, writer: Writer, length: int) -> None:
    """However long its name is, what is beside it has a short one."""
    path = "x" * (length - 3) + ".md"
    assert write(writer, create(path, OLD))
    assert write(writer, update(path))
    assert (root / path).read_bytes() == NEW


# --- when it cannot be done ---


def stage_and_flush(writer: Writer, edit: FileEdit) -> None:
    """As the clerk does: what cannot be had on disk is discarded."""
    staged = writer.stage(edit)
    try:
        writer.flush()
    except Unavailable:
        writer.discard(staged)
        raise


def _fails_for_files(number: int, name: str) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(Root, name, refuse(number))


FAULTS: dict[str, tuple[int, Callable[[pytest.MonkeyPatch], None]]] = {
    "no space left for the file": (errno.ENOSPC, _fails_for_files(errno.ENOSPC, "open")),
    "no space left for the text": (errno.ENOSPC, _fails_for_files(errno.ENOSPC, "write")),
    "over the quota": (errno.EDQUOT, _fails_for_files(errno.EDQUOT, "write")),
    "read-only": (errno.EROFS, _fails_for_files(errno.EROFS, "open")),
    "not permitted": (errno.EACCES, _fails_for_files(errno.EACCES, "open")),
    "error at fsync": (errno.EIO, _fails_for_files(errno.EIO, "sync")),
    "no space at fsync": (errno.ENOSPC, _fails_for_files(errno.ENOSPC, "sync")),
    "mode cannot be set": (errno.EPERM, _fails_for_files(errno.EPERM, "set_mode")),
}


@pytest.mark.parametrize(("number", "break_it"), FAULTS.values(), ids=FAULTS)
@pytest.mark.parametrize("edit", [update(), create("a/b/new.md")], ids=["update", "create"])
def test_text_that_cannot_be_staged(
    root: Path,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    break_it: Callable[[pytest.MonkeyPatch], None],
    edit: FileEdit,
) -> None:
    """The old file is as it was, nothing is beside it, and the reason is told by name."""
    (root / "notes.md").write_bytes(OLD)
    with monkeypatch.context() as patch:
        break_it(patch)
        with pytest.raises(Unavailable) as refusal:
            stage_and_flush(writer, edit)
    assert refusal.value.facts == {"path": edit.path, "errno": errno.errorcode[number]}
    assert os.strerror(number) in refusal.value.message
    assert names(root) == ["notes.md"]
    assert (root / "notes.md").read_bytes() == OLD


def test_short_writes_are_no_fault(root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take a text in pieces."""
    real = Root.write
    with monkeypatch.context() as patch:
        patch.setattr(Root, "write", lambda _held, handle, data: real(handle, data[:3]))
        assert write(writer, create(data=b"0123456789"))
    assert (root / "notes.md").read_bytes() == b"0123456789"


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM, errno.EIO, errno.EXDEV])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_text_that_cannot_be_put_in(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, number: int, edit: FileEdit
) -> None:
    """The old file is as it was, nothing is beside it, and the reason is told by name."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    monkeypatch.setattr(Root, "renameat2", refuse(number))
    with pytest.raises(Unavailable) as refusal:
        writer.put_in(staged)
    writer.discard(staged)
    assert refusal.value.facts["errno"] == errno.errorcode[number]
    assert names(root) == ["notes.md"]
    assert (root / "notes.md").read_bytes() == OLD


@pytest.mark.parametrize("name", ["link", "rename"])
def test_text_that_cannot_be_put_in_plainly(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A file system that cannot even do that is told of in the same words."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(update())
    monkeypatch.setattr(Root, "renameat2", refuse(errno.ENOSYS))
    with monkeypatch.context() as patch:
        patch.setattr(Root, name, refuse(errno.EPERM))
        with pytest.raises(Unavailable, match="not permitted"):
            writer.put_in(staged)
    writer.take_back(staged)
    writer.discard(staged)
    assert names(root) == ["notes.md"]
    assert (root / "notes.md").read_bytes() == OLD


def test_directory_that_cannot_be_synced_is_told_of(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not on disk is not acknowledged; a directory that is gone needs none of it."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(update())
    with monkeypatch.context() as patch:
        patch.setattr(Root, "sync_directory", refuse(errno.EIO))
        with pytest.raises(Unavailable) as refusal:
            writer.sync([staged])
    assert refusal.value.facts == {"path": "notes.md", "errno": "EIO"}
    writer.sync([staged._replace(aside=f"gone/{staged.aside}")])
    Writer(str(root), is_durable=False).sync([staged])


def test_directory_in_the_way_of_a_file(root: Path, writer: Writer) -> None:
    """A file where a directory is to be is a problem of that file, not of the daemon."""
    (root / "notes.md").write_bytes(OLD)
    with pytest.raises(ProblemFile) as refusal:
        writer.stage(create("notes.md/deeper.md"))
    assert refusal.value.facts["path"] == "notes.md/deeper.md"
    assert names(root) == ["notes.md"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    """On a file system with no room left, the old text stays, whole, and a small new one can be written again later."""
    root = tmp_path / "small"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(root)]
    if subprocess.run(mount, capture_output=True, check=False, timeout=10).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        writer = Writer(str(root))
        assert write(writer, create(data=OLD))
        with pytest.raises(Unavailable) as refusal:
            writer.stage(update(data=b"x" * 100_000))
        assert refusal.value.facts["errno"] == "ENOSPC"
        assert names(root) == ["notes.md"]
        assert (root / "notes.md").read_bytes() == OLD
        assert write(writer, update())
    finally:
        subprocess.run(["umount", "--lazy", str(root)], check=True, timeout=10)  # a writer holds it


# --- when somebody saves meanwhile ---


class Busy:
    """Somebody who saves at certain moments of an exchange; a save is a file moved into the place of another."""

    def __init__(self, path: Path, *, before: tuple[int, ...] = (), after: tuple[int, ...] = ()) -> None:
        """`before` and `after` count the renames that are done by the daemon."""
        self._path = path
        self._before = before
        self._after = after
        self._renames = 0
        self._real = Root.renameat2
        self.saved: list[bytes] = []

    def save(self) -> None:
        self.saved.append(f"saved {len(self.saved) + 1}\n".encode())
        mine = self._path.with_suffix(".theirs")
        mine.write_bytes(self.saved[-1])
        mine.replace(self._path)

    def as_method(self) -> Callable[[Root, str, str, int], None]:
        return lambda *words: self._rename(*words)  # noqa: PLW0108  # a function, that a class makes a method of

    def _rename(self, root: Root, old: str, new: str, flags: int) -> None:
        number = self._renames
        self._renames += 1
        if number in self._before:
            self.save()
        self._real(root, old, new, flags)
        if number in self._after:
            self.save()


MOMENTS = {
    "before": ((0,), ()),
    "before and after": ((0,), (0,)),
    "before, and before it is put back": ((0, 1), ()),
    "before, and after it was put back": ((0,), (1,)),
    "three times": ((0, 1), (1,)),
    "all the time": (tuple(range(10)), ()),
    "all the time, after": ((0,), tuple(range(10))),
    "all the time, before and after": (tuple(range(7)), tuple(range(7))),
}


@pytest.mark.parametrize(("before", "after"), MOMENTS.values(), ids=MOMENTS)
@pytest.mark.parametrize("edit", [update(), delete()], ids=["update", "delete"])
def test_save_in_between_stays(
    root: Path,
    writer: Writer,
    monkeypatch: pytest.MonkeyPatch,
    edit: FileEdit,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> None:
    """What is in the file at the end is what was saved last; nothing of ours is left, and none of it is beside.

    A save right over our text may have been made of it: then the text counts as put in, and an earlier save lies beside.
    """
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    busy = Busy(root / "notes.md", before=before, after=after)
    monkeypatch.setattr(Root, "renameat2", busy.as_method())
    is_saved_over = edit.data is not None and (0 in after or 1 in before)
    assert writer.put_in(staged) is is_saved_over
    if is_saved_over:
        assert (root / staged.aside).read_bytes() in busy.saved[:-1]
        assert writer.is_saved_late(staged)
        with pytest.raises(Undecided):
            writer.give_back_save(staged)
        assert (root / staged.aside).read_bytes() in busy.saved[:-1]
    writer.discard(staged)
    assert (root / "notes.md").read_bytes() == busy.saved[-1]
    assert names(root) == ["notes.md"]


@pytest.mark.parametrize("edit", [update(), delete()], ids=["update", "delete"])
def test_file_that_is_open_for_writing_is_not_displaced(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, edit: FileEdit
) -> None:
    """However long a program keeps it open: what it writes later is in the file. It is not waited for either."""
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("it waits"))
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    with (root / "notes.md").open("ab", buffering=0) as file:
        assert not writer.put_in(staged)
        file.write(b"more\n")
    writer.discard(staged)
    assert (root / "notes.md").read_bytes() == OLD + b"more\n"
    assert names(root) == ["notes.md"]


class Opener:
    """A program that opens a file in the last moment before it is displaced."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file: Any = None
        real = Root.renameat2

        def renameat2(held: Root, old: str, new: str, flags: int) -> None:
            if self.file is None:
                self.file = path.open("r+b", buffering=0)
            real(held, old, new, flags)

        monkeypatch.setattr(Root, "renameat2", renameat2)


@pytest.mark.parametrize("looks", [1, 3])
@pytest.mark.parametrize("edit", [update(), delete()], ids=["update", "delete"])
def test_file_is_opened_to_be_saved_when_it_is_displaced(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, edit: FileEdit, looks: int
) -> None:
    """As by an editor that opens a file to write in place, and empties it a moment later: that is a save, too."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    opener, waits = Opener(root / "notes.md", monkeypatch), list[float]()

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == looks:
            opener.file.truncate()
            opener.file.write(b"saved\n")
            opener.file.close()

    monkeypatch.setattr("time.sleep", wait)
    assert not writer.put_in(staged)
    writer.discard(staged)
    assert (root / "notes.md").read_bytes() == b"saved\n"
    assert names(root) == ["notes.md"]


@pytest.mark.parametrize("edit", [update(), delete()], ids=["update", "delete"])
def test_file_that_is_opened_and_kept_open_goes_back(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, edit: FileEdit
) -> None:
    """Nothing tells when it will be written to: what is written then is in the file, and nowhere else."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    opener = Opener(root / "notes.md", monkeypatch)
    assert not writer.put_in(staged)
    opener.file.write(b"OLD")
    opener.file.close()
    assert (root / "notes.md").read_bytes() == b"OLD\n"
    assert names(root) == ["notes.md"]


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("edit", [update(), delete()], ids=["update", "delete"])
def test_save_to_what_was_displaced_goes_back_in(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, edit: FileEdit
) -> None:
    """Where nobody can tell whether a file is open: a save to it after that is in the file."""
    monkeypatch.setattr(Root, "has_writer", lambda *_: None)
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    with (root / "notes.md").open("r+b") as file:
        assert writer.put_in(staged)
        assert not writer.is_saved_late(staged)
        file.write(b"saved\n")
        file.truncate()
    assert writer.is_saved_late(staged)
    writer.give_back_save(staged)
    writer.discard(staged)
    assert (root / "notes.md").read_bytes() == b"saved\n"
    assert names(root) == ["notes.md"]


def test_new_file_has_displaced_nothing(root: Path, writer: Writer) -> None:
    """So there is nothing to put back."""
    staged = writer.stage(create())
    assert writer.put_in(staged)
    assert not writer.is_saved_late(staged)
    assert (root / "notes.md").exists()


@pytest.mark.parametrize("edit", [update(), delete()], ids=["update", "delete"])
def test_save_right_after_stays(root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, edit: FileEdit) -> None:
    """What was read was displaced, so it is in; a save from then on is another one."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    busy = Busy(root / "notes.md", after=(0,))
    monkeypatch.setattr(Root, "renameat2", busy.as_method())
    assert writer.put_in(staged)
    writer.discard(staged)
    assert (root / "notes.md").read_bytes() == busy.saved[-1]


@pytest.mark.parametrize("edit", [update(), delete()], ids=["update", "delete"])
def test_file_removed_in_between_stays_removed(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, edit: FileEdit
) -> None:
    """To remove it is a word of theirs, too; what was saved before that is not brought back."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    (root / "notes.md").unlink()
    assert not writer.put_in(staged)
    writer.discard(staged)
    assert names(root) == []
    real = Root.renameat2
    (root / "notes.md").write_bytes(b"saved\n")
    staged = writer.stage(edit)
    calls: list[int] = []

    def removing(held: Root, old: str, new: str, flags: int) -> None:
        real(held, old, new, flags)
        if not calls and (root / "notes.md").exists():
            (root / "notes.md").unlink()  # what we had put in
        calls.append(flags)

    monkeypatch.setattr(Root, "renameat2", removing)
    assert not writer.put_in(staged)
    writer.discard(staged)
    assert names(root) == ["notes.md"]
    assert (root / "notes.md").read_bytes() == b"saved\n"  # theirs, and newer than what was read


@pytest.mark.usefixtures("either")
def test_file_that_came_meanwhile_stays(root: Path, writer: Writer) -> None:
    """A new file is not put over one that somebody else made."""
    staged = writer.stage(create())
    (root / "notes.md").write_bytes(b"theirs\n")
    assert not writer.put_in(staged)
    writer.discard(staged)
    assert (root / "notes.md").read_bytes() == b"theirs\n"
    assert names(root) == ["notes.md"]


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("edit", [update(), delete()], ids=["update", "delete"])
def test_file_that_changed_meanwhile_stays(root: Path, writer: Writer, edit: FileEdit) -> None:
    """Between the reading and the writing there may be a save, with or without the exchange."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    (root / "notes.md").write_bytes(b"theirs\n")
    assert not writer.put_in(staged)
    writer.discard(staged)
    assert (root / "notes.md").read_bytes() == b"theirs\n"
    assert names(root) == ["notes.md"]


@pytest.mark.usefixtures("either")
def test_directory_that_went_meanwhile(root: Path, writer: Writer) -> None:
    """Whoever removed it has removed what was staged in it; that is as any other change meanwhile."""
    (root / "a").mkdir()
    staged = writer.stage(create("a/notes.md"))
    (root / staged.aside).unlink()
    (root / "a").rmdir()
    assert not writer.put_in(staged)
    writer.discard(staged)
    assert names(root) == []


@pytest.mark.parametrize("edit", [update(), delete()], ids=["update", "delete"])
def test_crash_right_after_a_save_was_displaced(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch, edit: FileEdit
) -> None:
    """It is told from what lies beside the file, and what was saved comes back."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(edit)
    real = Root.renameat2

    def after_a_save(held: Root, old: str, new: str, flags: int) -> None:
        (root / "notes.md").write_bytes(b"theirs\n")
        real(held, old, new, flags)

    with monkeypatch.context() as patch:
        patch.setattr(Root, "renameat2", after_a_save)
        patch.setattr(Writer, "_give_back", crash)
        with pytest.raises(Crash):
            writer.put_in(staged)
    other = Writer(str(root))
    assert state(root, staged) is State.SAVED_LATE, "it was written to the file that was read"
    other.take_back(staged)
    assert (root / "notes.md").read_bytes() == b"theirs\n"
    assert names(root) == ["notes.md"]


# --- what was written, and nobody has touched since ---


@pytest.mark.usefixtures("either")
def test_written_file_is_known_by_its_signature(root: Path, writer: Writer) -> None:
    """As long as it says the new text: a save in place in the same moment, of the same size, is another signature."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(update())
    assert writer.settle([staged]) == {"notes.md": None}
    assert writer.put_in(staged)
    known = writer.settle([staged])["notes.md"]
    assert known == signature_of(os.stat(root / "notes.md"))
    with open(root / "notes.md", "rb+") as file:
        file.write(bytes(len(NEW)))
    assert signature_of(os.stat(root / "notes.md")) != known
    writer.discard(staged)


def test_no_later_write_has_the_time_of_what_was_written(root: Path, writer: Writer) -> None:
    """Not even within one tick of the file system's clock, over and over."""
    for number in range(300):
        staged = writer.stage(create(f"{number}.md"))
        assert writer.put_in(staged)
        known = writer.settle([staged])[f"{number}.md"]
        with open(root / f"{number}.md", "rb+") as file:
            file.write(bytes(len(NEW)))
        assert known is not None
        assert os.stat(root / f"{number}.md").st_mtime_ns > known[0]


def test_where_times_are_too_coarse_nothing_is_known(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the file is read again, as any other."""
    monkeypatch.setattr(Root, "set_times", lambda *_, **__: None)
    staged = writer.stage(create())
    assert writer.put_in(staged)
    assert writer.settle([staged]) == {"notes.md": None}
    assert (root / "notes.md").read_bytes() == NEW


# --- directories ---


def test_directories_are_made_and_removed(root: Path, writer: Writer) -> None:
    """With the empty ones in it, and temporaries of ours; what somebody has put in it stays; one that is gone is gone."""
    writer.make_directory("agents/ann/notes/old")
    writer.make_directory("agents/ann/notes/old")
    assert (root / "agents/ann/notes/old").is_dir()
    (root / "agents/ann/notes/x.txt").write_bytes(b"")
    (root / f"agents/ann/{TEMPORARY}left").write_bytes(b"")
    assert not writer.remove_directory("agents/ann")
    assert names(root) == ["agents/ann/notes/x.txt"]
    assert sorted(os.listdir(root / "agents/ann/notes")) == ["x.txt"]
    (root / "agents/ann/notes/x.txt").unlink()
    assert writer.remove_directory("agents/ann")
    assert writer.remove_directory("agents/ann")
    assert os.listdir(root / "agents") == []


def test_name_of_a_directory_that_was_there_is_synced_once(
    root: Path, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person, or a daemon that was killed, may have made it just now: its name must not be lost with what is written."""
    synced: list[str] = []
    real = Root.sync_directory

    def sync(self: Root, path: str) -> None:
        synced.append(path)
        real(self, path)

    monkeypatch.setattr(Root, "sync_directory", sync)
    (root / "a/b").mkdir(parents=True)
    for name in ("one", "two"):
        writer.discard(writer.stage(FileEdit(f"a/b/{name}.md", None, b"x")))
    assert synced == ["", "a"]
    writer.remove_directory("a/b")
    (root / "a/b").mkdir()
    del synced[:]
    writer.make_directory("a/b")
    assert "a" in synced


def test_directories_made_for_nothing_go(root: Path, writer: Writer) -> None:
    """Those that were made since others were to stay, unless somebody has put something in them."""
    (root / "there").mkdir()
    for path in ("there/a/b.md", "new/c.md"):
        writer.discard(writer.stage(FileEdit(path, None, b"x")))
    (root / "new/x.txt").write_bytes(b"")
    writer.remove_made()
    assert (os.listdir(root / "there"), os.listdir(root / "new")) == ([], ["x.txt"])
    writer.make_directory("kept")
    writer.keep_made()
    writer.remove_made()
    assert (root / "kept").is_dir()


def test_empty_folder_is_known_as_such(writer: Writer) -> None:
    """A mount point without its mount is empty; a folder with so much as a temporary in it is not."""
    assert writer.is_empty
    staged: Staged = writer.stage(create())
    assert not writer.is_empty
    writer.discard(staged)
    assert writer.is_empty


# --- how often a file is read ---


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What was read of files, a part at a time."""
    parts: list[bytes] = []

    def read(handle: int, size: int) -> bytes:
        part = os.read(handle, size)
        if part:
            parts.append(part)
        return part

    monkeypatch.setattr(Root, "read", staticmethod(read))
    return parts


def at_rest(root: Path, age: float = 100.0) -> FileEdit:
    """An edit of a file that was saved so many seconds ago, with the signature that it was read with."""
    path = root / "notes.md"
    path.write_bytes(OLD)
    then = os.stat(path).st_mtime_ns - int(age * 1e9)
    os.utime(path, ns=(then, then))
    return replace(update(), signature=signature_of(os.stat(path)))


@pytest.mark.usefixtures("either")
def test_file_that_was_read_is_read_once_more(root: Path, writer: Writer, reads: list[bytes]) -> None:
    """When it is displaced; before and after that its signature tells as much."""
    staged = writer.stage(at_rest(root))
    assert writer.put_in(staged)
    assert not writer.is_saved_late(staged)
    assert reads == [OLD]
    assert (root / "notes.md").read_bytes() == NEW


def test_file_whose_signature_proves_nothing_is_read_each_time(
    root: Path, writer: Writer, reads: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was saved just now, and one of which nobody can tell who has it open."""
    (root / "notes.md").write_bytes(OLD)
    staged = writer.stage(update())
    assert writer.put_in(staged)
    assert not writer.is_saved_late(staged)
    assert reads == [OLD] * 3
    writer.discard(staged)
    reads.clear()
    monkeypatch.setattr(Root, "has_writer", lambda *_: None)
    staged = writer.stage(at_rest(root))
    assert writer.put_in(staged)
    assert not writer.is_saved_late(staged)
    assert reads == [OLD] * 3


@pytest.mark.parametrize("keeps_time", [False, True])
def test_save_of_the_same_size_is_not_taken_for_what_was_read(root: Path, writer: Writer, *, keeps_time: bool) -> None:
    """Even one with the time of the text before it."""
    edit = at_rest(root)
    staged = writer.stage(edit)
    path = root / "notes.md"
    then = os.stat(path).st_mtime_ns
    path.write_bytes(b"OLD\n")
    if keeps_time:
        os.utime(path, ns=(then, then))
    assert not writer.put_in(staged)
    assert path.read_bytes() == b"OLD\n"


def test_file_that_is_open_is_not_exchanged_whatever_its_signature(root: Path, writer: Writer) -> None:
    """Its writer would write to what was displaced."""
    staged = writer.stage(at_rest(root))
    with (root / "notes.md").open("r+b"):
        assert not writer.put_in(staged)
    assert writer.put_in(staged)


def test_late_save_of_the_same_size_is_seen(root: Path, writer: Writer) -> None:
    """By the time of the file that was displaced."""
    staged = writer.stage(at_rest(root))
    assert writer.put_in(staged)
    with open(root / staged.aside, "r+b") as late:
        late.write(b"OLD\n")
    assert writer.is_saved_late(staged)
    writer.give_back_save(staged)
    assert (root / "notes.md").read_bytes() == b"OLD\n"
