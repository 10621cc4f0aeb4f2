"""Fixtures for tests with the published SDK, which `make sdk-test` installs; without it these tests are skipped."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sdk.sdk_agent import SdkAgent
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.replica_group import FAST_SETTINGS

SDK_PYTHON = Path(__file__).parents[2] / ".venv-sdk" / "bin" / "python"

StartAgent = Callable[..., SdkAgent]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip these tests where the SDK is not installed."""
    here = Path(__file__).parent
    for item in items:
        if not item.path.is_relative_to(here):
            continue
        item.add_marker(pytest.mark.xdist_group("sdk"))
        if not SDK_PYTHON.exists():
            item.add_marker(pytest.mark.skip(reason="the published SDK is not installed; `make sdk-test` installs it"))


@pytest.fixture
def start_agent() -> Iterator[StartAgent]:
    """Start agents of the SDK by the name of their script; stop all of them at the end."""

    def start(script: str, registry: str, **env: str) -> SdkAgent:
        return running.enter_context(SdkAgent(SDK_PYTHON, script, registry, **env))

    with contextlib.ExitStack() as running:
        yield start


@pytest.fixture
def lasting_server() -> Iterator[RedisServer]:
    """Start a Redis server that persists every write and keeps its port across restarts."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always", tcp=True) as server:
        yield server


@pytest.fixture
def three_replicas(lasting_server: RedisServer) -> Iterator[list[Replica]]:
    """Start three replicas on three ports."""
    replicas = [
        Replica(lasting_server.url, **FAST_SETTINGS | {"REGISTRY_INSTANCE_ID": f"replica-{at}"}) for at in range(3)
    ]
    try:
        for replica in replicas:
            replica.start()
        yield replicas
    finally:
        for replica in replicas:
            replica.kill()
