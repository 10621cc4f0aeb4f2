"""Replicas as processes on one store, and a sender of heartbeats through them."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import httpx2
import redis

from tests.support.http_calls import REQUEST_TIMEOUT_S, a_registration
from tests.support.machine_speed import scaled
from tests.support.replica import Replica

# Seconds; a slow machine sends heartbeats and renews leases late.
AGENT_TIMEOUT_S = scaled(3)
_HEARTBEAT_INTERVAL_S = 0.5
# Short times: an agent is overdue after three seconds, a leader after two.
FAST_SETTINGS = {
    "AGENT_TIMEOUT": f"{AGENT_TIMEOUT_S:.3f}s",
    "HEALTH_CHECK_INTERVAL": "200ms",
    "LEADER_ELECTION_LEASE_DURATION": f"{scaled(2):.3f}s",
    "LEADER_ELECTION_RENEW_DEADLINE": f"{scaled(1.2):.3f}s",
    "LEADER_ELECTION_RETRY_PERIOD": "400ms",
    "REGISTRY_LOG_FORMAT": "json",
}


@contextlib.contextmanager
def running_replicas(url: str, count: int, **env: str) -> Iterator[list[Replica]]:
    """Provide `count` replicas, started together; at the end those that still run are killed."""
    started = [Replica(url, **FAST_SETTINGS | {"REGISTRY_INSTANCE_ID": f"replica-{n}"} | env) for n in range(count)]
    try:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(Replica.start, started))
        yield started
    finally:
        for replica in started:
            replica.kill()


def get_health(replica: Replica) -> dict[str, Any]:
    """Return the health document of a replica."""
    response = httpx2.get(f"{replica.url}/health", timeout=REQUEST_TIMEOUT_S)
    assert response.status_code == 200
    document: dict[str, Any] = response.json()
    return document


def find_leader(running: Sequence[Replica]) -> Replica | None:
    """Return the replica that reports that it is the leader."""
    return next((replica for replica in running if get_health(replica)["leader"]["leading"]), None)


def register_agents(replica: Replica, agent_ids: Sequence[str], **fields: Any) -> None:
    """Register agents and send one heartbeat for each."""
    agents = [a_registration(agent_id, **fields) for agent_id in agent_ids]
    with httpx2.Client(base_url=replica.url, timeout=REQUEST_TIMEOUT_S) as client:
        for at in range(0, len(agents), 200):
            response = client.post("/agents/batch", json={"agents": agents[at : at + 200]})
            assert response.status_code == 200, response.text
        send_heartbeats(client, agent_ids)


def send_heartbeats(client: httpx2.Client, agent_ids: Sequence[str]) -> None:
    """Send a heartbeat for each agent."""
    response = client.post("/heartbeats", json={"agent_ids": list(agent_ids)})
    assert response.status_code == 200, response.text
    assert {result["status"] for result in response.json()["results"].values()} == {"success"}


def log_entries_by_reason(url: str, reason: str) -> list[tuple[int, str]]:
    """Return version and agent id of the log entries with this reason, the oldest first."""
    with redis.Redis.from_url(url, decode_responses=True) as client:
        entries: Any = client.xrange("{mesh}:log")
    return [(int(at.removesuffix("-0")), fields["id"]) for at, fields in entries if fields["reason"] == reason]


class HeartbeatSender:
    """Sends heartbeats for its agents twice a second through any replica that responds, until `stop()`."""

    def __init__(self, running: Sequence[Replica], agent_ids: Sequence[str]) -> None:
        self._running = running
        self._agent_ids = list(agent_ids)
        self._stop_requested = threading.Event()
        self._thread = threading.Thread(target=self._send_until_stopped, daemon=True)
        self.unknown_agents: set[str] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop sending heartbeats."""
        self._stop_requested.set()
        self._thread.join()

    def _send_until_stopped(self) -> None:
        while not self._stop_requested.wait(_HEARTBEAT_INTERVAL_S):
            for replica in self._running:
                with contextlib.suppress(httpx2.TransportError):
                    response = httpx2.post(
                        f"{replica.url}/heartbeats", json={"agent_ids": self._agent_ids}, timeout=scaled(1)
                    )
                    if response.status_code == 200:
                        results = response.json()["results"]
                        self.unknown_agents |= {
                            name for name in results if results[name].get("error") == "unknown_agent"
                        }
                        break
