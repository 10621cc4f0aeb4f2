"""How to reach the server that takes writes; timeouts set by hand, since the library's defaults can take a minute."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redis.asyncio.connection import AbstractConnection, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import AuthenticationError, BusyLoadingError, ReadOnlyError, RedisError, ResponseError

from registry.config.redis_url import HostPort, RedisUrl, parse_redis_url
from registry.errors import StartupError, StoreUnavailable
from registry.store.keys import Keys
from registry.store.redis.errors import unavailable_reason
from registry.store.redis.primary_locator import ClusterLocator, NodeQuery, PrimaryLocator, SentinelLocator
from registry.store.scripts import Command

ConnectionFactory = Callable[[], AbstractConnection]

# Seconds for a socket, and for a whole connect: finding the server, its socket, TLS, who we are, what it is. With the
# exchange's own two seconds every call has its answer within three.
_SOCKET_CONNECT_TIMEOUT_S = 1.0
_CONNECT_TIMEOUT_S = 1.5


@dataclass(frozen=True, slots=True)
class RedisEndpoint:
    """How to reach one server. `shebang` is False for an engine that does not know `#!lua` lines."""

    connect: ConnectionFactory
    shebang: bool = True
    locator: PrimaryLocator | None = None

    async def check_primary(self) -> None:
        """Notice when Sentinels have chosen another primary while the old one still answers us."""
        if isinstance(self.locator, SentinelLocator):
            try:
                await self.locator.find()
            except (RedisError, OSError) as error:
                raise StoreUnavailable("The Sentinels do not answer") from error


class PrimaryConnection(AbstractConnection):
    """A connection that finds its server when it connects, and makes sure that it takes writes.

    A replica would answer reads from the past, and refuse writes only when one comes.
    """

    locator: PrimaryLocator
    generation = -1
    node: HostPort | None = None

    async def connect(self) -> None:
        """Connect within the time for it, or leave nothing behind."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await super().connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await self.disconnect(nowait=True)
            raise

    def abort(self) -> None:
        """Break the connection now: whoever waits on it learns at once."""
        if self._writer is not None:
            self._writer.transport.abort()

    async def _connect(self) -> None:
        self.node = await self.locator.find()
        self.generation = self.locator.generation
        if self.node is not None:
            self.host, self.port = self.node
        await super()._connect()  # type: ignore[no-untyped-call, safe-super]
        self.locator.track(self)

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - as in redis-py
        """Say who we are, then ask what it is. A server that does not tell is believed."""
        await super().on_connect_check_health(check_health)
        await self.send_packed_command(self.pack_command("ROLE"), check_health=False)
        try:
            role, *_ = await self.read_response(disconnect_on_error=False)
        except ResponseError as error:
            if unavailable_reason(error) not in {None, "auth"}:
                raise
            return
        if role != b"master":
            raise ReadOnlyError(f"this server is a {role.decode()}, not the primary", status_code="READONLY")


class _TcpConnection(PrimaryConnection, Connection):
    """Over TCP."""


class _TlsConnection(PrimaryConnection, SSLConnection):
    """Over TLS."""


class _UnixSocketConnection(PrimaryConnection, UnixDomainSocketConnection):
    """Over a unix socket."""

    async def on_connect(self) -> None:
        """Do nothing: redis-py greets twice on a unix socket, and this is the first time."""


