"""A client that takes the registry for HTTPS."""

import asyncio
import ssl
from urllib.parse import urlsplit

import pytest

from tests.support.raw_http import open_raw_connection
from tests.support.served_registry import served_registry


async def test_a_connection_that_begins_with_tls_is_closed_and_nobody_is_warned(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Meshctl tries that first wherever it is given no URL, with each of its calls."""
    async with served_registry(redis_url) as served:
        where = urlsplit(served.url)

        with pytest.raises(ConnectionError):
            await asyncio.open_connection(where.hostname, where.port, ssl=ssl.create_default_context())

    assert caplog.records == []


async def test_the_same_bytes_later_on_are_nothing_special(redis_url: str) -> None:
    """A body may begin with anything."""
    async with served_registry(redis_url) as served, open_raw_connection(served.url) as line:
        line.send_raw("POST", "/agents", b"")
        assert (await line.read_response()).status == 400

        line.send_raw("POST", "/agents", b"\x16\x03\x01")
        assert (await line.read_response()).status == 400
