"""The addresses that the proxy may connect to: every spelling counts as the address that it resolves to."""

import pytest

from registry.compat.mcpmesh.proxy.address_policy import AddressPolicy
from registry.compat.mcpmesh.proxy.name_lookup import NameLookup
from registry.config.redis_url import HostPort

LOOPBACK = [
    *("127.0.0.1", "127.8.8.8", "127.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1"),
    *("localhost", "::1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::127.0.0.1"),
    *("64:ff9b::127.0.0.1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe"),
]
FORBIDDEN = [
    # Unspecified: connects to this machine.
    *("0", "0x0", "0.0", "0.0.0.0", "::", "::ffff:0.0.0.0"),  # noqa: S104 - an address to call
    # Link-local, and with it the metadata service of most clouds, in several notations.
    *("169.254.169.254", "169.254.1.1", "2852039166", "0xa9fea9fe", "0xa9.0xfe.43518", "0251.0376.0251.0376"),
    *("::ffff:169.254.169.254", "::169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fe80::1", "febf::1"),
    # Metadata services elsewhere.
    *("fd00:ec2::254", "100.100.100.200", "::ffff:100.100.100.200", "1684301000"),
    # Multicast and broadcast.
    *("224.0.0.1", "239.255.255.255", "255.255.255.255", "ff02::1"),
]
ALLOWED = ["10.0.0.1", "192.168.1.1", "8.8.8.8", "167772161", "fd00::1", "2001:db8::1", "::ffff:10.0.0.1"]
ANY_NETWORK = ("0.0.0.0/0", "::/0")


def policy(
    *networks: str,
    allow_loopback: bool = False,
    own_ports: tuple[int | None, ...] = (),
    redis: tuple[HostPort, ...] = (),
) -> AddressPolicy:
    """Return a policy; without arguments, the one of a registry that listens on all addresses."""
    return AddressPolicy(
        allow_loopback=allow_loopback, networks=networks, own_ports=own_ports, redis_nodes=lambda: redis
    )


@pytest.mark.parametrize("host", FORBIDDEN)
async def test_a_forbidden_address_is_never_allowed(host: str) -> None:
    """Neither beside loopback agents nor by REGISTRY_PROXY_NETWORKS."""
    assert await policy().resolve(host, 80) == []
    assert await policy(*ANY_NETWORK, allow_loopback=True).resolve(host, 80) == []


@pytest.mark.parametrize("host", LOOPBACK)
async def test_loopback_is_allowed_only_where_the_registry_listens(host: str) -> None:
    """Otherwise a stranger would reach the services of the registry's machine that trust it."""
    assert await policy().resolve(host, 80) == []
    assert await policy("10.0.0.0/8").resolve(host, 80) == []
    assert await policy(allow_loopback=True).resolve(host, 80)
    assert await policy("127.0.0.0/8", "::1/128").resolve(host, 80)


@pytest.mark.parametrize("host", ALLOWED)
async def test_other_addresses_are_allowed_unless_networks_are_listed(host: str) -> None:
    """Agents are in private networks."""
    assert len(await policy().resolve(host, 80)) == 1
    assert len(await policy(*ANY_NETWORK).resolve(host, 80)) == 1
    assert await policy("172.16.0.0/12", "fc00:1::/32").resolve(host, 80) == []


async def test_listed_networks_replace_the_default() -> None:
    """A list without a loopback network refuses loopback, although the registry listens there."""
    assert await policy("10.0.0.0/8", allow_loopback=True).resolve("127.0.0.1", 80) == []
    assert await policy("10.0.0.0/8").resolve("10.9.9.9", 80) == ["10.9.9.9"]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "2130706433", "::ffff:127.0.0.1"])
async def test_the_ports_of_the_registry_are_refused_on_this_machine(host: str) -> None:
    """Behind the proxy a call would come from the registry itself; other machines may use the same port."""
    own = policy(allow_loopback=True, own_ports=(8000, None))

    assert await own.resolve(host, 8000) == []
    assert await own.resolve(host, 8001)
    assert await own.resolve("10.0.0.1", 8000) == ["10.0.0.1"]


async def test_the_nodes_of_redis_are_refused() -> None:
    """By their address and port; a server on this machine also by the other addresses of this machine."""
    beside_redis = policy(allow_loopback=True, redis=(("10.0.0.1", 6379), ("localhost", 6380)))

    assert await beside_redis.resolve("10.0.0.1", 6379) == []
    assert await beside_redis.resolve("::ffff:10.0.0.1", 6379) == []
    assert await beside_redis.resolve("127.0.0.9", 6380) == []
    assert await beside_redis.resolve("10.0.0.1", 80) == ["10.0.0.1"]
    assert await beside_redis.resolve("10.0.0.2", 6379) == ["10.0.0.2"]


async def test_only_the_allowed_addresses_of_a_name_are_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the name server, each once."""

    async def look_up(_self: NameLookup, _host: str, _port: int) -> list[str]:
        return ["169.254.169.254", "10.0.0.2", "127.0.0.1", "10.0.0.1", "10.0.0.2"]

    monkeypatch.setattr(NameLookup, "addresses", look_up)

    assert await policy().resolve("agent.example", 80) == ["10.0.0.2", "10.0.0.1"]


async def test_a_name_without_an_address_is_an_error() -> None:
    """The top-level domain `invalid` never exists."""
    with pytest.raises(OSError, match=r"\S"):
        await policy().resolve("agent.invalid", 80)
