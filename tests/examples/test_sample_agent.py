"""The sample agents of the Compose stack, as processes: they register, resolve each other and unregister."""

import os
import signal
import sys

import httpx2

from tests.support.child_process import ChildProcess
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.replica import Replica
from tests.support.source_code import ROOT

SCRIPT = ROOT / "examples" / "sample_agent.py"


def sample_agent(url: str, *arguments: str) -> ChildProcess:
    """Return a sample agent for this registry."""
    environ = {"PATH": os.environ["PATH"], "MCP_MESH_REGISTRY_URL": url, "PYTHONPATH": str(ROOT)}
    return ChildProcess(sys.executable, SCRIPT, *arguments, env=environ)


def test_sample_agents_resolve_each_other_and_unregister(redis_url: str) -> None:
    """The first agent receives the new resolution with its next heartbeat; SIGTERM unregisters an agent."""
    with (
        Replica(redis_url) as replica,
        sample_agent(replica.url, "greeting", "date_service") as greeting,
        httpx2.Client(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client,
    ):
        greeting.wait_for_output("greeting has {'date_service': None}")
        with sample_agent(replica.url, "date_service") as date:
            greeting.wait_for_output("'agent_id': 'sample-date-service'")
            assert date.wait_for_exit(signal.SIGTERM) == 0
        assert client.get("/agents/sample-date-service").status_code == 404
        assert greeting.wait_for_exit(signal.SIGTERM) == 0
        assert client.get("/agents").json()["agents"] == []


def test_a_sample_agent_runs_without_a_registry() -> None:
    """It prints the error and retries."""
    with sample_agent("http://127.0.0.1:9", "alone") as agent:
        agent.wait_for_output("continues without a registry")
        assert agent.is_running
