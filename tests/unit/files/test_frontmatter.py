from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blocksd.errors import EditRefused, InvalidFile, LimitExceeded
from blocksd.files.frontmatter import lines_of_keys, set_key
from blocksd.files.yaml_reader import MAX_BYTES, _load_simple, load, load_entries
from support import examples

if TYPE_CHECKING:
    from collections.abc import Mapping

PLAIN: list[tuple[str, object]] = [
    ("", None),
    ("~", None),
    ("null", None),
    ("Null", None),
    ("NULL", None),
    ("true", True),
    ("True", True),
    ("TRUE", True),
    ("false", False),
    ("False", False),
    ("FALSE", False),
    ("0", 0),
    ("-0", 0),
    ("7", 7),
    ("+7", 7),
    ("-7", -7),
    ("999999999999999999", 999_999_999_999_999_999),
    ("-999999999999999999", -999_999_999_999_999_999),
    ("1.5", 1.5),
    ("-1.5", -1.5),
    ("1.", 1.0),
    (".5", 0.5),
    ("1e3", 1000.0),
    ("1E-3", 0.001),
    ("1.5e+3", 1500.0),
    ("0." + "1" * 5000, 1 / 9),
]

STILL_TEXT = [
    *("no", "No", "NO", "yes", "Yes", "on", "On", "off", "OFF", "y", "n"),
    *("nULL", "tRUE", "none", "None"),
    *("12:30:45", "1:30", "190:20:30.15"),
    *("0123", "0o17", "0x1F", "0b1", "1_000", "1,000", "00", "+0x1"),
    *("2026-11-20", "2026-11-20T09:00:00Z", "2026-99-99"),
    *(".inf", "-.inf", ".NaN", ".nan", "inf", "nan"),
    *("1e", "e3", "1.2.3", "+", ".", "..", "--5", "1-2", "3 apples", "=", "<<", "٣"),
    *("a#b", "a:b", "it's", "a, b", "http://x/y", "5%", "x@y", "🙂"),
]


@pytest.mark.parametrize(("scalar", "meaning"), PLAIN)
def test_plain_scalars_that_mean_something(scalar: str, meaning: object) -> None:
    """Null, booleans in YAML's three spellings, decimal integers and decimal floats are resolved."""
    value = load(f"k: {scalar}\n")["k"]
    assert value == meaning
    assert type(value) is type(meaning)


@pytest.mark.parametrize("scalar", STILL_TEXT)
def test_plain_scalars_that_are_text(scalar: str) -> None:
    """What YAML 1.1 would make a boolean, a sexagesimal, an octal or a date of is what it looks like: text."""
    assert load(f"k: {scalar}\n") == {"k": scalar}


@pytest.mark.parametrize("scalar", [*(scalar for scalar, _ in PLAIN[:-1]), *STILL_TEXT])
def test_quotes_make_text(scalar: str) -> None:
    """A quoted scalar is never resolved, and neither is a key."""
    assert load(f'k: "{scalar}"\n') == {"k": scalar}
    assert load(f'"{scalar}": 1\n') == {scalar: 1}


@pytest.mark.parametrize("key", ["true", "null", "~", "1", "1.5", "no", "<<", "2026-11-20"])
def test_a_key_is_always_text(key: str) -> None:
    """Two spellings of a constant are two keys."""
    assert load(f"{key}: 1\n") == {key: 1}


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("", {}),
        ("\n\n", {}),
        ("# only a comment\n", {}),
        ("~\n", {}),
        ("null", {}),
        ("{}", {}),
        ("a: 1", {"a": 1}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
        ("  a: 1\n  b: 2\n", {"a": 1, "b": 2}),
        ("{a: 1, b: [2, x]}", {"a": 1, "b": [2, "x"]}),
        ("a:\n- 1\n- - 2\n  - {b: null}\n", {"a": [1, [2, {"b": None}]]}),
        ("a: |\n  one\n  two\n", {"a": "one\ntwo\n"}),
        ("a: >-\n  one\n  two\n", {"a": "one two"}),
        ("? a\n: 1\n", {"a": 1}),
        ("a: 'it''s'\nb: \"\\u00e9\\t\"\n", {"a": "it's", "b": "é\t"}),
    ],
)
def test_the_mapping_a_frontmatter_says(text: str, mapping: dict[str, object]) -> None:
    """Block and flow style, all scalar styles, and no mapping at all."""
    assert load(text) == mapping


