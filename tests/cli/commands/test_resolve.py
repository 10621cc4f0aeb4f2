"""`resolve` shows the provider that a dependency would get, and explains the choice."""

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


def test_a_capability_resolves_to_the_best_match(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """The output also has the number of candidates."""
    mesh.register_many([DATE_AGENT, OLDER])

    assert table_cells(call("resolve", "date_service"))[1] == ["dates", "today", "1.5.0", "http://dates:1", "2"]
    assert call("resolve", "date_service", "--version", "<1.5", "-o", "name").stdout == "dates-0\n"
    assert call("resolve", "date_service", "--tag", "+utc", "-o", "name").stdout == "dates-0\n"
    assert json.loads(call("resolve", "date_service", "-o", "json").stdout)["candidates"] == 2


def test_a_capability_without_a_provider_is_a_failure_with_a_reason(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """`--explain` lists all agents with the capability, including draining and overdue ones."""
    mesh.register_agent(DATE_AGENT)
    mesh.drain("dates")

    done = call("resolve", "date_service", "--explain")

    assert done.exit_code == 3
    assert done.stderr.startswith("Error: No agent can be selected for 'date_service'")
    assert ["date_service", "1.5.0", "dates", "default", "healthy,draining", "-"] in [
        line.split() for line in done.stdout.splitlines()
    ]


def test_the_dependencies_of_an_agent_are_shown_with_their_reasons(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """An unresolved dependency sets the exit code; `--explain` shows the stage that rejected each candidate."""
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


def test_an_agent_with_all_dependencies_resolved_is_a_success(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """A deployment script can wait for this exit code."""
    weather = {"id": "weather", "endpoint": "http://w:1", "capabilities": ["weather_report"]}
    mesh.register_many([DATE_AGENT, GREETING_AGENT, weather])
    mesh.heartbeat("weather")

    done = call("resolve", "--agent", "greeter", "-o", "name")

    assert (done.exit_code, done.stdout) == (0, "dates\nweather\n")


def test_a_capability_and_an_agent_exclude_each_other(call: InvokeCli) -> None:
    """A call with neither is a usage error, too."""
    for arguments in ([], ["date_service", "--agent", "greeter"], ["--agent", "greeter", "--strategy", "random"]):
        assert call("resolve", *arguments).exit_code == 2
