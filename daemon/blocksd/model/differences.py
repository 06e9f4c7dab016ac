"""Two rows of pieces → where they differ, as git finds it; of lines also as a unified diff."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MOVE = 4
"""How many comparisons take as long as moving a run by one piece."""
UNIFIED_EFFORT = 300_000
"""How many comparisons a diff makes at most, a tenth of a second's; texts that take more are shown as wholly different."""

_CONTEXT = 3

_Range = tuple[int, int, int, int]


@dataclass(slots=True)
class Effort:
    """How many comparisons may still be made."""

    left: int


def differences(old: list[str], new: list[str], effort: Effort) -> Iterator[tuple[int, int, int, int]]:
    """Yield the ranges of `old` that ranges of `new` replace: start and end in both, in order, none right behind another.

    These are the differences git finds, but for the shortcuts it takes in long texts: those of Myers' algorithm ("An
    O(ND) Difference Algorithm and Its Variations", 1986), each then moved down as far as it can be, or to where it meets
    one in the other text. So the same change is found in the same place on both sides.
    """
    first = common_start(old, new)
    last = common_end(old, new, min(len(old), len(new)) - first)
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


def common_start(old: Sequence[str], new: Sequence[str]) -> int:
    """Return how many pieces at the start are the same."""
    low, high = 0, min(len(old), len(new))
    while low < high:  # by halves, since comparing slices is much faster than a loop
        middle = (low + high + 1) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def common_end(old: Sequence[str], new: Sequence[str], most: int) -> int:
    """Return how many pieces at the end are the same, up to `most`."""
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if old[len(old) - middle : len(old) - low] == new[len(new) - middle : len(new) - low]:
            low = middle
        else:
            high = middle - 1
    return low


def _marked(old: list[str], new: list[str], first: int, last: int, effort: Effort) -> tuple[bytearray, bytearray]:
    """Return a mark (1) for each piece that only one of the texts has, other than their common start and end.

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


def _matches(a: list[int], b: list[int], effort: Effort) -> Iterator[tuple[int, int]]:
    """Yield pairs of places in `a` and `b` with the same piece: as many as there can be, fewer when the effort is spent."""
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
    a: list[int], b: list[int], box: tuple[int, int, int, int], reached: tuple[list[int], list[int]], effort: Effort
) -> tuple[int, int] | None:
    """Return a point half-way on a shortest path through the box, or None when the effort is spent.

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
        """Do the same in the other direction."""
        if self.end == len(self.pieces) or self.pieces[self.start] != self.pieces[self.end]:
            return False
        self.marks[self.start], self.marks[self.end] = 0, 1
        self.start += 1
        self.end += 1
        self._grow_down()
        return True


def _move(run: _Run, other: _Run, effort: Effort) -> None:
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


def _move_one(run: _Run, other: _Run, effort: Effort) -> None:
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
    """Yield the bounds of both runs, from these on, where one is not empty."""
    run_last, other_last = run.marks.rfind(1), other.marks.rfind(1)
    while True:
        if run or other:
            yield run.start, run.end, other.start, other.end
        if run.end > run_last and other.end > other_last:
            return
        run.go_to_next()
        other.go_to_next()


def unified(old: list[str], new: list[str], old_name: str, new_name: str) -> list[str]:
    """Return the lines of a unified diff, without line ends; none if the texts are the same."""
    lines: list[str] = []
    for hunk in _hunks(list(differences(old, new, Effort(UNIFIED_EFFORT)))):
        first, last = hunk[0], hunk[-1]
        before = min(first[0], _CONTEXT)
        after = min(len(old) - last[1], _CONTEXT)
        spans = _span(first[0] - before, last[1] + after), _span(first[2] - before, last[3] + after)
        lines += [] if lines else [f"--- {old_name}", f"+++ {new_name}"]
        lines.append(f"@@ -{spans[0]} +{spans[1]} @@")
        place = first[0] - before
        for old_start, old_end, new_start, new_end in hunk:
            lines += [f" {line}" for line in old[place:old_start]]
            lines += [f"-{line}" for line in old[old_start:old_end]]
            lines += [f"+{line}" for line in new[new_start:new_end]]
            place = old_end
        lines += [f" {line}" for line in old[place : place + after]]
    return lines


def _hunks(ranges: Sequence[_Range]) -> Iterator[list[_Range]]:
    """Yield the ranges that are shown together, since what is between them is context of both."""
    hunk: list[_Range] = []
    for one in ranges:
        if hunk and one[0] - hunk[-1][1] > 2 * _CONTEXT:
            yield hunk
            hunk = []
        hunk.append(one)
    if hunk:
        yield hunk


def _span(start: int, end: int) -> str:
    length = end - start
    return str(start + 1) if length == 1 else f"{start + 1 if length else start},{length}"
