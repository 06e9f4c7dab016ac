"""The frontmatter of a block file: what it says of a block, what is wrong with it, and how one of its keys is changed."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from blocksd.errors import EditRefused, InvalidFile, LimitExceeded
from blocksd.files.lookalike import swallowed_heading
from blocksd.files.yaml_reader import (
    CONSTANTS,
    FRONTMATTER,
    MAX_BYTES,
    NUMBER,
    Entry,
    Words,
    is_too_large,
    load,
    load_entries,
)
from blocksd.model.block import FILE_KEYS, LIST_KEYS, fields_and_errors
from blocksd.model.label import owner
from blocksd.model.nearest import misspelt
from blocksd.model.problem import Warned
from blocksd.model.remedy import for_field

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blocksd.errors import InvalidField
_GUESSES = 100  # for how many unknown keys of one file the known ones are searched: there may be thousands
_LONGEST_KEY = 40
_ELSEWHERE = {"label": "the label is the file's path", "value": "the value is the text below the frontmatter"}

_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LINE_END = re.compile("[\n\x85\u2028\u2029]")  # as YAML 1.1 sees it


class Meaning(NamedTuple):
    """The fields of a block that a frontmatter gives, and what is wrong with it. It `has_keys` if it says anything."""

    fields: Mapping[str, Any]
    has_keys: bool
    warnings: tuple[Warned, ...]
    errors: tuple[Warned, ...]


def read(text: str, label: str, *, above: int) -> Meaning:
    """Return what a frontmatter says of the block with this label; `above` is how many lines of its file are above it.

    Raise InvalidFile if `text` is not a frontmatter.
    """
    given = keys_of(text, above) if text else {}
    fields, wrong = fields_and_errors(label, given)
    unknown = [key for key in given if key not in FILE_KEYS]
    lines = {key: above + line for key, line in lines_of_keys(text).items()} if unknown or wrong else {}
    errors = tuple([_wrong_field(error, given, label, lines) for error in wrong]) if wrong else ()
    warnings = tuple(filter(None, [_unknown_key(key, lines.get(key)) for key in unknown[:_GUESSES]])) if unknown else ()
    heading = swallowed_heading(text) if not given and "#" in text else None
    if heading is not None:
        message = f"the heading {heading[1][:40]!r} between the first two '---' is a comment of the frontmatter"
        hint = "write '***' for a thematic break at the top of a file, or put two lines '---' above it"
        warnings += (Warned(message, heading[0] + above, hint),)
    return Meaning(fields, bool(given), warnings, errors)


def keys_of(text: str, above: int, words: Words = FRONTMATTER) -> Mapping[str, Any]:
    """Return the keys of a frontmatter, or of what `words` are of, with their values; an empty entry of a list counts as absent, as an empty key does."""
    try:
        given = load(text, words)
    except InvalidFile as error:
        line = error.facts.get("line")
        if isinstance(line, int):
            error.facts["line"] = line + above
        raise
    for key in LIST_KEYS:
        if isinstance(listed := given.get(key), list) and None in listed:
            given[key] = [entry for entry in listed if entry is not None]
    return given


def _wrong_field(error: InvalidField, given: Mapping[str, Any], label: str, lines: Mapping[str, int]) -> Warned:
    key = str(error.facts["field"])
    if key == "agents" and owner(label) is not None:
        hint = "remove 'agents' from the frontmatter"
    elif error.message.startswith(f"{key} must be"):
        hint = for_field(key, given[key])
    else:
        hint = f"correct {key!r} in the frontmatter"
    return Warned(error.message, lines.get(key), hint)


def _unknown_key(key: str, line: int | None) -> Warned | None:
    """Return what to tell of a key that is none of ours: nothing, unless it was meant to be one."""
    near = misspelt(key, FILE_KEYS) if len(key) <= _LONGEST_KEY else None
    hint = _ELSEWHERE.get(key) or (f"did you mean {near!r}?" if near is not None else None)
    effect = ", and agents may change the block" if near == "read_only" else ""
    return Warned(f"unknown key {key!r} is ignored{effect}", line, hint) if hint is not None else None


def lines_of_keys(text: str) -> dict[str, int]:
    """Return the line of `text`, from 1, on which each key stands. Raise InvalidFile if `text` is not a frontmatter."""
    lines: dict[str, int] = {}
    line, counted = 1, 0
    for key, entry in load_entries(text)[1].items():
        line += text.count("\n", counted, entry.key_start)
        counted = entry.key_start
        lines[key] = line
    return lines


def set_key(text: str, key: str, value: object, words: Words = FRONTMATTER) -> str:
    """Return `text` with `key` saying `value`, or without `key` when `value` is None; all else stays as it is.

    Raises:
        EditRefused: that cannot be done without touching other bytes.
        LimitExceeded: it would be too large.
        InvalidFile: `text` is not a frontmatter.
    """
    old, entries = load_entries(text, words)
    if _same(old.get(key), value):
        return text
    if text.lstrip().startswith("{"):
        raise EditRefused(f"{words.name} is written in braces, so {key!r} cannot be changed in place", key=key)
    newline = "\r\n" if "\r\n" in text else "\n"
    if value is None:
        new = _without(text, entries[key])
    elif key in entries:
        new = _replaced(text, entries[key], _dump(value))
    else:
        indent = _indent_of(text, next(iter(entries.values())).key_start) if entries else ""
        if text and not text.endswith("\n"):
            text += newline
        new = f"{text}{indent}{_dump(key)}: {_dump(value)}{newline}"
    try:
        says = load_entries(new)[0]
    except InvalidFile:
        if is_too_large(new):
            raise LimitExceeded(
                f"{words.name} would be over {MAX_BYTES // 1024} KiB", key=key, limit=MAX_BYTES
            ) from None
        says = {}
    if not _same({**old, key: value}, {**says, key: says.get(key)}):
        raise EditRefused(f"{key!r} cannot be changed in {words.name} without touching other lines", key=key)
    return new


def _same(one: object, other: object) -> bool:
    """Return True if two values are equal, and neither is 1 where the other is true."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def _indent_of(text: str, start: int) -> str:
    return text[text.rfind("\n", 0, start) + 1 : start]


