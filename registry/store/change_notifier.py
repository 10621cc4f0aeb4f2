"""The doorbell: keyspace pub/sub on the log's key says "look", never "what". A lost ring costs latency, never data."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError

from registry.store.keys import Keys
from registry.store.redis.errors import trouble
from registry.telemetry.logs import get_logger

log = get_logger(__name__)

Sound = Literal["keyspace", "blocking_read", "silent"]

# Idle this long, the connection is asked whether it lives: pub/sub alone never notices a dead peer.
_IDLE = 5.0
_ANSWER = 2.0
_AGAIN = 0.5


class Bell:
    """Listens on a connection of its own and calls `ring` for each new log entry.

    `sound` is how it hears: keyspace events, or blocking reads where Redis refuses those or does not send them;
    `silent` while it has no connection. The flags `K` and `t` are added to notify-keyspace-events, others kept.
    """

    def __init__(self, keys: Keys, connect: Callable[[], AbstractConnection], ring: Callable[[], None]) -> None:
        self.sound: Sound = "silent"
        self._log = keys.log
        self._connect = connect
        self._ring = ring
        self._refused = False
        self._switch = asyncio.Event()

    def distrust(self) -> None:
        """Stop relying on keyspace events: changes came that they did not announce."""
        if self.sound == "keyspace":
            log.warning("keyspace events do not arrive; the change log is read with blocking reads from now on")
            self._refused = True
            self._switch.set()

    async def run(self) -> None:
        """Listen for ever; a lost connection is opened again."""
        told = False
        while True:
            connection = self._connect()
            try:
                await self._listen(connection)
            except (RedisError, OSError, EOFError, TimeoutError) as error:
                # Behind the next connection may stand another server, which refuses nothing.
                self._refused = False
                if self.sound != "silent" or not told:
                    log.info("the bell lost its connection; the feed looks every second meanwhile", error=str(error))
                    told = True
            finally:
                self.sound = "silent"
                await connection.disconnect(nowait=True)
            self._ring()
            await asyncio.sleep(_AGAIN)

    async def _listen(self, connection: AbstractConnection) -> None:
        async with asyncio.timeout(_ANSWER):
            await connection.connect()  # type: ignore[no-untyped-call]
            if not self._refused:
                await self._enable(connection)
        if self._refused:
            await self._block(connection)
        else:
            await self._subscribe(connection)

    async def _enable(self, connection: AbstractConnection) -> None:
        """Make sure the events are on, keeping whatever is on already."""
        try:
            flags = (await _ask(connection, "CONFIG", "GET", "notify-keyspace-events"))[1].decode()
            wanted = flags + "".join(flag for flag in "Kt" if flag not in flags and not (flag == "t" and "A" in flags))
            if wanted != flags:
                await _ask(connection, "CONFIG", "SET", "notify-keyspace-events", wanted)
        except (ResponseError, IndexError) as error:
            self._refuse(error)

    async def _subscribe(self, connection: AbstractConnection) -> None:
        channel = b"__keyspace@%d__:%s" % (int(getattr(connection, "db", 0) or 0), self._log)
        try:
            await _ask(connection, "SUBSCRIBE", channel)
        except ResponseError as error:
            self._refuse(error)
            return
        self.sound = "keyspace"
        self._switch.clear()
        self._ring()
        asked = False
        while not self._switch.is_set():
            message = await connection.read_response(timeout=_ANSWER if asked else _IDLE)
            if message is None:
                if asked:
                    raise TimeoutError("Redis did not answer a PING")
                await connection.send_packed_command(connection.pack_command("PING"), check_health=False)
            elif message[0] == b"message" and message[2] == b"xadd":
                self._ring()
            asked = message is None

    def _refuse(self, error: Exception) -> None:
        """Do without keyspace events; what will pass, such as a busy script, breaks the connection instead."""
        if trouble(error) not in {None, "auth"}:
            raise error
        self._refused = True
        log.warning(
            "Redis refuses keyspace events; the change log is read with blocking reads instead. To have them, set "
            "notify-keyspace-events to Kt and let this user subscribe to the log's channel",
            error=str(error),
        )

    async def _block(self, connection: AbstractConnection) -> None:
        self.sound = "blocking_read"
        last: bytes = b"$"
        self._ring()
        while True:
            async with asyncio.timeout(_IDLE + _ANSWER):
                reply = await _ask(
                    connection, "XREAD", "COUNT", 1000, "BLOCK", int(_IDLE * 1000), "STREAMS", self._log, last
                )
            if reply:
                last = reply[0][1][-1][0]
                self._ring()


async def _ask(connection: AbstractConnection, *command: Any) -> Any:
    await connection.send_packed_command(connection.pack_command(*command), check_health=False)
    return await connection.read_response()
