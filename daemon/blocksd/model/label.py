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

MAX_SEGMENT_BYTES = 200
MAX_LABEL_BYTES = 1000
MAX_AGENT_BYTES = 100

_MOST_CHARS = 1000
"""No text above this length is brought into one spelling: that takes the square of a row of combining marks."""

_REJECTED = ".rejected"
_REJECTED_END = re.compile(rf"{re.escape(_REJECTED)}(?:-[0-9]+)?\Z")
_JUNK = frozenset((".DS_Store", ".directory", "Thumbs.db", "desktop.ini"))

_NAMESPACE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}|\{[A-Za-z0-9_][A-Za-z0-9_.-]{0,61}\}")
_PLAIN = re.compile(r"\w[\w.-]*")
"""Most segments, and all there were before other characters were allowed: those may end in a dot."""
_ASCII_LABEL = re.compile(r"\w[\w.-]{0,199}", re.ASCII)
_ASCII_AGENT = re.compile(r"\w[\w.-]{0,99}", re.ASCII)
_AGENT_MARKS = frozenset("_-.")
_PATTERN_MARKS = frozenset("_-.*?[]!")
FORBIDDEN = frozenset('\\:*?"<>|')
"""What some file systems cannot have in a name; nor can any have a slash."""
JOINERS = frozenset("\u200c\u200d")
"""ZWNJ and ZWJ: they shape the letters or the emoji on both sides."""
_SEPARATOR = "\u200b"
"""The zero width space: it separates words where scripts have no spaces between them."""
_WITHOUT_SPACES = (("\u0e00", "\u0eff"), ("\u1000", "\u109f"), ("\u1780", "\u17ff"), ("\u1950", "\u1aaf"))
"""Thai and Lao; Myanmar; Khmer; Tai and its neighbours."""
_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_EDITOR_TEMPORARY = re.compile(r"^~\$|___jb_(?:tmp|old)___$|^\.goutputstream-|\.sw[a-p]$")
_CONFLICT_COPY = re.compile(
    r"\.sync-conflict-[0-9]{8}-[0-9]{6}|_conflict-[0-9]{8}-[0-9]{6}|\(conflict(?: #[0-9]+)? on [0-9]{4}-"
    r"|\((?:[^()]*\bconflicted copy\b|SFConflict\b)[^()]*[0-9]{4}[^()]*\)|\(case conflict\b",
    re.IGNORECASE,
)  # Syncthing; ownCloud; Unison; Dropbox, Nextcloud and Obsidian, Seafile; Dropbox
_MERGE_TOOL = re.compile(r"(.+)_(?:BACKUP|BASE|LOCAL|REMOTE)_[0-9]+")


PROPERTIES_FILE, PROPERTIES_END = "agent.yaml", "/agent.yaml"
"""The file in an agent's private folder that says its properties; the end of each label that `is_properties` may fit."""

RESERVED = frozenset(("operator", "file", "merge"))
"""Authors that are no agents, and would be taken for one."""


def properties_label(agent: str) -> str:
    """Return the path of the file that says an agent's properties, which is their label, too."""
    return f"{PRIVATE}/{agent}/{PROPERTIES_FILE}"


def is_properties(path: str) -> bool:
    """Return True if a path below the folder, or a label, is that of an agent's properties: no block has it."""
    return path.endswith(PROPERTIES_END) and path.startswith(f"{PRIVATE}/") and path.count("/") == 2


def parse_label(text: str) -> str:
    """Return the label in its one spelling (NFC).

    Raise InvalidLabel if `text` is not a label; the message says which rule it breaks.
    """
    if _ASCII_LABEL.fullmatch(text) and not is_unseen(text) and not is_conflict_copy(text):  # most labels
        return text
    _check_length(text)
    label = unicodedata.normalize("NFC", text)
    segments = label.split("/")
    for segment in segments:
        why = why_no_segment(segment)
        if why:
            raise InvalidLabel(f"{text[:80]!r} is not a label: {why}", label=_shown(text))
    size = len(label.encode("utf-8"))
    if size > MAX_LABEL_BYTES:
        raise InvalidLabel(f"label is {size} bytes, over the {MAX_LABEL_BYTES} a label may have", label=_shown(text))
    if segments[0] == PRIVATE and len(segments) == 2:
        raise InvalidLabel(f"{label!r} is in {PRIVATE}/ but belongs to no agent", label=label)
    if segments[0] == PRIVATE and len(segments) > 2:
        why = why_no_agent(segments[1])
        if why:
            message = f"{text[:80]!r} is in {PRIVATE}/ but {segments[1][:80]!r} is no agent's id: {why}"
            raise InvalidLabel(message, label=_shown(text))
        if segments[2] == PROPERTIES_FILE:
            why = f"{'it' if len(segments) == 3 else '/'.join(segments[:3])} is the file of an agent's properties"
            raise InvalidLabel(f"{text[:80]!r} is no label: {why}", label=_shown(text))
    if is_conflict_copy(segments[-1]):
        message = f"{text[:80]!r} is not a label: it is named like a copy that a program made of a conflict"
        raise InvalidLabel(message, label=_shown(text))
    return label


