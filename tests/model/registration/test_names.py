"""Names in registrations: each format is checked, each field by its rule, and no secret is repeated in an error."""

from typing import Any

import pytest

from registry.compat.mcpmesh.registration import parse_mcpmesh_registration
from registry.errors import UnprocessableRequest
from registry.model.registration.parse import parse_registration

BIDI, MIXED = "pay\u202e", "p\u0430y"
PERSIAN = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645"


def native(**fields: Any) -> dict[str, Any]:
    """Return a registration in the native format with one capability that has these fields."""
    return {"id": "a", "endpoint": "http://a:1", "capabilities": [{"name": "c"} | fields]}


def tools_format(**fields: Any) -> dict[str, Any]:
    """Return a registration in the tools format with one tool that has these fields."""
    tool = {"function_name": "f", "capability": "c"} | fields
    return {"agent_id": "a", "metadata": {"endpoint": "http://a:1", "tools": [tool]}}


def mcpmesh_format(**fields: Any) -> dict[str, Any]:
    """Return a registration in the mcp-mesh format with one tool that has these fields."""
    tool = {"function_name": "f", "capability": "c"} | fields
    return {"agent_id": "a", "agent_type": "mcp_agent", "http_host": "a", "http_port": 1, "tools": [tool]}


def problems_of(document: dict[str, Any]) -> dict[str, str]:
    """Return the problems of an invalid registration by field."""
    parse = parse_mcpmesh_registration if "http_host" in document else parse_registration
    with pytest.raises(UnprocessableRequest) as error:
        parse(document)
    return {detail.field: detail.problem for detail in error.value.details}


INVISIBLE: dict[str, dict[str, Any]] = {
    "name": native() | {"name": BIDI},
    "agent_type": native() | {"agent_type": BIDI},
    "dependencies[0]": native() | {"dependencies": [BIDI]},
    "dependencies[0].capability": native() | {"dependencies": [{"capability": BIDI}]},
    "capabilities[0]": native() | {"capabilities": [BIDI, "b"]},
    "capabilities[0].name": native(name=BIDI),
    "capabilities[0].function_name": native(function_name=BIDI),
    "capabilities[0].category": native(category=BIDI),
    "capabilities[0].tags[1]": native(tags=["a", BIDI]),
    "capabilities[0].dependencies[0].tags[1][0]": native(
        dependencies=[{"capability": "d", "tags": ["a", [f"+{BIDI}", "b"]]}]
    ),
    "metadata.tools[0].function_name": tools_format(function_name=BIDI),
    "metadata.tools[0].capability": tools_format(capability=BIDI),
    "metadata.tools[0].tags[0]": tools_format(tags=[BIDI]),
    "tools[0].function_name": mcpmesh_format(function_name=BIDI, capability=""),
    "tools[0].capability": mcpmesh_format(capability=BIDI),
    "tools[0].tags[0]": mcpmesh_format(tags=[BIDI]),
    "tools[0].dependencies[0].tags[0][0]": mcpmesh_format(dependencies=[{"capability": "d", "tags": [[BIDI]]}]),
}


@pytest.mark.parametrize(("field", "document"), INVISIBLE.items(), ids=INVISIBLE)
def test_a_name_with_a_bidi_mark_is_rejected(field: str, document: dict[str, Any]) -> None:
    """T19: it would be displayed as another name."""
    assert problems_of(document) == {
        field: "must not contain U+202E RIGHT-TO-LEFT OVERRIDE, which is invisible",
    }


ONE_SCRIPT: dict[str, dict[str, Any]] = {
    "capabilities[0].name": native(name=MIXED),
    "capabilities[0].tags[0]": native(tags=[MIXED]),
    "capabilities[0].dependencies[0]": native(dependencies=[MIXED]),
    "metadata.tools[0].capability": tools_format(capability=MIXED),
    "tools[0].capability": mcpmesh_format(capability=MIXED),
}


@pytest.mark.parametrize(("field", "document"), ONE_SCRIPT.items(), ids=ONE_SCRIPT)
def test_a_capability_like_another_one_in_mixed_scripts_is_rejected(field: str, document: dict[str, Any]) -> None:
    """T19: `pay` with a Cyrillic letter looks like `pay`."""
    assert problems_of(document) == {
        field: "must not mix Latin letters with U+0430 CYRILLIC SMALL LETTER A, which can look alike",
    }


def test_mixed_scripts_in_the_name_of_an_agent_cause_a_warning() -> None:
    """People read it, and nothing is found by it alone."""
    document = native(function_name="get_погода", category="io_погода") | {"name": "Погода Berlin"}
    (warning,) = parse_registration(document, "agents[3].").warnings

    assert warning.field == "agents[3].name"
    assert warning.problem == "mixes Cyrillic letters with U+0042 LATIN CAPITAL LETTER B, which can look alike"


@pytest.mark.parametrize(
    "document",
    [
        native(name=PERSIAN, tags=[PERSIAN, "日本語", "⚙\ufe0f"], category="Größe", function_name="погода"),
        native(description="p\u0430y\u200b") | {"name": "Ägent 😀"},
        native() | {"annotations": {"note": BIDI}, "metadata": {"name": BIDI}},
        tools_format(capability=PERSIAN),
        mcpmesh_format(capability=PERSIAN, description="p\u0430y\u200b"),
    ],
)
def test_other_text_in_any_language_is_accepted(document: dict[str, Any]) -> None:
    """Descriptions and annotations are free text, and nothing is changed."""
    if "http_host" in document:
        assert parse_mcpmesh_registration(document).registration.warnings == ()
    else:
        assert parse_registration(document).warnings == ()


def test_invalid_names_and_other_errors_are_reported_at_once() -> None:
    """One response has all of them."""
    assert list(problems_of(native(name=BIDI, tags=[MIXED, ""]))) == [
        "capabilities[0].tags[1]",
        "capabilities[0].name",
        "capabilities[0].tags[0]",
    ]
    assert list(problems_of(mcpmesh_format(capability=BIDI) | {"namespace": "NS"})) == [
        "namespace",
        "tools[0].capability",
    ]


SECRET = "s3cret"  # noqa: S105 - of an endpoint in a test
WITH_SECRET = [
    f"http://user:{SECRET}@host/",
    f"https://{SECRET}@host",
    f"http://user:{SECRET}@[::1]:80/mcp",
    f"http://user:{SECRET * 100}@host/",
    f"http://user:a@{SECRET}/@host",
    f"user:{SECRET}@host",
    f"ftp://user:{SECRET} 2@host",
]


@pytest.mark.parametrize("endpoint", WITH_SECRET)
def test_a_password_in_an_endpoint_is_rejected_and_not_repeated(endpoint: str) -> None:
    """T23: every caller can read the endpoint."""
    for document in (native() | {"endpoint": endpoint}, tools_format() | {"metadata": {"endpoint": endpoint}}):
        ((field, problem),) = problems_of(document).items()

        assert field in ("endpoint", "metadata.endpoint")
        assert "without user or password" in problem
        assert '"***@' in problem
        assert SECRET not in problem
    conflict = native() | {"metadata": {"endpoint": "http://b", "tools": []}, "capabilities": [], "endpoint": endpoint}
    assert SECRET not in str(problems_of(conflict))
