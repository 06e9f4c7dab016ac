"""Recognises text that would be misread: a frontmatter that is not seen as one, and what Git leaves in files.

What is in force decides who may read and change a block. So a text at the top of a file that people would take for a
frontmatter, with a key of ours, must not pass for a value.
"""

from __future__ import annotations

import json
import re
import unicodedata
from typing import NamedTuple

from blocksd.errors import InvalidFile
from blocksd.model.block import FILE_KEYS
from blocksd.model.nearest import misspelt
from blocksd.model.problem import Warned

_FENCE = re.compile(r"(?:[-\u2010-\u2015\u2212]{2,}|[\u2014\u2015])\s*(?:ya?ml\b:?|#.*)?\s*", re.IGNORECASE)
"""A line that people may take for `---`: with dashes as word processors make them, more of them, or words behind."""
_OTHER_FENCE = re.compile(r"([*=_])\1{2,}")
"""A line of another character, which is taken for `---` where keys of ours alone stand between two of them."""
_BLANK = "".join(map(chr, (*range(9, 14), *range(28, 33), 0x85, 0xA0, *range(0x2000, 0x200E), 0x2028, 0x2029))) + (
    "\u202f\u205f\u2060\u3000\ufeff"
)
"""Characters that look like nothing."""
_LINE = re.compile(r"([^\r\n]*)(\r\n|\r|\n|\Z)")
_KEY = re.compile(r"""(["']?)([A-Za-z][\w -]{0,40}?)\1\s*[:=](?!//)""")
_CODE = re.compile(r"^ {0,3}(`{3,}|~{3,})|^(<{7}|[=%+]{7}|>{7})(?=[ \r]|$)", re.MULTILINE)
_HEADING = re.compile(r"^#{1,6}[ \t]+(?![\w-]+[ \t]*:)\S.*", re.MULTILINE)
_PROTECTING = frozenset(("read_only", "agents"))
_COMMENTS = ("#", "//", "%%")
_MOST_ABOVE = 100  # lines above a frontmatter that are passed over
_MOST_LINES = 200  # of a frontmatter that are searched for a key of ours
_MOST_CHARS = 65_536

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"


class Lookalike(NamedTuple):
    """What looks like a frontmatter, and is none. `line` counts from 1; `why` says why it is none, `hint` what to do.

    `keys` are those of ours that are not in force. It is `direct` if nothing stands above it.
    """

    line: int
    why: str
    hint: str
    keys: tuple[str, ...]
    direct: bool

    def told(self, lines: int, *, is_second: bool) -> Warned:
        """Return what to tell of it; `lines` are above the text, and `is_second` if these are a frontmatter."""
        shown = " and ".join(repr(key) for key in self.keys[:3])
        effect = f"{shown} {'is' if len(self.keys) == 1 else 'are'} not in force"
        if is_second:
            hint = "write all keys between the first two lines '---'"
            return Warned(f"a second frontmatter stands below the first: {effect}", lines + self.line, hint)
        message = f"what looks like its frontmatter is not read as one, since {self.why}: {effect}"
        return Warned(message, lines + self.line, self.hint)


def lookalike(text: str) -> Lookalike | None:
    """Return what looks like a frontmatter with keys of ours at the top of a text; None if there is nothing like it.

    The text is a file without a frontmatter, or what is below one. Code in fences and tables look like nothing of the kind.
    """
    at, above = 0, ""
    for number in range(1, _MOST_ABOVE + 2):
        found = _LINE.match(text, at)
        assert found is not None
        line, end = found.groups()
        bare = line.strip(_BLANK)
        if bare.startswith("<!--"):
            closed = text.find("-->", at)
            if closed < 0:
                return None
            above, at = "a comment", closed + 3
            continue
        if bare and not (bare.startswith(_COMMENTS)):
            # A comment may have taken several lines.
            number = len(re.findall(r"\r\n|\r|\n", text[:at])) + 1  # noqa: PLW2901  # the line in the file
            return _at_top(text, found.end(), line, bare, end, number, above)
        if not end:
            return None
        if bare:
            above = "a comment or a heading"
        elif not above:
            above = "a byte order mark" if "\ufeff" in line else "a blank line"
        at = found.end()
    return None


