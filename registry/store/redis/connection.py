"""Connections to the Redis primary, with explicit timeouts: the defaults of redis-py can take a minute."""

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

# For the socket alone, and for a whole connect: find the primary, socket, TLS, authentication, ROLE.
_SOCKET_CONNECT_TIMEOUT_S = 1.0
_CONNECT_TIMEOUT_S = 1.5


@dataclass(frozen=True, slots=True)
class RedisEndpoint:
    """A Redis server to connect to. `shebang` is False if it does not support `#!lua` lines.

    `url_nodes` are the server, the Sentinels or the cluster nodes of its URL.
    """

    connect: ConnectionFactory
    shebang: bool = True
    locator: PrimaryLocator | None = None
    url_nodes: tuple[HostPort, ...] = ()

    @property
    def nodes(self) -> tuple[HostPort, ...]:
        """All known nodes: those of the URL, and those that the locator found."""
        return (*self.url_nodes, *(() if self.locator is None else self.locator.found_nodes))

    async def check_primary(self) -> None:
        """Query the Sentinels, which may have promoted another primary while the old one still responds."""
        if isinstance(self.locator, SentinelLocator):
            try:
                await self.locator.find()
            except (RedisError, OSError) as error:
                raise StoreUnavailable("The Sentinels do not respond") from error


class PrimaryConnection(AbstractConnection):
    """A connection that locates the primary when it connects, and checks that this server accepts writes.

    A replica would return outdated reads, and would reject writes only when the first one arrives.
    """

    locator: PrimaryLocator
    generation = -1
    node: HostPort | None = None

    async def connect(self) -> None:
        """Connect within the timeout; after a failure close everything that was opened."""
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                await super().connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await self.disconnect(nowait=True)
            raise

    def abort(self) -> None:
        """Break the connection immediately, so that pending reads fail at once."""
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
        """Authenticate and check that the server is a primary; a server that does not report its role is accepted."""
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
    """A connection to the primary over TCP."""


class _TlsConnection(PrimaryConnection, SSLConnection):
    """A connection to the primary over TLS."""


class _UnixSocketConnection(PrimaryConnection, UnixDomainSocketConnection):
    """A connection to the primary over a unix socket."""

    async def on_connect(self) -> None:
        """Skip the first of the two handshakes that redis-py runs on a unix socket."""


class _PasswordFileProvider(CredentialProvider):
    """Reads the password file at each connect, so that a changed password takes effect without a restart."""

    def __init__(self, username: str | None, path: Path) -> None:
        self._username = username
        self._path = path

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        """Return the user name, if there is one, and the password without its trailing line break."""
        try:
            password = self._path.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            raise AuthenticationError(f"the password file {self._path} cannot be read: {error}") from error
        return (self._username, password) if self._username else (password,)


def is_stale(connection: AbstractConnection) -> bool:
    """Return whether the primary may have moved since this connection was opened."""
    return isinstance(connection, PrimaryConnection) and connection.generation != connection.locator.generation


def invalidate(connection: AbstractConnection, redirected_to: HostPort | None = None) -> None:
    """Invalidate all connections as old as this one, because its server is not the primary."""
    if isinstance(connection, PrimaryConnection):
        connection.locator.invalidate(connection.generation, redirected_to)


def endpoint_from_url(url: str, *, mesh: str = "mesh", password_file: Path | None = None) -> RedisEndpoint:
    """Return the Redis at a URL; in a cluster, connections lead to the node with the keys of the mesh.

    Raises StartupError if the URL is invalid or the password file cannot be read.
    """
    try:
        redis_url = parse_redis_url(url)
    except ValueError as error:
        raise StartupError(f"REDIS_URL is invalid: {error}") from error
    options = {**_CONNECTION_OPTIONS, **_credentials(redis_url, password_file), "db": redis_url.db}
    kind: type[PrimaryConnection] = _TcpConnection
    if redis_url.topology == "socket":
        kind, options["path"] = _UnixSocketConnection, redis_url.path
    elif redis_url.tls_options is not None:
        kind, options = _TlsConnection, {**options, **redis_url.tls_options}
    if redis_url.topology == "server":
        options["host"], options["port"] = redis_url.nodes[0]
    locator = _make_locator(redis_url, options, Keys(mesh))

    def connect() -> PrimaryConnection:
        connection = kind(**options)
        connection.locator = locator
        return connection

    return RedisEndpoint(connect, locator=locator, url_nodes=redis_url.nodes)


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
        sentinel_credentials = {"username": redis_url.sentinel_username, "password": redis_url.sentinel_password}
        plain = {name: value for name, value in options.items() if name not in {"db", "credential_provider"}}
        return SentinelLocator(
            redis_url.nodes, redis_url.service_name, _make_node_query(redis_url, plain | sentinel_credentials)
        )
    if redis_url.topology == "cluster":
        return ClusterLocator(redis_url.nodes, keys.version, _make_node_query(redis_url, options))
    return PrimaryLocator()


def _make_node_query(redis_url: RedisUrl, options: Mapping[str, Any]) -> NodeQuery:
    kind = SSLConnection if redis_url.tls_options is not None else Connection

    async def query(node: HostPort, commands: Sequence[Command]) -> list[Any]:
        connection = kind(**{**options, "host": node[0], "port": node[1]})
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            return [await read_reply(connection) for _ in commands]
        finally:
            await connection.disconnect(nowait=True)

    return query


async def read_reply(connection: AbstractConnection) -> Any:
    """Return the next reply of a connection; an error reply is returned, not raised."""
    try:
        return await connection.read_response(disconnect_on_error=False)
    except (ResponseError, BusyLoadingError) as error:
        return error


def in_memory_endpoint() -> RedisEndpoint:
    """Return a Redis simulated in this process, without persistence: the fallback if no real server is installed."""
    from fakeredis import FakeServer  # noqa: PLC0415 - an extra, and slow to import
    from fakeredis.aioredis import FakeAsyncRedisConnection  # noqa: PLC0415 - an extra, and slow to import

    server = FakeServer()
    return RedisEndpoint(lambda: FakeAsyncRedisConnection(server=server, protocol=2), shebang=False)
