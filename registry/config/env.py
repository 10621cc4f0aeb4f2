"""Load settings from the environment: all errors are reported together, suspicious settings cause warnings."""

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from registry.config.descriptors import RESERVED_DESCRIPTORS, descriptor_limit, max_connections
from registry.config.settings import SETTINGS, Setting, Settings
from registry.config.value_types import Secret, format_value, mask_all
from registry.errors import StartupError
from registry.spelling import NearNames

# Kubernetes sets these variables in every pod if the namespace has a Service `registry` or `registry-…`.
_KUBERNETES_SERVICE_VARIABLE: Final = re.compile(
    r"REGISTRY_(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
# Names under which other programs take the same settings.
_OTHER_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {"PORT": "REGISTRY_PORT", "LOG_FORMAT": "REGISTRY_LOG_FORMAT"}
    | dict.fromkeys(("REDIS_HOST", "REDIS_PORT", "REDIS_PASSWORD", "REDIS_USERNAME", "REDIS_DB"), "REDIS_URL")
)
_KUBERNETES_SERVICE_URL: Final = re.compile(r"(tcp|udp|sctp)://")

StartCheck = Callable[[Settings, Collection[str]], Mapping[str, str]]
"""Returns why a process must not start, by field name; the second argument names the fields with invalid values."""


def load_settings(
    environ: Mapping[str, str], checks: Iterable[StartCheck] = (), /, **overrides: object
) -> tuple[Settings, tuple[str, ...]]:
    """Return all settings, and warnings, each a sentence for the log with the advised action.

    `overrides` are options of the command line by field name, as text or as a value of the field's type; they take
    precedence over the environment. None means that the option was not given. Raises StartupError that lists
    every invalid setting with its value (masked if secret) and the expected format, and all problems of `checks`.
    """
    values: dict[str, Any] = {}
    problems: dict[str, str] = {}
    sources = {name: (setting.env, _environ_text(environ, setting)) for name, setting in SETTINGS.items()}
    for name, value in overrides.items():
        if value is not None:
            text = value.reveal() if isinstance(value, Secret) else format_value(value)
            sources[name] = (f"--{name.replace('_', '-')}", text)
    for name, (source, text) in sources.items():
        try:
            if text:
                values[name] = SETTINGS[name].parse(text)
        except ValueError as error:
            problems[name] = f"{source} is {SETTINGS[name].mask(text)!r}; {error}"
    warnings = tuple(_apply_database_path(environ, values))
    given = {SETTINGS[name].env for name, (_, text) in sources.items() if text}
    settings = Settings(**values)
    for check in (_find_conflicts, *checks):
        problems |= check(settings, problems)
    if problems:
        raise StartupError("\n  ".join(["Invalid settings:", *problems.values()]))
    return settings, (*warnings, *_find_near_names(environ, given), *_find_warnings(settings, environ))


def _environ_text(environ: Mapping[str, str], setting: Setting) -> str:
    text = environ.get(setting.env, "")
    if setting.mask is mask_all:  # a blank may be part of a secret; its parser decides
        return text
    return "" if _is_kubernetes_service_variable(setting.env, text) else text.strip()


def _is_kubernetes_service_variable(name: str, text: str) -> bool:
    return bool(
        _KUBERNETES_SERVICE_VARIABLE.fullmatch(name) or (name.endswith("_PORT") and _KUBERNETES_SERVICE_URL.match(text))
    )


