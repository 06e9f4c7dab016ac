"""The part of a file between blocksd's markers: found, proved to be as it was written, and replaced.

The first marker carries a digest of the lines below it. So the file itself tells an older text of blocksd, as `git checkout`
brings it back, from a text that a person has edited.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b

from blocksd.errors import BrokenMarkers

_NOTE = "blocksd keeps this part up to date: write above or below it"
_MARK = re.compile(r"\s*<!--\s*blocksd:(begin|end)\b", re.IGNORECASE)
_BEGIN = re.compile(r"<!-- blocksd:begin (?P<agent>\S+) (?P<digest>[0-9a-f]{16}) .*-->\s*")
_END = re.compile(r"<!-- blocksd:end (?P<agent>\S+) -->\s*")
_LOOKS_LIKE_MARK = re.compile(r"^(\s*<)(\\*!--\s*blocksd:)", re.MULTILINE | re.IGNORECASE)
_BOM = "\ufeff"
_LINE = re.compile(r"[^\n]*\n|[^\n]+")

_HEADS = {
    ".mdc": "---\ndescription: Memory of the agent {agent}\nalwaysApply: true\n---\n",
    ".instructions.md": '---\napplyTo: "**"\n---\n',
}
"""The frontmatter without which Cursor and VS Code do not always read a file with such a name."""


@dataclass(frozen=True, slots=True)
class Section:
    """The lines of an agent in a file: `start` and `end` are indices of the two markers' lines."""

    start: int
    end: int
    body: str
    digest: str

    @property
    def is_edited(self) -> bool:
        """True if the lines between the markers are not those that were written."""
        return digest_of(self.body) != self.digest


def find(text: str, agent: str) -> Section | None:
    """Return the section of an agent; None if the file has none.

    Raises:
        BrokenMarkers: a marker is changed, alone, within another pair, or there twice.
    """
    found = [section for owner, section in _sections(text) if owner == agent]
    if len(found) > 1:
        raise _broken(found[1].start, f"is a second part for the agent {agent!r}")
    return found[0] if found else None


def outside(text: str) -> list[str] | None:
    """Return the lines outside of all sections, without blank ones; None if there is no section, or a person has written in one.

    Raises:
        BrokenMarkers: as `find`.
    """
    sections = [section for _, section in _sections(text)]
    if not sections or any(section.is_edited for section in sections):
        return None
    inside = {index for section in sections for index in range(section.start, section.end + 1)}
    lines = enumerate(line.rstrip() for line in _LINE.findall(text))
    return [line for index, line in lines if line and index not in inside]


def _sections(text: str) -> list[tuple[str, Section]]:
    """Return all sections, with the agents that they are of."""
    lines, found = _LINE.findall(text.removeprefix(_BOM)), []
    begun: tuple[int, str, str] | None = None
    for index, line in enumerate(lines):
        if not _MARK.match(line):
            continue
        begin, end = _BEGIN.fullmatch(line), _END.fullmatch(line)
        if begin is not None and begun is None:
            begun = index, begin["agent"], begin["digest"]
        elif end is not None and begun is not None and end["agent"] == begun[1]:
            start, owner, digest = begun
            begun = None
            found.append((owner, Section(start, index, _plain("".join(lines[start + 1 : index])), digest)))
        else:
            raise _broken(index, "has a marker of blocksd that is changed, or has no partner")
    if begun is not None:
        raise _broken(begun[0], "begins a part that does not end")
    return found


def replaced(text: str, agent: str, memory: str, section: Section | None, *, path: str = "") -> str:
    """Return the file's text with this memory in the agent's section, at the end if there is none yet.

    Everything outside of the markers stays as it is. `path` decides what a new file begins with.
    """
    newline = "\r\n" if "\r\n" in text[: text.find("\n") + 1] else "\n"
    body = _escaped(memory)
    body += "\n" if body else ""
    part = f"<!-- blocksd:begin {agent} {digest_of(body)} {_NOTE} -->\n{body}<!-- blocksd:end {agent} -->"
    part = part.replace("\n", newline)
    if section is not None:
        lines = _LINE.findall(text)
        last = lines[section.end]
        ending = last[len(last.rstrip("\r\n")) :]
        first = _BOM if section.start == 0 and text.startswith(_BOM) else ""
        return "".join((*lines[: section.start], first, part, ending, *lines[section.end + 1 :]))
    if not text.strip(_BOM):
        head = next((head for suffix, head in _HEADS.items() if path.endswith(suffix)), "")
        return f"{text}{head.format(agent=agent)}{part}\n"
    gap = "" if text.endswith(("\n\n", "\n\r\n")) else newline if text.endswith("\n") else newline * 2
    return f"{text}{gap}{part}{newline}"


def digest_of(body: str) -> str:
    """Return the digest of lines; spaces at the end of a line count for nothing, since editors remove them on a save."""
    lines = "\n".join(line.rstrip() for line in body.split("\n")).rstrip("\n")
    return blake2b(lines.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n")


def _escaped(memory: str) -> str:
    r"""Return the memory with a backslash in what would be a marker of blocksd: `<\!-- blocksd:`.

    As in prompts, one that has backslashes already gets one more, so that nothing is lost.
    """
    return _LOOKS_LIKE_MARK.sub(r"\1\\\2", _plain(memory).replace("\r", "\n"))


def _broken(index: int, what: str) -> BrokenMarkers:
    return BrokenMarkers(f"line {index + 1} {what}", line=index + 1)
