from __future__ import annotations

import codecs
import json
import subprocess
import sys

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from blocksd.errors import BlocksdError, EditRefused, InvalidField, InvalidFile
from blocksd.files.document import Document, Parser, decode, normalize_newlines, serialize, split
from blocksd.files.lookalike import lookalike
from blocksd.model.block import Block, check_value, default_description
from blocksd.model.problem import Warned
from parsed import parse
from support import examples

BOM = "\ufeff"


def warnings(data: bytes, label: str = "x") -> tuple[Warned, ...]:
    return Parser().parse(data, label)[1]


VARIANTS = [
    # text, has frontmatter, frontmatter, value
    ("", False, "", ""),
    ("\n", False, "", ""),
    ("hello", False, "", "hello"),
    ("hello\n", False, "", "hello"),
    ("hello\n\n", False, "", "hello\n"),
    ("\nhello\n", False, "", "\nhello"),
    (BOM, False, "", ""),
    (BOM + "hello\n", False, "", "hello"),
    (BOM + BOM + "hello", False, "", BOM + "hello"),
    ("one\r\ntwo\r\n", False, "", "one\ntwo"),
    ("one\rtwo\r", False, "", "one\ntwo"),
    ("---\nlimit: 5\n---\nhello\n", True, "limit: 5\n", "hello"),
    ("---\nlimit: 5\n---\n\nhello\n", True, "limit: 5\n", "hello"),
    ("---\nlimit: 5\n---\n\n\nhello\n\n", True, "limit: 5\n", "\nhello\n"),
    ("---\nlimit: 5\n---\nhello", True, "limit: 5\n", "hello"),
    ("---\nlimit: 5\n---\n", True, "limit: 5\n", ""),
    ("---\nlimit: 5\n---\n\n", True, "limit: 5\n", ""),
    ("---\nlimit: 5\n---\n\n\n", True, "limit: 5\n", ""),
    ("---\nlimit: 5\n---", True, "limit: 5\n", ""),
    ("---\n---\nhello\n", True, "", "hello"),
    ("---\n---", True, "", ""),
    ("---\n\n---\nhello\n", True, "\n", "hello"),
    (BOM + "---\nlimit: 5\n---\nhello\n", True, "limit: 5\n", "hello"),
    ("---\r\nlimit: 5\r\n---\r\n\r\none\r\ntwo\r\n", True, "limit: 5\r\n", "one\ntwo"),
    (BOM + "---\r\nlimit: 5\r\n---\r\n", True, "limit: 5\r\n", ""),
    ("---\nlimit: 5\r\n---\nmixed\r\nends\n", True, "limit: 5\r\n", "mixed\nends"),
    ("--- \t\nlimit: 5\n---  \nhello\n", True, "limit: 5\n", "hello"),
    ("---\nlimit: 5\n---\nabove\n---\nbelow\n", True, "limit: 5\n", "above\n---\nbelow"),
    ("---\nlimit: 5\n---\n---\n", True, "limit: 5\n", "---"),
    ("above\n---\nbelow\n", False, "", "above\n---\nbelow"),
    ("---\nlimit: 5\n----\n ---\n--- x\n---\nhello", True, "limit: 5\n----\n ---\n--- x\n", "hello"),
    ("----\nhello\n", False, "", "----\nhello"),
    ("--\nhello\n", False, "", "--\nhello"),
    ("--- x\nhello\n", False, "", "--- x\nhello"),
    (" ---\nhello\n", False, "", " ---\nhello"),
    ("\n---\nlimit: 5\n---\n", False, "", "\n---\nlimit: 5\n---"),
    ("---\rlimit: 5\r---\r", False, "", "---\nlimit: 5\n---"),
]


@pytest.mark.parametrize(("text", "has_frontmatter", "matter", "value"), VARIANTS, ids=[repr(v[0]) for v in VARIANTS])
def test_a_file_is_taken_apart(text: str, has_frontmatter: bool, matter: str, value: str) -> None:
    """A fence is a line of three dashes; one blank line above and one newline below the value are the file's style."""
    document = split(text)
    assert document.text == text
    assert document.has_frontmatter is has_frontmatter
    assert document.matter == matter
    assert document.value == value


