"""`watch` and `agents -w` follow the mesh until they are stopped, across failures of the registry."""

import json
import os
import pty
import signal
import socket
import subprocess
from pathlib import Path

import pytest
from mcp_mesh_client import SyncRegistryClient

from tests.cli.cli_process import EXECUTABLE, CliProcess, environment
from tests.cli.invoke import DATE_AGENT, READER_AGENT
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica


def start_command(*arguments: str, url: str, directory: Path) -> CliProcess:
    """Return a command that runs with the URL of a registry."""
    return CliProcess(*arguments, directory=directory / arguments[0], MCP_MESH_REGISTRY_URL=url)


def test_a_watched_list_continues_with_the_changes(
    mesh: SyncRegistryClient, worker_replica: Replica, directory: Path
) -> None:
    """Each change is a line; Ctrl-C ends the command with the exit code of a shell."""
    mesh.register_agent(READER_AGENT)
    with start_command("agents", "-w", url=worker_replica.url, directory=directory) as watch:
        watch.wait_for_output("reader ")
        mesh.register_agent(DATE_AGENT)
        watch.wait_for_output("dates ")
        mesh.unregister_agent("reader")
        watch.wait_for_output("deleted")
        status = watch.wait_for_exit(signal.SIGINT)
        lines = [line.split() for line in watch.output.splitlines()]

    assert status == 130
    assert [line[0] for line in lines] == ["ID", "reader", "dates", "reader"]
    assert lines[-1][2] == "deleted"


def test_json_output_has_an_event_on_each_line(
    mesh: SyncRegistryClient, worker_replica: Replica, directory: Path
) -> None:
    """The filters are those of the list; the events are those of the API."""
    arguments = ("watch", "-o", "json", "--initial", "-n", "library")
    mesh.register_many([READER_AGENT, DATE_AGENT])
    with start_command(*arguments, url=worker_replica.url, directory=directory) as watch:
        watch.wait_for_output("ADDED")
        mesh.drain("dates")
        mesh.drain("reader")
        watch.wait_for_output("MODIFIED")
        mesh.unregister_agent("reader")
        watch.wait_for_output("DELETED")
        watch.wait_for_exit(signal.SIGINT)
        events = [json.loads(line) for line in watch.output.splitlines()]

    assert [(event["type"], event["object"]["id"]) for event in events] == [
        ("ADDED", "reader"),
        ("MODIFIED", "reader"),
        ("DELETED", "reader"),
    ]


def test_a_watch_survives_and_reports_an_outage_of_the_registry(directory: Path) -> None:
    """Later changes are shown once; standard error reports the beginning and the end of the outage."""
    with (
        RedisServer() as server,
        Replica(server.url) as replica,
        start_command("watch", url=replica.url, directory=directory) as watch,
    ):
        watch.wait_for_output("EVENT")
        with SyncRegistryClient(replica.url) as client:
            client.register_agent(READER_AGENT)
        watch.wait_for_output("reader")
        replica.kill()
        watch.wait_for_output("Warning: The registry is unavailable: ")
        replica.start()
        watch.wait_for_output("The registry is reachable again")
        with SyncRegistryClient(replica.url) as client:
            client.register_agent(DATE_AGENT)
            watch.wait_for_output("dates")
        status = watch.wait_for_exit(signal.SIGINT)
        lines = watch.output.splitlines()

    assert status == 130
    assert [line.split()[:2] for line in lines if line.startswith("ADDED")] == [["ADDED", "reader"], ["ADDED", "dates"]]
    assert not any("Traceback" in line for line in lines)


