"""The rules of a registration: each rule as a row, all bad fields in one response, one canonical form."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import UnprocessableRequest
from registry.model.registration.parse import (
    CapabilitySchema,
    Registration,
    RegistrationSchema,
    parse_registration,
    registration_schema,
)
from registry.model.validation.json_body import decode_json_body
from registry.model.validation.schema_errors import validator_for

README_BODY = {
    "id": "file-agent-001",
    "name": "File Operations Agent",
    "namespace": "system",
    "agent_type": "file_agent",
    "endpoint": "http://localhost:8001/mcp",
    "capabilities": [
        {
            "name": "read_file",
            "description": "Read file contents",
            "category": "file_operations",
            "version": "1.2.0",
            "stability": "stable",
            "tags": ["io", "filesystem"],
            "input_schema": {
                "type": "object",
                "properties": {"file_path": {"type": "string"}},
                "required": ["file_path"],
            },
        },
    ],
    "labels": {"env": "production", "team": "platform"},
    "security_context": "standard",
    "health_interval": 30.0,
}


def a_document(**fields: Any) -> dict[str, Any]:
    """Return a small valid registration with these fields set."""
    return {"id": "a", "endpoint": "http://a:1"} | fields


def a_capability(**fields: Any) -> dict[str, Any]:
    """Return a small valid registration whose one capability has these fields."""
    return a_document(capabilities=[{"name": "c"} | fields])


def problems_of(document: object, path: str = "") -> dict[str, str]:
    """Return the problems of an invalid registration by field."""
    with pytest.raises(UnprocessableRequest) as error:
        parse_registration(document, path)
    return {detail.field: detail.problem for detail in error.value.details}


ACCEPTED: dict[str, dict[str, Any]] = {
    "README": README_BODY,
    "load test": {"id": "test-agent-1", "capabilities": ["test"], "endpoint": "http://agent-1:8080"},
    "agent_id": {"agent_id": "a", "endpoint": "http://a"},
    "both ids": a_document(agent_id="a"),
    "long id": a_document(id="x" * 253),
    "id signs": a_document(id="A.b_c:d-9"),
    "https": a_document(endpoint="https://agents.example.com"),
    "scheme in capitals": a_document(endpoint="HTTP://a"),
    "query": a_document(endpoint="http://a?x=[1]#y"),
    "last port": a_document(endpoint="http://a:65535"),
    "IPv4": a_document(endpoint="http://10.0.0.1:80/"),
    "IPv6": a_document(endpoint="http://[2001:db8::1]:80/"),
    "IPv4 in IPv6": a_document(endpoint="http://[::ffff:10.0.0.1]"),
    "international host": a_document(endpoint="http://bücher.example"),
    "host with underscore": a_document(endpoint="http://my_agent:80"),
    "long endpoint": a_document(endpoint="http://a/" + "x" * 2039),
    "name with emoji": a_document(name="Ägent 😀 42"),
    "long name": a_document(name="😀" * 253),
    "long namespace": a_document(namespace="a" * 63),
    "labels": a_document(labels={"app.kubernetes.io/name": "a_b.C-1", "x": "", "K" * 63: "v" * 63}),
    "long label prefix": a_document(labels={"p" * 253 + "/k": "v"}),
    "annotations": a_document(annotations={"Example.COM/Notes": "any text\n😀", "a": ""}),
    "annotations at the limit": a_document(annotations={"a": "x" * (256 * 1024 - 1)}),
    "three-part version": a_capability(version="1.2.3"),
    "one-part version": a_capability(version="2"),
    "leading zero in a version": a_capability(version="01.2"),
    "pre-release and build": a_capability(version="1.0.0-rc.1+build.2024-01-15"),
    "long number in a version": a_capability(version="1.0.dev20260101120000"),
    "v before a version": a_capability(version="v1.2"),
    "four-part version": a_capability(version="1.0.0.0"),
    "Python versions": a_document(
        capabilities=[
            {"name": version, "version": version}
            for version in (
                "1.0.0rc1",
                "1.0.dev4",
                "1.0.post1",
                "0.1.dev3+g12.d20260101",
                "2!1.0",
                "V1.0-Alpha_2",
                "1-1",
            )
        ]
    ),
    "every stability": a_document(
        capabilities=[
            {"name": word, "stability": word} for word in ("alpha", "beta", "experimental", "stable", "deprecated")
        ]
    ),
    "a hundred tags": a_capability(tags=["t"] * 100),
    "long description": a_capability(description="x" * 10_000),
    "a thousand capabilities": a_document(capabilities=[f"c{number}" for number in range(1_000)]),
    "dependencies": a_document(dependencies=["x", {"capability": "y", "version": ">=1.0", "rank": [1]}]),
    "dependencies of a capability": a_capability(dependencies=["x", {"capability": "y"}]),
    "durations as text": a_document(health_interval="30", timeout_threshold="1.5m", eviction_threshold="1h30m"),
    "durations": a_document(health_interval=1, timeout_threshold=0.5, eviction_threshold=31_536_000),
    "every optional field null": a_document(
        **dict.fromkeys(set(RegistrationSchema.__struct_fields__) - {"id", "endpoint"})
    ),
    "every optional capability field null": a_capability(
        **dict.fromkeys(set(CapabilitySchema.__struct_fields__) - {"name"})
    ),
    "unknown fields": a_document(__proto__={"x": None}, constructor=[1, None], **{"": "", "😀": True}),
    "long text in an unknown field": a_document(note="x" * 1_000_000),
    "fields of the registry": a_document(status=7, last_heartbeat=[], created_at={}, updated_at="x", draining=0),
    "resource version": a_document(resource_version="1635789123456"),
    "resource version that is no number": a_document(resource_version="new"),
}

REJECTED: dict[str, tuple[object, str]] = {
    "no object": ([1], "body"),
    "null": (None, "body"),
    "no id": ({"endpoint": "http://a"}, "id"),
    "null id": (a_document(id=None), "id"),
    "no endpoint": ({"id": "a"}, "endpoint"),
    "null endpoint": (a_document(endpoint=None), "endpoint"),
    "two ids": (a_document(agent_id="b"), "agent_id"),
    "empty id": (a_document(id=""), "id"),
    "long id": (a_document(id="x" * 254), "id"),
    "id with a blank": (a_document(id="a b"), "id"),
    "id with a slash": (a_document(id="a/b"), "id"),
    "id with a line break at the end": (a_document(id="a\n"), "id"),
    "id with a letter beyond ASCII": (a_document(id="ä"), "id"),
    "numeric id": (a_document(id=7), "id"),
    "empty endpoint": (a_document(endpoint=""), "endpoint"),
    "no scheme": (a_document(endpoint="a:8080"), "endpoint"),
    "other scheme": (a_document(endpoint="ftp://a"), "endpoint"),
    "scheme alone": (a_document(endpoint="http://"), "endpoint"),
    "no host": (a_document(endpoint="http:///mcp"), "endpoint"),
    "no host before a port": (a_document(endpoint="http://:80"), "endpoint"),
    "no host after a user": (a_document(endpoint="http://user@/"), "endpoint"),
    "user": (a_document(endpoint="http://user@a:1/"), "endpoint"),
    "user and password": (a_document(endpoint="http://user:secret@a:1/"), "endpoint"),
    "user and password of IPv6": (a_document(endpoint="http://user:secret@[::1]:1/"), "endpoint"),
    "no port after its colon": (a_document(endpoint="http://a:"), "endpoint"),
    "port 0": (a_document(endpoint="http://a:0"), "endpoint"),
    "port 65536": (a_document(endpoint="http://a:65536"), "endpoint"),
    "port in words": (a_document(endpoint="http://a:http"), "endpoint"),
    "negative port": (a_document(endpoint="http://a:-1"), "endpoint"),
    "blank in an endpoint": (a_document(endpoint="http://a/x y"), "endpoint"),
    "blank around an endpoint": (a_document(endpoint=" http://a"), "endpoint"),
    "control character in an endpoint": (a_document(endpoint="http://a/\x00"), "endpoint"),
    "line break after an endpoint": (a_document(endpoint="http://a\n"), "endpoint"),
    "unfilled template": (a_document(endpoint="http://{host}:80"), "endpoint"),
    "backslash in a host": (a_document(endpoint="http://a\\@b"), "endpoint"),
    "IPv6 without brackets": (a_document(endpoint="http://::1/"), "endpoint"),
    "bracket not closed": (a_document(endpoint="http://[::1"), "endpoint"),
    "no IPv6 between brackets": (a_document(endpoint="http://[:::::]"), "endpoint"),
    "long endpoint": (a_document(endpoint="http://a/" + "x" * 2040), "endpoint"),
    "endless endpoint": (a_document(endpoint="http://" + "y" * 1_000_000 + "@"), "endpoint"),
    "empty name": (a_document(name=""), "name"),
    "long name": (a_document(name="x" * 254), "name"),
    "control character in a name": (a_document(name="a\x1b[31m"), "name"),
    "line break in a name": (a_document(name="a\n"), "name"),
    "namespace in capitals": (a_document(namespace="System"), "namespace"),
    "namespace with a dot": (a_document(namespace="a.b"), "namespace"),
    "namespace with a hyphen at its end": (a_document(namespace="a-"), "namespace"),
    "long namespace": (a_document(namespace="a" * 64), "namespace"),
    "agent type with a blank": (a_document(agent_type="file agent"), "agent_type"),
    "agent type with a no-break space": (a_document(agent_type="file\u00a0agent"), "agent_type"),
    "empty security context": (a_document(security_context=""), "security_context"),
    "labels in a list": (a_document(labels=["a"]), "labels"),
    "label key": (a_document(labels={"bad key!": "x"}), 'labels["bad key!"]'),
    "empty label key": (a_document(labels={"": "x"}), 'labels[""]'),
    "label key of nonsense": (a_document(labels={"__proto__": "x"}), "labels.__proto__"),
    "label prefix in capitals": (a_document(labels={"A/b": "x"}), 'labels["A/b"]'),
    "two slashes in a label key": (a_document(labels={"a/b/c": "x"}), 'labels["a/b/c"]'),
    "long label prefix": (a_document(labels={"p" * 254 + "/k": "x"}), 'labels["' + "p" * 60 + '"…]'),
    "long label key": (a_document(labels={"k" * 64: "x"}), 'labels["' + "k" * 60 + '"…]'),
    "label value": (a_document(labels={"env": "a b"}), "labels.env"),
    "long label value": (a_document(labels={"env": "x" * 64}), "labels.env"),
    "null label value": (a_document(labels={"env": None}), "labels.env"),
    "annotation key": (a_document(annotations={"-": "x"}), 'annotations["-"]'),
    "annotation value": (a_document(annotations={"a": 1}), "annotations.a"),
    "a capability called as the whole agent is": (
        a_document(capabilities=[{"name": "*", "dependencies": ["x"]}], dependencies=["y"]),
        "capabilities[0].name",
    ),
    "too many dependencies in all": (
        a_document(
            capabilities=[{"name": f"c{n}", "dependencies": ["x"] * 1000} for n in range(10)], dependencies=["x"]
        ),
        "capabilities[9].dependencies",
    ),
    "too many annotations": (a_document(annotations={"a": "x" * 256 * 1024}), "annotations"),
    "annotations count bytes": (a_document(annotations={"a": "😀" * 64 * 1024}), "annotations"),
    "capabilities in an object": (a_document(capabilities={"name": "x"}), "capabilities"),
    "capability null": (a_document(capabilities=["a", None]), "capabilities[1]"),
    "capability with a blank": (a_document(capabilities=["a b"]), "capabilities[0]"),
    "capability without a name": (a_document(capabilities=[{}]), "capabilities[0].name"),
    "capability with a null name": (a_capability(name=None), "capabilities[0].name"),
    "capability twice": (a_document(capabilities=["c", "d", "c"]), "capabilities[2]"),
    "capability twice in two forms": (a_document(capabilities=["c", {"name": "c"}]), "capabilities[1].name"),
    "1,001 capabilities": (a_document(capabilities=["c"] * 1_001), "capabilities"),
    "long description": (a_capability(description="x" * 10_001), "capabilities[0].description"),
    "category with a tab": (a_capability(category="a\tb"), "capabilities[0].category"),
    "empty tag": (a_capability(tags=["a", ""]), "capabilities[0].tags[1]"),
    "tags in a string": (a_capability(tags="a,b"), "capabilities[0].tags"),
    "101 tags": (a_capability(tags=["t"] * 101), "capabilities[0].tags"),
    "four parts and a semver pre-release": (a_capability(version="1.0.0.0-x"), "capabilities[0].version"),
    "x in a version": (a_capability(version="1.2.x"), "capabilities[0].version"),
    "two v before a version": (a_capability(version="vv1.2"), "capabilities[0].version"),
    "long version": (a_capability(version="1" * 254), "capabilities[0].version"),
    "empty pre-release": (a_capability(version="1.0.0-"), "capabilities[0].version"),
    "line break after a version": (a_capability(version="1.0.0\n"), "capabilities[0].version"),
    "numeric version": (a_capability(version=1.0), "capabilities[0].version"),
    "unknown stability": (a_capability(stability="Stable"), "capabilities[0].stability"),
    "stability in a list": (a_capability(stability=["stable"]), "capabilities[0].stability"),
    "input schema in a string": (a_capability(input_schema="{}"), "capabilities[0].input_schema"),
    "dependencies in a string": (a_document(dependencies="x"), "dependencies"),
    "numeric dependency": (a_document(dependencies=["x", 1]), "dependencies[1]"),
    "dependency without capability": (a_document(dependencies=[{"name": "x"}]), "dependencies[0].capability"),
    "dependency of a capability": (a_capability(dependencies=[[]]), "capabilities[0].dependencies[0]"),
    "1,001 dependencies": (a_document(dependencies=["x"] * 1_001), "dependencies"),
    "duration 0": (a_document(health_interval=0), "health_interval"),
    "negative duration": (a_document(timeout_threshold=-0.1), "timeout_threshold"),
    "more than a year": (a_document(eviction_threshold=31_536_000.5), "eviction_threshold"),
    "truth as a duration": (a_document(health_interval=True), "health_interval"),
    "text that is no duration": (a_document(health_interval="soon"), "health_interval"),
    "text of no duration": (a_document(health_interval="0s"), "health_interval"),
    "text of more than a year": (a_document(eviction_threshold="366d"), "eviction_threshold"),
    "eviction text before timeout": (a_document(timeout_threshold="1m", eviction_threshold=30), "eviction_threshold"),
    "integer beyond a double": (a_document(health_interval=2**64 - 1), "health_interval"),
    "eviction before timeout": (
        a_document(timeout_threshold=60, eviction_threshold=30.0),
        "eviction_threshold",
    ),
    "eviction at timeout": (a_document(timeout_threshold=60, eviction_threshold=60.0), "eviction_threshold"),
    "metadata in a list": (a_document(metadata=[]), "metadata"),
    "truth as a resource version": (a_document(resource_version=True), "resource_version"),
    "fraction as a resource version": (a_document(resource_version=1.5), "resource_version"),
    "negative resource version": (a_document(resource_version=-1), "resource_version"),
    "integer beyond 64 bits": (a_document(note={"n": [2**64]}), "note.n[0]"),
}


@pytest.mark.parametrize("document", ACCEPTED.values(), ids=ACCEPTED)
def test_a_valid_registration_is_accepted_unchanged(document: dict[str, Any]) -> None:
    """Each row satisfies every rule; parsing does not modify the document."""
    before = json.dumps(document)

    registration = parse_registration(document)

    assert registration.agent_id == document.get("id", document.get("agent_id"))
    assert json.dumps(document) == before


@pytest.mark.parametrize(("document", "field"), REJECTED.values(), ids=REJECTED)
def test_an_invalid_field_is_the_only_one_reported(document: object, field: str) -> None:
    """Each row violates one rule; the error names the path of the field."""
    assert list(problems_of(document)) == [field]


def test_a_registration_contains_the_fields_of_the_store() -> None:
    """The document is the example of the README plus all other fields that the store reads."""
    document = README_BODY | {"resource_version": 12, "timeout_threshold": 60, "eviction_threshold": 90}

    registration = parse_registration(document)

    assert registration == Registration(
        agent_id="file-agent-001",
        name="File Operations Agent",
        namespace="system",
        endpoint="http://localhost:8001/mcp",
        agent_type="file_agent",
        spec=registration.spec,
        capabilities=("read_file",),
        security_context="standard",
        health_interval=30.0,
        timeout_threshold=60.0,
        eviction_threshold=90.0,
        resource_version="12",
    )


def test_an_absent_field_has_its_default_but_not_in_the_spec() -> None:
    """A new default in a later release must not look like a change of the agent."""
    registration = parse_registration({"agent_id": "a", "endpoint": "http://a"})

    assert registration == Registration(
        agent_id="a",
        name="a",
        namespace="default",
        endpoint="http://a",
        agent_type="default",
        spec=b'{"endpoint":"http://a","id":"a"}',
        capabilities=(),
        security_context="standard",
        health_interval=None,
        timeout_threshold=None,
        eviction_threshold=None,
        resource_version=None,
    )


CANONICAL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "agent_id becomes id": ({"agent_id": "a", "endpoint": "http://a:1"}, a_document()),
    "both ids become one": (a_document(agent_id="a"), a_document()),
    "null is absent": (a_document(name=None, labels=None, agent_id=None), a_document()),
    "null is absent in a capability": (a_capability(version=None, tags=None), a_capability()),
    "a name is a capability": (a_document(capabilities=["c"]), a_capability()),
    "a name is a dependency": (a_document(dependencies=["d"]), a_document(dependencies=[{"capability": "d"}])),
    "a name is a dependency of a capability": (
        a_capability(dependencies=["d"]),
        a_capability(dependencies=[{"capability": "d"}]),
    ),
    "a duration as text is seconds": (
        a_document(health_interval="30s", timeout_threshold="1m", eviction_threshold="90.5"),
        a_document(health_interval=30, timeout_threshold=60, eviction_threshold=90.5),
    ),
    "what the registry owns is dropped": (
        a_document(status="healthy", last_heartbeat=1, created_at=1, updated_at=1, resource_version=1, draining=True)
        | {"exclusive": True},
        a_document(),
    ),
}


@pytest.mark.parametrize(("sent", "meant"), CANONICAL.values(), ids=CANONICAL)
def test_equivalent_requests_have_the_same_spec(sent: dict[str, Any], meant: dict[str, Any]) -> None:
    """An unchanged agent that registers again must not look like a change."""
    assert parse_registration(sent).spec == json.dumps(meant, sort_keys=True, separators=(",", ":")).encode()


def test_unknown_fields_are_stored_at_any_depth_with_their_nulls() -> None:
    """Nested fields with the names of known fields are stored unchanged too."""
    document = a_capability(note=None, x={"status": None, "b": [{"z": 1, "a": None}]})

    spec = json.loads(parse_registration(document | {"y": None}).spec)

    assert spec == document | {"y": None}


def test_all_invalid_fields_are_in_one_response() -> None:
    """Errors of single fields come first, in the order of the schema, then errors between fields."""
    document = {
        "id": "a b",
        "agent_id": "c",
        "namespace": "A",
        "labels": {"bad key!": "x", "env": 5},
        "capabilities": ["ok", {"version": "1.x", "tags": [""]}, "ok", 4],
        "timeout_threshold": 2,
        "eviction_threshold": 1,
    }

    problems = problems_of(document, "registration_data.")

    assert list(problems) == [
        "registration_data.id",
        "registration_data.namespace",
        "registration_data.endpoint",
        "registration_data.capabilities[1].name",
        "registration_data.capabilities[1].version",
        "registration_data.capabilities[1].tags[0]",
        "registration_data.capabilities[3]",
        'registration_data.labels["bad key!"]',
        "registration_data.labels.env",
        "registration_data.agent_id",
        "registration_data.capabilities[2]",
        "registration_data.eviction_threshold",
    ]
    assert problems["registration_data.labels.env"].endswith(", not 5; quote it")


@pytest.mark.parametrize(("path", "field"), {"": "body", "registration_data.": "registration_data"}.items())
def test_an_error_of_a_document_that_is_not_an_object_names_its_path(path: str, field: str) -> None:
    """There is no field to name."""
    assert problems_of([], path) == {field: "must be an object, not a list of length 0"}


@pytest.mark.parametrize("value", [1.1, 2, True])
def test_a_number_in_place_of_a_text_is_to_be_quoted(value: object) -> None:
    """YAML reads `version: 1.10` as the number 1.1."""
    problems = problems_of(a_document(capabilities=[{"name": "c", "version": value}], labels={"k": value}))

    assert all(problem.endswith("; quote it") for problem in problems.values())
    assert list(problems) == ["capabilities[0].version", "labels.k"]


def test_a_list_in_place_of_a_text_is_not_to_be_quoted() -> None:
    """Quotes do not help there."""
    assert problems_of(a_capability(version=[1]))["capabilities[0].version"].endswith("not a list of length 1")


SHOWN: dict[str, tuple[Any, str]] = {
    "text": ("a\n😀", '"a\\n😀"'),
    "long text": ("!" * 300, '"' + "!" * 60 + '"… (300 characters)'),
    "number": (-1.5, "-1.5"),
    "null": (None, "null"),
    "truth": (False, "false"),
    "list": ([[]], "a list of length 1"),
    "object": ({"a": 1, "b": 2}, "an object of size 2"),
    "endless number": (10**5000, "a much longer number"),
}


@pytest.mark.parametrize(("value", "text"), SHOWN.values(), ids=SHOWN)
def test_a_problem_shows_the_value_sent(value: object, text: str) -> None:
    """The expected value comes first, then the value sent, shortened."""
    problem = problems_of(a_document(endpoint=value))["endpoint"]

    assert problem.startswith("must be an http or https URL with a host")
    assert problem.removesuffix("; quote it").endswith(f", not {text}")


def test_twenty_thousand_capabilities_are_rejected_with_one_problem() -> None:
    """The elements of a list that is too long are not checked."""
    document = decode_json_body(json.dumps(a_document(capabilities=[{"name": "!"}] * 20_000)).encode())

    problems = problems_of(document)

    assert problems == {"capabilities": "must be a list of at most 1,000 capabilities, not a list of length 20,000"}


def test_at_most_a_hundred_problems_are_listed() -> None:
    """One more line counts the rest."""
    with pytest.raises(UnprocessableRequest) as error:
        parse_registration(a_document(labels={f"!{number}": "x" for number in range(400)}), "agents[7].")

    details = error.value.details
    assert len(details) == 101
    assert (details[-1].field, details[-1].problem) == ("agents[7]", "… and 300 more")


def test_the_schema_has_every_field_and_no_references() -> None:
    """It is embedded in the list of tools and in the OpenAPI document."""
    schema = registration_schema()

    assert json.loads(json.dumps(schema)) == schema
    assert schema["type"] == "object"
    assert schema["anyOf"] == [{"required": ["id"]}, {"required": ["agent_id"]}]
    assert [set(alternative["required"]) for alternative in schema["allOf"][0]["anyOf"]] == [{"endpoint"}, {"metadata"}]
    assert set(schema["properties"]) == set(RegistrationSchema.__struct_fields__)
    assert "$ref" not in json.dumps(schema)
    assert schema["properties"]["endpoint"]["maxLength"] == 2048


def test_every_pattern_rejects_a_line_break_at_the_end() -> None:
    """Python's `$` alone would accept one."""
    patterns = re.findall(r'"pattern": "(.*?)"[,}]', json.dumps(registration_schema()))

    assert len(patterns) > 15
    assert all(pattern.startswith("^") and pattern.endswith(r"(?!\\n)$") for pattern in patterns)


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)
near_values = st.sampled_from(["a", "a\n", "", "1.0", "1.x", "stable", "http://a", 1, 0, 1.0, 31_536_000, [], {}])
texts = st.text() | st.sampled_from(["a", "a/b", "é", "name", "capability"])
values = json_values | near_values | st.lists(near_values, max_size=3) | st.dictionaries(texts, near_values, max_size=3)
capabilities = st.dictionaries(st.sampled_from((*CapabilitySchema.__struct_fields__, "other")), values, max_size=4)
documents = st.dictionaries(
    st.sampled_from((*RegistrationSchema.__struct_fields__, "status", "other")),
    values | st.lists(capabilities | values, max_size=3),
    max_size=4,
)