def is_second(body: str) -> bool:
    """Return True if a text right below a frontmatter with keys would be taken for a second one."""
    found = lookalike(body)
    return found is not None and found.direct


def _at_top(text: str, at: int, line: str, bare: str, end: str, number: int, above: str) -> Lookalike | None:
    """Return what looks like a frontmatter and begins with this line, the first that says anything."""
    if bare[0] == "{":
        return _json(text, at - len(end) - len(line), number, direct=not above)
    if not above and _OTHER_FENCE.fullmatch(bare):
        return _in_other_fences(text, at, bare, number)
    is_toml = bare == "+++"
    if not is_toml and not _FENCE.fullmatch(bare):
        return None
    keys = _keys_of_ours(text, at, is_toml=is_toml, at_once=above == "a comment or a heading")
    if not keys:
        return None
    hint = "begin the file with a line '---' and nothing else; if it is text, put two lines '---' above it"
    if is_toml:
        return Lookalike(number, "it is TOML, between lines '+++'", _as_yaml(keys), keys, direct=not above)
    if above:
        hint = "remove what is above its first '---'; if it is text, put two lines '---' above it"
        return Lookalike(number, f"{above} stands above its first '---'", hint, keys, direct=False)
    if line != bare and line.lstrip(_BLANK) != line:
        odd = line[0]
        return Lookalike(number, f"{_named(odd)} stands before its first '---'", hint, keys, direct=True)
    if bare == "---" and line.strip(" \t") != bare:
        odd = next(char for char in line if char not in "- \t")
        return Lookalike(number, f"{_named(odd)} stands behind its first '---'", hint, keys, direct=True)
    if end == "\r" and bare == "---":
        hint = "save the file with the line ends LF or CRLF"
        return Lookalike(number, "its lines end with CR alone", hint, keys, direct=True)
    why = "" if bare == "---" else f"its first line is {bare[:20]!r}, not '---'"
    return Lookalike(number, why, hint, keys, direct=True)


def _in_other_fences(text: str, at: int, fence: str, number: int) -> Lookalike | None:
    """Return keys of ours that stand right below a line such as `***`, if nothing else is between it and the next such line."""
    keys: dict[str, None] = {}
    for _ in range(_MOST_LINES):
        found = _LINE.match(text, at)
        assert found is not None
        line, bare = found[1], found[1].strip(_BLANK)
        if bare == fence:
            break
        key = _KEY.match(line)
        is_value = bool(keys) and line[:1] in (" ", "-")  # of the key above it
        if not is_value and (key is None or key[2] not in FILE_KEYS):
            return None
        keys |= {} if is_value or key is None else {key[2]: None}
        at = found.end()
    else:
        return None
    hint = f"write '---' for {fence[:20]!r}, above and below; if it is text, put two lines '---' above it"
    why = f"its first line is {fence[:20]!r}, not '---'"
    return Lookalike(number, why, hint, tuple(keys), direct=True) if keys else None


def _keys_of_ours(text: str, at: int, *, is_toml: bool, at_once: bool) -> tuple[str, ...]:
    """Return the keys of ours in the lines from `at` to a closing fence; none if these lines are prose.

    Without a closing fence they are those of the lines right below the opening, if one of them protects the block.
    """
    keys: dict[str, None] = {}
    at_top: tuple[str, ...] | None = None  # what `keys` were where the lines right below the opening ended
    is_first = True
    for _ in range(_MOST_LINES):
        found = _LINE.match(text, at)
        assert found is not None
        line, bare = found[1], found[1].strip(_BLANK)
        if bare == ("+++" if is_toml else "...") or (not is_toml and _FENCE.fullmatch(bare)):
            return tuple(keys)
        key = _KEY.match(line)
        if is_first and (bare or at_once) and not bare.startswith("#"):
            if key is None and not (is_toml and bare.startswith("[")):
                return ()
            is_first = False
        if at_top is None and key is None and line[:1] not in (" ", "-", "#"):
            at_top = tuple(keys)
        if key is not None:
            ours = misspelt(key[2], FILE_KEYS)
            if ours is not None:
                keys[ours] = None
        if not found[2]:
            break
        at = found.end()
    top = tuple(keys) if at_top is None else at_top
    return () if _PROTECTING.isdisjoint(top) else top


