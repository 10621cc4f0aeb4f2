"""Attacks on a replica by raw connections without a token, each named by its row in docs/security.md."""

import contextlib
import re
import resource
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.support.child_process import ChildProcess
from tests.support.http_calls import REQUEST_TIMEOUT_S, a_registration
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.replica import Replica

TOKEN = "a-token-of-these-tests"  # noqa: S105 - it opens nothing but these tests
AUTHORIZED = {"authorization": f"Bearer {TOKEN}"}
MIB = 1024 * 1024
HEAD = b"GET /agents HTTP/1.1\r\nhost: localhost\r\n"
OFFER = b"connection: upgrade\r\nupgrade: h2c\r\n\r\n"
HEADS_OF_64_MB = {
    "a request line": (b"GET /", b"a" * MIB),
    "a header": (HEAD + b"x: ", b"a" * MIB),
    "64,000 headers": (HEAD, (b"x: " + b"a" * 995 + b"\r\n") * 1000),
}


@pytest.fixture
def replica(redis_url: str) -> Iterator[Replica]:
    """Provide a replica with a token and a metrics port."""
    with Replica(redis_url, AUTH_TOKEN=TOKEN, METRICS_PORT=str(free_port())) as running:
        yield running


def connect(replica: Replica) -> socket.socket:
    """Open a connection to a replica."""
    where = httpx2.URL(replica.url)
    return socket.create_connection((where.host, where.port or 80), timeout=REQUEST_TIMEOUT_S)


def get(replica: Replica, path: str, port: str | None = None, **headers: str) -> httpx2.Response:
    """Send a GET request over a new connection, to the metrics port if it is given."""
    url = replica.url if port is None else f"http://127.0.0.1:{port}"
    return httpx2.get(f"{url}{path}", headers=headers, timeout=REQUEST_TIMEOUT_S)


def health(replica: Replica) -> Any:
    """Return the response of GET /health with all details."""
    return get(replica, "/health", **AUTHORIZED).json()


def refused_connections(replica: Replica) -> dict[str, int]:
    """Return the number of refused connections by reason."""
    text = get(replica, "/metrics", port=replica.env["METRICS_PORT"]).text
    found = re.findall(r'^mcp_registry_refused_connections_total\{reason="(\w+)"\} ([\d.]+)$', text, re.MULTILINE)
    return {reason: int(float(number)) for reason, number in found}


def send_head(replica: Replica, start: bytes, part: bytes, parts: int) -> bytes:
    """Send a head in parts until the replica closes the connection; return the response."""
    with connect(replica) as connection:
        response = b""
        with contextlib.suppress(ConnectionError):
            connection.sendall(start)
            for _ in range(parts):
                connection.sendall(part)
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65536):
                response += data
        return response


@pytest.mark.parametrize("name", HEADS_OF_64_MB)
def test_t4_and_t14_a_head_of_64_mb_neither_delays_nor_fills_a_replica(replica: Replica, name: str) -> None:
    """It is cut off at 32 KiB; other clients are served meanwhile, and no outage begins."""
    before = replica.resident_bytes
    responses: list[bytes] = []
    start, part = HEADS_OF_64_MB[name]
    senders = [threading.Thread(target=lambda: responses.append(send_head(replica, start, part, 64))) for _ in range(4)]
    for sender in senders:
        sender.start()
    while any(sender.is_alive() for sender in senders):
        assert get(replica, "/agents", **AUTHORIZED).status_code == 200
    for sender in senders:
        sender.join()

    assert {response[:12] for response in responses} <= {b"HTTP/1.1 414", b"HTTP/1.1 431", b""}
    assert refused_connections(replica) == {"head_too_large": 4}
    assert replica.resident_bytes - before < 32 * MIB
    assert health(replica)["outage"]["since"] is None


