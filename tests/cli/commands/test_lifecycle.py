"""`unregister`, `drain` and `undrain`: each agent is told of, and the exit code speaks for all."""

import json

from mcp_mesh_client import SyncRegistryClient

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, READER_AGENT


def test_agents_are_removed_one_after_the_other(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """Who is not there stops nobody; the exit code says that somebody was not."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    done = call("unregister", "reader", "nobody", "dates")

    assert (done.exit_code, done.stdout) == (3, "reader unregistered\ndates unregistered\n")
    assert done.stderr == "Error: No agent has the id 'nobody'; register it first\n"
    assert call("agents", "-o", "name").stdout == ""


def test_who_is_not_there_may_be_no_failure(call: InvokeCli) -> None:
    """For scripts that clean up."""
    done = call("unregister", "nobody", "--ignore-not-found")

    assert (done.exit_code, done.output) == (0, "")


def test_an_agent_leaves_service_and_comes_back(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """Doing it twice is doing it once, and told."""
    mesh.register_agent(DATE_AGENT)

    assert call("drain", "dates").stdout == "dates draining\n"
    assert call("drain", "dates").stdout == "dates draining (unchanged)\n"
    assert call("resolve", "date_service").exit_code == 3
    assert call("undrain", "dates").stdout == "dates in service\n"
    assert call("resolve", "date_service", "-o", "name").stdout == "dates\n"


def test_many_agents_are_found_by_what_they_share(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """By a selector, a namespace or both; nobody found is no failure, for then nobody has to be told."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    assert call("drain", "-l", "env=prod", "-n", "library").stdout == "reader draining\n"
    assert json.loads(call("undrain", "-n", "library", "-o", "json").stdout)["changed"] == 1
    nobody = call("drain", "-l", "env=nowhere")
    assert (nobody.exit_code, nobody.stderr) == (0, "No agents found\n")


def test_agents_are_named_or_found_but_not_both(call: InvokeCli) -> None:
    """And never all by default."""
    for arguments in ([], ["dates", "-n", "library"]):
        done = call("drain", *arguments)

        assert done.exit_code == 2
        assert "Give the ids of agents, or --selector, --namespace or both" in done.stderr


def test_each_answer_is_a_line_of_json(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """As it came."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    lines = call("unregister", "reader", "dates", "-o", "json").stdout.splitlines()

    assert [json.loads(line)["agent_id"] for line in lines] == ["reader", "dates"]