REFUSED = [
    ("a: 1\nb: 2\na: 3\n", "has 'a' twice", 3),
    ("m:\n  a: 1\n  a: 2\n", "has 'a' twice", 3),
    ("'a': 1\na: 2\n", "has 'a' twice", 2),
    ("a: 1\nb: &x 1\n", "anchor", 2),
    ("a: x\u2028 y\u2029 z\x85 0\nb: &x 1\n", "anchor", 2),
    ("a: x\u2028 y\nb: @\n", "not YAML", 2),
    ("a: &x [1]\n", "anchor", 1),
    ("a: 1\nb: *x\n", "alias", 2),
    ("a:\n  <<: *base\n", "alias", 2),
    ("a: &a [*a]\n", "anchor", 1),
    ("a: 1\nb: !!str 1\n", "tag", 2),
    ("a: !!python/object/apply:os.system [id]\n", "tag", 1),
    ("a: ! x\n", "tag", 1),
    ("!!map {a: 1}\n", "tag", 1),
    ("&a a: 1\n", "anchor", 1),
    ("a: 1\n---\nb: 2\n", "second document", 2),
    ("a: 1\n... \n---\nb: 2\n", "ends at '...'", 3),
    ("a: 1\n...\nb\n", "ends at '...'", 3),
    ("- a\n", "not a mapping", 1),
    ("[a]\n", "not a mapping", 1),
    ("# c\nhello\n", "not a mapping", 2),
    ("'quoted'\n", "not a mapping", 1),
    ("5\n", "not a mapping", 1),
    ("a: 1\n[b]: 2\n", "not text", 2),
    ("? {a: 1}\n: 2\n", "not text", 1),
    ("a: 1\nb: [1\nc: 2\n", "not YAML", 2),
    ("a: {b: 1\n", "not YAML", 1),
    ("a: 1\n  b: 2\n", "not YAML", 2),
    ("a: 'x\nb: 2\n", "not YAML", 1),
    ("a: 1\nb: 'x\n\ny \\q", "not YAML", 2),
    ('a: 1\nb: "x\n  y\\q"\n', "not YAML", 3),
    ("a: -\n", "not YAML", 1),
    ("a: 1\n\tb: 2\n", "not YAML", 2),
    ("a: b: c\n", "not YAML", 1),
    ("a: 1\nb: @x\n", "not YAML", 2),
    ("a: 1\nb\n", "not YAML", 2),
    ("a: 1\nb\nc: 2\n", "not YAML", 2),
    ('a: "\\ud800"\n', "not YAML", 1),
    ("a: 1\nb: é\x01\n", "character that YAML does not admit", 2),
    ("a: 1\r\nb: 2\r\nc: \x07\r\n", "character that YAML does not admit", 3),
    ("a: 1\nb: " + "1" * 19 + "\n", "more than 18 digits", 2),
    ("a: " + "1" * 5000 + "\n", "more than 18 digits", 1),
    ("a: -" + "1" * 5000 + "\n", "more than 18 digits", 1),
    ("a: 1\nb: 1e400\n", "out of range", 2),
    ("a: " + "1" * 5000 + ".0\n", "out of range", 1),
    ("a: 1\nb:\n" + "".join("  " * depth + "b:\n" for depth in range(1, 40)), "deeper than 32", 34),
]


@pytest.mark.parametrize(("text", "why", "line"), REFUSED, ids=[repr(text)[:30] for text, _, _ in REFUSED])
def test_what_could_surprise_is_refused_with_its_line(text: str, why: str, line: int) -> None:
    """The message says what is wrong, the facts say on which line and what to do."""
    with pytest.raises(InvalidFile, match=why) as caught:
        load(text)
    assert caught.value.facts["line"] == line
    assert caught.value.facts["hint"]
    assert len(caught.value.message) < 300


ALIAS_BOMB = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghi"))
NASTY = {
    "brackets": "[" * 25_000,
    "brackets under a key": "a: " + "[" * 25_000,
    "braces under a key": "a: " + "{a: " * 25_000,
    "dashes": "- " * 25_000,
    "dashes under a key": "a:\n  " + "- " * 25_000,
    "question marks": "? " * 25_000,
    "alias bomb": ALIAS_BOMB,
    "colons": "a:\n" + "".join(" " * depth + "a:\n" for depth in range(1, 600)),
}


