"""Tokens: the lines of a file, and who has a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from blocksd.errors import Misconfigured
from blocksd.http.tokens import ANYONE, Caller, Tokens, configured, parse
from blocksd.settings import loading
from blocksd.settings.config import Config

if TYPE_CHECKING:
    from pathlib import Path

KIM, ANN, SOME = "k" * 16, "a" * 16, "r" * 16


def test_lines_of_a_file() -> None:
    """A role and a token each; comments and empty lines are left out."""
    text = f"# ours\n\noperator:kim {KIM}\nreader\t{SOME}  # a screen\nagent:ann {ANN}\nreader:wall r#{SOME}\n"
    assert parse(text, "tokens") == [
        (KIM, Caller("operator", "kim")),
        (SOME, Caller("reader")),
        (ANN, Caller("agent", "ann")),
        (f"r#{SOME}", Caller("reader", "wall")),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("operator", "a role and a token"),
        (f"operator {KIM}", "operator:NAME"),
        (f"operator: {KIM}", "operator:NAME"),
        (f"agent {KIM}", "operator:NAME"),
        (f"reader: {KIM}", "operator:NAME"),
        (f"root:kim {KIM}", "operator:NAME"),
        (f"agent:a:b {KIM}", "not an agent id"),
        ("reader short", "at least 16 characters"),
        (f"reader {'ü' * 16}", "printable ASCII"),
        (f"reader {KIM} more", "a role and a token"),
        (f"operator:{'k' * 101} {KIM}", "at most 100"),
    ],
)
def test_lines_that_are_wrong(line: str, words: str) -> None:
    """The message has the place and nothing of the token."""
    with pytest.raises(Misconfigured, match=words) as refused:
        parse(f"\n{line}\n", "/etc/tokens")
    assert "/etc/tokens:2: " in str(refused.value)
    assert KIM not in str(refused.value)


def test_who_has_a_token() -> None:
    """The whole token, and nothing else; without tokens everyone of this machine."""
    tokens = Tokens([(KIM, Caller("operator", "kim")), (ANN, Caller("agent", "ann"))])
    assert tokens.caller(KIM) == Caller("operator", "kim")
    assert tokens.caller(ANN) == Caller("agent", "ann")
    for wrong in (None, "", KIM[:-1], KIM + "k", "undefined", "\udcff"):
        assert tokens.caller(wrong) is None
    assert Tokens().caller("undefined") == ANYONE


def test_tokens_of_the_settings(tmp_path: Path) -> None:
    """A file, the environment and a credential of systemd may hold them."""
    file = tmp_path / "tokens"
    file.write_text(f"reader {SOME}\n")
    (tmp_path / "blocksd.tokens").write_text(f"agent:ann {ANN}\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "BLOCKSD_TOKENS_FILE": str(file)}
    config = loading.load({}, environ=environ, path="/dev/null")
    tokens = configured(config)
    assert tokens.caller(SOME) == Caller("reader")
    assert tokens.caller(ANN) == Caller("agent", "ann")
    assert ANN not in repr(config)
    config = loading.load({}, environ={**environ, "BLOCKSD_TOKENS": f"operator:kim {KIM}"}, path="/dev/null")
    assert configured(config).caller(KIM) == Caller("operator", "kim")


def test_settings_that_would_let_everyone_in(tmp_path: Path) -> None:
    """Tokens that are set and cannot be read, or are none, are an error, and never no tokens."""
    empty = tmp_path / "empty"
    empty.write_text("# none yet\n")
    with pytest.raises(Misconfigured, match="there is none"):
        configured(Config(tokens_file=str(empty)))
    with pytest.raises(Misconfigured, match="there is none"):
        configured(Config(tokens=""))
    with pytest.raises(Misconfigured, match="cannot be read: No such file"):
        configured(Config(tokens_file=str(tmp_path / "missing")))
    with pytest.raises(Misconfigured, match="twice"):
        configured(Config(tokens=f"reader {SOME}\noperator:kim {SOME}"))
    assert not configured(Config())
