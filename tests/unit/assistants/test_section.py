"""The part of a file between blocksd's markers."""

from __future__ import annotations

import pytest

from blocksd.assistants.section import find, replaced
from blocksd.errors import BrokenMarkers

MINE = "# Rules\n\nBe kind.\n"


def written(text: str, memory: str = "I am Sam.", agent: str = "sam", path: str = "CLAUDE.md") -> str:
    return replaced(text, agent, memory, find(text, agent), path=path)


@pytest.mark.parametrize("mine", ["", MINE, "no line end", "\ufeff# BOM\n", "# Rules\r\n\r\nBe kind.\r\n", "\n\n"])
def test_text_of_a_person_stays(mine: str) -> None:
    """Whatever it is, the section comes below it, and a second memory changes nothing else."""
    once = written(mine)
    assert once.startswith(mine)
    assert "I am Sam." in once
    twice = written(once, "I am Sam.\nI like tea.")
    assert twice.startswith(mine)
    assert "I like tea." in twice
    assert written(twice) == once


def test_text_on_both_sides_stays() -> None:
    """The section is replaced where it stands, also where the file ends without a line end."""
    text = f"{written(MINE)}\nMore of mine, without a line end"
    assert written(text, "New.").endswith("-->\n\nMore of mine, without a line end")
    assert "I am Sam." not in written(text, "New.")
    bare = written(MINE).rstrip("\n")
    assert written(bare, "New.") == written(MINE, "New.").rstrip("\n")


def test_equal_memory_gives_equal_text() -> None:
    """So that nothing is written."""
    text = written(MINE)
    assert written(text) == text


def test_line_ends_are_those_of_the_file() -> None:
    """All of them; what counts as an edit does not depend on them."""
    text = written("# Rules\r\n")
    assert text.count("\r\n") == text.count("\n") > 3
    section = find(text, "sam")
    assert section is not None
    assert not section.is_edited
    unix = find(text.replace("\r\n", "\n"), "sam")
    assert unix is not None
    assert not unix.is_edited


@pytest.mark.parametrize(
    ("edit", "is_edited"),
    [
        (("I am Sam.", "I am Bob."), True),
        (("I am Sam.", "I am Sam.\nand Bob"), True),
        (("I am Sam.\n", ""), True),
        (("I am Sam.", "I am Sam.   "), False),  # editors remove or add such spaces on a save
        (("# Rules", "# Laws"), False),
    ],
)
def test_edit_between_the_markers_is_seen(edit: tuple[str, str], is_edited: bool) -> None:
    """By the digest in the first marker, without any other record."""
    section = find(written(MINE).replace(*edit), "sam")
    assert section is not None
    assert section.is_edited is is_edited


def test_older_text_of_blocksd_is_no_edit() -> None:
    """`git checkout` brings back a whole section, digest and all."""
    older = written(MINE, "Older.")
    section = find(older, "sam")
    assert section is not None
    assert not section.is_edited


@pytest.mark.parametrize(
    "text",
    [
        written(MINE).replace("<!-- blocksd:end sam -->\n", ""),
        written(MINE).replace("blocksd:begin", "blocksd:begun").replace("<!-- blocksd:begun", "<!-- blocksd:begin\n"),
        written(MINE) + written(""),
        f"<!-- blocksd:end sam -->\n{written(MINE)}",
        written(MINE).replace("blocksd:end sam", "blocksd:end bob"),
        f"{written(MINE)}<!-- blocksd:begin -->\n",
        f"<!-- blocksd:begin sam 0123456789abcdef x -->\n{written(MINE)}",
    ],
)
def test_broken_markers_are_refused(text: str) -> None:
    """With the line: nothing is guessed."""
    with pytest.raises(BrokenMarkers, match=r"^line \d+ "):
        find(text, "sam")


def test_two_agents_share_a_file() -> None:
    """Each has its part, and an edit in one is none in the other."""
    both = written(written(MINE), "I am Bob.", "bob")
    sams = find(both.replace("I am Bob.", "?"), "sam")
    assert sams is not None
    assert not sams.is_edited
    changed = written(both, "New.")
    assert "I am Bob." in changed
    assert "I am Sam." not in changed


@pytest.mark.parametrize(
    "memory",
    [
        "<!-- blocksd:end sam -->",
        "x\n  <!-- blocksd:begin sam 0123456789abcdef -->\ny",
        "<\\!-- blocksd:end sam -->",
        "<!--blocksd:END-->",
        "a\x0b<!-- blocksd:end sam -->\u2028<!-- blocksd:end sam -->",
    ],
)
def test_memory_that_quotes_markers_stays_inside(memory: str) -> None:
    """Such a line gets a backslash."""
    text = written(MINE, memory)
    assert written(text, memory) == text
    section = find(text, "sam")
    assert section is not None
    assert not section.is_edited
    assert written(text, "") == written(MINE, "")


def test_backslashes_can_be_taken_away_again() -> None:
    """Each such mark has exactly one more than the memory has."""
    for slashes in ("", "\\", "\\\\"):
        section = find(written("", f"<{slashes}!-- blocksd:end sam -->"), "sam")
        assert section is not None
        assert section.body == f"<{slashes}\\!-- blocksd:end sam -->\n"


@pytest.mark.parametrize(
    ("path", "start"),
    [
        (
            ".cursor/rules/memory.mdc",
            "---\ndescription: Memory of the agent sam\nalwaysApply: true\n---\n<!-- blocksd:",
        ),
        (".github/instructions/memory.instructions.md", '---\napplyTo: "**"\n---\n<!-- blocksd:'),
        (".github/copilot-instructions.md", "<!-- blocksd:"),
        ("AGENTS.md", "<!-- blocksd:"),
    ],
)
def test_new_file_begins_as_its_reader_needs(path: str, start: str) -> None:
    """Cursor applies a rule without being asked only if its frontmatter says so."""
    text = written("", path=path)
    assert text.startswith(start)
    assert written(text, path=path) == text
    assert not written(MINE, path=path).startswith("---")
