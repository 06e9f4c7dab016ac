"""Tokens: who calls, and in which role.

A line of a tokens file is a role and a token: `operator:kim TOKEN`, `reader TOKEN`, `agent:support-1 TOKEN`. An operator
has a name, an agent is named by its id, and a reader may have a name. What follows `#` at the start of a word is a comment.
"""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from blocksd.errors import InvalidLabel, Misconfigured
from blocksd.model.label import parse_agent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blocksd.settings.config import Config

Role = Literal["operator", "reader", "agent"]

_LEAST = 16
"""How many characters a token has at least: less could be guessed."""
_TOKEN = re.compile(r"[\x21-\x7e]+")
_MOST_NAME = 100
_COMMENT = re.compile(r"(?:^|\s)#.*")


@dataclass(frozen=True, slots=True)
class Caller:
    """The sender of a request. `name` is an operator's name or an agent's id; None without tokens, and for some readers."""

    role: Role
    name: str | None = None

    @property
    def agent(self) -> str | None:
        """The agent that calls; None for the others."""
        return self.name if self.role == "agent" else None


ANYONE = Caller("operator")
"""The caller where no tokens are set: a program of this machine."""


class Tokens:
    """The tokens that are known, by their digests."""

    def __init__(self, callers: Iterable[tuple[str, Caller]] = ()) -> None:
        """Take pairs of a token and its caller. Without any, each caller is `ANYONE`."""
        self._callers = [(sha256(token.encode()).digest(), caller) for token, caller in callers]

    def replace(self, other: Tokens) -> None:
        """Take the tokens of another instead."""
        self._callers = other._callers  # of this class

    def __bool__(self) -> bool:
        return bool(self._callers)

    def caller(self, token: str | None) -> Caller | None:
        """Return who has this token; None: nobody has. The time it takes does not depend on the token."""
        if not self._callers:
            return ANYONE
        digest = sha256((token or "").encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found

    def code(self, token: str, text: bytes) -> str:
        """Return a code of a text that only those can make who have the token."""
        return _code(sha256(token.encode("utf-8", "surrogateescape")).digest(), text)

    def caller_by_code(self, code: str, text: bytes) -> Caller | None:
        """Return whose token a code of this text was made with; None: of none."""
        given, found = code.encode("utf-8", "surrogateescape"), None
        for known, caller in self._callers:
            if hmac.compare_digest(_code(known, text).encode(), given):
                found = caller
        return found


def _code(digest: bytes, text: bytes) -> str:
    return hmac.new(digest, text, sha256).hexdigest()


def configured(config: Config) -> Tokens:
    """Return the tokens of the settings. Raise Misconfigured if they cannot be read, or one of them is wrong."""
    found: list[tuple[str, Caller]] = []
    is_given = False
    if config.tokens is not None:
        is_given = True
        found += parse(config.tokens, "tokens")
    if config.tokens_file is not None:
        is_given = True
        try:
            text = Path(config.tokens_file).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise Misconfigured(f"{config.tokens_file} cannot be read: {error.strerror}", key="tokens_file") from None
        except UnicodeDecodeError:
            raise Misconfigured(f"{config.tokens_file} is not UTF-8", key="tokens_file") from None
        found += parse(text, config.tokens_file)
    if is_given and not found:
        raise Misconfigured("tokens are set, and there is none: a line is a role and a token", key="tokens")
    if len({token for token, _ in found}) < len(found):
        raise Misconfigured("a token is there twice: each caller needs a separate one", key="tokens")
    return Tokens(found)


def parse(text: str, place: str) -> list[tuple[str, Caller]]:
    """Return the tokens of a text, each with its caller.

    Raise Misconfigured if a line is wrong; the message has its place and nothing of the token.
    """
    found: list[tuple[str, Caller]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = _COMMENT.sub("", line).split()
        if not words:
            continue
        where = f"{place}:{number}"
        if len(words) != 2:
            raise Misconfigured(f"{where}: a line is a role and a token, as in 'reader TOKEN'", key="tokens")
        who, token = words
        if len(token) < _LEAST or not _TOKEN.fullmatch(token):
            message = f"{where}: a token has at least {_LEAST} characters, all of them printable ASCII"
            raise Misconfigured(message, key="tokens")
        found.append((token, _caller(who, where)))
    return found


def _caller(who: str, where: str) -> Caller:
    role, colon, name = who.partition(":")
    if role == "agent" and name:
        try:
            return Caller("agent", parse_agent(name))
        except InvalidLabel as error:
            raise Misconfigured(f"{where}: {error.message}", key="tokens") from None
    if (role == "operator" and name) or (role == "reader" and bool(name) == bool(colon)):
        if len(name) > _MOST_NAME or not name.isprintable():
            raise Misconfigured(f"{where}: a name has at most {_MOST_NAME} printable characters", key="tokens")
        return Caller("operator" if role == "operator" else "reader", name or None)
    raise Misconfigured(f"{where}: the roles are operator:NAME, reader and agent:AGENT, not {who[:40]!r}", key="tokens")
