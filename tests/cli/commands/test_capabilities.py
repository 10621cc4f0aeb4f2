"""`capabilities`: what can be done, and by whom."""

import json

import pytest
from mcp_mesh_client import SyncRegistryClient

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, READER_AGENT, table_cells


def test_a_table_has_a_row_for_each_capability_of_each_agent(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """With who has it and how that one is."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    assert table_cells(call("capabilities")) == [
        ["CAPABILITY", "VERSION", "AGENT", "NAMESPACE", "STATUS", "TAGS"],
        ["date_service", "1.5.0", "dates", "default", "healthy", "-"],
        ["read_file", "1.2.0", "reader", "library", "pending", "io,fs"],
    ]


@pytest.mark.parametrize(
    ("asked", "found"),
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
    asked: list[str], found: list[str], mesh: SyncRegistryClient, call: InvokeCli
) -> None:
    """Names once each."""
    mesh.register_many([READER_AGENT, DATE_AGENT, {**DATE_AGENT, "agent_id": "dates-2"}])

    shown = call("capabilities", *asked, "-o", "name").stdout.split()

    assert shown == (["date_service"] if found == ["date_service"] else found)


def test_a_document_is_the_answer_of_the_api(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """But for the moment."""
    mesh.register_agent(READER_AGENT)
    shown, answer = json.loads(call("capabilities", "-o", "json").stdout), dict(mesh.capabilities())

    assert shown | {"timestamp": ""} == answer | {"timestamp": ""}


def test_nothing_found_is_no_failure(call: InvokeCli) -> None:
    """As with agents."""
    done = call("capabilities", "nothing")

    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "No capabilities found\n")
