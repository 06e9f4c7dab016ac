"""Reads the YAML between the fences: text → mapping, and where each key stands.

The YAML read here is 1.1 without its traps: a plain scalar is null, true, false, a decimal integer or a decimal float,
or else text; a key is always text; and what could surprise or exhaust a reader (duplicate keys, anchors, aliases, tags,
deep nesting) is an error. The events of the parser are walked one by one, never handed to a recursive constructor:
the C loader crashes the process on 25,000 nested brackets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from yaml import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from blocksd.errors import InvalidFile
from blocksd.model.remedy import for_yaml

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

CONSTANTS: dict[str, object] = {"": None, "~": None} | {
    spelling: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for spelling in (word, word.capitalize(), word.upper())
}
NUMBER = re.compile(r"[-+]?(?:(?P<int>0|[1-9][0-9]*)|(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?)")
_UNCLOSED = re.compile("unexpected end of stream|expected ':'|expected ',' or")
"""What YAML says where it misses an end or a colon: the place to correct is where that began, not where it was noticed."""
_MAX_DIGITS = 18  # every integer of 18 digits is exact in 64 bits, in Lua's JSON and in JavaScript's BigInt alike


class Entry(NamedTuple):
    """Where one key of the top mapping stands: character offsets into the text."""

    key_start: int
    key_end: int
    value_start: int
    value_end: int


class Words(NamedTuple):
    """How errors call the text that is read, and what to do there in each case."""

    name: str
    too_large: str
    no_mapping: str
    second_document: str
    ended: str


FRONTMATTER = Words(
    "the frontmatter",
    too_large="move long text into the body of the file",
    no_mapping="write lines of the form 'key: value'; if the first '---' is a thematic break, write '***'",
    second_document="write nothing behind '---' in the line that closes it",
    ended="close it with '---' in place of '...'",
)


def load(text: str, words: Words = FRONTMATTER) -> dict[str, Any]:
    """Return the mapping that a frontmatter, or what `words` are of, says.

    Raise InvalidFile if it is no mapping in the YAML described above. Its `line` counts from 1 within `text`.
    """
    simple = _load_simple(text) if len(text) <= _SIMPLE_CHARS else None
    return simple if simple is not None else load_entries(text, words)[0]


_SIMPLE_CHARS = 4096

# Most frontmatters are a few lines of 'key: words', 'key: 4000', 'key: true' and 'key: [a, b]', which mean in YAML what
# they seem to mean. They are read in a fifth of the time; whatever is not exactly of this form is left to YAML.
_SIMPLE_LINE = re.compile(
    r"([a-z_]+): (?:(true|false)|([1-9][0-9]{0,8})|\[([A-Za-z][\w-]*(?:, [A-Za-z][\w-]*)*)\]"
    r"|([A-Za-z](?:[\w ,.()/'!?;&+=-]*[\w.)!?'])?))\n"
)


def _load_simple(text: str) -> dict[str, Any] | None:
    """Return what `load_entries` makes of such a text; None for any other."""
    found: dict[str, Any] = {}
    at = 0
    while at < len(text):
        line = _SIMPLE_LINE.match(text, at)
        if line is None or line[1] in found:
            return None
        key, flag, number, items, words = line.groups()
        if words is not None:
            value: Any = words
        elif items is not None:
            value = items.split(", ")
        elif number is not None:
            value = int(number)
        else:
            value = flag == "true"
        if words in CONSTANTS or (items is not None and not CONSTANTS.keys().isdisjoint(value)):
            return None
        found[key] = value
        at = line.end()
    return found


def is_too_large(text: str) -> bool:
    """Return True if a frontmatter is too large to be read."""
    return len(text) > MAX_BYTES or len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES


def load_entries(text: str, words: Words = FRONTMATTER) -> tuple[dict[str, Any], dict[str, Entry]]:
    """Return the same mapping, and where each of its keys stands."""
    if is_too_large(text):
        raise InvalidFile(f"{words.name} is over {MAX_BYTES // 1024} KiB", hint=words.too_large)
    try:
        loader = _Loader(text)
        try:
            return _build(text, loader.get_event, words)
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        if error.context_mark and _UNCLOSED.search(error.problem or ""):
            mark = error.context_mark
        if "maximum nesting depth" in (error.problem or ""):  # libyaml's own limit: it reads ahead of what we are shown
            raise _too_deep(text, mark, words) from None
        if "<document start>" in (error.problem or ""):
            raise _ended(text, mark, words) from None
        what = " ".join(part for part in (error.context, error.problem) if part)
        wrong, hint = for_yaml(_line_at(text, mark), what)
        raise _wrong(text, mark, f"{words.name} is not YAML: {wrong or what}", hint) from None
    except yaml.YAMLError as error:
        # A ReaderError: a character YAML does not admit. The C reader counts bytes, the other characters.
        position = getattr(error, "position", None)
        line = text.encode("utf-8", "replace")[:position].count(b"\n") + 1 if isinstance(position, int) else 1
        raise InvalidFile(
            f"{words.name} holds a character that YAML does not admit", line=line, hint="remove the character"
        ) from None


def _build(text: str, next_event: Callable[[], Any], words: Words) -> tuple[dict[str, Any], dict[str, Entry]]:
    """Walk the events once: check, construct, and note where the top mapping's entries stand."""
    top: dict[str, Any] | None = None
    entries: dict[str, Entry] = {}
    stack: list[tuple[list[Any] | dict[str, Any], str | None]] = []  # open collections, and the key each one waits for
    collection: list[Any] | dict[str, Any] | None = None
    key: str | None = None
    key_mark: Any = None
    key_end = value_start = last_end = 0

    while (event := next_event()) is not None:
        kind = type(event)
        if kind is ScalarEvent:
            if event.tag is not None or event.anchor is not None:
                raise _extension(text, event.start_mark, words)
            if type(collection) is dict and key is None:
                key, key_mark = event.value, event.start_mark
                if key in collection:
                    raise _wrong(text, key_mark, f"{words.name} has {key!r} twice", "remove one of the two")
                if len(stack) == 1:
                    top_mark, key_end = key_mark, event.end_mark.index
                continue
            value: Any = _resolve(text, event) if event.implicit[0] else event.value
            last_end = event.end_mark.index
            if len(stack) == 1:
                value_start = event.start_mark.index
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            if event.tag is not None or event.anchor is not None:
                raise _extension(text, event.start_mark, words)
            if type(collection) is dict and key is None:
                wrong, hint = for_yaml(_line_at(text, event.start_mark), "")
                message = wrong or f"a key of {words.name} is not text"
                raise _wrong(text, event.start_mark, message, hint if wrong else "use a plain key")
            if len(stack) >= MAX_DEPTH:
                raise _too_deep(text, event.start_mark, words)
            if len(stack) == 1:
                value_start = event.start_mark.index
            if collection is None and kind is SequenceStartEvent:
                raise _no_mapping(text, event.start_mark, words)
            if collection is not None:
                stack.append((collection, key))
            else:
                stack.append(({}, None))
            collection, key = ({} if kind is MappingStartEvent else []), None
            continue
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            value = collection
            collection, key = stack.pop()
            # The end of a block collection is where the next token starts, comments and blank lines included: its
            # last leaf says where it really ends. A flow collection ends at its bracket.
            if event.end_mark.index > event.start_mark.index:
                last_end = event.end_mark.index
            if not stack:
                top = value
                collection = None
                continue
        elif kind is AliasEvent:
            raise _extension(text, event.start_mark, words)
        elif kind is DocumentStartEvent and top is not None:
            is_marked = _line_at(text, event.start_mark).startswith("---")
            is_ended = text[: event.start_mark.index].rstrip().endswith("...")
            if is_ended or not is_marked:
                raise _ended(text, event.start_mark, words)
            raise _wrong(text, event.start_mark, f"{words.name} holds a second document", words.second_document)
        else:
            continue

        if type(collection) is dict:
            collection[key] = value  # type: ignore[index]  # a dict, and its key is read
            if len(stack) == 1:
                entry = Entry(top_mark.index, key_end, value_start, max(last_end, value_start))
                entries[key] = entry  # type: ignore[index]  # as above
            key = None
        elif collection is not None:
            collection.append(value)  # type: ignore[union-attr]  # not a dict, so a list
        elif value is not None:
            raise _no_mapping(text, event.start_mark, words)
    return top or {}, entries


