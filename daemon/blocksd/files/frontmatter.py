"""Changes one key of a frontmatter without touching the others."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from blocksd.errors import EditRefused, InvalidFile
from blocksd.files.yaml_reader import CONSTANTS, NUMBER, Entry, load_entries

_BaseDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_LINE_END = re.compile("[\n\x85\u2028\u2029]")  # as YAML 1.1 sees it


def lines_of_keys(text: str) -> dict[str, int]:
    """Return the line of `text`, from 1, on which each key stands. Raise InvalidFile if `text` is not a frontmatter."""
    lines: dict[str, int] = {}
    line, counted = 1, 0
    for key, entry in load_entries(text)[1].items():
        line += text.count("\n", counted, entry.key_start)
        counted = entry.key_start
        lines[key] = line
    return lines


def set_key(text: str, key: str, value: object) -> str:
    """Return `text` with `key` saying `value`, or without `key` when `value` is None; all else stays as it is.

    Raises:
        EditRefused: that cannot be done without touching other bytes.
        InvalidFile: `text` is not a frontmatter.
    """
    old, entries = load_entries(text)
    if _same(old.get(key), value):
        return text
    if text.lstrip().startswith("{"):
        raise EditRefused(f"the frontmatter is written in braces, so {key!r} cannot be changed in place", key=key)
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
        says = {}
    if not _same({**old, key: value}, {**says, key: says.get(key)}):
        raise EditRefused(f"{key!r} cannot be changed in this frontmatter without touching other lines", key=key)
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
