"""Where the registry is, and how a client behaves: read once, and refused by name where it is wrong."""

import dataclasses
from typing import Any

import pytest
from mcp_mesh_client import InvalidData, RegistryClient
from mcp_mesh_client.config import TOKEN_ENV, URL_ENV, ClientConfig, ClientOptions, load_config


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ("http://a:1", ("http://a:1",)),
        ("http://a:1/", ("http://a:1",)),
        ("http://a:1, https://b,", ("http://a:1", "https://b")),
        (["http://a:1", "http://b:2,http://a:1"], ("http://a:1", "http://b:2")),
        ("https://gate/registry/", ("https://gate/registry",)),
        ("http://[::1]:8000", ("http://[::1]:8000",)),
    ],
)
def test_one_url_several_or_a_list(given: Any, urls: tuple[str, ...]) -> None:
    """Joined by commas or in a list, each once."""
    assert load_config(given, None).urls == urls


@pytest.mark.parametrize(
    "wrong", ["", ",", [], "localhost:8000", "ftp://a", "http://", "http://a:99999", "http://u:p@a", "http://a?x=1"]
)
def test_what_is_no_url_is_refused(wrong: Any) -> None:
    """By the name of the parameter."""
    with pytest.raises(ValueError, match=r"^url: expected") as refused:
        RegistryClient(wrong)

    assert isinstance(refused.value, InvalidData)
    assert refused.value.field == "url"


def test_the_environment_says_what_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given values go before it; without either it is the port the registry has by default."""
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
    """Neither by the client nor by what it is made of."""
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
        ("watch_idle_timeout", "35"),
    ],
)
def test_an_option_that_cannot_be_is_refused_by_its_name(name: str, value: Any) -> None:
    """Before any call."""
    options: Any = {name: value}
    with pytest.raises(ValueError, match=f"^{name}: "):
        RegistryClient("http://a:1", **options)


@pytest.mark.parametrize("token", ["two words", "Größe", "line\nbreak"])
def test_a_token_that_no_header_can_hold_is_refused(token: str) -> None:
    """It would be refused by the HTTP library much later, or cut a header in two."""
    with pytest.raises(ValueError, match=r"^token: "):
        RegistryClient("http://a:1", token=token)


def test_the_options_are_those_that_are_read() -> None:
    """No more and no fewer."""
    fields = {field.name for field in dataclasses.fields(ClientConfig)}

    assert set(ClientOptions.__annotations__) == fields - {"urls", "token"}