def is_plain(segment: str) -> bool:
    """Return True if a segment has only letters, digits, '_', '-' and '.', as all had once."""
    return _PLAIN.fullmatch(segment) is not None


def why_no_segment(segment: str) -> str:
    """Return which rule keeps a text in NFC from being a segment of a label; the empty text if it is one."""
    if not segment:
        return "it is empty, or has an empty segment"
    if not is_plain(segment):
        for place, char in (("start", segment[0]), ("end", segment[-1])):
            if char in " .":
                return f"a segment may not {place} with a {'space' if char == ' ' else 'dot'}"
        if unicodedata.category(segment[0])[0] == "M":
            return "a segment may not start with a combining mark, which belongs to a letter before it"
        for at, char in enumerate(segment):
            why = why_no_character(segment, at, char)
            if why:
                return why
    if segment.endswith(SUFFIX):
        return f"a segment may not end in {SUFFIX!r}, which belongs to the file and not to the label"
    if segment[0] == "#":
        return "a name that starts with '#' is ignored"
    if is_ignored(segment):
        return f"{segment[:80]!r} is named like an editor's temporary file, which is ignored"
    if len(segment.encode("utf-8")) > MAX_SEGMENT_BYTES:
        return f"segment {segment[:20]!r}… is over the {MAX_SEGMENT_BYTES} bytes a segment may have"
    return ""


def why_no_character(segment: str, at: int, char: str) -> str:
    """Return why a segment may not have this character in this place; the empty text if it may.

    Characters that a newer Unicode may have are allowed: a label must mean the same to every version of Python.
    """
    if char in FORBIDDEN:
        return f"{char!r} cannot be in a file name on every system"
    if char in JOINERS:
        if 0 < at < len(segment) - 1 and _is_joined(segment[at - 1]) and _is_joined(segment[at + 1]):
            return ""
        return f"{_named(char)} may stand between two letters or two emoji only"
    if char == " " or char.isprintable():
        return ""
    if (
        char == _SEPARATOR
        and 0 < at < len(segment) - 1
        and _has_no_spaces(segment[at - 1])
        and _has_no_spaces(segment[at + 1])
    ):
        return ""
    kind = unicodedata.category(char)
    if kind == "Cn" and char < "\U00040000" and ord(char) & 0xFFFE != 0xFFFE and not "\ufdd0" <= char <= "\ufdef":
        return ""
    if kind == "Cc":
        return f"it holds the control character U+{ord(char):04X}"
    if kind == "Cs":
        return "it is not UTF-8"
    if kind == "Zs":
        return f"it holds {_named(char)}, which looks like a space and is none"
    if char in _BIDI:
        return f"it holds {_named(char)}, which changes the direction of the text around it"
    return f"it holds {_named(char)}, which cannot be seen, or is shown differently everywhere"


def _is_joined(char: str) -> bool:
    """Return True if this may stand beside a joiner: a letter, a mark, a digit, an emoji or its skin tone."""
    kind = unicodedata.category(char)
    return kind[0] in "LMN" or kind in ("So", "Sk", "Cn")


def _has_no_spaces(char: str) -> bool:
    """Return True if this belongs to a script without spaces between words."""
    return any(first <= char <= last for first, last in _WITHOUT_SPACES)


def _named(char: str) -> str:
    name = unicodedata.name(char, "")
    return f"U+{ord(char):04X} ({name.lower()})" if name else f"U+{ord(char):04X}"


def _shown(text: str) -> str:
    """Return the beginning of a text that may hold anything, for the facts of an error."""
    start = text[:80]
    return start if start.isprintable() else start.encode("unicode_escape").decode("ascii")


def parse_agent(text: str) -> str:
    """Return an agent id in its one spelling (NFC). Raise InvalidLabel if `text` is not an agent id."""
    if _ASCII_AGENT.fullmatch(text) and text not in RESERVED and not is_unseen(text):  # most ids
        return text
    _check_length(text)
    agent = unicodedata.normalize("NFC", text)
    why = why_no_agent(agent)
    if why:
        raise InvalidLabel(f"{text[:80]!r} is not an agent id: {why}", agent=_shown(text))
    return agent


