"""The start rule for addresses that other machines reach: a credential, or REGISTRY_OPEN."""

from collections.abc import Collection, Mapping
from typing import Final

from registry.config.settings import SETTINGS, Settings
from registry.config.value_types import is_loopback

CREDENTIALS: Final = ("auth_token",)
"""The settings that make the registry check its callers; one of them is enough."""
INSECURE_REASONS: Final = ("open", "sample_token")
"""The reasons why strangers may use a registry, labels of the metric `mcp_registry_insecure`."""
# Anyone can read these tokens, in this repository or in the guides from which it was built.
_SAMPLE_TOKENS: Final = frozenset({"change-me", "dev-token-change-in-production"})
_MIN_TOKEN_BYTES: Final = 16


def find_missing_credential(settings: Settings, invalid_names: Collection[str]) -> Mapping[str, str]:
    """Return why a registry must not listen on its address, by the name of a field.

    The result is empty on loopback, with a credential or with REGISTRY_OPEN. A credential in `invalid_names` counts,
    because its own error is reported.
    """
    credentials = {name for name in CREDENTIALS if name in invalid_names or getattr(settings, name) is not None}
    if credentials or settings.open or is_loopback(settings.host):
        return {}
    remedies = ", ".join(SETTINGS[name].env for name in CREDENTIALS)
    return {
        "open": f"Other machines may reach {settings.host}, and no credential is required; set {remedies}, "
        "or REGISTRY_OPEN=true, which lets every caller read and change everything, or REGISTRY_HOST=127.0.0.1"
    }


def find_insecurities(settings: Settings) -> Mapping[str, str]:
    """Return a warning for each reason why strangers may use this registry, empty if none applies."""
    if is_loopback(settings.host):
        return {}
    if all(getattr(settings, name) is None for name in CREDENTIALS):
        warning = f"Everyone who reaches {settings.host} may read and change everything (REGISTRY_OPEN); set AUTH_TOKEN"
        return {"open": warning}
    token = settings.auth_token.reveal() if settings.auth_token is not None else None
    if token is not None and (len(token) < _MIN_TOKEN_BYTES or token in _SAMPLE_TOKENS):
        advice = "replace it with the output of `openssl rand -hex 24`"
        return {"sample_token": f"AUTH_TOKEN is shorter than {_MIN_TOKEN_BYTES} bytes, or printed in a guide; {advice}"}
    return {}
