"""Labels of the blocks in force ↔ paths of their files: most files are named as their blocks are."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import TYPE_CHECKING

from blocksd.model.label import SUFFIX

if TYPE_CHECKING:
    from collections.abc import Iterator, KeysView


class Paths(MutableMapping[str, str]):
    """The path of each block's file, by label. The labels are those of the dictionary that has the versions."""

    def __init__(self, versions: dict[str, int]) -> None:
        self._versions = versions
        # Those of files that are named otherwise: in another spelling, or an agent's properties.
        self.odd: dict[str, str] = {}
        self._labels: dict[str, str] = {}  # of these, by path

    def get(self, label: str, default: str | None = None) -> str | None:  # type: ignore[override]  # no other default is used
        """Return the path of a label; `default` when no block in force has it."""
        if label not in self._versions:
            return default
        return self.odd.get(label, label + SUFFIX)

    def __getitem__(self, label: str) -> str:
        path = self.get(label)
        if path is None:
            raise KeyError(label)
        return path

    def __setitem__(self, label: str, path: str) -> None:
        self._versions.setdefault(label, 0)
        self._labels.pop(self.odd.pop(label, ""), None)
        if path != label + SUFFIX:
            self.odd[label], self._labels[path] = path, label

    def __delitem__(self, label: str) -> None:
        del self._versions[label]
        self._labels.pop(self.odd.pop(label, ""), None)

    def __contains__(self, label: object) -> bool:
        return label in self._versions

    def __iter__(self) -> Iterator[str]:
        return iter(self._versions)

    def __len__(self) -> int:
        return len(self._versions)

    def keys(self) -> KeysView[str]:
        """Return the labels."""
        return self._versions.keys()

    def label_of(self, path: str) -> str | None:
        """Return the label of the block in force whose file has this path."""
        label = path.removesuffix(SUFFIX)
        if label in self._versions and label not in self.odd and len(label) < len(path):
            return label
        return self._labels.get(path)


class Labels(Mapping[str, str]):
    """The label of each file of a block in force, by path."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def get(self, path: str, default: str | None = None) -> str | None:  # type: ignore[override]  # as above
        """Return the label of a path; `default` when it is not that of a block in force."""
        label = self._paths.label_of(path)
        return default if label is None else label

    def __getitem__(self, path: str) -> str:
        label = self._paths.label_of(path)
        if label is None:
            raise KeyError(path)
        return label

    def __contains__(self, path: object) -> bool:
        return isinstance(path, str) and self._paths.label_of(path) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths.values())

    def __len__(self) -> int:
        return len(self._paths)
