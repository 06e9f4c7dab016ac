"""A file system that takes two names for one is found out before anything is written to it."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING

import pytest

from blocksd.files.root import Root
from blocksd.follow.names import NameRules, probe, rules_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class FileSystem:
    """A file system with names only, in which names are one whose keys are equal."""

    def __init__(self, key: Callable[[str], str]) -> None:
        self.key = key
        self.names: set[str] = set()

    def rules(self) -> NameRules:
        add, remove = self.names.add, self.names.discard
        return rules_of(
            lambda name: add(self.key(name)),
            lambda name: self.key(name) in self.names,
            lambda name: remove(self.key(name)),
        )


@pytest.mark.parametrize(
    ("key", "rules"),
    [
        (str, NameRules()),
        (str.casefold, NameRules(folds_case=True)),
        (lambda name: unicodedata.normalize("NFD", name), NameRules(folds_forms=True)),
        (lambda name: unicodedata.normalize("NFD", name).casefold(), NameRules(folds_case=True, folds_forms=True)),
    ],
)
def test_rules_are_found(key: Callable[[str], str], rules: NameRules) -> None:
    """And the file that tells is removed."""
    system = FileSystem(key)
    assert system.rules() == rules
    assert system.names == set()


def test_this_file_system_tells_all_names_apart(tmp_path: Path) -> None:
    """As file systems of Linux do; nothing is left behind."""
    assert probe(Root(str(tmp_path))).are_exact
    assert list(tmp_path.iterdir()) == []


def test_keys_are_equal_for_one_file() -> None:
    """In case, in composed letters, or both."""
    composed, decomposed = "É.md", unicodedata.normalize("NFD", "é.md")
    assert NameRules(folds_case=True).key("A/B.md") == NameRules(folds_case=True).key("a/b.md")
    assert NameRules(folds_case=True).key(composed) != NameRules(folds_case=True).key(decomposed)
    both = NameRules(folds_case=True, folds_forms=True)
    assert both.key(composed) == both.key(decomposed)
    assert NameRules().key(composed) == composed
