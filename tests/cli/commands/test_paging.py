"""Long lists, read page by page, on bad days."""

import asyncio
import json
from typing import Any

from registry.cli.paging import PAGE_SIZE
from tests.cli.invoke import invoke_cli
from tests.support.canned_server import CannedServer, http_response, json_response
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

WHEN = {"resource_version": "7", "timestamp": "2026-01-01T00:00:00.000Z"}


def test_without_the_store_every_page_comes_from_memory() -> None:
    """With one warning, and nobody missing."""
    agents = [{"id": f"a{at:04}", "endpoint": "http://a:1"} for at in range(PAGE_SIZE + 1)]
    with RedisServer() as server, Replica(server.url) as replica:
        assert invoke_cli("register", "-", url=replica.url, input=json.dumps(agents)).exit_code == 0
        server.kill()
        done = invoke_cli("agents", "-o", "name", url=replica.url)
        replica.kill()

    assert done.exit_code == 0
    assert done.stdout.split() == [agent["id"] for agent in agents]
    assert done.stderr.count("Warning: ") == 1


async def test_a_walk_that_the_log_no_longer_holds_begins_again_as_one_long_list() -> None:
    """What changed meanwhile cannot be followed from the first page's version; the whole is of one version, too."""
    first = json_response(agents=[{"id": "old"}], count=1, **{"continue": "token"}, **WHEN)
    gone: dict[str, Any] = {"status": "error", "error": "version_too_old", "message": "list again", "details": []}
    whole = json_response(agents=[{"id": "a"}, {"id": "b"}], count=2, **WHEN)
    async with CannedServer(first, http_response(410, gone), whole) as server:
        done = await asyncio.to_thread(invoke_cli, "agents", "-o", "name", url=server.url)

    assert (done.exit_code, done.stdout) == (0, "a\nb\n")
    assert [f"limit={PAGE_SIZE}" in request for request in server.requests] == [True, True, False]
