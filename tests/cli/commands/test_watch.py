"""`watch`, `agents -w`: processes that follow the mesh until they are told to stop, come what may."""

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


def following(*arguments: str, url: str, directory: Path) -> CliProcess:
    """Return a command that runs at a registry."""
    return CliProcess(*arguments, directory=directory / arguments[0], MCP_MESH_REGISTRY_URL=url)


def test_a_list_that_is_watched_goes_on_with_what_changes(
    mesh: SyncRegistryClient, replica_of_worker: Replica, directory: Path
) -> None:
    """A line for each change, until Ctrl-C, which is told as a shell would."""
    mesh.register_agent(READER_AGENT)
    with following("agents", "-w", url=replica_of_worker.url, directory=directory) as watch:
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


def test_events_are_lines_of_json(mesh: SyncRegistryClient, replica_of_worker: Replica, directory: Path) -> None:
    """With the filters of the list, as the API sends them."""
    arguments = ("watch", "-o", "json", "--initial", "-n", "library")
    mesh.register_many([READER_AGENT, DATE_AGENT])
    with following(*arguments, url=replica_of_worker.url, directory=directory) as watch:
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


def test_it_survives_the_registry_and_tells_so(directory: Path) -> None:
    """What happens after the registry is back is shown once, and on standard error that it was away."""
    with (
        RedisServer() as server,
        Replica(server.url) as replica,
        following("watch", url=replica.url, directory=directory) as watch,
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
def test_who_reads_only_the_beginning_gets_no_complaint(
    output: str, mesh: SyncRegistryClient, replica_of_worker: Replica, directory: Path
) -> None:
    """`| head -1` closes the pipe: it ends as SIGPIPE would end it, and says nothing."""
    # In each form it is more than a pipe holds by itself, so that it is still being written when the pipe closes.
    agents = [{"id": f"a{at:0240}", "endpoint": "http://a:1"} for at in range(400)]
    for at in range(0, len(agents), 200):
        mesh.register_many(agents[at : at + 200])
    with subprocess.Popen(
        [EXECUTABLE, "agents", "-o", output],
        env=environment(directory, MCP_MESH_REGISTRY_URL=replica_of_worker.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as listing:
        assert listing.stdout is not None
        assert listing.stderr is not None
        assert listing.stdout.read(2)
        listing.stdout.close()
        said = listing.stderr.read()
        status = listing.wait(15)

    assert (status, said) == (141, b"")


def test_ctrl_c_ends_a_call_that_nobody_answers(directory: Path) -> None:
    """Without a word, long before its own time is over."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(15)
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with following("agents", "--timeout", "60", url=url, directory=directory) as call:
            connection, _ = silent.accept()
            status = call.wait_for_exit(signal.SIGINT, timeout=5)
            connection.close()

            assert (status, call.output) == (130, "")


@pytest.mark.parametrize("arguments", ["agents", "agents -o json", "health"])
def test_an_answer_that_cannot_be_written_is_a_failure(
    arguments: str, mesh: SyncRegistryClient, replica_of_worker: Replica, directory: Path
) -> None:
    """On a full disk, or with standard output closed."""
    mesh.register_agent(READER_AGENT)
    env = environment(directory, MCP_MESH_REGISTRY_URL=replica_of_worker.url)
    ways = {">/dev/full": "Cannot write the output: No space left", ">&-": "Standard output is closed"}
    for way, says in ways.items():
        if way == ">/dev/full" and not Path("/dev/full").exists():
            continue
        asked = ["/bin/sh", "-c", f"{EXECUTABLE} {arguments} {way}"]
        done = subprocess.run(asked, env=env, capture_output=True, text=True, check=False)

        assert done.returncode == 1
        assert done.stderr.startswith(f"Error: {says}")
        assert done.stderr.count("\n") == 1


def test_a_terminal_gets_colours_and_a_pipe_does_not(
    mesh: SyncRegistryClient, replica_of_worker: Replica, directory: Path
) -> None:
    """Nor a terminal that asks for none; lines are as long as they are in each."""
    mesh.register_agent({**DATE_AGENT, "agent_id": "d" * 200})

    coloured = in_terminal(replica_of_worker.url, directory)
    plain = in_terminal(replica_of_worker.url, directory, NO_COLOR="1")

    assert "\x1b[32mhealthy\x1b[0m" in coloured
    assert "\x1b[32m" not in plain
    assert "d" * 200 in plain


def in_terminal(url: str, directory: Path, **environ: str) -> str:
    """Return what `agents` writes to a terminal."""
    ours, theirs = pty.openpty()
    env = environment(directory, MCP_MESH_REGISTRY_URL=url, TERM="xterm", **environ)
    with subprocess.Popen([EXECUTABLE, "agents"], env=env, stdout=theirs, stdin=theirs) as listing:
        os.close(theirs)
        written = b""
        try:
            while part := os.read(ours, 65_536):
                written += part
        except OSError:  # so Linux says that nobody writes any more
            pass
        assert listing.wait(15) == 0
    os.close(ours)
    return written.decode()


def test_an_encoding_without_the_letters_gets_them_escaped(
    mesh: SyncRegistryClient, replica_of_worker: Replica, directory: Path
) -> None:
    """In a table, and in JSON so that it means the same."""
    mesh.register_agent({**READER_AGENT, "name": "Grüße 😀"})
    env = environment(directory, MCP_MESH_REGISTRY_URL=replica_of_worker.url, PYTHONIOENCODING="ascii")

    wide, document = (
        subprocess.run([EXECUTABLE, "agents", "-o", output], env=env, capture_output=True, check=True).stdout.decode(
            "ascii"
        )
        for output in ("wide", "json")
    )

    assert "Gr\\xfc\\xdfe \\U0001f600" in wide
    assert json.loads(document)["agents"][0]["name"] == "Grüße 😀"
