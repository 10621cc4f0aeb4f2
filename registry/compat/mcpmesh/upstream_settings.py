"""Settings of mcp-mesh's own registry that have no effect here."""

from collections.abc import Iterator, Mapping
from typing import Final

_TLS_PREFIX: Final = "MCP_MESH_TLS_"
_TLS_MODE: Final = "MCP_MESH_TLS_MODE"
_ADMIN_PORT: Final = "MCP_MESH_ADMIN_PORT"
_OUR_ADMIN_PORT: Final = "REGISTRY_ADMIN_PORT"
_PUBLIC_URL_PREFIX: Final = "MCP_MESH_PUBLIC_URL_PREFIX"


def find_ignored_settings(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning about each setting of mcp-mesh's registry that an operator may rely on and that is ignored."""
    tls = [name for name in sorted(environ) if name.startswith(_TLS_PREFIX) and environ[name]]
    if tls and environ.get(_TLS_MODE, "auto") != "off":
        yield (
            f"{', '.join(tls)}: this registry serves plain HTTP and ignores these; a later release has "
            "REGISTRY_TLS_CERT, REGISTRY_TLS_KEY and REGISTRY_TLS_CLIENT_CA; until then use a proxy that serves TLS, "
            f"or set {_TLS_MODE}=off"
        )
    if environ.get(_ADMIN_PORT, "0") not in ("", "0") and not environ.get(_OUR_ADMIN_PORT):
        yield f"{_ADMIN_PORT} is ignored, so /admin is served on the API port; set {_OUR_ADMIN_PORT} instead"
    if environ.get(_PUBLIC_URL_PREFIX):
        yield f"{_PUBLIC_URL_PREFIX} is ignored: GET /a2a/agents lists the paths of surfaces without URLs"
