"""The store probe, and the log events of outages, grace periods and self-preservation: one per start and end."""

import pytest
import redis
import structlog
from structlog.testing import capture_logs

from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.service.health_report import outage_json, self_preservation_json
from registry.service.liveness.store_monitor import Outage, StoreMonitor
from registry.store.redis_health import ProbeResult, SelfPreservation
from registry.store.store import Store
from tests.support.server_time import clear_outage, server_time_ms

HEALTHY = ProbeResult(now=1_000_000)
PERIOD = SelfPreservation("n", since=900_000, until=1_500_000, ended=None, overdue=30, healthy=40, suspended=12)


class FakeServerHealth:
    """Returns the probe result that the test sets; fails if there is none."""

    def __init__(self) -> None:
        self.result: ProbeResult | None = HEALTHY

    async def probe(self) -> ProbeResult:
        """Return the result."""
        if self.result is None:
            raise StoreUnavailable("away")
        return self.result


@pytest.fixture
def server_health() -> FakeServerHealth:
    """Provide the source of probe results."""
    return FakeServerHealth()


class Clock:
    """Monotonic seconds that the test advances."""

    now = 100.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Provide a clock."""
    return Clock()


@pytest.fixture
def monitor(server_health: FakeServerHealth, clock: Clock, settings: Settings) -> StoreMonitor:
    """Provide a monitor of agents with a timeout of two seconds."""
    return StoreMonitor(server_health, settings, clock=clock)  # type: ignore[arg-type]


async def logged_events(monitor: StoreMonitor) -> list[str]:
    """Tick once and return the names of the logged events."""
    structlog.reset_defaults()
    with capture_logs() as logs:
        await monitor.tick()
    return [str(entry["event"]) for entry in logs]


async def test_a_healthy_store_is_not_logged(monitor: StoreMonitor) -> None:
    """No event is logged for a normal probe."""
    assert await logged_events(monitor) == []
    assert await logged_events(monitor) == []
    assert monitor.last_probe == HEALTHY


async def test_an_outage_and_its_grace_period_are_logged_once(
    monitor: StoreMonitor, server_health: FakeServerHealth
) -> None:
    """The end of the outage is logged when it is detected, the end of the grace period one timeout later."""
    await logged_events(monitor)
    server_health.result = HEALTHY._replace(outage_end=1_000_000, outage_start=990_000)
    assert await logged_events(monitor) == ["outage_ended"]
    assert await logged_events(monitor) == []
    server_health.result = server_health.result._replace(now=1_001_999)
    assert await logged_events(monitor) == []
    server_health.result = server_health.result._replace(now=1_002_000)
    assert await logged_events(monitor) == ["outage_grace_period_ended"]
    assert await logged_events(monitor) == []


async def test_a_gap_shorter_than_all_timeouts_is_no_outage(
    server_health: FakeServerHealth, clock: Clock, settings: Settings
) -> None:
    """A restart of some seconds makes no agent overdue; a rollback of the clock always is an outage."""
    timeout: float | None = None
    monitor = StoreMonitor(server_health, settings, smallest_timeout=lambda: timeout, clock=clock)  # type: ignore[arg-type]
    gap = HEALTHY._replace(outage_end=1_000_000, outage_start=990_000)

    server_health.result = gap
    assert await logged_events(monitor) == []
    timeout = 10_000  # known as soon as the cache is filled
    assert await logged_events(monitor) == []
    server_health.result = gap._replace(outage_start=989_999, outage_end=1_000_000)
    assert await logged_events(monitor) == ["outage_ended"]
    assert monitor.last_outage == Outage(989_999, 1_000_000)
    server_health.result = gap._replace(outage_start=1_000_001)
    assert await logged_events(monitor) == ["outage_ended"]
    assert monitor.last_outage.cause == "clock_rollback"


async def test_the_first_probe_of_a_mesh_is_no_outage(monitor: StoreMonitor, server_health: FakeServerHealth) -> None:
    """There was nothing before it."""
    server_health.result = HEALTHY._replace(outage_end=1_000_000)

    assert await logged_events(monitor) == []
    assert monitor.last_outage is None


async def test_an_old_outage_is_not_logged_at_the_start(monitor: StoreMonitor, server_health: FakeServerHealth) -> None:
    """A new replica logs only an outage whose grace period lasts."""
    server_health.result = HEALTHY._replace(outage_end=900_000, outage_start=890_000)

    assert await logged_events(monitor) == []


async def test_an_unreachable_redis_is_logged_after_five_seconds(
    monitor: StoreMonitor, server_health: FakeServerHealth, clock: Clock
) -> None:
    """The start and the end are logged once; every failure is raised to the loop."""

    async def events_of_failed_probe() -> list[str]:
        structlog.reset_defaults()
        with capture_logs() as logs, pytest.raises(StoreUnavailable):
            await monitor.tick()
        return [str(entry["event"]) for entry in logs]

    await logged_events(monitor)
    server_health.result = None
    clock.now += 5
    assert await events_of_failed_probe() == []
    clock.now += 0.1
    assert await events_of_failed_probe() == ["redis_unreachable"]
    clock.now += 10
    assert await events_of_failed_probe() == []
    server_health.result = HEALTHY
    assert await logged_events(monitor) == ["redis_reachable_again"]


async def test_a_clock_rollback_is_passed_on_until_all_times_are_repaired(
    server_health: FakeServerHealth, clock: Clock, settings: Settings
) -> None:
    """It is passed on at least once, even if no probe sees the repair, and once after the repair."""
    rollbacks: list[tuple[int, int]] = []
    monitor = StoreMonitor(server_health, settings, on_clock_rollback=lambda *when: rollbacks.append(when), clock=clock)  # type: ignore[arg-type]
    back = HEALTHY._replace(now=500_100, outage_end=500_000, outage_start=1_000_000)

    for result in (
        HEALTHY,
        back,
        back._replace(now=500_200, repairing_clock_rollback=True),
        back._replace(now=500_300),
        back._replace(now=500_400),
    ):
        server_health.result = result
        await monitor.tick()

    assert rollbacks == [(500_100, 500_000), (500_200, 500_000), (500_300, 500_000)]


async def test_the_start_and_the_end_of_self_preservation_are_logged(
    monitor: StoreMonitor, server_health: FakeServerHealth
) -> None:
    """The start is logged even if it was before the start of the replica."""
    server_health.result = HEALTHY._replace(self_preservation=(PERIOD,))
    assert await logged_events(monitor) == ["self_preservation_started"]
    assert await logged_events(monitor) == []
    server_health.result = HEALTHY._replace(self_preservation=(PERIOD._replace(ended=1_500_000),))
    assert await logged_events(monitor) == ["self_preservation_ended"]
    assert await logged_events(monitor) == []
    server_health.result = HEALTHY
    assert await logged_events(monitor) == []
    server_health.result = HEALTHY._replace(self_preservation=(PERIOD._replace(since=2_000_000),))
    assert await logged_events(monitor) == ["self_preservation_started"]


async def test_an_outage_of_the_replicas_themselves_has_its_own_cause(
    monitor: StoreMonitor, server_health: FakeServerHealth
) -> None:
    """It is logged and shown, also after an outage of Redis that was earlier."""
    server_health.result = HEALTHY._replace(outage_start=900_000, outage_end=999_000)
    assert await logged_events(monitor) == ["outage_ended"]
    server_health.result = server_health.result._replace(lag_start=999_200, lag_end=999_900)
    assert await logged_events(monitor) == ["outage_ended"]
    assert await logged_events(monitor) == []
    assert monitor.last_outage == Outage(999_200, 999_900, is_lag=True)
    assert outage_json(monitor.last_outage, HEALTHY)["cause"] == "lag"


NO_OUTAGE = {"cause": None, "since": None, "until": None, "grace_granted": 0, "repairing_clock_rollback": False}
TIMES = {"since": "1970-01-01T00:00:10.000Z", "until": "1970-01-01T00:00:20.000Z"}


@pytest.mark.parametrize(
    ("outage", "result", "expected"),
    [
        (None, None, NO_OUTAGE),
        (None, HEALTHY, NO_OUTAGE),
        (
            Outage(10_000, 20_000),
            HEALTHY._replace(grace_granted=3),
            {"cause": "no_probe", **TIMES, "grace_granted": 3, "repairing_clock_rollback": False},
        ),
        (
            Outage(20_000, 10_000),
            HEALTHY._replace(repairing_clock_rollback=True),
            {
                "cause": "clock_rollback",
                "since": TIMES["until"],
                "until": TIMES["since"],
                "grace_granted": 0,
                "repairing_clock_rollback": True,
            },
        ),
    ],
)
def test_the_status_of_an_outage(
    outage: Outage | None, result: ProbeResult | None, expected: dict[str, object]
) -> None:
    """It contains start and end by the clock of Redis, the cause and the effect."""
    assert outage_json(outage, result) == expected


async def test_self_preservation_of_each_namespace_is_logged(
    monitor: StoreMonitor, server_health: FakeServerHealth
) -> None:
    """Not its end while a probe returns fewer namespaces than there are."""
    other, mesh = (PERIOD._replace(namespace=name) for name in ("m", "*"))
    server_health.result = HEALTHY._replace(self_preservation=(PERIOD,), protected_namespaces=1)
    assert await logged_events(monitor) == ["self_preservation_started"]
    server_health.result = HEALTHY._replace(self_preservation=(mesh, other, PERIOD), protected_namespaces=2)
    assert await logged_events(monitor) == ["self_preservation_started"] * 2
    server_health.result = HEALTHY._replace(self_preservation=(other,), protected_namespaces=30)
    assert await logged_events(monitor) == ["self_preservation_ended"]
    server_health.result = HEALTHY._replace(self_preservation=(other, PERIOD), protected_namespaces=2)
    assert await logged_events(monitor) == ["self_preservation_started"]
    server_health.result = HEALTHY._replace(self_preservation=(PERIOD,), protected_namespaces=1)
    assert await logged_events(monitor) == ["self_preservation_ended"]


SHOWN = {
    "since": "1970-01-01T00:15:00.000Z",
    "until": "1970-01-01T00:25:00.000Z",
    "healthy": 40,
    "overdue_at_start": 30,
    "suspended": 12,
}


def test_the_status_of_self_preservation() -> None:
    """It contains the numbers of agents at the start and now, and the start and end times."""
    active = HEALTHY._replace(
        self_preservation=(PERIOD,), suspended=12, protected_namespaces=1, self_preservation_activations=2
    )

    assert self_preservation_json(active) == {
        **SHOWN,
        "active": True,
        "mesh_wide": False,
        "activations": 2,
        "protected_namespaces": 1,
        "namespaces": [{"namespace": "n", **SHOWN}],
    }
    ended = HEALTHY._replace(self_preservation=(PERIOD._replace(ended=1_000_000),), self_preservation_activations=2)
    assert self_preservation_json(ended) == {
        **SHOWN,
        "active": False,
        "mesh_wide": False,
        "until": "1970-01-01T00:16:40.000Z",
        "suspended": 0,
        "activations": 2,
        "protected_namespaces": 0,
        "namespaces": [],
    }


def test_the_status_of_self_preservation_of_several_namespaces() -> None:
    """The totals are those of all active periods; that of the mesh counts namespaces, and is no namespace."""
    mesh = SelfPreservation("*", 950_000, 1_550_000, None, 3, 5, 20)
    other = PERIOD._replace(namespace="m", since=930_000, overdue=10, healthy=11, suspended=8)
    probe = HEALTHY._replace(self_preservation=(mesh, other, PERIOD), suspended=20, protected_namespaces=2)

    shown = self_preservation_json(probe)

    assert [each["namespace"] for each in shown["namespaces"]] == ["m", "n"]
    assert (shown["mesh_wide"], shown["healthy"], shown["overdue_at_start"]) == (True, 51, 40)
    assert (shown["since"], shown["until"]) == (SHOWN["since"], "1970-01-01T00:25:50.000Z")


async def test_the_real_store_is_probed(store: Store, settings: Settings, redis_client: redis.Redis) -> None:
    """The monitor reports the values that the script returns."""
    clear_outage(redis_client)
    redis_client.hset("{mesh}:self_preservation", "n", "1 2 - - 3 4")
    redis_client.zadd("{mesh}:protected", {"n": 1})
    monitor = StoreMonitor(store.server_health, settings)
    start = server_time_ms(redis_client)

    await monitor.tick()

    assert monitor.last_probe is not None
    assert start <= monitor.last_probe.now <= server_time_ms(redis_client)
    assert monitor.last_probe._replace(now=0) == HEALTHY._replace(
        now=0, protected_namespaces=1, self_preservation=(SelfPreservation("n", 1, 2, None, 3, 4, 0),)
    )
