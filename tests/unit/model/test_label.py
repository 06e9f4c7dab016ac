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
from blocksd.state.sweep import Sweep
from support import examples

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
    "x" * 200,
    "é" * 100,
    "/".join("x" * 199 for _ in range(5)),
    "My note (draft), 2nd",
    "Q&A — what's new",
    "-x",
    "100% {x} 'q' [a] `b` $HOME; a=b+c~d!@^",
    "हिन्दी",
    "தமிழ்/குறிப்பு",
    "ภาษาไทย",
    "বাংলা",
    "می\u200cخواهم",
    "র\u200d\u09cdয",
    "រាប់\u200bពាក្យ",
    "📌 pinned",
    "👩🏽\u200d💻 dev/❤\ufe0f\u200d🔥",
    "\U0001fae9 of a newer Unicode than Python's",
    "agents/मीना/a b",
    "notes on a conflicted copy",
    "persona_LOCAL_4711",
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
    (" a", "may not start with a space"),
    ("a ", "may not end with a space"),
    ("a/b /c", "may not end with a space"),
    ("a b.", "may not end with a dot"),
    *((f"a{char}b", "cannot be in a file name on every system") for char in '\\:*?"<>|'),
    ("a\n", r"control character U\+000A"),
    ("a\tb", r"control character U\+0009"),
    ("a\0b", r"control character U\+0000"),
    ("a\x85b", r"control character U\+0085"),
    ("a\u200d", r"U\+200D \(zero width joiner\) may stand between"),
    ("a \u200db", "may stand between"),
    ("a\u200c\u200cb", "may stand between"),
    ("a\u202egnp", r"U\+202E \(right-to-left override\), which changes the direction"),
    ("a\u2067b", "changes the direction"),
    ("a\u00a0b", r"U\+00A0 \(no-break space\), which looks like a space"),
    ("a\u202fb", "looks like a space"),
    ("a\u3000b", "looks like a space"),
    ("a\u00adb", "cannot be seen"),
    ("a\u200bb", "cannot be seen"),
    ("រាប់\u200b", "cannot be seen"),
    ("a\ufeffb", "cannot be seen"),
    ("a\u2028b", "cannot be seen"),
    ("a\ue000b", "shown differently everywhere"),
    ("a\uffffb", "shown differently everywhere"),
    ("a\U000e0041b", "cannot be seen"),
    ("a/\u0301b", "combining mark"),
    ("a\udcff", "not UTF-8"),
    ("x" * 201, "segment"),
    ("é" * 101, "segment"),
    ("x" * 10_000, "segment"),
    ("/".join(["x" * 199] * 4 + ["y" * 201]), "segment"),
    ("/".join(["x" * 199] * 5 + ["y"]), "label is 1001 bytes"),
    ("a/" * 5_000 + "a", "label is 10001 bytes"),
    ("#a", "is ignored"),
    ("a/#b", "is ignored"),
    ("a~/b", "is ignored"),
    ("agents/a b/x", "'a b' is no agent's id"),
    ("agents/a\u200cb/x", "is no agent's id"),
    ("agents/" + "x" * 101 + "/x", "is over the 100 bytes an id may have"),
    ("persona.sync-conflict-20261120-100000-ABCDEFG", "conflict"),
    ("a/persona (conflicted copy 2026-11-20)", "conflict"),
    ("persona (Sam's conflicted copy 2026-11-20)", "conflict"),
    ("persona (SFConflict sam@example.org 2026-11-20-10-00-00)", "conflict"),
    ("persona_conflict-20261120-100000", "conflict"),
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

segments = st.from_regex(r"\A\w[\w.-]{0,20}\Z") | st.text(
    "aé \u0301\u200d📌(),'!%{}[].-~#", min_size=1, max_size=8
).filter(lambda name: name not in (".", ".."))
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
    assert parse_label("e\u0301" * 100) == "é" * 100


@settings(deadline=None, max_examples=examples(200))
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


@settings(deadline=None, max_examples=examples(300))
@given(st.lists(odd_segments, min_size=1, max_size=3).map("/".join) | label_texts)
def test_a_label_is_accepted_only_if_the_sweep_finds_its_file(text: str) -> None:
    """And a file that the sweep finds has the label that it was written under, or is reported for its name."""
    with tempfile.TemporaryDirectory() as home:
        path = os.path.join(home, path_of_label(text))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w"):
            pass
        found = {
            os.fsencode(entry.path) for some in Sweep(Folder(home)).walk() for entry in some if entry.kind == "file"
        }
    assert found <= {os.fsencode(path_of_label(text))}
    if is_label(text):
        assert found
        assert label_of_path(path_of_label(text)) == parse_label(text)


@settings(deadline=None, max_examples=examples(200))
@given(label_texts)
def test_a_label_is_found_again_from_its_path(text: str) -> None:
    """The file a label is written to has that label, and is seen as a block."""
    assume(is_label(text))
    label = parse_label(text)
    path = path_of_label(label)
    assert label_of_path(path) == label
    assert is_block_file(path.rpartition("/")[2])


@settings(deadline=None, max_examples=examples(300))
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


@settings(deadline=None, max_examples=examples(200))
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


@pytest.mark.parametrize("path", ["a b .md", "..md", ".md", "x" * 300 + ".md", "agents/alice.md", "a\nb.md"])
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


@pytest.mark.parametrize("text", ["alice", "support-1", "a.b", ACCENT_COMPOSED, "x" * 100, "मीना", "อาทิตย์"])
def test_an_agent_id_is_one_segment(text: str) -> None:
    """An agent id is letters of any script with their marks, digits, and three characters more."""
    assert parse_agent(text) == text
    assert parse_agent_pattern(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b",
        "*",
        "support-*",
        "a?",
        "[ab]",
        "../x",
        ".a",
        "a b",
        "a\n",
        "a\0",
        "x" * 101,
        "-a",
        "a(b)",
        "📌",
        "a\u200cb",
        "\u0301a",
    ],
)
def test_no_agent_id_is_a_path_or_a_pattern(text: str) -> None:
    """Glob characters and slashes are refused where one agent is meant."""
    with pytest.raises(InvalidLabel):
        parse_agent(text)


@pytest.mark.parametrize("text", ["*", "support-*", "a?", "[ab]-1", "[!x]*", "é*", "मी*"])
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
    """200 bytes a segment, 1,000 bytes a label, whatever the file system would take."""
    assert (labels.MAX_SEGMENT_BYTES, labels.MAX_LABEL_BYTES, labels.SUFFIX) == (200, 1000, ".md")


@pytest.mark.parametrize("name", ["operator", "file", "merge"])
def test_authors_that_are_no_agents(name: str) -> None:
    """An agent that could be taken for the operator, or for the folder itself, cannot be."""
    with pytest.raises(InvalidLabel, match="is not an agent id"):
        parse_agent(name)
    with pytest.raises(InvalidLabel, match=r"is no agent's id: .* something else"):
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
