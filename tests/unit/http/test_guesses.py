"""Wrong tokens: counted by address for a minute, refused when they are too many, and never in the way of a right one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from blocksd.http.guesses import _MOST_ADDRESSES, MOST, SECONDS, Guesses
from gateways import FILE, TOKENS, gateway

if TYPE_CHECKING:
    import pytest

NOWHERE = "unix:///nowhere.sock"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def of(address: str) -> dict[str, Any]:
    return {"client": (address, 1234)}


def test_many_wrong_tokens_of_one_address() -> None:
    """They are told to wait for the rest of the minute; then the count begins anew. Other addresses are not concerned."""
    clock = Clock()
    guesses = Guesses(clock)
    assert [guesses.count(of("192.0.2.1")) for _ in range(MOST)] == [0.0] * MOST
    clock.now += 20
    assert guesses.count(of("192.0.2.1")) == SECONDS - 20
    assert guesses.count(of("192.0.2.2")) == 0.0
    answer = guesses.refused(of("192.0.2.1"), "Unauthorized")
    assert (answer.status_code, answer.headers["retry-after"], answer.headers["connection"]) == (429, "40", "close")
    clock.now += SECONDS - 20
    assert guesses.refused(of("192.0.2.1"), "Unauthorized").status_code == 401
    assert guesses.total == MOST + 4


def test_addresses_of_one_network_of_ipv6() -> None:
    """One machine has all of them."""
    guesses = Guesses()
    for number in range(MOST):
        assert guesses.count(of(f"2001:db8::{number:x}")) == 0.0
    assert guesses.count(of("2001:db8::ffff:1")) > 0
    assert guesses.count(of("2001:db8:0:1::1")) == 0.0


def test_what_is_remembered_is_bounded() -> None:
    """However many addresses send wrong tokens; those of last are remembered."""
    guesses = Guesses()
    for number in range(2 * _MOST_ADDRESSES):
        guesses.count(of(f"10.0.{number // 256}.{number % 256}"))
    guesses.count({})  # without an address
    guesses.count(of("x" * 10_000))
    assert len(guesses._found) == _MOST_ADDRESSES
    assert max(map(len, guesses._found)) <= 100


def test_log_names_an_address_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Not once for each guess, nor for each of many addresses."""
    clock = Clock()
    guesses = Guesses(clock)
    for _ in range(2):
        for number in range(3):
            for _ in range(MOST + 5):
                guesses.count(of(f"192.0.2.{number}"))
        clock.now += SECONDS
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(told) == 2
    assert "192.0.2.0" in told[0]


def test_right_tokens_are_taken_at_any_time() -> None:
    """Also from the address that guesses, and on the route that signs in; what has no token gets 401, and is not counted."""
    with gateway(NOWHERE, tokens=FILE) as http:
        right = {"authorization": f"Bearer {TOKENS['kim']}"}
        for _ in range(MOST + 5):
            assert http.get("/v1/nothing").status_code == 401
        statuses = [
            http.get("/v1/nothing", headers={"authorization": f"Bearer guess-{number}"}).status_code
            for number in range(MOST)
        ]
        assert statuses == [401] * MOST
        assert http.get("/v1/nothing", headers={"x-bare-password": "password another-guess"}).status_code == 429
        assert http.post("/api/session", json={"token": "another-guess"}).status_code == 429
        assert http.get("/v1/nothing", headers=right).status_code == 404
        assert http.post("/api/session", json={"token": TOKENS["reader"]}).status_code == 200
        http.cookies.clear()
        assert http.get("/v1/nothing").status_code == 401
        assert f"blocksd_http_wrong_tokens_total {MOST + 2}.0" in http.get("/metrics", headers=right).text
