from __future__ import annotations

import os
import tempfile
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from blocksd.errors import InvalidLabel
from blocksd.files.folder import Folder
from blocksd.model import label as labels
from blocksd.model.label import (
    clash_key,
    is_block_file,
    is_ignored,
    is_pattern,
    label_of_path,
    name_for_agent,
    owner,
    parse_agent,
    parse_agent_pattern,
    parse_label,
    path_of_label,
    printable,
)

if TYPE_CHECKING:
    from collections.abc import Callable

ACCENT_COMPOSED = "caf\u00e9"
ACCENT_DECOMPOSED = "cafe\u0301"

ACCEPTED = [
    "organization",
    "system/human",
    "a/b/c/d",
    "agents",
    "agents/alice/persona",
    "agents/alice/notes/2026",
    "release-1.2_rc",
    "a..b",
    "a.",
    "_private",
    "007",
    "x.MD",
    "x.md5/y",
    "swp",
    "x.swq.old",
    "日本/東京",
    ACCENT_COMPOSED,
    "x" * 100,
    "é" * 50,
    "x" * 100 + "/" + "y" * 99,
]

REFUSED = [
    ("", "empty"),
    ("/", "empty segment"),
    ("/etc/passwd", "empty segment"),
    ("a/", "empty segment"),
    ("a//b", "empty segment"),
    (".", "dot"),
    ("..", "dot"),
    ("../x", "dot"),
    ("a/../b", "dot"),
    ("./a", "dot"),
    (".hidden", "dot"),
    ("a/.hidden", "dot"),
    ("a b", "a segment is"),
    (" a", "a segment is"),
    ("-a", "a segment is"),
    ("a\\b", "a segment is"),
    ("a:b", "a segment is"),
    ("a*", "a segment is"),
    ("a\n", "a segment is"),
    ("a\tb", "a segment is"),
    ("a\0b", "a segment is"),
    ("a\u200d", "a segment is"),
    ("a\udcff", "a segment is"),
    ("x" * 101, "segment"),
    ("é" * 51, "segment"),
    ("x" * 10_000, "segment"),
    ("x" * 100 + "/" + "y" * 100, "label is 201 bytes"),
    ("a/" * 5_000 + "a", "label is 10001 bytes"),
    ("agents/x", "belongs to no agent"),
    ("x.md", "may not end in '.md'"),
    ("x.md/y", "may not end in '.md'"),
    ("a/x.md/y", "may not end in '.md'"),
    ("agents/x.md/y", "may not end in '.md'"),
    ("foo.swp", "editor's temporary file"),
    ("foo.swp/y", "editor's temporary file"),
    ("x___jb_tmp___/y", "editor's temporary file"),
    ("x___jb_old___", "editor's temporary file"),
]

segments = st.from_regex(r"\A\w[\w.-]{0,20}\Z")
label_texts = st.lists(segments, min_size=1, max_size=4).map("/".join)


def is_label(text: str) -> bool:
    try:
        parse_label(text)
    except InvalidLabel:
        return False
    return True


@pytest.mark.parametrize("text", ACCEPTED)
def test_a_label_is_accepted_as_it_is_written(text: str) -> None:
    """A text that follows the grammar is its own label."""
    assert parse_label(text) == text


@pytest.mark.parametrize(("text", "why"), REFUSED, ids=[ascii(text)[:30] for text, _ in REFUSED])
def test_what_is_no_label_is_refused_with_the_rule_it_breaks(text: str, why: str) -> None:
    """The message names the broken rule, stays short and printable, and the facts carry what was refused."""
    with pytest.raises(InvalidLabel, match=why) as caught:
        parse_label(text)
    assert len(caught.value.message) < 300
    assert caught.value.message.isprintable()
    assert len(str(caught.value.facts["label"])) < 600


def test_a_decomposed_label_is_composed() -> None:
    """On disk a name may be NFD (as macOS writes it); the label is NFC."""
    assert parse_label(f"{ACCENT_DECOMPOSED}/{ACCENT_DECOMPOSED}") == f"{ACCENT_COMPOSED}/{ACCENT_COMPOSED}"
    assert label_of_path(f"{ACCENT_DECOMPOSED}.md") == ACCENT_COMPOSED


def test_lengths_are_counted_after_composing() -> None:
    """What counts is the label, not the spelling it came in."""
    assert parse_label("e\u0301" * 50) == "é" * 50


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=30) | label_texts)
def test_parsing_a_label_twice_changes_nothing(text: str) -> None:
    """A label is in its one spelling: parsing it again gives the same."""
    assume(is_label(text))
    once = parse_label(text)
    assert parse_label(once) == once
    assert unicodedata.is_normalized("NFC", once)


