"""The grammar of labels and agent ids, and label ↔ path.

A label is a block's unique key: its path below the folder without `.md`, `/` between segments. There is one grammar,
and every border (file names, commands, requests) goes through it.
"""

from __future__ import annotations

import re
import unicodedata

from blocksd.errors import InvalidLabel, Misconfigured

SUFFIX = ".md"
CONFIG_MAP = "..data"
"""The symlink by which Kubernetes replaces all files of a mounted ConfigMap at once."""

TEMPORARY = ".blocksd-"
"""The prefix of the daemon's temporaries: hidden, so that they are not taken for blocks."""

PRIVATE = "agents"
"""The first segment of private blocks: `agents/<agent>/<name>`."""

MAX_SEGMENT_BYTES = 100
MAX_LABEL_BYTES = 200

_MOST_CHARS = 1000
"""No text above this length is brought into one spelling: that takes the square of a row of combining marks."""

_JUNK = frozenset((".DS_Store", ".directory", "Thumbs.db", "desktop.ini"))

_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}|\{[A-Za-z0-9_][A-Za-z0-9_.-]{0,61}\}")
_SEGMENT = re.compile(r"\w[\w.-]*", re.UNICODE)
_ASCII_LABEL = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
_PATTERN = re.compile(r"[\w.*?\[\]!-]+", re.UNICODE)
_EDITOR_TEMPORARY = re.compile(r"^~\$|___jb_(?:tmp|old)___$|^\.goutputstream-|\.sw[a-p]$")


RESERVED = frozenset(("operator", "file", "merge"))
"""Authors that are no agents, and would be taken for one."""


def parse_label(text: str) -> str:
    """Return the label in its one spelling (NFC).

    Raise InvalidLabel if `text` is not a label; the message says which rule it breaks.
    """
    if _ASCII_LABEL.fullmatch(text) and not is_unseen(text):  # a single plain segment: most labels
        return text
    _check_length(text)
    label = unicodedata.normalize("NFC", text)
    segments = label.split("/")
    for segment in segments:
        _check_segment(segment, text)
    size = len(label.encode("utf-8"))
    if size > MAX_LABEL_BYTES:
        raise InvalidLabel(f"label is {size} bytes, over the {MAX_LABEL_BYTES} a label may have", label=text[:80])
    if segments[0] == PRIVATE and len(segments) == 2:
        raise InvalidLabel(f"{label!r} is in {PRIVATE}/ but belongs to no agent", label=text)
    if segments[0] == PRIVATE and segments[1] in RESERVED:
        raise InvalidLabel(f"{label!r} is in {PRIVATE}/ but {segments[1]!r} is no agent's id", label=text)
    return label


def parse_agent(text: str) -> str:
    """Return an agent id in its one spelling: one label segment. Raise InvalidLabel if `text` is not an agent id."""
    _check_length(text)
    agent = unicodedata.normalize("NFC", text)
    _check_segment(agent, text)
    if agent in RESERVED:
        raise InvalidLabel(f"{agent!r} is not an agent id: as an author it stands for something else", label=agent)
    return agent


def parse_agent_pattern(text: str) -> str:
    """Return an entry of `agents:`: an agent id, `*`, or a shell-style pattern such as `support-*`.

    Raise InvalidLabel if `text` is neither an agent id nor a pattern that could match one.
    """
    if not is_pattern(text):
        return parse_agent(text)
    _check_length(text)
    pattern = unicodedata.normalize("NFC", text)
    if not _PATTERN.fullmatch(pattern) or len(pattern.encode("utf-8")) > MAX_SEGMENT_BYTES:
        raise InvalidLabel(f"{text[:80]!r} is not a pattern of agent ids", label=text[:80])
    return pattern


def is_pattern(text: str) -> bool:
    """Return True if an entry of `agents:` is a pattern rather than an agent id."""
    return "*" in text or "?" in text or "[" in text


def _check_length(text: str) -> None:
    if len(text) > _MOST_CHARS and not text.isascii():
        raise InvalidLabel(f"{text[:20]!r}… is {len(text)} characters: no name is that long", label=text[:80])


