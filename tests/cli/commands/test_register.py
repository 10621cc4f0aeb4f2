"""`register` sends the registrations of a file; each succeeds or fails alone and is reported."""

import json
import signal
from pathlib import Path
from typing import Any

import httpx2
from mcp_mesh_client import SyncRegistryClient

from tests.cli.cli_process import CliProcess
from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import DATE_AGENT, GREETING_AGENT, READER_AGENT
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import wait_until
from tests.support.replica import Replica


def test_one_agent_is_registered_from_a_file(tmp_path: Path, mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """The file is sent unchanged."""
    file = tmp_path / "reader.json"
    file.write_text(json.dumps(READER_AGENT))

    done = call("register", str(file))

    assert (done.exit_code, done.stdout) == (0, "reader registered\n")
    assert "register --keep sends them" in done.stderr
    found = mesh.agent("reader")
    assert "error" not in found
    assert found["labels"] == {"env": "prod"}


def test_many_agents_are_registered_from_standard_input(call: InvokeCli) -> None:
    """An unresolved dependency is shown, and is no failure."""
    text = f"{json.dumps(DATE_AGENT)}\n{json.dumps(GREETING_AGENT)}"

    done = call("register", "-", input=text)

    assert done.exit_code == 0
    assert done.stdout.splitlines() == [
        "dates registered",
        "greeter registered",
        "  greet: no provider for weather_report: no agent has this capability",
    ]


def test_a_rejected_registration_does_not_stop_the_others(call: InvokeCli) -> None:
    """An error names the index in the file and every wrong field, found by the command or by the registry."""
    wrong = {"id": "wrong", "endpoint": "ftp://x", "capabilities": [{"name": "a", "version": "x.y"}]}

    done = call("register", "-", input=json.dumps([{"id": "bad id"}, wrong, READER_AGENT]))

    assert (done.exit_code, done.stdout) == (1, "reader registered\n")
    first, second, _ = done.stderr.splitlines()
    assert first.startswith("Error: registration 1 (bad id): id: expected 1 to 253 letters")
    assert second.startswith("Error: registration 2 (wrong): endpoint: must be an http or https URL")
    assert "; capabilities[0].version: must be a version of semver.org or Python" in second


def test_json_output_has_a_result_for_each_registration(call: InvokeCli) -> None:
    """Several registrations give the response of the batch call; a single one gives the response of its call."""
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


def test_many_registrations_are_sent_in_several_calls(call: InvokeCli) -> None:
    """Count and size limit a call: 450 agents of 6 KB each need at least 3 calls."""
    agents = [{"id": f"a{at}", "endpoint": "http://a:1", "metadata": {"fill": "x" * 6000}} for at in range(450)]

    done = call("register", "-", "-o", "name", input=json.dumps(agents))

    assert done.exit_code == 0
    assert done.stdout.split() == [agent["id"] for agent in agents]


def test_a_registration_that_is_too_large_fails_alone(call: InvokeCli) -> None:
    """The registry accepts one mebibyte."""
    large = {"id": "large", "endpoint": "http://l:1", "metadata": {"fill": "x" * (1 << 20)}}

    done = call("register", "-", input=json.dumps([READER_AGENT, large, DATE_AGENT]))

    assert (done.exit_code, done.stdout) == (1, "reader registered\ndates registered\n")
    assert done.stderr.startswith("Error: registration 2 (large): ")
    assert "exceeds the limit of 1048576 bytes" in done.stderr


def test_a_duplicate_id_is_rejected_before_the_first_call(call: InvokeCli) -> None:
    """One of the two is a mistake, and the command cannot detect which."""
    done = call(
        "register", "-", input=json.dumps([READER_AGENT, DATE_AGENT, {**READER_AGENT, "endpoint": "http://other:1"}])
    )

    assert done.exit_code == 1
    assert (
        done.stderr == "Error: Cannot read <stdin>: registrations 1 and 3 have the same id 'reader'; nothing was sent\n"
    )
    assert call("agents", "-o", "name").stdout == ""


def test_the_output_of_agents_can_be_changed_and_registered_again(mesh: SyncRegistryClient, call: InvokeCli) -> None:
    """It contains the version of each agent, so it is rejected after another change."""
    mesh.register_agent(READER_AGENT)
    shown: Any = json.loads(call("agents", "-o", "json").stdout)
    shown["agents"][0]["endpoint"] = "http://moved:1"

    first, second = (call("register", "-", input=json.dumps(shown)) for _ in range(2))
    shown["agents"][0]["endpoint"] = "http://moved:2"
    mesh.register_agent({**READER_AGENT, "endpoint": "http://elsewhere:1"})
    after_change = call("register", "-", input=json.dumps(shown))

    assert (first.exit_code, after_change.exit_code) == (0, 1)
    assert second.exit_code in (0, 1)
    assert "read the agent again and retry with its current version" in after_change.stderr


def test_an_agent_of_the_mesh_sdk_is_not_registered_again(
    mesh: SyncRegistryClient, worker_replica: Replica, call: InvokeCli
) -> None:
    """In the native format it would lose its routes and get other rules and thresholds."""
    mesh.register_agent(READER_AGENT)
    tool = {"function_name": "t", "capability": "c"}
    sent = {"agent_id": "sdk-1", "name": "sdk", "http_host": "sdk", "http_port": 1, "tools": [tool]}
    httpx2.post(f"{worker_replica.url}/heartbeat", json=sent, timeout=REQUEST_TIMEOUT_S).raise_for_status()

    done = call("register", "-", input=call("agents", "-o", "yaml").stdout)

    assert (done.exit_code, done.stdout) == (1, "reader registered\n")
    assert done.stderr.startswith(
        "Error: registration 1 (sdk-1): registration_format: this agent registers itself with the mcp-mesh SDK"
    )
    after = mesh.agent("sdk-1")
    assert "error" not in after
    assert "registration_format" in after


def test_a_missing_file_is_a_usage_error(call: InvokeCli) -> None:
    """Other wrong arguments are usage errors, too."""
    done = call("register", "/nowhere/agents.yaml")

    assert done.exit_code == 2
    assert "No such file" in done.stderr


def test_an_invalid_file_is_reported_and_not_sent(call: InvokeCli) -> None:
    """The error names the file."""
    done = call("register", "-", input=b"\x00garbage")

    assert done.exit_code == 1
    assert done.stderr.startswith("Error: Cannot read <stdin>: as YAML: ")
    assert done.stderr.endswith("; nothing was sent\n")


def test_a_warning_is_shown_on_standard_error(call: InvokeCli) -> None:
    """Each agent is registered; fields are named relative to its registration."""
    misspelt = {**READER_AGENT, "capabilites": ["w"]}

    alone = call("register", "-", input=json.dumps(misspelt))
    many = call("register", "-", "-o", "name", input=json.dumps([DATE_AGENT, misspelt]))

    assert (alone.exit_code, alone.stdout) == (0, "reader registered\n")
    assert (many.exit_code, many.stdout) == (0, "dates\nreader\n")
    text = "capabilites: is not a field of a registration; it is stored and has no effect; did you mean capabilities?"
    assert alone.stderr.startswith(f"Warning: registration 1 (reader): {text}\n")
    assert many.stderr == f"Warning: registration 2 (reader): {text}\n"


def test_a_yaml_number_in_place_of_a_version_is_to_be_quoted(call: InvokeCli) -> None:
    """YAML reads 1.10 as 1.1."""
    text = (
        "agent_id: y\nmetadata:\n  endpoint: http://x:1\n  tools: [{function_name: f, capability: c, version: 1.10}]\n"
    )

    done = call("register", "-", input=text)

    assert done.exit_code == 1
    assert "metadata.tools[0].version: must be a version of semver.org or Python" in done.stderr
    assert done.stderr.endswith("not 1.1; quote it\n")


def test_keep_sends_heartbeats_until_the_end(tmp_path: Path, mesh: SyncRegistryClient, worker_replica: Replica) -> None:
    """The agent stays healthy, and is unregistered on SIGTERM."""
    file = tmp_path / "reader.json"
    file.write_text(json.dumps(READER_AGENT | {"health_interval": 0.2}))
    with CliProcess("register", str(file), "--keep", "--url", worker_replica.url, directory=tmp_path) as process:
        process.wait_for_output("Sending heartbeats of 1 agent until Ctrl-C")
        (agent,) = mesh.wait_for("read_file", timeout=30, status="healthy")
        assert (agent["timeout_threshold"], agent["eviction_threshold"]) == (0.6, 1.2)
        wait_until(
            lambda: mesh.agent("reader").get("last_heartbeat") != agent["last_heartbeat"],
            description="more heartbeats are sent",
        )

        assert process.wait_for_exit(signal.SIGTERM) == 0, process.output
        assert "error" in mesh.agent("reader")
