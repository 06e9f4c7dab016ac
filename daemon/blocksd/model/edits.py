"""Edits of text: append, replace, insert, patch.

Each edit is made whole, or refused with `InvalidRequest`: its facts name the `argument` that is wrong, its message says
what would be right. Lines are the texts between line feeds; the empty value has none.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass, field
from itertools import accumulate, islice
from typing import TYPE_CHECKING

from blocksd.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MOST_MATCHES = 1000
"""How many places of a text are named that should have been in one."""

_MOST_WORK = 4_000_000
"""How many characters are compared to find them."""

_SEARCHED_AT_ONCE = 4
"""How many characters are searched for a text in the time in which one is looked at."""

_MOST_QUOTED = 80
"""How many characters of a text a message quotes."""

_NUMBERED = re.compile(r"^[ \t]*\d+→[ \t]?", re.MULTILINE)
_WARNING = "Line numbers shown below (with arrows like '1→')"
"""The start of each line of a value that is shown with line numbers, and the note above them."""

_RANGES = re.compile(r"@@ -([0-9]{1,9})(?:,([0-9]{1,9}))? \+([0-9]{1,9})(?:,([0-9]{1,9}))? @@")
_MEANT_AS_RANGES = re.compile(r"@@ *[-+]?[0-9]")


def append(value: str, content: str) -> str:
    """Return `value`, then `content` on a new line; the content alone if the value is empty."""
    _refuse_numbers("content", content)
    return f"{value}\n{content}" if value else content


@dataclass(slots=True)
class Tail:
    """Texts appended to a value, which has `chars` characters with them: put together when it is needed."""

    chars: int
    pieces: list[str] = field(default_factory=list)

    def add(self, content: str) -> None:
        """Append a text on a new line. Raise InvalidRequest if it cannot be appended to any value."""
        _refuse_numbers("content", content)
        self.pieces += ["\n", content] if self.chars else [content]
        self.chars += bool(self.chars) + len(content)


def replace(value: str, old_content: str, new_content: str) -> str:
    """Return `value` with `old_content` replaced; it must be in exactly one place, overlapping ones counted."""
    _refuse_numbers("old_content", old_content)
    _refuse_numbers("new_content", new_content)
    if not old_content:
        raise InvalidRequest("old_content is empty: name the text to replace", argument="old_content")
    places = list(_places(value, old_content))
    if not places:
        why = "is not in the value: it must be there exactly as given, with the same white space and line breaks"
        raise InvalidRequest(f"old_content {_quoted(old_content)} {why}", argument="old_content", lines=[])
    if len(places) > 1:
        lines = list(_lines_of(value, places))
        why = (
            f"is in more than one place of the value, in {_numbers(lines)}: give more of the text around the one meant"
        )
        raise InvalidRequest(f"old_content {_quoted(old_content)} {why}", argument="old_content", lines=lines)
    start = places[0]
    return value[:start] + new_content + value[start + len(old_content) :]


def insert(value: str, content: str, line: int = -1) -> str:
    """Return `value` with `content` after its line `line`, counted from 1: 0 is before the first, -1 after the last."""
    _refuse_numbers("content", content)
    lines = value.split("\n") if value else []
    if not -1 <= line <= len(lines):
        raise InvalidRequest(
            f"line must be from 0 to {len(lines)}, the number of lines of the value, or -1 for its end, not {line}",
            argument="line",
            line=line,
            count=len(lines),
        )
    place = len(lines) if line == -1 else line
    return "\n".join([*lines[:place], content, *lines[place:]])


def patch(value: str, patch: str, *, spend: Callable[[int], object] = lambda _: None) -> str:
    r"""Return `value` with a unified diff applied to it: all of its hunks, or none.

    File headers may be there or not, and so may the ranges of a hunk (`@@ -1,2 +1,3 @@`, or only `@@`). With ranges, a
    hunk has as many lines as they say. A hunk belongs where its context and its deleted lines are: at the line its
    ranges name if they are there, or else at the one place after the hunk before that has them. One without either
    belongs at the line its ranges name, or into the empty value.

    An empty line in a hunk is an empty line of context. `\ No newline at end of file` means what it means to diff: its
    line ends the value, and a line at its place on the other side, without the mark, is followed by a line feed.

    `spend` is told how many characters are about to be searched for each hunk that is not where its ranges say; it
    raises when they are too many.
    """
    hunks = _parse(patch)
    # With line feeds around it and around what is searched, lines are found only whole, and where the first one starts.
    framed = f"\n{value}\n"
    lines = value.split("\n")
    starts = list(accumulate((len(line) + 1 for line in lines), initial=0))
    result: list[str] = []
    done = 0
    for hunk in hunks:
        place = _locate(hunk, framed, starts, done, spend)
        result += lines[done:place]
        result += hunk.new
        # Text put into the empty value takes the place of its one empty line.
        done = place + (len(hunk.old) if value else 1)
    return "\n".join(result + lines[done:])


@dataclass(frozen=True, slots=True)
class _Hunk:
    """`number` counts from 1. `old` lines become `new` ones. `stated` is the place of the first, from 0, where given."""

    number: int
    stated: int | None
    old: list[str]
    new: list[str]
    is_at_end: bool


def _refusal(number: int, why: str, **facts: object) -> InvalidRequest:
    return InvalidRequest(f"hunk {number} {why}", argument="patch", hunk=number, **facts)


def _parse(patch: str) -> list[_Hunk]:
    lines = patch.split("\n")
    hunks: list[_Hunk] = []
    place = _headers(lines)
    while place < len(lines):
        line = lines[place]
        if line.startswith("@@") or (not hunks and line.startswith((" ", "-", "+"))):
            hunk, place = _parse_hunk(len(hunks) + 1, lines, place)
            _refuse_numbers("patch", "\n".join(hunk.old), hunk=hunk.number)
            _refuse_numbers("patch", "\n".join(hunk.new), hunk=hunk.number)
            hunks.append(hunk)
        elif line and _headers(lines[place : place + 2]):
            message = f"line {place + 1} of the patch begins with another file: a patch is for one value"
            raise InvalidRequest(message, argument="patch", lines=[place + 1])
        elif line:
            message = (
                f"line {place + 1} of the patch, {_quoted(line)}, is in no hunk: a hunk begins with @@, has as many lines "
                "as its ranges say, if it has any, and each of them begins with a space, - or +"
            )
            raise InvalidRequest(message, argument="patch", lines=[place + 1])
        else:
            place += 1
    if not hunks:
        message = "the patch has no hunk: give a unified diff, with a line @@ and below it lines that begin with a space, - or +"
        raise InvalidRequest(message, argument="patch")
    return hunks


def _headers(lines: list[str]) -> int:
    """Return how many lines at the start are headers of files, or empty."""
    place = 0
    while place < len(lines):
        if not lines[place] or lines[place].startswith(("diff ", "index ")):
            place += 1
        elif lines[place].startswith("--- ") and "".join(lines[place + 1 : place + 2]).startswith("+++ "):
            place += 2
        else:
            break
    return place


def _parse_hunk(number: int, lines: list[str], place: int) -> tuple[_Hunk, int]:
    """Return the hunk that begins at `place`, and where what follows it begins."""
    ranges = _RANGES.match(lines[place])
    if not ranges and _MEANT_AS_RANGES.match(lines[place]):
        why = f"begins with {_quoted(lines[place])}: write @@ -START,COUNT +START,COUNT @@, or only @@"
        raise _refusal(number, why)
    counts = (int(ranges[2] or 1), int(ranges[4] or 1)) if ranges else None
    if lines[place].startswith("@@"):
        place += 1
    sides: dict[str, list[str]] = {"-": [], "+": []}
    ends: set[str] = set()
    in_sides = ""
    while place < len(lines):
        line = lines[place]
        if line.startswith("\\"):
            ends.update(in_sides)
        elif counts and len(sides["-"]) >= counts[0] and len(sides["+"]) >= counts[1]:
            break
        elif line[:1] not in {"", " ", "-", "+"} or (not counts and place == len(lines) - 1 and not line):
            break  # the last is what follows the line feed at the end of the patch
        else:
            in_sides = line[:1].strip() or "-+"
            for side in in_sides:
                sides[side].append(line[1:])
        place += 1
    old, new = sides.values()
    if counts and counts != (len(old), len(new)):
        why = f"has {len(old)} old and {len(new)} new lines, but its ranges say {counts[0]} and {counts[1]}"
        raise _refusal(number, f"{why}: correct them, or begin the hunk with only @@")
    if not old and not new:
        raise _refusal(number, "has no lines")
    if len(ends) == 1:  # on the side without the mark, the value ends with a line feed: an empty line comes last
        sides["+" if "-" in ends else "-"].append("")
    stated = int(ranges[1]) - (counts[0] > 0) if ranges and counts else None
    return _Hunk(number, stated, old, new, bool(ends)), place


def _locate(hunk: _Hunk, framed: str, starts: list[int], done: int, spend: Callable[[int], object]) -> int:
    """Return the line of the value, from 0, that the hunk begins with, at `done` or after it.

    `starts` is where each line starts in the value, with one more where another line would.
    """
    old = hunk.old or ([] if len(framed) > len("\n\n") else [""])
    if not old:
        return _locate_insertion(hunk, len(starts) - 1, done)
    expected = "\n".join(old)
    wanted = f"\n{expected}\n"
    stated = len(starts) - 1 - len(old) if hunk.is_at_end else hunk.stated
    if stated is not None and done <= stated < len(starts) and framed.startswith(wanted, starts[stated]):
        return stated
    spend((len(framed) - starts[done]) // _SEARCHED_AT_ONCE)
    rest = list(islice(_places(framed, wanted, starts[done]), 2))
    if len(rest) == 1 and not hunk.is_at_end:
        return bisect_left(starts, rest[0])
    found = [bisect_left(starts, place) + 1 for place in _places(framed, wanted)]
    if hunk.is_at_end:
        why = "is marked as the end of the value, which ends otherwise, or with an earlier hunk: leave out the mark"
    elif rest:
        why = f"is in more than one place, at {_numbers(found)}: give more lines of context, or the line in its ranges"
    elif found:
        why = (
            f"is at {_numbers(found)}, and the hunk before ends at line {done}: hunks come in order and do not overlap"
        )
    else:
        lines = set(framed.split("\n"))
        missing = next((line for line in old if line not in lines), None)
        why = "is not in the value: " + (
            "its lines are there, but not one after the other" if missing is None else f"no line is {_quoted(missing)}"
        )
    raise _refusal(hunk.number, f"(context and deleted lines {_quoted(expected)}) {why}", expected=old, lines=found)


def _locate_insertion(hunk: _Hunk, count: int, done: int) -> int:
    if hunk.stated is None:
        raise _refusal(
            hunk.number, "only adds lines, and does not say where: give lines of context around them", lines=[]
        )
    if not done <= hunk.stated <= count:
        raise _refusal(
            hunk.number,
            f"adds lines after line {hunk.stated}, but the value has {count} {'line' if count == 1 else 'lines'}, and {done} of them come before "
            "the hunk: correct the line, or give lines of context",
            lines=[],
        )
    return hunk.stated


def _places(text: str, wanted: str, start: int = 0) -> Iterator[int]:
    """Yield the places of `wanted` in the text, from `start` on, in order; only the first ones of very many."""
    # To find one takes up to as long as `wanted` is, and those that overlap can be as many as there are characters.
    most = max(2, min(_MOST_MATCHES, _MOST_WORK // len(wanted)))
    place = text.find(wanted, start)
    while place >= 0 and most:
        yield place
        most -= 1
        place = text.find(wanted, place + 1) if most else -1


def _lines_of(text: str, places: list[int]) -> Iterator[int]:
    """Yield the lines, from 1, of these places, which come in order; each line once."""
    line, last, done = 1, 0, 0
    for place in places:
        line += text.count("\n", done, place)
        done = place
        if line != last:
            yield line
        last = line


def _refuse_numbers(argument: str, content: str, **facts: object) -> None:
    """Raise InvalidRequest if a text has line numbers, or the note on them, with which a value is shown."""
    if "→" not in content:
        return
    numbered = [found.start() for found in islice(_NUMBERED.finditer(content), _MOST_MATCHES)]
    if numbered:
        example = content[numbered[0] :].partition("\n")[0]
        message = (
            f"{argument} has line numbers, as in {_quoted(example)}: they are only shown, and are not in the value; "
            "leave them out, with the arrow and the space behind it"
        )
        raise InvalidRequest(message, argument=argument, lines=list(_lines_of(content, numbered)), **facts)
    if _WARNING in content:
        message = f"{argument} has the note on line numbers, which is only shown, and is not in the value: leave it out"
        raise InvalidRequest(message, argument=argument, **facts)


def _quoted(text: str) -> str:
    return repr(text if len(text) <= _MOST_QUOTED else f"{text[: _MOST_QUOTED - 1]}…")


def _numbers(lines: list[int]) -> str:
    """Return line numbers in words."""
    if len(lines) == 1:
        return f"line {lines[0]}"
    return f"lines {', '.join(map(str, lines[:10]))}{' …' if len(lines) > 10 else ''}"
