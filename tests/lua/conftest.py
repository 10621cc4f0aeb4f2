"""The servers on which each table runs: a standalone one, a cluster of one node, and the one in memory."""

from collections.abc import AsyncIterator, Iterator

import pytest

from registry.store.redis.connection import endpoint_from_url, in_memory_endpoint
from tests.conftest import RunningServer
from tests.lua.script_harness import ScriptHarness
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session")
def worker_cluster() -> Iterator[RedisServer]:
    """Provide a cluster of one node; it rejects a key from a second slot."""
    with RedisServer("--cluster-enabled", "yes", tcp=True) as server:
        server.make_single_node_cluster()
        yield server


@pytest.fixture(params=["standalone", "cluster", "memory"])
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[ScriptHarness]:
    """Provide a harness for each kind of server in turn."""
    if request.param == "memory":
        server = in_memory_endpoint()
    else:
        name = "worker_cluster" if request.param == "cluster" else "worker_server"
        running: RunningServer = request.getfixturevalue(name)
        server = endpoint_from_url(running.url)
    harness = ScriptHarness(server)
    yield harness
    await harness.close()


@pytest.fixture
async def standalone(worker_server: RunningServer) -> AsyncIterator[ScriptHarness]:
    """Provide a harness on the standalone server of the worker."""
    harness = ScriptHarness(endpoint_from_url(worker_server.url))
    yield harness
    await harness.close()
