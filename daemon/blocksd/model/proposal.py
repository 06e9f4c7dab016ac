"""Proposes a file name that is right for one that is not."""

from __future__ import annotations

import re
import unicodedata

from blocksd.errors import InvalidLabel
from blocksd.model.label import (
    FORBIDDEN,
    MAX_AGENT_BYTES,
    MAX_SEGMENT_BYTES,
    PRIVATE,
    SUFFIX,
    is_conflict_copy,
    is_properties,
    is_unseen,
    label_of_path,
    printable,
    why_no_agent,
    why_no_character,
)

_OTHER_ENDINGS = re.compile(r"\.(?:md|markdown|mdown|mdwn|mkdn?|mdx|mdc)(?:\.txt)?\Z", re.IGNORECASE)
_SPACES = re.compile(r"\s+")
_NO_AGENT = re.compile(r"[^\w.-]+")
_WRITTEN_AS = {"\\": "-", ":": "-", "|": "-", '"': "'", "<": "(", ">": ")", "?": "", "*": ""}
_LONGEST = 1000  # no file system has longer names, and none of these is brought into one spelling


def is_misnamed(name: str) -> bool:
    """Return True if a file of this name is no block, but is Markdown: `NOTES.MD`, `notes.markdown`, `notes.md.txt`."""
    return not name.endswith(SUFFIX) and _OTHER_ENDINGS.search(name) is not None


def proposed_path(path: str) -> str | None:
    """Return a path below the folder like this one, that a block can have; None if it has no need of one, or there is none.

    `path` is as the file system gives it. Another file may have the path that is proposed: its user must look.
    A copy that a program made of a conflict is to be compared and deleted, not renamed: None.
    """
    if len(path) > _LONGEST or _is_label(path) or is_conflict_copy(path):
        return None
    stem = _OTHER_ENDINGS.sub("", path)
    segments = [_segment(segment) for segment in unicodedata.normalize("NFC", stem).split("/")]
    if segments[0] == PRIVATE and len(segments) > 2:
        segments[1] = _agent(segments[1])
    proposed = "/".join(segments) + SUFFIX
    return proposed if _is_label(proposed) else None


def remedy(path: str) -> str:
    """Return what to do about a file whose name is wrong."""
    if is_conflict_copy(path.rpartition("/")[2]):
        return "compare it with the file that it is a copy of, keep what is right, and delete this copy"
    if is_properties(path):
        agent = _agent(unicodedata.normalize("NFC", path.split("/")[1]))
        example = "" if why_no_agent(agent) else f", for example to '{PRIVATE}/{agent}'"
        return f"rename its directory{example}"
    proposed = proposed_path(path)
    if proposed is None:
        return "rename the file"
    what = "its directory" if proposed.rpartition("/")[2] == path.rpartition("/")[2] else "the file"
    return f"rename {what}, for example to '{printable(proposed)}'"


def _is_label(path: str) -> bool:
    try:
        label_of_path(path)
    except InvalidLabel:
        return False
    return path.endswith(SUFFIX)


def _segment(segment: str) -> str:
    pieces = []
    for at, char in enumerate(segment):
        if char == ":" and segment[at + 1 : at + 2] == " ":
            pieces.append(" -")
        elif char in FORBIDDEN:
            pieces.append(_WRITTEN_AS[char])
        elif char.isspace():
            pieces.append(" ")
        elif "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8
            pieces.append("_")
        elif not why_no_character(segment, at, char):
            pieces.append(char)
    text = _stripped(_SPACES.sub(" ", "".join(pieces)))
    while text.endswith(SUFFIX):
        text = _stripped(text.removesuffix(SUFFIX))
    text = _stripped(text.lstrip("#~").rstrip("~"))
    if text and is_unseen(text):  # a name as an editor gives them
        text = re.sub(r"\.(?=sw[a-p]\Z)|___(?=jb_)|(?<=jb_tmp)___\Z|(?<=jb_old)___\Z", "-", text).rstrip("-")
    return _cut(text, MAX_SEGMENT_BYTES)


def _stripped(text: str) -> str:
    """Return a text without what no segment may start or end with."""
    text = text.strip(" .")
    while text and unicodedata.category(text[0])[0] == "M":
        text = text[1:].strip(" .")
    return text


def _cut(text: str, most: int) -> str:
    """Return the beginning of a text, in so many bytes, that ends with a whole letter."""
    if len(text.encode("utf-8")) <= most:
        return text
    end = len(text.encode("utf-8")[:most].decode("utf-8", "ignore"))
    while end and (unicodedata.category(text[end])[0] == "M" or "\u200d" in text[end - 1 : end + 1]):
        end -= 1
    return _stripped(text[:end])


def _agent(text: str) -> str:
    if not why_no_agent(text):
        return text
    return _cut(_NO_AGENT.sub("-", text).strip("-."), MAX_AGENT_BYTES)