@pytest.mark.parametrize("output", ["wide", "json", "yaml", "name"])
def test_a_closed_pipe_ends_the_command_quietly(
    output: str, mesh: SyncRegistryClient, worker_replica: Replica, directory: Path
) -> None:
    """After `| head -1` the exit code is that of SIGPIPE, and standard error is empty."""
    # In each format the output is larger than the buffer of a pipe, so it is still being written when the pipe closes.
    agents = [{"id": f"a{at:0240}", "endpoint": "http://a:1"} for at in range(400)]
    for at in range(0, len(agents), 200):
        mesh.register_many(agents[at : at + 200])
    with subprocess.Popen(
        [EXECUTABLE, "agents", "-o", output],
        env=environment(directory, MCP_MESH_REGISTRY_URL=worker_replica.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        assert listing.stdout.read(2)
        listing.stdout.close()
        errors = listing.stderr.read()
        status = listing.wait()

    assert (status, errors) == (141, b"")


def test_ctrl_c_ends_a_hanging_call(directory: Path) -> None:
    """There is no output, and the command does not wait for its timeout."""
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        url = f"http://127.0.0.1:{hanging.getsockname()[1]}"
        with start_command("agents", "--timeout", "3600", url=url, directory=directory) as call:
            connection, _ = hanging.accept()
            status = call.wait_for_exit(signal.SIGINT)
            connection.close()

            assert (status, call.output) == (130, "")


@pytest.mark.parametrize("arguments", ["agents", "agents -o json", "health"])
def test_output_that_cannot_be_written_is_a_failure(
    arguments: str, mesh: SyncRegistryClient, worker_replica: Replica, directory: Path
) -> None:
    """The disk is full, or standard output is closed."""
    mesh.register_agent(READER_AGENT)
    env = environment(directory, MCP_MESH_REGISTRY_URL=worker_replica.url)
    redirects = {">/dev/full": "Cannot write the output: No space left", ">&-": "Standard output is closed"}
    for redirect, message in redirects.items():
        if redirect == ">/dev/full" and not Path("/dev/full").exists():
            continue
        command = ["/bin/sh", "-c", f"{EXECUTABLE} {arguments} {redirect}"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)

        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: {message}")
        assert done.stderr.count("\n") == 1


def test_a_terminal_gets_colours_and_a_pipe_does_not(
    mesh: SyncRegistryClient, worker_replica: Replica, directory: Path
) -> None:
    """NO_COLOR disables colours; lines are not shortened in either case."""
    mesh.register_agent({**DATE_AGENT, "agent_id": "d" * 200})

    coloured = output_in_terminal(worker_replica.url, directory)
    plain = output_in_terminal(worker_replica.url, directory, NO_COLOR="1")

    assert "\x1b[32mhealthy\x1b[0m" in coloured
    assert "\x1b[32m" not in plain
    assert "d" * 200 in plain


def output_in_terminal(url: str, directory: Path, **environ: str) -> str:
    """Return the output of `agents` in a terminal."""
    terminal, child_side = pty.openpty()
    env = environment(directory, MCP_MESH_REGISTRY_URL=url, TERM="xterm", **environ)
    with subprocess.Popen([EXECUTABLE, "agents"], env=env, stdout=child_side, stdin=child_side) as listing:
        os.close(child_side)
        output = b""
        try:
            while chunk := os.read(terminal, 65_536):
                output += chunk
        except OSError:  # Linux reports the end of the output in this way.
            pass
        assert listing.wait() == 0
    os.close(terminal)
    return output.decode()


def test_unsupported_characters_are_escaped(mesh: SyncRegistryClient, worker_replica: Replica, directory: Path) -> None:
    """JSON output still decodes to the same text."""
    mesh.register_agent({**READER_AGENT, "name": "Grüße 😀"})
    env = environment(directory, MCP_MESH_REGISTRY_URL=worker_replica.url, PYTHONIOENCODING="ascii")

    wide, document = (
        subprocess.run([EXECUTABLE, "agents", "-o", output], env=env, capture_output=True, check=True).stdout.decode(
            "ascii"
        )
        for output in ("wide", "json")
    )

    assert "Gr\\xfc\\xdfe \\U0001f600" in wide
    assert json.loads(document)["agents"][0]["name"] == "Grüße 😀"
