"""The metrics of the gateway."""

from __future__ import annotations

import asyncio
from unittest.mock import Mock

import pytest

from blocksd.http import app as gateway_app
from blocksd.http.api.feed import Feed
from blocksd.http.api.stream import Stream, Wanted
from blocksd.http.guesses import Guesses
from blocksd.http.metrics import Metrics, group_of
from gateways import FILE, TOKENS, gateway

NOWHERE = "redis://127.0.0.1:1"


def counted(text: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in text.splitlines() if line.startswith("blocksd_http_requests_total"))
    return {name.partition("{")[2].rstrip("}"): float(value) for name, _, value in lines}


def test_requests_are_counted_by_route_and_status() -> None:
    """A path that is no route's is counted with all others that are none: garbage makes no series."""
    with gateway(NOWHERE) as client:
        client.get("/v1/blocks/one")
        client.get("/latest/blocks/two/")
        for number in range(3):
            client.get(f"/nothing-{number}/{number}")
        answer = client.get("/metrics")
    assert counted(answer.text) == {
        'route="/v1/blocks",status="503"': 2,
        'route="other",status="404"': 3,
    }
    assert 'blocksd_http_request_seconds_count{route="/v1/blocks"} 2.0' in answer.text


def test_streams_are_counted() -> None:
    """Those there are, and those that were cut off, once each."""

    async def run() -> None:
        feed = Feed(Mock(), Mock(), asyncio.Event())
        streams = [Stream(Wanted()) for _ in range(3)]
        feed._streams = dict.fromkeys(streams)
        streams[0].cut()
        for stream in (*streams[:2], streams[0]):
            feed.leave(stream)
        page = Metrics([], feed, Guesses()).page().decode()
        assert "blocksd_http_streams 1.0" in page
        assert "blocksd_http_streams_cut_off_total 1.0" in page

    asyncio.run(run())


def test_metrics_are_for_operators_and_readers() -> None:
    """An agent learns nothing of what others do."""
    with gateway(NOWHERE, tokens=FILE) as client:
        answers = {
            name: client.get("/metrics", headers={"authorization": f"Bearer {token}"}).status_code
            for name, token in TOKENS.items()
        }
        assert client.get("/metrics").status_code == 401
    assert answers == {"kim": 200, "reader": 200, "ann": 403, "bob": 403}


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer names the command that installs it; all else is served."""
    monkeypatch.setattr(gateway_app, "IS_AVAILABLE", False)
    with gateway(NOWHERE) as client:
        answer = client.get("/metrics")
        assert (answer.status_code, "pip install" in answer.json()["detail"]) == (404, True)
        assert client.get("/v1/blocks/one").status_code == 503


@pytest.mark.parametrize(
    ("path", "group"),
    [
        ("/v1/blocks/a/b", "/v1/blocks"),
        ("/latest/agents", "/v1/agents"),
        ("/", "/"),
        ("*", "/"),
        ("", "/"),
        ("/x", "/x"),
    ],
)
def test_groups_of_paths(path: str, group: str) -> None:
    assert group_of(path) == group
