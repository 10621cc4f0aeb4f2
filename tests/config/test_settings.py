"""Settings are read once, all errors are reported together, and secrets are never shown."""

import base64
import os
import re
import resource
import socket
from dataclasses import FrozenInstanceError, fields
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import platformdirs
import pytest

from registry.config.descriptors import default_connections
from registry.config.env import load_settings
from registry.config.settings import SETTINGS, Settings, user_data_dir
from registry.config.value_types import Secret, Thresholds, mask_url
from registry.errors import StartupError

KEY = "dev-key-32-bytes-change-in-prod!"
BUILT_IN = {
    "standard": frozenset[str](),
    "high_security": frozenset({"authentication", "authorization", "audit"}),
}


def error_message(environ: dict[str, str], **overrides: object) -> str:
    """Return the error message for invalid settings."""
    with pytest.raises(StartupError) as caught:
        load_settings(environ, **overrides)
    return str(caught.value)


def thresholds(timeout: float, eviction: float) -> Thresholds:
    """Return thresholds in seconds."""
    return Thresholds(timedelta(seconds=timeout), timedelta(seconds=eviction))


BAD_ORIGINS = [
    "*",
    "null",
    "https://a/",
    "https://a/b",
    "https://*.a",
    "a.example",
    "https://u@a",
    "https://a:port",
    "https://",
]
BAD_HOSTNAMES = ["*", "a:80", "https://a", "a.*", "a b", "*a.example", "a,*,b", "[fd00::1", ".a"]
BAD_URLS = [
    "registry.example",
    "ftp://a",
    "https://a?b",
    "https://a#b",
    "https://u:p@a",
    "https://",
    "https://a b",
    "https://*.a",
]
BY_TYPE = {"file_agent": thresholds(30, 90), "other": thresholds(10, 40)}
OWN = {"pci": frozenset({"encryption", "audit"}), "open": frozenset[str]()}
LOWERED = {"high_security": frozenset({"audit"})}


def test_without_any_variable_the_defaults_apply_without_a_warning() -> None:
    """A first run on a laptop requires no preparation."""
    settings, warnings = load_settings({})

    assert warnings == ()
    assert settings == Settings()
    assert {name: getattr(settings, name) for name in SETTINGS} == {
        "host": "127.0.0.1",
        "port": 8000,
        "metrics_port": None,
        "admin_port": None,
        "connections": None,
        "connections_per_address": None,
        "log_level": "info",
        "log_format": "auto",
        "redis_url": None,
        "redis_password_file": None,
        "write_acks": 0,
        "mesh": "mesh",
        "data_dir": None,
        "instance_id": f"{socket.gethostname()}-{os.getpid()}",
        "agent_timeout": timedelta(seconds=60),
        "thresholds": {},
        "retention": timedelta(hours=1),
        "self_preservation_share": 50,
        "self_preservation_min_agents": 10,
        "self_preservation_duration": timedelta(minutes=10),
        "watch_history": 20_000,
        "watch_history_bytes": 256 * 1024**2,
        "health_check_interval": timedelta(seconds=30),
        "leader_election": True,
        "lease_duration": timedelta(seconds=15),
        "renew_deadline": timedelta(seconds=10),
        "retry_period": timedelta(seconds=2),
        "shutdown_delay": timedelta(0),
        "origins": (),
        "hostnames": (),
        "public_url": None,
        "auth_token": None,
        "open": False,
        "encryption_key": None,
        "isolate_namespaces": True,
        "proxy": None,
        "proxy_networks": (),
        "propagate_headers": (),
        "security_contexts": BUILT_IN,
    }


def test_each_field_has_its_own_variable_and_a_description() -> None:
    """The table of settings in the README consists of them."""
    assert [*SETTINGS] == [field.name for field in fields(Settings)]
    assert len({setting.env for setting in SETTINGS.values()}) == len(SETTINGS)
    for setting in SETTINGS.values():
        assert re.fullmatch(r"[A-Z][A-Z_]+", setting.env)
        assert re.fullmatch(r"[A-Z][^\n]*[a-z)0-9]\.", setting.description)