@pytest.mark.parametrize("text", NASTY.values(), ids=NASTY.keys())
def test_a_hostile_frontmatter_is_refused(text: str) -> None:
    """Nesting and aliases are refused as they are met, before anything is built from them."""
    with pytest.raises(InvalidFile):
        load(text)
    with pytest.raises(InvalidFile):
        set_key(text, "limit", 5)


def test_no_hostile_frontmatter_kills_the_process() -> None:
    """The C loader crashes on deep nesting; the process that reads such files must live to say so."""
    script = (
        "import json, sys\n"
        "from blocksd.errors import InvalidFile\n"
        "from blocksd.files.yaml_reader import load\n"
        "for text in json.load(sys.stdin):\n"
        "    try:\n"
        "        load(text)\n"
        "    except InvalidFile:\n"
        "        print('refused')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(list(NASTY.values())),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["refused"] * len(NASTY)


def nested(depth: int) -> str:
    return "a: " + "[" * (depth - 1) + "]" * (depth - 1) + "\n"


def test_nesting_is_allowed_to_32() -> None:
    """The mapping itself is the first level."""
    load(nested(32))
    with pytest.raises(InvalidFile, match="deeper than 32"):
        load(nested(33))


@pytest.mark.parametrize("character", ["x", "é", "𝒳"])
def test_a_frontmatter_has_256_kib_at_most(character: str) -> None:
    """The size is counted in bytes; what is over it is refused unread."""
    size = len(character.encode())
    fits = "a: " + character * ((MAX_BYTES - 3) // size)
    assert load(fits)["a"][0] == character
    with pytest.raises(InvalidFile, match="over 256 KiB"):
        load(fits + character)
    with pytest.raises(InvalidFile, match="over 256 KiB"):
        load("[" * (MAX_BYTES + 1))


def test_every_key_has_its_line() -> None:
    """Lines are counted from 1; keys of nested mappings, comments and literal text are not taken for keys."""
    text = "# a: 0\nb:\n  a: 1\nc: |\n  a: 2\n\n'a': 3\n? d\n: 4\n"
    assert lines_of_keys(text) == {"b": 2, "c": 4, "a": 7, "d": 8}
    assert lines_of_keys(text.replace("\n", "\r\n")) == lines_of_keys(text)
    assert lines_of_keys("") == {}


def exactly(mapping: object) -> str:
    """Tells 1 from true and from 1.0, as equality does not."""
    return json.dumps(mapping, sort_keys=True)


@pytest.mark.parametrize(
    ("text", "key", "value", "result"),
    [
        ("", "limit", 5, "limit: 5\n"),
        ("a: 1\n", "b", [1, "x"], "a: 1\nb: [1, x]\n"),
        ("a: 1", "b", True, "a: 1\nb: true\n"),
        ("a: 1\r\n", "b", {"c": None}, "a: 1\r\nb: {c: null}\r\n"),
        ("  a: 1\n", "b", 2, "  a: 1\n  b: 2\n"),
        ("# about\n", "b", 2, "# about\nb: 2\n"),
        ("a: 1 # why\nb: 2\n", "a", 5, "a: 5 # why\nb: 2\n"),
        ("a:\nb: 2\n", "a", 5, "a: 5\nb: 2\n"),
        ("a: # why\nb: 2\n", "a", 5, "a: 5 # why\nb: 2\n"),
        ("'a' :  'x'\n", "a", "y", "'a' : y\n"),
        ("a: [1,\n  2] # why\nb: 2\n", "a", [3], "a: [3] # why\nb: 2\n"),
        ("a:\n  - 1\n  - 2\n\n# b\nb: 2\n", "a", [3], "a: [3]\n\n# b\nb: 2\n"),
        ("a:\n- 1\nb: 2\n", "a", [3], "a: [3]\nb: 2\n"),
        ("a: # why\n  - 1\nb: 2\n", "a", [3], "a: # why\n  [3]\nb: 2\n"),
        ("a:\n  c: 1\n  d:\n\nb: 2\n", "a", {}, "a: {}\n\nb: 2\n"),
        ("a: |\n  x\n  y\nb: 2\n", "a", "z", "a: z\nb: 2\n"),
        ("a: |\n  x\n\n# b\nb: 2\n", "a", "z", "a: z\n\n# b\nb: 2\n"),
        ("a: |\n  x\n # b\nb: 2\n", "a", "z", "a: z\n # b\nb: 2\n"),
        ("a: >-\r\n  x\r\n  y\r\nb: 2\r\n", "a", "z", "a: z\r\nb: 2\r\n"),
        ("a:\n  - |\n    x\nb: 2\n", "a", [], "a: []\nb: 2\n"),
        ("a: |\n  x\n", "b", 2, "a: |\n  x\nb: 2\n"),
        ("a: x\n  y\nb: 2\n", "a", "z", "a: z\nb: 2\n"),
        ("a: 'no'\n", "a", "yes", "a: 'yes'\n"),
        ("a: 1\n", "a", "1", 'a: "1"\n'),
        ("a: 1\n", "a", "true", 'a: "true"\n'),
        ("a: 1\n", "a", True, "a: true\n"),
        ("a: 1\n", "a", "", 'a: ""\n'),
        ("a: 1\n", "a", "x: y # z", "a: 'x: y # z'\n"),
        ("a: 1\n", "a", "x\ny", 'a: "x\\ny"\n'),
        ("a: 1\n", "a", ["x\u2028", "y\u2029"], 'a: ["x\\L", "y\\P"]\n'),
        ("a: 1\nb: 2\n", "a", None, "b: 2\n"),
        ("a: 1\nb: 2", "b", None, "a: 1\n"),
        ("a: 1\n", "a", None, ""),
        ("a: 1 # why\nb: 2\n", "a", None, "a: null # why\nb: 2\n"),
        ("# about a\na:\n  - 1\n# about b\nb: 2\n", "a", None, "# about a\n# about b\nb: 2\n"),
        ("a: |\n  x\nb: 2\n", "a", None, "b: 2\n"),
        ("é: 𝒳𝒳\nb: 🙂\nc: 3\n", "b", "ü", "é: 𝒳𝒳\nb: ü\nc: 3\n"),
    ],
)
def test_a_key_is_changed_in_place(text: str, key: str, value: object, result: str) -> None:
    """Only the key's own value changes; comments, order, indentation and line ends stay."""
    assert set_key(text, key, value) == result


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("{a: 1}\n", "a"),
        ("{a: 1}\n", "b"),
        ("# c\n{a, b}\n", "a"),
        ("# c\n{a: 1}\n", "b"),
        ("? a\n", "a"),
        ("? a\n: 1\n", "b"),
        ("a: 1\n...\n", "b"),
        ("~\n", "b"),
        ("a: # why\n- 1\nb: 2\n", "a"),
        ("a: |\n  no newline at the end", "b"),
    ],
)
def test_an_edit_that_would_touch_other_bytes_is_refused(text: str, key: str) -> None:
    """Where a key has no place of its own, the text stays and the error names the key."""
    with pytest.raises(EditRefused) as caught:
        set_key(text, key, 5)
    assert caught.value.facts == {"key": key}


