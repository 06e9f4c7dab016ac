"""When the watchdog is not to be fed: named predicates, and nothing else.

A daemon that hangs, or half of which is dead, is to be started again. What it knows and has said is no reason for that:
a folder that cannot be watched, or a Redis that is away, would be the same afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

SILENT_SECONDS = 15.0
"""For how long Redis may not be heard of while the mirror counts as level, or on its way there."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """The parts of a daemon at one moment. That its loop lives is proven by asking."""

    is_polling: bool
    is_watching: bool  # file events come in, by threads that live
    is_blindness_said: bool  # a problem says that they do not
    is_level: bool
    is_levelling: bool
    is_absence_said: bool  # it was said that Redis is away, and why
    silent_seconds: float  # since Redis was last heard of
    is_reading: bool  # the thread that reads inboxes lives
    is_server_running: bool  # the embedded server; true if there is none
    is_server_loss_said: bool
    failing: tuple[str, ...] = ()  # parts of the loop that have done nothing but fail for long, each after "to"


def is_blind(vitals: Vitals) -> bool:
    """Whether saves are only seen when everything is compared, and nobody was told."""
    return not (vitals.is_polling or vitals.is_watching or vitals.is_blindness_said)


def is_cut_off(vitals: Vitals) -> bool:
    """Whether the mirror is neither level nor on its way there, and nobody was told."""
    return not (vitals.is_level or vitals.is_levelling or vitals.is_absence_said)


def is_stalled(vitals: Vitals) -> bool:
    """Whether the mirror is thought to be level, or on its way there, but nothing proves it."""
    return (vitals.is_level or vitals.is_levelling) and vitals.silent_seconds > SILENT_SECONDS


def is_deaf(vitals: Vitals) -> bool:
    """Whether nobody reads what agents ask for."""
    return not vitals.is_reading


def is_serverless(vitals: Vitals) -> bool:
    """Whether the embedded server is gone, and nobody was told."""
    return not (vitals.is_server_running or vitals.is_server_loss_said)


def is_failing(vitals: Vitals) -> bool:
    """Return True if a part of the loop does nothing but fail."""
    return bool(vitals.failing)


def ailments(vitals: Vitals) -> list[str]:
    """Why the watchdog is not to be fed, in words; none: the daemon is well, or has said what is wrong with it."""
    found = (
        (is_blind, "the folder is not watched"),
        (is_cut_off, "the mirror is not kept level"),
        (is_stalled, f"Redis has not been heard of for {SILENT_SECONDS:.0f} s"),
        (is_deaf, "nobody reads the inboxes"),
        (is_serverless, "the embedded server does not run"),
        (is_failing, f"it fails each time to {', to '.join(vitals.failing)}"),
    )
    return [words for predicate, words in found if predicate(vitals)]
