"""T17, one spelling per path: no other spelling of `/admin` bypasses the rule of a load balancer on it."""

import re
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx2
import pytest

from tests.support.endpoints import all_endpoints
from tests.support.http_calls import a_registration, expect_error, expect_success
from tests.support.load_balancers import HAPROXY_PATH, NGINX_PATH, haproxy, nginx
from tests.support.path_spellings import other_spellings
from tests.support.raw_http import open_raw_connection
from tests.support.served_registry import ServedRegistry

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
ACCEPTED = ("/admin/drain", "/api/v1/admin/drain//", "http://registry/admin/drain", "/admin/drain#x")
SPELLINGS = sorted(set(other_spellings("/admin/drain")))
AGENT_ACTIONS = ("/agents/drain", "/agents/undrain")


async def send_post(url: str, target: str) -> int:
    """Send a POST with any request target; return the status of the response."""
    async with open_raw_connection(url) as connection:
        connection.send_raw("POST", target, b"", {"connection": "close"})
        head = (await connection.read_to_end()).partition(b"\r\n")[0]
    return int(head.split(b" ")[1])


async def statuses(url: str) -> dict[str, int]:
    """Send all other spellings of `/admin/drain`; return the statuses by spelling."""
    return {target: await send_post(url, target) for target in SPELLINGS}


async def is_paused(served: ServedRegistry) -> bool:
    """Return whether a request has reached `POST /admin/drain`."""
    return bool((await served.client.get("/admin/drain")).json()["draining"])


async def test_no_other_spelling_of_admin_is_served(served: ServedRegistry) -> None:
    """Encoded characters, repeated slashes, dot segments and others; the plain path and its twin work."""
    assert set((await statuses(served.url)).values()) == {400, 404}
    assert not await is_paused(served)

    for target in ACCEPTED:
        assert await send_post(served.url, target) == 200
        assert await is_paused(served)
        await served.client.delete("/admin/drain")


@pytest.mark.parametrize(
    ("path", "nearest"),
    {
        "/%61dmin/drain": "/admin/drain (DELETE, GET, POST)",
        "/api%2fv1/admin/drain": "/admin/drain (DELETE, GET, POST)",
        "/%61%67%65%6e%74%73": "/agents (GET, POST)",
        "//agents": "/agents (GET, POST)",
        "/api/v1//agents": "/agents (GET, POST)",
        "/agents/%62atch/x": "/agents/batch (POST)",
    }.items(),
)
async def test_another_spelling_is_404_with_the_nearest_path(served: ServedRegistry, path: str, nearest: str) -> None:
    """The caller sees the spelling that is accepted."""
    message = expect_error(await served.client.get(f"{served.url}{path}"), 404, "not_found")["message"]

    assert message == f"Path not found; the nearest one is {nearest}; GET / lists the endpoints"


@pytest.mark.parametrize("endpoint", all_endpoints())
async def test_only_parameters_may_be_encoded(client: httpx2.AsyncClient, endpoint: str) -> None:
    """Each letter of each path is 404 `not_found` if it is encoded, except where an agent id may stand."""
    method, path = endpoint.split(" ")
    plain = re.sub(r"{\w+}", "{}", path)
    for at, character in enumerate(plain):
        if character.isalpha() and (at < len("/agents/") or path not in ("/agents/batch", *AGENT_ACTIONS)):
            spelling = f"{plain[:at]}%{ord(character):02x}{plain[at + 1 :]}".replace("{}", "x")
            expect_error(await client.request(method, f"/api/v1{spelling}"), 404, "not_found")


async def test_an_agent_id_may_be_encoded(client: httpx2.AsyncClient) -> None:
    """HTTP clients encode the colon of an id, ours also its dots; an id may look like a path."""
    for agent_id in ("a:b.c", "batch"):
        expect_success(await client.post("/agents", json=a_registration(agent_id)))
        encoded = "".join(f"%{ord(character):02X}" for character in agent_id)
        for path in (f"/agents/{encoded}", f"/api/v1/agents/{encoded}/", f"/agents/{encoded}/status"):
            assert (await client.get(path)).status_code == 200
        assert (await client.head(f"/heartbeat/{encoded}")).status_code == 410
        assert (await client.get(f"/health/{encoded}")).json()["agent_id"] == agent_id
        expect_success(await client.delete(f"/agents/{encoded}"))
    expect_error(await client.get("/agents/a%2Fstatus"), 404, "unknown_agent")
    expect_error(await client.post("/agents/%62atch", json={}), 405, "method_not_allowed")


def documented_rule(kind: str) -> str:
    """Return the configuration in README that blocks `/admin` in a load balancer."""
    found = re.search(rf"^```{kind}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def balancer_with_rule(kind: str, url: str, folder: Path) -> AbstractAsyncContextManager[str]:
    """Start a load balancer with the configuration in README."""
    if kind == "haproxy":
        return haproxy([url], folder, rules=documented_rule(kind))
    return nginx([url], folder, locations=documented_rule(kind))


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param("haproxy", marks=pytest.mark.skipif(HAPROXY_PATH is None, reason="haproxy is not installed")),
        pytest.param("nginx", marks=pytest.mark.skipif(NGINX_PATH is None, reason="nginx is not installed")),
    ],
)
async def test_the_documented_rule_on_admin_holds_against_every_spelling(
    served: ServedRegistry, kind: str, tmp_path: Path
) -> None:
    """Other paths pass, also encoded agent ids."""
    async with balancer_with_rule(kind, served.url, tmp_path) as url:
        for target in ACCEPTED:
            assert await send_post(url, target) in (400, 404)
        assert await send_post(url, "/admin/self-preservation/end") == 404
        assert set((await statuses(url)).values()) == {400, 404}
        assert not await is_paused(served)

        async with httpx2.AsyncClient(base_url=url) as client:
            expect_success(await client.post("/agents", json=a_registration("a:b")))
            assert (await client.get("/api/v1/agents/a%3Ab")).status_code == 200
