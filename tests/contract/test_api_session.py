"""The page's session: signing in and out, a cookie that tells nothing, and that no other page can use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from blocksd.http import sessions
from gateways import FILE, TOKENS, daemon, gateway

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.testclient import TestClient

    from support import RedisServer

ORIGIN = "http://127.0.0.1:8283"
OWN = {"origin": ORIGIN}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with daemon(tmp_path_factory.mktemp("session")) as (running, _):
        yield running


@pytest.fixture
def http(server: RedisServer) -> Iterator[TestClient]:
    with gateway(server.url, tokens=FILE) as client:
        yield client


def signed_in(http: TestClient, who: str = "kim", **headers: str) -> Any:
    answer = http.post("/api/session", json={"token": TOKENS[who]}, headers={**OWN, **headers})
    assert answer.status_code == 200, answer.text
    return answer


def test_signing_in_and_out(http: TestClient) -> None:
    """With the cookie alone the browser is the caller; afterwards it is nobody again."""
    nobody = {"role": None, "name": None, "agent": None, "tokens": True}
    assert http.get("/api/session").json() == nobody
    assert http.get("/api/blocks").status_code == 401
    kim = {"role": "operator", "name": "kim", "agent": None, "tokens": True}
    assert signed_in(http).json() == kim
    assert http.get("/api/session").json() == kim
    assert http.get("/api/blocks").status_code == 200
    assert http.post("/api/blocks", json={"label": "by/cookie"}, headers=OWN).status_code == 201
    versions = http.get("/api/versions/by/cookie").json()["items"]
    assert [one["by"] for one in versions] == ["kim"]
    assert http.delete("/api/session", headers=OWN).json() == nobody
    assert http.get("/api/blocks").status_code == 401


def test_roles(http: TestClient) -> None:
    """An agent's session is the agent's, a reader's reads."""
    http.post("/api/agents", json={"id": "ann", "blocks": []}, headers={"authorization": f"Bearer {TOKENS['kim']}"})
    assert signed_in(http, "ann").json() == {"role": "agent", "name": None, "agent": "ann", "tokens": True}
    assert http.get("/api/blocks").json()["items"] == []
    assert signed_in(http, "reader").json()["role"] == "reader"
    assert http.post("/api/blocks", json={"label": "x"}, headers=OWN).status_code == 403
    assert http.get("/api/session", headers={"authorization": f"Bearer {TOKENS['kim']}"}).json()["name"] == "kim"


def test_cookie_tells_nothing(http: TestClient) -> None:
    """Scripts cannot read it, other sites do not send it, and the token is not in it."""
    cookie = signed_in(http).headers["set-cookie"]
    name, _, rest = cookie.partition("=")
    assert name == "blocksd-8283"
    assert TOKENS["kim"] not in cookie
    assert {"HttpOnly", "SameSite=Strict", "Path=/", f"Max-Age={sessions.SECONDS}"} <= set(rest.split("; "))
    assert "Secure" not in rest


def test_cookie_under_tls(server: RedisServer) -> None:
    """It is sent by TLS alone, whether the gateway speaks it or a proxy does."""
    with gateway(server.url, tokens=FILE, base="https://127.0.0.1") as http:
        cookie = signed_in(http, origin="https://127.0.0.1").headers["set-cookie"]
        assert cookie.startswith("__Host-blocksd=")
        assert cookie.endswith("; Secure")
        assert http.get("/api/session").json()["name"] == "kim"
    with gateway(server.url, tokens=FILE, base="http://127.0.0.1") as http:
        assert signed_in(http, origin="https://127.0.0.1").headers["set-cookie"].endswith("; Secure")


def test_other_gateways_know_the_session(server: RedisServer, http: TestClient) -> None:
    """Each that has the token; one in which it is not there any more does not."""
    cookie = signed_in(http).headers["set-cookie"].partition(";")[0]
    with gateway(server.url, tokens=FILE) as other:
        assert other.get("/api/session", headers={"cookie": cookie}).json()["name"] == "kim"
    with gateway(server.url, tokens=FILE.replace(TOKENS["kim"], "another-token-of-kim")) as other:
        assert other.get("/api/session", headers={"cookie": cookie}).json()["role"] is None
        assert other.get("/api/blocks", headers={"cookie": cookie}).status_code == 401