def reversed_keys(value: Any) -> Any:
    """Reverse the order of all keys, at every depth."""
    if isinstance(value, dict):
        return {key: reversed_keys(value[key]) for key in reversed(value)}
    return [reversed_keys(each) for each in value] if isinstance(value, list) else value


def assert_canonical(document: dict[str, Any], registration: Registration) -> None:
    """Assert that the spec is the same when it is parsed again or sent with its keys in another order."""
    assert parse_registration(decode_json_body(registration.spec)).spec == registration.spec
    assert parse_registration(reversed_keys(document)).spec == registration.spec


@given(documents)
def test_any_value_in_any_field_is_accepted_or_rejected_by_name(fields: dict[str, Any]) -> None:
    """Every value ends in a registration or in an error that names only the fields that were set."""
    document = {"id": "a", "endpoint": "http://a"} | fields

    try:
        registration = parse_registration(document)
    except UnprocessableRequest as error:
        named = {re.split(r"[.\[]", detail.field)[0] for detail in error.details}
        assert named
        assert named <= set(fields) | {"id"}
    else:
        assert_canonical(document, registration)


@given(st.dictionaries(st.text().map("x-{}".format), json_values))
def test_unknown_fields_of_any_kind_are_canonical(unknown: dict[str, Any]) -> None:
    """Any JSON is stored unchanged, in one canonical form."""
    document = a_capability(**unknown, input_schema=unknown) | unknown | {"metadata": unknown}

    registration = parse_registration(document)

    assert json.loads(registration.spec) == document
    assert_canonical(document, registration)


@given(documents | values)
def test_the_detailed_check_finds_violations_exactly_if_the_fast_check_rejects(document: object) -> None:
    """Both checks read the rules from one definition."""
    try:
        msgspec.convert(document, RegistrationSchema)
    except msgspec.ValidationError:
        accepted = False
    else:
        accepted = True

    found = list(validator_for(RegistrationSchema).find_violations(document))

    assert (found == []) is accepted