pieces = st.sampled_from(
    ["a", "b", ".md", ".MD", ".swp", ".swo", "___jb_tmp___", "___jb_old___", "~", "#", ".", "é", "-"]
)
odd_segments = st.lists(pieces, min_size=1, max_size=4).map("".join).filter(lambda name: name not in (".", ".."))


@settings(deadline=None, max_examples=300)
@given(st.lists(odd_segments, min_size=1, max_size=3).map("/".join) | label_texts)
def test_a_label_is_accepted_only_if_the_sweep_finds_its_file(text: str) -> None:
    """And a file that the sweep finds has the label that it was written under, or is reported for its name."""
    with tempfile.TemporaryDirectory() as home:
        path = os.path.join(home, path_of_label(text))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w"):
            pass
        found = {os.fsencode(entry.path) for some in Folder(home).sweep() for entry in some if entry.kind == "file"}
    assert found <= {os.fsencode(path_of_label(text))}
    if is_label(text):
        assert found
        assert label_of_path(path_of_label(text)) == parse_label(text)


@settings(deadline=None, max_examples=200)
@given(label_texts)
def test_a_label_is_found_again_from_its_path(text: str) -> None:
    """The file a label is written to has that label, and is seen as a block."""
    assume(is_label(text))
    label = parse_label(text)
    path = path_of_label(label)
    assert label_of_path(path) == label
    assert is_block_file(path.rpartition("/")[2])


@settings(deadline=None, max_examples=300)
@given(st.text(st.characters(), max_size=12) | st.text(alphabet="a./-_~#\\\n\0 é\udcff", max_size=12))
def test_any_text_is_a_label_or_refused(text: str) -> None:
    """Nothing but InvalidLabel comes out of the grammar, lone surrogates included."""
    for parse in (parse_label, parse_agent, parse_agent_pattern):
        try:
            result = parse(text)
        except InvalidLabel:
            continue
        assert result
        assert "\0" not in result
        assert ".." not in result.split("/")
        assert result.encode("utf-8")


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=12) | st.lists(st.sampled_from([b"a", b"/", b".", b" ", b"\xff", b"\xc3\xa9"])).map(b"".join))
def test_any_file_name_has_a_label_or_is_refused(name: bytes) -> None:
    """Whatever bytes a directory holds, the name can be judged, and printed."""
    path = os.fsdecode(name) + ".md"
    assert printable(path).isprintable()
    try:
        label = label_of_path(path)
    except InvalidLabel:
        return
    assert label == unicodedata.normalize("NFC", name.decode("utf-8"))


def test_a_file_name_that_is_not_utf8_is_refused() -> None:
    """Bytes that are not UTF-8 come as lone surrogates, and are shown escaped."""
    path = os.fsdecode(b"caf\xe9.md")
    with pytest.raises(InvalidLabel, match="not UTF-8") as caught:
        label_of_path(path)
    assert caught.value.facts["label"] == "caf\\\\xe9.md"


@pytest.mark.parametrize("path", ["a b.md", "..md", ".md", "x" * 300 + ".md", "agents/alice.md", "a\nb.md"])
def test_a_file_name_that_breaks_the_rule_is_refused(path: str) -> None:
    """A file with such a name is a problem, not a block."""
    with pytest.raises(InvalidLabel):
        label_of_path(path)


@pytest.mark.parametrize(
    ("name", "ignored", "block"),
    [
        ("organization.md", False, True),
        ("a b.md", False, True),
        ("..md", False, True),
        ("a.sword.md", False, True),
        ("~x.md", False, True),
        ("4913", False, False),
        ("README.txt", False, False),
        ("x.md.bak", False, False),
        (".md", True, False),
        (".git", True, False),
        (".x.md", True, False),
        (".x.md.swp", True, False),
        (".x.md.swo", True, False),
        ("x.md.swp", True, False),
        ("x.md~", True, False),
        (".#x.md", True, False),
        ("#x.md#", True, False),
        ("x.md___jb_tmp___", True, False),
        ("x.md___jb_old___", True, False),
        (".goutputstream-B5VX42", True, False),
        (".x.md.AbC123", True, False),
        ("~$x.md", True, False),
        (".nfs000000000001", True, False),
    ],
)
def test_temporaries_of_editors_are_nobodys_business(name: str, ignored: bool, block: bool) -> None:
    """Probes, swap files, backups and half-written copies are ignored; a wrongly named block is not."""
    assert is_ignored(name) is ignored
    assert is_block_file(name) is block


