"""One pipelining connection to Redis: commands go out together, replies come back in order."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AuthenticationError,
    MovedError,
    NoScriptError,
    RedisError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from registry.errors import StoreUnavailable, WriteOutcome
from registry.store.redis.connection import invalidate, is_stale, read_reply
from registry.store.redis.errors import WRONG_SERVER_REASONS, unavailable_reason
from registry.store.scripts import Command, ScriptCall

# Milliseconds for the replicas to acknowledge; twice, where a script was forgotten, within the exchange's two seconds.
_REPLICA_ACK_TIMEOUT_MS = 750
# These say that nothing was written, so there is nothing to wait for.
_STATUSES_WITHOUT_WRITE = frozenset({b"stale_version", b"unknown_agent"})


class Pipeline:
    """One connection, opened when it is first needed and again after any trouble; one exchange at a time.

    `timeout` bounds an exchange in seconds, connecting included. Nothing is ever repeated here: who may repeat is the
    caller's decision. `connections_opened` counts the connections there were. `observe` is told the script and the
    seconds of each
    script call. A cancelled or failed exchange closes the connection, so no reply can reach the wrong caller. Once
    closed it stays closed.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        *,
        timeout: float = 2.0,
        observe: Callable[[str, float], None] = lambda _script, _seconds: None,
    ) -> None:
        self.connections_opened = 0
        self._connect = connect
        self._timeout = timeout
        self._observe = observe
        self._connection: AbstractConnection | None = None
        self._closed = False
        self._lock = asyncio.Lock()

    async def execute(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Any]:
        """Send the commands in one go and return one reply for each; an error reply is returned, not raised.

        Raises StoreUnavailable when no connection can be had (`not_sent`) or it broke on the way (`unknown`).
        """
        outcome: WriteOutcome = "not_sent"
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout), self._lock:
                try:
                    connection = await self._ensure_connected()
                    outcome = "unknown"
                    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                    replies = [await read_reply(connection) for _ in commands]
                    await self._check_server(connection, replies)
                except BaseException:
                    await self._disconnect()
                    raise
                return replies
        except (TimeoutError, RedisTimeoutError) as error:
            raise StoreUnavailable("Redis did not answer in time", outcome=outcome, reason="timeout") from error
        except (RedisError, OSError, EOFError) as error:
            # redis-py wraps what goes wrong while connecting. Where Redis is concerns the log, which has the cause, and
            # not whoever asked.
            for each in (error, error.__cause__):
                if isinstance(each, AuthenticationError):
                    raise StoreUnavailable("Redis refuses the user and password it was given", reason="auth") from error
                if each is not None and (reason := unavailable_reason(each)):
                    what = f"Redis cannot be used now: {reason}"
                    raise StoreUnavailable(what, outcome=outcome, reason=reason) from error
            raise StoreUnavailable("Redis is out of reach", outcome=outcome) from error

    async def call_scripts(self, calls: Sequence[ScriptCall], *, acks: int = 0) -> list[Any]:
        """Call scripts; one reply each, error replies returned. A forgotten script is sent again, whole, by itself.

        With `acks` one WAIT for so many replicas stands behind the calls; where too few had acknowledged in time, the
        reply of each call that wrote is a StoreUnavailable (`unknown`): it is done, but may be lost.
        """
        began = time.perf_counter()
        wait: list[Command] = [("WAIT", acks, _REPLICA_ACK_TIMEOUT_MS)] if acks else []
        replies = await self.execute([*(call.evalsha for call in calls), *wait])
        forgotten = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if forgotten:
            try:
                again = await self.execute([*(calls[at].eval for at in forgotten), *wait])
            except StoreUnavailable as error:
                # The others were carried out; only these were not, or perhaps not.
                again = [error] * len(forgotten) + replies[len(calls) :]
            for at, reply in zip([*forgotten, *range(len(calls), len(replies))], again, strict=True):
                replies[at] = reply
        if wait:
            replies = _check_replica_acks(replies, acks)
        self._observe(calls[0].script.name, time.perf_counter() - began)
        return replies

    async def execute_write(self, commands: Sequence[Command], *, acks: int = 0) -> list[Any]:
        """Send write commands as `execute` does; with `acks`, wait for so many replicas as `call_scripts` does."""
        if not acks:
            return await self.execute(commands)
        return _check_replica_acks(await self.execute([*commands, ("WAIT", acks, _REPLICA_ACK_TIMEOUT_MS)]), acks)

    async def close(self) -> None:
        """Close the connection, for good and at once: an exchange under way fails, and so does any after it."""
        self._closed = True
        await self._disconnect()

    async def _ensure_connected(self) -> AbstractConnection:
        """Return the open connection. One on which something arrived unasked has ended: take a new one."""
        if self._closed:
            raise ConnectionAbortedError
        connection = self._connection
        if connection is not None and (
            not connection.is_connected or is_stale(connection) or await connection.can_read()
        ):
            await self._disconnect()
            connection = None
        if connection is None:
            connection = self._connect()
            await connection.connect()  # type: ignore[no-untyped-call]
            self._connection = connection
            self.connections_opened += 1
            if self._closed:
                raise ConnectionAbortedError
        return connection

    async def _check_server(self, connection: AbstractConnection, replies: Sequence[Any]) -> None:
        """Leave a server that says it is not the one, so that the next exchange looks for that anew."""
        for reply in replies:
            if isinstance(reply, RedisError) and (reason := unavailable_reason(reply)) in WRONG_SERVER_REASONS:
                if reason != "auth":
                    elsewhere = (reply.host, reply.port) if isinstance(reply, MovedError) and reply.host else None
                    invalidate(connection, elsewhere)
                await self._disconnect()
                return

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def _check_replica_acks(replies: list[Any], acks: int) -> list[Any]:
    """Take the reply of WAIT off the end, and make failures of what too few replicas have."""
    *replies, got = replies
    if isinstance(got, int) and got >= acks:
        return replies
    found = f"{got} of {acks}" if isinstance(got, int) else f"none of {acks}"
    error = StoreUnavailable(
        f"This was written, but {found} replicas of Redis have it so far; it may be lost",
        outcome="unknown",
        reason="too_few_acks",
    )
    error.__cause__ = got if isinstance(got, Exception) else None
    return [error if _wrote(reply) else reply for reply in replies]


def _wrote(reply: Any) -> bool:
    """Return whether a command with this reply may have written: an error wrote nothing, nor did some statuses."""
    if isinstance(reply, Exception):
        return False
    return not isinstance(reply, list) or reply[0] not in _STATUSES_WITHOUT_WRITE
