"""What the store is asked to keep of a registration: thresholds, precondition, and what rules one out."""

from datetime import timedelta
from typing import Any, cast

import pytest

from registry.compat.mcpmesh.registration import DEFAULT_TIMEOUT, FORMAT_NAME, parse_mcpmesh_registration
from registry.config.settings import Settings
from registry.config.types import parse_security_contexts, parse_thresholds
from registry.errors import UnprocessableRequest
from registry.model.registration.parse import parse_registration
from registry.service.registration.registration import RegistrationService
from registry.store.agents import Agents, RegistrationResult, RegistrationWrite
from tests.support.http_calls import a_registration


class Asked:
    """A store that notes what it is asked to keep."""

    def __init__(self) -> None:
        self.last: RegistrationWrite | None = None

    async def register(self, registration: RegistrationWrite) -> RegistrationResult:
        """Note it."""
        self.last = registration
        return RegistrationResult("created", 7)


def registration_service(store: Asked, settings: Settings) -> RegistrationService:
    """Return a service over this store."""
    nothing = cast(Any, None)
    return RegistrationService(cast(Agents, store), nothing, nothing, settings, {FORMAT_NAME: DEFAULT_TIMEOUT})


async def kept(
    settings: Settings | None = None, *, headers: dict[str, str] | None = None, **fields: Any
) -> RegistrationWrite:
    """Return what the store is asked to keep of a registration with these fields."""
    store = Asked()
    registrations = registration_service(store, settings or Settings())
    await registrations.register(parse_registration(a_registration(**fields)), **(headers or {}))
    assert store.last is not None
    return store.last


async def refused(settings: Settings | None = None, **fields: Any) -> dict[str, str]:
    """Return the problems by field of a registration that is refused."""
    with pytest.raises(UnprocessableRequest) as error:
        await kept(settings, **fields)
    return {detail.field: detail.problem for detail in error.value.details}


BY_TYPE = Settings(agent_timeout=timedelta(seconds=45), thresholds=parse_thresholds("t=30s/90s, quick=100ms/250ms"))

SILENCE: list[tuple[dict[str, Any], tuple[int, int]]] = [
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


@pytest.mark.parametrize(("fields", "silence"), SILENCE, ids=[str(fields) for fields, _ in SILENCE])
async def test_the_store_is_told_milliseconds(fields: dict[str, Any], silence: tuple[int, int]) -> None:
    """Explicit, by type, or the larger of AGENT_TIMEOUT and twice the interval; eviction is twice the timeout."""
    found = await kept(BY_TYPE, **fields)

    assert (found.timeout, found.eviction) == silence


@pytest.mark.parametrize(
    ("fields", "usual", "silence"),
    [
        ({}, 60, (20_000, 40_000)),
        ({}, 20, (20_000, 40_000)),
        ({}, 15, (15_000, 30_000)),
        ({"agent_type": "api"}, 60, (20_000, 40_000)),
        ({"agent_type": "a2a"}, 60, (90_000, 240_000)),
        ({"timeout_threshold": 5, "health_interval": 300}, 60, (20_000, 40_000)),
    ],
)
async def test_agents_in_flat_form_are_missed_after_20_seconds(
    fields: dict[str, Any], usual: int, silence: tuple[int, int]
) -> None:
    """Or after AGENT_TIMEOUT where that is shorter, or as their type is set; they send a sign of life every 5 s."""
    store = Asked()
    settings = Settings(agent_timeout=timedelta(seconds=usual), thresholds=parse_thresholds("a2a=90s/240s"))
    registrations = registration_service(store, settings)

    await registrations.register(parse_mcpmesh_registration({"agent_id": "a-1", "tools": [], **fields}).registration)

    assert store.last is not None
    assert (store.last.timeout, store.last.eviction) == silence


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
async def test_an_eviction_must_be_above_the_timeout_that_holds(fields: dict[str, Any]) -> None:
    """Whatever that timeout comes from."""
    assert "must be" in (await refused(BY_TYPE, **fields))["eviction_threshold"]


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


@pytest.mark.parametrize(("fields", "headers", "word"), PRECONDITIONS)
async def test_every_way_to_say_a_version_is_one_word_for_the_store(
    fields: dict[str, Any], headers: dict[str, str], word: str
) -> None:
    """Body and headers mean the same."""
    assert (await kept(headers=headers, **fields)).precondition == word


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
    """Those that are missing are named, sorted; the setting adds contexts and may change the built-in ones."""
    settings = Settings(security_contexts=parse_security_contexts(setting))

    if missing is None:
        await kept(settings, **fields)
    else:
        assert (await refused(settings, **fields))["capabilities"].endswith(f"requires the capabilities {missing}")


async def test_an_unknown_context_names_the_known_ones() -> None:
    """Sorted, with those of the setting."""
    settings = Settings(security_contexts=parse_security_contexts("pci=encryption"))

    assert (await refused(settings, security_context="pic"))["security_context"] == (
        "unknown context 'pic'; known are high_security, pci, standard"
    )


async def test_an_agent_may_need_a_capability_in_so_many_ways() -> None:
    """Each is compared with all who have it: 3,000 ways and 1,000 functions kept each replica busy for 7 s."""
    ways = [{"capability": "c", "tags": [f"+{at}"]} for at in range(101)]

    assert await refused(dependencies=ways) == {
        "dependencies": (
            "require c with 101 different combinations of version, tags and other conditions; at most 100 are allowed"
        )
    }
    await kept(dependencies=[*ways[:100], *ways[:100], *({"capability": f"c{at}"} for at in range(200))])


async def test_what_all_capabilities_require_counts_for_each() -> None:
    """A thousand capabilities that a thousand times require the same were walked for a second by whoever needed one."""
    required = [{"capability": "c", "required": True}] * 101

    found = await refused(dependencies=required, capabilities=[{"name": f"n{at}"} for at in range(100)])

    assert found == {"dependencies": "at most 10,000 pairs of a capability and a required dependency are allowed"}
    await kept(dependencies=required[:100], capabilities=[{"name": f"n{at}"} for at in range(100)])
