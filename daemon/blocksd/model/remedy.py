"""What to write in a frontmatter in place of what is wrong there."""

from __future__ import annotations

import json
import re

from blocksd.model.block import FLAG_KEYS, LIST_KEYS, TEXT_KEYS

_PLAIN = re.compile(r"[^\W\d_][\w.-]*|\*")
_GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:[,._ ' ][0-9]{3})+|[1-9][0-9]*")
_LINE = re.compile(r"(\s*(?:- )?(?:[^\s:#'\"\[\]{}]+:\s+)?)(.*)")
_YES = frozenset(("yes", "y", "on", "1", "true"))
_NO = frozenset(("no", "n", "off", "0", "false"))
_MOST = 60  # characters of a text that are shown


def for_field(key: str, value: object) -> str:
    """Return what to write for a key whose value is not what it must be."""
    if key in FLAG_KEYS:
        return _flag(key, value)
    if key in LIST_KEYS:
        return _list(key, value)
    if key == "limit":
        found = _GROUPED.fullmatch(value.strip()) if isinstance(value, str) else None
        digits = re.sub(r"\D", "", found[0]) if found is not None else ""
        if isinstance(value, float) and value.is_integer():
            digits = str(int(value))
        return f"write limit: {digits}" if digits else "write digits alone, as in limit: 20000"
    if key == "metadata":
        return "write a mapping, as in metadata: {owner: ops}"
    if key in TEXT_KEYS and isinstance(value, (bool, int, float)):
        return f"write {key}: {json.dumps(json.dumps(value))}, with quotes"
    return f"correct {key!r} in the frontmatter"


def _flag(key: str, value: object) -> str:
    word = str(value).casefold()
    if word in _YES or word in _NO:
        means = "true" if word in _YES else "false"
        unquoted = ", without quotes" if word in ("true", "false") else ": YAML 1.2 has true and false alone"
        return f"write {key}: {means}{unquoted}"
    return f"write {key}: true, or {key}: false"


def _list(key: str, value: object) -> str:
    items = [value] if isinstance(value, (str, bool, int, float)) else value
    if isinstance(value, str):
        items = re.split(r"\s*,\s*" if "," in value else r"\s+", value.strip().strip(","))
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, (str, bool, int, float)) for item in items):
        return f"write texts between brackets, as in {key}: [a, b]"
    texts = [item if isinstance(item, str) else json.dumps(item) for item in items]
    shown = ", ".join(_quoted(text) for text in texts if text)
    if len(shown) > _MOST:
        return f"write texts between brackets, as in {key}: [a, b]"
    return f"write {key}: [{shown}]"


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) and text.casefold() not in ("true", "false", "null") else _in_quotes(text)


def _in_quotes(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def for_yaml(line: str, problem: str) -> tuple[str, str]:
    """Return what is wrong with a line that is not YAML, if that can be told, and what to write in its place."""
    found = _LINE.match(line.rstrip())
    assert found is not None
    key, text = found.groups()
    if "\t" in line[: len(line) - len(line.lstrip())] or ("\\t" in problem and "\t" in line):
        return "a tab stands where YAML wants spaces", "replace the tabs of this line by spaces"
    wrong, is_flow = "", text[:1] in ("[", "{")
    if "{{" in text or "{%" in text:
        wrong = f"{'{{' if '{{' in text else '{%'!r} begins a mapping in YAML"
        is_flow = text[0] == "["
    elif text[:1] and text[0] in "*&!@`%":
        wrong = f"a text cannot begin with {text[0]!r} in YAML"
    elif key.strip() and ": " in text:
        wrong = "a text without quotes cannot hold ': ' in YAML"
    if not wrong or not text or is_flow or text[0] in "\"'|>":
        return "", "put text with ': ', '#', '*', '&' or brackets in quotes"
    whole = f"{key.lstrip()}{_in_quotes(text)}"
    return wrong, f"put the text in quotes: {whole}" if len(whole) <= 2 * _MOST else "put the text in quotes"
