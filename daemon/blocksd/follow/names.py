"""Tells which names the file system of a folder takes for one: in case, or in composed letters."""

from __future__ import annotations

import os
import secrets
import unicodedata
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from blocksd.model.label import TEMPORARY

if TYPE_CHECKING:
    from collections.abc import Callable

    from blocksd.files.root import Root


class NameRules(NamedTuple):
    """The names that a file system takes for one."""

    folds_case: bool = False
    """`A` and `a` are one name."""
    folds_forms: bool = False
    """A letter with a mark, composed (NFC) and decomposed (NFD), is one name; a listing may show either."""

    def key(self, path: str) -> str:
        """Return a key that is equal for paths that are one file there."""
        if self.folds_forms:
            path = unicodedata.normalize("NFC", path)
        return path.casefold() if self.folds_case else path

    @property
    def are_exact(self) -> bool:
        """True if every path is a file for itself."""
        return not (self.folds_case or self.folds_forms)


def probe(root: Root) -> NameRules:
    """Find the rules of a folder's file system, with a file that is removed again.

    Raises:
        OSError: no file can be made there.
    """
    return rules_of(lambda name: _make(root, name), root.exists, root.unlink)


def rules_of(
    make: Callable[[str], object], exists: Callable[[str], bool], remove: Callable[[str], object]
) -> NameRules:
    """Find the rules of a file system by these calls, each of which takes a name."""
    name = f"{TEMPORARY}{secrets.token_hex(8)}-é"
    make(name)
    try:
        return NameRules(folds_case=exists(name.upper()), folds_forms=exists(unicodedata.normalize("NFD", name)))
    finally:
        with suppress(OSError):
            remove(name)


def _make(root: Root, name: str) -> None:
    root.close(root.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