@pytest.mark.parametrize(
    "text", ["---", "---\n", "---\nlimit: 5\n", "---\nlimit: 5\n----\n", f"{BOM}---\r\nx", "---\n ---"]
)
def test_an_unclosed_frontmatter_is_refused(text: str) -> None:
    """An opening fence with no closing one is an error of line 1, not a value."""
    with pytest.raises(InvalidFile, match="never closed") as caught:
        split(text)
    assert caught.value.facts["line"] == 1
    assert caught.value.facts["hint"]


NASTY = "-\n\ufeff \t#:a"
nasty_texts = st.text(alphabet=NASTY, max_size=12)
fenced_texts = st.lists(
    st.sampled_from(
        ["---", "----", "--- ", "\n", "\n\n", "\r\n", "\r", BOM, "a: 1", "limit: 5", "x", " ", "\t", "#", ":"]
    ),
    max_size=10,
).map("".join)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0\r"), max_size=30)
value_texts = texts | nasty_texts | fenced_texts.map(lambda text: text.replace("\r", ""))


@settings(deadline=None, max_examples=examples(400))
@given(fenced_texts | st.text(max_size=30))
def test_the_parts_are_the_text(text: str) -> None:
    """Nothing is lost or normalised by taking a file apart."""
    try:
        document = split(text)
    except InvalidFile:
        return
    assert document.text == text
    assert "\r" not in document.value


STARTS = [
    *(text for text, *_ in VARIANTS),
    "---\ndescription: x # why\nlimit: 5\n---\nhello\nworld",
    "---\r\n---\r\n\r\nhello",
    f"{BOM}---\n---",
    "one\r\ntwo\nthree\r\n",
]


@settings(deadline=None, max_examples=examples(1500))
@given(st.sampled_from(STARTS), value_texts)
def test_every_value_survives_being_written(start: str, value: str) -> None:
    """For every text without NUL: what is written as a value is read back, below an untouched frontmatter."""
    document = split(start)
    written = split(document.with_value(value).text)
    assert written.value == value
    assert written == document.with_value(value)
    if document.has_frontmatter:
        above = document.opening + document.matter + document.closing
        assert written.text.startswith(above)
        assert written.matter == document.matter
    assert written.text.startswith(document.opening)
    if start.endswith("\n") and value:
        assert written.text.endswith("\n")
    if document.newline == "\r\n" and value != document.value:
        assert written.body.count("\n") == written.body.count("\r\n")


@settings(deadline=None, max_examples=examples(300))
@given(st.sampled_from(STARTS), value_texts, value_texts)
def test_a_value_that_comes_back_leaves_a_readable_file(start: str, one: str, other: str) -> None:
    """Writing again and again never piles up fences, blank lines or newlines."""
    document = split(start).with_value(one)
    back = document.with_value(other).with_value(one)
    assert back.value == one
    assert len(back.text) <= len(document.text) + len("---\r\n---\r\n\r\n\r\n")
    assert back.with_value(other).with_value(one).with_value(other).with_value(one).text == back.text


@settings(deadline=None, max_examples=examples(300))
@given(fenced_texts)
def test_an_equal_value_changes_nothing(text: str) -> None:
    """A file whose value is already the wanted one stays as it is, mixed line ends included."""
    try:
        document = split(text)
    except InvalidFile:
        return
    assert document.with_value(document.value).text == text