@pytest.mark.parametrize(
    ("env", "text", "field", "value"),
    [
        ("REGISTRY_HOST", "localhost", "host", "localhost"),
        ("REGISTRY_HOST", "::1", "host", "::1"),
        ("REGISTRY_HOST", " 127.0.0.1\n", "host", "127.0.0.1"),
        ("REGISTRY_PORT", "0", "port", 0),
        ("REGISTRY_PORT", "65535", "port", 65535),
        ("METRICS_PORT", "9090", "metrics_port", 9090),
        ("REGISTRY_ADMIN_PORT", "8001", "admin_port", 8001),
        ("REGISTRY_CONNECTIONS", "100", "connections", 100),
        ("REGISTRY_CONNECTIONS_PER_ADDRESS", "5", "connections_per_address", 5),
        ("LOG_LEVEL", "WARN", "log_level", "warning"),
        ("LOG_LEVEL", "warning", "log_level", "warning"),
        ("LOG_LEVEL", "Debug", "log_level", "debug"),
        ("REGISTRY_LOG_FORMAT", "json", "log_format", "json"),
        ("REDIS_URL", "redis://db", "redis_url", "redis://db"),
        ("REDIS_URL", "redis://:p%40ss@db:6379/0", "redis_url", "redis://:p%40ss@db:6379/0"),
        ("REDIS_URL", "rediss://u:p@[::1]:6380/?ssl_check_hostname=no", "redis_url", "rediss://u:p@[::1]:6380/?ssl_check_hostname=no"),
        ("REDIS_URL", "redis+sentinel://:p@a:26379,b/svc/1", "redis_url", "redis+sentinel://:p@a:26379,b/svc/1"),
        ("REDIS_URL", "redis+cluster://a,[::1]:7001", "redis_url", "redis+cluster://a,[::1]:7001"),
        ("REGISTRY_REDIS_PASSWORD_FILE", "/run/secrets/redis", "redis_password_file", Path("/run/secrets/redis")),
        ("REGISTRY_WRITE_ACKS", "2", "write_acks", 2),
        ("REDIS_URL", "unix:///run/redis.sock?db=1", "redis_url", "unix:///run/redis.sock?db=1"),
        ("REDIS_URL", "unix://user:pw@/run/redis.sock", "redis_url", "unix://user:pw@/run/redis.sock"),
        ("REGISTRY_MESH", "team-a.prod_1", "mesh", "team-a.prod_1"),
        ("REGISTRY_DATA_DIR", "/data/mesh", "data_dir", Path("/data/mesh")),
        ("REGISTRY_DATA_DIR", "data", "data_dir", Path.cwd() / "data"),
        ("REGISTRY_DATA_DIR", "~/mesh", "data_dir", Path.home() / "mesh"),
        ("REGISTRY_INSTANCE_ID", "registry-0", "instance_id", "registry-0"),
        ("AGENT_TIMEOUT", "1m30s", "agent_timeout", timedelta(seconds=90)),
        ("REGISTRY_THRESHOLDS", "file_agent=30s/90s, other=10s/40s,", "thresholds", BY_TYPE),
        ("REGISTRY_RETENTION", "7d", "retention", timedelta(days=7)),
        ("REGISTRY_SELF_PRESERVATION_SHARE", "100%", "self_preservation_share", 100),
        ("REGISTRY_SELF_PRESERVATION_MIN_AGENTS", "3", "self_preservation_min_agents", 3),
        ("REGISTRY_SELF_PRESERVATION_DURATION", "90s", "self_preservation_duration", timedelta(seconds=90)),
        ("REGISTRY_WATCH_HISTORY", "100", "watch_history", 100),
        ("REGISTRY_WATCH_HISTORY", "10000000", "watch_history", 10_000_000),
        ("REGISTRY_WATCH_HISTORY_BYTES", "4194304", "watch_history_bytes", 4_194_304),
        ("REGISTRY_WATCH_HISTORY_BYTES", "68719476736", "watch_history_bytes", 64 * 1024**3),
        ("HEALTH_CHECK_INTERVAL", "500ms", "health_check_interval", timedelta(milliseconds=500)),
        ("REGISTRY_SHUTDOWN_DELAY", "5s", "shutdown_delay", timedelta(seconds=5)),
        ("REGISTRY_SHUTDOWN_DELAY", "0s", "shutdown_delay", timedelta(0)),
        ("ENABLE_LEADER_ELECTION", "False", "leader_election", False),
        ("ENABLE_LEADER_ELECTION", "OFF", "leader_election", False),
        ("ENABLE_LEADER_ELECTION", "no", "leader_election", False),
        ("ENABLE_LEADER_ELECTION", "0", "leader_election", False),
        ("ENABLE_LEADER_ELECTION", "yes", "leader_election", True),
        ("ENABLE_LEADER_ELECTION", "1", "leader_election", True),
        ("LEADER_ELECTION_LEASE_DURATION", "1m", "lease_duration", timedelta(minutes=1)),
        ("LEADER_ELECTION_RENEW_DEADLINE", "12s", "renew_deadline", timedelta(seconds=12)),
        ("LEADER_ELECTION_RETRY_PERIOD", "1s", "retry_period", timedelta(seconds=1)),
        ("REGISTRY_ORIGINS", "https://Tools.example, http://localhost:5173,", "origins", ("https://tools.example", "http://localhost:5173")),
        ("REGISTRY_ORIGINS", "https://a:443,http://a:80", "origins", ("https://a", "http://a")),
        ("REGISTRY_ORIGINS", "http://[::1]:3000,app://tools", "origins", ("http://[::1]:3000", "app://tools")),
        ("REGISTRY_HOSTNAMES", "Registry.a, *.svc,10.0.0.1", "hostnames", ("registry.a", "*.svc", "10.0.0.1")),
        ("REGISTRY_PUBLIC_URL", "https://Registry.example:443/", "public_url", "https://registry.example"),
        ("REGISTRY_PUBLIC_URL", "http://host:8000/Mesh/a/", "public_url", "http://host:8000/Mesh/a"),
        ("REGISTRY_PROXY", "off", "proxy", False),
        ("REGISTRY_PROXY_NETWORKS", "10.0.0.0/8, ::1", "proxy_networks", ("10.0.0.0/8", "::1/128")),
        ("REGISTRY_PROPAGATE_HEADERS", "X-Request-ID, x-tenant-*", "propagate_headers", ("x-request-id", "x-tenant-*")),
        ("REGISTRY_SECURITY_CONTEXTS", "pci=encryption+audit, open", "security_contexts", BUILT_IN | OWN),
        ("REGISTRY_SECURITY_CONTEXTS", "high_security=audit", "security_contexts", BUILT_IN | LOWERED),
    ],
)  # fmt: skip
def test_a_variable_is_read_into_its_field(env: str, text: str, field: str, value: object) -> None:
    """No other field changes."""
    settings, _ = load_settings({"REGISTRY_INSTANCE_ID": "i", env: text})

    others = load_settings({"REGISTRY_INSTANCE_ID": "i"})[0]
    assert getattr(settings, field) == value
    assert all(getattr(settings, name) == getattr(others, name) for name in {*SETTINGS} - {field, "instance_id"})


