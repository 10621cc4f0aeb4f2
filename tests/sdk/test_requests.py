"""The requests of the published SDK and of meshctl, recorded between them and a replica.

The checks of requests rely on three facts about them: no header of a browser, no path in another spelling, and a
Content-Type with each body.
"""

import asyncio
import contextlib
import re
from collections.abc import Sequence

from registry.api.request.body import JSON_BY_DEFAULT_PATHS
from tests.sdk.conftest import Meshctl, StartAgent
from tests.support.fake_agent import ReceivedRequest
from tests.support.polling import async_wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.request_recorder import request_recorder

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("list",),
    ("list", "--tools"),
    ("list", "--tools=greet"),
    ("list", "--schemas"),
    ("status", "sdk-consumer"),
    ("call", "greet", '{"name": "bob"}'),
    ("registry", "status"),
    ("registry", "drain"),
    ("registry", "resume"),
)
# Commands for which the registry has no endpoint or no data; they fail after their requests.
FAILING_COMMANDS = (
    ("entity", "rotate"),
    ("job", "status", "x"),
    ("job", "reclaim", "x"),
    ("schema", "diff", "a", "b"),
)
REQUESTS = {
    "POST /heartbeat",
    "HEAD /heartbeat/{}",
    "DELETE /agents/{}",
    "POST /jobs/claim",
    "GET /health",
    "GET /agents",
    "POST /proxy/{}/mcp",
    "GET /events",
    "GET /schemas",
    "GET /schemas/{}",
    "GET /admin/drain",
    "POST /admin/drain",
    "DELETE /admin/drain",
    "POST /admin/rotate",
    "GET /jobs/{}",
    "POST /jobs/{}/reclaim",
}
_VARYING_SEGMENT = re.compile(r"(?<=/)(sdk-[a-z]+-[0-9a-f]+|127\.0\.0\.1:\d+|[abx])(?=/|$)")


async def test_no_published_client_sends_a_body_without_content_type(
    lasting_server: RedisServer, start_agent: StartAgent, meshctl: Meshctl
) -> None:
    """The exceptions of the registry are the paths for which one of them does."""
    with Replica(lasting_server.url) as replica:
        async with request_recorder(replica.url) as (url, requests):
            await call_everything(url, requests, start_agent, meshctl)

    assert {name_of(each) for each in requests} == REQUESTS
    assert {path_of(each) for each in requests if each.body and "content-type" not in each.headers} == (
        JSON_BY_DEFAULT_PATHS
    )
    for each in requests:
        assert not {name for name in each.headers if name == "origin" or name.startswith("sec-fetch-")}
        assert each.headers["host"] == url.removeprefix("http://")
        assert "%" not in path_of(each)


async def call_everything(
    url: str, requests: Sequence[ReceivedRequest], start_agent: StartAgent, meshctl: Meshctl
) -> None:
    """Let agents of the SDK call the registry from their start to their end, and run each command of meshctl."""
    agents = [start_agent(script, url) for script in ("consumer", "provider", "worker")]
    await asyncio.to_thread(agents[0].wait_for_result, "hello ann on monday", name="ann")
    await async_wait_until(
        lambda: {"POST /jobs/claim", "HEAD /heartbeat/{}"} <= {name_of(each) for each in requests},
        description="an agent sends a heartbeat, and one claims jobs",
    )
    agent_id = next(each.path.rpartition("/")[2] for each in requests if each.method == "HEAD")
    for command in (*COMMANDS, ("audit", agent_id)):
        await asyncio.to_thread(meshctl, url, *command)
    for failing_command in FAILING_COMMANDS:
        with contextlib.suppress(AssertionError):
            await asyncio.to_thread(meshctl, url, *failing_command)
    for agent in agents:
        await asyncio.to_thread(agent.stop)


def path_of(request: ReceivedRequest) -> str:
    """Return the path of a request without its ids and its query."""
    return _VARYING_SEGMENT.sub("{}", request.path.partition("?")[0])


def name_of(request: ReceivedRequest) -> str:
    """Return the method and the path of a request."""
    return f"{request.method} {path_of(request)}"