@pytest.mark.parametrize(
    ("text", "value", "result"),
    [
        ("---\nlimit: 5 # why\n---\n\nold\n", "new", "---\nlimit: 5 # why\n---\n\nnew\n"),
        ("---\nlimit: 5\n---\nold", "new", "---\nlimit: 5\n---\nnew"),
        ("---\nlimit: 5\n---\nold\n", "", "---\nlimit: 5\n---\n"),
        ("---\nlimit: 5\n---", "new", "---\nlimit: 5\n---\nnew\n"),
        ("---\nlimit: 5\n---\n\n", "new", "---\nlimit: 5\n---\n\nnew\n"),
        ("---\r\nlimit: 5\r\n---\r\nold\r\n", "a\nb", "---\r\nlimit: 5\r\n---\r\na\r\nb\r\n"),
        (f"{BOM}old\n", "new", f"{BOM}new\n"),
        ("old", "new", "new"),
        ("old\n", "---", "---\n---\n---\n"),
        ("old\r\n", "---\nx", "---\r\n---\r\n---\r\nx\r\n"),
        ("---\n---\nold\n", "\nnew", "---\n---\n\n\nnew\n"),
        ("", "new", "new\n"),
    ],
)
def test_the_body_keeps_its_style(text: str, value: str, result: str) -> None:
    """Blank line, newline at the end, line ends and byte order mark stay as they were."""
    assert split(text).with_value(value).text == result


@pytest.mark.parametrize(
    ("text", "key", "value", "result"),
    [
        ("---\nlimit: 5 # why\n---\nx\n", "limit", 6, "---\nlimit: 6 # why\n---\nx\n"),
        ("---\nlimit: 5\n---\nx\n", "limit", None, "---\n---\nx\n"),
        ("---\r\nlimit: 5\r\n---\r\nx", "hidden", True, "---\r\nlimit: 5\r\nhidden: true\r\n---\r\nx"),
        ("---\r\n---\r\nx", "limit", 5, "---\r\nlimit: 5\r\n---\r\nx"),
        (f"{BOM}---\nlimit: 5\n---", "limit", 6, f"{BOM}---\nlimit: 6\n---"),
        ("x\n", "limit", 5, "---\nlimit: 5\n---\nx\n"),
        ("\nx\n", "limit", 5, "---\nlimit: 5\n---\n\n\nx\n"),
        (f"{BOM}x\r\ny", "limit", 5, f"{BOM}---\r\nlimit: 5\r\n---\r\nx\r\ny"),
        ("x\n", "limit", None, "x\n"),
    ],
)
def test_a_key_is_changed_in_the_file(text: str, key: str, value: object, result: str) -> None:
    """A changed key leaves the body and the other lines; a file without frontmatter gets one."""
    document = split(text)
    changed = document.with_key(key, value)
    assert changed.text == result
    assert split(changed.text) == changed
    assert changed.value == document.value


@settings(deadline=None, max_examples=examples(300))
@given(value_texts, st.sampled_from(["", BOM]), st.sampled_from(["\n", "\r\n"]))
def test_a_key_for_a_file_without_frontmatter_keeps_the_value(value: str, bom: str, newline: str) -> None:
    """The value above which a frontmatter is put stays the value."""
    text = bom + value.replace("\n", newline)
    try:
        document = split(text)
    except InvalidFile:
        return
    assume(not document.has_frontmatter)
    changed = split(document.with_key("limit", 5).text)
    assert changed.value == document.value
    assert changed.matter == f"limit: 5{document.newline}"
    assert changed.text.endswith(document.body)


def test_a_key_that_cannot_be_changed_in_place_is_refused() -> None:
    """The document says so like the frontmatter does."""
    with pytest.raises(EditRefused):
        split("---\n{limit: 5}\n---\nx\n").with_key("limit", 6)


