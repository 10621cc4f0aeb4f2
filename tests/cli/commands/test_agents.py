"""`agents` lists agents as a table, JSON, YAML or names."""

import json
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from mcp_mesh_client import SyncRegistryClient
from rich.cells import cell_len

from registry.cli.commands.agents import PAGE_SIZE
from registry.cli.output.tables import agent_rows
from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, READER_AGENT, first_words, table_cells


def test_a_table_has_a_row_for_each_agent(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """The order is that of the API."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    assert table_cells(call("agents")) == [
        ["ID", "NAMESPACE", "STATUS", "CAPABILITIES", "HEARTBEAT", "AGE"],
        ["dates", "default", "healthy", "date_service", "0s", "0s"],
        ["reader", "library", "pending", "read_file", "-", "0s"],
    ]


def test_a_wide_table_starts_with_the_columns_of_the_normal_one(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """A script that reads the third column works with both."""
    mesh.register_agent(READER_AGENT)
    narrow, wide = table_cells(call("agents")), table_cells(call("agents", "-o", "wide"))

    assert wide[0] == [*narrow[0], "NAME", "TYPE", "ENDPOINT", "LABELS", "VERSION"]
    assert wide[1][8:10] == ["http://reader:1", "env=prod"]


def test_the_status_of_a_draining_agent_shows_the_drain(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """Kubectl shows a cordoned node in the same way."""
    mesh.register_agent(READER_AGENT)
    mesh.drain("reader")

    assert table_cells(call("agents"))[1][2] == "pending,draining"


def test_a_long_list_of_capabilities_is_shortened(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """The wide table shows all of them."""
    mesh.register_agent({"id": "many", "endpoint": "http://m:1", "capabilities": [f"c{number}" for number in range(9)]})

    assert "c0,c1,c2 +6" in call("agents").stdout
    assert "c0,c1,c2,c3,c4,c5,c6,c7,c8" in call("agents", "-o", "wide").stdout


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_document_is_the_response_of_the_api(output: str, mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """It is complete and unchanged, except for the timestamp."""
    mesh.register_many(
        [READER_AGENT, DATE_AGENT, {"id": "groesse", "endpoint": "http://u:1", "name": "Grüße 日本語 😀"}]
    )
    read = {"json": json.loads, "yaml": yaml.safe_load}[output]

    shown, response = read(call("agents", "-o", output).stdout), dict(mesh.agents())

    assert shown.pop("timestamp") <= response.pop("timestamp")
    assert shown == response


def test_name_output_has_one_id_on_each_line(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """The output is suitable for xargs."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    assert call("agents", "-o", "name").stdout == "dates\nreader\n"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-n", "library"], ["reader"]),
        (["-l", "env=prod"], ["reader"]),
        (["-l", "!env"], ["dates"]),
        (["--status", "healthy"], ["dates"]),
        (["-c", "read_file"], ["reader"]),
        (["-c", "read_file", "-c", "date_service"], []),
        (["-c", "read_file", "-c", "date_service", "--match", "any"], ["dates", "reader"]),
        (["-c", "date_service", "--version-constraint", ">=1.5,<2"], ["dates"]),
        (["-c", "date_service", "--version-constraint", ">=2"], []),
        (["--tag", "io", "--tag", "fs"], ["reader"]),
        (["--tag", "io", "--tag", "net"], []),
        (["-c", "raed_file", "--fuzzy"], ["reader"]),
        (["--in-service"], ["reader"]),
        (["--draining"], ["dates"]),
        (["--id", "reader"], ["reader"]),
    ],
)
def test_the_filters_are_those_of_the_api(
    arguments: list[str], expected: list[str], mesh: SyncRegistryClient, call: InvokeCli
) -> None:
    """Several filters are combined with AND."""
    mesh.register_many([READER_AGENT, DATE_AGENT])
    mesh.drain("dates")

    done = call("agents", *arguments, "-o", "name")

    assert (done.exit_code, done.stdout.split()) == (0, expected)


def test_an_empty_list_is_a_success(call: InvokeCli) -> None:
    """Kubectl does the same; JSON output has an empty list."""
    done = call("agents")

    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "No agents found\n")
    assert json.loads(call("agents", "-o", "json").stdout)["agents"] == []


def test_a_long_list_is_read_page_by_page_and_shown_as_one(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """All pages are of one version, and in order."""
    agents: list[dict[str, Any]] = [
        {"id": f"a{number:04}", "endpoint": "http://a:1"} for number in range(2 * PAGE_SIZE + 1)
    ]
    for number in range(0, len(agents), 200):
        mesh.register_many(agents[number : number + 200])

    response = json.loads(call("agents", "-o", "json").stdout)

    assert [agent["id"] for agent in response["agents"]] == [agent["id"] for agent in agents]
    assert response["count"] == len(agents)
    assert "continue" not in response
    assert len(call("agents").stdout.splitlines()) == 1 + len(agents)


def test_a_page_shows_the_continue_token(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """It is part of the JSON output; a table has it on standard error."""
    mesh.register_many([READER_AGENT, DATE_AGENT])
    first = call("agents", "--limit", "1", "-o", "name")
    token = first.stderr.split()[-1]

    assert first.stderr == f"More agents: --continue {token}\n"
    assert first.stdout == "dates\n"
    assert call("agents", "--continue", token, "-o", "name").stdout == "reader\n"
    assert "continue" in json.loads(call("agents", "--limit", "1", "-o", "json").stdout)


def test_wide_characters_do_not_shift_the_columns(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """A column starts at the same cell of the terminal in each line."""
    for agent_id, name in (("a", "日本語の名前"), ("b", "plain"), ("c", "😀")):
        mesh.register_agent({"id": agent_id, "name": name, "endpoint": f"http://{agent_id}:1"})
    lines = call("agents", "-o", "wide").stdout.splitlines()

    starts = {
        cell_len(line[: line.index(marker)])
        for line, marker in zip(lines, ["TYPE", *["default   http"] * 3], strict=True)
    }
    assert len(starts) == 1


def test_escape_sequences_of_an_agent_do_not_reach_the_terminal(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """They are shown as numbers; JSON and YAML output encode the same text."""
    escapes = "\x1b]0;pwned\x07\x9b31m\u202egnp.exe\r\n"
    mesh.register_agent(
        {"id": "evil", "endpoint": "http://e:1", "annotations": {"note": escapes}, "metadata": {"a": escapes}}
    )

    shown = call("agent", "evil")
    assert "\\x1b]0;pwned\\x07\\x9b31m\\u202egnp.exe\\x0d\\x0a" in shown.stdout
    for output, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        document = call("agent", "evil", "-o", output).stdout
        assert read(document)["annotations"]["note"] == escapes
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(document)


def test_the_columns_of_a_table_start_below_their_titles(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """The output is suitable for awk and for human readers."""
    mesh.register_many([READER_AGENT, DATE_AGENT])
    titles, *lines = call("agents", "-o", "wide").stdout.splitlines()

    starts = [titles.index(title) for title in titles.split()]
    assert all(line[start - 1] == " " and line[start] != " " for line in lines for start in starts[1:])
    assert first_words(lines) == ["dates", "reader"]


def test_an_overdue_agent_is_shown_with_its_time() -> None:
    """During self-preservation it was shown as any other healthy agent."""
    agent = {"status": "healthy", "overdue_since": "2026-11-30T20:00:00.000Z"}

    (row,) = agent_rows([agent], "2026-11-30T20:03:00.000Z")

    assert row["state"] == "healthy,overdue 3m"
