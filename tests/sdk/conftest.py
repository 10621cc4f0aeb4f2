"""The published SDK in an environment of its own; `make sdk-test` makes it, and without it these tests are skipped."""

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
    """Skip what needs the SDK where it is not installed, and give real processes their time."""
    here = Path(__file__).parent
    for item in items:
        if not item.path.is_relative_to(here):
            continue
        item.add_marker(pytest.mark.timeout(180))
        item.add_marker(pytest.mark.xdist_group("sdk"))
        if not SDK_PYTHON.exists():
            item.add_marker(pytest.mark.skip(reason="the published SDK is not installed; `make sdk-test` installs it"))


@pytest.fixture
def start_agent() -> Iterator[StartAgent]:
    """Start real agents by name of their script; all are killed at the end."""

    def start(script: str, registry: str, **env: str) -> SdkAgent:
        return running.enter_context(SdkAgent(SDK_PYTHON, script, registry, **env))

    with contextlib.ExitStack() as running:
        yield start


@pytest.fixture
def lasting_server() -> Iterator[RedisServer]:
    """A Redis that keeps what it acknowledged, on a port that stays the same over restarts."""
    with RedisServer("--appendonly", "yes", "--appendfsync", "always", tcp=True) as server:
        yield server


@pytest.fixture
def three_replicas(lasting_server: RedisServer) -> Iterator[list[Replica]]:
    """Three replicas on three ports."""
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
