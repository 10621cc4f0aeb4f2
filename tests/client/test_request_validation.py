"""The client rejects wrong data before sending it, with the field, and accepts all data that the registry accepts."""

from typing import Any

import pytest
from mcp_mesh_client import InvalidData, RegistryClient, SecurityValidationError
from mcp_mesh_client.config import DEFAULT_SECURITY_CONTEXTS
from mcp_mesh_client.request_validation import check_id, check_registration, check_registrations, encode_json

from registry.config.settings import Settings
from registry.model.registration.parse import parse_registration
from registry.service.registration.registration_checks import find_missing_capabilities
from tests.client.client_setup import REGISTRATION


def nested(depth: int) -> Any:
    """Return lists nested to this depth."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("change", "field", "message"),
    [
        ({"id": None}, "id", "Missing required field: id"),
        ({"endpoint": None}, "endpoint", "Missing required field: endpoint"),
        ({"id": "a b"}, "id", "id: expected 1 to 253 letters"),
        ({"agent_id": "é"}, "agent_id", "agent_id: expected 1 to 253 letters"),
        ({"endpoint": 8000}, "endpoint", "endpoint: expected a URL"),
        ({"capabilities": "greeting"}, "capabilities", "capabilities: expected a list"),
        ({"capabilities": ["x", {"version": "1"}]}, "capabilities[1].name", "Missing required field: capabilities[1]"),
        ({"metadata": {"tools": {}}}, "metadata.tools", "metadata.tools: expected a list"),
        ({"labels": {"k": {1}}}, "labels.k", "labels.k: a set cannot be sent as JSON"),
        ({"note": [1.0, float("nan")]}, "note[1]", "note[1]: JSON cannot represent nan"),
        ({"note": {1: 2}}, "note", "note: object keys must be strings"),
        ({"note": "\ud800"}, "note", "note: unpaired surrogate"),
        ({"note": nested(100)}, None, "nested deeper than 64"),
    ],
)
def test_a_wrong_registration_is_rejected_with_its_field(
    change: dict[str, Any], field: str | None, message: str
) -> None:
    """The error is a ValueError with the attribute `field`."""
    with pytest.raises(ValueError) as rejected:  # noqa: PT011 - the message is looked at below
        check_registration(REGISTRATION | change, DEFAULT_SECURITY_CONTEXTS)

    assert message in str(rejected.value)
    assert isinstance(rejected.value, InvalidData)
    assert field in (None, rejected.value.field)


def test_a_wrong_registration_of_many_is_rejected_with_its_index() -> None:
    """The path of the field starts with the index."""
    with pytest.raises(InvalidData) as rejected:
        check_registrations([REGISTRATION, {"id": "b"}], {})

    assert rejected.value.field == "agents[1].endpoint"
    with pytest.raises(InvalidData, match=r"^agents: expected a list of at most 200"):
        check_registrations([REGISTRATION] * 201, {})


@pytest.mark.parametrize(
    "document",
    [
        REGISTRATION,
        {"agent_id": "a", "endpoint": "https://a", "capabilities": None},
        REGISTRATION | {"capabilities": [{"name": "x"}, "y"], "labels": {}, "note": [None, 1.5, True, "ü☃"]},
        REGISTRATION
        | {"security_context": "high_security", "capabilities": ["audit", "authentication", "authorization"]},
    ],
)
def test_a_registration_that_the_registry_accepts_passes(document: dict[str, Any]) -> None:
    """The server's parser and the client's check accept the same document."""
    parse_registration(document)

    check_registration(document, DEFAULT_SECURITY_CONTEXTS)


@pytest.mark.parametrize(
    "document",
    [
        {"agent_id": "a", "metadata": {"endpoint": "http://a:1", "tools": [{"function_name": "f", "capability": "x"}]}},
        {"agent_id": "a", "metadata": {"endpoint": "http://a:1", "tools": [{"function_name": "f"}]}},
        {"agent_id": "a", "http_host": "a", "http_port": 0},
    ],
)
def test_a_registration_in_the_tools_format_passes(document: dict[str, Any]) -> None:
    """The endpoint is part of the metadata; a tool may have no capability."""
    check_registration(document, DEFAULT_SECURITY_CONTEXTS)


def test_the_default_security_contexts_are_those_of_the_registry() -> None:
    """The client rejects only data that a registry with default settings rejects, too."""
    assert {
        name: frozenset(needed) for name, needed in DEFAULT_SECURITY_CONTEXTS.items()
    } == Settings().security_contexts


def test_an_unsatisfied_security_context_reports_the_missing_capabilities() -> None:
    """The message is that of the registry."""
    document = REGISTRATION | {"security_context": "high_security", "capabilities": ["audit"]}
    (problem,) = find_missing_capabilities(Settings().security_contexts, "high_security", ["audit"])

    with pytest.raises(SecurityValidationError) as rejected:
        check_registration(document, DEFAULT_SECURITY_CONTEXTS)

    assert rejected.value.field == problem.field
    assert str(rejected.value) == f"capabilities: {problem.problem}"
    with pytest.raises(SecurityValidationError, match=r"^security_context: expected the name"):
        check_registration(REGISTRATION | {"security_context": 7}, DEFAULT_SECURITY_CONTEXTS)


def test_an_unknown_security_context_is_left_to_the_registry() -> None:
    """A context from the client's options is checked."""
    document = REGISTRATION | {"security_context": "pci"}

    check_registration(document, DEFAULT_SECURITY_CONTEXTS)
    with pytest.raises(SecurityValidationError):
        check_registration(document, {"pci": ("encryption",)})


@pytest.mark.parametrize("wrong", ["", "a/b", "a b", "x" * 254, None, 7])
async def test_a_wrong_agent_id_is_not_sent(wrong: Any) -> None:
    """Every call with an id checks it first."""
    client = RegistryClient("http://127.0.0.1:9")
    for call in (client.heartbeat, client.unregister_agent, client.agent, client.agent_status, client.agent_health):
        with pytest.raises(ValueError, match=r"^agent_id: "):
            await call(wrong)
    with pytest.raises(ValueError, match=r"^agent_ids\[1\]: "):
        await client.heartbeats(["a", wrong])
    with pytest.raises(ValueError, match=r"^agent_ids: expected at most 1000"):
        await client.heartbeats(["a"] * 1001)

    assert check_id("a.b_c:d-1") == "a.b_c:d-1"


def test_bodies_are_json_in_utf_8() -> None:
    """Other mappings than dict are encoded as objects."""
    assert encode_json({"a": DEFAULT_SECURITY_CONTEXTS, "b": "ü"}).startswith(b'{"a":{"standard":[]')
