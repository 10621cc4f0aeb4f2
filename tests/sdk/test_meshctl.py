"""Each command of the published meshctl that calls a registry, on three replicas with agents of the SDK."""

import json
import re
from typing import Any

import httpx2
import pytest

from tests.sdk.conftest import Meshctl, StartAgent
from tests.support.http_calls import REQUEST_TIMEOUT_S
from tests.support.polling import wait_until
from tests.support.ports import free_port
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica


@pytest.fixture
def replicas(three_replicas: list[Replica], start_agent: StartAgent) -> list[Replica]:
    """Start three replicas with a provider and a consumer, registered with different replicas."""
    start_agent("provider", three_replicas[0].url)
    consumer = start_agent("consumer", three_replicas[1].url)
    consumer.wait_for_result("hello ann on monday", name="ann")
    return three_replicas


def ids(replica: Replica) -> dict[str, str]:
    """Return the ids of agents by their names."""
    agents = httpx2.get(f"{replica.url}/agents", timeout=REQUEST_TIMEOUT_S).json()["agents"]
    return {agent["name"]: agent["id"] for agent in agents}


def test_list_and_status_show_agents_and_their_resolution(replicas: list[Replica], meshctl: Meshctl) -> None:
    """Every replica shows the same, by URL or by host and port; with the latter meshctl tries HTTPS first."""
    for replica, by_url in ((replicas[0], True), (replicas[2], False)):
        listed = meshctl(replica, "list", by_url=by_url)
        assert "2 agents (2 healthy)" in listed
        assert re.search(r"sdk-consumer-\w+ +Python +Agent +healthy +2/2 +2/2 ", listed)
        assert re.search(r"sdk-provider-\w+ +Python +Agent +healthy +0/0 +1/1 ", listed)

    tools = meshctl(replicas[1], "list", "--tools")
    assert re.search(r"get_date +sdk-provider-\w+ +date_service +system,utc", tools)
    status = meshctl(replicas[2], "status", "sdk-consumer")
    assert re.search(r"Dependencies +: 2/2", status)
    assert re.search(r"date_service +get_date +http://127\.0\.0\.1:\d+", status)
    assert "Invalid HTTP request" not in replicas[2].output


def test_a_killed_agent_is_unhealthy(replicas: list[Replica], meshctl: Meshctl, start_agent: StartAgent) -> None:
    """By default meshctl lists healthy agents only."""
    before = ids(replicas[0])
    second = start_agent("provider", replicas[0].url)
    _second(replicas[0], before)
    second.kill()

    def is_unhealthy() -> bool:
        return bool(re.search(r"sdk-provider-\w+ +Python +Agent +unhealthy ", meshctl(replicas[1], "list", "--all")))

    wait_until(is_unhealthy, description="the killed agent is unhealthy")
    assert "unhealthy" not in meshctl(replicas[2], "list").partition("NAME")[2]


def test_calls_work_through_any_replica_and_directly(replicas: list[Replica], meshctl: Meshctl) -> None:
    """A tool is addressed by its name, with or without its agent; a tool may call the tool of another agent."""
    for command in (("greet",), ("sdk-consumer:greet",), ("greet", "--use-proxy=false")):
        answer = json.loads(meshctl(replicas[2], "call", *command, json.dumps({"name": "bob"})))
        assert answer["content"] == [{"type": "text", "text": "hello bob on monday"}]

    described = meshctl(replicas[0], "list", "--tools=greet")
    assert '"name"' in described.partition("Input Schema")[2]


def test_a_drain_applies_to_all_replicas(replicas: list[Replica], meshctl: Meshctl) -> None:
    """One replica receives the request, another one shows it, and a third one ends it."""
    assert "active" in meshctl(replicas[0], "registry", "status")
    meshctl(replicas[0], "registry", "drain")
    assert "DRAINING" in meshctl(replicas[1], "registry", "status")
    meshctl(replicas[2], "registry", "resume")
    assert "active" in meshctl(replicas[0], "registry", "status")


def test_the_admin_port_serves_the_registry_commands(lasting_server: RedisServer, meshctl: Meshctl) -> None:
    """On the API port they fail, and meshctl advises to use the URL of the admin port."""
    port = str(free_port())
    with Replica(lasting_server.url, REGISTRY_ADMIN_PORT=port) as replica:
        for command, state in (("drain", "draining"), ("status", "DRAINING"), ("resume", "resumed")):
            assert state in meshctl(f"http://127.0.0.1:{port}", "registry", command)
            with pytest.raises(AssertionError, match="separate admin port"):
                meshctl(replica, "registry", command)


def test_schemas_are_listed_and_compared(replicas: list[Replica], meshctl: Meshctl) -> None:
    """Two tools have equal output schemas, which are stored once."""
    assert "Canonical schema entries" in meshctl(replicas[0], "list", "--schemas")
    schemas = httpx2.get(f"{replicas[0].url}/schemas", timeout=REQUEST_TIMEOUT_S).json()["schemas"]
    by_fields = {tuple(each["canonical"].get("properties", {})): each["hash"] for each in schemas}
    assert len({each["hash"] for each in schemas}) == len(schemas)

    difference = meshctl(replicas[1], "schema", "diff", by_fields[()], by_fields[("name",)])

    assert "+ name (string)" in difference


def test_an_audit_explains_the_choice_of_another_provider(
    replicas: list[Replica], meshctl: Meshctl, start_agent: StartAgent
) -> None:
    """A resolution with one candidate is no event; the second provider is chosen, because it registered last."""
    before = ids(replicas[0])
    consumer = before["sdk-consumer"]
    assert "No dependency-resolution audit events" in meshctl(replicas[0], "audit", consumer)

    second = start_agent("provider", replicas[2].url)
    chosen = _second(replicas[0], before)
    events = wait_until(lambda: _audit(meshctl, replicas[0], consumer), description="there is an event")
    assert {event["data"]["chosen"]["agent_id"] for event in events} == {chosen}
    assert [stage["stage"] for stage in events[0]["data"]["stages"]][-1] == "tiebreaker"
    tree = meshctl(replicas[1], "audit", consumer, "--explain", "--function", "greet")
    assert "capability=date_service" in tree
    assert "tiebreaker" in tree
    second.stop()


def _second(replica: Replica, before: dict[str, str]) -> str:
    """Wait for a second provider; return its id."""

    def second_id() -> str | None:
        agents = httpx2.get(f"{replica.url}/agents", timeout=REQUEST_TIMEOUT_S).json()["agents"]
        new = [agent["id"] for agent in agents if agent["id"] not in before.values()]
        return str(new[0]) if new else None

    return str(wait_until(second_id, description="the second provider is there"))


def _audit(meshctl: Meshctl, replica: Replica, agent_id: str) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = json.loads(meshctl(replica, "audit", agent_id, "--json"))["events"]
    return events
