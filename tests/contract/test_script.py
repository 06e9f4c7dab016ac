"""A script is called now, and its outcome waited for later, alike on every server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from blocksd.errors import Damaged, Unavailable
from blocksd.mirror.connection import connect
from blocksd.mirror.script import Script

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench import Bench
    from support import RedisServer

KEYS = ("blocks:lease", "blocks:meta", "blocks:changes")


def called(client: Any, url: str) -> Script:
    """The script that applies commands, for who holds the lease."""
    client.set("blocks:lease", "mine")
    return Script(client, "apply.lua", url=url)


def words_of(commands: Iterable[tuple[str, ...]]) -> list[str]:
    return [word for command in commands for word in (str(len(command)), *command)]


def send(script: Script, *commands: tuple[str, ...]) -> None:
    script.send(KEYS, ("mine", "", "", "PUBLISH", *words_of(commands)))


def test_outcome_is_that_of_the_call(bench: Bench) -> None:
    """What was sent is under way until its outcome was waited for; then the next may be sent."""
    script = called(bench.client, bench.url)
    assert not script.under_way
    for number in range(3):
        send(script, ("SET", "blocks:x", str(number)))
        assert script.under_way
        assert script.outcome() == ["ok"]
        assert not script.under_way
        assert bench.client.get("blocks:x") == str(number)


def test_script_the_server_forgot_is_loaded_again(bench: Bench) -> None:
    """NOSCRIPT is not seen by who calls it."""
    script = called(bench.client, bench.url)
    bench.client.script_flush()
    send(script, ("SET", "blocks:x", "1"))
    assert script.outcome() == ["ok"]
    assert bench.client.get("blocks:x") == "1"


@pytest.mark.every_backend
@pytest.mark.parametrize("is_sent", [True, False], ids=["sent ahead", "called"])
def test_script_that_is_never_kept_is_run_all_the_same(any_server: RedisServer, *, is_sent: bool) -> None:
    """NOSCRIPT at any moment: the scripts are flushed before every command, also between loading one and calling it."""
    client = connect(any_server.url)
    script = called(client, any_server.url)
    flushing = any_server.client()
    execute = client.execute_command

    def flush_first(*words: Any, **options: Any) -> Any:
        flushing.script_flush()
        return execute(*words, **options)

    client.execute_command = flush_first
    for number in range(3):
        flushing.script_flush()
        words = words_of([("SET", "blocks:x", str(number))])
        if is_sent:
            script.send(KEYS, ("mine", "", "", "PUBLISH", *words))
            assert script.outcome() == ["ok"]
        else:
            assert script.call(KEYS, ("mine", "", "", "PUBLISH", *words)) == ["ok"]
        assert flushing.get("blocks:x") == str(number)
    flushing.close()
    client.close()


def test_error_of_a_script_leaves_nothing_under_way(bench: Bench) -> None:
    """It is raised, with the server's words, and the outcome of the next call is its own."""
    script = called(bench.client, bench.url)
    send(script, ("SET", "blocks:x", "1"), ("SADD", "blocks:x", "1"))
    with pytest.raises(Damaged, match="WRONGTYPE"):
        script.outcome()
    assert not script.under_way
    send(script, ("DEL", "blocks:x"))
    assert script.outcome() == ["ok"]


@pytest.mark.every_backend
def test_call_after_the_server_was_away(any_server: RedisServer) -> None:
    """One that cannot be sent, or answered, is Unavailable and no longer under way; one sent after that is done."""
    client = connect(any_server.url)
    script = called(client, any_server.url)
    assert script.server is None
    send(script, ("SET", "blocks:x", "1"))
    assert script.outcome() == ["ok"]
    assert str(script.server).startswith(("Valkey ", "Redis "))
    any_server.pause()
    send(script, ("SET", "blocks:x", "2"))
    any_server.kill()
    with pytest.raises(Unavailable):
        script.outcome()
    assert not script.under_way
    with pytest.raises(Unavailable):
        send(script, ("SET", "blocks:x", "2"))
    assert not script.under_way
    any_server.start()
    client.set("blocks:lease", "mine")
    send(script, ("SET", "blocks:x", "3"))
    assert script.outcome() == ["ok"]
    assert client.get("blocks:x") == "3"
    client.close()
