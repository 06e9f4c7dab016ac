"""Three texts → one, or a conflict."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blocksd.errors import MergeConflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CAP = 400_000
"""How many comparisons a merge may take: about a fifth of a second."""

_MOVE = 4
"""How many comparisons take as long as moving a run by one piece."""

_WORDS = re.compile(r"\w+|\n|[^\S\n]+|[^\w\s]")
"""Every text is a row of these: a word, the end of a line, other white space, one character of another kind."""


def merge(base: str, ours: str, theirs: str, *, union_insertions: bool = False, cap: int = CAP) -> str:
    """`base` with the changes that made it `ours` and those that made it `theirs`.

    Lines are compared as `git merge-file` does it: changes with an unchanged line between them are all made, one that
    both sides made is made once, and others conflict. What is in conflict is then compared word by word, by the same
    rules, but that white space alone does not keep two changes of one side apart; git would give up there. Unlike in
    git, too, line feeds stand between lines and not at their ends, so that what is appended to a text leaves its last
    line as it was.

    With `union_insertions`, lines that one side inserts beside what the other inserted or changed are no conflict: they
    are kept, each in its place. Of two insertions at one place theirs comes first, then ours; lines that both have
    there, in the same order, are not repeated.

    When `cap` comparisons are made, what was not yet compared counts as changed. Texts of more than `cap` / 4 lines
    together are compared only after what all three have in common at their start and end is left out, or not at all.
    Fewer changes can then be told apart, so more of them conflict, but none is lost.

    Raises:
        MergeConflict: both sides changed the same place. The facts are `regions`, each with its texts `base`, `ours`
            and `theirs` and its first `line` in the base (from 1), and the first region's `line`.
    """
    if ours in (base, theirs):
        return theirs
    if theirs == base:
        return ours
    texts = base, ours, theirs
    most = cap // 4
    start, end = _ends(*texts) if _count_lines(*texts) > most else (0, 0)
    rests = [text[start : len(text) - end] for text in texts]
    lines = [rest.split("\n") if rest or start or end else [] for rest in rests]
    if _count_lines(*rests) > most:
        raise _conflict([_Region(0, lines[0], lines[1], lines[2], [])], base.count("\n", 0, start))
    effort = _Effort(cap)

    def settle(region: _Region) -> list[str] | None:
        united = _united(region, effort) if union_insertions else None
        return united if united is not None else _merged_by_words(region, effort)

    merged, conflicts = _merged(lines[0], lines[1], lines[2], effort, settle=settle)
    if conflicts:
        raise _conflict(conflicts, base.count("\n", 0, start))
    return base[:start] + "\n".join(merged) + base[len(base) - end :]


def _count_lines(*texts: str) -> int:
    return sum(text.count("\n") for text in texts)


def _ends(base: str, ours: str, theirs: str) -> tuple[int, int]:
    """How many characters all three texts have in common at their start, up to the start of a line, and at their end."""
    common = min(_common_start(base, ours), _common_start(base, theirs))
    start = base.rfind("\n", 0, common) + 1
    most = min(len(base), len(ours), len(theirs)) - start
    common = min(_common_end(base, ours, most), _common_end(base, theirs, most))
    line_end = base.find("\n", len(base) - common)
    return start, len(base) - line_end if line_end >= 0 else 0


def _conflict(regions: list[_Region], lines_before: int) -> MergeConflict:
    facts = [
        {
            "line": lines_before + region.start + 1,
            "base": "\n".join(region.base),
            "ours": "\n".join(region.ours),
            "theirs": "\n".join(region.theirs),
        }
        for region in regions
    ]
    line = facts[0]["line"]
    places = f"at line {line}" if len(facts) == 1 else f"in {len(facts)} places, first at line {line}"
    return MergeConflict(f"both sides changed the same text in different ways, {places}", regions=facts, line=line)


@dataclass(frozen=True, slots=True)
class _Change:
    """The pieces of the base from `start` to `end` become `pieces`; `is_ours` says by whom."""

    start: int
    end: int
    pieces: list[str]
    is_ours: bool

    @property
    def is_insertion(self) -> bool:
        return self.start == self.end


@dataclass(frozen=True, slots=True)
class _Region:
    """Changes of which each touches the one before, and what is there in each text. `start` is its place in the base."""

    start: int
    base: list[str]
    ours: list[str]
    theirs: list[str]
    changes: list[_Change]

    @classmethod
    def of(cls, changes: list[_Change], whole: list[str]) -> _Region:
        start, end = changes[0].start, max(change.end for change in changes)
        base = whole[start:end]
        ours = _applied(base, start, [change for change in changes if change.is_ours])
        theirs = _applied(base, start, [change for change in changes if not change.is_ours])
        return cls(start, base, ours, theirs, changes)


def _merged(
    base: list[str],
    ours: list[str],
    theirs: list[str],
    effort: _Effort,
    *,
    settle: Callable[[_Region], list[str] | None] = lambda _: None,
    is_glue: Callable[[str], bool] = lambda _: False,
) -> tuple[list[str], list[_Region]]:
    """The pieces of both sides together, and the regions where they disagree and `settle` knows no answer either.

    What `is_glue` does not keep two changes of one side apart.
    """
    merged: list[str] = []
    conflicts: list[_Region] = []
    done = 0
    for region in _regions(base, ours, theirs, is_glue, effort):
        if region.ours == region.theirs or region.theirs == region.base:
            pieces: list[str] | None = region.ours
        elif region.ours == region.base:
            pieces = region.theirs
        else:
            pieces = settle(region)
        if pieces is None:
            conflicts.append(region)
        else:
            merged += base[done : region.start]
            merged += pieces
            done = region.start + len(region.base)
    return merged + base[done:], conflicts


def _regions(
    base: list[str], ours: list[str], theirs: list[str], is_glue: Callable[[str], bool], effort: _Effort
) -> Iterator[_Region]:
    """The changes of both sides in order, those together that touch."""
    # Both sides may take as much, whichever comes first, and leave half for the words.
    efforts = _Effort(effort.left // 4), _Effort(effort.left // 4)
    changes = [
        *_changes(base, ours, efforts[0], is_glue, is_ours=True),
        *_changes(base, theirs, efforts[1], is_glue, is_ours=False),
    ]
    effort.left -= sum(effort.left // 4 - own.left for own in efforts)
    changes.sort(key=lambda change: (change.start, change.end, change.is_ours))
    touching: list[_Change] = []
    end = 0
    for change in changes:
        if touching and change.start > end:
            yield _Region.of(touching, base)
            touching = []
        touching.append(change)
        end = max(end, change.end)
    if touching:
        yield _Region.of(touching, base)


def _changes(
    base: list[str], new: list[str], effort: _Effort, is_glue: Callable[[str], bool], *, is_ours: bool
) -> list[_Change]:
    """How `base` becomes `new`; changes with nothing but glue between them are one."""
    changes: list[_Change] = []
    for start, end, new_start, new_end in _differences(base, new, effort):
        pieces = new[new_start:new_end]
        if changes and all(map(is_glue, between := base[changes[-1].end : start])):
            last = changes.pop()
            start, pieces = last.start, [*last.pieces, *between, *pieces]  # noqa: PLW2901 - it begins earlier now
        changes.append(_Change(start, end, pieces, is_ours))
    return changes


def _applied(base: list[str], offset: int, changes: list[_Change]) -> list[str]:
    """`base`, which begins at `offset`, with changes of which none overlaps another, in order."""
    pieces: list[str] = []
    done = offset
    for change in changes:
        pieces += base[done - offset : change.start - offset]
        pieces += change.pieces
        done = change.end
    return pieces + base[done - offset :]


def _united(region: _Region, effort: _Effort) -> list[str] | None:
    """All changes of a region, where each that touches another only stands beside it, and one of the two inserts."""
    kept: list[_Change] = []
    for change in region.changes:
        before = kept[-1] if kept else None
        if before is not None and before.end >= change.start:
            if before.end > change.start or not (before.is_insertion or change.is_insertion):
                return None
            if change.is_insertion and _has(before.pieces, change.pieces):
                continue
            if before.is_insertion and _has(change.pieces, before.pieces):
                kept.pop()
            elif before.is_insertion and change.is_insertion:
                kept[-1] = replace(before, pieces=_woven(before.pieces, change.pieces, effort))
                continue
        kept.append(change)
    return _applied(region.base, region.start, kept)


def _woven(theirs: list[str], ours: list[str], effort: _Effort) -> list[str]:
    """All lines that either has, those of both once. That both have empty lines says nothing: then theirs, and then ours."""
    woven: list[str] = []
    done, is_alike = 0, False
    for start, end, new_start, new_end in _differences(theirs, ours, effort):
        is_alike = is_alike or any(theirs[done:start])
        woven += theirs[done:end] + ours[new_start:new_end]
        done = end
    return woven + theirs[done:] if is_alike or any(theirs[done:]) else theirs + ours


def _has(pieces: list[str], wanted: list[str]) -> bool:
    """Whether all that is `wanted` is among the pieces, in the same order."""
    rest = iter(pieces)
    return all(piece in rest for piece in wanted)


def _merged_by_words(region: _Region, effort: _Effort) -> list[str] | None:
    effort.left -= sum(len(line) + 1 for lines in (region.base, region.ours, region.theirs) for line in lines)
    if effort.left < 0:
        return None
    # Here every line has an end, so that no lines and one empty line are two things.
    base, ours, theirs = (
        _WORDS.findall("".join(f"{line}\n" for line in lines)) for lines in (region.base, region.ours, region.theirs)
    )
    # White space is everywhere: that both have some says nothing of what stands around it.
    words, conflicts = _merged(base, ours, theirs, effort, is_glue=str.isspace)
    text = "".join(words)
    # What is between two words may be gone, or what ended a line: then neither side meant what is left.
    if conflicts or _WORDS.findall(text) != words or not (text.endswith("\n") or not text):
        return None
    return text.split("\n")[:-1]


@dataclass(slots=True)
class _Effort:
    """How many comparisons may still be made."""

    left: int


def _differences(old: list[str], new: list[str], effort: _Effort) -> Iterator[tuple[int, int, int, int]]:
    """What of `old` is replaced by what of `new`: start and end in both, in order, never one right behind another.

    These are the differences git finds, but for the shortcuts it takes in long texts: those of Myers' algorithm ("An
    O(ND) Difference Algorithm and Its Variations", 1986), each then moved down as far as it can be, or to where it meets
    one in the other text. So the same change is found in the same place whoever made it.
    """
    first = _common_start(old, new)
    last = _common_end(old, new, min(len(old), len(new)) - first)
    sizes = len(old) - first - last, len(new) - first - last
    if not all(sizes):
        if any(sizes):
            yield first, len(old) - last, first, len(new) - last
        return
    old_marks, new_marks = _marked(old, new, first, last, effort)
    _move(_Run(old, old_marks, first), _Run(new, new_marks, first), effort)
    _move(_Run(new, new_marks, first), _Run(old, old_marks, first), effort)
    first = min(place for marks in (old_marks, new_marks) if (place := marks.find(1)) >= 0)
    yield from _marked_runs(_Run(old, old_marks, first), _Run(new, new_marks, first))


def _common_start(old: Sequence[str], new: Sequence[str]) -> int:
    """How many pieces at the start are the same."""
    low, high = 0, min(len(old), len(new))
    while low < high:  # by halves, since comparing slices is much faster than a loop
        middle = (low + high + 1) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _common_end(old: Sequence[str], new: Sequence[str], most: int) -> int:
    """How many pieces at the end are the same, up to `most`."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if old[len(old) - middle : len(old) - low] == new[len(new) - middle : len(new) - low]:
            low = middle
        else:
            high = middle - 1
    return low


