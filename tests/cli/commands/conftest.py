"""One replica for all tests of a pytest worker, emptied before each test."""

from collections.abc import Iterator
from typing import Protocol

import pytest
from click.testing import Result
from mcp_mesh_client import SyncRegistryClient

from tests.cli.invoke import invoke_cli
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica


class InvokeCli(Protocol):
    """Calls a command with the URL of the replica."""

    def __call__(self, *arguments: str, input: bytes | str | None = None, **environ: str) -> Result:  # noqa: A002 - as click has it
        """Return the output and the exit code."""


@pytest.fixture(scope="session")
def worker_replica() -> Iterator[Replica]:
    """Start the replica; tests use `mesh`, which empties it."""
    with RedisServer() as server, Replica(server.url) as replica:
        yield replica


@pytest.fixture
def mesh(worker_replica: Replica) -> Iterator[SyncRegistryClient]:
    """Provide a client of an empty mesh."""
    with SyncRegistryClient(worker_replica.url) as client:
        listed = client.agents(fields="id")
        assert "error" not in listed
        for agent in listed["agents"]:
            client.unregister_agent(agent["id"])
        yield client


@pytest.fixture
def call(mesh: SyncRegistryClient, worker_replica: Replica) -> InvokeCli:
    """Provide a function that calls a command with the URL of the replica of `mesh`."""
    assert mesh.state == "online"

    def call_command(*arguments: str, input: bytes | str | None = None, **environ: str) -> Result:  # noqa: A002
        return invoke_cli(*arguments, url=worker_replica.url, input=input, **environ)

    return call_command