def test_t5_half_open_connections_lock_no_client_out(redis_url: str) -> None:
    """300 of them, against 256 descriptors: they are evicted, and health checks have connections of their own."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 1024:
        pytest.skip(f"this process may open only {soft} files")
    limited = ("bash", "-c", 'ulimit -n 256; exec "$@"', "bash")
    port = str(free_port())
    with (
        Replica(redis_url, command_prefix=limited, AUTH_TOKEN=TOKEN, METRICS_PORT=port) as replica,
        contextlib.ExitStack() as stack,
    ):
        for _ in range(300):
            connection = stack.enter_context(connect(replica))
            connection.sendall(HEAD + b"x-slow: ")
        with httpx2.Client(base_url=replica.url, headers=AUTHORIZED, timeout=REQUEST_TIMEOUT_S) as client:
            assert client.post("/agents", json=a_registration()).status_code == 200
        assert get(replica, "/health", port=port).status_code == 200
        assert get(replica, "/ready", port=port).status_code == 200
        wait_until(lambda: refused_connections(replica)["evicted"] >= 300 - 204, description="they are evicted")
        wait_until(lambda: "connections_refused" in replica.output, description="the log has a line")


def test_t5_metrics_port_connections_are_evicted_too(replica: Replica) -> None:
    """Half-open connections and slow bodies there do not stop health checks."""
    port = replica.env["METRICS_PORT"]
    with contextlib.ExitStack() as stack:
        for start in (HEAD, b"POST /health HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n") * 20:
            stack.enter_context(socket.create_connection(("127.0.0.1", int(port)))).sendall(start)
        assert get(replica, "/health", port=port).status_code == 200
        assert get(replica, "/ready", port=port).status_code == 200


def test_t16_garbage_leaves_one_line_in_the_log(replica: Replica) -> None:
    """300 lines of garbage, also with an upgrade offer, cause at most one line a minute and a metric."""
    for number in range(300):
        with connect(replica) as connection:
            connection.sendall((HEAD + OFFER if number % 2 else b"") + b"no request\r\n\r\n")
            while connection.recv(65536):
                pass
    assert refused_connections(replica) == {"invalid_request": 300}
    wait_until(lambda: "connections_refused" in replica.output, description="the log has a line")

    assert replica.output.count("connections_refused") <= 2
    assert "Invalid HTTP request" not in replica.output


HOSTS = {
    "no host": (b"GET /agents HTTP/1.1\r\n\r\n", 400),
    "no host in http 1.0": (b"GET /agents HTTP/1.0\r\n\r\n", 400),
    "two hosts": (HEAD + b"Host: b\r\n\r\n", 400),
    "one host twice": (HEAD + b"host: localhost\r\n\r\n", 400),
    "two authorizations": (HEAD + b"authorization: Bearer a\r\nAuthorization: b\r\n\r\n", 400),
    "two hosts with an upgrade": (HEAD + b"host: b\r\n" + OFFER, 400),
    "no host on /health in http 1.1": (b"GET /health HTTP/1.1\r\n\r\n", 400),
    "no host on /ready in http 1.0, as haproxy checks it": (b"GET /ready HTTP/1.0\r\n\r\n", 200),
    "one host": (b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n", 200),
}


def test_t28_a_request_has_one_host(replica: Replica) -> None:
    """None, two of them, or two Authorization headers are 400; then the connection is closed."""
    for name, (request, status) in HOSTS.items():
        with connect(replica) as connection:
            connection.sendall(request)
            response = b""
            while data := connection.recv(65536):
                response += data
        assert response.startswith(b"HTTP/1.1 %d " % status), name
        assert (b'"error":"malformed_request"' in response) == (status == 400), name


@pytest.mark.parametrize(
    ("half_open", "heads", "bodies"),
    [
        pytest.param(500, 20, 50, id="scaled down"),
        # The full attack takes a minute; its figures are printed: pytest -m slow -s.
        pytest.param(10_000, 1000, 1000, id="full", marks=pytest.mark.slow),
    ],
)
def test_a_replica_withstands_half_open_connections_heads_and_bodies_at_once(
    replica: Replica, half_open: int, heads: int, bodies: int
) -> None:
    """Memory grows by at most 64 MiB, no outage begins, and health checks succeed; the full attack runs to its end."""
    required = half_open + heads + bodies + 1000
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < required:
        pytest.skip(f"the attack opens {required} files; raise the limit with ulimit -n")
    port, metrics_port = replica.url.rpartition(":")[2], replica.env["METRICS_PORT"]
    counts = [str(count) for count in (half_open, heads, bodies)]
    durations, memory = [], replica.resident_bytes
    grown = 0
    with (
        httpx2.Client(base_url=replica.url, headers=AUTHORIZED, timeout=REQUEST_TIMEOUT_S) as client,
        ChildProcess(sys.executable, "-m", "tests.support.connection_attack", port, *counts) as attack,
    ):
        is_full = half_open == 10_000
        while attack.is_running and (is_full or refused_connections(replica).get("head_too_large", 0) < heads):
            started_at = time.perf_counter()
            assert client.get("/agents").status_code == 200
            durations.append(time.perf_counter() - started_at)
            grown = max(grown, replica.resident_bytes - memory)
            if len(durations) % 20 == 0:
                assert get(replica, "/health", port=metrics_port).status_code == 200
            time.sleep(0.01)
        if is_full:
            assert "longest" in attack.output, attack.output
            assert refused_connections(replica)["body_timeout"] == bodies
            p99 = sorted(durations)[len(durations) * 99 // 100]
            figures = f"p99 {p99 * 1000:.1f} ms of {len(durations)} requests; +{grown / MIB:.1f} MiB"
            print(f"{attack.output.strip()}; {figures}")  # noqa: T201

    assert grown < 64 * MIB
    assert health(replica)["outage"]["since"] is None
