"""Failures that no line of the program meant: counted, told once, and shown without a flood."""

from __future__ import annotations

from blocksd.model.faults import Fault, Faults
from blocksd.model.problem import INTERNAL, Problems


def fail(text: str) -> BaseException:
    """An exception as it is caught."""
    try:
        raise KeyError(text)
    except KeyError as error:
        return error


def test_each_failure_is_counted_and_each_kind_told_once() -> None:
    """With where it happened; the problem says how often, and changes seldom."""
    told: list[tuple[Fault, bool]] = []
    problems = Problems(lambda: 0.0)
    faults = Faults(problems, lambda fault, is_new: told.append((fault, is_new)))
    error = faults.count_error("reading", fail("x" * 1000))
    assert (error.code, error.facts) == ("internal_error", {"error": "KeyError"})
    for _ in range(999):
        faults.count_error("reading", fail("y"))
    assert faults.count == 1000
    assert [is_new for _, is_new in told] == [True, *[False] * 999]
    fault = told[0][0]
    assert fault.place.startswith("test_faults.py:")
    assert "in fail" in fault.text
    assert len(fault.text) < 600, "what an exception quotes is cut off"
    assert problems.changes == 10
    assert "512 times or more" in problems[INTERNAL].message
    faults.count_error("writing", fail("z"))
    assert told[-1][1]
    assert problems.changes == 11


def test_kinds_have_a_bound() -> None:
    """What is told for each kind is told of a hundred: the rest counts."""
    told: list[bool] = []
    faults = Faults(Problems(lambda: 0.0), lambda _, is_new: told.append(is_new))
    for number in range(1000):
        faults.count_fault(Fault("reading", f"Error{number}", "x.py:1", ""))
    assert (sum(told), faults.count) == (100, 1000)