def _json(text: str, start: int, number: int, *, direct: bool) -> Lookalike | None:
    """Return a JSON object with keys of ours that stands above a text. An object alone is a value, and so is a list of them."""
    start = text.find("{", start)
    try:
        found, end = json.JSONDecoder().raw_decode(text[: start + _MOST_CHARS], start)
    except (ValueError, RecursionError):
        return None
    keys = tuple(key for key in found if key in FILE_KEYS)
    below = text[end:].lstrip()
    if not keys or not below or below[0] in "{[,":
        return None
    return Lookalike(number, "it is JSON", _as_yaml(keys), keys, direct)


def _as_yaml(keys: tuple[str, ...]) -> str:
    return f"write it in YAML: '---', lines as '{keys[0]}: …', '---'; if it is text, put two lines '---' above it"


def _named(char: str) -> str:
    if char in " \t":
        return "a space" if char == " " else "a tab"
    return f"U+{ord(char):04X} ({unicodedata.name(char, 'a control character').lower()})"


def fence_below(text: str) -> tuple[int, str] | None:
    """Return the first line of a frontmatter that was meant to close it, if `---` does not: its number, from 1, and text."""
    for number, line in enumerate(text.split("\n", _MOST_LINES)[:_MOST_LINES], 1):
        bare = line.strip(_BLANK)
        if bare == "..." or _FENCE.fullmatch(bare):
            return number, line.rstrip("\r")
    return None


def swallowed_heading(matter: str) -> tuple[int, str] | None:
    """Return a heading in a frontmatter without keys: line, from 1, and text. Between two thematic breaks it is a comment.

    A comment that has no blank line above or below it was meant as one.
    """
    lines = matter.splitlines()
    if not lines or (lines[0].strip() and lines[-1].strip()):
        return None
    found = _HEADING.search(matter)
    return (matter.count("\n", 0, found.start()) + 1, found[0].strip()) if found is not None else None


def check_conflict(text: str) -> None:
    """Raise InvalidFile if a merge has left a conflict in a file's text."""
    line = conflict(text)
    if line is not None:
        hint = "resolve it, and remove the lines '<<<<<<<', '=======' and '>>>>>>>'; an example of one stands in a code block"
        raise InvalidFile("a conflict of a merge was left in it", line=line, hint=hint)


def conflict(text: str) -> int | None:
    """Return the line, from 1, of a conflict that a merge has left in a text; None if there is none.

    Markers in a code block (between fences that are closed) are an example.
    """
    fence, wanted = "", "<"
    start, seen = 0, (0, "<")  # where a conflict begins; and what was seen of it when a code block began
    example: int | None = None  # where a conflict begins in a code block, whose end may be missing
    for found in _CODE.finditer(text):
        code, marker = found.groups()
        if code is not None:
            if not fence:
                fence, seen = code, (start, wanted)
            elif code[0] == fence[0] and len(code) >= len(fence):
                fence, example = "", None
                start, wanted = seen
        elif marker[0] == "<":
            start, wanted = found.start(), "="
        elif marker[0] == ">" and wanted == ">":
            if not fence:
                return text.count("\n", 0, start) + 1
            example = start if example is None else example
            wanted = "<"
        elif wanted == "=" and marker[0] in "=%+":
            wanted = ">"
    return text.count("\n", 0, example) + 1 if example is not None else None


def is_lfs_pointer(data: bytes) -> bool:
    """Return True if a file is what Git LFS puts in the place of a file that it has not fetched."""
    return data.startswith(LFS_POINTER) and b"\noid sha256:" in data[:200]