@pytest.mark.parametrize(
    ("data", "offset", "message"),
    [
        ("hé".encode("utf-16"), 0, "not UTF-8: byte 0xff"),
        (codecs.BOM_UTF16_BE + "hé".encode("utf-16-be"), 0, "not UTF-8: byte 0xfe"),
        ("abc".encode("utf-16-le"), 1, "NUL"),
        ("abc".encode("utf-16-be"), 0, "NUL"),
        ("café\n".encode("latin-1"), 3, "not UTF-8: byte 0xe9"),
        (b"---\nlimit: 5\n---\nab\0c", 19, "NUL"),
        (b"a\0\xff", 2, "not UTF-8: byte 0xff"),
        ("x🙂".encode()[:-1], 1, "not UTF-8: byte 0xf0"),
        (b"\xed\xa0\x80", 0, "not UTF-8: byte 0xed"),
        (b"\xc0\x80", 0, "not UTF-8: byte 0xc0"),
    ],
)
def test_what_is_not_text_is_refused_with_its_offset(data: bytes, offset: int, message: str) -> None:
    """The facts give the first bad byte, counted from 0, and what to do about it."""
    with pytest.raises(InvalidFile, match=message) as caught:
        parse(data, "x")
    assert caught.value.facts["offset"] == offset
    assert f"offset {offset}" in caught.value.message
    assert caught.value.facts["hint"]


def test_utf16_is_recognized() -> None:
    """A file with a UTF-16 byte order mark is told to be converted from it."""
    for encoding in ("utf-16-le", "utf-16-be"):
        with pytest.raises(InvalidFile) as caught:
            decode(f"{BOM}hello".encode(encoding))
        assert "UTF-16" in str(caught.value.facts["hint"])


def test_the_line_of_a_nul_is_given() -> None:
    """An editor finds a NUL by its line."""
    with pytest.raises(InvalidFile) as caught:
        decode(b"one\r\ntwo\n\0")
    assert caught.value.facts["line"] == 3


FULL = """---
# who we are
description: What to know.
limit: 100  # small
read_only: true
hidden: no
---
"""

WRONG_LINES = [
    ("---\nlimit: 0\n---\nx\n", 2, "limit must be"),
    ("---\ndescription: x\n\n# limit: 1\nlimit: 0\n---\nx\n", 5, "limit must be"),
    ("---\nmetadata:\n  limit: 5\nlimit: 0\n---\n", 4, "limit must be"),
    ("---\ndescription: |\n  text\n  limit: 5\nlimit: 0\n---\n", 5, "limit must be"),
    ("---\n'limit' : 0\n---\n", 2, "limit must be"),
    ("---\n\n{hidden: true,\n limit: 0}\n---\n", 4, "limit must be"),
    ("---\n? limit\n: 0\n---\n", 2, "limit must be"),
    ("---\ndescription: one\u2028 two\nlimit: 0\n---\n", 3, "limit must be"),
    ('---\nhidden: true\nread_only: "no"\n---\n', 3, 'read_only must be true or false, not "no"'),
    (FULL, 6, 'hidden must be true or false, not "no"'),
    ("---\ntags:\n  - a\n  - 1\n---\n", 2, "tags must be"),
    ("---\nlimit: 5\nagents: [a b]\n---\n", 3, "agents: 'a b'"),
    ('---\nlimit: 5\ndescription: "\\a"\n---\n', 3, r"description holds the control character U\+0007"),
    ("---\nlimit: 5\nhidden: true\nlimit: 6\n---\n", 4, "has 'limit' twice"),
    ("---\nlimit: 5\ntags: [a, b\nhidden: true\n---\n", 3, "not YAML"),
    ("---\nlimit: 5\nread_only\nhidden: true\n---\n", 3, "not YAML"),
    ("---\nlimit: 5\ndescription: a: b\n---\n", 3, "not YAML"),
    ("---\nlimit: 5\ntags: &x [a]\n---\n", 3, "anchor"),
    ("---\n# c\n- a\n---\n", 3, "not a mapping"),
    ("---\nlimit: 5\nhidden: \x07\n---\n", 3, "does not admit"),
    ("---\nlimit: 50\n---\none\ntwo\x07\n", 5, r"value holds the control character U\+0007"),
    ("---\nlimit: 50\n---\n\none\ntwo\x07\n", 6, "value holds"),
    ("---\n---\n\n\n\x1b\n", 5, "value holds"),
    ("one\ntwo\x7f\n", 2, "value holds"),
    ("\none\ntwo\x7f\n", 3, "value holds"),
    ("---\nlimit: 5\n", 1, "never closed"),
]


