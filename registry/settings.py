"""Every setting of the registry: read once, checked together, then frozen.

The fields of `Settings` are the one table: reading, masking, the start-up log and the README's test follow it. A
new setting is a new field; nothing else knows its name. An empty text means "not set", as compose files write it.
"""

import difflib
import ipaddress
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from registry.durations import parse_duration
from registry.errors import StartupError
from registry.notation import (
    Secret,
    Thresholds,
    choice,
    mask_all,
    mask_url,
    matching,
    read_contexts,
    read_encryption_key,
    read_host,
    read_path,
    read_redis_url,
    read_thresholds,
    read_token,
    whole_number,
    write_value,
)

__all__ = ["SETTINGS", "Secret", "Setting", "Settings", "Thresholds", "mask_url", "read_settings"]

# What Kubernetes puts into every pod beside a Service called `registry` or `registry-…`.
_SERVICE_LINK: Final = re.compile(
    r"REGISTRY_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_SERVICE_ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://")

_LEVEL: Final = choice({word: word for word in ("debug", "info", "warning", "error")} | {"warn": "warning"})
_FORMAT: Final = choice({word: word for word in ("auto", "json", "pretty")})
_SWITCH: Final = choice(
    dict.fromkeys(("true", "yes", "on", "1"), True) | dict.fromkeys(("false", "no", "off", "0"), False)
)
_PORT: Final = whole_number(0, 65535)
_HISTORY: Final = whole_number(100, 10_000_000)
_MESH: Final = matching(r"[A-Za-z0-9._-]{1,64}", "1 to 64 letters, digits, dots, underscores or hyphens")
_INSTANCE: Final = matching(r"[!-~]{1,253}", "1 to 253 printable ASCII characters without blanks")


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table: the environment name, one sentence, how its text is read and how it is shown.

    `read` raises ValueError with what it expects; `mask` makes any text that was given fit to be shown.
    """

    env: str
    says: str
    read: Callable[[str], Any]
    mask: Callable[[str], str]


def _env(
    env: str, read: Callable[[str], Any], says: str, mask: Callable[[str], str] = str
) -> dict[str, Setting]:
    return {"setting": Setting(env, says, read, mask)}


def _user_data_dir() -> Path:
    import platformdirs  # noqa: PLC0415  a registry with a Redis and a directory of its own never needs it

    return platformdirs.user_data_path("mcp-mesh-registry")


@dataclass(frozen=True, slots=True, repr=False)
class Settings:
    """All settings, valid together. Printing them is safe: secrets and the password of a URL are masked."""

    host: str = field(
        default="127.0.0.1",
        metadata=_env("REGISTRY_HOST", read_host, "The address to listen on; 0.0.0.0 means all of them."),
    )
    port: int = field(
        default=8000, metadata=_env("REGISTRY_PORT", _PORT, "The port to listen on; 0 takes any free one.")
    )
    metrics_port: int | None = field(
        default=None,
        metadata=_env("METRICS_PORT", _PORT, "A second port for metrics alone; asks for no token."),
    )
    log_level: str = field(
        default="info", metadata=_env("LOG_LEVEL", _LEVEL, "The least severe events that are logged.")
    )
    log_format: str = field(
        default="auto",
        metadata=_env(
            "REGISTRY_LOG_FORMAT", _FORMAT, "How to log: json, pretty, or auto (pretty on a terminal)."
        ),
    )
    redis_url: str | None = field(
        default=None,
        metadata=_env(
            "REDIS_URL", read_redis_url, "The Redis of all replicas; unset starts an own one.", mask_url
        ),
    )
    mesh: str = field(
        default="mesh", metadata=_env("REGISTRY_MESH", _MESH, "The mesh's name, part of every key in Redis.")
    )
    data_dir: Path = field(
        default_factory=_user_data_dir,
        metadata=_env(
            "REGISTRY_DATA_DIR", read_path, "Where the embedded store keeps data; by default the user's."
        ),
    )
    instance_id: str = field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}",
        metadata=_env(
            "REGISTRY_INSTANCE_ID", _INSTANCE, "This replica's name; by default its host and process."
        ),
    )
    agent_timeout: timedelta = field(
        default=timedelta(seconds=60),
        metadata=_env(
            "AGENT_TIMEOUT", parse_duration, "How long an agent may be silent before it is degraded."
        ),
    )
    thresholds: Mapping[str, Thresholds] = field(
        default_factory=lambda: read_thresholds(""),
        metadata=_env("REGISTRY_THRESHOLDS", read_thresholds, "Timeout and eviction by agent type."),
    )
    retention: timedelta = field(
        default=timedelta(hours=1),
        metadata=_env(
            "REGISTRY_RETENTION", parse_duration, "How long an expired agent stays before it is removed."
        ),
    )
    watch_history: int = field(
        default=20_000, metadata=_env("REGISTRY_WATCH_HISTORY", _HISTORY, "How many changes the log keeps.")
    )
    health_check_interval: timedelta = field(
        default=timedelta(seconds=30),
        metadata=_env(
            "HEALTH_CHECK_INTERVAL", parse_duration, "How long a look for silent agents may be put off."
        ),
    )
    leader_election: bool = field(
        default=True,
        metadata=_env("ENABLE_LEADER_ELECTION", _SWITCH, "Whether only an elected replica sweeps."),
    )
    lease_duration: timedelta = field(
        default=timedelta(seconds=15),
        metadata=_env("LEADER_ELECTION_LEASE_DURATION", parse_duration, "When a silent leader is replaced."),
    )
    renew_deadline: timedelta = field(
        default=timedelta(seconds=10),
        metadata=_env(
            "LEADER_ELECTION_RENEW_DEADLINE", parse_duration, "When a leader that cannot renew gives up."
        ),
    )
    retry_period: timedelta = field(
        default=timedelta(seconds=2),
        metadata=_env(
            "LEADER_ELECTION_RETRY_PERIOD", parse_duration, "The pause between two tries to lead or renew."
        ),
    )
    auth_token: Secret | None = field(
        default=None, metadata=_env("AUTH_TOKEN", read_token, "The bearer token callers must send.", mask_all)
    )
    encryption_key: Secret | None = field(
        default=None,
        metadata=_env(
            "ENCRYPTION_KEY", read_encryption_key, "A key of 32 bytes; nothing uses it yet.", mask_all
        ),
    )
    security_contexts: Mapping[str, frozenset[str]] = field(
        default_factory=lambda: read_contexts(""),
        metadata=_env(
            "REGISTRY_SECURITY_CONTEXTS", read_contexts, "Capabilities required by security context."
        ),
    )

    def shown(self) -> dict[str, str]:
        """Give every setting by field name as text fit for a log: as it would be set, masked, or `unset`."""
        return {name: SETTINGS[name].mask(write_value(getattr(self, name))) for name in SETTINGS}

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={text!r}' for name, text in self.shown().items())})"


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {f.name: f.metadata["setting"] for f in fields(Settings)}
)


def read_settings(environ: Mapping[str, str], **overrides: object) -> tuple[Settings, tuple[str, ...]]:
    """Read all settings; give them with warnings, each a sentence for the log that says what to do.

    `overrides` come from the command line and go before the environment: by field name, as text or as the field's
    own type; None is not given.

    Raises:
        StartupError: names every setting that cannot be used, its value (masked where secret), what is expected.
    """
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    sources = {name: (setting.env, _from_environ(environ, setting.env)) for name, setting in SETTINGS.items()}
    for name, value in overrides.items():
        if value is not None:
            text = value.reveal() if isinstance(value, Secret) else write_value(value)
            sources[name] = (f"--{name.replace('_', '-')}", text)
    for name, (source, text) in sources.items():
        try:
            if text:
                values[name] = SETTINGS[name].read(text)
        except ValueError as error:
            problems[name] = f"{source} is {SETTINGS[name].mask(text)!r}; {error}"
    warnings = tuple(_adopt_database(environ, values))
    settings = Settings(**values)
    problems |= {name: problem for name, problem in _conflicts(settings) if name not in problems}
    if problems:
        raise StartupError("\n  ".join(["These settings cannot be used:", *problems.values()]))
    return settings, (*warnings, *_warnings(settings, environ))