@pytest.mark.parametrize("text", ["alice", "support-1", "a.b", ACCENT_COMPOSED, "x" * 100])
def test_an_agent_id_is_one_segment(text: str) -> None:
    """An agent id follows the rule of a label's segment."""
    assert parse_agent(text) == text
    assert parse_agent_pattern(text) == text


@pytest.mark.parametrize(
    "text", ["", "a/b", "*", "support-*", "a?", "[ab]", "../x", ".a", "a b", "a\n", "a\0", "x" * 101]
)
def test_no_agent_id_is_a_path_or_a_pattern(text: str) -> None:
    """Glob characters and slashes are refused where one agent is meant."""
    with pytest.raises(InvalidLabel):
        parse_agent(text)


@pytest.mark.parametrize("text", ["*", "support-*", "a?", "[ab]-1", "[!x]*", "é*"])
def test_an_agents_entry_may_be_a_pattern(text: str) -> None:
    """Shell-style patterns are entries of `agents:`, and told from ids."""
    assert is_pattern(text)
    assert parse_agent_pattern(text) == text


@pytest.mark.parametrize("text", ["a/*", "a b*", "*\n", "{a,b}*", "*" * 101, "\0*", "*\udcff"])
def test_a_pattern_that_could_match_no_agent_is_refused(text: str) -> None:
    """A pattern is made of what agent ids are made of, and glob characters."""
    with pytest.raises(InvalidLabel, match="not a pattern"):
        parse_agent_pattern(text)


def test_patterns_are_composed() -> None:
    """A pattern has one spelling, like an id."""
    assert parse_agent_pattern(ACCENT_DECOMPOSED + "*") == ACCENT_COMPOSED + "*"
    assert parse_agent(ACCENT_DECOMPOSED) == ACCENT_COMPOSED


@pytest.mark.parametrize(
    ("one", "other", "clash"),
    [
        ("readme", "README", True),
        ("system/Human", "System/human", True),
        ("Straße", "STRASSE", True),
        ("É", "e\u0301", True),
        ("a", "b", False),
        ("a-b", "a_b", False),
    ],
)
def test_labels_that_differ_only_in_case_clash(one: str, other: str, clash: bool) -> None:
    """Two labels that some file system could not hold side by side have one clash key."""
    assert (clash_key(parse_label(one)) == clash_key(parse_label(other))) is clash


@pytest.mark.parametrize(
    ("label", "agent", "name"),
    [
        ("organization", None, "organization"),
        ("system/human", None, "system/human"),
        ("agents", None, "agents"),
        ("agentsmith/x", None, "agentsmith/x"),
        ("agents/alice/persona", "alice", "persona"),
        ("agents/alice/notes/2026", "alice", "notes/2026"),
    ],
)
def test_a_private_block_belongs_to_one_agent(label: str, agent: str | None, name: str) -> None:
    """The folder says who owns a block; its agent names it by the rest of the path."""
    assert owner(label) == agent
    assert name_for_agent(label) == name


@pytest.mark.parametrize(
    ("path", "shown"),
    [("a b.md", "a b.md"), ("été.md", "été.md"), ("a\nb", r"a\nb"), (os.fsdecode(b"\xff.md"), r"\\xff.md")],
)
def test_a_path_can_always_be_printed(path: str, shown: str) -> None:
    """A path of printable characters is shown as it is, any other is escaped."""
    assert printable(path) == shown


def test_the_limits_are_those_of_the_format() -> None:
    """100 bytes a segment, 200 bytes a label, whatever the file system would take."""
    assert (labels.MAX_SEGMENT_BYTES, labels.MAX_LABEL_BYTES, labels.SUFFIX) == (100, 200, ".md")


@pytest.mark.parametrize("name", ["operator", "file", "merge"])
def test_authors_that_are_no_agents(name: str) -> None:
    """An agent that could be taken for the operator, or for the folder itself, cannot be."""
    with pytest.raises(InvalidLabel, match="is not an agent id"):
        parse_agent(name)
    with pytest.raises(InvalidLabel, match="is no agent's id"):
        parse_label(f"agents/{name}/persona")
    assert parse_label(name) == name


@pytest.mark.parametrize("read", [parse_label, parse_agent, parse_agent_pattern])
def test_long_text_is_not_brought_into_one_spelling(
    read: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That takes the square of a row of combining marks: 100,000 of them would take half a minute."""
    real = unicodedata.normalize

    def normalize(form: Any, text: str) -> str:
        assert len(text) <= 1000
        return real(form, text)

    monkeypatch.setattr(unicodedata, "normalize", normalize)
    with pytest.raises(InvalidLabel):
        read("a" + "\u0301\u0327" * 500 + "*")
    with pytest.raises(InvalidLabel):
        read("a" + "\u0301\u0327" * 100)
