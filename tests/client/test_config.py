"""The URLs, the token and the options of a client are read once; a wrong value is rejected by name."""

import dataclasses
from typing import Any

import pytest
from mcp_mesh_client import InvalidData, RegistryClient
from mcp_mesh_client.config import TOKEN_ENV, URL_ENV, ClientConfig, ClientOptions, load_config


@pytest.mark.parametrize(
    ("urls_given", "urls"),
    [
        ("http://a:1", ("http://a:1",)),
        ("http://a:1/", ("http://a:1",)),
        ("http://a:1, https://b,", ("http://a:1", "https://b")),
        (["http://a:1", "http://b:2,http://a:1"], ("http://a:1", "http://b:2")),
        ("https://gate/registry/", ("https://gate/registry",)),
        ("http://[::1]:8000", ("http://[::1]:8000",)),
    ],
)
def test_several_urls_are_joined_by_commas_or_in_a_list(urls_given: Any, urls: tuple[str, ...]) -> None:
    """Duplicates are removed."""
    assert load_config(urls_given, None).urls == urls


@pytest.mark.parametrize(
    "wrong", ["", ",", [], "localhost:8000", "ftp://a", "http://", "http://a:99999", "http://u:p@a", "http://a?x=1"]
)
def test_a_wrong_url_is_rejected(wrong: Any) -> None:
    """The error names the parameter."""
    with pytest.raises(ValueError, match=r"^url: expected") as rejected:
        RegistryClient(wrong)

    assert isinstance(rejected.value, InvalidData)
    assert rejected.value.field == "url"


def test_the_environment_supplies_missing_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments take precedence; without either the URL is the default port of the registry."""
    monkeypatch.delenv(URL_ENV, raising=False)
    monkeypatch.delenv(TOKEN_ENV, raising=False)
    assert (load_config(None, None).urls, load_config(None, None).token) == (("http://localhost:8000",), None)

    monkeypatch.setenv(URL_ENV, "http://e:1,http://f:2")
    monkeypatch.setenv(TOKEN_ENV, "secret")
    assert (load_config(None, None).urls, load_config(None, None).token) == (("http://e:1", "http://f:2"), "secret")
    assert (load_config("http://g:3", "other").urls, load_config("http://g:3", "other").token) == (
        ("http://g:3",),
        "other",
    )


def test_a_token_is_not_shown() -> None:
    """Neither the client nor its configuration contains the token in its repr."""
    assert "sesame" not in repr(load_config("http://a:1", "sesame")) + repr(
        RegistryClient("http://a:1", token="sesame")  # noqa: S106  a test value
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timeout", 0),
        ("timeout", float("inf")),
        ("attempt_timeout", -1),
        ("max_rounds", 0),
        ("cache_ttl", -1),
        ("cache_size", True),
        ("max_backoff", 301),
        ("watch_idle_timeout", "soon"),
    ],
)
def test_an_option_outside_its_range_is_rejected_by_name(name: str, value: Any) -> None:
    """The constructor rejects it, before any call."""
    options: Any = {name: value}
    with pytest.raises(ValueError, match=f"^{name}: "):
        RegistryClient("http://a:1", **options)


@pytest.mark.parametrize("token", ["two words", "Größe", "line\nbreak"])
def test_a_token_that_is_no_header_value_is_rejected(token: str) -> None:
    """The HTTP library would reject it much later, or send two headers."""
    with pytest.raises(ValueError, match=r"^token: "):
        RegistryClient("http://a:1", token=token)


def test_the_options_are_the_fields_of_the_configuration() -> None:
    """There is no other option and no other field."""
    fields = {field.name for field in dataclasses.fields(ClientConfig)}

    assert set(ClientOptions.__annotations__) == fields - {"urls", "token"}