def _check_segment(segment: str, whole: str) -> None:
    if not _SEGMENT.fullmatch(segment):
        shown = whole[:80].encode("unicode_escape").decode("ascii") if not whole.isprintable() else whole[:80]
        if not segment:
            why = "it is empty, or has an empty segment"
        elif segment.startswith("."):
            why = "a segment may not start with a dot"
        else:
            why = "a segment is letters, digits, '_', '-' and '.', and starts with a letter, a digit or '_'"
        raise InvalidLabel(f"{shown!r} is not a label: {why}", label=shown)
    if is_unseen(segment):
        shown = whole[:80]
        if segment.endswith(SUFFIX):
            why = f"a segment may not end in {SUFFIX!r}, which belongs to the file and not to the label"
        else:
            why = f"{segment[:80]!r} is named like an editor's temporary file, which is ignored"
        raise InvalidLabel(f"{shown!r} is not a label: {why}", label=shown)
    if len(segment.encode("utf-8")) > MAX_SEGMENT_BYTES:
        raise InvalidLabel(
            f"segment {segment[:20]!r}… is over the {MAX_SEGMENT_BYTES} bytes a segment may have", label=whole[:80]
        )


def label_of_path(path: str) -> str:
    """Return the label of a block file, from its path below the folder.

    `path` is as the file system gives it (`os.fsdecode`: bytes that are not UTF-8 are lone surrogates).
    Raise InvalidLabel if it is not the path of a label.
    """
    stem = path.removesuffix(SUFFIX)
    try:
        stem.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidLabel("the file name is not UTF-8", label=printable(path)) from None
    return parse_label(stem)


def path_of_label(label: str) -> str:
    """Return the path of a new block's file, below the folder."""
    return label + SUFFIX


def is_ignored(name: str) -> bool:
    """Return True if a file or directory of this name is ignored: hidden, a backup, an editor's temporary.

    `..md` is not: its author meant a block, and gets a problem about the name.
    """
    first = name[0]
    if first in ".#":
        return not (len(name) > len(SUFFIX) and name.strip(".") == "md" and name.endswith(SUFFIX))
    return name[-1] == "~" or (
        (first == "~" or "___jb_" in name or ".sw" in name) and bool(_EDITOR_TEMPORARY.search(name))
    )


def is_unseen(segment: str) -> bool:
    """Return True if sweeps of the folder do not enter a directory of this name."""
    return segment.endswith(SUFFIX) or is_ignored(segment)


def is_junk(name: str) -> bool:
    """Return True if a file of this name is junk of a desktop, or a temporary of the daemon."""
    return name in _JUNK or name.startswith(("._", TEMPORARY))


def is_block_file(name: str) -> bool:
    """Return True if a file of this name is meant to be a block."""
    return name.endswith(SUFFIX) and not is_ignored(name)


def clash_key(label: str) -> str:
    """Return a key that is equal for labels that some file systems could not hold both: only one may be in force."""
    return label.lower() if label.isascii() else unicodedata.normalize("NFC", label.casefold())


def owner(label: str) -> str | None:
    """Return the agent a private block belongs to; None for a shared block."""
    return label.split("/", 2)[1] if label.startswith(PRIVATE + "/") else None


def name_for_agent(label: str) -> str:
    """Return the name by which an agent calls the block: the rest of the path for private blocks, else the label."""
    return label.split("/", 2)[2] if label.startswith(PRIVATE + "/") else label


def printable(path: str) -> str:
    """Return a path for messages and keys, with what is not UTF-8 or not printable escaped."""
    if path.isprintable():
        return path
    return (
        path.encode("utf-8", "surrogateescape")
        .decode("utf-8", "backslashreplace")
        .encode("unicode_escape")
        .decode("ascii")
    )


def parse_namespace(text: str) -> str:
    """Return the namespace, which every Redis key and channel begins with; one in braces is a hash tag of Redis Cluster.

    Raise Misconfigured if it is not 1-64 letters, digits, '_', '-' and '.'.
    """
    if not _NAMESPACE.fullmatch(text):
        raise Misconfigured(f"{text[:80]!r} is not a namespace: use letters, digits, '_', '-' and '.'", key="namespace")
    return text
