"""Connections by scheme of the URL, and the errors of an invalid address."""

import warnings
from pathlib import Path

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from registry.errors import StartupError
from registry.store.redis.connection import endpoint_from_url, in_memory_endpoint
from registry.store.redis.pipeline import Pipeline
from tests.support.redis_server import RedisServer


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("redis://redis:6379/0", Connection),
        ("rediss://user:pass@redis:6380/1", SSLConnection),
        ("unix:///tmp/redis.sock", UnixDomainSocketConnection),
    ],
)
async def test_each_scheme_has_its_connection_class(url: str, kind: type) -> None:
    """A connection is created for each call, and is not opened yet."""
    server = endpoint_from_url(url)

    first, second = server.connect(), server.connect()

    assert isinstance(first, kind)
    assert isinstance(second, kind)
    assert first is not second
    assert not first.is_connected
    assert server.shebang


@pytest.mark.parametrize("url", ["", "redis", "http://redis:6379", "redis://redis:port"])
def test_an_invalid_address_stops_the_startup(url: str) -> None:
    """The error has an example of a valid one."""
    with pytest.raises(StartupError, match="REDIS_URL is invalid: expected redis://host:6379/0"):
        endpoint_from_url(url)


async def test_connecting_has_a_timeout_and_no_retries() -> None:
    """The defaults of the library can take a minute."""
    connection = endpoint_from_url("redis://redis:6379/0").connect()

    assert connection.socket_connect_timeout == 1.0
    assert connection.socket_timeout is None
    assert connection.retry.get_retries() == 0


async def test_a_tcp_connection_uses_the_database_of_the_url() -> None:
    """It selects the number in the URL."""
    with RedisServer(tcp=True) as server:
        one, other = (Pipeline(endpoint_from_url(server.url.replace("/0", f"/{number}")).connect) for number in (0, 3))
        await other.execute([("SET", "here", "3")])

        assert await one.execute([("GET", "here")]) == [None]
        assert await other.execute([("GET", "here")]) == [b"3"]
        await one.close()
        await other.close()


async def test_all_connections_to_the_server_in_memory_share_its_data() -> None:
    """It does not support `#!lua` lines; each server has its own data."""
    server, another = in_memory_endpoint(), in_memory_endpoint()
    links = [Pipeline(server.connect), Pipeline(server.connect), Pipeline(another.connect)]
    await links[0].execute([("SET", "here", "1")])

    assert [await pipeline.execute([("GET", "here")]) for pipeline in links] == [[b"1"], [b"1"], [None]]
    assert not server.shebang
    for pipeline in links:
        await pipeline.close()


async def test_the_server_in_memory_causes_no_warnings() -> None:
    """An imported name of fakeredis was deprecated, which is an error if warnings are errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        in_memory_endpoint().connect()


async def test_a_path_may_contain_blanks(tmp_path: Path) -> None:
    """The home directory of a user may have such a name."""
    connection = endpoint_from_url(f"unix://{str(tmp_path).replace(' ', '%20')}/a%20b.sock").connect()

    assert isinstance(connection, UnixDomainSocketConnection)
    assert connection.path == f"{tmp_path}/a b.sock"
