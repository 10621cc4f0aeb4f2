"""`agent`: one of them, in detail."""

import json

from mcp_mesh_client import SyncRegistryClient

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, GREETING_AGENT, READER_AGENT


def test_it_tells_what_an_agent_is_needs_and_is_needed_for(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """Its fields, its capabilities, whom it got for its dependencies or why nobody, and who depends on it."""
    mesh.register_many([DATE_AGENT, GREETING_AGENT])

    greeter, dates = call("agent", "greeter").stdout, call("agent", "dates").stdout

    assert "Status:            healthy (Heartbeats arrive on time)\n" in greeter
    assert "Endpoint:          http://greeter:1\n" in greeter
    lines = [line.split() for line in greeter.splitlines()]
    assert ["greeting", "1.0.0", "stable", "-", "greet", "-"] in lines
    assert ["greet", "date_service", "dates", "today", "http://dates:1", "-"] in lines
    assert ["greet", "weather_report", "-", "-", "-", "no", "agent", "has", "this", "capability"] in lines
    assert ["greeter", "greet", "date_service", "unresolved"] in [line.split() for line in dates.splitlines()]


def test_a_document_is_the_answer_of_the_api(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """That of GET /agents/{id}."""
    mesh.register_agent(READER_AGENT)

    assert json.loads(call("agent", "reader", "-o", "json").stdout) == mesh.agent("reader")


def test_who_is_not_there_is_told_by_the_exit_code(call: InvokeCli) -> None:
    """With nothing on standard output, whatever its form."""
    for output in ([], ["-o", "json"]):
        done = call("agent", "nobody", *output)

        assert (done.exit_code, done.stdout) == (3, "")
        assert done.stderr == "Error: No agent has the id 'nobody'; register it first\n"


def test_what_cannot_be_an_id_is_misuse(call: InvokeCli) -> None:
    """It is not even sent."""
    done = call("agent", "no/body")

    assert done.exit_code == 2
    assert done.stderr.startswith("Error: agent_id: expected 1 to 253 letters")
