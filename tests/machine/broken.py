"""A promise that was not kept, by the name of the check that noticed."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")


class Broken(AssertionError):
    """`check` is the name of the promise: each mutant says which one must catch it."""

    def __init__(self, check: str, *facts: object) -> None:
        super().__init__(f"{check}: {' '.join(map(str, facts))}")
        self.check = check


def must(check: str, holds: object, *facts: object) -> None:
    """Raise Broken unless it holds. The facts are put into words only then."""
    if not holds:
        raise Broken(check, *facts)


def checks(check: str) -> Callable[[Callable[_Given, _Result]], Callable[_Given, _Result]]:
    """Give a function's plain assertions the name of a check."""

    def decorated(function: Callable[_Given, _Result]) -> Callable[_Given, _Result]:
        @wraps(function)
        def checking(*args: _Given.args, **options: _Given.kwargs) -> _Result:
            try:
                return function(*args, **options)
            except Broken:
                raise
            except AssertionError as error:
                raise Broken(check, error) from error

        return checking

    return decorated