@pytest.mark.parametrize("bom", ["", BOM], ids=["", "bom"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize(("text", "line", "message"), WRONG_LINES, ids=[repr(w[0])[:40] for w in WRONG_LINES])
def test_an_error_names_the_line_of_the_file(text: str, line: int, message: str, newline: str, bom: str) -> None:
    """Lines are counted as an editor shows them: fences, blank lines and comments included."""
    with pytest.raises(InvalidFile, match=message) as caught:
        parse((bom + text.replace("\n", newline)).encode(), "x")
    assert caught.value.facts["line"] == line
    assert caught.value.facts["hint"]


def test_a_value_over_its_limit_is_refused_with_both_numbers() -> None:
    """Code points of the value are counted: not bytes, not the style around it."""
    text = "---\nlimit: 3\n---\n\n{}\n"
    assert parse(text.format("𝒳é\n").encode(), "x").value == "𝒳é\n"
    with pytest.raises(
        InvalidFile, match=r"^Exceeds character limit: value is 4 characters, over its limit of 3$"
    ) as caught:
        parse(text.format("𝒳é\n.").encode(), "x")
    assert (caught.value.facts["chars"], caught.value.facts["limit"]) == (4, 3)
    with pytest.raises(
        InvalidFile, match=r"^Exceeds character limit: value is 20001 characters, over its limit of 20000$"
    ):
        parse(b"a" * 20_001, "x")


def test_a_file_says_a_block() -> None:
    """Every key of the frontmatter is a field, the body is the value, the path the label."""
    text = (
        f"{BOM}---\r\ndescription: 'What: to know'\r\nlimit: 100 # small\r\nread_only: true\r\nhidden: false\r\n"
        "tags: [policy, policy]\r\nmetadata: {owner: ops}\r\nagents:\r\n- support-*\r\n- alice\r\n"
        "template_name: t\r\nis_template: true\r\ncolour: red\r\n---\r\n\r\nOrganization: Letta\r\n"
    )
    assert parse(text.encode(), "organization") == Block(
        label="organization",
        value="Organization: Letta",
        description="What: to know",
        limit=100,
        read_only=True,
        tags=("policy",),
        metadata={"owner": "ops"},
        agents=("support-*", "alice"),
        template_name="t",
        is_template=True,
    )


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"---\n---\n", b"---\n---", b"\xef\xbb\xbf", b"---\nlimit: ~\ntags:\n---\n"]
)
def test_an_empty_file_is_a_block_of_defaults(data: bytes) -> None:
    """An empty value is a value, and null is the default."""
    assert parse(data, "x") == Block("x")
    assert parse(data, "human").description == default_description("human")


def test_a_private_block_cannot_list_agents_in_its_file() -> None:
    """The error names the line of the key."""
    with pytest.raises(InvalidFile, match="belongs to 'bob' alone") as caught:
        parse(b"---\nlimit: 5\nagents: [alice]\n---\n", "agents/bob/notes")
    assert caught.value.facts == {"line": 3, "hint": "remove 'agents' from the frontmatter"}


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("limti", "did you mean 'limit'?"),
        ("readonly", "did you mean 'read_only'?"),
        ("read-only", "did you mean 'read_only'?"),
        ("Description", "did you mean 'description'?"),
        ("agent", "did you mean 'agents'?"),
        ("tag", "did you mean 'tags'?"),
        ("label", "the label is the file's path"),
        ("value", "the value is the text below the frontmatter"),
        ("tempalte_nmae", "did you mean 'template_name'?"),
    ],
)
def test_a_misspelt_key_is_warned_about(key: str, hint: str) -> None:
    """The key is ignored, and the warning gives its line and the known key that was meant."""
    data = f"{BOM}---\r\nmetadata:\r\n  {key}: 1\r\nlimit: 5\r\n{key}: 1\r\n---\r\nx".encode()
    assert parse(data, "x").limit == 5
    effect = ", and agents may change the block" if "read_only" in hint else ""
    assert warnings(data) == (Warned(f"unknown key {key!r} is ignored{effect}", line=5, hint=hint),)


