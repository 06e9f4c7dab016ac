"""Paths below /memories and the names of blocks: each block has one path in a listing, and that path names it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksd.anthropic.files import MemoryFiles, Refused
from support import examples


@dataclass(frozen=True)
class Seen:
    """What is read of a block."""

    name: str
    value: str = "x"
    hidden: bool = False
    is_template: bool = False

    @property
    def label(self) -> str:
        return f"agents/ann/{self.name}"


def files_of(*names: str) -> MemoryFiles:
    seen: list[Any] = [Seen(name) for name in names]
    return MemoryFiles("ann", seen)


segments = st.sampled_from(["a", "b", "notes", "a.txt", "notes.md5", "v1.2", "x.y.xml", "2026-01", "é", "a b", "txt"])
names = st.lists(segments, min_size=1, max_size=3).map("/".join)


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(names, unique=True, max_size=8))
def test_each_block_has_one_path(all_names: list[str]) -> None:
    """A path of a listing is that of one block, which it leads to; what is deeper is in the listing of a directory."""
    files = files_of(*all_names)
    for name in all_names:
        path = files.path_of(name)
        block = files.block_at(files.place(path))
        assert block is not None
        assert block.name == name
        assert not files.is_directory(files.place(path))
        listing = files.shown(files.place(path.rpartition("/")[0]))
        assert [line.partition("\t")[2] for line in listing.split("\n")[1:]].count(path) == 1


@settings(deadline=None, max_examples=examples(100))
@given(st.lists(names, unique=True, max_size=4), names, st.sampled_from(["", ".md", ".txt", ".xml", ".json"]))
def test_created_file_has_the_path_it_was_created_by(others: list[str], stem: str, extension: str) -> None:
    """If that has an extension; and always is the block found by it."""
    path = f"/memories/{stem}{extension}"
    try:
        name = files_of(*others).check_new(files_of(*others).place(path))
    except Refused:
        return
    files = files_of(*others, name)
    block = files.block_at(files.place(path))
    assert block is not None
    assert block.name == name
    if extension in (".txt", ".xml", ".json") or (extension == ".md" and "." not in stem.rpartition("/")[2]):
        assert files.path_of(name) == path


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0B"),
        (1, "2B"),
        (1022, "1023B"),
        (1023, "1.0K"),
        (5631, "5.5K"),
        (1024 * 1024 - 2, "1.0M"),
        (2 * 1024 * 1024 - 1, "2.0M"),
    ],
)
def test_sizes_are_as_people_read_them(count: int, shown: str) -> None:
    """In bytes of the file, which ends with a line feed; none of 1024K."""
    seen: list[Any] = [Seen("a", "x" * count)]
    files = MemoryFiles("ann", seen)
    assert files.shown(files.place("/memories")).split("\n")[1:] == [f"{shown}\t/memories", f"{shown}\t/memories/a.md"]
