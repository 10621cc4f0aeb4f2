"""The servers each table runs on: a standalone one, a cluster of one node, and the one in memory."""

from collections.abc import AsyncIterator, Iterator

import pytest

from registry.store.redis.connection import server_at, server_in_memory
from tests.conftest import HasUrl
from tests.lua.script_harness import Bench
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="session")
def cluster_of_worker() -> Iterator[RedisServer]:
    """A cluster of one node: it refuses a key from a second slot."""
    with RedisServer("--cluster-enabled", "yes", tcp=True) as server:
        server.make_single_node_cluster()
        yield server


@pytest.fixture(params=["standalone", "cluster", "memory"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """A bench on each kind of server in turn."""
    if request.param == "memory":
        server = server_in_memory()
    else:
        name = "cluster_of_worker" if request.param == "cluster" else "server_of_worker"
        running: HasUrl = request.getfixturevalue(name)
        server = server_at(running.url)
    bench = Bench(server)
    yield bench
    await bench.close()


@pytest.fixture
async def standalone(server_of_worker: HasUrl) -> AsyncIterator[Bench]:
    """A bench on the worker's own server alone."""
    bench = Bench(server_at(server_of_worker.url))
    yield bench
    await bench.close()
