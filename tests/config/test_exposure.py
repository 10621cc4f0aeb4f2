"""The start rule: a registry that other machines reach requires a credential, or REGISTRY_OPEN."""

import re
from collections.abc import Mapping

import pytest

from registry.config.env import load_settings
from registry.config.exposure import CREDENTIALS, find_insecurities, find_missing_credential
from registry.config.settings import SETTINGS
from registry.errors import StartupError
from tests.test_readme import ROOT

LOOPBACK = ["127.0.0.1", "127.8.8.8", "::1", "localhost"]
OTHERS = ["0.0.0.0", "::", "10.0.0.7", "registry.example"]  # noqa: S104 - nothing is bound
TOKEN = "0123456789abcdef"  # noqa: S105 - of the minimum length
SHORT_TOKEN, BLANK = "t", " "
# The value of a token in a configuration, a manifest or a call.
PRINTED_TOKEN = re.compile(r"""(?:AUTH_TOKEN(?:=|": |: )|authToken: |[Bb]earer )["']?([\w-]+)""")


def check(**environ: str) -> None:
    """Load the settings of a process that listens. Raises StartupError."""
    load_settings(environ, [find_missing_credential])


def insecurities(**environ: str) -> Mapping[str, str]:
    """Return the reasons and warnings of a registry with these settings."""
    return find_insecurities(load_settings(environ)[0])


@pytest.mark.parametrize("host", LOOPBACK)
def test_listening_on_loopback_requires_no_credential(host: str) -> None:
    """No other machine can reach such an address, so a short token is no problem either."""
    check(REGISTRY_HOST=host)

    assert insecurities(REGISTRY_HOST=host) == {}
    assert insecurities(REGISTRY_HOST=host, REGISTRY_OPEN="true", AUTH_TOKEN=SHORT_TOKEN) == {}


@pytest.mark.parametrize("host", OTHERS)
def test_t21_a_registry_that_strangers_reach_does_not_start_without_a_credential(host: str) -> None:
    """The message names every setting that would help."""
    with pytest.raises(StartupError) as failed:
        check(REGISTRY_HOST=host)

    message = str(failed.value)
    assert f"Other machines may reach {host}, and no credential is required" in message
    for name in ("REGISTRY_OPEN=true", "REGISTRY_HOST=127.0.0.1", *(SETTINGS[each].env for each in CREDENTIALS)):
        assert name in message
    check(REGISTRY_HOST=host, AUTH_TOKEN=SHORT_TOKEN)
    check(REGISTRY_HOST=host, REGISTRY_OPEN="true")


def test_a_missing_credential_is_reported_with_all_other_problems() -> None:
    """But not if a credential is invalid, which has a problem of its own."""
    with pytest.raises(StartupError) as failed:
        check(REGISTRY_HOST="::", REGISTRY_PORT="http", AGENT_TIMEOUT="soon")
    for name in ("REGISTRY_PORT is", "AGENT_TIMEOUT is", "set AUTH_TOKEN"):
        assert name in str(failed.value)

    with pytest.raises(StartupError, match="AUTH_TOKEN is") as failed:
        check(REGISTRY_HOST="::", AUTH_TOKEN=BLANK)
    assert "no credential" not in str(failed.value)


def test_a_command_that_does_not_listen_requires_no_credential() -> None:
    """A backup in the same environment as a replica works without the token."""
    assert load_settings({"REGISTRY_HOST": "0.0.0.0"})[1] == ()  # noqa: S104 - nothing is bound


def test_t21_an_open_registry_has_a_warning() -> None:
    """With a credential REGISTRY_OPEN has no effect."""
    found = insecurities(REGISTRY_HOST="::", REGISTRY_OPEN="true")

    assert found.keys() == {"open"}
    assert "set AUTH_TOKEN" in found["open"]
    assert insecurities(REGISTRY_HOST="::", REGISTRY_OPEN="true", AUTH_TOKEN=TOKEN) == {}


@pytest.mark.parametrize("token", [SHORT_TOKEN, TOKEN[:-1], "dev-token-change-in-production"])
def test_t21_a_token_that_strangers_know_or_guess_has_a_warning(token: str) -> None:
    """A token of 15 bytes, and one from a guide; the warning does not show it."""
    found = insecurities(REGISTRY_HOST="::", AUTH_TOKEN=token)

    assert found.keys() == {"sample_token"}
    assert "openssl rand" in found["sample_token"]
    assert token not in found["sample_token"].split()


def test_every_token_printed_in_the_documents_has_a_warning() -> None:
    """In README, docs, deploy, examples and the guides."""
    paths = [ROOT / "README.md", ROOT / "compose.yaml"]
    paths += [path for name in ("docs", "deploy", "examples", "tests/seeds") for path in (ROOT / name).rglob("*")]
    kinds = {".md", ".yaml", ".yml", ".py", ".sh", ".cfg", ".txt"}
    printed = {
        token
        for path in paths
        if path.suffix in kinds
        for token in PRINTED_TOKEN.findall(path.read_text(encoding="utf-8"))
    }

    assert {"change-me", "dev-token-change-in-production"} <= printed
    for token in printed:
        assert insecurities(REGISTRY_HOST="::", AUTH_TOKEN=token).keys() == {"sample_token"}, token
