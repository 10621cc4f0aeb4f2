"""Redis away, frozen or at another time: agents that could not be heard are not blamed, and the dead still die."""

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx2
import pytest
import redis

from tests.support.clock_stepped_redis import ClockSteppedRedis, clock_stepping_unavailable_reason
from tests.support.polling import wait_until
from tests.support.redis_server import RedisServer
from tests.support.replica import Replica
from tests.support.replica_group import (
    HeartbeatSender,
    get_health,
    log_entries_by_reason,
    register_agents,
    running_replicas,
)
from tests.support.server_time import server_time_ms

# More than Redis may be away, and than an agent may be silent.
LONG = 6_500
FLEET = [f"agent-{n}" for n in range(30)]
HOUR = 3600


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A store of the test's own."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def stepping() -> Iterator[ClockSteppedRedis]:
    """A store whose clock can be stepped."""
    why = clock_stepping_unavailable_reason()
    if why is not None:
        pytest.skip(why)
    with ClockSteppedRedis() as server:
        yield server


def milliseconds() -> int:
    """Return the machine's monotonic time: what goes on while a server does not."""
    return int(time.monotonic() * 1000)


def pass_time(ms: int) -> None:
    """Return so many milliseconds later."""
    until = milliseconds() + ms
    wait_until(lambda: milliseconds() >= until, description="the time has passed", timeout=ms / 1000 + 5)


def outage(replica: Replica) -> dict[str, Any]:
    """Return the last outage as a replica shows it."""
    found: dict[str, Any] = get_health(replica)["outage"]
    return found


@pytest.mark.fault(10, "Redis is frozen for longer than an agent's timeout")
def test_after_redis_was_frozen_longer_than_a_timeout_everybody_who_beats_again_stays(server: RedisServer) -> None:
    """The replica lives meanwhile; who does not come back is degraded its own timeout after the outage."""
    with running_replicas(server.url, 1) as (replica,), HeartbeatSender([replica], FLEET):
        register_agents(replica, [*FLEET, "dead"])
        before = outage(replica)["until"]

        server.pause()
        pass_time(LONG)
        assert httpx2.get(f"{replica.url}/health", timeout=1).json()["status"] == "degraded"
        server.resume()

        wait_until(lambda: outage(replica)["until"] != before, description="the outage is shown", timeout=5)
        shown = outage(replica)
        assert shown["cause"] == "no_probe"
        wait_until(
            lambda: log_entries_by_reason(server.url, "degraded"), description="the dead one is degraded", timeout=10
        )
        ((at, agent_id),) = log_entries_by_reason(server.url, "degraded")
        with redis.Redis.from_url(server.url, decode_responses=True) as raw:
            ended = int(str(raw.get("{mesh}:outage")).split()[0])
        assert agent_id == "dead"
        # Where the sweep itself took its time to come back, it finds the grace over already.
        assert 3000 <= at - ended < 5500
        assert not get_health(replica)["self_preservation"]["activations"]
        assert "redis_unreachable" in replica.output
        assert "outage_ended" in replica.output
        assert "grace: agents keep their status" in replica.output
        wait_until(lambda: "the grace after the outage is over" in replica.output, description="its end is told")


def test_when_no_replica_ran_nobody_is_blamed_for_that(server: RedisServer) -> None:
    """All stopped, longer than a timeout; started again, whoever beats stays."""
    with running_replicas(server.url, 1) as (replica,):
        register_agents(replica, FLEET)
        replica.stop()
    pass_time(LONG)

    with running_replicas(server.url, 2) as running, HeartbeatSender(running, FLEET):
        with redis.Redis.from_url(server.url) as raw:
            began = server_time_ms(raw)
            wait_until(
                lambda: server_time_ms(raw) > began + 4000, description="more than a timeout has passed", timeout=9
            )
        assert outage(running[0])["cause"] == "no_probe"
        assert log_entries_by_reason(server.url, "degraded") == []


@pytest.mark.fault(27, "The clock of Redis is set forward or back")
@pytest.mark.parametrize("seconds", [-2 * HOUR, HOUR], ids=["back", "ahead"])
def test_when_the_clock_of_redis_is_stepped_the_living_stay_and_the_dead_die(
    stepping: ClockSteppedRedis, seconds: int
) -> None:
    """Within a timeout or so by a clock that goes on; no time lies in the future, and the leader leads on."""
    with running_replicas(stepping.url, 2) as running, HeartbeatSender(running, FLEET) as beating:
        register_agents(running[0], [*FLEET, "dead"])
        leading = get_health(running[0])["leader"]["epoch"]

        stepping.set_clock_offset(seconds)
        stepped = milliseconds()

        wait_until(
            lambda: log_entries_by_reason(stepping.url, "degraded"), description="the dead one is degraded", timeout=10
        )
        assert milliseconds() - stepped < 3000 + 3500
        assert [agent_id for _, agent_id in log_entries_by_reason(stepping.url, "degraded")] == ["dead"]
        state = get_health(running[1])
        assert state["outage"]["cause"] == ("clock_rollback" if seconds < 0 else "no_probe")
        assert not state["outage"]["repairing_clock_rollback"]
        assert state["leader"]["epoch"] == leading
        assert not state["self_preservation"]["activations"]
        with redis.Redis.from_url(stepping.url) as raw:
            now = server_time_ms(raw)
            assert raw.zcount("{mesh}:heartbeats", now + 2000, "+inf") == 0
            assert raw.zcount("{mesh}:deadlines", now + 12_000, "+inf") == 0
        assert not beating.unknown_agents
        for replica in running:
            for agent_id in ("dead", FLEET[0]):
                shown = httpx2.get(f"{replica.url}/health/{agent_id}").json()
                heard = datetime.fromisoformat(shown["last_heartbeat"]).timestamp() * 1000
                assert heard <= now + 2000
                assert shown["time_since_heartbeat"] <= 3 or agent_id == "dead"
