"""Every error is one line on standard error, with nothing on standard output and an exit code for its kind."""

import asyncio
import json
import logging

import pytest
from click.testing import Result

from registry.cli.connection import open_client, report_connection_state
from tests.cli.commands.conftest import InvokeCli
from tests.cli.invoke import READER_AGENT, invoke_cli
from tests.support.canned_server import CannedServer, http_response, json_response
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica

COMMANDS = (
    ["agents"],
    ["agents", "-w"],
    ["agent", "a"],
    ["capabilities"],
    ["watch"],
    ["register", "-"],
    ["unregister", "a"],
    ["drain", "a"],
    ["undrain", "-n", "default"],
    ["resolve", "a"],
    ["resolve", "--agent", "a"],
    ["health"],
    ["health", "a"],
)


def is_one_line(done: Result) -> bool:
    """Return whether the output is one line on standard error."""
    return done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.startswith("Error: ")


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_an_unreachable_registry_is_reported_with_advice(command: list[str]) -> None:
    """Every command reports it within its timeout."""
    url = f"http://127.0.0.1:{free_port()}"

    done = invoke_cli(*command, "--timeout", "1", url=url, input=json.dumps(READER_AGENT))

    assert done.exit_code == 4
    assert is_one_line(done), done.output
    assert f"Cannot reach the registry: {url}: " in done.stderr
    assert "check that it runs and that --url (MCP_MESH_REGISTRY_URL) is right" in done.stderr


@pytest.mark.parametrize("text", ["500ms", "0.5"])
def test_a_timeout_is_a_number_of_seconds_or_has_a_unit(text: str) -> None:
    """As every duration."""
    done = invoke_cli("agents", "--timeout", text, url=f"http://127.0.0.1:{free_port()}")

    assert done.exit_code == 4


@pytest.mark.parametrize("text", ["0", "soon", "1h30"])
def test_a_timeout_that_is_no_duration_is_rejected_with_the_expected_form(text: str) -> None:
    """Nothing is sent."""
    done = invoke_cli("agents", "--timeout", text, url=f"http://127.0.0.1:{free_port()}")

    assert done.exit_code == 2
    assert "expected a number of seconds, or a duration with a unit" in done.stderr


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (http_response(200, b"<html>hello</html>"), "Not a registry response"),
        (http_response(200, []), "Not a registry response"),
        (http_response(302, b"", {"location": "http://elsewhere/"}), "Not a registry response"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "Cannot reach the registry"),
    ],
    ids=["page", "list", "redirect", "ssh"],
)
async def test_another_server_is_reported(response: bytes, message: str) -> None:
    """The error does not depend on the response of that server."""
    async with CannedServer(response) as server:
        done = await asyncio.to_thread(invoke_cli, "agents", "--timeout", "1", "-o", "name", url=server.url)

    assert done.exit_code == 4
    assert is_one_line(done), done.output
    assert message in done.stderr


async def test_escape_sequences_of_a_server_do_not_reach_the_terminal() -> None:
    """Neither an error message nor a list contains them, nor characters that are not shown (T19), also if stored."""
    escapes = "\x1b]0;pwned\x07\x9b2J\nError: fake p\u200bay\u202e\u0378\U000e0041"
    error = http_response(400, {"status": "error", "error": "malformed_request", "message": escapes, "details": []})
    agent = {
        "id": escapes,
        "namespace": escapes,
        "status": escapes,
        "capabilities": [{"name": escapes}],
        "labels": {escapes: escapes},
    }
    agents = json_response(agents=[agent], count=1, resource_version="1", timestamp=escapes)
    for response, output in ((error, "wide"), (agents, "wide"), (agents, "name"), (agents, "json"), (agents, "yaml")):
        async with CannedServer(response) as server:
            done = await asyncio.to_thread(invoke_cli, "agents", "-o", output, url=server.url)

        assert not set("\x1b\x07\x9b\u200b\u202e\u0378\U000e0041") & set(done.output), (output, done.output)


def test_a_wrong_and_a_missing_token_are_reported_with_advice() -> None:
    """The token comes from the option, MCP_MESH_REGISTRY_TOKEN or AUTH_TOKEN, in this order."""
    with RedisServer() as server, Replica(server.url, AUTH_TOKEN="s3cret") as replica:  # noqa: S106 - made up
        for command in COMMANDS:
            wrong = invoke_cli(*command, "--token", "wrong", url=replica.url, input=json.dumps(READER_AGENT))
            if command != ["health"]:
                assert wrong.exit_code == 1, command
                assert is_one_line(wrong), wrong.output
                assert "set --token or MCP_MESH_REGISTRY_TOKEN" in wrong.stderr
        right = [
            invoke_cli("agents", "--token", "s3cret", url=replica.url, MCP_MESH_REGISTRY_TOKEN="wrong"),  # noqa: S106
            invoke_cli("agents", url=replica.url, MCP_MESH_REGISTRY_TOKEN="s3cret", AUTH_TOKEN="wrong"),  # noqa: S106
            invoke_cli("agents", url=replica.url, AUTH_TOKEN="s3cret"),  # noqa: S106
        ]

    assert [done.exit_code for done in right] == [0, 0, 0]


def test_one_reachable_replica_is_enough(call: InvokeCli, mesh: object) -> None:
    """The URLs are joined by commas."""
    url = repr(mesh).partition("(")[2].partition(";")[0]

    assert call("agents", "--url", f"http://127.0.0.1:{free_port()},{url}").exit_code == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["agents", "--url", "ftp://registry"],
        ["agents", "--token", "two words"],
        ["agents", "--status", "fine"],
        ["agents", "-o", "xml"],
        ["agents", "--watch", "--limit", "1"],
        ["watch", "--initial", "--since", "1"],
        ["unregister"],
        ["agent"],
        ["agents", "--nonsense"],
    ],
    ids=" ".join,
)
def test_a_usage_error_has_its_own_exit_code(arguments: list[str], call: InvokeCli) -> None:
    """No request is sent."""
    assert call(*arguments).exit_code == 2


@pytest.mark.parametrize("command", [["agents"], ["agents", "-w"], ["watch"]], ids=" ".join)
def test_a_filter_that_the_registry_rejects_is_an_error(command: list[str], call: InvokeCli) -> None:
    """The message is that of the registry."""
    done = call(*command, "-l", "a in (")

    assert done.exit_code == 1
    assert is_one_line(done)
    assert "label_selector" in done.stderr


def test_a_watch_from_an_old_version_is_an_error(call: InvokeCli) -> None:
    """The user must list again."""
    done = call("watch", "--since", "1")

    assert done.exit_code == 1
    assert is_one_line(done), done.output


def test_the_log_of_the_client_is_not_printed(caplog: pytest.LogCaptureFixture) -> None:
    """The command prints its own message about the same problem."""
    with open_client("http://127.0.0.1:9", None, 1.0):
        handlers = logging.getLogger("mcp_mesh_client").handlers

    assert len(handlers) == len(set(handlers))
    assert caplog.records == []


def test_log_events_about_the_connection_are_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    """Other log events of the client are not printed."""
    log = logging.getLogger("mcp_mesh_client")
    with report_connection_state():
        log.warning("registry_degraded error=%s", "no Redis")
        log.warning("registry_unavailable error=%s", "refused\x1b")
        log.info("registry_reachable")
        log.error("agent_rejected id=%s reason=%s", "a", "r")

    assert capsys.readouterr().err.splitlines() == [
        "Warning: The registry is degraded: no Redis",
        r"Warning: The registry is unavailable: refused\x1b",
        "The registry is reachable again",
    ]
