"""The memory that a daemon keeps."""

from __future__ import annotations

import ctypes
import os

import pytest

from blocksd.service.service import trim_memory

MIB = 1024 * 1024


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="this is not glibc")
def test_memory_that_was_needed_for_a_moment_goes_back_to_the_system() -> None:
    """Also where what is still needed lies above it, so that the heap cannot shrink."""
    held = [bytes([number % 256]) * 2000 for number in range(20_000)]
    before = resident()
    del held[:-1]
    trim_memory()
    assert resident() < before - 30 * MIB
    assert len(held[0]) == 2000
