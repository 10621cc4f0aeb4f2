"""The endpoints of the whole API, including those of compatible products."""

from registry.api.openapi import api_paths, list_endpoints
from registry.compat.mcpmesh.openapi import MCPMESH_PATHS


def all_endpoints() -> list[str]:
    """Return every endpoint as `METHOD /path`."""
    return list(list_endpoints(api_paths(MCPMESH_PATHS)))
