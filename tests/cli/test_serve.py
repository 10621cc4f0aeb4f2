"""The command line and one replica as a process: how it starts, what it says, and how it ends."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest
import redis

from registry import __version__
from tests.cli.cli_process import EXECUTABLE, CliProcess, environment
from tests.support.polling import wait_until
from tests.support.processes import processes_that_mention
from tests.support.watch_client import open_watch

ANSWERS_WITHIN = 2.0
REGISTRATION = b'{"id":"a","endpoint":"http://a:1"}'
JSON = {"Content-Type": "application/json"}

# Prints which of the slow modules a command line has imported.
LOOK = """
import sys
from registry.cli.main import main
try:
    main(sys.argv[1:])
finally:
    slow = {"fakeredis", "httpx2", "orjson", "redis", "rich", "starlette", "uvicorn", "uvloop", "yaml"}
    print(*(slow | {"mcp_mesh_client"}) & {*sys.modules}, file=sys.stderr)
"""

# Presses Ctrl-C when the command begins to import what it works with.
INTERRUPTED = """
import os, signal, sys
from registry.cli.main import main

class Impatient:
    def find_spec(self, name, path=None, target=None):
        if name in ("uvloop", "mcp_mesh_client"):
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Impatient())
main(sys.argv[1:])
"""


def run(*arguments: str, directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [str(EXECUTABLE), *arguments],
        env=environment(directory, **environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )


def a_connection(url: str) -> socket.socket:
    """Return a connection on which nothing was sent yet."""
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=5)


def a_registration_under_way(url: str) -> socket.socket:
    """Return a connection on which the replica has begun to serve a registration and waits for its body."""
    connection = a_connection(url)
    connection.sendall(
        b"POST /agents HTTP/1.1\r\nHost: registry\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(REGISTRATION)
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    return connection


@pytest.mark.parametrize(("option", "answer"), [("--version", f"version {__version__}"), ("--help", "serve")])
def test_a_question_about_the_command_is_answered_at_once(option: str, answer: str, directory: Path) -> None:
    """It takes no settings, and no time."""
    began = time.monotonic()
    done = run(option, directory=directory, REGISTRY_PORT="nonsense")

    assert done.returncode == 0
    assert answer in done.stdout
    assert time.monotonic() - began < ANSWERS_WITHIN


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["serve", "--help"], ["agents", "--help"]])
def test_a_question_about_the_command_imports_nothing_slow(arguments: list[str], directory: Path) -> None:
    """What serves is imported when it serves."""
    done = subprocess.run(
        [sys.executable, "-c", LOOK, *arguments],
        env=environment(directory),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr.strip() == ""


@pytest.mark.parametrize("command", ["serve", "agents", "watch"])
def test_an_impatient_ctrl_c_is_one_as_well(command: str, directory: Path) -> None:
    """Pressed while a command was still importing, it was `Aborted!` and the status of a refusal."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, command],
        env=environment(directory),
        capture_output=True,
        text=True,
        check=False,
        timeout=10,
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_all_bad_settings_are_told_at_once(directory: Path) -> None:
    """Every setting that cannot be used is named, from the command line and from the environment."""
    done = run("--port", "70000", directory=directory, AGENT_TIMEOUT="soon", REGISTRY_WATCH_HISTORY="-1")

    assert done.returncode == 1
    assert done.stderr.startswith("Error: Invalid settings:\n")
    for name in ("--port", "AGENT_TIMEOUT", "REGISTRY_WATCH_HISTORY"):
        assert f"\n  {name} is " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_told(directory: Path, redis_url: str) -> None:
    """The error names the address and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port), directory=directory, REDIS_URL=redis_url)

    assert done.returncode == 1
    assert f"Error: Cannot listen on 127.0.0.1:{port}: " in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_data_directory_in_use_is_told(directory: Path) -> None:
    """A second registry on the same data directory names the first, and leaves it alone."""
    with CliProcess("--port", "0", directory=directory) as first:
        url = first.wait_until_serving()
        done = run("--port", "0", directory=directory)
        still = httpx2.get(f"{url}/health").json()["status"]
        owner = first.pid

    assert done.returncode == 1
    assert f"in use by the registry with process id {owner};" in done.stderr
    assert "REGISTRY_DATA_DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert still == "healthy"


def test_an_unknown_command_is_a_usage_error(directory: Path) -> None:
    """It is refused by its name, and nothing starts."""
    done = run("serv", directory=directory)

    assert done.returncode == 2
    assert "No such command 'serv'" in done.stderr


@pytest.mark.parametrize("arguments", [["serve", "--port", "0"], ["--port", "0"], []])
def test_serving_needs_no_command(arguments: list[str], directory: Path, redis_url: str) -> None:
    """Options alone are options of `serve`, and nothing at all is `serve` too."""
    with CliProcess(*arguments, directory=directory, REDIS_URL=redis_url, REGISTRY_PORT="0") as replica:
        assert httpx2.get(f"{replica.wait_until_serving()}/health").status_code == 200
        assert replica.wait_for_exit(signal.SIGTERM) == 0


def test_the_module_is_the_command(directory: Path) -> None:
    """`python -m registry` does what `mcp-mesh-registry` does."""
    done = subprocess.run(
        [sys.executable, "-m", "registry", "--version"],
        env=environment(directory),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == run("--version", directory=directory).stdout


def test_it_says_where_it_listens_and_where_the_data_lies(directory: Path) -> None:
    """The address is the real one where any free port was asked for, and the line to try works as it is printed."""
    with CliProcess("--port", "0", directory=directory) as replica:
        url = replica.wait_until_serving()
        output = replica.output
        tried = re.search(r"^  try:  curl (\S+)$", output, re.MULTILINE)
        assert tried is not None
        answer = httpx2.get(tried[1]).json()

    assert not url.endswith(":0")
    assert f"\n  mcp-mesh-registry listens on {url}\n  data: {directory / 'data'}\n" in output
    assert tried[1].startswith(url)
    assert answer["agents"] == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_what_is_in_flight_is_finished(how: signal.Signals, directory: Path, redis_url: str, raw: redis.Redis) -> None:
    """A registration that has begun when the signal comes is carried out and answered; idle connections do no harm."""
    with CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url) as replica:
        url = replica.wait_until_serving()
        with a_connection(url), a_registration_under_way(url) as connection:
            replica.send_signal(how)
            replica.wait_for_output("shutdown_started")
            connection.sendall(REGISTRATION)
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
            status = replica.wait_for_exit()
        output = replica.output

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"status":"success"' in answer
    assert raw.exists("{mesh}:agent:a")
    assert status == 0
    assert "Traceback" not in output


def test_a_request_without_end_does_not_hold_it_up(directory: Path, redis_url: str) -> None:
    """A client that never sends the rest is waited for, but not longer than five seconds."""
    with (
        CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url) as replica,
        a_registration_under_way(replica.wait_until_serving()),
    ):
        status = replica.wait_for_exit(signal.SIGTERM, timeout=8)  # a loaded machine may take its time too

    assert status == 0


def test_requests_that_keep_coming_do_not_hold_it_up(directory: Path, redis_url: str) -> None:
    """While clients go on asking it ends, and each request is either answered or not accepted."""
    statuses: set[int] = set()
    with CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url) as replica:
        url = replica.wait_until_serving()
        replica.send_signal(signal.SIGTERM)
        with httpx2.Client(base_url=url) as client:
            while replica.is_running:
                try:
                    statuses.add(client.post("/agents", content=REGISTRATION, headers=JSON).status_code)
                except httpx2.TransportError:
                    continue
        status = replica.wait_for_exit()

    assert status == 0
    assert statuses <= {200}


async def test_it_serves_on_while_balancers_turn_away(directory: Path, redis_url: str) -> None:
    """Not ready, all else as before, each answer the last of its connection; then streams end with a bookmark."""
    with CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url, REGISTRY_SHUTDOWN_DELAY="10m") as replica:
        url = await asyncio.to_thread(replica.wait_until_serving)
        async with httpx2.AsyncClient(base_url=url) as client, open_watch(url) as stream:
            assert "connection" not in (await client.get("/ready")).headers
            replica.send_signal(signal.SIGTERM)
            await asyncio.to_thread(replica.wait_for_output, "readiness_withdrawn")

            for _ in range(3):
                unready = await client.get("/ready")
                assert (unready.status_code, unready.headers["connection"]) == (503, "close")
                registered = await client.post("/agents", content=REGISTRATION, headers=JSON)
                assert (registered.status_code, registered.headers["connection"]) == (200, "close")
            assert (await stream.next_events(1))[0].kind_and_id == ("ADDED", "a")
            # uvicorn makes its headers anew each second.
            moments = {(await client.get("/health")).headers["date"]}
            while len(moments) < 3:
                again = await client.get("/health")
                moments.add(again.headers["date"])
                assert again.headers["connection"] == "close"

            replica.send_signal(signal.SIGTERM)
            assert [event.kind for event in await stream.remaining_events()] == ["BOOKMARK"]
            assert stream.ended_cleanly
            assert await asyncio.to_thread(replica.wait_for_exit) == 0


def test_it_waits_for_balancers_as_long_as_it_was_told(directory: Path, redis_url: str) -> None:
    """And then ends by itself."""
    with CliProcess(
        "--port", "0", directory=directory, REDIS_URL=redis_url, REGISTRY_SHUTDOWN_DELAY="700ms"
    ) as replica:
        replica.wait_until_serving()
        began = time.monotonic()
        assert replica.wait_for_exit(signal.SIGTERM) == 0

    assert time.monotonic() - began > 0.7


def test_the_lead_is_given_up(directory: Path, redis_url: str, raw: redis.Redis) -> None:
    """Another replica need not wait for the lease to run out."""
    with CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url) as replica:
        replica.wait_for_output("leadership_acquired")
        assert raw.exists("{mesh}:leader")
        status = replica.wait_for_exit(signal.SIGTERM)

    assert status == 0
    assert not raw.exists("{mesh}:leader")


def test_the_embedded_store_ends_with_it(directory: Path) -> None:
    """Neither a process nor the socket's directory is left, but the data is."""
    with CliProcess("--port", "0", directory=directory) as replica:
        registered = httpx2.post(f"{replica.wait_until_serving()}/agents", content=REGISTRATION, headers=JSON)
        status = replica.wait_for_exit(signal.SIGTERM)

    assert registered.status_code == 200
    assert status == 0
    assert processes_that_mention(directory) == {}
    assert [path.name for path in directory.iterdir()] == ["data"]


def test_a_registry_that_is_killed_leaves_no_server_and_loses_nothing(directory: Path) -> None:
    """After SIGKILL the embedded store ends by itself, and the next start shows what was acknowledged."""
    with CliProcess("--port", "0", directory=directory) as replica:
        httpx2.post(f"{replica.wait_until_serving()}/agents", content=REGISTRATION, headers=JSON)
        replica.wait_for_exit(signal.SIGKILL)
    wait_until(lambda: not processes_that_mention(directory), description="the embedded store has ended")

    with CliProcess("--port", "0", directory=directory) as replica:
        listed = httpx2.get(f"{replica.wait_until_serving()}/agents").json()

    assert [agent["id"] for agent in listed["agents"]] == ["a"]
