"""The pulse, and what is told of outages, grace and holds: each beginning and each end once."""

from collections.abc import Callable

import pytest
import redis
import structlog
from structlog.testing import capture_logs

from registry.config.settings import Settings
from registry.errors import StoreUnavailable
from registry.service.liveness.store_monitor import StoreMonitor
from registry.service.status import outage_json, self_preservation_json
from registry.store.server_health import ProbeResult, SelfPreservation
from registry.store.store import Store
from tests.support.server_time import clear_outage, server_time_ms

QUIET = ProbeResult(
    now=1_000_000,
    outage_end=None,
    outage_start=None,
    repairing_clock_rollback=False,
    overdue=0,
    grace_granted=0,
    self_preservation_activations=0,
    self_preservation=None,
)
HOLD = SelfPreservation(since=900_000, until=1_500_000, ended=None, overdue=30, healthy=40)


class Told:
    """Stands in for the vitals: gives the signs it is told, or fails."""

    def __init__(self) -> None:
        self.signs: ProbeResult | None = QUIET

    async def probe(self) -> ProbeResult:
        """Give the signs."""
        if self.signs is None:
            raise StoreUnavailable("away")
        return self.signs


@pytest.fixture
def told() -> Told:
    """What the next pulse sees."""
    return Told()


class Clock:
    """Monotonic seconds that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        """Read it."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock."""
    return Clock()


@pytest.fixture
def pulsing(told: Told, clock: Clock, settings: Settings) -> StoreMonitor:
    """A pulsing whose agents may be silent for two seconds."""
    return StoreMonitor(told, settings, clock=clock)  # type: ignore[arg-type]


async def events(pulsing: StoreMonitor) -> list[str]:
    """Pulse once and return what was logged, by the first words."""
    structlog.reset_defaults()
    with capture_logs() as logs:
        await pulsing.tick()
    return [str(entry["event"]) for entry in logs]


async def test_a_quiet_mesh_is_not_talked_about(pulsing: StoreMonitor) -> None:
    """Not once a second, not at all."""
    assert await events(pulsing) == []
    assert await events(pulsing) == []
    assert pulsing.last_probe == QUIET


async def test_an_outage_and_the_grace_after_it_are_told_once_each(pulsing: StoreMonitor, told: Told) -> None:
    """Its end when it is seen; the end of the grace a timeout later."""
    await events(pulsing)
    told.signs = QUIET._replace(outage_end=1_000_000, outage_start=990_000)
    assert await events(pulsing) == ["outage_ended"]
    assert await events(pulsing) == []
    told.signs = told.signs._replace(now=1_001_999)
    assert await events(pulsing) == []
    told.signs = told.signs._replace(now=1_002_000)
    assert await events(pulsing) == ["outage_grace_period_ended"]
    assert await events(pulsing) == []


async def test_an_outage_of_long_ago_is_no_news_at_the_start(pulsing: StoreMonitor, told: Told) -> None:
    """A replica that starts tells only of one whose grace lasts."""
    told.signs = QUIET._replace(outage_end=900_000, outage_start=890_000)

    assert await events(pulsing) == []


async def test_redis_out_of_reach_is_told_after_five_seconds(pulsing: StoreMonitor, told: Told, clock: Clock) -> None:
    """Once, with its end; every failure is raised, for the loop to tell."""

    async def failing() -> list[str]:
        structlog.reset_defaults()
        with capture_logs() as logs, pytest.raises(StoreUnavailable):
            await pulsing.tick()
        return [str(entry["event"]) for entry in logs]

    await events(pulsing)
    told.signs = None
    clock.now += 5
    assert await failing() == []
    clock.now += 0.1
    assert await failing() == ["redis_unreachable"]
    clock.now += 10
    assert await failing() == []
    told.signs = QUIET
    assert await events(pulsing) == ["redis_reachable_again"]


async def test_a_clock_that_went_back_is_passed_on_until_all_times_are_right(
    told: Told, clock: Clock, settings: Settings
) -> None:
    """Also where the walk over all agents was too quick to be seen, and once after it."""
    heard: list[tuple[int, int]] = []
    pulsing = StoreMonitor(told, settings, on_clock_rollback=lambda *when: heard.append(when), clock=clock)  # type: ignore[arg-type]
    back = QUIET._replace(now=500_100, outage_end=500_000, outage_start=1_000_000)

    for signs in (
        QUIET,
        back,
        back._replace(now=500_200, repairing_clock_rollback=True),
        back._replace(now=500_300),
        back._replace(now=500_400),
    ):
        told.signs = signs
        await pulsing.tick()

    assert heard == [(500_100, 500_000), (500_200, 500_000), (500_300, 500_000)]


