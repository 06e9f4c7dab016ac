"""What can be in a file: contents that are no block, and contents that look odd but are one."""

from __future__ import annotations

from typing import NamedTuple


class Bad(NamedTuple):
    """A content that is a problem: what is said of it, and of which line."""

    data: bytes
    message: str
    line: int | None = None


def _matter(text: str) -> bytes:
    return f"---\n{text}\n---\nbody\n".encode()


_BOMB = "a0: &a0 [x]\n" + "\n".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 20))

BAD: dict[str, Bad] = {
    "utf-16": Bad("hello".encode("utf-16"), "not UTF-8: byte 0xff at offset 0"),
    "latin-1": Bad(b"---\nlimit: 5\n---\ncaf\xe9\n", "not UTF-8: byte 0xe9 at offset 20"),
    "cut-utf-8": Bad("caf\u00e9".encode()[:-1], "not UTF-8: byte 0xc3 at offset 3"),
    "binary": Bad(bytes(range(256)) * 8, "not UTF-8: byte 0x80 at offset 128"),
    "nul": Bad(b"one\ntwo\0\n", "NUL byte at offset 7", 2),
    "escape": Bad(b"---\nlimit: 50\n---\none\n\x1b[31mred\n", "control character U+001B", 5),
    "bell-in-frontmatter": Bad(_matter("limit: 5\ndescription: a\x07b"), "character that YAML does not admit", 3),
    "unclosed": Bad(b"---\nlimit: 5\nbody\n", "opened with '---' but never closed", 1),
    "closed-with-four": Bad(b"---\nlimit: 5\n----\nbody\n", "opened with '---' but never closed", 1),
    "not-yaml": Bad(_matter("limit: 5\ndescription: a: b"), "the frontmatter is not YAML", 3),
    "tab": Bad(_matter("metadata:\n\tkey: value"), "the frontmatter is not YAML", 3),
    "alias-bomb": Bad(_matter(_BOMB), "an anchor, an alias or a tag", 2),
    "self-reference": Bad(_matter("metadata: &a\n  b: *a"), "an anchor, an alias or a tag", 2),
    "tag": Bad(_matter("metadata: !!python/object/apply:os.abort []"), "an anchor, an alias or a tag", 2),
    "deep-lists": Bad(_matter("metadata: " + "[" * 25_000), "nests deeper than 32", 2),
    "deep-maps": Bad(_matter("metadata: " + "{a: " * 25_000), "nests deeper than 32", 2),
    "digits": Bad(_matter(f"limit: {'9' * 5000}"), "a whole number has more than 18 digits", 2),
    "exponent": Bad(_matter("metadata: {a: 1e999}"), "a number is out of range", 2),
    "duplicate": Bad(_matter("limit: 5\ntags: []\nlimit: 6"), "has 'limit' twice", 4),
    "list": Bad(_matter("- one\n- two"), "not a mapping", 2),
    "scalar": Bad(_matter("just words"), "not a mapping", 2),
    "read-only-no": Bad(_matter("tags: []\nread_only: no"), "read_only must be true or false", 3),
    "read-only-text": Bad(_matter('read_only: "true"'), "read_only must be true or false", 2),
    "limit-text": Bad(_matter('limit: "5000"'), "limit must be a whole number", 2),
    "limit-float": Bad(_matter("limit: 5000.0"), "limit must be a whole number", 2),
    "limit-zero": Bad(_matter("limit: 0"), "limit must be a whole number from 1", 2),
    "limit-negative": Bad(_matter("limit: -5"), "limit must be a whole number from 1", 2),
    "tags-text": Bad(_matter("tags: policy"), "tags must be a list of texts", 2),
    "metadata-list": Bad(_matter("metadata: [owner]"), "metadata must be a mapping", 2),
    "agents-map": Bad(_matter("agents: {one: two}"), "agents must be a list of agent ids", 2),
    "agents-path": Bad(_matter("agents: [../escape]"), "agents:", 2),
    "description-list": Bad(_matter("description: [a]"), "description must be text", 2),
    "over-default-limit": Bad(
        b"x" * 20_123, "Exceeds character limit: value is 20123 characters, over its limit of 20000"
    ),
    "over-own-limit": Bad(
        b"---\nlimit: 3\n---\nfour\n", "Exceeds character limit: value is 4 characters, over its limit of 3"
    ),
    "huge-frontmatter": Bad(_matter(f"description: {'x' * 300_000}"), "the frontmatter is over 256 KiB"),
    "five-megabytes": Bad(b"x" * 5_000_000, "the file is 5000000 bytes, over the 4194304 that are read"),
}

GOOD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", ""),
    "newline": (b"\n", ""),
    "bom": (b"\xef\xbb\xbf---\nlimit: 50\n---\ntext\n", "text"),
    "crlf": (b"---\r\nlimit: 50\r\n---\r\none\r\ntwo\r\n", "one\ntwo"),
    "no-newline-at-end": (b"---\nlimit: 50\n---\ntext", "text"),
    "empty-frontmatter": (b"---\n---\ntext\n", "text"),
    "only-frontmatter": (b"---\nlimit: 50\n---", ""),
    "four-dashes": (b"----\ntext\n", "----\ntext"),
    "dashes-in-body": (b"---\nlimit: 50\n---\none\n---\ntwo\n", "one\n---\ntwo"),
    "rule-in-plain-text": (b"one\n\n---\ntwo\n", "one\n\n---\ntwo"),
    "tab": (b"a\tb\n", "a\tb"),
    "bad-date-is-text": (b"---\nmetadata: {due: 2026-13-45}\n---\ntext\n", "text"),
    "yes-is-text": (b"---\ntags: [yes, on, 0x1F]\n---\ntext\n", "text"),
    "at-its-limit": (b"---\nlimit: 4\n---\nfour\n", "four"),
    "wide": ("\u732b\U0001f408".encode(), "\u732b\U0001f408"),
}
