"""`agent` shows one agent in detail."""

import json

from mcp_mesh_client import SyncRegistryClient

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, GREETING_AGENT, READER_AGENT


def test_an_agent_is_shown_with_its_dependencies_and_dependents(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """Its fields, its capabilities, the provider of each dependency or the reason for none, and its consumers."""
    mesh.register_many([DATE_AGENT, GREETING_AGENT])

    greeter, dates = call("agent", "greeter").stdout, call("agent", "dates").stdout

    assert "Status:            healthy (Heartbeats arrive on time)\n" in greeter
    assert "Endpoint:          http://greeter:1\n" in greeter
    lines = [line.split() for line in greeter.splitlines()]
    assert ["greeting", "1.0.0", "stable", "-", "greet", "-"] in lines
    assert ["greet", "date_service", "dates", "today", "http://dates:1", "-"] in lines
    assert ["greet", "weather_report", "-", "-", "-", "no", "agent", "has", "this", "capability"] in lines
    assert ["greeter", "greet", "date_service", "unresolved"] in [line.split() for line in dates.splitlines()]


def test_json_output_is_the_response_of_the_api(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """It is the response of GET /agents/{id}."""
    mesh.register_agent(READER_AGENT)

    assert json.loads(call("agent", "reader", "-o", "json").stdout) == mesh.agent("reader")


def test_an_unknown_agent_has_its_own_exit_code(call: InvokeCli) -> None:
    """Standard output is empty in every output format."""
    for output in ([], ["-o", "json"]):
        done = call("agent", "nobody", *output)

        assert (done.exit_code, done.stdout) == (3, "")
        assert done.stderr == "Error: No agent has the id 'nobody'; register it first\n"


def test_a_wrong_id_is_a_usage_error(call: InvokeCli) -> None:
    """No request is sent."""
    done = call("agent", "no/body")

    assert done.exit_code == 2
    assert done.stderr.startswith("Error: agent_id: expected 1 to 253 letters")