def why_no_agent(agent: str) -> str:
    """Return which rule keeps a text in NFC from being an agent id; the empty text if it is one."""
    if agent in RESERVED:
        return "as an author it stands for something else"
    if not agent:
        return "it is empty"
    if not (agent[0] == "_" or agent[0].isalnum()) or not _is_made_of(agent, _AGENT_MARKS):
        return "it is letters, digits, '_', '-' and '.', and starts with a letter, a digit or '_'"
    if is_unseen(agent):
        return why_no_segment(agent)
    return f"it is over the {MAX_AGENT_BYTES} bytes an id may have" if len(agent.encode()) > MAX_AGENT_BYTES else ""


def _is_made_of(text: str, marks: frozenset[str]) -> bool:
    """Return True if a text has only letters with their combining marks, digits, and these marks."""
    return all(char in marks or char.isalnum() or unicodedata.category(char)[0] == "M" for char in text)


def parse_agent_pattern(text: str) -> str:
    """Return an entry of `agents:`: an agent id, `*`, or a shell-style pattern such as `support-*`.

    Raise InvalidLabel if `text` is neither an agent id nor a pattern that could match one.
    """
    if not is_pattern(text):
        return parse_agent(text)
    _check_length(text)
    pattern = unicodedata.normalize("NFC", text)
    if not _is_made_of(pattern, _PATTERN_MARKS) or len(pattern.encode("utf-8")) > MAX_AGENT_BYTES:
        raise InvalidLabel(f"{text[:80]!r} is not a pattern of agent ids", agent=_shown(text))
    return pattern


def is_pattern(text: str) -> bool:
    """Return True if an entry of `agents:` is a pattern rather than an agent id."""
    return "*" in text or "?" in text or "[" in text


def _check_length(text: str) -> None:
    if len(text) > _MOST_CHARS and not text.isascii():
        raise InvalidLabel(f"{text[:20]!r}… is {len(text)} characters: no name is that long", label=_shown(text))


def label_of_path(path: str) -> str:
    """Return the label of a block file, from its path below the folder.

    `path` is as the file system gives it (`os.fsdecode`: bytes that are not UTF-8 are lone surrogates).
    Raise InvalidLabel if it is not the path of a label.
    """
    if is_properties(path):
        return properties_label(parse_agent(path.split("/")[1]))
    stem = path.removesuffix(SUFFIX)
    try:
        stem.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidLabel("the file name is not UTF-8", label=printable(path)) from None
    return parse_label(stem)


def path_of_label(label: str) -> str:
    """Return the path of a new block's file, below the folder."""
    return label if is_properties(label) else label + SUFFIX


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


def is_conflict_copy(name: str) -> bool:
    """Return True if a file is named as programs name the copies that they make of a conflict: it was not meant as a block."""
    return ("(" in name or "onflict" in name) and _CONFLICT_COPY.search(name) is not None


def merged_from(path: str) -> str | None:
    """Return the path of the file of which a merge tool made the one at `path`, going by its name; None if none did."""
    found = _MERGE_TOOL.fullmatch(path.removesuffix(SUFFIX)) if path[-4:-3].isdigit() else None
    return f"{found[1]}{SUFFIX}" if found is not None else None


def is_junk(name: str) -> bool:
    """Return True if a file of this name is junk of a desktop, or a temporary of the daemon."""
    return name in _JUNK or name.startswith(("._", TEMPORARY))


def is_block_file(name: str) -> bool:
    """Return True if a file of this name is meant to be a block."""
    return name.endswith(SUFFIX) and not is_ignored(name)


def rejected_path(path: str, number: int) -> str:
    """Return a path beside that of a file that is repaired, for the text that it had; `number` counts from 1."""
    return f"{path}{_REJECTED}" if number == 1 else f"{path}{_REJECTED}-{number}"


def repaired_path(path: str) -> str:
    """Return the path of the file whose text lies at a `rejected_path`; of any other path, the path itself."""
    return _REJECTED_END.sub("", path)


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
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return text.encode("unicode_escape").decode("ascii")


def parse_namespace(text: str) -> str:
    """Return the namespace, which every Redis key and channel begins with; one in braces is a hash tag of Redis Cluster.

    Raise Misconfigured if it is not 1-64 letters, digits, '_', '-' and '.'.
    """
    if not _NAMESPACE.fullmatch(text):
        raise Misconfigured(f"{text[:80]!r} is not a namespace: use letters, digits, '_', '-' and '.'", key="namespace")
    return text
