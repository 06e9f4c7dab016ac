"""Where in a settings file a key is, and what is said of a file that is none."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import Misconfigured
from blocksd.settings.settings_file import SettingsFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def read(tmp_path: Path, text: str) -> SettingsFile:
    path = tmp_path / "x.toml"
    path.write_bytes(text.encode())
    return SettingsFile(str(path))


def line_of(file: SettingsFile, *keys: str) -> int:
    path, _, line = file.place(*keys).rpartition(":")
    assert path == file.path
    return int(line)


EVERYTHING = '''\
# a comment = 1

plain = 1  # [with] a "comment"
"quoted key" = "a # b"
dotted.one.two = 3
dotted.three = 4
array = [  # ] not yet
    1,
    [2, 3], # ]
  # ]

]
text = """
after = 1
[not.a.table]
still text""\\""
"""
literal = \'\'\'
x = 1\'\'\'
inline = { a = 1, b = { c = "}" } }
same_line = """one"""
  indented = true
\tafter_tab = [ ]
[table]
plain = 5
"a.b" = 6
[ table . deeper ]  # spaces
x = [
  "y",
]
[[many]]
first = 1
[[many]]
second = 2
[many.below]
third = 3
["it's"]
odd = 1
'''

LINES = {
    ("plain",): 3,
    ("quoted key",): 4,
    ("dotted",): 5,
    ("dotted", "one", "two"): 5,
    ("dotted", "three"): 6,
    ("array",): 7,
    ("text",): 13,
    ("literal",): 18,
    ("inline", "b", "c"): 20,
    ("same_line",): 21,
    ("indented",): 22,
    ("after_tab",): 23,
    ("table",): 24,
    ("table", "plain"): 25,
    ("table", "a.b"): 26,
    ("table", "deeper"): 27,
    ("table", "deeper", "x"): 28,
    ("many",): 31,
    ("many", "first"): 32,
    ("many", "second"): 34,
    ("many", "below", "third"): 36,
}


@pytest.mark.parametrize("ends", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "bom"])
def test_every_key_has_the_line_of_its_statement(tmp_path: Path, ends: str, mark: str) -> None:
    """Whatever is around it, in it, or looks like it; with the line ends and the mark of other systems, too."""
    file = read(tmp_path, mark + EVERYTHING.replace("\n", ends))
    assert {keys: line_of(file, *keys) for keys in LINES} == LINES
    assert line_of(file, "it's", "odd") == 38


def paths(table: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for key, value in table.items():
        yield (key,)
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                yield from ((key, *path) for path in paths(one))


def test_no_key_is_without_a_line(tmp_path: Path) -> None:
    """What TOML finds in a file has a place in it."""
    file = read(tmp_path, EVERYTHING)
    assert len(list(paths(file.content))) > 25
    assert all(line_of(file, *path) > 2 for path in paths(file.content))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = 1\nb = \n", "x.toml:2:5 is not TOML: Invalid value"),
        ("a = 1\r\nb = 1 c = 2\r\n", "x.toml:2:7 is not TOML: Expected newline"),
        ("a = 1\n\n  a = 2\n", "x.toml:3:8 is not TOML: Cannot overwrite a value"),
        ("[a]\n[a]\n", "x.toml:2:3 is not TOML: Cannot declare ('a',) twice"),
        ("a = 1\r", "x.toml:1:6 is not TOML"),
        ("a = 1\n # x\n b = [\n 1,\n 2\n\n", "x.toml:3:2 is not TOML: Unclosed array"),
        ('a = ["]"]\nb = """\n]\n', "x.toml:2:1 is not TOML: Unterminated string"),
        ("a = 1\nb", "x.toml:2:1 is not TOML: Expected '=' after a key in a key/value pair"),
        ("a = " + "9" * 5000, "x.toml is not TOML: something in it is beyond all measure"),
        ("a = " + "[" * 50_000, "x.toml is not TOML: something in it is beyond all measure"),
    ],
    ids=range(10),
)
def test_what_is_no_toml_is_refused_with_its_place(tmp_path: Path, text: str, said: str) -> None:
    """Line and column; of what is not closed, those where it begins."""
    with pytest.raises(Misconfigured) as caught:
        read(tmp_path, text)
    assert f"{tmp_path}/{said}" in caught.value.message


def test_what_is_no_text_is_refused_with_its_line(tmp_path: Path) -> None:
    """A byte that is not UTF-8 is on some line."""
    (tmp_path / "x.toml").write_bytes(b"a = 1\nb = 'caf\xe9'\n")
    with pytest.raises(Misconfigured, match=r"x\.toml:2 is not TOML: it is not UTF-8"):
        SettingsFile(str(tmp_path / "x.toml"))


def test_nothing_is_a_file_without_settings(tmp_path: Path) -> None:
    """An empty file, or one of comments."""
    assert SettingsFile(os.devnull).content == {}
    assert read(tmp_path, "# nothing\n\n").content == {}
