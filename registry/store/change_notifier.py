"""The doorbell: keyspace pub/sub on the log's key says "look", never "what". A lost ring costs latency, never data."""

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

# Idle this long, the connection is asked whether it lives: pub/sub alone never notices a dead peer.
_PING_AFTER_IDLE_S = 5.0
_REPLY_TIMEOUT_S = 2.0
_RECONNECT_DELAY_S = 0.5


class ChangeNotifier:
    """Listens on a connection of its own and calls `on_change` for each new log entry.

    `mode` is how it hears: keyspace events, or blocking reads where Redis refuses those or does not send them;
    `disconnected` while it has no connection. The flags `K` and `t` are added to notify-keyspace-events, others kept.
    """

    def __init__(self, keys: Keys, connect: Callable[[], AbstractConnection], on_change: Callable[[], None]) -> None:
        self.mode: NotifierMode = "disconnected"
        self._log_key = keys.log
        self._connect = connect
        self._on_change = on_change
        self._keyspace_disabled = False
        self._fall_back_requested = asyncio.Event()

    def fall_back(self) -> None:
        """Stop relying on keyspace events: changes came that they did not announce."""
        if self.mode == "keyspace":
            log.warning("keyspace events do not arrive; the change log is read with blocking reads from now on")
            self._keyspace_disabled = True
            self._fall_back_requested.set()

    async def run(self) -> None:
        """Listen for ever; a lost connection is opened again."""
        told = False
        while True:
            connection = self._connect()
            try:
                await self._listen(connection)
            except (RedisError, OSError, EOFError, TimeoutError) as error:
                # Behind the next connection may stand another server, which refuses nothing.
                self._keyspace_disabled = False
                if self.mode != "disconnected" or not told:
                    log.info("the bell lost its connection; the feed looks every second meanwhile", error=str(error))
                    told = True
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
        """Make sure the events are on, keeping whatever is on already."""
        try:
            flags = (await _send_command(connection, "CONFIG", "GET", "notify-keyspace-events"))[1].decode()
            wanted = flags + "".join(flag for flag in "Kt" if flag not in flags and not (flag == "t" and "A" in flags))
            if wanted != flags:
                await _send_command(connection, "CONFIG", "SET", "notify-keyspace-events", wanted)
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
        asked = False
        while not self._fall_back_requested.is_set():
            message = await connection.read_response(timeout=_REPLY_TIMEOUT_S if asked else _PING_AFTER_IDLE_S)
            if message is None:
                if asked:
                    raise TimeoutError("Redis did not answer a PING")
                await connection.send_packed_command(connection.pack_command("PING"), check_health=False)
            elif message[0] == b"message" and message[2] == b"xadd":
                self._on_change()
            asked = message is None

    def _disable_keyspace_events(self, error: Exception) -> None:
        """Do without keyspace events; what will pass, such as a busy script, breaks the connection instead."""
        if unavailable_reason(error) not in {None, "auth"}:
            raise error
        self._keyspace_disabled = True
        log.warning(
            "Redis refuses keyspace events; the change log is read with blocking reads instead. To have them, set "
            "notify-keyspace-events to Kt and let this user subscribe to the log's channel",
            error=str(error),
        )

    async def _read_blocking(self, connection: AbstractConnection) -> None:
        self.mode = "blocking_read"
        last: bytes = b"$"
        self._on_change()
        while True:
            async with asyncio.timeout(_PING_AFTER_IDLE_S + _REPLY_TIMEOUT_S):
                reply = await _send_command(
                    connection,
                    "XREAD",
                    "COUNT",
                    1000,
                    "BLOCK",
                    int(_PING_AFTER_IDLE_S * 1000),
                    "STREAMS",
                    self._log_key,
                    last,
                )
            if reply:
                last = reply[0][1][-1][0]
                self._on_change()


async def _send_command(connection: AbstractConnection, *command: Any) -> Any:
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
    return await connection.read_response()
