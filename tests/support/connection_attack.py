"""Half-open connections, endless heads and slow bodies, from a process of their own.

`python -m tests.support.connection_attack PORT HALF_OPEN HEADS BODIES` ends when the server has closed all of them, and
prints the seconds that the longest connection was open.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

HEAD = b"GET /agents HTTP/1.1\r\nhost: localhost\r\nx-slow: "
BODY_HEAD = (
    b"POST /agents HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n"
)
_MIB = 1024 * 1024
_HEAD_MIB = 64
# Connections that are opened at the same time.
_MAX_OPENING = 200


async def half_open(_writer: asyncio.StreamWriter) -> None:
    """Send nothing after the start of a head."""


async def endless_head(writer: asyncio.StreamWriter) -> None:
    """Send a header of 64 MB."""
    for _ in range(_HEAD_MIB):
        writer.write(b"a" * _MIB)
        await writer.drain()


async def slow_body(writer: asyncio.StreamWriter) -> None:
    """Send a byte each second."""
    while not writer.is_closing():
        writer.write(b" ")
        await asyncio.sleep(1)


async def attack(
    port: int, start: bytes, send: Callable[[asyncio.StreamWriter], Coroutine[Any, Any, None]], gate: asyncio.Semaphore
) -> float:
    """Open one connection and send; return the seconds until the server closed it."""
    async with gate:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    opened_at = time.monotonic()
    writer.write(start)
    sending = asyncio.create_task(send(writer))
    with contextlib.suppress(ConnectionError):
        await reader.read()
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    writer.transport.abort()
    return time.monotonic() - opened_at


async def main(port: int, half: int, heads: int, bodies: int) -> None:
    """Attack with all connections at once."""
    gate = asyncio.Semaphore(_MAX_OPENING)
    attacks = [
        *(attack(port, HEAD, half_open, gate) for _ in range(half)),
        *(attack(port, HEAD, endless_head, gate) for _ in range(heads)),
        *(attack(port, BODY_HEAD, slow_body, gate) for _ in range(bodies)),
    ]
    print(f"longest {max(await asyncio.gather(*attacks)):.1f} s")  # noqa: T201 - its result


if __name__ == "__main__":
    asyncio.run(main(*map(int, sys.argv[1:])))
