"""`unregister`, `drain` and `undrain` report each agent; one exit code covers all of them."""

import json

from mcp_mesh_client import SyncRegistryClient

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, READER_AGENT


def test_several_agents_are_unregistered(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """An unknown agent does not stop the others; the exit code shows that there was one."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    done = call("unregister", "reader", "nobody", "dates")

    assert (done.exit_code, done.stdout) == (3, "reader unregistered\ndates unregistered\n")
    assert done.stderr == "Error: No agent has the id 'nobody'; register it first\n"
    assert call("agents", "-o", "name").stdout == ""


def test_an_unknown_agent_can_be_ignored(call: InvokeCli) -> None:
    """Cleanup scripts use `--ignore-not-found`."""
    done = call("unregister", "nobody", "--ignore-not-found")

    assert (done.exit_code, done.output) == (0, "")


def test_an_agent_is_drained_and_undrained(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """A repeated drain changes nothing and is reported as unchanged."""
    mesh.register_agent(DATE_AGENT)

    assert call("drain", "dates").stdout == "dates draining\n"
    assert call("drain", "dates").stdout == "dates draining (unchanged)\n"
    assert call("resolve", "date_service").exit_code == 3
    assert call("undrain", "dates").stdout == "dates in service\n"
    assert call("resolve", "date_service", "-o", "name").stdout == "dates\n"


def test_many_agents_are_drained_by_selector_and_namespace(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """Either one or both select the agents; an empty selection is a success."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    assert call("drain", "-l", "env=prod", "-n", "library").stdout == "reader draining\n"
    assert json.loads(call("undrain", "-n", "library", "-o", "json").stdout)["changed"] == 1
    empty = call("drain", "-l", "env=nowhere")
    assert (empty.exit_code, empty.stderr) == (0, "No agents found\n")


def test_ids_and_selectors_exclude_each_other(call: InvokeCli) -> None:
    """A call with neither is a usage error, too, and not a drain of all agents."""
    for arguments in ([], ["dates", "-n", "library"]):
        done = call("drain", *arguments)

        assert done.exit_code == 2
        assert "Give the ids of agents, or --selector, --namespace or both" in done.stderr


def test_json_output_has_a_line_for_each_response(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """Each line is the response of the API."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    lines = call("unregister", "reader", "dates", "-o", "json").stdout.splitlines()

    assert [json.loads(line)["agent_id"] for line in lines] == ["reader", "dates"]
