"""How to reach a server, and what is said of an address that cannot be one."""

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
async def test_each_scheme_has_its_connection(url: str, kind: type) -> None:
    """One is made for each call, and none is opened."""
    server = endpoint_from_url(url)

    first, second = server.connect(), server.connect()

    assert isinstance(first, kind)
    assert isinstance(second, kind)
    assert first is not second
    assert not first.is_connected
    assert server.shebang


@pytest.mark.parametrize("url", ["", "redis", "http://redis:6379", "redis://redis:port"])
def test_an_address_that_cannot_be_read_stops_the_start(url: str) -> None:
    """With an example of one that can."""
    with pytest.raises(StartupError, match="REDIS_URL is invalid: expected redis://host:6379/0"):
        endpoint_from_url(url)


async def test_connecting_is_bounded_and_never_tried_twice() -> None:
    """The library's own defaults can take a minute."""
    connection = endpoint_from_url("redis://redis:6379/0").connect()

    assert connection.socket_connect_timeout == 1.0
    assert connection.socket_timeout is None
    assert connection.retry.get_retries() == 0


async def test_over_tcp_and_with_a_database() -> None:
    """The number in the URL is the one that is used."""
    with RedisServer(tcp=True) as server:
        one, other = (Pipeline(endpoint_from_url(server.url.replace("/0", f"/{number}")).connect) for number in (0, 3))
        await other.execute([("SET", "here", "3")])

        assert await one.execute([("GET", "here")]) == [None]
        assert await other.execute([("GET", "here")]) == [b"3"]
        await one.close()
        await other.close()


async def test_the_server_in_memory_is_one_for_all_its_connections() -> None:
    """And knows no `#!lua` lines; each server has its own data."""
    server, another = in_memory_endpoint(), in_memory_endpoint()
    links = [Pipeline(server.connect), Pipeline(server.connect), Pipeline(another.connect)]
    await links[0].execute([("SET", "here", "1")])

    assert [await link.execute([("GET", "here")]) for link in links] == [[b"1"], [b"1"], [None]]
    assert not server.shebang
    for link in links:
        await link.close()


async def test_the_server_in_memory_warns_of_nothing() -> None:
    """The name we import from fakeredis was deprecated, which is an error wherever warnings are."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        in_memory_endpoint().connect()


async def test_a_path_with_blanks_is_a_path(tmp_path: Path) -> None:
    """As a user's directory may be called."""
    connection = endpoint_from_url(f"unix://{str(tmp_path).replace(' ', '%20')}/a%20b.sock").connect()

    assert isinstance(connection, UnixDomainSocketConnection)
    assert connection.path == f"{tmp_path}/a b.sock"