def _apply_database_path(environ: Mapping[str, str], values: dict[str, Any]) -> Iterator[str]:
    """Default the data directory to the folder of DATABASE_PATH; yield one warning about all DATABASE_ variables."""
    names = [name for name in sorted(environ) if name.startswith("DATABASE_") and environ[name]]
    if not names:
        return
    path = Path(environ.get("DATABASE_PATH") or ":memory:")
    if "redis_url" in values:
        advice = "REDIS_URL is used and these are ignored; remove them"
    elif "data_dir" in values:
        advice = "REGISTRY_DATA_DIR is used and these are ignored; remove them"
    elif path.name == ":memory:":
        advice = "these are ignored; set REDIS_URL for a shared Redis, or REGISTRY_DATA_DIR for the embedded one"
    else:
        values["data_dir"] = path.parent.absolute()
        advice = (
            "the directory of DATABASE_PATH is used as data directory; "
            f"set REGISTRY_DATA_DIR={path.parent} instead, or REDIS_URL for a shared Redis, and remove them"
        )
    yield f"{', '.join(names)}: the store is Redis, not a database; {advice}"


def _find_conflicts(settings: Settings, invalid_names: Collection[str]) -> dict[str, str]:
    """Return the errors of settings that contradict each other, by field name; skip the fields in `invalid_names`."""
    conflicts = {}
    shown = settings.masked()
    for lower, upper in (("retry_period", "renew_deadline"), ("renew_deadline", "lease_duration")):
        if not {lower, upper} & {*invalid_names} and getattr(settings, lower) >= getattr(settings, upper):
            limit = f"{SETTINGS[upper].env}, which is {shown[upper]!r}"
            conflicts[lower] = f"{SETTINGS[lower].env} is {shown[lower]!r}; expected less than {limit}"
    for name, other in (("metrics_port", "port"), ("admin_port", "port"), ("admin_port", "metrics_port")):
        port = getattr(settings, name)
        if port and port == getattr(settings, other) and other not in invalid_names:
            conflicts[name] = (
                f"{SETTINGS[name].env} is {shown[name]!r}; expected another port than {SETTINGS[other].env}"
            )
    if settings.connections is not None and settings.connections > max_connections():
        conflicts["connections"] = (
            f"REGISTRY_CONNECTIONS is {shown['connections']!r}; expected at most {max_connections()}: "
            f"the process may open {descriptor_limit()} files, of which {RESERVED_DESCRIPTORS} are reserved; "
            "raise that limit (ulimit -n)"
        )
    return conflicts


def _find_near_names(environ: Mapping[str, str], given: Collection[str]) -> Iterator[str]:
    """Yield a warning for each variable that probably stands for a setting without the prefix `REGISTRY_`.

    `given` are the settings that are set: the other variable may belong to another program then.
    """
    known = NearNames(setting.env for setting in SETTINGS.values())
    for name in sorted(environ):
        nearest = _OTHER_NAMES.get(name) or known.find(name)
        if (
            nearest not in {None, name, *given}
            and environ[name]
            and not name.startswith("REGISTRY_")
            and not _KUBERNETES_SERVICE_URL.match(environ[name])
        ):
            yield f"{name} is not a setting and is ignored; did you mean {nearest}?"


def _find_warnings(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    known_names = sorted(setting.env for setting in SETTINGS.values())
    near_names = NearNames(known_names)
    for name in sorted(environ):
        if (
            name.startswith("REGISTRY_")
            and name not in known_names
            and not _is_kubernetes_service_variable(name, environ[name])
        ):
            short = name.removeprefix("REGISTRY_")
            nearest = near_names.find(short) or next(iter(difflib.get_close_matches(name, known_names, n=1)), None)
            advice = f"did you mean {nearest}?" if nearest else "remove it"
            yield f"{name} is not a setting and is ignored; {advice}"
    if settings.redis_url is None and settings.redis_password_file is not None:
        yield "REGISTRY_REDIS_PASSWORD_FILE is ignored, the embedded Redis has no password; set REDIS_URL, or remove it"
    if settings.redis_url is None and settings.write_acks:
        yield "REGISTRY_WRITE_ACKS makes every write fail: the embedded Redis has no replicas; set REDIS_URL"
    if settings.encryption_key is not None:
        yield "ENCRYPTION_KEY is set, but it is not used yet; use rediss:// and encrypt the disk of Redis"
