"""Where Redis is and how to connect to it; timeouts set by hand, since the library's defaults can take a minute."""

from collections.abc import Callable
from dataclasses import dataclass

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from registry.errors import StartupError

Connect = Callable[[], AbstractConnection]

# Seconds; with the exchange's own two seconds every call has its answer within three.
_CONNECT = 1.0


@dataclass(frozen=True, slots=True)
class Server:
    """How to reach one server. `shebang` is False for an engine that does not know `#!lua` lines."""

    connect: Connect
    shebang: bool = True


def server_at(url: str) -> Server:
    """Return how to connect to the server at a redis://, rediss:// or unix:// URL. Raises StartupError."""
    try:
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_connect_timeout=_CONNECT,
            socket_timeout=None,
            retry=Retry(NoBackoff(), 0),
            driver_info=None,
        )
    except ValueError as error:
        raise StartupError(f"REDIS_URL cannot be read: {error}; use redis://host:6379/0") from error
    return Server(pool.make_connection)


def server_in_memory() -> Server:
    """Return a server inside this process that keeps nothing: the last resort where no real one can be started."""
    from fakeredis import FakeServer  # noqa: PLC0415 - an extra, and slow to import
    from fakeredis.aioredis import FakeAsyncRedisConnection  # noqa: PLC0415 - likewise

    server = FakeServer()
    return Server(lambda: FakeAsyncRedisConnection(server=server, protocol=2), shebang=False)
