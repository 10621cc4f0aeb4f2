"""The sample agents of the stack, as processes beside a replica: they come, find each other, and go."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.support.eventually import wait_until
from tests.support.replica import Replica
from tests.support.source import ROOT

SCRIPT = ROOT / "examples" / "sample_agent.py"


@contextmanager
def sample(url: str, output: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a sample agent; what it says goes into a file."""
    environ = {"PATH": os.environ["PATH"], "MCP_MESH_REGISTRY_URL": url, "PYTHONPATH": str(ROOT)}
    with output.open("wb") as out:
        process = subprocess.Popen([sys.executable, str(SCRIPT), *arguments], env=environ, stdout=out, stderr=out)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_sample_agents_find_each_other_and_take_their_leave(redis_url: str, tmp_path: Path) -> None:
    """Who came first is told with its next heartbeat; who is told to stop unregisters."""
    said = tmp_path / "greeting"
    with (
        Replica(redis_url) as replica,
        sample(replica.url, said, "greeting", "date_service") as greeting,
        httpx2.Client(base_url=replica.url) as client,
    ):
        wait_until(
            lambda: "greeting has {'date_service': None}" in said.read_text(),
            description="it needs another",
            timeout=15,
        )
        with sample(replica.url, tmp_path / "date", "date_service") as date:
            wait_until(
                lambda: "'agent_id': 'sample-date-service'" in said.read_text(), description="it is told", timeout=15
            )
            date.send_signal(signal.SIGTERM)
            assert date.wait(10) == 0
        assert client.get("/agents/sample-date-service").status_code == 404
        greeting.send_signal(signal.SIGTERM)
        assert greeting.wait(10) == 0
        assert client.get("/agents").json()["agents"] == []


def test_a_sample_agent_goes_on_without_a_registry(tmp_path: Path) -> None:
    """It says so, and lives."""
    said = tmp_path / "alone"
    with sample("http://127.0.0.1:9", said, "alone") as agent:
        wait_until(lambda: "goes on without a registry" in said.read_text(), description="it says so", timeout=30)
        assert agent.poll() is None
