"""`capabilities` lists capabilities and their agents."""

import json

import pytest
from mcp_mesh_client import SyncRegistryClient

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, READER_AGENT, table_cells


def test_a_table_has_a_row_for_each_capability_of_each_agent(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """A row shows the agent and its status, too."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    assert table_cells(call("capabilities")) == [
        ["CAPABILITY", "VERSION", "AGENT", "NAMESPACE", "STATUS", "TAGS"],
        ["date_service", "1.5.0", "dates", "default", "healthy", "-"],
        ["read_file", "1.2.0", "reader", "library", "pending", "io,fs"],
    ]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["read_file"], ["read_file"]),
        (["raed_file", "--fuzzy"], ["read_file"]),
        (["-q", "file"], ["read_file"]),
        (["--description", "reads"], ["read_file"]),
        (["--tag", "io", "--tag", "fs"], ["read_file"]),
        (["--tag", "io", "--tag", "net"], []),
        (["-n", "default"], ["date_service"]),
        (["--status", "healthy"], ["date_service"]),
        (["--agent", "dates"], ["date_service"]),
        (["--stability", "deprecated"], []),
        (["--version-constraint", "^1.5"], ["date_service"]),
    ],
)
def test_the_filters_are_those_of_the_api(
    arguments: list[str], expected: list[str], mesh: SyncRegistryClient, call: InvokeCli
) -> None:
    """Name output contains each name once."""
    mesh.register_many([READER_AGENT, DATE_AGENT, {**DATE_AGENT, "agent_id": "dates-2"}])

    shown = call("capabilities", *arguments, "-o", "name").stdout.split()

    assert shown == (["date_service"] if expected == ["date_service"] else expected)


def test_json_output_is_the_response_of_the_api(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """Only the timestamp differs."""
    mesh.register_agent(READER_AGENT)
    shown, response = json.loads(call("capabilities", "-o", "json").stdout), dict(mesh.capabilities())

    assert shown | {"timestamp": ""} == response | {"timestamp": ""}


def test_an_empty_list_is_a_success(call: InvokeCli) -> None:
    """This is the same as for agents."""
    done = call("capabilities", "nothing")

    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "No capabilities found\n")
