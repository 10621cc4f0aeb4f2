"""The endpoints of the whole API, with those of the products that it is compatible with."""

from registry.api.openapi import list_endpoints
from registry.compat.mcpmesh.openapi import MCPMESH_PATHS


def all_endpoints() -> list[str]:
    """Return every endpoint as `METHOD /path`."""
    return list_endpoints(MCPMESH_PATHS)
