"""The sample agents of the stack, as processes beside a replica: they come, find each other, and go."""

import os
import signal
import sys

import httpx2

from tests.support.child_process import ChildProcess
from tests.support.replica import Replica
from tests.support.source_code import ROOT

SCRIPT = ROOT / "examples" / "sample_agent.py"


def sample(url: str, *arguments: str) -> ChildProcess:
    """Return a sample agent at this registry."""
    environ = {"PATH": os.environ["PATH"], "MCP_MESH_REGISTRY_URL": url, "PYTHONPATH": str(ROOT)}
    return ChildProcess(sys.executable, SCRIPT, *arguments, env=environ)


def test_sample_agents_find_each_other_and_take_their_leave(redis_url: str) -> None:
    """Who came first is told with its next heartbeat; who is told to stop unregisters."""
    with (
        Replica(redis_url) as replica,
        sample(replica.url, "greeting", "date_service") as greeting,
        httpx2.Client(base_url=replica.url) as client,
    ):
        greeting.wait_for_output("greeting has {'date_service': None}")
        with sample(replica.url, "date_service") as date:
            greeting.wait_for_output("'agent_id': 'sample-date-service'")
            assert date.wait_for_exit(signal.SIGTERM) == 0
        assert client.get("/agents/sample-date-service").status_code == 404
        assert greeting.wait_for_exit(signal.SIGTERM) == 0
        assert client.get("/agents").json()["agents"] == []


def test_a_sample_agent_goes_on_without_a_registry() -> None:
    """It says so, and lives."""
    with sample("http://127.0.0.1:9", "alone") as agent:
        agent.wait_for_output("goes on without a registry", timeout=30)
        assert agent.is_running
