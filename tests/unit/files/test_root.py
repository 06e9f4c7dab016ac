"""System calls on the folder: none of them leaves it, whatever takes the place of a directory on the way."""

from __future__ import annotations

import ast
import errno
import gc
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

import blocksd
from blocksd.errors import Unavailable
from blocksd.files import beneath
from blocksd.files.beneath import os_error
from blocksd.files.links import resolve, symlink_on
from blocksd.files.root import EXCHANGE, NOREPLACE, Root

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder with a file in a directory, a symlink to a directory outside, and one to a directory inside."""
    home = tmp_path / "blocks.d"
    for path, text in (("a/b/deep.md", "deep"), ("top.md", "top"), ("../out/secret.md", "secret")):
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(text)
    (home / "linked").symlink_to("../out")
    (home / "inner").symlink_to("a")
    (home / "a/up").symlink_to("../..")
    return home


@pytest.fixture(params=["openat2", "a walk", "openat2 for what is deep"])
def root(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    if request.param == "openat2":
        monkeypatch.setattr(Root, "_few", 0)
    return Root(str(home), walks=request.param == "a walk")


def read(root: Root, path: str) -> bytes:
    handle = root.open(path, os.O_RDONLY)
    try:
        return root.read(handle, 100)
    finally:
        root.close(handle)


def names_in(root: Root, path: str = "") -> list[str]:
    with root.scandir(path) as entries:
        return [entry.name for entry in entries]


def number_of(call: Callable[..., Any], *args: Any) -> int | None:
    with pytest.raises(OSError) as caught:  # the number is what is asked for
        call(*args)
    return caught.value.errno


def touch(root: Root, path: str) -> None:
    root.close(root.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))


CALLS: dict[str, Callable[[Root, str], Any]] = {
    "open": read,
    "create": touch,
    "stat": lambda root, path: root.stat(path),
    "readlink": lambda root, path: root.readlink(path),
    "names": lambda root, path: names_in(root, path.rpartition("/")[0]),
    "rename": lambda root, path: root.rename(path, "new"),
    "rename to": lambda root, path: root.rename("top.md", path),
    "renameat2": lambda root, path: root.renameat2(path, "new", NOREPLACE),
    "renameat2 to": lambda root, path: root.renameat2("top.md", path, NOREPLACE),
    "exchange": lambda root, path: root.renameat2("top.md", path, EXCHANGE),
    "link": lambda root, path: root.link(path, "new"),
    "link to": lambda root, path: root.link("top.md", path),
    "unlink": lambda root, path: root.unlink(path),
    "make directory": lambda root, path: root.make_directory(f"{path}.d"),
    "remove directory": lambda root, path: root.remove_directory(path),
    "sync directory": lambda root, path: root.sync_directory(path.rpartition("/")[0]),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("path", ["linked/secret.md", "inner/b/deep.md", "a/up/out/secret.md"])
def test_no_symlink_on_the_way_is_followed(root: Root, home: Path, call: Callable[[Root, str], Any], path: str) -> None:
    """By none of the calls, be what it leads to inside or outside."""
    assert number_of(call, root, path) == errno.ELOOP
    assert os.listdir(home.parent / "out") == ["secret.md"]
    assert sorted(os.listdir(home)) == ["a", "inner", "linked", "top.md"]
    assert symlink_on(root, path) in ("linked", "inner", "a/up")


@pytest.mark.parametrize(
    "path", ["..", ".", "../out/secret.md", "a/../../out/secret.md", "a/..", "/etc/hostname", "a/"]
)
def test_no_path_leads_out(root: Root, home: Path, path: str) -> None:
    """Nor is one of another spelling than a sweep's taken for a file, where it leads out."""
    wanted = (errno.EXDEV, errno.EINVAL, errno.ENOENT, errno.EISDIR, errno.EEXIST, errno.ENOTDIR)
    for call in (read, touch, CALLS["unlink"], CALLS["rename to"], CALLS["exchange"]):
        assert number_of(call, root, path) in wanted
    assert os.listdir(home.parent / "out") == ["secret.md"]
    assert (home / "a/b/deep.md").exists()