def _line_at(text: str, mark: Any) -> str:
    if mark is None:
        return ""
    end = text.find("\n", mark.index)
    return text[text.rfind("\n", 0, mark.index) + 1 : end if end >= 0 else len(text)]


def _too_deep(text: str, mark: Any, words: Words) -> InvalidFile:
    return _wrong(text, mark, f"{words.name} nests deeper than {MAX_DEPTH}", "flatten it")


def _no_mapping(text: str, mark: Any, words: Words) -> InvalidFile:
    return _wrong(text, mark, f"{words.name} is not a mapping", words.no_mapping)


def _ended(text: str, mark: Any, words: Words) -> InvalidFile:
    return _wrong(text, mark, f"{words.name} ends at '...'", words.ended)


def _extension(text: str, mark: Any, words: Words) -> InvalidFile:
    """Return the error that text begins with what YAML gives a meaning that is not supported here."""
    hint = for_yaml(_line_at(text, mark), "")[1]
    if "quotes: " not in hint:
        hint = "put text that starts with '*', '&' or '!' in quotes"
    return _wrong(text, mark, f"{words.name} uses an anchor, an alias or a tag", hint)


def _wrong(text: str, mark: Any, message: str, hint: str) -> InvalidFile:
    """Return an error with its line, from 1, as editors count: for YAML 1.1, U+0085, U+2028 and U+2029 end a line too."""
    return InvalidFile(message, line=text.count("\n", 0, mark.index) + 1 if mark else 1, hint=hint)


def _resolve(text: str, event: Any) -> Any:
    """Return the value of a plain scalar."""
    plain = event.value
    if plain in CONSTANTS:
        return CONSTANTS[plain]
    if plain[0] not in "+-.0123456789":
        return plain
    number = NUMBER.fullmatch(plain)
    if number is None:
        return plain
    if number["int"] is None:
        result = float(plain)
        if result in (float("inf"), float("-inf")):
            raise _wrong(text, event.start_mark, "a number is out of range", "put it in quotes")
        return result
    if len(number["int"]) > _MAX_DIGITS:
        message = f"a whole number has more than {_MAX_DIGITS} digits"
        raise _wrong(text, event.start_mark, message, "put it in quotes")
    return int(plain)
