"""The endpoints of a registry: DNS lookups, the order of the endpoints, and failover between them."""

import asyncio

import pytest
from mcp_mesh_client import RegistryClient
from mcp_mesh_client.replica_endpoints import Endpoint, Endpoints, resolve_host

from tests.support.canned_server import CannedServer, http_response, json_response


def endpoints_with(*rounds: list[str] | OSError) -> tuple[Endpoints, list[str]]:
    """Return endpoints whose lookups return these addresses one after the other, and the list of looked-up names."""
    looked_up: list[str] = []
    results = list(rounds)

    async def resolve(host: str, port: int) -> list[str]:
        looked_up.append(f"{host}:{port}")
        await asyncio.sleep(0)
        found = results.pop(0) if len(results) > 1 else results[0]
        if isinstance(found, OSError):
            raise found
        return found

    return Endpoints(["https://registry.test/base"], resolve), looked_up


async def test_a_name_with_several_addresses_has_several_endpoints() -> None:
    """Each keeps the name, for the Host header and TLS."""
    endpoints, looked_up = endpoints_with(["10.0.0.1", "fd00::1"])

    assert set(await endpoints.order()) == {
        Endpoint("https://10.0.0.1:443/base", "registry.test"),
        Endpoint("https://[fd00::1]:443/base", "registry.test"),
    }
    await endpoints.order()
    assert looked_up == ["registry.test:443"]


@pytest.mark.parametrize("found", [["10.0.0.1"], OSError("no such name")])
async def test_a_name_with_one_address_or_none_is_resolved_by_the_call(found: list[str] | OSError) -> None:
    """The HTTP library looks it up and reports the error."""
    endpoints, _ = endpoints_with(found)

    assert await endpoints.order() == [Endpoint("https://registry.test/base")]


async def test_new_addresses_are_used_and_a_failed_lookup_changes_nothing() -> None:
    """The preferred endpoint stays first."""
    endpoints, _ = endpoints_with(["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.3"], OSError("away"))
    second = Endpoint("https://10.0.0.2:443/base", "registry.test")
    await endpoints.order()
    endpoints.prefer(second)

    order = await endpoints.order(refresh=True)

    assert order[0] == second
    assert {each.url for each in order} == {"https://10.0.0.2:443/base", "https://10.0.0.3:443/base"}
    assert await endpoints.order(refresh=True) == order


async def test_concurrent_callers_share_one_lookup() -> None:
    """All of them get its result."""
    endpoints, looked_up = endpoints_with(["10.0.0.1", "10.0.0.2"])

    orders = await asyncio.gather(*(endpoints.order() for _ in range(50)))

    assert looked_up == ["registry.test:443"]
    assert {len(order) for order in orders} == {2}


async def test_addresses_and_names_behind_a_proxy_are_not_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy may resolve names that are unknown on this machine."""

    async def unused_resolve(_host: str, _port: int) -> list[str]:
        raise AssertionError

    plain = Endpoints(["http://127.0.0.1:8000", "http://[::1]:8000"], unused_resolve)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    proxied = Endpoints(["https://registry.test"], unused_resolve)

    assert len(await plain.order()) == 2
    assert await proxied.order() == [Endpoint("https://registry.test")]


async def test_a_failed_endpoint_goes_last_and_a_working_one_first() -> None:
    """The next call starts with the endpoint that responded last."""
    urls = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]
    endpoints = Endpoints(urls)
    first, second, third = await endpoints.order()

    endpoints.demote(first)
    assert await endpoints.order() == [second, third, first]
    endpoints.prefer(third)
    assert await endpoints.order() == [third, second, first]


async def test_clients_start_with_different_endpoints() -> None:
    """Clients with the same list of URLs do not all use the same replica."""
    urls = [f"http://127.0.0.1:{port}" for port in range(1, 4)]

    firsts = {(await Endpoints(urls).order())[0].url for _ in range(100)}

    assert firsts == set(urls)


async def test_the_system_resolves_localhost() -> None:
    """This is the only test with a real lookup."""
    assert "127.0.0.1" in await resolve_host("localhost", 80)


async def test_a_call_fails_over_to_the_next_address_of_the_name() -> None:
    """The first replica returns 503, the second one a result; both requests have the name in their Host header."""
    async with (
        CannedServer(
            http_response(503, {"status": "error", "error": "not_ready", "message": "-"}), host="127.0.0.2"
        ) as one,
        CannedServer(json_response(service="x"), host="127.0.0.3", port=one.port) as two,
    ):

        async def resolve(_host: str, _port: int) -> list[str]:
            return ["127.0.0.2", "127.0.0.3"]

        async with RegistryClient(f"http://registry.test:{one.port}") as client:
            endpoints = client._session._endpoints
            endpoints._resolve = resolve
            await endpoints.order()
            endpoints.prefer(Endpoint(one.url, f"registry.test:{one.port}"))

            assert dict(await client.describe()) == {"service": "x"}

    assert f"host: registry.test:{one.port}" in one.requests[0].lower()
    assert f"host: registry.test:{one.port}" in two.requests[0].lower()
