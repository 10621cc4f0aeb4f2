"""`health` shows the health of the registry or of an agent, and returns it as the exit code."""

import json

from mcp_mesh_client import SyncRegistryClient

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, READER_AGENT, invoke_cli
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica


def test_a_healthy_replica_shows_its_leader_and_warnings(call: InvokeCli) -> None:
    """The exit code is 0."""
    done = call("health")

    assert done.exit_code == 0
    shown = dict(line.split(":", 1) for line in done.stdout.splitlines())
    assert shown["Status"].strip() == "healthy"
    assert shown["Self-preservation"].strip() == "none"
    assert {"Replica", "Leader", "Warnings", "Last outage", "Resource version"} <= shown.keys()
    assert json.loads(call("health", "-o", "json").stdout)["status"] == "healthy"


def test_the_health_of_an_agent_is_the_exit_code(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """An agent without a heartbeat is not healthy yet."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    assert call("health", "dates").exit_code == 0
    pending = call("health", "reader")
    assert (pending.exit_code, pending.stderr) == (1, "")
    assert "pending (Registered; no heartbeat received yet)" in pending.stdout
    assert call("health", "nobody").exit_code == 3


def test_without_redis_a_replica_is_unhealthy_and_its_lists_are_marked_as_old() -> None:
    """Reads come from the cache, with a warning; a write fails with the advice to try again."""
    with RedisServer() as server, Replica(server.url) as replica:
        assert invoke_cli("register", "-", url=replica.url, input=json.dumps(READER_AGENT)).exit_code == 0
        server.kill()
        health = invoke_cli("health", url=replica.url)
        cached = invoke_cli("agents", "-o", "name", url=replica.url)
        written = invoke_cli("register", "-", url=replica.url, input=json.dumps(DATE_AGENT))
        replica.kill()

    assert health.exit_code == 1
    assert (cached.exit_code, cached.stdout) == (0, "reader\n")
    assert cached.stderr.startswith("Warning: the registry cannot reach its store; this response may be ")
    assert written.exit_code == 4
    assert written.stderr.startswith("Error: The registry is temporarily unavailable, try again: ")


def test_without_the_token_only_status_and_readiness_are_shown() -> None:
    """With a hint to the option; the exit code is that of the status."""
    with RedisServer() as server, Replica(server.url, AUTH_TOKEN="s3cret") as replica:  # noqa: S106 - made up
        stranger = invoke_cli("health", url=replica.url)
        known = invoke_cli("health", "--token", "s3cret", url=replica.url)

    assert (stranger.exit_code, known.exit_code) == (0, 0)
    assert [line.split(":", 1)[0] for line in stranger.stdout.splitlines()] == ["Status", "Ready", "Details"]
    assert "set --token or MCP_MESH_REGISTRY_TOKEN" in stranger.stdout
    assert "Leader" in known.stdout
