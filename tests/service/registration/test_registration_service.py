"""The write that the service sends to the store: thresholds, precondition, and registrations that are rejected."""

from datetime import timedelta
from typing import Any, cast

import pytest

from registry.compat.mcpmesh.registration import DEFAULT_TIMEOUT, FORMAT_NAME, parse_mcpmesh_registration
from registry.config.settings import Settings
from registry.config.value_types import parse_security_contexts, parse_thresholds
from registry.errors import UnprocessableRequest
from registry.model.registration.parse import parse_registration
from registry.service.registration.registration_service import RegistrationService
from registry.store.agents import Agents, RegistrationResult, RegistrationWrite
from tests.support.http_calls import a_registration


class FakeAgentStore:
    """A store that records the last write."""

    def __init__(self) -> None:
        self.last: RegistrationWrite | None = None

    async def register(self, registration: RegistrationWrite) -> RegistrationResult:
        """Record the write."""
        self.last = registration
        return RegistrationResult("created", 7)


def registration_service(store: FakeAgentStore, settings: Settings) -> RegistrationService:
    """Return a service over this store."""
    unused = cast(Any, None)
    return RegistrationService(cast(Agents, store), unused, unused, settings, {FORMAT_NAME: DEFAULT_TIMEOUT})


async def stored_write(
    settings: Settings | None = None, *, headers: dict[str, str] | None = None, **fields: Any
) -> RegistrationWrite:
    """Return the write for a registration with these fields."""
    store = FakeAgentStore()
    registrations = registration_service(store, settings or Settings())
    await registrations.register(parse_registration(a_registration(**fields)), **(headers or {}))
    assert store.last is not None
    return store.last


async def rejected_fields(settings: Settings | None = None, **fields: Any) -> dict[str, str]:
    """Return the problem of each field of a registration that is rejected."""
    with pytest.raises(UnprocessableRequest) as error:
        await stored_write(settings, **fields)
    return {detail.field: detail.problem for detail in error.value.details}


BY_TYPE = Settings(agent_timeout=timedelta(seconds=45), thresholds=parse_thresholds("t=30s/90s, quick=100ms/250ms"))

THRESHOLDS: list[tuple[dict[str, Any], tuple[int, int]]] = [
    ({}, (45_000, 90_000)),
    ({"health_interval": 10}, (45_000, 90_000)),
    ({"health_interval": 22.5}, (45_000, 90_000)),
    ({"health_interval": 30}, (60_000, 120_000)),
    ({"timeout_threshold": 0.0001}, (1, 1)),
    ({"timeout_threshold": 0.25}, (250, 500)),
    ({"timeout_threshold": 10, "health_interval": 30}, (10_000, 20_000)),
    ({"eviction_threshold": 45.5}, (45_000, 45_500)),
    ({"timeout_threshold": 10, "eviction_threshold": 11}, (10_000, 11_000)),
    ({"agent_type": "t"}, (30_000, 90_000)),
    ({"agent_type": "t", "health_interval": 300}, (30_000, 90_000)),
    ({"agent_type": "t", "timeout_threshold": 10}, (10_000, 20_000)),
    ({"agent_type": "t", "eviction_threshold": 31}, (30_000, 31_000)),
    ({"agent_type": "quick"}, (100, 250)),
    ({"agent_type": "T"}, (45_000, 90_000)),
    ({"timeout_threshold": 31_536_000}, (31_536_000_000, 63_072_000_000)),
]


@pytest.mark.parametrize(("fields", "thresholds"), THRESHOLDS, ids=[str(fields) for fields, _ in THRESHOLDS])
async def test_thresholds_are_stored_in_milliseconds(fields: dict[str, Any], thresholds: tuple[int, int]) -> None:
    """It is explicit, by type, or the larger of AGENT_TIMEOUT and twice the interval; eviction is twice that."""
    write = await stored_write(BY_TYPE, **fields)

    assert (write.timeout, write.eviction) == thresholds


@pytest.mark.parametrize(
    ("fields", "agent_timeout", "thresholds"),
    [
        ({}, 60, (20_000, 40_000)),
        ({}, 20, (20_000, 40_000)),
        ({}, 15, (15_000, 30_000)),
        ({"agent_type": "api"}, 60, (20_000, 40_000)),
        ({"agent_type": "a2a"}, 60, (90_000, 240_000)),
        ({"timeout_threshold": 5, "health_interval": 300}, 60, (20_000, 40_000)),
    ],
)
async def test_mcpmesh_agents_time_out_after_20_seconds(
    fields: dict[str, Any], agent_timeout: int, thresholds: tuple[int, int]
) -> None:
    """A shorter AGENT_TIMEOUT or the thresholds of their type apply instead; their heartbeats come every 5 s."""
    store = FakeAgentStore()
    settings = Settings(agent_timeout=timedelta(seconds=agent_timeout), thresholds=parse_thresholds("a2a=90s/240s"))
    registrations = registration_service(store, settings)

    await registrations.register(parse_mcpmesh_registration({"agent_id": "a-1", "tools": [], **fields}).registration)

    assert store.last is not None
    assert (store.last.timeout, store.last.eviction) == thresholds