def _marked(old: list[str], new: list[str], first: int, last: int, effort: _Effort) -> tuple[bytearray, bytearray]:
    """A mark (1) for each piece that only one of the texts has, other than their common start and end.

    Both have one mark more than there are pieces. It is never set, and so ends every run, at index -1 as well.
    """
    middles = old[first : len(old) - last], new[first : len(new) - last]
    numbers = {piece: number for number, piece in enumerate(set(old).intersection(new))}
    marks, places, shared = [], [], []
    for middle in middles:
        marks.append(bytearray(first) + b"\1" * len(middle) + bytearray(last + 1))
        places.append([place for place, piece in enumerate(middle, first) if piece in numbers])
        shared.append([numbers[piece] for piece in middle if piece in numbers])
    for a, b in _matches(shared[0], shared[1], effort):
        marks[0][places[0][a]] = marks[1][places[1][b]] = 0
    return marks[0], marks[1]


def _matches(a: list[int], b: list[int], effort: _Effort) -> Iterator[tuple[int, int]]:
    """Which place in `a` is which in `b`, for as many as can be, or fewer when the effort is spent."""
    size = len(a) + len(b) + 3
    reached = [0] * size, [0] * size
    boxes = [(0, len(a), 0, len(b))]
    while boxes:
        a_low, a_high, b_low, b_high = boxes.pop()
        while a_low < a_high and b_low < b_high and a[a_low] == b[b_low]:
            yield a_low, b_low
            a_low += 1
            b_low += 1
        while a_low < a_high and b_low < b_high and a[a_high - 1] == b[b_high - 1]:
            a_high -= 1
            b_high -= 1
            yield a_high, b_high
        if a_low < a_high and b_low < b_high:
            middle = _middle(a, b, (a_low, a_high, b_low, b_high), reached, effort)
            if middle is not None:
                boxes.append((a_low, middle[0], b_low, middle[1]))
                boxes.append((middle[0], a_high, middle[1], b_high))


