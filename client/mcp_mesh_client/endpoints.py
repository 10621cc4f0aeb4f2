"""Where the replicas are, the one that answered last first."""

import asyncio
import ipaddress
import math
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

# Seconds: how long addresses of a name are taken for true, and how long looking them up may take.
_DNS_TTL_S = 30.0
_DNS_TIMEOUT_S = 2.0
_DEFAULT_PORTS = {"http": 80, "https": 443}

Resolver = Callable[[str, int], Awaitable[list[str]]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One replica, or a balancer before several.

    Where a name has several addresses `url` holds one of them, and `host_header` the name, for the Host header and for
    TLS.
    """

    url: str
    host_header: str | None = None


async def resolve_host(host: str, port: int) -> list[str]:
    """Return the addresses of a name, as the system orders them. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=1)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Endpoints:
    """The places to ask, in the order in which to ask them.

    Clients begin at random ones, so that they spread; each stays with the one that answers.
    """

    def __init__(self, urls: Sequence[str], resolve: Resolver = resolve_host) -> None:
        self._urls = [urlsplit(url) for url in urls]
        self._resolve = resolve
        self._order: list[Endpoint] = []
        self._last_resolved: dict[SplitResult, list[Endpoint]] = {}
        self._resolved_at = -math.inf
        self._refresh_task: asyncio.Task[None] | None = None

    async def order(self, *, refresh: bool = False) -> list[Endpoint]:
        """Return all of them; names are looked up again now and then, or `refresh`."""
        if refresh or time.monotonic() - self._resolved_at >= _DNS_TTL_S:
            looking = self._refresh_task
            if looking is None or looking.done() or looking.get_loop() is not asyncio.get_running_loop():
                looking = self._refresh_task = asyncio.create_task(self._refresh())
            # Whoever comes meanwhile waits for the same; who is cancelled does not take it from the others.
            await asyncio.shield(looking)
        return list(self._order)

    def prefer(self, endpoint: Endpoint) -> None:
        """Ask this one first."""
        if self._order and self._order[0] != endpoint and endpoint in self._order:
            self._order.remove(endpoint)
            self._order.insert(0, endpoint)

    def demote(self, endpoint: Endpoint) -> None:
        """Ask this one last."""
        if len(self._order) > 1 and endpoint in self._order:
            self._order.remove(endpoint)
            self._order.append(endpoint)

    async def _refresh(self) -> None:
        found = [each for url in self._urls for each in await self._expand(url)]
        kept = [each for each in self._order if each in found]
        new = list(dict.fromkeys(each for each in found if each not in kept))
        random.shuffle(new)
        self._order = kept + new
        self._resolved_at = time.monotonic()

    async def _expand(self, url: SplitResult) -> list[Endpoint]:
        """Return one endpoint for each address of a name that has several; else the URL as it is."""
        plain = [Endpoint(url.geturl())]
        host = url.hostname or ""
        if _is_ip_address(host) or _uses_http_proxy(url.scheme, host):
            return plain
        port = url.port or _DEFAULT_PORTS[url.scheme]
        try:
            async with asyncio.timeout(_DNS_TIMEOUT_S):
                addresses = await self._resolve(host, port)
        except OSError:
            # TimeoutError is one. What was known stays; with nothing known, the call itself will say what is wrong.
            return self._last_resolved.get(url, plain)
        if len(addresses) > 1:
            plain = [Endpoint(url._replace(netloc=_netloc(each, port)).geturl(), url.netloc) for each in addresses]
        self._last_resolved[url] = plain
        return plain


def _netloc(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _uses_http_proxy(scheme: str, host: str) -> bool:
    """Tell whether the environment has requests to this host go through a proxy, which then looks the name up."""
    from urllib.request import getproxies, proxy_bypass  # noqa: PLC0415 - heavy, and needed at the first call only

    proxies = getproxies()
    return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(host)
