"""Looks up the addresses of agents' host names, apart from all other lookups of the process.

The name server of a name belongs to the agent, which may let every lookup wait. In the threads of the event loop such
lookups would delay those of Redis, so each one runs in a thread of its own.
"""

import asyncio
import contextlib
import socket
import threading
from typing import Final

# Lookups at a time; further ones wait until their caller gives up.
_MAX_LOOKUPS: Final = 16


class NameLookup:
    """Looks up host names, at most 16 at a time; addresses in any notation need no lookup."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(_MAX_LOOKUPS)

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, in the order of its name server. Raises OSError or UnicodeError."""
        with contextlib.suppress(socket.gaierror):
            return _addresses(host, port, socket.AI_NUMERICHOST)
        await self._free.acquire()
        loop = asyncio.get_running_loop()
        result: asyncio.Future[list[str]] = loop.create_future()

        def finish(found: list[str] | BaseException) -> None:
            self._free.release()
            if result.cancelled():
                return
            if isinstance(found, BaseException):
                result.set_exception(found)
            else:
                result.set_result(found)

        def look_up() -> None:
            found: list[str] | BaseException
            try:
                found = _addresses(host, port, 0)
            except (OSError, UnicodeError) as error:
                found = error
            # The loop is closed if the replica has stopped meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(finish, found)

        try:
            # A daemon thread does not delay the end of the process.
            threading.Thread(target=look_up, name="proxy-lookup", daemon=True).start()
        except RuntimeError as error:  # the system allows no more threads
            self._free.release()
            raise OSError(str(error)) from error
        return await result


def _addresses(host: str, port: int, flags: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return [str(socket_address[0]) for *_, socket_address in found]
