"""`Settings`, every setting of the registry, and `SETTINGS`, the environment variable and parser of each.

A new setting is a field of `Settings` and an entry of `SETTINGS`; parsing, masking, the start-up log and the README's
test follow from these. An empty value counts as unset, because compose files cannot leave a variable out.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from registry.config.value_types import (
    Percent,
    Secret,
    Thresholds,
    format_value,
    integer_parser,
    mask_all,
    mask_url,
    parse_boolean,
    parse_duration_or_zero,
    parse_encryption_key,
    parse_header_names,
    parse_host,
    parse_hostnames,
    parse_instance_id,
    parse_log_format,
    parse_log_level,
    parse_mesh_name,
    parse_networks,
    parse_origins,
    parse_percent,
    parse_port,
    parse_public_url,
    parse_security_contexts,
    parse_thresholds,
    parse_token,
    path_parser,
    validate_redis_url,
)
from registry.duration import parse_duration
from registry.errors import StartupError


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its environment variable, its parser, its description and how its text is masked.

    `parse` raises ValueError with the expected format; `mask` takes the text as it was given.
    """

    env: str
    parse: Callable[[str], Any]
    description: str
    mask: Callable[[str], str] = str


def user_data_dir() -> Path:
    """Return the default data directory of the embedded Redis, in the user's data directory.

    Raises StartupError if the user has no home directory, as in some containers.
    """
    import platformdirs  # noqa: PLC0415  not needed if REGISTRY_DATA_DIR or REDIS_URL is set

    with contextlib.suppress(RuntimeError):
        path = platformdirs.user_data_path("mcp-mesh-registry")
        if path.is_absolute():
            return path
    raise StartupError("The user has no home directory; set REGISTRY_DATA_DIR to a directory, or REDIS_URL")


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """All settings of one replica; its representation masks secrets and the password of a URL."""

    host: str = "127.0.0.1"
    port: int = 8000
    metrics_port: int | None = None
    admin_port: int | None = None
    connections: int | None = None
    connections_per_address: int | None = None
    log_level: str = "info"
    log_format: str = "auto"
    redis_url: str | None = None
    redis_password_file: Path | None = None
    write_acks: int = 0
    mesh: str = "mesh"
    data_dir: Path | None = None
    instance_id: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    agent_timeout: timedelta = timedelta(seconds=60)
    thresholds: Mapping[str, Thresholds] = field(default_factory=lambda: parse_thresholds(""))
    retention: timedelta = timedelta(hours=1)
    self_preservation_share: Percent = field(default_factory=lambda: Percent(50))
    self_preservation_min_agents: int = 10
    self_preservation_duration: timedelta = timedelta(minutes=10)
    watch_history: int = 20_000
    watch_history_bytes: int = 256 * 1024**2
    health_check_interval: timedelta = timedelta(seconds=30)
    leader_election: bool = True
    lease_duration: timedelta = timedelta(seconds=15)
    renew_deadline: timedelta = timedelta(seconds=10)
    retry_period: timedelta = timedelta(seconds=2)
    shutdown_delay: timedelta = timedelta(0)
    origins: tuple[str, ...] = ()
    hostnames: tuple[str, ...] = ()
    public_url: str | None = None
    auth_token: Secret | None = None
    open: bool = False
    encryption_key: Secret | None = None
    isolate_namespaces: bool = True
    proxy: bool | None = None
    proxy_networks: tuple[str, ...] = ()
    propagate_headers: tuple[str, ...] = ()
    security_contexts: Mapping[str, frozenset[str]] = field(default_factory=lambda: parse_security_contexts(""))

    def masked(self) -> dict[str, str]:
        """Return each setting by field name as text for a log: its value, its masked value, or `unset`."""
        values = {name: getattr(self, name) for name in SETTINGS}
        shown = {name: format_value(value) for name, value in values.items()}
        return {name: text if values[name] is None else SETTINGS[name].mask(text) for name, text in shown.items()}

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={text!r}' for name, text in self.masked().items())})"


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        "host": Setting("REGISTRY_HOST", parse_host, "Address to listen on; 0.0.0.0 listens on all addresses."),
        "port": Setting("REGISTRY_PORT", parse_port, "Port to listen on; 0 uses any free port."),
        "metrics_port": Setting("METRICS_PORT", parse_port, "A second port with metrics and probes, without a token."),
        "admin_port": Setting(
            "REGISTRY_ADMIN_PORT", parse_port, "A port of its own for /admin, which is then 404 on the API port."
        ),
        "connections": Setting(
            "REGISTRY_CONNECTIONS",
            integer_parser(1, 1_000_000),
            "Maximum number of open connections; default: four fifths of the file descriptors, at most 20000.",
        ),
        "connections_per_address": Setting(
            "REGISTRY_CONNECTIONS_PER_ADDRESS",
            integer_parser(1, 1_000_000),
            "Maximum number of open connections of one client address; unset: no limit.",
        ),
        "log_level": Setting("LOG_LEVEL", parse_log_level, "Least severe level that is logged."),
        "log_format": Setting(
            "REGISTRY_LOG_FORMAT", parse_log_format, "Log format: json, pretty, or auto (pretty on a terminal)."
        ),
        "redis_url": Setting(
            "REDIS_URL",
            validate_redis_url,
            "URL of the Redis that replicas share; unset starts an embedded Redis.",
            mask_url,
        ),
        "redis_password_file": Setting(
            "REGISTRY_REDIS_PASSWORD_FILE",
            path_parser("the path of a file"),
            "A file with the Redis password, read at every connect.",
        ),
        "write_acks": Setting(
            "REGISTRY_WRITE_ACKS", integer_parser(0, 100), "Number of Redis replicas that must acknowledge each write."
        ),
        "mesh": Setting("REGISTRY_MESH", parse_mesh_name, "Name of the mesh, part of every Redis key."),
        "data_dir": Setting(
            "REGISTRY_DATA_DIR",
            path_parser("a directory"),
            "Data directory of the embedded Redis, writable only for its user; default: the user's data directory.",
        ),
        "instance_id": Setting(
            "REGISTRY_INSTANCE_ID", parse_instance_id, "Name of this replica; default: host name and process id."
        ),
        "agent_timeout": Setting(
            "AGENT_TIMEOUT", parse_duration, "Time without a heartbeat after which an agent is degraded."
        ),
        "thresholds": Setting(
            "REGISTRY_THRESHOLDS", parse_thresholds, "Timeout and eviction of agent types, such as file_agent=30s/90s."
        ),
        "retention": Setting(
            "REGISTRY_RETENTION", parse_duration, "Time an expired agent stays listed before it is removed."
        ),
        "self_preservation_share": Setting(
            "REGISTRY_SELF_PRESERVATION_SHARE",
            parse_percent,
            "Share of a namespace's agents overdue within AGENT_TIMEOUT that suspends expiry; 100% disables it.",
        ),
        "self_preservation_min_agents": Setting(
            "REGISTRY_SELF_PRESERVATION_MIN_AGENTS",
            integer_parser(1, 10_000_000),
            "Self-preservation needs this many agents of a namespace that miss heartbeats.",
        ),
        "self_preservation_duration": Setting(
            "REGISTRY_SELF_PRESERVATION_DURATION",
            parse_duration,
            "Maximum time that self-preservation suspends expiry.",
        ),
        "watch_history": Setting(
            "REGISTRY_WATCH_HISTORY",
            integer_parser(100, 10_000_000),
            "Number of changes the change log stores for watches to resume from.",
        ),
        "watch_history_bytes": Setting(
            "REGISTRY_WATCH_HISTORY_BYTES",
            integer_parser(4 * 1024**2, 64 * 1024**3),
            "Maximum bytes of these changes in Redis, and in the memory of each replica; the oldest go first.",
        ),
        "health_check_interval": Setting("HEALTH_CHECK_INTERVAL", parse_duration, "Maximum interval between sweeps."),
        "leader_election": Setting(
            "ENABLE_LEADER_ELECTION",
            parse_boolean,
            "Whether only the elected leader sweeps; false: every replica sweeps.",
        ),
        "lease_duration": Setting(
            "LEADER_ELECTION_LEASE_DURATION",
            parse_duration,
            "Time after which followers replace a leader that has not renewed its lock.",
        ),
        "renew_deadline": Setting(
            "LEADER_ELECTION_RENEW_DEADLINE",
            parse_duration,
            "Time a leader keeps trying to renew its lock before it steps down.",
        ),
        "retry_period": Setting(
            "LEADER_ELECTION_RETRY_PERIOD", parse_duration, "Pause between two attempts to acquire or renew the lock."
        ),
        "shutdown_delay": Setting(
            "REGISTRY_SHUTDOWN_DELAY",
            parse_duration_or_zero,
            "Time a stopping replica keeps serving, not ready, so that load balancers remove it.",
        ),
        "origins": Setting(
            "REGISTRY_ORIGINS",
            parse_origins,
            "Origins whose web pages may call the registry, such as https://tools.example; default: none.",
        ),
        "hostnames": Setting(
            "REGISTRY_HOSTNAMES",
            parse_hostnames,
            "Further names in the Host header of requests, such as registry.example,*.mesh.svc.",
        ),
        "public_url": Setting(
            "REGISTRY_PUBLIC_URL", parse_public_url, "URL of the registry in browsers, if a proxy serves it elsewhere."
        ),
        "auth_token": Setting("AUTH_TOKEN", parse_token, "The bearer token that callers must send.", mask_all),
        "open": Setting(
            "REGISTRY_OPEN",
            parse_boolean,
            "Whether a registry without AUTH_TOKEN may listen on an address that other machines reach.",
        ),
        "encryption_key": Setting("ENCRYPTION_KEY", parse_encryption_key, "A 32-byte key; not used yet.", mask_all),
        "isolate_namespaces": Setting(
            "REGISTRY_ISOLATE_NAMESPACES",
            parse_boolean,
            "Whether mcp-mesh agents find providers only in their own namespace.",
        ),
        "proxy": Setting(
            "REGISTRY_PROXY",
            parse_boolean,
            "Whether /proxy forwards calls to agents, for meshctl; unset: only if the registry listens on loopback.",
        ),
        "proxy_networks": Setting(
            "REGISTRY_PROXY_NETWORKS",
            parse_networks,
            "Networks to which /proxy is limited, such as 10.0.0.0/8; a loopback network in the list is allowed.",
        ),
        "propagate_headers": Setting(
            "REGISTRY_PROPAGATE_HEADERS",
            parse_header_names,
            "Additional headers that /proxy forwards, such as x-request-id,x-tenant-*; never the registry's own token.",
        ),
        "security_contexts": Setting(
            "REGISTRY_SECURITY_CONTEXTS",
            parse_security_contexts,
            "Capabilities a security context requires, such as pci=encryption+audit.",
        ),
    }
)