def test_an_edit_that_makes_it_too_large_is_refused_as_that() -> None:
    with pytest.raises(LimitExceeded, match="would be over 256 KiB") as caught:
        set_key("limit: 10\n", "description", "é" * 150_000)
    assert caught.value.facts["key"] == "description"


@pytest.mark.parametrize("value", [10**18, math.inf, math.nan, [[[10**18]]]], ids=repr)
def test_a_value_that_would_not_be_read_back_is_refused(value: object) -> None:
    """A value is written only if reading gives the same."""
    with pytest.raises(EditRefused):
        set_key("a: 1\n", "k", value)


def test_a_value_that_holds_one_list_twice_is_written_twice() -> None:
    """No anchor and no alias is ever written."""
    once = ["x"]
    assert set_key("", "k", {"a": once, "b": once}) == "k: {a: [x], b: [x]}\n"


@pytest.mark.parametrize("text", ["a: [1\n", "a: &x 1\n", "- a\n"])
def test_an_edit_needs_a_frontmatter(text: str) -> None:
    """A text that cannot be read cannot be changed."""
    with pytest.raises(InvalidFile):
        set_key(text, "k", 5)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12)
    | st.sampled_from([*STILL_TEXT, *(scalar for scalar, _ in PLAIN[:-1])])
    | st.text(alphabet=" \n\t:#-'\"{}[],&*!|>%@`?~\\\u2028\x85\ufeff0é", max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(scalars.map(str), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, max_examples=examples(300))
@given(values.filter(lambda value: value is not None))
def test_a_value_written_is_read_back(value: object) -> None:
    """Any JSON value can be set, on one line, and reading gives that value, to the type."""
    text = set_key("", "k", value)
    assert exactly(load(text)) == exactly({"k": value})
    assert text.endswith("\n")
    assert text.count("\n") == 1
    assert set_key(text, "k", value) is text
    assert set_key(text, "k", None) == ""


@settings(deadline=None, max_examples=examples(200))
@given(st.text(max_size=10) | scalars.map(str), values)
def test_any_text_can_be_a_key(key: str, value: object) -> None:
    """Keys are quoted where YAML would read them as something else."""
    expected = {"a": 1} if value is None else {"a": 1} | {key: value}
    assert exactly(load(set_key("a: 1\n", key, value))) == exactly(expected if key != "a" or value is not None else {})


@dataclass(frozen=True)
class Chunk:
    """Some lines of a frontmatter: those of one key, or (with no key) comments and blank lines."""

    key: str | None
    lines: tuple[str, ...]
    note: str = ""

    def text(self, indent: str, newline: str) -> str:
        return "".join(f"{indent}{line}{newline}" if line else newline for line in self.lines)


words = st.text(alphabet="abcé𝒳", min_size=1, max_size=6)
notes = st.sampled_from(["", "", " # a note", "  # note: with a colon"])
KEYS = ("description", "limit", "tags", "agents", "metadata", "my key", "'quoted'", '"double"', "ключ")


@st.composite
def chunks(draw: st.DrawFn, key: str) -> Chunk:
    word, other, note = draw(words), draw(words), draw(notes)
    style = draw(st.integers(0, 15))
    styles: list[tuple[str, ...]] = [
        (f"{key}: {word}{note}",),
        (f"{key}: 12{note}",),
        (f"{key}: '{word}: it''s'{note}",),
        (f'{key}: "{word} # \\u00e9"{note}',),
        (f"{key}:{note}",),
        (f"{key} :   [{word}, {other}]{note}",),
        (f"{key}: [{word},", f"    {other}, # inner", f"  ]{note}"),
        (f"{key}: {{a: {word}, b: [1, {{c: null}}]}}{note}",),
        (f"{key}:", f"  - {word}", f"  - {other}{note}"),
        (f"{key}:", f"- {word} # inner", "", f"- {other}{note}"),
        (f"{key}:{note}", f"  a: {word}", "  limit: 5", "  c:", f"    - {other}"),
        (f"{key}: |", f"  {word}", "", f"  limit: {other}", "  # text"),
        (f"{key}: >-{note}", f"  {word}", f"  {other}"),
        (f"{key}: |+", f"  {word}", "", ""),
        (f"{key}: {word}", f"  {other}{note}"),
        (f"{key}: '{word}", "", f"  {other}'{note}"),
    ]
    return Chunk(key, styles[style], note if style < 10 or style > 13 else "")


@st.composite
def frontmatters(draw: st.DrawFn) -> tuple[list[Chunk], str, str, str]:
    parts: list[Chunk] = []
    for key in draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=5)):
        if draw(st.booleans()):
            parts.append(Chunk(None, draw(st.sampled_from([("",), ("# about",), ("", "# limit: 5", ""), (" # in",)]))))
        parts.append(draw(chunks(key)))
    if draw(st.booleans()):
        parts.append(Chunk(None, ("# the end",)))
    indent = draw(st.sampled_from(["", "", "", "  "]))
    newline = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    text = "".join(part.text(indent, newline) for part in parts)
    if draw(st.integers(0, 3)) == 0:
        text = text.removesuffix(newline)
    return parts, text, indent, newline