@pytest.mark.parametrize(
    "fields",
    [
        {"timeout_threshold": 5, "eviction_threshold": 5},
        {"eviction_threshold": 45},
        {"agent_type": "t", "eviction_threshold": 29},
        {"health_interval": 60, "eviction_threshold": 100},
    ],
    ids=str,
)
async def test_the_eviction_threshold_must_exceed_the_timeout(fields: dict[str, Any]) -> None:
    """This applies whatever the source of the timeout is."""
    assert "must be" in (await rejected_fields(BY_TYPE, **fields))["eviction_threshold"]


PRECONDITIONS: list[tuple[dict[str, Any], dict[str, str], str]] = [
    ({}, {}, ""),
    ({"resource_version": "0"}, {}, "absent"),
    ({"resource_version": 0}, {}, "absent"),
    ({"resource_version": "000"}, {}, "absent"),
    ({"resource_version": "17"}, {}, "17"),
    ({"resource_version": "0017"}, {}, "17"),
    ({}, {"if_match": "17"}, "17"),
    ({}, {"if_match": '"17"'}, "17"),
    ({}, {"if_match": 'W/"17"'}, "17"),
    ({}, {"if_match": " * "}, "present"),
    ({}, {"if_none_match": "*"}, "absent"),
    ({"resource_version": "0"}, {"if_none_match": "*", "if_match": '"0"'}, "absent"),
    ({"resource_version": "17"}, {"if_match": 'W/"17"'}, "17"),
]


@pytest.mark.parametrize(("fields", "headers", "precondition"), PRECONDITIONS)
async def test_every_form_of_a_precondition_is_normalized(
    fields: dict[str, Any], headers: dict[str, str], precondition: str
) -> None:
    """Fields in the body and headers are equivalent."""
    assert (await stored_write(headers=headers, **fields)).precondition == precondition


CONTEXTS: list[tuple[str, dict[str, Any], str | None]] = [
    ("", {}, None),
    ("", {"security_context": "standard"}, None),
    ("", {"security_context": "high_security"}, "audit, authentication, authorization"),
    ("", {"security_context": "high_security", "capabilities": ["audit", "x"]}, "authentication, authorization"),
    ("", {"security_context": "high_security", "capabilities": ["audit", "authentication", "authorization"]}, None),
    (
        "",
        {
            "security_context": "high_security",
            "capabilities": [{"name": "audit"}, {"name": "authentication", "version": "2.0"}, "authorization"],
        },
        None,
    ),
    ("pci=encryption", {"security_context": "pci"}, "encryption"),
    ("pci=encryption", {"security_context": "pci", "capabilities": ["encryption"]}, None),
    ("open", {"security_context": "open"}, None),
    ("high_security=audit", {"security_context": "high_security", "capabilities": ["audit"]}, None),
    ("standard=audit", {}, "audit"),
]


@pytest.mark.parametrize(("setting", "fields", "missing"), CONTEXTS)
async def test_a_security_context_requires_capabilities(
    setting: str, fields: dict[str, Any], missing: str | None
) -> None:
    """The error names the missing ones, sorted; the setting adds contexts and overrides the built-in ones."""
    settings = Settings(security_contexts=parse_security_contexts(setting))

    if missing is None:
        await stored_write(settings, **fields)
    else:
        assert (await rejected_fields(settings, **fields))["capabilities"].endswith(
            f"requires the capabilities {missing}"
        )


async def test_an_unknown_security_context_is_rejected_with_the_known_ones() -> None:
    """The list is sorted and includes the contexts of the setting."""
    settings = Settings(security_contexts=parse_security_contexts("pci=encryption"))

    assert (await rejected_fields(settings, security_context="pic"))["security_context"] == (
        "unknown context 'pic'; known are high_security, pci, standard"
    )


async def test_the_number_of_conditions_on_one_capability_is_limited() -> None:
    """Each is compared with all providers: 3,000 conditions and 1,000 functions blocked each replica for 7 s."""
    conditions = [{"capability": "c", "tags": [f"+{at}"]} for at in range(101)]

    assert await rejected_fields(dependencies=conditions) == {
        "dependencies": (
            "require c with 101 different combinations of version, tags and other conditions; at most 100 are allowed"
        )
    }
    await stored_write(
        dependencies=[*conditions[:100], *conditions[:100], *({"capability": f"c{at}"} for at in range(200))]
    )


async def test_required_dependencies_are_counted_for_each_capability() -> None:
    """1,000 capabilities with the same 1,000 requirements took a second to resolve for each consumer."""
    required = [{"capability": "c", "required": True}] * 101

    problems = await rejected_fields(dependencies=required, capabilities=[{"name": f"n{at}"} for at in range(100)])

    assert problems == {"dependencies": "at most 10,000 pairs of a capability and a required dependency are allowed"}
    await stored_write(dependencies=required[:100], capabilities=[{"name": f"n{at}"} for at in range(100)])
