"""One pipelining connection to Redis: commands go out together, replies come back in order."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AuthenticationError, BusyLoadingError, NoScriptError, RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from registry.errors import Outcome, StoreUnavailable
from registry.store.scripts import Call, Command

# What Redis answers when it cannot do its work now; every other error reply is a bug of ours or a broken record.
_TROUBLE = {
    "ASK": "moved",
    "BUSY": "busy_script",
    "CLUSTERDOWN": "cluster_down",
    "LOADING": "loading",
    "MASTERDOWN": "master_down",
    "MISCONF": "store_readonly",
    "MOVED": "moved",
    "NOAUTH": "auth",
    "NOPERM": "auth",
    "NOREPLICAS": "no_replicas",
    "OOM": "out_of_memory",
    "READONLY": "read_only_replica",
    "TRYAGAIN": "moved",
    "WRONGPASS": "auth",
}
_WRONG_SERVER = frozenset({"auth", "cluster_down", "master_down", "moved", "read_only_replica"})


class Link:
    """One connection, opened when it is first needed and again after any trouble; one exchange at a time.

    `timeout` bounds an exchange in seconds, connecting included. Nothing is ever repeated here: who may repeat is the
    caller's decision. `opened` counts the connections there were. `observe` is told the script and the seconds of each
    script call. A cancelled or failed exchange closes the connection, so no reply can reach the wrong caller.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        *,
        timeout: float = 2.0,
        observe: Callable[[str, float], None] = lambda _script, _seconds: None,
    ) -> None:
        self.opened = 0
        self._connect = connect
        self._timeout = timeout
        self._observe = observe
        self._connection: AbstractConnection | None = None
        self._turn = asyncio.Lock()

    async def exchange(self, commands: Sequence[Command], *, timeout: float | None = None) -> list[Any]:
        """Send the commands in one go and return one reply for each; an error reply is returned, not raised.

        Raises StoreUnavailable when no connection can be had (`not_sent`) or it broke on the way (`unknown`).
        """
        outcome: Outcome = "not_sent"
        try:
            async with asyncio.timeout(self._timeout if timeout is None else timeout), self._turn:
                try:
                    connection = await self._ready()
                    outcome = "unknown"
                    await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                    return [await _reply(connection) for _ in commands]
                except BaseException:
                    await self._drop()
                    raise
        except (TimeoutError, RedisTimeoutError) as error:
            raise StoreUnavailable("Redis did not answer in time", outcome=outcome, reason="timeout") from error
        except (RedisError, OSError, EOFError) as error:
            if isinstance(error, AuthenticationError) or isinstance(error.__cause__, AuthenticationError):
                raise StoreUnavailable("Redis refuses the user and password it was given", reason="auth") from error
            # Where Redis is concerns the log, which has the cause, and not whoever asked.
            raise StoreUnavailable("Redis is out of reach", outcome=outcome) from error

    async def run(self, calls: Sequence[Call]) -> list[Any]:
        """Call scripts; one reply each, error replies returned. A forgotten script is sent again, whole, by itself."""
        began = time.perf_counter()
        replies = await self.exchange([call.evalsha for call in calls])
        forgotten = [at for at, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        if forgotten:
            try:
                again = await self.exchange([calls[at].eval for at in forgotten])
            except StoreUnavailable as error:
                # The others were carried out; only these were not, or perhaps not.
                again = [error] * len(forgotten)
            for at, reply in zip(forgotten, again, strict=True):
                replies[at] = reply
        if any(isinstance(reply, RedisError) and trouble(reply) in _WRONG_SERVER for reply in replies):
            await self._drop()
        self._observe(calls[0].script.name, time.perf_counter() - began)
        return replies

    async def close(self) -> None:
        """Close the connection; a later exchange would open it again."""
        async with self._turn:
            await self._drop()

    async def _ready(self) -> AbstractConnection:
        """Return the open connection. One on which something arrived unasked has ended: take a new one."""
        connection = self._connection
        if connection is not None and (not connection.is_connected or await connection.can_read()):
            await self._drop()
            connection = None
        if connection is None:
            connection = self._connect()
            await connection.connect()  # type: ignore[no-untyped-call]
            self._connection = connection
            self.opened += 1
        return connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disconnect_on_error=False)
    except (ResponseError, BusyLoadingError) as error:
        return error


def trouble(error: RedisError) -> str | None:
    """Return the reason word when the reply means that Redis cannot work now, None when it means something else."""
    code = getattr(error, "status_code", None) or str(error).partition(" ")[0]
    return _TROUBLE.get(code)


def judged(reply: Any) -> Any:
    """Return the reply, or the exception it stands for: StoreUnavailable, or the error itself when it is a bug."""
    if isinstance(reply, RedisError):
        reason = trouble(reply)
        if reason is not None:
            unavailable = StoreUnavailable(f"Redis cannot do this now: {reply}", reason=reason)
            unavailable.__cause__ = reply
            return unavailable
    return reply


def checked(reply: Any) -> Any:
    """Return the reply, or raise the exception it stands for."""
    result = judged(reply)
    if isinstance(result, Exception):
        raise result
    return result
