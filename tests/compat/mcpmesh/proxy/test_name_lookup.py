"""Lookups of agents' names: apart from other lookups, and bounded in number."""

import asyncio
import socket
import threading

import pytest

from registry.compat.mcpmesh.proxy import name_lookup
from registry.compat.mcpmesh.proxy.name_lookup import NameLookup
from tests.support.polling import async_wait_until

MAX_LOOKUPS = 16


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1"])
async def test_an_address_needs_no_lookup(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In any notation; no thread is started."""
    monkeypatch.setattr(threading.Thread, "start", lambda _self: pytest.fail("a thread was started"))

    assert await NameLookup().addresses(host, 80) == ["127.0.0.1"]


async def test_names_are_looked_up() -> None:
    """A name without an address is an error; the top-level domain `invalid` never exists."""
    assert "127.0.0.1" in await NameLookup().addresses("localhost", 80)
    with pytest.raises(OSError, match=r"\S"):
        await NameLookup().addresses("agent.invalid", 80)
    with pytest.raises(UnicodeError):
        await NameLookup().addresses(f"{'a' * 64}.example", 80)


async def test_t9_slow_name_servers_delay_no_other_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """They occupy at most 16 threads, also after their callers have given up; the event loop uses others."""
    answered, started = threading.Event(), 0

    def look_up(host: str, _port: int, flags: int) -> list[str]:
        nonlocal started
        if flags:
            raise socket.gaierror
        started += 1
        answered.wait()
        return [host]

    monkeypatch.setattr(name_lookup, "_addresses", look_up)
    lookup = NameLookup()
    calls = [asyncio.create_task(lookup.addresses(f"agent-{number}.example", 80)) for number in range(100)]
    await async_wait_until(lambda: started == MAX_LOOKUPS, description="all threads wait")
    assert await asyncio.get_running_loop().getaddrinfo("localhost", 80)
    for call in calls:
        call.cancel()
    assert all(
        isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*calls, return_exceptions=True)
    )

    last = asyncio.create_task(lookup.addresses("last.example", 80))
    await asyncio.sleep(0)
    assert (started, last.done()) == (MAX_LOOKUPS, False)
    answered.set()
    assert await last == ["last.example"]


async def test_a_lookup_without_a_thread_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system allows no more threads; later lookups are not affected."""

    def refuse(_self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    lookup = NameLookup()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        for _ in range(MAX_LOOKUPS + 1):
            with pytest.raises(OSError, match="new thread"):
                await lookup.addresses("localhost", 80)

    assert await lookup.addresses("localhost", 80)
