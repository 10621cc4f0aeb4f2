"""`register`: each registration of a file succeeds or fails alone, and is told of."""

import json
from pathlib import Path
from typing import Any

import httpx2
from mcp_mesh_client import SyncRegistryClient

from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, GREETING_AGENT, READER_AGENT
from tests.support.replica import Replica


def test_one_agent_comes_from_a_file(tmp_path: Path, mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """As it stands there."""
    file = tmp_path / "reader.json"
    file.write_text(json.dumps(READER_AGENT))

    done = call("register", str(file))

    assert (done.exit_code, done.output) == (0, "reader registered\n")
    found = mesh.agent("reader")
    assert "error" not in found
    assert found["labels"] == {"env": "prod"}


def test_many_come_from_standard_input_and_what_they_miss_is_told(call: InvokeCli) -> None:
    """A dependency nobody meets yet is no failure."""
    text = f"{json.dumps(DATE_AGENT)}\n{json.dumps(GREETING_AGENT)}"

    done = call("register", "-", input=text)

    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "dates registered",
        "greeter registered",
        "  greet: no provider for weather_report: no agent has this capability",
    ]


def test_a_bad_one_stops_no_other(call: InvokeCli) -> None:
    """Each failure is a line with its place in the file and every bad field, whether seen here or by the registry."""
    wrong = {"id": "wrong", "endpoint": "ftp://x", "capabilities": [{"name": "a", "version": "x.y"}]}

    done = call("register", "-", input=json.dumps([{"id": "bad id"}, wrong, READER_AGENT]))

    assert (done.exit_code, done.stdout) == (1, "reader registered\n")
    first, second = done.stderr.splitlines()
    assert first.startswith("Error: registration 1 (bad id): id: expected 1 to 253 letters")
    assert second.startswith("Error: registration 2 (wrong): endpoint: must be an http or https URL")
    assert "; capabilities[0].version: must be one to three numbers" in second


def test_a_document_has_a_result_for_each_in_order(call: InvokeCli) -> None:
    """As the batch call of the API answers; of a single one as that call answers."""
    alone = json.loads(call("register", "-", "-o", "json", input=json.dumps(READER_AGENT)).stdout)
    many = call("register", "-", "-o", "json", input=json.dumps([READER_AGENT, {"id": "bad id"}, DATE_AGENT]))
    results = json.loads(many.stdout)["results"]

    assert alone["agent_id"] == "reader"
    assert many.exit_code == 1
    assert [result.get("agent_id", result.get("error")) for result in results] == [
        "reader",
        "validation_failed",
        "dates",
    ]
    assert results[1]["details"][0]["field"] == "id"


def test_more_than_one_call_takes_go_in_several(call: InvokeCli) -> None:
    """By number and by size: 450 agents, of 6 KB each, are 3 calls at least."""
    agents = [{"id": f"a{at}", "endpoint": "http://a:1", "metadata": {"fill": "x" * 6000}} for at in range(450)]

    done = call("register", "-", "-o", "name", input=json.dumps(agents))

    assert done.exit_code == 0
    assert done.stdout.split() == [agent["id"] for agent in agents]


def test_one_that_is_too_large_fails_alone(call: InvokeCli) -> None:
    """The registry takes a mebibyte."""
    large = {"id": "large", "endpoint": "http://l:1", "metadata": {"fill": "x" * (1 << 20)}}

    done = call("register", "-", input=json.dumps([READER_AGENT, large, DATE_AGENT]))

    assert (done.exit_code, done.stdout) == (1, "reader registered\ndates registered\n")
    assert done.stderr.startswith("Error: registration 2 (large): ")
    assert "exceeds the limit of 1048576 bytes" in done.stderr


def test_one_id_twice_is_refused_before_anything_is_sent(call: InvokeCli) -> None:
    """One of the two is a mistake, and nobody knows which."""
    done = call(
        "register", "-", input=json.dumps([READER_AGENT, DATE_AGENT, {**READER_AGENT, "endpoint": "http://other:1"}])
    )

    assert done.exit_code == 1
    assert (
        done.stderr == "Error: Cannot read <stdin>: registrations 1 and 3 have the same id 'reader'; nothing was sent\n"
    )
    assert call("agents", "-o", "name").stdout == ""


def test_what_agents_shows_can_be_changed_and_registered_again(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """But only as long as the agent is as it was shown: its version stands in it."""
    mesh.register_agent(READER_AGENT)
    shown: Any = json.loads(call("agents", "-o", "json").stdout)
    shown["agents"][0]["endpoint"] = "http://moved:1"

    first, second = (call("register", "-", input=json.dumps(shown)) for _ in range(2))
    shown["agents"][0]["endpoint"] = "http://moved:2"
    mesh.register_agent({**READER_AGENT, "endpoint": "http://elsewhere:1"})
    late = call("register", "-", input=json.dumps(shown))

    assert (first.exit_code, late.exit_code) == (0, 1)
    assert second.exit_code in (0, 1)
    assert "read the agent again and retry with its current version" in late.stderr


def test_an_agent_of_a_mesh_sdk_is_left_alone(
    mesh: SyncRegistryClient, replica_of_worker: Replica, call: InvokeCli
) -> None:
    """Listed and registered again it became one of our form, with other rules and thresholds and without its routes."""
    mesh.register_agent(READER_AGENT)
    tool = {"function_name": "t", "capability": "c"}
    sent = {"agent_id": "sdk-1", "name": "sdk", "http_host": "sdk", "http_port": 1, "tools": [tool]}
    httpx2.post(f"{replica_of_worker.url}/heartbeat", json=sent).raise_for_status()

    done = call("register", "-", input=call("agents", "-o", "yaml").stdout)

    assert (done.exit_code, done.stdout) == (1, "reader registered\n")
    assert done.stderr.startswith(
        "Error: registration 1 (sdk-1): registration_format: this agent registers itself with the mcp-mesh SDK"
    )
    after = mesh.agent("sdk-1")
    assert "error" not in after
    assert "registration_format" in after


def test_a_file_that_is_not_there_is_misuse(call: InvokeCli) -> None:
    """As any argument that cannot be used."""
    done = call("register", "/nowhere/agents.yaml")

    assert done.exit_code == 2
    assert "No such file" in done.stderr


def test_garbage_is_told_and_not_sent(call: InvokeCli) -> None:
    """With the name of the file."""
    done = call("register", "-", input=b"\x00garbage")

    assert done.exit_code == 1
    assert done.stderr.startswith("Error: Cannot read <stdin>: as YAML: ")
    assert done.stderr.endswith("; nothing was sent\n")
