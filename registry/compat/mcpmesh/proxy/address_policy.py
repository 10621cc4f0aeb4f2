"""The network addresses that the proxy may connect to.

An agent registers a name or an address of its choice. So the proxy resolves it once, checks the result, and connects to
exactly the address that was checked.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from registry.compat.mcpmesh.proxy.name_lookup import NameLookup
from registry.config.redis_url import HostPort

IpAddress = IPv4Address | IPv6Address
IpNetwork = IPv4Network | IPv6Network

# Unspecified, link-local, multicast and broadcast addresses, and those of cloud metadata services.
_FORBIDDEN_NETWORKS: Final = tuple(
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "100.100.100.200/32"),
        *("::/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128"),
    )
)
# Of IPv4-compatible addresses, and of translated ones (NAT64).
_NETWORKS_WITH_IPV4_SUFFIX: Final = tuple(map(ip_network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48")))
_FIRST_IPV4_COMPATIBLE: Final = 2  # :: and ::1 are addresses of their own


class AddressPolicy:
    """Decides to which addresses the proxy may connect.

    Never allowed are unspecified, link-local, multicast and metadata addresses, the listeners of this registry on
    `own_ports`, and the addresses that `redis_nodes` returns. Of the others `networks` allows its members; without
    `networks` all are allowed, loopback only with `allow_loopback`.
    """

    def __init__(
        self,
        *,
        allow_loopback: bool,
        networks: Iterable[str],
        own_ports: Iterable[int | None],
        redis_nodes: Callable[[], Iterable[HostPort]],
    ) -> None:
        self._allow_loopback = allow_loopback
        self._networks: tuple[IpNetwork, ...] = tuple(map(ip_network, networks))
        self._own_ports = frozenset(own_ports)
        self._redis_nodes = redis_nodes
        self._lookup = NameLookup()

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the allowed addresses of a host, in the order of its name server. Raises OSError or UnicodeError."""
        addresses = dict.fromkeys(await self._lookup.addresses(host, port))
        nodes = [node for node in self._redis_nodes() if node[1] == port]
        redis = [_effective(text) for node in nodes for text in await self._lookup.addresses(*node)]
        is_local_port = port in self._own_ports or any(map(_is_local, redis))
        return [
            text for text in addresses if not self._is_refused(_effective(text), redis, is_local_port=is_local_port)
        ]

    def _is_refused(self, address: IpAddress, redis: Sequence[IpAddress], *, is_local_port: bool) -> bool:
        if any(address in network for network in _FORBIDDEN_NETWORKS) or address in redis:
            return True
        if is_local_port and _is_local(address):
            return True
        if self._networks:
            return not any(address in network for network in self._networks)
        return address.is_loopback and not self._allow_loopback


def _effective(text: str) -> IpAddress:
    """Return an address; for an IPv6 address that stands for an IPv4 address, the latter."""
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return address
    teredo_client = address.teredo[1] if address.teredo else None
    embedded = address.ipv4_mapped or address.sixtofour or teredo_client
    if embedded is None and any(address in network for network in _NETWORKS_WITH_IPV4_SUFFIX):
        number = int.from_bytes(address.packed[-4:])
        embedded = IPv4Address(number) if address.packed[0] or number >= _FIRST_IPV4_COMPATIBLE else None
    return embedded or address


def _is_local(address: IpAddress) -> bool:
    """Return whether an address belongs to this machine: only then a socket can be bound to the address."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004 - the version of the protocol
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