@pytest.mark.parametrize(
    ("env", "text", "expected"),
    [
        ("REGISTRY_HOST", "http://localhost", "expected an IP address or a host name"),
        ("REGISTRY_HOST", "0.0.0.0:8000", "expected an IP address or a host name"),
        ("REGISTRY_HOST", "256.1.1.1", "expected an IP address or a host name"),
        ("REGISTRY_HOST", "[::1]", "expected an IP address or a host name"),
        ("REGISTRY_PORT", "http", "expected a whole number from 0 to 65535"),
        ("REGISTRY_PORT", "-1", "expected a whole number from 0 to 65535"),
        ("REGISTRY_PORT", "65536", "expected a whole number from 0 to 65535"),
        ("REGISTRY_PORT", "8_000", "expected a whole number from 0 to 65535"),
        ("REGISTRY_PORT", "٨٠", "expected a whole number from 0 to 65535"),
        ("REGISTRY_PORT", "9" * 50, "expected a whole number from 0 to 65535"),
        ("METRICS_PORT", "9090.0", "expected a whole number from 0 to 65535"),
        ("REGISTRY_CONNECTIONS", "0", "expected a whole number from 1 to 1000000"),
        ("REGISTRY_CONNECTIONS_PER_ADDRESS", "many", "expected a whole number from 1 to 1000000"),
        ("LOG_LEVEL", "verbose", "expected one of debug, info, warning, error, warn"),
        ("REGISTRY_LOG_FORMAT", "xml", "expected one of auto, json, pretty"),
        ("REDIS_URL", "localhost:6379", "expected redis://host:6379/0"),
        ("REDIS_URL", "redis+sentinel://a,b", "expected redis://host:6379/0"),
        ("REGISTRY_WRITE_ACKS", "101", "expected a whole number from 0 to 100"),
        ("REDIS_URL", "http://db:6379", "expected redis://host:6379/0"),
        ("REDIS_URL", "redis://", "expected redis://host:6379/0"),
        ("REDIS_URL", "redis://:6379", "expected redis://host:6379/0"),
        ("REDIS_URL", "redis://db:0", "expected redis://host:6379/0"),
        ("REDIS_URL", "redis://db/mesh", "expected redis://host:6379/0"),
        ("REDIS_URL", "redis://db /0", "expected redis://host:6379/0"),
        ("REDIS_URL", "redis://db/0#x", "expected redis://host:6379/0"),
        ("REDIS_URL", "Redis://db", "expected redis://host:6379/0"),
        ("REDIS_URL", "unix://", "expected redis://host:6379/0"),
        ("REDIS_URL", "unix://run/redis.sock", "expected redis://host:6379/0"),
        ("REGISTRY_MESH", "expected a b", "expected 1 to 64 letters"),
        ("REGISTRY_MESH", "{mesh}", "expected 1 to 64 letters"),
        ("REGISTRY_MESH", "m" * 65, "expected 1 to 64 letters"),
        ("REGISTRY_DATA_DIR", "~nobody-has-this-name/x", "expected a directory"),
        ("REGISTRY_INSTANCE_ID", "expected a b", "expected 1 to 253 printable"),
        ("REGISTRY_INSTANCE_ID", "i" * 254, "expected 1 to 253 printable"),
        ("AGENT_TIMEOUT", "1h30", "expected a number of seconds, or a duration with a unit"),
        ("REGISTRY_RETENTION", "0s", "expected a number of seconds, or a duration with a unit"),
        *(
            ("REGISTRY_SELF_PRESERVATION_SHARE", share, "expected a whole number of percent")
            for share in ("50", "0%", "101%", "-1%", "1.5%")
        ),
        ("REGISTRY_SELF_PRESERVATION_MIN_AGENTS", "0", "expected a whole number from 1"),
        ("REGISTRY_SELF_PRESERVATION_DURATION", "-1", "expected a number of seconds, or a duration with a unit"),
        ("HEALTH_CHECK_INTERVAL", "400d", "expected a number of seconds, or a duration with a unit"),
        ("REGISTRY_SHUTDOWN_DELAY", "five", "or 0 for none"),
        ("REGISTRY_WATCH_HISTORY", "99", "expected a whole number from 100 to 10000000"),
        ("REGISTRY_WATCH_HISTORY", "10000001", "expected a whole number from 100 to 10000000"),
        ("REGISTRY_WATCH_HISTORY_BYTES", "4194303", "expected a whole number from 4194304 to 68719476736"),
        ("REGISTRY_WATCH_HISTORY_BYTES", "256MiB", "expected a whole number from 4194304 to 68719476736"),
        ("ENABLE_LEADER_ELECTION", "maybe", "expected one of true, yes, on, 1, false, no, off, 0"),
        ("REGISTRY_THRESHOLDS", "a=30s", "in 'a=30s' expected agent_type=timeout/eviction"),
        ("REGISTRY_THRESHOLDS", "a=90s/30s", "in 'a=90s/30s' expected an eviction longer than the timeout"),
        ("REGISTRY_THRESHOLDS", "a=30s/30s", "in 'a=30s/30s' expected an eviction longer than the timeout"),
        ("REGISTRY_THRESHOLDS", "a=soon/90", "in 'a=soon/90' expected a number of seconds"),
        ("REGISTRY_THRESHOLDS", "=1s/2s", "in '=1s/2s' expected a name without blanks that occurs once"),
        ("REGISTRY_THRESHOLDS", "a=1s/2s,a=1s/3s", "in 'a=1s/3s' expected a name without blanks that occurs"),
        *(("REGISTRY_ORIGINS", text, "expected origins joined by commas") for text in BAD_ORIGINS),
        *(("REGISTRY_HOSTNAMES", text, "expected host names without ports") for text in BAD_HOSTNAMES),
        *(("REGISTRY_PUBLIC_URL", text, "expected an http or https URL") for text in BAD_URLS),
        ("REGISTRY_PROXY_NETWORKS", "10.0.0.1/8", "expected networks joined by commas"),
        ("REGISTRY_PROXY_NETWORKS", "agents", "expected networks joined by commas"),
        ("REGISTRY_PROPAGATE_HEADERS", "x a", "expected header names joined by commas"),
        ("REGISTRY_PROPAGATE_HEADERS", "x-*-y", "expected header names joined by commas"),
        ("REGISTRY_PROPAGATE_HEADERS", "*", "expected header names joined by commas"),
        ("REGISTRY_SECURITY_CONTEXTS", "pci=", "in 'pci=' expected capabilities joined by +"),
        ("REGISTRY_SECURITY_CONTEXTS", "pci=a++b", "in 'pci=a++b' expected capabilities joined by +"),
        ("REGISTRY_SECURITY_CONTEXTS", "p q=a", "in 'p q=a' expected a name without blanks that occurs once"),
    ],
)  # fmt: skip
def test_an_invalid_value_is_rejected_with_its_name_and_the_expected_form(env: str, text: str, expected: str) -> None:
    """Users can correct the value without reading the code."""
    message = error_message({env: text})

    assert message.startswith("Invalid settings:\n  ")
    assert f"{env} is " in message
    assert expected in message