@pytest.mark.parametrize("key", ["colour", "<<", "title", "date", "agenda", "target", "project", "created", "x" * 500])
def test_a_key_of_another_program_is_not_warned_about(key: str) -> None:
    """It is kept, and means nothing here."""
    assert warnings(f"---\n{key}: 1\n---\nx".encode()) == ()


def test_known_keys_are_not_warned_about() -> None:
    """A file without unknown keys has no warnings, keys below `metadata` are the author's own."""
    assert warnings(FULL.replace("hidden: no", "").encode()) == ()
    assert warnings(b"---\nmetadata: {limti: 1}\n---\nlimti: 1\n") == ()
    assert warnings(b"limti: 1\n") == ()


def test_many_unknown_keys_each_have_their_line() -> None:
    """A frontmatter of thousands of unknown keys is read once for all of them, and the first hundred are looked at."""
    matter = "".join(f"read_onl{n}: 0\n" for n in range(10, 99)) + "".join(f"key{n}: 0\n" for n in range(2000))
    assert [warning.line for warning in warnings(f"---\n{matter}---\n".encode())] == list(range(2, 91))


agent_ids = st.from_regex(r"\A[a-z0-9_][a-z0-9_.-]{0,8}\Z") | st.sampled_from(
    ["*", "support-*", "[ab]?", "été", "true", "1", "1e3", "no"]
)
clean_texts = (
    st.text(st.characters(codec="utf-8", exclude_categories=["Cc"], include_characters="\n\t"), max_size=20)
    | nasty_texts
)
optional_texts = st.none() | clean_texts | st.sampled_from(["no", "true", "1", "12:30", "~", "", "null", "2026-11-20"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    label = draw(st.sampled_from(["x", "system/notes", "persona", "agents/bob/notes", "agents/bob/human"]))
    value = draw(clean_texts | fenced_texts.map(lambda text: text.replace("\r", "")))
    description = draw(optional_texts)
    return Block(
        label=label,
        value=value,
        description=default_description(label) if description is None else description,
        limit=draw(st.integers(max(len(value), 1), 4 * 1024 * 1024) | st.just(20_000)),
        read_only=draw(st.booleans()),
        hidden=draw(st.booleans()),
        tags=tuple(draw(st.lists(clean_texts.filter(bool), unique=True, max_size=3))),
        metadata=draw(st.dictionaries(st.text(max_size=6), json_values, max_size=3)),
        agents=() if label.startswith("agents/") else tuple(draw(st.lists(agent_ids, unique=True, max_size=3))),
        project_id=draw(optional_texts),
        is_template=draw(st.booleans()),
        template_name=draw(optional_texts),
        template_id=draw(optional_texts),
        base_template_id=draw(optional_texts),
        deployment_id=draw(optional_texts),
        entity_id=draw(optional_texts),
        preserve_on_migration=draw(st.booleans()),
    )


@settings(deadline=None, max_examples=examples(300))
@given(blocks())
@example(Block("x", value="--\nLIMI:\n--", limit=11))
def test_a_block_is_read_back_from_the_file_written_for_it(block: Block) -> None:
    """Every field survives, and the file has no odd key; a text that looks like a frontmatter is warned of."""
    data = serialize(block)
    again = parse(data, block.label)
    assert again == block
    assert again.digest == block.digest
    assert serialize(again) == data
    assert warnings(data, block.label) == () or lookalike(block.value) is not None


@settings(deadline=None, max_examples=examples(400))
@given(value_texts)
def test_every_value_survives_in_a_file_of_its_own(value: str) -> None:
    """For every text without NUL the new file holds that value; which values are admitted is another question."""
    for label in ("x", "persona"):
        block = Block(label, value=value, description=default_description(label))
        data = serialize(block)
        assert split(decode(data)).value == value
        try:
            check_value(value, block.limit)
        except BlocksdError:
            continue
        assert parse(data, label) == block


@pytest.mark.parametrize(
    ("block", "data"),
    [
        (Block("x"), b"\n"),
        (Block("x", value="hello"), b"hello\n"),
        (Block("x", value="a\n"), b"a\n\n"),
        (Block("x", value="---"), b"---\n---\n---\n"),
        (Block("x", value="hello", limit=5, tags=("a",)), b"---\nlimit: 5\ntags: [a]\n---\nhello\n"),
        (Block("human", value="hello", description=default_description("human")), b"hello\n"),
    ],
)
def test_a_new_file_is_plain(block: Block, data: bytes) -> None:
    """Only what is not default is written, and a frontmatter only if it is needed."""
    assert serialize(block) == data


@pytest.mark.parametrize(
    ("text", "result"),
    [("a\r\nb\rc\n", "a\nb\nc\n"), ("\r\r\n\n", "\n\n\n"), ("a\u2028b\x85", "a\u2028b\x85"), ("", "")],
)
def test_line_ends_become_newlines(text: str, result: str) -> None:
    """CRLF and CR are line ends; what else Unicode calls one is text."""
    assert normalize_newlines(text) == result


def test_a_document_without_frontmatter_has_only_a_body() -> None:
    """The byte order mark is not part of the value."""
    assert split(f"{BOM}x\n") == Document(BOM, "", "", "x\n")


REAL = [
    FULL.replace("hidden: no", "hidden: false") + "\nOrganization: Letta\n---\nNot a fence.\n",
    "\ufeff---\r\ndescription: |\r\n  Two\r\n  lines: here\r\nagents:\r\n  - 'support-*'\r\n  - alice # first\r\n---\r\n\r\nText\r\n",
    "---\nmetadata: {owner: ops, list: [1, 2.5, null]}\ntags:\n- a\n- b\n---\n# Title\n\n- item\n",
    "just text\n",
]
SPLINTERS = [
    *(
        b"---\n",
        b"---",
        b"\n",
        b"\r\n",
        b"\r",
        b"\t",
        b" ",
        b": ",
        b"- ",
        b"[",
        b"]",
        b"{",
        b"}",
        b"'",
        b'"',
        b"#",
        b" #",
    ),
    *(
        b"&a ",
        b"*a",
        b"!!str ",
        b"? ",
        b"|",
        b">",
        b"%",
        b"\\",
        b"\0",
        b"\x07",
        b"\xff",
        b"\xc3",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
    ),
    *(b"limit: 0\n", b"limit: 5\n", b"agents: '*'\n", b"1" * 30, b"[" * 40, b"~", b"...\n"),
]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(REAL)).encode()
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        gone = draw(st.integers(0, 8))
        data = data[:at] + draw(st.sampled_from([b"", *SPLINTERS])) + data[at + gone :]
    return data


@settings(deadline=None, max_examples=examples(1000))
@given(
    mutated()
    | st.binary(max_size=60)
    | st.lists(st.sampled_from(SPLINTERS), max_size=20).map(b"".join)
    | st.lists(st.sampled_from(SPLINTERS), max_size=20).map(lambda parts: b"---\n" + b"".join(parts) + b"\n---\nx")
)
def test_any_bytes_are_a_block_or_one_clear_error(data: bytes) -> None:
    """Whatever is in a file, it is a block that can be written again, or an InvalidFile that names a place in it."""
    for label in ("x", "agents/bob/human"):
        try:
            block = parse(data, label)
        except InvalidFile as error:
            facts = error.facts
        else:
            assert block.label == label
            assert parse(serialize(block), label) == block
            assert all(warning.line for warning in warnings(data, label))
            continue
        assert facts["hint"]
        assert facts.get("line") in {None, *range(1, data.count(b"\n") + data.count(b"\r") + 2)}
        assert facts.get("offset") in {None, *range(len(data))}


def outcome(parser: Parser, data: bytes, label: str) -> object:
    try:
        return parser.parse(data, label)
    except InvalidFile as error:
        return error.as_json()


saves = st.sampled_from([*REAL, "---\nlimit: 9\n---\n"]).map(str.encode) | mutated()
bodies = st.binary(max_size=8) | st.sampled_from([b"---\n", b"\n\nx\n", b"\xff\xfe", b"a\0", b"a\r\n\x07", b"-"])


@settings(deadline=None, max_examples=examples(300))
@given(st.lists(st.tuples(saves, st.lists(bodies, max_size=3), st.sampled_from(["x", "agents/bob/human"])), max_size=4))
def test_a_parser_that_remembers_says_what_a_new_one_says(files: list[tuple[bytes, list[bytes], str]]) -> None:
    """That a frontmatter is not parsed again shows in nothing: not in the block, the warnings, or any error."""
    parser = Parser()
    for data, endings, label in files:
        for save in (data, *(data + ending for ending in endings), data[: len(data) // 2], data):
            assert outcome(parser, save, label) == outcome(Parser(), save, label)
    for label in ("x", "agents/bob/human", "never seen"):
        parser.forget(label)
    assert parser._bytes == 0


def test_what_a_parser_remembers_is_bounded() -> None:
    """The frontmatters of a huge folder do not pile up in memory."""
    parser = Parser()
    head = b"---\ndescription: " + b"x" * 200_000 + b"\n---\n"
    for n in range(200):
        assert parser.parse(head + b"y", f"x{n}")[0].value == "y"
        assert parser._bytes <= Parser._HEAD_BYTES
    assert parser._bytes == sum(len(remembered.data) for remembered in parser._heads.values())
    assert "x199" in parser._heads


HOSTILE = [
    "---\n" + "[" * 25_000 + "\n---\nx",
    "---\nlimit: 5\nmetadata: " + "[" * 25_000 + "\n---\nx",
    "---\nmetadata: " + "{a: " * 25_000 + "\n---\nx",
    "---\nmetadata:\n  " + "- " * 25_000 + "\n---\nx",
    "---\n" + "? " * 25_000 + "\n---\nx",
    "---\nlimit: " + "1" * 5_000 + "\n---\nx",
    "---\nlimit: 1e" + "9" * 5_000 + "\n---\nx",
    "---\na: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n---\nx",
    "---\n" * 100_000,
    "---\n" + "--- \n-" * 50_000,
]


def test_no_hostile_file_kills_the_process() -> None:
    """Each is refused with words, in a process that is still there afterwards."""
    script = (
        "import json, sys\n"
        "from blocksd.files.document import Parser\n"
        "from blocksd.errors import InvalidFile\n"
        "for text in json.load(sys.stdin):\n"
        "    try:\n"
        "        Parser().parse(text.encode(), 'x')\n"
        "    except InvalidFile:\n"
        "        print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], input=json.dumps(HOSTILE), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused"] * len(HOSTILE)


@settings(deadline=None, max_examples=200)
@given(st.text(st.characters(codec="utf-8"), max_size=8), st.sampled_from(["", "---\nlimit: 50\n---\n"]))
def test_file_has_no_character_that_no_value_may_have(text: str, head: str) -> None:
    """However its bytes are searched for one."""
    data = f"{head}a{text}".encode()
    value = normalize_newlines(f"a{text}").removesuffix("\n")
    try:
        check_value(value, 50)
    except InvalidField:
        with pytest.raises(InvalidFile):
            Parser().parse(data, "x")
    else:
        assert Parser().parse(data, "x")[0].value == value


def test_frontmatter_of_one_file_among_many_is_not_remembered() -> None:
    """A folder of many files is read once, and few of them are saved; of those, it is."""
    parser, data = Parser(), b"---\nlimit: 50\n---\ntext\n"
    for remember in (False, True):
        assert parser.parse(data, "x", remember=remember)[0].limit == 50
        assert len(parser._heads) == remember