def _end_of(text: str, entry: Entry) -> int:
    """Return the place behind the last visible character: the mark of a literal block lies behind its line ends."""
    return len(text[: max(entry.value_end, entry.key_end)].rstrip(" \t\r\n"))


def _replaced(text: str, entry: Entry, dumped: str) -> str:
    between = text[entry.key_end : entry.value_start]
    colon = between.find(":") + 1
    if not colon:  # `? key`, or a key alone in braces: no place to write at, so nothing changes and `set_key` refuses
        return text
    if between[colon:].strip():  # a comment between key and value keeps its place
        return text[: entry.value_start] + dumped + text[_end_of(text, entry) :]
    # An empty value has no place yet; a value on the following lines is drawn up to its key.
    return text[: entry.key_end + colon] + " " + dumped + text[max(_end_of(text, entry), entry.key_end + colon) :]


def _without(text: str, entry: Entry) -> str:
    start = text.rfind("\n", 0, entry.key_start) + 1
    value_end = _end_of(text, entry)
    end = text.find("\n", value_end)
    rest = text[value_end : end if end >= 0 else len(text)]
    if "#" in rest:  # the comment stays, and so does the key, saying nothing
        return _replaced(text, entry, "null")
    return text[:start] + (text[end + 1 :] if end >= 0 else "")


class _Dumper(_BaseDumper):  # type: ignore[misc]
    """PyYAML's dumper without aliases, and with quotes around each text that our reader would take for something else."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: Any, text: str) -> Any:
    plain = text not in CONSTANTS and not NUMBER.match(text) and not _LINE_END.search(text)
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else '"')


_Dumper.add_representer(str, _represent_text)


def _dump(value: object) -> str:
    """Return `value` in YAML, on one line.

    libyaml escapes what is not among the first 65,536 characters of Unicode, as emoji: private-use characters that the
    value does not have stand for these until it is written.
    """
    shown = set(json.dumps(value, ensure_ascii=False))
    others = [ord(char) for char in shown if char > "\uffff"]
    if not others:
        return _dumped(value)
    stand_ins = dict(zip(others, (char for char in map(chr, range(0xE000, 0xF900)) if char not in shown), strict=False))
    dumped = _dumped(_translated(value, stand_ins))
    return dumped.translate({ord(stand_in): char for char, stand_in in stand_ins.items()})


def _translated(value: Any, table: dict[int, str]) -> Any:
    if isinstance(value, str):
        return value.translate(table)
    if isinstance(value, dict):
        return {_translated(key, table): _translated(item, table) for key, item in value.items()}
    return [_translated(item, table) for item in value] if isinstance(value, list) else value


def _dumped(value: object) -> str:
    dumped: str = yaml.dump(
        value, Dumper=_Dumper, default_flow_style=True, allow_unicode=True, width=1 << 30, sort_keys=False
    )
    return dumped.removesuffix("\n").removesuffix("\n...")
