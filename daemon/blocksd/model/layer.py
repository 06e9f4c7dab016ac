"""Changes on top of a dictionary, which stays as it is until they are merged into it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

K = TypeVar("K")
V = TypeVar("V")

_GONE: Any = object()
_ABSENT: Any = object()


class Layer(MutableMapping[K, V]):
    """A dictionary in which only what differs from `base` is held. It costs what was changed, however much there is.

    A value that is a layer itself is merged with the layer it is in.
    """

    __slots__ = ("_changes", "base")

    def __init__(self, base: MutableMapping[K, V]) -> None:
        self.base = base
        self._changes: dict[K, V] = {}

    def __getitem__(self, key: K) -> V:
        if key not in self._changes:
            return self.base[key]
        value = self._changes[key]
        if value is _GONE:
            raise KeyError(key)
        return value

    def get(self, key: K, default: Any = None) -> Any:
        """Return the value of a key, without the exceptions by which `MutableMapping` does."""
        value = self._changes.get(key, _ABSENT)
        return self.base.get(key, default) if value is _ABSENT else default if value is _GONE else value

    def pop(self, key: K, *default: Any) -> Any:
        """Remove a key and return its value."""
        value = self.get(key, _ABSENT)
        if value is not _ABSENT:
            self._changes[key] = _GONE
        elif not default:
            raise KeyError(key)
        else:
            value = default[0]
        return value

    def __contains__(self, key: object) -> bool:
        changes: dict[object, V] = self._changes  # type: ignore[assignment]  # it is only read here
        return changes[key] is not _GONE if key in changes else key in self.base

    def __setitem__(self, key: K, value: V) -> None:
        self._changes[key] = value

    def __delitem__(self, key: K) -> None:
        if key not in self:
            raise KeyError(key)
        self._changes[key] = _GONE

    def __iter__(self) -> Iterator[K]:
        changes = self._changes
        yield from (key for key in self.base if key not in changes)
        yield from (key for key, value in changes.items() if value is not _GONE)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def has_changed(self, key: K) -> bool:
        """Return True if the key was set or removed in this layer."""
        return key in self._changes

    def merge(self) -> None:
        """Make the changes in the dictionary below."""
        for key, value in self._changes.items():
            if value is _GONE:
                self.base.pop(key, None)
                continue
            if isinstance(value, Layer):
                value.merge()
                self.base[key] = value.base  # type: ignore[assignment]  # the dictionary that this is a layer of
            else:
                self.base[key] = value
        self._changes = {}
