"""Three texts → one, or a conflict."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blocksd.errors import MergeConflict
from blocksd.model.differences import Effort, common_end, common_start, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CAP = 400_000
"""How many comparisons a merge may take: about a fifth of a second."""

_WORDS = re.compile(r"\w+|\n|[^\S\n]+|[^\w\s]")
"""Every text is a row of these: a word, the end of a line, other white space, one character of another kind."""


def merge(
    base: str, ours: str, theirs: str, *, union_insertions: bool = False, cap: int = CAP, budget: Effort | None = None
) -> str:
    """Return `base` with the changes that made it `ours` and those that made it `theirs`.

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
    Fewer changes can then be told apart, so more of them conflict, but none is lost. Several merges share a `budget`:
    each takes what it needs from it, and no more than is left.

    Raises:
        MergeConflict: both sides changed the same place. The facts are `regions`, each with its texts `base`, `ours`
            and `theirs` and its first `line` in the base (from 1), and the first region's `line`.
    """
    if ours in (base, theirs):
        return theirs
    if theirs == base:
        return ours
    if budget is not None:
        cap = min(cap, max(budget.left, 0))
    texts = base, ours, theirs
    most = cap // 4
    start, end = _ends(*texts) if _count_lines(*texts) > most else (0, 0)
    rests = [text[start : len(text) - end] for text in texts]
    lines = [rest.split("\n") if rest or start or end else [] for rest in rests]
    if _count_lines(*rests) > most:
        raise _conflict([_Region(0, lines[0], lines[1], lines[2], [])], base.count("\n", 0, start))
    effort = Effort(cap)

    def settle(region: _Region) -> list[str] | None:
        united = _united(region, effort) if union_insertions else None
        return united if united is not None else _merged_by_words(region, effort)

    merged, conflicts = _merged(lines[0], lines[1], lines[2], effort, settle=settle)
    if budget is not None:
        budget.left -= cap - effort.left
    if conflicts:
        raise _conflict(conflicts, base.count("\n", 0, start))
    return base[:start] + "\n".join(merged) + base[len(base) - end :]


def _count_lines(*texts: str) -> int:
    return sum(text.count("\n") for text in texts)


def _ends(base: str, ours: str, theirs: str) -> tuple[int, int]:
    """Return how many characters all three texts share at their start, up to the start of a line, and at their end."""
    common = min(common_start(base, ours), common_start(base, theirs))
    start = base.rfind("\n", 0, common) + 1
    most = min(len(base), len(ours), len(theirs)) - start
    common = min(common_end(base, ours, most), common_end(base, theirs, most))
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
    """The pieces of the base from `start` to `end` become `pieces`; `is_ours` tells whose change it is."""

    start: int
    end: int
    pieces: list[str]
    is_ours: bool

    @property
    def is_insertion(self) -> bool:
        return self.start == self.end


@dataclass(frozen=True, slots=True)
class _Region:
    """Changes of which each touches the one before, with the pieces of each text. `start` is its place in the base."""

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
    effort: Effort,
    *,
    settle: Callable[[_Region], list[str] | None] = lambda _: None,
    is_glue: Callable[[str], bool] = lambda _: False,
) -> tuple[list[str], list[_Region]]:
    """Return the pieces of both sides together, and the regions where they disagree and `settle` knows no answer either.

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
    base: list[str], ours: list[str], theirs: list[str], is_glue: Callable[[str], bool], effort: Effort
) -> Iterator[_Region]:
    """Yield the changes of both sides in order, those together that touch."""
    # Both sides may take as much, whichever comes first, and leave half for the words.
    efforts = Effort(effort.left // 4), Effort(effort.left // 4)
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
    base: list[str], new: list[str], effort: Effort, is_glue: Callable[[str], bool], *, is_ours: bool
) -> list[_Change]:
    """Return the changes from `base` to `new`; changes with nothing but glue between them are one."""
    changes: list[_Change] = []
    for start, end, new_start, new_end in differences(base, new, effort):
        pieces = new[new_start:new_end]
        if changes and all(map(is_glue, between := base[changes[-1].end : start])):
            last = changes.pop()
            start, pieces = last.start, [*last.pieces, *between, *pieces]  # noqa: PLW2901 - it begins earlier now
        changes.append(_Change(start, end, pieces, is_ours))
    return changes


def _applied(base: list[str], offset: int, changes: list[_Change]) -> list[str]:
    """Return `base`, which begins at `offset`, with changes of which none overlaps another, in order."""
    pieces: list[str] = []
    done = offset
    for change in changes:
        pieces += base[done - offset : change.start - offset]
        pieces += change.pieces
        done = change.end
    return pieces + base[done - offset :]


def _united(region: _Region, effort: Effort) -> list[str] | None:
    """Return all changes of a region, if those that touch only stand side by side, and one of two inserts; else None."""
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


def _woven(theirs: list[str], ours: list[str], effort: Effort) -> list[str]:
    """Return the lines of both, common ones once. If only empty lines are common: theirs, and then ours."""
    woven: list[str] = []
    done, is_alike = 0, False
    for start, end, new_start, new_end in differences(theirs, ours, effort):
        is_alike = is_alike or any(theirs[done:start])
        woven += theirs[done:end] + ours[new_start:new_end]
        done = end
    return woven + theirs[done:] if is_alike or any(theirs[done:]) else theirs + ours


def _has(pieces: list[str], wanted: list[str]) -> bool:
    """Return True if all that is `wanted` is among the pieces, in the same order."""
    rest = iter(pieces)
    return all(piece in rest for piece in wanted)


def _merged_by_words(region: _Region, effort: Effort) -> list[str] | None:
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
    # The space between two words may be gone, or the end of a line: then neither side meant the text that is left.
    if conflicts or _WORDS.findall(text) != words or not (text.endswith("\n") or not text):
        return None
    return text.split("\n")[:-1]