class _PasswordFileProvider(CredentialProvider):
    """Reads the password at each connect, so that one which was rotated works from then on."""

    def __init__(self, username: str | None, path: Path) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the user, if there is one, and the password without the line break at its end."""
        try:
            password = self._path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            raise AuthenticationError(f"the password file {self._path} cannot be read: {error}") from error
        return (self._username, password) if self._username else (password,)


def is_stale(connection: AbstractConnection) -> bool:
    """Tell whether a connection may lead to the wrong server by now."""
    return isinstance(connection, PrimaryConnection) and connection.generation != connection.locator.generation


def invalidate(connection: AbstractConnection, redirected_to: HostPort | None = None) -> None:
    """Give up this connection and all as old as it: its server is not the one, and perhaps said which one is."""
    if isinstance(connection, PrimaryConnection):
        connection.locator.invalidate(connection.generation, redirected_to)


def endpoint_from_url(url: str, *, mesh: str = "mesh", password_file: Path | None = None) -> RedisEndpoint:
    """Return how to connect to the server a URL leads to; in a cluster to the one with the mesh's slot.

    Raises StartupError when the URL, or the password file, cannot be read.
    """
    try:
        where = parse_redis_url(url)
    except ValueError as error:
        raise StartupError(f"REDIS_URL cannot be read: {error}") from error
    options = {**_CONNECTION_OPTIONS, **_credentials(where, password_file), "db": where.db}
    kind: type[PrimaryConnection] = _TcpConnection
    if where.topology == "socket":
        kind, options["path"] = _UnixSocketConnection, where.path
    elif where.tls_options is not None:
        kind, options = _TlsConnection, {**options, **where.tls_options}
    if where.topology == "server":
        options["host"], options["port"] = where.nodes[0]
    locator = _make_locator(where, options, Keys(mesh))

    def connect() -> PrimaryConnection:
        connection = kind(**options)
        connection.locator = locator
        return connection

    return RedisEndpoint(connect, locator=locator)


_CONNECTION_OPTIONS: Mapping[str, Any] = {
    "protocol": 2,
    "socket_connect_timeout": _SOCKET_CONNECT_TIMEOUT_S,
    "socket_timeout": None,
    "retry": Retry(NoBackoff(), 0),
    "driver_info": None,
}


def _credentials(redis_url: RedisUrl, password_file: Path | None) -> dict[str, Any]:
    if password_file is None:
        return {"username": redis_url.username, "password": redis_url.password}
    provider = _PasswordFileProvider(redis_url.username, password_file)
    try:
        provider.get_credentials()
    except AuthenticationError as error:
        raise StartupError(f"REGISTRY_REDIS_PASSWORD_FILE: {error}") from error
    return {"credential_provider": provider}


def _make_locator(redis_url: RedisUrl, options: Mapping[str, Any], keys: Keys) -> PrimaryLocator:
    if redis_url.topology == "sentinel":
        greeting = {"username": redis_url.sentinel_username, "password": redis_url.sentinel_password}
        plain = {name: value for name, value in options.items() if name not in {"db", "credential_provider"}}
        return SentinelLocator(redis_url.nodes, redis_url.service_name, _make_node_query(redis_url, plain | greeting))
    if redis_url.topology == "cluster":
        return ClusterLocator(redis_url.nodes, keys.version, _make_node_query(redis_url, options))
    return PrimaryLocator()


def _make_node_query(redis_url: RedisUrl, options: Mapping[str, Any]) -> NodeQuery:
    kind = SSLConnection if redis_url.tls_options is not None else Connection

    async def ask(node: HostPort, questions: Sequence[Command]) -> list[Any]:
        connection = kind(**{**options, "host": node[0], "port": node[1]})
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_packed_command(connection.pack_commands(questions), check_health=False)
            return [await read_reply(connection) for _ in questions]
        finally:
            await connection.disconnect(nowait=True)

    return ask


async def read_reply(connection: AbstractConnection) -> Any:
    """Return the next reply; an error reply is returned, not raised."""
    try:
        return await connection.read_response(disconnect_on_error=False)
    except (ResponseError, BusyLoadingError) as error:
        return error


def in_memory_endpoint() -> RedisEndpoint:
    """Return a server inside this process that keeps nothing: the last resort where no real one can be started."""
    from fakeredis import FakeServer  # noqa: PLC0415 - an extra, and slow to import
    from fakeredis.aioredis import FakeAsyncRedisConnection  # noqa: PLC0415 - likewise

    server = FakeServer()
    return RedisEndpoint(lambda: FakeAsyncRedisConnection(server=server, protocol=2), shebang=False)
