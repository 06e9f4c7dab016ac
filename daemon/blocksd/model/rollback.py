"""Dictionaries and sets that can be put back to what they held at a mark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

K = TypeVar("K")
V = TypeVar("V")

_NOTHING: Any = object()


class Undo:
    """The steps that take changes back, in the order in which the changes were made.

    A roll-back costs as much as was changed since the mark, however much there is.
    """

    __slots__ = ("_steps",)

    def __init__(self) -> None:
        self._steps: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def add(self, step: Callable[..., object], *arguments: Any) -> None:
        """Note the step that takes back the change that follows."""
        self._steps.append((step, arguments))

    @property
    def mark(self) -> int:
        """The present moment, for `back_to`."""
        return len(self._steps)

    def back_to(self, mark: int) -> None:
        """Take back every change since the mark, the newest first."""
        steps = self._steps
        while len(steps) > mark:
            step, arguments = steps.pop()
            step(*arguments)

    def forget(self) -> None:
        """Let every change so far stand: no earlier mark is valid after this."""
        self._steps.clear()


class UndoDict(dict[K, V]):
    """A dictionary whose changes are noted in an `Undo`. Reading it costs what reading any dictionary costs."""

    __slots__ = ("_undo",)

    def __init__(self, undo: Undo, content: Mapping[K, V] | None = None) -> None:
        super().__init__(content or {})
        self._undo = undo

    def _note(self, key: K) -> None:
        if key in self:
            self._undo.add(dict.__setitem__, self, key, self[key])
        else:
            self._undo.add(dict.pop, self, key, None)

    def __setitem__(self, key: K, value: V) -> None:
        if self.get(key, _NOTHING) is value:
            return
        self._note(key)
        super().__setitem__(key, value)

    def __delitem__(self, key: K) -> None:
        self._note(key)
        super().__delitem__(key)

    def pop(self, key: K, *default: Any) -> Any:
        if key in self:
            self._note(key)
        return super().pop(key, *default)

    def setdefault(self, key: K, default: V) -> V:
        if key not in self:
            self[key] = default
        return self[key]

    def load(self, key: K, value: V) -> None:
        """Store a value that no roll-back takes away: while everything is being loaded."""
        super().__setitem__(key, value)

    def _not_undone(self, *_: Any, **__: Any) -> Any:
        raise TypeError("this change of a dictionary could not be taken back")

    clear = popitem = update = __ior__ = _not_undone


class UndoSet(set[K]):
    """A set whose changes, by `add` and `discard`, are noted in an `Undo`."""

    __slots__ = ("_undo",)

    def __init__(self, undo: Undo, content: Iterable[K] = ()) -> None:
        super().__init__(content)
        self._undo = undo

    def add(self, element: K) -> None:
        if element not in self:
            self._undo.add(set.discard, self, element)
            super().add(element)

    def discard(self, element: object) -> None:
        if element in self:
            self._undo.add(set.add, self, element)
            super().discard(element)