def test_false_cookies(http: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Changed, made up, or expired, they sign in nobody."""
    cookie = signed_in(http).headers["set-cookie"].partition(";")[0]
    http.cookies.clear()
    name, _, value = cookie.partition("=")
    expires, _, code = value.partition(".")

    def role(text: str) -> Any:
        answer = http.get("/api/session", headers={b"cookie": text.encode()})
        assert answer.status_code == 200
        return answer.json()["role"]

    assert role(cookie) == "operator"
    for wrong in (
        f"{name}={int(expires) + 1}.{code}",
        f"{name}={expires}.{code[:-1]}0" if code[-1] != "0" else f"{name}={expires}.{code[:-1]}1",
        f"{name}={expires}.",
        f"{name}=.{code}",
        f"{name}=99999999999999999999999999999.{code}",
        f"{name}={expires}.\u00e9",
        f"{name}=",
        f"blocksd-9283={value}",
        f"{name}={TOKENS['kim']}",
        ";;;==",
    ):
        assert role(wrong) is None, wrong
    with monkeypatch.context() as later:
        later.setattr("time.time", lambda: float(expires) + 1)
        assert role(cookie) is None


@pytest.mark.parametrize(
    "cookies",
    [
        'theme={"dark": true}; {}',
        "a b; {}",
        "a=b c; {}",
        'a="; {}',
        "a[]=1; {}",
        "\u00e9=\u00e9; {}",
        "{}; {",
        "blocksd-8283=1.2; {}",
        "{}; blocksd-8283=",
    ],
)
def test_cookies_of_other_programs(http: TestClient, cookies: str) -> None:
    """Cookies know no ports, and are not all as the standard has them: none of them ends a session."""
    cookie = signed_in(http).headers["set-cookie"].partition(";")[0]
    http.cookies.clear()
    answer = http.get("/api/session", headers={b"cookie": cookies.replace("{}", cookie).encode()})
    assert answer.json()["role"] == "operator"


def test_many_cookies_cost_little(http: TestClient) -> None:
    """Of the session's name only some are tried."""
    cookie = signed_in(http).headers["set-cookie"].partition(";")[0]
    http.cookies.clear()
    name = cookie.partition("=")[0]
    for number, role in ((9, "operator"), (10, None)):
        answer = http.get("/api/session", headers={"cookie": f"{name}=9999999999.x; " * number + cookie})
        assert answer.json()["role"] == role


def test_body_of_a_stranger_is_small(http: TestClient) -> None:
    """Each could take 4 MiB of memory otherwise, before it is known whose it is."""

    def chunks() -> Iterator[bytes]:
        yield from [b" " * 1024] * 17

    sizes = {"content-length": str(16 * 1024 + 1)}
    for content, headers in ((b" ", sizes), (chunks(), {})):
        answer = http.post("/api/session", content=content, headers=OWN | headers)
        assert (answer.status_code, answer.headers["connection"]) == (413, "close")
        assert "16384 bytes" in answer.json()["detail"]
    headers = {**OWN, "authorization": f"Bearer {TOKENS['kim']}"}
    assert http.post("/api/session", content=b" " * 20_000, headers=headers).status_code == 401


def test_wrong_tokens(http: TestClient) -> None:
    """401 or 422, with a sentence and without a cookie."""
    for body, status in (({"token": "not a token of anyone"}, 401), ({}, 401), ({"token": 3}, 422), ([], 422)):
        answer = http.post("/api/session", json=body, headers=OWN)
        assert (answer.status_code, "set-cookie" in answer.headers) == (status, False)
        assert answer.json()["detail"]


def test_other_pages_cannot_use_the_session(http: TestClient) -> None:
    """No change is made by the cookie unless the browser says that the gateway's page asks for it."""
    signed_in(http)
    same, cross, near = ({"sec-fetch-site": site} for site in ("same-origin", "cross-site", "same-site"))
    for number, (headers, status) in enumerate(
        (
            ({}, 403),  # a browser that says nothing
            ({"sec-fetch-site": "none"}, 403),
            (cross, 403),
            (near, 403),
            ({"origin": "http://evil.example"}, 403),
            ({"origin": "null"}, 403),
            ({"origin": "http://127.0.0.1:3000"}, 403),
            ({**OWN, **cross}, 403),
            ({"origin": "http://evil.example", **same}, 403),
            (OWN, 201),
            (same, 201),
            ({**OWN, **same}, 201),
        )
    ):
        for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
            label = f"forged/{number}/{kind.replace('/', '-')}"
            body = f'{{"label": "{label}"}}'
            answer = http.post("/api/blocks", content=body, headers={**headers, "content-type": kind})
            assert answer.status_code == status, (headers, answer.text)
            assert http.get(f"/api/blocks/{label}").status_code == (200 if status == 201 else 404)
    for method, path in (
        ("PATCH", "/api/blocks/x"),
        ("DELETE", "/api/blocks/x"),
        ("PUT", "/api/agents/x/blocks/x"),
        ("DELETE", "/api/session"),
        ("POST", "/v1/blocks/"),
        ("PATCH", "/v1/blocks/x"),
    ):
        assert http.request(method, path, headers=cross, json={}).status_code == 403, path
    assert http.get("/api/session").json()["name"] == "kim"


def test_other_pages_cannot_sign_in(http: TestClient) -> None:
    """So that nobody works in another's name without knowing."""
    for headers in ({"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"}):
        answer = http.post("/api/session", json={"token": TOKENS["reader"]}, headers=headers)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


def test_other_pages_change_nothing_where_no_tokens_are_set(server: RedisServer) -> None:
    """Without a cookie, too."""
    with gateway(server.url, by="sam") as http:
        anyone = {"role": "operator", "name": "sam", "agent": None, "tokens": False}
        assert http.get("/api/session").json() == anyone
        answer = http.post("/api/session", json={"token": "x"}, headers=OWN)
        assert (answer.json(), "set-cookie" in answer.headers) == (anyone, False)
        for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "null"}):
            assert http.post("/api/blocks", json={"label": "planted"}, headers=headers).status_code == 403
        assert http.post("/api/blocks", json={"label": "planted"}).status_code == 201