def _middle(
    a: list[int], b: list[int], box: tuple[int, int, int, int], reached: tuple[list[int], list[int]], effort: _Effort
) -> tuple[int, int] | None:
    """A point half-way on a shortest path through the box, or None when the effort is spent.

    `reached` is how far in `a` one came on each diagonal (place in `a` less place in `b`), from the start and from the
    end; negative diagonals count from the end of the list. Its order of trying is git's, so that of several shortest
    paths it takes the same.
    """
    a_low, a_high, b_low, b_high = box
    forward, backward = reached
    lowest, highest = a_low - b_high, a_high - b_low
    forward_low = forward_high = a_low - b_low
    backward_low = backward_high = a_high - b_high
    is_odd = (forward_low - backward_low) % 2 == 1
    forward[forward_low], backward[backward_low] = a_low, a_high
    beyond = len(a) + 1
    while effort.left > 0:
        if forward_low > lowest:
            forward_low -= 1
            forward[forward_low - 1] = -1
        else:
            forward_low += 1
        if forward_high < highest:
            forward_high += 1
            forward[forward_high + 1] = -1
        else:
            forward_high -= 1
        for diagonal in range(forward_high, forward_low - 1, -2):
            start = at = max(forward[diagonal - 1] + 1, forward[diagonal + 1])
            while at < a_high and at - diagonal < b_high and a[at] == b[at - diagonal]:
                at += 1
            effort.left -= at - start + 1
            forward[diagonal] = at
            if is_odd and backward_low <= diagonal <= backward_high and backward[diagonal] <= at:
                return at, at - diagonal
        if backward_low > lowest:
            backward_low -= 1
            backward[backward_low - 1] = beyond
        else:
            backward_low += 1
        if backward_high < highest:
            backward_high += 1
            backward[backward_high + 1] = beyond
        else:
            backward_high -= 1
        for diagonal in range(backward_high, backward_low - 1, -2):
            start = at = min(backward[diagonal - 1], backward[diagonal + 1] - 1)
            while at > a_low and at - diagonal > b_low and a[at - 1] == b[at - diagonal - 1]:
                at -= 1
            effort.left -= start - at + 1
            backward[diagonal] = at
            if not is_odd and forward_low <= diagonal <= forward_high and at <= forward[diagonal]:
                return at, at - diagonal
    return None