async def test_a_hold_is_told_when_it_begins_and_when_it_ends(pulsing: StoreMonitor, told: Told) -> None:
    """Also where it began before this replica did."""
    told.signs = QUIET._replace(self_preservation=HOLD)
    assert await events(pulsing) == ["self_preservation_started"]
    assert await events(pulsing) == []
    told.signs = QUIET._replace(self_preservation=HOLD._replace(ended=1_500_000))
    assert await events(pulsing) == ["self_preservation_ended"]
    assert await events(pulsing) == []
    told.signs = QUIET
    assert await events(pulsing) == []
    told.signs = QUIET._replace(self_preservation=HOLD._replace(since=2_000_000))
    assert await events(pulsing) == ["self_preservation_started"]


Case = tuple[ProbeResult | None, dict[str, object]]
NO_OUTAGE = {"cause": None, "since": None, "until": None, "grace_granted": 0, "repairing_clock_rollback": False}


@pytest.mark.parametrize(
    ("signs", "shown"),
    [
        (None, NO_OUTAGE),
        (QUIET, NO_OUTAGE),
        (
            QUIET._replace(outage_end=20_000, outage_start=10_000, grace_granted=3),
            {
                "cause": "no_probe",
                "since": "1970-01-01T00:00:10.000Z",
                "until": "1970-01-01T00:00:20.000Z",
                "grace_granted": 3,
                "repairing_clock_rollback": False,
            },
        ),
        (
            QUIET._replace(outage_end=10_000, outage_start=20_000, repairing_clock_rollback=True),
            {
                "cause": "clock_rollback",
                "since": "1970-01-01T00:00:20.000Z",
                "until": "1970-01-01T00:00:10.000Z",
                "grace_granted": 0,
                "repairing_clock_rollback": True,
            },
        ),
        (
            QUIET._replace(outage_end=10_000),
            {
                "cause": "first_probe",
                "since": None,
                "until": "1970-01-01T00:00:10.000Z",
                "grace_granted": 0,
                "repairing_clock_rollback": False,
            },
        ),
    ],
)
def test_what_is_shown_of_an_outage(signs: ProbeResult | None, shown: dict[str, object]) -> None:
    """From when to when by Redis' clock, why, and what it did."""
    assert outage_json(signs) == shown


@pytest.mark.parametrize(
    ("change", "active", "until", "suspended"),
    [
        (lambda signs: signs, True, "1970-01-01T00:25:00.000Z", 12),
        (
            lambda signs: signs._replace(self_preservation=HOLD._replace(ended=1_000_000)),
            False,
            "1970-01-01T00:16:40.000Z",
            0,
        ),
    ],
    ids=["on", "over"],
)
def test_what_is_shown_of_a_hold(
    change: Callable[[ProbeResult], ProbeResult],
    *,
    active: bool,
    until: str,
    suspended: int,
) -> None:
    """How many it was for, how many it holds, since when, and when it ends or ended."""
    assert self_preservation_json(
        change(QUIET._replace(self_preservation=HOLD, overdue=12, self_preservation_activations=2))
    ) == {
        "active": active,
        "since": "1970-01-01T00:15:00.000Z",
        "until": until,
        "healthy": 40,
        "overdue_at_start": 30,
        "suspended": suspended,
        "activations": 2,
    }


async def test_the_real_store_is_pulsed_and_seen(store: Store, settings: Settings, raw: redis.Redis) -> None:
    """What the script replies is what is shown."""
    clear_outage(raw)
    raw.hset("{mesh}:self_preservation", mapping={"since": "1", "until": "2", "overdue": "3", "healthy": "4"})
    pulsing = StoreMonitor(store.server_health, settings)
    began = server_time_ms(raw)

    await pulsing.tick()

    assert pulsing.last_probe is not None
    assert began <= pulsing.last_probe.now <= server_time_ms(raw)
    assert pulsing.last_probe._replace(now=0) == QUIET._replace(
        now=0, self_preservation=SelfPreservation(1, 2, None, 3, 4)
    )
