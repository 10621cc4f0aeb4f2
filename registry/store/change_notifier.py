"""Notifies the cache of new entries in the change log; a lost notification only adds latency."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from registry.store.keys import Keys
from registry.store.redis.errors import unavailable_reason
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

NotifierMode = Literal["keyspace", "blocking_read", "disconnected"]

# After this idle time a PING checks the connection: pub/sub alone does not detect that Redis is lost.
_PING_AFTER_IDLE_S = 5.0
_REPLY_TIMEOUT_S = 2.0
_RECONNECT_DELAY_S = 0.5


class ChangeNotifier:
    """Calls `on_change` for each new entry of the change log; uses a connection of its own.

    `mode` is `keyspace` for keyspace events, `blocking_read` if Redis rejects or does not send those, and
    `disconnected` without a connection. Adds the flags `K` and `t` to notify-keyspace-events and keeps the others.
    """

    def __init__(self, keys: Keys, connect: Callable[[], AbstractConnection], on_change: Callable[[], None]) -> None:
        self.mode: NotifierMode = "disconnected"
        self._log_key = keys.log
        self._connect = connect
        self._on_change = on_change
        self._keyspace_disabled = False
        self._fall_back_requested = asyncio.Event()

    def fall_back(self) -> None:
        """Use blocking reads instead of keyspace events, because changes were found for which no event arrived."""
        if self.mode == "keyspace":
            log.warning("keyspace_events_missing", mode="blocking_read")
            self._keyspace_disabled = True
            self._fall_back_requested.set()

    async def run(self) -> None:
        """Wait for new log entries until cancelled; reconnect after an error."""
        disconnect_logged = False
        while True:
            connection = self._connect()
            try:
                await self._listen(connection)
            except (RedisError, OSError, EOFError, TimeoutError) as error:
                # The next connection may lead to another server, which supports keyspace events.
                self._keyspace_disabled = False
                if self.mode != "disconnected" or not disconnect_logged:
                    # Until it reconnects, the cache polls every second.
                    log.info("change_notifier_disconnected", error=str(error))
                    disconnect_logged = True
            finally:
                self.mode = "disconnected"
                await connection.disconnect(nowait=True)
            self._on_change()
            await asyncio.sleep(_RECONNECT_DELAY_S)

    async def _listen(self, connection: AbstractConnection) -> None:
        async with asyncio.timeout(_REPLY_TIMEOUT_S):
            await connection.connect()  # type: ignore[no-untyped-call]
            if not self._keyspace_disabled:
                await self._enable_keyspace_events(connection)
        if self._keyspace_disabled:
            await self._read_blocking(connection)
        else:
            await self._subscribe(connection)

    async def _enable_keyspace_events(self, connection: AbstractConnection) -> None:
        """Enable the keyspace events of streams; events that are already enabled stay enabled."""
        try:
            flags = (await _send_command(connection, "CONFIG", "GET", "notify-keyspace-events"))[1].decode()
            missing = [flag for flag in "Kt" if flag not in flags and not (flag == "t" and "A" in flags)]
            if missing:
                await _send_command(connection, "CONFIG", "SET", "notify-keyspace-events", flags + "".join(missing))
        except (ResponseError, IndexError) as error:
            self._disable_keyspace_events(error)

    async def _subscribe(self, connection: AbstractConnection) -> None:
        channel = b"__keyspace@%d__:%s" % (int(getattr(connection, "db", 0) or 0), self._log_key)
        try:
            await _send_command(connection, "SUBSCRIBE", channel)
        except ResponseError as error:
            self._disable_keyspace_events(error)
            return
        self.mode = "keyspace"
        self._fall_back_requested.clear()
        self._on_change()
        ping_sent = False
        while not self._fall_back_requested.is_set():
            message = await connection.read_response(timeout=_REPLY_TIMEOUT_S if ping_sent else _PING_AFTER_IDLE_S)
            if message is None:
                if ping_sent:
                    raise TimeoutError("Redis did not respond to a PING")
                await connection.send_packed_command(connection.pack_command("PING"), check_health=False)
            elif message[0] == b"message" and message[2] == b"xadd":
                self._on_change()
            ping_sent = message is None

    def _disable_keyspace_events(self, error: Exception) -> None:
        """Stop using keyspace events, unless the error is temporary, such as a busy script: then raise it."""
        if unavailable_reason(error) not in {None, "auth"}:
            raise error
        self._keyspace_disabled = True
        log.warning(
            "keyspace_events_refused",
            error=str(error),
            mode="blocking_read",
            advice="set notify-keyspace-events to Kt and let this user subscribe to the channel of the change log",
        )

    async def _read_blocking(self, connection: AbstractConnection) -> None:
        self.mode = "blocking_read"
        read = ("XREAD", "COUNT", 1000, "BLOCK", int(_PING_AFTER_IDLE_S * 1000), "STREAMS", self._log_key)
        last: bytes = b"$"
        self._on_change()
        while True:
            async with asyncio.timeout(_PING_AFTER_IDLE_S + _REPLY_TIMEOUT_S):
                reply = await _send_command(connection, *read, last)
            if reply:
                last = reply[0][1][-1][0]
                self._on_change()


async def _send_command(connection: AbstractConnection, *command: Any) -> Any:
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
    return await connection.read_response()
