"""`agents`: who is there, for people and for programs."""

import json
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from mcp_mesh_client import SyncRegistryClient
from rich.cells import cell_len

from registry.cli.paging import PAGE_SIZE
from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, READER_AGENT, first_words, table_cells


def test_a_table_tells_what_matters_most(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """One line for each agent, in the order of the API."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    assert table_cells(call("agents")) == [
        ["ID", "NAMESPACE", "STATUS", "CAPABILITIES", "HEARTBEAT", "AGE"],
        ["dates", "default", "healthy", "date_service", "0s", "0s"],
        ["reader", "library", "pending", "read_file", "-", "0s"],
    ]


def test_a_wide_table_has_the_same_columns_first_and_more(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """So that a script that takes the third column may be told wide ones."""
    mesh.register_agent(READER_AGENT)
    narrow, wide = table_cells(call("agents")), table_cells(call("agents", "-o", "wide"))

    assert wide[0] == [*narrow[0], "NAME", "TYPE", "ENDPOINT", "LABELS", "VERSION"]
    assert wide[1][8:10] == ["http://reader:1", "env=prod"]


def test_an_agent_that_drains_says_so_in_its_status(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """As Kubernetes tells of nodes."""
    mesh.register_agent(READER_AGENT)
    mesh.drain("reader")

    assert table_cells(call("agents"))[1][2] == "pending,draining"


def test_many_capabilities_are_counted(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """All of them are in the wide table."""
    mesh.register_agent({"id": "many", "endpoint": "http://m:1", "capabilities": [f"c{at}" for at in range(9)]})

    assert "c0,c1,c2 +6" in call("agents").stdout
    assert "c0,c1,c2,c3,c4,c5,c6,c7,c8" in call("agents", "-o", "wide").stdout


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_document_is_the_answer_of_the_api(output: str, mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """All of it, and nothing else, but for the moment it was answered."""
    mesh.register_many(
        [READER_AGENT, DATE_AGENT, {"id": "groesse", "endpoint": "http://u:1", "name": "Grüße 日本語 😀"}]
    )
    read = {"json": json.loads, "yaml": yaml.safe_load}[output]

    shown, answer = read(call("agents", "-o", output).stdout), dict(mesh.agents())

    assert shown.pop("timestamp") <= answer.pop("timestamp")
    assert shown == answer


def test_names_are_ids_line_by_line(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """For xargs."""
    mesh.register_many([READER_AGENT, DATE_AGENT])

    assert call("agents", "-o", "name").stdout == "dates\nreader\n"


@pytest.mark.parametrize(
    ("asked", "found"),
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
    asked: list[str], found: list[str], mesh: SyncRegistryClient, call: InvokeCli
) -> None:
    """Joined with AND."""
    mesh.register_many([READER_AGENT, DATE_AGENT])
    mesh.drain("dates")

    done = call("agents", *asked, "-o", "name")

    assert (done.exit_code, done.stdout.split()) == (0, found)


def test_nobody_found_is_no_failure(call: InvokeCli) -> None:
    """As with kubectl: an empty mesh is a mesh. A program reads an empty list."""
    done = call("agents")

    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "No agents found\n")
    assert json.loads(call("agents", "-o", "json").stdout)["agents"] == []


def test_a_long_list_is_read_page_by_page_and_shown_whole(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """As of one version, in order."""
    agents: list[dict[str, Any]] = [{"id": f"a{at:04}", "endpoint": "http://a:1"} for at in range(2 * PAGE_SIZE + 1)]
    for at in range(0, len(agents), 200):
        mesh.register_many(agents[at : at + 200])

    answer = json.loads(call("agents", "-o", "json").stdout)

    assert [agent["id"] for agent in answer["agents"]] == [agent["id"] for agent in agents]
    assert answer["count"] == len(agents)
    assert "continue" not in answer
    assert len(call("agents").stdout.splitlines()) == 1 + len(agents)


def test_a_page_tells_how_to_go_on(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """In the answer for programs, on standard error for people."""
    mesh.register_many([READER_AGENT, DATE_AGENT])
    first = call("agents", "--limit", "1", "-o", "name")
    token = first.stderr.split()[-1]

    assert first.stderr == f"More agents: --continue {token}\n"
    assert first.stdout == "dates\n"
    assert call("agents", "--continue", token, "-o", "name").stdout == "reader\n"
    assert "continue" in json.loads(call("agents", "--limit", "1", "-o", "json").stdout)


def test_wide_characters_do_not_shift_the_columns(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """A column begins at the same cell of the terminal in each line."""
    for agent_id, name in (("a", "日本語の名前"), ("b", "plain"), ("c", "😀")):
        mesh.register_agent({"id": agent_id, "name": name, "endpoint": f"http://{agent_id}:1"})
    lines = call("agents", "-o", "wide").stdout.splitlines()

    places = {
        cell_len(line[: line.index(mark)]) for line, mark in zip(lines, ["TYPE", *["default   http"] * 3], strict=True)
    }
    assert len(places) == 1


def test_nothing_of_an_agent_is_obeyed_by_a_terminal(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """The escape sequences somebody registered are shown by their numbers; a program reads them as they were."""
    evil = "\x1b]0;pwned\x07\x9b31m\u202egnp.exe\r\n"
    mesh.register_agent(
        {"id": "evil", "endpoint": "http://e:1", "annotations": {"note": evil}, "metadata": {"a": evil}}
    )

    page = call("agent", "evil")
    assert "\\x1b]0;pwned\\x07\\x9b31m\\u202egnp.exe\\x0d\\x0a" in page.stdout
    for output, read in (("json", json.loads), ("yaml", yaml.safe_load)):
        document = call("agent", "evil", "-o", output).stdout
        assert read(document)["annotations"]["note"] == evil
        assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(document)


def test_columns_of_a_table_are_where_the_titles_are(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """For cut and awk, and for eyes."""
    mesh.register_many([READER_AGENT, DATE_AGENT])
    titles, *lines = call("agents", "-o", "wide").stdout.splitlines()

    starts = [titles.index(title) for title in titles.split()]
    assert all(line[start - 1] == " " and line[start] != " " for line in lines for start in starts[1:])
    assert first_words(lines) == ["dates", "reader"]
