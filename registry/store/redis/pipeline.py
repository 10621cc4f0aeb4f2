"""One connection to Redis that sends several commands together and returns their replies in order."""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, MovedError, NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from registry.errors import StoreUnavailable, WriteOutcome
from registry.store.redis.access_guard import AccessGuard
from registry.store.redis.connection import invalidate, is_stale, read_reply
from registry.store.redis.errors import (
    WRONG_SERVER_REASONS,
    access_error,
    raise_for_error,
    refusal,
    unavailable_reason,
)
from registry.store.scripts import Command, ScriptCall, load_scripts

# The end of an error inside a script: `script: <sha>, on @user_script:<line>.`
_SCRIPT_LINE = re.compile(r"@user_script:(\d+)")
# Time for replicas to acknowledge. Two waits, if a script is sent again, fit into the 2 s that a batched call has.
_REPLICA_ACK_TIMEOUT_MS = 750
# Script replies that mean that nothing was written, so no acknowledgement is needed.
_STATUSES_WITHOUT_WRITE = frozenset({b"stale_version", b"unknown_agent", b"edges_changed"})


class Pipeline:
    """One connection to Redis with one exchange at a time; opened when first needed and reopened after an error.

    `timeout` is the maximum duration of an exchange in seconds, including connecting. Nothing is retried here: the
    caller decides. `connections_opened` counts the connections so far. `simulated` is True without a real server.
    `observe` receives the name and the seconds of each script call. A cancelled or failed exchange closes the
    connection, so no reply can reach the wrong caller. After `close` the pipeline stays closed. `scripts` are the
    scripts in the form that the engine supports. `guard` has the commands that Redis refuses; while there are any, no
    script is called.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        *,
        shebang: bool = True,
        timeout: float = 2.0,
        observe: Callable[[str, float], None] = lambda _script, _seconds: None,
        guard: AccessGuard | None = None,
    ) -> None:
        self.connections_opened = 0
        self.guard = guard or AccessGuard()
        self.simulated = not shebang
        self.scripts = load_scripts(shebang=shebang)
        self._connect = connect
        self._timeout = timeout
        self._observe = observe
        self._connection: AbstractConnection | None = None
        self._closed = False
        self._lock = asyncio.Lock()

    async def execute(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Any]:
        """Send the commands together and return one reply for each; an error reply is returned, not raised.

        Raises StoreUnavailable if there is no connection (`not_sent`) or it broke during the exchange (`unknown`).
        """
        outcome: WriteOutcome = "not_sent"
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout), self._lock:
                try:
                    connection = await self._ensure_connected()
                    outcome = "unknown"
                    # redis-py packs each argument in Python, which took a third of the calls of a registration.
                    packed = [pack_command(command) for command in commands]  # type: ignore[arg-type] # of hiredis
                    await connection.send_packed_command(packed, check_health=False)
                    replies = [await read_reply(connection) for _ in commands]
                    await self._check_server(connection, replies)
                except BaseException:
                    await self._disconnect()
                    raise
                return replies
        except (TimeoutError, RedisTimeoutError) as error:
            raise StoreUnavailable("Redis did not respond in time", outcome=outcome, reason="timeout") from error
        except (RedisError, OSError, EOFError) as error:
            # redis-py wraps errors of connecting. Addresses of servers belong in the log, not in responses.
            for each in (error, error.__cause__):
                if isinstance(each, AuthenticationError):
                    self.guard.log_refusal(str(each), "correct the user name and password of REDIS_URL")
                    raise StoreUnavailable("Redis rejected the user name or password", reason="auth") from error
                if each is not None and (reason := unavailable_reason(each)):
                    message = f"Redis is unavailable: {reason}"
                    raise StoreUnavailable(message, outcome=outcome, reason=reason) from error
            raise StoreUnavailable("Redis is unreachable", outcome=outcome) from error

    async def call_script(self, call: ScriptCall) -> Any:
        """Call one Lua script and return its reply; an error reply is raised."""
        return raise_for_error((await self.call_scripts([call]))[0])

    async def call_scripts(self, calls: Sequence[ScriptCall], *, acks: int = 0) -> list[Any]:
        """Call Lua scripts and return one reply for each; an error reply is returned, not raised.

        Calls of scripts that the server does not have are sent again with the script's text. With `acks` a WAIT for as
        many replicas follows the calls; if too few acknowledged in time, the reply of each call that wrote is a
        StoreUnavailable (`unknown`): the write was executed but may be lost. Raises StoreUnavailable, with nothing
        sent, while Redis refuses a command that scripts need.
        """
        self.guard.require_access()
        start = time.perf_counter()
        wait: list[Command] = [("WAIT", acks, _REPLICA_ACK_TIMEOUT_MS)] if acks else []
        replies = await self.execute([*(call.evalsha for call in calls), *wait])
        missing = [index for index, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if missing:
            try:
                second = await self.execute([*(calls[index].eval for index in missing), *wait])
            except StoreUnavailable as error:
                # The other calls were executed; only these failed.
                second = [error] * len(missing) + replies[len(calls) :]
            for index, reply in zip([*missing, *range(len(calls), len(replies))], second, strict=True):
                replies[index] = reply
        if wait:
            replies = _check_replica_acks(replies, acks)
        replies = [self._name_refusal(call, reply) for call, reply in zip(calls, replies, strict=True)]
        self._observe(calls[0].script.name, time.perf_counter() - start)
        return replies

    async def execute_write(self, commands: Sequence[Command], *, acks: int = 0) -> list[Any]:
        """Send write commands and return one reply for each; with `acks`, wait for that many replicas."""
        if not acks:
            return await self.execute(commands)
        return _check_replica_acks(await self.execute([*commands, ("WAIT", acks, _REPLICA_ACK_TIMEOUT_MS)]), acks)

    async def close(self) -> None:
        """Close the connection permanently: the current exchange and every later one fail."""
        self._closed = True
        await self._disconnect()

    def _name_refusal(self, call: ScriptCall, reply: Any) -> Any:
        """Return a reply unchanged, unless it refuses a command: then name the command, and stop calling scripts."""
        command = refusal(reply)
        if command is None:
            return reply
        line = _SCRIPT_LINE.search(str(reply))
        if not command and line is not None:
            command = call.script.command_at(int(line[1])) or ""
        command = command or f"a command of {call.script.name}.lua"
        self.guard.add(command)
        # A refused EVALSHA wrote nothing; a script may have written before its refused command.
        error = access_error([command], "not_sent" if line is None else "unknown")
        error.__cause__ = reply
        return error

    async def _ensure_connected(self) -> AbstractConnection:
        """Return a usable connection; replace one that is closed, outdated, or has unread input."""
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
        """Disconnect from a server that is not the primary, so that the next exchange locates the primary again."""
        for reply in replies:
            if refusal(reply) is not None:
                continue  # another connection has the same permissions
            if isinstance(reply, RedisError) and (reason := unavailable_reason(reply)) in WRONG_SERVER_REASONS:
                if reason != "auth":
                    redirected_to = (reply.host, reply.port) if isinstance(reply, MovedError) and reply.host else None
                    invalidate(connection, redirected_to)
                await self._disconnect()
                return

    async def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


def _check_replica_acks(replies: list[Any], acks: int) -> list[Any]:
    """Remove the reply of WAIT; if too few replicas acknowledged, replace the replies of writes with errors."""
    *replies, wait_reply = replies
    acknowledged = wait_reply if isinstance(wait_reply, int) else 0
    if acknowledged >= acks:
        return replies
    error = StoreUnavailable(
        f"Written, but acknowledged by only {acknowledged} of {acks} Redis replicas; the write may be lost",
        outcome="unknown",
        reason="too_few_acks",
    )
    error.__cause__ = wait_reply if isinstance(wait_reply, Exception) else None
    return [error if _wrote(reply) else reply for reply in replies]


def _wrote(reply: Any) -> bool:
    """Return whether a command with this reply may have written; errors and some statuses mean that it did not."""
    if isinstance(reply, Exception):
        return False
    return not isinstance(reply, list) or reply[0] not in _STATUSES_WITHOUT_WRITE
