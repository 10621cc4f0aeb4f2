"""Refused commands: error texts of all server versions, one log line a minute, and no script call."""

from dataclasses import replace

import pytest
from redis.exceptions import NoPermissionError, ResponseError
from structlog.testing import capture_logs

from registry.errors import StoreUnavailable
from registry.store.redis.access_guard import AccessGuard
from registry.store.redis.connection import in_memory_endpoint
from registry.store.redis.errors import raise_for_error, refusal
from registry.store.redis.pipeline import Pipeline
from registry.store.scripts import load_scripts

# Error replies without their code, as Redis 7.0.15 and 8.2.3 and Valkey 8.1.1, 9.0.0 and 9.1.2 send them; Redis 7.2 and
# 7.4 have the texts of 8.
RENAMED = "unknown command 'ZADD', with args beginning with: 'k' '1' 'x' "
REFUSALS = {
    "Redis 7.0": ("this user has no permissions to run the 'zadd' command", "ZADD"),
    "Redis 7.0, subcommand": ("this user has no permissions to run the 'config|get' command", "CONFIG|GET"),
    "Redis 7.0, key": ("this user has no permissions to access one of the keys used as arguments", "a key of the mesh"),
    "Redis 7.0, script": (
        "The user executing the script can't run this command or subcommand script: dc9dd01, on @user_script:5.",
        "",
    ),
    "Redis 7.0, key in a script": (
        "The user executing the script can't access at least one of the keys mentioned in the command arguments",
        "a key of the mesh",
    ),
    "Redis 8, Valkey": ("User app has no permissions to run the 'zadd' command", "ZADD"),
    "Redis 8, Valkey, key": ("No permissions to access a key", "a key of the mesh"),
    "Redis 8, Valkey 8, script": (
        "ACL failure in script: User app has no permissions to run the 'zadd' command script: dc9d, on @user_script:5.",
        "ZADD",
    ),
    "Redis 8, Valkey 8, key in a script": (
        "ACL failure in script: No permissions to access a key script: f0d4bde, on @user_script:2.",
        "a key of the mesh",
    ),
    "Valkey 9.1, script": (
        "ACL failure in script: User app has no permissions to run the 'zadd' command script: on @user_script:5.",
        "ZADD",
    ),
    "renamed": (RENAMED, "ZADD"),
    "Redis, renamed, script": (
        "Unknown Redis command called from script script: dc9dd01, on @user_script:5.",
        "",
    ),
    "Valkey, renamed, script": ("Unknown command called from script script: on @user_script:5.", ""),
}


@pytest.mark.parametrize(("text", "command"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal_is_recognized_by_its_text(text: str, command: str) -> None:
    """It is the reason `auth`, and names the command where the reply does."""
    assert refusal(ResponseError(text)) == command
    with pytest.raises(StoreUnavailable) as caught:
        raise_for_error(ResponseError(text))
    assert caught.value.reason == "auth"


def test_arguments_are_not_in_the_message() -> None:
    """They may be secrets of an agent."""
    with pytest.raises(StoreUnavailable) as caught:
        raise_for_error(ResponseError(RENAMED))

    assert "ZADD" in str(caught.value)
    assert "'x'" not in str(caught.value)


def test_other_errors_are_no_refusals() -> None:
    """Nor are replies."""
    for reply in (ResponseError("WRONGTYPE Operation against a key"), NoPermissionError(""), b"text", None):
        assert refusal(reply) is None


async def test_a_script_error_without_a_name_gets_that_of_its_line() -> None:
    """The line of each call leads to its command, where the call takes several lines, too."""
    pipeline = Pipeline(in_memory_endpoint().connect, shebang=False)
    text = "redis.call('GET', version)\nredis.call(\n  'HSET', agent, 'a', 'b'\n)\n"
    script = replace(load_scripts()["sweep"], text=text)
    reply = ResponseError("Unknown command called from script script: on @user_script:2.")

    error = pipeline._name_refusal(
        script.call(dict.fromkeys(script.keys, b"k"), dict.fromkeys(script.args, "1")), reply
    )

    assert (error.reason, error.outcome, error.__cause__) == ("auth", "unknown", reply)
    assert pipeline.guard.refused == ("HSET",)
    with pytest.raises(StoreUnavailable, match="HSET") as caught:
        await pipeline.call_scripts([])
    assert caught.value.outcome == "not_sent"


def test_refusals_are_logged_once_a_minute() -> None:
    """Their end is logged, too."""
    now = 100.0
    guard = AccessGuard(lambda: now)
    with capture_logs() as logs:
        for seconds in range(119):
            now = 100.0 + seconds
            guard.add("ZADD")
            guard.replace({"TIME"})
        guard.replace(())
        guard.replace(())

    assert [(entry["event"], entry["log_level"]) for entry in logs] == [
        ("redis_access_refused", "error"),
        ("redis_access_refused", "error"),
        ("redis_access_restored", "warning"),
    ]
    assert logs[0]["error"] == "Redis refuses ZADD"
