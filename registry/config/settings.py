"""Every setting of the registry, frozen; `environment` reads them.

A new setting is a field of `Settings` and a line of `SETTINGS`; reading, masking, the start-up log and the
README's test follow these. An empty text counts as unset, because compose files have no other way to say so.
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Final

from registry.config.duration import parse_duration
from registry.config.types import (
    DEFAULT_SELF_PRESERVATION_SHARE,
    Percent,
    Secret,
    Setting,
    Thresholds,
    format_value,
    mask_all,
    mask_url,
    parse_ack_count,
    parse_agent_count,
    parse_boolean,
    parse_directory,
    parse_duration_or_zero,
    parse_encryption_key,
    parse_file_path,
    parse_header_names,
    parse_host,
    parse_instance_id,
    parse_log_format,
    parse_log_length,
    parse_log_level,
    parse_mesh_name,
    parse_percent,
    parse_port,
    parse_security_contexts,
    parse_thresholds,
    parse_token,
    validate_redis_url,
)

__all__ = ["SETTINGS", "Secret", "Setting", "Settings", "Thresholds", "mask_url"]


def _default_data_dir() -> Path:
    import platformdirs  # noqa: PLC0415  not needed where a directory is given

    return platformdirs.user_data_path("mcp-mesh-registry")


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """All settings, valid together. Printing them is safe: secrets and the password of a URL are masked."""

    host: str = "127.0.0.1"
    port: int = 8000
    metrics_port: int | None = None
    log_level: str = "info"
    log_format: str = "auto"
    redis_url: str | None = None
    redis_password_file: Path | None = None
    write_acks: int = 0
    mesh: str = "mesh"
    data_dir: Path = field(default_factory=_default_data_dir)
    instance_id: str = field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}")
    agent_timeout: timedelta = timedelta(seconds=60)
    thresholds: Mapping[str, Thresholds] = field(default_factory=lambda: parse_thresholds(""))
    retention: timedelta = timedelta(hours=1)
    self_preservation_share: Percent = DEFAULT_SELF_PRESERVATION_SHARE
    self_preservation_min_agents: int = 10
    self_preservation_duration: timedelta = timedelta(minutes=10)
    watch_history: int = 20_000
    health_check_interval: timedelta = timedelta(seconds=30)
    leader_election: bool = True
    lease_duration: timedelta = timedelta(seconds=15)
    renew_deadline: timedelta = timedelta(seconds=10)
    retry_period: timedelta = timedelta(seconds=2)
    shutdown_delay: timedelta = timedelta(0)
    auth_token: Secret | None = None
    encryption_key: Secret | None = None
    isolate_namespaces: bool = True
    proxy: bool = True
    propagate_headers: tuple[str, ...] = ()
    security_contexts: Mapping[str, frozenset[str]] = field(default_factory=lambda: parse_security_contexts(""))

    def masked(self) -> dict[str, str]:
        """Give every setting by field name as text fit for a log: as it would be set, masked, or `unset`."""
        values = {name: getattr(self, name) for name in SETTINGS}
        return {
            name: format_value(value) if value is None else SETTINGS[name].mask(format_value(value))
            for name, value in values.items()
        }

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={text!r}' for name, text in self.masked().items())})"


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {
        "host": Setting("REGISTRY_HOST", parse_host, "The address to listen on; 0.0.0.0 means all of them."),
        "port": Setting("REGISTRY_PORT", parse_port, "The port to listen on; 0 takes any free one."),
        "metrics_port": Setting(
            "METRICS_PORT", parse_port, "A second port for metrics alone, which asks for no token."
        ),
        "log_level": Setting("LOG_LEVEL", parse_log_level, "The least severe events that are logged."),
        "log_format": Setting(
            "REGISTRY_LOG_FORMAT",
            parse_log_format,
            "How to log: json, pretty, or auto (pretty on a terminal).",
        ),
        "redis_url": Setting(
            "REDIS_URL",
            validate_redis_url,
            "The Redis that replicas share; unset starts the embedded one.",
            mask_url,
        ),
        "redis_password_file": Setting(
            "REGISTRY_REDIS_PASSWORD_FILE",
            parse_file_path,
            "A file with the password for Redis, read anew at each connect.",
        ),
        "write_acks": Setting(
            "REGISTRY_WRITE_ACKS", parse_ack_count, "How many replicas of Redis each write waits for."
        ),
        "mesh": Setting("REGISTRY_MESH", parse_mesh_name, "The mesh's name, part of every key in Redis."),
        "data_dir": Setting(
            "REGISTRY_DATA_DIR",
            parse_directory,
            "Where the embedded Redis keeps its data; by default with the user's data.",
        ),
        "instance_id": Setting(
            "REGISTRY_INSTANCE_ID", parse_instance_id, "This replica's name; by default its host and process."
        ),
        "agent_timeout": Setting(
            "AGENT_TIMEOUT", parse_duration, "How long an agent may be silent before it is degraded."
        ),
        "thresholds": Setting(
            "REGISTRY_THRESHOLDS",
            parse_thresholds,
            "Timeout and eviction of agent types, such as file_agent=30s/90s.",
        ),
        "retention": Setting(
            "REGISTRY_RETENTION", parse_duration, "How long an expired agent stays before it is removed."
        ),
        "self_preservation_share": Setting(
            "REGISTRY_HOLD_SHARE",
            parse_percent,
            "The share of healthy agents that may fall silent within AGENT_TIMEOUT; more are held. 100% never holds.",
        ),
        "self_preservation_min_agents": Setting(
            "REGISTRY_HOLD_MINIMUM", parse_agent_count, "How many agents that must be, at least."
        ),
        "self_preservation_duration": Setting(
            "REGISTRY_HOLD_DURATION", parse_duration, "How long they are held, at most."
        ),
        "watch_history": Setting(
            "REGISTRY_WATCH_HISTORY",
            parse_log_length,
            "How many changes the log keeps for watches to resume from.",
        ),
        "health_check_interval": Setting(
            "HEALTH_CHECK_INTERVAL", parse_duration, "How long a look for silent agents may be put off."
        ),
        "leader_election": Setting(
            "ENABLE_LEADER_ELECTION", parse_boolean, "Whether only an elected replica looks for silent agents."
        ),
        "lease_duration": Setting(
            "LEADER_ELECTION_LEASE_DURATION", parse_duration, "How long a silent leader stays the leader."
        ),
        "renew_deadline": Setting(
            "LEADER_ELECTION_RENEW_DEADLINE",
            parse_duration,
            "How long a leader tries to renew before it gives up.",
        ),
        "retry_period": Setting(
            "LEADER_ELECTION_RETRY_PERIOD", parse_duration, "The pause between two tries to lead or to renew."
        ),
        "shutdown_delay": Setting(
            "REGISTRY_DRAIN_WAIT",
            parse_duration_or_zero,
            "How long a replica told to stop serves on, not ready, so that balancers turn away.",
        ),
        "auth_token": Setting("AUTH_TOKEN", parse_token, "The bearer token that callers must send.", mask_all),
        "encryption_key": Setting(
            "ENCRYPTION_KEY", parse_encryption_key, "A key of 32 bytes; nothing uses it yet.", mask_all
        ),
        "isolate_namespaces": Setting(
            "REGISTRY_ISOLATE_NAMESPACES",
            parse_boolean,
            "Whether mesh clients find providers in their own namespace alone.",
        ),
        "proxy": Setting(
            "REGISTRY_PROXY", parse_boolean, "Whether calls to agents are passed on under /proxy, for meshctl."
        ),
        "propagate_headers": Setting(
            "REGISTRY_PROPAGATE_HEADERS",
            parse_header_names,
            "Further headers to pass on under /proxy, such as x-request-id,x-tenant-*; never the registry's own token.",
        ),
        "security_contexts": Setting(
            "REGISTRY_SECURITY_CONTEXTS",
            parse_security_contexts,
            "What a context requires, such as pci=encryption+audit.",
        ),
    }
)
