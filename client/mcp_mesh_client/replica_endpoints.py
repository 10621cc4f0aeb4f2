"""The replicas of a registry to call: one for each address of each URL, the preferred one first."""

import asyncio
import ipaddress
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from mcp_mesh_client.network_environment import proxy_for

_DNS_TTL_S = 30.0
_DNS_TIMEOUT_S = 2.0
_DEFAULT_PORTS = {"http": 80, "https": 443}

Resolver = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The address of one replica, or of a load balancer in front of several replicas.

    If a host name has several addresses, `url` has one of them, and `host_header` is the name for the Host header and
    TLS.
    """

    url: str
    host_header: str | None = None


async def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a host name in the order of the operating system. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Endpoints:
    """The endpoints of a registry, in the order in which calls try them.

    Each client starts with a random order, which spreads the load, and continues with the endpoint that responds.
    """

    def __init__(self, urls: Sequence[str], resolve: Resolver = resolve_host) -> None:
        self._urls = [urlsplit(url) for url in urls]
        self._resolve = resolve
        self._order: list[Endpoint] = []
        self._last_resolved: dict[SplitResult, list[Endpoint]] = {}
        self._resolved_at = -math.inf
        self._refresh_task: asyncio.Task[None] | None = None

    async def order(self, *, refresh: bool = False) -> list[Endpoint]:
        """Return all endpoints in order; host names are resolved again every 30 s, or now with `refresh`."""
        if refresh or time.monotonic() - self._resolved_at >= _DNS_TTL_S:
            refresh_task = self._refresh_task
            if refresh_task is None or refresh_task.done() or refresh_task.get_loop() is not asyncio.get_running_loop():
                refresh_task = self._refresh_task = asyncio.create_task(self._refresh())
            # Concurrent calls share one task; cancelling one of them does not cancel it for the others.
            await asyncio.shield(refresh_task)
        return list(self._order)

    def prefer(self, endpoint: Endpoint) -> None:
        """Move an endpoint to the front, because it responded."""
        if self._order and self._order[0] != endpoint and endpoint in self._order:
            self._order.remove(endpoint)
            self._order.insert(0, endpoint)

    def demote(self, endpoint: Endpoint) -> None:
        """Move an endpoint to the end, because it failed."""
        if len(self._order) > 1 and endpoint in self._order:
            self._order.remove(endpoint)
            self._order.append(endpoint)

    async def _refresh(self) -> None:
        found = [each for url in self._urls for each in await self._expand(url)]
        known = [each for each in self._order if each in found]
        new = list(dict.fromkeys(each for each in found if each not in known))
        random.shuffle(new)
        self._order = known + new
        self._resolved_at = time.monotonic()

    async def _expand(self, url: SplitResult) -> list[Endpoint]:
        """Return one endpoint for each address of the URL's host, or the URL unchanged if there is only one address."""
        endpoints = [Endpoint(url.geturl())]
        host = url.hostname or ""
        # A proxy resolves host names itself.
        if _is_ip_address(host) or proxy_for(url.geturl()) is not None:
            return endpoints
        port = url.port or _DEFAULT_PORTS[url.scheme]
        try:
            async with asyncio.timeout(_DNS_TIMEOUT_S):
                addresses = await self._resolve(host, port)
        except OSError:
            # Includes TimeoutError. The last addresses stay in use; without any, the call itself reports the error.
            return self._last_resolved.get(url, endpoints)
        if len(addresses) > 1:
            endpoints = [Endpoint(url._replace(netloc=_netloc(each, port)).geturl(), url.netloc) for each in addresses]
        self._last_resolved[url] = endpoints
        return endpoints


def _netloc(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
