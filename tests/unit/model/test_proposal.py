from __future__ import annotations

import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from blocksd.errors import InvalidLabel
from blocksd.model.label import label_of_path
from blocksd.model.proposal import is_misnamed, proposed_path, remedy
from support import examples


@pytest.mark.parametrize(
    ("path", "proposed"),
    [
        ("Q&A — what's new? no.md", "Q&A — what's new no.md"),
        ("10:30 Team: goals/a|b.md", "10-30 Team - goals/a-b.md"),
        ('The "best" <day>*.md', "The 'best' (day).md"),
        ("a\\b.md", "a-b.md"),
        (" leading.md", "leading.md"),
        ("trailing .md", "trailing.md"),
        ("etc. .md", "etc.md"),
        ("a\u202egnp.md", "agnp.md"),
        ("a\u00a0b\tc.md", "a b c.md"),
        ("notes.md.md", "notes.md"),
        ("x.md/y.md", "x/y.md"),
        ("foo.swp/y.md", "foo-swp/y.md"),
        ("NOTES.MD", "NOTES.md"),
        ("notes.markdown", "notes.md"),
        ("notes.md.txt", "notes.md"),
        ("agents/My agent/a? b.md", "agents/My-agent/a b.md"),
        (os.fsdecode(b"caf\xe9.md"), "caf_.md"),
        ("x" * 250 + ".md", "x" * 200 + ".md"),
        ("e\u0323\u0301" * 100 + ".md", "\u1eb9\u0301" * 40 + ".md"),
        # Nothing can be proposed, or need be.
        ("..md", None),
        ("?.md", None),
        ("notes.md", None),
        ("agents/notes.md", None),
        ("persona.sync-conflict-20261120-100000-ABCDEFG.md", None),
    ],
)
def test_a_name_that_is_right_is_proposed(path: str, proposed: str | None) -> None:
    """The proposal keeps what may stay, so that a person knows the file again."""
    assert proposed_path(path) == proposed


@settings(deadline=None, max_examples=examples(500))
@given(st.text(st.characters(codec="utf-8") | st.sampled_from(' ./\\:*?"<>|~#\u0301\u200d'), max_size=30))
@example("x" * 199 + "\u0301\u0301")
@example("~$x.swp")
def test_what_is_proposed_is_a_label_and_needs_no_other_proposal(text: str) -> None:
    """For whatever name a file has."""
    proposed = proposed_path(f"{text}.md")
    if proposed is not None:
        assert label_of_path(proposed) == proposed.removesuffix(".md")
        assert proposed_path(proposed) is None
        with pytest.raises(InvalidLabel):
            label_of_path(f"{text}.md")


def test_the_remedy_says_what_to_do() -> None:
    """A copy of a conflict is not to be renamed."""
    assert remedy("a?.md") == "rename the file, for example to 'a.md'"
    assert remedy("?.md") == "rename the file"
    assert remedy("agents/my agent/a.md") == "rename its directory, for example to 'agents/my-agent/a.md'"
    assert "delete this copy" in remedy("a/b (conflicted copy 2026-11-20).md")


@pytest.mark.parametrize(
    ("name", "is_so"),
    [
        ("NOTES.MD", True),
        ("notes.Md", True),
        ("notes.markdown", True),
        ("notes.mdx", True),
        ("rules.mdc", True),
        ("notes.md.txt", True),
        ("notes.md", False),
        ("notes.txt", False),
        ("mdx", False),
        ("notes.md.bak", False),
        ("notes.mdl", False),
    ],
)
def test_markdown_under_another_ending_is_recognised(name: str, is_so: bool) -> None:
    """Such a file was perhaps meant as a block."""
    assert is_misnamed(name) is is_so
