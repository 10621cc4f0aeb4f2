"""Fixtures for tests with the published SDK, which `make sdk-test` installs; without it these tests are skipped."""

import contextlib
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.sdk.sdk_agent import SdkAgent
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.replica_group import FAST_SETTINGS

SDK_PYTHON = Path(__file__).parents[2] / ".venv-sdk" / "bin" / "python"

PACKAGE = "@mcpmesh/cli-linux-x64"
RELEASE = "3.7.1"
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

StartAgent = Callable[..., SdkAgent]
Meshctl = Callable[..., str]


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


@pytest.fixture(scope="session")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install meshctl from npm once; skip the tests with a reason if that fails."""
    npm = shutil.which("npm")
    if npm is None or (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip(f"{PACKAGE} is an npm package for Linux on x86-64")
    folder = tmp_path_factory.mktemp("meshctl")
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(folder)]
    done = subprocess.run([*install, f"{PACKAGE}@{RELEASE}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"npm cannot install {PACKAGE}: {done.stderr.strip().splitlines()[-1:]}")
    return folder / "node_modules" / PACKAGE / "bin" / "meshctl"


@pytest.fixture
def meshctl(binary: Path, tmp_path: Path) -> Meshctl:
    """Run a command against a replica or a URL; fail if it fails, otherwise return its output without colours."""

    def run(replica: Replica | str, *command: str, by_url: bool = True) -> str:
        url = replica if isinstance(replica, str) else replica.url
        parts = urlsplit(url)
        there = ["--registry-host", str(parts.hostname), "--registry-port", str(parts.port)]
        done = subprocess.run(
            [str(binary), *command, *(["--registry-url", url] if by_url else there)],
            capture_output=True,
            text=True,
            check=False,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        )
        output = _COLOUR.sub("", done.stdout + done.stderr)
        assert done.returncode == 0, output
        return output

    return run
