"""`health`: of the registry and of an agent, for people, and as an exit code."""

import json

from mcp_mesh_client import SyncRegistryClient

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, READER_AGENT, invoke_cli
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica


def test_a_healthy_replica_tells_who_leads_and_what_to_worry_about(call: InvokeCli) -> None:
    """The exit code is 0."""
    done = call("health")

    assert done.exit_code == 0
    shown = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert shown["Status"].strip() == "healthy"
    assert shown["Self-preservation"].strip() == "none"
    assert {"Replica", "Leader", "Warnings", "Last outage", "Resource version"} <= shown.keys()
    assert json.loads(call("health", "-o", "json").stdout)["status"] == "healthy"


def test_an_agent_is_healthy_or_the_exit_code_says_that_it_is_not(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """One that never sent a heartbeat is not yet."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    assert call("health", "dates").exit_code == 0
    pending = call("health", "reader")
    assert (pending.exit_code, pending.stderr) == (1, "")
    assert "pending (Registered; no heartbeat received yet)" in pending.stdout
    assert call("health", "nobody").exit_code == 3


def test_without_its_store_a_replica_is_not_healthy_and_lists_are_told_to_be_old() -> None:
    """Reading goes on from its memory, with a warning; writing is told to be tried again."""
    with RedisServer() as server, Replica(server.url) as replica:
        assert invoke_cli("register", "-", url=replica.url, input=json.dumps(READER_AGENT)).exit_code == 0
        server.kill()
        sick = invoke_cli("health", url=replica.url)
        old = invoke_cli("agents", "-o", "name", url=replica.url)
        written = invoke_cli("register", "-", url=replica.url, input=json.dumps(DATE_AGENT))
        replica.kill()

    assert sick.exit_code == 1
    assert (old.exit_code, old.stdout) == (0, "reader\n")
    assert old.stderr.startswith("Warning: the registry cannot reach its store; this response may be ")
    assert written.exit_code == 4
    assert written.stderr.startswith("Error: The registry is temporarily unavailable, try again: ")
