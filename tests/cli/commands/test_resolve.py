"""`resolve`: whom a dependency would get, and why."""

import json

from mcp_mesh_client import SyncRegistryClient

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, GREETING_AGENT, table_cells

OLDER = {
    "agent_id": "dates-0",
    "metadata": {
        "endpoint": "http://dates:2",
        "tools": [{"function_name": "now", "capability": "date_service", "version": "1.0.0", "tags": ["utc"]}],
    },
}


def test_a_capability_gets_the_best_match(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """And how many would have done."""
    mesh.register_many([DATE_AGENT, OLDER])

    assert table_cells(call("resolve", "date_service"))[1] == ["dates", "today", "1.5.0", "http://dates:1", "2"]
    assert call("resolve", "date_service", "--version", "<1.5", "-o", "name").stdout == "dates-0\n"
    assert call("resolve", "date_service", "--tag", "+utc", "-o", "name").stdout == "dates-0\n"
    assert json.loads(call("resolve", "date_service", "-o", "json").stdout)["candidates"] == 2


def test_nobody_who_will_do_is_a_failure_with_a_reason(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """To explain, all are shown who have the capability at all, draining and silent ones, too."""
    mesh.register_agent(DATE_AGENT)
    mesh.drain("dates")

    done = call("resolve", "date_service", "--explain")

    assert done.exit_code == 3
    assert done.stderr.startswith("Error: No agent can be selected for 'date_service'")
    assert ["date_service", "1.5.0", "dates", "default", "healthy,draining", "-"] in [
        line.split() for line in done.stdout.splitlines()
    ]


def test_the_dependencies_of_an_agent_are_shown_with_their_reasons(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """The exit code says that something is missing; to explain, each candidate has the stage at which it fell out."""
    mesh.register_many([DATE_AGENT, OLDER, GREETING_AGENT])

    done = call("resolve", "--agent", "greeter", "--explain")

    assert done.exit_code == 3
    assert done.stderr == "Error: No provider for weather_report, required by greet: no agent has this capability\n"
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["greet", "date_service", "dates", "today", "http://dates:1", "-"] in lines
    assert ["greet", "date_service", "dates", "1.5.0", "healthy", "chosen", "-"] in lines
    assert [
        "greet",
        "date_service",
        "dates-0",
        "1.0.0",
        "healthy",
        "not_chosen",
        "another",
        "provider",
        "was",
        "chosen",
    ] in lines


def test_all_dependencies_met_is_a_success(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """So that a deployment can wait for it."""
    weather = {"id": "weather", "endpoint": "http://w:1", "capabilities": ["weather_report"]}
    mesh.register_many([DATE_AGENT, GREETING_AGENT, weather])
    mesh.heartbeat("weather")

    done = call("resolve", "--agent", "greeter", "-o", "name")

    assert (done.exit_code, done.stdout) == (0, "dates\nweather\n")


def test_it_is_asked_for_a_capability_or_an_agent(call: InvokeCli) -> None:
    """And for one of them."""
    for arguments in ([], ["date_service", "--agent", "greeter"], ["--agent", "greeter", "--strategy", "random"]):
        assert call("resolve", *arguments).exit_code == 2