def test_a_duration_without_a_unit_is_seconds() -> None:
    """`meshctl` exports HEALTH_CHECK_INTERVAL=10."""
    settings, _ = load_settings(
        {
            "HEALTH_CHECK_INTERVAL": "10",
            "AGENT_TIMEOUT": "1.5",
            "REGISTRY_SHUTDOWN_DELAY": "0",
            "REGISTRY_THRESHOLDS": "file_agent=30/90s",
        }
    )

    assert settings.health_check_interval == timedelta(seconds=10)
    assert settings.agent_timeout == timedelta(seconds=1.5)
    assert settings.shutdown_delay == timedelta(0)
    assert settings.thresholds == {"file_agent": thresholds(30, 90)}


def test_all_errors_are_reported_together() -> None:
    """Users do not have to restart once for each error; every invalid entry of a list is reported."""
    message = error_message(
        {
            "REGISTRY_PORT": "http",
            "AGENT_TIMEOUT": "soon",
            "REGISTRY_THRESHOLDS": "a=1s,b=2s/1s",
            "LEADER_ELECTION_RETRY_PERIOD": "11s",
        },
        log_level="loud",
    )

    problems = message.splitlines()[1:]
    assert [problem.split()[0] for problem in problems] == [
        "REGISTRY_PORT",
        "--log-level",
        "AGENT_TIMEOUT",
        "REGISTRY_THRESHOLDS",
        "LEADER_ELECTION_RETRY_PERIOD",
    ]
    assert problems[0] == "  REGISTRY_PORT is 'http'; expected a whole number from 0 to 65535"
    assert "in 'a=1s' expected" in problems[3]
    assert "; in 'b=2s/1s' expected" in problems[3]