def test_calls_do_what_they_are_called_for(root: Root, home: Path) -> None:
    """At the top and below, in one directory and across two."""
    assert read(root, "a/b/deep.md") == b"deep"
    assert root.stat("a/b/deep.md").st_size == 4
    assert root.stat("").st_ino == home.stat().st_ino
    assert root.readlink("a/up") == "../.."
    assert sorted(names_in(root, "a")) == ["b", "up"]
    assert sorted(names_in(root)) == ["a", "inner", "linked", "top.md"]
    root.move("a/b/deep.md", "deep.md")
    root.move("deep.md", "a/b/again.md")
    assert number_of(root.move, "top.md", "a/b/again.md") == errno.EEXIST
    root.exchange("top.md", "a/b/again.md")
    assert (read(root, "top.md"), read(root, "a/b/again.md")) == (b"deep", b"top")
    root.link("top.md", "a/linked.md")
    root.unlink("a/linked.md")
    root.make_directory("a/c")
    root.sync_directory("a")
    root.sync_directory("")
    root.remove_directory("a/c")
    root.unlink("a/b/again.md")
    assert os.listdir(home / "a/b") == []


def test_files_of_one_directory_are_found_by_one_handle(
    root: Root, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While many are read in their order; a symlink in the way is followed as little, and no handle is left open."""
    opened = Mock(wraps=root._open_directory)
    monkeypatch.setattr(root, "_open_directory", opened)
    gc.collect()
    handles = len(os.listdir("/proc/self/fd"))
    (home / "a/b/other.md").write_text("other")
    root.stays = True
    assert [read(root, path) for path in ("a/b/deep.md", "a/b/other.md", "top.md")] == [b"deep", b"other", b"top"]
    assert root.stat("a/b/deep.md").st_size == 4
    assert [call.args[0] for call in opened.mock_calls] == ["a/b"]
    for path in ("a/up/out/secret.md", "linked/secret.md", "a/b/..", "inner/b/deep.md"):
        assert number_of(read, root, path) in (errno.ELOOP, errno.EINVAL)
    assert read(root, "a/b/deep.md") == b"deep"
    root.leave_directories()
    assert len(os.listdir("/proc/self/fd")) == handles
    assert read(root, "a/b/deep.md") == b"deep"


def test_last_part_of_a_path_is_not_followed(root: Root, home: Path) -> None:
    """A symlink is looked at, and is not opened."""
    (home / "a/link.md").symlink_to("b/deep.md")
    assert number_of(read, root, "a/link.md") == errno.ELOOP
    assert number_of(read, root, "linked") == errno.ELOOP
    assert stat.S_ISLNK(root.stat("a/link.md").st_mode)
    root.unlink("a/link.md")
    assert (home / "a/b/deep.md").exists()


def test_file_on_the_way_is_no_symlink(root: Root) -> None:
    """The errors tell the one from the other."""
    assert number_of(read, root, "top.md/x") == errno.ENOTDIR
    assert number_of(root.stat, "missing/x") == errno.ENOENT


def test_no_handle_is_left_open(root: Root) -> None:
    """Whatever comes of a call."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/b/deep.md", "linked/secret.md", "missing/x", "top.md/x", "a/b/missing"):
        for call in CALLS.values():
            try:
                call(root, path)
            except OSError:
                continue
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_kernel_without_openat2_is_found_out_once(home: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """An old one has none, and the filter of a container may refuse it."""
    tries: list[str] = []

    def refuse(_: int, path: str, *__: int) -> int:
        tries.append(path)
        raise os_error(number, path)

    monkeypatch.setattr(beneath, "openat2", refuse)
    root = Root(str(home))
    assert read(root, "a/b/deep.md") == b"deep"
    assert number_of(read, root, "linked/secret.md") == errno.ELOOP
    assert len(tries) == 1


# --- the directory itself ---


def test_directory_that_is_moved_is_still_the_one_that_is_held(root: Root, home: Path) -> None:
    """What is read is of it, and `check` tells that its path names another, or none."""
    root.check()
    home.rename(home.with_name("away"))
    assert read(root, "top.md") == b"top"
    with pytest.raises(Unavailable, match="gone"):
        root.check("top.md")
    home.mkdir()
    with pytest.raises(Unavailable) as refusal:
        root.check("top.md")
    assert refusal.value.facts["path"] == "top.md"
    home.rmdir()
    home.with_name("away").rename(home)
    root.check()


def test_symlink_to_the_folder_that_is_switched_is_another_folder(home: Path) -> None:
    """It is held when it is opened again."""
    other, link = home.with_name("other"), home.with_name("link")
    other.mkdir()
    link.symlink_to(home)
    root = Root(str(link))
    assert root.path == str(home)
    link.unlink()
    link.symlink_to(other)
    assert not root.is_current()
    root.reopen()
    assert root.is_current()
    assert (root.path, names_in(root)) == (str(other), [])


def test_directory_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    """Every call says so, and the folder that comes is held only when it is opened again."""
    root = Root(str(tmp_path / "none"))
    assert (root.held, root.identity()) == (None, None)
    for call in (touch, *CALLS.values()):
        assert number_of(call, root, "top.md") == errno.ENOENT
    assert os.listdir(tmp_path) == []
    (tmp_path / "none").mkdir()
    assert number_of(names_in, root) == errno.ENOENT
    root.reopen()
    assert names_in(root) == []


def test_folder_that_was_released_is_opened_by_the_next_call(root: Root) -> None:
    """So that what is on it can be unmounted meanwhile."""
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    root.release()
    assert len(os.listdir("/proc/self/fd")) == before - 1
    assert read(root, "top.md") == b"top"


# --- symlinks that are followed by us ---


@pytest.mark.parametrize(
    ("target", "place"),
    [
        ("b/deep.md", "a/b/deep.md"),
        ("../top.md", "top.md"),
        ("../inner/b/deep.md", "a/b/deep.md"),
        (".//b/../b/./deep.md", "a/b/deep.md"),
        ("up/blocks.d/top.md", "top.md"),
        ("../linked/secret.md", errno.EXDEV),
        ("../../out/secret.md", errno.EXDEV),
        ("../../blocks.d/top.md", "top.md"),
        ("/etc/hostname", errno.EXDEV),
        ("missing", errno.ENOENT),
        ("../missing/x", errno.ENOENT),
        ("../top.md/x", errno.ENOTDIR),
        ("link", errno.ELOOP),
        ("b", "a/b"),
    ],
)
def test_symlink_leads_to_a_place_inside_or_is_refused(root: Root, home: Path, target: str, place: str | int) -> None:
    """Through as many others as it may; the path that comes of it has none in it."""
    (home / "a/link").symlink_to(target)
    if isinstance(place, int):
        assert number_of(resolve, root, "a/link") == place
    else:
        assert resolve(root, "a/link") == place


def test_absolute_symlink_into_the_folder_is_followed(root: Root, home: Path) -> None:
    """By whatever way it comes in."""
    (home.parent / "way").symlink_to("blocks.d")
    for number, target in enumerate((home / "a/b/deep.md", home.parent / "way/inner/b/deep.md")):
        (home / f"link-{number}").symlink_to(target)
        assert resolve(root, f"link-{number}") == "a/b/deep.md"


def test_many_symlinks_in_one_are_given_up_soon(root: Root, home: Path) -> None:
    """Each leads through the one before twice: forty of them would be a million million steps."""
    (home / "l0").symlink_to(".")
    for number in range(1, 40):
        (home / f"l{number}").symlink_to(f"l{number - 1}/l{number - 1}")
    assert number_of(resolve, root, "l39") == errno.ELOOP


# --- that there is no other way ---

CALLS_OF_OS = {
    *(
        "open",
        "stat",
        "lstat",
        "rename",
        "replace",
        "link",
        "symlink",
        "unlink",
        "remove",
        "mkdir",
        "makedirs",
        "rmdir",
    ),
    *(
        "scandir",
        "listdir",
        "walk",
        "readlink",
        "access",
        "chmod",
        "chown",
        "utime",
        "truncate",
        "listxattr",
        "getxattr",
    ),
    *("exists", "lexists", "isfile", "isdir", "islink", "getsize", "getmtime"),
}
MODULES = (
    "files/folder",
    "files/staging",
    "files/writer",
    "core/scanner",
    "core/deletions",
    "core/intake",
    "sources/source",
    "core/executor",
    "core/core",
)


@pytest.mark.parametrize("module", MODULES)
def test_folder_is_touched_nowhere_else(module: str) -> None:
    """The modules that work on it make no system call of their own."""
    tree = ast.parse((Path(blocksd.__file__).parent / f"{module}.py").read_text())
    names = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and ((isinstance(node.value, ast.Name) and node.value.id == "os") or ast.unparse(node.value) == "os.path")
    }
    assert names & CALLS_OF_OS == set()
    calls = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert "open" not in calls