def without(mapping: Mapping[str, object], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


@settings(deadline=None, max_examples=examples(400))
@given(frontmatters(), st.sampled_from([*(key.strip("'\"") for key in KEYS), "read_only"]), values)
def test_an_edit_touches_no_line_of_another_key(
    generated: tuple[list[Chunk], str, str, str], key: str, value: object
) -> None:
    """Whatever the style, the lines above and below those of the key stay, byte for byte; few edits are refused."""
    parts, text, indent, newline = generated
    old = load(text)
    try:
        new = set_key(text, key, value)
    except EditRefused:
        assert not text.endswith(newline), "only a literal block that ends with the text stands in the way"
        return
    says = load(new)
    assert exactly(without(says, key)) == exactly(without(old, key))
    assert exactly(says.get(key)) == exactly(value)

    place = next((at for at, part in enumerate(parts) if part.key and part.key.strip("'\"") == key), len(parts))
    above = "".join(part.text(indent, newline) for part in parts[:place])
    below = "".join(part.text(indent, newline) for part in parts[place + 1 :])
    if text != "".join(part.text(indent, newline) for part in parts):
        below = below.removesuffix(newline)
    if place == len(parts):
        assert new.startswith(text)
    else:
        assert new.startswith(above)
        assert new.endswith(below)
        assert parts[place].note in new
    assert "\r\n" not in text or new.count("\n") == new.count("\r\n")


@settings(deadline=None, max_examples=examples(200))
@given(frontmatters())
def test_setting_a_key_to_what_it_says_changes_nothing(generated: tuple[list[Chunk], str, str, str]) -> None:
    """An equal value gives the very text, in whatever style it is written."""
    text = generated[1]
    mapping = load(text)
    for key, value in mapping.items():
        assert set_key(text, key, json.loads(json.dumps(value))) is text
    assert set_key(text, "absent", None) is text
    assert list(lines_of_keys(text)) == list(mapping)


TOKENS = [
    *("a", "b", "é", "𝒳", "12", ": ", ":", "- ", "? ", "\n", "\n  ", "\r\n", "\t", "[", "]", "{", "}", ", "),
    *("|\n", ">+\n", "'", '"', "#", " # ", "&x", "*x", "!", "%", "---\n", "...\n", "\ufeff", "\x85", "\u2028", "\\"),
]


@settings(deadline=None, max_examples=examples(400))
@given(
    st.text(max_size=40) | st.lists(st.sampled_from(TOKENS), max_size=25).map("".join),
    st.sampled_from(["a", "b", "limit"]),
    values,
)
def test_any_text_is_read_and_edited_or_refused(text: str, key: str, value: object) -> None:
    """Only InvalidFile and EditRefused come out, and an edit that is not refused says what was meant, and no more."""
    try:
        old = load(text)
        new = set_key(text, key, value)
    except (InvalidFile, EditRefused):
        return
    assert exactly(without(load(new), key)) == exactly(without(old, key))
    assert exactly(load(new).get(key)) == exactly(value)


simple_values = st.one_of(
    st.sampled_from(
        ["true", "false", "True", "null", "~", "no", "yes", "NULL", "nullable", "a b", "a: b", "a #b", "a, b"]
    ),
    st.sampled_from(
        ["4000", "0", "007", "1e3", "1.5", "123456789", "1234567890", "-1", "[a, b]", "[true, a]", "[a,b]"]
    ),
    st.sampled_from(
        ["[]", "[a, null]", "[a-1, b_2]", "[1, a]", "[a, ]", "it's so", "'quoted'", "a'", "x (y)", "*", "&a", "a*"]
    ),
    st.text(st.sampled_from("aZ09 _-.,:#'!?;&+=()[]/é—\t"), min_size=1, max_size=8),
)


@settings(deadline=None, max_examples=examples(1500))
@given(
    st.lists(st.tuples(st.sampled_from(["a", "limit", "b_c", "x y", "A"]), simple_values), max_size=4),
    st.sampled_from(["\n", "\r\n", "", "\n\n"]),
)
def test_the_short_way_reads_what_yaml_reads(lines: list[tuple[str, str]], end: str) -> None:
    """A text simple enough for the short way means there just what the long way makes of it."""
    text = "\n".join(f"{key}: {value}" for key, value in lines) + end
    found = _load_simple(text)
    if found is not None:
        said = load_entries(text)[0]
        assert found == said
        assert [type(value) for value in found.values()] == [type(value) for value in said.values()]


def test_the_short_way_is_taken() -> None:
    """The form that most frontmatters have is read the short way, line for line."""
    text = "description: What the agents should know (all of them).\nlimit: 4000\nread_only: true\nagents: [a-1, b_2]\n"
    assert _load_simple(text) == load_entries(text)[0]
