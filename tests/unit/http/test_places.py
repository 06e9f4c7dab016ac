"""Places: where the gateway may listen, and which hosts and origins are taken for its own."""

from __future__ import annotations

import pytest

from blocksd.errors import Misconfigured
from blocksd.http.guard import one_form
from blocksd.http.places import Places, check_address


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "127.9.9.9", "localhost", "LOCALHOST"])
def test_this_machine_needs_no_tokens(host: str) -> None:
    """A program of this machine could change the files as well."""
    check_address(host, has_tokens=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "nowhere.invalid"])
def test_other_addresses_need_tokens(host: str) -> None:
    """The refusal says what to set."""
    with pytest.raises(Misconfigured, match="set tokens or tokens_file"):
        check_address(host, has_tokens=False)
    check_address(host, has_tokens=True)


def test_hosts_without_tokens() -> None:
    """Names of this machine, with any port, and those that are set: no other name, which a foreign page could have."""
    places = Places("memory.example.com, Blocks.Local", has_tokens=False)
    for ours in ("localhost", "localhost:8283", "127.0.0.1:1", "[::1]:8283", "memory.example.com", "blocks.local:80"):
        assert places.is_ours(ours), ours
    for foreign in (
        "",
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a@localhost",
        "localhost:x",
    ):
        assert not places.is_ours(foreign), foreign


def test_hosts_with_tokens() -> None:
    """Any name, unless some are set: a page that has the gateway's name by DNS rebinding still has no token."""
    assert Places(None, has_tokens=True).is_ours("anything.example")
    assert not Places("memory.example.com", has_tokens=True).is_ours("anything.example")


def test_origins() -> None:
    """The gateway's own pages alone; another port of this machine is another program."""
    places = Places("memory.example.com", has_tokens=False)
    assert places.is_own_page("http://localhost:8283", "localhost:8283")
    assert places.is_own_page("https://memory.example.com", "127.0.0.1:8283")
    for foreign in ("null", "", "http://evil.example", "http://localhost:3000", "http://[", "http://127.0.0.1:8283"):
        assert not places.is_own_page(foreign, "localhost:8283"), foreign


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/latest/blocks/", "/v1/blocks"),
        (b"/v1/blocks", "/v1/blocks"),
        (b"/v1/blocks/a%2Fb/", "/v1/blocks/a%2Fb"),
        (b"/v1/blocks/?x=/", "/v1/blocks"),
        (b"/", "/"),
        (b"///", "/"),
        (b"/latest", "/latest"),
    ],
)
def test_one_form_of_a_path(raw: bytes, path: str) -> None:
    """As it was sent, without a slash at the end, and under /v1."""
    assert one_form(raw) == path