@pytest.mark.parametrize(
    ("environ", "name", "expected"),
    [
        (
            {"LEADER_ELECTION_RETRY_PERIOD": "10s"},
            "LEADER_ELECTION_RETRY_PERIOD is '10s'",
            "expected less than LEADER_ELECTION_RENEW_DEADLINE, which is '10s'",
        ),
        (
            {"LEADER_ELECTION_LEASE_DURATION": "8s"},
            "LEADER_ELECTION_RENEW_DEADLINE is '10s'",
            "expected less than LEADER_ELECTION_LEASE_DURATION, which is '8s'",
        ),
        ({"METRICS_PORT": "8000"}, "METRICS_PORT is '8000'", "expected another port than REGISTRY_PORT"),
        ({"REGISTRY_ADMIN_PORT": "8000"}, "REGISTRY_ADMIN_PORT is '8000'", "expected another port than REGISTRY_PORT"),
        (
            {"METRICS_PORT": "9090", "REGISTRY_ADMIN_PORT": "9090"},
            "REGISTRY_ADMIN_PORT is '9090'",
            "expected another port than METRICS_PORT",
        ),
    ],
)
def test_settings_that_conflict_with_each_other_are_rejected(environ: dict[str, str], name: str, expected: str) -> None:
    """The times have the order that client-go requires, and no port is used twice."""
    assert error_message(environ).splitlines()[1:] == [f"  {name}; {expected}"]