class _Run:
    """A run of marked pieces between two that are not; it may be empty."""

    def __init__(self, pieces: list[str], marks: bytearray, start: int) -> None:
        self.pieces = pieces
        self.marks = marks
        self.start = self.end = start
        self._grow_down()

    def _grow_down(self) -> None:
        while self.marks[self.end]:
            self.end += 1

    def _grow_up(self) -> None:
        while self.marks[self.start - 1]:
            self.start -= 1

    def __len__(self) -> int:
        return self.end - self.start

    def go_to_next(self) -> None:
        self.start = self.end = self.end + 1
        self._grow_down()

    def go_to_previous(self) -> None:
        self.start = self.end = self.start - 1
        self._grow_up()

    def move_up(self) -> bool:
        """Move by one piece, if the text stays the same, and take in the run it may come to touch."""
        if self.start == 0 or self.pieces[self.start - 1] != self.pieces[self.end - 1]:
            return False
        self.start -= 1
        self.end -= 1
        self.marks[self.start], self.marks[self.end] = 1, 0
        self._grow_up()
        return True

    def move_down(self) -> bool:
        """As `move_up`."""
        if self.end == len(self.pieces) or self.pieces[self.start] != self.pieces[self.end]:
            return False
        self.marks[self.start], self.marks[self.end] = 0, 1
        self.start += 1
        self.end += 1
        self._grow_down()
        return True


def _move(run: _Run, other: _Run, effort: _Effort) -> None:
    """Move this run and those after it to their last place beside a run of the other text, or else to their last place.

    Invariant: before `run` and `other` there are as many pieces without a mark.
    """
    last = run.marks.rfind(1)
    while run.start <= last:
        if run:
            _move_one(run, other, effort)
        if run.end > last:
            return
        run.go_to_next()
        other.go_to_next()


def _move_one(run: _Run, other: _Run, effort: _Effort) -> None:
    meets = False
    size = 0
    while size != len(run) and effort.left > 0:  # a run that took in another may be able to move further
        size = len(run)
        while run.move_up():
            other.go_to_previous()
            effort.left -= _MOVE
        meets = len(other) > 0
        while run.move_down():
            other.go_to_next()
            effort.left -= _MOVE
            meets = meets or len(other) > 0
    while meets and not other:
        run.move_up()
        other.go_to_previous()


def _marked_runs(run: _Run, other: _Run) -> Iterator[tuple[int, int, int, int]]:
    """The bounds of both, from these on, wherever one is not empty."""
    run_last, other_last = run.marks.rfind(1), other.marks.rfind(1)
    while True:
        if run or other:
            yield run.start, run.end, other.start, other.end
        if run.end > run_last and other.end > other_last:
            return
        run.go_to_next()
        other.go_to_next()
