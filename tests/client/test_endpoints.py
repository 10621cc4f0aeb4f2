"""Where to ask, and in which order."""

import asyncio

import pytest
from mcp_mesh_client import RegistryClient
from mcp_mesh_client.endpoints import Endpoint, Endpoints, resolve_host

from tests.support.canned_server import CannedServer, http_response, json_response


def resolving(*rounds: list[str] | OSError) -> tuple[Endpoints, list[str]]:
    """Return the endpoints of a name with these addresses, look-up by look-up, and the names asked for."""
    asked: list[str] = []
    answers = list(rounds)

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(f"{host}:{port}")
        await asyncio.sleep(0)
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, OSError):
            raise found
        return found

    return Endpoints(["https://registry.test/base"], resolve), asked


async def test_a_name_with_several_addresses_is_several_places() -> None:
    """Each asked under the name."""
    endpoints, asked = resolving(["10.0.0.1", "fd00::1"])

    assert set(await endpoints.order()) == {
        Endpoint("https://10.0.0.1:443/base", "registry.test"),
        Endpoint("https://[fd00::1]:443/base", "registry.test"),
    }
    await endpoints.order()
    assert asked == ["registry.test:443"]


@pytest.mark.parametrize("found", [["10.0.0.1"], OSError("no such name")])
async def test_a_name_with_one_address_or_none_is_left_to_the_call(found: list[str] | OSError) -> None:
    """The HTTP library looks it up, and says what is wrong."""
    endpoints, _ = resolving(found)

    assert await endpoints.order() == [Endpoint("https://registry.test/base")]


async def test_addresses_that_come_and_go_are_noticed_and_a_failing_look_up_changes_nothing() -> None:
    """Who answered stays first."""
    endpoints, _ = resolving(["10.0.0.1", "10.0.0.2"], ["10.0.0.2", "10.0.0.3"], OSError("away"))
    second = Endpoint("https://10.0.0.2:443/base", "registry.test")
    await endpoints.order()
    endpoints.prefer(second)

    order = await endpoints.order(refresh=True)

    assert order[0] == second
    assert {each.url for each in order} == {"https://10.0.0.2:443/base", "https://10.0.0.3:443/base"}
    assert await endpoints.order(refresh=True) == order


async def test_those_who_come_together_look_up_once() -> None:
    """And none of them goes on with nothing."""
    endpoints, asked = resolving(["10.0.0.1", "10.0.0.2"])

    orders = await asyncio.gather(*(endpoints.order() for _ in range(50)))

    assert asked == ["registry.test:443"]
    assert {len(order) for order in orders} == {2}


async def test_an_address_is_not_looked_up_and_neither_is_what_a_proxy_looks_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A proxy of the environment may know names that are unknown here."""

    async def never(_host: str, _port: int) -> list[str]:
        raise AssertionError

    plain = Endpoints(["http://127.0.0.1:8000", "http://[::1]:8000"], never)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.test:3128")
    proxied = Endpoints(["https://registry.test"], never)

    assert len(await plain.order()) == 2
    assert await proxied.order() == [Endpoint("https://registry.test")]


async def test_who_fails_goes_last_and_who_answers_goes_first() -> None:
    """Each call begins with the one that answered last."""
    urls = ["http://127.0.0.1:1", "http://127.0.0.1:2", "http://127.0.0.1:3"]
    endpoints = Endpoints(urls)
    first, second, third = await endpoints.order()

    endpoints.demote(first)
    assert await endpoints.order() == [second, third, first]
    endpoints.prefer(third)
    assert await endpoints.order() == [third, second, first]


async def test_clients_begin_at_different_places() -> None:
    """So that a list of URLs that everybody has does not make one replica do all the work."""
    urls = [f"http://127.0.0.1:{port}" for port in range(1, 4)]

    firsts = {(await Endpoints(urls).order())[0].url for _ in range(100)}

    assert firsts == set(urls)


async def test_the_system_knows_where_localhost_is() -> None:
    """The real look-up, which no other test uses."""
    assert "127.0.0.1" in await resolve_host("localhost", 80)


async def test_a_call_goes_to_the_next_address_of_a_name_under_that_name() -> None:
    """The first replica of the name cannot do it now; the second one can."""
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
