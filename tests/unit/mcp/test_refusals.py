"""What a model is told of errors that are not its own."""

from __future__ import annotations

import pytest
import redis

from blocksd.errors import BlocksdError
from blocksd.mcp.refusals import refusal
from blocksd.mirror.connection import translated

URL = "redis://agent-sam:secret@redis.internal:6379"
DENIED = "Command # 1 (XADD blocks:inbox:operator * request {}) of pipeline caused error: no permissions"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (redis.ConnectionError("Error 111 connecting to redis.internal:6379"), "Redis does not serve"),
        (redis.AuthenticationError("invalid username-password pair"), "Redis refuses the login. Next"),
        (redis.exceptions.NoPermissionError(DENIED), "Redis does not permit this to its user. Next"),
        (redis.ResponseError("WRONGTYPE Operation against a key"), "Redis refuses a command: WRONGTYPE"),
    ],
)
def test_no_address_of_redis_is_told(error: redis.RedisError, said: str) -> None:
    """Nor its user, or the command that it refuses: over HTTP, the caller is a stranger to them."""
    with pytest.raises(BlocksdError) as caught, translated(URL):
        raise error
    text = refusal(caught.value)
    assert text.startswith(f"Not done: {said}")
    for secret in ("internal", "agent-sam", "secret", "XADD"):
        assert secret not in text
