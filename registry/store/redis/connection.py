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
from redis.exceptions import AuthenticationError, ReadOnlyError, RedisError, ResponseError

from registry.config.redis_url import Node, RedisUrl, parse_redis_url
from registry.errors import StartupError, StoreUnavailable
from registry.store.keys import Keys
from registry.store.redis.errors import trouble
from registry.store.redis.primary_locator import Ask, ClusterLocator, Locator, SentinelLocator
from registry.store.scripts import Command

Connect = Callable[[], AbstractConnection]

# Seconds for a socket, and for a whole connect: finding the server, its socket, TLS, who we are, what it is. With the
# exchange's own two seconds every call has its answer within three.
_CONNECT = 1.0
_READY = 1.5


@dataclass(frozen=True, slots=True)
class Server:
    """How to reach one server. `shebang` is False for an engine that does not know `#!lua` lines."""

    connect: Connect
    shebang: bool = True
    locator: Locator | None = None

    async def look(self) -> None:
        """Notice when Sentinels have chosen another primary while the old one still answers us."""
        if isinstance(self.locator, SentinelLocator):
            try:
                await self.locator.find()
            except (RedisError, OSError) as error:
                raise StoreUnavailable("The Sentinels do not answer") from error


class GuidedConnection(AbstractConnection):
    """A connection that finds its server when it connects, and makes sure that it takes writes.

    A replica would answer reads from the past, and refuse writes only when one comes.
    """

    locator: Locator
    generation = -1
    node: Node | None = None

    async def connect(self) -> None:
        """Connect within the time for it, or leave nothing behind."""
        try:
            async with asyncio.timeout(_READY):
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
        self.locator.joined(self)

    async def on_connect_check_health(self, check_health: bool = True) -> None:  # noqa: FBT001, FBT002 - as in redis-py
        """Say who we are, then ask what it is. A server that does not tell is believed."""
        await super().on_connect_check_health(check_health)
        await self.send_packed_command(self.pack_command("ROLE"), check_health=False)
        try:
            role, *_ = await self.read_response(disconnect_on_error=False)
        except ResponseError as error:
            if trouble(error) not in {None, "auth"}:
                raise
            return
        if role != b"master":
            raise ReadOnlyError(f"this server is a {role.decode()}, not the primary", status_code="READONLY")


class _Tcp(GuidedConnection, Connection):
    """Over TCP."""


class _Tls(GuidedConnection, SSLConnection):
    """Over TLS."""


class _Socket(GuidedConnection, UnixDomainSocketConnection):
    """Over a unix socket."""

    async def on_connect(self) -> None:
        """Do nothing: redis-py greets twice on a unix socket, and this is the first time."""


class _PasswordFile(CredentialProvider):
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
    return isinstance(connection, GuidedConnection) and connection.generation != connection.locator.generation


def mistrust(connection: AbstractConnection, elsewhere: Node | None = None) -> None:
    """Give up this connection and all as old as it: its server is not the one, and perhaps said which one is."""
    if isinstance(connection, GuidedConnection):
        connection.locator.mistrust(connection.generation, elsewhere)


def server_at(url: str, *, mesh: str = "mesh", password_file: Path | None = None) -> Server:
    """Return how to connect to the server a URL leads to; in a cluster to the one with the mesh's slot.

    Raises StartupError when the URL, or the password file, cannot be read.
    """
    try:
        where = parse_redis_url(url)
    except ValueError as error:
        raise StartupError(f"REDIS_URL cannot be read: {error}") from error
    options = {**_BOUNDS, **_credentials(where, password_file), "db": where.db}
    kind: type[GuidedConnection] = _Tcp
    if where.form == "socket":
        kind, options["path"] = _Socket, where.path
    elif where.tls is not None:
        kind, options = _Tls, {**options, **where.tls}
    if where.form == "server":
        options["host"], options["port"] = where.nodes[0]
    locator = _locator(where, options, Keys(mesh))

    def connect() -> GuidedConnection:
        connection = kind(**options)
        connection.locator = locator
        return connection

    return Server(connect, locator=locator)


_BOUNDS: Mapping[str, Any] = {
    "protocol": 2,
    "socket_connect_timeout": _CONNECT,
    "socket_timeout": None,
    "retry": Retry(NoBackoff(), 0),
    "driver_info": None,
}


def _credentials(where: RedisUrl, password_file: Path | None) -> dict[str, Any]:
    if password_file is None:
        return {"username": where.username, "password": where.password}
    provider = _PasswordFile(where.username, password_file)
    try:
        provider.get_credentials()
    except AuthenticationError as error:
        raise StartupError(f"REGISTRY_REDIS_PASSWORD_FILE: {error}") from error
    return {"credential_provider": provider}


def _locator(where: RedisUrl, options: Mapping[str, Any], keys: Keys) -> Locator:
    if where.form == "sentinel":
        greeting = {"username": where.sentinel_username, "password": where.sentinel_password}
        plain = {name: value for name, value in options.items() if name not in {"db", "credential_provider"}}
        return SentinelLocator(where.nodes, where.service, _asker(where, plain | greeting))
    if where.form == "cluster":
        return ClusterLocator(where.nodes, keys.version, _asker(where, options))
    return Locator()


def _asker(where: RedisUrl, options: Mapping[str, Any]) -> Ask:
    kind = SSLConnection if where.tls is not None else Connection

    async def ask(node: Node, questions: Sequence[Command]) -> list[Any]:
        connection = kind(**{**options, "host": node[0], "port": node[1]})
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_packed_command(connection.pack_commands(questions), check_health=False)
            return [await _reply(connection) for _ in questions]
        finally:
            await connection.disconnect(nowait=True)

    return ask


async def _reply(connection: AbstractConnection) -> Any:
    try:
        return await connection.read_response(disconnect_on_error=False)
    except ResponseError as error:
        return error


def server_in_memory() -> Server:
    """Return a server inside this process that keeps nothing: the last resort where no real one can be started."""
    from fakeredis import FakeServer  # noqa: PLC0415 - an extra, and slow to import
    from fakeredis.aioredis import FakeAsyncRedisConnection  # noqa: PLC0415 - likewise

    server = FakeServer()
    return Server(lambda: FakeAsyncRedisConnection(server=server, protocol=2), shebang=False)
