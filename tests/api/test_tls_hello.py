"""A client that tries HTTPS on the HTTP port."""

import asyncio
import ssl
from urllib.parse import urlsplit

import pytest

from tests.support.raw_http import open_raw_connection
from tests.support.served_registry import served_registry


async def test_a_connection_that_starts_with_tls_is_closed_without_a_warning(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Meshctl tries HTTPS first in each call without a URL."""
    async with served_registry(redis_url) as served:
        where = urlsplit(served.url)

        with pytest.raises(ConnectionError):
            await asyncio.open_connection(where.hostname, where.port, ssl=ssl.create_default_context())

    assert caplog.records == []


async def test_the_same_bytes_are_accepted_later_in_a_connection(redis_url: str) -> None:
    """A body may start with any bytes."""
    async with served_registry(redis_url) as served, open_raw_connection(served.url) as connection:
        connection.send_raw("POST", "/agents", b"")
        assert (await connection.read_response()).status == 400

        connection.send_raw("POST", "/agents", b"\x16\x03\x01")
        assert (await connection.read_response()).status == 400
