"""Long lists are read page by page, also during failures."""

import asyncio
import json
from typing import Any

from registry.cli.commands.agents import PAGE_SIZE
from tests.cli.invoke import invoke_cli
from tests.support.canned_server import CannedServer, http_response, json_response
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

VERSION_AND_TIME = {"resource_version": "7", "timestamp": "2026-01-01T00:00:00.000Z"}


def test_without_redis_every_page_comes_from_the_cache() -> None:
    """There is one warning, and no agent is missing."""
    agents = [{"id": f"a{number:04}", "endpoint": "http://a:1"} for number in range(PAGE_SIZE + 1)]
    with RedisServer() as server, Replica(server.url) as replica:
        assert invoke_cli("register", "-", url=replica.url, input=json.dumps(agents)).exit_code == 0
        server.kill()
        done = invoke_cli("agents", "-o", "name", url=replica.url)
        replica.kill()

    assert done.exit_code == 0
    assert done.stdout.split() == [agent["id"] for agent in agents]
    assert done.stderr.count("Warning: ") == 1


async def test_paging_restarts_with_one_long_list_after_a_410() -> None:
    """The log no longer contains the version of the first page; one list is of one version, too."""
    first = json_response(agents=[{"id": "old"}], count=1, **{"continue": "token"}, **VERSION_AND_TIME)
    too_old: dict[str, Any] = {"status": "error", "error": "version_too_old", "message": "list again", "details": []}
    whole = json_response(agents=[{"id": "a"}, {"id": "b"}], count=2, **VERSION_AND_TIME)
    async with CannedServer(first, http_response(410, too_old), whole) as server:
        done = await asyncio.to_thread(invoke_cli, "agents", "-o", "name", url=server.url)

    assert (done.exit_code, done.stdout) == (0, "a\nb\n")
    assert [f"limit={PAGE_SIZE}" in request for request in server.requests] == [True, True, False]