def test_more_connections_than_descriptors_are_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default leaves a fifth of them; at least 32 are reserved."""
    monkeypatch.setattr(resource, "getrlimit", lambda _number: (1024, 4096))

    assert default_connections() == 819
    assert load_settings({"REGISTRY_CONNECTIONS": "992"})[0].connections == 992
    assert "REGISTRY_CONNECTIONS is '993'; expected at most 992: the process may open 1024 files" in error_message(
        {"REGISTRY_CONNECTIONS": "993"}
    )
    for descriptors, connections in ((1_000_000, 20_000), (100, 68), (20, 1), (resource.RLIM_INFINITY, 20_000)):
        monkeypatch.setattr(resource, "getrlimit", lambda _number, limit=descriptors: (limit, limit))
        assert default_connections() == connections


def test_an_invalid_value_is_not_compared_with_other_settings() -> None:
    """Otherwise one typo would cause a second, false error."""
    message = error_message({"LEADER_ELECTION_RENEW_DEADLINE": "20", "LEADER_ELECTION_LEASE_DURATION": "1s"})

    assert len(message.splitlines()) == 2


def test_all_ports_may_be_zero() -> None:
    """0 is any free port, so several zeros do not conflict."""
    settings, _ = load_settings({"REGISTRY_PORT": "0", "METRICS_PORT": "0", "REGISTRY_ADMIN_PORT": "0"})

    assert (settings.port, settings.metrics_port, settings.admin_port) == (0, 0, 0)


def test_an_empty_value_is_unset() -> None:
    """Compose produces empty values for `${NAME:-}`; an empty token is no token."""
    settings, warnings = load_settings(dict.fromkeys((setting.env for setting in SETTINGS.values()), ""))

    assert (settings, warnings) == (Settings(), ())


def test_command_line_options_override_the_environment() -> None:
    """Options may be text or typed values; None and missing options leave the value of the environment."""
    environ = {"REGISTRY_PORT": "1", "REGISTRY_HOST": "::1", "LOG_LEVEL": "error", "REDIS_URL": "redis://a"}

    settings, _ = load_settings(
        environ,
        port=2,
        host=None,
        log_level="debug",
        redis_url="",
        data_dir=Path("/x"),
        leader_election=False,
        agent_timeout=timedelta(seconds=5),
        thresholds={"a": thresholds(1, 2)},
        auth_token=Secret("t"),
    )

    assert (settings.port, settings.host, settings.log_level) == (2, "::1", "debug")
    assert settings.redis_url is None
    assert (settings.data_dir, settings.leader_election) == (Path("/x"), False)
    assert settings.agent_timeout == timedelta(seconds=5)
    assert settings.thresholds == {"a": thresholds(1, 2)}
    assert settings.auth_token is not None
    assert settings.auth_token.reveal() == "t"


def test_an_invalid_option_is_named_as_on_the_command_line() -> None:
    """The variable of the same setting may be valid."""
    message = error_message({"REDIS_URL": "redis://db"}, redis_url="db")

    assert "--redis-url is 'db'; expected redis://" in message


def test_an_option_without_a_setting_raises_a_key_error() -> None:
    """It must not be ignored."""
    with pytest.raises(KeyError):
        load_settings({}, prot=1)


def test_settings_and_their_maps_are_frozen() -> None:
    """The values that were logged at the start apply until the end."""
    settings, _ = load_settings({})

    with pytest.raises(FrozenInstanceError):
        settings.port = 1  # type: ignore[misc]  # the point of the test
    assert isinstance(settings.thresholds, MappingProxyType)
    assert isinstance(settings.security_contexts, MappingProxyType)


@pytest.mark.parametrize(
    "key",
    [
        KEY,
        "ab" * 32,
        base64.b64encode(bytes(range(32))).decode(),
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        base64.urlsafe_b64encode(b"\xff" * 32).decode().rstrip("="),
        "é" * 16,
        "\udcff" * 32,
    ],
)
def test_an_encryption_key_of_32_bytes_is_accepted_in_any_form_with_a_warning_that_it_is_unused(
    key: str,
) -> None:
    """Users must not assume that data is encrypted when it is not."""
    settings, warnings = load_settings({"ENCRYPTION_KEY": key})

    assert settings.encryption_key is not None
    assert settings.encryption_key.reveal() == key
    [warning] = warnings
    assert warning.startswith("ENCRYPTION_KEY is set, but it is not used yet")
    assert key not in warning


@pytest.mark.parametrize("key", ["short", KEY + "x", "é" * 32, "g" * 64, "a" * 44, "ab" * 33, KEY + "\n"])
def test_an_encryption_key_of_another_length_is_rejected_and_not_shown(key: str) -> None:
    """The key may also be too long, or longer in bytes than in characters."""
    message = error_message({"ENCRYPTION_KEY": key})

    assert "ENCRYPTION_KEY is '***'; expected 32 bytes" in message
    assert key not in message


@pytest.mark.parametrize("token", [" ", "secret-x ", "secret-x\n", "sécret-x", "secret\x00x", "secret\nx"])
def test_a_token_that_is_invalid_in_a_header_is_rejected_and_not_shown(token: str) -> None:
    """Neither may a token of blanks, which would leave the registry open."""
    message = error_message({"AUTH_TOKEN": token})

    assert "AUTH_TOKEN is '***'; expected printable ASCII" in message
    assert "cret" not in message


def test_no_secret_is_shown_anywhere() -> None:
    """Neither in the start-up log nor in the printed settings, whole or in parts."""
    settings, warnings = load_settings(
        {
            "AUTH_TOKEN": "hush-token",
            "ENCRYPTION_KEY": KEY,
            "REDIS_URL": "rediss://user:hush-password@db:6379/0?password=hush-query",
            "REGISTRY_AUTH_TOKEN": "hush-typo",
            "DATABASE_URL": "postgres://u:hush-database@pg/registry",
        }
    )

    shown = settings.masked()
    texts = [
        repr(settings),
        str(settings),
        f"{settings.auth_token} {settings.encryption_key!r}",
        *shown.values(),
    ]
    for text in (*texts, *warnings):
        assert "hush" not in text
        assert KEY not in text
    assert settings.redis_url == "rediss://user:hush-password@db:6379/0?password=hush-query"
    assert shown["redis_url"] == "rediss://user:***@db:6379/0?password=***"
    assert (shown["auth_token"], shown["encryption_key"]) == ("***", "***")


def test_the_start_up_log_shows_every_setting_in_the_form_of_its_variable() -> None:
    """The shown values have the same meaning when copied into the environment."""
    environ = {
        "REGISTRY_THRESHOLDS": "a=30s/1m30s",
        "REGISTRY_SECURITY_CONTEXTS": "pci=audit+encryption,open",
        "ENABLE_LEADER_ELECTION": "off",
        "REGISTRY_PROPAGATE_HEADERS": "x-a,x-b-*",
    }
    settings, _ = load_settings(environ)

    shown = settings.masked()
    again, _ = load_settings({SETTINGS[name].env: text for name, text in shown.items() if text != "unset"})

    assert [*shown] == [*SETTINGS]
    assert again == settings
    assert (shown["auth_token"], shown["redis_url"], shown["metrics_port"]) == ("unset", "unset", "unset")
    assert (shown["leader_election"], shown["thresholds"]) == ("false", "a=30s/1m30s")
    assert "pci=audit+encryption,open" in shown["security_contexts"]
    assert shown["propagate_headers"] == "x-a,x-b-*"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("redis://db:6379/0", "redis://db:6379/0"),
        ("redis://user:pw@db", "redis://user:***@db"),
        ("redis://:pw@db", "redis://:***@db"),
        ("redis://pw@db", "redis://***@db"),
        ("redis://:p@w@db", "redis://:***@db"),
        ("redis://:p/w@db", "redis://:***@db"),
        ("redis://:p#w?@db", "redis://:***@db"),
        ("redis://:p\nw@db", "redis://:***@db"),
        ("redis//:pw@db", "***@db"),
        (":pw@db:6379", ":***@db:6379"),
        ("redis://:pw", "***"),
        ("redis://[pw", "***"),
        ("unix:///run/redis.sock?db=1&password=pw&x=1", "unix:///run/redis.sock?db=1&password=***&x=1"),
        ("unix:///run/redis.sock?PASSWORD=pw", "unix:///run/redis.sock?PASSWORD=***"),
        ("redis+sentinel://u:pw@a:1,b:2/svc/1", "redis+sentinel://u:***@a:1,b:2/svc/1"),
        ("redis+sentinel://a,b/svc?sentinel_password=pw", "redis+sentinel://a,b/svc?sentinel_password=***"),
        ("rediss+cluster://:p,w@a:1,b", "rediss+cluster://:***@a:1,b"),
        ("redis+sentinel://u:pw,b/svc", "***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, masked: str) -> None:
    """Malformed URLs too, since error messages contain them."""
    assert mask_url(url) == masked


@pytest.mark.parametrize(
    "url", ["redis://:hush@", "redis//:hush@db", "redis://:hu#hush@db", "redis://u:hush", "redis://[hush"]
)
def test_a_rejected_url_is_shown_without_its_password(url: str) -> None:
    """The error message could log a password by accident."""
    message = error_message({"REDIS_URL": url})

    assert "REDIS_URL is " in message
    assert "hush" not in message


@pytest.mark.parametrize("text", ["", "x"])
def test_a_printed_secret_shows_neither_its_text_nor_whether_it_is_empty(text: str) -> None:
    """Only `reveal` returns the text."""
    secret = Secret(text)

    assert (repr(secret), str(secret), f"{secret:}") == ("***", "***", "***")
    assert secret.reveal() == text
    assert bool(secret) == bool(text)


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("REGISTRY_PROT", "did you mean REGISTRY_PORT?"),
        ("REGISTRY_WATCH_HISTROY", "did you mean REGISTRY_WATCH_HISTORY?"),
        ("REGISTRY_LOG_LEVEL", "did you mean LOG_LEVEL?"),
        ("REGISTRY_LOG_LEVL", "did you mean LOG_LEVEL?"),
        ("REGISTRY_REDIS_URL", "did you mean REDIS_URL?"),
        ("REGISTRY_QQQQQQQQQQQQQQQQ", "remove it"),
    ],
)
def test_an_unknown_name_causes_a_warning_that_suggests_the_nearest_setting(name: str, advice: str) -> None:
    """A misspelt name must not leave the default in effect without notice."""
    _, warnings = load_settings({name: "x", "PATH": "/bin"})

    assert warnings == (f"{name} is not a setting and is ignored; {advice}",)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("PORT", "REGISTRY_PORT"),
        ("REDIS_HOST", "REDIS_URL"),
        ("REDIS_ULR", "REDIS_URL"),
        ("LOGLEVEL", "LOG_LEVEL"),
        ("AUTHTOKEN", "AUTH_TOKEN"),
        ("AGENT_TIMEOUTS", "AGENT_TIMEOUT"),
        ("LEADER_ELECTION_LEASE_DURATON", "LEADER_ELECTION_LEASE_DURATION"),
    ],
)
def test_a_name_without_the_prefix_that_is_nearly_a_setting_causes_a_warning(name: str, meant: str) -> None:
    """Unless the setting is set, too: then the variable may be that of another program."""
    assert load_settings({name: "7"})[1] == (f"{name} is not a setting and is ignored; did you mean {meant}?",)

    text = {"REGISTRY_PORT": "8000", "REDIS_URL": "redis://a", "LOG_LEVEL": "info", "AUTH_TOKEN": "t"}.get(meant, "20s")
    assert load_settings({name: "7", meant: text})[1] == ()


def test_an_option_of_the_command_line_is_a_setting_that_is_set() -> None:
    """`PORT` may be that of another program."""
    assert load_settings({"PORT": "80"}, port=8000)[1] == ()


@pytest.mark.parametrize("name", ["HOST", "OAUTH_TOKEN", "NPM_AUTH_TOKEN", "LOG", "REDIS_CLI", "TIMEOUT", "PATH"])
def test_a_variable_of_another_program_causes_no_warning(name: str) -> None:
    """Only nearly equal names do."""
    assert load_settings({name: "x"})[1] == ()


def test_variables_of_kubernetes_for_a_service_called_redis_are_ignored() -> None:
    """They have the names under which other programs take the address of Redis."""
    names = {"REDIS_PORT": "tcp://10.0.0.2:6379", "REDIS_SERVICE_HOST": "10.0.0.2", "REDIS_SERVICE_PORT": "6379"}

    assert load_settings(names)[1] == ()


def test_variables_of_kubernetes_for_a_service_called_registry_called_registry_are_ignored() -> None:
    """Kubernetes sets them in every pod of the namespace, also for Services of its Redis or its metrics."""
    settings, warnings = load_settings(
        {
            "REGISTRY_PORT": "tcp://10.0.0.1:8080",
            "REGISTRY_SERVICE_HOST": "10.0.0.1",
            "REGISTRY_SERVICE_PORT": "8080",
            "REGISTRY_SERVICE_PORT_HTTP": "8080",
            "REGISTRY_PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "REGISTRY_PORT_8080_TCP_PROTO": "tcp",
            "REGISTRY_PORT_8080_TCP_PORT": "8080",
            "REGISTRY_PORT_8080_TCP_ADDR": "10.0.0.1",
            "REGISTRY_PORT_53_UDP": "udp://10.0.0.1:53",
            "REGISTRY_PORT_53_UDP_PROTO": "udp",
            "REGISTRY_REDIS_SERVICE_HOST": "10.0.0.2",
            "REGISTRY_REDIS_PORT": "tcp://10.0.0.2:6379",
            "REGISTRY_REDIS_PORT_6379_TCP_ADDR": "10.0.0.2",
            "METRICS_PORT": "tcp://10.0.0.3:9090",
        }
    )

    assert (settings, warnings) == (Settings(), ())


USER_DATA = platformdirs.user_data_path("mcp-mesh-registry")


@pytest.mark.parametrize(
    ("environ", "data_dir", "advice"),
    [
        ({"DATABASE_TYPE": "sqlite"}, USER_DATA, "these are ignored; set REDIS_URL"),
        ({"DATABASE_PATH": ":memory:"}, USER_DATA, "these are ignored; set REDIS_URL"),
        ({"DATABASE_PATH": "/data/registry.db"}, Path("/data"), "set REGISTRY_DATA_DIR=/data instead"),
        ({"DATABASE_PATH": "registry.db"}, Path.cwd(), "is used as data directory"),
        (
            {"DATABASE_PATH": "/data/registry.db", "REGISTRY_DATA_DIR": "/mesh"},
            Path("/mesh"),
            "REGISTRY_DATA_DIR is used and these are ignored",
        ),
        (
            {"DATABASE_PATH": "/data/registry.db", "REDIS_URL": "redis://db"},
            USER_DATA,
            "REDIS_URL is used and these are ignored",
        ),
    ],
)
def test_database_settings_cause_a_warning_and_their_directory_is_used(
    environ: dict[str, str], data_dir: Path, advice: str
) -> None:
    """A deployment that was configured for a database continues to use its volume."""
    settings, [warning] = load_settings(environ)

    assert (settings.data_dir or user_data_dir()) == data_dir
    assert "the store is Redis, not a database" in warning
    assert advice in warning


def test_all_database_settings_share_one_warning() -> None:
    """The warning does not contain their values, which may be passwords; empty names count as unset."""
    environ = {
        "DATABASE_TYPE": "postgresql",
        "DATABASE_PASSWORD": "hush",
        "DATABASE_HOST": "pg",
        "DATABASE_PORT": "",
    }

    [warning] = load_settings(environ)[1]

    assert warning.startswith("DATABASE_HOST, DATABASE_PASSWORD, DATABASE_TYPE: the store is Redis")
    assert "hush" not in warning


def test_the_default_data_directory_is_that_of_the_user() -> None:
    """It is determined only where the embedded Redis needs it."""
    assert user_data_dir() == platformdirs.user_data_path("mcp-mesh-registry")
